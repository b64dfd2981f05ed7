"""The translation of a ``SandboxSpec`` for a Docker Engine."""

from __future__ import annotations

from typing import Any

from spawner_config import names
from spawner_config.engines.docker import container_arguments
from spawner_config.sandbox import MIB, Kind, Limits, sandbox_spec


def arguments(kind: Kind = "desk") -> dict[str, Any]:
    return container_arguments(
        sandbox_spec(
            kind,
            lab="lab",
            agency="889640782",
            slug="nav",
            name=names.desk_container("lab", "nav", "kari") if kind == "desk" else names.runner_container("lab", "r1"),
            image="image:1",
            command=["true"],
            environment={"A": "{username}"},
            limits=Limits(memory=512 * MIB, cpus=1.5, pids=100, log=MIB),
            person="kari" if kind == "desk" else None,
        )
    )


def test_nothing_is_left_to_the_engines_defaults_that_would_open_a_wall() -> None:
    for kind in ("desk", "runner"):
        host = arguments(kind)["host_config"]
        assert host["CapDrop"] == ["ALL"]
        assert "CapAdd" not in host
        assert host["SecurityOpt"] == ["no-new-privileges:true"]  # and no seccomp=unconfined
        assert not host.get("Privileged")
        assert host["ReadonlyRootfs"] is True
        assert host["NetworkMode"] == "proverom-lab-nav"
        assert host["Dns"] == ["127.0.0.1"]
        assert host["Sysctls"]["net.ipv6.conf.all.disable_ipv6"] == "1"
        assert host["IpcMode"] == "private"
        assert host["RestartPolicy"]["Name"] == "no"
        assert not host.get("Binds")
        assert not host.get("PortBindings")
        assert not host.get("Devices")
        assert arguments(kind)["user"] == "1000:1000"


def test_limits_are_the_specs() -> None:
    host = arguments()["host_config"]
    assert host["Memory"] == host["MemorySwap"] == 512 * MIB
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    assert host["PidsLimit"] == 100
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": str(MIB), "max-file": "2"}}


def test_a_desk_mounts_named_volumes_only_and_a_runner_none() -> None:
    mounts = arguments()["host_config"]["Mounts"]
    assert [(m["Type"], m["Source"], m["Target"]) for m in mounts] == [
        ("volume", "proverom-lab-home-nav-kari", "/home/lab"),
        ("volume", "proverom-lab-shared-nav", "/home/lab/felles"),
    ]
    assert all(m["VolumeOptions"]["Labels"][names.AGENCY] == "889640782" for m in mounts)
    runner = arguments("runner")["host_config"]
    assert not runner["Mounts"]
    assert "size=" in runner["Tmpfs"]["/home/lab"]
    assert "/home/lab" not in arguments()["host_config"]["Tmpfs"]


def test_every_tmpfs_has_a_size_and_no_devices() -> None:
    for options in arguments("runner")["host_config"]["Tmpfs"].values():
        assert "size=" in options
        assert {"nosuid", "nodev"} <= set(options.split(","))


def test_the_environment_is_handed_on_as_it_is() -> None:
    assert arguments()["environment"]["A"] == "{username}"


def test_a_runner_is_process_one_of_its_sandbox_so_that_no_kernel_can_end_it() -> None:
    assert arguments("runner")["host_config"]["Init"] is False
    assert arguments("desk")["host_config"]["Init"] is True
