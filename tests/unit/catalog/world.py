"""A small lab in a catalog of its own: two agencies, their people, one published template."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from catalog.access import Action, Viewer, system
from catalog.store import Catalog, RunLimits, open_catalog
from catalog.store.records import AgencyRecord, ExperimentRecord, RunRecord, Submission
from experiments.model import Assignment, Metric, RunnerTicket, RunResult, RunState
from experiments.testing import FakeClock
from lab_templates.checks import read_template
from lab_templates.model import TemplateVersion, Text

NAV = "889640782"
SKATT = "974761076"
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
GIB = 1024**3
EVERYTHING = frozenset(Action)
SYSTEM = system("test")

NOTEBOOK = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": "a1",
                "metadata": {"tags": ["parameters"]},
                "outputs": [],
                "source": 'alpha = 0.05\noffice = "Bergen"',
            }
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
).encode()

DECLARATION = """
name = "{name}"
version = "{version}"
language = "nb"
timeout_seconds = 600
data_class = "synthetic"
[title]
nb = "{title}"
nn = "{title}"
en = "{title}"
[summary]
nb = "For prøver"
nn = "For prøver"
en = "For tests"
[data_source]
nb = "Ingen"
nn = "Ingen"
en = "None"
[[parameters]]
name = "alpha"
type = "number"
default = 0.05
minimum = 0.001
maximum = 0.2
label = {{ nb = "Alfa", nn = "Alfa", en = "Alpha" }}
[[parameters]]
name = "office"
type = "text"
default = "Bergen"
max_length = 20
label = {{ nb = "Kontor", nn = "Kontor", en = "Office" }}
"""


def template(name: str = "letter", version: str = "1.0.0", title: str = "Kortere brev") -> TemplateVersion:
    """Return a template that passed the gate."""
    declaration = DECLARATION.format(name=name, version=version, title=title).encode()
    return read_template(NOTEBOOK, declaration, f"About {name}")


def agency(orgnr: str, slug: str, name: str, **fields: int) -> AgencyRecord:
    return AgencyRecord(orgnr, slug, Text(nb=name), **fields)


DONE = RunResult(
    RunState.SUCCEEDED,
    NOTEBOOK,
    metrics=(Metric("difference", 2.3, "pp", 0.4, 4.2, "higher"),),
    findings=("Et kortere brev ga 2,3 prosentpoeng flere svar.",),
)


@dataclass
class World:
    """People: ``kari`` member, ``kirsten`` coordinator and ``leif`` leader at NAV; ``siri`` member and ``sara``
    coordinator at Skatteetaten; ``both`` member at the two; ``root`` admin; ``nobody`` has no place in the lab.
    """

    catalog: Catalog
    clock: FakeClock
    url: str

    def viewer(self, name: str, *, desk: str | None = None, actions: frozenset[Action] = EVERYTHING) -> Viewer:
        return self.catalog.members.viewer(name, actions=actions, confined_to=desk)

    def submit(self, name: str = "kari", agency: str = NAV, **fields: object) -> RunRecord:
        record, created = self.catalog.runs.submit(self.viewer(name), submission(agency, **fields))
        assert created
        return record

    def experiment(self, name: str = "kari", agency: str = NAV, **fields: object) -> ExperimentRecord:
        values = {"title": "Brevet", **fields}
        return self.catalog.experiments.create(self.viewer(name), agency=agency, **values)  # type: ignore[arg-type]

    def open_runner(self, id: str, agency: str = NAV, *, slots: int = 1, batch_limit: int = 1) -> str:
        """Open a runner and return its token."""
        token = f"token-of-{id}"
        hashed = hashlib.sha256(token.encode()).hexdigest()
        digest = "sha256:" + "b" * 64
        name = f"proverom-lab-runner-{id}"
        ticket = RunnerTicket(id, agency, hashed, name, "docker", digest, self.clock(), slots, batch_limit)
        self.catalog.queue.open_runner(ticket)
        return token

    def claim(self, id: str, agency: str = NAV) -> tuple[str, Assignment]:
        token = self.open_runner(id, agency)
        assignment = self.catalog.queue.claim(token, self.clock())
        assert assignment is not None
        return token, assignment

    def finished(self, run: RunRecord, result: RunResult = DONE, runner: str | None = None) -> RunRecord:
        """Run what waits longest, which must be ``run``, to its end."""
        token, assignment = self.claim(runner or f"r{run.id[-12:]}", run.agency.orgnr)
        assert assignment.run == run.id
        self.catalog.queue.finish(token, run.id, assignment.attempt, result, self.clock())
        return self.catalog.runs.get(SYSTEM, run.id)


def submission(agency: str = NAV, **fields: object) -> Submission:
    values: dict[str, object] = {"template": "letter", "parameters": {"alpha": 0.1}, **fields}
    return Submission(agency=agency, **values)  # type: ignore[arg-type]


def publish(catalog: Catalog, version: TemplateVersion) -> TemplateVersion:
    catalog.templates.submit(Viewer("author", SYSTEM.grants, EVERYTHING), version)
    catalog.templates.approve(SYSTEM, version.name, version.version)
    return version


def build_world(url: str, blobs: Path) -> World:
    clock = FakeClock(T0)
    limits = RunLimits(max_timeout_seconds=3600, memory=2 * GIB, cpus=0.5)
    catalog = open_catalog(url, str(blobs), limits=limits, clock=clock)
    catalog.agencies.add(SYSTEM, agency(NAV, "nav", "Arbeids- og velferdsetaten", max_concurrent_runs=4))
    catalog.agencies.add(SYSTEM, agency(SKATT, "skatteetaten", "Skatteetaten", max_concurrent_runs=4, weight=2))
    for person, orgnr, role in (
        ("kari", NAV, "member"),
        ("kirsten", NAV, "coordinator"),
        ("leif", NAV, "leader"),
        ("siri", SKATT, "member"),
        ("sara", SKATT, "coordinator"),
        ("both", NAV, "member"),
        ("both", SKATT, "member"),
        ("root", "", "admin"),
    ):
        catalog.members.add(SYSTEM, person=person, agency=orgnr, role=role)
    publish(catalog, template())
    return World(catalog, clock, url)
