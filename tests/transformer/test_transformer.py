"""Transformers, against NumPy's own equations, finite differences, closed forms and independent draws."""

import math

import numpy as np
import pytest
from scipy import stats

from vgp_kernels import Transformer, activation, propagate
from vgp_kernels.theory.transformers import softmax_moments, transformer_theory
from vgp_kernels.transformer.kernels import back_through_softmax, draw
from vgp_kernels.transformer.network import MATRICES

NETWORKS = {
    "pre": Transformer(2, 4, heads=2, tokens=3, ffn_multiple=2, activation="gelu", norm="pre", branch_scale=0.7),
    "post": Transformer(2, 6, heads=3, tokens=4, ffn_multiple=1, activation="tanh", norm="post", query_variance=4.0),
    "deepnorm": Transformer(3, 4, tokens=3, ffn_multiple=3, activation="relu", norm="deepnorm"),
    "none": Transformer(2, 4, heads=2, tokens=3, norm="none", activation="silu", ffn_multiple=1, scaled_scores=False),
    "attention only": Transformer(3, 4, heads=4, tokens=5, norm="none", skip=False, ffn_multiple=0),
    "one token": Transformer(2, 4, tokens=1, norm="pre", ffn_multiple=1, activation="gelu"),
}


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attend(u, query, key, value, output, heads, scaled):
    size = u.shape[1] // heads
    q, k, v = (np.stack(np.split(u @ w, heads, axis=1)) for w in (query, key, value))
    scores = np.einsum("hid,hjd->hij", q, k) / (math.sqrt(size) if scaled else 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.concatenate(list(np.einsum("hij,hjd->hid", weights, v)), axis=1) @ output


def block(network, x, matrices):
    """x_{l+1} from x_l, in the textbook's equations."""
    query, key, value, output, first, second = matrices
    skip = (2 * network.blocks) ** 0.25 if network.norm == "deepnorm" else float(network.skip)
    before = layer_norm if network.norm == "pre" else lambda x: x
    after = layer_norm if network.norm in ("post", "deepnorm") else lambda x: x
    branch = attend(before(x), query, key, value, output, network.heads, network.scaled_scores)
    x = after(skip * x + network.branch_scale * branch)
    if network.ffn_multiple:
        branch = activation(network.activation).value(before(x) @ first) @ second
        x = after(skip * x + network.branch_scale * branch)
    return x


def run(network, drawn, x, start=0):
    path = [x]
    for matrices in list(zip(*drawn[2:], strict=True))[start:]:
        path.append(block(network, path[-1], matrices))
    return path


def loss(network, drawn, x, start=0):
    y = run(network, drawn, x, start)[-1]
    return np.sum(drawn[1] * (layer_norm(y) if network.norm == "pre" else y))


def finite_difference(function, x, size=1e-5):
    gradient = np.empty(x.size, x.dtype)
    for i in range(x.size):
        e = np.zeros(x.size, x.dtype)
        e[i] = size
        e = e.reshape(x.shape)
        gradient[i] = (function(x + e) - function(x - e)) / (2 * size)
    return gradient


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_differences_of_the_textbook_equations(name):
    network = NETWORKS[name]
    flow, trial = propagate(network, trials=3, seed=7), 2
    drawn = [array.astype(np.float64) for array in draw(network, trial, 7)]
    path = run(network, drawn, drawn[0])
    # φ is float32, of relative error 1e-7, and passes a few layers
    assert np.exp(flow.log_signal[trial]) == pytest.approx([np.sqrt(np.mean(x**2)) for x in path], rel=2e-6)
    residual = [np.linalg.norm(x - x.mean(0)) / np.linalg.norm(x) for x in path]
    assert np.exp(flow.log_residual[trial]) == pytest.approx(residual, rel=1e-5, abs=1e-15)
    gradients = [
        np.linalg.norm(finite_difference(lambda x, i=i: loss(network, drawn, x, i), x)) for i, x in enumerate(path)
    ]
    assert np.exp(flow.log_gradient[trial]) == pytest.approx(gradients, rel=1e-5, abs=1e-9)
    for layer in range(network.blocks):
        norms = []
        for index in range(6):

            def loss_of_matrix(matrix, index=index, layer=layer):
                changed = [array.copy() for array in drawn]
                changed[2 + index][layer] = matrix
                return loss(network, changed, drawn[0])

            norms.append(np.linalg.norm(finite_difference(loss_of_matrix, drawn[2 + index][layer])))
        assert np.exp(flow.log_matrix_gradient[trial, layer]) == pytest.approx(norms, rel=2e-5, abs=1e-9)
        assert math.exp(flow.log_weight_gradient[trial, layer]) == pytest.approx(np.linalg.norm(norms), rel=2e-5)


def test_law_is_that_of_independent_draws():
    network = Transformer(2, 4, heads=2, tokens=3, ffn_multiple=1, norm="pre", token_correlation=0.3)
    generator = np.random.default_rng(1)

    def explicit(tied):
        rows = []
        for _ in range(400):
            own, common = generator.standard_normal((3, 4)), generator.standard_normal(4)
            tokens = math.sqrt(0.7) * own + math.sqrt(0.3) * common
            direction = generator.standard_normal((3, 4))
            direction /= np.linalg.norm(direction)
            variances = [1 / 4] * 5 + [2 / 4]
            matrices = [math.sqrt(v) * generator.standard_normal((2, 4, 4)) for v in variances]
            if tied:
                matrices = [np.stack([m[0], m[0]]) for m in matrices]
            drawn = [tokens, direction, *matrices]
            of_x = np.linalg.norm(finite_difference(lambda x, drawn=drawn: loss(network, drawn, x), tokens, 1e-6))
            last = run(network, drawn, tokens)[-1]
            spread = np.linalg.norm(last - last.mean(0)) / np.linalg.norm(last)
            rows.append([of_x, np.sqrt(np.mean(last**2)), spread])
        return np.log(np.array(rows))

    flow = propagate(network, 4000, 3)
    ours = np.column_stack([flow.log_gradient[:, 0], flow.log_signal[:, -1], flow.log_residual[:, -1]])
    right, wrong = explicit(False), explicit(True)
    for column in range(3):
        assert stats.ks_2samp(ours[:, column], right[:, column]).pvalue > 1e-3
    assert min(stats.ks_2samp(ours[:, column], wrong[:, column]).pvalue for column in range(3)) < 1e-4


def test_bits_depend_on_nothing_but_network_trial_and_seed():
    for network in NETWORKS.values():
        one, many = propagate(network, 5, 2, threads=1), propagate(network, 3, 2, threads=3)
        for name in ("log_signal", "log_gradient", "log_weight_gradient", "log_matrix_gradient", "log_residual"):
            assert getattr(one, name)[:3].tobytes() == getattr(many, name).tobytes()


def test_adding_a_number_to_all_scores_changes_nothing_so_the_keys_mean_gets_no_gradient():
    # of one token: softmax of a single score is 1, whatever W_Q and W_K
    flow = propagate(NETWORKS["one token"], 3)
    assert np.all(flow.log_matrix_gradient[:, :, :2] == -math.inf)


def test_equal_tokens_stay_equal_and_their_queries_get_no_gradient():
    network = Transformer(3, 16, heads=2, tokens=5, norm="pre", token_correlation=1.0)
    flow = propagate(network, 4)
    assert flow.log_residual.max() < math.log(1e-7)  # float32's rounding of the tokens
    query, value = flow.log_matrix_gradient[:, :, MATRICES.index("query")], flow.log_matrix_gradient[:, :, 2]
    assert np.all(query - value < math.log(1e-6))


SMALL = dict(width=4, tokens=3, ffn_multiple=1, activation="leaky_relu(0.3)")
EXTREMES = {
    "grows beyond float32": Transformer(50, heads=2, norm="none", weight_variance=0.3, second_variance=3e3, **SMALL),
    "shrinks below float64": Transformer(30, heads=2, norm="none", skip=False, weight_variance=1e-16, **SMALL),
    "only epsilon is left": Transformer(12, norm="pre", skip=False, weight_variance=1e-16, **SMALL),
    "after the sum, too": Transformer(8, norm="post", skip=False, weight_variance=1e-16, **SMALL),
    "huge branches": Transformer(5, norm="pre", branch_scale=1e15, weight_variance=1e20, second_variance=1e20, **SMALL),
    "huge sums": Transformer(5, norm="post", branch_scale=1e15, weight_variance=1e20, second_variance=1e20, **SMALL),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_no_scale_is_too_large_or_small(name):
    # NumPy's long double has the exponents for it
    network = EXTREMES[name]
    flow, trial = propagate(network, trials=2, seed=5), 1
    drawn = [array.astype(np.longdouble) for array in draw(network, trial, 5)]
    path = run(network, drawn, drawn[0])
    sizes = [np.sqrt(np.mean(x**2)) for x in path]
    assert flow.log_signal[trial] == pytest.approx([float(np.log(size)) for size in sizes], abs=1e-5)
    residual = [
        float(np.linalg.norm(x - x.mean(0)) / size) / math.sqrt(x.size) for x, size in zip(path, sizes, strict=True)
    ]
    assert np.exp(flow.log_residual[trial]) == pytest.approx(residual, rel=1e-4, abs=1e-6)

    def log_norm(gradient):  # a unit that is off has none
        return float(np.log(np.linalg.norm(gradient))) if gradient.any() else -math.inf

    for layer in (0, network.blocks // 2, network.blocks - 1):
        size = sizes[layer] * 1e-9
        gradient = finite_difference(lambda x, i=layer: loss(network, drawn, x, i), path[layer], size)
        assert flow.log_gradient[trial, layer] == pytest.approx(log_norm(gradient), abs=1e-4)
        for index in (2, 3, 4, 5):

            def loss_of_matrix(matrix, index=index, layer=layer):
                changed = [array.copy() for array in drawn]
                changed[2 + index][layer] = matrix
                return loss(network, changed, drawn[0])

            matrix = drawn[2 + index][layer]
            gradient = finite_difference(loss_of_matrix, matrix, np.abs(matrix).max() * 1e-9)
            found = flow.log_matrix_gradient[trial, layer, index]
            assert found == pytest.approx(log_norm(gradient), abs=1e-4)


@pytest.mark.parametrize("variance", [1e-30, 1.0, 1e30])
def test_ten_thousand_blocks_of_one_token_are_a_product(variance):
    # with one token, one unit and nothing but attention, x_{l+1} = (1 + v_l o_l) x_l
    network = Transformer(10_000, 1, tokens=1, norm="none", ffn_multiple=0, weight_variance=variance)
    flow, drawn = propagate(network, 2, 4), draw(network, 1, 4)
    value, output = drawn.value.astype(float).ravel(), drawn.output.astype(float).ravel()
    steps = np.log(np.abs(1 + value * output))
    path = np.concatenate([[0], np.cumsum(steps)])
    assert flow.log_signal[1] - flow.log_signal[1, 0] == pytest.approx(path, rel=1e-9, abs=1e-9)
    assert flow.log_gradient[1] == pytest.approx(path[-1] - path, rel=1e-9, abs=1e-9)
    of_value = path[:-1] + flow.log_signal[1, 0] + np.log(np.abs(output)) + path[-1] - path[1:]
    assert flow.log_matrix_gradient[1, :, 2] == pytest.approx(of_value, rel=1e-9, abs=1e-6)
    assert not np.isnan(flow.log_residual).any() and np.all(flow.log_residual == -math.inf)


def test_tokens_that_are_all_zero_are_no_way_apart():
    network = Transformer(3, 1, tokens=2, norm="none", skip=False, ffn_multiple=1)  # dead in three of four
    flow = propagate(network, 50)
    dead = np.isneginf(flow.log_signal)
    assert dead.any() and np.all(flow.log_residual[dead] == -math.inf)
    for name in ("log_signal", "log_gradient", "log_weight_gradient", "log_matrix_gradient", "log_residual"):
        assert np.all(getattr(flow, name) < math.inf), name  # nor NaN


@pytest.mark.parametrize("rest", [0.25, 1e-6, 1e-12, 1e-17, 1e-200])
def test_slopes_of_softmax_keep_their_digits_where_one_token_has_nearly_all(rest):
    a, of_a = np.array([[1 - rest, rest]] * 2), np.array([[3.0, 0.7]] * 2)
    back_through_softmax(a, of_a, 1.0)
    exact = rest * (1 - rest) * (3.0 - 0.7)
    assert of_a[0] == pytest.approx([exact, -exact], rel=1e-6)


@pytest.mark.parametrize(
    "blocks, skip, gain", [(6, 1.86120972, 0.37991784), (24, 2.63214803, 0.26864248), (7, None, None)]
)
def test_deepnorm_has_its_constants(blocks, skip, gain):
    network = Transformer(blocks, 8, norm="deepnorm")
    assert network.skip_scale == pytest.approx(skip or (2 * blocks) ** 0.25, rel=2e-8)  # as printed
    assert network.weight_gain == pytest.approx(gain or (8 * blocks) ** -0.25, rel=2e-8)
    plain = draw(Transformer(blocks, 8, norm="post"), 0, 0)
    scaled = draw(network, 0, 0)
    for name in MATRICES:
        factor = 1 if name in ("query", "key") else network.weight_gain
        assert getattr(scaled, name) == pytest.approx(factor * getattr(plain, name), rel=1e-6)


def test_wrong_values_are_named():
    for arguments, error, message in (
        (dict(blocks=0, width=4), ValueError, "blocks must be from 1"),
        (dict(blocks=2, width=6, heads=4), ValueError, "no multiple of heads 4"),
        (dict(blocks=2, width=6, norm="batch"), ValueError, "unknown norm 'batch'; known: deepnorm, none, post, pre"),
        (dict(blocks=2, width=6, skip=1), TypeError, "skip must be True or False"),
        (dict(blocks=2, width=6, activation="relU"), ValueError, "unknown activation"),
        (dict(blocks=2, width=6, token_correlation=-0.1), ValueError, "token_correlation must be from 0 to 1"),
        (dict(blocks=2, width=6, norm="deepnorm", skip=False), ValueError, "sets the scale of the skip"),
        (dict(blocks=2, width=6, ffn_multiple=-1), ValueError, "ffn_multiple must be"),
        (dict(blocks=1000, width=1024), ValueError, "too many"),
    ):
        with pytest.raises(error, match=message):
            Transformer(**arguments)


# Theory


def test_softmax_moments_have_their_limits():
    assert softmax_moments(0.0, 0.5, 8) == pytest.approx((1 / 8, 1 / 8), rel=1e-12)
    own, shared = softmax_moments(1.0, 1.0, 8)
    assert own == shared
    # for many tokens Σ A² → e^(2s²)/e^(s²)/T; rows of correlation ρ share e^(ρ s²)/T
    own, shared = softmax_moments(0.25, 0.4, 2000)
    assert own == pytest.approx(math.exp(0.25) / 2000, rel=0.01)
    assert shared == pytest.approx(math.exp(0.1) / 2000, rel=0.01)


@pytest.mark.parametrize(
    "options",
    [
        dict(norm="pre"),
        dict(norm="post"),
        dict(norm="deepnorm"),
        dict(norm="none", branch_scale=0.4),
        dict(norm="pre", activation="tanh", second_variance=1.0, token_correlation=0.5),
        dict(norm="post", ffn_multiple=0, heads=8),
    ],
    ids=str,
)
def test_wide_transformers_follow_the_theory(options):
    network = Transformer(**({"blocks": 4, "width": 256, "heads": 4, "tokens": 12} | options))
    flow, theory = propagate(network, 4, 0), transformer_theory(network)
    # five per cent for the finite width and number of draws
    assert flow.log_signal.mean(0) == pytest.approx(theory.log_signal, abs=0.05)
    assert flow.log_residual.mean(0) == pytest.approx(theory.log_residual, abs=0.05)
    if network.ffn_multiple:
        assert flow.log_matrix_gradient[:, -1, 5].mean() == pytest.approx(theory.log_second_gradient[-1], abs=0.05)
    # further down, the way through the scores, which the theory leaves out, adds some ten per cent a block
    off = flow.log_gradient.mean(0) - theory.log_gradient
    assert np.all(off > -0.05) and np.all(off < 0.05 + 0.1 * np.arange(4, -1, -1))


def test_tokens_become_equal_at_one_rate_however_close_they_are():
    # attention adds the same to all tokens, the norm halves the variance, and He's ReLU branch keeps what is left of d
    theory = transformer_theory(Transformer(96, 64, 4, norm="post"))
    steps = np.diff(theory.log_residual)[40:]
    assert theory.log_residual[-1] < math.log(1e-12)
    assert steps == pytest.approx(np.full(len(steps), -math.log(2) / 2), abs=1e-4)


@pytest.mark.parametrize("blocks", [4, 64])
def test_last_gradients_of_one_token_have_their_closed_forms(blocks):
    # one token: attention and feed-forward branch each add variance 1, or S = 1 and E φ² = ½ doubled
    def last(norm):
        return math.exp(2 * transformer_theory(Transformer(blocks, 64, tokens=1, norm=norm)).log_second_gradient[-1])

    inside = 4 * 64 / 2  # Σ φ² of the branch
    assert last("pre") == pytest.approx(inside / (1 + 2 * blocks), rel=1e-12)
    assert last("post") == pytest.approx(inside / 2, rel=1e-12)
    alpha, beta = (2 * blocks) ** 0.25, (8 * blocks) ** -0.25
    assert last("deepnorm") == pytest.approx(beta**2 * inside / (alpha**2 + beta**4), rel=1e-12)
