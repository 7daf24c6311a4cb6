"""``python -m HematomaExpansionLib.cli.worker``: the command line for a program that waits at the other end.

Progress is printed as JSON lines, after one that tells the number of the process: where it hangs, it can be killed
behind the launcher too. The process ends when its standard input does: a window that closes, crashes or cancels
leaves nothing at work, also where a launcher stands between the two.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from .main import main


def _end_with_input() -> None:
    # Not through sys.stdin: its lock, held by this thread, would abort the interpreter when it ends.
    while os.read(0, 4096):
        pass
    os._exit(130)


if __name__ == "__main__":
    print(json.dumps({"process": os.getpid()}), flush=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main([*sys.argv[1:], "--json-progress"]))
