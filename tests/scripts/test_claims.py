"""Claims can fail: each is lost when a number behind it moves by ten standard errors; and the law by which factors are judged."""

import copy
import math
from collections.abc import Iterator

import experiment
import ledger
import numpy as np
import pytest
from experiments import _factor

from vgp_kernels import Network, activation, mean_field, propagate
from vgp_kernels.theory import finite_width

ERRORS = 10  # standard errors by which a number is moved that has one
SHARE = 0.1  # of itself by which any other is moved, and counts by 1 at least
CLAIMS = [(name, claim) for name in experiment.names() for claim in experiment.load(name).CLAIMS]
# the number was the name of a row, not a measurement
NO_ROW = (KeyError, IndexError, StopIteration, RuntimeError, ValueError, AttributeError)


def error_of(key: str, holder: dict) -> object:
    """The field with the standard error of field `key`: measured → error, mean → mean_error or standard_error, …"""
    stem = key.removesuffix("_measured").removesuffix("_factor")
    names = [f"{key}_error", f"{stem}_error"]
    if key in ("measured", "factor", "distance"):
        names.append("error")
    if key == "mean":
        names.append("standard_error")
    return next((holder[name] for name in names if name in holder), None)


def moves(value: object, error: object = None) -> Iterator[tuple[object, object]]:
    """Each number in nested dicts and lists, as a place (holder, key) and a value to put there instead."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if is_number(inner):
                yield from ((value, key, moved) for moved in moved_by(inner, error_of(key, value)))
            else:
                yield from moves(inner, error_of(key, value))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            own = error[index] if isinstance(error, list) else None
            if is_number(inner):
                yield from ((value, index, moved) for moved in moved_by(inner, own))
            else:
                yield from moves(inner, own)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def moved_by(value: float, error: object) -> Iterator[float]:
    """Ten standard errors up and down; without a standard error a tenth, and a count by a whole number."""
    if is_number(error) and error:
        step = ERRORS * error
    elif isinstance(value, int):
        step = max(1, round(SHARE * abs(value)))
    else:
        step = SHARE * abs(value)
    yield from (value + step, value - step)


def is_lost(claim: experiment.Claim, result: dict) -> bool:
    """Whether some move of one number makes the claim fail."""
    result = copy.deepcopy(result)
    for holder, key, moved in moves(result):
        kept, holder[key] = holder[key], moved
        try:
            if not claim.holds(result):
                return True
        except NO_ROW:
            pass
        holder[key] = kept
    return False


def test_every_claim_is_lost_when_some_number_behind_it_moves():
    vacuous = [claim.key for name, claim in CLAIMS if not is_lost(claim, experiment.result(name))]
    assert vacuous == [], "no move of ten standard errors, or of a tenth, makes these claims fail"


def test_a_vacuous_claim_is_found():
    claim = CLAIMS[0][1]
    vacuous = experiment.Claim(**(vars(claim) | {"holds": lambda result: result["x"]["measured"] < 100}))
    sharp = experiment.Claim(**(vars(claim) | {"holds": lambda result: abs(result["x"]["measured"] - 1) < 0.05}))
    result = {"x": {"measured": 1.0, "error": 0.01}, "n": 5}
    assert not is_lost(vacuous, result) and is_lost(sharp, result)
    assert result == {"x": {"measured": 1.0, "error": 0.01}, "n": 5}


def test_numbers_move_by_ten_of_their_own_standard_errors():
    found = {
        (key, moved)
        for _, key, moved in moves(
            {"a": {"measured": 2.0, "error": 0.1}, "mean": [1.0], "standard_error": [0.2], "n": 4}
        )
    }
    assert {("measured", 3.0), ("measured", 1.0), (0, 3.0), (0, -1.0), ("n", 5), ("n", 3)} <= found


def test_each_sentence_of_the_note_has_one_verdict_and_says_its_condition():
    rows = [row for row in ledger.rows() if row["source"].startswith("note ")]
    assert set(ledger.REMARKS) == set(ledger.NOTE)
    for number in ledger.NOTE:
        (verdict,) = {row["verdict"] for row in rows if row["source"] == f"note {number}"}
        assert ledger.REMARKS[number] or verdict != "holds with a condition", f"note {number} has no condition"


def test_a_sentence_that_was_not_measured_says_why():
    unmeasured = [row for row in ledger.rows() if row["verdict"] == "not yet measured"]
    assert [row["source"] for row in unmeasured] == ["note 4.2"]
    assert all(row["remark"] == ledger.REMARKS[row["source"].removeprefix("note ")] != "" for row in unmeasured)


def test_two_verdicts_on_one_sentence_are_refused(monkeypatch):
    name, claim = next((name, claim) for name, claim in CLAIMS if claim.source == "note 3.1")
    other = experiment.Claim(**(vars(claim) | {"key": "again", "verdict": "false as stated"}))
    monkeypatch.setattr(experiment.load(name), "CLAIMS", [*experiment.load(name).CLAIMS, other])
    with pytest.raises(ValueError, match=r"note 3\.1 has more than one verdict: false as stated, holds"):
        ledger.rows()


# The factor per layer


def test_one_factor_is_published_for_one_network():
    """Under whatever name the experiments measure a network, its factor is the same to the last digit."""
    quoted = experiment.quotable()
    same = {
        "sigmoid with Xavier": "depth_decay.sigmoid_xavier_factor quarter.xavier_factor remedies.sigmoid "
        "predict_rate.sigmoid_xavier_measured gains.sigmoid_advised_factor saturation.factor_1 product.xavier_both",
        "ReLU with He": "depth_decay.relu_he_factor remedies.relu relu_units.he_factor predict_rate.relu_he_measured "
        "gains.relu_advised_factor",
        "tanh with 5/3": "explosion.tanh_gain gains.tanh_advised_factor",
        "GELU with He": "predict_rate.gelu_he_measured gains.gelu_advised_factor",
        "sigmoid with N(0, 1)": "explosion.sigmoid_normal quarter.normal_factor saturation.factor_256 product.normal_both "
        "predict_rate.sigmoid_normal_measured",
        "ReLU with Xavier": "defaults.keras_relu depth_decay.relu_xavier_factor remedies.relu_xavier relu_units.xavier_factor",
    }
    for network, places in same.items():
        values = {place: quoted[place.partition(".")[0]][place.partition(".")[2]] for place in places.split()}
        assert max(values.values()) - min(values.values()) <= 1e-4 * max(values.values()), f"{network}: {values}"


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "erf", "elu"])
def test_the_shift_by_width_is_that_of_explicit_matrices(name):
    """With bias, at a width small enough to see it: NumPy's own matrices, not the kernels' law."""
    n, depth, trials, weights, biases = 32, 60, 300, 1.7, 0.1
    network = Network(depth, n, name, weight_variance=weights, bias_variance=biases)
    generator, phi, rates = np.random.default_rng(5), activation(name), []
    for _ in range(trials):
        h = generator.standard_normal(n)
        h, passed = h * math.sqrt(n) / np.linalg.norm(h), []
        for _ in range(depth):
            matrix = generator.standard_normal((n, n)) * math.sqrt(weights / n)
            z = matrix @ h + math.sqrt(biases) * generator.standard_normal(n)
            h = phi.value(z)
            passed.append((matrix, phi.slope(z)))
        g, logs = generator.standard_normal(n), [0.0]
        start = np.linalg.norm(g)
        for matrix, slope in reversed(passed):
            g = matrix.T @ (slope * g)
            logs.append(math.log(np.linalg.norm(g) / start))
        rates.append(_factor.per_layer(np.array(logs[::-1])))
    theory = _factor.per_layer(mean_field(network).log_gradient)
    measured, error = np.mean(rates) - theory, np.std(rates, ddof=1) / math.sqrt(trials)
    shift, doubt = _factor.shift_by_width(network)
    assert abs(measured - shift) < 4 * error + doubt
    assert abs(measured) > 4 * error  # without the shift, theory is off


def test_the_shift_of_relu_and_of_orthogonal_lines_is_known():
    relu = _factor.shift_by_width(Network(60, 256, "relu", "he"))[0]
    assert relu == pytest.approx(-5 / 4 / 256, rel=1e-9)  # Hanin & Nica 2018
    assert _factor.shift_by_width(Network(60, 256, "linear", "xavier"))[0] == pytest.approx(-1 / 2 / 256, rel=1e-9)
    assert _factor.shift_by_width(Network(60, 256, "linear", "orthogonal"))[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "network",
    [
        Network(60, 64, "tanh", "orthogonal"),
        Network(60, 64, "sigmoid", "orthogonal", weight_variance=16.0),
        Network(80, 48, "hard_tanh", weight_variance=1.3),
        Network(100, 96, "softplus", "standard"),
    ],
    ids=lambda network: f"{network.activation} {network.law}",
)
def test_the_shift_by_width_is_met_by_propagate(network):
    found = _factor.factor(network, trials=2000, seed=3)
    assert _factor.agrees(found), found
    assert not _factor.agrees(found | {"measured": found["measured"] + 10 * found["error"] + 3 * found["doubt"]})


def test_the_whole_curve_is_shifted_by_the_width():
    network = Network(80, 64, "tanh", weight_variance=2.0)
    flow = propagate(network, 2000, 7).log_gradient
    off = flow.mean(axis=0) - finite_width.log_gradient_at_width(network)
    error = flow.std(axis=0, ddof=1) / math.sqrt(len(flow))
    doubt = _factor.shift_by_width(network)[1] * np.arange(81)[::-1]
    assert np.all(np.abs(off) <= 4 * error + doubt + 1e-12)


def test_no_shift_is_given_where_none_is_known():
    with pytest.raises(ValueError, match="layers of one width"):
        finite_width.shifts(Network(60, 64, "relu", "he", residual="preactivation"))
    with pytest.raises(ValueError, match="without biases only"):
        finite_width.shifts(Network(60, 64, "tanh", "orthogonal", bias_variance=0.1))
    assert "at_width" not in _factor.factor(Network(60, 64, "softplus", "he"), trials=10)
