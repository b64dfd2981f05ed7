"""The tests' ground itself: what it promises the tests that stand on it."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

pytest_plugins = ["pytester"]

CONFTEST = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("ground", {path!r})
ground = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ground)
require = ground.require
pytest_terminal_summary = ground.pytest_terminal_summary
"""

MISSING = """
def test_it(require):
    require("a flying carpet", "ask a djinn")
def test_again(require):
    require("a flying carpet", "ask a djinn")
"""


def write_project(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    pytester.makeconftest(CONFTEST.format(path=str(request.config.rootpath / "tests" / "conftest.py")))
    pytester.makepyfile(MISSING)


def test_a_missing_thing_is_skipped_and_named_at_the_end(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROVEROM_TEST_REQUIRE", raising=False)
    write_project(pytester, request)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*left out on this machine*", "2 test(s) need a flying carpet", "*ask a djinn"])


def test_a_missing_thing_fails_where_everything_is_required(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVEROM_TEST_REQUIRE", "1")
    write_project(pytester, request)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*needs a flying carpet. Get it: ask a djinn*"])


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_database_of_its_own(database_url: str, turn: int) -> None:
    engine = create_engine(database_url)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE only_here (n INTEGER)"))  # fails if another test's is there
            connection.execute(text("INSERT INTO only_here VALUES (1)"))
            assert connection.execute(text("SELECT count(*) FROM only_here")).scalar() == 1
    finally:
        engine.dispose()


def test_the_engine_answers(docker_client) -> None:  # type: ignore[no-untyped-def]
    assert docker_client.version()["ApiVersion"]


def test_the_browser_shows_a_page(page) -> None:  # type: ignore[no-untyped-def]
    page.set_content("<h1>Prøverom</h1>")
    assert page.get_by_role("heading").inner_text() == "Prøverom"
