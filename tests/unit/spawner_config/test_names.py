"""Names in an engine: short enough, and never the same for two things."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner_config import names

LABS = st.from_regex(r"\A[a-z0-9]{1,12}\Z")
SLUGS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?\Z").filter(lambda slug: slug != names.EDGE)
PERSONS = st.text(min_size=1, max_size=300)


@given(LABS, SLUGS, PERSONS)
def test_every_name_is_one_an_engine_takes(lab: str, slug: str, person: str) -> None:
    for name in (
        names.desk_container(lab, slug, person),
        names.home_volume(lab, slug, person),
        names.shared_volume(lab, slug),
        names.agency_network(lab, slug),
    ):
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9][a-z0-9_.-]+", name)


@given(LABS, st.tuples(SLUGS, PERSONS), st.tuples(SLUGS, PERSONS))
def test_two_desks_have_two_names(lab: str, one: tuple[str, str], other: tuple[str, str]) -> None:
    same = one[0] == other[0] and unicodedata.normalize("NFC", one[1]) == unicodedata.normalize("NFC", other[1])
    assert (names.desk_container(lab, *one) == names.desk_container(lab, *other)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a-b", "c"), ("a", "b-c")),  # the hyphen of a slug, and of a name
        (("nav", "ola.nordmann"), ("nav", "ola-nordmann")),  # the same letters
        (("nav", "ola"), ("nav", "Ola")),
        (("nav", "x" * 300), ("nav", "x" * 301)),  # the same beginning
        (("nav", "../etc"), ("nav", "etc")),
        (("nav", "æ"), ("nav", "ø")),
    ],
)
def test_names_that_look_alike_stay_distinct(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert names.desk_container("lab", *one) != names.desk_container("lab", *other)
    assert names.home_volume("lab", *one) != names.home_volume("lab", *other)


def test_no_name_can_be_written_that_is_another_names_escaped_form() -> None:
    escaped = names.desk_container("lab", "nav", "Ola").removeprefix("proverom-lab-desk-nav-")
    assert names.desk_container("lab", "nav", escaped) != names.desk_container("lab", "nav", "Ola")


def test_a_plain_name_is_left_readable() -> None:
    assert names.desk_container("lab", "nav", "kari") == "proverom-lab-desk-nav-kari"
    assert names.home_volume("lab", "nav", "kari") == "proverom-lab-home-nav-kari"


def test_composed_and_decomposed_letters_are_one_person() -> None:
    assert names.home_volume("lab", "nav", "Åse") == names.home_volume("lab", "nav", "Åse")


@pytest.mark.parametrize("slug", ["", "edge", "Nav", "nav_x", "-nav", "nav-", "../x", "nav\n", "n" * 21, "næv"])
def test_a_slug_that_cannot_name_an_agency_is_refused_with_its_value(slug: str) -> None:
    with pytest.raises(ValueError, match="cannot name an agency") as caught:
        names.agency_network("lab", slug)
    assert repr(slug) in str(caught.value)


@pytest.mark.parametrize("lab", ["", "la-b", "Lab", "l" * 13, "lab\n"])
def test_a_lab_name_that_is_none_is_refused(lab: str) -> None:
    with pytest.raises(ValueError, match="cannot name a lab"):
        names.hub_container(lab)


def test_a_runners_id_comes_back_from_its_name() -> None:
    name = names.runner_container("lab", "01HX")
    assert names.runner_id("lab", name) == "01HX"
    with pytest.raises(ValueError, match="no runner's"):
        names.runner_id("other", name)
    with pytest.raises(ValueError, match="no runner's id"):
        names.runner_container("lab", "a/b")
