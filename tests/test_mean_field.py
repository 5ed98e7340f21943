"""Theory by quadrature, against closed forms, mpmath, and published or tabulated values."""

import math

import mpmath
import numpy as np
import pytest
from test_activations import EXACT, NAMES

from vgp_kernels import (
    Network,
    activation,
    critical_point,
    critical_weight_variance,
    mean_field,
    propagate,
    variance_preserving_weight_variance,
)
from vgp_kernels.mean_field import moments, pair_moment


def theory(name, weight_variance, bias_variance=0.0, depth=50):
    return mean_field(Network(depth, 256, name, weight_variance=weight_variance, bias_variance=bias_variance))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("q", [1e-4, 0.3, 30.0, 1e6])
def test_moments_are_the_integrals(name, q):
    phi, here = activation(name), moments(activation(name), math.log(q))
    root = math.sqrt(q)
    features = sorted({*(k / root for k in phi.kinks), *(s * 10.0**e / root for e in (-1, 0, 1) for s in (-1, 0, 1))})
    points = [-14, *(x for x in features if abs(x) < 14), 14]
    with mpmath.workdps(20):
        value = mpmath.quad(lambda z: EXACT[name](root * z) ** 2 * mpmath.npdf(z), points)
    assert here.log_value == pytest.approx(float(mpmath.log(value)), abs=2e-12)
    slope = mpmath.fp.quad(lambda z: float(phi.slope(np.array([root * z]))[0]) ** 2 * mpmath.fp.npdf(z), points)
    assert here.slope == pytest.approx(slope, rel=1e-9)
    step = 1e-4  # d/dq E φ² by central differences, error O(step²)
    above, below = (math.exp(moments(phi, math.log(q * (1 + s))).log_value) for s in (step, -step))
    assert here.growth == pytest.approx((above - below) / (2 * step * q), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("q", [1e-3, 0.7, 50.0])
def test_erf_has_its_closed_forms(q):
    here = moments(activation("erf"), math.log(q))
    assert math.exp(here.log_value) == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-12)
    assert here.slope == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-12)


@pytest.mark.parametrize("c", [-0.5, 0.0, 0.3, 0.9, 0.999])
def test_pairs_have_the_arc_cosine_and_arcsine_laws(c):
    q, relu, erf = 1.7, activation("relu"), activation("erf")
    angle = math.acos(c)
    exact = q / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * c)  # Cho & Saul 2009
    assert pair_moment(relu.value, relu, q, c) == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert pair_moment(relu.slope, relu, q, c) == pytest.approx((math.pi - angle) / (2 * math.pi), rel=1e-9)
    exact = 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))  # Williams 1998
    assert pair_moment(erf.value, erf, q, c) == pytest.approx(exact, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(
    "name, initialiser, q, chi, ratio",
    [
        ("sigmoid", "standard", 0.08503376, 0.02000783, 0.14144903),
        ("sigmoid", "xavier", 0.26468688, 0.05572071, 0.23605234),
        ("sigmoid", "he", 0.55528959, 0.10097708, 0.31776891),
        ("sigmoid", "normal", 118.754346, 1.55357371, 1.24642437),
        ("tanh", "standard", 0, 1 / 3, 0.57735027),
        ("tanh", "he", 0.61796477, 1.10552882, 1.05144131),
        ("relu", "standard", 0, 1 / 6, 0.40824829),
        ("relu", "he", 2, 1, 1),
        ("relu", "normal", math.inf, 128, 11.3137085),
    ],
)
def test_factor_per_layer_of_common_networks(name, initialiser, q, chi, ratio):
    found = mean_field(Network(50, 256, name, initialiser))
    assert found.q_star == pytest.approx(q, rel=2e-8, abs=6e-9) and found.chi_1 == pytest.approx(chi, rel=3e-7)
    assert math.exp(found.rate) == pytest.approx(ratio, rel=1e-7)


@pytest.mark.parametrize(
    "weight_variance, bias_variance, q, chi_1, chi_q, c, xi_q, xi_c",
    [
        (1.0, 0.05, 0.19359252, 0.75903165, 0.56427998, 1, 1.747626, 3.626976),
        (2.0, 0.05, 0.72176187, 1.04766600, 0.48652174, 0.74408242, 1.387976, 25.213415),
        (4.0, 0.05, 2.19549393, 1.34240241, 0.31819510, 0.16506496, 0.873293, 6.980274),
        (1.5, 0.0, 0.28689423, 1.04056757, 0.69549115, 0, 2.753782, 52.362982),
    ],
)
def test_fixed_points_and_depth_scales_of_tanh(weight_variance, bias_variance, q, chi_1, chi_q, c, xi_q, xi_c):
    found = theory("tanh", weight_variance, bias_variance)
    computed = found.q_star, found.chi_1, found.chi_q, found.c_star, found.xi_q, found.xi_c
    assert computed == pytest.approx((q, chi_1, chi_q, c, xi_q, xi_c), rel=2e-7, abs=6e-7)


def test_erf_fixed_point_in_closed_form():
    found = theory("erf", 1.5)
    assert found.q_star == pytest.approx(0.5, rel=1e-12)
    assert found.chi_1 == pytest.approx(1.5 * 4 / math.pi / math.sqrt(3), rel=1e-12)


def test_critical_line():
    assert critical_point("tanh", 0.05) == pytest.approx((1.76095464, 0.57004788), rel=1e-8)
    assert critical_point("tanh", 0.1) == pytest.approx((1.98607264, 0.80579918), rel=1e-8)
    assert critical_point("erf", 0.05)[0] == pytest.approx(1.37583901, rel=1e-8)
    assert critical_point("erf", 0) == pytest.approx((math.pi / 4, 0), rel=1e-12)
    assert critical_point("relu", 0) == (2, 0)
    with pytest.raises(ValueError, match=r"relu has no critical point with bias_variance 0\.1"):
        critical_point("relu", 0.1)


def test_gains_in_closed_form():
    assert critical_weight_variance("leaky_relu(0.2)") == pytest.approx(2 / 1.04, rel=1e-13)
    assert variance_preserving_weight_variance("relu", 7.0) == pytest.approx(2, rel=1e-13)
    assert critical_weight_variance("hard_tanh") == pytest.approx(1 / math.erf(math.sqrt(0.5)), rel=1e-12)
    assert variance_preserving_weight_variance("selu") == pytest.approx(1, rel=1e-7)  # what SELU was made for


def test_critical_tanh_falls_as_a_power_of_the_depth():
    found = mean_field(Network(3001, 256, "tanh", "xavier"))
    for layer, value in ((10, 1.0440), (100, 1.013804), (1000, 1.002328)):  # q_0 = 1
        assert 2 * layer * found.variance[layer] == pytest.approx(value, abs=6e-5)
    assert found.q_star == 0 and found.phase == "critical" and "power" in found.remark


def test_curves_do_not_underflow():
    found = theory("relu", 1.0, depth=100_000)
    exact = -np.arange(100_001) * math.log(2) / 2
    assert np.allclose(found.log_signal, exact, rtol=1e-12)
    assert np.allclose(found.log_gradient, exact[::-1], rtol=1e-11)
    assert np.ptp(found.log_weight_gradient) < 1e-6 * 35_000


def test_remarks_say_where_there_is_no_fixed_point():
    assert "every variance" in theory("relu", 2.0).remark
    assert "without end" in theory("gelu", 9.0).remark and theory("gelu", 9.0).q_star == math.inf
    assert "exponentially" in theory("tanh", 0.5).remark
    assert theory("tanh", 2.0).remark == ""


@pytest.mark.parametrize(
    "name, initialiser",
    [(name, initialiser) for name in NAMES for initialiser in ("standard", "he")]
    + [("tanh", "orthogonal"), ("relu", "orthogonal")],
)
def test_wide_networks_follow_the_curves(name, initialiser):
    network = Network(20, 1000, name, initialiser, bias_variance=0.02)
    found, flow = mean_field(network), propagate(network, trials=64, seed=1)
    for curve in ("log_signal", "log_gradient", "log_weight_gradient"):
        sample = getattr(flow, curve)
        error = sample.std(axis=0) / 8
        # 1 % for the finite width (of order depth/width), and four standard errors
        assert np.all(np.abs(sample.mean(axis=0) - getattr(found, curve)) < 0.01 + 20 * 2.5 / 1000 + 4 * error), curve


def test_rectangular_input_follows_the_curves():
    network = Network(3, 1000, "tanh", "xavier", input_width=300)
    found, flow = mean_field(network), propagate(network, trials=400)
    for curve in ("log_signal", "log_gradient", "log_weight_gradient"):
        assert np.allclose(getattr(flow, curve).mean(axis=0), getattr(found, curve), atol=0.02), curve


def test_wrong_type_is_refused():
    with pytest.raises(TypeError, match="must be a Network"):
        mean_field("tanh")
