"""The command line against the real API, as its users meet it; and its guide names all that it reads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hub import connection
from hub.cli import app
from hub.cli_output import seconds as read_seconds
from hub.cli_output import shown
from tests.unit.catalog.api_lab import ApiLab
from tests.unit.catalog.world import DECLARATION, DONE, NOTEBOOK
from tests.unit.hub.served import served

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiLab]:
    state = tmp_path / "state"
    state.mkdir()
    with served(migrated_sqlite, tmp_path) as (built, url):
        logins = {
            name: {"password": "", "token": f"token-{name}"}
            for name in ("kari", "both", "kirsten", "sara", "root", "leif")
        }
        (state / "logins.json").write_text(json.dumps({"url": url, "logins": logins}))
        for name in ("PROVEROM_URL", "PROVEROM_TOKEN", "PROVEROM_AGENCY", "JUPYTERHUB_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PROVEROM_LAB__STATE", str(state))
        yield built


def call(*arguments: str, status: int = 0) -> str:
    """Run the command and return what it printed (both streams), after checking its exit status."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done.output


def data(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def test_me(lab: ApiLab) -> None:
    assert "nav" in call("me", "--as", "kari")
    assert data("me", "--as", "root")["admin"]


def test_a_run_from_the_command_line(lab: ApiLab, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("alpha: 0,15\noffice: NO\n")
    made = data(
        "run", "letter@1.0.0", "-p", "alpha=0,1", "-f", str(tmp_path / "p.yaml"), "--timeout", "2m", "--as", "kari"
    )
    assert made["parameters"] == {"alpha": 0.1, "office": "NO"}
    assert made["timeout_seconds"] == 120
    assert made["agency"]["slug"] == "nav"  # the only one kari belongs to
    listed = call("runs", "list", "--as", "kari")
    assert made["id"] in listed
    assert "queued" in listed
    assert made["id"] in call("runs", "show", made["id"], "--as", "kari")
    assert "cancelled" in call("runs", "cancel", made["id"], "--as", "kari")
    again = data("runs", "retry", made["id"], "--as", "kari")
    assert again["retry_of"] == made["id"]
    assert "alpha" not in call("runs", "compare", made["id"], again["id"], "--as", "kari")


def test_wrong_use_is_status_2_and_starts_nothing(lab: ApiLab) -> None:
    assert "above its maximum" in call("run", "letter", "-p", "alpha=9", "--as", "kari", status=2)
    assert "=" in call("run", "letter", "-p", "alpha", "--as", "kari", status=2)
    assert "--agency" in call("run", "letter", "--as", "both", status=2)
    assert "time limit" in call("run", "letter", "--timeout", "soon", "--as", "kari", status=2)
    assert "stranger" in call("me", "--as", "stranger", status=2)
    assert "PROVEROM_URL" in call("me", status=2)
    call("run", "letter", "--as", "leif", status=2)
    assert "no run nothing" in call("runs", "show", "nothing", "--as", "kari", status=2)
    assert data("runs", "list", "--as", "root") == []


def test_a_desk_needs_no_options(lab: ApiLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = json.loads((tmp_path / "state" / "logins.json").read_text())["url"]
    monkeypatch.setenv("PROVEROM_URL", url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "desk-of-both-at-nav")
    assert data("run", "letter")["agency"]["slug"] == "nav"
    monkeypatch.setenv("PROVEROM_AGENCY", "nav")
    assert data("run", "letter")["agency"]["slug"] == "nav"


def test_an_unreachable_lab_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVEROM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PROVEROM_TOKEN", "t")
    assert "does not answer" in call("members", "end", "x", status=1)


@pytest.mark.parametrize(("outcome", "status"), [("succeeded", 0), ("failed", 1)])
def test_waiting_ends_with_the_runs_own_status(lab: ApiLab, outcome: str, status: int) -> None:
    process = proverom("run", "letter", "--wait", "--as", "kari")
    run = process.stdout.readline().split()[1]
    token, assignment = lab.world.claim("r1")
    assert assignment.run == run
    notebook = NOTEBOOK.decode()
    reported = {"attempt": 1, "outcome": outcome, "reason": "kernel_died", "notebook": notebook}
    assert lab.runner(f"/runs/{run}/result", token, reported).status_code == 200
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert outcome in out
    assert outcome in err


def test_ctrl_c_leaves_the_run_and_says_how_to_cancel_it(lab: ApiLab) -> None:
    process = proverom("run", "letter", "--wait", "--as", "kari")
    run = process.stdout.readline().split()[1]
    assert process.stderr.readline().strip() == "queued"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"proverom runs cancel {run}" in err
    assert lab.get(f"/runs/{run}").json()["state"] == "queued"


def proverom(*arguments: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "hub.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests that were started in the background ignore Ctrl-C, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_report_is_saved(lab: ApiLab, tmp_path: Path) -> None:
    run = lab.world.finished(lab.world.submit(), DONE).id
    call("report", run, "-o", str(tmp_path / "r.html"), "--as", "leif")
    assert "Et kortere brev ga 2,3 prosentpoeng flere svar." in (tmp_path / "r.html").read_text()
    assert ".pdf" in call("report", run, "-o", str(tmp_path / "r.docx"), "--as", "leif", status=2)
    assert "cannot be written" in call("report", run, "-o", str(tmp_path / "no" / "r.html"), "--as", "leif", status=2)
    shown_run = call("runs", "show", run, "--as", "leif")
    assert "2.3 pp (0.4 to 4.2)" in shown_run


def test_templates_from_folder_to_published(lab: ApiLab, tmp_path: Path) -> None:
    folder = tmp_path / "letter"
    folder.mkdir()
    assert "template.ipynb" in call("templates", "check", str(folder), "--as", "kari", status=2)
    (folder / "template.ipynb").write_bytes(NOTEBOOK)
    (folder / "template.toml").write_text(DECLARATION.format(name="letter", version="1.1.0", title="Brev"))
    (folder / "README.md").write_text("Om brev")
    assert "letter@1.1.0" in call("templates", "check", str(folder), "--as", "kari")
    call("templates", "publish", str(folder), "--as", "kari", status=2)
    assert "approve letter@1.1.0" in call("templates", "publish", str(folder), "--as", "kirsten")
    call("templates", "approve", "letter@1.1.0", "--as", "kirsten", status=2)
    assert data("templates", "approve", "letter@1.1.0", "--as", "sara")["state"] == "published"
    assert "alpha" in call("templates", "show", "letter", "--as", "kari")
    assert "1.1.0" in call("templates", "list", "--as", "kari")
    assert "which" in call("templates", "deprecate", "letter", "--as", "kirsten", status=2).lower()
    assert "deprecated" in call("templates", "deprecate", "letter@1.1.0", "--as", "kirsten")


def test_agencies_members_and_experiments(lab: ApiLab) -> None:
    call("agencies", "add", "991825827", "digdir", "--name", "Digdir", "--as", "root")
    assert "digdir" in call("agencies", "list", "--as", "root")
    assert (
        data("agencies", "change", "digdir", "--name-en", "The Agency", "--closed", "--as", "root")["name"]["nb"]
        == "Digdir"
    )
    assert "digdir" not in call("agencies", "list", "--as", "root")
    assert "digdir" in call("agencies", "list", "--all", "--as", "root")
    call("agencies", "change", "digdir", "--as", "root", status=2)
    member = data("members", "add", "ola", "--agency", "nav", "--ends", "2030-01-01", "--as", "kirsten")
    assert "ola" in call("members", "list", "--agency", "nav", "--as", "kirsten")
    assert data("members", "end", member["id"], "--on", "2026-03-01", "--as", "kirsten")["ends"] == "2026-03-01"
    made = data("experiments", "create", "Kortere brev", "--agency", "nav", "--as", "kari")
    call("experiments", "change", made["id"], "--summary", "Om svar", "--as", "kari")
    call("experiments", "change", made["id"], "--as", "kari", status=2)
    assert "Om svar" in call("experiments", "show", made["id"], "--as", "kari")
    assert made["id"] in call("experiments", "list", "--as", "kari")


def test_searching(lab: ApiLab) -> None:
    run = lab.world.finished(lab.world.submit(), DONE).id
    assert run in call("catalog", "search", "kortere", "--as", "leif")
    assert [r["id"] for r in data("catalog", "search", "kortere", "--as", "leif")["runs"]] == [run]


def test_what_a_notebook_wrote_does_not_steer_the_terminal() -> None:
    assert shown("\x1b[2J\u202eevil\x07") == "\\u001b[2J\\u202eevil\\u0007"
    assert shown("Søknad – 💥") == "Søknad – 💥"


@pytest.mark.parametrize(("text", "wanted"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), (" 1H ", 3600)])
def test_time_limits(text: str, wanted: int) -> None:
    assert read_seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "1d", "m", "1.5h", "9" * 20])
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_seconds(text)


def test_starting_imports_nothing_heavy() -> None:
    heavy = ("httpx", "pydantic", "fastapi", "sqlalchemy", "jupyterhub", "docker", "nbconvert", "yaml")
    program = f"import sys, hub.cli; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


# -- the guide -------------------------------------------------------------------------------------------------------


def test_the_guide_names_every_variable_that_is_read() -> None:
    read = set(re.findall(r'environ\.get\("([A-Z_]+)"', Path(connection.__file__).read_text()))
    written = set(re.findall(r"`([A-Z_]+)`", GUIDE.read_text()))
    # The other two say where the state folder is: the settings' own names, documented with them.
    assert read - {"PROVEROM_CONFIG", "PROVEROM_LAB__STATE"} <= written
    assert len(read) > 4
