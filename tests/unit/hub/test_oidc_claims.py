"""Which organisations an id token names, in each form that Ansattporten has had."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.login import ansattporten_details, organisations_of

DIGDIR = frozenset({"991825827"})


@pytest.mark.parametrize(
    "details",
    [
        [{"authorized_parties": [{"orgno": {"authority": "iso6523-actorid-upis", "ID": "0192:991825827"}}]}],
        [{"orgno": {"ID": "0192:991825827"}}],
        [{"reportees": [{"Authority": "iso6523-actorid-upis", "ID": "0192:991825827"}]}],
        {"orgno": {"ID": "991825827"}},
        json.dumps([{"reportees": [{"ID": "991825827"}]}]),
    ],
)
def test_each_form_is_read(details: object) -> None:
    assert organisations_of({"authorization_details": details}) == DIGDIR


@pytest.mark.parametrize(
    "details",
    [
        None,
        "not json",
        [],
        [{"orgno": {"ID": "0192:99182582"}}],
        [{"orgno": {"ID": "0007:991825827"}}],
        [{"orgno": {"ID": "0192:991825827\n"}}],
        [{"orgno": {"ID": 991825827}}],
        [{"authorized_parties": {"orgno": "991825827"}}],
    ],
)
def test_what_has_another_form_names_nobody(details: object) -> None:
    assert organisations_of({"authorization_details": details}) == frozenset()


@given(st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)))
def test_no_claim_breaks_it(details: object) -> None:
    organisations_of({"authorization_details": details})


def test_the_chooser_is_asked_for_one_resource() -> None:
    assert json.loads(ansattporten_details("urn:altinn:resource:lab"))[0]["resource"] == "urn:altinn:resource:lab"
