"""The dispatcher's process ends when it is asked to, whatever its engine does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog.store import migrate
from hub.deployment import Deployment
from hub.dispatching import STOP_SECONDS, config, places_for, slots_for
from hub.keys import write_private
from hub.settings import PROJECT, LabSettings, RunSettings, Settings

HANGING = """
import threading
from hub import dispatching
from hub.settings import load_settings

class Hanging:
    name = "local"
    def sandboxes(self, **_):
        print("asked", flush=True)
        threading.Event().wait()

dispatching.lab_engine = lambda *_: Hanging()
dispatching.run(load_settings())
"""


def test_it_gets_what_the_settings_say(tmp_path: Path) -> None:
    settings = Settings(lab=LabSettings(name="two"), runs=RunSettings(concurrent=7, pids=99))
    found = config(settings, Deployment("docker", "proverom/sandbox:1", "proverom/hub:1"))
    assert (found.lab, found.image, found.total_runs) == ("two", "proverom/sandbox:1", 7)
    assert (found.limits.memory, found.limits.pids) == (2 * 1024**3, 99)
    assert found.runner_url == "http://hub:8000/services/catalog/runner/v1"


def test_warm_runners_and_batches_are_set(tmp_path: Path) -> None:
    runs = RunSettings(warm_per_agency=3, warm_for_minutes=2, sweep_slots=5, sweep_batch=40)
    found = config(Settings(runs=runs), Deployment("local", "local"))
    assert (found.warm_per_agency, found.warm_for_seconds) == (3, 120.0)
    assert (found.sweep_slots, found.sweep_batch) == (5, 40)


def test_a_sweeps_slots_follow_the_machine_unless_they_are_set() -> None:
    assert [slots_for(cores) for cores in (1, 2, 4, 64)] == [2, 4, 8, 8]


def test_how_many_runs_there_is_room_for_follows_the_machine_unless_it_is_set() -> None:
    assert [places_for(cores) for cores in (1, 2, 4, 64)] == [4, 4, 8, 128]
    found = config(Settings(), Deployment("local", "local"))
    assert found.total_runs == places_for(os.cpu_count() or 1)


@pytest.mark.parametrize("how", ["terminate", "interrupt"])
def test_an_engine_that_hangs_does_not_keep_it_alive(tmp_path: Path, how: str) -> None:
    settings = Settings(lab=LabSettings(state=tmp_path)).with_engine("local")
    migrate(settings.database_url)
    Deployment("local", "local").save(tmp_path)
    write_private(tmp_path / "settings.json", settings.dump())
    with subprocess.Popen(
        [sys.executable, "-c", HANGING],
        cwd=PROJECT,
        env={"PROVEROM_CONFIG": str(tmp_path / "settings.json")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        time.sleep(0.2)
        if how == "terminate":
            process.terminate()
        else:
            process.send_signal(2)
        process.wait(timeout=STOP_SECONDS + 30)
