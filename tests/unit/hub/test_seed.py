"""The demonstration lab's beginning, on a real catalog."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog.store import Catalog, migrate, open_catalog
from hub.membership import SYSTEM, Directory
from hub.seed import AGENCIES, LOGINS, seed


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    migrate(url)
    opened = open_catalog(url, str(tmp_path / "blobs"))
    yield opened
    opened.close()


def test_it_makes_agencies_people_and_published_templates(catalog: Catalog) -> None:
    added = seed(catalog)
    assert "agency nav" in added
    assert {agency.orgnr for agency in catalog.agencies.all()} == {agency.orgnr for agency in AGENCIES}
    assert LOGINS == ("team", "coordinator", "leader", "admin")
    directory = Directory(catalog.agencies, catalog.members)
    assert [desk.slug for desk in directory.standing("team").desks] == ["nav", "skatteetaten"]
    assert len(directory.standing("coordinator").desks) == 4
    assert directory.standing("leader").desks == ()
    assert directory.standing("leader").current
    assert directory.standing("admin").groups == ("admin",)
    published = catalog.templates.list(SYSTEM)
    assert {record.version.name for record in published} >= {"letter-ab-test"}
    assert all((record.published_by, record.approved_by) == ("coordinator", "admin") for record in published)


def test_again_it_adds_nothing(catalog: Catalog) -> None:
    seed(catalog)
    assert seed(catalog) == ()


def test_what_people_have_changed_since_stays(catalog: Catalog) -> None:
    seed(catalog)
    team = next(m for m in catalog.members.list(SYSTEM, "889640782") if m.person == "team")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    catalog.members.end(SYSTEM, team.id, yesterday)
    catalog.templates.deprecate(SYSTEM, "letter-ab-test", "1.0.0")
    catalog.agencies.change(SYSTEM, "964338531", active=False)
    assert seed(catalog) == ()
    assert [d.slug for d in Directory(catalog.agencies, catalog.members).standing("team").desks] == ["skatteetaten"]
