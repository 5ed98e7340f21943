"""Deep classifiers with explicit weight matrices: a batch goes forward, the loss's gradient goes back through all weights.

The hidden layers are those of a `Network`; a linear layer to the classes with softmax and cross-entropy stands on top. A
residual network has a linear layer from the features to its width at the bottom. In vector form, for a batch in the rows
of X,

    Z = X Wᵀ + b,   H = φ(Z),   Δ = G ⊙ φ′(Z),   ∂E/∂W = Δᵀ X,   ∂E/∂b = Δᵀ 1,   ∂E/∂X = Δ W.

Everything is float32 and summed in a fixed order (see `products`): the same bits on every processor.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import value_and_slope
from vgp_kernels.arithmetic import HALF, ONE, STRICT, ZERO, exp_and_expm1, f32, f64, fma, log64
from vgp_kernels.cpu import SOURCES, named
from vgp_kernels.initialisers import INITIALISERS
from vgp_kernels.lanes import compile_once, prefer_wide_vectors
from vgp_kernels.network import NORMALISATIONS, RESIDUALS, Network
from vgp_kernels.products import multiply, transpose
from vgp_kernels.propagate import checked_integer
from vgp_kernels.randomness import normal_pair, u32, words

LAWS = ("gaussian", "uniform", "orthogonal")
EPSILON = f32(1e-5)  # added to variances before a norm divides, as in PyTorch
RUNNING = f32(0.1)  # the newest batch's share of the running statistics, as in PyTorch
MATRIX, BIAS = u32(16), u32(17)  # purposes of random words

NONE = 0
BATCH, LAYER, RMS = (1 + NORMALISATIONS.index(name) for name in ("batch", "layer", "rms"))
PREACTIVATION, POSTACTIVATION, TWO_WEIGHTS = (
    1 + list(RESIDUALS).index(name) for name in ("preactivation", "postactivation", "two_weights")
)
OFFSET, FAN_OUT, FAN_IN, BIAS_OFFSET = range(4)  # columns of Plan.table


class Plan(NamedTuple):
    """What the compiled code knows of a network: where each weight matrix lies in the vector of all parameters."""

    depth: int
    residual: int
    normalisation: int
    norm_after: bool
    residual_scale: float
    table: np.ndarray  # (matrices, 4) int64; a bias offset of -1 says that there is no bias


class Workspace(NamedTuple):
    """What a batch leaves behind on its way forward, and room for the way back; all float32."""

    signal: np.ndarray  # (depth + 1, batch, width): h_l
    slope: np.ndarray  # (depth, batch, width): φ′(z)
    active: np.ndarray  # (depth, batch, width): φ(z), where it is not h_l itself
    normed: np.ndarray  # (depth, batch, width): what a norm gave
    inverse: np.ndarray  # (depth, max(batch, width)): 1/√(variance + ε)
    running_mean: np.ndarray  # (depth, width)
    running_variance: np.ndarray  # (depth, width)
    transposed: np.ndarray  # flat: Wᵀ of the layer at hand
    back: np.ndarray  # (3, batch, width)
    logits: np.ndarray  # (batch, classes)
    delta: np.ndarray  # (batch, classes)


f4_1, f4_2, f4_3 = types.float32[::1], types.float32[:, ::1], types.float32[:, :, ::1]
PLAN = types.NamedTuple(
    [types.int64, types.int64, types.int64, types.boolean, types.float64, types.int64[:, ::1]], Plan
)
WORKSPACE = types.NamedTuple([f4_3, f4_3, f4_3, f4_3, f4_2, f4_2, f4_2, f4_1, f4_3, f4_2, f4_2], Workspace)
ACTIVATE = types.void(f4_2, f4_2, f4_2)
FORWARD = types.void(types.FunctionType(ACTIVATE), PLAN, f4_1, f4_2, WORKSPACE, types.boolean)
BACKWARD = types.void(PLAN, f4_1, f4_1, f4_2, WORKSPACE, types.float64[::1])
DRAW = types.void(PLAN, f4_1, types.float64[::1], types.float64, types.int64, types.uint32, types.uint32, types.uint32)


@functools.cache
def activate_function(name: str, sources: str = SOURCES):
    """The kernel (H, D) = (φ(Z), φ′(Z)) of an activation; the loop vectorises only if no two of the arrays are one."""

    @njit(ACTIVATE, cache=True, nogil=True, **STRICT)
    @named(name)
    def activate(z, h, d):
        prefer_wide_vectors()
        sources  # noqa: B018  # in the cache's key
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                h[i, j], d[i, j] = value_and_slope(name, z[i, j])

    return activate


# Layers


@njit(nogil=True, **STRICT)
def weights_of(table, matrix, parameters):
    rows, columns = table[matrix, FAN_OUT], table[matrix, FAN_IN]
    start = table[matrix, OFFSET]
    return parameters[start : start + rows * columns].reshape((rows, columns))


@njit(nogil=True, **STRICT)
def linear_forward(table, matrix, parameters, x, z, transposed):
    """Z = X Wᵀ + b."""
    compile_once()
    weights = weights_of(table, matrix, parameters)
    turned = transposed[: weights.size].reshape((weights.shape[1], weights.shape[0]))
    transpose(weights, turned)
    multiply(x, turned, z)
    start = table[matrix, BIAS_OFFSET]
    if start >= 0:
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                z[i, j] += parameters[start + j]


@njit(nogil=True, **STRICT)
def linear_backward(table, matrix, parameters, gradient, x, delta):
    """∂E/∂W = Δᵀ X and ∂E/∂b = Δᵀ 1."""
    compile_once()
    multiply(delta.T, x, weights_of(table, matrix, gradient))
    start = table[matrix, BIAS_OFFSET]
    if start >= 0:
        gradient[start : start + delta.shape[1]] = ZERO
        for i in range(delta.shape[0]):
            for j in range(delta.shape[1]):
                gradient[start + j] += delta[i, j]


@njit(nogil=True, **STRICT)
def times(x, y):
    """X ← X ⊙ Y."""
    compile_once()
    prefer_wide_vectors()
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] *= y[i, j]


@njit(nogil=True, **STRICT)
def add_scaled(x, scale, branch, total):
    """TOTAL = X + scale · BRANCH."""
    compile_once()
    prefer_wide_vectors()
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[i, j] = fma(scale, branch[i, j], x[i, j])


@njit(nogil=True, **STRICT)
def add(x, y):
    """X ← X + Y."""
    compile_once()
    prefer_wide_vectors()
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += y[i, j]


@njit(nogil=True, **STRICT)
def scaled(scale, x, y):
    """Y = scale · X."""
    compile_once()
    prefer_wide_vectors()
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = scale * x[i, j]


@njit(nogil=True, **STRICT)
def copy(x, y):
    """Y = X."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j]


# Norms


@njit(nogil=True, **STRICT)
def normalise(kind, z, normed, inverse, running_mean, running_variance, training):
    """N(Z): of each unit over the batch, or of each input over its units."""
    compile_once()
    if kind == BATCH:
        normalise_batch(z, normed, inverse, running_mean, running_variance, training)
    else:
        normalise_rows(kind == LAYER, z, normed, inverse)


@njit(nogil=True, **STRICT)
def normalise_batch(z, normed, inverse, running_mean, running_variance, training):
    compile_once()
    prefer_wide_vectors()
    rows, columns = z.shape
    mean, variance = running_mean.copy(), running_variance.copy()
    if training:
        mean[:], variance[:] = ZERO, ZERO
        for i in range(rows):
            for j in range(columns):
                mean[j] += z[i, j]
        for j in range(columns):
            mean[j] /= f32(rows)
        for i in range(rows):
            for j in range(columns):
                centred = z[i, j] - mean[j]
                variance[j] = fma(centred, centred, variance[j])
        for j in range(columns):
            unbiased = variance[j] / f32(rows - 1)
            variance[j] /= f32(rows)
            running_mean[j] = fma(RUNNING, mean[j] - running_mean[j], running_mean[j])
            running_variance[j] = fma(RUNNING, unbiased - running_variance[j], running_variance[j])
    for j in range(columns):
        inverse[j] = ONE / f32(math.sqrt(variance[j] + EPSILON))
    for i in range(rows):
        for j in range(columns):
            normed[i, j] = (z[i, j] - mean[j]) * inverse[j]


@njit(nogil=True, **STRICT)
def normalise_rows(centre, z, normed, inverse):
    compile_once()
    rows, columns = z.shape
    for i in range(rows):
        mean, square = 0.0, 0.0
        if centre:
            for j in range(columns):
                mean += f64(z[i, j])
            mean /= columns
        for j in range(columns):
            square += (z[i, j] - mean) ** 2
        inverse[i] = f32(1.0 / math.sqrt(square / columns + EPSILON))
        for j in range(columns):
            normed[i, j] = (z[i, j] - f32(mean)) * inverse[i]


@njit(nogil=True, **STRICT)
def back_through_norm(kind, g, normed, inverse):
    """G ← ∂E/∂Z from G = ∂E/∂N(Z): what of it is along 1 (but for rms) and along N(Z) is taken out."""
    compile_once()
    rows, columns = g.shape
    if kind == BATCH:
        mean, along = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        for i in range(rows):
            for j in range(columns):
                mean[j] += g[i, j]
                along[j] = fma(g[i, j], normed[i, j], along[j])
        for j in range(columns):
            mean[j] /= f32(rows)
            along[j] /= f32(rows)
        for i in range(rows):
            for j in range(columns):
                g[i, j] = inverse[j] * (g[i, j] - mean[j] - normed[i, j] * along[j])
    else:
        for i in range(rows):
            mean_of_row, along_row = 0.0, 0.0
            for j in range(columns):
                mean_of_row += f64(g[i, j])
                along_row += f64(g[i, j]) * f64(normed[i, j])
            shift = f32(mean_of_row / columns) if kind == LAYER else ZERO
            slope = f32(along_row / columns)
            for j in range(columns):
                g[i, j] = inverse[i] * (g[i, j] - shift - normed[i, j] * slope)


# The whole network


@functools.cache
def forward_function(sources: str = SOURCES):
    """The kernel that takes a batch forward."""

    @njit(FORWARD, cache=True, nogil=True, **STRICT)
    def forward(activate, plan, parameters, inputs, work, training):
        """Fill the workspace's signals, slopes and logits for a batch."""
        sources  # noqa: B018  # in the cache's key
        rows, table, transposed = inputs.shape[0], plan.table, work.transposed
        alpha, norm_before = f32(plan.residual_scale), plan.normalisation != NONE and not plan.norm_after
        z, matrix = work.back[0][:rows], 0
        if plan.residual != NONE:
            linear_forward(table, matrix, parameters, inputs, work.signal[0][:rows], transposed)
            matrix += 1
        for block in range(plan.depth):
            x = inputs if block == 0 and plan.residual == NONE else work.signal[block][:rows]
            out, slope = work.signal[block + 1][:rows], work.slope[block][:rows]
            active = out if plan.residual == NONE else work.active[block][:rows]
            normed, inverse = work.normed[block][:rows], work.inverse[block]
            mean, variance = work.running_mean[block], work.running_variance[block]
            if plan.residual == NONE or plan.residual == POSTACTIVATION:
                linear_forward(table, matrix, parameters, x, z, transposed)
                if norm_before:
                    normalise(plan.normalisation, z, normed, inverse, mean, variance, training)
                    activate(normed, active, slope)
                else:
                    activate(z, active, slope)
                if plan.residual != NONE:
                    add_scaled(x, alpha, active, out)
            else:
                u = x
                if norm_before:
                    normalise(plan.normalisation, x, normed, inverse, mean, variance, training)
                    u = normed
                if plan.residual == TWO_WEIGHTS:
                    linear_forward(table, matrix, parameters, u, z, transposed)
                    matrix += 1
                    activate(z, active, slope)
                else:
                    activate(u, active, slope)
                linear_forward(table, matrix, parameters, active, z, transposed)
                add_scaled(x, alpha, z, out)
            if plan.norm_after:
                normalise(plan.normalisation, out, normed, inverse, mean, variance, training)
                copy(normed, out)
            matrix += 1
        linear_forward(table, matrix, parameters, work.signal[plan.depth][:rows], work.logits[:rows], transposed)

    return forward


@njit(nogil=True, **STRICT)
def cross_entropy(logits, labels, delta):
    """(Σ -ln p(label), how many are right); delta becomes the mean loss's gradient. NaN where a logit is not finite."""
    compile_once()
    rows, classes = logits.shape
    loss, right = 0.0, 0
    for i in range(rows):
        largest, best, total = logits[i, 0], 0, ZERO
        for j in range(classes):
            total += logits[i, j]
            if logits[i, j] > largest:
                largest, best = logits[i, j], j
        if not math.isfinite(total):
            return math.nan, 0
        total = ZERO
        for j in range(classes):
            delta[i, j], _ = exp_and_expm1(logits[i, j] - largest)
            total += delta[i, j]
        for j in range(classes):
            delta[i, j] /= total * f32(rows)
        label = labels[i]
        delta[i, label] -= ONE / f32(rows)
        loss += log64(f64(total)) - f64(logits[i, label] - largest)
        right += best == label
    return loss, right


@functools.cache
def backward_function(sources: str = SOURCES):
    """The kernel that takes the loss's gradient back."""

    @njit(BACKWARD, cache=True, nogil=True, **STRICT)
    def backward(plan, parameters, gradient, inputs, work, norms):
        """The gradient of all parameters from work.delta, and |∂E/∂h_l| in norms, unless that is empty."""
        sources  # noqa: B018  # in the cache's key
        rows, table = inputs.shape[0], plan.table
        alpha, norm_before = f32(plan.residual_scale), plan.normalisation != NONE and not plan.norm_after
        g, branch, other = work.back[0][:rows], work.back[1][:rows], work.back[2][:rows]
        matrix = table.shape[0] - 1
        linear_backward(table, matrix, parameters, gradient, work.signal[plan.depth][:rows], work.delta[:rows])
        multiply(work.delta[:rows], weights_of(table, matrix, parameters), g)
        for block in range(plan.depth - 1, -1, -1):
            if norms.size > 0:
                norms[block + 1] = norm(g)
            plain = plan.residual == NONE
            x = inputs if block == 0 and plain else work.signal[block][:rows]
            slope, active = work.slope[block][:rows], work.active[block][:rows]
            normed, inverse = work.normed[block][:rows], work.inverse[block]
            if plan.norm_after:
                back_through_norm(plan.normalisation, g, normed, inverse)
            matrix -= 1
            if plain or plan.residual == POSTACTIVATION:
                scaled(alpha, g, branch)
                times(branch, slope)  # Δ = G ⊙ φ′(Z)
                if norm_before:
                    back_through_norm(plan.normalisation, branch, normed, inverse)
                linear_backward(table, matrix, parameters, gradient, x, branch)
                if plain:
                    if block > 0:
                        multiply(branch, weights_of(table, matrix, parameters), g)
                    elif norms.size > 0:
                        to_inputs = np.empty(inputs.shape, np.float32)
                        multiply(branch, weights_of(table, matrix, parameters), to_inputs)
                        norms[0] = norm(to_inputs)
                    continue
                multiply(branch, weights_of(table, matrix, parameters), other)
            else:
                scaled(alpha, g, branch)
                linear_backward(table, matrix, parameters, gradient, active, branch)
                multiply(branch, weights_of(table, matrix, parameters), other)
                times(other, slope)
                if plan.residual == TWO_WEIGHTS:
                    matrix -= 1
                    linear_backward(table, matrix, parameters, gradient, normed if norm_before else x, other)
                    multiply(other, weights_of(table, matrix, parameters), branch)
                    copy(branch, other)
                if norm_before:
                    back_through_norm(plan.normalisation, other, normed, inverse)
            add(g, other)
        if plan.residual != NONE:
            if norms.size > 0:
                norms[0] = norm(g)
            linear_backward(table, matrix - 1, parameters, gradient, inputs, g)

    return backward


@njit(nogil=True, **STRICT)
def norm(x):
    """The Frobenius norm, summed in float64."""
    compile_once()
    total = 0.0
    for row in x:
        for entry in row:
            total += f64(entry) * f64(entry)
    return math.sqrt(total)


# Random weights


@njit(**STRICT)
def fill(vector, scale, uniform, trial, matrix, purpose, seed_low, seed_high):
    """Independent entries of standard deviation `scale`, normal or uniform."""
    compile_once()
    width = scale * f32(math.sqrt(3.0))
    for start in range(0, vector.size, 4):
        w0, w1, w2, w3 = words(u32(start // 4), trial, u32(matrix), purpose, seed_low, seed_high)
        if uniform:
            four = (symmetric(w0), symmetric(w1), symmetric(w2), symmetric(w3))
            factor = width
        else:
            e0, e1 = normal_pair(w0, w1)
            e2, e3 = normal_pair(w2, w3)
            four = (e0, e1, e2, e3)
            factor = scale
        for k in range(min(4, vector.size - start)):
            vector[start + k] = factor * four[k]


@njit(**STRICT)
def symmetric(word):
    """Uniform in (-1, 1), from the 24 highest bits of a word."""
    return (f32(np.int32(word >> u32(8))) + HALF) * f32(2.0**-23) - ONE


@njit(**STRICT)
def fill_orthogonal(weights, gain, normals):
    """gain times a Haar matrix: by induction over m, Q_m = H diag(1, Q_{m-1}) with the reflection H that takes e_1 to a
    random direction (Diaconis & Shahshahani 1987)."""
    n = weights.shape[0]
    q = np.zeros((n, n))
    v = np.empty(n)
    for m in range(1, n + 1):
        first, stream = n - m, m * (m - 1) // 2
        length = 0.0
        for i in range(m):
            v[i] = f64(normals[stream + i])
            length += v[i] * v[i]
        length = math.sqrt(length)
        rest = 0.0
        for i in range(m):
            v[i] /= length
            if i > 0:
                rest += v[i] * v[i]
        q[first, first] = 1.0
        if m == 1:
            q[first, first] = v[0]
            continue
        # v = u - e_1, its first entry without cancellation
        v[0] = -rest / (1.0 + v[0]) if v[0] > 0.0 else v[0] - 1.0
        square = rest + v[0] * v[0]
        if square > 0.0:
            for j in range(first, n):
                along = 0.0
                for i in range(m):
                    along += v[i] * q[first + i, j]
                along *= 2.0 / square
                for i in range(m):
                    q[first + i, j] -= along * v[i]
    for i in range(n):
        for j in range(n):
            weights[i, j] = f32(gain * q[i, j])


@functools.cache
def draw_function(sources: str = SOURCES):
    """The kernel that draws all parameters of one network."""

    @njit(DRAW, cache=True, nogil=True, **STRICT)
    def draw(plan, parameters, variances, bias_variance, law, trial, seed_low, seed_high):
        sources  # noqa: B018  # in the cache's key
        matrices = plan.table.shape[0]
        parameters[:] = ZERO
        for matrix in range(matrices):
            weights = weights_of(plan.table, matrix, parameters)
            on_the_rim = matrix == matrices - 1 or (matrix == 0 and plan.residual != NONE)
            if law == 2 and not on_the_rim:
                normals = np.empty(weights.shape[0] * (weights.shape[0] + 1) // 2, np.float32)
                fill(normals, ONE, law == 1, trial, matrix, MATRIX, seed_low, seed_high)
                fill_orthogonal(weights, math.sqrt(variances[matrix]), normals)
            else:
                deviation = f32(math.sqrt(variances[matrix] / weights.shape[1]))
                fill(weights.reshape(weights.size), deviation, law == 1, trial, matrix, MATRIX, seed_low, seed_high)
            start = plan.table[matrix, BIAS_OFFSET]
            if start >= 0 and bias_variance > 0.0:
                biases = parameters[start : start + weights.shape[0]]
                fill(biases, f32(math.sqrt(bias_variance)), law == 1, trial, matrix, BIAS, seed_low, seed_high)

    return draw


# What users call


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters of a classifier, each matrix of shape (fan_out, fan_in), from the features to the classes.

    A residual network begins with the matrix from the features to its width. A bias is None where the block has none.
    """

    matrices: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray | None, ...]


@dataclass(frozen=True, eq=False)
class WeightGradients:
    """What `weight_gradients` found for one batch."""

    loss: float
    accuracy: float
    signal: np.ndarray
    """(depth + 1): root mean square of h_l over units and batch, l = 0 … depth; h_0 is what enters the first block."""
    gradient: np.ndarray
    """(depth + 1): |∂E/∂h_l|, the Frobenius norm over units and batch, of the batch's mean loss E."""
    weight_gradient: np.ndarray
    """(matrices): |∂E/∂W|, the Frobenius norms, from the features to the classes."""
    gradients: Weights
    """∂E/∂W and ∂E/∂b themselves."""


def initial_weights(
    network: Network, features: int, classes: int, trial: int = 0, seed: int = 0, law: str | None = None
) -> Weights:
    """The weights with which `train` starts network number `trial`, as float32 arrays.

    `law` is "gaussian", "uniform" (entries between ±√(3σ_w²/fan_in)) or "orthogonal"; unless given, that of the
    network's initialiser. Biases follow the same law with variance σ_b². In an orthogonal network the biases, the output
    layer and the bottom layer of a residual network are Gaussian, of the same variances.

    Raises TypeError or ValueError for bad input.
    """
    plan, size = make_plan(network, features, classes)
    trial, seed = checked_integer("trial", trial, 0, 2**31 - 1), checked_integer("seed", seed, 0, 2**64 - 1)
    parameters = np.empty(size, np.float32)
    draw_parameters(network, plan, parameters, trial, seed, checked_law(network, plan, law))
    return unpacked(plan, parameters)


def weight_gradients(network: Network, weights: Weights, inputs: Any, labels: Any) -> WeightGradients:
    """Send one batch forward and back through given weights.

    `inputs` is (batch, features), `labels` are whole numbers from 0 to classes - 1. Batch normalisation takes the
    statistics of this batch.

    Raises TypeError or ValueError for bad input.
    """
    inputs, labels = checked_examples("inputs", inputs, labels)
    if not isinstance(weights, Weights) or not weights.matrices:
        raise TypeError(f"weights must be Weights, as initial_weights returns them, not {type(weights).__name__}")
    plan, size = make_plan(network, inputs.shape[1], np.shape(weights.matrices[-1])[0])
    classes = int(plan.table[-1, FAN_OUT])
    check_labels("labels", labels, classes)
    check_batch(network, len(inputs))
    parameters, gradient = packed(plan, size, weights), np.zeros(size, np.float32)
    work = make_workspace(network, plan, len(inputs))
    norms = np.empty(plan.depth + 1)
    forward_function()(activate_function(network.activation), plan, parameters, inputs, work, True)
    loss, right = cross_entropy(work.logits, labels, work.delta)
    backward_function()(plan, parameters, gradient, inputs, work, norms)
    signals = [work.signal[0] if plan.residual else inputs, *work.signal[1:]]
    gradients = unpacked(plan, gradient)
    return WeightGradients(
        loss / len(inputs),
        right / len(inputs),
        np.array([norm(x) / math.sqrt(x.size) for x in signals]),
        norms,
        np.array([norm(matrix) for matrix in gradients.matrices]),
        gradients,
    )


def make_plan(network: Network, features: int, classes: int) -> tuple[Plan, int]:
    """Where the parameters of a classifier lie, and how many there are."""
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(5, 64, 'relu', 'he')")
    features = checked_integer("features", features, 1, 10_000_000)
    classes = checked_integer("classes", classes, 2, 1_000_000)
    if network.residual is None and network.input_width not in (None, features, network.width):
        raise ValueError(
            f"the inputs have {features} features, but the network's input_width is {network.input_width}; leave it out"
        )
    residual = 0 if network.residual is None else 1 + list(RESIDUALS).index(network.residual)
    normalisation = 0 if network.normalisation is None else 1 + NORMALISATIONS.index(network.normalisation)
    shapes = []  # (fan_out, fan_in, has a bias)
    if residual:
        shapes.append((network.width, features, True))
    for block in range(network.depth):
        fan_in = features if block == 0 and not residual else network.width
        shapes.append((network.width, fan_in, residual != PREACTIVATION))
        if residual == TWO_WEIGHTS:
            shapes.append((network.width, network.width, False))
    shapes.append((classes, network.width, True))
    table, size = np.empty((len(shapes), 4), np.int64), 0
    for matrix, (fan_out, fan_in, biased) in enumerate(shapes):
        after = size + fan_out * fan_in
        table[matrix] = size, fan_out, fan_in, after if biased else -1
        size = after + fan_out * biased
    norm_after = network.normalisation is not None and network.norm_position == "post"
    return Plan(network.depth, residual, normalisation, norm_after, network.residual_scale, table), size


def make_workspace(network: Network, plan: Plan, batch: int) -> Workspace:
    depth, width, classes = network.depth, network.width, int(plan.table[-1, FAN_OUT])
    largest = int((plan.table[:, FAN_OUT] * plan.table[:, FAN_IN]).max())
    shapes = (
        (depth + 1, batch, width), (depth, batch, width), (depth, batch, width),
        (depth, batch if network.normalisation else 0, width), (depth, max(batch, width)),
        (depth, width), (depth, width), (largest,), (3, batch, width), (batch, classes), (batch, classes),
    )  # fmt: skip
    work = Workspace(*(np.zeros(shape, np.float32) for shape in shapes))
    work.running_variance[:] = 1
    return work


def draw_parameters(network: Network, plan: Plan, parameters: np.ndarray, trial: int, seed: int, law: int) -> None:
    variances = np.full(len(plan.table), network.weight_variance)
    if network.initialiser is not None and network.law != "orthogonal":
        rule = INITIALISERS[network.initialiser]
        variances[:] = [rule.variance(fan_in, fan_out) for _, fan_out, fan_in, _ in plan.table.tolist()]
    draw_function()(
        plan, parameters, variances, network.bias_variance, law, u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32)
    )


def unpacked(plan: Plan, parameters: np.ndarray) -> Weights:
    """Views of the matrices and biases in the vector of all parameters."""
    matrices, biases = [], []
    for offset, fan_out, fan_in, bias in plan.table.tolist():
        matrices.append(parameters[offset : offset + fan_out * fan_in].reshape(fan_out, fan_in))
        biases.append(parameters[bias : bias + fan_out] if bias >= 0 else None)
    return Weights(tuple(matrices), tuple(biases))


def packed(plan: Plan, size: int, weights: Weights) -> np.ndarray:
    """The vector of all parameters; ValueError where a shape is not the network's."""
    parameters = np.empty(size, np.float32)
    views = unpacked(plan, parameters)
    if not len(weights.matrices) == len(weights.biases) == len(views.matrices):
        raise ValueError(
            f"this network has {len(views.matrices)} weight matrices and as many biases (None where a block has none), "
            f"not {len(weights.matrices)} and {len(weights.biases)}"
        )
    for kind in ("matrices", "biases"):
        pairs = zip(getattr(views, kind), getattr(weights, kind), strict=True)
        for index, (view, given) in enumerate(pairs):
            values = None if given is None else in_memory(given)
            wanted, found = None if view is None else view.shape, None if values is None else values.shape
            if wanted != found:
                raise ValueError(f"{kind}[{index}] must have the shape {wanted} (fan_out, fan_in), not {found}")
            if view is not None:
                view[:] = values
    return parameters


def in_memory(array: Any) -> np.ndarray:
    """The array as NumPy's; what lies on a GPU (an array of CuPy, PyTorch, Numba, ...) is copied."""
    if not hasattr(array, "__cuda_array_interface__"):
        return np.asarray(array)
    from numba import cuda

    return cuda.as_cuda_array(array).copy_to_host()


def checked_law(network: Network, plan: Plan, law: str | None) -> int:
    """The law's number in LAWS."""
    law = network.law if law is None else law
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    if network.law == "orthogonal" and law != "orthogonal":
        raise ValueError(
            f"initialiser 'orthogonal' and law {law!r} contradict each other; give weight_variance instead"
        )
    if law == "orthogonal" and not plan.residual and plan.table[0, FAN_IN] != network.width:
        raise ValueError(
            f"orthogonal weights are square: {plan.table[0, FAN_IN]} features do not fit width {network.width}; "
            "take that width, a residual network, or another law"
        )
    return LAWS.index(law)


def checked_examples(name: str, inputs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as (examples, features) float32, labels as int64."""
    inputs, labels = in_memory(inputs), in_memory(labels)
    if inputs.ndim != 2 or 0 in inputs.shape or inputs.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers of shape (examples, features), not {inputs.dtype} {inputs.shape}")
    if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {len(inputs)} whole numbers, one for each of the {name}, not {labels.dtype} {labels.shape}"
        )
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(inputs, np.float32)
    if not np.isfinite(inputs).all():
        raise ValueError(f"{name} must be finite in float32; they hold NaN or infinity")
    return inputs, np.ascontiguousarray(labels, np.int64)


def check_labels(name: str, labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name} must be from 0 to {classes - 1}, not {labels.min()} to {labels.max()}")


def check_batch(network: Network, batch: int) -> None:
    if network.normalisation == "batch" and batch < 2:
        raise ValueError("batch normalisation needs a batch of at least 2 examples")
