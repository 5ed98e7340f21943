"""What is simulated: a random fully connected network, without its weights."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from vgp_kernels.activations import activation
from vgp_kernels.initialisers import INITIALISERS

LARGEST = {"depth": 1_000_000, "width": 10_000_000, "input_width": 10_000_000}
RANGE = {"weight_variance": (1e-30, 1e30), "bias_variance": (1e-30, 1e30), "input_rms": (1e-15, 1e15)}


@dataclass(frozen=True)
class Network:
    """A random network z_l = W_l h_{l-1} + b_l, h_l = φ(z_l), l = 1 … depth, with W_ij ~ N(0, σ_w²/fan_in) and b_i ~ N(0, σ_b²).

    `weight_variance` is σ_w², `bias_variance` is σ_b²; give either an initialiser's name or σ_w². With the initialiser
    "orthogonal" W is σ_w times a Haar-distributed orthogonal matrix; σ_w² is 1 unless given. The input has `input_width`
    entries (as many as the layers, unless given) and the root mean square `input_rms`; its direction does not matter.

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

    def __post_init__(self) -> None:
        for name in ("depth", "width", "input_width"):
            value = getattr(self, name)
            if value is not None or name != "input_width":
                self._set(name, checked_count(name, value))
        activation(self.activation)
        for name in ("weight_variance", "bias_variance", "input_rms"):
            value = getattr(self, name)
            if value is not None or name != "weight_variance":
                self._set(name, checked_real(name, value))
        self._set("weight_variance", self._resolved_weight_variance())
        if self.law == "orthogonal" and self.fan_in != self.width:
            raise ValueError(
                f"orthogonal weights are square here: input_width {self.input_width} must equal width {self.width}; "
                "leave input_width out, or take a Gaussian initialiser"
            )

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
        if not isinstance(self.initialiser, str):
            raise TypeError(
                f"initialiser must be a name, not {self.initialiser!r}; known: {', '.join(sorted(INITIALISERS))}"
            )
        if self.initialiser not in INITIALISERS:
            raise ValueError(f"unknown initialiser {self.initialiser!r}; known: {', '.join(sorted(INITIALISERS))}")
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


def checked_count(name: str, value: object) -> int:
    """The value as an int; TypeError or ValueError if it is no whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value)
    if not 1 <= number <= LARGEST[name]:
        raise ValueError(f"{name} must be from 1 to {LARGEST[name]}, not {value!r}")
    return number


def checked_real(name: str, value: object) -> float:
    """The value as a float; TypeError or ValueError if it is no finite number in the range of its name."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = float(value)
    smallest, largest = RANGE[name]
    zero_allowed = name == "bias_variance"
    if math.isnan(number) or not (smallest <= number <= largest or (zero_allowed and number == 0)):
        raise ValueError(
            f"{name} must be {'0 or ' if zero_allowed else ''}from {smallest:g} to {largest:g}, not {value!r}"
        )
    return number
