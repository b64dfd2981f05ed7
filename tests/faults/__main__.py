"""``python -m tests.faults KILLS``: kill for real, on both databases, and compare what was promised with what is there.

The last line is ``kills: n, lost: l, recorded twice: t``. Exit status 0 if nothing was lost, recorded twice, left over
or too slow; 1 if anything was; 2 if this machine cannot do it. Needs root: it makes a network namespace with a Docker
Engine of its own in it, and takes both away again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.conftest import postgres_programs
from tests.faults.engine import PROJECT, in_namespace, wait_for_death
from tests.faults.nursery import faketime_library

PROGRAMS = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "strace": "strace",
}


def missing() -> list[str]:
    """Return what this machine lacks, each with how to get it."""
    lacks = [] if os.geteuid() == 0 else ["root: run it as root"]
    lacks += [f"{name}: apt-get install {package}" for name, package in PROGRAMS.items() if not shutil.which(name)]
    if postgres_programs() is None:
        lacks.append("PostgreSQL: apt-get install postgresql")
    try:
        faketime_library()
    except FileNotFoundError:
        lacks.append("libfaketime: apt-get install faketime")
    return lacks


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=60)
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of an earlier run")
    parser.add_argument("--json", type=Path, default=None, help="write the report there too")
    parser.add_argument("--no-measures", action="store_true", help="only the kills")
    parser.add_argument("--keep-logs", type=Path, default=None, help="copy the processes' logs there at the end")
    parser.add_argument("--inside", type=Path, default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.kills < 0:
        parser.error(f"{chosen.kills} kills are none. Give a number from 0 on.")
    return chosen


def main() -> int:
    chosen = arguments()
    if chosen.inside is not None:
        code = 1
        try:
            code = inside(chosen)
        except BaseException:
            traceback.print_exc()
        finally:
            end_at_once(code)
    if lacks := missing():
        print("The fault suite needs: " + "; ".join(lacks), file=sys.stderr)
        return 2
    return outside()


def outside() -> int:
    """Make the namespace and the folder, run this command inside, and take both away, however it ended."""
    namespace = f"pr-faults-{os.getpid()}"
    # Not in /tmp, which is often a small tmpfs; overlay needs a real file system below.
    folder = Path(tempfile.mkdtemp(prefix="proverom-faults-", dir="/var/tmp"))
    folder.chmod(0o755)
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    child: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run([*in_namespace(namespace), "ip", "link", "set", "lo", "up"], check=True)
        command = [
            *in_namespace(namespace),
            sys.executable,
            "-m",
            "tests.faults",
            *sys.argv[1:],
            "--inside",
            str(folder),
        ]
        child = subprocess.Popen(command, cwd=PROJECT)
        running = child
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, _: running.send_signal(got))
        return child.wait()
    finally:
        clear_away(folder)
        subprocess.run(["ip", "netns", "del", namespace], check=False)


def clear_away(folder: Path) -> None:
    """End what still lives of the ground in ``folder``, whatever became of the suite, and remove it."""
    ours = str(folder).encode()
    for _ in range(3):
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if ours in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            wait_for_death(pid, 5)
        if not found:
            break
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for mount in sorted(mounts, reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def inside(chosen: argparse.Namespace) -> int:
    from tests.faults.suite import run

    def ended(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ended)
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    faulthandler.register(signal.SIGUSR1)  # where does it hang?
    say(f"{chosen.kills} kills, seed {seed} (SEED={seed} repeats the choices)")
    folder: Path = chosen.inside
    try:
        report = run(folder, chosen.kills, seed, say, measured=not chosen.no_measures)
    finally:
        if chosen.keep_logs:
            keep_logs(folder, chosen.keep_logs)
    if chosen.json:
        chosen.json.write_text(report.as_json(), encoding="utf-8")
    for kind, classes in report.kills.items():
        say(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in classes.items()))
    for measure in report.measures:
        say(str(measure))
    for sentence in (*report.findings.sentences(), *report.broken):
        say(sentence)
    say(f"{report.findings.checked} runs compared, {report.seconds:.0f} s, seed {seed}")
    found = report.findings
    print(f"kills: {report.total}, lost: {len(found.lost) + len(found.endless)}, recorded twice: {len(found.twice)}")
    return 0 if report.good else 1


def end_at_once(code: int) -> None:
    """End with all threads: what one of them still waits for has been taken away."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def keep_logs(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in [*folder.glob("*.log"), *folder.glob("*/*.log"), *folder.glob("*/state/pg/log")]:
        with contextlib.suppress(OSError):
            shutil.copy(log, target / "-".join(log.relative_to(folder).parts))


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
