"""Networks in time: simple recurrent networks, LSTM and GRU, with the same weights at every step.

The weights are used once for each step, forward and back, so they are made in full: at the usual sizes that costs no more
than to sample only their action. Arithmetic is float32 and gradients carry their scale as a logarithm. Several lanes may share
a network, see `lanes`.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import activation, value_and_slope
from vgp_kernels.arithmetic import ONE, STRICT, ZERO, exp64, f32, f64, fma, log, log64
from vgp_kernels.cache import cached
from vgp_kernels.cpu import named
from vgp_kernels.frames import copy, dot, fill, scale, sum_of
from vgp_kernels.initialisers import INITIALISERS
from vgp_kernels.lanes import columns_of_lane, compile_once, flat, mine, part, row, rows_of_warp, together
from vgp_kernels.matrices import add_rows, fill_with, fill_with_haar, multiply, transpose
from vgp_kernels.moments import nodes
from vgp_kernels.network import Network, check_name, checked_count, checked_real
from vgp_kernels.pool import STOP, WATCH, announced, halted, share, stopped
from vgp_kernels.randomness import u32

GATES = {"lstm": 4, "gru": 3}  # rows of blocks in the weights, in PyTorch's order: i, f, g, o and r, z, n
GATES_OF_LSTM, GATES_OF_GRU = GATES["lstm"], GATES["gru"]
KEEP = 1  # which of them decides what is kept of the old state: f and z
ALIGNED = 32  # entries of an array in memory: where the next begins is a multiple
LARGEST_MATRIX = 2**27  # entries
LARGEST_LOG = 89.0  # above the logarithm of the largest float32
LIFT, LN_LIFT = f32(2.0**64), 64 * math.log(2.0)  # what brings vectors of subnormal float32 back into its range
SMALL = 2.0**-200  # the square of a norm below which it is used
PIECE = 2**26  # products of numbers that a thread does before it looks whether to stop
PYTORCH = "pytorch"

# purposes of the random numbers
HIDDEN_WEIGHTS, INPUT_WEIGHTS, HIDDEN_BIASES, INPUT_BIASES, INPUTS, STATE, LOSS, MEMORY = map(u32, range(16, 24))


@dataclass(frozen=True)
class Recurrent:
    """A recurrent network whose weights are the same at every step t = 1 … steps, with independent N(0, 1) inputs x_t.

    `cell` is an activation's name for h_t = φ(W h_{t-1} + U x_t + b), or "lstm" or "gru" with PyTorch's equations, in which
    each gate has a W, a U and a b of its own. W_ij ~ N(0, σ_w²/width), (U x_t)_i ~ N(0, σ_u²), b_i ~ N(0, σ_b²), drawn once;
    `weight_variance` is σ_w², `input_variance` σ_u² and `bias_variance` σ_b². Give an initialiser's name or σ_w². With
    "orthogonal" each W is σ_w times a Haar-distributed orthogonal matrix, and σ_w² is 1 unless given. With "pytorch" all
    weights and both bias vectors are uniform in ±1/√width: the framework's default.

    The state starts in a random direction with the root mean square `initial_rms`; the cell of an LSTM starts at 0.

    `forget_bias` is added to the bias of the LSTM's forget gate, or of the GRU's update gate, which there keeps the state.
    `longest_memory` T draws it for each unit from ln U(1, T - 1) instead, and the LSTM's input gate gets the opposite
    (chrono initialisation, Tallec & Ollivier 2018).

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range, unknown or contradictory.
    """

    steps: int
    width: int
    cell: str = "tanh"
    initialiser: str | None = None
    weight_variance: float = None  # type: ignore[assignment]  # these are resolved below: never None afterwards
    input_variance: float = None  # type: ignore[assignment]
    bias_variance: float = None  # type: ignore[assignment]
    input_width: int = None  # type: ignore[assignment]
    initial_rms: float = 0.0
    forget_bias: float = 0.0
    longest_memory: int | None = None

    def __post_init__(self) -> None:
        self._set("steps", checked_count("steps", self.steps, "depth"))
        self._set("width", checked_count("width", self.width))
        self._set(
            "input_width", checked_count("input_width", self.width if self.input_width is None else self.input_width)
        )
        if not isinstance(self.cell, str) or self.cell not in GATES:
            try:
                activation(self.cell)
            except ValueError as error:
                raise ValueError(f"unknown cell {self.cell!r}; known: gru, lstm, or an activation: {error}") from None
        self._resolve_variances()
        self._set("initial_rms", checked_real("initial_rms", self.initial_rms, "residual_scale"))
        self._check_gates()
        if self.gates * self.width * max(self.width, self.input_width) > LARGEST_MATRIX:
            raise ValueError(f"width {self.width} is too large: weights are made in full here; take 5000 or less")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _resolve_variances(self) -> None:
        given = {name: getattr(self, name) for name in ("weight_variance", "input_variance", "bias_variance")}
        if self.initialiser == PYTORCH:
            if any(value is not None for value in given.values()):
                raise ValueError("initialiser 'pytorch' says how all weights and biases are drawn; give no variances")
            uniform = 1 / (3 * self.width)
            resolved = {
                "weight_variance": self.width * uniform,
                "input_variance": self.input_width * uniform,
                "bias_variance": 2 * uniform,
            }
        else:
            defaults = {"weight_variance": self._initialiser_variance(), "input_variance": 1.0, "bias_variance": 0.0}
            like = {
                "weight_variance": "weight_variance",
                "input_variance": "bias_variance",
                "bias_variance": "bias_variance",
            }
            resolved = {
                name: checked_real(name, defaults[name] if value is None else value, like[name])
                for name, value in given.items()
            }
        for name, value in resolved.items():
            self._set(name, value)

    def _initialiser_variance(self) -> float | None:
        if self.initialiser is None:
            if self.weight_variance is None:
                raise ValueError(
                    "give an initialiser or a weight_variance, for example initialiser='orthogonal'; "
                    f"known initialisers: {', '.join(sorted([*INITIALISERS, PYTORCH]))}"
                )
            return None
        check_name("initialiser", self.initialiser, [*INITIALISERS, PYTORCH])
        rule = INITIALISERS[self.initialiser]
        variance = rule.variance(self.width, self.width)
        if rule.law == "gaussian" and self.weight_variance not in (None, variance):
            raise ValueError(
                f"initialiser {self.initialiser!r} means weight_variance {variance:g}, not {self.weight_variance:g}; "
                "give one of the two"
            )
        return variance

    def _check_gates(self) -> None:
        number = self.forget_bias
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"forget_bias must be a number, not {number!r}")
        if not -1000 <= number <= 1000:
            raise ValueError(f"forget_bias must be from -1000 to 1000, not {number!r}")
        if self.longest_memory is not None:
            checked_count("longest_memory", self.longest_memory, "width")
            if self.longest_memory < 2:
                raise ValueError(f"longest_memory must be 2 steps or more, not {self.longest_memory}")
            if number != 0:
                raise ValueError("forget_bias and longest_memory both set the same bias; give one of the two")
        if self.cell not in GATES and (number != 0 or self.longest_memory is not None):
            raise ValueError(f"cell {self.cell!r} has no gate to bias; take 'lstm' or 'gru'")

    @property
    def gates(self) -> int:
        """How many blocks W has: 4 for LSTM, 3 for GRU, 1 without gates."""
        return GATES.get(self.cell, 1)

    @property
    def law(self) -> str:
        """The weights' law: "gaussian", "orthogonal" or "uniform"."""
        if self.initialiser == PYTORCH:
            return "uniform"
        return "gaussian" if self.initialiser is None else INITIALISERS[self.initialiser].law

    @property
    def unrolled(self) -> Network:
        """The feed-forward network with fresh weights at each step, for which mean-field theory predicts the same.

        Fresh inputs act as its biases. At finite width the two differ, the more so the longer the time. Raises ValueError
        for LSTM and GRU.
        """
        if self.cell in GATES:
            raise ValueError(f"no feed-forward network is like {self.cell!r}; take an activation as cell")
        return Network(
            self.steps,
            self.width,
            self.cell,
            weight_variance=self.weight_variance,
            bias_variance=self.input_variance + self.bias_variance,
            input_rms=max(self.initial_rms, 1e-15),
        )


@dataclass(frozen=True, eq=False)
class RecurrentFlow:
    """What `propagate` measured of a recurrent network, step by step, in natural logarithms; -inf where a norm is exactly 0.

    The loss sees h_T only, and ∂E/∂h_T is a random direction of norm 1. States and slopes are float32: entries lose digits below
    e^-87 and count as 0 below e^-103.
    """

    network: Recurrent
    seed: int
    log_signal: np.ndarray
    """(trials, T + 1): ln of the root mean square of h_t, t = 0 … T."""
    log_gradient: np.ndarray
    """(trials, T + 1): ln |∂E/∂h_t|, t = 0 … T, along all paths from h_t to the loss."""
    log_weight_gradient: np.ndarray
    """(trials, T): ln |δ_t| |h_{t-1}|, the norm of what step t = 1 … T adds to ∂E/∂W, for the gradient δ_t at all pre-activations."""
    log_total_weight_gradient: np.ndarray
    """(trials,): ln |∂E/∂W|, the norm of the sum over all steps."""

    @property
    def trials(self) -> int:
        """The number of independent networks."""
        return len(self.log_signal)


@dataclass(frozen=True, eq=False)
class GatedFlow(RecurrentFlow):
    """What `propagate` measured of an LSTM or a GRU."""

    log_cell_gradient: np.ndarray
    """(trials, T + 1): ln |∂E/∂c_t| along all paths; the state h is its own cell in a GRU."""
    log_direct_gradient: np.ndarray
    """(trials, T + 1): the same along the direct path alone: ln |f_{t+1} ⊙ … ⊙ f_T ⊙ ∂E/∂c_T|, with z for f in a GRU."""


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


def on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.copy_to_host()


def flow_of(network: Recurrent, seed: int, outputs: list[Any]) -> RecurrentFlow:
    """The outputs of all trials, which may lie on a GPU, with their names; ValueError if float32 could not hold a number."""
    signal, gradient, weight_gradient, cell_gradient, direct_gradient, total = outputs
    gated = network.cell in GATES
    of_gradients = outputs[1:] if gated else [gradient, weight_gradient, total]
    if (lost := ~(on_host(signal) <= LARGEST_LOG).all(axis=0)).any():  # NaN, too
        raise ValueError(
            f"the state leaves the range of float32 at step {int(np.argmax(lost))}; "
            "take fewer steps or a smaller weight_variance"
        )
    if not all((on_host(logs) < np.inf).all() for logs in of_gradients):
        raise ValueError(
            "a gradient leaves the range of float32 within a step; take a smaller weight_variance or state"
        )
    if gated:
        return GatedFlow(network, seed, signal, gradient, weight_gradient, total, cell_gradient, direct_gradient)
    return RecurrentFlow(network, seed, signal, gradient, weight_gradient, total)


# Theory


def forget_factor(bias: float, variance: float = 0.0) -> float:
    """Geometric mean of a gate σ(a) whose logit is N(bias, variance): what a long product gains per step."""
    z, weight = nodes([-bias / math.sqrt(variance)] if variance > 0 else [0.0], 1.0)
    logit = bias + math.sqrt(variance) * z
    return math.exp(-float(weight @ np.logaddexp(0, -logit)))


def half_life(factor: float) -> float:
    """In how many steps a factor per step makes ½; infinite from 1 on, 0 for a factor of 0.

    Raises ValueError for a factor below 0, of which there is no such number.
    """
    if not factor >= 0:
        raise ValueError(f"factor must be 0 or above to have a half-life, not {factor!r}")
    if factor == 0:
        return 0.0
    return math.log(2) / -math.log(factor) if factor < 1 else math.inf


def scalar_factor(weight: float) -> float:
    """What the gradient of h_t = tanh(w h_{t-1}) gains per step at the state it settles in: w up to 1, then w(1 - h*²).

    Settled is h* = tanh(w h*), 0 for |w| ≤ 1 and the stable solution above.
    """
    w = abs(weight)
    if w <= 1:
        return w
    from scipy.optimize import brentq

    settled = brentq(lambda h: math.tanh(w * h) - h, 1e-9 if w < 1.0001 else math.sqrt(1 - 1 / w) / 2, 1.0, xtol=1e-15)
    return w * (1 - settled**2)


def singular_value_bound(network: Recurrent) -> float:
    """The factor per step that a gradient cannot exceed when W is large: largest singular value times largest slope.

    2σ_w for Gaussian and uniform weights (Ginibre), σ_w for orthogonal ones, times max |φ′|. Raises ValueError for
    LSTM and GRU. Pascanu, Mikolov & Bengio 2013: below 1 it is enough for vanishing.
    """
    if network.cell in GATES:
        raise ValueError(f"no such bound for {network.cell!r}; take an activation as cell")
    steepest = float(np.abs(activation(network.cell).slope(np.linspace(-20, 20, 40001))).max())
    return (1 if network.law == "orthogonal" else 2) * math.sqrt(network.weight_variance) * steepest
