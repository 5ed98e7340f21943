"""The page's reader of gradients.json, run in V8, against NumPy's least squares."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import v8
from py_mini_racer import JSEvalException

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = (DOCS / "javascripts" / "gradient-reader.js").read_text()


@pytest.fixture(scope="module")
def browser():
    racer = v8.start()
    racer.eval(SCRIPT)
    return racer


def fit(browser, rows):
    text = rows if isinstance(rows, str) else json.dumps(rows)
    return json.loads(browser.eval(f"JSON.stringify(fitGradients({json.dumps(text)}))"))


def rows(ratios):
    return [{"name": f"layer {i}", "weight": 16.0, "gradient": 16.0 * ratio} for i, ratio in enumerate(ratios)]


@pytest.mark.parametrize("factor", [0.141, 0.5, 1.0, 1.3])
@pytest.mark.parametrize("layers", [3, 8, 40])
def test_an_exact_power_law_gives_its_factor(browser, factor, layers):
    found = fit(browser, rows([factor ** (layers - i) for i in range(layers)]))
    assert found["factor"] == pytest.approx(factor, rel=1e-12)  # round-off


def test_the_factor_is_that_of_the_least_squares_line_through_the_inner_layers(browser):
    decades = np.random.default_rng(0).normal(size=15)
    slope = np.polyfit(np.arange(1, 14), decades[1:-1], 1)[0]
    assert fit(browser, rows((10**decades).tolist()))["factor"] == pytest.approx(10**-slope, rel=1e-10)
    assert fit(browser, rows((10**decades).tolist()))["factor"] != pytest.approx(
        10 ** -np.polyfit(np.arange(15), decades, 1)[0], rel=1e-3
    )


def test_layers_without_a_gradient_are_counted_and_left_out(browser):
    ratios = [0.3 ** (10 - i) for i in range(10)]
    ratios[4] = 0.0
    found = fit(browser, rows(ratios))
    assert found["zeros"] == 1 and found["used"] == 7 and found["factor"] == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize(
    "bad, says",
    [
        ("{", "JSON"),
        ([], "at least three layers"),
        ([{"name": "a", "weight": 0, "gradient": 1}] * 3, 'needs "weight"'),
        ([{"name": "a"}] * 4, 'needs "weight"'),
        (rows([0.0] * 5), "neither 0 nor infinite"),
    ],
    ids=["not JSON", "empty", "weight 0", "no numbers", "all gradients 0"],
)
def test_bad_input_says_what_is_wrong(browser, bad, says):
    with pytest.raises(JSEvalException, match=says):
        fit(browser, bad)


def test_a_verdict_needs_a_slope(browser):
    def verdict(ratios):
        return browser.eval(f"gradientSummary(fitGradients({json.dumps(json.dumps(rows(ratios)))}))")

    assert "it vanishes" in verdict([0.2 ** (9 - i) for i in range(9)])
    assert "it explodes" in verdict([1.5 ** (9 - i) for i in range(9)])
    assert "no sign of vanishing" in verdict([1e-12] * 9)  # the level says nothing


def test_the_drawing_shows_each_layer_and_both_lines(browser):
    text = json.dumps(json.dumps(rows([0.2 ** (9 - i) for i in range(9)])))
    drawing = browser.eval(f"drawGradients(fitGradients({text}), 0.25)")
    assert drawing.count("<circle") == 9 and drawing.count("<polyline") == 2 and "NaN" not in drawing


def test_the_page_s_example_is_read(browser):
    page = (DOCS / "diagnose" / "check.md").read_text()
    example = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert example and fit(browser, example[1])["factor"] == pytest.approx(0.1414, rel=0.05)  # theory: sigmoid, PyTorch
