"""The Hub's own pages find the reader's language, though JupyterHub gives them no request."""

from typing import Any

import pytest
from jinja2 import Environment
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from catalog.web.i18n import translator
from hub.pages import DEFAULT, environment_options


class Handler:
    """Stands where tornado's handler does: ``static_url`` is its method."""

    def __init__(self, uri: str, headers: dict[str, str]) -> None:
        start = RequestStartLine("GET", uri, "HTTP/1.1")
        self.request = HTTPServerRequest(
            start_line=start, headers=HTTPHeaders({"Host": "lab", **headers}), connection=Connection()
        )

    def static_url(self, path: str) -> str:
        return path


class Connection:
    context = None


def render(text: str, uri: str = "/hub/login", headers: dict[str, str] | None = None, **variables: Any) -> str:
    environment = Environment(autoescape=True, **environment_options())
    handler = Handler(uri, headers or {})
    return environment.from_string(text).render(static_url=handler.static_url, **variables)


@pytest.mark.parametrize(
    ("uri", "headers", "language"),
    [
        ("/", {}, "nn"),
        ("/", {"Accept-Language": "en-GB,en;q=0.9,nb;q=0.5"}, "en"),
        ("/", {"Accept-Language": "no"}, "nb"),
        ("/", {"Cookie": "proverom_lang=nb", "Accept-Language": "en"}, "nb"),
        ("/?lang=en", {"Cookie": "proverom_lang=nb"}, "en"),
        ("/?lang=%ff%fe", {"Cookie": "proverom_lang=<script>", "Accept-Language": ";;q=x,,"}, "nn"),
    ],
)
def test_the_language(uri: str, headers: dict[str, str], language: str) -> None:
    assert render("{{ language() }}", uri, headers, **{DEFAULT: "nn"}) == language


def test_texts_are_in_it() -> None:
    assert render("{{ _('Log in') }}", "/?lang=nb") == translator("nb")("Log in") != "Log in"
    assert render("{% trans %}Log in{% endtrans %}", "/?lang=en") == "Log in"
    assert render("{{ tr().number(1.5) }}", "/?lang=nb") == "1,5"


def test_what_a_person_wrote_is_escaped_inside_a_text() -> None:
    assert "<b>" not in render("{% trans name=name %}Hello {{ name }}{% endtrans %}", name="<b>x</b>")


def test_without_a_request_the_labs_language_is_used() -> None:
    environment = Environment(autoescape=True, **environment_options())
    assert environment.from_string("{{ language() }}").render(**{DEFAULT: "nn"}) == "nn"
    assert environment.from_string("{{ language() }}").render() == "nb"
