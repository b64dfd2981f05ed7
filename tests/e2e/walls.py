"""What a sandbox is like from inside, and what it can reach: asked by a script that runs in it."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Addresses that belong to nobody (RFC 5737) and to a cloud's metadata: there is no route to either.
NOWHERE = ("198.51.100.1", "169.254.169.254")

# How a connection fails that never left: no route, or a route by way of a gateway that is not there (Docker sets one).
NO_WAY = frozenset({"ENETUNREACH", "EHOSTUNREACH", "timeout"})

# The standard library only; prints one JSON object. ``ASKED`` is put in front: {"connect": [[host, port], ...],
# "scan": [host, ...], "paths": [...], "names": [...]}.
SCRIPT = r"""
import asyncio, errno, json, os, resource, socket

def status():
    lines = open("/proc/self/status").read().splitlines()
    return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}

def write(path):
    try:
        open(path, "w").close()
        os.remove(path)
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]

async def reach(host, port, seconds):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        writer.close()
        return "connected"
    except TimeoutError:
        return "timeout"
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

async def scan(host):
    gate, open_ports = asyncio.Semaphore(200), []
    async def one(port):
        async with gate:
            if await reach(host, port, 5) == "connected":
                open_ports.append(port)
    await asyncio.gather(*(one(port) for port in range(1, 65536)))
    return sorted(open_ports)

async def look():
    pairs = ASKED["connect"]
    reached = await asyncio.gather(*(reach(host, port, 4) for host, port in pairs))
    names = {}
    for name in ASKED["names"]:
        try:
            names[name] = socket.gethostbyname(name)
        except OSError:
            names[name] = None
    inside = status()
    return {
        "status": {k: inside[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")},
        "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "home": os.path.expanduser("~"),
        "writes": {p: write(p) for p in ("/proverom-was-here", "/usr/proverom-was-here", "/opt/proverom-was-here",
                                         "/tmp/proverom-was-here", os.path.expanduser("~/proverom-was-here"))},
        "interfaces": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else
                      sorted(l.split(":")[0].strip() for l in open("/proc/net/dev").readlines()[2:]),
        "default_routes": [l.split()[0] for l in open("/proc/net/route").readlines()[1:] if l.split()[1] == "00000000"],
        "ipv6": [l.split()[-1] for l in open("/proc/net/if_inet6")] if os.path.exists("/proc/net/if_inet6") else [],
        "reached": [[*pair, answer] for pair, answer in zip(pairs, reached)],
        "open_ports": {host: await scan(host) for host in ASKED["scan"]},
        "paths": {p: os.path.exists(p) for p in ASKED["paths"]},
        "names": names,
        "pids": sum(1 for p in os.listdir("/proc") if p.isdigit()),
        "environment": sorted(os.environ),
        "memory_limit": next((int(v) for v in (open(p).read() for p in (
            "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes") if os.path.exists(p))
            if v.strip().isdigit()), None),
        "address_space": resource.getrlimit(resource.RLIMIT_AS)[0],
    }
"""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the script found."""

    found: dict[str, Any]

    def reached(self) -> list[tuple[str, int]]:
        """Return every (host, port) that answered."""
        return [(host, port) for host, port, answer in self.found["reached"] if answer == "connected"]

    def answer(self, host: str) -> set[str]:
        return {answer for asked, _, answer in self.found["reached"] if asked == host}


def question(
    *,
    connect: Sequence[tuple[str, int]] = (),
    scan: Sequence[str] = (),
    paths: Sequence[str] = (),
    names: Sequence[str] = (),
) -> str:
    """Return the script that asks this: to be run by ``python3 -c``."""
    asked = {"connect": list(connect), "scan": list(scan), "paths": list(paths), "names": list(names)}
    return f"ASKED = {asked!r}\n{SCRIPT}\nprint(json.dumps(asyncio.run(look())))"


def ask_in_kernel(code: str) -> str:
    """Return code for a kernel, where an event loop runs already, that runs ``code`` in a process of its own."""
    return (
        "import subprocess, sys\n"
        f"done = subprocess.run([sys.executable, '-c', {code!r}], capture_output=True, text=True)\n"
        "print(done.stdout if done.returncode == 0 else done.stderr)"
    )


def read_answer(printed: str) -> Inside:
    return Inside(json.loads(printed))


def printed(notebook: Mapping[str, Any]) -> str:
    """Return what an executed notebook's cells wrote to stdout."""
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    return "".join("".join(output["text"]) for output in outputs)  # a string, or a list of lines


def assert_confined(inside: Inside) -> None:
    """Hold what every sandbox of every engine promises about the process itself, and that there is no way out of it."""
    found = inside.found
    capabilities = {k: v for k, v in found["status"].items() if k.startswith("Cap")}
    assert set(capabilities.values()) == {"0" * 16}, capabilities
    assert found["status"]["NoNewPrivs"] == "1"
    assert found["status"]["Seccomp"] == "2"
    assert (found["uid"], found["gid"]) == (1000, 1000)
    assert 0 not in found["groups"]
    writes = {path.rpartition("/")[0] or "/": answer for path, answer in found["writes"].items()}
    assert writes["/"] == writes["/usr"] == writes["/opt"] == errno.errorcode[errno.EROFS], writes
    # A desk's home outlives it; a run has one of its own, which is gone with it.
    assert found["home"] == "/home/lab" or found["home"].startswith(("/tmp/", "/home/lab/")), found["home"]
    assert writes["/tmp"] == writes[found["home"]] == "written", writes
    assert set(found["ipv6"]) <= {"lo"}, "IPv6 is a way past an IPv4 wall"
    for address in NOWHERE:
        assert inside.answer(address) <= NO_WAY, f"{address}: {inside.answer(address)}"
    assert not any(found["paths"].values()), found["paths"]
    assert not [n for n in found["environment"] if any(w in n for w in ("DATABASE", "SECRET", "PASSWORD", "DOCKER"))]
