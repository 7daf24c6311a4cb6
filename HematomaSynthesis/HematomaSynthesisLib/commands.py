"""The command ``hematoma simulate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from HematomaExpansionLib.command_options import Commands
from HematomaExpansionLib.errors import InputError


def add_commands(commands: Commands) -> None:
    """Add ``simulate`` to the command line."""
    parser = commands.add_parser("simulate", help="make paired simulated patients whose truth is known")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="cohort folder")
    parser.add_argument("-n", "--number", type=int, required=True, metavar="N", help="how many patients")
    parser.add_argument("--seed", type=int, required=True, help="same seed, same patients")
    parser.add_argument(
        "--anatomy", default="icbm", metavar="icbm|CT", help="ICBM152, or a real scan without a bleed"
    )
    parser.add_argument("--matrix", type=int, default=512, help="pixels a side of a slice (ICBM; default: 512)")
    parser.add_argument("--slice-thickness", type=float, default=5.0, metavar="MM", help="(ICBM; default: 5)")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: one per core)")
    parser.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .simulation.cohort import simulate_cohort
    from .simulation.patient import SimulationOptions

    if arguments.number < 1 or arguments.seed < 0 or arguments.jobs < 0:
        raise InputError("The number of patients must be at least 1, seed and jobs not negative.")
    if not (64 <= arguments.matrix <= 1024 and 0.5 <= arguments.slice_thickness <= 10):
        raise InputError("The matrix must lie between 64 and 1024, the slice thickness between 0.5 and 10 mm.")
    options = SimulationOptions(arguments.matrix, arguments.slice_thickness)
    scan = None
    if arguments.anatomy != "icbm":
        from HematomaExpansionLib.head_ct import read_head_ct

        scan = read_head_ct(Path(arguments.anatomy))
    cases = simulate_cohort(arguments.output, arguments.number, arguments.seed, options, scan, arguments.jobs)
    for _ in tqdm(cases, total=arguments.number, desc="Simulating patients", disable=None):
        pass
    print(f"{arguments.number} simulated patients, seed {arguments.seed}. Research use only.")
    return 0
