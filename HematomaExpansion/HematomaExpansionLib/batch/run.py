"""Predicts many scans, one by one or in parallel: a folder for each, as ``predict`` writes it, and one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HematomaError, InputError, file_fault, is_file_fault
from ..files.csv_tables import write_rows
from ..files.folders import alone_in, check_output_folder, remove_unfinished
from ..output.prediction_folder import PREDICTION, prediction_sources, write_prediction
from ..prediction import PredictionOptions, predict
from ..progress import Progress, Stages, silent
from ..scan.head_ct import read_head_ct
from ..scan.mask_files import read_given_mask
from .case_numbers import keep_case_names
from .cases import RESULTS_FILE, BatchCase
from .rows import UNEXPECTED, WORKER_DIED, CaseRow, failed_row, finished_rows, options_of, predicted_row
from .workers import Workers, available_cores, each_result

if TYPE_CHECKING:
    import torch


_MAX_WORKERS = 4  # an ordinary computer runs out of memory before it runs out of cores

CasePrediction = Callable[[PredictionOptions, Path, BatchCase], CaseRow]
"""Makes the folder of one case below the given one and returns its row; called in a worker."""


def default_jobs(device: torch.device) -> int:
    """As many workers as cores, but no more than fit in an ordinary computer's memory; one on a GPU."""
    return 1 if device.type == "cuda" else min(available_cores(), _MAX_WORKERS)


def predict_case(options: PredictionOptions, output: Path, case: BatchCase) -> CaseRow:
    """Predict one case into its folder in ``output``; whatever goes wrong is reported in its row."""
    stages = Stages()
    try:
        check_output_folder(output / case.name, PREDICTION)
        options = options_of(case, options)
        with stages("read", 0.0):
            scan = read_head_ct(case.scan, subfolders=case.subfolders)
            mask = read_given_mask(case.mask, scan, case.label)
        prediction = predict(scan, options, mask, stages)
        sources = prediction_sources(scan.sha256, case.mask, case.label, options)
        return predicted_row(case, write_prediction(prediction, output / case.name, sources))
    except HematomaError as error:
        reason = str(error)
    except MemoryError:
        reason = WORKER_DIED
    except OSError as error:
        reason = str(file_fault(error)) if is_file_fault(error) else UNEXPECTED
    except Exception:  # its text could name the patient or a file
        reason = UNEXPECTED
    return failed_row(case, reason, stages.timing["total"])


def run_batch(
    cases: Sequence[BatchCase],
    output: Path,
    options: PredictionOptions,
    workers: Workers,
    progress: Progress = silent,
    predict_one: CasePrediction = predict_case,
) -> list[CaseRow]:
    """Predict each case into its folder in ``output`` and return the rows of the table there, in the same order.

    Cases with a result in ``output`` count as finished, so a killed run resumes where it stopped; but those whose
    scan or mask has been replaced since are predicted again. At any time, the table holds the cases that are
    finished.

    Args:
        cases: all with different names.
        output: checked by ``check_batch_folder``.
        options: for all cases; the hours from onset and clinical data are each case's own.
        workers: they are handed at most twice as many cases as they work on at a time.
        progress: called as cases finish.
        predict_one: makes a case's folder and row, in a worker.

    Raises:
        InputError: finished cases were made with other options or have been changed, another run is writing there,
            or the table cannot be written.
    """
    with alone_in(output), _cleaned_up(output):
        keep_case_names({case.place: case.name for case in cases if case.place is not None}, output)
        rows = finished_rows(cases, output, options)
        left = [case for case in cases if case.name not in rows]

        def write() -> None:
            own = [rows[case.name] for case in cases if case.name in rows]
            write_rows(CaseRow, own, output / RESULTS_FILE)

        write()
        progress("cases", len(rows) / len(cases))
        for case, row in each_result(partial(predict_one, options, output), left, workers.open, 2 * workers.jobs):
            rows[case.name] = row or failed_row(case, WORKER_DIED)
            # A spreadsheet may have the table open; that is no reason to lose the remaining cases.
            with suppress(InputError):
                write()
            progress("cases", len(rows) / len(cases))
        write()
    return [rows[case.name] for case in cases]


@contextmanager
def _cleaned_up(output: Path) -> Iterator[None]:
    """Remove what killed runs and dead workers left in the folder, before and after."""
    try:
        remove_unfinished(output)
        yield
    finally:
        remove_unfinished(output)
