"""What a notebook author records: the payload that travels, what is refused, and what a person in JupyterLab sees."""

import base64
import io
import json
import math
import subprocess
import sys
import textwrap
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from experiments import record

mpl.use("Agg")
from matplotlib import pyplot as plt

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module", autouse=True)
def notebook() -> Any:
    """A real IPython shell, so that what is displayed is what a kernel would send."""
    shell = InteractiveShell.instance()
    yield shell
    InteractiveShell.clear_instance()


def bundle(call: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Return everything that one call displayed, as it would stand in the notebook (through JSON and back)."""
    with capture_output() as captured:
        assert call(*arguments, **options) is None
    (output,) = captured.outputs
    kept: dict[str, Any] = json.loads(json.dumps(output.data, allow_nan=False))
    return kept


def payload(call: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = bundle(call, *arguments, **options)[record.MIME]
    return found


def test_metric() -> None:
    assert payload(record.metric, "difference", 2.3, unit="pp", ci=(0.4, 4.2), better="higher") == {
        "kind": "metric",
        "name": "difference",
        "value": 2.3,
        "unit": "pp",
        "ci": [0.4, 4.2],
        "better": "higher",
    }
    assert payload(record.metric, " n ", 3) == {
        "kind": "metric",
        "name": "n",
        "value": 3,
        "unit": "",
        "ci": None,
        "better": None,
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.array(1.5), 1.5),
        (Decimal("1.25"), 1.25),
        (Fraction(1, 4), 0.25),
        (pd.Series([1, 2]).mean(), 1.5),
        (2**70, float(2**70)),
        (math.nan, "nan"),
        (np.float64("inf"), "inf"),
        (-math.inf, "-inf"),
        (Decimal("NaN"), "nan"),
    ],
    ids=str,
)
def test_metric_values(value: Any, kept: Any) -> None:
    found = payload(record.metric, "m", value)["value"]
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    "value", ["2,3", None, True, np.True_, 1j, [1], np.array([1.0]), pd.NA, 10**400, b"1", object()]
)
def test_metric_that_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="number"):
        record.metric("m", value)


@pytest.mark.parametrize("ci", [(1, 0), (0,), (0, 1, 2), 5, (math.nan, 1), (0, math.inf)])
def test_metric_with_a_bad_interval(ci: Any) -> None:
    with pytest.raises(ValueError, match="ci="):
        record.metric("m", 0.5, ci=ci)


def test_metric_with_bad_words() -> None:
    with pytest.raises(ValueError, match="higher"):
        record.metric("m", 1, better="more")
    with pytest.raises(ValueError, match="name is empty"):
        record.metric(" ", 1)
    with pytest.raises(ValueError, match="at most 200"):
        record.metric("x" * 201, 1)
    with pytest.raises(ValueError, match="at most 60"):
        record.metric("m", 1, unit="x" * 61)
    with pytest.raises(ValueError, match="control character"):
        record.metric("a\x00b", 1)
    with pytest.raises(TypeError, match="name must be text"):
        record.metric(5, 1)  # type: ignore[arg-type]


def test_metric_is_shown_and_escaped() -> None:
    shown = bundle(record.metric, "<img onerror=x>", 1234.5, unit="NOK", ci=(-1, 12_000))
    assert shown["text/html"] == "<p><strong>&lt;img onerror=x&gt;</strong>: 1 234 NOK (-1 to 12 000)</p>"
    assert shown["text/plain"] == "<img onerror=x>: 1 234 NOK (-1 to 12 000)"


def test_figure_of_matplotlib_is_recorded_and_shown_once() -> None:
    fig, axes = plt.subplots()
    axes.bar([0, 1], [41, 52])
    shown = bundle(record.figure, "response", fig, alt="Two bars.", caption="Answers")
    kept = shown[record.MIME]
    assert {key: kept[key] for key in ("kind", "name", "mime", "caption", "alt")} == {
        "kind": "figure",
        "name": "response",
        "mime": "image/png",
        "caption": "Answers",
        "alt": "Two bars.",
    }
    assert Image.open(io.BytesIO(base64.b64decode(kept["data"]))).format == "PNG"
    assert shown["image/png"] == kept["data"]
    assert set(shown) == {record.MIME, "image/png", "text/plain"}
    assert not plt.get_fignums()  # the inline backend shows every figure that is still open at the end of the cell


def test_figure_of_axes_and_as_svg() -> None:
    _, axes = plt.subplots()
    shown = bundle(record.figure, "f", axes, alt="Nothing.", format="svg")
    assert shown[record.MIME]["mime"] == "image/svg+xml"
    assert "<svg" in shown["image/svg+xml"]
    assert base64.b64decode(shown[record.MIME]["data"]).decode() == shown["image/svg+xml"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "CMYK", "F"])
def test_figure_of_pil(mode: str) -> None:
    kept = payload(record.figure, "f", Image.new(mode, (2, 3)), alt="Black.")
    assert Image.open(io.BytesIO(base64.b64decode(kept["data"]))).size == (2, 3)


def test_figure_of_bytes() -> None:
    assert base64.b64decode(payload(record.figure, "f", PNG, alt="A dot.")["data"]) == PNG
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
    assert payload(record.figure, "f", bytearray(svg), alt="Nothing.")["mime"] == "image/svg+xml"
    with pytest.raises(ValueError, match="neither a PNG nor an SVG"):
        record.figure("f", b"GIF89a", alt="x")


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_figure_without_words_for_it(alt: Any) -> None:
    with pytest.raises(ValueError, match="people who cannot see it"):
        record.figure("f", PNG, alt=alt)


def test_figure_that_is_none() -> None:
    with pytest.raises(TypeError, match="is a str"):
        record.figure("f", "figure.png", alt="x")
    with pytest.raises(ValueError, match="neither"):
        record.figure("f", plt.figure(), alt="x", format="pdf")
    plt.close("all")
    with pytest.raises(ValueError, match="64000000 pixels"):
        record.figure("f", Image.new("1", (8000, 8000)), alt="x")
    with pytest.raises(ValueError, match="at most 5242880"):
        record.figure("f", PNG + bytes(record.MAX_FIGURE_BYTES), alt="x")


FRAME = pd.DataFrame({"office": ["Bergen", "Bodø"], "n": [10, 12], "share": [0.5, np.nan]})


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.to_dict("records"),
        FRAME.to_dict("list"),
        [{"office": "Bergen", "n": np.int64(10), "share": 0.5}, {"office": "Bodø", "n": 12}],
        FRAME.set_index("office"),
    ],
    ids=["frame", "records", "lists", "ragged", "indexed"],
)
def test_table(data: Any) -> None:
    assert payload(record.table, "by office", data, caption="Answers") == {
        "kind": "table",
        "name": "by office",
        "columns": ["office", "n", "share"],
        "rows": [["Bergen", 10, 0.5], ["Bodø", 12, None]],
        "caption": "Answers",
    }


def test_table_cells_become_plain_values() -> None:
    row = {
        "a": pd.NaT,
        "b": pd.NA,
        "c": pd.Timestamp("2026-01-31"),
        "d": date(2026, 1, 31),
        "e": Decimal("1.5"),
        "f": math.inf,
        "g": 2**60,
        "h": np.True_,
        "i": (1, 2),
    }
    expected = [None, None, "2026-01-31T00:00:00", "2026-01-31", 1.5, "inf", str(2**60), True, "(1, 2)"]
    assert payload(record.table, "t", [row])["rows"] == [expected]


def test_table_of_a_series_and_of_grouped_columns() -> None:
    counts = pd.Series([1, 2], index=pd.Index(["x", "y"], name="kind"), name="n")
    assert payload(record.table, "t", counts)["columns"] == ["kind", "n"]
    grouped = FRAME.groupby("office").agg({"n": ["min", "max"]})
    assert payload(record.table, "t", grouped)["columns"] == ["office", "n / min", "n / max"]


def test_empty_tables() -> None:
    assert payload(record.table, "t", [])["rows"] == []
    assert payload(record.table, "t", {"a": []})["columns"] == ["a"]


def test_table_that_is_none() -> None:
    with pytest.raises(TypeError, match="is a int"):
        record.table("t", 5)
    with pytest.raises(TypeError, match="list of dicts"):
        record.table("t", [[1, 2]])
    with pytest.raises(ValueError, match="different lengths"):
        record.table("t", {"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="1001 rows"):
        record.table("t", {"a": range(1001)})
    with pytest.raises(ValueError, match="51 columns"):
        record.table("t", [{str(i): i for i in range(51)}])
    with pytest.raises(ValueError, match="same name"):
        record.table("t", pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(ValueError, match="at most 1000 fit"):
        record.table("t", {"a": ["x" * 1001]})


def test_table_is_shown_and_escaped() -> None:
    shown = bundle(record.table, "t", [{"<b>": "<script>", "n": None}])
    assert "<script>" not in shown["text/html"]
    assert '<th scope="col">&lt;b&gt;</th>' in shown["text/html"]


def test_finding() -> None:
    text = "Et kortere brev ga 2,3 prosentpoeng flere svar."
    assert payload(record.finding, f" {text}\n") == {"kind": "finding", "text": text}
    for wrong, error in (("", ValueError), ("x" * 2001, ValueError), (5, TypeError)):
        with pytest.raises(error):
            record.finding(wrong)  # type: ignore[arg-type]


def test_importing_it_brings_nothing_but_the_standard_library() -> None:
    code = """
    import sys
    from experiments import record
    record.finding("Utenfor en notatbok.")
    record.metric("n", 3)
    record.table("t", {"a": [1, None]})
    import math
    record.metric("x", math.nan)
    record.figure("f", b'<svg xmlns="http://www.w3.org/2000/svg"/>', alt="Ingenting.")
    foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__"}
    print(sorted(name for name in foreign if not name.startswith(("_", "sitecustomize", "__editable__"))))
    print(sorted(name for name in sys.modules if name.startswith("experiments")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "Utenfor en notatbok.",
        "n: 3",
        "t",
        "a",
        "1",
        "",
        "x: nan",
        "Figure f: Ingenting.",
        "['experiments']",
        "['experiments', 'experiments.record']",
    ]
