"""Networks in time: simple recurrent networks, LSTM and GRU, with the same weights at every step.

The weights are used once for each step, forward and back, so they are made in full: at the usual sizes that costs no more
than to sample only their action. Arithmetic is float32 and gradients carry their scale as a logarithm. Several lanes may share
a network, see `lanes`.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import value_and_slope
from vgp_kernels.numerics.arithmetic import ONE, STRICT, ZERO, exp64, f32, f64, fma, log, log64
from vgp_kernels.numerics.frames import copy, dot, fill, scale, sum_of
from vgp_kernels.numerics.lanes import columns_of_lane, compile_once, flat, mine, part, row, rows_of_warp, together
from vgp_kernels.numerics.matrices import add_rows, fill_with, fill_with_haar, multiply, transpose
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.numerics.watch import STOP, WATCH, halted, stopped
from vgp_kernels.recurrent.network import GATES, Recurrent
from vgp_kernels.targets.cache import cached, named
from vgp_kernels.targets.pool import announced, share

GATES_OF_LSTM, GATES_OF_GRU = GATES["lstm"], GATES["gru"]
KEEP = 1  # which of them decides what is kept of the old state: f and z
ALIGNED = 32  # entries of an array in memory: where the next begins is a multiple
LIFT, LN_LIFT = f32(2.0**64), 64 * math.log(2.0)  # what brings vectors of subnormal float32 back into its range
SMALL = 2.0**-200  # the square of a norm below which it is used
PIECE = 2**26  # products of numbers that a thread does before it looks whether to stop

# purposes of the random numbers
HIDDEN_WEIGHTS, INPUT_WEIGHTS, HIDDEN_BIASES, INPUT_BIASES, INPUTS, STATE, LOSS, MEMORY = map(u32, range(16, 24))


class Drawn(NamedTuple):
    """All random numbers of one network, float32."""

    weights: np.ndarray
    """(gates · width, width): W."""
    input_weights: np.ndarray
    """(gates · width, input_width): U."""
    hidden_bias: np.ndarray
    """(gates · width,): the bias added to W h, 0 unless the initialiser is "pytorch"."""
    input_bias: np.ndarray
    """(gates · width,): the bias added to U x."""
    inputs: np.ndarray
    """(steps, input_width): x_t."""
    state: np.ndarray
    """(width,): h_0."""
    loss: np.ndarray
    """(width,): ∂E/∂h_T, of norm 1."""


class Kind(NamedTuple):
    """What networks these are: their sizes, and the factors of normals, of uniform numbers in (-1, 1) or of orthogonal matrices."""

    steps: int
    width: int
    input_width: int
    gates: int
    orthogonal: bool
    uniform: bool
    weight_scale: np.float32
    input_scale: np.float32
    bias_scale: np.float32
    initial_rms: float
    forget_bias: np.float32
    memory: np.float32  # half the width of the range of chrono times; below 0 without them


def kind_of(network: Recurrent) -> Kind:
    sizes = network.steps, network.width, network.input_width, network.gates
    scales = [1 / math.sqrt(network.width)] * 3
    if network.law != "uniform":
        scales[0] = math.sqrt(network.weight_variance) * (1.0 if network.law == "orthogonal" else scales[0])
        scales[1] = math.sqrt(network.input_variance / network.input_width)
        scales[2] = math.sqrt(network.bias_variance)
    memory = -1.0 if network.longest_memory is None else 0.5 * (network.longest_memory - 2)
    return Kind(
        *sizes, network.law == "orthogonal", network.law == "uniform", f32(scales[0]), f32(scales[1]), f32(scales[2]),
        float(network.initial_rms), f32(network.forget_bias), f32(memory),
    )  # fmt: skip


class Room(NamedTuple):
    """What a network works in beside its random numbers; what its cell or its law does not use is empty."""

    columns: np.ndarray  # (width, gates · width): Wᵀ
    input_columns: np.ndarray  # (input_width, gates · width): Uᵀ
    drive: np.ndarray  # (steps, gates · width): U x + b
    h: np.ndarray  # (steps + 1, width)
    c: np.ndarray  # (steps + 1, width), of the LSTM
    gate: np.ndarray  # (steps, gates, width)
    slope: np.ndarray  # (steps, gates, width)
    inner: np.ndarray  # (steps, width): tanh c of the LSTM, the state's part of n of the GRU
    inner_slope: np.ndarray  # (steps, width), of the LSTM
    from_state: np.ndarray  # (gates · width,), of the GRU
    delta: np.ndarray  # (gates · width,): the gradient at the pre-activations
    g: np.ndarray  # (2, width): the gradients of h and c, in one array, so that they have one scale
    direct: np.ndarray  # (width,)
    total: np.ndarray  # (gates · width, width): ∂E/∂W
    squares: np.ndarray  # (steps + 1,), float64: |h_t|²
    column_squares: np.ndarray  # (width,), float64
    gaussian: np.ndarray  # (width (width + 1)/2,), and the next two: of orthogonal weights
    product: np.ndarray  # (width, width), float64
    vectors: np.ndarray  # (3, width), float64


class Logs(NamedTuple):
    """The results of a network, as in GatedFlow; the last two are of an LSTM or a GRU."""

    signal: np.ndarray
    gradient: np.ndarray
    weight_gradient: np.ndarray
    cell_gradient: np.ndarray
    direct_gradient: np.ndarray


WORD, SINGLE, DOUBLE = types.uint32, types.float32, types.float64
KIND = types.NamedTuple([*[types.int64] * 4, *[types.boolean] * 2, *[SINGLE] * 3, DOUBLE, *[SINGLE] * 2], Kind)
DRAWN = types.NamedTuple([SINGLE[:, ::1]] * 2 + [SINGLE[::1]] * 2 + [SINGLE[:, ::1]] + [SINGLE[::1]] * 2, Drawn)
MEMORY_OF = SINGLE[::1], DOUBLE[::1]
DRAW = [
    types.void(KIND, types.UniTuple(WORD, 3), *MEMORY_OF, own, watch)
    for own, watch in ((types.none, WATCH), (DRAWN, types.none))
]
RUN = DOUBLE(KIND, *MEMORY_OF, types.NamedUniTuple(DOUBLE[::1], 5, Logs), WATCH)


@njit(**STRICT)
def take(memory, at, shape):
    """An array of this shape from `at` on, and where the next begins."""
    size = 1
    for length in shape:
        size *= length
    return part(memory, at, shape), at + (size + ALIGNED - 1) // ALIGNED * ALIGNED


@njit(**STRICT)
def arrays_of(kind, single, double):
    """A network's Drawn and Room within memory of float32 and float64, and how many entries of the two they take."""
    steps, n, m, rows = kind.steps, kind.width, kind.input_width, kind.gates * kind.width
    gated, lstm, gru, haar = kind.gates > 1, kind.gates == GATES_OF_LSTM, kind.gates == GATES_OF_GRU, kind.orthogonal
    weights, at = take(single, 0, (rows, n))
    input_weights, at = take(single, at, (rows, m))
    hidden_bias, at = take(single, at, (rows,))
    input_bias, at = take(single, at, (rows,))
    inputs, at = take(single, at, (steps, m))
    state, at = take(single, at, (n,))
    loss, at = take(single, at, (n,))
    columns, at = take(single, at, (n, rows))
    input_columns, at = take(single, at, (m, rows))
    drive, at = take(single, at, (steps, rows))
    h, at = take(single, at, (steps + 1, n))
    c, at = take(single, at, (lstm * (steps + 1), n))
    gate, at = take(single, at, (gated * steps, kind.gates, n))
    slope, at = take(single, at, (steps, kind.gates, n))
    inner, at = take(single, at, (gated * steps, n))
    inner_slope, at = take(single, at, (lstm * steps, n))
    from_state, at = take(single, at, (gru * rows,))
    delta, at = take(single, at, (rows,))
    g, at = take(single, at, (2, n))
    direct, at = take(single, at, (n,))
    total, at = take(single, at, (rows, n))
    gaussian, at = take(single, at, (haar * n * (n + 1) // 2,))
    squares, at_double = take(double, 0, (steps + 1,))
    column_squares, at_double = take(double, at_double, (n,))
    product, at_double = take(double, at_double, (haar * n, n))
    vectors, at_double = take(double, at_double, (haar * 3, n))
    drawn = Drawn(weights, input_weights, hidden_bias, input_bias, inputs, state, loss)
    room = Room(
        columns, input_columns, drive, h, c, gate, slope, inner, inner_slope, from_state, delta, g, direct, total,
        squares, column_squares, gaussian, product, vectors,
    )  # fmt: skip
    return drawn, room, (at, at_double)


@functools.cache
def sizes_function():
    """The kernel that counts the entries of float32 and of float64 that a network needs."""

    @cached(**STRICT)
    def sizes(kind, single, double):
        _, _, needed = arrays_of(kind, single, double)
        return needed

    return sizes


def sizes_of(kind: Kind) -> tuple[int, int]:
    return sizes_function()(kind, np.empty(0, np.float32), np.empty(0))


def memory_of(kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    single, double = sizes_of(kind)
    return np.empty(single, np.float32), np.empty(double)


def output_shapes(network: Recurrent) -> tuple[tuple[int, ...], ...]:
    """Of a network's Logs and of ln |∂E/∂W|."""
    rows = (network.steps + 1,)
    gated = rows if network.cell in GATES else (1,)
    return rows, rows, (network.steps,), gated, gated, ()


def key_of(trial: int, seed: int) -> tuple[np.uint32, np.uint32, np.uint32]:
    return u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32)


def draw(network: Recurrent, trial: int, seed: int) -> Drawn:
    """The weights, biases and inputs of one of the networks that `propagate` runs."""
    kind = kind_of(network)
    n, m, rows = network.width, network.input_width, network.gates * network.width
    shapes = (rows, n), (rows, m), (rows,), (rows,), (network.steps, m), (n,), (n,)
    drawn = Drawn(*(np.empty(shape, np.float32) for shape in shapes))
    draw_function()(kind, key_of(trial, seed), *memory_of(kind), drawn, None)
    return drawn


@functools.cache
def draw_function():
    """The kernel that draws the random numbers of a network, in memory of its own or in the arrays given."""

    @cached(DRAW, nogil=True, **STRICT)
    def draw(kind, key, single, double, own, watch):
        drawn, room, _ = arrays_of(kind, single, double)
        draw_into(kind, key, drawn if own is None else own, room, watch)

    return draw


@njit(**STRICT)
def draw_into(kind, key, drawn, room, watch):
    """Fill `drawn`; of the room, `direct` and what orthogonal weights need."""
    n, uniform = drawn.state.size, kind.uniform
    if kind.orthogonal:
        for gate in range(kind.gates):
            block = drawn.weights[gate * n : (gate + 1) * n]
            fill_with_haar(
                block,
                kind.weight_scale,
                u32(gate),
                HIDDEN_WEIGHTS,
                key,
                room.gaussian,
                room.product,
                room.vectors,
                watch,
            )
    else:
        fill_with(flat(drawn.weights), uniform, kind.weight_scale, u32(0), HIDDEN_WEIGHTS, key)
    fill_with(flat(drawn.input_weights), uniform, kind.input_scale, u32(0), INPUT_WEIGHTS, key)
    fill_with(drawn.input_bias, uniform, kind.bias_scale, u32(0), INPUT_BIASES, key)
    if uniform:
        fill_with(drawn.hidden_bias, uniform, kind.bias_scale, u32(0), HIDDEN_BIASES, key)
    else:
        set_all(drawn.hidden_bias, ZERO)
    if kind.gates > 1:
        bias_gates(kind, key, drawn.input_bias, room.direct, n)
    fill_with(flat(drawn.inputs), False, ONE, u32(0), INPUTS, key)
    fill_with(drawn.state, False, ONE, u32(0), STATE, key)
    fill_with(drawn.loss, False, ONE, u32(0), LOSS, key)
    rescale(drawn.state, f32(kind.initial_rms * math.sqrt(n / dot(drawn.state, drawn.state, n))))
    rescale(drawn.loss, f32(1.0 / math.sqrt(dot(drawn.loss, drawn.loss, n))))
    together()


@njit(**STRICT)
def bias_gates(kind, key, bias, memory, n):
    """Add what keeps the old state; chrono times are U(1, T - 1), and `memory` is room for their logarithms."""
    for i in mine(n):
        bias[KEEP * n + i] += kind.forget_bias
    if kind.memory >= ZERO:
        fill_with(memory, True, ONE, u32(0), MEMORY, key)
        for i in mine(n):
            time = log(ONE + (memory[i] + ONE) * kind.memory)
            bias[KEEP * n + i] += time
            if kind.gates == GATES_OF_LSTM:
                bias[i] -= time


@njit(**STRICT)
def set_all(x, value):
    compile_once()
    fill(x, value, x.size)


@njit(**STRICT)
def assign(x, y):
    compile_once()
    copy(x, y, x.size)


@njit(**STRICT)
def rescale(x, factor):
    compile_once()
    scale(x, factor, x.size)


@njit(**STRICT)
def add(x, out):
    compile_once()
    for i in mine(x.size):
        out[i] += x[i]


@njit(**STRICT)
def prepare(drawn, room, watch):
    """Wᵀ, h_0, and U x_t + b at every step."""
    transpose(drawn.weights, room.columns)
    transpose(drawn.input_weights, room.input_columns)
    steps, inputs, rows = len(drawn.inputs), drawn.inputs.shape[1], room.drive.shape[1]
    some = steps if watch is None else max(PIECE // (inputs * rows) // 4 * 4, 4)
    for start in range(0, steps, some):
        count = min(some, steps - start)
        given = part(flat(drawn.inputs), start * inputs, (count, inputs))
        multiply(given, room.input_columns, part(flat(room.drive), start * rows, (count, rows)))
        if stopped(watch):
            return
    for t in range(len(room.drive)):
        add(drawn.input_bias, row(room.drive, t))
    assign(row(room.h, 0), drawn.state)


@njit(**STRICT)
def log_norm(x):
    return 0.5 * log64(dot(x, x, x.size))


@njit(**STRICT)
def measure(h, squares, log_signal):
    """|h_t|² and ln of the root mean square of h_t at every step."""
    compile_once()
    for t in range(len(h)):
        squares[t] = dot(row(h, t), row(h, t), h.shape[1])
        log_signal[t] = 0.5 * log64(squares[t]) - 0.5 * log64(f64(h.shape[1]))


@njit(**STRICT)
def scaled(x, log_scale):
    """x over its norm, in place; and the logarithm of the norm of x in units of e^log_scale."""
    square = dot(x, x, x.size)
    if 0.0 < square < SMALL:
        rescale(x, LIFT)
        square, log_scale = dot(x, x, x.size), log_scale - LN_LIFT
    if square > 0.0:
        rescale(x, f32(1.0 / math.sqrt(square)))
    return log_scale + 0.5 * log64(square)


@njit(**STRICT)
def add_outer(total, log_unit, log_size, delta, h, square):
    """total += e^log_size δ̂ hᵀ/|h|, with the total in units of e^log_unit; returns the unit, which only grows.

    δ̂ has the norm 1; `square` is |h|².
    """
    if log_size == -math.inf or square == 0.0:
        return log_unit
    if log_size > log_unit:
        kept = f32(exp64(log_unit - log_size))
        log_unit = log_size
    else:
        kept = ONE
    lift = LIFT if square < SMALL else ONE
    add_scaled_outer(total, kept, f32(exp64(log_size - log_unit) / (f64(lift) * math.sqrt(square))), delta, h, lift)
    return log_unit


@njit(**STRICT)
def add_scaled_outer(total, kept, size, delta, h, lift):
    """total ← kept · total + size · δ (lift · h)ᵀ."""
    compile_once()
    together()
    for i in rows_of_warp(delta.size):
        factor = size * delta[i]
        for j in columns_of_lane(h.size):
            total[i, j] = fma(factor, lift * h[j], kept * total[i, j])
    together()


@njit(**STRICT)
def clear(total):
    compile_once()
    for i in rows_of_warp(total.shape[0]):
        for j in columns_of_lane(total.shape[1]):
            total[i, j] = ZERO


@njit(**STRICT)
def log_norm_of_matrix(a, squares):
    """`squares` is room for a row of float64."""
    add_squares(a, squares)
    return 0.5 * log64(sum_of(squares, squares.size))


@njit(**STRICT)
def add_squares(a, squares):
    """The sum of squares of every column."""
    set_all(squares, 0.0)
    for i in range(a.shape[0]):
        add_square(row(a, i), squares)


@njit(**STRICT)
def add_square(x, squares):
    compile_once()
    for j in mine(x.size):
        squares[j] += f64(x[j]) * f64(x[j])


@njit(inline="always", **STRICT)
def through_simple(name, drawn, room, logs, watch):
    """h_t = φ(W h_{t-1} + U x_t + b), forward and back; returns ln |∂E/∂W|. `name` is what `value_and_slope` takes."""
    prepare(drawn, room, watch)
    weights, hidden_bias, columns, drive = drawn.weights, drawn.hidden_bias, room.columns, room.drive
    h, slope, delta, total, squares = room.h, room.slope, room.delta, room.total, room.squares
    steps, width = len(drive), delta.size
    for t in range(steps):
        if halted(watch):
            return math.nan
        z = row(drive, t)
        add(hidden_bias, z)
        add_rows(columns, row(h, t), z)
        for i in mine(width):
            h[t + 1, i], slope[t, 0, i] = value_and_slope(name, z[i])
    measure(h, room.squares, logs.signal)

    # δ_t = φ′(z_t) ⊙ g_t, g_{t-1} = Wᵀ δ_t
    g = row(room.g, 0)
    assign(g, drawn.loss)
    clear(total)
    log_unit, log_scale = -math.inf, 0.0
    logs.gradient[steps] = 0.0
    for t in range(steps - 1, -1, -1):
        if halted(watch):
            return math.nan
        for i in mine(width):
            delta[i] = slope[t, 0, i] * g[i]
        log_scale = scaled(delta, log_scale)
        log_size = log_scale + 0.5 * log64(squares[t])
        logs.weight_gradient[t] = log_size
        log_unit = add_outer(total, log_unit, log_size, delta, row(h, t), squares[t])
        set_all(g, ZERO)
        add_rows(weights, delta, g)
        log_scale = scaled(g, log_scale)
        logs.gradient[t] = log_scale
    return log_unit + log_norm_of_matrix(total, room.column_squares)


@njit(inline="always", **STRICT)
def sigmoid(z):
    return value_and_slope("sigmoid", z)


@njit(inline="always", **STRICT)
def tanh(z):
    return value_and_slope("tanh", z)


@njit(**STRICT)
def lstm_step(z, gate, slope, c, next_c, out, out_slope, h):
    """c_t = f ⊙ c_{t-1} + i ⊙ g, h_t = o ⊙ tanh c_t, with the gates in the order i, f, g, o."""
    compile_once()
    width = h.size
    for u in mine(width):
        gate[0, u], slope[0, u] = sigmoid(z[u])
        gate[1, u], slope[1, u] = sigmoid(z[width + u])
        gate[2, u], slope[2, u] = tanh(z[2 * width + u])
        gate[3, u], slope[3, u] = sigmoid(z[3 * width + u])
        next_c[u] = gate[1, u] * c[u] + gate[0, u] * gate[2, u]
        out[u], out_slope[u] = tanh(next_c[u])
        h[u] = gate[3, u] * out[u]


@njit(**STRICT)
def lstm_step_back(of_h, of_c, gate, slope, c, out, out_slope, delta):
    """∂E/∂c_t along all paths, and the gradient at the pre-activations."""
    compile_once()
    width = c.size
    for u in mine(width):
        of_c[u] += of_h[u] * gate[3, u] * out_slope[u]
        delta[u] = of_c[u] * gate[2, u] * slope[0, u]
        delta[width + u] = of_c[u] * c[u] * slope[1, u]
        delta[2 * width + u] = of_c[u] * gate[0, u] * slope[2, u]
        delta[3 * width + u] = of_h[u] * out[u] * slope[3, u]


@njit(**STRICT)
def forget(f, direct, of_c):
    compile_once()
    for u in mine(f.size):
        direct[u] *= f[u]
        of_c[u] *= f[u]


@njit(**STRICT)
def through_lstm(drawn, room, logs, watch):
    """An LSTM, forward and back; returns ln |∂E/∂W|."""
    prepare(drawn, room, watch)
    weights, hidden_bias, columns, drive = drawn.weights, drawn.hidden_bias, room.columns, room.drive
    h, c, gate, slope, out, out_slope = room.h, room.c, room.gate, room.slope, room.inner, room.inner_slope
    direct, delta, total, squares = room.direct, room.delta, room.total, room.squares
    steps = len(drive)
    set_all(row(c, 0), ZERO)
    for t in range(steps):
        if halted(watch):
            return math.nan
        z = row(drive, t)
        add(hidden_bias, z)
        add_rows(columns, row(h, t), z)
        lstm_step(
            z, row(gate, t), row(slope, t), row(c, t), row(c, t + 1), row(out, t), row(out_slope, t), row(h, t + 1)
        )
    measure(h, room.squares, logs.signal)

    of_h, of_c, both = row(room.g, 0), row(room.g, 1), flat(room.g)
    assign(of_h, drawn.loss)
    set_all(of_c, ZERO)
    clear(total)
    log_unit, log_scale, log_direct = -math.inf, 0.0, 0.0
    logs.gradient[steps] = 0.0
    for t in range(steps - 1, -1, -1):
        if halted(watch):
            return math.nan
        lstm_step_back(of_h, of_c, row(gate, t), row(slope, t), row(c, t), row(out, t), row(out_slope, t), delta)
        logs.cell_gradient[t + 1] = log_scale + log_norm(of_c)
        if t == steps - 1:
            assign(direct, of_c)
            log_direct = scaled(direct, log_scale)
            logs.direct_gradient[steps] = log_direct
        forget(row(row(gate, t), 1), direct, of_c)
        set_all(of_h, ZERO)
        log_direct = scaled(direct, log_direct)
        logs.direct_gradient[t] = log_direct
        add_rows(weights, delta, of_h)
        log_size = scaled(delta, log_scale) + 0.5 * log64(squares[t])
        logs.weight_gradient[t] = log_size
        log_unit = add_outer(total, log_unit, log_size, delta, row(h, t), squares[t])
        log_scale = scaled(both, log_scale)
        logs.gradient[t] = log_scale + log_norm(of_h)
    logs.cell_gradient[0] = log_scale + log_norm(of_c)
    return log_unit + log_norm_of_matrix(total, room.column_squares)


@njit(**STRICT)
def gru_step(from_input, from_state, gate, slope, inner, h, next_h):
    """h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}, n = tanh(U x + b + r ⊙ (W h_{t-1} + b′)), with the gates in the order r, z, n."""
    compile_once()
    width = h.size
    for u in mine(width):
        gate[0, u], slope[0, u] = sigmoid(from_input[u] + from_state[u])
        gate[1, u], slope[1, u] = sigmoid(from_input[width + u] + from_state[width + u])
        inner[u] = from_state[2 * width + u]
        gate[2, u], slope[2, u] = tanh(from_input[2 * width + u] + gate[0, u] * inner[u])
        next_h[u] = (ONE - gate[1, u]) * gate[2, u] + gate[1, u] * h[u]
    together()


@njit(**STRICT)
def gru_step_back(g, direct, gate, slope, inner, h, delta):
    """The gradient at the pre-activations, and what of the others goes past them."""
    compile_once()
    width = h.size
    for u in mine(width):
        r, z, n = gate[0, u], gate[1, u], gate[2, u]
        of_n = g[u] * (ONE - z) * slope[2, u]
        delta[u] = of_n * inner[u] * slope[0, u]
        delta[width + u] = g[u] * (h[u] - n) * slope[1, u]
        delta[2 * width + u] = of_n * r
        g[u] *= z
        direct[u] *= z


@njit(**STRICT)
def through_gru(drawn, room, logs, watch):
    """A GRU, forward and back; returns ln |∂E/∂W|."""
    prepare(drawn, room, watch)
    weights, hidden_bias, columns, drive = drawn.weights, drawn.hidden_bias, room.columns, room.drive
    h, gate, slope, inner, from_state = room.h, room.gate, room.slope, room.inner, room.from_state
    direct, delta, total, squares = room.direct, room.delta, room.total, room.squares
    steps = len(drive)
    for t in range(steps):
        if halted(watch):
            return math.nan
        assign(from_state, hidden_bias)
        add_rows(columns, row(h, t), from_state)
        gru_step(row(drive, t), from_state, row(gate, t), row(slope, t), row(inner, t), row(h, t), row(h, t + 1))
    measure(h, room.squares, logs.signal)

    g = row(room.g, 0)
    assign(g, drawn.loss)
    assign(direct, drawn.loss)
    clear(total)
    log_unit, log_scale, log_direct = -math.inf, 0.0, 0.0
    logs.gradient[steps] = logs.cell_gradient[steps] = logs.direct_gradient[steps] = 0.0
    for t in range(steps - 1, -1, -1):
        if halted(watch):
            return math.nan
        gru_step_back(g, direct, row(gate, t), row(slope, t), row(inner, t), row(h, t), delta)
        add_rows(weights, delta, g)
        log_size = scaled(delta, log_scale) + 0.5 * log64(squares[t])
        logs.weight_gradient[t] = log_size
        log_unit = add_outer(total, log_unit, log_size, delta, row(h, t), squares[t])
        log_scale = scaled(g, log_scale)
        log_direct = scaled(direct, log_direct)
        logs.gradient[t] = logs.cell_gradient[t] = log_scale
        logs.direct_gradient[t] = log_direct
    return log_unit + log_norm_of_matrix(total, room.column_squares)


@functools.cache
def cell_function(cell: str):
    """The kernel of a network with this cell."""
    if cell in GATES:
        lstm = cell == "lstm"

        @cached(RUN, nogil=True, **STRICT)
        @named(cell)
        def run_gated(kind, single, double, logs, watch):
            drawn, room, _ = arrays_of(kind, single, double)
            return through_lstm(drawn, room, logs, watch) if lstm else through_gru(drawn, room, logs, watch)

        return run_gated

    @cached(RUN, nogil=True, **STRICT)
    @named(cell)
    def run(kind, single, double, logs, watch):
        drawn, room, _ = arrays_of(kind, single, double)
        return through_simple(cell, drawn, room, logs, watch)

    return run


def run(network: Recurrent, trials: int, seed: int, threads: int, progress: bool) -> list[np.ndarray]:
    """Draw the networks and take them through time and back: the Logs and ln |∂E/∂W| of all trials."""
    outputs = [np.empty((trials, *shape)) for shape in output_shapes(network)]
    with announced(progress):
        draw_all, go, kind = draw_function(), cell_function(network.cell), kind_of(network)
        memory_of(kind)

    def run_networks(waiting: Iterator[int], watch: np.ndarray) -> None:
        memory = memory_of(kind)
        for trial in waiting:
            draw_all(kind, key_of(trial, seed), *memory, None, watch)
            if not watch[STOP]:
                outputs[-1][trial] = go(kind, *memory, Logs(*(output[trial] for output in outputs[:-1])), watch)

    share(range(trials), threads, run_networks, progress, 2 * network.steps)
    return outputs
