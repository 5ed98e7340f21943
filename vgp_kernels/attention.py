"""Random transformers: self-attention and feed-forward branches, with normalisation before, after or nowhere.

All weights are made in full, and each branch is computed again on the way back instead of being stored. Arithmetic is
float64, but for φ and φ′ of the feed-forward branch, which are float32.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import activation, value_and_slope
from vgp_kernels.arithmetic import STRICT, exp64, f32, f64, fma, log64
from vgp_kernels.cpu import SOURCES
from vgp_kernels.matrices import Maker, product, sum_of_squares, transposed
from vgp_kernels.moments import moments, pair_moments
from vgp_kernels.network import check_name, checked_count, checked_real
from vgp_kernels.randomness import u32

NORMS = {
    "pre": "x + α B(N(x)), and N at the very end",
    "post": "N(x + α B(x))",
    "deepnorm": "N((2L)^¼ x + B(x))",
    "none": "x + α B(x)",
}
MATRICES = ("query", "key", "value", "output", "first", "second")
LARGEST_WEIGHTS = 2**28  # entries in all
EPSILON = 1e-5  # added to the variance, as in PyTorch
CLOSE = 1e-9  # two tokens whose correlation is nearer to 1 are treated to first order

# purposes of the random numbers
QUERY, TOKENS, LOSS, COMMON = u32(24), u32(32), u32(33), u32(34)  # the six matrices take 24 to 29


@dataclass(frozen=True)
class Transformer:
    """A random transformer: `blocks` of self-attention over `tokens` with `heads`, each followed by a feed-forward branch.

    Attention is softmax(Q Kᵀ/√d_k) V W_O with Q = x W_Q, K = x W_K, V = x W_V; with `scaled_scores=False` without the
    √d_k. The feed-forward branch is φ(x W_1) W_2 with `ffn_multiple` times `width` units inside; 0 leaves it out. There are
    no biases and no masks.

    `norm` says where layer normalisation stands: "pre" x + α B(N(x)) and once more at the end, "post" N(x + α B(x)),
    "deepnorm" N((2L)^¼ x + B(x)) with W_V, W_O, W_1 and W_2 times (8L)^-¼ (Wang et al. 2022), "none" nowhere. α is
    `branch_scale`. With skip=False the x of the sum is left out.

    The entries of W_Q and W_K are N(0, σ_q²/fan_in), those of W_2 N(0, σ_2²/fan_in), all others N(0, σ_w²/fan_in);
    `query_variance` is σ_q², `second_variance` σ_2² (2 undoes what ReLU takes away), `weight_variance` σ_w². The tokens have
    N(0, 1) entries, and any two of them the correlation `token_correlation`.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range, unknown or contradictory.
    """

    blocks: int
    width: int
    heads: int = 1
    tokens: int = 16
    ffn_multiple: int = 4
    activation: str = "relu"
    norm: str = "pre"
    skip: bool = True
    branch_scale: float = 1.0
    weight_variance: float = 1.0
    query_variance: float = 1.0
    second_variance: float = 2.0
    scaled_scores: bool = True
    token_correlation: float = 0.0

    def __post_init__(self) -> None:
        for name, like in (("blocks", "depth"), ("width", "width"), ("heads", "width"), ("tokens", "batch_size")):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), like))
        if self.ffn_multiple != 0:
            object.__setattr__(self, "ffn_multiple", checked_count("ffn_multiple", self.ffn_multiple, "width"))
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}; each head takes an equal part")
        activation(self.activation)
        check_name("norm", self.norm, NORMS)
        for name in ("skip", "scaled_scores"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("weight_variance", "query_variance", "second_variance", "branch_scale"):
            object.__setattr__(self, name, checked_real(name, getattr(self, name), "weight_variance"))
        object.__setattr__(
            self, "token_correlation", checked_real("token_correlation", self.token_correlation, "input_correlation")
        )
        if self.token_correlation < 0:
            raise ValueError(f"token_correlation must be from 0 to 1, not {self.token_correlation:g}")
        if self.norm == "deepnorm" and (not self.skip or self.branch_scale != 1):
            raise ValueError("norm 'deepnorm' sets the scale of the skip; leave skip and branch_scale as they are")
        if self.weights > LARGEST_WEIGHTS:
            raise ValueError(
                f"{self.weights} weights are too many: they are made in full here; take fewer blocks or a smaller width"
            )

    @property
    def weights(self) -> int:
        """The number of weights in all blocks."""
        return self.blocks * self.width**2 * (4 + 2 * self.ffn_multiple)

    @property
    def skip_scale(self) -> float:
        """What multiplies x in the sum: 1, 0 without skips, (2L)^¼ with "deepnorm"."""
        if self.norm == "deepnorm":
            return (2 * self.blocks) ** 0.25
        return 1.0 if self.skip else 0.0

    @property
    def weight_gain(self) -> float:
        """What multiplies W_V, W_O, W_1 and W_2: 1, (8L)^-¼ with "deepnorm"."""
        return (8 * self.blocks) ** -0.25 if self.norm == "deepnorm" else 1.0


@dataclass(frozen=True, eq=False)
class TransformerFlow:
    """What `propagate` measured of a transformer, block by block, in natural logarithms; -inf where a norm is exactly 0.

    x_l is the matrix of all tokens after block l = 0 … L. ∂E/∂y is a random direction of norm 1 at the output y, which is x_L,
    normalised once more with norm "pre".
    """

    network: Transformer
    seed: int
    log_signal: np.ndarray
    """(trials, L + 1): ln of the root mean square of x_l."""
    log_gradient: np.ndarray
    """(trials, L + 1): ln |∂E/∂x_l| (Frobenius norm)."""
    log_weight_gradient: np.ndarray
    """(trials, L): ln |∂E/∂W| of all matrices of a block together."""
    log_matrix_gradient: np.ndarray
    """(trials, L, 6): ln |∂E/∂W| for W_Q, W_K, W_V, W_O, W_1, W_2 in this order; -inf for what is not there."""
    log_residual: np.ndarray
    """(trials, L + 1): ln |x_l - m_l|/|x_l| for the mean token m_l: how far the tokens are from being all the same."""

    @property
    def trials(self) -> int:
        """The number of independent transformers."""
        return len(self.log_signal)


class Drawn(NamedTuple):
    """All random numbers of one transformer, float32; matrices act from the right."""

    tokens: np.ndarray
    """(tokens, width): x_0."""
    loss: np.ndarray
    """(tokens, width): ∂E/∂y, of norm 1."""
    query: np.ndarray
    """(blocks, width, width): W_Q; the next three likewise."""
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    first: np.ndarray
    """(blocks, width, ffn_multiple · width): W_1."""
    second: np.ndarray
    """(blocks, ffn_multiple · width, width): W_2."""


def draw(network: Transformer, trial: int, seed: int) -> Drawn:
    """The tokens and weights of one of the transformers that `propagate` runs."""
    make = Maker(trial, seed)
    n, inside = network.width, network.ffn_multiple * network.width
    own, common = make.normals((network.tokens, n), TOKENS), make.normals((n,), COMMON)
    tokens = math.sqrt(1 - network.token_correlation) * own + math.sqrt(network.token_correlation) * common
    loss = make.normals((network.tokens, n), LOSS)
    loss *= 1 / math.sqrt(sum_of_squares(loss))
    shapes = [(n, n)] * 4 + [(n, inside), (inside, n)]
    variances = [network.query_variance] * 2 + [network.weight_variance] * 3 + [network.second_variance]
    gains = [1.0] * 2 + [network.weight_gain] * 4
    matrices = []
    for index, (shape, variance, gain) in enumerate(zip(shapes, variances, gains, strict=True)):
        scale = gain * math.sqrt(variance / shape[0]) if shape[0] else 0.0
        matrices.append(scale * make.normals((network.blocks, *shape), u32(QUERY + index)))
    return Drawn(tokens, loss, *matrices)


@njit(**STRICT)
def combined(a, x, b, y):
    """a x + b y."""
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = fma(a, x[i, j], b * y[i, j])
    return out


@njit(**STRICT)
def double(x):
    """The matrix in float64."""
    out = np.empty(x.shape, np.float64)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = f64(x[i, j])
    return out


@njit(**STRICT)
def normalised(x):
    """N(x): each row minus its mean, over its standard deviation; and 1 over the latter."""
    out, scales = np.empty_like(x), np.empty(len(x))
    n = x.shape[1]
    for i in range(len(x)):
        mean, square = 0.0, 0.0
        for j in range(n):
            mean += x[i, j]
        mean /= n
        for j in range(n):
            square = fma(x[i, j] - mean, x[i, j] - mean, square)
        scales[i] = 1.0 / math.sqrt(square / n + EPSILON)
        for j in range(n):
            out[i, j] = (x[i, j] - mean) * scales[i]
    return out, scales


@njit(**STRICT)
def back_through_norm(y, scales, g):
    """(g - mean(g) - y mean(g y))/std for y = N(x)."""
    out = np.empty_like(g)
    n = g.shape[1]
    for i in range(len(g)):
        mean, along = 0.0, 0.0
        for j in range(n):
            mean += g[i, j]
            along = fma(g[i, j], y[i, j], along)
        for j in range(n):
            out[i, j] = (g[i, j] - mean / n - y[i, j] * (along / n)) * scales[i]
    return out


@njit(**STRICT)
def part(x, head, size):
    """The columns of one head, row by row in memory."""
    out = np.empty((len(x), size))
    for i in range(len(x)):
        for j in range(size):
            out[i, j] = x[i, head * size + j]
    return out


@njit(**STRICT)
def put(x, head, size, out):
    for i in range(len(x)):
        for j in range(size):
            out[i, head * size + j] = x[i, j]


@njit(**STRICT)
def attention_weights(q, k, scale):
    """A = softmax(scale · q kᵀ), row by row."""
    a = product(q, transposed(k))
    for i in range(len(a)):
        largest = -math.inf
        for j in range(len(k)):
            a[i, j] *= scale
            largest = max(largest, a[i, j])
        total = 0.0
        for j in range(len(k)):
            a[i, j] = exp64(a[i, j] - largest)
            total += a[i, j]
        for j in range(len(k)):
            a[i, j] /= total
    return a


@njit(**STRICT)
def mixed(q, k, v, heads, scale):
    """A V for all heads side by side."""
    size = q.shape[1] // heads
    out = np.empty_like(q)
    for head in range(heads):
        a = attention_weights(part(q, head, size), part(k, head, size), scale)
        put(product(a, part(v, head, size)), head, size, out)
    return out


@njit(**STRICT)
def back_through_mixing(q, k, v, g, heads, scale):
    """(∂E/∂q, ∂E/∂k, ∂E/∂v) for g = ∂E/∂(A V): ∂E/∂S = A ⊙ (∂E/∂A - (∂E/∂A ⊙ A) 1)."""
    size = q.shape[1] // heads
    of_q, of_k, of_v = np.empty_like(q), np.empty_like(q), np.empty_like(q)
    for head in range(heads):
        own_q, own_k, own_g = part(q, head, size), part(k, head, size), part(g, head, size)
        a = attention_weights(own_q, own_k, scale)
        of_a = product(own_g, transposed(part(v, head, size)))
        put(product(transposed(a), own_g), head, size, of_v)
        for i in range(len(a)):
            along = 0.0
            for j in range(len(a)):
                along = fma(of_a[i, j], a[i, j], along)
            for j in range(len(a)):
                of_a[i, j] = a[i, j] * (of_a[i, j] - along) * scale
        put(product(of_a, own_k), head, size, of_q)
        put(product(transposed(of_a), own_q), head, size, of_k)
    return of_q, of_k, of_v


@njit(**STRICT)
def log_norm(x):
    return 0.5 * log64(sum_of_squares(x))


@njit(**STRICT)
def log_spread(x):
    """ln |x - m| - ln |x| for the mean row m."""
    mean = np.zeros(x.shape[1])
    for i in range(len(x)):
        for j in range(x.shape[1]):
            mean[j] += x[i, j]
    square = 0.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            off = x[i, j] - mean[j] / len(x)
            square = fma(off, off, square)
    return 0.5 * log64(square) - log_norm(x)


ACTIVATE = types.void(types.float64[:, ::1], types.float64[:, ::1])
RUN = types.void(
    types.FunctionType(ACTIVATE),
    types.Tuple([types.float32[:, ::1]] * 2 + [types.float32[:, :, ::1]] * 6),
    types.int64, types.float64, types.float64, types.float64, types.boolean, types.boolean,
    types.float64[::1], types.float64[::1], types.float64[::1], types.float64[:, ::1], types.float64[::1],
)  # fmt: skip


@functools.cache
def activate_function(name: str, sources: str = SOURCES):
    """The kernel that puts φ(z) in the place of z, and φ′(z) beside it."""

    @njit(ACTIVATE, cache=True, nogil=True, **STRICT)
    def activate(z, slope):
        sources  # noqa: B018  # in the cache's key
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                phi, slope_ij = value_and_slope(name, f32(z[i, j]))
                z[i, j], slope[i, j] = f64(phi), f64(slope_ij)

    return activate


@functools.cache
def transformer_function(sources: str = SOURCES):
    """The kernel that takes one transformer forward and back."""

    @njit(RUN, cache=True, nogil=True, **STRICT)
    def run(
        activate, drawn, heads, score_scale, skip, branch_scale, pre, post,
        log_signal, log_gradient, log_weight_gradient, log_matrix_gradient, log_residual,
    ):  # fmt: skip
        sources  # noqa: B018  # in the cache's key
        tokens, loss, query, key, value, output, first, second = drawn
        blocks, n = len(query), tokens.shape[1]
        has_ffn = first.shape[2] > 0
        inputs = np.empty((2 * blocks, len(tokens), n))  # of every branch
        x = double(tokens)
        for block in range(blocks):
            for half in range(2 if has_ffn else 1):
                inputs[2 * block + half] = x
                u = normalised(x)[0] if pre else x
                if half == 0:
                    q, k = product(u, double(query[block])), product(u, double(key[block]))
                    mix = mixed(q, k, product(u, double(value[block])), heads, score_scale)
                    branch = product(mix, double(output[block]))
                else:
                    inner = product(u, double(first[block]))
                    activate(inner, np.empty_like(inner))
                    branch = product(inner, double(second[block]))
                total = combined(skip, x, branch_scale, branch)
                x = normalised(total)[0] if post else total
            if block == 0:
                log_signal[0], log_residual[0] = log_norm(inputs[0]), log_spread(inputs[0])
            log_signal[block + 1], log_residual[block + 1] = log_norm(x), log_spread(x)
        for block in range(blocks + 1):
            log_signal[block] -= 0.5 * log64(float(n * len(tokens)))

        g, log_scale = double(loss), 0.0
        if pre:
            y, scales = normalised(x)
            g = back_through_norm(y, scales, g)
        log_matrix_gradient[:] = -math.inf
        for block in range(blocks - 1, -2, -1):
            size = log_norm(g)
            if size > -math.inf:
                factor = 1.0 / math.sqrt(sum_of_squares(g))
                g = combined(factor, g, 0.0, g)
            log_scale += size
            log_gradient[block + 1] = log_scale
            if block < 0:
                break
            sizes = log_matrix_gradient[block]
            for half in range(1 if has_ffn else 0, -1, -1):
                x = inputs[2 * block + half]
                u, scales = normalised(x) if pre else (x, np.ones(len(x)))
                if half == 0:
                    w_q, w_k, w_v = double(query[block]), double(key[block]), double(value[block])
                    q, k, v = product(u, w_q), product(u, w_k), product(u, w_v)
                    inner, last = mixed(q, k, v, heads, score_scale), double(output[block])
                    branch = product(inner, last)
                else:
                    w_first, last = double(first[block]), double(second[block])
                    inner = product(u, w_first)
                    slope = np.empty_like(inner)
                    activate(inner, slope)
                    branch = product(inner, last)
                if post:
                    y, norm_scales = normalised(combined(skip, x, branch_scale, branch))
                    g = back_through_norm(y, norm_scales, g)
                of_branch = combined(branch_scale, g, 0.0, g)
                of_inner = product(of_branch, transposed(last))
                u_columns = transposed(u)
                sizes[3 + 2 * half] = log_norm(product(transposed(inner), of_branch))
                if half == 0:
                    of_q, of_k, of_v = back_through_mixing(q, k, v, of_inner, heads, score_scale)
                    sizes[0] = log_norm(product(u_columns, of_q))
                    sizes[1] = log_norm(product(u_columns, of_k))
                    sizes[2] = log_norm(product(u_columns, of_v))
                    of_u = product(of_q, transposed(w_q))
                    of_u = combined(1.0, of_u, 1.0, product(of_k, transposed(w_k)))
                    of_u = combined(1.0, of_u, 1.0, product(of_v, transposed(w_v)))
                else:
                    for i in range(slope.shape[0]):
                        for j in range(slope.shape[1]):
                            of_inner[i, j] *= slope[i, j]
                    sizes[4] = log_norm(product(u_columns, of_inner))
                    of_u = product(of_inner, transposed(w_first))
                if pre:
                    of_u = back_through_norm(u, scales, of_u)
                g = combined(skip, g, 1.0, of_u)
            square = 0.0
            largest = max(sizes)
            for i in range(6):
                square += exp64(2.0 * (sizes[i] - largest)) if sizes[i] > -math.inf else 0.0
                sizes[i] += log_scale
            log_weight_gradient[block] = log_scale + largest + 0.5 * log64(square)

    return run


def run(network: Transformer, trials: int, seed: int, threads: int) -> TransformerFlow:
    """Draw the transformers and take them forward and back; see `propagate`."""
    layers = network.blocks + 1
    outputs = [
        np.empty((trials, *shape)) for shape in ((layers,), (layers,), (layers - 1,), (layers - 1, 6), (layers,))
    ]
    kernel = transformer_function()
    activate = activate_function(network.activation)
    score_scale = 1 / math.sqrt(network.width // network.heads) if network.scaled_scores else 1.0
    constants = (
        network.heads, score_scale, network.skip_scale, network.branch_scale,
        network.norm == "pre", network.norm in ("post", "deepnorm"),
    )  # fmt: skip

    def run_one(trial: int) -> None:
        kernel(activate, tuple(draw(network, trial, seed)), *constants, *(output[trial] for output in outputs))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run_one, range(trials)):
            pass
    return TransformerFlow(network, seed, *outputs)


@dataclass(frozen=True, eq=False)
class TransformerTheory:
    """The prediction for one transformer; see `transformer_theory`."""

    network: Transformer
    log_signal: np.ndarray
    """(L + 1,): ln of the root mean square of x_l."""
    log_gradient: np.ndarray
    """(L + 1,): ½ ln E |∂E/∂x_l|², with |∂E/∂y| = 1."""
    log_second_gradient: np.ndarray
    """(L,): ½ ln E |∂E/∂W_2|² of each block; -inf without feed-forward branches."""
    log_residual: np.ndarray
    """(L + 1,): ½ ln of 1 - c, times (T - 1)/T: how far T tokens of correlation c are from being all the same."""


def transformer_theory(network: Transformer) -> TransformerTheory:
    """Mean-field theory of signals, token correlation and gradients, for infinite width.

    Two numbers go through the network: the variance p of an entry of a token, and its difference d from the covariance of the
    same entry in two tokens, which keeps its digits where tokens become equal. With c = 1 - d/p, attention that mixes with
    weights A makes of them S d + (p - d) and (S - C) d, where S = E Σ_j A_ij² and C = E Σ_j A_ij A_kj. Gradients go back by the
    transposed rules; their way through the scores, and the two directions that a normalisation takes from each token, are left out.
    """
    phi, tokens, alpha = activation(network.activation), network.tokens, network.branch_scale
    skip, gain, pre = network.skip_scale, network.weight_gain**2, network.norm == "pre"
    post = network.norm in ("post", "deepnorm")
    score_variance = network.query_variance**2 * (1 if network.scaled_scores else network.width // network.heads)
    value_gain = (gain * network.weight_variance) ** 2
    p, d = 1.0, 1 - network.token_correlation
    signal, path = [(p, d)], []
    for _ in range(network.blocks):
        for half in ("attention", "feed-forward")[: 2 if network.ffn_multiple else 1]:
            scale = p if pre else 1.0
            p_in, d_in, c = p / scale, d / scale, min(1 - d / p, 1.0)
            if half == "attention":
                own, shared = softmax_moments(score_variance * p_in**2 * (1 - c), c, tokens)
                branch = value_gain * (own * d_in + p_in - d_in), value_gain * (own - shared) * d_in
                back: tuple[float, ...] = own, shared
            else:
                q, second = gain * network.weight_variance * p_in, gain * network.second_variance
                here, two = moments(phi, math.log(q)), pair_moments(phi, math.log(q), c)
                value = math.exp(here.log_value)
                pair = value * two.correlation
                # dE φφ/dc = q E φ′φ′, where φφ has no digits left
                lost = value - pair if 1 - c > CLOSE else q * (d / p) * here.slope
                slopes = [network.weight_variance * gain * second * moment for moment in (here.slope, two.slopes)]
                branch = second * value, second * lost
                back = *slopes, value, pair
            p, d = skip**2 * p + alpha**2 * branch[0], skip**2 * d + alpha**2 * branch[1]
            after = p if post else 1.0
            p, d = p / after, d / after
            path.append((half, back, scale, after))
        signal.append((p, d))

    def log_size(g: float) -> float:
        return 0.5 * math.log(g * tokens * network.width)

    # per entry, and between the same entries of two tokens
    g, h = 1 / (tokens * network.width * (p if pre else 1.0)), 0.0
    gradient, second_gradient = [log_size(g)], []
    for half, back, scale, after in reversed(path):
        g, h = g / after, h / after
        if half == "attention":
            own, shared = back
            of_g = value_gain * (g * own + h * (tokens - 1) * shared)
            of_h = value_gain * (g * (1 - own) / max(tokens - 1, 1) + h * (1 - shared))
        else:
            slope, pair_slope, value, pair = back
            square = tokens * network.ffn_multiple * network.width**2 * alpha**2 * (g * value + (tokens - 1) * h * pair)
            second_gradient.append(0.5 * math.log(square))
            of_g, of_h = slope * g, pair_slope * h
        g, h = skip**2 * g + alpha**2 * of_g / scale, skip**2 * h + alpha**2 * of_h / scale
        if half == "attention":
            gradient.append(log_size(g))
    variances, differences = np.array(signal).T
    with np.errstate(divide="ignore"):
        residual = 0.5 * np.log(np.maximum(differences, 0) / variances * (tokens - 1) / tokens)
    return TransformerTheory(
        network,
        0.5 * np.log(variances),
        np.array(gradient[::-1]),
        np.array(second_gradient[::-1]) if network.ffn_multiple else np.full(network.blocks, -math.inf),
        residual,
    )


@functools.lru_cache(maxsize=1024)
def softmax_moments(variance: float, correlation: float, tokens: int) -> tuple[float, float]:
    """(E Σ_j A_ij², E Σ_j A_ij A_kj) for rows A_i, A_k = softmax of normal scores of this variance, correlated between rows.

    A mean over 2,000 fixed draws: there is no closed form.
    """
    one, other = np.random.default_rng(0).standard_normal((2, 2000, tokens)) * math.sqrt(max(variance, 0.0))
    rows = []
    for scores in (one, correlation * one + math.sqrt(max(1 - correlation**2, 0.0)) * other):
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows.append(weights / weights.sum(axis=1, keepdims=True))
    return float((rows[0] ** 2).sum(axis=1).mean()), float((rows[0] * rows[1]).sum(axis=1).mean())
