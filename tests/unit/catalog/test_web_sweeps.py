"""Series on the pages: asked for without a script, planned before they start, shown whole, closed to all others."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from catalog.store.records import SweepRecord, SweepState, SweepSubmission
from catalog.testing import COOKIE
from experiments.model import Metric, Reason, RunResult, RunState
from experiments.queue import TokenRefused
from experiments.sweeps import Range, Sample, SweepRequest
from lab_templates.model import Scalar
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import DONE, NAV, SKATT, SYSTEM

FORM = "/templates/letter/series"
GRID = {
    "agency": NAV, "kind": "grid", "minutes": "2", "version": "1.0.0", "p-alpha": "0,05", "p-office": "Bergen",
    "m-alpha": "list", "l-alpha": "0,01; 0,05\n0,1", "m-office": "list", "l-office": "Oslo\nBergen",
}  # fmt: skip
FAILED = RunResult(RunState.FAILED, b"{}", Reason.CELL_FAILED)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


def sweeps(lab: WebLab) -> tuple[SweepRecord, ...]:
    return lab.world.catalog.sweeps.list(SYSTEM).items


def submit(lab: WebLab, request: SweepRequest | None = None) -> str:
    request = request or SweepRequest(grid={"alpha": [0.01, 0.05, 0.1], "office": ["Oslo", "Bergen"]})
    return lab.world.catalog.sweeps.submit(lab.world.viewer("kari"), SweepSubmission("letter", NAV, request))[0].id


def work(lab: WebLab, runner: str, most: int = 1000, bad: tuple[Scalar, ...] = ()) -> None:
    """Carry out what waits: the difference is a hundred times alpha; runs whose alpha is in ``bad`` fail."""
    token = lab.world.open_runner(runner, slots=most, batch_limit=most)
    done: list[str] = []
    while len(done) < most:
        try:
            assignment = lab.world.catalog.queue.claim(token, lab.world.clock(), done)
        except TokenRefused:
            return
        if assignment is None:
            return
        alpha = assignment.parameters["alpha"]
        good = replace(DONE, metrics=(Metric("difference", 100 * float(alpha or 0), "pp"), Metric("<b>=1+1", 1.0)))
        lab.world.clock.advance(10)
        result = FAILED if alpha in bad else good
        lab.world.catalog.queue.finish(token, assignment.run, assignment.attempt, result, lab.world.clock())
        done.append(assignment.run)


def hidden(page: str) -> dict[str, str]:
    """Return the fields of the plan's form, as a browser would send them back."""
    form = page.split("data-once>")[-1]
    return {n: unescape(v) for n, v in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)}


def test_from_the_run_form_to_a_series_without_a_script(lab: WebLab) -> None:
    assert 'formaction="/services/catalog/templates/letter/series"' in lab.get("/templates/letter").text
    begun = lab.post(FORM, {"do": "edit", "agency": NAV, "p-alpha": "0,07", "p-office": "Bodø", "minutes": "3"})
    assert begun.status_code == 200
    assert 'value="0,07"' in begun.text, "what was typed in the form of a single run is kept"
    assert 'value="Bodø"' in begun.text
    planned = lab.post(FORM, {**GRID, "do": "plan"})
    assert planned.status_code == 200
    assert Page(planned.text).faults() == []
    assert "This will be 6 runs" in planned.text
    assert "How long it takes is not known yet" in planned.text
    assert "10\u00a0000 runs in one series; this leaves 9\u00a0994" in planned.text
    assert sweeps(lab) == (), "nothing starts before it is confirmed"
    back = lab.post(FORM, {**hidden(planned.text), "do": "edit"})
    assert "0,01; 0,05\n0,1</textarea>" in back.text
    assert re.search(r'id="m-alpha-list" value="list" checked', back.text)
    sent = {**hidden(planned.text), "do": "start"}
    started = lab.post(FORM, sent)
    assert started.status_code == 303
    assert lab.post(FORM, sent).headers["location"] == started.headers["location"], "sent twice, it is one series"
    (sweep,) = sweeps(lab)
    assert (sweep.size, sweep.varied, sweep.timeout_seconds) == (6, ("alpha", "office"), 120)
    again = lab.get(f"{FORM}?sweep={sweep.id}").text
    assert "0,01\n0,05\n0,1</textarea>" in again, "an earlier series begins the form as it was asked for"


def test_the_plan_knows_the_time_from_earlier_runs(lab: WebLab) -> None:
    submit(lab, SweepRequest(grid={"alpha": [0.01]}))
    work(lab, "r1")
    assert "About 20 seconds until all are done." in lab.post(FORM, {**GRID, "do": "plan"}).text


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"m-alpha": "range", "from-alpha": "0,01", "to-alpha": "0,2", "step-alpha": "0,01", "m-office": "one"}, 20),
        ({"kind": "sample", "size": "1 00", "seed": "7", "m-alpha": "any", "m-office": "one"}, 100),
        (
            {"kind": "sample", "size": "9", "seed": "7", "m-alpha": "range", "from-alpha": "0,01", "to-alpha": "0,1",
             "log-alpha": "on"},
            9,
        ),
        ({"kind": "points", "table": "\ufeffalpha;office\r\n0,01;Oslo\r\n\r\n0,02;\r\n"}, 2),
        ({"kind": "points", "table": "Alfa\tkontor\n0,01\tOslo\n0,02\tBergen"}, 2),
        ({"kind": "points", "table": 'office,alpha\n"Ås, sør",0.01\nBergen,0.02\nBergen,0.02'}, 2),
    ],
)  # fmt: skip
def test_ways_of_choosing_values(lab: WebLab, change: dict[str, str], size: int) -> None:
    planned = lab.post(FORM, {**GRID, "do": "plan", **change})
    assert planned.status_code == 200, planned.text.split("ds-error-summary")[1][:600]
    assert f"This will be {size} runs" in planned.text
    assert lab.post(FORM, {**hidden(planned.text), "do": "start"}).status_code == 303
    assert sweeps(lab)[0].size == size
    assert lab.get(f"{FORM}?sweep={sweeps(lab)[0].id}").status_code == 200


WRONG = [
    ({"l-alpha": "0,01; 9; x"}, ["l-alpha"], ["Alpha is 9. It must be at most 0.2.", "“x”"]),
    ({"l-alpha": " ; \n"}, ["l-alpha"], ["Give the values that “Alpha” is to have."]),
    ({"m-alpha": "one", "m-office": "one"}, ["m-alpha-one"], ["Nothing varies yet."]),
    (
        {"m-alpha": "range", "from-alpha": "0,1", "to-alpha": "0,01", "step-alpha": "0"},
        ["to-alpha", "step-alpha"],
        ["must end above where it begins", "must be a number above 0"],
    ),
    ({"m-alpha": "any"}, ["m-alpha-any"], ["cannot vary so in a grid"]),
    ({"kind": "sample", "size": "0", "seed": "x"}, ["size", "seed"], ["how many runs to draw", "starting number"]),
    (
        {"kind": "sample", "size": "5", "seed": "1", "m-alpha": "range", "from-alpha": "0,01", "to-alpha": ""},
        ["to-alpha"],
        ["Alpha"],
    ),
    ({"kind": "points", "table": "alpha;nope\n1;2"}, ["table"], ["“nope”, which is no field"]),
    ({"kind": "points", "table": "alpha;alpha\n1;2"}, ["table"], ["twice"]),
    ({"kind": "points", "table": "alpha;office\n0,01;Oslo\n9;Oslo\n0,1"}, ["table"], ["Line 3: Alpha is 9.", "Line 4"]),
    ({"kind": "points", "table": 'alpha;office\n0,01;"Oslo'}, ["table"], ["quotation mark"]),
    ({"kind": "points", "table": "alpha"}, ["table"], ["Paste a table"]),
    ({"agency": "", "minutes": "many"}, ["agency", "minutes"], ["Choose an agency", "from 1 to 60"]),
    ({"agency": SKATT}, ["agency"], []),
    ({"experiment": "none"}, [], []),
]


@pytest.mark.parametrize(("change", "fields", "texts"), WRONG)
def test_every_fault_is_said_beside_its_field_and_nothing_is_lost(
    lab: WebLab, change: dict[str, str], fields: list[str], texts: list[str]
) -> None:
    for do in ("plan", "start"):
        answer = lab.post(FORM, {**GRID, **change, "do": do, "key": "k"}, "both")
        if answer.status_code == 404 or change.get("agency") == SKATT:
            continue
        assert answer.status_code == 422
        page = Page(answer.text)
        assert page.faults() == []
        summary = unescape(answer.text.split("<ds-error-summary")[1].split("</ds-error-summary>")[0])
        for field in fields:
            assert f'href="#{field}"' in summary
            assert field in page.ids()
        for text in texts:
            assert text in summary
        for value in change.values():
            assert all(line.strip() in unescape(answer.text) for line in value.splitlines())
    assert all(sweep.agency.orgnr == SKATT for sweep in sweeps(lab))


def test_a_thousand_million_points_are_refused_with_their_count(lab: WebLab) -> None:
    huge = {"m-alpha": "range", "from-alpha": "0,001", "to-alpha": "0,2", "step-alpha": "0,000000000199"}
    answer = lab.post(FORM, {**GRID, **huge, "m-office": "one", "do": "plan"})
    assert answer.status_code == 422
    assert "This is 1\u00a0000\u00a0000\u00a0001 runs. At most 10\u00a0000 are allowed" in answer.text
    endless = {**huge, "step-alpha": "0,000000000000000000000000000000000001"}
    answer = lab.post(FORM, {**GRID, **endless, "m-office": "one", "do": "plan"})
    assert answer.status_code == 422
    assert "10 to the power of" in answer.text


def test_a_template_out_of_use_has_no_form(lab: WebLab) -> None:
    lab.world.catalog.templates.deprecate(SYSTEM, "letter", "1.0.0")
    assert "<textarea" not in lab.get(f"{FORM}?version=1.0.0", "kirsten").text
    assert lab.post(FORM, {**GRID, "do": "start"}).status_code in (404, 422)
    assert sweeps(lab) == ()


PAGES = ["", "/runs", "/runs?sort=difference&down=1", "/runs?show=failed", "/cancel", "?metric=difference&lines=office"]


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
def test_every_page_is_whole_at_every_time(lab: WebLab, language: str) -> None:
    assert Page(lab.get("/sweeps", lang=language).text).faults() == []
    assert Page(lab.get(FORM, lang=language).text).faults() == []
    sweep = submit(lab)
    for stage in ("waiting", "begun", "over"):
        if stage == "begun":
            work(lab, "r1", most=3, bad=(0.05,))
        if stage == "over":
            work(lab, "r2")
        for path in PAGES:
            if path == "/cancel" and stage == "over":
                continue
            for who in ("kari", "leif"):
                response = lab.get(f"/sweeps/{sweep}{path}", who, language)
                assert response.status_code == 200, (stage, path, response.text[-500:])
                assert Page(response.text).faults() == [], (stage, path)
        assert lab.get("/sweeps", lang=language).status_code == 200
    report = lab.get(f"/sweeps/{sweep}/report", "leif", language)
    assert Page(report.text).faults() == []


CLOSED = ["", "/runs", "/runs.csv", "/cancel", "/report", "/document", "/report.pdf", "/report.html"]


def test_what_is_not_for_you(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1", bad=(0.05,))
    for path in CLOSED:
        assert lab.get(f"/sweeps/{sweep}{path}", "siri").status_code == 404, path
        assert lab.get(f"/sweeps/' OR 1=1{path}").status_code == 404, path
    for action in ("cancel", "resume"):
        assert lab.post(f"/sweeps/{sweep}/{action}", who="siri").status_code == 404
        assert lab.post(f"/sweeps/{sweep}/{action}", who="leif").status_code == 403
        assert lab.post(f"/sweeps/{sweep}/{action}", {"csrf": "wrong"}).status_code == 403
    assert lab.post(FORM, {**GRID, "do": "start", "csrf": "wrong"}).status_code == 403
    assert lab.post(FORM, {**GRID, "do": "start"}, "leif").status_code == 403
    assert lab.get(f"/sweeps/{sweep}", headers={"Sec-Fetch-Mode": "cors"}).status_code == 403
    assert "Resume" not in lab.get(f"/sweeps/{sweep}", "leif").text
    assert "that are missing" not in lab.get(f"/sweeps/{sweep}", "leif").text
    assert len(sweeps(lab)) == 1
    assert lab.get("/sweeps", "siri").text.count(sweep) == 0
    assert f"/sweeps/{sweep}" in lab.get("/sweeps", "leif").text


def test_cancel_and_resume(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1", most=2)
    assert "Cancel this series?" in lab.get(f"/sweeps/{sweep}/cancel").text
    lab.post(f"/sweeps/{sweep}/cancel")
    assert lab.world.catalog.sweeps.get(SYSTEM, sweep).state is SweepState.CANCELLED
    late = lab.post(f"/sweeps/{sweep}/cancel").headers["location"].removeprefix(BASE)
    assert "had already ended" in lab.get(late).text
    page = lab.get(f"/sweeps/{sweep}").text
    assert "Run the 4 that are missing" in page
    assert "The run was cancelled before it was finished." in page
    assert lab.post(f"/sweeps/{sweep}/resume").status_code == 303
    work(lab, "r2")
    done = lab.world.catalog.sweeps.get(SYSTEM, sweep)
    assert (done.state, done.rounds) == (SweepState.SUCCEEDED, 2)
    nothing = lab.post(f"/sweeps/{sweep}/resume").headers["location"].removeprefix(BASE)
    assert "There is nothing to redo." in lab.get(nothing).text


def test_what_was_found_stands_first_and_failures_are_grouped(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1", bad=(0.05,))
    page = unescape(lab.get(f"/sweeps/{sweep}").text)
    lead = (
        "“Alpha” matters most for “difference”. On average 1 percentage point at 0.01 and 10 percentage points at 0.1."
    )
    assert lead in page
    assert page.index(lead) < page.index("2 runs did not succeed") < page.index("What matters, and how much")
    assert "A step in the template failed while it was running." in page
    assert "<b>=1+1" not in lab.get(f"/sweeps/{sweep}").text, "a name from a sandbox is text"
    assert page.index("What matters, and how much") < page.index("1 measure is the same in every run")
    assert page.index("1 measure is the same in every run") < page.index("<dt><b>=1+1</dt>"), "with its value, last"
    assert page.count('<svg class="pr-plot ') == 2
    assert "difference by Alpha" in page
    by_office = unescape(lab.get(f"/sweeps/{sweep}?metric=difference&parameter=office&lines=alpha").text)
    assert "difference by Office" in by_office
    assert by_office.count('<tr><td data-label="Alpha">') == 4, (
        "the same as a table, with a row for each line and place"
    )
    assert "difference by Alpha" in unescape(lab.get(f"/sweeps/{sweep}?metric=none&parameter=';--&lines=x").text)


def test_the_runs_by_a_measure_and_in_pages(lab: WebLab) -> None:
    sweep = submit(lab, SweepRequest(grid={"alpha": Range("0.001", "0.03", "0.001")}))
    work(lab, "r1", bad=(0.03,))
    first = lab.get(f"/sweeps/{sweep}/runs?sort=difference&down=1").text
    assert 'aria-sort="descending"' in first
    numbers = [int(n) for n in re.findall(r">Run (\d+)</a>", first)]
    assert numbers == list(range(29, 4, -1))
    more = re.search(r'href="([^"]+)" rel="next"', first)
    assert more
    second = lab.get(unescape(more[1]).removeprefix(BASE)).text
    assert [int(n) for n in re.findall(r">Run (\d+)</a>", second)] == [4, 3, 2, 1, 30], "without a value last"
    failed = lab.get(f"/sweeps/{sweep}/runs?show=failed").text
    assert re.findall(r">Run (\d+)</a>", failed) == ["30"]
    assert "A step in the template failed while it was running." in failed
    assert lab.get(f"/sweeps/{sweep}/runs?page=0").status_code == 404
    assert lab.get(f"/sweeps/{sweep}/runs?page=99").status_code == 200


def test_the_file_opens_as_text(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1", bad=(0.05,))
    answer = lab.get(f"/sweeps/{sweep}/runs.csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="series-{sweep}.csv"'
    head, *rows = csv.reader(io.StringIO(answer.text))
    assert head == ["point", "run", "state", "reason", "parameter.alpha", "parameter.office", "metric.difference [pp]",
                    "metric.<b>=1+1"]  # fmt: skip
    assert [(r[0], r[2], r[3], r[4], r[6]) for r in rows[1:3]] == [
        ("2", "succeeded", "", "0.01", "1.0"),
        ("3", "failed", "cell_failed", "0.05", ""),
    ]
    excel = lab.get(f"/sweeps/{sweep}/runs.csv?excel=1").content
    assert excel.startswith(b"\xef\xbb\xbfpoint;run;")
    assert b";0,01;" in excel


def test_the_report_of_a_series(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1", most=2)
    assert lab.get(f"/sweeps/{sweep}/report").headers["location"] == f"{BASE}/sweeps/{sweep}"
    assert lab.get(f"/sweeps/{sweep}/document").status_code == 404
    work(lab, "r2", bad=(0.05,))
    answer = lab.get(f"/sweeps/{sweep}/document", "leif", "nb")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    page = unescape(answer.text)
    assert page.index("«Alfa» betyr mest for «difference».") < page.index("2 kjøringer lyktes ikke")
    assert "bygger på de 4 av 6 som lyktes" in page
    assert "<b>=1+1" not in answer.text
    assert {"title", "desc"} <= {tag for tag, _ in Page(answer.text).tags}
    assert "Tallene bak figurene" in page
    assert sweep in page, "where it comes from"
    assert "What we found" in lab.get(f"/sweeps/{sweep}/document", "leif", "en").text, "in the reader's language"
    assert lab.get(f"/sweeps/{sweep}/report.pdf", "leif").content.startswith(b"%PDF")
    saved = lab.get(f"/sweeps/{sweep}/report.html", "leif").headers["content-disposition"]
    assert saved == f'attachment; filename="series-{sweep}.html"'


def test_a_series_drawn_at_random(lab: WebLab) -> None:
    sweep = submit(lab, SweepRequest(sample=Sample(60, 3, {"alpha": None})))
    work(lab, "r1")
    page = unescape(lab.get(f"/sweeps/{sweep}").text)
    assert "in the fifth of the runs with the lowest value" in page
    assert page.count("Starting number of the draw") == 1
    assert 'kind-sample" value="sample" checked' in lab.get(f"{FORM}?sweep={sweep}").text


def test_empty_lists_say_what_to_do(lab: WebLab) -> None:
    assert "Choose a template, and then “Run as a series”." in unescape(lab.get("/sweeps").text)
    assert "it appears here" in lab.get("/sweeps", "leif").text
    assert "Nothing matches" in lab.get("/sweeps?template=other").text
    sweep = submit(lab)
    page = lab.get(f"/sweeps/{sweep}").text
    assert "The plot appears when the first runs have ended." in page
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page
    assert 'href="/services/catalog/sweeps"' in lab.get("/runs").text


def test_the_stream_of_a_series_begins_with_all_of_it(lab: WebLab) -> None:
    sweep = submit(lab)
    work(lab, "r1")
    events = re.search(r'data-events="([^"]+)"', lab.get(f"/sweeps/{submit(lab)}").text)
    assert events
    address = unescape(events[1]).replace(sweeps(lab)[0].id, sweep)
    answer = lab.http.get(address, headers={"Cookie": f"{COOKIE}=token-kari", "Sec-Fetch-Mode": "cors"})
    assert answer.text.count("event: sweep") == 1
    last = re.search(r"id: (\S+)", answer.text)
    assert last
    headers = {"Cookie": f"{COOKIE}=token-kari", "Sec-Fetch-Mode": "cors", "Last-Event-ID": last[1]}
    assert lab.http.get(address, headers=headers).status_code == 204
