"""The museum of other people's numbers: what printed digits stand for, and what agreement means."""

import copy
import math
from decimal import ROUND_HALF_EVEN, Decimal

import experiment
import numpy as np
import pytest
from experiments import museum
from scipy import integrate, stats

from vgp_kernels import Network, activation, initial_weights

RESULT = experiment.result("museum")


@pytest.mark.parametrize("digits", ["0.8", "0.782648", "28", "1.7e4", "3.67178233e24", "0.0000000617", "-0.50"])
def test_a_printed_number_stands_for_the_values_that_round_to_it(digits):
    low, high = museum.rounded_to(digits)
    last = Decimal(1).scaleb(int(Decimal(digits).as_tuple().exponent))
    for share in (
        0.001,
        0.3,
        0.5,
        0.999,
    ):  # strictly inside: Decimal rounds it to the digits, and what is outside to others
        within = Decimal(low) + Decimal(share) * (Decimal(high) - Decimal(low))
        assert within.quantize(last, ROUND_HALF_EVEN) == Decimal(digits)
    for beyond in (Decimal(low) - last / 100, Decimal(high) + last / 100):
        assert beyond.quantize(last, ROUND_HALF_EVEN) != Decimal(digits)


def test_a_ratio_of_printed_numbers_stands_for_all_the_ratios_that_they_may_have():
    printed = museum.Printed(("0.285", "0.003"), "", "", "", root=2)
    ratios = np.sqrt(np.outer(np.linspace(0.2845, 0.2855, 41), 1 / np.linspace(0.0025, 0.0035, 41)))
    assert printed.interval == pytest.approx((ratios.min(), ratios.max()))
    assert printed.value == pytest.approx(math.sqrt(95))


def test_an_honest_draw_falls_outside_the_range_of_ours_as_often_as_said():
    generator, repeats = np.random.default_rng(1), 4000
    samples = generator.lognormal(size=(repeats, 31))
    entries = [museum.draws(sample[:30].reshape(5, 6), None) for sample in samples]
    outside = sum(
        not entry["low"] <= sample[30] <= entry["high"] for entry, sample in zip(entries, samples, strict=True)
    )
    chance = museum.chance(entries[0])
    assert chance == pytest.approx(2 / 31)
    assert abs(outside - repeats * chance) < 4 * math.sqrt(repeats * chance)


def test_a_true_mean_falls_outside_the_interval_of_ours_as_often_as_said(monkeypatch):
    monkeypatch.setattr(museum, "LEVEL", 0.9)  # often enough to be counted
    generator, repeats = np.random.default_rng(2), 2000
    entries = [museum.mean(7 + generator.standard_normal(5), None) for _ in range(repeats)]
    outside = sum(not entry["low"] <= 7 <= entry["high"] for entry in entries)
    assert abs(outside - repeats * museum.chance(entries[0])) < 4 * math.sqrt(repeats * 0.1 * 0.9)


def moved(key, times):
    """The result with our interval for one entry, and for the network that explains it, moved by so many widths of ours and theirs."""
    result = copy.deepcopy(RESULT)
    entry, (low, high) = result["entries"][key], museum.PRINTED[key].interval
    for part in (entry, *([entry["instead"]] if "instead" in entry else [])):
        if low > 0 and part["low"] > 0:
            factor = (part["high"] / part["low"] * high / low) ** times
            part |= {field: part[field] * factor for field in ("low", "high", "measured")}
        else:
            step = times * (part["high"] - part["low"] + high - low)
            part |= {field: part[field] + step for field in ("low", "high", "measured")}
    return result


@pytest.mark.parametrize("key", museum.PRINTED)
def test_a_number_that_is_off_by_a_few_widths_makes_its_claim_fail(key):
    claim = {"printout": "printouts-agree", "paper": "paper-numbers-agree", "formula": "formulas-agree"}[
        museum.KIND[key]
    ]
    holds = next(c.holds for c in museum.CLAIMS if c.key == claim)
    assert holds(RESULT)
    assert not holds(moved(key, 4)) and not holds(moved(key, -4))


@pytest.mark.parametrize("claim", museum.CLAIMS[3:], ids=lambda claim: claim.key)
def test_one_number_that_is_off_by_ten_intervals_makes_a_claim_fail(claim):
    def shifted(name, sign):
        entry = RESULT[name]
        step = sign * 10 * (entry["high"] - entry["low"])
        return RESULT | {name: entry | {field: entry[field] + step for field in ("low", "high", "measured")}}

    assert claim.holds(RESULT)
    assert not all(claim.holds(shifted(name, sign)) for name in RESULT if name != "entries" for sign in (1, -1))


def test_no_printout_is_left_without_address():
    assert all("](http" in printed.source for printed in museum.PRINTED.values())
    assert len(museum.PRINTOUTS) >= 30 and not set(museum.PRINTOUTS) & set(museum.FORMULAS)


def test_the_deviation_of_all_entries_is_that_of_explicit_layers():
    network = Network(3, 400, "selu", weight_variance=0.6)
    weights = initial_weights(network, 400, 2)
    h, rows = np.random.default_rng(0).standard_normal((400, 8)), []
    h *= math.sqrt(400) / np.linalg.norm(h, axis=0)
    for matrix in weights.matrices[:-1]:
        rows.append(math.log(math.sqrt(np.mean(h**2))))
        h = activation("selu").value(matrix.astype(float) @ h)
    rows.append(math.log(math.sqrt(np.mean(h**2))))
    assert museum.deviation(network, 3)(np.array([rows]))[0] == pytest.approx(h.std(), rel=0.02)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_the_predicted_gain_is_the_integral(name):
    value = activation(name).value
    first, second = (
        integrate.quad(lambda z, k=k: float(value(np.array([z]))[0]) ** k * stats.norm.pdf(z), -12, 12, points=[0.0])[0]
        for k in (1, 2)
    )
    assert RESULT["entries"][f"gain-{name}"]["predicted"] == pytest.approx((second - first**2) ** -0.5, rel=1e-6)


@pytest.mark.parametrize("shortcuts", [False, True])
def test_the_book_s_gradients_are_those_of_finite_differences(shortcuts):
    p = museum.Parameters(draws=3)
    generator, bound = np.random.default_rng([p.seed, 5]), 1 / math.sqrt(3)
    layers = [
        (generator.uniform(-bound, bound, (3, size, 3)), generator.uniform(-bound, bound, (3, size)))
        for size in (3, 3, 3, 3, 1)
    ]

    def output(layers):
        x = np.broadcast_to(np.array([1.0, 0.0, -1.0]), (3, 3))
        for matrix, bias in layers:
            y = activation("gelu").value(np.einsum("tij,tj->ti", matrix, x) + bias)
            x = y + x if shortcuts and y.shape == x.shape else y
        return x[:, 0]

    def mean_slope(index):
        slopes = []
        for i in range(layers[index][0].shape[1]):
            for j in range(3):
                up, down = copy.deepcopy(layers), copy.deepcopy(layers)
                up[index][0][:, i, j] += 1e-5
                down[index][0][:, i, j] -= 1e-5
                slopes.append(np.abs(output(up) - output(down)) / 2e-5)
        return np.mean(slopes, axis=0)

    assert museum.first_over_last(p, 5, shortcuts) == pytest.approx(mean_slope(0) / mean_slope(4), rel=1e-5)
