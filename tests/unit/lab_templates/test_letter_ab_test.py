"""The letter A/B test, executed for real: its numbers against other people's formulas, and every corner."""

import base64
import io
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest
from causaldata import social_insure, thornton_hiv
from PIL import Image
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportion_effectsize

from experiments import results
from experiments.model import RunnerReport, RunState
from lab_templates import parameters
from lab_templates.model import TemplateVersion
from lab_templates.registry import library

MIME = "application/vnd.proverom.result+json"


@pytest.fixture(scope="module")
def version() -> TemplateVersion:
    return next(version for version in library() if version.name == "letter-ab-test")


def records(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]


def metrics(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in found if record["kind"] == "metric"}


def run(version: TemplateVersion, folder: Path, **raw: object) -> Mapping[str, Any]:
    """Execute the template with papermill, as a runner does, and return the executed notebook."""
    bound = parameters.bind(version, raw).values
    (folder / "in.ipynb").write_bytes(version.notebook)
    papermill.execute_notebook(
        str(folder / "in.ipynb"), str(folder / "out.ipynb"), dict(bound), progress_bar=False, log_output=False
    )
    executed: Mapping[str, Any] = nbformat.read(folder / "out.ipynb", as_version=4)
    return executed


@pytest.fixture(scope="module")
def thornton(version: TemplateVersion, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    chosen = {"dataset": "thornton_hiv", "alpha": "0,01", "mde": 5, "power": 0.9, "unit_cost": "12,5"}
    return run(version, tmp_path_factory.mktemp("run"), **chosen)


def test_nothing_but_results_comes_out(thornton: Mapping[str, Any]) -> None:
    outputs = [output for cell in thornton["cells"] for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} == {"display_data"}  # no stream: no warning was printed
    kinds = [record["kind"] for record in records(thornton)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"finding": 4, "figure": 1, "table": 1, "metric": 10}


def test_the_catalog_reads_all_of_it_without_a_word(thornton: Mapping[str, Any]) -> None:
    report = RunnerReport("succeeded", nbformat.writes(thornton).encode())
    result = results.read(report)
    counts = (len(result.metrics), len(result.figures), len(result.tables), len(result.findings))
    assert (result.state, result.notices, counts) == (RunState.SUCCEEDED, (), (10, 1, 1, 4))


def test_every_declared_metric_is_recorded_as_declared(version: TemplateVersion, thornton: Mapping[str, Any]) -> None:
    found = metrics(records(thornton))
    declared = {spec.name: (spec.unit, spec.better) for spec in version.metrics}
    assert {name: (record["unit"], record["better"]) for name, record in found.items()} == declared


def test_the_difference_is_statsmodels_difference(thornton: Mapping[str, Any]) -> None:
    found = metrics(records(thornton))
    people = thornton_hiv.load_pandas().data.dropna(subset=["any", "got"])
    new, old = people[people["any"] == 1]["got"], people[people["any"] == 0]["got"]
    low, high = confint_proportions_2indep(
        new.sum(), len(new), old.sum(), len(old), method="newcomb", compare="diff", alpha=0.01
    )
    assert found["difference"]["value"] == pytest.approx(100 * (new.mean() - old.mean()))
    assert found["difference"]["ci"] == pytest.approx([100 * low, 100 * high])
    assert (found["n_new"]["value"], found["n_old"]["value"]) == (len(new), len(old)) == (2211, 623)
    wilson = proportion_confint(new.sum(), len(new), alpha=0.01, method="wilson")
    assert found["response_new"]["ci"] == pytest.approx([100 * end for end in wilson])
    table = [[new.sum(), len(new) - new.sum()], [old.sum(), len(old) - old.sum()]]
    p_value = stats.chi2_contingency(np.array(table), correction=False).pvalue
    assert found["p_value"]["value"] == pytest.approx(p_value, rel=1e-6)


def test_price_and_yearly_gain(thornton: Mapping[str, Any]) -> None:
    found = metrics(records(thornton))
    gain, (low, high) = found["difference"]["value"] / 100, found["difference"]["ci"]
    assert found["nok_per_extra_response"]["value"] == pytest.approx(12.5 / gain)
    assert found["nok_per_extra_response"]["ci"] == pytest.approx([1250 / high, 1250 / low])
    assert found["extra_responses_per_year"]["value"] == pytest.approx(10_000 * gain)


def test_the_number_needed_has_the_wanted_power(thornton: Mapping[str, Any]) -> None:
    found = metrics(records(thornton))
    n, old = found["n_needed_per_group"]["value"], found["response_old"]["value"] / 100
    # Another formula (Cohen's arcsine) agrees within a few per cent.
    effect = proportion_effectsize(old + 0.05, old)
    assert n == pytest.approx(NormalIndPower().solve_power(effect, alpha=0.01, power=0.9), rel=0.02)
    # And so does drawing it: 20,000 trials of that size, the share of them that the test notices.
    draw = np.random.default_rng(1)
    shares = draw.binomial(n, old + 0.05, 20_000) / n, draw.binomial(n, old, 20_000) / n
    pooled = (shares[0] + shares[1]) / 2
    z = (shares[0] - shares[1]) / np.sqrt(2 * pooled * (1 - pooled) / n)
    assert np.mean(np.abs(z) > stats.norm.ppf(0.995)) == pytest.approx(0.9, abs=0.015)


def test_the_figure_says_in_words_what_it_shows(thornton: Mapping[str, Any]) -> None:
    (figure,) = (record for record in records(thornton) if record["kind"] == "figure")
    image = Image.open(io.BytesIO(base64.b64decode(figure["data"])))
    assert image.width >= 900
    assert "78,9 prosent hentet prøvesvaret med verdikupong, mot 33,9 prosent uten verdikupong" in figure["alt"]
    assert "99 % usikkerhetsintervall" in figure["caption"]


def test_findings_answer_first_and_say_that_it_is_an_example(thornton: Mapping[str, Any]) -> None:
    findings = [record["text"] for record in records(thornton) if record["kind"] == "finding"]
    assert findings[0].startswith("Ja, i dette eksempelet ga den nye varianten flere svar: 78,9 prosent")
    assert "Hvert ekstra svar koster om lag 28 kroner" in findings[2]
    assert "et annet tiltak enn brev" in findings[-1]
    assert not any(
        "." in word[:-1] for text in findings for word in text.split() if word[:1].isdigit()
    )  # decimal commas


CORNERS = r"""
import json, sys, itertools, warnings
warnings.simplefilter("error")
import matplotlib
matplotlib.use("Agg")
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
cells, corners = json.load(sys.stdin)
shell, results = InteractiveShell.instance(), []
for corner in corners:
    with capture_output() as captured:
        shell.user_ns.update(corner)
        for cell in cells:
            shell.run_cell(cell).raise_error()
    results.append([output.data["application/vnd.proverom.result+json"] for output in captured.outputs
                    if "application/vnd.proverom.result+json" in output.data])
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def corners(version: TemplateVersion) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each data set at every corner of the numbers' ranges: the chosen values, and what was recorded."""
    specs = [spec for spec in version.parameters if spec.minimum is not None and spec.maximum is not None]
    assert len(specs) == 5
    chosen = []
    for dataset, ends in itertools.product(version.parameters[0].choices, itertools.product(*[(0, 1)] * 3)):
        raw: dict[str, object] = {"dataset": dataset}
        # The last two only scale results: they take turns rather than multiply the corners by four.
        for spec, end in zip(specs, (*ends, ends[0] ^ ends[1], ends[1] ^ ends[2]), strict=True):
            raw[spec.name] = (spec.minimum, spec.maximum)[end]
        chosen.append(dict(parameters.bind(version, raw).values))
    code = [
        "".join(cell["source"])
        for cell in json.loads(version.notebook)["cells"]
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", ())
    ]
    done = subprocess.run(
        [sys.executable, "-c", CORNERS], input=json.dumps([code, chosen]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(zip(chosen, json.loads(done.stdout), strict=True))


def test_every_corner_gives_a_whole_result(corners: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    assert len(corners) == 24
    for chosen, found in corners:
        kinds = [record["kind"] for record in found]
        assert kinds.count("metric") == (10 if chosen["unit_cost"] else 9)  # what costs nothing more has no price
        assert kinds.count("figure") == kinds.count("table") == 1
        assert kinds.count("finding") >= 2
        for name, metric in metrics(found).items():
            if name == "nok_per_extra_response" and metric["value"] == "nan":
                assert metrics(found)["difference"]["ci"][0] <= 0, chosen  # no price where a gain is not certain
                continue
            assert math.isfinite(metric["value"]), (chosen, name)
            if metric["ci"]:
                assert metric["ci"][0] <= metric["value"] <= metric["ci"][1], (chosen, name)
        assert metrics(found)["n_needed_per_group"]["value"] >= 1
        assert 0 <= metrics(found)["p_value"]["value"] <= 1


def test_the_verdict_follows_the_interval(corners: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    verdicts = set()
    for chosen, found in corners:
        low, high = metrics(found)["difference"]["ci"]
        lead = next(record["text"] for record in found if record["kind"] == "finding")
        if low > 0:
            expected = "Ja, i dette eksempelet ga den nye varianten flere svar"
        elif -chosen["mde"] < low and high < chosen["mde"]:
            expected = "Nei, i dette eksempelet er variantene like gode"
        else:
            expected = "Eksempelet gir ikke noe sikkert svar"
        assert lead.startswith(expected), (chosen, lead)
        verdicts.add(expected)
    assert len(verdicts) == 3


def test_whole_villages_count_as_whole_villages(corners: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    """Against the difference's standard error with clusters, computed here by its own textbook formula."""
    people = social_insure.load_pandas().data
    variance = 0.0
    for group in (0, 1):
        rows = people[people["default"] == group]
        residual = (rows["takeup_survey"] - rows["takeup_survey"].mean()).groupby(rows["address"]).sum()
        k = len(residual)
        variance += k / (k - 1) * float((residual**2).sum()) / len(rows) ** 2
    plain = sum(float(rows["takeup_survey"].var(ddof=0)) / len(rows) for _, rows in people.groupby("default"))
    assert variance > 1.3 * plain  # or clustering would make no difference here, and this test could not fail
    found = next(f for c, f in corners if c["dataset"] == "social_insure" and c["alpha"] == 0.2)
    low, high = metrics(found)["difference"]["ci"]
    half = 100 * stats.norm.ppf(0.9) * math.sqrt(variance)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)
