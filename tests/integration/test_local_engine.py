"""The local engine, with real sandboxes: the walls from inside, and each way a sandbox can end."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spawner_config import names
from spawner_config.engines import keeper
from spawner_config.engines.base import EngineError, EngineUnreachable, SandboxStatus
from spawner_config.engines.local import LocalEngine
from spawner_config.sandbox import MIB, Limits, SandboxSpec, sandbox_spec

PYTHON = "/opt/runner/bin/python"
ORGNR = "889640782"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.server.greeting  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(greeting: bytes, address: str = "127.0.0.1") -> Iterator[int]:
    server = http.server.ThreadingHTTPServer((address, 0), Hello)
    server.greeting = greeting  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bare environments: what is tested here are the walls, not what is installed within."""
    folder = tmp_path_factory.mktemp("env")
    for name in ("runner", "desk"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / name)], check=True)
        (folder / name / "made-of.json").write_text(json.dumps({"requirements": name, "project": "test"}))
    return folder


@pytest.fixture
def engine(tmp_path: Path, environments: Path, require: Any) -> Iterator[LocalEngine]:
    with serving(b"the proxy") as proxy, serving(b"the hub") as hub:
        made = LocalEngine(tmp_path / "state", environments=environments, hub_ports={8000: proxy, 8081: hub})
        try:
            made.check()
        except EngineUnreachable as problem:
            require("bubblewrap sandboxes", str(problem))
        try:
            yield made
        finally:
            for left in made.sandboxes(lab="t"):
                made.remove(left.name)


def runner(code: str, number: int = 1, **limits: Any) -> SandboxSpec:
    return sandbox_spec(
        "runner",
        lab="t",
        agency=ORGNR,
        slug="nav",
        name=names.runner_container("t", f"r{number}"),
        image="local",
        command=[PYTHON, "-c", code],
        environment={"TOKEN": "very-secret"},
        limits=Limits(**{"memory": 256 * MIB, "cpus": 1, "pids": 50, "tmp": 16 * MIB, **limits}),
    )


def desk(command: list[str], person: str = "kari") -> SandboxSpec:
    return sandbox_spec(
        "desk",
        lab="t",
        agency=ORGNR,
        slug="nav",
        name=names.desk_container("t", "nav", person),
        image="local",
        command=command,
        environment={},
        limits=Limits(memory=256 * MIB, cpus=1, pids=50),
        person=person,
    )


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


def ended(engine: LocalEngine, name: str) -> SandboxStatus:
    def look() -> SandboxStatus | None:
        status = engine.status(name)
        return status if status is not None and not status.running else None

    found: SandboxStatus = until(look)
    return found


def said(engine: LocalEngine, code: str, **limits: Any) -> str:
    """Run ``code`` in a runner to its end and return what it wrote."""
    spec = runner(code, **limits)
    engine.start(spec)
    status = ended(engine, spec.name)
    text = engine.logs(spec.name)
    assert status.exit_code == 0, text
    engine.remove(spec.name)
    return text


# -- the walls ---------------------------------------------------------------------------------------------------------


def test_from_inside_there_is_no_power(engine: LocalEngine) -> None:
    facts = json.loads(
        said(
            engine,
            "import json, os\n"
            "status = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
            "facts = {k: status[k].strip() for k in ('CapEff', 'CapBnd', 'CapPrm', 'NoNewPrivs', 'Seccomp')}\n"
            "facts |= {'uid': os.getuid(), 'gid': os.getgid(), 'groups': os.getgroups(), 'home': os.environ['HOME']}\n"
            "print(json.dumps(facts))",
        )
    )
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == int(facts["CapPrm"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert (facts["uid"], facts["gid"]) == (1000, 1000)
    assert set(facts["groups"]) <= {1000, 65534}
    assert facts["home"] == "/home/lab"


def test_only_its_own_places_can_be_written_to(engine: LocalEngine) -> None:
    written = said(
        engine,
        "for folder in ('/', '/etc', '/usr', '/opt', '/opt/runner', '/run', '/run/hub', '/proc/sys/kernel',"
        " '/home/lab', '/tmp'):\n"
        "    try:\n"
        "        open(folder + '/probe', 'w').close(); print(folder)\n"
        "    except OSError: pass\n",
    )
    assert set(written.split()) <= {"/home/lab", "/tmp", "/run"}
    assert {"/home/lab", "/tmp"} <= set(written.split())


def test_a_full_tmpfs_stops_that_sandbox_only(engine: LocalEngine) -> None:
    code = "try:\n open('/tmp/x', 'wb').write(bytes(64 << 20))\nexcept OSError as e: print(e.errno)"
    assert said(engine, code).strip() == "28"  # no space left


def test_no_further_namespace_mount_or_key_can_be_had(engine: LocalEngine) -> None:
    code = (
        "import ctypes, ctypes.util, errno, os, socket\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "print(c.unshare(0x10000000), errno.errorcode[ctypes.get_errno()])\n"
        "print(c.mount(b'x', b'/tmp', b'tmpfs', 0, None), errno.errorcode[ctypes.get_errno()])\n"
        "for family in (38, 40):\n"
        "    try: socket.socket(family, socket.SOCK_STREAM); print('socket', family)\n"
        "    except OSError as e: print('refused')\n"
    )
    assert said(engine, code).split() == ["-1", "EPERM", "-1", "EPERM", "refused", "refused"]


def test_the_hub_is_all_that_answers(engine: LocalEngine) -> None:
    with serving(b"canary", "0.0.0.0") as canary:  # noqa: S104
        addresses = {
            part.split("/")[0]
            for line in subprocess.run(
                ["ip", "-o", "addr"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            for part in line.split()[3:4]
        }
        code = (
            "import json, socket, urllib.request\n"
            "get = lambda url: urllib.request.urlopen(url, timeout=20).read().decode()\n"
            "facts = {'proxy': get('http://hub:8000/'), 'hub': get('http://hub:8081/')}\n"
            "facts |= {'reached': [], 'resolved': []}\n"
            f"for address in {sorted(addresses | {'169.254.169.254', '1.1.1.1', '2606:4700:4700::1111'})!r}:\n"
            f"    for port in (22, 53, 80, 2375, 2376, {canary}):\n"
            "        try:\n"
            "            socket.create_connection((address, port), timeout=2)\n"
            "            facts['reached'].append([address, port])\n"
            "        except OSError: pass\n"
            "for name in ('www.debian.org', 'canary.example.org'):\n"
            "    try: socket.getaddrinfo(name, 80); facts['resolved'].append(name)\n"
            "    except OSError: pass\n"
            "print(json.dumps(facts))"
        )
        facts = json.loads(said(engine, code))
    assert facts == {"proxy": "the proxy", "hub": "the hub", "reached": [], "resolved": []}


def test_nothing_of_the_host_is_in_sight(engine: LocalEngine, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0o644)
    code = (
        "import json, os\n"
        f"seen = [p for p in ({str(secret)!r}, {str(Path.cwd() / 'pyproject.toml')!r}, '/etc/shadow', '/etc/ssh',"
        " '/var/run/docker.sock', '/run/docker.sock', '/sys/kernel', '/home/lab/.ssh') if os.path.exists(p)]\n"
        "pids = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "print(json.dumps([seen, len(pids), 'very-secret' in open('/proc/1/cmdline').read()]))"
    )
    seen, processes, _ = json.loads(said(engine, code))
    assert seen == []
    assert processes < 8


def test_two_sandboxes_do_not_meet(engine: LocalEngine) -> None:
    listening = runner(
        "import socket, time\n"
        "s = socket.create_server(('127.0.0.1', 7777))\n"
        "u = socket.socket(socket.AF_UNIX); u.bind('\\0canary'); u.listen()\n"
        "open('/tmp/mine', 'w').close(); print('up', flush=True); time.sleep(600)",
        2,
    )
    engine.start(listening)
    until(lambda: "up" in engine.logs(listening.name))
    code = (
        "import os, socket\n"
        "for family, address in ((socket.AF_INET, ('127.0.0.1', 7777)), (socket.AF_UNIX, '\\0canary')):\n"
        "    try: socket.socket(family).connect(address); print('met')\n"
        "    except OSError: print('alone')\n"
        "print(os.path.exists('/tmp/mine'))"
    )
    assert said(engine, code).split() == ["alone", "alone", "False"]


def test_a_token_is_in_nobodys_sight(engine: LocalEngine, tmp_path: Path) -> None:
    spec = runner("import time; print('up', flush=True); time.sleep(600)")
    engine.start(spec)
    until(lambda: "up" in engine.logs(spec.name))
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            commands.append((process / "cmdline").read_bytes())
    assert any(spec.name.encode() in command or b"relay.py" in command for command in commands)
    assert not any(b"very-secret" in command for command in commands)
    written = [
        path for path in (tmp_path / "state").rglob("*") if path.is_file() and b"very-secret" in path.read_bytes()
    ]
    assert written == []


# -- how a sandbox ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("import sys; sys.exit(3)", 3), ("import os; os._exit(0)", 0), ("import os; os.kill(os.getpid(), 11)", 139)],
)
def test_an_end_is_reported_as_it_was(engine: LocalEngine, code: str, exit_code: int) -> None:
    spec = runner(code)
    engine.start(spec)
    status = ended(engine, spec.name)
    assert (status.exit_code, status.out_of_memory) == (exit_code, False)


def test_a_memory_hog_is_ended_and_called_out_of_memory(engine: LocalEngine) -> None:
    spec = runner("held = []\nwhile True: held.append(b'x' * (1 << 20))", memory=128 * MIB)
    engine.start(spec)
    status = ended(engine, spec.name)
    assert (status.exit_code, status.out_of_memory) == (137, True)


def test_a_sandbox_can_be_given_more_while_it_works(engine: LocalEngine) -> None:
    code = (
        "import os, time\n"
        "before = len(os.sched_getaffinity(0))\n"
        "print('up', before, flush=True)\n"
        "while len(os.sched_getaffinity(0)) == before: time.sleep(0.05)\n"
        "held = b'x' * (200 << 20)\n"
        "time.sleep(1)\n"
        "print('held', len(held) >> 20, flush=True)\n"
    )
    spec = runner(code, memory=128 * MIB)
    engine.start(spec)
    until(lambda: "up " in engine.logs(spec.name) or not engine.sandboxes(lab="t")[0].running, 30)
    assert engine.logs(spec.name) == "up 1\n"
    engine.resize(spec.name, Limits(memory=512 * MIB, cpus=2.0, pids=1))
    assert ended(engine, spec.name).exit_code == 0
    assert "held 200" in engine.logs(spec.name)
    with pytest.raises(EngineError):
        engine.resize(spec.name, spec.limits)


def test_a_fork_bomb_hits_its_limit_and_its_neighbour_does_not(engine: LocalEngine) -> None:
    bomb = runner(
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError: print('full', made, flush=True)\n"
        "time.sleep(600)",
        2,
        pids=20,
    )
    engine.start(bomb)
    text = until(lambda: engine.logs(bomb.name))
    word, made = text.split()
    assert word == "full"
    assert int(made) <= 30
    assert said(engine, "import subprocess; subprocess.run(['/bin/true'], check=True); print('fine')").strip() == "fine"


def test_stopping_asks_first_and_then_ends(engine: LocalEngine) -> None:
    polite = runner(
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up', flush=True)\ntime.sleep(600)"
    )
    deaf = runner("import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)", 2)
    for spec in (polite, deaf):
        engine.start(spec)
        until(lambda spec=spec: "up" in engine.logs(spec.name))
    engine.stop(polite.name, grace_seconds=30)
    engine.stop(deaf.name, grace_seconds=0.3)
    assert ended(engine, polite.name).exit_code == 7
    assert ended(engine, deaf.name).exit_code == 137


def test_a_background_process_ends_with_its_sandbox(engine: LocalEngine) -> None:
    spec = runner("import subprocess; subprocess.Popen(['/bin/sleep', '987654'], start_new_session=True)")
    engine.start(spec)
    ended(engine, spec.name)
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _reads(p) == b"/bin/sleep\x00987654\x00"]
    assert left == []


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_sandbox_does_not_outlive_its_keeper(engine: LocalEngine, tmp_path: Path) -> None:
    spec = runner("import time; print('up', flush=True); time.sleep(600)")
    engine.start(spec)
    until(lambda: "up" in engine.logs(spec.name))
    state = json.loads((tmp_path / "state" / "local" / "sandboxes" / spec.name / keeper.STATE).read_text())
    tree = keeper.descendants(state["pid"])
    assert len(tree) > 3
    os.kill(state["pid"], signal.SIGKILL)
    until(lambda: all(keeper.start_time(pid) is None for pid in tree))
    status = ended(engine, spec.name)
    assert status.exit_code is None


def test_a_log_is_rotated(engine: LocalEngine) -> None:
    spec = runner("for i in range(200_000): print(i)", log=64 * 1024)
    engine.start(spec)
    ended(engine, spec.name)
    assert engine.logs(spec.name, tail=1).strip() == "199999"
    assert len(engine.logs(spec.name, tail=10**9)) <= 2 * 64 * 1024


def test_a_command_that_is_not_there_says_so(engine: LocalEngine) -> None:
    spec = runner("")
    missing = sandbox_spec(
        "runner", lab="t", agency=ORGNR, slug="nav", name=spec.name, image="local", command=["/opt/none"],
        environment={}, limits=spec.limits,
    )  # fmt: skip
    engine.start(missing)
    assert ended(engine, spec.name).exit_code == 127
    assert "/opt/none" in engine.logs(spec.name)


# -- the engine's promises ---------------------------------------------------------------------------------------------


def test_a_hub_that_starts_again_finds_its_sandboxes(engine: LocalEngine, tmp_path: Path, environments: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from spawner_config.engines.local import LocalEngine\n"
        "from spawner_config.sandbox import Limits, MIB, sandbox_spec\n"
        "engine = LocalEngine(Path(sys.argv[2]), environments=Path(sys.argv[3]), hub_ports={})\n"
        f"engine.start(sandbox_spec('runner', lab='t', agency='{ORGNR}', slug='nav', name='proverom-t-runner-r9',\n"
        f"    image='local', command=['{PYTHON}', '-c', 'import time; time.sleep(600)'], environment={{}},\n"
        "    limits=Limits(memory=256 * MIB, cpus=1, pids=50)))\n"
    )
    project = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(project), str(tmp_path / "state"), str(environments)], check=True)
    (found,) = engine.sandboxes(lab="t", kind="runner")
    assert found.running
    assert (found.name, found.kind, found.agency) == ("proverom-t-runner-r9", "runner", ORGNR)
    assert found.labels[names.RUNNER] == "r9"
    assert engine.sandboxes(lab="t", kind="desk") == []
    assert engine.sandboxes(lab="other") == []
    engine.stop(found.name, grace_seconds=5)
    assert not ended(engine, found.name).running


def test_every_call_may_be_repeated(engine: LocalEngine) -> None:
    spec = runner("import time; print(time.time_ns(), flush=True); time.sleep(600)")
    engine.start(spec)
    first = until(lambda: engine.logs(spec.name))
    engine.start(spec)
    assert engine.logs(spec.name) == first
    for _ in range(2):
        engine.stop(spec.name, grace_seconds=1)
    for _ in range(2):
        engine.remove(spec.name)
    engine.stop("proverom-t-runner-none")
    assert engine.logs(spec.name) == ""
    assert engine.status(spec.name) is None
    assert engine.sandboxes(lab="t") == []


def test_a_desk_is_let_in_to_and_keeps_its_files(engine: LocalEngine) -> None:
    spec = desk(["/opt/runner/bin/python", "-m", "http.server", "8888", "--directory", "/home/lab"])
    engine.start(desk(["/bin/sh", "-c", "echo kept > /home/lab/mine; echo shared > /home/lab/felles/ours"]))
    ended(engine, spec.name)
    with pytest.raises(EngineError, match="not running"):
        engine.address(spec.name)
    engine.remove(spec.name)
    engine.start(spec)
    host, port = engine.address(spec.name)
    assert host == "127.0.0.1"

    def get(path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/{path}", timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            return None

    assert until(lambda: get("mine")) == b"kept\n"
    assert get("felles/ours") == b"shared\n"
    # A colleague's desk has the shared folder and not the other's own.
    other = desk(["/bin/sh", "-c", "ls /home/lab; cat /home/lab/felles/ours"], person="ola")
    engine.start(other)
    ended(engine, other.name)
    assert engine.logs(other.name).split() == ["felles", "shared"]


def test_without_environments_it_says_how_to_get_them(tmp_path: Path) -> None:
    empty = LocalEngine(tmp_path, environments=tmp_path / "env", hub_ports={})
    with pytest.raises(EngineError, match="proverom up"):
        empty.start(runner("pass"))
    assert empty.sandboxes(lab="t") == []
    with pytest.raises(EngineError, match="proverom up"):
        empty.image_digest("local")


def test_the_digest_is_of_both_environments(engine: LocalEngine) -> None:
    digest = engine.image_digest("local")
    assert digest.startswith("sha256:")
    assert len(digest) == 71
