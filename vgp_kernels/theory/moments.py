"""Expectations of φ and φ′ by quadrature: over normal pre-activations, and over batch-normalised ones."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vgp_kernels.activations import Activation, check_structure

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
EDGE = 13.0  # the normal density beyond is below 1e-37
# Outside of these, φ is a straight line on either side of 0 to 1e-14, and moments are scaled from the end of the range.
LOG_SMALL, LOG_LARGE = math.log(1e-28), math.log(1e28)
LOG_STEP = 600.0  # beyond, a bounded φ is a step at 0, and the square of √q Z nears the end of float64
LOG_FLAT = math.log(1e-10)  # below, φ(0) ≠ 0 leaves no digits of d/dq E φ², which no longer changes
CLOSE = 0.02  # at this distance of a correlation from ±1 the density of a pair becomes too narrow for a grid of both
MEMORY = 4096  # networks ask for the same moments layer after layer


def nodes(centres: Iterable[float], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Points z and weights of E f(Z), Z ~ N(0, 1), for an f that changes over a length `scale` around the centres.

    Composite Gauss-Legendre quadrature on panels of length 1 or less that meet at the centres and shrink towards them.
    """
    steps = scale * 2.0 ** np.arange(-1, max(0, math.ceil(math.log2(2 * EDGE / scale))))
    pieces = [np.arange(-EDGE, EDGE + 1)] + [np.concatenate([c - steps, [c], c + steps]) for c in centres]
    edges = np.unique(np.concatenate(pieces))
    z, weight = on_panels(edges[np.abs(edges) <= EDGE])
    return z, weight * density(z)


def on_panels(
    edges: np.ndarray, rule: np.ndarray = NODES, shares: np.ndarray = WEIGHTS
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights on the panels between sorted edges, along the last axis."""
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, (edges[..., 1:] - edges[..., :-1]) / 2
    points, weights = middle[..., None] + half[..., None] * rule, half[..., None] * shares
    return points.reshape(*edges.shape[:-1], -1), weights.reshape(*edges.shape[:-1], -1)


def density(z: np.ndarray) -> np.ndarray:
    """The density of N(0, 1)."""
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


class Moments(NamedTuple):
    """Expectations over Z ~ N(0, 1) at a pre-activation variance q."""

    log_value: float  # ln E φ(√q Z)²
    slope: float  # E φ′(√q Z)²
    growth: float  # E φ φ′ Z/√q = d/dq E φ(√q Z)²
    mean: float  # E φ(√q Z)/√(E φ²)


@lru_cache(MEMORY)
def moments(phi: Activation, log_q: float) -> Moments:
    """The moments at q = e^log_q; q may be beyond the range of float64."""
    if is_homogeneous(phi):
        s, r = phi.slope(np.array([-1.0, 1.0])).tolist()
        square = (r**2 + s**2) / 2
        return Moments(log_q + math.log(square), square, square, (r - s) / math.sqrt(2 * math.pi * square))
    near = representative(phi, log_q)
    start = math.floor(near)
    polynomials = np.cos(DEGREES * math.acos(2 * (near - start) - 1))
    log_value, slope, growth, mean = (polynomials @ panel(phi, start).coefficients).tolist()
    if log_q > near and phi.is_bounded:  # slopes only in a strip about 0, of a width that falls as 1/√q
        return Moments(log_value, slope * math.exp((near - log_q) / 2), growth * math.exp(1.5 * (near - log_q)), mean)
    scaled = log_q > near or phi.vanishes_at_zero
    return Moments(log_value + (log_q - near) if scaled else log_value, slope, growth, mean)


def representative(phi: Activation, log_q: float) -> float:
    """The nearest ln q from which the moments at log_q follow, because φ is straight on either side of 0, or a step."""
    if is_homogeneous(phi):
        return 0.0
    near = max(log_q, LOG_SMALL)
    return min(near, LOG_STEP if phi.is_bounded else LOG_LARGE)


@lru_cache(MEMORY)
def is_homogeneous(phi: Activation) -> bool:
    """Whether φ(sz) = sφ(z) for s > 0: two half-lines that meet at the origin."""
    z = np.array([-1.0, 1.0])
    return all(np.array_equal(phi.value(scale * z), scale * phi.value(z)) for scale in (1e-9, 0.5, 2.0, 1e9))


class Panel(NamedTuple):
    """The moments between two whole numbers of ln q, of which they are analytic functions even where φ has kinks."""

    log_q: np.ndarray
    """(ORDER,): Chebyshev points, rising."""
    at_points: np.ndarray
    """(ORDER, 4): the moments there."""
    coefficients: np.ndarray
    """(ORDER, 4): of Chebyshev polynomials, which between the points are right to round-off."""


ORDER = (
    20  # the nearest singularities are π/2 off the real axis, so that coefficients fall by 6.4 each: 6.4^-20 = 1e-16
)
DEGREES = np.arange(ORDER)
ANGLES = math.pi * (DEGREES[::-1] + 0.5) / ORDER
TO_COEFFICIENTS = 2 / ORDER * np.cos(np.outer(DEGREES, ANGLES))
TO_COEFFICIENTS[0] /= 2


@lru_cache(MEMORY)
def panel(phi: Activation, start: int) -> Panel:
    """The moments from ln q = start to start + 1."""
    check_structure(phi)
    log_q = start + (1 + np.cos(ANGLES)) / 2
    if set(phi.kinks) <= {0.0}:  # all can have the same nodes
        at_points = moments_at(phi, log_q)
    else:
        at_points = np.concatenate([moments_at(phi, log_q[i : i + 1]) for i in range(ORDER)])
    return Panel(log_q, at_points, TO_COEFFICIENTS @ at_points)


def moments_at(phi: Activation, log_q: np.ndarray) -> np.ndarray:
    """The moments by quadrature, a row for each of the ln q, which are near each other."""
    root = np.exp(log_q / 2)[:, None]
    z, weight = nodes([kink / root[-1, 0] for kink in {0.0, *phi.kinks}], 1 / max(root[-1, 0], 1e-3))
    value, slope = phi.value(root * z), phi.slope(root * z)
    square, slopes, growth, mean = (
        np.einsum("ij,j", f, weight) for f in (value**2, slope**2, value * slope * z, value)
    )
    growth /= root[:, 0]
    if log_q[0] < LOG_FLAT and not phi.vanishes_at_zero:
        growth[:] = moments_at(phi, np.array([LOG_FLAT]))[0, 2]
    return np.stack([np.log(square), slopes, growth, mean / np.sqrt(square)], axis=1)


# Pairs


class PairMoments(NamedTuple):
    """Expectations over normal pre-activations of correlation c at two inputs."""

    apart: float  # 1 - E φφ/E φ², which keeps its digits where c is near 1
    slopes: float  # E φ′φ′


def pair_moments(phi: Activation, log_q: float, apart: float) -> PairMoments:
    """The moments of a pair of correlation c = 1 - apart at q = e^log_q; q may be beyond the range of float64."""
    if apart == 0:
        return PairMoments(0.0, moments(phi, log_q).slope)
    near = representative(phi, log_q)
    if (
        is_homogeneous(phi)
        or (near == LOG_SMALL and phi.vanishes_at_zero)
        or (near == LOG_LARGE and not phi.is_bounded)
    ):
        return two_lines(phi, 1e-16 if near == LOG_SMALL else 1e16, apart)
    return pair_moments_at(phi, near, apart)


@lru_cache(MEMORY)
def pair_moments_at(phi: Activation, log_q: float, apart: float) -> PairMoments:
    """The pair's moments by quadrature."""
    check_structure(phi)
    root = math.exp(log_q / 2)
    is_close = min(apart, 2 - apart) < (CLOSE if root < 1e3 else CLOSE / 4)
    square, lost, slopes = (close_pair if is_close else distant_pair)(phi, root, apart)
    return PairMoments(lost / square, slopes)


TABLED = 17.0  # up to -TABLED of artanh c pairs are integrated one by one, above they are tabulated
# Pre-activations that are nearer to each other than this: φ is straight between them, but for a share of pairs as small.
ALIKE = math.log(1e-8)


def tabled_pair(phi: Activation, log_q: float, apart: float) -> PairMoments:
    """The same from a table over c for this q: for those who ask for many c."""
    t = 0.5 * math.log((2 - apart) / apart) if 0 < apart < 2 else math.inf  # artanh c
    if math.isinf(t) or t <= -TABLED or is_homogeneous(phi):
        return pair_moments(phi, log_q, apart)
    if (math.log(2 * apart) + max(log_q, 0.0)) / 2 < ALIKE:
        # E (φ - φ)² = E φ′² · 2qa, of which the difference of a pair has no digits
        at_q = moments(phi, log_q)
        return PairMoments(apart * at_q.slope * math.exp(log_q - at_q.log_value), at_q.slope)
    start = 2 * math.floor(t / 2)
    polynomials = np.cos(DEGREES * math.acos(t - start - 1))
    ratio, slopes = (polynomials @ pair_panel(phi, log_q, start)).tolist()
    return PairMoments(ratio * apart, slopes)


@lru_cache(MEMORY)
def pair_panel(phi: Activation, log_q: float, start: int) -> np.ndarray:
    """(ORDER, 2): coefficients of (1 - E φφ/E φ²)/(1 - c) and E φ′φ′ where artanh c is from start to start + 2."""
    apart = 2 / (1 + np.exp(2 * (start + 1 + np.cos(ANGLES))))
    pairs = [pair_moments(phi, log_q, x) for x in apart.tolist()]
    return TO_COEFFICIENTS @ [(pair.apart / x, pair.slopes) for pair, x in zip(pairs, apart, strict=True)]


def distant_pair(phi: Activation, root: float, apart: float) -> tuple[float, float, float]:
    """(E φ², E φ² - E φφ, E φ′φ′) on a grid of both pre-activations, for c that leave their density wide."""
    c, spread = 1 - apart, apart * (2 - apart)
    centres = np.array([kink / root for kink in {0.0, *phi.kinks}])
    z, weight = on_panels(edges_about(centres, 1 / root, math.sqrt(spread)), PAIR_NODES, PAIR_WEIGHTS)
    weight = weight * density(z)
    value, slope = weight * phi.value(root * z), weight * phi.slope(root * z)
    # the density of a pair over those of its members
    joint = np.multiply.outer(c / spread * z, z)
    own = c * c / (2 * spread) * z**2
    joint -= own
    joint -= own[:, None]
    np.exp(joint, out=joint)
    joint /= math.sqrt(spread)
    products, slopes = (float(np.einsum("ij,j", joint, x) @ x) for x in (value, slope))
    square = float(value @ phi.value(root * z))
    return square, square - products, slopes


def close_pair(phi: Activation, root: float, apart: float) -> tuple[float, float, float]:
    """The same for c near ±1: u₂ = ±(|c| u₁ + √(1 - c²) y), with panels of y for each u₁."""
    c, own = 1 - apart, math.sqrt(apart * (2 - apart))
    sign, common = math.copysign(1.0, c), abs(c)
    kinks = np.array([kink / root for kink in {0.0, *phi.kinks}])
    centres = np.concatenate([kinks, sign * kinks / common])
    # y blurs a kink by its share
    edges = np.concatenate([edges_about(centres, scale, 1.0) for scale in (1 / root, max(own, 1e-9))])
    edges = np.unique(edges)
    sums = np.zeros(3)
    for start in range(0, len(edges) - 1, 8):  # some panels at a time, for the sake of memory
        x, weight_x = on_panels(edges[start : start + 9], PAIR_NODES, PAIR_WEIGHTS)
        weight_x = weight_x * density(x)
        value, slope = phi.value(root * x), phi.slope(root * x)
        if own == 0:
            y, weight_y = np.zeros((len(x), 1)), np.ones((len(x), 1))
        else:
            centres = (sign * kinks - common * x[:, None]) / own
            y, weight_y = on_panels(edges_about(centres, 1 / (root * own), 1.0), PAIR_NODES, PAIR_WEIGHTS)
            weight_y = weight_y * density(y)
        other = sign * root * (common * x[:, None] + own * y)
        lost = np.sum(weight_y * (value[:, None] - phi.value(other)) ** 2, axis=1) / 2
        slopes = slope * np.sum(weight_y * phi.slope(other), axis=1)
        sums += weight_x @ value**2, weight_x @ lost, weight_x @ slopes
    square, lost, slopes = sums.tolist()
    return square, lost, slopes


PAIR_NODES, PAIR_WEIGHTS = np.polynomial.legendre.leggauss(16)
PAIR_EDGE = 9.0  # the normal density beyond is below 1e-18


def edges_about(centres: np.ndarray, scale: float, width: float) -> np.ndarray:
    """Edges of panels for a function that changes over a length `scale` around the centres, times a density of this width.

    Panels grow twofold with the distance from a centre while φ bends, to 64 scales, and 16-fold where it is nearly straight,
    until they are as long as the density allows. The last axis of the centres becomes that of the edges.
    """
    count = math.ceil(2 * PAIR_EDGE / min(4 * width, 3.0))
    longest = 2 * PAIR_EDGE / count
    steps = scale * np.concatenate(
        [2.0 ** np.arange(6), 16.0 ** np.arange(1.5, max(1.5, 1.5 + math.log(longest / scale, 16)))]
    )
    steps = steps[steps < 2 * longest]
    base = np.broadcast_to(np.linspace(-PAIR_EDGE, PAIR_EDGE, count + 1), (*centres.shape[:-1], count + 1))
    about = (centres[..., None] + np.concatenate([-steps, [0.0], steps])).reshape(*centres.shape[:-1], -1)
    return np.sort(np.clip(np.concatenate([base, about], axis=-1), -PAIR_EDGE, PAIR_EDGE), axis=-1)


def two_lines(phi: Activation, distance: float, apart: float) -> PairMoments:
    """The pair's moments where φ is two lines through 0, of its slopes r and s at this distance: Cho & Saul 2009.

    φ(z) = sz + (r - s)max(z, 0).
    """
    s, r = phi.slope(np.array([-distance, distance])).tolist()
    angle = 2 * math.asin(math.sqrt(apart / 2))
    both = (math.pi - angle) / (2 * math.pi)  # the probability that both are above 0
    ramps = apart / 2 - (math.sin(angle) - angle * (1 - apart)) / (2 * math.pi)
    lost = r * s * apart + (r - s) ** 2 * ramps
    return PairMoments(2 * lost / (r**2 + s**2), s**2 + s * (r - s) + (r - s) ** 2 * both)


@dataclass(frozen=True)
class BatchMoments:
    """Expectations for batch-normalised pre-activations x = √B u, with u uniform on the unit sphere in 1⊥ of R^B.

    That is their law for normal pre-activations which have equal variances and equal correlations over the batch,
    whatever these are (Yang et al. 2019).
    """

    log_value: float  # ln E φ(x_a)²
    correlation: float  # E φ(x_a)φ(x_b)/E φ²
    mean: float  # E φ/√(E φ²)
    slope: float  # E φ′(x_a)²
    slopes: float  # E φ′(x_a)φ′(x_b)
    centred_trace: float  # E tr (G - uuᵀ) D G D with D = diag φ′(x), G = I - 11ᵀ/B
    common_trace: float  # E tr (G - uuᵀ) D (11ᵀ/B) D


@lru_cache(MEMORY)
def batch_moments(phi: Activation, size: int) -> BatchMoments:
    """The moments for batches of B = `size` inputs, B ≥ 2, by integrals over one and over two coordinates of u."""
    x, weight_x, y, weight_y = sphere(phi, size)
    value, slope = phi.value(x), phi.slope(x)
    inner_value = np.sum(weight_y * phi.value(y), axis=1)
    slope_y = phi.slope(y)
    inner_slope, inner_slope_y = np.sum(weight_y * slope_y, axis=1), np.sum(weight_y * slope_y * y, axis=1)
    square, product = weight_x @ value**2, weight_x @ (value * inner_value)
    slope_square, slopes = weight_x @ slope**2, weight_x @ (slope * inner_slope)
    radial, radials = weight_x @ (slope * x) ** 2, weight_x @ (slope * x * inner_slope_y)
    whole = (size - 1) * slope_square - radial  # E tr (G - uuᵀ) D²
    common = ((size - 1) * (slope_square - slopes - radials) - radial) / size
    return BatchMoments(
        math.log(square),
        float(product / square),
        float(weight_x @ value / math.sqrt(square)),
        float(slope_square),
        float(slopes),
        float(whole - common),
        float(common),
    )


def sphere(phi: Activation, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points x (n) and y (n, m) of two coordinates of √B u, with weights of x, and of y given x.

    With D = B - 1 and angles α, β: x = √D sin α, of density ∝ cos^{D-2} α, and y = ρx + √(1-ρ²) √D cos α sin β, of
    density ∝ cos^{D-3} β, where ρ = -1/D is the correlation of two coordinates.
    """
    dimension = size - 1
    if dimension == 1:
        x = np.array([-1.0, 1.0])
        return x, np.full(2, 0.5), -x[:, None], np.ones((2, 1))
    root, rho = math.sqrt(dimension), -1 / dimension
    tilt = math.sqrt(1 - rho**2)
    kinks = [kink / root for kink in {0.0, *phi.kinks} if abs(kink) < root]
    # where x passes a kink, and where the range of y begins to hold one
    turn = math.asin(rho)
    angles = [math.asin(k) for k in kinks]
    fine = [turn + side * math.acos(k) for k in kinks for side in (-1, 1)]
    fine += [-turn + side * math.acos(-k) for k in kinks for side in (-1, 1)]
    edge = min(EDGE, root * math.pi / 2)
    steps = np.concatenate([4.0 ** np.arange(-12, 2), [0.0]])
    pieces = [np.arange(-edge, edge, 1.0), np.array([-edge, edge, *(root * a for a in angles)])]
    pieces += [root * a + side * steps for a in fine for side in (-1, 1)]
    edges = np.unique(np.concatenate(pieces))
    t, weight_x = on_panels(edges[np.abs(edges) <= edge])
    alpha = t / root
    weight_x = weight_x * np.cos(alpha) ** (dimension - 2)
    x = root * np.sin(alpha)
    if dimension == 2:  # y given x is one of two points
        sine, weight_y = np.broadcast_to([-1.0, 1.0], (len(x), 2)), np.full((len(x), 2), 0.5)
    else:
        sine, weight_y = second_coordinate(kinks, alpha, rho, tilt, dimension)
    y = rho * x[:, None] + tilt * root * np.cos(alpha)[:, None] * sine
    return x, weight_x / weight_x.sum(), y, weight_y


def second_coordinate(kinks, alpha, rho, tilt, dimension) -> tuple[np.ndarray, np.ndarray]:
    """sin β with weights, on panels that meet where y passes a kink; one row for each α."""
    root = math.sqrt(dimension)
    edge = min(EDGE, root * math.pi / 2)
    with np.errstate(divide="ignore"):
        sines = [(k - rho * np.sin(alpha)) / (tilt * np.cos(alpha)) for k in kinks]
    crossings = [root * np.arcsin(np.clip(s, -1, 1))[:, None] for s in sines]
    base = np.unique(np.concatenate([np.arange(-edge, edge, 1.0), [0.0, edge]]))
    edges = np.concatenate([np.broadcast_to(base, (len(alpha), len(base))), *crossings], axis=1)
    t, weight = on_panels(np.sort(np.clip(edges, -edge, edge), axis=1))
    weight = weight * np.cos(t / root) ** (dimension - 3)
    return np.sin(t / root), weight / weight.sum(axis=1, keepdims=True)
