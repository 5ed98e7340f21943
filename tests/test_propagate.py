"""The plain sampler against explicit weight matrices, exact laws and closed forms, and its bits against themselves."""

import math

import numpy as np
import pytest
from reference import explicit_flow
from scipy import stats
from scipy.special import digamma, polygamma

from vgp_kernels import ACTIVATIONS, Network, propagate
from vgp_kernels.plain.kernels import layer_function

NAMES = [*sorted(ACTIVATIONS), "leaky_relu(0.3)", "elu(0.5)"]
QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient")
ALPHA = 1e-3  # the chance that any comparison of this file fails though all laws are right (Bonferroni)
FLOOR = -100.0  # stands for ln 0; no other logarithm of the cases below comes near
NOISE = 1e-3  # of ln; makes atoms (dead layers, the fixed lengths of Haar weights) comparable in spite of round-off


def networks():
    """Every activation, Gaussian and Haar, with and without biases, at widths from 2 to 16; then the corner cases."""
    widths = (2, 3, 5, 8, 16)
    for i, name in enumerate(NAMES):
        for j, bias_variance in enumerate((0.0, 0.4)):
            fan_in = (2, 7, 1, 16, 3)[(i + j) % 5]
            yield Network(
                3, widths[(i + 2 * j) % 5], name, weight_variance=1.7, bias_variance=bias_variance, input_width=fan_in
            )
            yield Network(3, widths[(i + 2 * j + 1) % 5], name, "orthogonal", 1.7, bias_variance)
    for name in ("tanh", "relu"):
        for initialiser in ("standard", "xavier", "he", "lecun", "normal"):
            yield Network(4, 4, name, initialiser, bias_variance=0.1, input_width=9, input_rms=2.5)
        for width in (1, 2, 7):
            yield Network(5, width, name, "he")
            yield Network(5, width, name, "orthogonal", 0.8, 0.2, input_rms=0.3)
    yield Network(2, 131, "tanh", "he", bias_variance=0.1, input_width=3)  # several chunks of units, an odd width


NETWORKS = list(networks())
LARGE = [Network(3, 3, "gelu", "he", bias_variance=0.3), Network(3, 3, "gelu", "orthogonal", bias_variance=0.3)]
CHAINS = [
    Network(10, 100, "relu", "he", input_width=30),
    Network(10, 257, "relu", "xavier", input_width=700, input_rms=3.0),
    Network(10, 1000, "relu", weight_variance=2.3),
    Network(6, 3, "relu", "he"),
    Network(6, 4, "relu", "he", input_width=1),
    Network(6, 1, "relu", "he"),
]


def title(network):
    shape = f"{network.fan_in}-{network.width}" if network.fan_in != network.width else f"{network.width}"
    biases = " biases" if network.bias_variance else ""
    return f"{network.activation} {network.initialiser or 'gaussian'} {shape}{biases}"


def statistics(log_signal, log_gradient, log_weight_gradient):
    """The norms at every layer, and what shows how forward and backward pass hang together: sums and differences."""
    signal, gradient, weight = (np.maximum(values, FLOOR) for values in (log_signal, log_gradient, log_weight_gradient))
    depth = weight.shape[1]
    found = {f"signal {layer}": signal[:, layer] for layer in range(1, depth + 1)}
    found |= {f"gradient {layer}": gradient[:, layer] for layer in range(depth)}
    found |= {f"weight gradient {layer + 1}": weight[:, layer] for layer in range(depth)}
    pairs = [(layer, layer) for layer in range(1, depth)] + [(depth, 0)]
    for i, j in pairs:
        found[f"signal {i} + gradient {j}"] = signal[:, i] + gradient[:, j]
        found[f"signal {i} - gradient {j}"] = signal[:, i] - gradient[:, j]
    found["weight gradient, last + first"] = weight[:, -1] + weight[:, 0]
    found["weight gradient, last - first"] = weight[:, -1] - weight[:, 0]
    return found


COMPARISONS = sum(5 * network.depth + 2 for network in NETWORKS + LARGE + CHAINS)


def explicit(network, trials, seed, **how):
    """The logarithms of what explicit matrices give, in portions that fit in memory."""
    portion = max(1, 2_000_000 // (network.width * max(network.width, network.fan_in)))
    parts = [
        explicit_flow(network, min(portion, trials - first), [seed, first], **how)
        for first in range(0, trials, portion)
    ]
    with np.errstate(divide="ignore"):
        return [
            np.log(np.concatenate([part[name] for part in parts])) for name in ("signal", "gradient", "weight_gradient")
        ]


def p_values(one, other, seed=0):
    """p of the two-sample Kolmogorov–Smirnov test for each statistic. The same noise on both leaves equal laws equal."""
    generator = np.random.default_rng(seed)
    blurred = [
        {name: x + NOISE * generator.standard_normal(len(x)) for name, x in sample.items()} for sample in (one, other)
    ]
    return {name: stats.ks_2samp(blurred[0][name], blurred[1][name], method="asymp").pvalue for name in one}


def measured(network, trials, seed):
    flow = propagate(network, trials, seed)
    found = [getattr(flow, quantity) for quantity in QUANTITIES]
    assert not any(np.isnan(values).any() for values in found)
    return statistics(*found)


def assert_same_law(p):
    worst = min(p, key=p.get)
    assert p[worst] > ALPHA / COMPARISONS, f"{worst}: p = {p[worst]:.1e}"


@pytest.mark.parametrize("network", NETWORKS, ids=title)
def test_norms_have_the_law_of_explicit_matrices(network):
    p = p_values(
        statistics(*explicit(network, 10_000 if network.width < 16 else 5_000, 1)), measured(network, 20_000, 1)
    )
    assert len(p) == 5 * network.depth + 2
    assert_same_law(p)


@pytest.mark.parametrize("network", LARGE, ids=title)
def test_norms_have_the_law_of_explicit_matrices_in_a_large_sample(network):
    assert_same_law(p_values(statistics(*explicit(network, 200_000, 2)), measured(network, 200_000, 2)))


@pytest.mark.parametrize("initialiser", ["he", "orthogonal"])
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "leaky_relu"])
def test_the_comparison_notices_fresh_weights_on_the_way_back(name, initialiser):
    network = Network(3, 4, name, initialiser)
    wrong = statistics(*explicit(network, 50_000, 1, shared_weights=False))
    assert min(p_values(wrong, measured(network, 50_000, 1)).values()) < 1e-12


def relu_chain(network, trials, seed):
    """The norms of a ReLU network without biases, from the numbers of active units and chi-squared draws alone.

    K_l ~ Bin(n, ½) units are active; |h_l|² = (σ_w²/n_{l-1})|h_{l-1}|² χ²_K. What of the gradient is along h_l keeps
    c = h_l·g_l, which no layer changes, and the rest is Gaussian with variance τ.
    """
    generator = np.random.default_rng(seed)

    def chi2(degrees):
        return np.where(degrees > 0, 2 * generator.standard_gamma(np.maximum(degrees, 0) / 2), 0.0)

    n, depth = network.width, network.depth
    fan_ins = np.array([network.fan_in] + [n] * (depth - 1))
    variances = np.array([network.first_weight_variance] + [network.weight_variance] * (depth - 1))
    active = generator.binomial(n, 0.5, (trials, depth + 1))
    h2 = np.empty((trials, depth + 1))
    h2[:, 0] = network.fan_in * network.input_rms**2
    for layer in range(1, depth + 1):
        h2[:, layer] = variances[layer - 1] / fan_ins[layer - 1] * h2[:, layer - 1] * chi2(active[:, layer])
    g2, weight2 = np.ones((trials, depth + 1)), np.empty((trials, depth))
    with np.errstate(divide="ignore", invalid="ignore"):
        # the direction of g at the top: along h, along the other active units, along the units at 0
        along, others, idle = (chi2(k) for k in (np.ones(trials), active[:, -1] - 1, n - active[:, -1]))
        delta2 = np.where(active[:, -1] > 0, (along + others) / (along + others + idle), 0.0)
        c2 = along / (along + others + idle) * h2[:, -1]
        for layer in range(depth, 0, -1):
            weight2[:, layer - 1] = delta2 * h2[:, layer - 1]
            tau = variances[layer - 1] / fan_ins[layer - 1] * delta2
            part = np.where(delta2 > 0, c2 / h2[:, layer - 1], 0.0)
            if layer == 1:
                g2[:, 0] = part + tau * chi2(np.full(trials, network.fan_in - 1))
            else:
                delta2 = np.where(delta2 > 0, part + tau * chi2(active[:, layer - 1] - 1), 0.0)
                g2[:, layer - 1] = delta2 + tau * chi2(n - active[:, layer - 1])
        signal2 = h2 / np.array([network.fan_in] + [n] * depth)
        return [0.5 * np.log(values) for values in (signal2, g2, weight2)]


@pytest.mark.parametrize("network", CHAINS, ids=title)
def test_relu_has_the_law_of_its_scalar_chain(network):
    assert_same_law(p_values(statistics(*relu_chain(network, 20_000, 3)), measured(network, 10_000, 3)))


def close_to(sample, expected, errors=5):
    """The mean of the sample is the expected one within so many standard errors (5: one failure in two million)."""
    return abs(np.mean(sample) - expected) < errors * np.std(sample) / math.sqrt(len(sample))


def test_relu_moments_are_exact():
    width, depth = 50, 5
    flow = propagate(Network(depth, width, "relu", "he"), trials=200_000, seed=4)
    signal2, gradient2 = np.exp(2 * flow.log_signal[:, -1]), np.exp(2 * flow.log_gradient[:, 0])
    assert close_to(gradient2, 1) and close_to(signal2, 1)
    fourth = math.prod(1 + 5 / width for _ in range(depth))  # of the norm at the bottom, given a unit vector at the top
    assert close_to(gradient2**2, fourth) and close_to(signal2**2, fourth)
    # E |h|²|J|² and E |Jᵀh|², J = ∂h_l/∂h_0 of width n, layer by layer; both passes see the same weights
    together, along = 1.0, 1.0 / width
    for _ in range(depth):
        together, along = (
            (1 + 1 / width) * together + 4 / width * along,
            2 / width * together + (1 + 3 / width) * along,
        )
    assert close_to(signal2 * gradient2, together)
    assert not close_to(signal2 * gradient2, 1), "forward and backward pass are correlated"


def test_linear_moments_are_exact():
    width, depth, variance = 7, 4, 1.3
    flow = propagate(Network(depth, width, "linear", weight_variance=variance), trials=200_000, seed=5)
    # |Wx|² = (σ_w²/n)|x|² χ²_n in both directions
    mean = depth / 2 * (digamma(width / 2) + math.log(2 * variance / width))
    spread = depth / 4 * polygamma(1, width / 2)
    for sample in (flow.log_signal[:, -1], flow.log_gradient[:, 0]):
        assert close_to(sample, mean) and close_to((sample - mean) ** 2, spread)
    together, along = 1.0, 1.0 / width  # as above, for J = W_L … W_1
    for _ in range(depth):
        together, along = together + 2 / width * along, (1 + 1 / width) * along + together / width
    product = np.exp(2 * flow.log_signal[:, -1] + 2 * flow.log_gradient[:, 0]) / variance ** (2 * depth)
    assert close_to(product, together) and not close_to(product, 1)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 300])
def test_orthogonal_linear_networks_keep_every_norm(width):
    gain2 = 0.9
    flow = propagate(Network(20, width, "linear", "orthogonal", gain2), trials=2000, seed=6)
    layers = np.arange(21) * math.log(gain2) / 2
    tolerance = 20 * 2.0**-23  # an ulp of float32 for each layer
    assert np.abs(flow.log_signal - layers).max() < tolerance
    assert np.abs(flow.log_gradient - layers[::-1]).max() < tolerance
    assert np.abs(flow.log_weight_gradient - (layers[-2] + math.log(width) / 2)).max() < tolerance


@pytest.mark.parametrize("width, depth", [(1, 2), (3, 8), (4, 3), (6, 20)])
def test_relu_networks_are_born_dead_as_often_as_they_should(width, depth):
    trials = 100_000
    flow = propagate(Network(depth, width, "relu", "he"), trials, seed=7)
    dead = np.isneginf(flow.log_signal[:, -1])
    assert close_to(dead, 1 - (1 - 0.5**width) ** depth)
    assert np.isneginf(flow.log_gradient[dead, :-1]).all() and np.isneginf(flow.log_weight_gradient[dead]).all()
    assert np.isfinite(flow.log_signal[~dead]).all() and np.isfinite(flow.log_gradient[~dead]).all()
    assert (np.diff(np.isneginf(flow.log_signal), axis=1) >= 0).all(), "what is 0 stays 0"


@pytest.mark.parametrize("initialiser", ["he", "orthogonal"])
@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu", "leaky_relu(0.3)"])
def test_euler_invariant_at_width_one(name, initialiser):
    # φ(z) = zφ′(z) makes h_l·g_l the same number at every layer; with one unit it is the product of the norms
    flow = propagate(Network(300, 1, name, initialiser), trials=1000, seed=8)
    alive = np.isfinite(flow.log_signal[:, -1])
    product = (flow.log_signal + flow.log_gradient)[alive]
    assert alive.any() or name == "relu"
    assert np.allclose(product, product[:, -1:], rtol=0, atol=300 * 2.0**-23)  # an ulp for each layer


def bits(network, trials=10, seed=0, **options):
    flow = propagate(network, trials, seed, **options)
    return [getattr(flow, quantity).tobytes() for quantity in QUANTITIES]


SAMPLED = [
    Network(6, 9, "tanh", "xavier", bias_variance=0.1),
    Network(6, 150, "relu", "he", input_width=5),
    Network(6, 4, "gelu", "orthogonal", bias_variance=0.2),
]


@pytest.mark.parametrize("network", SAMPLED, ids=title)
def test_bits_do_not_depend_on_threads_or_runs(network):
    expected = bits(network, trials=333, seed=9, threads=1)
    assert bits(network, trials=333, seed=9, threads=1) == expected
    for threads in (2, 3, 7, None):
        assert bits(network, trials=333, seed=9, threads=threads) == expected


@pytest.mark.parametrize("network", SAMPLED, ids=title)
def test_more_trials_begin_with_the_bits_of_fewer(network):
    everything = propagate(network, 1000, seed=9)
    for trials in (1, 10, 15, 16, 17, 63, 65, 130, 999):
        begin = propagate(network, trials, seed=9)
        for quantity in QUANTITIES:
            few, many = getattr(begin, quantity), getattr(everything, quantity)
            assert len(few) == trials and few.tobytes() == many[:trials].tobytes()


def test_compiled_layers_have_names_of_their_own():
    # by which machine code from the cache is told apart: of the same name, two activations could be mixed up
    layers = [layer_function(name, biases) for name in ("tanh", "relu", "leaky_relu(0.3)") for biases in (False, True)]
    symbols = {next(iter(layer.overloads.values())).fndesc.qualname for layer in layers}
    assert len(symbols) == len(layers)


def test_every_seed_counts():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 2, 2**64 - 1]
    assert len({tuple(bits(SAMPLED[0], seed=seed)) for seed in seeds}) == len(seeds)
    assert bits(SAMPLED[0], seed=np.uint64(2**64 - 1)) == bits(SAMPLED[0], seed=2**64 - 1)


def test_networks_are_independent():
    flow = propagate(Network(2, 5, "tanh", "he"), trials=4000, seed=10)
    for quantity in QUANTITIES:
        values = getattr(flow, quantity)
        column = stats.rankdata(values[:, 1])
        for lag in (1, 15, 16, 64):  # neighbours, lanes, blocks; 4.5 standard errors
            assert abs(np.corrcoef(column[lag:], column[:-lag])[0, 1]) < 4.5 / math.sqrt(len(column) - lag)


@pytest.mark.parametrize("variance", [0.1, 1.0, 50.0])
def test_depth_one_hundred_thousand_is_an_ordinary_result(variance):
    depth, width = 100_000, 4
    flow = propagate(Network(depth, width, "linear", weight_variance=variance), trials=32, seed=11)
    mean = depth / 2 * (digamma(width / 2) + math.log(2 * variance / width))
    deviation = math.sqrt(depth / 4 * polygamma(1, width / 2))
    assert abs(mean) > 10_000
    for sample in (flow.log_signal[:, -1], flow.log_gradient[:, 0]):
        assert (np.abs(sample - mean) < 5 * deviation).all() and close_to(sample, mean)
    assert np.isfinite(flow.log_weight_gradient).all()


def test_a_gradient_of_e_to_the_minus_100_000_is_an_ordinary_result():
    depth = 100_000
    flow = propagate(Network(depth, 8, "linear", "orthogonal", math.exp(-2)), trials=16, seed=12)
    assert np.allclose(flow.log_gradient[:, 0], -depth, rtol=1e-6) and np.allclose(
        flow.log_signal[:, -1], -depth, rtol=1e-6
    )
    flow = propagate(Network(depth, 2, "sigmoid", "xavier"), trials=16, seed=12)
    assert (flow.log_gradient[:, 0] < -depth).all() and np.isfinite(flow.log_gradient).all()
    assert (np.diff(flow.log_gradient.mean(axis=0)) > 0).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_extreme_networks_give_no_nan(name):
    for weight_variance, bias_variance, input_rms in (
        (1e30, 0.0, 1e15), (1e-30, 0.0, 1e-15), (1e30, 1e30, 1e-15), (1e-30, 1e-30, 1e15), (1e-30, 1e30, 1.0), (1e30, 1e-30, 1.0),
    ):  # fmt: skip
        for initialiser in (None, "orthogonal"):
            for width in (1, 5):
                network = Network(40, width, name, initialiser, weight_variance, bias_variance, input_rms=input_rms)
                flow = propagate(network, trials=16)
                for quantity in QUANTITIES:
                    values = getattr(flow, quantity)
                    assert not np.isnan(values).any() and not np.isposinf(values).any(), (quantity, network)
