"""The commands ``hematoma simulate``, ``distributions``, ``synthesize`` and ``export-pairs``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from HematomaExpansionLib.cli.option_rules import Takes, When, check_options
from HematomaExpansionLib.cli.options import (
    Commands,
    add_cohort,
    add_command,
    add_export,
    add_json_progress,
    add_label,
    add_output,
    finite,
    reporting,
)
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.folders import check_output_folder

_ONE_CASE = When("without --cohort", lambda given: given.cohort is None)
_SYNTHESIZE = (
    Takes("synthesize", "input mask followup output source onset_hours", (_ONE_CASE,)),
    Takes("synthesize", "label", (_ONE_CASE, When("with --mask", lambda given: given.mask is not None))),
    Takes(
        "synthesize",
        "followup_mask",
        (_ONE_CASE, When("with --followup", lambda given: given.followup is not None)),
    ),
    Takes(
        "synthesize",
        "followup_label",
        (When("with --followup-mask", lambda given: given.followup_mask is not None),),
    ),
)


def add_commands(commands: Commands) -> None:
    """Add them to the command line."""
    parser = add_command(commands, "simulate", "make simulated patients: pairs of scans whose truth is known")
    add_output(parser, "DIR", "cohort folder")
    parser.add_argument("-n", "--number", type=int, required=True, metavar="N", help="number of patients")
    parser.add_argument(
        "--seed", type=int, required=True, help="random seed: the same seed gives the same patients"
    )
    parser.add_argument(
        "--anatomy",
        default="icbm",
        metavar="icbm|CT|DIR",
        help="the head: varied from the ICBM152 average (default), a real scan without a bleed, or a "
        "folder with several such scans, which serve in turn",
    )
    parser.add_argument(
        "--single",
        action="store_true",
        help="make single scans in place of pairs, with the kind of blood in every voxel, to train and test a "
        "segmentation: with and without a hematoma, with blood elsewhere, and with artifacts",
    )
    parser.add_argument(
        "--findings",
        metavar="NAME,NAME|none",
        help="what the single scans may show (with --single; default: everything there is)",
    )
    parser.add_argument(
        "--always", metavar="NAME,NAME", help="findings that every single scan shows (with --single)"
    )
    parser.add_argument(
        "--matrix", type=int, default=512, metavar="N", help="pixels per side of a slice (ICBM only; default: 512)"
    )
    parser.add_argument(
        "--slice-thickness", type=finite, metavar="MM", help="slice thickness (ICBM only; default: a mixture)"
    )
    parser.add_argument(
        "--noise", type=finite, metavar="HU", help="standard deviation of the noise (ICBM only; default: random)"
    )
    parser.add_argument(
        "--site", choices=["deep", "lobar", "cerebellar"], help="site of the bleed (default: random)"
    )
    parser.add_argument(
        "--volume", type=finite, metavar="ML", help="volume of the baseline hematoma (default: random)"
    )
    parser.add_argument(
        "--growth",
        type=finite,
        metavar="ML",
        help="growth until the follow-up, negative if the hematoma shrinks (default: random)",
    )
    parser.add_argument(
        "--irregularity",
        type=finite,
        metavar="FRACTION",
        help="irregularity of the margin, as a fraction of the radius (default: random)",
    )
    add_json_progress(parser)
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="number of processes (default: one per core)"
    )
    parser.set_defaults(run=_simulate)
    parser = add_command(commands, "distributions", "compare a simulated cohort with published figures")
    add_cohort(parser)
    add_output(parser, "DIR", "folder for the picture")
    parser.set_defaults(run=_distributions)
    _add_synthesize(commands)
    text = "write a case for training from variants made in Slicer"
    add_export(commands, "export-pairs", text, "case folder to write", _export_pairs)


def _export_pairs(arguments: argparse.Namespace) -> int:
    from .variant_folders import OWN_CASE, make_case_of_parts

    check_output_folder(arguments.output, OWN_CASE)
    with reporting(arguments.json_progress) as progress:
        make_case_of_parts(arguments.input, arguments.output, progress)
        progress("done", 1.0)
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from HematomaExpansionLib.scan.head_ct import read_head_ct

    from .simulation.causal_model import SimulationOptions
    from .simulation.cohort import simulate_cohort
    from .simulation.heads import heads_in

    if arguments.number < 1 or arguments.seed < 0 or arguments.jobs < 0:
        raise InputError("The number of patients must be at least 1; --seed and --jobs must not be negative.")
    if not 64 <= arguments.matrix <= 1024:
        raise InputError("The matrix must lie between 64 and 1024.")
    for title, value, (low, high) in (
        ("slice thickness in mm", arguments.slice_thickness, (0.5, 10.0)),
        ("noise in HU", arguments.noise, (0.0, 20.0)),
        ("baseline volume in mL", arguments.volume, (1.0, 100.0)),
        ("growth in mL", arguments.growth, (-20.0, 80.0)),
        ("irregularity", arguments.irregularity, (0.0, 0.35)),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"The {title} must lie between {low:g} and {high:g}.")
    if arguments.single:
        return _simulate_scans(arguments)
    if arguments.findings is not None or arguments.always is not None:
        raise InputError("--findings and --always belong to single scans: add --single, or leave them out.")
    options = SimulationOptions(
        matrix=arguments.matrix,
        slice_mm=arguments.slice_thickness,
        site=arguments.site,
        volume_ml=arguments.volume,
        irregularity=arguments.irregularity,
        growth_ml=arguments.growth,
        noise_hu=arguments.noise,
    )
    heads = [] if arguments.anatomy == "icbm" else heads_in(Path(arguments.anatomy))
    notes = read_head_ct(heads[0]).warnings if len(heads) == 1 else ()
    before = {case: case.stat().st_mtime_ns for case in arguments.output.glob("*/case.json")}
    with reporting(arguments.json_progress) as progress:
        cases = list(
            simulate_cohort(
                arguments.output, arguments.number, arguments.seed, options, heads, arguments.jobs, progress
            )
        )
        progress("done", 1.0)
    if not arguments.json_progress:
        for warning in notes:
            print(f"Note: {warning}")
        kept = sum(before.get(case / "case.json") == (case / "case.json").stat().st_mtime_ns for case in cases)
        told = f"{_counted(arguments.number, 'simulated patient')}, seed {arguments.seed}"
        told += f"; {kept} of them had been made before" if kept else ""
        print(f"{told}. Research use only.")
    return 0


def _simulate_scans(arguments: argparse.Namespace) -> int:
    from .simulation.heads import heads_in
    from .simulation.labelled_scan import FINDINGS, HEMATOMA, ScanOptions
    from .simulation.scan_cohort import simulate_scans

    of_pairs = ("slice_thickness", "noise", "site", "volume", "growth", "irregularity")
    if any(getattr(arguments, name) is not None for name in of_pairs):
        raise InputError("Single scans vary all by themselves: of the options for pairs they take --matrix alone.")
    chosen = None if arguments.findings == "none" else _findings(arguments.findings, FINDINGS)
    always = _findings(arguments.always, FINDINGS) if arguments.always is not None else frozenset()
    options = ScanOptions(matrix=arguments.matrix, findings=(chosen or frozenset()) | always, always=always)
    if HEMATOMA in always:
        options = replace(options, hematoma_share=1.0)
    heads = [] if arguments.anatomy == "icbm" else heads_in(Path(arguments.anatomy))
    with reporting(arguments.json_progress) as progress:
        made = simulate_scans(
            arguments.output, arguments.number, arguments.seed, options, heads, arguments.jobs, progress
        )
        count = len(list(made))
        progress("done", 1.0)
    if not arguments.json_progress:
        print(f"{_counted(count, 'simulated scan')}, seed {arguments.seed}. Research use only.")
    return 0


def paint_heads(heads: Path, output: Path, per_head: int, seed: int) -> list[Path]:
    """Cases of real head CTs without blood, each as it is and ``per_head`` times with simulated bleeds; they are
    written below ``output``.

    Raises:
        InputError: the folder holds no heads.
    """
    from .simulation.heads import heads_in
    from .simulation.labelled_scan import ScanOptions
    from .simulation.scan_cohort import simulate_scans

    found = heads_in(heads)
    with reporting() as progress:
        return list(
            simulate_scans(output, (per_head + 1) * len(found), seed, ScanOptions(), found, progress=progress)
        )


def _findings(text: str | None, known: frozenset[str]) -> frozenset[str]:
    """The named findings; all of them if none is named."""
    names = known if text is None else frozenset(text.split(","))
    if unknown := sorted(names - known):
        raise InputError(f"There is no finding {unknown[0]!r}: choose from {', '.join(sorted(known))}.")
    return names


def _distributions(arguments: argparse.Namespace) -> int:
    from .simulation.distributions import describe_cohort

    figures, failed = describe_cohort(arguments.cohort, arguments.output)
    print(json.dumps(figures, indent=2))
    for sentence in failed:
        print(f"Note: {sentence}", file=sys.stderr)
    return 0


def _add_synthesize(commands: Commands) -> None:
    parser = add_command(commands, "synthesize", "make synthetic variants of a baseline for training")
    parser.add_argument("-i", "--input", type=Path, metavar="CT", help="the baseline scan")
    parser.add_argument("--mask", type=Path, help="mask of its hematoma")
    add_label(parser)
    parser.add_argument("--followup", type=Path, metavar="CT", help="the follow-up scan, kept as it is")
    parser.add_argument("--followup-mask", type=Path, metavar="MASK", help="mask of its hematoma")
    add_label(parser, "--followup-mask")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="case folder to write")
    parser.add_argument(
        "--source",
        help="whose scans these are, as recorded in the case (default: what their cohort says, else patients)",
    )
    parser.add_argument(
        "--onset-hours", type=finite, metavar="H", help="hours from symptom onset to the baseline scan"
    )
    parser.add_argument(
        "--cohort", type=Path, metavar="DIR", help="make variants of all cases of a cohort instead of one"
    )
    parser.add_argument("--variants", type=int, default=5, metavar="N", help="number of variants (default: 5)")
    parser.add_argument(
        "--family",
        choices=["erosion", "dilation", "shape"],
        default="erosion",
        help="kind of change: smaller, larger, or a smooth random change of shape (default: erosion)",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        choices=[1, 2],
        help="how many times the change is applied (default: once or twice, at random)",
    )
    parser.add_argument(
        "--in-plane",
        action="store_true",
        help="change the hematoma only within slices, for scans whose slices are thick",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed: the same seed gives the same variants")
    add_json_progress(parser)
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="number of processes for a cohort (default: one per core)"
    )
    parser.set_defaults(run=_synthesize)


def _synthesize(arguments: argparse.Namespace) -> int:
    from HematomaExpansionLib.training.data.case_description import read_description
    from tqdm import tqdm

    from .target_shapes import Family, TargetOptions
    from .variant_folders import OWN_CASE, known_of, make_case, synthesize_case, synthesize_cohort

    check_options(_SYNTHESIZE, "synthesize", arguments, {})
    if not 1 <= arguments.variants <= 20 or arguments.seed < 0 or arguments.jobs < 0:
        raise InputError(
            "The number of variants must be between 1 and 20; --seed and --jobs must not be negative."
        )
    options = TargetOptions(Family(arguments.family), arguments.iterations or 0, arguments.in_plane)
    if arguments.cohort is not None:
        cases = synthesize_cohort(arguments.cohort, arguments.variants, options, arguments.seed, arguments.jobs)
        done = list(tqdm(cases, desc="Making variants", disable=None))
        for case in done:
            if case.reason:
                print(f"{case.case}: left unchanged. {case.reason}")
        changed = [case for case in done if not case.reason]
        told = f"{_counted(sum(case.variants for case in changed), 'variant')} in {_counted(len(changed), 'case')}"
        had_them, left = sum(case.had_them for case in changed), len(done) - len(changed)
        told += f", {had_them} of which had them already" if had_them else ""
        told += f"; {_counted(left, 'case')} left unchanged" if left else ""
        print(f"{told}. Research use only.")
        return 0
    files = {
        "baseline": arguments.input,
        "baseline-mask": arguments.mask,
        "followup": arguments.followup,
        "followup-mask": arguments.followup_mask,
    }
    if arguments.input is None or arguments.mask is None or arguments.output is None:
        raise InputError(
            "Give a scan with -i, its hematoma's mask with --mask and a folder with -o, or give a --cohort."
        )
    check_output_folder(arguments.output, OWN_CASE)
    labels = {"baseline-mask": arguments.label, "followup-mask": arguments.followup_label}
    given = {name: path for name, path in files.items() if path is not None}
    said = {"source": arguments.source, "onset_hours": arguments.onset_hours}
    known = {**known_of(given), **{name: value for name, value in said.items() if value is not None}}
    make_case(list(given.items()), arguments.output, labels=labels, known=known)
    with reporting(arguments.json_progress) as progress:
        case = synthesize_case(arguments.output, arguments.variants, options, arguments.seed, progress)
    if not arguments.json_progress:
        for warning in read_description(arguments.output).get("warnings", ()):
            print(f"Note: {warning}")
        print(f"{_counted(case.variants, 'variant')}. Research use only.")
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
