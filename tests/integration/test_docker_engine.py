"""The Docker engine, with real containers: the walls from inside, and the engine's promises.

A stand-in for the Hub sits on both agencies' networks. What is scanned for is really there: each listener is shown to
answer before a sandbox is shown not to reach it.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spawner_config import names, networks
from spawner_config.engines.base import EngineError, SandboxStatus
from spawner_config.engines.docker import DockerEngine, container_arguments
from spawner_config.images import context
from spawner_config.images.build import Images, build_images
from spawner_config.images.site import site_of_this_machine
from spawner_config.sandbox import MIB, Limits, SandboxSpec, sandbox_spec

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
NAV, SKATT = ("nav", "889640782"), ("skatteetaten", "974761076")
PYTHON = "/opt/runner/bin/python"

# Asked from inside: which of these answer over TCP, and which names have an address. Each address is also sent a
# datagram and called past the routing table, on the interface itself, which needs no right at all.
SCAN = """
import concurrent.futures, json, socket, sys
asked = json.loads(sys.argv[1])
def call(target):
    address, port, direct = target
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        tcp.settimeout(4)
        for s in (tcp, udp):
            if direct:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\\0")
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
                except OSError:
                    pass
        try:
            udp.sendto(b"from inside", (address, port))
        except OSError:
            pass
        try:
            tcp.connect((address, port))
            return [address, port]
        except OSError:
            return None
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    targets = [(a, p, d) for a, p in asked["targets"] for d in (False, True)]
    reached = [found for found in pool.map(call, targets) if found]
resolved = []
for name in asked["names"]:
    try:
        socket.getaddrinfo(name, 80)
        resolved.append(name)
    except OSError:
        pass
print(json.dumps({"reached": reached, "resolved": resolved}))
"""


@dataclass(frozen=True)
class Ground:
    client: Any
    engine: DockerEngine
    lab: str
    images: Images
    project: Path  # the project as it was when the images were built

    def spec(self, kind: str, command: list[str], agency: tuple[str, str] = NAV, **more: Any) -> SandboxSpec:
        slug, orgnr = agency
        person = more.pop("person", "kari")
        limits = Limits(**{"memory": 256 * MIB, "cpus": 1.0, "pids": 60, "tmp": 16 * MIB, **more})
        desk = kind == "desk"
        name = (
            names.desk_container(self.lab, slug, person) if desk else names.runner_container(self.lab, uuid.uuid4().hex)
        )
        return sandbox_spec(
            kind,  # type: ignore[arg-type]
            lab=self.lab,
            agency=orgnr,
            slug=slug,
            name=name,
            image=self.images.sandbox,
            command=command,
            environment={"TOKEN": "t"},
            limits=limits,
            person=person if desk else None,
        )

    def started(self, kind: str, command: list[str], agency: tuple[str, str] = NAV, **more: Any) -> SandboxSpec:
        spec = self.spec(kind, command, agency, **more)
        self.engine.start(spec)
        return spec

    def status(self, name: str) -> SandboxStatus | None:
        return next((s for s in self.engine.sandboxes(lab=self.lab) if s.name == name), None)

    def ended(self, spec: SandboxSpec) -> SandboxStatus:
        def look() -> SandboxStatus | None:
            status = self.status(spec.name)
            return status if status is not None and not status.running else None

        found: SandboxStatus = until(look)
        return found

    def said(self, code: str, *arguments: str, agency: tuple[str, str] = NAV, kind: str = "runner", **more: Any) -> str:
        """Run ``code`` in a sandbox to its end and return what it wrote."""
        spec = self.started(kind, [PYTHON, "-c", code, *arguments], agency, **more)
        status = self.ended(spec)
        text = self.engine.logs(spec.name)
        self.engine.remove(spec.name)
        assert status.exit_code == 0, text
        return text

    def address(self, name: str, network: str) -> str:
        found = self.client.api.inspect_container(name)["NetworkSettings"]["Networks"][network]["IPAddress"]
        assert found
        return str(found)


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def ground(docker_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    lab = f"t{uuid.uuid4().hex[:9]}"
    project = tmp_path_factory.mktemp("project")
    files = context.project_files(ROOT)
    files |= {f"requirements/{name}.txt": context.requirements(ROOT, name) for name in ("runner", "desk", "server")}
    for name, content in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    images = build_images(docker_client, project, site=site_of_this_machine())
    serve = (
        "import http.server, threading\n"
        "class Hello(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'the hub')\n"
        "for port in (8000, 8081):\n"
        "    threading.Thread(target=http.server.ThreadingHTTPServer(('0.0.0.0', port), Hello).serve_forever).start()\n"
        "http.server.HTTPServer(('127.0.0.1', 10101), Hello).serve_forever()\n"
    )
    edge = docker_client.networks.create(names.edge_network(lab), labels={names.LAB: lab})
    engine = DockerEngine(docker_client, hub=names.hub_container(lab), guard_image=images.hub)
    try:
        docker_client.containers.run(
            images.sandbox,
            [PYTHON, "-c", serve],
            name=names.hub_container(lab),
            network=edge.name,
            labels={names.LAB: lab, names.KIND: "hub"},
            detach=True,
        )
        for slug, orgnr in (NAV, SKATT):
            engine.ensure_network(names.agency_network(lab, slug), lab=lab, agency=orgnr)
        yield Ground(docker_client, engine, lab, images, project)
    finally:
        wanted = {"label": f"{names.LAB}={lab}"}
        for container in docker_client.containers.list(all=True, filters=wanted):
            container.remove(force=True, v=True)
        for network in docker_client.networks.list(filters=wanted):
            unguard(docker_client, images, f"br-{network.id[:12]}")
            network.remove()
        for volume in docker_client.volumes.list(filters=wanted):
            volume.remove(force=True)


def unguard(client: Any, images: Images, interface: str) -> None:
    drop = f"while $t -w 10 -D INPUT -i {interface} -j DROP; do :; done"
    script = f"for t in iptables ip6tables; do {drop}; done 2>/dev/null; true"
    client.containers.run(
        images.hub,
        ["/bin/sh", "-c", script],
        network_mode="host",
        user="0:0",
        cap_add=["NET_ADMIN", "NET_RAW"],
        remove=True,
    )


# -- the walls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["desk", "runner"])
def test_from_inside_there_is_no_power(ground: Ground, kind: str) -> None:
    facts = json.loads(
        ground.said(
            "import json, os\n"
            "status = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
            "facts = {k: status[k].strip() for k in ('CapEff', 'CapBnd', 'CapPrm', 'NoNewPrivs', 'Seccomp')}\n"
            "facts |= {'uid': os.getuid(), 'gid': os.getgid(), 'groups': os.getgroups()}\n"
            "facts['sockets'] = [p for p in ('/var/run/docker.sock', '/run/docker.sock') if os.path.exists(p)]\n"
            "facts['v6'] = open('/proc/net/if_inet6').read() if os.path.exists('/proc/net/if_inet6') else ''\n"
            "facts['written'] = []\n"
            "for folder in ('/', '/etc', '/usr', '/opt/runner', '/var', '/proc/sys/kernel', '/home/lab', '/tmp'):\n"
            "    try: open(folder + '/probe', 'w').close(); facts['written'].append(folder)\n"
            "    except OSError: pass\n"
            "print(json.dumps(facts))",
            kind=kind,
        )
    )
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == int(facts["CapPrm"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert (facts["uid"], facts["gid"]) == (1000, 1000)
    assert set(facts["groups"]) <= {1000}
    assert facts["sockets"] == []
    assert "eth0" not in facts["v6"]
    assert facts["written"] == ["/home/lab", "/tmp"]


@contextlib.contextmanager
def canary() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on one port of every address of this machine, over TCP and UDP; whatever comes lands in the list."""
    heard: list[bytes] = []
    listeners = []
    port = 0
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = socket.socket(family, kind)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((anywhere, port))
            port = port or listener.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listeners.append(listener)
    stop_read, stop_write = socket.socketpair()

    def hear() -> None:
        while True:
            ready, _, _ = select.select([*listeners, stop_read], [], [])
            if stop_read in ready:
                return
            for listener in ready:
                if listener.type == socket.SOCK_STREAM:
                    caller, who = listener.accept()
                    caller.close()
                    heard.append(f"tcp {who}".encode())
                else:
                    heard.append(listener.recv(100))

    thread = threading.Thread(target=hear)
    thread.start()
    try:
        yield port, heard
    finally:
        stop_write.send(b".")
        thread.join()
        for listener in (*listeners, stop_read, stop_write):
            listener.close()


def host_addresses() -> list[str]:
    listing = subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True, check=True).stdout
    found = [address["local"] for interface in json.loads(listing) for address in interface.get("addr_info", [])]
    return [f"{a}%eth0" if a.startswith("fe80") else a for a in found if a not in ("127.0.0.1", "::1")]


def test_neither_the_host_nor_the_internet_nor_another_agency_hears_a_sandbox(ground: Ground) -> None:
    if not any(Path(f"/sys/class/net/{i}").exists() for i in ("docker0", "eth0")):
        pytest.skip("the engine is not on this machine: the host's addresses cannot be known from here")
    listen = (
        "import socket, time\ns = socket.create_server(('0.0.0.0', 9999)); print('up', flush=True); time.sleep(600)"
    )
    neighbour = ground.started("runner", [PYTHON, "-c", listen], SKATT)
    until(lambda: "up" in ground.engine.logs(neighbour.name))
    theirs = ground.address(neighbour.name, neighbour.network)
    gateways = [
        part["Gateway"]
        for network in ground.client.networks.list()
        for part in (network.attrs["IPAM"]["Config"] or [])
        if "." in part.get("Gateway", "")
    ]
    with canary() as (port, heard):
        # What is not reached below does answer, here.
        for address in ("127.0.0.1", "::1") if Path("/proc/net/if_inet6").exists() else ("127.0.0.1",):
            socket.create_connection((address, port), timeout=5).close()
        until(lambda: heard)
        reached = ground.client.containers.get(names.hub_container(ground.lab)).exec_run(
            [PYTHON, "-c", f"import socket; socket.create_connection(({theirs!r}, 9999), timeout=10)"]
        )
        assert reached.exit_code == 0, reached.output
        time.sleep(0.2)
        heard.clear()
        hosts = sorted({*host_addresses(), *gateways})
        targets = [(address, p) for address in hosts for p in (22, 2375, 2376, port)]
        targets += [(theirs, 9999), ("169.254.169.254", 80), ("1.1.1.1", 53), ("2606:4700:4700::1111", 53)]
        asked = {
            "targets": targets,
            "names": ["www.debian.org", "canary.example.org", "host.docker.internal", neighbour.name],
        }
        found = json.loads(ground.said(SCAN, json.dumps(asked)))
        time.sleep(0.5)
        assert found == {"reached": [], "resolved": []}
        assert heard == []
    ground.engine.remove(neighbour.name)


def test_a_name_is_asked_of_nobody_on_the_host(ground: Ground) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        try:
            resolver.bind(("127.0.0.1", 53))
        except OSError:
            pytest.skip("port 53 of this machine is taken or needs root")
        resolver.settimeout(0.5)
        found = json.loads(ground.said(SCAN, json.dumps({"targets": [], "names": ["canary.example.org"]})))
        assert found["resolved"] == []
        with pytest.raises(TimeoutError):
            resolver.recv(512)


def test_the_hub_answers_on_its_two_ports_alone(ground: Ground) -> None:
    hub = ground.address(names.hub_container(ground.lab), names.agency_network(ground.lab, "nav"))
    targets = [(hub, port) for port in (22, 80, 8000, 8001, 8081, 8099, 8888, 10101)]
    found = json.loads(ground.said(SCAN, json.dumps({"targets": targets, "names": [networks.HUB_ALIAS]})))
    assert {port for _, port in found["reached"]} == set(networks.HUB_PORTS)
    assert found["resolved"] == [networks.HUB_ALIAS]
    get = "import urllib.request as u; print(u.urlopen('http://hub:8000/', timeout=20).read().decode())"
    assert ground.said(get).strip() == "the hub"


def test_a_network_of_that_name_that_is_no_wall_is_refused(ground: Ground) -> None:
    name = names.agency_network(ground.lab, "open")
    network = ground.client.networks.create(name, labels={names.LAB: ground.lab, names.AGENCY: "991825827"})
    try:
        with pytest.raises(EngineError, match=r"not internal.*docker network rm"):
            ground.engine.ensure_network(name, lab=ground.lab, agency="991825827")
    finally:
        network.remove()


def test_a_hub_that_is_made_anew_is_put_back_on_its_networks(ground: Ground) -> None:
    name = names.agency_network(ground.lab, "nav")
    hub = names.hub_container(ground.lab)
    ground.client.networks.get(name).disconnect(hub, force=True)
    ground.client.networks.get(name).connect(hub)  # by somebody, without the alias
    ground.engine.ensure_network(name, lab=ground.lab, agency=NAV[1])
    ground.engine.ensure_network(name, lab=ground.lab, agency=NAV[1])
    endpoint = ground.client.api.inspect_container(hub)["NetworkSettings"]["Networks"][name]
    assert networks.HUB_ALIAS in endpoint["Aliases"]
    assert len(ground.client.api.networks(names=[name])) == 1


def test_without_a_guard_it_says_what_stays_open(ground: Ground) -> None:
    engine = DockerEngine(ground.client)
    engine.ensure_network(names.agency_network(ground.lab, "nav"), lab=ground.lab, agency=NAV[1])
    assert any("datagrams" in notice for notice in engine.notices)
    assert ground.engine.notices == []


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_desks_files_stay_and_are_its_agencys_alone(ground: Ground) -> None:
    ground.said(
        "open('/home/lab/mine', 'w').close(); open('/home/lab/felles/ours', 'w').close()", kind="desk", person="fil"
    )
    look = "import os; print(sorted(os.listdir('/home/lab')), sorted(os.listdir('/home/lab/felles')))"
    assert ground.said(look, kind="desk", person="fil").strip() == "['felles', 'mine'] ['ours']"
    assert ground.said(look, kind="desk", person="Ola Nordmann").strip() == "['felles'] ['ours']"
    assert ground.said(look, kind="desk", person="fil", agency=SKATT).strip() == "['felles'] []"


def test_a_runner_keeps_nothing_and_cannot_fill_the_disk(ground: Ground) -> None:
    fill = (
        "for path in ('/home/lab/x', '/tmp/x'):\n"
        "    try: open(path, 'wb').write(bytes(64 << 20))\n"
        "    except OSError as e: print(e.errno)"
    )
    assert ground.said(fill).split() == ["28", "28"]  # no space left


# -- how a sandbox ends ------------------------------------------------------------------------------------------------


def test_a_memory_hog_is_called_out_of_memory(ground: Ground) -> None:
    spec = ground.started(
        "runner", [PYTHON, "-c", "held = []\nwhile True: held.append(b'x' * (1 << 20))"], memory=64 * MIB
    )
    status = ground.ended(spec)
    assert status.out_of_memory
    assert status.exit_code == 137


def test_a_sandbox_can_be_given_more_while_it_works(ground: Ground) -> None:
    code = (
        "import pathlib, time\n"
        "places = [pathlib.Path('/sys/fs/cgroup') / p for p in ('memory/memory.limit_in_bytes', 'memory.max')]\n"
        "limit = next(place for place in places if place.exists())\n"
        "while int(limit.read_text()) == 64 << 20: time.sleep(0.05)\n"
        "print('held', len(b'x' * (100 << 20)) >> 20)\n"
    )
    spec = ground.started("runner", [PYTHON, "-c", code], memory=64 * MIB)
    ground.engine.resize(spec.name, Limits(memory=256 * MIB, cpus=2.0, pids=1))
    host = ground.client.containers.get(spec.name).attrs["HostConfig"]
    assert (host["Memory"], host["CpuQuota"] / host["CpuPeriod"], host["PidsLimit"]) == (256 * MIB, 2.0, 60)
    assert ground.ended(spec).exit_code == 0
    assert "held 100" in ground.engine.logs(spec.name)
    ground.engine.remove(spec.name)
    with pytest.raises(EngineError):
        ground.engine.resize(spec.name, spec.limits)


def test_a_fork_bomb_hits_its_limit(ground: Ground) -> None:
    code = (
        "import os, time\nmade = 0\ntry:\n"
        "    while True:\n        if os.fork() == 0: time.sleep(600)\n        made += 1\n"
        "except OSError: print(made, flush=True)\nos._exit(0)"
    )
    assert int(ground.said(code, pids=20)) < 20


def test_an_end_is_reported_as_it_was_and_stopping_asks_first(ground: Ground) -> None:
    polite = ground.started(
        "runner",
        [
            PYTHON,
            "-c",
            "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\n"
            "print('up', flush=True)\ntime.sleep(600)",
        ],
    )
    until(lambda: "up" in ground.engine.logs(polite.name))
    status = ground.status(polite.name)
    assert status is not None
    assert status.running
    assert status.started_at is not None
    assert (status.kind, status.agency, status.exit_code) == ("runner", NAV[1], None)
    assert status.labels[names.RUNNER] == names.runner_id(ground.lab, polite.name)
    ground.engine.stop(polite.name, grace_seconds=30)
    assert ground.ended(polite).exit_code == 7
    ground.engine.start(polite)  # one that has ended is left as it is
    assert ground.ended(polite).exit_code == 7


def test_every_call_may_be_repeated(ground: Ground) -> None:
    spec = ground.started("runner", [PYTHON, "-c", "import time; time.sleep(600)"])
    first = ground.client.api.inspect_container(spec.name)["Id"]
    ground.engine.start(spec)
    assert ground.client.api.inspect_container(spec.name)["Id"] == first
    for _ in range(2):
        ground.engine.remove(spec.name)
    ground.engine.stop(spec.name)
    assert ground.engine.logs(spec.name) == ""
    assert ground.status(spec.name) is None


def test_a_sandbox_whose_start_was_cut_short_is_started(ground: Ground) -> None:
    spec = ground.spec("runner", [PYTHON, "-c", "print('up')"])
    ground.client.api.create_container(**container_arguments(spec))
    ground.engine.start(spec)
    ground.ended(spec)
    assert ground.engine.logs(spec.name) == "up\n"


def test_the_listing_is_of_this_lab_and_kind_and_without_the_hub(ground: Ground) -> None:
    spec = ground.started("desk", ["/bin/sleep", "600"], person="liste")
    try:
        assert [s.name for s in ground.engine.sandboxes(lab=ground.lab, kind="desk")] == [spec.name]
        assert names.hub_container(ground.lab) not in [s.name for s in ground.engine.sandboxes(lab=ground.lab)]
        assert ground.engine.sandboxes(lab="another") == []
    finally:
        ground.engine.remove(spec.name)


# -- images ------------------------------------------------------------------------------------------------------------


def test_an_image_is_named_by_what_went_in_and_built_once(ground: Ground) -> None:
    doing: list[str] = []
    again = build_images(
        ground.client, ground.project, site=site_of_this_machine(), progress=lambda text, _: doing.append(text)
    )
    assert again == ground.images
    assert doing == []
    assert ground.engine.image_digest(ground.images.sandbox).startswith("sha256:")
    with pytest.raises(EngineError, match="proverom image build"):
        ground.engine.image_digest("proverom/sandbox:none")


def test_a_sandbox_starts_jupyterlab_and_notebooks_get_the_scientific_stack(ground: Ground) -> None:
    code = (
        "import json, subprocess\n"
        "kernels = json.loads(subprocess.check_output(['/opt/desk/bin/jupyter', 'kernelspec', 'list', '--json']))\n"
        "print(kernels['kernelspecs']['python3']['spec']['argv'][0])\n"
        "science = 'import numpy, pandas, matplotlib, scipy, papermill'\n"
        "subprocess.run(['/opt/runner/bin/python', '-c', science], check=True)\n"
        "subprocess.run(['/opt/desk/bin/python', '-c', 'import jupyterlab, hub.cli'], check=True)\n"
        "look = 'import importlib.util as u; print(u.find_spec(\"rfc3987_syntax\"))'\n"
        "print(subprocess.check_output(['/opt/desk/bin/python', '-c', look], text=True))\n"
    )
    lines = ground.said(code, kind="desk", memory=512 * MIB).split()
    assert lines[0] == "/opt/runner/bin/python"
    assert lines[-1] == "None"  # importing it would slow every start by 2 s


def test_nothing_of_the_build_stays_in_the_images(ground: Ground) -> None:
    for image in (ground.images.sandbox, ground.images.hub):
        settings = ground.client.api.inspect_image(image)["Config"]
        assert not any(word in name for name in settings["Env"] for word in ("PIP_", "UV_", "CERT", "PROXY"))
        listing = ground.client.containers.run(
            image, ["/bin/sh", "-c", "ls -d /build /added /tmp/uv 2>/dev/null; ls /tmp; true"], remove=True
        )
        assert listing == b""


def test_a_failing_build_ends_with_what_it_said(ground: Ground, tmp_path: Path) -> None:
    project = tmp_path / "project"
    locked = [f"requirements/{name}.txt" for name in ("runner", "desk", "server")]
    for name in ("pyproject.toml", "jupyterhub_config.py", "hub/x.py", *locked):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("this is no requirement !!\n")
    with pytest.raises(EngineError, match=r"Building proverom/sandbox:[0-9a-f]{16} failed") as caught:
        build_images(ground.client, project, site=site_of_this_machine())
    assert "this is no requirement" in str(caught.value)
