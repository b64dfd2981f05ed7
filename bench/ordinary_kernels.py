"""Start ordinary kernels and say their process ids; run by the peer's Python. Arguments: how many, and the code to run.

Prints one JSON list of process ids once every kernel has run the code, and ends them when standard input closes.
"""

from __future__ import annotations

import json
import sys

from jupyter_client.manager import start_new_kernel


def main(count: int, code: str) -> None:
    started = [start_new_kernel() for _ in range(count)]
    try:
        pids = []
        for manager, client in started:
            client.execute_interactive(code, timeout=120, output_hook=lambda _: None)
            pids.append(getattr(manager.provisioner, "pid", None))  # of an ordinary kernel's provisioner
        print(json.dumps(pids), flush=True)
        sys.stdin.read()
    finally:
        for manager, client in started:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
