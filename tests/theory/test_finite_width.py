"""Exact laws at finite width, against closed forms, explicit matrices and measured networks."""

import math

import mpmath
import numpy as np
import pytest
from reference import explicit_flow

from vgp_kernels import Network, activation, mean_field, propagate
from vgp_kernels.theory.finite_width import death_probability, fourth_moment, layer_law, log_normal, log_norms, shifts


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.3)", "linear"])
def test_factor_of_a_layer_has_the_moments_of_explicit_matrices(name):
    generator, phi = np.random.default_rng(1), activation(name)
    fan_in, width, variance, draws = 5, 7, 1.3, 200_000
    law = layer_law(name, fan_in, width, variance)
    weights = math.sqrt(variance / fan_in) * generator.standard_normal((draws, width, fan_in))
    x, u = generator.standard_normal((2, fan_in))
    u /= np.linalg.norm(u)
    factor = np.sum((phi.slope(weights @ x) * (weights @ u)) ** 2, axis=1)
    alive = np.log(factor[factor > 0])
    assert law.mean == pytest.approx(factor.mean(), abs=4 * factor.std() / math.sqrt(draws))
    squares = factor**2 / law.mean**2
    assert law.square == pytest.approx(squares.mean(), abs=4 * squares.std() / math.sqrt(draws))
    assert law.log_mean == pytest.approx(alive.mean(), abs=4 * alive.std() / math.sqrt(draws))
    spread = (alive - alive.mean()) ** 2
    assert law.log_variance == pytest.approx(spread.mean(), abs=4 * spread.std() / math.sqrt(draws))
    assert law.death == pytest.approx(np.mean(factor == 0), abs=4 * math.sqrt(law.death / draws) + 1e-12)


@pytest.mark.parametrize("n", [1, 6, 49, 300])
def test_relu_layer_is_the_mixture_of_chi_squares(n):
    with mpmath.workdps(30):
        weights = [mpmath.binomial(n, k) / (mpmath.mpf(2) ** n - 1) for k in range(1, n + 1)]
        means = [mpmath.digamma(mpmath.mpf(k) / 2) + mpmath.log(mpmath.mpf(4) / n) for k in range(1, n + 1)]
        mean = mpmath.fsum(w * m for w, m in zip(weights, means, strict=True))
        variance = mpmath.fsum(
            w * (mpmath.polygamma(1, mpmath.mpf(k) / 2) + (m - mean) ** 2)
            for w, m, k in zip(weights, means, range(1, n + 1), strict=True)
        )
    law = layer_law("relu", n, n, 2.0)
    assert (law.log_mean, law.log_variance) == pytest.approx((float(mean), float(variance)), rel=1e-9, abs=1e-12)
    assert law.square == pytest.approx(1 + 5 / n, rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_leaky_layer_tends_to_the_linear_one(n):
    leaky, linear = layer_law("leaky_relu(0.9999999)", n, n, 1.0), layer_law("linear", n, n, 1.0)
    assert leaky.log_mean == pytest.approx(linear.log_mean, abs=2e-7)
    assert leaky.log_variance == pytest.approx(linear.log_variance, abs=1e-6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.3)", "linear"])
@pytest.mark.parametrize("input_width", [3, 9, 40])
def test_log_norms_are_those_of_measured_networks(name, input_width):
    network = Network(6, 9, name, weight_variance=1.7, input_width=input_width, input_rms=0.6)
    exact, flow = log_norms(network), propagate(network, trials=20_000, seed=2)
    alive = np.isfinite(flow.log_gradient[:, 0])
    for curve in ("log_signal", "log_gradient", "log_weight_gradient"):
        sample = getattr(flow, curve)[alive]
        error = sample.std(axis=0) / math.sqrt(len(sample)) + 1e-7  # float32 kernels
        assert np.all(np.abs(sample.mean(axis=0) - getattr(exact, curve)) < 4 * error), curve
        spread = (sample - sample.mean(axis=0)) ** 2
        error = spread.std(axis=0) / math.sqrt(len(sample)) + 1e-7
        assert np.all(np.abs(spread.mean(axis=0) - getattr(exact, f"{curve}_variance")) < 4 * error), curve


def test_log_norms_are_those_of_explicit_matrices():
    network = Network(4, 5, "relu", "he", input_width=3)
    sample = explicit_flow(network, trials=4000, seed=3)
    exact = log_norms(network)
    alive = sample["gradient"][:, 0] > 0
    logs = np.log(sample["gradient"][alive])
    assert np.all(np.abs(logs.mean(axis=0) - exact.log_gradient) < 4 * logs.std(axis=0) / math.sqrt(len(logs)) + 1e-12)
    deaths = 1 - np.mean(alive)
    expected = death_probability(network)
    assert deaths == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))


@pytest.mark.parametrize("n, depth", [(2, 3), (5, 12)])
def test_some_layer_is_dead_as_often_as_measured(n, depth):
    network = Network(depth, n, "relu", "he")
    expected = 1 - (1 - 2.0**-n) ** depth
    assert death_probability(network) == pytest.approx(expected, rel=1e-12)
    measured = np.mean(np.isneginf(propagate(network, trials=10_000, seed=1).log_gradient[:, 0]))
    assert measured == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 10_000))


def test_fourth_moment_of_the_gradient():
    """The recursion of the second moments of |v|²|w|² and (v·w)², from the top down, and explicit matrices."""
    n, depth = 7, 3
    network = Network(depth, n, "relu", "he", input_width=4)
    assert fourth_moment(network) == pytest.approx((1 + 2 / 4) * (1 + 5 / n) ** depth, rel=1e-12)
    sample = explicit_flow(network, trials=40_000, seed=5)
    top = np.random.default_rng(6).chisquare(n, 40_000)  # a normal read-out has this squared norm
    squares = sample["gradient"][:, 0] ** 2 * top
    mean = squares.mean()
    ratio, error = np.mean(squares**2) / mean**2, np.std(squares**2) / mean**2 / math.sqrt(40_000)
    assert ratio == pytest.approx(fourth_moment(network), abs=4 * error)


def test_log_normal_law_is_the_limit_of_wide_and_deep_networks():
    network = Network(400, 400, "relu", "he")
    mean, variance = log_normal(network)
    assert (mean, variance) == pytest.approx((-2.5, 5.0), rel=1e-12)
    exact = log_norms(network)
    assert 2 * exact.log_gradient[0] == pytest.approx(mean, rel=0.01)
    assert 4 * exact.log_gradient_variance[0] == pytest.approx(variance, rel=0.02)


def test_networks_without_an_exact_law_are_refused():
    with pytest.raises(ValueError, match="two straight lines through 0"):
        log_norms(Network(5, 10, "tanh", "xavier"))
    with pytest.raises(ValueError, match="Gaussian weights, no biases"):
        log_norms(Network(5, 10, "relu", "he", bias_variance=0.1))
    with pytest.raises(ValueError, match="Gaussian weights"):
        fourth_moment(Network(5, 10, "relu", "orthogonal"))


@pytest.mark.parametrize("name, variance", [("tanh", 4.0), ("tanh", 2.0), ("sigmoid", 16.0), ("relu", 2.0)])
def test_shift_by_width_is_what_is_measured(name, variance):
    """At a width that nothing was fitted to; the next order in 1/n is a few per cent."""
    network = Network(45, 96, name, weight_variance=variance)
    flow, rate = propagate(network, trials=8000, seed=4), mean_field(network).rate
    gains = (flow.log_gradient[:, 12] - flow.log_gradient[:, 40]) / 28 - rate
    error = 96 * gains.std() / math.sqrt(len(gains))
    found = shifts(network)[12:40].sum(axis=1).mean()
    assert found == pytest.approx(96 * gains.mean(), abs=4 * error + 0.04 * abs(found))


def test_shift_by_width_is_refused_where_it_is_not_known():
    for network in (
        Network(9, 9, "tanh", "he", batch_size=2),
        Network(9, 9, "tanh", "he", input_width=4),
        Network(9, 9, "relu", "he", residual="preactivation"),
    ):
        with pytest.raises(ValueError, match="one input"):
            shifts(network)
