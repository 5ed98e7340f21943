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

import numpy as np
from scipy import special, stats

from vgp_kernels.activations import activation
from vgp_kernels.mean_field import mean_field
from vgp_kernels.moments import is_homogeneous, moments, nodes
from vgp_kernels.network import Network


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


def width_shift(network: Network) -> float:
    """n times what a width of n adds to the mean of ln |∂E/∂h| per layer at q*, to first order in 1/n: for any φ, Gaussian weights.

    -(3κ - 1)/4 with κ = E φ′⁴/(E φ′²)² for independent gradients, which is all of it for φ of two straight lines; then, with A
    the mean square of the gradient along h over that along any direction, (A - 1)/2 · E φ²φ′²/(E φ² E φ′²), and what ln χ₁ gains
    as q varies about q*. One layer makes of A - 1, with the share ρ = 1 - σ_b²/q of the weights in q,
    ρ(E Z²φ′²/E φ′² - 1 + (A - 1) (E Zφφ′)²/(E φ² E φ′²)).
    """
    if not network.is_plain or network.law != "gaussian":
        raise ValueError(
            "the shift by width is for one input, Gaussian weights, no norms or skips; measure with propagate"
        )
    phi, theory = activation(network.activation), mean_field(network)
    if is_homogeneous(phi):
        r, s = slopes(network.activation)
        return -(6 * (r**4 + s**4) / (r**2 + s**2) ** 2 - 1) / 4
    q, chi_q, weights = theory.q_star, theory.chi_q, network.weight_variance
    if not 0 < q < math.inf or not chi_q < 1:
        raise ValueError(f"the shift by width is for a variance that settles between 0 and infinity, not at q* = {q:g}")
    root = math.sqrt(q)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1 / max(root, 1e-3))
    value, slope = phi.value(root * z), phi.slope(root * z)

    def mean(f: np.ndarray) -> float:
        return float(weight @ f)

    squares = mean(value**2) * mean(slope**2)
    share = 1 - network.bias_variance / q
    along = share * (mean((z * slope) ** 2) / mean(slope**2) - 1) / (1 - share * mean(z * value * slope) ** 2 / squares)
    # q varies with the variance V/n about a mean that is m/n off
    step = 1e-3
    below, here, above = (moments(phi, math.log(q) + x) for x in (-step, 0.0, step))
    bend = weights * (above.growth - below.growth) / (2 * step) / q
    variance = weights**2 * (mean(value**4) - mean(value**2) ** 2) / (1 - chi_q**2)
    first = math.log(above.slope / below.slope) / (2 * step)
    second = math.log(above.slope * below.slope / here.slope**2) / step**2 - first
    varying = first / q * bend * variance / (1 - chi_q) / 2 + second / q**2 * variance / 2
    kappa = mean(slope**4) / mean(slope**2) ** 2
    return -(3 * kappa - 1) / 4 + along / 2 * mean((value * slope) ** 2) / squares + varying / 2
