"""A real runner process, real kernels, real notebooks, against a real HTTP server over the in-memory queue."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.model import Reason, Run, RunnerTicket, RunResult, RunState
from experiments.runner.outputs import RESULT_MIME
from experiments.testing import InMemoryRunQueue
from tests.integration.runner_hub import AGENCY, RunnerHub, RunnerProcess, executed, notebook, printed, until

HOSTILE = Path(__file__).parents[1] / "cases" / "hostile"


@pytest.fixture
def queue() -> InMemoryRunQueue:
    queue = InMemoryRunQueue(lease_seconds=3, output_limit_bytes=1024 * 1024)
    queue.add_agency(AGENCY, "nav", max_concurrent=10)
    return queue


@pytest.fixture
def hub(queue: InMemoryRunQueue) -> Iterator[RunnerHub]:
    hub = RunnerHub(queue)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def runner(hub: RunnerHub, tmp_path: Path) -> Iterator[RunnerProcess]:
    runner = RunnerProcess(hub, tmp_path, hub.open_runner())
    yield runner
    if runner.process and runner.process.poll() is None:
        runner.process.kill()
        runner.process.wait()


Finish = Callable[..., tuple[Run, RunResult]]


@pytest.fixture
def finish(hub: RunnerHub, runner: RunnerProcess) -> Finish:
    """Submit a notebook, let the runner execute it, return what is recorded."""

    def finish(data: bytes, **request: object) -> tuple[Run, RunResult]:
        run = hub.submit(data, **request)  # type: ignore[arg-type]
        runner.start()
        assert runner.wait() == 0, runner.log()
        result = hub.queue.result(run.id)
        assert result is not None, runner.log()
        return hub.queue.get(run.id), result

    return finish


def test_a_run_succeeds(finish: Finish, hub: RunnerHub) -> None:
    record = {"kind": "metric", "name": "difference", "value": 2.5, "unit": "pp", "ci": [0.5, 4.5], "better": "higher"}
    data = notebook(
        "import os, json\nprint('alpha er', alpha, navn)",
        f"from IPython.display import display\ndisplay({{'{RESULT_MIME}': {record!r}, 'text/plain': 'x'}}, raw=True)",
        parameters="alpha = 0.1\nnavn = ''",
    )
    run, result = finish(data, parameters={"alpha": 0.25, "navn": '"; import os # æøå'})
    assert (run.state, run.reason, run.error, run.attempt) == (RunState.SUCCEEDED, None, None, 1)
    assert printed(result) == 'alpha er 0.25 "; import os # æøå\n'
    assert [(m.name, m.value, m.unit, m.ci_low, m.ci_high) for m in result.metrics] == [
        ("difference", 2.5, "pp", 0.5, 4.5)
    ]
    assert result.notices == ()
    book = executed(result)
    assert [cell.execution_count for cell in book.cells] == [1, 2, 3, 4]
    assert book.cells[1].metadata.tags == ["injected-parameters"]
    assert [path.rpartition("/")[2] for path in hub.requests if "heartbeat" not in path] == [
        "claim?wait=20",
        "result?more=true",
        "claim?wait=20",
    ]


def test_a_failing_cell_is_reported_with_the_notebook_so_far(finish: Finish) -> None:
    source = "frame = {'a': 1}\nframe['kontor']"
    run, result = finish(notebook("print('before')", source, "print('after')"))
    assert (run.state, run.reason) == (RunState.FAILED, Reason.CELL_FAILED)
    assert run.error is not None
    assert (run.error.name, run.error.message, run.error.source) == ("KeyError", "'kontor'", source)
    assert "\x1b" not in run.error.traceback
    assert "KeyError" in run.error.traceback
    assert executed(result).cells[run.error.cell].source == source
    assert printed(result) == "before\n"


def test_a_run_without_an_end_is_timed_out(finish: Finish) -> None:
    run, result = finish(notebook("print('started')\nwhile True: pass", "print('never')"), timeout_seconds=3)
    assert (run.state, run.reason) == (RunState.TIMED_OUT, Reason.TIME_LIMIT)
    assert printed(result) == "started\n"


def test_a_run_that_swallows_the_interrupt_is_timed_out(finish: Finish) -> None:
    source = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: print('no')"
    run, result = finish(notebook(source, "print('never')"), timeout_seconds=3)
    assert (run.state, run.reason) == (RunState.TIMED_OUT, Reason.TIME_LIMIT)
    assert "never" not in printed(result)


def test_a_running_cell_is_cancelled(hub: RunnerHub, runner: RunnerProcess) -> None:
    run = hub.submit(notebook("print('started')", "import time\nprint('waiting', flush=True)\ntime.sleep(600)"))
    runner.start()
    until(lambda: hub.heartbeats and "waiting" in hub.heartbeats[-1].tail)
    assert hub.heartbeats[-1].cells_done == 1
    assert hub.heartbeats[-1].cells_total == 2
    hub.queue.cancel(run.id)
    assert runner.wait() == 0
    ended = hub.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER)
    assert "started\nwaiting" in printed(hub.queue.result(run.id))


@pytest.mark.parametrize(
    ("case", "reason", "error"),
    [
        ("exit_zero", Reason.KERNEL_DIED, "DeadKernelError"),
        ("segfault", Reason.KERNEL_DIED, "DeadKernelError"),
        ("kill_own_group", Reason.KERNEL_DIED, "DeadKernelError"),
        ("ask_for_input", Reason.ASKED_FOR_INPUT, "StdinNotImplementedError"),
        ("many_open_files", Reason.TOO_MANY_FILES, "OSError"),
        ("exit_three", Reason.CELL_FAILED, "SystemExit"),
        ("raise_keyboard_interrupt", Reason.CELL_FAILED, "KeyboardInterrupt"),
    ],
)
def test_a_hostile_notebook_fails(finish: Finish, case: str, reason: Reason, error: str) -> None:
    run, _ = finish((HOSTILE / f"{case}.ipynb").read_bytes())
    assert (run.state, run.reason) == (RunState.FAILED, reason)
    assert run.error is not None
    assert run.error.name == error
    assert run.error.source.startswith("# hostile")


def test_an_unknown_kernel_fails_the_start(finish: Finish) -> None:
    run, _ = finish(notebook("1"), kernel="no-such-kernel")
    assert (run.state, run.reason) == (RunState.FAILED, Reason.START_FAILED)
    assert run.error is not None
    assert "no-such-kernel" in run.error.message


def test_sys_exit_zero_is_an_end_not_a_failure(finish: Finish) -> None:
    run, result = finish(notebook("import sys\nprint('enough')\nsys.exit(0)", "print('never')"))
    assert run.state is RunState.SUCCEEDED
    assert printed(result).startswith("enough\n")
    assert "never" not in printed(result)


@pytest.mark.parametrize(
    "source",
    [
        "for i in range(200_000): print('linje', i, 'x' * 50)",
        "print('x' * 20_000_000)",
        "from IPython.display import display, HTML\nfor i in range(300): display(HTML('y' * 20_000))",
    ],
    ids=["lines", "one piece", "displays"],
)
def test_a_flood_of_output_is_cut_and_the_run_goes_on(finish: Finish, source: str) -> None:
    record = {"kind": "finding", "text": "Still recorded."}
    after = f"from IPython.display import display\ndisplay({{'{RESULT_MIME}': {record!r}}}, raw=True)"
    run, result = finish(notebook(source, after))
    assert run.state is RunState.SUCCEEDED
    assert len(result.notebook) < 1.3 * 1024 * 1024
    assert result.notices == ("output_cut",)
    assert result.findings == ("Still recorded.",)
    assert "utdata er kuttet her" in printed(result)


def test_the_token_is_nowhere_in_reach_of_the_kernel(finish: Finish, runner: RunnerProcess) -> None:
    source = """
import glob, os
found = []
for path in ["/proc/self/environ", f"/proc/{os.getppid()}/environ", f"/proc/{os.getppid()}/cmdline"]:
    try:
        found.append((path, open(path, "rb").read()))
    except OSError as error:
        found.append((path, repr(error).encode()))
print([name for name in os.environ if name.startswith("PROVEROM")])
print([path for path, data in found if b"SECRET" in data])
"""
    # Root reads everything; what a sandbox's own uid may read is what is asked here.
    runner.token = "SECRET" + runner.token
    ticket_token = runner.token
    hub = runner.hub
    hub.queue.open_runner(_ticket(ticket_token))
    run, result = finish(notebook(source))
    assert run.state is RunState.SUCCEEDED
    lines = printed(result).splitlines()
    assert lines[0] == "[]"
    if os.geteuid() != 0:
        assert lines[1] == "[]"


def test_daemons_are_gone_after_the_run(finish: Finish, tmp_path: Path) -> None:
    pid_file = tmp_path / "daemon.pid"
    source = f"""
import os, subprocess, sys
code = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); " \\
       "open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.run([sys.executable, "-c", code])
import time
while not os.path.exists({str(pid_file)!r}): time.sleep(0.05)
"""
    run, _ = finish(notebook(source))
    assert run.state is RunState.SUCCEEDED
    assert not alive(int(pid_file.read_text()))


def test_as_process_one_the_runner_cannot_be_killed_from_inside(hub: RunnerHub, runner: RunnerProcess) -> None:
    """The way the engines start it. Needs the right to make a namespace of processes."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make a PID namespace. Get it: run the tests as root")
    source = "import os, signal\n"
    source += "for s in (signal.SIGKILL, signal.SIGSTOP): os.kill(1, s)\nprint('still here')"
    run = hub.submit(notebook(source))
    runner.start(before=unshare)
    assert runner.wait() == 0
    assert hub.queue.get(run.id).state is RunState.SUCCEEDED
    assert printed(hub.queue.result(run.id)).endswith("still here\n")


def test_nothing_is_left_in_the_temporary_directory(hub: RunnerHub, runner: RunnerProcess, tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    hub.submit(notebook("open('left', 'w').write('x')"))
    runner.start(TMPDIR=str(place))
    assert runner.wait() == 0
    assert list(place.iterdir()) == []


def test_sigterm_ends_the_runner_and_sends_nothing(hub: RunnerHub, runner: RunnerProcess, tmp_path: Path) -> None:
    pid_file = tmp_path / "kernel.pid"
    source = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\nprint('on')\ntime.sleep(600)"
    run = hub.submit(notebook(source))
    process = runner.start()
    until(lambda: hub.heartbeats and "on" in hub.heartbeats[-1].tail)
    process.send_signal(signal.SIGTERM)
    assert runner.wait() == 128 + signal.SIGTERM
    assert hub.reports == []
    assert hub.queue.get(run.id).state is RunState.RUNNING
    assert not alive(int(pid_file.read_text()))


@pytest.mark.parametrize("fault", ["away", "cut"])
def test_a_hub_that_is_away_costs_nothing(hub: RunnerHub, runner: RunnerProcess, fault: str) -> None:
    setattr(hub, fault, True)
    runner.start()
    until(lambda: len(hub.requests) >= 2)
    run = hub.submit(notebook("print('a')", "import time\ntime.sleep(2)\nprint('b')"))
    setattr(hub, fault, False)
    until(lambda: hub.queue.get(run.id).state is RunState.RUNNING)
    until(lambda: hub.heartbeats)
    setattr(hub, fault, True)
    until(lambda: any("/result?" in path for path in hub.requests))
    setattr(hub, fault, False)
    assert runner.wait() == 0, runner.log()
    assert hub.queue.get(run.id).state is RunState.SUCCEEDED
    assert printed(hub.queue.result(run.id)) == "a\nb\n"


def test_a_hub_that_listens_later_is_waited_for(queue: InMemoryRunQueue, tmp_path: Path) -> None:
    hub = RunnerHub(queue)
    hub.start()
    runner = RunnerProcess(hub, tmp_path, hub.open_runner())
    address = hub.url
    hub.stop()
    process = runner.start(PROVEROM_RUNNER_URL=address)
    until(lambda: "waiting for the Hub" in runner.log())
    process.send_signal(signal.SIGTERM)
    assert runner.wait() == 128 + signal.SIGTERM


def test_a_lost_lease_ends_the_runner(hub: RunnerHub, runner: RunnerProcess) -> None:
    run = hub.submit(notebook("import time\ntime.sleep(600)"))
    runner.start()
    until(lambda: hub.heartbeats)
    hub.queue.give_back(run.id, 1, hub.queue.get(run.id).created_at)
    assert runner.wait() == 0
    assert hub.reports == []
    assert hub.queue.get(run.id).state is RunState.QUEUED


@pytest.mark.parametrize("token", ["wrong", "closed"])
def test_a_refused_token_ends_the_runner(hub: RunnerHub, runner: RunnerProcess, token: str) -> None:
    run = hub.submit(notebook("1"))
    if token == "wrong":
        runner.token = "no-such-token"
    else:
        hub.queue.close_runner(hub.queue.runners()[0].id)
    runner.start()
    assert runner.wait() == 0
    assert hub.queue.get(run.id).state is RunState.QUEUED


def test_a_token_file_is_read_and_removed(hub: RunnerHub, runner: RunnerProcess, tmp_path: Path) -> None:
    run = hub.submit(notebook("1"))
    file = tmp_path / "token"
    file.write_text(runner.token + "\n")
    runner.start(PROVEROM_RUN_TOKEN="", PROVEROM_RUN_TOKEN_FILE=str(file))
    assert runner.wait() == 0
    assert hub.queue.get(run.id).state is RunState.SUCCEEDED
    assert not file.exists()


def test_without_credentials_it_is_wrong_use(hub: RunnerHub, runner: RunnerProcess) -> None:
    runner.start(PROVEROM_RUN_TOKEN="")
    assert runner.wait() == 2
    assert "PROVEROM_RUN_TOKEN" in runner.log()


@pytest.mark.parametrize("status", [413, 422])
def test_a_refused_result_ends_the_run_all_the_same(hub: RunnerHub, runner: RunnerProcess, status: int) -> None:
    run = hub.submit(notebook("print('a')"))
    hub.answer_result_with = status
    runner.start()
    assert runner.wait() == 0
    ended = hub.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.FAILED, Reason.BAD_RESULT)
    assert len(hub.reports) == 2


def test_many_runners_at_once_do_not_disturb_each_other(hub: RunnerHub, tmp_path: Path) -> None:
    runs = [hub.submit(notebook(f"print({i})")) for i in range(3)]
    runners = []
    for i in range(3):
        home = tmp_path / str(i)
        home.mkdir()
        runners.append(RunnerProcess(hub, home, hub.open_runner()))
    threads = [threading.Thread(target=lambda r=r: (r.start(), r.wait())) for r in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [printed(hub.queue.result(run.id)) for run in runs] == ["0\n", "1\n", "2\n"]


def alive(pid: int) -> bool:
    """Return whether the process runs; one that is dead and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _ticket(token: str) -> RunnerTicket:
    hashed = hashlib.sha256(token.encode()).hexdigest()
    return RunnerTicket("secret", AGENCY, hashed, "runner-secret", "memory", "sha256:0", datetime.now(UTC))
