"""Deep classifiers with explicit weight matrices: a batch goes forward, the loss's gradient goes back through all weights.

The hidden layers are those of a `Network`; a linear layer to the classes with softmax and cross-entropy stands on top. A
residual network has a linear layer from the features to its width at the bottom. In vector form, for a batch in the rows
of X,

    Z = X Wᵀ + b,   H = φ(Z),   Δ = G ⊙ φ′(Z),   ∂E/∂W = Δᵀ X,   ∂E/∂b = Δᵀ 1,   ∂E/∂X = Δ W.

Everything is float32 and summed in a fixed order (see `products`): the same bits on every processor.

A block of threads can share a network (see `lanes`): every function here that deals entries to them ends with a barrier.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import value_and_slope
from vgp_kernels.network import NORMALISATIONS, RESIDUALS
from vgp_kernels.numerics.arithmetic import HALF, ONE, STRICT, ZERO, exp_and_expm1, f32, f64, fma, log64
from vgp_kernels.numerics.lanes import (
    address,
    columns_of_lane,
    compile_once,
    double_matrix,
    doubles,
    float_matrix,
    floats,
    integers,
    mine,
    prefer_wide_vectors,
    put,
    rows_of_warp,
    together,
)
from vgp_kernels.numerics.products import times_matrix, turn, turned_times_matrix
from vgp_kernels.numerics.randomness import normal_pair, u32, words
from vgp_kernels.numerics.watch import WATCH, stopped
from vgp_kernels.targets.cache import cached, named

LAWS = ("gaussian", "uniform", "orthogonal")
GAUSSIAN, UNIFORM, ORTHOGONAL = range(3)
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
    width: int
    residual: int
    normalisation: int
    norm_after: bool
    residual_scale: float
    table: np.ndarray  # (matrices, 4) int64; a bias offset of -1 says that there is no bias


class Workspace(NamedTuple):
    """What a network is trained in: its parameters, what a batch leaves behind on its way forward, and room for the way back.

    It is one array, and compiled code says by a number where in it a matrix or vector begins: a GPU's threads cannot keep the
    addresses and shapes of a dozen arrays in their registers.
    """

    room: np.ndarray  # flat, float32
    layout: np.ndarray  # (kinds, 2) int64: where the first one of a kind begins, and how far it is to the next one
    terms: np.ndarray  # (2 · batch) float64: each example's loss, then whether it is right


# The kinds: the vectors of all parameters, of the gradient, and of what else an optimiser keeps; a batch of inputs; h_l, φ′(z),
# φ(z) where it is not h_l itself, what a norm gave, and 1/√(variance + ε), of each layer; the running mean and variance; two of
# each unit, for norms; Wᵀ of the layer at hand; three for the way back; logits, and the loss's gradient with respect to them
VECTORS, INPUTS, SIGNAL, SLOPE, ACTIVE, NORMED, INVERSE, STATISTICS, OF_UNITS, TRANSPOSED, BACK, LOGITS, DELTA = range(
    13
)
PARAMETERS, GRADIENT, OTHERS = range(3)  # numbers of the vectors
START, STEP = range(2)  # columns of Workspace.layout
ALIGNED = 16  # floats: a matrix begins at a multiple of them


class Haar(NamedTuple):
    """Room to draw an orthogonal matrix."""

    q: np.ndarray  # (n · n) float64
    v: np.ndarray  # (n) float64
    normals: np.ndarray  # (n (n + 1)/2) float32


f4_1, f4_2 = types.float32[::1], types.float32[:, ::1]
f8_1, f8_2 = types.float64[::1], types.float64[:, ::1]
PLAN = types.NamedTuple(
    [types.int64, types.int64, types.int64, types.int64, types.boolean, types.float64, types.int64[:, ::1]], Plan
)
WORKSPACE = types.NamedTuple([f4_1, types.int64[:, ::1], f8_1], Workspace)
HAAR = types.NamedTuple([f8_1, f8_1, f4_1], Haar)
ACTIVATE = types.void(types.int64, types.int64, types.int64, types.int64, types.int64)
FORWARD = types.void(types.FunctionType(ACTIVATE), PLAN, WORKSPACE, types.int64, types.boolean)
BACKWARD = types.void(PLAN, WORKSPACE, types.int64, f8_1)
DRAW = types.void(PLAN, f4_1, f8_1, types.float64, types.int64, types.uint32, types.uint32, types.uint32, HAAR, WATCH)


def activation_source(name: str):
    """(h, d) = (φ(z), φ′(z)) of n numbers; the loop vectorises only if no two of the arrays are one."""

    @named(name)
    def activate(room, z, h, d, n):
        compile_once()
        prefer_wide_vectors()
        of, value, slope = floats(room, z, n), floats(room, h, n), floats(room, d, n)
        for i in mine(n):
            value[i], slope[i] = value_and_slope(name, of[i])
        together()

    return activate


@functools.cache
def activate_function(name: str):
    """The kernel of an activation."""
    return cached(ACTIVATE, nogil=True, **STRICT)(activation_source(name))


# Layers. `room` is an address; x, y, z, ... say where in it matrices begin


@njit(inline="always", **STRICT)
def at(work, kind, index):
    """Where the matrix of this kind and number begins."""
    return work.layout[kind, START] + index * work.layout[kind, STEP]


@njit(nogil=True, **STRICT)
def add_to_rows(room, x, b, rows, columns):
    """X ← X + 1 bᵀ."""
    compile_once()
    prefer_wide_vectors()
    sums, bias = float_matrix(room, x, rows, columns), floats(room, b, columns)
    for i in rows_of_warp(rows):
        for j in columns_of_lane(columns):
            sums[i, j] += bias[j]
    together()


@njit(nogil=True, **STRICT)
def sum_rows(room, x, b, rows, columns):
    """b = Xᵀ 1."""
    compile_once()
    prefer_wide_vectors()
    terms, sums = float_matrix(room, x, rows, columns), floats(room, b, columns)
    for j in mine(columns):
        sums[j] = ZERO
    for i in range(rows):
        for j in mine(columns):
            sums[j] += terms[i, j]
    together()


@njit(nogil=True, **STRICT)
def linear_forward(plan, index, x, z, work, rows):
    """Z = X Wᵀ + b."""
    room, table, parameters, turned = (
        address(work.room),
        plan.table,
        at(work, VECTORS, PARAMETERS),
        at(work, TRANSPOSED, 0),
    )
    turn(room, parameters + table[index, OFFSET], turned, table[index, FAN_OUT], table[index, FAN_IN])
    times_matrix(room, x, turned, z, rows, table[index, FAN_IN], table[index, FAN_OUT])
    if table[index, BIAS_OFFSET] >= 0:
        add_to_rows(room, z, parameters + table[index, BIAS_OFFSET], rows, table[index, FAN_OUT])


@njit(nogil=True, **STRICT)
def linear_backward(plan, index, x, delta, work, rows):
    """∂E/∂W = Δᵀ X and ∂E/∂b = Δᵀ 1."""
    room, table, gradient = address(work.room), plan.table, at(work, VECTORS, GRADIENT)
    to = gradient + table[index, OFFSET]
    turned_times_matrix(room, delta, x, to, table[index, FAN_OUT], rows, table[index, FAN_IN])
    if table[index, BIAS_OFFSET] >= 0:
        sum_rows(room, delta, gradient + table[index, BIAS_OFFSET], rows, table[index, FAN_OUT])


@njit(nogil=True, **STRICT)
def to_below(plan, index, delta, g, work, rows):
    """G = Δ W."""
    table, weights = plan.table, at(work, VECTORS, PARAMETERS) + plan.table[index, OFFSET]
    times_matrix(address(work.room), delta, weights, g, rows, table[index, FAN_OUT], table[index, FAN_IN])


@njit(nogil=True, **STRICT)
def times(room, x, y, n):
    """x ← x ⊙ y, n entries."""
    compile_once()
    prefer_wide_vectors()
    product, factor = floats(room, x, n), floats(room, y, n)
    for i in mine(n):
        product[i] *= factor[i]
    together()


@njit(nogil=True, **STRICT)
def add_scaled(room, x, scale, y, z, n):
    """z = x + scale · y, n entries."""
    compile_once()
    prefer_wide_vectors()
    one, other, total = floats(room, x, n), floats(room, y, n), floats(room, z, n)
    for i in mine(n):
        total[i] = fma(scale, other[i], one[i])
    together()


@njit(nogil=True, **STRICT)
def add(room, x, y, n):
    """x ← x + y, n entries."""
    compile_once()
    prefer_wide_vectors()
    total, other = floats(room, x, n), floats(room, y, n)
    for i in mine(n):
        total[i] += other[i]
    together()


@njit(nogil=True, **STRICT)
def set_all(room, x, value, n):
    """x = value, n entries."""
    compile_once()
    entries = floats(room, x, n)
    for i in mine(n):
        entries[i] = value
    together()


@njit(nogil=True, **STRICT)
def scaled(room, scale, x, y, n):
    """y = scale · x, n entries."""
    compile_once()
    prefer_wide_vectors()
    given, result = floats(room, x, n), floats(room, y, n)
    for i in mine(n):
        result[i] = scale * given[i]
    together()


# Norms


@njit(nogil=True, **STRICT)
def normalise(plan, block, z, work, rows, training):
    """N(Z): of each unit over the batch, or of each input over its units."""
    room, normed, inverse = address(work.room), at(work, NORMED, block), at(work, INVERSE, block)
    if plan.normalisation == BATCH:
        statistics, of_units = at(work, STATISTICS, block), at(work, OF_UNITS, 0)
        normalise_batch(room, z, normed, inverse, statistics, of_units, rows, plan.width, training)
    else:
        normalise_rows(room, z, normed, inverse, rows, plan.width, plan.normalisation == LAYER)


@njit(nogil=True, **STRICT)
def normalise_batch(room, x, y, inverses, statistics, of_units, rows, columns, training):
    compile_once()
    prefer_wide_vectors()
    running_mean, running_variance = floats(room, statistics, columns), floats(room, statistics + columns, columns)
    mean, variance = floats(room, of_units, columns), floats(room, of_units + columns, columns)
    z, normed, inverse = (
        float_matrix(room, x, rows, columns),
        float_matrix(room, y, rows, columns),
        floats(room, inverses, columns),
    )
    for j in mine(columns):
        mean[j] = ZERO if training else running_mean[j]
        variance[j] = ZERO if training else running_variance[j]
    if training:
        for i in range(rows):
            for j in mine(columns):
                mean[j] += z[i, j]
        for j in mine(columns):
            mean[j] /= f32(rows)
        for i in range(rows):
            for j in mine(columns):
                centred = z[i, j] - mean[j]
                variance[j] = fma(centred, centred, variance[j])
        for j in mine(columns):
            unbiased = variance[j] / f32(rows - 1)
            variance[j] /= f32(rows)
            running_mean[j] = fma(RUNNING, mean[j] - running_mean[j], running_mean[j])
            running_variance[j] = fma(RUNNING, unbiased - running_variance[j], running_variance[j])
    for j in mine(columns):
        inverse[j] = ONE / f32(math.sqrt(variance[j] + EPSILON))
    together()
    for i in rows_of_warp(rows):
        for j in columns_of_lane(columns):
            normed[i, j] = (z[i, j] - mean[j]) * inverse[j]
    together()


@njit(nogil=True, **STRICT)
def normalise_rows(room, x, y, inverses, rows, columns, centre):
    compile_once()
    z, normed, inverse = (
        float_matrix(room, x, rows, columns),
        float_matrix(room, y, rows, columns),
        floats(room, inverses, rows),
    )
    for i in mine(rows):
        mean, square = 0.0, 0.0
        if centre:
            for j in range(columns):
                mean += f64(z[i, j])
            mean /= columns
        for j in range(columns):
            centred = f64(z[i, j]) - mean
            square += centred * centred
        inverse[i] = f32(1.0 / math.sqrt(square / columns + f64(EPSILON)))
        for j in range(columns):
            normed[i, j] = (z[i, j] - f32(mean)) * inverse[i]
    together()


@njit(nogil=True, **STRICT)
def back_through_norm(plan, block, g, work, rows):
    """G ← ∂E/∂Z from G = ∂E/∂N(Z): what of it is along 1 (but for rms) and along N(Z) is taken out."""
    room, normed, inverse, of_units = (
        address(work.room),
        at(work, NORMED, block),
        at(work, INVERSE, block),
        at(work, OF_UNITS, 0),
    )
    if plan.normalisation == BATCH:
        take_out_of_columns(room, g, normed, inverse, of_units, rows, plan.width)
    else:
        take_out_of_rows(room, g, normed, inverse, rows, plan.width, plan.normalisation == LAYER)


@njit(nogil=True, **STRICT)
def take_out_of_columns(room, x, y, inverses, of_units, rows, columns):
    compile_once()
    prefer_wide_vectors()
    mean, along = floats(room, of_units, columns), floats(room, of_units + columns, columns)
    g, normed, inverse = (
        float_matrix(room, x, rows, columns),
        float_matrix(room, y, rows, columns),
        floats(room, inverses, columns),
    )
    for j in mine(columns):
        mean[j], along[j] = ZERO, ZERO
    for i in range(rows):
        for j in mine(columns):
            mean[j] += g[i, j]
            along[j] = fma(g[i, j], normed[i, j], along[j])
    for j in mine(columns):
        mean[j] /= f32(rows)
        along[j] /= f32(rows)
    together()
    for i in rows_of_warp(rows):
        for j in columns_of_lane(columns):
            g[i, j] = inverse[j] * (g[i, j] - mean[j] - normed[i, j] * along[j])
    together()


@njit(nogil=True, **STRICT)
def take_out_of_rows(room, x, y, inverses, rows, columns, centred):
    compile_once()
    g, normed, inverse = (
        float_matrix(room, x, rows, columns),
        float_matrix(room, y, rows, columns),
        floats(room, inverses, rows),
    )
    for i in mine(rows):
        mean, along = 0.0, 0.0
        for j in range(columns):
            mean += f64(g[i, j])
            along += f64(g[i, j]) * f64(normed[i, j])
        shift = f32(mean / columns) if centred else ZERO
        slope = f32(along / columns)
        for j in range(columns):
            g[i, j] = inverse[i] * (g[i, j] - shift - normed[i, j] * slope)
    together()


# The whole network


@njit(nogil=True, **STRICT)
def forward(activate, plan, work, rows, training):
    """Fill the workspace's signals, slopes and logits for a batch."""
    room, inputs, n = address(work.room), at(work, INPUTS, 0), rows * plan.width
    alpha, norm_before = f32(plan.residual_scale), plan.normalisation != NONE and not plan.norm_after
    z, index = at(work, BACK, 0), 0
    if plan.residual != NONE:
        linear_forward(plan, index, inputs, at(work, SIGNAL, 0), work, rows)
        index += 1
    for block in range(plan.depth):
        x = inputs if block == 0 and plan.residual == NONE else at(work, SIGNAL, block)
        out, slope = at(work, SIGNAL, block + 1), at(work, SLOPE, block)
        active = out if plan.residual == NONE else at(work, ACTIVE, block)
        normed = at(work, NORMED, block)
        if plan.residual == NONE or plan.residual == POSTACTIVATION:
            linear_forward(plan, index, x, z, work, rows)
            if norm_before:
                normalise(plan, block, z, work, rows, training)
                activate(room, normed, active, slope, n)
            else:
                activate(room, z, active, slope, n)
            if plan.residual != NONE:
                add_scaled(room, x, alpha, active, out, n)
        else:
            u = x
            if norm_before:
                normalise(plan, block, x, work, rows, training)
                u = normed
            if plan.residual == TWO_WEIGHTS:
                linear_forward(plan, index, u, z, work, rows)
                index += 1
                activate(room, z, active, slope, n)
            else:
                activate(room, u, active, slope, n)
            linear_forward(plan, index, active, z, work, rows)
            add_scaled(room, x, alpha, z, out, n)
        if plan.norm_after:
            normalise(plan, block, out, work, rows, training)
            scaled(room, ONE, normed, out, n)
        index += 1
    linear_forward(plan, index, at(work, SIGNAL, plan.depth), at(work, LOGITS, 0), work, rows)


@functools.cache
def forward_function():
    """The kernel that takes a batch forward."""

    @cached(FORWARD, nogil=True, **STRICT)
    def forward_kernel(activate, plan, work, rows, training):
        forward(activate, plan, work, rows, training)

    return forward_kernel


@njit(nogil=True, **STRICT)
def cross_entropy(room, scores, errors, of_examples, results, rows, classes):
    """(Σ -ln p(label), how many are right) of the logits at `scores`; at `errors`, the mean loss's gradient. NaN where a logit is
    not finite."""
    compile_once()
    logits, delta = float_matrix(room, scores, rows, classes), float_matrix(room, errors, rows, classes)
    labels, terms = integers(of_examples, 0, rows), double_matrix(results, 0, 2, rows)
    for i in mine(rows):
        largest, best, total = logits[i, 0], 0, ZERO
        for j in range(classes):
            total += logits[i, j]
            if logits[i, j] > largest:
                largest, best = logits[i, j], j
        terms[0, i], terms[1, i] = math.nan, 0.0
        if math.isfinite(total):
            total = ZERO
            for j in range(classes):
                delta[i, j], _ = exp_and_expm1(logits[i, j] - largest)
                total += delta[i, j]
            for j in range(classes):
                delta[i, j] /= total * f32(rows)
            label = labels[i]
            delta[i, label] -= ONE / f32(rows)
            terms[0, i] = log64(f64(total)) - f64(logits[i, label] - largest)
            terms[1, i] = 1.0 if best == label else 0.0
    together()
    loss, right = 0.0, 0.0
    for i in range(rows):
        loss += terms[0, i]
        right += terms[1, i]
    together()
    return loss, (0.0 if math.isnan(loss) else right)


@njit(nogil=True, **STRICT)
def backward(plan, work, rows, norms):
    """The gradient of all parameters from DELTA, and |∂E/∂h_l| in norms, unless that is empty."""
    room, inputs, n = address(work.room), at(work, INPUTS, 0), rows * plan.width
    alpha, norm_before = f32(plan.residual_scale), plan.normalisation != NONE and not plan.norm_after
    g, branch, other = at(work, BACK, 0), at(work, BACK, 1), at(work, BACK, 2)
    index = plan.table.shape[0] - 1
    delta = at(work, DELTA, 0)
    linear_backward(plan, index, at(work, SIGNAL, plan.depth), delta, work, rows)
    to_below(plan, index, delta, g, work, rows)
    for block in range(plan.depth - 1, -1, -1):
        if norms.size > 0:
            norms[block + 1] = norm(float_matrix(room, g, rows, plan.width))
        plain = plan.residual == NONE
        x = inputs if block == 0 and plain else at(work, SIGNAL, block)
        slope, active = at(work, SLOPE, block), at(work, ACTIVE, block)
        normed = at(work, NORMED, block)
        if plan.norm_after:
            back_through_norm(plan, block, g, work, rows)
        index -= 1
        if plain or plan.residual == POSTACTIVATION:
            scaled(room, alpha, g, branch, n)
            times(room, branch, slope, n)  # Δ = G ⊙ φ′(Z)
            if norm_before:
                back_through_norm(plan, block, branch, work, rows)
            linear_backward(plan, index, x, branch, work, rows)
            if plain:
                if block > 0:
                    to_below(plan, index, branch, g, work, rows)
                elif norms.size > 0:
                    to_inputs = at(work, TRANSPOSED, 0)
                    to_below(plan, index, branch, to_inputs, work, rows)
                    norms[0] = norm(float_matrix(room, to_inputs, rows, plan.table[0, FAN_IN]))
                continue
            to_below(plan, index, branch, other, work, rows)
        else:
            scaled(room, alpha, g, branch, n)
            linear_backward(plan, index, active, branch, work, rows)
            to_below(plan, index, branch, other, work, rows)
            times(room, other, slope, n)
            if plan.residual == TWO_WEIGHTS:
                index -= 1
                linear_backward(plan, index, normed if norm_before else x, other, work, rows)
                to_below(plan, index, other, branch, work, rows)
                scaled(room, ONE, branch, other, n)
            if norm_before:
                back_through_norm(plan, block, other, work, rows)
        add(room, g, other, n)
    if plan.residual != NONE:
        if norms.size > 0:
            norms[0] = norm(float_matrix(room, g, rows, plan.width))
        linear_backward(plan, index - 1, inputs, g, work, rows)


@njit(nogil=True, **STRICT)
def loss_of(plan, work, labels, rows):
    """(loss, how many are right) of a batch that has gone forward."""
    logits, delta, classes = at(work, LOGITS, 0), at(work, DELTA, 0), plan.table[plan.table.shape[0] - 1, FAN_OUT]
    return cross_entropy(address(work.room), logits, delta, address(labels), address(work.terms), rows, classes)


@functools.cache
def backward_function():
    """The kernel that takes the loss's gradient back."""

    @cached(BACKWARD, nogil=True, **STRICT)
    def backward_kernel(plan, work, rows, norms):
        backward(plan, work, rows, norms)

    return backward_kernel


@njit(nogil=True, **STRICT)
def norm(x):
    """The Frobenius norm, summed in float64."""
    compile_once()
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += f64(x[i, j]) * f64(x[i, j])
    return math.sqrt(total)


# Random weights


@njit(**STRICT)
def fill(room, x, n, scale, uniform, trial, index, purpose, seed_low, seed_high):
    """Independent entries of standard deviation `scale`, normal or uniform."""
    compile_once()
    entries = floats(room, x, n)
    factor = scale * f32(math.sqrt(3.0)) if uniform else scale
    for quarter in mine((n + 3) // 4):
        w0, w1, w2, w3 = words(u32(quarter), trial, u32(index), purpose, seed_low, seed_high)
        if uniform:
            x0, x1, x2, x3 = symmetric(w0), symmetric(w1), symmetric(w2), symmetric(w3)
        else:
            x0, x1 = normal_pair(w0, w1)
            x2, x3 = normal_pair(w2, w3)
        start, left = 4 * quarter, n - 4 * quarter
        entries[start] = factor * x0
        if left > 1:
            entries[start + 1] = factor * x1
        if left > 2:
            entries[start + 2] = factor * x2
        if left > 3:
            entries[start + 3] = factor * x3
    together()


@njit(**STRICT)
def symmetric(word):
    """Uniform in (-1, 1), from the 24 highest bits of a word."""
    return (f32(np.int32(word >> u32(8))) + HALF) * f32(2.0**-23) - ONE


@njit(**STRICT)
def fill_orthogonal(room, x, n, gain, squares, direction, stream, watch):
    """gain times a Haar matrix: by induction over m, Q_m = H diag(1, Q_{m-1}) with the reflection H that takes e_1 to a
    random direction (Diaconis & Shahshahani 1987)."""
    compile_once()
    q, v, normals = double_matrix(squares, 0, n, n), doubles(direction, 0, n), floats(stream, 0, n * (n + 1) // 2)
    weights = float_matrix(room, x, n, n)
    for i in rows_of_warp(n):
        for j in columns_of_lane(n):
            q[i, j] = 0.0
    for m in range(1, n + 1):
        if stopped(watch):
            return
        first, begin = n - m, m * (m - 1) // 2
        length = 0.0
        for i in range(m):
            length += f64(normals[begin + i]) * f64(normals[begin + i])
        length = math.sqrt(length)
        for i in mine(m):
            v[i] = f64(normals[begin + i]) / length
        together()
        rest = 0.0
        for i in range(1, m):
            rest += v[i] * v[i]
        head = v[0]
        put(q, (first, first), head if m == 1 else 1.0)
        # v = u - e_1, its first entry without cancellation
        head = -rest / (1.0 + head) if head > 0.0 else head - 1.0
        put(v, 0, head)
        square = rest + head * head
        if m > 1 and square > 0.0:
            for j in mine(m):
                along = 0.0
                for i in range(m):
                    along += v[i] * q[first + i, first + j]
                along *= 2.0 / square
                for i in range(m):
                    q[first + i, first + j] -= along * v[i]
        together()
    for i in rows_of_warp(n):
        for j in columns_of_lane(n):
            weights[i, j] = f32(gain * q[i, j])
    together()


@njit(nogil=True, **STRICT)
def draw(plan, parameters, variances, bias_variance, law, trial, seed_low, seed_high, haar, watch):
    """Draw all parameters of one network."""
    room, table, matrices = address(parameters), plan.table, plan.table.shape[0]
    set_all(room, 0, ZERO, parameters.size)
    for index in range(matrices):
        start, fan_out, fan_in = table[index, OFFSET], table[index, FAN_OUT], table[index, FAN_IN]
        on_the_rim = index == matrices - 1 or (index == 0 and plan.residual != NONE)
        if law == ORTHOGONAL and not on_the_rim:
            gain, count, normals = math.sqrt(variances[index]), haar.normals.size, address(haar.normals)
            fill(normals, 0, count, ONE, False, trial, index, MATRIX, seed_low, seed_high)
            fill_orthogonal(room, start, fan_out, gain, address(haar.q), address(haar.v), normals, watch)
        else:
            deviation = f32(math.sqrt(variances[index] / fan_in))
            fill(room, start, fan_out * fan_in, deviation, law == UNIFORM, trial, index, MATRIX, seed_low, seed_high)
        start = table[index, BIAS_OFFSET]
        if start >= 0 and bias_variance > 0.0:
            deviation = f32(math.sqrt(bias_variance))
            fill(room, start, fan_out, deviation, law == UNIFORM, trial, index, BIAS, seed_low, seed_high)


@functools.cache
def draw_function():
    """The kernel that draws all parameters of one network."""

    @cached(DRAW, nogil=True, **STRICT)
    def draw_kernel(plan, parameters, variances, bias_variance, law, trial, seed_low, seed_high, haar, watch):
        draw(plan, parameters, variances, bias_variance, law, trial, seed_low, seed_high, haar, watch)

    return draw_kernel
