"""Singular values of whole networks, against closed forms, mpmath and free probability's own special cases."""

import math

import mpmath
import numpy as np
import pytest

from vgp_kernels import Network, activation, critical_point
from vgp_kernels.theory import spectra
from vgp_kernels.theory.spectra import log_singular_values, predict_spectrum, second_moments, slope_law, weight_matrix


def orthogonal(depth, name, gain_squared=1.0, width=200, **options):
    return Network(depth, width, name, "orthogonal", weight_variance=gain_squared, **options)


@pytest.mark.parametrize("depth", [1, 2, 3, 9, 40])
def test_linear_gaussian_products_have_the_fuss_catalan_edge(depth):
    found = predict_spectrum(Network(depth, 100, "linear", "lecun"))
    assert found.largest == pytest.approx((depth + 1) ** (depth + 1) / depth**depth, rel=1e-9)
    assert (found.mean, found.variance) == pytest.approx((1, depth), rel=1e-12)


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_relu_gaussian_products_have_their_closed_edge(depth):
    z = (1 - depth + math.sqrt(depth**2 + 1)) / (2 * depth)
    found = predict_spectrum(Network(depth, 100, "relu", "he"))
    assert found.largest == pytest.approx((1 + z) * (1 + 2 * z) ** depth / z, rel=1e-9)
    assert found.variance == pytest.approx(2 * depth, rel=1e-12)


@pytest.mark.parametrize("depth", [3, 4, 11])
def test_relu_orthogonal_products_have_their_closed_edge(depth):
    found = predict_spectrum(orthogonal(depth, "relu", 2.0))
    assert found.largest == pytest.approx(depth**depth / (depth - 1) ** (depth - 1), rel=1e-8)
    assert found.variance == pytest.approx(depth, rel=1e-12)


def test_the_weights_scale_the_spectrum():
    one, other = (predict_spectrum(Network(6, 64, "relu", weight_variance=v)) for v in (2.0, 1.4))
    assert other.largest == pytest.approx(0.7**6 * one.largest, rel=1e-9)
    assert other.variance == pytest.approx(0.7**12 * one.variance, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "leaky_relu(0.3)"])
def test_s_transform_inverts_the_moment_series(name):
    """Near 0, S(z) = 1/μ₁ + (μ₁² - μ₂)/μ₁³ z + …"""
    law, z = slope_law(name, math.log(0.8)), 1e-4
    first, second = law.moment(1), law.moment(2)
    assert law.s_transform(z) == pytest.approx(1 / first + (first**2 - second) / first**3 * z, abs=3 * z**2)
    phi = activation(name)
    points = sorted({-12, 0, 12, *(k / math.sqrt(0.8) for k in phi.kinks)})
    exact = mpmath.fp.quad(
        lambda x: float(phi.slope(np.array([math.sqrt(0.8) * x]))[0]) ** 4 * mpmath.fp.npdf(x), points
    )
    assert second == pytest.approx(exact, rel=1e-9)


def test_orthogonal_tanh_is_isometric_where_depth_is_below_one_over_the_variance():
    """μ₂/μ₁² - 1 tends to 8 q² for small q: the variance of a deep network stays small if L ≪ 1/(8 q²)."""
    law = slope_law("tanh", math.log(1e-3))
    assert law.moment(2) / law.moment(1) ** 2 - 1 == pytest.approx(8e-6, rel=0.02)
    bias = 0.05
    weights, q = critical_point("tanh", bias)
    law = slope_law("tanh", math.log(q))
    assert law.moment(2) / law.moment(1) ** 2 - 1 == pytest.approx(0.34225608, rel=1e-7)
    deep = predict_spectrum(
        orthogonal(30, "tanh", weights, bias_variance=bias, input_rms=math.sqrt((q - bias) / weights))
    )
    assert deep.mean == pytest.approx(1, rel=1e-6) and deep.variance == pytest.approx(30 * 0.34225608, rel=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        Network(3, 256, "linear", "lecun"),
        Network(4, 256, "relu", "he"),
        orthogonal(4, "relu", 2.0, width=256),
        Network(4, 256, "tanh", weight_variance=1.4, bias_variance=0.1),
        orthogonal(8, "tanh", 1.3, width=256, bias_variance=0.02),
        orthogonal(5, "gelu", 2.0, width=256),
    ],
    ids=lambda network: f"{network.activation}-{network.law}",
)
def test_explicit_matrices_have_the_predicted_spectrum(network):
    squares = np.array([np.exp(2 * log_singular_values(network, seed)) for seed in range(4)])
    found = predict_spectrum(network)
    assert squares.mean() == pytest.approx(found.mean, rel=0.06)
    assert squares.var() == pytest.approx(found.variance, rel=0.25)
    # at finite width the edge is rounded off by O(n^(-2/3)), about 2.5 % here, and each network has its own scale
    assert squares.max(axis=1).mean() == pytest.approx(found.largest, rel=0.17)


def test_edge_predictions_tell_orthogonal_from_gaussian_weights():
    squares = np.exp(2 * log_singular_values(orthogonal(4, "relu", 2.0, width=256)))
    assert squares.max() < 0.7 * predict_spectrum(Network(4, 256, "relu", "he")).largest


def test_deep_jacobians_keep_their_small_singular_values():
    """Against a product and its singular values in 400 digits; in float64 alone all but the largest are noise."""
    network, seed = Network(40, 6, "tanh", "lecun", bias_variance=0.1, input_width=5), 7
    generator = np.random.default_rng(seed)
    h = generator.standard_normal(5)
    h /= math.sqrt(np.mean(h**2))
    with mpmath.workdps(400):
        product = mpmath.eye(5)
        for layer in range(1, 41):
            weights = weight_matrix(network, layer, generator)
            z = weights @ h + math.sqrt(0.1) * generator.standard_normal(6)
            h = np.tanh(z)
            product = mpmath.matrix((activation("tanh").slope(z)[:, None] * weights).tolist()) * product
        exact = [float(mpmath.log(x) / 2) for x in mpmath.eigsy(product.T * product, eigvals_only=True)]
    assert min(exact) < max(exact) - 30
    assert log_singular_values(network, seed) == pytest.approx(sorted(exact, reverse=True), abs=1e-9)


def test_dead_units_have_singular_values_of_zero():
    logs = log_singular_values(Network(3, 30, "relu", "he"), seed=2)
    assert 10 < np.isneginf(logs).sum() < 30 and np.all(np.diff(logs[np.isfinite(logs)]) <= 0)
    dead = next(s for s in range(100) if np.isneginf(log_singular_values(Network(4, 2, "relu", "he"), s)).all())
    assert dead >= 0


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu(0.5)"])
def test_second_moments_are_those_of_explicit_matrices(name):
    network, draws = Network(3, 5, name, weight_variance=1.5, input_width=4), 3000
    sample = []
    for seed in range(draws):
        squares = np.exp(2 * log_singular_values(network, seed))
        sample.append((squares.sum() ** 2, np.sum(squares**2)))
    sample = np.array(sample)
    error = sample.std(axis=0) / math.sqrt(draws)
    assert np.all(np.abs(sample.mean(axis=0) - second_moments(network)) < 4 * error)


def test_second_moments_tend_to_free_probability():
    n, depth = 20_000, 6
    _, squares = second_moments(Network(depth, n, "relu", "he"))
    assert squares / n - 1 == pytest.approx(predict_spectrum(Network(depth, n, "relu", "he")).variance, rel=0.01)


def test_haar_matrices_are_orthogonal_and_gaussian_ones_are_not():
    generator = np.random.default_rng(1)
    haar = weight_matrix(orthogonal(2, "tanh", 1.7, width=40), 2, generator)
    assert haar.T @ haar == pytest.approx(1.7 * np.eye(40), abs=1e-12)
    # without the signs, R's diagonal would make the first diagonal entry of Q negative always
    signs = [np.sign(weight_matrix(orthogonal(1, "tanh", width=3), 1, generator)[0, 0]) for _ in range(200)]
    assert abs(np.mean(signs)) < 4 / math.sqrt(200)


def test_what_has_no_explicit_jacobian_is_refused():
    with pytest.raises(ValueError, match="without norms and skips"):
        log_singular_values(Network(3, 10, "relu", "he", normalisation="layer"))
    with pytest.raises(ValueError, match="width 3000 makes matrices"):
        log_singular_values(Network(3, 3000, "relu", "he"))
    with pytest.raises(ValueError, match="square layers"):
        predict_spectrum(Network(3, 10, "relu", "he", input_width=4))


def test_predictions_beyond_float64_are_infinite():
    found = predict_spectrum(Network(119, 64, "leaky_relu(1000)", "xavier"))
    assert found.mean == found.variance == found.largest == math.inf
    linear = predict_spectrum(Network(119, 64, "linear", "orthogonal", weight_variance=1e4))
    assert linear.mean == math.inf and linear.variance == 0


@pytest.mark.parametrize("name, small", [("elu(0.5)", 0.625), ("tanh", 1.0)])
def test_variances_beyond_float64_have_the_slopes_at_0(name, small):
    theory = predict_spectrum(Network(44, 7, name, weight_variance=1e-30))
    assert (theory.mean, theory.variance, theory.largest) == (0.0, 0.0, 0.0)
    law, at_0 = spectra.slope_law(name, -2000.0), spectra.slope_law(name, -60.0)
    assert law.moment(1) == pytest.approx(small, rel=1e-9) == pytest.approx(at_0.moment(1), rel=1e-9)


def test_of_a_step_fewer_and_fewer_slopes_are_left():
    moments = [spectra.slope_law("tanh", log_q).moment(1) for log_q in (580.0, 640.0, 1300.0)]
    assert np.diff(np.log(moments)) == pytest.approx([-30.0, -330.0], abs=1e-2)
