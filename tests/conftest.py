"""The ground every test stands on: what the machine must offer, databases, the Docker Engine, the browser.

A test that needs something of the machine takes the fixture that offers it. Where the machine has none, the test is
skipped with the thing's name and how to get it, and the session's last lines repeat that list; with
``PROVEROM_TEST_REQUIRE=1`` (CI) it fails instead, so nothing is left out unnoticed.

Fixtures: ``require``, ``docker_client``, ``database_url`` (empty; once on SQLite, once on PostgreSQL),
``migrated_database_url`` (the same with the catalog's tables), ``postgres_url`` (empty, PostgreSQL only), ``chromium``,
``browser``, ``page``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

DOCKER = ("a Docker Engine that answers", "sudo apt-get install docker.io && sudo systemctl start docker")
POSTGRES = ("PostgreSQL's programs (initdb, pg_ctl)", "sudo apt-get install postgresql")
CHROMIUM = ("Chromium", "sudo apt-get install chromium")

# A test that takes one of these fixtures has the marker without writing it.
MARKER_OF_FIXTURE = {"docker_client": "engine", "chromium": "browser", "browser": "browser", "page": "browser"}

_REASON = re.compile(r"needs (?P<what>.+?)\. Get it: (?P<how>.+)", re.DOTALL)


class Require(Protocol):
    def __call__(self, what: str, how: str) -> NoReturn: ...


def require_or_skip(what: str, how: str) -> NoReturn:
    """Skip the test because ``what`` is missing, saying ``how`` to get it; fail it if PROVEROM_TEST_REQUIRE=1."""
    reason = f"needs {what}. Get it: {how}"
    if os.environ.get("PROVEROM_TEST_REQUIRE") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Require:
    """``require(what, how)``: call it where something the machine should offer was looked for and not found."""
    return require_or_skip


# -- what was missing, said once at the end --------------------------------------------------------------------------


def missing_things(reasons: list[str]) -> list[tuple[str, str, int]]:
    """Return (what, how, number of tests) for each thing that skipped tests, most tests first."""
    counted: dict[tuple[str, str], int] = {}
    for reason in reasons:
        if match := _REASON.search(reason):
            key = (match["what"], match["how"])
            counted[key] = counted.get(key, 0) + 1
    return [(what, how, tests) for (what, how), tests in sorted(counted.items(), key=lambda item: -item[1])]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    if missing := missing_things(reasons):
        terminalreporter.section("left out on this machine")
        for what, how, tests in missing:
            terminalreporter.write_line(f"{tests} test(s) need {what}")
            terminalreporter.write_line(f"    to run them: {how}")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if marker := MARKER_OF_FIXTURE.get(fixture):
                item.add_marker(marker)
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


# -- the Docker Engine -----------------------------------------------------------------------------------------------


def somebody_listens(host: str) -> bool:
    """Say whether anybody answers at a Docker host's Unix socket; True for other kinds of address, which are not tried.

    Asked before docker-py, which leaves its socket open when nobody answers, and an open socket fails another test.
    """
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


@pytest.fixture(scope="session")
def docker_client() -> Iterator[Any]:
    """A ``docker.DockerClient`` of the engine that DOCKER_HOST names, or of the machine's own."""
    import docker
    from docker.errors import DockerException

    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not somebody_listens(host):
        require_or_skip(*DOCKER)
    try:
        client = docker.from_env(timeout=120)
    except DockerException:
        require_or_skip(*DOCKER)
    try:
        yield client
    finally:
        client.close()


# -- databases -------------------------------------------------------------------------------------------------------


class PostgresCluster:
    """A PostgreSQL of the session's own, reached over a Unix socket in its own directory. Under xdist, one a worker.

    The server refuses to run as root, so root runs it as the user ``postgres``.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None
        # Not below pytest's own temporary directory: that is closed to other users, and a socket's path must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="pr-pg-"))
        self._serial = itertools.count(1)
        self._templates: dict[str, str] = {}
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)

    def start(self) -> None:
        data = str(self.directory / "data")
        self._call("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        # Nothing here has to survive the machine, so nothing waits for the disk.
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={self.directory} -c fsync=off -c full_page_writes=off"
            " -c synchronous_commit=off -c shared_buffers=32MB -c max_connections=60"
        )
        self._call("pg_ctl", "-D", data, "-w", "-t", "60", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        if (self.directory / "data" / "postmaster.pid").exists():
            self._call("pg_ctl", "-D", str(self.directory / "data"), "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.directory}"

    def create(self, template: str = "template1") -> str:
        """Make a fresh database, a copy of ``template``, and return its name."""
        name = f"test_{next(self._serial)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return name

    def drop(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def migrated_template(self) -> str:
        """Return the name of a database with the catalog's tables, made on first use."""
        if "migrated" not in self._templates:
            from catalog.store import migrate

            name = self.create()
            migrate(self.url(name))
            self._templates["migrated"] = name
        return self._templates["migrated"]

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(f"host={self.directory} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def _call(self, program: str, *arguments: str) -> None:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.directory)}
        # A file and no pipe: the server inherits it, and a pipe would then never close.
        with (self.directory / f"{program}.out").open("wb") as output:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            said = (self.directory / f"{program}.out").read_text(errors="replace")
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")


def postgres_programs() -> Path | None:
    """Return the directory of the newest PostgreSQL's programs, None if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda p: float(p.parent.name)) if versions else None


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    programs = postgres_programs()
    if programs is None:
        require_or_skip(*POSTGRES)
    cluster = PostgresCluster(programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextlib.contextmanager
def fresh_postgres(cluster: PostgresCluster, *, migrated: bool) -> Iterator[str]:
    name = cluster.create(cluster.migrated_template() if migrated else "template1")
    try:
        yield cluster.url(name)
    finally:
        cluster.drop(name)


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The address of an empty PostgreSQL database of the test's own."""
    with fresh_postgres(postgres_cluster, migrated=False) as url:
        yield url


DATABASES = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of the test's own: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.sqlite'}"
        return
    with fresh_postgres(request.getfixturevalue("postgres_cluster"), migrated=False) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the catalog's tables, to be copied."""
    from catalog.store import migrate

    path = tmp_path_factory.mktemp("migrated") / "catalog.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=DATABASES)
def migrated_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Like ``database_url``, with the catalog's tables already in it (copied, so a test doesn't pay for migrating)."""
    if request.param == "sqlite":
        source: Path = request.getfixturevalue("migrated_sqlite")
        for part in source.parent.glob(f"{source.name}*"):  # with its -wal, should there be one
            shutil.copy(part, tmp_path / part.name)
        yield f"sqlite:///{tmp_path / source.name}"
        return
    with fresh_postgres(request.getfixturevalue("postgres_cluster"), migrated=True) as url:
        yield url


# -- the browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of the machine's Chromium (Playwright's own download is never used)."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    require_or_skip(*CHROMIUM)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    """A Playwright ``Browser`` (sync).

    It ends with its module: Playwright keeps an event loop running in the main thread for as long as it lives, and no
    asyncio test can run beside it. So a module with browser tests has no ``async def`` tests.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        try:
            yield launched
        finally:
            launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in a browser context of the test's own: no cookie of another test, downloads refused."""
    context = browser.new_context(locale="nb-NO", accept_downloads=False)
    try:
        yield context.new_page()
    finally:
        context.close()
