"""What several commands of the command line share: their options, their progress, their tables."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import InputError
from ..forecast.evidence import LIKELIHOOD_RATIOS
from ..forecast.forecast import BRAIN, EVIDENCE, RISK_MODEL
from ..measures.expansion import SELECTABLE, ExpansionDefinition
from ..models.package import ModelPackage, find_package
from ..progress import BarProgress, JsonProgress, Progress
from ..scan.box import Box

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = object


THRESHOLD_SEGMENTER = "threshold"


def add_command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """A command whose ``text`` says what it does, in the list of all commands and in its own help."""
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def add_export(
    commands: Commands, name: str, text: str, result: str, run: Callable[[argparse.Namespace], int]
) -> None:
    """A command that only Slicer starts, to write a folder of what is in its scene; ``result`` is its help."""
    parser = add_command(commands, name, text)
    add_input(parser, "DIR", "folder that Slicer hands over")
    add_output(parser, "DIR", result)
    add_json_progress(parser)
    parser.set_defaults(run=run)


def add_scan(parser: argparse.ArgumentParser) -> None:
    """The option for the baseline scan."""
    add_input(parser, "CT", "DICOM folder, or NIfTI, NRRD or MHA file")


def add_input(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """The option for what a command reads."""
    parser.add_argument("-i", "--input", type=Path, required=True, metavar=metavar, help=text)


def add_output(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """The option for what a command writes."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=metavar, help=text)


def add_cohort(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The option for a cohort."""
    parser.add_argument(
        "--cohort", type=Path, required=required, metavar="DIR", help="cohort, a folder with one folder per case"
    )


def add_label(parser: argparse.ArgumentParser, mask: str = "--mask") -> None:
    """The option for the hematoma's label in a mask; named after the mask's own option."""
    parser.add_argument(
        f"{mask.removesuffix('mask')}label",
        metavar="NUMBER|NAME",
        help="number or name of the label or segment that is the hematoma, if the mask has several",
    )


def finite(text: str) -> float:
    """A number, for ``argparse``: Python itself takes "nan" and "inf" for numbers too."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def add_segmenter(parser: argparse.ArgumentParser, of: str = "") -> None:
    """The option for the way a hematoma is found; ``of``: the beginning of its help."""
    parser.add_argument(
        "--segmenter",
        metavar="NAME|PATH",
        help=f"{of}model that finds the hematoma (default: the shipped one), or {THRESHOLD_SEGMENTER!r}",
    )


def find_segmenter(name: str | None) -> ModelPackage | None:
    """The package for ``--segmenter``; None for the threshold method."""
    return None if name == THRESHOLD_SEGMENTER else find_package(name, "segmentation")


def add_box(parser: argparse.ArgumentParser) -> None:
    """The option for the box in which a model such as MedSAM looks."""
    parser.add_argument(
        "--box",
        metavar="X0,Y0,Z0,X1,Y1,Z1",
        help="two opposite corners of the box in which a segmenter such as MedSAM looks, in mm in the scan's LPS "
        "coordinates: x grows to the patient's left, y to the back, z to the head (default: around what the "
        "shipped model finds)",
    )
    # Otherwise argparse takes a box whose first number is below zero for an option.
    parser._negative_number_matcher = re.compile(r"-\.?\d")


def given_box(arguments: argparse.Namespace) -> Box | None:
    """What ``--box`` says.

    Raises:
        InputError: it is no box.
    """
    return None if arguments.box is None else Box.of_text(arguments.box)


def add_risk(parser: argparse.ArgumentParser) -> None:
    """The options for what tells whether a hematoma expands."""
    parser.add_argument(
        "--risk",
        default=EVIDENCE,
        metavar=f"{EVIDENCE}|{BRAIN}|NAME|PATH",
        help=f"what the probability of expansion comes from: the forecast's {EVIDENCE} (default), the published "
        f"probability of the {BRAIN.upper()} score, or, for research, a risk model",
    )
    add_likelihood_ratio(parser)


def add_likelihood_ratio(parser: argparse.ArgumentParser) -> None:
    """The option for a sign that the evidence counts as well."""
    parser.add_argument(
        "--likelihood-ratio",
        choices=list(LIKELIHOOD_RATIOS),
        help="count one of these signs too, by its published likelihood ratio, a combination never validated "
        "(default: none)",
    )


def add_forecast(parser: argparse.ArgumentParser, of: str = "") -> None:
    """The option for the forecast package; ``of``: the beginning of its help."""
    parser.add_argument(
        "--forecast",
        metavar="NAME|PATH",
        help=f"{of}model that tells whether hematomas expand and by how much (default: the shipped one)",
    )


def find_risk(arguments: argparse.Namespace) -> tuple[str, ModelPackage | None]:
    """What ``--risk`` names, and the risk package if it is one.

    Raises:
        InputError: a likelihood ratio was asked of something else than the evidence.
        ModelPackageError: there is no such package.
    """
    check_likelihood_ratio(arguments)
    if arguments.risk in (EVIDENCE, BRAIN):
        return arguments.risk, None
    return RISK_MODEL, find_package(arguments.risk, "risk")


def check_likelihood_ratio(arguments: argparse.Namespace) -> None:
    """Raise ``InputError`` if a likelihood ratio is asked of something else than the evidence."""
    if arguments.likelihood_ratio is not None and arguments.risk != EVIDENCE:
        raise InputError(f"--likelihood-ratio belongs to --risk {EVIDENCE}: leave one of them out.")


def add_device(parser: argparse.ArgumentParser, default: str | None = "auto") -> None:
    """The option for the computing device; without a ``default`` it can be told whether it was given."""
    parser.add_argument(
        "--device",
        default=default,
        metavar="auto|cpu|cuda|cuda:N",
        help="where to compute (default: auto, which uses a GPU if there is one)",
    )


def add_definition(parser: argparse.ArgumentParser) -> None:
    """The option for when growth counts as expansion."""
    parser.add_argument(
        "--expansion-definition",
        type=ExpansionDefinition,
        choices=SELECTABLE,
        default=ExpansionDefinition.SIX_ML,
        metavar="|".join(definition.value for definition in SELECTABLE),
        help="when growth counts as expansion (default: 6ml)",
    )


def add_json_progress(parser: argparse.ArgumentParser) -> None:
    """The option for a program that waits at the other end."""
    parser.add_argument(
        "--json-progress", action="store_true", help="print progress as JSON lines on standard output"
    )


def reporting(as_json: bool = False) -> AbstractContextManager[Progress]:
    """Progress for the length of a block: JSON lines for a program, a bar for a person."""
    return nullcontext(JsonProgress()) if as_json else BarProgress()


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Label and value in two columns."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")
