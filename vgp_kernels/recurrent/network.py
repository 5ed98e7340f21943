"""Networks in time: simple recurrent networks, LSTM and GRU, and what is measured of them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.initialisers import INITIALISERS
from vgp_kernels.network import Network, check_name, checked_count, checked_real

GATES = {"lstm": 4, "gru": 3}  # rows of blocks in the weights, in PyTorch's order: i, f, g, o and r, z, n
LARGEST_MATRIX = 2**27  # entries
LARGEST_LOG = 89.0  # above the logarithm of the largest float32
PYTORCH = "pytorch"


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
    family: ClassVar[str] = "recurrent"

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
