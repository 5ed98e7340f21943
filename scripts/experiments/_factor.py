"""The factor per layer, defined once for all experiments: how it is measured, and what theory says of it at this width.

The factor is the geometric mean over networks of |∂E/∂h_l| over |∂E/∂h_{l+1}|, from layer BOTTOM to layer TOP of a network of
depth DEPTH: far from the input, so that the signal has settled if it ever does, and far from the loss.
"""

import math

import numpy as np
from experiment import significant

from vgp_kernels import Network, mean_field, propagate
from vgp_kernels.theory.finite_width import ratios, shifts

DEPTH, BOTTOM, TOP = 60, 10, 50
WIDTH = 256  # a common size
TRIALS = 1000  # standard errors of a few units of the fourth digit
LARGEST_DOUBT = 0.01  # of the next order, relative, up to which the first is given
ROUNDING = 1e-28  # a doubt below is the square of what float64 rounds, where theory has 0


def factor(network: Network, trials: int = TRIALS, seed: int = 0) -> dict:
    """The factor, predicted for infinite width and (for plain networks) for this width, and measured with its standard error."""
    theory, flow = mean_field(network).log_gradient, propagate(network, trials, seed).log_gradient
    rates = per_layer(flow)
    measured = math.exp(rates.mean())
    predicted = float(per_layer(theory))
    found = {"predicted": significant(math.exp(predicted), 6) if math.isfinite(predicted) else None}
    if network.normalisation is None and network.residual is None:
        shift, doubt = shift_by_width(network)
        if (
            doubt < LARGEST_DOUBT
        ):  # else the gradient has turned into one direction, or networks differ too much in size
            found |= {"at_width": significant(math.exp(predicted + shift), 6), "doubt": significant(doubt, 2)}
    return found | {
        "measured": significant(measured, 6),
        "error": significant(measured * rates.std(ddof=1) / math.sqrt(trials), 2),
    }


def per_layer(log_gradient: np.ndarray) -> np.ndarray:
    """ln of the factor, from ln |∂E/∂h_l| along the last axis."""
    return (log_gradient[..., BOTTOM] - log_gradient[..., TOP]) / (TOP - BOTTOM)


def shift_by_width(network: Network) -> tuple[float, float]:
    """How far the mean of ln factor lies from theory for infinite width, to first order in 1/width, and the size of the next order.

    The next order is taken to be twice the square of the first, the parts of which are counted without their signs.
    """
    parts = shifts(network)[BOTTOM:TOP] / network.width
    doubt = float(2 * np.mean(np.abs(parts).sum(axis=1) ** 2))
    return float(parts.sum(axis=1).mean()), doubt if doubt > ROUNDING else 0.0


def agrees(entry: dict) -> bool:
    """Theory for this width within four standard errors and the next order of 1/width."""
    return abs(entry["measured"] / entry["at_width"] - 1) < 4 * entry["error"] / entry["measured"] + entry["doubt"]


def along_over_across(network: Network) -> float:
    """The factor of a gradient along the signal h over that of one in a random direction, in the middle of the network."""
    q = mean_field(network).log_variance[(BOTTOM + TOP) // 2]
    weights = 1 - network.bias_variance / math.exp(q) if network.bias_variance else 1.0
    return significant(math.sqrt(weights * ratios(network.activation, float(q))["rho_2"]), 5)
