"""Small cohorts of simulated patients whose rules differ from those that anything here was fitted on.

A forecast that holds only in the world of its own simulator is worth little. Each world changes one rule of
``HematomaSynthesisLib.simulation.causal_model``:

* ``no-signs``: none of the signs is painted, so nothing on the scan points at who expands.
* ``twice-as-many``: two of three patients expand instead of one of three.
* ``stronger``: those who expand grow by 1.8 times as much.

    Testing/.environment/bin/python Testing/benchmarks/worlds.py -o worlds
    hematoma evaluate forecast --cohort worlds/no-signs -o figures-no-signs --folds 2

An interrupted run goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "HematomaExpansion"), str(REPOSITORY / "HematomaSynthesis")]

from HematomaExpansionLib.batch.workers import use_one_torch_thread  # noqa: E402
from HematomaSynthesisLib.simulation import causal_model  # noqa: E402
from HematomaSynthesisLib.simulation.causal_model import SimulationOptions  # noqa: E402
from HematomaSynthesisLib.simulation.cohort import write_case  # noqa: E402
from HematomaSynthesisLib.simulation.patient import simulate_patient  # noqa: E402

_NEVER = 1e-9
_STRONGER, _LARGEST_RATIO, _LARGEST_ML = 1.8, 2.2, 90.0


def _no_signs() -> None:
    for name, (_, odds_ratio) in causal_model.SIGNS.items():
        causal_model.SIGNS[name] = (_NEVER, odds_ratio)


def _twice_as_many() -> None:
    causal_model._EXPANDING_SHARE = 2 / 3


def _stronger() -> None:
    draw = causal_model._draw_growth

    def stronger(expands: bool, propensity: float, swirl: float, baseline_ml: float, random: Any) -> Any:
        growth = draw(expands, propensity, swirl, baseline_ml, random)
        if not expands:
            return growth
        grown = min(_STRONGER * growth.growth_ml, _LARGEST_RATIO * baseline_ml, _LARGEST_ML)
        return replace(growth, growth_ml=grown)

    causal_model._draw_growth = stronger


WORLDS: dict[str, tuple[int, Callable[[], None]]] = {
    "no-signs": (9500, _no_signs),
    "twice-as-many": (9600, _twice_as_many),
    "stronger": (9700, _stronger),
}
"""Name -> seed, and what changes the rule, in the process that simulates."""


def _begin(world: str) -> None:
    use_one_torch_thread()
    WORLDS[world][1]()


def _simulate(world: str, folder: Path, number: int) -> None:
    case = folder / f"{world}-{number:04d}"
    if not (case / "case.json").exists():
        write_case(simulate_patient(WORLDS[world][0], number, SimulationOptions(matrix=256)), case)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the cohorts")
    parser.add_argument("-n", "--number", type=int, default=40, metavar="N", help="patients in each (default: 40)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    arguments = parser.parse_args()
    for world in WORLDS:
        folder = arguments.output / world
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(arguments.jobs, initializer=_begin, initargs=(world,)) as pool:
            made = pool.map(partial(_simulate, world, folder), range(1, arguments.number + 1))
            list(tqdm(made, total=arguments.number, desc=world, disable=None))


if __name__ == "__main__":
    main()
