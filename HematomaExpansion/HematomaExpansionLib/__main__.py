"""``python -m HematomaExpansionLib`` is the command ``hematoma``."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
