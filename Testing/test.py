"""Formatting, lint, types and tests: ``python3 Testing/test.py [--slow] [pytest arguments]``.

The test files are distributed over the cores; ``-n 0`` runs them one after another.
"""

from __future__ import annotations

import os
import sys

from environment import python_with, run

_MAX_WORKERS = 4  # each may need about 2 GiB


def main(arguments: list[str]) -> int:
    """Run every check; stop at the first that fails."""
    slow = "--slow" in arguments
    chosen = [argument for argument in arguments if argument != "--slow"]
    cores = os.cpu_count() or 1
    workers = min(cores, _MAX_WORKERS)
    # A file's tests share what they make; ``conftest.py`` puts the long files first.
    side_by_side = ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder")
    # Threads of several workers that compete for the same cores take several times as long.
    os.environ.setdefault("OMP_NUM_THREADS", str(cores // workers))
    checks = (
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "ruff", "check", "."),
        ("-m", "mypy"),
        ("-m", "pytest", *side_by_side, *([] if slow else ["-m", "not slow"]), *chosen),
    )
    python = python_with("requirements.txt", "requirements-slicer.txt")
    for check in checks:
        print("›", " ".join(check[1:]), flush=True)
        status = run(python, *check)
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
