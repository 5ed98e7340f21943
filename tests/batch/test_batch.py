"""Batches, norms and skips against explicit weight matrices, closed forms, and finite differences."""

import math

import numpy as np
import pytest
from reference_blocks import explicit_blocks
from scipy import stats

from vgp_kernels import Network, propagate
from vgp_kernels.batch import kernels as batch
from vgp_kernels.batch.normalisation import normalise, normalise_back

TRIALS = 1500
# The least of n p-values has the law 1 - (1 - p)^n. Below 1e-6 a fault is likelier than chance in any number of runs.
LEAST_P = 1e-6


def network(depth, width, name, sw2=1.5, **more):
    return Network(depth, width, name, weight_variance=sw2, **more)


def orthogonal(depth, width, name, gain=1.2, **more):
    return Network(depth, width, name, "orthogonal", weight_variance=gain, **more)


FAMILIES = {
    "tanh, batch, biases": network(3, 6, "tanh", batch_size=3, bias_variance=0.3, input_correlation=0.4, input_width=5),
    "relu, batch, biases": network(3, 5, "relu", 2.0, batch_size=2, bias_variance=0.2),
    "same inputs": network(3, 4, "tanh", batch_size=3, input_correlation=1.0, bias_variance=0.1),
    "inputs that sum to 0": network(3, 4, "relu", 2.0, batch_size=3, input_correlation=-0.5, input_rms=2.0),
    "as many inputs as dimensions and one": network(2, 2, "gelu", batch_size=3, input_correlation=-0.5),
    "more inputs than units": network(3, 3, "tanh", 3.0, batch_size=6, input_width=7, input_correlation=0.2),
    "batch norm before relu": network(3, 4, "relu", batch_size=4, normalisation="batch", bias_variance=0.3),
    "batch norm before tanh": network(3, 3, "tanh", batch_size=5, input_width=8, normalisation="batch"),
    "batch norm after tanh": network(3, 4, "tanh", batch_size=4, normalisation="batch", norm_position="post"),
    "batch norm after elu, 3 inputs": network(2, 5, "elu", batch_size=3, normalisation="batch", norm_position="post"),
    "batch norm in inference mode": network(3, 5, "tanh", batch_size=4, normalisation="batch_inference"),
    "layer norm before relu": network(3, 5, "relu", batch_size=2, normalisation="layer", input_correlation=0.5),
    "layer norm after tanh, one input": network(3, 4, "tanh", normalisation="layer", norm_position="post"),
    "rms norm before gelu, one input": network(3, 3, "gelu", normalisation="rms", bias_variance=0.5, input_rms=0.5),
    "rms norm after sigmoid": network(3, 4, "sigmoid", batch_size=3, normalisation="rms", norm_position="post"),
    "W phi(x)": network(3, 4, "relu", 2.0, residual="preactivation", residual_scale=0.7),
    "W phi(x), layer norm after": network(
        3, 4, "relu", 2.0, residual="preactivation", normalisation="layer", norm_position="post", batch_size=2
    ),
    "W phi(N(x)), batch norm": network(
        3, 4, "relu", 2.0, residual="preactivation", normalisation="batch", batch_size=4, residual_scale=0.5
    ),
    "phi(W x + b)": network(3, 3, "tanh", residual="postactivation", bias_variance=0.2, batch_size=2),
    "phi(N(W x + b)), batch norm": network(
        3, 4, "tanh", residual="postactivation", bias_variance=0.2, batch_size=3, normalisation="batch"
    ),
    "phi(W x + b), rms norm after": network(
        3, 4, "tanh", residual="postactivation", normalisation="rms", norm_position="post", residual_scale=2.0
    ),
    "two weights, one input": network(2, 4, "relu", 2.0, residual="two_weights", bias_variance=0.1),
    "two weights, layer norm": network(2, 5, "gelu", 2.0, residual="two_weights", normalisation="layer", batch_size=3),
    "two weights, batch norm after": network(
        2, 5, "relu", 2.0, residual="two_weights", normalisation="batch", norm_position="post", batch_size=4
    ),
    "orthogonal, one input, layer norm": orthogonal(3, 4, "tanh", normalisation="layer"),
    "orthogonal, batch": orthogonal(3, 6, "tanh", batch_size=2, bias_variance=0.2, input_correlation=0.3),
    "orthogonal, batch of more than half the width": orthogonal(3, 5, "relu", 2.0, batch_size=3),
    "orthogonal, batch as large as the width": orthogonal(3, 3, "tanh", 2.0, batch_size=3),
    "orthogonal, same inputs": orthogonal(3, 3, "tanh", 2.0, batch_size=2, input_correlation=1.0),
    "orthogonal, two weights": orthogonal(2, 4, "tanh", residual="two_weights", batch_size=2),
    "orthogonal, batch norm": orthogonal(3, 5, "relu", normalisation="batch", batch_size=4),
}


def statistics(rows):
    """One column per statistic of a network: the norms' logarithms and the correlations at all layers but the given ones."""
    floor = 1e-12  # what is 0 here is rounding there
    columns = {}
    for name, values in rows.items():
        keep = slice(None, -1) if name in ("gradient", "gradient_correlation") else slice(1, None)
        keep = slice(None) if name == "weight_gradient" else keep
        for layer, column in enumerate(values[:, keep].T):
            rounded = np.round(column, 9) if "correlation" in name else np.log(np.maximum(column, floor))
            columns[name, layer] = np.nan_to_num(np.round(rounded, 9), nan=-2.0)
    gradient, signal = np.maximum(rows["gradient"], floor), np.maximum(rows["signal"], floor)
    columns["gradient over signal", 0] = np.round(np.log(gradient[:, 0] / signal[:, -1]), 9)
    return columns


def measured(net, trials, seed, **options):
    flow = propagate(net, trials, seed, **options)
    return {
        "signal": np.exp(flow.log_signal),
        "gradient": np.exp(flow.log_gradient),
        "weight_gradient": np.exp(flow.log_weight_gradient),
        "correlation": flow.correlation,
        "gradient_correlation": flow.gradient_correlation,
    }


def p_values(ours, explicit):
    left, right = statistics(ours), statistics(explicit)
    assert left.keys() == right.keys()
    return {key: stats.ks_2samp(left[key], right[key]).pvalue for key in left}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_statistic_has_the_law_of_explicit_weights(name):
    net = FAMILIES[name]
    p = p_values(measured(net, TRIALS, 3), explicit_blocks(net, TRIALS, 4))
    assert min(p.values()) > LEAST_P, {key: value for key, value in p.items() if value < 1e-3}


def test_a_direction_that_all_inputs_share_has_the_law_of_explicit_weights():
    net = FAMILIES["tanh, batch, biases"]
    p = p_values(measured(net, TRIALS, 3, loss_gradient="shared"), explicit_blocks(net, TRIALS, 4, "shared"))
    assert min(p.values()) > LEAST_P


@pytest.mark.parametrize(
    "name",
    [
        "same inputs",
        "more inputs than units",
        "batch norm before relu",
        "batch norm in inference mode",
        "phi(W x + b), rms norm after",
        "two weights, batch norm after",
        "orthogonal, one input, layer norm",
        "orthogonal, batch as large as the width",
    ],
)
def test_these_statistics_find_a_backward_pass_with_weights_of_its_own(name):
    net = FAMILIES[name]
    wrong = explicit_blocks(net, 2 * TRIALS, 4, shared_weights=False)
    assert min(p_values(measured(net, 2 * TRIALS, 3), wrong).values()) < LEAST_P


BITS = ["tanh, batch, biases", "two weights, batch norm after", "orthogonal, two weights", "layer norm before relu"]


@pytest.mark.parametrize("name", BITS)
def test_bits_depend_on_neither_threads_nor_trials_nor_memory(name, monkeypatch):
    net = FAMILIES[name]
    whole = measured(net, 37, 5, threads=1)
    for trials, threads in ((37, 2), (37, 3), (5, 2), (1, 1)):
        part = measured(net, trials, 5, threads=threads)
        for key, values in whole.items():
            assert np.array_equal(part[key], values[:trials], equal_nan=True), key
    monkeypatch.setattr(batch, "MEMORY", 1)  # one block at a time
    again = measured(net, 37, 5, threads=2)
    assert all(np.array_equal(again[key], values, equal_nan=True) for key, values in whole.items())


def test_segments_need_not_divide_the_depth(monkeypatch):
    net = network(7, 8, "tanh", residual="postactivation")
    whole = measured(net, 3, 1)
    monkeypatch.setattr(batch, "MEMORY", 16 * 8 * 2 * 3)  # three blocks
    assert all(np.array_equal(values, whole[key], equal_nan=True) for key, values in measured(net, 3, 1).items())


# What norms are


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
def test_norms_and_their_jacobians_are_those_of_finite_differences(kind):
    generator = np.random.default_rng(1)
    size, n = 5, 7
    x, g = 3 + generator.standard_normal((size, n)), generator.standard_normal((size, n))
    axis = 0 if kind == "batch" else 1

    def norm(x):
        centred = x if kind == "rms" else x - x.mean(axis, keepdims=True)
        return centred / np.sqrt(np.mean(centred**2, axis, keepdims=True))

    number, step = batch.KINDS[kind], 1e-5
    y, back, exponents, scales = x.copy(), g.copy(), np.zeros(size, int), np.zeros(size, int)
    normalised, inverse, rest = np.empty((size, n)), np.empty(n), np.empty((4, n))
    normalise(number, y, exponents, size, n, normalised, inverse, scales, rest)
    assert y == pytest.approx(norm(x), abs=1e-14)
    normalise_back(number, back, exponents, size, n, normalised, inverse, scales, rest)
    back *= 2.0 ** exponents[:, None]
    numerical = np.empty_like(x)
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        numerical[index] = np.sum(g * (norm(x + moved) - norm(x - moved))) / (2 * step)
    assert back == pytest.approx(numerical, abs=1e-9)  # the error of the difference is O(step²)


def test_batch_norm_of_two_inputs_leaves_their_signs_and_no_gradient():
    flow = propagate(network(3, 20, "tanh", batch_size=2, normalisation="batch", norm_position="post"), 20)
    assert np.all(flow.log_signal[:, 1:] == 0)  # exactly ±1
    assert flow.correlation[:, 1:] == pytest.approx(-1, abs=1e-15)
    assert np.all(flow.log_gradient[:, :-1] == -math.inf)
    assert np.all(flow.log_weight_gradient == -math.inf)


@pytest.mark.parametrize("kind, width", [("layer", 2), ("rms", 1)])
def test_norms_with_nothing_left_but_a_sign_pass_no_gradient(kind, width):
    flow = propagate(network(3, width, "tanh", normalisation=kind, norm_position="post", input_width=4), 20)
    assert np.all(flow.log_signal[:, 1:] == 0)
    assert np.all(flow.log_gradient[:, :-1] == -math.inf)


def test_a_loss_that_batch_norm_makes_constant_has_no_gradient():
    net = network(2, 30, "tanh", batch_size=5, normalisation="batch", norm_position="post")
    flow = propagate(net, 5, loss_gradient="shared")  # Σ_b u·h_b = 0
    assert np.all(flow.log_gradient[:, :-1] == -math.inf)


def test_batch_norm_of_equal_inputs_is_0():
    flow = propagate(network(2, 30, "tanh", batch_size=3, normalisation="batch", input_correlation=1.0), 5)
    assert np.all(flow.log_signal[:, 1:] == -math.inf)
    assert np.all(flow.log_gradient[:, 0] == -math.inf)
    assert np.all(np.isnan(flow.correlation[:, 1:]))


# Signs, signals and gradients without end


def test_equal_and_opposite_inputs_stay_so_in_a_chaotic_network():
    # by rounding alone they would part after about ln(10^16)/ln 2 layers
    for size, cosine in ((3, 1.0), (2, -1.0)):
        flow = propagate(network(200, 50, "tanh", 9.0, batch_size=size, input_correlation=cosine), 2)
        assert flow.correlation == pytest.approx(cosine, abs=1e-14)


def test_inputs_have_the_cosine_and_the_length_asked_for():
    for size, cosine in ((2, -1.0), (4, -1 / 3), (3, 0.7), (5, 1.0)):
        flow = propagate(network(1, 9, "relu", batch_size=size, input_correlation=cosine, input_rms=3.0), 4)
        assert flow.correlation[:, 0] == pytest.approx(cosine, abs=1e-14)
        assert flow.log_signal[:, 0] == pytest.approx(math.log(3), abs=1e-14)


def test_dead_layers_give_minus_infinity():
    flow = propagate(network(30, 2, "relu", 2.0, batch_size=2), 200)
    dead = flow.log_signal[:, -1] == -math.inf
    assert dead.mean() > 0.9  # a unit of two is dead for both inputs with a probability of at least 1/4
    assert np.all(flow.log_gradient[dead, 0] == -math.inf)
    assert not any(np.isnan(x).any() for x in (flow.log_signal, flow.log_gradient, flow.log_weight_gradient))


def test_homogeneous_networks_shrink_and_grow_without_end():
    unit = propagate(network(200, 40, "relu", 2.0, batch_size=3), 2)
    for power in (-48, 48):  # a factor of 2^48 a layer changes no digit: 2^9600 in all
        flow = propagate(network(200, 40, "relu", 2.0 * 4.0**power, batch_size=3), 2)
        steps = power * math.log(2) * np.arange(201)
        assert flow.log_signal - steps == pytest.approx(unit.log_signal, abs=1e-10)
        assert flow.log_gradient - steps[::-1] == pytest.approx(unit.log_gradient, abs=1e-10)


def test_small_signals_meet_the_linear_network():
    small = propagate(network(300, 40, "tanh", 1e-4, batch_size=2), 2)
    linear = propagate(network(300, 40, "linear", 1e-4, batch_size=2), 2)
    # tanh is linear up to its first layers: h_1 is of order 1e-2, so z³/3 adds 1e-4 once
    assert small.log_signal[:, -1] == pytest.approx(linear.log_signal[:, -1], abs=1e-3)
    assert small.log_signal[0, -1] < -1300


def test_unscaled_blocks_triple_the_squared_norm_without_overflow():
    flow = propagate(Network(2000, 64, "relu", "he", residual="two_weights"), 3)
    # E|x|² triples, ln|x|² grows a little less: by its variance over 2, which is below 10/width a block
    assert flow.log_signal[:, -1] / 1000 == pytest.approx(math.log(3), abs=0.1)
    assert flow.log_gradient[:, 0] / 1000 == pytest.approx(math.log(3), abs=0.1)
    assert np.isfinite(flow.log_weight_gradient).all()


def test_blocks_of_scale_0_pass_gradients_unchanged_and_learn_nothing():
    for residual in ("preactivation", "postactivation", "two_weights"):
        flow = propagate(network(5, 20, "relu", residual=residual, residual_scale=0.0, batch_size=2), 5)
        assert np.all(flow.log_gradient == 0)
        assert np.all(flow.log_weight_gradient == -math.inf)


def test_one_input_has_no_correlations():
    for net in (network(2, 5, "tanh"), network(2, 5, "tanh", normalisation="layer")):
        flow = propagate(net, 3)
        assert np.isnan(flow.correlation).all()
        assert np.isnan(flow.gradient_correlation).all()


# What theory says of wide networks: means over networks, within three standard errors and what a finite width moves


def close(samples, expected, finite_width):
    error = np.std(samples, ddof=1) / math.sqrt(len(samples))
    assert abs(np.mean(samples) - expected) < 3 * error + finite_width * abs(expected), (
        np.mean(samples),
        error,
        expected,
    )


@pytest.mark.parametrize("residual, factor", [("preactivation", 2), ("two_weights", 3)])
def test_an_unscaled_block_multiplies_squared_norms_by_2_or_3(residual, factor):
    flow = propagate(Network(1, 200, "relu", "he", residual=residual), 400, 1)
    close(np.exp(2 * flow.log_signal[:, 1]), factor, 0)
    close(np.exp(2 * flow.log_gradient[:, 0]), factor, 0)


def test_blocks_scaled_by_the_root_of_the_depth_multiply_by_almost_e():
    depth = 1000
    flow = propagate(Network(depth, 200, "relu", "he", residual="preactivation", residual_scale=depth**-0.5), 100, 1)
    close(np.exp(2 * flow.log_gradient[:, 0]), (1 + 1 / depth) ** depth, 0.01)


def test_relu_networks_lose_the_correlation_of_gradients_as_arc_cosine_kernels_say():
    c, product = 0.0, 1.0  # Cho & Saul 2009
    for _ in range(5):
        angle = math.acos(c)
        product *= 1 - angle / math.pi
        c = (math.sin(angle) + (math.pi - angle) * c) / math.pi
    assert product == pytest.approx(0.104559, abs=1e-6)
    flow = propagate(Network(5, 400, "relu", "he", batch_size=2), 300, 1, loss_gradient="shared")
    close(flow.gradient_correlation[:, 0], product, 0.01)
    close(flow.correlation[:, -1], c, 0.01)


def test_batch_norm_halves_the_correlation_of_gradients():
    # pairs of units are on for two inputs at once in a share 1 - arccos(c)/π, whose c is the fixed point of all layers
    flow = propagate(
        Network(4, 300, "relu", "he", batch_size=64, normalisation="batch_inference"), 8, 1, loss_gradient="shared"
    )
    share = 1 - math.acos(-1 / 63) / math.pi
    for layers in range(1, 5):
        close(flow.gradient_correlation[:, 4 - layers], share**layers, 0.02)


def batch_norm_rate(size):
    """The growth of the squared gradient per ReLU layer: Yang et al. 2019, Theorem 8."""
    angle = math.acos(-1 / (size - 1))
    value, slope = (math.sin(angle) - (math.pi - angle) / (size - 1)) / math.pi, (math.pi - angle) / math.pi
    return (size - 1 + slope) / ((size - 3) * (1 - value)) - 1 / (size - 3), 1 - value


@pytest.mark.parametrize(
    "name, size, rate",
    [("relu", 8, batch_norm_rate(8)[0]), ("relu", 32, batch_norm_rate(32)[0]), ("linear", 8, 6 / 5)],
)
def test_gradients_explode_through_batch_norm_at_the_rate_of_theory(name, size, rate):
    flow = propagate(network(24, 400, name, batch_size=size, normalisation="batch"), 12, 1)
    close(np.exp(2 * (flow.log_gradient[:, 5] - flow.log_gradient[:, 19]) / 14), rate, 0.01)


def test_skips_make_the_growth_through_batch_norm_a_power_of_the_depth():
    size, depth = 64, 50
    rate, share = batch_norm_rate(size)
    expected = math.prod(1 + rate * share / (1 + share * layer) for layer in range(depth))
    flow = propagate(
        Network(depth, 200, "relu", "he", batch_size=size, normalisation="batch", residual="preactivation"), 6
    )
    close(np.exp(2 * flow.log_gradient[:, 0]), expected, 0.03)


@pytest.mark.parametrize("depth", [4, 32])
def test_weight_gradients_fall_before_layer_norm_and_not_after(depth):
    d = 128
    pre = Network(depth, d, "relu", "he", residual="preactivation", normalisation="layer")
    post = Network(depth, d, "relu", "he", residual="preactivation", normalisation="layer", norm_position="post")
    pre, post = (np.exp(2 * propagate(net, 200, 1).log_weight_gradient) / d for net in (pre, post))
    close(pre[:, -1], 1 / 2, 0.02)
    close(pre[:, 0], (depth + 1) / 4, 0.05)  # |∂E/∂h_l|² grows as 1/(l + 1): the squared norm of h_l is (l + 1)d
    close(post[:, -1], 1 / 4, 0.02)
    close(post[:, 0], 1 / 4, 0.05)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown loss_gradient 'same'; known: independent, shared"):
        propagate(network(2, 5, "tanh"), 1, loss_gradient="same")
    with pytest.raises(ValueError, match="has no biases"):
        network(2, 5, "tanh", residual="preactivation", bias_variance=0.1)
    with pytest.raises(ValueError, match="do not fit into 3 dimensions"):
        network(2, 3, "tanh", batch_size=4)


@pytest.mark.parametrize(
    "depth, options",
    # inputs that become parallel leave directions of rounding, which a factor changes: fewer layers of batches
    [(10_000, {}), (100, {"batch_size": 3}), (100, {"batch_size": 2, "initialiser": "orthogonal"})],
    ids=str,
)
@pytest.mark.parametrize("scale", [1e-29, 1e29])
def test_relu_layers_scale_with_weights_and_inputs_however_large(depth, options, scale):
    # φ(cz) = cφ(z): a factor of all weights or of the inputs is a factor of each norm, with the same random numbers
    layers = np.arange(depth + 1)
    one = propagate(Network(depth, 24, "relu", weight_variance=2.0, **options), 2, 1)
    other = propagate(Network(depth, 24, "relu", weight_variance=2.0 * scale, input_rms=scale**0.5, **options), 2, 1)
    step = 0.5 * math.log(scale)
    for quantity, shift in (
        ("log_signal", step * (layers + 1)),
        ("log_gradient", step * layers[::-1]),
        ("log_weight_gradient", np.full(depth, step * depth)),
    ):
        expected = getattr(one, quantity) + shift
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(getattr(other, quantity), expected, rtol=1e-8, atol=1e-2, err_msg=quantity)


@pytest.mark.parametrize("weight_variance", [1e-30, 1e30])
@pytest.mark.parametrize("residual", [None, "preactivation", "postactivation", "two_weights"])
def test_ten_thousand_layers_of_batches_give_finite_numbers(weight_variance, residual):
    network = Network(10_000, 6, "linear", weight_variance=weight_variance, batch_size=2, residual=residual)
    flow = propagate(network, 2)
    for quantity in ("log_signal", "log_gradient", "log_weight_gradient"):
        assert np.isfinite(getattr(flow, quantity)).all(), quantity
    per_layer = {None: 0.5, "preactivation": 0.5, "postactivation": 0.5, "two_weights": 1.0}[residual]
    if weight_variance > 1 or residual is None:  # else a skip is all there is
        mean = np.diff(flow.log_signal).mean() - per_layer * math.log(weight_variance)
        assert abs(mean) < 2  # what one random matrix of this width adds, or two
    else:
        assert np.ptp(flow.log_signal) < 1e-6
