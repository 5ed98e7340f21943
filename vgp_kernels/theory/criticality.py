"""Weights and biases at which gradients neither vanish nor explode, for any φ."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.network import checked_real
from vgp_kernels.theory.moments import LOG_SMALL, is_homogeneous, moments

ROUND_OFF = 1e-11  # of the moments


def critical_weight_variance(name: str, q: float = 1.0) -> float:
    """The σ_w² with χ₁ = 1 at pre-activation variance q: 1/E φ′(√q Z)²."""
    return 1 / moments(activation(name), math.log(checked_real("weight_variance", q))).slope


def variance_preserving_weight_variance(name: str, q: float = 1.0) -> float:
    """The σ_w² that keeps the pre-activation variance q without biases: q/E φ(√q Z)²."""
    log_q = math.log(checked_real("weight_variance", q))
    return math.exp(log_q - moments(activation(name), log_q).log_value)


class CriticalPoint(NamedTuple):
    """Weights and biases with a fixed point q* = q at which χ₁ = 1."""

    weight_variance: float
    bias_variance: float
    q: float
    chi_q: float
    """dq_{l+1}/dq_l: the fixed point attracts below 1, repels above; 1 is half-stable (or q = 0)."""


def point_at(name: str, q: float) -> CriticalPoint:
    """The point of the critical line with q* = q: σ_w² = 1/E φ′², σ_b² = q - σ_w² E φ².

    σ_b² below 0 says that there is none.
    """
    here = moments(activation(name), math.log(q))
    return CriticalPoint(1 / here.slope, q - math.exp(here.log_value) / here.slope, q, here.growth / here.slope)


def critical_points(name: str, bias_variance: float) -> list[CriticalPoint]:
    """All points with χ₁ = 1 at the fixed point for a given σ_b², by rising q; there may be none.

    For φ of two straight lines through 0 and σ_b² = 0 every q is one; q = 0 stands for them.
    """
    phi, wanted = activation(name), checked_real("bias_variance", bias_variance)
    found = []
    if wanted == 0 and phi.vanishes_at_zero:
        here = moments(phi, LOG_SMALL)
        if abs(math.exp(here.log_value - LOG_SMALL) / here.slope - 1) < 1e-9:
            found.append(CriticalPoint(1 / here.slope, 0.0, 0.0, 1.0))
    # relative to q, so that round-off near q = 0 is no crossing
    found += [point_at(name, q) for q in crossings(lambda q: (point_at(name, q).bias_variance - wanted) / q)]
    return found


def half_stable_points(name: str) -> list[CriticalPoint]:
    """Where χ₁ = χ_q = 1 at a q* above 0: the ends of the stable part of the critical line, if any.

    Roberts, Yaida & Hanin 2022, The Principles of Deep Learning Theory, section 5.3.4.
    """
    found = [] if is_homogeneous(activation(name)) else crossings(lambda q: point_at(name, q).chi_q - 1)
    return [point for point in (point_at(name, q) for q in found) if point.bias_variance >= 0]


def crossings(function: Callable[[float], float]) -> list[float]:
    """Where the function of q changes its sign, from 1e-6 to 1e6."""
    from scipy.optimize import brentq  # slow to import, and not needed by most

    grid = np.geomspace(1e-6, 1e6, 481)
    values = np.array([function(q) for q in grid])
    values[np.abs(values) < ROUND_OFF] = 0.0
    changes = np.flatnonzero(values[:-1] * values[1:] < 0)
    return [float(brentq(function, grid[i], grid[i + 1], xtol=1e-14, rtol=1e-14)) for i in changes]


def critical_point(name: str, bias_variance: float) -> tuple[float, float]:
    """(σ_w², q*) on the critical line χ₁(q*) = 1 for a given σ_b²: the point that attracts, if one does.

    Raises ValueError where the activation has no critical point.
    """
    points = critical_points(name, bias_variance)
    if not points:
        raise ValueError(
            f"{name} has no critical point with bias_variance {bias_variance!r}: χ₁ = 1 needs another value"
        )
    best = min(points, key=lambda point: point.chi_q > 1)
    return best.weight_variance, best.q
