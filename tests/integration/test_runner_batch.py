"""Several runs in one runner process: each finds nothing of another's, and none feels another's fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.model import Reason, RunResult, RunState
from experiments.testing import InMemoryRunQueue
from tests.integration.runner_hub import AGENCY, RunnerHub, RunnerProcess, executed, notebook, printed, until

SWEEP = "01JSWEEP"


@pytest.fixture
def hub() -> Iterator[RunnerHub]:
    queue = InMemoryRunQueue(lease_seconds=6, output_limit_bytes=1024 * 1024)
    queue.add_agency(AGENCY, "nav", max_concurrent=10)
    hub = RunnerHub(queue)
    hub.start()
    yield hub
    hub.stop()


Batch = Callable[..., list[RunResult]]


@pytest.fixture
def batch(hub: RunnerHub, tmp_path: Path) -> Batch:
    """Carry out notebooks as one batch in one runner, and what it hands back in a runner each; return their results."""

    def live(slots: int, batch_limit: int, **environment: str) -> None:
        runner = RunnerProcess(hub, tmp_path, hub.open_runner(slots=slots, batch_limit=batch_limit))
        runner.start(PROVEROM_RUNNER_SLOTS=str(slots), **environment)
        try:
            assert runner.wait(120) == 0, runner.log()
        finally:
            if runner.process and runner.process.poll() is None:
                runner.process.kill()
                runner.process.wait()

    def carry_out(
        *notebooks: bytes, slots: int = 1, start: str = "forked", kernel: str = "python3", **environment: str
    ) -> list[RunResult]:
        runs = [hub.submit(data, sweep=SWEEP, start=start, kernel=kernel) for data in notebooks]
        live(slots, 100, **environment)
        while any(hub.queue.get(run.id).state is RunState.QUEUED for run in runs):
            live(1, 1, **environment)
        results = [hub.queue.result(run.id) for run in runs]
        assert slots > 1 or all(hub.queue.get(run.id).attempt == 1 for run in runs)
        return [result for result in results if result is not None]

    return carry_out


def values(*results: RunResult) -> list[str]:
    return [printed(result).strip() for result in results]


LEAVE_AND_LOOK = {
    "variable": (
        "import builtins, math\nleft = builtins.left = math.left = 1",
        "'left' in dir() or hasattr(math, 'left')",
    ),
    "environment": (
        "import os\nos.environ['LEFT'] = '1'; os.putenv('LEFT2', '1')",
        "os.popen('env').read().count('LEFT')",
    ),
    "file": ("open('left', 'w').write('x')", "os.listdir()"),
    "home": ("import os\nopen(os.path.expanduser('~/left'), 'w').write('x')", "os.listdir(os.path.expanduser('~'))"),
    "temporary file": (
        "import tempfile\nopen(tempfile.gettempdir() + '/left', 'w').write('x')",
        "os.listdir(tempfile.gettempdir())",
    ),
    "umask": ("import os\nos.umask(0o777)", "(os.umask(0o22), os.umask(0o22))[1] == 0o777"),
    "directory": ("import os\nos.chdir('/')", "os.getcwd() == '/'"),
    "limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 99",
    ),
    "signal": (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pthread_sigmask(0, {10})",
        "signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or signal.pthread_sigmask(0, ()) != set()",
    ),
    "module": ("import sys, types\nsys.modules['left'] = types.ModuleType('left')", "'left' in sys.modules"),
    "matplotlib": (
        "import matplotlib\nmatplotlib.rcParams['lines.linewidth'] = 99",
        "matplotlib.rcParams['lines.linewidth'] == 99",
    ),
    "pandas": ("import pandas\npandas.options.display.max_rows = 3", "pandas.options.display.max_rows == 3"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEAVE_AND_LOOK)
def test_nothing_of_an_earlier_run_is_there(batch: Batch, what: str) -> None:
    leave, look = LEAVE_AND_LOOK[what]
    imports = "import math, matplotlib, os, pandas, resource, signal, sys, tempfile"
    left, found = batch(notebook(leave, "print('left')"), notebook(f"{imports}\nprint(bool({look}))"))
    assert values(left, found) == ["left", "False"]


def test_with_each_result_comes_the_next_run(batch: Batch, hub: RunnerHub) -> None:
    results = batch(*(notebook(f"print({number})") for number in range(3)))
    assert values(*results) == ["0", "1", "2"]
    calls = [path.rpartition("/")[2].partition("?")[0] for path in hub.requests]
    assert [call for call in calls if call != "heartbeat"] == ["claim", "result", "result", "result", "claim"]


def test_a_lost_answer_to_a_result_costs_nothing(batch: Batch, hub: RunnerHub) -> None:
    hub.lost_answers = 1
    results = batch(*(notebook(f"print({number})") for number in range(3)))
    assert values(*results) == ["0", "1", "2"]
    # The first result is sent twice, and each run is carried out once.
    assert ["print(0)" in report.notebook.decode() for report in hub.reports] == [True, True, False, False]


def test_a_run_that_is_assigned_twice_is_begun_once(batch: Batch, hub: RunnerHub) -> None:
    hub.forgets_holding = True
    results = batch(notebook("import time\ntime.sleep(1)\nprint(0)"), notebook("print(1)"), slots=2)
    assert values(*results) == ["0", "1"]
    assert len(hub.reports) == 2


def test_a_late_answer_to_a_result_harms_no_other_run(hub: RunnerHub, tmp_path: Path) -> None:
    """Meanwhile its heartbeats are refused, and its worker has the run that the late answer will hold."""
    hub.late_answers = 4.0
    sources = [f"import time\ntime.sleep({seconds})\nprint({seconds})" for seconds in (0, 9, 5)]
    runs = [hub.submit(notebook(source), sweep=SWEEP) for source in sources]
    runner = RunnerProcess(hub, tmp_path, hub.open_runner(slots=2, batch_limit=3))
    runner.start(PROVEROM_RUNNER_SLOTS="3")
    assert runner.wait(120) == 0, runner.log()
    assert "is lost to this runner" in runner.log()
    assert [hub.queue.get(run.id).state for run in runs] == [RunState.SUCCEEDED] * 3, runner.log()
    assert [hub.queue.get(run.id).attempt for run in runs] == [1, 1, 1]
    assert len(hub.reports) == 3


def test_how_figures_are_shown_is_each_runs_own(batch: Batch) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.get_backend())"
    svg, first, second = batch(
        notebook("%config InlineBackend.figure_format = 'svg'", draw), notebook(draw), notebook(draw)
    )
    assert shown(svg) == {"image/svg+xml"}
    assert shown(first) == shown(second) == {"image/png"}


def test_another_way_to_show_figures_is_taken_from_the_environment(batch: Batch) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.get_backend(), plt.isinteractive())"
    (result,) = batch(notebook(draw), MPLBACKEND="agg")
    assert values(result) == ["agg False"]
    assert shown(result) == set()


def shown(result: RunResult) -> set[str]:
    """Return the kinds of pictures in a result's notebook."""
    outputs = [output for cell in executed(result).cells for output in cell.get("outputs", ())]
    return {kind for output in outputs for kind in output.get("data", ()) if kind.startswith("image/")}


def test_no_background_process_outlives_its_run(batch: Batch) -> None:
    daemon = (
        "import os, subprocess, sys, time\n"
        'code = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0);"\n'
        "code += \"open('pid', 'w').write(str(os.getpid())); time.sleep(600)\"\n"
        "subprocess.run([sys.executable, '-c', code])\n"
        "while not (os.path.exists('pid') and open('pid').read()): time.sleep(0.01)\n"
        "print(open('pid').read())"
    )
    # It kills its worker, so that nobody but the runner is left to find the daemon.
    murder = daemon + "\nimport signal; os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"
    first, second, third = batch(notebook(daemon), notebook(murder), notebook(LOOK_FOR_DAEMONS))
    assert first.state is third.state is RunState.SUCCEEDED
    assert (second.state, second.reason) == (RunState.FAILED, Reason.KERNEL_DIED)
    assert values(third) == ["[]"]


def test_nothing_of_a_kernel_that_cannot_be_forked_outlives_its_run(batch: Batch, tmp_path: Path) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "wrapped" / "kernel.json"
    spec.parent.mkdir(parents=True)
    start = f"setsid sleep 7531 & exec {sys.executable} -m ipykernel_launcher -f $0"
    spec.write_text(
        json.dumps({"argv": ["bash", "-c", start, "{connection_file}"], "display_name": "W", "language": "python"})
    )
    look = (
        "import glob, os\ndef read(path):\n    try:\n        return open(path, 'rb').read()\n"
        "    except OSError:\n        return b''\n"
        "print(os.getppid(), [read(p) for p in glob.glob('/proc/[0-9]*/cmdline')].count(b'sleep\\0007531\\0'))"
    )
    results = batch(notebook(look), notebook(look), kernel="wrapped", JUPYTER_PATH=str(tmp_path / "jupyter"))
    first, second = (value.split() for value in values(*results))
    assert first[0] == second[0], "the worker carries on"
    assert first[1] == second[1] == "1", "its own, and no other run's"


WHO = "import os\nprint(os.getpid(), os.getppid())"


def test_a_worker_carries_on_after_what_ended_by_itself_and_a_kernel_never(batch: Batch) -> None:
    results = batch(notebook(WHO), notebook("1 / 0"), notebook(WHO), notebook("import os; os._exit(3)"), notebook(WHO))
    assert [result.reason for result in results] == [None, Reason.CELL_FAILED, None, Reason.KERNEL_DIED, None]
    first, third, fifth = (value.split() for value in values(results[0], results[2], results[4]))
    assert len({kernel for kernel, _ in (first, third, fifth)}) == 3
    assert first[1] == third[1]
    assert fifth[1] != first[1]


LOOK_FOR_DAEMONS = """
import glob, os
def read(path):
    try:
        return open(path, 'rb').read()
    except OSError:
        return b''
print([p for p in glob.glob('/proc/[0-9]*/cmdline') if b"open('pid', 'w')" in read(p)])
"""


def test_a_sandboxes_own_places_are_cleared_between_runs(batch: Batch, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "before").write_text("stays")
    leave = (
        f"import os\nos.makedirs('{shared}/left/deep', 0o700); os.chmod('{shared}/left', 0)\nopen('{shared}/file', 'w')"
    )
    _, found = batch(
        notebook(leave), notebook(f"import os\nprint(os.listdir('{shared}'))"), PROVEROM_RUNNER_PLACES=str(shared)
    )
    assert values(found) == ["['before']"]


def test_no_descriptor_of_the_runner_is_open_in_a_kernel(batch: Batch) -> None:
    look = notebook(
        """
import os
for number in os.listdir('/proc/self/fd'):
    try:
        print('fd' if int(number) > 2 else 'standard', os.readlink(f'/proc/self/fd/{number}').partition(':')[0])
    except OSError:
        pass
"""
    )
    [forked], [ordinary] = batch(look), batch(look, start="ordinary")

    def kinds(result: RunResult) -> set[str]:
        return {line for line in printed(result).splitlines() if line.startswith("fd")}

    assert kinds(forked) == kinds(ordinary)
    assert "fd anon_inode" in kinds(forked)


def test_random_numbers_differ_from_run_to_run(batch: Batch) -> None:
    source = "import random, uuid, numpy as np\n"
    source += "print(random.random(), np.random.rand(), np.random.default_rng().random(), uuid.uuid4())"
    results = values(*batch(*[notebook(source)] * 3))
    for column in zip(*(line.split() for line in results), strict=True):
        assert len(set(column)) == 3


def test_what_was_made_before_the_fork_is_each_kernels_own(batch: Batch) -> None:
    source = """
import os, sys
shell = get_ipython()
kernel = shell.kernel
print(type(kernel).__name__, kernel.ident, kernel.session.session, os.getpid(), shell.profile_dir.location)
home, here = os.environ["IPYTHONDIR"], os.getcwd()
print(shell.profile_dir.location.startswith(home), shell.ipython_dir == home, shell.starting_dir == here)
print(sys.modules["__main__"] is shell.user_module, shell.history_manager.session_number, len(In))
"""
    one, two = (printed(result).splitlines() for result in batch(*[notebook(source)] * 2))
    assert [line.split()[0] for line in (one[0], two[0])] == ["PreparedKernel"] * 2
    assert all(a != b for a, b in zip(one[0].split()[1:], two[0].split()[1:], strict=True))
    assert one[1:] == two[1:] == ["True True True", "True 1 2"]


def test_seeded_random_numbers_are_the_same_in_every_run(batch: Batch) -> None:
    source = "import random, numpy as np\nrandom.seed(1); np.random.seed(1)\nprint(random.random(), np.random.rand())"
    assert len(set(values(*batch(*[notebook(source)] * 2)))) == 1


def test_a_template_can_ask_for_an_ordinary_start(batch: Batch) -> None:
    look = notebook("import sys\nprint('pandas' in sys.modules)")
    assert values(*batch(look)) == ["True"]
    assert values(*batch(look, start="ordinary")) == ["False"]


def test_a_notebook_can_ask_for_an_ordinary_start(batch: Batch) -> None:
    data = notebook("import sys\nprint('pandas' in sys.modules)").replace(
        b'"metadata": {\n  "kernelspec"', b'"metadata": {\n  "proverom": {"start": "ordinary"},\n  "kernelspec"'
    )
    assert b"ordinary" in data
    assert values(*batch(data)) == ["False"]


def test_runs_of_a_batch_go_on_at_the_same_time(batch: Batch, tmp_path: Path) -> None:
    """Each waits for the other."""
    source = "import os, time\nopen('{d}/{me}', 'w')\n"
    source += "while not os.path.exists('{d}/{other}'): time.sleep(0.01)\nprint('met')"
    both = [notebook(source.format(d=tmp_path, me=me, other=other)) for me, other in (("a", "b"), ("b", "a"))]
    assert values(*batch(*both, slots=2)) == ["met", "met"]


FAULTS = {
    "kills its warden": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(60)",
    "kills its worker": (
        "import os, signal, time\nup = os.getppid()\n"
        "for pid in open(f'/proc/{up}/task/{up}/children').read().split():\n"
        "    if int(pid) != os.getpid(): os.kill(int(pid), signal.SIGKILL)\ntime.sleep(60)"
    ),
    "kills the zygote": (
        "import os, signal\n"
        "stat = open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()\n"
        "os.kill(int(stat[1]), signal.SIGKILL)\nimport time; time.sleep(0.5)"
    ),
    "dies": "import os\nos._exit(0)",
    "uses up its descriptors": (
        "import os\nfds = []\ntry:\n    while True: fds.append(os.open('/dev/null', 0))\nfinally: print(len(fds))"
    ),
    "floods": "for i in range(200_000): print('x' * 100)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_runs_fault_does_not_touch_another(hub: RunnerHub, batch: Batch, tmp_path: Path, fault: str) -> None:
    flag = tmp_path / "flag"
    good = notebook(
        f"import os, time\nopen('{flag}', 'w')\nprint('one')", "time.sleep(3)\nprint('two')", "print('three')"
    )
    wait = f"import os, time\nwhile not os.path.exists('{flag}'): time.sleep(0.01)"
    neighbour, bad, later = batch(good, notebook(wait, FAULTS[fault]), notebook("print('later')"), slots=2)
    assert neighbour.state is later.state is RunState.SUCCEEDED
    assert values(neighbour, later) == ["one\ntwo\nthree", "later"]
    assert bad.state in (RunState.FAILED, RunState.SUCCEEDED)


def test_each_run_is_cancelled_and_timed_out_by_itself(hub: RunnerHub, tmp_path: Path) -> None:
    endless = notebook("print('on', flush=True)\nwhile True: pass")
    late = hub.submit(endless, sweep=SWEEP, timeout_seconds=4)
    cancelled = hub.submit(endless, sweep=SWEEP)
    good = hub.submit(notebook("import time\ntime.sleep(5)\nprint('done')"), sweep=SWEEP)
    runner = RunnerProcess(hub, tmp_path, hub.open_runner(slots=3, batch_limit=3))
    runner.start(PROVEROM_RUNNER_SLOTS="3")
    until(lambda: hub.queue.get(cancelled.id).progress)
    hub.queue.cancel(cancelled.id)
    assert runner.wait(120) == 0, runner.log()
    assert [hub.queue.get(run.id).state for run in (late, cancelled, good)] == [
        RunState.TIMED_OUT,
        RunState.CANCELLED,
        RunState.SUCCEEDED,
    ]


def test_a_cell_that_displays_without_end_is_interrupted_between_two_messages(hub: RunnerHub, tmp_path: Path) -> None:
    """The thread that executes sends them, and an interruption strikes it anywhere."""
    endless = notebook("import time\nwhile True:\n    display({'text/plain': 'x'}, raw=True)\n    time.sleep(0.005)")
    runs = [hub.submit(endless, sweep=SWEEP, timeout_seconds=2) for _ in range(4)]
    runner = RunnerProcess(hub, tmp_path, hub.open_runner(slots=4, batch_limit=len(runs)))
    runner.start(PROVEROM_RUNNER_SLOTS="4")
    assert runner.wait(120) == 0, runner.log()
    for run in runs:
        assert hub.queue.get(run.id).state is RunState.TIMED_OUT
        [cell] = [cell for cell in executed(hub.queue.result(run.id)).cells if cell.cell_type == "code"]
        last = cell.outputs[-1]
        assert (last.output_type, last.get("ename")) == ("error", "KeyboardInterrupt")


def test_a_lost_lease_costs_that_run_only(hub: RunnerHub, tmp_path: Path) -> None:
    lost = hub.submit(notebook("import time\ntime.sleep(600)"), sweep=SWEEP)
    good = hub.submit(notebook("import time\ntime.sleep(4)\nprint('done')"), sweep=SWEEP)
    runner = RunnerProcess(hub, tmp_path, hub.open_runner(slots=2, batch_limit=10))
    runner.start(PROVEROM_RUNNER_SLOTS="2")
    until(lambda: hub.queue.get(good.id).state is RunState.RUNNING)
    hub.queue.end(lost.id, 1, RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT), hub.queue.get(lost.id).created_at)
    assert runner.wait(120) == 0, runner.log()
    assert hub.queue.get(good.id).state is RunState.SUCCEEDED
    assert executed(hub.queue.result(good.id)).cells[0].outputs[0].text == "done\n"
    assert len(hub.reports) == 1


@pytest.mark.parametrize("slots", ["0", "-1", "x", "65", "²"])
def test_a_wrong_number_of_slots_is_wrong_use(hub: RunnerHub, tmp_path: Path, slots: str) -> None:
    runner = RunnerProcess(hub, tmp_path, hub.open_runner())
    runner.start(PROVEROM_RUNNER_SLOTS=slots)
    assert runner.wait() == 2
    assert f"PROVEROM_RUNNER_SLOTS={slots!r}" in runner.log()
