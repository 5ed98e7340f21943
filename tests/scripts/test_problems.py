"""The solutions of the problem sheets, computed again: their code is run, and what they prove is tried on random numbers."""

import contextlib
import io
import re

import numpy as np
import pytest
from test_pages import DOCS

TEXT = (DOCS / "teach" / "solutions.md").read_text()


@pytest.fixture
def random():
    return np.random.default_rng(20_260_101)


def printed(problem: int) -> list[list[float]]:
    """The numbers in each line that the code of a solution prints."""
    code = re.search(rf"^\*\*{problem}\.\*\*.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[1]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, f"solution {problem}", "exec"), {})
    return [[float(number) for number in re.findall(r"[\d.]+", line)] for line in out.getvalue().splitlines()]


def test_each_problem_has_one_solution():
    problems = re.findall(r"^\*\*(\d+)\.\*\*", (DOCS / "teach" / "problems.md").read_text(), re.M)
    assert problems == re.findall(r"^\*\*(\d+)\.\*\*", TEXT, re.M) == [str(n) for n in range(1, 10)]


def test_chain_of_five_units():
    assert np.prod([2 * 0.2] * 5) == pytest.approx(float(re.search(r"0\.4\^5 = ([\d.]+)", TEXT)[1]))


def test_a_relu_layer_multiplies_the_squared_length_by_fifty_times_the_variance(random):
    v, found = 0.03, []
    for _ in range(4000):
        weights = random.normal(scale=v**0.5, size=(100, 100))
        on, g = weights @ random.normal(size=100) > 0, random.normal(size=100)
        found.append(np.sum((weights.T @ (on * g)) ** 2) / np.sum(g**2))
    error = np.std(found) / len(found) ** 0.5
    assert np.mean(found) == pytest.approx(
        50 * v, abs=4 * error + 0.02 * 50 * v
    )  # W is not quite independent of what is on


def test_a_million_steps():
    rate = 0.01 / 1.0  # the weights have the length 1
    assert 0.01 / (rate * 1e-6) == pytest.approx(1e6)


def test_the_measured_factor_of_tanh_is_below_the_predicted_one_on_both_sides_of_1():
    rows = printed(4)
    assert len(rows) == 10 and rows[0][2] < 1 < rows[-1][2]
    gaps = [1 - measured / predicted for _, measured, predicted in rows]
    assert 0 < min(gaps) and max(gaps) < 0.03
    near = min(range(10), key=lambda i: abs(rows[i][0] - 1))
    assert gaps.index(max(gaps)) == near


def test_depth_over_width_puts_all_spreads_on_one_curve():
    rows = printed(5)
    assert len(rows) == 9
    for ratio, measured, predicted in rows:
        assert measured == pytest.approx(predicted, rel=0.15), ratio
    widest = [row for row in rows if row[0] <= 0.25]
    assert all(measured == pytest.approx(predicted, rel=0.08) for _, measured, predicted in widest)


def test_a_random_matrix_multiplies_the_expected_squared_length_by_its_variance(random):
    h, v = random.normal(size=20), 1.7
    found = [np.sum((random.normal(scale=(v / 20) ** 0.5, size=(20, 20)).T @ h) ** 2) for _ in range(20_000)]
    assert np.mean(found) == pytest.approx(v * h @ h, abs=4 * np.std(found) / len(found) ** 0.5)


@pytest.mark.parametrize("blocks", [1, 4, 16])
def test_scaled_blocks_stay_below_three(blocks, random):
    r = 2.0
    alpha, found = (1 / (r * blocks)) ** 0.5, []
    for _ in range(4000):
        g = np.ones(10) / 10**0.5
        for _ in range(blocks):
            g = g + alpha * random.normal(scale=(r / 10) ** 0.5, size=(10, 10)).T @ g
        found.append(g @ g)
    error = np.std(found) / len(found) ** 0.5
    assert np.mean(found) == pytest.approx((1 + 1 / blocks) ** blocks, abs=4 * error)
    assert (1 + alpha**2 * r) ** blocks < 3
