"""Theory by quadrature, against closed forms, mpmath, and published or tabulated values."""

import itertools
import math
import time

import fuzz_theory
import mpmath
import numpy as np
import pytest
from scipy import stats
from test_activations import EXACT, NAMES

from vgp_kernels import (
    ACTIVATIONS,
    Activation,
    Network,
    activation,
    critical_point,
    critical_points,
    critical_weight_variance,
    half_stable_points,
    mean_field,
    propagate,
    variance_preserving_weight_variance,
)
from vgp_kernels.activations import check_structure
from vgp_kernels.theory import moments as theory_moments
from vgp_kernels.theory.moments import batch_moments, close_pair, moments, pair_moments, pair_moments_at, tabled_pair


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


@pytest.mark.parametrize("q", [0.02, 1.7, 3e3, 1e7])
@pytest.mark.parametrize("c", [-0.999, -0.5, 0.0, 0.3, 0.9, 0.999])
def test_pairs_have_the_arc_cosine_and_arcsine_laws(c, q):
    relu, erf = activation("relu"), activation("erf")
    angle = math.acos(c)
    exact = (math.sin(angle) + (math.pi - angle) * c) / math.pi  # Cho & Saul 2009
    for found in (pair_moments(relu, math.log(q), 1 - c), pair_moments_at(relu, math.log(q), 1 - c)):
        assert 1 - found.apart == pytest.approx(exact, rel=1e-12, abs=1e-12)
        assert found.slopes == pytest.approx((math.pi - angle) / (2 * math.pi), rel=1e-12)
    found = pair_moments(erf, math.log(q), 1 - c)
    exact = math.asin(2 * q * c / (1 + 2 * q)) / math.asin(2 * q / (1 + 2 * q))  # Williams 1998
    assert 1 - found.apart == pytest.approx(exact, rel=1e-11, abs=1e-12)
    exact = 4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    assert found.slopes == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("c", [-1.0, -0.999, -0.3, 0.6, 0.96, 0.999])
@pytest.mark.parametrize("q", [0.3, 20.0])
def test_pairs_at_two_kinks_are_those_of_the_bivariate_normal_law(q, c):
    """Hard tanh: E φ′φ′ is the probability that both are between the kinks."""
    edge = 1 / math.sqrt(q)
    if c == -1:
        exact = math.erf(edge / math.sqrt(2))
    else:

        def both_below(a, b):
            return stats.multivariate_normal.cdf([a, b], cov=[[1, c], [c, 1]], abseps=1e-12, releps=1e-12, maxpts=10**6)

        exact = both_below(edge, edge) - 2 * both_below(-edge, edge) + both_below(-edge, -edge)
    assert pair_moments(activation("hard_tanh"), math.log(q), 1 - c).slopes == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "gelu", "selu", "softplus"])
@pytest.mark.parametrize("log_q", [-2.0, 1.3, 9.0])
def test_pairs_that_are_nearly_one_keep_their_digits(name, log_q):
    """1 - E φφ/E φ² → q E φ′² (1 - c)/E φ² as c → 1, and the table of pairs agrees with quadrature."""
    phi, here = activation(name), moments(activation(name), log_q)
    for apart in (1e-14, 1e-20):
        exact = math.exp(log_q - here.log_value) * here.slope * apart
        assert pair_moments(phi, log_q, apart).apart == pytest.approx(exact, rel=1e-4)
    for apart in (1e-6, 0.4, 1.99):
        pair = pair_moments(phi, log_q, apart)
        assert tabled_pair(phi, log_q, apart) == pytest.approx(pair, rel=1e-9)
    for apart in (
        3e-15,
        1e-16,
        1e-17,
        1e-18,
        1e-40,
        1e-300,
        5e-324,
    ):  # where a difference of both has few digits, or none
        exact = math.exp(log_q - here.log_value) * here.slope * apart
        assert tabled_pair(phi, log_q, apart) == pytest.approx((exact, here.slope), rel=2e-5)
    assert tabled_pair(phi, log_q, 1e-300).apart > 0


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "hard_tanh", "erf", "centred_sigmoid"])
def test_a_bounded_activation_is_a_step_however_large_its_input_is(name):
    """√q is beyond float64 from ln q = 1420 on; E φ² no longer changes, and E φ′² falls as 1/√q."""
    phi = activation(name)
    step = moments(phi, 580.0)
    for log_q in (599.0, 601.0, 640.0, 1400.0):
        here = moments(phi, log_q)
        assert here.log_value == pytest.approx(step.log_value, abs=1e-12)
        assert math.log(here.slope) - math.log(step.slope) == pytest.approx((580 - log_q) / 2, abs=1e-3)
    assert moments(phi, 1e6) == moments(phi, 1e9) and moments(phi, 1e6).slope == 0
    assert pair_moments(phi, 1e6, 0.5) == pytest.approx(pair_moments(phi, 200.0, 0.5), abs=1e-12)


@pytest.mark.parametrize("norm", ["batch", "batch_inference"])
def test_where_no_gradient_reaches_the_weights_theory_says_so(norm):
    """Of a straight line behind a batch norm the outputs add up to 0 over the batch, so that a common slope finds nothing."""
    network = Network(3, 64, "linear", "he", batch_size=4, normalisation=norm)
    theory = mean_field(network, "shared")
    assert np.isneginf(theory.log_weight_gradient[1:]).all() and np.isfinite(theory.log_weight_gradient[0]) == (
        norm == "batch_inference"
    )
    assert "no gradient" in theory.remark and "no gradient" not in mean_field(network).remark
    measured = propagate(network, 20, loss_gradient="shared").log_weight_gradient
    assert (measured[:, 1:] < -12).all()  # rounding of float32


def test_inputs_that_are_nearly_one_take_no_integral_for_each_layer(monkeypatch):
    """A thousand such layers took ten seconds, and each integral more as the two inputs came closer."""
    integrated = []
    monkeypatch.setattr(theory_moments, "close_pair", lambda *pair: integrated.append(pair) or close_pair(*pair))
    network = Network(
        900, 50, "mish", weight_variance=6e-27, bias_variance=0.0125, batch_size=2, input_correlation=1 - 1e-12,
        normalisation="layer", residual="two_weights", residual_scale=4.7e14,
    )  # fmt: skip
    correlation = mean_field(network).correlation
    assert correlation[0] == 1 - 1e-12 and (correlation[1:] <= 1).all() and (correlation > 1 - 1e-6).all()
    assert len(integrated) < 200


@pytest.mark.parametrize("name", ["relu", "linear", "leaky_relu(0.2)"])
def test_correlations_of_piecewise_linear_networks_are_those_of_any_quadrature(name):
    phi, c = activation(name), -0.4
    found = mean_field(Network(1, 30, name, "he", batch_size=2, input_correlation=c)).correlation[1]
    assert found == pytest.approx(1 - pair_moments_at(phi, 0.0, 1 - c).apart, rel=1e-12)


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


def test_sigmoid_has_one_critical_point_with_very_large_weights():
    """Solved once more with mpmath: σ_w² E φ′² = 1 and σ_w² E φ² = q."""
    with mpmath.workdps(20):

        def integral(f, q):
            points = [-14, -1 / mpmath.sqrt(q), 0, 1 / mpmath.sqrt(q), 14]
            return mpmath.quad(lambda z: f(mpmath.sqrt(q) * z) * mpmath.npdf(z), points)

        def slope_square(z):
            return (1 / (4 * mpmath.cosh(z / 2) ** 2)) ** 2

        def biases(q):
            return q - integral(lambda z: 1 / (1 + mpmath.exp(-z)) ** 2, q) / integral(slope_square, q)

        q = mpmath.findroot(biases, (40, 50), solver="anderson", tol=1e-20)
        weights = 1 / integral(slope_square, q)
    assert critical_point("sigmoid", 0) == pytest.approx((float(weights), float(q)), rel=1e-11)
    assert len(critical_points("sigmoid", 0)) == 1
    assert theory("sigmoid", 64.0).phase == "ordered"


def test_half_stable_points_are_the_published_ones():
    """Roberts, Yaida & Hanin 2022, section 5.3.4: C_W, C_b and K* to the digits they print."""
    (gelu,), (silu,) = half_stable_points("gelu"), half_stable_points("silu")
    assert (gelu.weight_variance, gelu.bias_variance) == pytest.approx((1.98305826, 0.17292239), abs=6e-9)
    assert (silu.weight_variance, silu.bias_variance) == pytest.approx((1.98800468, 0.55514317), abs=6e-9)
    for name in ("tanh", "relu", "softplus", "elu", "selu"):
        assert half_stable_points(name) == []


def test_gelu_is_stable_only_beyond_its_half_stable_point():
    (end,) = half_stable_points("gelu")
    unstable, stable = critical_points("gelu", 0.9 * end.bias_variance), critical_points("gelu", 1.5)
    assert [p.chi_q > 1 for p in unstable] == [True] and unstable[0].q < end.q
    # the published statement: beyond it the fixed point attracts
    assert [p.chi_q < 1 for p in stable] == [True] and stable[0].q > end.q
    best = critical_points("gelu", 1.5)[0]
    found = theory("gelu", best.weight_variance, 1.5)
    assert found.q_star == pytest.approx(best.q, rel=1e-6) and found.chi_1 == pytest.approx(1, rel=1e-8)


def test_softplus_has_no_critical_point():
    assert critical_points("softplus", 0) == critical_points("softplus", 0.3) == []


@pytest.mark.parametrize("name", NAMES)
def test_gains_at_unit_variance_are_those_of_mpmath(name):
    phi = activation(name)
    points = sorted({-14, 0, 14, *phi.kinks})
    square = mpmath.quad(lambda z: EXACT[name](z) ** 2 * mpmath.npdf(z), points)
    slope = mpmath.fp.quad(lambda z: float(phi.slope(np.array([z]))[0]) ** 2 * mpmath.fp.npdf(z), points)
    assert variance_preserving_weight_variance(name) == pytest.approx(float(1 / square), rel=1e-11)
    assert critical_weight_variance(name) == pytest.approx(1 / slope, rel=1e-9)


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


def explicit_squares(network, trials, seed):
    """Squares of the norms of signals, gradients and weight gradients, and what two inputs have in common, with matrices.

    Inputs are normal with `input_correlation`; everything is written out once more, forward and back.
    """
    generator, phi = np.random.default_rng(seed), activation(network.activation)
    size, n = network.batch_size, network.width
    mixing = np.linalg.cholesky(
        np.full((size, size), network.input_correlation) + (1 - network.input_correlation) * np.eye(size)
    )

    def dense(h, variance, bias):
        matrix = math.sqrt(variance / len(h)) * generator.standard_normal((n, len(h)))
        z = matrix @ h + math.sqrt(bias) * generator.standard_normal((n, 1))

        def back(g):
            rows["weight_gradient"][-1].insert(0, np.sum((g @ h.T) ** 2))
            return matrix.T @ g

        return z, back

    def activate(z):
        return phi.value(z), lambda g: phi.slope(z) * g

    def normalise(z):
        axis = 1 if network.normalisation == "batch" else 0
        centred = z if network.normalisation == "rms" else z - z.mean(axis=axis, keepdims=True)
        root = np.sqrt(np.mean(centred**2, axis=axis, keepdims=True))
        y = centred / root

        def back(g):
            shift = 0 if network.normalisation == "rms" else g.mean(axis=axis, keepdims=True)
            return (g - shift - y * np.mean(g * y, axis=axis, keepdims=True)) / root

        return y, back

    rows = {name: [] for name in ("signal", "gradient", "weight_gradient", "correlation")}
    pre = [normalise] if network.normalisation and network.norm_position == "pre" else []
    post = [normalise] if network.normalisation and network.norm_position == "post" else []
    bias, alpha = network.bias_variance, network.residual_scale
    for _ in range(trials):
        h = network.input_rms * generator.standard_normal((network.fan_in, size)) @ mixing.T
        tape, signals, correlations = [], [np.mean(h**2)], []
        for layer in range(network.depth):
            variance = network.weight_variance if layer else network.first_weight_variance

            def weights(x, bias=bias, variance=variance):
                return dense(x, variance, bias)

            def free(x, variance=variance):
                return dense(x, variance, 0.0)

            branch = {
                None: [weights, *pre, activate, *post],
                "preactivation": [*pre, activate, free],
                "postactivation": [weights, *pre, activate],
                "two_weights": [*pre, weights, activate, free],
            }[network.residual]
            x, backs = h, []
            for step in branch:
                x, back = step(x)
                backs.append(back)
            if network.residual:
                h, tail = h + alpha * x, []
                for step in post:
                    h, back = step(h)
                    tail.append(back)
            else:
                h, tail = x, []
            tape.append((backs, tail))
            signals.append(np.mean(h**2))
            if size > 1:
                unit = h / np.linalg.norm(h, axis=0)
                correlations.append((np.sum(unit.T @ unit) - size) / (size * (size - 1)))  # the mean over all pairs
        g = generator.standard_normal(h.shape)
        g /= np.linalg.norm(g)
        gradients = [1.0]
        rows["weight_gradient"].append([])
        for backs, tail in reversed(tape):
            for back in tail:
                g = back(g)
            down = alpha * g if network.residual else g
            for back in reversed(backs):
                down = back(down)
            g = g + down if network.residual else down
            gradients.insert(0, np.sum(g**2))
        rows["signal"].append(signals)
        rows["gradient"].append(gradients)
        rows["correlation"].append(correlations)
    return {name: np.array(values) for name, values in rows.items()}


FAMILIES = [
    {"activation": "tanh", "weight_variance": 2.3, "bias_variance": 0.1, "batch_size": 4, "input_correlation": 0.4},
    {"activation": "sigmoid", "initialiser": "xavier", "batch_size": 3, "input_correlation": -0.3},
    {"activation": "relu", "initialiser": "he", "batch_size": 10, "normalisation": "batch"},
    {"activation": "selu", "weight_variance": 3.0, "batch_size": 9, "normalisation": "batch", "input_correlation": 0.8},
    {"activation": "gelu", "initialiser": "he", "batch_size": 12, "normalisation": "batch", "bias_variance": 0.3},
    {"activation": "gelu", "weight_variance": 0.7, "normalisation": "layer", "bias_variance": 0.2},
    {"activation": "silu", "weight_variance": 0.7, "normalisation": "rms", "batch_size": 2, "input_correlation": 0.5},
    {"activation": "relu", "initialiser": "he", "normalisation": "layer", "norm_position": "post", "batch_size": 3},
    {"activation": "relu", "initialiser": "he", "normalisation": "rms", "norm_position": "post", "bias_variance": 0.2},
    {"activation": "relu", "initialiser": "he", "residual": "preactivation", "residual_scale": 0.7},
    {"activation": "tanh", "weight_variance": 1.7, "residual": "postactivation", "batch_size": 2, "bias_variance": 0.1},
    {"activation": "softplus", "weight_variance": 0.3, "residual": "postactivation", "residual_scale": 0.5},
    {"activation": "relu", "initialiser": "he", "residual": "two_weights", "bias_variance": 0.3, "batch_size": 2},
    {
        "activation": "relu",
        "residual": "preactivation",
        "normalisation": "batch",
        "batch_size": 12,
        "initialiser": "he",
    },
    {"activation": "elu", "residual": "postactivation", "normalisation": "batch", "batch_size": 9, "initialiser": "he"},
    {
        "activation": "relu",
        "residual": "two_weights",
        "normalisation": "batch",
        "batch_size": 8,
        "initialiser": "he",
        "bias_variance": 0.2,
        "input_correlation": 0.3,
        "residual_scale": 1.3,
    },
    {"activation": "gelu", "residual": "preactivation", "normalisation": "layer", "initialiser": "he"},
    {"activation": "relu", "residual": "two_weights", "normalisation": "rms", "initialiser": "he", "input_rms": 3.0},
    {"activation": "relu", "residual": "postactivation", "normalisation": "layer", "initialiser": "he"},
    {
        "activation": "relu",
        "residual": "postactivation",
        "normalisation": "layer",
        "norm_position": "post",
        "initialiser": "he",
        "batch_size": 3,
    },
    {
        "activation": "relu",
        "residual": "postactivation",
        "normalisation": "rms",
        "norm_position": "post",
        "initialiser": "he",
    },
    {
        "activation": "tanh",
        "residual": "two_weights",
        "normalisation": "layer",
        "norm_position": "post",
        "weight_variance": 1.5,
        "bias_variance": 0.1,
    },
]


def described(options):
    return "-".join(f"{value}" for value in options.values())


@pytest.mark.parametrize("options", FAMILIES, ids=described)
def test_every_family_follows_its_curves(options):
    network = Network(depth=6, width=300, **options)
    found, sample = mean_field(network), explicit_squares(network, trials=24, seed=3)
    for name in ("signal", "gradient", "weight_gradient"):
        theory = getattr(found, f"log_{name}")
        squares = sample[name]
        error = squares.std(axis=0, ddof=1) / math.sqrt(len(squares)) / squares.mean(axis=0)
        # 0.02 for the finite width (depth/width) and four standard errors
        assert np.all(np.abs(np.log(squares.mean(axis=0)) / 2 - theory) < 0.02 + 2 * error), name
    if network.batch_size > 1:
        error = sample["correlation"].std(axis=0, ddof=1) / math.sqrt(len(sample["correlation"]))
        assert np.all(np.abs(sample["correlation"].mean(axis=0) - found.correlation[1:]) < 0.01 + 4 * error)


@pytest.mark.parametrize("size", [4, 5, 7, 64, 4096])
def test_batch_normalisation_has_its_closed_forms(size):
    """Yang et al. 2019, Theorems 7 and 8, for linear and ReLU networks at every batch size."""
    linear = mean_field(Network(3, size, "linear", "he", batch_size=size, normalisation="batch"))
    assert linear.chi_1 == pytest.approx((size - 2) / (size - 3), rel=1e-12)
    rho = -1 / (size - 1)
    angle = math.acos(rho)
    j, slope = (math.sqrt(1 - rho**2) + (math.pi - angle) * rho) / math.pi, (math.pi - angle) / math.pi
    exact = (size - 1 + slope) / ((size - 3) * (1 - j)) - 1 / (size - 3)
    relu = mean_field(Network(3, size, "relu", weight_variance=0.3, batch_size=size, normalisation="batch"))
    assert relu.chi_1 == pytest.approx(exact, rel=1e-12)
    # what the activation takes in is BN's output: for ReLU, E φ² = 1/2 and E φφ = J(ρ)/2
    assert relu.correlation[-1] == pytest.approx(j, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "selu", "hard_tanh", "softplus"])
def test_batch_moments_are_the_averages_over_the_sphere(name):
    size, draws, phi = 6, 200_000, activation(name)
    z = np.random.default_rng(5).standard_normal((draws, size))
    z -= z.mean(axis=1, keepdims=True)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    value, slope = phi.value(math.sqrt(size) * u), phi.slope(math.sqrt(size) * u)
    jacobian = np.eye(size) - 1 / size - u[:, :, None] * u[:, None, :]
    whole = np.einsum("naa,na->n", jacobian, slope**2)  # J is a projection
    common = np.einsum("nab,na,nb->n", jacobian, slope, slope) / size
    found = batch_moments(phi, size)
    square = math.exp(found.log_value)
    for computed, sample in (
        (square, value[:, 0] ** 2),
        (square * found.correlation, value[:, 0] * value[:, 1]),
        (math.sqrt(square) * found.mean, value[:, 0]),
        (found.slope, slope[:, 0] ** 2),
        (found.slopes, slope[:, 0] * slope[:, 1]),
        (found.centred_trace, whole - common),
        (found.common_trace, common),
    ):
        assert computed == pytest.approx(sample.mean(), abs=4.5 * sample.std() / math.sqrt(draws) + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_large_batches_explode_by_the_poincare_ratio(name):
    """χ₁ → E φ′²/Var φ ≥ 1 for many inputs per batch, with equality for linear networks only."""
    here = moments(activation(name), 0.0)
    limit = here.slope / (math.exp(here.log_value) * (1 - here.mean**2))
    found = mean_field(Network(2, 65536, name, "lecun", batch_size=65536, normalisation="batch"))
    assert found.chi_1 == pytest.approx(limit, rel=1e-4)
    assert found.chi_1 > 1


def test_tiny_batches_are_extreme():
    two, three = (mean_field(Network(4, 64, "tanh", "he", batch_size=b, normalisation="batch")) for b in (2, 3))
    assert two.chi_1 == 0 and np.all(two.log_gradient[:-1] == -math.inf) and "no gradient" in two.remark
    assert three.chi_1 == math.inf and np.all(three.log_gradient[:-1] == math.inf) and "3 inputs" in three.remark


def test_a_skip_tames_batch_normalisation():
    """With x + W relu(BN x) and He weights the variance is 1 + (1 - 1/π)l, in the limit of large batches."""
    network = Network(40, 65536, "relu", "he", residual="preactivation", normalisation="batch", batch_size=65536)
    variance = 1 + (1 - 1 / math.pi) * np.arange(40)
    assert mean_field(network).log_gradient[0] == pytest.approx(np.log1p(1 / variance).sum() / 2, rel=1e-4)


def test_tanh_residual_networks_explode_below_exponentially():
    """Yang & Schoenholz 2017: ln of the squared gradient ~ 8/(3√(2π)) σ_w √l for x + tanh(Wx)."""
    found = mean_field(Network(800, 256, "tanh", weight_variance=3.0, residual="postactivation"))
    whole = 2 * np.cumsum(-np.diff(found.log_gradient))  # layers 1 … l
    coefficient = (whole[799] - whole[399]) / (math.sqrt(800) - math.sqrt(400)) / math.sqrt(3)
    assert coefficient == pytest.approx(8 / (3 * math.sqrt(2 * math.pi)), rel=0.002)  # corrections vanish with 1/√l
    assert found.q_star == math.inf and found.chi_1 == pytest.approx(1)


def test_layer_norm_before_and_after_the_sum():
    """Xiong et al. 2020: the last block's gradient falls as 1/depth with norms before the branch, and not with norms after."""
    for depth in (7, 60):
        before = mean_field(Network(depth, 100, "relu", "he", residual="preactivation", normalisation="layer"))
        factor = 1 + 1 / np.arange(1, depth + 1)  # 1 + E φ′² σ_w²/V with V = l
        assert before.log_gradient[0] == pytest.approx(np.log(factor).sum() / 2, rel=1e-12)
        after = mean_field(
            Network(depth, 100, "relu", "he", residual="preactivation", normalisation="layer", norm_position="post")
        )
        assert after.log_gradient == pytest.approx(np.zeros(depth + 1), abs=1e-12) and after.chi_1 == pytest.approx(1)


def test_shattered_gradients():
    """Balduzzi et al. 2017: 1/2^L if half of the units are active together; plain ReLU networks correlate their inputs."""
    plain = mean_field(Network(40, 512, "relu", "he", batch_size=2))
    c, product = 0.0, 1.0
    for _ in range(40):
        product *= 1 - math.acos(c) / math.pi
        c = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert plain.gradient_correlation[0] == pytest.approx(product, rel=1e-9)
    assert plain.correlation[-1] == pytest.approx(c, rel=1e-12)
    normalised = mean_field(Network(6, 512, "relu", "he", batch_size=64, normalisation="batch_inference"))
    share = 1 - math.acos(-1 / 63) / math.pi
    assert normalised.gradient_correlation == pytest.approx(share ** np.arange(6, -1, -1), rel=1e-10)


def test_batch_statistics_correlate_gradients_the_other_way():
    """What is common to all inputs of a batch does not pass back through the mean, so that gradients sum to 0 over it."""
    found = mean_field(Network(6, 512, "gelu", "he", batch_size=5, normalisation="batch")).gradient_correlation
    assert found == pytest.approx([-1 / 4] * 6 + [1])


def test_gradients_at_two_inputs_correlate_as_with_matrices():
    generator, n, depth, c = np.random.default_rng(4), 400, 4, 0.3
    network = Network(
        depth, n, "tanh", weight_variance=2.0, batch_size=2, input_correlation=c, residual="preactivation"
    )
    cosines = []
    for _ in range(20):
        a, b = generator.standard_normal((2, n))
        h = np.stack([a, c * a + math.sqrt(1 - c * c) * b], axis=1)
        tape = []
        for _ in range(depth):
            matrix = math.sqrt(2 / n) * generator.standard_normal((n, n))
            tape.append((matrix, 1 - np.tanh(h) ** 2))
            h = h + matrix @ np.tanh(h)
        g = np.repeat(generator.standard_normal((n, 1)), 2, axis=1)
        for matrix, slope in reversed(tape):
            g = g + slope * (matrix.T @ g)
        cosines.append(g[:, 0] @ g[:, 1] / np.prod(np.linalg.norm(g, axis=0)))
    error = np.std(cosines) / math.sqrt(20)
    assert np.mean(cosines) == pytest.approx(mean_field(network).gradient_correlation[0], abs=0.005 + 4 * error)


def test_correlations_under_norms_have_fixed_points():
    variance, bias = 6.0, 0.1
    chaotic = mean_field(
        Network(150, 99, "tanh", weight_variance=variance, bias_variance=bias, normalisation="layer", batch_size=2)
    )
    # c* is that of the pre-activations, `correlation` that of the layers' outputs
    square = math.exp(moments(activation("tanh"), 0.0).log_value)
    at_top = (variance * square * chaotic.correlation[-1] + bias) / (variance * square + bias)
    assert 0 < chaotic.c_star < 1 and at_top == pytest.approx(chaotic.c_star, abs=1e-5)
    steps = np.diff(chaotic.correlation)[[60, 80]]
    assert 20 / np.log(steps[0] / steps[1]) == pytest.approx(chaotic.xi_c, rel=0.01)


def test_what_theory_does_not_cover_is_refused():
    with pytest.raises(ValueError, match="no theory for batch normalisation after"):
        mean_field(Network(5, 50, "relu", "he", batch_size=8, normalisation="batch", norm_position="post"))
    with pytest.raises(ValueError, match="all inputs are the same"):
        mean_field(Network(5, 50, "relu", "he", batch_size=8, normalisation="batch", input_correlation=1.0))
    with pytest.raises(ValueError, match="needs two inputs"):
        _ = theory("tanh", 1.0).correlation
    with pytest.raises(ValueError, match="no fixed point"):
        _ = mean_field(Network(5, 50, "relu", "he", residual="preactivation")).c_star
    with pytest.raises(ValueError, match="in one layer"):
        _ = mean_field(Network(5, 50, "relu", "he", batch_size=8, normalisation="batch")).xi_c


@pytest.mark.parametrize("name", ["batch", "batch_inference"])
def test_gradient_correlations_of_batches_are_those_measured(name):
    network = Network(4, 256, "relu", "he", batch_size=9, normalisation=name, residual="two_weights")
    flow = propagate(network, trials=40, seed=5, loss_gradient="shared")
    found = mean_field(network)
    for curve in ("correlation", "gradient_correlation"):
        sample = getattr(flow, curve)
        error = sample.std(axis=0) / math.sqrt(40)
        assert np.all(np.abs(sample.mean(axis=0) - getattr(found, curve)) < 0.01 + 4 * error), curve


def test_wrong_type_is_refused():
    with pytest.raises(TypeError, match="must be a Network"):
        mean_field("tanh")


# Fixed points


def own_square(phi, q, kinks=(0.0,)):
    """E φ(√q Z)² by a trapezoidal rule of Z, and the integral's pieces beside kinks: no part of the code under test."""
    edges = sorted({-12.0, 12.0, *(k / math.sqrt(q) for k in kinks if abs(k) < 12 * math.sqrt(q))})
    total = 0.0
    for low, high in itertools.pairwise(edges):
        # tanh-sinh: exact to round-off for what is analytic between the ends
        t = np.linspace(-3.4, 3.4, 401)
        u = np.tanh(math.pi / 2 * np.sinh(t))
        weight = math.pi / 2 * np.cosh(t) / np.cosh(math.pi / 2 * np.sinh(t)) ** 2 * (t[1] - t[0])
        z = (low + high) / 2 + (high - low) / 2 * u
        total += (high - low) / 2 * np.sum(weight * phi.value(math.sqrt(q) * z) ** 2 * np.exp(-(z**2) / 2))
    return total / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("seed", range(24))
def test_fixed_points_are_those_of_a_scan_and_of_layers_taken_one_by_one(seed):
    generator = np.random.default_rng(seed)
    name = (
        "tanh",
        "sigmoid",
        "gelu",
        "silu",
        "mish",
        "selu",
        "elu",
        "erf",
        "hard_tanh",
        "relu",
        "softplus",
        "elu(0.5)",
    )[seed % 12]
    phi, variance = activation(name), float(generator.uniform(0.2, 4))
    bias, rms = float(generator.choice([0.0, generator.uniform(0, 0.5)])), float(10 ** generator.uniform(-1, 1))

    def layer(q):
        return variance * own_square(phi, q, phi.kinks or (0.0,)) + bias

    found = mean_field(Network(4000, 8, name, weight_variance=variance, bias_variance=bias, input_rms=rms))
    q = variance * rms**2 + bias
    for _ in range(1200):
        before, q = q, layer(q)
        if abs(q - before) < 1e-13 * q or not 1e-12 < q < 1e12:
            break
    settled = abs(q - before) < 1e-11 * q
    if settled or not 1e-12 < q < 1e12:
        expected = 0.0 if q < 1e-12 else math.inf if q > 1e12 else q
        assert found.q_star == pytest.approx(expected, rel=1e-7)
    grid = np.geomspace(1e-3, 1e3, 241)
    signs = np.sign([layer(q) - q for q in grid])
    inside = [p for p in found.fixed_points() if grid[0] < p.q < grid[-1]]
    assert len(inside) == np.count_nonzero(np.diff(signs))
    for point in inside:
        assert layer(point.q) == pytest.approx(point.q, rel=1e-9)
        i = np.searchsorted(grid, point.q)
        assert (point.from_below, point.from_above) == (signs[i - 1] > 0, signs[i] < 0)
        step = 1e-4 * point.q
        assert point.chi_q == pytest.approx((layer(point.q + step) - layer(point.q - step)) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(
    "name, weight_variance, bias_variance, points",
    [
        ("gelu", 1.98305826, 0.17292239, (3.0350126, 3.5565155, 3.5665607)),
        ("silu", 1.98800468, 0.55514317, (14.606882,)),
    ],
)
def test_no_signal_crosses_a_fixed_point_even_where_two_are_close(name, weight_variance, bias_variance, points):
    """Beside a double root, at variances rounded to nine digits; roots once more with mpmath."""
    networks = [
        Network(50, 256, name, weight_variance=weight_variance, bias_variance=bias_variance, input_rms=rms)
        for rms in (0.1, 1.5, 5.0)
    ]
    listed = mean_field(networks[0]).fixed_points()
    assert [p.q for p in listed] == pytest.approx(points, rel=3e-7)
    assert [p.stability for p in listed] == ["stable", "unstable", "stable"][: len(points)]
    with mpmath.workdps(30):

        def drift(q):
            square = mpmath.quad(lambda z: EXACT[name](mpmath.sqrt(q) * z) ** 2 * mpmath.npdf(z), [-14, -1, 0, 1, 14])
            return mpmath.mpf(weight_variance) * square + mpmath.mpf(bias_variance) - q

        for point in listed:
            low, high = (drift(mpmath.mpf(point.q) * (1 + step)) for step in (-1e-6, 1e-6))
            assert low * high < 0 and (low > 0) == point.from_below
    below, *above = (mean_field(network) for network in networks)
    assert below.q_star == pytest.approx(points[0], rel=3e-7)
    for found in above:
        assert found.q_star == pytest.approx(points[-1], rel=3e-7)
        assert "more than the network has" in found.remark and found.xi_q > 50
        assert found.chi_1_at_depth == pytest.approx(
            weight_variance * moments(activation(name), found.log_variance[-1]).slope, rel=1e-12
        )
        assert abs(found.rate_at_depth) > 2 * abs(found.rate)


@pytest.mark.parametrize("name, attracts", [("gelu", "above"), ("silu", "below")])
def test_half_stable_points_stop_what_comes_from_one_side(name, attracts):
    (point,) = half_stable_points(name)
    variances = {"weight_variance": point.weight_variance, "bias_variance": point.bias_variance}
    stopped, free = (
        mean_field(Network(50, 64, name, input_rms=rms, **variances))
        for rms in ((10, 0.1) if attracts == "above" else (0.1, 10))
    )
    assert stopped.q_star == pytest.approx(point.q, rel=1e-7)
    assert f"half-stable: it attracts from {attracts}" in stopped.remark
    assert free.q_star != pytest.approx(point.q, rel=1e-3) and "half-stable" not in free.remark
    (half,) = (p for p in stopped.fixed_points() if p.stability == "half-stable")
    assert (half.from_below, half.from_above) == (attracts == "below", attracts == "above")


def test_zero_is_a_fixed_point_of_what_vanishes_there():
    zero, other = theory("tanh", 1.5).fixed_points()
    assert (zero.q, zero.stability, other.stability) == (0, "unstable", "stable")
    assert zero.chi_1 == pytest.approx(1.5, rel=1e-12)
    assert [p.stability for p in theory("tanh", 0.7).fixed_points()] == ["stable"]
    assert theory("hard_tanh", 1.0).q_star == 0  # nothing else holds it, however slowly it goes
    with pytest.raises(ValueError, match="every variance"):
        theory("relu", 2.0).fixed_points()
    with pytest.raises(ValueError, match="without norms and skips"):
        mean_field(Network(5, 50, "relu", "he", normalisation="layer")).fixed_points()


# What theory does not silently get wrong


def registered(name, value, slope, kinks=()):
    return Activation(name, name, "", value, slope, None, kinks)


@pytest.mark.parametrize("name", [*NAMES, "leaky_relu(0)", "elu(1000)", "leaky_relu(1000)"])
def test_every_activation_has_its_structure_where_quadrature_looks(name):
    check_structure(activation(name))


@pytest.mark.parametrize(
    "phi",
    [
        registered("sine", np.sin, np.cos),
        registered("ripples", lambda z: z + 0.1 * np.sin(20 * z), lambda z: 1 + 2 * np.cos(20 * z)),
        registered("hidden kink", lambda z: np.maximum(z - 3, 0.0), lambda z: np.where(z > 3, 1.0, 0.0)),
        registered("square", np.square, lambda z: 2 * z),
        registered("root", lambda z: np.sign(z) * (np.sqrt(1 + np.abs(z)) - 1), lambda z: 0.5 / np.sqrt(1 + np.abs(z))),
    ],
    ids=lambda phi: phi.name,
)
def test_an_activation_of_other_structure_is_refused(phi, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, phi.name, phi)
    with pytest.raises(ValueError, match="there is no theory for"):
        mean_field(Network(5, 50, phi.name, "xavier"))


def test_a_named_kink_and_an_algebraic_tail_are_welcome(monkeypatch):
    ramp = registered("ramp", lambda z: np.maximum(z - 3, 0.0), lambda z: np.where(z > 3, 1.0, 0.0), (3.0,))
    soft = registered("softsign", lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0)
    for phi in (ramp, soft):
        q, z = 5.0, np.linspace(-12, 12, 2_000_001)
        square = np.sum(phi.value(math.sqrt(q) * z) ** 2 * np.exp(-(z**2) / 2)) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
        assert math.exp(moments(phi, math.log(q)).log_value) == pytest.approx(square, rel=1e-9)


def test_a_map_that_falls_is_followed_layer_by_layer(monkeypatch):
    bump = registered("bump", lambda z: z * np.exp(-(z**2) / 2), lambda z: (1 - z**2) * np.exp(-(z**2) / 2))
    monkeypatch.setitem(ACTIVATIONS, "bump", bump)

    def layer(q, variance):  # E φ² in closed form
        return variance * q / (1 + 2 * q) ** 1.5

    found = mean_field(Network(50, 64, "bump", weight_variance=4.0, input_rms=3.0))
    q = 4.0 * 9
    for _ in range(500):
        q = layer(q, 4.0)
    assert found.q_star == pytest.approx(q, rel=1e-9)
    assert "jump across" in found.remark


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_theory_of_a_shared_loss_gradient_is_what_is_measured(norm):
    network = Network(
        4, 300, "tanh", weight_variance=2.0, bias_variance=0.1, batch_size=6, input_correlation=0.4, normalisation=norm
    )
    flow, found = propagate(network, 60, 1, loss_gradient="shared"), mean_field(network, "shared")
    for curve in ("log_gradient", "log_weight_gradient"):
        sample = np.exp(2 * getattr(flow, curve))
        mean, error = sample.mean(axis=0), sample.std(axis=0) / math.sqrt(60)
        off = np.abs(np.log(mean) / 2 - getattr(found, curve))
        assert np.all(off[: network.depth] < 0.02 + 4 * error[: network.depth] / mean[: network.depth] / 2), curve
    apart = np.abs(found.log_weight_gradient - mean_field(network).log_weight_gradient)
    assert apart.max() > 0.2  # the independent one is another
    with pytest.raises(ValueError, match="unknown loss_gradient 'common'"):
        mean_field(network, "common")


@pytest.mark.parametrize(
    "options, words",
    [
        (
            {"activation": "sigmoid", "weight_variance": 1e-30, "normalisation": "layer", "norm_position": "post"},
            "no digits",
        ),
        ({"activation": "softplus", "weight_variance": 1.0, "bias_variance": 1e30, "batch_size": 2}, None),
        (
            {
                "activation": "relu",
                "weight_variance": 1e-30,
                "bias_variance": 1e30,
                "batch_size": 9,
                "normalisation": "batch",
            },
            None,
        ),
        ({"activation": "gelu", "weight_variance": 1e30, "batch_size": 2, "input_rms": 1e15}, None),
        ({"activation": "sigmoid", "weight_variance": 1e-30, "batch_size": 2, "input_rms": 1e-15}, None),
    ],
)
def test_extremes_are_finite_or_refused_in_a_sentence(options, words):
    network = Network(12, 16, **options)
    if words:
        with pytest.raises(ValueError, match=words):
            mean_field(network)
        return
    found = mean_field(network)
    for curve in (found.log_variance, found.log_signal, found.log_gradient, found.log_weight_gradient):
        assert np.all(np.isfinite(curve))
    assert np.all(np.isfinite(found.correlation)) and np.all(np.abs(found.correlation) <= 1)


@pytest.mark.parametrize("residual", ["postactivation", "two_weights"])
def test_blocks_of_three_normalised_inputs_have_no_finite_squared_gradient(residual):
    found = mean_field(Network(40, 64, "gelu", "he", batch_size=3, normalisation="batch", residual=residual))
    assert (
        found.chi_1 == found.rate == math.inf and found.phase == "chaotic" and "no finite expectation" in found.remark
    )


def test_theory_of_a_batch_whose_signal_explodes_is_fast():
    start = time.process_time()
    found = mean_field(Network(300, 129, "gelu", weight_variance=4.0, batch_size=4)).correlation
    # it tends to the ReLU's law: 1 - c ~ 9π²/(2l²) = 4.9e-4; it took two minutes
    assert 1 - found[-1] == pytest.approx(4.5 * math.pi**2 / 300**2, rel=0.1)
    assert time.process_time() - start < 10


def test_theory_is_sound_at_random():
    assert fuzz_theory.main(seconds=8, seed=0) > 5


def test_too_many_variances_are_refused_before_any_pair_is_integrated(monkeypatch):
    network = Network(2500, 8, "erf", weight_variance=0.35, batch_size=3, residual="preactivation", residual_scale=1e15)
    found = mean_field(network)
    monkeypatch.setattr("vgp_kernels.theory.mean_field.pair_moments", lambda *_: pytest.fail("a pair was integrated"))
    with pytest.raises(ValueError, match="a correlation at over 2000 variances takes too long; take a smaller depth"):
        _ = found.correlation
    assert np.isfinite(found.log_signal).all()


@pytest.mark.parametrize("kind", ["batch", "batch_inference"])
def test_batches_are_normalised_whatever_the_activation(kind):
    network = Network(
        17, 500, "sigmoid", weight_variance=2.0, batch_size=414, normalisation=kind, residual="two_weights"
    )
    assert np.isfinite(mean_field(network).log_gradient).all()
