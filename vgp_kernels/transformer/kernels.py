"""Random transformers: self-attention and feed-forward branches, with normalisation before, after or nowhere.

All weights are made in full, and each branch is computed again on the way back instead of being stored. Arithmetic is
float64, but for φ and φ′ of the feed-forward branch, which are float32.

Signals and gradients can grow and shrink without end: each matrix has a binary exponent k and stands for 2^k times its entries.
It is 0 until the largest entry leaves the range of 2^±USUAL.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import activation, value_and_slope
from vgp_kernels.numerics.arithmetic import (
    LN2,
    STRICT,
    binary_exponent,
    bits_from_double,
    exp64,
    f32,
    f64,
    fma,
    log64,
    power_of_two,
)
from vgp_kernels.numerics.frames import NO_EXPONENT, USUAL, dot_by_warp, fill, sum_by_warp, sum_of
from vgp_kernels.numerics.lanes import (
    columns_of_lane,
    compile_once,
    flat,
    mine,
    most_over_warp,
    part,
    put,
    row,
    rows_of_warp,
    together,
)
from vgp_kernels.numerics.matrices import draw_normals, multiply, transpose
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.numerics.watch import WATCH, halted, stopped
from vgp_kernels.targets.cache import cached
from vgp_kernels.targets.pool import announced, share
from vgp_kernels.transformer.network import Transformer

EPSILON = 1e-5  # added to the variance, as in PyTorch
# φ is linear, to the last bit of float32, below 2^-56 if φ(0) = 0, and on either side of ±2^56 if unbounded
WINDOW = 56
SATURATED = 2.0**-30  # what softmax may leave to all others where one has nearly everything
PIECE = 2**27  # products of numbers that a thread does before it looks whether to stop

# purposes of the random numbers
QUERY, TOKENS, LOSS, COMMON = u32(24), u32(32), u32(33), u32(34)  # the six matrices take 24 to 29


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


class Rules(NamedTuple):
    """What a transformer does with its random numbers."""

    heads: int
    score_scale: float
    skip: float
    branch_scale: float
    pre: bool
    post: bool
    shrinks: bool
    """Whether φ is linear near 0, and whether on either side far away."""
    grows: bool
    own: np.float32
    """What multiplies a token's own normals, and those that all have in common."""
    common: np.float32
    scales: tuple[np.float32, ...]
    """What multiplies the normals of the six matrices."""

    @classmethod
    def of(cls, network: Transformer) -> "Rules":
        n, inside = network.width, network.ffn_multiple * network.width
        phi = activation(network.activation)
        variances = [network.query_variance] * 2 + [network.weight_variance] * 3 + [network.second_variance]
        gains = [1.0] * 2 + [network.weight_gain] * 4
        return cls(
            network.heads,
            1 / math.sqrt(n // network.heads) if network.scaled_scores else 1.0,
            network.skip_scale,
            network.branch_scale,
            network.norm == "pre",
            network.norm in ("post", "deepnorm"),
            phi.vanishes_at_zero,
            not phi.is_bounded,
            f32(math.sqrt(1 - network.token_correlation)),
            f32(math.sqrt(network.token_correlation)),
            tuple(
                f32(gain * math.sqrt(variance / fan_in) if fan_in else 0.0)
                for gain, variance, fan_in in zip(gains, variances, [n] * 5 + [inside], strict=True)
            ),
        )


U, Q, K, V, MIX, BRANCH, TOTAL, Y, G, OF_MIX, OF_Q, OF_K, OF_V, OF_U, TURNED_WIDE, INPUTS = range(16)
INNER, SLOPE, OF_INNER, TURNED_DEEP, DEEP = range(5)
HEAD_Q, HEAD_K, HEAD_V, HEAD_G, TURNED_HEAD, OF_HEAD = range(6)
A, OF_A, TURNED_A, SCORES = range(4)
PRE, POST, MEAN, ALONG, OF_TOKENS = range(5)
STRIP = 16  # rows of a matrix that are in memory at a time; one more is for sums


class Layout(NamedTuple):
    """Where in a Room is what."""

    blocks: int
    kept: int
    """Blocks whose weights the room has at a time."""
    tokens: int
    width: int
    inside: int
    head: int
    """The width of one head."""
    deep: int
    """Where such matrices begin, (tokens, inside); the next ones likewise."""
    of_head: int
    scores: int
    of_tokens: int
    strip: int
    sizes: int
    exponents: int
    wide: int
    """(tokens, width): what is worked on, then the inputs of all branches, and the output."""


class Room(NamedTuple):
    """All that a transformer is drawn into and works in."""

    layout: Layout
    single: np.ndarray
    """float32: what is drawn, and a transposed matrix."""
    double: np.ndarray
    """float64: all else."""


def layout_of(network: Transformer, kept: int) -> tuple[Layout, int, int]:
    """The layout of a Room with the weights of so many blocks, and its entries of float32 and of float64."""
    t, n, inside = network.tokens, network.width, network.ffn_multiple * network.width
    head, branches = n // network.heads, network.blocks * (2 if inside else 1)
    largest = max(n, inside)
    sizes = DEEP * t * inside, OF_HEAD * t * head, SCORES * t * t, OF_TOKENS * t, (STRIP + 1) * largest, 6, branches + 1
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    single = 2 * t * n + n + n * largest + kept * (4 * n * n + 2 * n * inside)
    double = starts[-1] + (INPUTS + branches + 1) * t * n
    return Layout(network.blocks, kept, t, n, inside, head, *starts), single, double


def room_of(network: Transformer) -> Room:
    """A Room with all weights."""
    layout, single, double = layout_of(network, network.blocks)
    return Room(layout, np.empty(single, np.float32), np.empty(double))


def draw(network: Transformer, trial: int, seed: int) -> Drawn:
    """The tokens and weights of one of the transformers that `propagate` runs."""
    room = room_of(network)
    draw_function()(Rules.of(network), u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32), room)
    n, inside, ends = network.width, network.ffn_multiple * network.width, network.tokens * network.width
    weights = room.single[2 * ends + n + n * max(n, inside) :].reshape(network.blocks, -1)
    shapes = [(n, n)] * 4 + [(n, inside), (inside, n)]
    parts = np.split(weights, np.cumsum([math.prod(shape) for shape in shapes])[:-1], axis=1)
    return Drawn(
        *room.single[: 2 * ends].reshape(2, network.tokens, n),
        *(part.reshape(network.blocks, *shape) for part, shape in zip(parts, shapes, strict=True)),
    )


# What a block of threads can share. First the matrices of a room


@njit(inline="always", **STRICT)
def ends(room, which):
    """The tokens, or the gradient at the output."""
    tokens, n = room.layout.tokens, room.layout.width
    return part(room.single, which * tokens * n, (tokens, n))


@njit(inline="always", **STRICT)
def shared_part(room):
    """What all tokens have in common."""
    n = room.layout.width
    return row(part(room.single, 2 * room.layout.tokens * n, (1, n)), 0)


@njit(inline="always", **STRICT)
def turned(room, rows, columns):
    """For a transposed matrix."""
    n = room.layout.width
    return part(room.single, 2 * room.layout.tokens * n + n, (rows, columns))


@njit(inline="always", **STRICT)
def weights(room, block, index):
    """One of the six matrices of a block."""
    layout = room.layout
    n, inside = layout.width, layout.inside
    of_block = 2 * layout.tokens * n + n + n * max(n, inside) + block % layout.kept * (4 * n * n + 2 * n * inside)
    start = of_block + min(index, 4) * n * n + (n * inside if index == 5 else 0)
    return part(room.single, start, (inside if index == 5 else n, inside if index == 4 else n))


@njit(inline="always", **STRICT)
def wide(room, which):
    tokens, n = room.layout.tokens, room.layout.width
    return part(room.double, room.layout.wide + which * tokens * n, (tokens, n))


@njit(inline="always", **STRICT)
def deep(room, which):
    tokens, inside = room.layout.tokens, room.layout.inside
    return part(room.double, room.layout.deep + which * tokens * inside, (tokens, inside))


@njit(inline="always", **STRICT)
def of_head(room, which):
    tokens, size = room.layout.tokens, room.layout.head
    return part(room.double, room.layout.of_head + which * tokens * size, (tokens, size))


@njit(inline="always", **STRICT)
def on_its_side(matrix):
    """The memory of a matrix, for one of its transposed shape."""
    return part(flat(matrix), 0, (matrix.shape[1], matrix.shape[0]))


@njit(inline="always", **STRICT)
def scores(room, which):
    tokens = room.layout.tokens
    return part(room.double, room.layout.scores + which * tokens * tokens, (tokens, tokens))


@njit(inline="always", **STRICT)
def of_tokens(room, which):
    return row(part(room.double, room.layout.of_tokens, (OF_TOKENS, room.layout.tokens)), which)


@njit(inline="always", **STRICT)
def strip(room):
    return part(room.double, room.layout.strip, (STRIP + 1, max(room.layout.width, room.layout.inside)))


@njit(inline="always", **STRICT)
def sizes_of(room):
    """ln |∂E/∂W| of six matrices, but for the scale of the gradient."""
    return row(part(room.double, room.layout.sizes, (1, 6)), 0)


@njit(inline="always", **STRICT)
def exponents(room):
    """Of the inputs of all branches, and of the output; whole numbers."""
    layout = room.layout
    return row(part(room.double, layout.exponents, (1, layout.blocks * (2 if layout.inside > 0 else 1) + 1)), 0)


# Then what is done with them


@njit(**STRICT)
def draw_ends(rules, trial, seed_low, seed_high, room):
    """The tokens, and the gradient at the output."""
    compile_once()
    one, own, common, loss = f32(1.0), ends(room, 0), shared_part(room), ends(room, 1)
    draw_normals(flat(own), one, 0, TOKENS, trial, seed_low, seed_high)
    draw_normals(common, one, 0, COMMON, trial, seed_low, seed_high)
    draw_normals(flat(loss), one, 0, LOSS, trial, seed_low, seed_high)
    factor = f32(1 / math.sqrt(sum_of_squares(loss, row(strip(room), STRIP))))
    for i in rows_of_warp(len(own)):
        for j in columns_of_lane(common.size):
            own[i, j] = rules.own * own[i, j] + rules.common * common[j]
            loss[i, j] *= factor
    together()


@njit(**STRICT)
def draw_block(block, rules, trial, seed_low, seed_high, room):
    """The six matrices of a block."""
    compile_once()
    for index in range(6):
        w = flat(weights(room, block, index))
        draw_normals(w, rules.scales[index], block * w.size, u32(QUERY + index), trial, seed_low, seed_high)


@njit(**STRICT)
def combine(a, x, b, y, out):
    """out ← a x + b y."""
    compile_once()
    for i in rows_of_warp(x.shape[0]):
        for j in columns_of_lane(x.shape[1]):
            out[i, j] = fma(a, f64(x[i, j]), b * y[i, j])
    together()


@njit(**STRICT)
def largest_of(x, memory):
    """⌊log₂⌋ of the largest entry, or NO_EXPONENT if all are 0; there is memory for a row."""
    compile_once()
    n, bits = x.shape[1], np.int64(0)
    fill(memory, 0.0, n)
    for i in range(len(x)):
        for j in mine(n):
            size = abs(x[i, j])
            memory[j] = size if size > memory[j] else memory[j]
    together()
    for j in columns_of_lane(n):
        bits = max(bits, np.int64(bits_from_double(memory[j])))
    bits = most_over_warp(bits)
    together()
    return (bits >> np.int64(52)) - 1023 if bits > 0 else NO_EXPONENT


@njit(**STRICT)
def settle(x, exponent, memory):
    """Move a power of two from the entries to the exponent, which it returns, where they are out of the usual range."""
    compile_once()
    largest = largest_of(x, memory)
    if largest == NO_EXPONENT:
        return 0
    if abs(largest) <= USUAL:
        return exponent
    combine(power_of_two(-largest), x, 0.0, x, x)
    return exponent + largest


@njit(**STRICT)
def add_up(a, x, of_x, b, y, of_y, out, memory):
    """2^k out ← a 2^of_x x + b 2^of_y y; returns k."""
    compile_once()
    common = of_x
    if of_x != of_y:
        a = a if largest_of(x, memory) != NO_EXPONENT else 0.0
        b = b if largest_of(y, memory) != NO_EXPONENT else 0.0
        common = of_y if a == 0.0 else of_x if b == 0.0 else max(of_x, of_y)
        a = a * power_of_two(of_x - common) if a != 0.0 else a
        b = b * power_of_two(of_y - common) if b != 0.0 else b
    combine(a, x, b, y, out)
    return settle(out, common, memory)


@njit(**STRICT)
def into_window(z, exponent, shrinks, grows, targets):
    """z_i ← 2^(exponent - t_i) z_i, which float32 holds, and t_i, which is 0 unless φ is linear there."""
    compile_once()
    for i in mine(len(z)):
        size, target = 0.0, 0
        for j in range(z.shape[1]):
            size = max(size, abs(z[i, j]))
        if size > 0.0:
            largest = binary_exponent(size) + exponent
            if shrinks:
                target = min(largest + WINDOW, 0)
            if grows:
                target += max(largest - WINDOW, 0)
        targets[i] = f64(target)
    together()
    for i in rows_of_warp(len(z)):
        factor = power_of_two(exponent - np.int64(targets[i]))
        for j in columns_of_lane(z.shape[1]):
            z[i, j] = min(max(z[i, j] * factor, -1e30), 1e30)
    together()


@njit(**STRICT)
def out_of_window(h, targets, exponent):
    """2^exponent h_i ← 2^t_i h_i."""
    compile_once()
    for i in rows_of_warp(len(h)):
        factor = power_of_two(np.int64(targets[i]) - exponent)
        for j in columns_of_lane(h.shape[1]):
            h[i, j] *= factor
    together()


@njit(**STRICT)
def take_means(x, means):
    """The mean of each row."""
    compile_once()
    for i in rows_of_warp(len(x)):
        means[i] = sum_by_warp(row(x, i), x.shape[1]) / x.shape[1]
    together()


@njit(**STRICT)
def take_mean_products(x, y, means):
    """The mean of the products of each row's entries with those of another."""
    compile_once()
    for i in rows_of_warp(len(x)):
        means[i] = dot_by_warp(row(x, i), row(y, i), x.shape[1]) / x.shape[1]
    together()


@njit(**STRICT)
def normalise(x, exponent, out, scales):
    """2^k out ← N(2^exponent x): each row minus its mean, over its standard deviation; and 1 over the latter. k is min(exponent, 0),
    and the scales are in units of 2^(k - exponent)."""
    compile_once()
    take_means(x, scales)
    subtract(x, scales, out)
    take_mean_products(out, out, scales)
    above, below = power_of_two(-2 * max(exponent, 0)), power_of_two(2 * min(exponent, 0))
    for i in mine(len(x)):
        scales[i] = 1.0 / math.sqrt(scales[i] * below + EPSILON * above)
    together()
    scale_rows(out, scales)


@njit(**STRICT)
def subtract(x, means, out):
    """out ← x - means, row by row."""
    compile_once()
    for i in rows_of_warp(len(x)):
        for j in columns_of_lane(x.shape[1]):
            out[i, j] = x[i, j] - means[i]
    together()


@njit(**STRICT)
def scale_rows(x, scales):
    compile_once()
    for i in rows_of_warp(len(x)):
        for j in columns_of_lane(x.shape[1]):
            x[i, j] *= scales[i]
    together()


@njit(**STRICT)
def back_through_norm(y, exponent, scales, g, means, alongs):
    """g ← (g - mean(g) - y mean(g y))/std for y = N(2^exponent x), as `normalise` leaves it."""
    compile_once()
    take_means(g, means)
    take_mean_products(g, y, alongs)
    subtract_parts(y, power_of_two(2 * min(exponent, 0)), scales, g, means, alongs)


@njit(**STRICT)
def subtract_parts(y, factor, scales, g, means, alongs):
    compile_once()
    for i in rows_of_warp(len(g)):
        along = alongs[i] * factor
        for j in columns_of_lane(g.shape[1]):
            g[i, j] = (g[i, j] - means[i] - y[i, j] * along) * scales[i]
    together()


@njit(**STRICT)
def take_head(x, head, out):
    """out ← the columns of one head, row by row in memory."""
    compile_once()
    size = out.shape[1]
    for i in rows_of_warp(len(x)):
        for j in columns_of_lane(size):
            out[i, j] = x[i, head * size + j]
    together()


@njit(**STRICT)
def put_head(x, head, out):
    compile_once()
    size = x.shape[1]
    for i in rows_of_warp(len(x)):
        for j in columns_of_lane(size):
            out[i, head * size + j] = x[i, j]
    together()


@njit(**STRICT)
def softmax(a, scale):
    """a ← softmax(scale · a), row by row; a lane takes a row."""
    compile_once()
    for i in mine(len(a)):
        largest = -math.inf
        for j in range(a.shape[1]):
            a[i, j] *= scale
            largest = max(largest, a[i, j])
        total = 0.0
        for j in range(a.shape[1]):
            a[i, j] = exp64(a[i, j] - largest)
            total += a[i, j]
        for j in range(a.shape[1]):
            a[i, j] /= total
    together()


@njit(**STRICT)
def back_through_softmax(a, of_a, scale):
    """of_a ← ∂E/∂S = A ⊙ (∂E/∂A - (∂E/∂A ⊙ A) 1), times the scale of the scores.

    What all entries of a row of ∂E/∂A have in common does not matter and is taken out first: tokens that are nearly the same leave
    little else. Each row of ∂E/∂S adds up to 0. Where A has nearly everything in one entry, that gives the entry, of which the
    difference has no digits.
    """
    compile_once()
    for i in mine(len(a)):
        common, along, winner, others = of_a[i, 0], 0.0, -1, 0.0
        for j in range(len(a)):
            of_a[i, j] -= common
            along = fma(of_a[i, j], a[i, j], along)
            if a[i, j] > 1.0 - SATURATED:
                winner = j
        for j in range(len(a)):
            of_a[i, j] = a[i, j] * (of_a[i, j] - along) * scale
            others += of_a[i, j] if j != winner else 0.0
        if winner >= 0:
            of_a[i, winner] = -others
    together()


@njit(**STRICT)
def times(a, b, out, watch):
    """out ← A B, some rows at a time where a thread may have to stop."""
    compile_once()
    some = len(a) if watch is None else max(PIECE // (b.shape[0] * b.shape[1]) // 4 * 4, 4)
    for start in range(0, len(a), some):
        if stopped(watch):
            return
        count = min(some, len(a) - start)
        of_a = part(flat(a), start * a.shape[1], (count, a.shape[1]))
        multiply(of_a, b, part(flat(out), start * out.shape[1], (count, out.shape[1])))


@njit(**STRICT)
def mix(heads, scale, room, watch):
    """A V for all heads side by side."""
    compile_once()
    a, own_q, own_k = scores(room, A), of_head(room, HEAD_Q), of_head(room, HEAD_K)
    own_v, mixed = of_head(room, HEAD_V), of_head(room, HEAD_G)
    for head in range(heads):
        take_head(wide(room, Q), head, own_q)
        take_head(wide(room, K), head, own_k)
        take_head(wide(room, V), head, own_v)
        transpose(own_k, on_its_side(of_head(room, TURNED_HEAD)))
        times(own_q, on_its_side(of_head(room, TURNED_HEAD)), a, watch)
        softmax(a, scale)
        times(a, own_v, mixed, watch)
        put_head(mixed, head, wide(room, MIX))


@njit(**STRICT)
def take_out_first(rows):
    """Subtract the first row from all."""
    compile_once()
    for j in mine(rows.shape[1]):
        first = rows[0, j]
        for i in range(len(rows)):
            rows[i, j] -= first
    together()


@njit(**STRICT)
def back_through_mixing(heads, scale, lift, room, watch):
    """∂E/∂q, ∂E/∂k and ∂E/∂v for g = ∂E/∂(A V); scores are lift times those of q and k."""
    compile_once()
    a, of_a, turned_a = scores(room, A), scores(room, OF_A), scores(room, TURNED_A)
    own_q, own_k, own_v, own_g = (
        of_head(room, HEAD_Q), of_head(room, HEAD_K), of_head(room, HEAD_V), of_head(room, HEAD_G)
    )  # fmt: skip
    for head in range(heads):
        take_head(wide(room, Q), head, own_q)
        take_head(wide(room, K), head, own_k)
        take_head(wide(room, V), head, own_v)
        take_head(wide(room, OF_MIX), head, own_g)
        transpose(own_k, on_its_side(of_head(room, TURNED_HEAD)))
        times(own_q, on_its_side(of_head(room, TURNED_HEAD)), a, watch)
        softmax(a, scale * lift)
        transpose(own_v, on_its_side(of_head(room, TURNED_HEAD)))
        times(own_g, on_its_side(of_head(room, TURNED_HEAD)), of_a, watch)
        transpose(a, turned_a)
        times(turned_a, own_g, own_v, watch)
        put_head(own_v, head, wide(room, OF_V))
        back_through_softmax(a, of_a, scale)
        take_out_first(own_k)  # the rows of ∂E/∂S add up to 0
        times(of_a, own_k, own_v, watch)
        put_head(own_v, head, wide(room, OF_Q))
        transpose(of_a, turned_a)
        times(turned_a, own_q, own_v, watch)
        put_head(own_v, head, wide(room, OF_K))


@njit(**STRICT)
def add_squares(x, rows, columns, sums):
    """Add Σ x² of every column."""
    for i in range(rows):
        for j in mine(columns):
            sums[j] = fma(f64(x[i, j]), f64(x[i, j]), sums[j])


@njit(**STRICT)
def sum_of_squares(x, sums):
    """Σ x², column by column."""
    compile_once()
    fill(sums, 0.0, x.shape[1])
    add_squares(x, x.shape[0], x.shape[1], sums)
    return sum_of(sums, x.shape[1])


@njit(**STRICT)
def log_norm(x, sums):
    return 0.5 * log64(sum_of_squares(x, sums))


@njit(**STRICT)
def log_norm_of_product(u, g, turned_u, strip, watch):
    """ln |uᵀ g|, some rows at a time."""
    compile_once()
    rows, columns, sums = u.shape[1], g.shape[1], row(strip, STRIP)
    transpose(u, turned_u)
    fill(sums, 0.0, columns)
    for start in range(0, rows, STRIP):
        if stopped(watch):
            return math.nan
        count = min(STRIP, rows - start)
        multiply(part(flat(turned_u), start * len(u), (count, len(u))), g, strip)
        add_squares(strip, count, columns, sums)
        together()
    return 0.5 * log64(sum_of(sums, columns))


@njit(**STRICT)
def log_spread(x, size, sums, means):
    """ln |x - m| - ln |x| for the mean row m, given the latter logarithm."""
    compile_once()
    n = x.shape[1]
    fill(means, 0.0, n)
    fill(sums, 0.0, n)
    for i in range(len(x)):
        for j in mine(n):
            means[j] += x[i, j]
    for i in range(len(x)):
        for j in mine(n):
            off = x[i, j] - means[j] / len(x)
            sums[j] = fma(off, off, sums[j])
    square = sum_of(sums, n)
    return 0.5 * log64(square) - size if square > 0.0 else -math.inf


@njit(inline="always", **STRICT)
def lift_of(exponent):
    """The factor of the scores of inputs with this exponent. One token has all the attention long before it is held."""
    return power_of_two(min(2 * exponent, 700))


@njit(**STRICT)
def run_branch(activate, block, half, rules, room, watch):
    """From the input to the branch: attention, or the feed-forward branch if half is 1. Returns the exponents of what enters after
    a norm, and of the branch."""
    compile_once()
    at, u, branch = input_of(block, half, room), wide(room, U), wide(room, BRANCH)
    exponent = exponent_of(at, room)
    if rules.pre:
        normalise(wide(room, at), exponent, u, of_tokens(room, PRE))
        exponent = min(exponent, 0)
    else:
        combine(1.0, wide(room, at), 0.0, wide(room, at), u)
    if half == 0:
        for index in range(3):
            times(u, weights(room, block, index), wide(room, Q + index), watch)
        mix(rules.heads, rules.score_scale * lift_of(exponent), room, watch)
        times(wide(room, MIX), weights(room, block, 3), branch, watch)
        return exponent, exponent
    inner, targets = deep(room, INNER), of_tokens(room, MEAN)
    times(u, weights(room, block, 4), inner, watch)
    into_window(inner, exponent, rules.shrinks, rules.grows, targets)
    activate(inner, deep(room, SLOPE))
    together()
    of_inner = (min(exponent, 0) if rules.shrinks else 0) + (max(exponent, 0) if rules.grows else 0)
    out_of_window(inner, targets, of_inner)
    times(inner, weights(room, block, 5), branch, watch)
    return exponent, of_inner


@njit(inline="always", **STRICT)
def input_of(block, half, room):
    """Where the input of a branch is."""
    return INPUTS + (2 * block + half if room.layout.inside > 0 else block)


@njit(inline="always", **STRICT)
def exponent_of(at, room):
    return np.int64(exponents(room)[at - INPUTS])


@njit(**STRICT)
def back_through_attention(block, exponent, of_g, rules, room, watch):
    """2^k ∂E/∂u, and the sizes of the gradients of the four matrices, for inputs and a gradient with these exponents; returns k."""
    compile_once()
    n, of_u, of_branch, other = room.layout.width, wide(room, OF_U), wide(room, BRANCH), wide(room, TOTAL)
    memory, turned_wide = row(strip(room), STRIP), on_its_side(wide(room, TURNED_WIDE))
    size = log_norm_of_product(wide(room, MIX), of_branch, turned_wide, strip(room), watch)
    put(sizes_of(room), 3, size + LN2 * (exponent + of_g))
    transpose(weights(room, block, 3), turned(room, n, n))
    times(of_branch, turned(room, n, n), wide(room, OF_MIX), watch)
    back_through_mixing(rules.heads, rules.score_scale, lift_of(exponent), room, watch)
    of_sum = 0
    for index in range(3):
        own = wide(room, OF_Q + index)
        of_own = settle(own, of_g + (2 * exponent if index < 2 else 0), memory)
        size = log_norm_of_product(wide(room, U), own, turned_wide, strip(room), watch)
        put(sizes_of(room), index, size + LN2 * (exponent + of_own))
        transpose(weights(room, block, index), turned(room, n, n))
        times(own, turned(room, n, n), other, watch)
        if index == 0:
            combine(1.0, other, 0.0, other, of_u)
            of_sum = of_own
        else:
            of_sum = add_up(1.0, other, of_own, 1.0, of_u, of_sum, of_u, memory)
    return of_sum


@njit(**STRICT)
def back_through_feed_forward(block, exponent, of_inner_signal, of_g, room, watch):
    """The same of the two matrices."""
    compile_once()
    n, inside = room.layout.width, room.layout.inside
    inner, slope, of_inner, of_branch = deep(room, INNER), deep(room, SLOPE), deep(room, OF_INNER), wide(room, BRANCH)
    size = log_norm_of_product(inner, of_branch, on_its_side(deep(room, TURNED_DEEP)), strip(room), watch)
    put(sizes_of(room), 5, size + LN2 * (of_inner_signal + of_g))
    transpose(weights(room, block, 5), turned(room, n, inside))
    times(of_branch, turned(room, n, inside), of_inner, watch)
    for i in rows_of_warp(len(slope)):
        for j in columns_of_lane(inside):
            of_inner[i, j] *= slope[i, j]
    together()
    size = log_norm_of_product(wide(room, U), of_inner, on_its_side(wide(room, TURNED_WIDE)), strip(room), watch)
    put(sizes_of(room), 4, size + LN2 * (exponent + of_g))
    transpose(weights(room, block, 4), turned(room, inside, n))
    times(of_inner, turned(room, inside, n), wide(room, OF_U), watch)
    return of_g


@njit(**STRICT)
def run_transformer(
    activate, rules, trial, seed_low, seed_high, room,
    log_signal, log_gradient, log_weight_gradient, log_matrix_gradient, log_residual, watch,
):  # fmt: skip
    """Draw one transformer and take it forward and back."""
    layout, g, y, total, branch = room.layout, wide(room, G), wide(room, Y), wide(room, TOTAL), wide(room, BRANCH)
    blocks, halves, sums, sizes = layout.blocks, 2 if layout.inside > 0 else 1, row(strip(room), STRIP), sizes_of(room)
    means, alongs = of_tokens(room, MEAN), of_tokens(room, ALONG)
    draw_ends(rules, trial, seed_low, seed_high, room)
    combine(1.0, ends(room, 0), 0.0, ends(room, 0), wide(room, INPUTS))
    put(exponents(room), 0, 0.0)
    for block in range(-1, blocks):
        if halted(watch):
            return
        if block >= 0:
            draw_block(block, rules, trial, seed_low, seed_high, room)
            for half in range(halves):
                if stopped(watch):
                    return
                _, of_branch = run_branch(activate, block, half, rules, room, watch)
                at = input_of(block, half, room)
                x, next_x = wide(room, at), wide(room, at + 1)
                out = total if rules.post else next_x
                exponent = add_up(
                    rules.skip, x, exponent_of(at, room), rules.branch_scale, branch, of_branch, out, sums
                )
                if rules.post:
                    normalise(total, exponent, next_x, of_tokens(room, POST))
                    exponent = settle(next_x, min(exponent, 0), sums)
                put(exponents(room), at + 1 - INPUTS, f64(exponent))
        at = input_of(block + 1, 0, room)
        x = wide(room, at)
        size = log_norm(x, sums)
        log_signal[block + 1] = size - 0.5 * log64(float(x.size)) + LN2 * exponent_of(at, room)
        log_residual[block + 1] = log_spread(x, size, sums, row(strip(room), 0))

    combine(1.0, ends(room, 1), 0.0, ends(room, 1), g)
    of_g = 0
    if rules.pre:
        at = input_of(blocks, 0, room)
        exponent = exponent_of(at, room)
        normalise(wide(room, at), exponent, y, of_tokens(room, PRE))
        back_through_norm(y, exponent, of_tokens(room, PRE), g, means, alongs)
        of_g = settle(g, -max(exponent, 0), sums)
    log_scale = 0.0
    for block in range(blocks - 1, -2, -1):
        if halted(watch):
            return
        square = sum_of_squares(g, sums)
        if square > 0.0:
            combine(1.0 / math.sqrt(square), g, 0.0, g, g)
        log_scale += 0.5 * log64(square) + LN2 * of_g
        log_gradient[block + 1] = log_scale
        of_g = 0
        if block < 0:
            break
        if layout.kept < blocks:
            draw_block(block, rules, trial, seed_low, seed_high, room)
        put(sizes, 4, -math.inf)
        put(sizes, 5, -math.inf)
        for half in range(halves - 1, -1, -1):
            if stopped(watch):
                return
            exponent, of_branch = run_branch(activate, block, half, rules, room, watch)
            at = input_of(block, half, room)
            if rules.post:
                of_sum = add_up(
                    rules.skip,
                    wide(room, at),
                    exponent_of(at, room),
                    rules.branch_scale,
                    branch,
                    of_branch,
                    total,
                    sums,
                )
                normalise(total, of_sum, y, of_tokens(room, POST))
                back_through_norm(y, of_sum, of_tokens(room, POST), g, means, alongs)
                of_g = settle(g, of_g - max(of_sum, 0), sums)
            combine(rules.branch_scale, g, 0.0, g, branch)
            of_delta = settle(branch, of_g, sums)
            if half == 0:
                of_u = back_through_attention(block, exponent, of_delta, rules, room, watch)
            else:
                of_u = back_through_feed_forward(block, exponent, of_branch, of_delta, room, watch)
            if rules.pre:
                own = exponent_of(at, room)
                back_through_norm(wide(room, U), own, of_tokens(room, PRE), wide(room, OF_U), means, alongs)
                of_u -= max(own, 0)
            of_g = add_up(rules.skip, g, of_g, 1.0, wide(room, OF_U), of_u, g, sums)
        square, largest = 0.0, -math.inf
        for i in range(6):
            largest = max(largest, sizes[i])
        for i in range(6):
            square += exp64(2.0 * (sizes[i] - largest)) if sizes[i] > -math.inf else 0.0
            log_matrix_gradient[block, i] = sizes[i] + log_scale
        log_weight_gradient[block] = log_scale + largest + 0.5 * log64(square)
    together()


# The CPU's kernels

WORD = types.uint32
RULES = types.NamedTuple(
    [types.int64, *[types.float64] * 3, *[types.boolean] * 4, *[types.float32] * 2, types.UniTuple(types.float32, 6)],
    Rules,
)
LAYOUT = types.NamedUniTuple(types.int64, len(Layout._fields), Layout)
ROOM = types.NamedTuple([LAYOUT, types.float32[::1], types.float64[::1]], Room)
ACTIVATE = types.void(types.float64[:, ::1], types.float64[:, ::1])
OUTPUTS = [types.Array(types.float64, dimensions, "C") for dimensions in (1, 1, 1, 2, 1)]
RUN = types.void(types.FunctionType(ACTIVATE), RULES, WORD, WORD, WORD, ROOM, *OUTPUTS, WATCH)


def activate(name, z, slope):
    """Put φ(z) in the place of z, and φ′(z) beside it."""
    for i in rows_of_warp(z.shape[0]):
        for j in columns_of_lane(z.shape[1]):
            phi, slope_ij = value_and_slope(name, f32(z[i, j]))
            z[i, j], slope[i, j] = f64(phi), f64(slope_ij)


@functools.cache
def activate_function(name: str):
    """The kernel of `activate`."""
    apply = njit(inline="always", **STRICT)(activate)

    @cached(ACTIVATE, nogil=True, **STRICT)
    def run(z, slope):
        apply(name, z, slope)

    return run


@functools.cache
def transformer_function():
    """The kernel that draws one transformer and takes it forward and back."""

    @cached(RUN, nogil=True, **STRICT)
    def run(
        activate,
        rules,
        trial,
        seed_low,
        seed_high,
        room,
        signal,
        gradient,
        weight_gradient,
        of_matrices,
        residual,
        watch,
    ):
        run_transformer(
            activate, rules, trial, seed_low, seed_high, room,
            signal, gradient, weight_gradient, of_matrices, residual, watch,
        )  # fmt: skip

    return run


@functools.cache
def draw_function():
    """The kernel that draws one transformer."""

    @cached(types.void(RULES, WORD, WORD, WORD, ROOM), nogil=True, **STRICT)
    def draw_all(rules, trial, seed_low, seed_high, room):
        draw_ends(rules, trial, seed_low, seed_high, room)
        for block in range(room.layout.blocks):
            draw_block(block, rules, trial, seed_low, seed_high, room)

    return draw_all


def results(network: Transformer) -> tuple[tuple[int, ...], ...]:
    """The shapes of what is measured of one transformer, as in TransformerFlow."""
    blocks = network.blocks
    return (blocks + 1,), (blocks + 1,), (blocks,), (blocks, 6), (blocks + 1,)


def run(network: Transformer, trials: int, seed: int, threads: int, progress: bool) -> list[np.ndarray]:
    """Draw the transformers and take them forward and back: what TransformerFlow has, in its order."""
    outputs = [np.empty((trials, *shape)) for shape in results(network)]
    with announced(progress):
        kernel, activate, rules = transformer_function(), activate_function(network.activation), Rules.of(network)
    seeds = u32(seed & 0xFFFFFFFF), u32(seed >> 32)

    def run_some(waiting: Iterator[int], watch: np.ndarray) -> None:
        room = room_of(network)
        for trial in waiting:
            kernel(activate, rules, u32(trial), *seeds, room, *(output[trial] for output in outputs), watch)

    share(range(trials), threads, run_some, progress, 2 * (network.blocks + 1))
    return outputs
