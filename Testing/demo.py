"""Predict the expansion of the sample patient's hematoma: ``python3 Testing/demo.py [DIR]``."""

from __future__ import annotations

import sys
from pathlib import Path

from environment import REPOSITORY, TESTING, python_with, run

SAMPLE = REPOSITORY / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"


def main(arguments: list[str]) -> int:
    """Predict, and leave the result in the folder given, or in Testing/output/demo."""
    output = Path(arguments[0]).resolve() if arguments else TESTING / "output" / "demo"
    python = python_with("requirements.txt")
    print("Sample: a simulated patient, baseline CT.", flush=True)
    return run(python, "-m", "HematomaExpansionLib", "predict", "-i", str(SAMPLE), "-o", str(output))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
