"""What theory predicts for infinitely wide networks, for any φ, by quadrature.

Poole et al. 2016 and Schoenholz et al. 2017: the pre-activations of layer l are N(0, q_l) with q_{l+1} = σ_w² E φ(√q_l Z)² + σ_b²,
and the squared norm of the gradient is multiplied per layer by χ₁ = σ_w² E φ′(√q Z)², with Z ~ N(0, 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vgp_kernels.activations import Activation, activation
from vgp_kernels.network import Network, checked_real

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
EDGE = 13.0  # the normal density beyond is below 1e-37
# Outside of these, φ is a straight line on either side of 0 to 1e-14, and moments are scaled from the end of the range.
LOG_SMALL, LOG_LARGE = math.log(1e-28), math.log(1e28)
MARGINAL = 1e-12  # a drift of ln q per layer below this is none


def nodes(centres: Sequence[float], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Points z and weights of E f(Z), Z ~ N(0, 1), for an f that changes over a length `scale` around the centres.

    Composite Gauss-Legendre quadrature on panels of length 1 or less that meet at the centres and shrink towards them.
    """
    steps = scale * 2.0 ** np.arange(-1, max(0, math.ceil(math.log2(2 * EDGE / scale))))
    pieces = [np.arange(-EDGE, EDGE + 1)] + [np.concatenate([c - steps, [c], c + steps]) for c in centres]
    edges = np.unique(np.concatenate(pieces))
    edges = edges[np.abs(edges) <= EDGE]
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    z = (middle[:, None] + half[:, None] * NODES).ravel()
    return z, (half[:, None] * WEIGHTS).ravel() * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Moments:
    """Expectations over Z ~ N(0, 1) at a pre-activation variance q."""

    log_value: float  # ln E φ(√q Z)²
    slope: float  # E φ′(√q Z)²
    growth: float  # E φ φ′ Z/√q = d/dq E φ(√q Z)²


def moments(phi: Activation, log_q: float) -> Moments:
    """The moments at q = e^log_q; q may be beyond the range of float64."""
    near = log_q
    if phi.vanishes_at_zero:
        near = max(near, LOG_SMALL)
    if not phi.is_bounded:
        near = min(near, LOG_LARGE)
    root = math.exp(near / 2)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1 / max(root, 1e-3))
    value, slope = phi.value(root * z), phi.slope(root * z)
    mean_square = float(weight @ value**2)
    return Moments(
        math.log(mean_square) + log_q - near, float(weight @ slope**2), float(weight @ (value * slope * z)) / root
    )


def log_sum(x: float, y: float) -> float:
    """ln(eˣ + eʸ)."""
    return float(np.logaddexp(x, y))


def log_or_minus_infinity(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


@dataclass(frozen=True, eq=False)
class MeanField:
    """The prediction for one network; see `mean_field`."""

    network: Network
    q_star: float
    """Variance of the pre-activations at the fixed point that q_1 flows to: 0 or infinite where there is none between."""
    chi_1: float
    """χ₁ = σ_w² E φ′², the factor of the squared gradient norm per layer, at q*."""
    chi_q: float
    """dq_{l+1}/dq_l at q*."""
    remark: str
    """What is special about the fixed point; empty if nothing is."""
    log_variance: np.ndarray
    """(depth,): ln q_l, l = 1 … depth."""
    log_signal: np.ndarray
    """(depth + 1,): ln of the root mean square of h_l, l = 0 … depth."""
    log_gradient: np.ndarray
    """(depth + 1,): ½ ln E|∂E/∂h_l|², with |∂E/∂h_depth| = 1."""
    log_weight_gradient: np.ndarray
    """(depth,): ½ ln E|∂E/∂W_l|² (Frobenius norm), l = 1 … depth."""

    @property
    def variance(self) -> np.ndarray:
        """(depth,): q_l, l = 1 … depth."""
        return np.exp(self.log_variance)

    @property
    def rate(self) -> float:
        """½ ln χ₁: what the logarithm of the gradient norm gains per layer on the way down."""
        return 0.5 * log_or_minus_infinity(self.chi_1)

    @property
    def phase(self) -> str:
        """ "ordered" (gradients vanish), "critical" or "chaotic" (they explode)."""
        if abs(self.chi_1 - 1) < 1e-9:
            return "critical"
        return "ordered" if self.chi_1 < 1 else "chaotic"

    @property
    def xi_gradient(self) -> float:
        """Depth scale of the squared gradient norm, -1/ln χ₁ layers; negative where gradients explode."""
        return depth_scale(self.chi_1)

    @property
    def xi_q(self) -> float:
        """Depth scale on which q_l approaches q*, -1/ln χ_q layers."""
        return depth_scale(self.chi_q)

    @cached_property
    def c_star(self) -> float:
        """Correlation to which two inputs flow: 1, or the fixed point below 1 where χ₁ > 1."""
        if self.phase != "chaotic" or not 0 < self.q_star < math.inf:
            return 1.0
        phi, network = activation(self.network.activation), self.network

        def excess(c: float) -> float:
            return (
                network.weight_variance * pair_moment(phi.value, phi, self.q_star, c) + network.bias_variance
            ) / self.q_star - c

        from scipy.optimize import brentq  # slow to import, and not needed by most

        if excess(0.0) <= 1e-14:
            return 0.0
        return float(brentq(excess, 0.0, 1 - 1e-10, xtol=1e-14))

    @cached_property
    def xi_c(self) -> float:
        """Depth scale on which correlations approach c*: -1/ln(σ_w² E φ′(u₁) φ′(u₂)) layers at c*."""
        if self.c_star == 1.0:
            return self.xi_gradient
        phi = activation(self.network.activation)
        return depth_scale(self.network.weight_variance * pair_moment(phi.slope, phi, self.q_star, self.c_star))


def depth_scale(factor: float) -> float:
    """-1/ln factor: in so many layers the factor makes e; infinite for a factor of 1, negative above."""
    if abs(factor - 1) < MARGINAL:
        return math.inf
    return -1 / math.log(factor) if factor > 0 else 0.0


def pair_moment(function: Callable, phi: Activation, q: float, c: float) -> float:
    """E f(√q u₁) f(√q u₂) for normal u₁, u₂ of variance 1 and correlation c."""
    root, common, own = math.sqrt(q), math.sqrt((1 + c) / 2), math.sqrt((1 - c) / 2)
    # u = a ± b with independent a, b: for each b, the kinks of both factors in a are known
    b, weight_b = nodes([0.0], 1.0)
    keep = np.abs(b) < 9
    total = 0.0
    for shift, weight in zip(own * b[keep], weight_b[keep], strict=True):
        centres = [(kink / root + side * shift) / common for kink in {0.0, *phi.kinks} for side in (-1, 1)]
        a, weight_a = nodes(centres, 1 / max(root * common, 1.0))
        total += weight * float(
            weight_a @ (function(root * (common * a + shift)) * function(root * (common * a - shift)))
        )
    return total


def mean_field(network: Network) -> MeanField:
    """Theory for infinitely wide networks: fixed point, depth scales, and the curves at finite depth.

    The curves are root mean squares. Raises TypeError if `network` is no Network.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(50, 256, 'tanh', 'xavier')")
    phi = activation(network.activation)
    log_weights, log_biases = math.log(network.weight_variance), log_or_minus_infinity(network.bias_variance)

    def step(log_q: float) -> float:
        return log_sum(log_weights + moments(phi, log_q).log_value, log_biases)

    first = log_sum(math.log(network.first_weight_variance) + 2 * math.log(network.input_rms), log_biases)
    log_variance, log_value, slope = curves(phi, step, first, network.depth)
    log_q_star, remark = fixed_point(phi, network, step, first)
    at_fixed_point = moments(phi, min(max(log_q_star, -1e6), 1e6))
    log_signal = np.concatenate([[math.log(network.input_rms)], log_value / 2])
    layer_weights = np.full(network.depth, log_weights)
    layer_weights[0] = math.log(network.first_weight_variance)
    with np.errstate(divide="ignore"):
        log_slope = np.log(slope)
    above = np.concatenate([np.cumsum((layer_weights + log_slope)[::-1])[::-1], [0.0]])
    fan_in = np.full(network.depth, network.width)
    fan_in[0] = network.fan_in
    return MeanField(
        network,
        math.exp(log_q_star) if log_q_star < 709 else math.inf,
        network.weight_variance * at_fixed_point.slope,
        network.weight_variance * at_fixed_point.growth,
        remark,
        log_variance,
        log_signal,
        above / 2,
        (above[1:] + log_slope + np.log(fan_in)) / 2 + log_signal[:-1],
    )


def curves(
    phi: Activation, step: Callable[[float], float], first: float, depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ln q_l, ln E φ², E φ′²) for l = 1 … depth; once ln q moves by a constant step, the rest follows from it."""
    log_q, log_value, slope = np.empty((3, depth))
    current = first
    for i in range(depth):
        here = moments(phi, current)
        log_q[i], log_value[i], slope[i] = current, here.log_value, here.slope
        following = step(current)
        drift = following - current
        settled = i > 1 and abs(drift) <= 4e-16 * max(abs(current), 1)
        straight = i > 1 and abs(drift - (log_q[i] - log_q[i - 1])) <= 1e-13 and not LOG_SMALL <= current <= LOG_LARGE
        if settled or (straight and slope[i] == slope[i - 1]):
            rest = np.arange(depth - i) * (0.0 if settled else drift)
            log_q[i:], log_value[i:], slope[i:] = current + rest, here.log_value + rest, here.slope
            break
        current = following
    return log_q, log_value, slope


def fixed_point(phi: Activation, network: Network, step: Callable[[float], float], first: float) -> tuple[float, str]:
    """(ln q*, remark): where q_l goes from q_1."""

    def drift(log_q: float) -> float:
        return step(log_q) - log_q

    if all(abs(drift(first + shift)) < MARGINAL for shift in (-3.0, 0.0, 3.0)):
        return first, "every variance is a fixed point: q stays where the input puts it"
    lost = phi.vanishes_at_zero and network.bias_variance == 0
    at_zero = network.weight_variance * moments(phi, LOG_SMALL).slope if lost else math.nan
    loss = "falls as a power of the depth" if abs(at_zero - 1) < MARGINAL else "dies out exponentially"
    remark_lost = f"q* = 0: the signal {loss}"
    here, speed = first, drift(first)
    direction = 1.0 if speed > 0 else -1.0
    while speed * direction > MARGINAL:
        if here > LOG_LARGE:
            return math.inf, "no fixed point: the variance grows without end"
        if lost and here < math.log(1e-10):
            return -math.inf, remark_lost
        before, here = here, here + direction / 2
        speed = drift(here)
    if here == first or abs(speed) <= MARGINAL:
        if lost and here < math.log(1e-4):
            return -math.inf, remark_lost
        if abs(speed) <= MARGINAL:
            return here, ""
    from scipy.optimize import brentq  # slow to import, and not needed by most

    return float(brentq(drift, min(before, here), max(before, here), xtol=1e-15, rtol=1e-15)), ""


def critical_weight_variance(name: str, q: float = 1.0) -> float:
    """The σ_w² with χ₁ = 1 at pre-activation variance q: 1/E φ′(√q Z)²."""
    return 1 / moments(activation(name), math.log(checked_real("weight_variance", q))).slope


def variance_preserving_weight_variance(name: str, q: float = 1.0) -> float:
    """The σ_w² that keeps the pre-activation variance q without biases: q/E φ(√q Z)²."""
    log_q = math.log(checked_real("weight_variance", q))
    return math.exp(log_q - moments(activation(name), log_q).log_value)


def critical_point(name: str, bias_variance: float) -> tuple[float, float]:
    """(σ_w², q*) on the critical line χ₁(q*) = 1 for a given σ_b².

    On the line, σ_w² = 1/E φ′² and σ_b² = q* - σ_w² E φ². Raises ValueError where the activation has no critical point.
    """
    phi, wanted = activation(name), checked_real("bias_variance", bias_variance)

    def biases(log_q: float) -> float:
        here = moments(phi, log_q)
        return math.exp(log_q) - math.exp(here.log_value) / here.slope

    if wanted == 0 and phi.vanishes_at_zero:
        here = moments(phi, LOG_SMALL)
        if abs(math.exp(here.log_value - LOG_SMALL) / here.slope - 1) < 1e-9:
            return 1 / here.slope, 0.0
    from scipy.optimize import brentq  # slow to import, and not needed by most

    grid = np.linspace(math.log(1e-12), math.log(1e8), 161)
    values = np.array([biases(x) - wanted for x in grid])
    crossings = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    if not len(crossings):
        raise ValueError(
            f"{name} has no critical point with bias_variance {bias_variance!r}: χ₁ = 1 needs another value"
        )
    low, high = grid[crossings[0]], grid[crossings[0] + 1]
    log_q = float(brentq(lambda x: biases(x) - wanted, low, high, xtol=1e-14))
    return 1 / moments(phi, log_q).slope, math.exp(log_q)
