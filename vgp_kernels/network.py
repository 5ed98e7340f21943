"""What is simulated: a random network, without its weights; and what is measured of it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.initialisers import INITIALISERS

LARGEST = {"depth": 1_000_000, "width": 10_000_000, "input_width": 10_000_000, "batch_size": 65_536}
RANGE = {
    "weight_variance": (1e-30, 1e30),
    "bias_variance": (1e-30, 1e30),
    "input_rms": (1e-15, 1e15),
    "input_correlation": (-1.0, 1.0),
    "residual_scale": (1e-15, 1e15),
}
MAY_BE_ZERO = ("bias_variance", "residual_scale")

RESIDUALS = {
    "preactivation": "x + α W φ(N(x))",
    "postactivation": "x + α φ(N(W x + b))",
    "two_weights": "x + α W₂ φ(W₁ N(x) + b)",
}
NORMALISATIONS = ("batch", "batch_inference", "layer", "rms")
NORM_POSITIONS = ("pre", "post")


@dataclass(frozen=True)
class Network:
    """A random network z_l = W_l h_{l-1} + b_l, h_l = φ(z_l), l = 1 … depth, with W_ij ~ N(0, σ_w²/fan_in) and b_i ~ N(0, σ_b²).

    `weight_variance` is σ_w², `bias_variance` is σ_b²; give either an initialiser's name or σ_w². With the initialiser
    "orthogonal" W is σ_w times a Haar-distributed orthogonal matrix; σ_w² is 1 unless given. The input has `input_width`
    entries (as many as the layers, unless given), the root mean square `input_rms` and a random direction.

    `batch_size` inputs pass through the same weights; the cosine between any two of them is `input_correlation`.

    `normalisation` is "batch" (training mode: each unit over the batch), "batch_inference" (the same, but mean and
    variance are constants that pass no gradient), "layer" or "rms" (each input over its units), all with unit gain and no
    shift. By `norm_position` it stands before the activation, h = φ(N(Wh + b)), or after it,
    h = N(φ(Wh + b)).

    With `residual` each layer becomes a block that adds to its input x a branch times α, the `residual_scale`:
    "preactivation" x + α W φ(N(x)), "postactivation" x + α φ(N(Wx + b)), "two_weights" x + α W₂ φ(W₁ N(x) + b). With
    norm_position "post" the norm is taken of the sum instead, N(x + …). `depth` then counts blocks.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range, unknown or contradictory.
    """

    depth: int
    width: int
    activation: str
    initialiser: str | None = None
    weight_variance: float = None  # type: ignore[assignment]  # resolved below: never None afterwards
    bias_variance: float = 0.0
    input_width: int | None = None
    input_rms: float = 1.0
    batch_size: int = 1
    input_correlation: float = 0.0
    normalisation: str | None = None
    norm_position: str = "pre"
    residual: str | None = None
    residual_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("depth", "width", "input_width", "batch_size"):
            value = getattr(self, name)
            if value is not None or name != "input_width":
                self._set(name, checked_count(name, value))
        activation(self.activation)
        for name in RANGE:
            value = getattr(self, name)
            if value is not None or name != "weight_variance":
                self._set(name, checked_real(name, value))
        self._set("weight_variance", self._resolved_weight_variance())
        if self.law == "orthogonal" and self.fan_in != self.width:
            raise ValueError(
                f"orthogonal weights are square here: input_width {self.input_width} must equal width {self.width}; "
                "leave input_width out, or take a Gaussian initialiser"
            )
        self._check_batch()
        self._check_normalisation()
        self._check_residual()

    def _set(self, name: str, value: int | float) -> None:
        object.__setattr__(self, name, value)

    def _resolved_weight_variance(self) -> float:
        if self.initialiser is None:
            if self.weight_variance is None:
                raise ValueError(
                    "give an initialiser or a weight_variance, for example initialiser='xavier'; "
                    f"known initialisers: {', '.join(sorted(INITIALISERS))}"
                )
            return self.weight_variance
        check_name("initialiser", self.initialiser, INITIALISERS)
        rule = INITIALISERS[self.initialiser]
        variance = rule.variance(self.width, self.width)
        if self.weight_variance is None:
            return variance
        if rule.law == "gaussian" and self.weight_variance != variance:
            raise ValueError(
                f"initialiser {self.initialiser!r} means weight_variance {variance:g} at width {self.width}, "
                f"not {self.weight_variance:g}; give one of the two"
            )
        return self.weight_variance

    def _check_batch(self) -> None:
        if self.batch_size == 1 and self.input_correlation != 0:
            raise ValueError(
                f"input_correlation {self.input_correlation:g} needs at least two inputs; give batch_size=2 or more"
            )
        least = -1 / (self.batch_size - 1) if self.batch_size > 1 else -1.0
        if self.input_correlation < least:
            raise ValueError(
                f"{self.batch_size} inputs cannot all have the cosine {self.input_correlation:g} with each other; "
                f"the least is {least:.6g}"
            )
        dimensions = 1 if self.input_correlation == 1 else self.batch_size - (self.input_correlation == least)
        if dimensions > self.fan_in:
            raise ValueError(
                f"{self.batch_size} inputs of cosine {self.input_correlation:g} do not fit into {self.fan_in} dimensions; "
                "take a smaller batch_size or a larger input_width"
            )

    def _check_normalisation(self) -> None:
        check_name("norm_position", self.norm_position, NORM_POSITIONS)
        if self.normalisation is None:
            if self.norm_position != "pre":
                raise ValueError("norm_position 'post' needs a normalisation: batch, layer or rms")
            return
        check_name("normalisation", self.normalisation, NORMALISATIONS)
        if self.normalisation in ("batch", "batch_inference") and self.batch_size == 1:
            raise ValueError(
                "batch normalisation has no meaning for one input (it would be 0 at every unit); give batch_size=2 or more"
            )
        if self.normalisation == "layer" and self.width == 1:
            raise ValueError("layer normalisation of width 1 is always 0; give a larger width")

    def _check_residual(self) -> None:
        if self.residual is None:
            if self.residual_scale != 1:
                raise ValueError(f"residual_scale {self.residual_scale:g} needs a residual: {', '.join(RESIDUALS)}")
            return
        check_name("residual", self.residual, RESIDUALS)
        if self.residual == "preactivation" and self.bias_variance > 0:
            raise ValueError(
                f"the block {RESIDUALS['preactivation']} has no biases: leave bias_variance {self.bias_variance:g} out, "
                "or take another residual"
            )
        if self.fan_in != self.width:
            raise ValueError(
                f"a residual block adds its input: input_width {self.input_width} must equal width {self.width}; "
                "leave input_width out"
            )

    @property
    def law(self) -> str:
        """The weights' law: "gaussian" or "orthogonal"."""
        return "gaussian" if self.initialiser is None else INITIALISERS[self.initialiser].law

    @property
    def fan_in(self) -> int:
        """The number of inputs of the first layer; that of all others is `width`."""
        return self.width if self.input_width is None else self.input_width

    @property
    def first_weight_variance(self) -> float:
        """σ_w² of the first layer, which differs from that of the others where the initialiser looks at the fan-in."""
        if self.initialiser is None or self.law == "orthogonal":
            return self.weight_variance
        return INITIALISERS[self.initialiser].variance(self.fan_in, self.width)

    @property
    def weights_per_layer(self) -> int:
        """The number of weight matrices in each layer or block."""
        return 2 if self.residual == "two_weights" else 1

    @property
    def is_plain(self) -> bool:
        """Whether this is one input through layers without norms and skips."""
        return self.batch_size == 1 and self.normalisation is None and self.residual is None

    @property
    def family(self) -> str:
        """Which kernels run it: see `vgp_kernels.targets.families`."""
        return "plain" if self.is_plain else "batch"


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """What `propagate` measured, layer by layer, in natural logarithms; -inf where a norm is exactly 0."""

    network: Network
    seed: int
    log_signal: np.ndarray  # or, with output="device", an array on the GPU; so are the others
    """(trials, depth + 1): ln of the root mean square of h_l over units and inputs, l = 0 … depth; h_0 is the input."""
    log_gradient: np.ndarray
    """(trials, depth + 1): ln |∂E/∂h_l| of all inputs together, l = 0 … depth, with |∂E/∂h_depth| = 1."""
    log_weight_gradient: np.ndarray
    """(trials, depth · weights_per_layer): ln |∂E/∂W_l| (Frobenius norm), l = 1 … depth; of two weights, W₁ before W₂."""
    correlation: np.ndarray
    """(trials, depth + 1): the mean cosine between the h_l of two inputs, over all pairs of inputs with h_l ≠ 0; NaN without one."""
    gradient_correlation: np.ndarray
    """(trials, depth + 1): the same of ∂E/∂h_l."""

    @property
    def trials(self) -> int:
        """The number of independent networks."""
        return self.log_signal.shape[0]


def flow_of(network: Network, seed: int, arrays: Sequence[np.ndarray]) -> GradientFlow:
    """The arrays of all trials with their names; of a single input, which has no correlation with another, there are three."""
    undefined = np.broadcast_to(np.nan, (len(arrays[0]), network.depth + 1))
    return GradientFlow(network, seed, *arrays, *[undefined] * (5 - len(arrays)))


def check_name(field: str, value: object, known: Iterable[str]) -> None:
    """TypeError if the value is no string, ValueError if it is none of the known names."""
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a name, not {value!r}; known: {', '.join(sorted(known))}")
    if value not in known:
        raise ValueError(f"unknown {field} {value!r}; known: {', '.join(sorted(known))}")


def checked_count(name: str, value: object, like: str | None = None) -> int:
    """The value as an int; TypeError or ValueError if it is no whole number from 1 on, up to what its name or `like` may be."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number, largest = int(value), LARGEST[like or name]
    if not 1 <= number <= largest:
        raise ValueError(f"{name} must be from 1 to {largest}, not {value!r}")
    return number


def checked_real(name: str, value: object, like: str | None = None) -> float:
    """The value as a float; TypeError or ValueError if it is no finite number in the range of its name, or of `like`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    smallest, largest = RANGE[like or name]
    zero_allowed = (like or name) in MAY_BE_ZERO
    if not (smallest <= number <= largest or (zero_allowed and number == 0)):
        raise ValueError(
            f"{name} must be {'0 or ' if zero_allowed else ''}from {smallest:g} to {largest:g}, not {value!r}"
        )
    return number


def checked_integer(name: str, value: object, smallest: int, largest: int) -> int:
    """The value as an int; TypeError or ValueError if it is no whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value)
    if not smallest <= number <= largest:
        raise ValueError(f"{name} must be from {smallest} to {largest}, not {value!r}")
    return number
