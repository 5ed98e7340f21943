"""Activation functions: one block each, found by name in ACTIVATIONS.

Each gives φ twice: `value` and `slope` (φ′), its definition in NumPy float64, and `kernel`, a float32 scalar
z → (φ, φ′) from `arithmetic`, which is what networks run. At a kink the slope is that of the left side.
"""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import overload

from vgp_kernels.numerics.arithmetic import (
    HALF,
    ONE,
    STRICT,
    TWO,
    ZERO,
    erf_and_erfc,
    exp_and_expm1,
    exp_of_minus_square,
    f32,
    log1p,
    quotient,
)

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation function φ.

    Theory integrates φ and φ′ by quadrature and looks for fine structure in known places only: φ changes over lengths of about 1
    near 0 and near its kinks, and elsewhere over lengths of about |z|, as straight lines, powers and what dies out do. φ² grows no
    faster than z². `check_structure` refuses what is otherwise, for example sine.
    """

    name: str
    label: str  # for people
    formula: str  # TeX, in z
    value: Function  # φ(z), float64
    slope: Function  # φ′(z), float64
    kernel: Callable  # z -> (φ(z), φ′(z)), float32, compiled
    kinks: tuple[float, ...] = ()  # where φ′ jumps

    @functools.cached_property
    def vanishes_at_zero(self) -> bool:
        """Whether φ(0) = 0."""
        return float(self.value(np.zeros(1))[0]) == 0.0

    @functools.cached_property
    def is_bounded(self) -> bool:
        return float(np.abs(self.value(np.array([-1e9, 1e9]))).max()) < 1e3


LEAK = 0.01  # the leaky ReLU's, as in its paper and in PyTorch
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # such that N(0, 1) maps to mean 0 and variance 1
ROOT_HALF, DENSITY_AT_0 = f32(math.sqrt(0.5)), f32(1 / math.sqrt(2 * math.pi))
TWO_OVER_ROOT_PI = f32(2 / math.sqrt(math.pi))


@njit(inline="always", **STRICT)
def linear(z):
    return z, ONE


@njit(inline="always", **STRICT)
def sigmoid_kernel(z):
    # e = e^-|z|: σ = 1/(1+e) or e/(1+e), σ′ = e/(1+e)²
    e, _ = exp_and_expm1(-abs(z))
    r = ONE / (ONE + e)
    smaller = quotient(e, ONE + e, r)
    return (r if z >= ZERO else smaller), smaller * r


@njit(inline="always", **STRICT)
def centred_sigmoid_kernel(z):
    # σ - ½ = ½ tanh(z/2)
    e, expm1 = exp_and_expm1(-abs(z))
    r = ONE / (ONE + e)
    half = HALF * quotient(-expm1, ONE + e, r)
    return (half if z >= ZERO else -half), e * r * r


@njit(inline="always", **STRICT)
def tanh_kernel(z):
    # e = e^-2|z|: tanh|z| = (1-e)/(1+e), tanh′ = 4e/(1+e)²
    e, expm1 = exp_and_expm1(f32(-2.0) * abs(z))
    r = ONE / (ONE + e)
    tanh = quotient(-expm1, ONE + e, r)
    return (tanh if z >= ZERO else -tanh), f32(4.0) * e * r * r


@njit(inline="always", **STRICT)
def erf_kernel(z):
    erf, _ = erf_and_erfc(abs(z))
    return (erf if z >= ZERO else -erf), TWO_OVER_ROOT_PI * exp_of_minus_square(z)


@njit(inline="always", **STRICT)
def relu_kernel(z):
    positive = z > ZERO
    return (z if positive else ZERO), (ONE if positive else ZERO)


def leaky_relu_kernel(leak: float):
    below = f32(leak)

    @njit(inline="always", **STRICT)
    def kernel(z):
        slope = ONE if z > ZERO else below
        return slope * z, slope

    return kernel


def elu_kernel(scale: float, alpha: float):
    above, below = f32(scale), f32(scale * alpha)

    @njit(inline="always", **STRICT)
    def kernel(z):
        e, expm1 = exp_and_expm1(min(z, ZERO))
        return (above * z if z > ZERO else below * expm1), (above if z > ZERO else below * e)

    return kernel


@njit(inline="always", **STRICT)
def gelu_kernel(z):
    # φ = zΦ(z), φ′ = Φ(z) + z N(z), with the normal distribution Φ and density N
    erf, erfc = erf_and_erfc(ROOT_HALF * abs(z))
    below = HALF * (ONE + erf if z >= ZERO else erfc)
    return z * below, below + z * (DENSITY_AT_0 * exp_of_minus_square(ROOT_HALF * z))


@njit(inline="always", **STRICT)
def silu_kernel(z):
    e, _ = exp_and_expm1(-abs(z))
    larger = ONE / (ONE + e)
    smaller = e * larger
    sigmoid = larger if z >= ZERO else smaller
    complement = smaller if z >= ZERO else larger
    return z * sigmoid, sigmoid * (ONE + z * complement)


@njit(inline="always", **STRICT)
def softplus_kernel(z):
    e, _ = exp_and_expm1(-abs(z))
    r = ONE / (ONE + e)
    return max(z, ZERO) + log1p(e), (r if z >= ZERO else e * r)


@njit(inline="always", **STRICT)
def mish_kernel(z):
    # w = e^-|z|: tanh(softplus z) = (1+2w)/(1+2w+2w²) above 0 and w(w+2)/(w(w+2)+2) below, without a logarithm
    w, _ = exp_and_expm1(-abs(z))
    positive = z >= ZERO
    numerator = ONE + TWO * w if positive else w * (w + TWO)
    r = ONE / (numerator + (TWO * w * w if positive else TWO))
    tanh = numerator * r
    return z * tanh, tanh + z * (f32(4.0) * (w * w if positive else w) * (ONE + w) * r * r)


@njit(inline="always", **STRICT)
def hard_tanh_kernel(z):
    return min(max(z, -ONE), ONE), (ONE if (z > -ONE) and (z <= ONE) else ZERO)


def from_scipy(name: str) -> Function:
    """A function of scipy.special, which takes as long to import as everything else here: so it is when first called."""

    def call(z: np.ndarray) -> np.ndarray:
        from scipy import special

        return getattr(special, name)(z)

    return call


expit, erf, ndtr = map(from_scipy, ("expit", "erf", "ndtr"))


def sigmoid_slope(z):
    e = np.exp(-np.abs(z))
    return e / (1 + e) ** 2


def tanh_slope(z):
    return 4 * sigmoid_slope(2 * np.asarray(z))


def mish_slope(z):
    t = np.tanh(np.logaddexp(0, z))
    return t + z * (1 - t**2) * expit(z)


@functools.cache
def leaky_relu(leak: float, name: str) -> Activation:
    return Activation(
        name,
        "leaky ReLU" if leak == LEAK else f"leaky ReLU ({leak:g})",
        rf"z \text{{ if }} z > 0, \text{{ else }} {leak:g}z",
        lambda z: np.where(z > 0, z, leak * np.asarray(z)),
        lambda z: np.where(np.asarray(z) > 0, 1.0, leak),
        leaky_relu_kernel(leak),
        kinks=(0.0,),
    )


@functools.cache
def elu(alpha: float, name: str) -> Activation:
    return Activation(
        name,
        "ELU" if alpha == 1 else f"ELU ({alpha:g})",
        rf"z \text{{ if }} z > 0, \text{{ else }} {'' if alpha == 1 else f'{alpha:g}'}(e^z - 1)",
        lambda z: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(np.asarray(z) > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
        elu_kernel(1.0, alpha),
        kinks=() if alpha == 1 else (0.0,),
    )


FAMILIES = {"leaky_relu": leaky_relu, "elu": elu}

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("linear", "linear", "z", lambda z: 1.0 * np.asarray(z), lambda z: np.ones_like(z, float), linear),
        Activation("sigmoid", "sigmoid", r"\frac{1}{1 + e^{-z}}", expit, sigmoid_slope, sigmoid_kernel),
        Activation(
            "centred_sigmoid",
            "centred sigmoid",
            r"\frac{1}{1 + e^{-z}} - \tfrac12",
            lambda z: np.tanh(np.asarray(z) / 2) / 2,
            sigmoid_slope,
            centred_sigmoid_kernel,
        ),
        Activation("tanh", "tanh", r"\tanh z", np.tanh, tanh_slope, tanh_kernel),
        Activation(
            "erf",
            "erf",
            r"\operatorname{erf} z",
            erf,
            lambda z: 2 / math.sqrt(math.pi) * np.exp(-np.square(z)),
            erf_kernel,
        ),
        Activation(
            "relu",
            "ReLU",
            r"\max(z, 0)",
            lambda z: np.maximum(z, 0.0),
            lambda z: np.where(np.asarray(z) > 0, 1.0, 0.0),
            relu_kernel,
            kinks=(0.0,),
        ),
        leaky_relu(LEAK, "leaky_relu"),
        elu(1.0, "elu"),
        Activation(
            "selu",
            "SELU",
            r"\lambda z \text{ if } z > 0, \text{ else } \lambda\alpha(e^z - 1)",
            lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
            lambda z: SELU_SCALE * np.where(np.asarray(z) > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(z, 0))),
            elu_kernel(SELU_SCALE, SELU_ALPHA),
            kinks=(0.0,),
        ),
        Activation(
            "gelu",
            "GELU",
            r"z\,\Phi(z)",
            lambda z: z * ndtr(z),
            lambda z: ndtr(z) + z * np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi),
            gelu_kernel,
        ),
        Activation(
            "silu",
            "SiLU",
            r"\frac{z}{1 + e^{-z}}",
            lambda z: z * expit(z),
            lambda z: expit(z) * (1 + z * expit(-np.asarray(z))),
            silu_kernel,
        ),
        Activation(
            "softplus",
            "softplus",
            r"\ln(1 + e^z)",
            lambda z: np.logaddexp(0, z),
            expit,
            softplus_kernel,
        ),
        Activation(
            "mish",
            "Mish",
            r"z \tanh(\ln(1 + e^z))",
            lambda z: z * np.tanh(np.logaddexp(0, z)),
            mish_slope,
            mish_kernel,
        ),
        Activation(
            "hard_tanh",
            "hard tanh",
            r"\max(-1, \min(z, 1))",
            lambda z: np.clip(z, -1.0, 1.0),
            lambda z: np.where((np.asarray(z) > -1) & (np.asarray(z) <= 1), 1.0, 0.0),
            hard_tanh_kernel,
            kinks=(-1.0, 1.0),
        ),
    )
}


def activation(name: str) -> Activation:
    """The activation of this name; "leaky_relu(0.2)" and "elu(0.5)" set the slope or the depth below 0.

    Raises TypeError if the name is no string, ValueError if it is unknown or its parameter is not in [0, 1000].
    """
    if not isinstance(name, str):
        raise TypeError(f"activation must be a name, not {name!r}; known: {', '.join(sorted(ACTIVATIONS))}")
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    if match := re.fullmatch(r"(leaky_relu|elu)\(([0-9.eE+-]+)\)", name):
        family, text = match.groups()
        try:
            parameter = float(text)
        except ValueError:
            parameter = math.nan
        if not 0 <= parameter <= 1000:
            raise ValueError(f"activation {name!r}: the parameter must be a number from 0 to 1000, not {text}")
        return FAMILIES[family](parameter, name)
    raise ValueError(
        f"unknown activation {name!r}; known: {', '.join(sorted(ACTIVATIONS))}; with a parameter: leaky_relu(0.2), elu(0.5)"
    )


@functools.cache
def check_structure(phi: Activation) -> None:
    """Raise ValueError for an activation that theory's quadrature would get wrong; see Activation."""
    for side in (-1.0, 1.0):
        near, far = (phi.value(side * distance * np.array([1.0, 2.0])) for distance in (1e-16, 1e16))
        straight_near = abs(near[1] - 2 * near[0]) <= 1e-9 * abs(near[0]) or abs(near[0]) > 1e-9
        if not straight_near or min(abs(far[1] - 2 * far[0]), abs(far[1] - far[0])) > 1e-9 * max(abs(far[0]), 1.0):
            raise ValueError(
                f"there is no theory for {phi.name!r}: φ must be straight lines close to 0 and far from it"
            )
    distances = 2.0 ** np.arange(-4, 54)
    kinks = {0.0, *phi.kinks}
    edges = np.unique(np.concatenate([[*kinks], *(kink + side * distances for kink in kinks for side in (-1, 1))]))
    halves = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
    points, weights = np.polynomial.legendre.leggauss(20)

    def integrals(edges: np.ndarray) -> np.ndarray:
        middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
        z = middle[:, None] + half[:, None] * points
        value, slope = phi.value(z) / np.maximum(np.abs(z), 1), phi.slope(z)
        return np.array([half * (f @ weights) for f in (value**2, value * slope, slope**2)])

    whole, parts = integrals(edges), integrals(halves)
    off = np.abs(whole - parts[:, ::2] - parts[:, 1::2]) > 1e-9 * np.diff(edges)
    if off.any():
        where = edges[:-1][off.any(axis=0)]
        raise ValueError(
            f"there is no theory for {phi.name!r}: from z = {where[np.abs(where).argmin()]:g} on it changes over lengths that "
            "quadrature does not look for; name its kinks, or measure with propagate"
        )


def value_and_slope(name, z):
    """(φ(z), φ′(z)) in float32 for the activation of this name, a literal: resolved when a kernel is compiled."""
    raise NotImplementedError("value_and_slope exists in compiled code only; use activation(name).value and .slope")


INLINED: Any = {"forceinline": True, **STRICT}


@overload(value_and_slope, jit_options=INLINED)
def resolve_value_and_slope(name, z):
    if not isinstance(name, types.StringLiteral):
        raise TypingError("the activation's name must be a literal")
    kernel = activation(name.literal_value).kernel
    return lambda name, z: kernel(z)
