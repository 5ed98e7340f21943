"""Networks of every kind - several inputs, norms, skips - forward and back without weight matrices, one network at a time.

A weight W that B inputs H (n × B) pass forward and B gradients Δ pass back need not exist. With H = QR, Q orthonormal,

    W H = Y R,    Wᵀ Δ = Q (YᵀΔ) + (I - QQᵀ) s N R_D,    Δ = Q_D R_D,

where Y = s N₁ and N₁, N have independent normal entries (s = σ_w/√fan_in), has the exact joint law of all activations and
gradients for Gaussian W. It is so for any Q whose span contains the columns of H: their rank does not matter. For
σ_w times a Haar-distributed orthogonal O, Y is a random frame; with P an orthonormal basis of what of Δ is not in its span,

    Oᵀ Δ = [Q X] ([Y P]ᵀ Δ),    X a random frame orthogonal to Q.

P has at most n - rank(H) columns, so that Q and X always fit. In either case |ΔHᵀ|, the norm of ∂E/∂W, is |R_D Rᵀ|.

Here vectors are rows (`frames`), and every row carries a binary exponent of its own, so that signals and gradients can
shrink and grow without end; where φ is linear on either side to the last bit of float32, so do pre-activations.
Going back needs what the layers kept. If all do not fit into MEMORY, the pass forward is done again, a segment at a time.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit, typeof, types
from numba.extending import register_jitable

from vgp_kernels.activations import activation, value_and_slope
from vgp_kernels.batch import normalisation
from vgp_kernels.batch.normalisation import normalise, normalise_back
from vgp_kernels.network import Network
from vgp_kernels.numerics.arithmetic import LN2, STRICT, f32, f64, log64, power_of_two
from vgp_kernels.numerics.frames import (
    NO_EXPONENT,
    ROUNDING,
    add_multiple,
    add_rows,
    combine,
    copy,
    dot,
    extend,
    fill,
    fill_normals,
    keep_in_range,
    largest_exponent,
    mean_cosine,
    shift,
    squared_norm,
)
from vgp_kernels.numerics.frames import scale as rescale
from vgp_kernels.numerics.lanes import compile_once, mine, prefer_wide_vectors, put, row, together
from vgp_kernels.numerics.randomness import BACKWARD, BIASES, FORWARD, INPUTS, LOSS, of_column, u32
from vgp_kernels.numerics.watch import WATCH, halted, stopped
from vgp_kernels.targets.cache import cached, named
from vgp_kernels.targets.pool import announced, share

MEMORY = 2**27  # bytes that one network keeps for the way back
LINEAR = (
    28  # φ is linear, to the last bit of float32, below 2^-28 if φ(0) = 0, and on either side of ±2^28 if unbounded
)

NOWHERE, INPUT, MIDDLE, OUTPUT = range(4)  # where in a block the norm stands
KINDS = {
    None: normalisation.NONE,
    "batch": normalisation.BATCH,
    "batch_inference": normalisation.BATCH_INFERENCE,
    "layer": normalisation.LAYER,
    "rms": normalisation.RMS,
}


class Block(NamedTuple):
    """What the blocks of a network do: [N] [W₁ + b] [N] φ [W₂] [x + α …] [N], and on what sizes."""

    activation: int  # its number, where one function serves all activations; elsewhere it means nothing
    depth: int
    width: int
    input_width: int
    batch_size: int
    first: bool  # whether there is W₁
    second: bool  # whether there is W₂
    residual: bool
    norm: int
    norm_place: int
    orthogonal: bool
    first_scale: float  # of the entries of W₁ in block 1; for orthogonal weights, their gain
    scale: float  # of all other weights
    bias_scale: float
    residual_scale: float
    input_rms: float
    input_correlation: float
    shared_loss: bool  # whether ∂E/∂h_depth is the same for all inputs
    shrinks: bool  # whether the activation is linear near 0
    grows: bool  # whether it is linear on either side far away


class Kept(NamedTuple):
    """What the blocks of a segment keep for the way back; the first index is the block, the second one the weight."""

    q: np.ndarray  # frames that span the weights' inputs
    y: np.ndarray  # the images of these frames
    r: np.ndarray  # the inputs in these frames
    rank: np.ndarray
    exponents: np.ndarray  # of the inputs
    slope: np.ndarray  # φ′(z), float32
    normalised: np.ndarray  # N(x), 1/σ and the exponents that σ is in
    inverse: np.ndarray
    scales: np.ndarray


class Work(NamedTuple):
    """Room to work in."""

    branch: np.ndarray
    branch_exponents: np.ndarray
    inputs: np.ndarray  # [Q X]
    outputs: np.ndarray  # [Y P]
    coefficients: np.ndarray
    product: np.ndarray
    draw: np.ndarray
    draw_coefficients: np.ndarray
    factors: np.ndarray
    rest: np.ndarray


class Room(NamedTuple):
    """All that a network needs."""

    kept: Kept
    work: Work
    x: np.ndarray  # signals, then gradients
    exponents: np.ndarray
    starts: np.ndarray  # the inputs of segments
    start_exponents: np.ndarray


class Key(NamedTuple):
    """Which network's random numbers."""

    trial: np.uint32
    seed_low: np.uint32
    seed_high: np.uint32


ACTIVATE = types.void(types.int64, types.float64[:, ::1], types.int64, types.float64[::1], types.float32[:, ::1])
NUMBA_TYPES = {int: types.int64, float: types.float64, bool: types.boolean, np.uint32: types.uint32}
BLOCK = types.NamedTuple([NUMBA_TYPES[kind] for kind in Block.__annotations__.values()], Block)


def run_signature(room):
    rows, word = types.float64[:, ::1], types.uint32
    return types.void(types.FunctionType(ACTIVATE), BLOCK, types.int64, word, word, word, room, *[rows] * 5, WATCH)


@njit(inline="always", **STRICT)
def weights_of(block):
    """How many weights a block has."""
    return 2 if block.first and block.second else 1


@njit(inline="always", **STRICT)
def apply_activation(name, u, n, factors, slope):
    """u_b ← φ(factor_b u_b), φ′ kept; `name` is what `value_and_slope` takes."""
    for b in range(factors.size):
        for unit in mine(n):
            z = min(max(u[b, unit] * factors[b], -1e30), 1e30)
            h, d = value_and_slope(name, f32(z))
            u[b, unit] = f64(h)
            slope[b, unit] = d


@functools.cache
def activation_function(name: str):
    """The kernel of the activation of this name."""

    @cached(ACTIVATE, nogil=True, **STRICT)
    @named(name)
    def apply(activation, u, n, factors, slope):
        prefer_wide_vectors()
        apply_activation(name, u, n, factors, slope)

    return apply


@njit(**STRICT)
def activate(apply, block, u, exponents, slope, factors):
    """u ← φ(u), at the exponents at which float32 holds it."""
    n = block.width
    for b in range(block.batch_size):
        exponent, target = largest_exponent(row(u, b), n), 0
        if exponent != NO_EXPONENT:
            exponent += exponents[b]
            if block.shrinks:
                target = min(exponent + LINEAR, 0)
            if block.grows:
                target += max(exponent - LINEAR, 0)
        put(factors, b, power_of_two(exponents[b] - target))
        put(exponents, b, target)
    apply(block.activation, u, n, factors, slope)


@njit(**STRICT)
def random_frame(frame, count, size, n, layer, purpose, key, work):
    """Extend the frame to this size by directions that are uniform in what is orthogonal to it."""
    compile_once()
    for j in range(count, size):
        fill_normals(row(work.draw, 0), n, key.trial, layer, of_column(purpose, j), key.seed_low, key.seed_high)
        extend(frame, j, work.draw, np.int64(1), n, work.draw_coefficients, work.rest)


@njit(**STRICT)
def multiply(block, scale, layer, slot, key, u, exponents, n, kept, at, work):
    """u ← W u + b, from rows of n entries; keeps the frame of u, its image, and u in that frame."""
    compile_once()
    batch_size, width = block.batch_size, block.width
    q, y, r = row(row(kept.q, at), slot), row(row(kept.y, at), slot), row(row(kept.r, at), slot)
    copy(row(row(kept.exponents, at), slot), exponents, batch_size)
    rank = extend(q, np.int64(0), u, batch_size, n, r, work.rest)
    put(row(kept.rank, at), slot, rank)
    purpose = u32(FORWARD + u32(slot))
    if block.orthogonal:
        random_frame(y, np.int64(0), rank, width, layer, purpose, key, work)
    else:
        for j in range(rank):
            fill_normals(row(y, j), width, key.trial, layer, of_column(purpose, j), key.seed_low, key.seed_high)
    for b in range(batch_size):
        fill(row(u, b), 0.0, width)
        combine(row(u, b), row(r, b), y, rank, width)
        rescale(row(u, b), scale, width)
    if slot == 0 and block.bias_scale > 0.0:
        fill_normals(row(work.rest, 0), width, key.trial, layer, BIASES, key.seed_low, key.seed_high)
        for b in range(batch_size):
            if exponents[b] < 0:
                shift(row(u, b), exponents[b], width)
                put(exponents, b, 0)
            add_multiple(row(u, b), block.bias_scale * power_of_two(-exponents[b]), row(work.rest, 0), width)
    keep_in_range(u, exponents, batch_size, width)


@njit(**STRICT)
def multiply_back(block, scale, layer, slot, key, g, exponents, n, kept, at, work):
    """g ← Wᵀ g, to rows of n entries; returns ln |∂E/∂W|."""
    compile_once()
    batch_size, width = block.batch_size, block.width
    q, y, r = row(row(kept.q, at), slot), row(row(kept.y, at), slot), row(row(kept.r, at), slot)
    rank, input_exponents = kept.rank[at, slot], row(row(kept.exponents, at), slot)
    inputs, product, coefficients = work.inputs, work.product, work.coefficients
    purpose = u32(BACKWARD + u32(slot))
    count = np.int64(0)
    if block.orthogonal:
        for j in range(rank):
            copy(row(work.outputs, j), row(y, j), width)
            copy(row(inputs, j), row(q, j), n)
        count = rank
    count = extend(work.outputs, count, g, batch_size, width, coefficients, work.rest)
    log_norm = log_norm_of_product(
        coefficients, count, exponents, r, rank, input_exponents, batch_size, work.factors, row(work.rest, 0)
    )  # fmt: skip
    if block.orthogonal:
        random_frame(inputs, rank, count, n, layer, purpose, key, work)
    else:
        for j in range(count):
            fill_normals(row(inputs, j), n, key.trial, layer, of_column(purpose, j), key.seed_low, key.seed_high)
    for b in range(batch_size):
        fill(row(product, b), 0.0, n)
        combine(row(product, b), row(coefficients, b), inputs, count, n)
        if not block.orthogonal:
            for j in range(rank):
                coefficients[b, j] = dot(row(y, j), row(g, b), width) - dot(row(q, j), row(product, b), n)
            combine(row(product, b), row(coefficients, b), q, rank, n)
    for b in range(batch_size):
        for unit in mine(n):
            g[b, unit] = scale * product[b, unit]
    keep_in_range(g, exponents, batch_size, n)
    return log_norm


@njit(**STRICT)
def log_norm_of_product(
    left, rows, left_exponents, right, columns, right_exponents, batch_size, factors, entries
):  # fmt: skip
    """ln |Σ_b left_b right_bᵀ|, the vectors of input b in units of 2^(left_exponents_b + right_exponents_b)."""
    compile_once()
    common = NO_EXPONENT
    for b in range(batch_size):
        if (
            largest_exponent(row(left, b), rows) != NO_EXPONENT
            and largest_exponent(row(right, b), columns) != NO_EXPONENT
        ):
            common = max(common, left_exponents[b] + right_exponents[b])
    if common == NO_EXPONENT:
        return -math.inf
    square = 0.0
    together()
    for b in mine(batch_size):
        factors[b] = power_of_two(left_exponents[b] + right_exponents[b] - common)
    together()
    for i in range(rows):
        for j in mine(columns):
            entry = 0.0
            for b in range(batch_size):
                entry += left[b, i] * right[b, j] * factors[b]
            entries[j] = entry
        together()
        for j in range(columns):
            square += entries[j] * entries[j]
        together()
    return 0.5 * log64(square) + LN2 * common


@njit(**STRICT)
def copy_rows(target, target_exponents, source, source_exponents, batch_size, n):
    compile_once()
    together()
    copy(target_exponents, source_exponents, batch_size)
    for b in range(batch_size):
        copy(row(target, b), row(source, b), n)
    together()


@njit(**STRICT)
def normalise_kept(block, x, exponents, n, kept, at, work):
    normalise(
        block.norm, x, exponents, block.batch_size, n,
        row(kept.normalised, at), row(kept.inverse, at), row(kept.scales, at), work.rest,
    )  # fmt: skip


@njit(**STRICT)
def normalise_kept_back(block, g, exponents, n, kept, at, work):
    normalise_back(
        block.norm, g, exponents, block.batch_size, n,
        row(kept.normalised, at), row(kept.inverse, at), row(kept.scales, at), work.rest,
    )  # fmt: skip


@njit(**STRICT)
def block_forward(apply, block, layer, key, x, exponents, kept, at, work):
    """x ← the output of a block; keeps what its way back needs."""
    compile_once()
    batch_size, n, width = block.batch_size, block.input_width if layer == 1 else block.width, block.width
    scale = block.first_scale if layer == 1 else block.scale
    u, u_exponents = work.branch, work.branch_exponents
    copy_rows(u, u_exponents, x, exponents, batch_size, n)
    if block.norm_place == INPUT:
        normalise_kept(block, u, u_exponents, n, kept, at, work)
    if block.first:
        multiply(block, scale, u32(layer), np.int64(0), key, u, u_exponents, n, kept, at, work)
    if block.norm_place == MIDDLE:
        normalise_kept(block, u, u_exponents, width, kept, at, work)
    activate(apply, block, u, u_exponents, row(kept.slope, at), work.factors)
    if block.second:
        slot = np.int64(1 if block.first else 0)
        multiply(block, block.scale, u32(layer), slot, key, u, u_exponents, width, kept, at, work)
    if block.residual:
        add_rows(x, exponents, u, u_exponents, block.residual_scale, batch_size, width)
    else:
        copy_rows(x, exponents, u, u_exponents, batch_size, width)
    if block.norm_place == OUTPUT:
        normalise_kept(block, x, exponents, width, kept, at, work)
    keep_in_range(x, exponents, batch_size, width)


@njit(**STRICT)
def block_back(block, layer, key, g, exponents, kept, at, work, log_of_loss_gradient, log_weight_gradient):
    """g ← ∂E/∂x at the block's input x, from that at its output; fills in ln |∂E/∂W| of its weights."""
    compile_once()
    batch_size, n, width = block.batch_size, block.input_width if layer == 1 else block.width, block.width
    scale, weights = block.first_scale if layer == 1 else block.scale, weights_of(block)
    v, v_exponents = work.branch, work.branch_exponents
    if block.norm_place == OUTPUT:
        normalise_kept_back(block, g, exponents, width, kept, at, work)
    copy_rows(v, v_exponents, g, exponents, batch_size, width)
    if block.residual:
        for b in range(batch_size):
            rescale(row(v, b), block.residual_scale, width)
    if block.second:
        slot = np.int64(1 if block.first else 0)
        log_norm = multiply_back(block, block.scale, u32(layer), slot, key, v, v_exponents, width, kept, at, work)
        put(log_weight_gradient, (layer - 1) * weights + slot, log_norm - log_of_loss_gradient)
    # δ = g ⊙ φ′(z)
    for b in range(batch_size):
        for unit in mine(width):
            v[b, unit] *= f64(kept.slope[at, b, unit])
    if block.norm_place == MIDDLE:
        normalise_kept_back(block, v, v_exponents, width, kept, at, work)
    if block.first:
        log_norm = multiply_back(block, scale, u32(layer), np.int64(0), key, v, v_exponents, n, kept, at, work)
        put(log_weight_gradient, (layer - 1) * weights, log_norm - log_of_loss_gradient)
    if block.norm_place == INPUT:
        normalise_kept_back(block, v, v_exponents, n, kept, at, work)
    if block.residual:
        add_rows(g, exponents, v, v_exponents, 1.0, batch_size, n)
    else:
        copy_rows(g, exponents, v, v_exponents, batch_size, n)
    keep_in_range(g, exponents, batch_size, n)


@njit(**STRICT)
def draw_inputs(block, key, x, exponents, work):
    """Inputs of given length and pairwise cosine c in random directions: x_b ∝ d_b f_b + Σ_{a<b} l_a f_a for a random frame f."""
    compile_once()
    n, c = block.input_width, block.input_correlation
    shared, used, size = row(work.rest, 3), 0.0, 0  # Σ_{a<b} l_a f_a, its squared length, and how many f there are
    fill(shared, 0.0, n)
    for b in range(block.batch_size):
        copy(row(x, b), shared, n)
        if 1.0 - used > ROUNDING:
            own = math.sqrt(1.0 - used)
            passed_on = (c - used) / own
            random_frame(work.outputs, size, size + 1, n, u32(0), INPUTS, key, work)
            add_multiple(row(x, b), own, row(work.outputs, size), n)
            add_multiple(shared, passed_on, row(work.outputs, size), n)
            used += passed_on * passed_on
            size += 1
        rescale(row(x, b), math.sqrt(f64(n)) * block.input_rms, n)
        put(exponents, b, 0)


@njit(**STRICT)
def draw_loss_gradient(block, key, g, exponents):
    """∂E/∂h_depth: a random direction of all inputs' gradients together, or one direction that they share."""
    compile_once()
    for b in range(block.batch_size):
        column = 0 if block.shared_loss else b
        fill_normals(row(g, b), block.width, key.trial, u32(0), of_column(LOSS, column), key.seed_low, key.seed_high)
        put(exponents, b, 0)


@njit(**STRICT)
def log_norm(rows, exponents, batch_size, n):
    """ln of the norm of all rows together."""
    square, exponent = squared_norm(rows, exponents, batch_size, n)
    return 0.5 * log64(square) + LN2 * exponent


@njit(**STRICT)
def again(apply, block, which, segment, key, room, watch):
    """The pass forward through a segment once more, for what it keeps."""
    x, exponents = row(room.starts, which), row(room.start_exponents, which)
    for at in range(segment):
        if stopped(watch):
            return
        block_forward(apply, block, which * segment + at + 1, key, x, exponents, room.kept, at, room.work)


@njit(**STRICT)
def take_network(
    apply, block, segment, key, room, log_signal, log_gradient, log_weight_gradient, correlation, gradient_correlation, watch
):  # fmt: skip
    """Take one network forward and back."""
    depth, width, input_width, batch_size = block.depth, block.width, block.input_width, block.batch_size
    kept, work, x, exponents = room.kept, room.work, room.x, room.exponents
    draw_inputs(block, key, x, exponents, work)
    for layer in range(depth + 1):
        if halted(watch):
            return
        if layer > 0:
            if (layer - 1) % segment == 0:
                at = (layer - 1) // segment
                copy_rows(
                    row(room.starts, at), row(room.start_exponents, at), x, exponents, batch_size, x.shape[1]
                )  # fmt: skip
            block_forward(apply, block, layer, key, x, exponents, kept, (layer - 1) % segment, work)
        n = width if layer > 0 else input_width
        put(log_signal, layer, log_norm(x, exponents, batch_size, n) - 0.5 * log64(f64(n * batch_size)))
        put(correlation, layer, mean_cosine(x, batch_size, n, work.rest))

    draw_loss_gradient(block, key, x, exponents)
    log_of_loss_gradient = log_norm(x, exponents, batch_size, width)
    for layer in range(depth, -1, -1):
        if halted(watch):
            return
        if layer < depth:
            at = layer % segment
            if at == segment - 1:
                again(apply, block, layer // segment, segment, key, room, watch)
            block_back(
                block, layer + 1, key, x, exponents, kept, at, work, log_of_loss_gradient, log_weight_gradient
            )  # fmt: skip
        n = width if layer > 0 else input_width
        put(log_gradient, layer, log_norm(x, exponents, batch_size, n) - log_of_loss_gradient)
        put(gradient_correlation, layer, mean_cosine(x, batch_size, n, work.rest))


@register_jitable
def shapes(block, segment):
    """The room that a network needs."""
    depth, width, input_width, batch_size = block.depth, block.width, block.input_width, block.batch_size
    widest = (max(width, input_width) + 3) // 4 * 4  # whole groups of normals
    weights, segments = 2 if block.first and block.second else 1, (depth + segment - 1) // segment
    rank, both_ranks = min(batch_size, widest), min(2 * batch_size, widest)
    normed = widest if block.norm_place != NOWHERE else 1
    kept = Kept(
        (segment, weights, rank, widest), (segment, weights, rank, widest), (segment, weights, batch_size, rank),
        (segment, weights), (segment, weights, batch_size), (segment, batch_size, width),
        (segment, batch_size, normed), (segment, max(normed, batch_size)), (segment, batch_size),
    )  # fmt: skip
    work = Work(
        (batch_size, widest), (batch_size,), (both_ranks, widest), (both_ranks, widest), (batch_size, both_ranks),
        (batch_size, widest), (1, widest), (1, both_ranks), (batch_size,), (4, widest),
    )  # fmt: skip
    return Room(
        kept, work, (batch_size, widest), (batch_size,), (segments, batch_size, widest), (segments, batch_size)
    )  # fmt: skip


@register_jitable
def room_of(of):
    """Room of these shapes."""
    kept, work = of.kept, of.work
    return Room(
        Kept(
            np.empty(kept.q), np.empty(kept.y), np.empty(kept.r), np.empty(kept.rank, np.int64),
            np.empty(kept.exponents, np.int64), np.empty(kept.slope, np.float32), np.empty(kept.normalised),
            np.empty(kept.inverse), np.empty(kept.scales, np.int64),
        ),
        Work(
            np.empty(work.branch), np.empty(work.branch_exponents, np.int64), np.empty(work.inputs), np.empty(work.outputs),
            np.empty(work.coefficients), np.empty(work.product), np.empty(work.draw), np.empty(work.draw_coefficients),
            np.empty(work.factors), np.empty(work.rest),
        ),
        np.empty(of.x), np.empty(of.exponents, np.int64), np.empty(of.starts), np.empty(of.start_exponents, np.int64),
    )  # fmt: skip


@njit(**STRICT)
def take_networks(
    apply, block, segment, seed_low, seed_high, first_trial, room,
    log_signal, log_gradient, log_weight_gradient, correlation, gradient_correlation, watch,
):  # fmt: skip
    """Take networks forward and back, one after another."""
    for trial in range(len(log_signal)):
        take_network(
            apply, block, segment, Key(u32(first_trial + u32(trial)), seed_low, seed_high), room, row(log_signal, trial),
            row(log_gradient, trial), row(log_weight_gradient, trial), row(correlation, trial),
            row(gradient_correlation, trial), watch,
        )  # fmt: skip


@functools.cache
def network_function():
    """The kernel of networks of every kind."""
    room = typeof(room_of(shapes(block_of(Network(1, 1, "linear", "xavier"), False), 1)))

    @cached(run_signature(room), nogil=True, **STRICT)
    def run_networks(
        apply, block, segment, seed_low, seed_high, first_trial, room,
        log_signal, log_gradient, log_weight_gradient, correlation, gradient_correlation, watch,
    ):  # fmt: skip
        take_networks(
            apply, block, segment, seed_low, seed_high, first_trial, room,
            log_signal, log_gradient, log_weight_gradient, correlation, gradient_correlation, watch,
        )  # fmt: skip

    return run_networks


def block_of(network: Network, shared_loss: bool) -> Block:
    """What the network's blocks do."""
    phi, orthogonal, residual = activation(network.activation), network.law == "orthogonal", network.residual
    first_scale, scale = math.sqrt(network.first_weight_variance), math.sqrt(network.weight_variance)
    if not orthogonal:
        first_scale, scale = first_scale / math.sqrt(network.fan_in), scale / math.sqrt(network.width)
    if network.normalisation is None:
        place = NOWHERE
    elif network.norm_position == "post":
        place = OUTPUT
    else:
        place = INPUT if residual in ("preactivation", "two_weights") else MIDDLE
    return Block(
        0, network.depth, network.width, network.fan_in, network.batch_size,
        residual != "preactivation", residual in ("preactivation", "two_weights"), residual is not None,
        KINDS[network.normalisation], place, orthogonal, first_scale, scale, math.sqrt(network.bias_variance),
        network.residual_scale, network.input_rms, network.input_correlation, shared_loss,
        phi.vanishes_at_zero, not phi.is_bounded,
    )  # fmt: skip


def segment_of(network: Network) -> int:
    """How many blocks keep at a time what the way back needs."""
    widest = max(network.width, network.fan_in)
    bytes_per_block = 16 * network.batch_size * widest * (network.weights_per_layer + 1)
    return min(network.depth, max(MEMORY // bytes_per_block, 1))


def run(
    network: Network,
    trials: int,
    seed: int,
    threads: int,
    progress: bool,
    shared_loss: bool = False,
) -> list[np.ndarray]:
    """ln RMS h, ln |∂E/∂h|, ln |∂E/∂W|, and the mean cosines of h and of ∂E/∂h of all trials; each (trials, layers)."""
    with announced(progress):
        apply, run_networks = activation_function(network.activation), network_function()
    block, segment = block_of(network, shared_loss), segment_of(network)
    seeds = u32(seed & 0xFFFFFFFF), u32(seed >> 32)
    per_task = max(1, min(16, trials // (4 * threads)))
    layers, weights = network.depth + 1, network.depth * network.weights_per_layer
    outputs = [np.empty((trials, columns)) for columns in (layers, layers, weights, layers, layers)]

    def run_some(starts: Iterator[int], watch: np.ndarray) -> None:
        room = room_of(shapes(block, segment))
        for first in starts:
            parts = (output[first : first + per_task] for output in outputs)
            run_networks(apply, block, segment, *seeds, u32(first), room, *parts, watch)

    share(range(0, trials, per_task), threads, run_some, progress, 2 * (network.depth + 1) * per_task)
    return outputs
