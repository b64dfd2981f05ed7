"""The command ``python -m experiments.runner``."""

from __future__ import annotations

import os
import sys

from experiments.runner.loop import main

if __name__ == "__main__":
    code = main(os.environ)
    # Nothing that a library left behind (a thread, a queue, a socket) may keep a runner alive that has finished.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
