"""Exact laws at finite width: what the norms of one network do, beside their mean over many.

For φ of slopes r above 0 and s below (ReLU, leaky ReLU, linear), without biases and with Gaussian weights, the squared norm of Ju,
for J = ∂h_L/∂h_0 and any fixed u, is |u|² times one independent factor per layer (Hanin & Nica 2018, arXiv:1812.05994):

    X = (σ_w²/n_in) (r² χ²_K + s² χ²_{n-K}),    K ~ Binomial(n, ½),

because a row of W and its negative are equally likely, so that which units are on is independent of what the row does to u.

For a random direction u at the top, |Jᵀu|² times cos² of a random angle in n_0 dimensions has the law of |Jv|² times cos² of one in
n_L dimensions: both are (uᵀJv)² for random directions u and v. So gradients have the law of signals where widths are equal, and
exact means and variances of their logarithms everywhere.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from vgp_kernels.activations import activation
from vgp_kernels.network import Network
from vgp_kernels.theory.mean_field import mean_field
from vgp_kernels.theory.moments import is_homogeneous, nodes

STEP = 0.05  # of ln q, for derivatives


@dataclass(frozen=True)
class LayerLaw:
    """The law of the factor X by which a layer multiplies a squared norm."""

    mean: float
    """E X."""
    square: float
    """E X²/(E X)²."""
    log_mean: float
    """E ln X, given that X > 0."""
    log_variance: float
    """Var ln X, given that X > 0."""
    death: float
    """P(X = 0)."""


def layer_law(name: str, fan_in: int, width: int, weight_variance: float) -> LayerLaw:
    """The factor of a layer of `width` units: its moments exactly, those of its logarithm to quadrature's 1e-10.

    Raises ValueError for an activation that is not made of two straight lines through 0.
    """
    r, s = slopes(name)
    scale = weight_variance / fan_in
    mean = width * (r * r + s * s) / 2  # of X/scale
    variance = width * 3 * (r**4 + s**4) / 2 - width * ((r * r + s * s) / 2) ** 2
    counts = np.arange(width + 1)
    probability = stats.binom.pmf(counts, width, 0.5)
    death = float(0.5**width) if s == 0 or r == 0 else 0.0
    if r == s:
        log_mean, log_variance = math.log(2 * r * r) + special.digamma(width / 2), special.polygamma(1, width / 2)
    elif s == 0 or r == 0:
        half, probability = counts[1:] / 2, probability[1:] / probability[1:].sum()
        log_means = special.digamma(half)
        log_mean = math.log(2 * max(r, s) ** 2) + probability @ log_means
        log_variance = probability @ (special.polygamma(1, half) + (log_means - probability @ log_means) ** 2)
    else:
        log_mean, log_variance = mixed_log_moments(r * r, s * s, width)
    return LayerLaw(
        scale * mean,
        1 + variance / mean**2,
        math.log(scale) + float(log_mean),
        float(log_variance),
        death,
    )


@dataclass(frozen=True, eq=False)
class LogNorms:
    """Means and variances of what `propagate` measures, over the networks in which no layer is dead."""

    log_signal: np.ndarray
    """(depth + 1,): E ln of the root mean square of h_l; then its variance."""
    log_signal_variance: np.ndarray
    log_gradient: np.ndarray
    """(depth + 1,): E ln |∂E/∂h_l|; then its variance."""
    log_gradient_variance: np.ndarray
    log_weight_gradient: np.ndarray
    """(depth,): E ln |∂E/∂W_l|; then its variance."""
    log_weight_gradient_variance: np.ndarray


def layer_laws(network: Network) -> list[LayerLaw]:
    """One for each layer; raises ValueError for networks that have no exact law."""
    if not network.is_plain or network.law != "gaussian" or network.bias_variance:
        raise ValueError(
            "the exact law is for one input, Gaussian weights, no biases, norms or skips; "
            "leave these out, or measure with propagate"
        )
    first = layer_law(network.activation, network.fan_in, network.width, network.first_weight_variance)
    other = layer_law(network.activation, network.width, network.width, network.weight_variance)
    return [first] + [other] * (network.depth - 1)


def log_norms(network: Network) -> LogNorms:
    """Exact means and variances of the logarithms of all norms, at any width and depth."""
    laws, n = layer_laws(network), network.width
    mean, variance = np.array([(law.log_mean, law.log_variance) for law in laws]).T
    widths = np.full(network.depth + 1, n)
    widths[0] = network.fan_in
    log_chi, log_chi_variance = special.digamma(widths / 2) + math.log(2), special.polygamma(1, widths / 2)

    def below(steps: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(steps)])

    def above(steps: np.ndarray) -> np.ndarray:
        return below(steps[::-1])[::-1]

    square = 2 * math.log(network.input_rms) + math.log(network.fan_in) + below(mean)  # ln |h_l|²
    gradient = above(mean) + log_chi - log_chi[-1]
    gradient_variance = above(variance) + log_chi_variance - log_chi_variance[-1]
    # δ = Dg: |Dv|² for a random direction v is X without weights over an independent χ²
    log_weights = np.log(np.full(network.depth, network.weight_variance) / widths[:-1])
    log_weights[0] = math.log(network.first_weight_variance / network.fan_in)
    delta = mean - log_weights + above(mean)[1:] - log_chi[-1]
    delta_variance = variance + above(variance)[1:] - log_chi_variance[-1]
    return LogNorms(
        (square - np.log(widths)) / 2,
        below(variance) / 4,
        gradient / 2,
        gradient_variance / 4,
        (delta + square[:-1]) / 2,
        (delta_variance + below(variance)[:-1]) / 4,
    )


def log_normal(network: Network) -> tuple[float, float]:
    """(mean, variance) of ln |Ju|² in the log-normal approximation: ln E|Ju|² - β/2 and β = Σ (E X²/(E X)² - 1).

    For ReLU β = Σ 5/n_l (Hanin & Nica 2018); right for wide networks whose depth is of the order of their width.
    """
    laws = layer_laws(network)
    beta = sum(law.square - 1 for law in laws)
    return sum(math.log(law.mean) for law in laws) - beta / 2, beta


def fourth_moment(network: Network) -> float:
    """E|∇f|⁴/(E|∇f|²)² of the input gradient of f = a·h_L with independent normal a: (1 + 2/n_0) ∏ E X²/(E X)².

    Hanin 2018, arXiv:1801.03744; for ReLU (1 + 2/n_0) ∏ (1 + 5/n_l). One entry of ∇f has 3 ∏ E X²/(E X)².
    """
    return (1 + 2 / network.fan_in) * math.prod(law.square for law in layer_laws(network))


def death_probability(network: Network) -> float:
    """The probability that some layer is 0 for a given input, so that no gradient passes: 1 - ∏ (1 - 2^{-n_l}) for ReLU."""
    return -math.expm1(sum(math.log1p(-law.death) for law in layer_laws(network)))


def slopes(name: str) -> tuple[float, float]:
    """(φ′ above 0, φ′ below 0)."""
    phi = activation(name)
    if not is_homogeneous(phi):
        raise ValueError(
            f"the exact law is for activations of two straight lines through 0 (relu, leaky_relu, linear), not {name!r}"
        )
    below, above = (float(x) for x in phi.slope(np.array([-1.0, 1.0])))
    return above, below


def mixed_log_moments(above: float, below: float, width: int) -> tuple[float, float]:
    """Mean and variance of ln Y, Y the sum of `width` independent terms aZ² or bZ², each with probability ½.

    From the Laplace transform M(t) = E e^{-tY} = ((1 + 2at)^{-½} + (1 + 2bt)^{-½})/2 to the power of the width:
    E ln Y = ∫ (e^{-t} - M(t)) dt/t and E ln² Y = 2∫ (M(t) - e^{-t}) (γ + ln t) dt/t, where γ is Euler's constant.
    """
    # in x = ln t, far enough to either side for what is left out to be below 1e-12
    x = np.linspace(-40 - math.log(above * width), 80 * max(1.0, 2 / width) - math.log(below), 40_001)
    t = np.exp(x)
    transform = np.exp(width * np.log(((1 + 2 * above * t) ** -0.5 + (1 + 2 * below * t) ** -0.5) / 2))
    difference = np.exp(-t) - transform
    step = x[1] - x[0]  # the trapezoidal rule is exact to all orders: the integrand dies out at both ends
    mean = step * difference.sum()
    square = -2 * step * (difference * (np.euler_gamma + x)).sum()
    return float(mean), float(square - mean**2)


def log_gradient_at_width(network: Network) -> np.ndarray:
    """(depth + 1): the mean of ln |∂E/∂h_l|, l = 0 … depth, to first order in 1/width. Raises ValueError like `shifts`."""
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

    Raises ValueError for norms, skips, batches, another input width, and orthogonal weights with biases.
    """
    if not network.is_plain or network.fan_in != network.width:
        raise ValueError(
            "the shift by width is known for one input to layers of one width, not for batches, norms, skips or another input_width"
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
        here = ratios(name, float(x))
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
def ratios(name: str, log_q: float) -> dict[str, float]:
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
