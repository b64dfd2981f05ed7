"""The publish gate: every case in tests/cases/notebooks, what no file can hold, and that nothing brings it down."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab_templates import notebook as notebooks
from lab_templates.checks import advice, digest, read_template, reread
from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, TemplateVersion
from lab_templates.parameters_cell import MAX_SOURCE, compare

Codes = Callable[[Callable[[], object]], list[str]]
CASES = Path(__file__).parents[2] / "cases" / "notebooks"
EXPECTED: dict[str, str] = tomllib.loads((CASES / "expected.toml").read_text(encoding="utf-8"))
GOOD = (CASES / "good.ipynb").read_bytes()
DECLARATION = (CASES / "declaration.toml").read_bytes()


def gate(notebook: bytes) -> TemplateVersion:
    return read_template(notebook, DECLARATION, "# Svarprosent\n")


def changed(**keys: Any) -> bytes:
    return json.dumps({**json.loads(GOOD), **keys}).encode()


def test_every_case_is_listed() -> None:
    assert set(EXPECTED) == {path.name for path in CASES.glob("*.ipynb")}


@pytest.mark.parametrize(("name", "code"), EXPECTED.items())
def test_case(codes: Codes, name: str, code: str) -> None:
    found = codes(lambda: gate((CASES / name).read_bytes()))
    assert set(found) == ({code} if code else set())


def test_what_passes_is_what_was_given(template: TemplateVersion) -> None:
    assert (template.name, template.version, template.kernel, template.language) == (
        "svarprosent",
        "1.0.0",
        "python3",
        "nb",
    )
    assert template.notebook == GOOD
    assert template.declaration == DECLARATION
    assert [spec.default for spec in template.parameters] == [0.5, "æøå = # x"]
    assert template.metrics[0].label.get("nn") == "Del"
    assert advice(template) == ()


def test_a_hundred_thousand_levels_are_refused_not_followed(codes: Codes) -> None:
    deep = b'{"nbformat": 4, "nbformat_minor": 5, "metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b', "cells": []}'
    assert codes(lambda: gate(deep)) == ["too_deep"]
    assert codes(lambda: gate(b"[" * 100_000)) == ["too_deep"]
    assert codes(lambda: gate(b'{"a":' * 100_000)) == ["too_deep"]


def test_depth_is_capped_below_what_the_parser_takes(codes: Codes) -> None:
    def nested(levels: int) -> bytes:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return changed(metadata={**json.loads(GOOD)["metadata"], "x": value})

    assert codes(lambda: gate(nested(notebooks.MAX_DEPTH - 10))) == []
    assert codes(lambda: gate(nested(notebooks.MAX_DEPTH))) == ["too_deep"]


def test_a_hundred_thousand_cells(codes: Codes) -> None:
    cell = json.loads(GOOD)["cells"][0]
    many = [{**cell, "id": f"c{i}"} for i in range(100_000)]
    assert codes(lambda: gate(changed(cells=many))) in (["too_many_cells"], ["file_too_large"])
    few = [{**cell, "id": f"c{i}"} for i in range(notebooks.MAX_CELLS + 1)]
    assert codes(lambda: gate(changed(cells=few))) == ["too_many_cells"]


def test_a_notebook_over_the_cap_is_not_parsed(codes: Codes) -> None:
    assert codes(lambda: gate(b"[" * (notebooks.MAX_BYTES + 1))) == ["file_too_large"]


@pytest.mark.parametrize("part", [{"outputs": [{"output_type": "stream", "name": "stdout", "text": 1}] * 50_000},
                                  {"metadata": {"tags": ["a b"] * 100_000}}], ids=["outputs", "tags"])  # fmt: skip
def test_megabytes_of_faults_are_not_explained_one_by_one(codes: Codes, part: dict[str, Any]) -> None:
    cell = {**json.loads(GOOD)["cells"][2], **part}
    assert codes(lambda: gate(changed(cells=[cell]))) == ["bad_notebook"]


def test_every_problem_of_all_three_files_at_once(codes: Codes) -> None:
    nb = json.loads(GOOD)
    nb["metadata"]["kernelspec"]["name"] = "cobol"
    nb["cells"][2]["execution_count"] = 3
    nb["cells"][1]["source"] = "rate = 1.0\nlabel = 'x'\nextra = 2"
    found = codes(lambda: read_template(json.dumps(nb).encode(), DECLARATION, b"\xff"))
    assert sorted(found) == sorted(
        ["bad_text", "unknown_kernel", "has_outputs", "not_declared", "default_differs", "default_differs"]
    )


def test_another_kernel_can_be_known() -> None:
    nb = json.loads(GOOD)
    nb["metadata"] = {
        "kernelspec": {"name": "ir", "display_name": "R", "language": "R"},
        "language_info": {"name": "R"},
    }
    nb["cells"][1]["source"] = "rate <- 0.5"
    version = read_template(json.dumps(nb).encode(), DECLARATION, "", known_kernels=("python3", "ir"))
    assert version.kernel == "ir"


def test_the_digest_covers_every_byte_and_where_it_stands() -> None:
    first = digest(b"ab", b"c", b"d")
    assert first == digest(b"ab", b"c", "d")
    assert len({first, digest(b"a", b"bc", b"d"), digest(b"ab", b"cd", b""), digest(b"ab", b"c", b"e")}) == 4
    # SHA-256 of 2:"ab" 1:"c" 1:"d", worked out with coreutils
    assert first == "sha256:4070bba141c4f302eb7095518b8bfd1e8e6b7bd4f6dae5c6d7d28d27d8602994"


def test_reread_gives_the_version_back(template: TemplateVersion, codes: Codes) -> None:
    kept = (template.notebook, template.declaration, template.readme)
    assert reread(*kept, template.digest) == template
    spoilt = template.notebook.replace(b"0.5", b"0.6")
    assert codes(lambda: reread(spoilt, *kept[1:], template.digest)) == ["digest_differs"]
    assert codes(lambda: reread(*kept[:2], template.readme + " ", template.digest)) == ["digest_differs"]


def test_advice(template: TemplateVersion) -> None:
    nb = json.loads(GOOD)
    nb["cells"][2]["source"] = "import urllib\nurllib.urlopen('https://example.org')"
    version = read_template(json.dumps(nb).encode(), DECLARATION, " \n")
    assert [p.code for p in advice(version)] == ["nothing_recorded", "needs_network", "no_readme"]
    nb["cells"][2]["source"] = "from experiments import record\nrecord.metric('other', 1)"
    nb["cells"][1]["source"] = "rate = 0.5\nlabel = 'æøå = # x'"
    assert advice(read_template(json.dumps(nb).encode(), DECLARATION, "x")) == ()  # "rate" occurs: a hint, no proof


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
cells = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(["code", "markdown", "raw", "x"]), "metadata": json_values, "source": json_values},
    optional={
        "id": st.text(max_size=5),
        "outputs": json_values,
        "execution_count": json_values,
        "attachments": json_values,
    },
)
almost = st.fixed_dictionaries(
    {"nbformat": st.just(4), "nbformat_minor": st.integers(0, 5), "metadata": json_values | st.just({})},
    optional={"cells": st.lists(cells | json_values, max_size=4) | json_values},
)
fuzz = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@fuzz
@given(st.binary() | json_values.map(lambda v: json.dumps(v).encode()) | almost.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_pass_or_are_refused(raw: bytes) -> None:
    for notebook, declaration in ((raw, DECLARATION), (GOOD, raw)):
        try:
            read_template(notebook, declaration, raw)
        except InvalidInput as error:
            json.dumps([problem.as_dict() for problem in error.problems], ensure_ascii=False).encode("utf-8")


@fuzz
@given(st.data())
def test_a_good_notebook_with_one_part_exchanged(data: st.DataObject) -> None:
    nb = json.loads(GOOD)
    place: Any = nb
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        gate(json.dumps(nb).encode())
    except InvalidInput as error:
        json.dumps([problem.as_dict() for problem in error.problems], ensure_ascii=False).encode("utf-8")


SPECS = (ParameterSpec("a", ParameterType.NUMBER, 1.0),)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a = 1.0", []),
        ("a = 1", []),
        ("# note\na: float = 1.0  # pp", []),
        ("a = '1.0'", ["default_differs"]),
        ("a = True", ["default_differs"]),
        ("a = 1.0\na = 1.0", ["given_twice"]),
        ("a = 2 ** 3", ["bad_parameters_cell"]),
        ("a = open('/etc/passwd').read()", ["bad_parameters_cell"]),
        ("a = b = 1.0", ["bad_parameters_cell", "not_in_notebook"]),
        ("%matplotlib inline\na = 1.0", ["bad_parameters_cell"]),
        ("a = 1.0\n" + "#" * MAX_SOURCE, ["bad_parameters_cell"]),
        ("a = '\\d'", ["default_differs"]),
    ],
    ids=range(12),
)
def test_parameters_cell(source: str, found: list[str]) -> None:
    assert [problem.code for problem in compare(source, SPECS)] == found


@pytest.mark.parametrize("start", ["-", "(", "[", "{1:", "not ", "1+", "x.", "lambda:", "f(", "1 if 1 else ", "await "])
def test_a_parameters_cell_nested_as_deep_as_it_can_be(start: str) -> None:
    source = "a = " + start * ((MAX_SOURCE - 10) // len(start)) + "1"
    assert [problem.code for problem in compare(source, SPECS)] == ["bad_parameters_cell"]


@given(st.text(alphabet=st.sampled_from(list("a=1.0'\"\\#\n\t ()[]{}:,-+fb\x00\x0cé\ufeff;"))) | st.text())
def test_any_parameters_cell_is_compared(source: str) -> None:
    for problem in compare(source, SPECS):
        assert problem.message.endswith(".")
