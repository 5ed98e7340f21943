"""Expectations of φ and φ′ by quadrature: over normal pre-activations, and over batch-normalised ones."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vgp_kernels.activations import Activation

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
EDGE = 13.0  # the normal density beyond is below 1e-37
# Outside of these, φ is a straight line on either side of 0 to 1e-14, and moments are scaled from the end of the range.
LOG_SMALL, LOG_LARGE = math.log(1e-28), math.log(1e28)
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


def on_panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights on the panels between sorted edges, along the last axis."""
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, (edges[..., 1:] - edges[..., :-1]) / 2
    points, weights = middle[..., None] + half[..., None] * NODES, half[..., None] * WEIGHTS
    return points.reshape(*edges.shape[:-1], -1), weights.reshape(*edges.shape[:-1], -1)


def density(z: np.ndarray) -> np.ndarray:
    """The density of N(0, 1)."""
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Moments:
    """Expectations over Z ~ N(0, 1) at a pre-activation variance q."""

    log_value: float  # ln E φ(√q Z)²
    slope: float  # E φ′(√q Z)²
    growth: float  # E φ φ′ Z/√q = d/dq E φ(√q Z)²
    mean: float  # E φ(√q Z)/√(E φ²)


def moments(phi: Activation, log_q: float) -> Moments:
    """The moments at q = e^log_q; q may be beyond the range of float64."""
    near = representative(phi, log_q)
    here = moments_at(phi, near)
    return Moments(here.log_value + (log_q - near), here.slope, here.growth, here.mean)


def representative(phi: Activation, log_q: float) -> float:
    """The nearest ln q from which the moments at log_q follow by scaling, because φ is straight on either side of 0."""
    if is_homogeneous(phi):
        return 0.0
    near = log_q
    if phi.vanishes_at_zero:
        near = max(near, LOG_SMALL)
    if not phi.is_bounded:
        near = min(near, LOG_LARGE)
    return near


@lru_cache(MEMORY)
def is_homogeneous(phi: Activation) -> bool:
    """Whether φ(sz) = sφ(z) for s > 0: two half-lines that meet at the origin."""
    z = np.array([-1.0, 1.0])
    return all(np.array_equal(phi.value(scale * z), scale * phi.value(z)) for scale in (1e-9, 0.5, 2.0, 1e9))


@lru_cache(MEMORY)
def moments_at(phi: Activation, log_q: float) -> Moments:
    root = math.exp(log_q / 2)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1 / max(root, 1e-3))
    value, slope = phi.value(root * z), phi.slope(root * z)
    square = float(weight @ value**2)
    return Moments(
        math.log(square),
        float(weight @ slope**2),
        float(weight @ (value * slope * z)) / root,
        float(weight @ value) / math.sqrt(square),
    )


def pair_moment(function: Callable, phi: Activation, q: float, c: float) -> float:
    """E f(√q u₁) f(√q u₂) for normal u₁, u₂ of variance 1 and correlation c, where f is φ or φ′."""
    root, common, own = math.sqrt(q), math.sqrt((1 + c) / 2), math.sqrt((1 - c) / 2)
    # u = a ± b with independent a, b: for each b, the kinks of both factors in a are known. f f is even in b.
    b, weight_b = on_panels(half_line(1 / max(root * own, own / max(common, 1e-9), 1.0)))
    shift = own * b[:, None]
    if common < 1e-9:  # u₂ = -u₁
        total = (function(root * shift) * function(-root * shift))[:, 0]
        return float(2 * (weight_b * density(b)) @ total)
    centres = np.concatenate([kink / root + side * shift for kink in {0.0, *phi.kinks} for side in (-1, 1)], axis=1)
    scale = 1 / max(root * common, 1.0)
    steps = scale * 2.0 ** np.arange(-1, max(0, math.ceil(math.log2(18 / scale))))
    offsets = np.concatenate([-steps, [0.0], steps])
    pieces = [(centre / common)[:, None] + offsets for centre in centres.T]
    edges = np.concatenate([*pieces, np.broadcast_to(np.arange(-9.0, 9.5, 1.0), (len(b), 19))], axis=1)
    a, weight_a = on_panels(np.sort(np.clip(edges, -9, 9), axis=1))
    product = function(root * (common * a + shift)) * function(root * (common * a - shift))
    return float(2 * (weight_b * density(b)) @ np.sum(weight_a * density(a) * product, axis=1))


def half_line(scale: float) -> np.ndarray:
    """Edges of panels from 0 to 9, of length 1 or less, that shrink towards 0 to a length `scale`."""
    steps = scale * 2.0 ** np.arange(-1, math.ceil(math.log2(1 / scale)))
    return np.concatenate([[0.0], steps[steps < 0.75], np.arange(1.0, 10.0)])


@dataclass(frozen=True)
class PairMoments:
    """Expectations over normal pre-activations of correlation c at two inputs."""

    correlation: float  # E φφ/E φ²
    slopes: float  # E φ′φ′


def pair_moments(phi: Activation, log_q: float, c: float) -> PairMoments:
    """The pair's moments at q = e^log_q; q may be beyond the range of float64."""
    near = representative(phi, log_q)
    here = moments_at(phi, near)
    if c == 1:
        return PairMoments(1.0, here.slope)
    if is_homogeneous(phi):
        return homogeneous_pair(phi, c)
    return pair_moments_at(phi, near, c)


@lru_cache(MEMORY)
def pair_moments_at(phi: Activation, log_q: float, c: float) -> PairMoments:
    q = math.exp(log_q)
    correlation = pair_moment(phi.value, phi, q, c) / math.exp(moments_at(phi, log_q).log_value)
    return PairMoments(correlation, pair_moment(phi.slope, phi, q, c))


def homogeneous_pair(phi: Activation, c: float) -> PairMoments:
    """The pair's moments for slopes r above and s below 0, from Cho & Saul 2009: φ(z) = sz + (r - s)max(z, 0)."""
    s, r = phi.slope(np.array([-1.0, 1.0]))
    angle = math.acos(c)
    both = (math.pi - angle) / (2 * math.pi)  # the probability that both are above 0
    ramps = (math.sqrt((1 - c) * (1 + c)) + (math.pi - angle) * c) / (2 * math.pi)
    value = s**2 * c + s * (r - s) * c + (r - s) ** 2 * ramps
    return PairMoments(float(2 * value / (r**2 + s**2)), float(s**2 + s * (r - s) + (r - s) ** 2 * both))


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
