"""Networks in time: simple recurrent networks, LSTM and GRU, with the same weights at every step.

The weights are used once for each step, forward and back, so they are made in full: at the usual sizes that costs no more
than to sample only their action. Arithmetic is float32 and gradients carry their scale as a logarithm.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from vgp_kernels.activations import activation, value_and_slope
from vgp_kernels.arithmetic import ONE, STRICT, exp64, f32, fma, log, log64
from vgp_kernels.cpu import SOURCES
from vgp_kernels.initialisers import INITIALISERS
from vgp_kernels.matrices import Maker, add_rows, product, sum_of_squares, transposed
from vgp_kernels.moments import nodes
from vgp_kernels.network import Network, check_name, checked_count, checked_real
from vgp_kernels.randomness import u32

GATES = {"lstm": 4, "gru": 3}  # rows of blocks in the weights, in PyTorch's order: i, f, g, o and r, z, n
KEEP = 1  # which of them decides what is kept of the old state: f and z
LARGEST_MATRIX = 2**27  # entries
LARGEST_LOG = 89.0  # above the logarithm of the largest float32
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

    The loss sees h_T only, and ∂E/∂h_T is a random direction of norm 1.
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


def draw(network: Recurrent, trial: int, seed: int) -> Drawn:
    """The weights, biases and inputs of one of the networks that `propagate` runs."""
    make = Maker(trial, seed)
    n, gates = network.width, network.gates
    uniform = 1 / math.sqrt(n)
    if network.law == "uniform":
        weights = uniform * make.uniforms((gates * n, n), HIDDEN_WEIGHTS)
        input_weights = uniform * make.uniforms((gates * n, network.input_width), INPUT_WEIGHTS)
        hidden_bias = uniform * make.uniforms((gates * n,), HIDDEN_BIASES)
        input_bias = uniform * make.uniforms((gates * n,), INPUT_BIASES)
    else:
        gain = math.sqrt(network.weight_variance)
        if network.law == "orthogonal":
            weights = gain * np.concatenate([make.haar(n, gate, HIDDEN_WEIGHTS) for gate in range(gates)])
        else:
            weights = gain * uniform * make.normals((gates * n, n), HIDDEN_WEIGHTS)
        input_scale = math.sqrt(network.input_variance / network.input_width)
        input_weights = input_scale * make.normals((gates * n, network.input_width), INPUT_WEIGHTS)
        hidden_bias = np.zeros(gates * n, np.float32)
        input_bias = math.sqrt(network.bias_variance) * make.normals((gates * n,), INPUT_BIASES)
    if network.cell in GATES:
        kept = input_bias[KEEP * n : (KEEP + 1) * n]
        kept += network.forget_bias
        if network.longest_memory is not None:
            memory = chrono_function()(make.uniforms((n,), MEMORY), network.longest_memory)
            kept += memory
            if network.cell == "lstm":
                input_bias[:n] -= memory
    inputs = make.normals((network.steps, network.input_width), INPUTS)
    state, loss = make.normals((n,), STATE), make.normals((n,), LOSS)
    state *= network.initial_rms * math.sqrt(n / sum_of_squares(state))
    loss *= 1 / math.sqrt(sum_of_squares(loss))
    return Drawn(weights, input_weights, hidden_bias, input_bias, inputs, state, loss)


@functools.cache
def chrono_function(sources: str = SOURCES):
    """The kernel of ln U(1, T - 1) for the uniforms given, in (-1, 1)."""

    @njit(cache=True, **STRICT)
    def chrono(uniforms, longest_memory):
        sources  # noqa: B018  # in the cache's key
        biases = np.empty(uniforms.size, np.float32)
        for i in range(uniforms.size):
            biases[i] = log(ONE + (uniforms[i] + ONE) * f32(0.5 * (longest_memory - 2)))
        return biases

    return chrono


@njit(**STRICT)
def add(x, out):
    for i in range(x.size):
        out[i] += x[i]


@njit(**STRICT)
def driven(inputs, input_weights, input_bias):
    """U x_t + b at every step."""
    drive = product(inputs, transposed(input_weights))
    for t in range(len(inputs)):
        add(input_bias, drive[t])
    return drive


@njit(**STRICT)
def log_norm(x):
    return 0.5 * log64(sum_of_squares(x))


@njit(**STRICT)
def scaled(x, log_scale):
    """x over its norm, in place; and the logarithm of the norm of x in units of e^log_scale."""
    square = sum_of_squares(x)
    if square > 0.0:
        factor = f32(1.0 / math.sqrt(square))
        for i in range(x.size):
            x[i] *= factor
    return log_scale + 0.5 * log64(square)


@njit(**STRICT)
def add_outer(total, log_unit, log_size, delta, h):
    """total += e^log_size δ̂ hᵀ/|h| for a δ̂ of norm 1, with the total in units of e^log_unit; returns the unit, which only grows."""
    square = sum_of_squares(h)
    if log_size == -math.inf or square == 0.0:
        return log_unit
    if log_size > log_unit:
        kept = f32(exp64(log_unit - log_size))
        log_unit = log_size
    else:
        kept = ONE
    size = f32(exp64(log_size - log_unit) / math.sqrt(square))
    for i in range(delta.size):
        factor = size * delta[i]
        for j in range(h.size):
            total[i, j] = fma(factor, h[j], kept * total[i, j])
    return log_unit


@functools.cache
def simple_function(name: str, sources: str = SOURCES):
    """The kernel of h_t = φ(W h_{t-1} + U x_t + b)."""

    @njit(cache=True, nogil=True, **STRICT)
    def run(drawn, log_signal, log_gradient, log_weight_gradient):
        sources  # noqa: B018  # in the cache's key
        weights, input_weights, hidden_bias, input_bias, inputs, state, loss = drawn
        steps, width = len(inputs), state.size
        columns = transposed(weights)
        drive = driven(inputs, input_weights, input_bias)
        h, slope = np.empty((steps + 1, width), np.float32), np.empty((steps, width), np.float32)
        h[0] = state
        for t in range(steps):
            z = drive[t]
            add(hidden_bias, z)
            add_rows(columns, h[t], z)
            for i in range(width):
                h[t + 1, i], slope[t, i] = value_and_slope(name, z[i])
        for t in range(steps + 1):
            log_signal[t] = log_norm(h[t]) - 0.5 * log64(float(width))

        # δ_t = φ′(z_t) ⊙ g_t, g_{t-1} = Wᵀ δ_t
        g, delta = loss.copy(), np.empty(width, np.float32)
        total, log_unit = np.zeros((width, width), np.float32), -math.inf
        log_scale = 0.0
        log_gradient[steps] = 0.0
        for t in range(steps - 1, -1, -1):
            for i in range(width):
                delta[i] = slope[t, i] * g[i]
            log_scale = scaled(delta, log_scale)
            log_weight_gradient[t] = log_scale + log_norm(h[t])
            log_unit = add_outer(total, log_unit, log_weight_gradient[t], delta, h[t])
            g[:] = f32(0.0)
            add_rows(weights, delta, g)
            log_scale = scaled(g, log_scale)
            log_gradient[t] = log_scale
        return log_unit + log_norm(total)

    return run


@njit(inline="always", **STRICT)
def sigmoid(z):
    return value_and_slope("sigmoid", z)


@njit(inline="always", **STRICT)
def tanh(z):
    return value_and_slope("tanh", z)


@functools.cache
def lstm_function(sources: str = SOURCES):
    """The kernel of the LSTM: c_t = f ⊙ c_{t-1} + i ⊙ g, h_t = o ⊙ tanh c_t, with the gates in the order i, f, g, o."""

    @njit(cache=True, nogil=True, **STRICT)
    def run(drawn, log_signal, log_gradient, log_weight_gradient, log_cell_gradient, log_direct_gradient):
        sources  # noqa: B018  # in the cache's key
        weights, input_weights, hidden_bias, input_bias, inputs, state, loss = drawn
        steps, width = len(inputs), state.size
        columns = transposed(weights)
        drive = driven(inputs, input_weights, input_bias)
        h, c = np.empty((steps + 1, width), np.float32), np.zeros((steps + 1, width), np.float32)
        gate, slope = np.empty((steps, 4, width), np.float32), np.empty((steps, 4, width), np.float32)
        out, out_slope = np.empty((steps, width), np.float32), np.empty((steps, width), np.float32)  # tanh c
        h[0] = state
        for t in range(steps):
            z = drive[t]
            add(hidden_bias, z)
            add_rows(columns, h[t], z)
            for u in range(width):
                gate[t, 0, u], slope[t, 0, u] = sigmoid(z[u])
                gate[t, 1, u], slope[t, 1, u] = sigmoid(z[width + u])
                gate[t, 2, u], slope[t, 2, u] = tanh(z[2 * width + u])
                gate[t, 3, u], slope[t, 3, u] = sigmoid(z[3 * width + u])
                c[t + 1, u] = gate[t, 1, u] * c[t, u] + gate[t, 0, u] * gate[t, 2, u]
                out[t, u], out_slope[t, u] = tanh(c[t + 1, u])
                h[t + 1, u] = gate[t, 3, u] * out[t, u]
        for t in range(steps + 1):
            log_signal[t] = log_norm(h[t]) - 0.5 * log64(float(width))

        # both gradients in one vector, so that they have one scale
        both = np.zeros(2 * width, np.float32)
        of_h, of_c = both[:width], both[width:]
        of_h[:] = loss
        direct, log_direct = np.empty(width, np.float32), 0.0
        delta = np.empty(4 * width, np.float32)
        total, log_unit = np.zeros((4 * width, width), np.float32), -math.inf
        log_scale = 0.0
        log_gradient[steps] = 0.0
        for t in range(steps - 1, -1, -1):
            for u in range(width):
                i, f, g, o = gate[t, 0, u], gate[t, 1, u], gate[t, 2, u], gate[t, 3, u]
                of_c[u] += of_h[u] * o * out_slope[t, u]
                delta[u] = of_c[u] * g * slope[t, 0, u]
                delta[width + u] = of_c[u] * c[t, u] * slope[t, 1, u]
                delta[2 * width + u] = of_c[u] * i * slope[t, 2, u]
                delta[3 * width + u] = of_h[u] * out[t, u] * slope[t, 3, u]
            log_cell_gradient[t + 1] = log_scale + log_norm(of_c)
            if t == steps - 1:
                direct[:] = of_c
                log_direct = scaled(direct, log_scale)
                log_direct_gradient[steps] = log_direct
            for u in range(width):
                f = gate[t, 1, u]
                direct[u] *= f
                of_c[u] *= f
            log_direct = scaled(direct, log_direct)
            log_direct_gradient[t] = log_direct
            of_h[:] = f32(0.0)
            add_rows(weights, delta, of_h)
            log_delta = scaled(delta, log_scale)
            log_weight_gradient[t] = log_delta + log_norm(h[t])
            log_unit = add_outer(total, log_unit, log_weight_gradient[t], delta, h[t])
            log_scale = scaled(both, log_scale)
            log_gradient[t] = log_scale + log_norm(of_h)
        log_cell_gradient[0] = log_scale + log_norm(of_c)
        return log_unit + log_norm(total)

    return run


@functools.cache
def gru_function(sources: str = SOURCES):
    """The kernel of the GRU: h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}, n = tanh(U x + b + r ⊙ (W h_{t-1} + b′)), in the order r, z, n."""

    @njit(cache=True, nogil=True, **STRICT)
    def run(drawn, log_signal, log_gradient, log_weight_gradient, log_cell_gradient, log_direct_gradient):
        sources  # noqa: B018  # in the cache's key
        weights, input_weights, hidden_bias, input_bias, inputs, state, loss = drawn
        steps, width = len(inputs), state.size
        columns = transposed(weights)
        drive = driven(inputs, input_weights, input_bias)
        h, inner = np.empty((steps + 1, width), np.float32), np.empty((steps, width), np.float32)
        gate, slope = np.empty((steps, 3, width), np.float32), np.empty((steps, 3, width), np.float32)
        h[0] = state
        for t in range(steps):
            from_state = hidden_bias.copy()
            add_rows(columns, h[t], from_state)
            for u in range(width):
                z = drive[t, u] + from_state[u]
                gate[t, 0, u], slope[t, 0, u] = sigmoid(z)
                z = drive[t, width + u] + from_state[width + u]
                gate[t, 1, u], slope[t, 1, u] = sigmoid(z)
                inner[t, u] = from_state[2 * width + u]
                z = drive[t, 2 * width + u] + gate[t, 0, u] * inner[t, u]
                gate[t, 2, u], slope[t, 2, u] = tanh(z)
                h[t + 1, u] = (ONE - gate[t, 1, u]) * gate[t, 2, u] + gate[t, 1, u] * h[t, u]
        for t in range(steps + 1):
            log_signal[t] = log_norm(h[t]) - 0.5 * log64(float(width))

        g, direct, log_direct = loss.copy(), loss.copy(), 0.0
        delta = np.empty(3 * width, np.float32)
        total, log_unit = np.zeros((3 * width, width), np.float32), -math.inf
        log_scale = 0.0
        log_gradient[steps] = log_direct_gradient[steps] = 0.0
        for t in range(steps - 1, -1, -1):
            for u in range(width):
                r, z, n = gate[t, 0, u], gate[t, 1, u], gate[t, 2, u]
                of_n = g[u] * (ONE - z) * slope[t, 2, u]
                delta[u] = of_n * inner[t, u] * slope[t, 0, u]
                delta[width + u] = g[u] * (h[t, u] - n) * slope[t, 1, u]
                delta[2 * width + u] = of_n * r
                g[u] *= z
                direct[u] *= z
            add_rows(weights, delta, g)
            log_delta = scaled(delta, log_scale)
            log_weight_gradient[t] = log_delta + log_norm(h[t])
            log_unit = add_outer(total, log_unit, log_weight_gradient[t], delta, h[t])
            log_scale = scaled(g, log_scale)
            log_direct = scaled(direct, log_direct)
            log_gradient[t], log_direct_gradient[t] = log_scale, log_direct
        log_cell_gradient[:] = log_gradient
        return log_unit + log_norm(total)

    return run


def run(network: Recurrent, trials: int, seed: int, threads: int) -> RecurrentFlow:
    """Draw the networks and take them through time and back; see `propagate`."""
    rows = network.steps + 1
    outputs = [np.empty((trials, rows)), np.empty((trials, rows)), np.empty((trials, network.steps))]
    if network.cell in GATES:
        outputs += [np.empty((trials, rows)), np.empty((trials, rows))]
        kernel = lstm_function() if network.cell == "lstm" else gru_function()
    else:
        kernel = simple_function(network.cell)
    total = np.empty(trials)

    def run_one(trial: int) -> None:
        total[trial] = kernel(tuple(draw(network, trial, seed)), *(output[trial] for output in outputs))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run_one, range(trials)):
            pass
    if (lost := (outputs[0] > LARGEST_LOG).any(axis=0)).any():
        raise ValueError(
            f"the state leaves the range of float32 at step {int(np.argmax(lost))}; "
            "take fewer steps or a smaller weight_variance"
        )
    if network.cell in GATES:
        signal, gradient, weight_gradient, cell, direct = outputs
        return GatedFlow(network, seed, signal, gradient, weight_gradient, total, cell, direct)
    return RecurrentFlow(network, seed, outputs[0], outputs[1], outputs[2], total)


# Theory


def forget_factor(bias: float, variance: float = 0.0) -> float:
    """Geometric mean of a gate σ(a) whose logit is N(bias, variance): what a long product gains per step."""
    z, weight = nodes([-bias / math.sqrt(variance)] if variance > 0 else [0.0], 1.0)
    logit = bias + math.sqrt(variance) * z
    return math.exp(-float(weight @ np.logaddexp(0, -logit)))


def half_life(factor: float) -> float:
    """In how many steps a factor per step makes ½; infinite from 1 on."""
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
