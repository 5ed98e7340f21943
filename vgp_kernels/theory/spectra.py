"""Singular values of the Jacobian of a whole network: measured on explicit matrices, predicted by free probability.

J = ∂h_L/∂h_0 = D_L W_L ⋯ D_1 W_1 with D_l = diag φ′(z_l). At infinite width the S-transforms of the layers multiply,
S_{JJᵀ} = ∏ S_{D²} S_{WWᵀ} (Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735), with S_{WWᵀ} = 1/(σ_w²(1 + z)) for Gaussian
and 1/σ_w² for orthogonal weights; the largest squared singular value is the minimum over z > 0 of (1 + z)/(z S(z)).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize
from threadpoolctl import threadpool_limits

from vgp_kernels.activations import activation
from vgp_kernels.network import Network
from vgp_kernels.theory.finite_width import layer_laws
from vgp_kernels.theory.mean_field import exp_or_infinity, mean_field
from vgp_kernels.theory.moments import is_homogeneous, nodes, representative

MOST_ENTRIES = 4_000_000  # of one matrix: 2000 by 2000


def weight_matrix(network: Network, layer: int, generator: np.random.Generator) -> np.ndarray:
    """W_l, l from 1, of shape (width, fan_in)."""
    fan_in = network.fan_in if layer == 1 else network.width
    variance = network.first_weight_variance if layer == 1 else network.weight_variance
    normal = generator.standard_normal((network.width, fan_in))
    if network.law == "gaussian":
        return math.sqrt(variance / fan_in) * normal
    q, r = np.linalg.qr(normal)  # Haar, once the signs of R's diagonal are undone (Mezzadri 2007)
    return math.sqrt(variance) * q * np.sign(np.diag(r))


def log_singular_values(network: Network, seed: int = 0) -> np.ndarray:
    """(min(width, fan_in),): natural logarithms of the singular values of ∂h_L/∂h_0, falling; -inf where one is 0.

    One network with explicit matrices and one random input. The product is kept as U diag(eᵈ) T with U orthogonal and T
    of rows near 1 in size, by QR with pivoting after each layer, so that small singular values keep their digits; those
    300 decades below the largest count as 0. Raises ValueError for batches, norms, skips and matrices of more than four
    million entries.
    """
    if not network.is_plain:
        raise ValueError("explicit Jacobians are for one input through layers without norms and skips")
    if network.width * max(network.width, network.fan_in) > MOST_ENTRIES:
        raise ValueError(f"width {network.width} makes matrices of over {MOST_ENTRIES} entries; take a smaller one")
    with threadpool_limits(1):  # matrices of some hundred rows gain nothing from more
        found = jacobian_log_singular_values(network, np.random.default_rng(seed))
    return np.concatenate([found, np.full(min(network.width, network.fan_in) - len(found), -math.inf)])


def jacobian_log_singular_values(network: Network, generator: np.random.Generator) -> np.ndarray:
    """Those of the singular values that are not 0 for dead units."""
    phi = activation(network.activation)
    h = generator.standard_normal(network.fan_in)
    h *= network.input_rms / math.sqrt(np.mean(h**2))
    orthogonal, logs, rows = np.eye(network.fan_in), np.zeros(network.fan_in), np.eye(network.fan_in)
    for layer in range(1, network.depth + 1):
        weights = weight_matrix(network, layer, generator)
        z = weights @ h + math.sqrt(network.bias_variance) * generator.standard_normal(network.width)
        h, slope = phi.value(z), phi.slope(z)
        alive = slope != 0  # dead units lower the rank exactly, not to round-off
        if not alive.any():
            return np.empty(0)
        product = slope[alive, None] * (weights[alive] @ orthogonal)
        top = logs.max()
        factor, triangle, order = linalg.qr(product * np.exp(logs - top), mode="economic", pivoting=True)
        size = np.maximum(np.abs(np.diag(triangle)), np.finfo(float).tiny)
        mixing = np.zeros_like(triangle)
        mixing[:, order] = triangle / size[:, None]
        orthogonal = np.zeros((network.width, len(size)))
        orthogonal[alive] = factor
        logs, rows = np.log(size) + top, mixing @ rows
    return graded_log_singular_values(logs, rows)


def graded_log_singular_values(logs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """ln of the singular values of diag(e^logs) rows, by LAPACK's one-sided Jacobi method, accurate for graded matrices."""
    top = logs.max()
    matrix = np.exp(logs - top)[:, None] * rows
    values, _, _, scales, _, info = linalg.lapack.dgejsv(matrix.T, joba=2, jobu=3, jobv=3, jobr=0, jobt=0, jobp=0)
    if info != 0:
        raise ArithmeticError(f"dgejsv did not converge (info {info})")
    with np.errstate(divide="ignore"):
        return np.sort(np.log(values) + math.log(scales[0] / scales[1]) + top)[::-1]


# Free probability


@dataclass(frozen=True)
class SlopeLaw:
    """The law of φ′² at one pre-activation variance: values with probabilities."""

    values: np.ndarray
    probabilities: np.ndarray

    def moment(self, k: int) -> float:
        """μ_k = E φ′^{2k}."""
        return float(self.probabilities @ self.values**k)

    def s_transform(self, z: float) -> float:
        """S(z) = t(1 + z)/z where E td/(1 - td) = z."""
        largest = self.values[self.probabilities > 0].max()

        def excess(u: float) -> float:  # t = (1 - e^-u)/largest
            ratio = -math.expm1(-u) * self.values / largest
            return float(self.probabilities @ (ratio / (1 - ratio))) - z

        u = optimize.brentq(excess, 1e-14, 34.0, xtol=1e-13)
        return -math.expm1(-u) / largest * (1 + z) / z


def slope_law(name: str, log_q: float) -> SlopeLaw:
    """Two values for activations of two straight lines; else by quadrature."""
    phi = activation(name)
    if is_homogeneous(phi):
        return SlopeLaw(phi.slope(np.array([-1.0, 1.0])) ** 2, np.full(2, 0.5))
    near = representative(phi, log_q)
    root = math.exp(near / 2)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1e-4 / max(root, 1.0))
    squares, shares = phi.slope(root * z) ** 2, weight / weight.sum()
    if log_q > near and phi.is_bounded:  # of a step: the strip about 0 in which there are slopes is narrower still
        shares = shares * math.exp((near - log_q) / 2)
        squares, shares = np.append(squares, 0.0), np.append(shares, 1 - shares.sum())
    return SlopeLaw(squares, shares)


@dataclass(frozen=True)
class SpectrumPrediction:
    """The squared singular values of ∂h_L/∂h_0 for infinite width; infinite where float64 ends."""

    mean: float
    variance: float
    largest: float
    """The upper edge of their law."""


def predict_spectrum(network: Network) -> SpectrumPrediction:
    """Mean, variance and upper edge, from the S-transforms of all layers at their own pre-activation variances.

    For square layers. Raises ValueError for other shapes, and for batches, norms and skips.
    """
    if not network.is_plain or network.fan_in != network.width:
        raise ValueError("the prediction is for one input through square layers without norms and skips")
    theory = mean_field(network)
    # layers whose variances agree to six digits have one law
    rounded, counts = np.unique(np.round(theory.log_variance, 6), return_counts=True)
    laws = [slope_law(network.activation, log_q) for log_q in rounded]
    gaussian = network.law == "gaussian"
    log_weights = (network.depth - 1) * math.log(network.weight_variance) + math.log(network.first_weight_variance)

    def log_edge(log_z: float) -> float:  # ln (1 + z)/(z S(z))
        z = math.exp(log_z)
        slopes = sum(count * math.log(law.s_transform(z)) for law, count in zip(laws, counts, strict=True))
        return math.log1p(z) - log_z - slopes + log_weights + gaussian * network.depth * math.log1p(z)

    found = optimize.minimize_scalar(log_edge, bounds=(-12.0, 12.0), method="bounded", options={"xatol": 1e-9})
    log_mean = log_weights + sum(c * math.log(law.moment(1)) for law, c in zip(laws, counts, strict=True))
    # the variance of each layer's law, relative to its mean, adds up; Wᵀ W has 1 if Gaussian, 0 if orthogonal
    relative = sum(c * (law.moment(2) / law.moment(1) ** 2 - 1) for law, c in zip(laws, counts, strict=True))
    mean, relative = exp_or_infinity(log_mean), float(relative + gaussian * network.depth)
    return SpectrumPrediction(mean, relative and relative * mean * mean, exp_or_infinity(found.fun))


def second_moments(network: Network) -> tuple[float, float]:
    """(E (tr JᵀJ)², E tr (JᵀJ)²) exactly, at every width, for Gaussian weights and φ of two straight lines through 0.

    For A = E |Jv|²|Jw|² and C = E (Jv·Jw)² a layer gives, with κ = E φ′⁴/(E φ′²)² and in units of the mean factor squared,
    A ← (1 - 1/n)A + (κ/n)(A + 2C) and C ← (1 - 1/n)C + (κ/n)(A + 2C).
    """
    all_pairs, squares = float(network.fan_in) ** 2, float(network.fan_in)
    for law in layer_laws(network):
        # E X²/(E X)² = 1 + (3κ - 1)/n for a layer of n units
        n = network.width
        own = (n * (law.square - 1) + 1) / 3 / n * (all_pairs + 2 * squares)
        all_pairs, squares = (law.mean**2 * ((1 - 1 / n) * x + own) for x in (all_pairs, squares))
    return all_pairs, squares
