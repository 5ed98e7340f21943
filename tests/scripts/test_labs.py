"""The labs: what their pages must have, and the checks of the students' answers, run with right and with wrong ones."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import jupytext
import matplotlib
import pytest

LABS = sorted((Path(__file__).resolve().parents[2] / "docs" / "labs").glob("*.py"))
RIGHT = {  # what a student may put in place of None, in the order of the cells
    "backpropagation_by_hand": [
        "(lengths[0] / lengths[20]) ** (1 / 20)",
        """[
            there := forward(larger := network(20, 100, scale=2.0), x),
            back := backward(larger, there, there[-1] + generator.standard_normal(100))[0],
            (np.linalg.norm(back[0]) / np.linalg.norm(back[20])) ** (1 / 20),
        ][-1]""",
    ],
    "watch_a_gradient_vanish": ["1 / 0.52"],
    "rescue_a_network": [
        "gradient[0] / gradient[9]",
        '{"learning_rate": 0.0001, "activation": "relu", "initialiser": "he"}',
    ],
    "edge_of_chaos": ['critical_point("tanh", 0.05)[0]'],
    "a_norm_that_explodes": ["np.sqrt(np.mean(z > 0) / h.var())"],
    "an_lstm_that_remembers": ["np.log(0.5**0.01 / (1 - 0.5**0.01))"],
    "diagnose_your_own": ['("relu", 2**0.5)'],
}
WRONG = {
    "backpropagation_by_hand": ["0.25", "0.25"],
    "watch_a_gradient_vanish": ["1.0"],
    "rescue_a_network": ["1e6", '{"learning_rate": 0.05, "activation": "relu", "initialiser": "he"}'],
    "edge_of_chaos": ["1.7"],
    "a_norm_that_explodes": ["np.mean(z > 0) / h.var()"],
    "an_lstm_that_remembers": ["np.log(100) + 1"],
    "diagnose_your_own": ['("sigmoid", 2.0)'],
}


@pytest.fixture(autouse=True)
def without_a_window(monkeypatch):
    matplotlib.use("agg")


def said(code: str, names: dict) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no window to show a figure in
        exec(compile(code, "cell", "exec"), names)
    return out.getvalue()


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_says_what_for_how_long_and_with_what_and_solves_its_exercises(lab):
    text = lab.read_text()
    for word in ("**Goal:**", "**Time:**", "**You need:**", f"({lab.stem}.ipynb)"):
        assert word in text
    exercises = re.findall(r"^# \*\*\d\.\*\*", text.partition("## Exercises")[2], re.M)
    solutions = text.partition("## Exercises")[2].count("<details><summary>Solution</summary>")
    assert len(exercises) == solutions > 0
    assert text.count("<details>") == text.count("</details>")
    assert len(re.findall(r"^answer = None\b", text, re.M)) == len(RIGHT.get(lab.stem, []))


@pytest.mark.parametrize("stem", RIGHT)
def test_answers_are_told_right_from_wrong(stem):
    lab = next(lab for lab in LABS if lab.stem == stem)
    answers, names = iter(zip(RIGHT[stem], WRONG[stem], strict=True)), {"__name__": "lab"}
    for cell in jupytext.read(lab).cells:
        if cell.cell_type != "code":
            continue
        if not cell.source.startswith("answer = None"):
            said(cell.source, names)
            continue
        right, wrong = next(answers)
        assert said(cell.source, names) == ""
        assert "\nRight" in "\n" + said(cell.source.replace("None", right, 1), names)
        with pytest.raises(AssertionError, match="Not "):
            said(cell.source.replace("None", wrong, 1), names)
    assert next(answers, None) is None
