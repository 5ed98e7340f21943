"""The factor per layer, defined once for all experiments: how it is measured, and what theory says of it at this width.

The factor is the geometric mean over networks of |∂E/∂h_l| over |∂E/∂h_{l+1}|, from layer BOTTOM to layer TOP of a network of
depth DEPTH: far from the input, so that the signal has settled if it ever does, and far from the loss.
"""

import math
from functools import lru_cache

import numpy as np
from experiment import significant

from vgp_kernels import Network, activation, mean_field, propagate
from vgp_kernels.moments import nodes

DEPTH, BOTTOM, TOP = 60, 10, 50
WIDTH = 256  # a common size
TRIALS = 1000  # standard errors of a few units of the fourth digit
STEP = 0.05  # of ln q, for derivatives
LARGEST_DOUBT = 0.01  # of the next order, relative, up to which the first is given


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
    return float(parts.sum(axis=1).mean()), float(2 * np.mean(np.abs(parts).sum(axis=1) ** 2))


def curve_at_width(network: Network) -> np.ndarray:
    """(depth + 1,): the mean of ln |∂E/∂h_l|, to first order in 1/width."""
    parts = shifts(network).sum(axis=1) / network.width
    return mean_field(network).log_gradient + np.append(np.cumsum(parts[::-1])[::-1], 0.0)


def shifts(network: Network) -> np.ndarray:
    """(depth, 4): n times what E ln |∂E/∂h_{l-1}|/|∂E/∂h_l| has beside ½ ln χ₁(q_l) at layer l, to first order in 1/n.

    Three things are of order 1/n; averages are over z ~ N(0, q), and r is the weights' share of q:

    the logarithm of a mean is not the mean of a logarithm. Σφ′²g² Σw² has the relative variance (3κ - 1)/n for Gaussian
    weights, κ = E φ′⁴/(E φ′²)²; orthogonal ones keep the length of δ;

    q_l is not the same in all networks: ln q has a variance v and a mean μ beside the limit's, and ln χ₁ is averaged over them;

    the gradient has a share s of its square along the signal h_l, 1/n at the top. There the slopes keep m = E φ²φ′²/(E φ² E φ′²)
    of the usual, and the weights know where they come from: (z·δ)²/|h|² becomes the next share.
    """
    if network.normalisation or network.residual or network.fan_in != network.width:
        raise ValueError(
            "the shift by width is known for plain networks of one width, not with norms, skips or another input width"
        )
    orthogonal = network.law == "orthogonal"
    if orthogonal and network.bias_variance:
        raise ValueError(
            "the shift by width of orthogonal weights is known without biases only; leave bias_variance out"
        )
    name, log_q = network.activation, mean_field(network).log_variance
    found = np.zeros((network.depth, 4))  # of the logarithm, of the mean and of the variance of ln q, of the share
    mean = variance = 0.0  # n times those of ln q_l beside the limit's
    share = np.empty((network.depth, 3))
    for i, x in enumerate(log_q):
        here = moments_of(name, float(x))
        weights = 1 - network.bias_variance / math.exp(x) if network.bias_variance else 1.0  # their share of q
        found[i, 0] = -0.25 * (3 * here["kappa"] - (3 if orthogonal else 1))
        found[i, 1:3] = 0.5 * here["slope_1"] * mean, 0.25 * here["slope_2"] * variance
        if orthogonal:  # z is uniform on a sphere: its square does not fluctuate
            found[i, 0] += 0.5 * (here["slope_1"] - here["slope_2"])
        share[i] = here["m"], weights * here["p"] + 1 - weights, weights * here["rho_2"]
        # to the next layer: F = ln(σ_w² E φ² + σ_b²), of which the weights' share there is the derivative by ln E φ²
        above = log_q[min(i + 1, network.depth - 1)]
        r = 1 - network.bias_variance / math.exp(above) if network.bias_variance else 1.0
        noise = here["value_4"] - 1 - (2 * here["value_1"] ** 2 if orthogonal else 0.0)
        first = r * here["value_1"]
        second = r * here["value_2"] + r * (1 - r) * here["value_1"] ** 2
        sphere = here["value_2"] + here["value_1"] ** 2 - here["value_1"] if orthogonal else 0.0
        mean = first * mean + 0.5 * second * variance - 0.5 * r * r * noise - r * sphere
        variance = first**2 * variance + r * r * noise
    beyond = 0.0  # n times the share along the signal, less 1
    for i in reversed(range(network.depth)):
        m, p, rho_2 = share[i]
        below = rho_2 * beyond + p - 1
        found[i, 3] = 0.5 * (beyond * (m - 1) + (0.0 if orthogonal else below))
        beyond = below
    return found


@lru_cache(10_000)
def moments_of(name: str, log_q: float) -> dict[str, float]:
    """Averages over z ~ N(0, q); _1 and _2 are derivatives by ln q of ln E φ² and ln E φ′²."""
    low, here, high = (integrals(name, log_q + step) for step in (-STEP, 0.0, STEP))
    found = {
        f"{what}_{order}": difference
        for what in ("value", "slope")
        for order, difference in (
            (1, (math.log(high[what]) - math.log(low[what])) / (2 * STEP)),
            (2, (math.log(high[what]) - 2 * math.log(here[what]) + math.log(low[what])) / STEP**2),
        )
    }
    return found | {
        "value_4": here["fourth"] / here["value"] ** 2,
        "kappa": here["slope_fourth"] / here["slope"] ** 2,
        "m": here["both"] / (here["value"] * here["slope"]),
        "p": here["turned"] / here["slope"],
        "rho_2": here["along"] ** 2 / (here["value"] * here["slope"]),
    }


@lru_cache(10_000)
def integrals(name: str, log_q: float) -> dict[str, float]:
    """Expectations over Z ~ N(0, 1) at z = √q Z."""
    phi, root = activation(name), math.exp(log_q / 2)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1 / max(root, 1e-3))
    value, slope = phi.value(root * z), phi.slope(root * z)
    return {
        key: float(weight @ x)
        for key, x in {
            "value": value**2,
            "fourth": value**4,
            "slope": slope**2,
            "slope_fourth": slope**4,
            "both": value**2 * slope**2,
            "turned": z**2 * slope**2,
            "along": z * value * slope,
        }.items()
    }


def agrees(entry: dict) -> bool:
    """Theory for this width within four standard errors and the next order of 1/width."""
    return abs(entry["measured"] / entry["at_width"] - 1) < 4 * entry["error"] / entry["measured"] + entry["doubt"]


def along_over_across(network: Network) -> float:
    """The factor of a gradient along the signal h over that of one in a random direction, in the middle of the network."""
    q = mean_field(network).log_variance[(BOTTOM + TOP) // 2]
    weights = 1 - network.bias_variance / math.exp(q) if network.bias_variance else 1.0
    return significant(math.sqrt(weights * moments_of(network.activation, float(q))["rho_2"]), 5)
