"""``python -m HematomaExpansionLib`` is the command ``hematoma``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
