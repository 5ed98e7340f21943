"""What a gradient gains or loses per step of time: gates, the scalar network, and a bound for all of them."""

import math

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.recurrent.network import GATES, Recurrent
from vgp_kernels.theory.moments import nodes


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
