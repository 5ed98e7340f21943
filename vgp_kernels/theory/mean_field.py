"""What theory predicts for infinitely wide networks, for any φ, by quadrature.

Poole et al. 2016 and Schoenholz et al. 2017: the pre-activations of layer l are N(0, q_l) with q_{l+1} = σ_w² E φ(√q_l Z)² + σ_b²,
and the squared norm of the gradient is multiplied per layer by χ₁ = σ_w² E φ′(√q Z)², with Z ~ N(0, 1). Batches, norms and skips
follow from the same two steps, taken one operation at a time: a layer's second moments over its units go forward (`Kernel`), the
gradient's go back. Batch normalisation: Yang et al. 2019, here at every batch size.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vgp_kernels.activations import Activation, activation
from vgp_kernels.network import Network, check_name
from vgp_kernels.theory.moments import (
    LOG_LARGE,
    LOG_SMALL,
    TO_COEFFICIENTS,
    batch_moments,
    is_homogeneous,
    moments,
    pair_moments,
    panel,
    representative,
    tabled_pair,
)
from vgp_kernels.theory.moments import nodes as nodes  # offered here as well

MARGINAL = 1e-12  # a drift of ln q per layer below this is none
FAR = 600.0  # ln q where only the limit is asked for
PATIENCE = 10_000  # layers within which a normalised network settles
BESIDE = 1e-3  # in ln q from a fixed point, where its stability shows
NOT_YET = 1e-6  # in ln q from q*: the network has not reached it
NO_DIGITS = 1e-9  # where a difference of numbers near 1 is refused
ROUNDING = 4e-16
MOST_PAIRS = 2000  # variances at which a network's pairs are integrated
OFTEN = 24  # layers of one q from which on a table of pairs pays
LOSSES = "independent", "shared"  # as in `propagate`

# How a gradient goes back through an operation: (Γ_aa, Γ_ab) below from those above, Γ_ab the product of the gradients of
# inputs a and b summed over the units, equal for all inputs and for all pairs. The rows of a matrix, one after the other.
Back = tuple[float, float, float, float]
IDENTITY: Back = (1.0, 0.0, 0.0, 1.0)


def then(below: Back, above: Back) -> Back:
    """Back through what is above, then through what is below: the product of matrices, in which 0 times infinity is 0."""
    if below[1] == below[2] == above[1] == above[2] == 0:
        return times(below[0], above[0]), 0.0, 0.0, times(below[3], above[3])
    a, b, c, d = below
    e, f, g, h = above
    return (
        times(a, e) + times(b, g),
        times(a, f) + times(b, h),
        times(c, e) + times(d, g),
        times(c, f) + times(d, h),
    )


def times(x: float, y: float) -> float:
    return x * y if x and y else 0.0


def total(*terms: float) -> float:
    """Their sum; 0 where they cancel but for rounding."""
    found = sum(terms)
    is_rounding = abs(found) <= 1e-15 * len(terms) * sum(map(abs, terms)) < math.inf
    return 0.0 if is_rounding else found


def multiple(factor: float) -> Back:
    return factor, 0.0, 0.0, factor


def log_sum(x: float, y: float) -> float:
    """ln(eˣ + eʸ)."""
    if x < y:
        x, y = y, x
    return x + math.log1p(math.exp(y - x))


def log_or_minus_infinity(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def exp_or_infinity(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


class Kernel(NamedTuple):
    """Second moments over the units of a layer, equal for all inputs of a batch and for all pairs of them."""

    log_square: float
    """ln E h²."""
    apart: float
    """1 - E h_a h_b/E h² for two inputs a, b: 1 minus their correlation, with all its digits."""
    mean: float
    """E h/√(E h²)."""
    normal: bool
    """Whether the units are normally distributed."""


class Operation(NamedTuple):
    """One step of a layer: forward on kernels, and back on gradients."""

    apply: Callable[[Kernel], tuple[Kernel, Back]]
    is_dense: bool = False


def dense(weight_variance: float, bias_variance: float = 0.0) -> Operation:
    """z = Wh + b."""
    log_weights, log_biases = math.log(weight_variance), log_or_minus_infinity(bias_variance)
    back = multiple(weight_variance)

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        log_square = log_sum(log_weights + kernel.log_square, log_biases)
        from_weights = math.exp(log_weights + kernel.log_square - log_square)
        return Kernel(log_square, kernel.apart * from_weights, 0.0, True), back

    return Operation(apply, is_dense=True)


def activate(name: str) -> Operation:
    """h = φ(z) of normal z."""
    phi = activation(name)
    last, count, left = math.nan, 0, MOST_PAIRS

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        nonlocal last, count, left
        log_q = kernel.log_square
        count = count + 1 if log_q == last else 0
        last = log_q
        here = moments(phi, log_q)
        if kernel.apart == 0:
            return Kernel(here.log_value, 0.0, here.mean, False), multiple(here.slope)
        if count > OFTEN:
            pair = tabled_pair(phi, log_q, kernel.apart)
        else:
            pair, left = pair_moments(phi, log_q, kernel.apart), left - (not is_homogeneous(phi))
        if left < 0:
            raise too_many_variances()
        return Kernel(here.log_value, pair.apart, here.mean, False), (here.slope, 0.0, 0.0, pair.slopes)

    return Operation(apply)


def too_many_variances() -> ValueError:
    return ValueError(
        f"the variance changes from layer to layer, and a correlation at over {MOST_PAIRS} variances takes too long; "
        "take a smaller depth, or measure with propagate"
    )


def normalise(kind: str) -> Operation:
    """Layer and RMS normalisation: with many units, division by the standard deviation or the root mean square."""

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        # what is subtracted, and the projections in the norm's Jacobian, are one direction in n
        left = 1 - kernel.mean**2 if kind == "layer" else 1.0
        if left < NO_DIGITS:
            raise ValueError(
                f"layer normalisation finds units that differ by less than {math.sqrt(NO_DIGITS):g} of their mean: no digits "
                "are left of what it divides by; take larger weights, or an activation that is 0 at 0"
            )
        after = Kernel(0.0, kernel.apart / left, 0.0 if kind == "layer" else kernel.mean, kernel.normal)
        return after, multiple(exp_or_infinity(-kernel.log_square) / left)

    return Operation(apply)


def batch_normalise(name: str, size: int, fixed_statistics: bool) -> Operation:
    """h = φ(BN(z)) of normal z; its Jacobian is (√B/|Gz|) D (G - uuᵀ) with u = Gz/|Gz|, D = diag φ′, G = I - 11ᵀ/B.

    With fixed statistics the gradient does not see that mean and variance depend on z.
    """
    here = batch_moments(activation(name), size)
    after = Kernel(here.log_value, 1 - here.correlation, here.mean, False)
    # Γ = γ G + γ₀ 11ᵀ/B with γ = Γ_aa - Γ_ab and γ₀ = Γ_aa + (B - 1) Γ_ab; what comes out has γ only
    own, others = (
        (here.centred_trace + here.common_trace) / (size - 1),
        (-here.centred_trace + (size - 1) * here.common_trace) / (size - 1),
    )

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        if size == 2 and not fixed_statistics:
            return after, (0.0, 0.0, 0.0, 0.0)
        # E B/|Gz|²: |Gz|² is chi-squared with B - 1 degrees of freedom, times the variance across inputs
        scale = size / (size - 3) if size > 3 else math.inf
        scale *= exp_or_infinity(-kernel.log_square - math.log(kernel.apart))
        if fixed_statistics:
            return after, (times(scale, here.slope), 0.0, 0.0, times(scale, here.slopes))
        a, b = (times(scale * (size - 1) / size, x) for x in (own, others))
        c, d = (times(scale / -size, x) for x in (own, others))
        return after, (a, b, c, d)

    return Operation(apply)


def add(kernel: Kernel, branch: Kernel, scale: float) -> Kernel:
    """x + α times an independent branch."""
    if scale == 0:
        return kernel
    log_branch = branch.log_square + 2 * math.log(scale)
    top = max(kernel.log_square, log_branch)
    x, y = math.exp((kernel.log_square - top) / 2), math.exp((log_branch - top) / 2)
    square = x * x + y * y + 2 * kernel.mean * branch.mean * x * y
    if square < NO_DIGITS:
        raise ValueError(
            "a block takes away nearly all of its input: no digits are left of the sum; change residual_scale"
        )
    return Kernel(
        top + math.log(square),
        (kernel.apart * x * x + branch.apart * y * y) / square,
        (kernel.mean * x + branch.mean * y) / math.sqrt(square),
        kernel.normal and branch.normal,
    )


class Layer(NamedTuple):
    """A layer, or a block with a skip, of a network: the branch, α (None without skip), and what follows the sum."""

    branch: tuple[Operation, ...]
    scale: float | None
    tail: tuple[Operation, ...]


class Passage(NamedTuple):
    """What a layer does to one kernel."""

    before: Kernel
    after: Kernel
    back: Back
    log_variance: float  # ln q, of what the activation, or the norm right before it, takes
    weights: tuple[tuple[Kernel, Back], ...]  # each W's input, and ∂E/∂z from ∂E/∂h_l


def pass_through(layer: Layer, kernel: Kernel) -> Passage:
    """Forward through a layer, and the way back."""
    stages, current = [], kernel
    for operation in layer.branch:
        after, back = operation.apply(current)
        stages.append((operation, current, back))
        current = after
    first_dense = next(i for i, (operation, _, _) in enumerate(stages) if operation.is_dense)
    log_variance = stages[(first_dense + 1) % len(stages)][1].log_square
    if layer.scale is not None:
        current = add(kernel, current, layer.scale)
    tail_back = IDENTITY
    for operation in layer.tail:
        current, back = operation.apply(current)
        tail_back = then(back, tail_back)
    way = tail_back if layer.scale is None else then(multiple(layer.scale**2), tail_back)
    weights: list[tuple[Kernel, Back]] = []
    for operation, before, back in reversed(stages):
        if operation.is_dense:
            weights.insert(0, (before, way))
        way = then(back, way)
    if layer.scale is not None:
        a, b, c, d = way
        e, f, g, h = tail_back
        way = a + e, b + f, c + g, d + h
    return Passage(kernel, current, way, log_variance, tuple(weights))


def layers(network: Network) -> tuple[Layer, Layer]:
    """The first layer and all others; raises ValueError for a family without theory."""
    phi, norm, post = network.activation, network.normalisation, network.norm_position == "post"
    over_batch = is_over_batch(network)
    if over_batch and post:
        raise ValueError(
            "there is no theory for batch normalisation after the activation or the sum (norm_position 'post'): "
            "what is normalised is not normally distributed; use propagate, or norm_position 'pre'"
        )
    if over_batch and network.input_correlation == 1:
        raise ValueError(
            "batch normalisation divides by 0 where all inputs are the same; give an input_correlation below 1"
        )

    def normed(name: str) -> tuple[Operation, ...]:
        if over_batch:
            return (batch_normalise(name, network.batch_size, norm == "batch_inference"),)
        return (activate(name),) if norm is None or post else (normalise(norm), activate(name))

    tail = (normalise(norm),) if norm and post else ()

    def layer(weight_variance: float) -> Layer:
        weights, biased = dense(weight_variance), dense(weight_variance, network.bias_variance)
        branch = {
            None: (biased, *normed(phi)),
            "preactivation": (*normed(phi), weights),
            "postactivation": (biased, *normed(phi)),
            "two_weights": (*(normed("linear") if norm else ()), biased, activate(phi), weights),
        }[network.residual]
        return Layer(branch, None if network.residual is None else network.residual_scale, tail)

    return layer(network.first_weight_variance), layer(network.weight_variance)


def input_kernel(network: Network, apart: float) -> Kernel:
    """The input: normal entries, as after a random rotation."""
    return Kernel(2 * math.log(network.input_rms), apart, 0.0, True)


@dataclass(frozen=True, eq=False)
class Course:
    """The second moments on the way through a network, layer by layer; k counts the weight matrices of a layer."""

    log_square: np.ndarray
    """(depth + 1,): ln E h_l²."""
    apart: np.ndarray
    """(depth + 1,): 1 minus the correlation of two inputs."""
    log_variance: np.ndarray
    """(depth,): ln q_l."""
    back: np.ndarray
    """(depth, 2, 2)."""
    weight_log_square: np.ndarray
    """(depth, k): ln E h² of the matrix's input, and 1 minus its correlation."""
    weight_apart: np.ndarray
    weight_back: np.ndarray
    """(depth, k, 2, 2): from ∂E/∂h_l to ∂E/∂z of the matrix."""
    changes: int
    """How often ln q_l was another one than in the layer before."""


def course(network: Network, apart: float) -> Course:
    """Through all layers; once a layer changes nothing, or only ln q and that by a constant step, the rest follows."""
    free = network.normalisation is None and not is_homogeneous(activation(network.activation))
    if apart and free and course(network, 0.0).changes > MOST_PAIRS:
        raise too_many_variances()  # at once, and not when that many have been integrated
    first, others = layers(network)
    passages: list[Passage] = []
    depth, step = network.depth, None
    current = input_kernel(network, apart)
    while len(passages) < depth and step is None:
        here = pass_through(others if passages else first, current)
        if abs(here.after.log_square - current.log_square) <= ROUNDING * max(abs(current.log_square), 1):
            here = here._replace(after=here.after._replace(log_square=current.log_square))
        step = repeating_step(network, passages[-1], here) if len(passages) > 1 else None
        passages.append(here)
        current = here.after
    more = depth - len(passages)
    rest = np.concatenate([np.zeros(len(passages)), (step or 0.0) * np.arange(1, more + 1)])

    def curve(values: list) -> np.ndarray:
        found = np.array(values, dtype=float)
        return np.concatenate([found, np.repeat(found[-1:], more, axis=0)])

    start = input_kernel(network, apart)
    inputs = [[before for before, _ in here.weights] for here in passages]
    return Course(
        np.concatenate([[start.log_square], curve([here.after.log_square for here in passages]) + rest]),
        np.concatenate([[apart], curve([here.after.apart for here in passages])]),
        curve([here.log_variance for here in passages]) + rest,
        curve([here.back for here in passages]).reshape(depth, 2, 2),
        curve([[kernel.log_square for kernel in row] for row in inputs]) + rest[:, None],
        curve([[kernel.apart for kernel in row] for row in inputs]),
        curve([[way for _, way in here.weights] for here in passages]).reshape(depth, -1, 2, 2),
        sum(below.log_variance != here.log_variance for below, here in itertools.pairwise(passages)),
    )


def repeating_step(network: Network, previous: Passage, here: Passage) -> float | None:
    """What each further layer adds to ln E h²; None if they are not all like this one."""
    before, after = here.before, here.after
    if abs(after.apart - before.apart) > 1e-13 or abs(after.mean - before.mean) > ROUNDING:
        return None
    step = after.log_square - before.log_square
    if step == 0:
        return 0.0
    if abs(step - (previous.after.log_square - previous.before.log_square)) > 1e-13:
        return None
    if representative(activation(network.activation), here.log_variance) == here.log_variance:
        return None
    same = all(math.isclose(x, y, rel_tol=1e-12) for x, y in zip(previous.back, here.back, strict=True))
    return step if same else None


def gradient_curves(network: Network, way: Course, shared_loss: bool) -> tuple[np.ndarray, np.ndarray]:
    """(ln E|∂E/∂h_l|², ln E|∂E/∂W|²) for a random direction of norm 1 at the top, or one that all inputs share."""
    fan_in = np.full(way.weight_log_square.shape, network.width)
    fan_in[0, 0] = network.fan_in
    log_input = np.log(fan_in) + way.weight_log_square
    if not shared_loss and not way.back[:, 0, 1].any():  # inputs do not mix: Γ_ab stays 0
        with np.errstate(divide="ignore"):
            steps, weight_steps = np.log(way.back[:, 0, 0]), np.log(way.weight_back[..., 0, 0])
        log_gradient = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        return log_gradient, log_gradient[1:, None] + weight_steps + log_input
    size, scale = network.batch_size, 0.0
    log_gradient, log_weights = np.zeros(network.depth + 1), np.empty_like(log_input)
    own, pair = 1 / size, 1 / size if shared_loss else 0.0
    back, weight_back, weight_apart = way.back.tolist(), way.weight_back.tolist(), way.weight_apart.tolist()
    for i in reversed(range(network.depth)):
        for k, ((a, b), (c, d)) in enumerate(weight_back[i]):
            here, between = total(times(a, own), times(b, pair)), total(times(c, own), times(d, pair))
            square = size * total(here, (size - 1) * between, (1 - size) * times(between, weight_apart[i][k]))
            log_weights[i, k] = scale + log_of_expectation(square) + log_input[i, k]
        (a, b), (c, d) = back[i]
        own, pair = total(times(a, own), times(b, pair)), total(times(c, own), times(d, pair))
        scale += log_of_expectation(size * own)
        log_gradient[i] = scale
        if math.isinf(scale):
            log_gradient[:i] = log_weights[:i] = scale
            break
        own, pair = 1 / size, pair / (size * own)
    return log_gradient, log_weights


def log_of_expectation(x: float) -> float:
    """ln x, where what is not finite is an infinite expectation."""
    return log_or_minus_infinity(x) if math.isfinite(x) else math.inf


class FixedPoint(NamedTuple):
    """A variance that layers leave as it is, for infinite width."""

    q: float
    chi_1: float
    """The factor of the squared gradient norm per layer there."""
    chi_q: float
    """dq_{l+1}/dq_l there."""
    from_below: bool
    """Whether it attracts variances just below it, and just above it; there are none below 0."""
    from_above: bool

    @property
    def stability(self) -> str:
        """ "stable" if it attracts from all sides, "half-stable" if from one, "unstable" if from none."""
        if self.from_below == self.from_above or self.q == 0:
            return "stable" if self.from_above else "unstable"
        return "half-stable"


@dataclass(frozen=True, eq=False)
class MeanField:
    """The prediction for one network; see `mean_field`."""

    network: Network
    loss_gradient: str
    """Which gradient at the top the curves are for: "independent" at all inputs, or "shared" by all."""
    q_star: float
    """Variance of the pre-activations at the fixed point that q_1 flows to: 0 or infinite where there is none between."""
    chi_1: float
    """χ₁, the factor of the squared gradient norm per layer at q*: without norms and skips σ_w² E φ′²."""
    chi_q: float
    """dq_{l+1}/dq_l at q*; 0 with a norm, NaN where q grows from block to block."""
    remark: str
    """What is special about the fixed point, or that the network is not deep enough to reach it; empty if nothing is."""
    log_variance: np.ndarray
    """(depth,): ln q_l, l = 1 … depth, of what the activation, or the norm right before it, takes in."""
    log_signal: np.ndarray
    """(depth + 1,): ln of the root mean square of h_l, l = 0 … depth."""
    log_gradient: np.ndarray
    """(depth + 1,): ½ ln E|∂E/∂h_l|² (Frobenius norm over a batch), with |∂E/∂h_depth| = 1."""
    log_weight_gradient: np.ndarray
    """(depth,): ½ ln E|∂E/∂W_l|² (Frobenius norm), l = 1 … depth; (2 depth,) for blocks of two weights; -∞: 0 exactly."""

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
    def chi_1_at_depth(self) -> float:
        """The factor of the squared gradient norm in the top layer: χ₁ at the q that the network reaches, not at q*."""
        factor = self.log_gradient[-2] - self.log_gradient[-1]
        return exp_or_infinity(2 * float(factor))

    @property
    def rate_at_depth(self) -> float:
        """½ ln of `chi_1_at_depth`."""
        return float(self.log_gradient[-2] - self.log_gradient[-1])

    def fixed_points(self) -> list[FixedPoint]:
        """All fixed points of the variance, by rising q, wherever the input is.

        Raises ValueError with norms or skips, and where every variance is one.
        """
        if self.network.normalisation is not None or self.network.residual is not None:
            raise ValueError("fixed points are listed for layers without norms and skips; q_star is what q flows to")
        return VarianceMap.of(self.network).fixed_points()

    @property
    def xi_gradient(self) -> float:
        """Depth scale of the squared gradient norm, -1/ln χ₁ layers; negative where gradients explode."""
        return depth_scale(self.chi_1)

    @property
    def xi_q(self) -> float:
        """Depth scale on which q_l approaches q*, -1/ln χ_q layers."""
        return depth_scale(self.chi_q)

    @cached_property
    def correlation(self) -> np.ndarray:
        """(depth + 1,): E h_a h_b/E h² for two inputs of the batch, l = 0 … depth; from `input_correlation`."""
        return 1 - course(self.network, 1 - pair_correlation(self.network)).apart

    @cached_property
    def gradient_correlation(self) -> np.ndarray:
        """(depth + 1,): cosine of the gradients that one linear read-out of h_depth has at two inputs, l = 0 … depth.

        It is 1 at the top (Balduzzi et al. 2017); NaN where no gradient passes, or where its square has no finite expectation.
        """
        back = course(self.network, 1 - pair_correlation(self.network)).back.tolist()
        found, pair = np.full(self.network.depth + 1, math.nan), 1.0
        found[-1] = 1.0
        for i in reversed(range(self.network.depth)):
            (a, b), (c, d) = back[i]
            own, between = total(a, times(b, pair)), total(c, times(d, pair))
            if not 0 < own < math.inf:
                break
            found[i] = pair = between / own
        return found

    @cached_property
    def c_star(self) -> float:
        """Correlation to which the pre-activations of two inputs flow: 1, or the fixed point below 1 where χ₁ > 1.

        With skips, and a norm of the sum, that of the blocks' outputs. ValueError where q grows from block to block.
        """
        if is_over_batch(self.network) and self.network.residual is None:
            return 1 - self._cycle(1 - self.network.input_correlation).after.apart
        return 1 - self._apart

    @cached_property
    def _apart(self) -> float:
        """1 - c*, with all its digits."""
        if grows(self.network):
            raise ValueError("the correlation has no fixed point where each block adds variance; see .correlation")
        if self.phase != "chaotic" or not 0 < self.q_star < math.inf:
            return 0.0

        def drift(log_apart: float) -> float:
            apart = math.exp(log_apart)
            return math.log(self._cycle(apart).after.apart / apart)

        from scipy.optimize import brentq  # slow to import, and not needed by most

        if drift(0.0) >= -1e-14:
            return 1.0
        low = math.log(1e-24)
        return math.exp(brentq(drift, low, 0.0, xtol=1e-15, rtol=1e-14)) if drift(low) > 0 else 0.0

    @cached_property
    def xi_c(self) -> float:
        """Depth scale on which correlations approach c*: without norms -1/ln(σ_w² E φ′(u₁) φ′(u₂)) layers at c*."""
        if is_over_batch(self.network):
            raise ValueError("batch normalisation brings a batch of equal correlations to c_star in one layer")
        if self._apart == 0:
            return self.xi_gradient
        return depth_scale(self._cycle(self._apart).back[3])

    def _cycle(self, apart: float) -> Passage:
        """One layer at the fixed point, from pre-activations to pre-activations; with skips, from block to block."""
        _, layer = layers(self.network)
        if layer.scale is not None:
            return pass_through(layer, settled(self.network).after._replace(apart=apart))
        rotated = Layer((*layer.branch[1:], *layer.tail, layer.branch[0]), None, ())
        return pass_through(rotated, Kernel(math.log(self.q_star), apart, 0.0, True))


def depth_scale(factor: float) -> float:
    """-1/ln factor: in so many layers the factor makes e; infinite for a factor of 1, negative above."""
    if abs(factor - 1) < MARGINAL:
        return math.inf
    return 0.0 if factor == 0 else -1 / math.log(factor)


def pair_correlation(network: Network) -> float:
    if network.batch_size == 1:
        raise ValueError("a correlation needs two inputs; give batch_size=2 or more")
    return network.input_correlation


def is_over_batch(network: Network) -> bool:
    """Whether a norm is taken over the batch; "batch_inference" holds its statistics fixed."""
    return network.normalisation in ("batch", "batch_inference")


def apart_that_matters(network: Network) -> float:
    """Only batch normalisation makes norms depend on correlations; elsewhere 0 saves computing them."""
    return 1 - network.input_correlation if is_over_batch(network) else 0.0


def grows(network: Network) -> bool:
    """Whether each block adds variance that no norm takes away."""
    return (
        network.residual is not None
        and network.residual_scale > 0
        and (network.normalisation is None or network.norm_position == "pre")
    )


def mean_field(network: Network, loss_gradient: str = "independent") -> MeanField:
    """Theory for infinitely wide networks: fixed point, depth scales, and the curves at finite depth.

    The curves are root mean squares, over networks, units and inputs; inputs are taken to point in random directions,
    with `input_correlation` between any two. `loss_gradient` is that of `propagate`: a random direction for all inputs together,
    or one that they share. Raises TypeError if `network` is no Network, ValueError where there is no theory: batch normalisation
    in the position "post", or of inputs that are all the same, an activation of fine structure (see Activation), or numbers of
    which a norm leaves no digits.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(50, 256, 'tanh', 'xavier')")
    check_name("loss_gradient", loss_gradient, LOSSES)
    shared = loss_gradient == "shared" and network.batch_size > 1
    way = course(network, 1 - network.input_correlation if shared else apart_that_matters(network))
    log_gradient, log_weights = gradient_curves(network, way, shared)
    q_star, chi_1, chi_q, remark = fixed_point(network)
    if 0 < q_star < math.inf and depth_scale(chi_q) > network.depth > 1:
        if abs(math.log(q_star) - way.log_variance[-1]) > NOT_YET:
            factor = float(way.back[-1, 0, 0])
            remark += ("; " if remark else "") + (
                f"q approaches q* within {depth_scale(chi_q):.4g} layers, more than the network has: at the top q is "
                f"{math.exp(way.log_variance[-1]):.6g}, where χ₁ is {factor:.6g} and the rate {math.log(factor) / 2:.4g}"
            )
    if shared and is_over_batch(network) and (np.isneginf(log_weights.T) & np.isfinite(log_gradient[1:])).any():
        remark += ("; " if remark else "") + (
            "no gradient of a loss with the same slope at all inputs reaches weights whose inputs add up to 0 over the batch"
        )
    curves = way.log_variance, way.log_square / 2, log_gradient / 2, log_weights.ravel() / 2
    return MeanField(network, loss_gradient, q_star, chi_1, chi_q, remark, *curves)


def fixed_point(network: Network) -> tuple[float, float, float, str]:
    """(q*, χ₁, χ_q, remark)."""
    few = is_over_batch(network) and network.batch_size <= 3
    remark = f"with {network.batch_size} inputs per batch the squared gradient has no finite expectation" if few else ""
    if few and network.normalisation == "batch" and network.batch_size == 2:
        remark = "of two inputs batch normalisation leaves only a sign: no gradient passes it"
    if grows(network):
        _, layer = layers(network)
        chi = pass_through(layer, Kernel(FAR, apart_that_matters(network), 0.0, True)).back[0]
        limits = "each block adds variance: q* and χ₁ are the limits at infinite depth"
        return math.inf, chi if math.isfinite(chi) else math.inf, math.nan, f"{limits}; {remark}" if remark else limits
    if network.normalisation is None and network.residual is None:
        variances = VarianceMap.of(network)
        log_q, remark = variances.destination(first_log_variance(network))
        here = moments(variances.phi, min(max(log_q, -FAR), FAR))
        variance = network.weight_variance
        return exp_or_infinity(log_q), variance * here.slope, variance * here.growth, remark
    passage = settled(network)
    a, b, _, d = passage.back
    # the eigenvalue: batch normalisation leaves one direction in (Γ_aa, Γ_ab)
    chi = a + d if b else a
    return exp_or_infinity(passage.log_variance), chi if math.isfinite(chi) else math.inf, 0.0, remark


def first_log_variance(network: Network) -> float:
    """ln q_1, without norms and skips."""
    log_biases = log_or_minus_infinity(network.bias_variance)
    return log_sum(math.log(network.first_weight_variance) + 2 * math.log(network.input_rms), log_biases)


def settled(network: Network) -> Passage:
    """The passage through a layer that no longer changes the second moments at one input."""
    first, others = layers(network)
    here = pass_through(first, input_kernel(network, apart_that_matters(network)))
    for _ in range(PATIENCE):
        here = pass_through(others, here.after)
        before, after = here.before, here.after
        if max(abs(after.log_square - before.log_square), abs(after.mean - before.mean)) < MARGINAL:
            return here
    raise ValueError(f"{network} does not settle within {PATIENCE} layers")


@dataclass(frozen=True)
class VarianceMap:
    """ln q_{l+1} of ln q_l without norms and skips, of which a signal can cross no fixed point: the map rises."""

    phi: Activation
    log_weights: float
    log_biases: float

    @classmethod
    def of(cls, network: Network) -> "VarianceMap":
        return cls(
            activation(network.activation),
            math.log(network.weight_variance),
            log_or_minus_infinity(network.bias_variance),
        )

    def drift(self, log_q: float) -> float:
        """What a layer adds to ln q."""
        return log_sum(self.log_weights + moments(self.phi, log_q).log_value, self.log_biases) - log_q

    @property
    def keeps_zero(self) -> bool:
        """Whether 0 is a fixed point."""
        return self.phi.vanishes_at_zero and self.log_biases == -math.inf

    @property
    def drift_at_zero(self) -> float:
        """The limit of the drift at q = 0, if 0 is a fixed point."""
        return self.drift(LOG_SMALL)

    @property
    def keeps_all(self) -> bool:
        """Whether every variance is a fixed point."""
        return is_homogeneous(self.phi) and self.keeps_zero and abs(self.drift_at_zero) < MARGINAL

    def roots(self, start: int) -> list[float]:
        """Fixed points with ln q from start to start + 1, rising; one that the drift touches without changing its sign among them.

        Exact to round-off: on the panel the drift is the polynomial through its values at Chebyshev points.
        """
        here = panel(self.phi, start)
        drift = np.logaddexp(self.log_weights + here.at_points[:, 0], self.log_biases) - here.log_q
        coefficients = TO_COEFFICIENTS @ drift
        if np.abs(coefficients[1:]).sum() < abs(coefficients[0]) - MARGINAL:
            return []
        polynomial = np.polynomial.Chebyshev(coefficients)
        turns = polynomial.deriv().roots()
        turns = np.sort(turns.real[(np.abs(turns.imag) < 1e-9) & (np.abs(turns.real) < 1)])
        marks = np.concatenate([[-1.0], turns, [1.0]])
        values = polynomial(marks)
        found = [x for x, value in zip(marks, values, strict=True) if abs(value) <= MARGINAL]
        for low, high, below, above in zip(marks, marks[1:], values, values[1:], strict=False):
            if min(abs(below), abs(above)) > MARGINAL and below * above < 0:
                for _ in range(60):
                    middle = (low + high) / 2
                    low, high = (middle, high) if polynomial(middle) * below > 0 else (low, middle)
                found.append(low)
        return [start + (1 + float(x)) / 2 for x in sorted(found)]

    def destination(self, first: float) -> tuple[float, str]:
        """(ln q*, remark): the first fixed point in the direction in which q moves from q_1 = e^first."""
        if self.keeps_all:
            return first, "every variance is a fixed point: q stays where the input puts it"
        speed = self.drift(first)
        if abs(speed) <= MARGINAL:
            near = [x for start in (-1, 0, 1) for x in self.roots(math.floor(first) + start) if abs(x - first) < 1e-4]
            if near:
                return self.named(min(near, key=lambda x: abs(x - first)))
            return first, "q moves by less than 1e-12 of itself per layer: it stays where the input puts it"
        direction = 1 if speed > 0 else -1
        start = math.floor(first)
        while True:
            if direction > 0 and start >= LOG_LARGE and not self.phi.is_bounded:
                return math.inf, "no fixed point: the variance grows without end"
            if direction < 0 and self.keeps_zero and self.drift_at_zero < MARGINAL and start < math.log(1e-10):
                return self.lost
            if np.any(panel(self.phi, start).at_points[:, 2] < -ROUNDING):
                return self.iterated(first)
            ahead = [x for x in self.roots(start) if (x - first) * direction > 0]
            if ahead:
                return self.named(min(ahead) if direction > 0 else max(ahead))
            start += direction

    @property
    def lost(self) -> tuple[float, str]:
        how = "falls as a power of the depth" if abs(self.drift_at_zero) < MARGINAL else "dies out exponentially"
        return -math.inf, f"q* = 0: the signal {how}"

    def named(self, log_q: float) -> tuple[float, str]:
        """A fixed point with its remark."""
        beside = [self.drift(log_q + step) for step in (-BESIDE, BESIDE)]
        if min(map(abs, beside)) > MARGINAL and beside[0] * beside[1] > 0:
            side, other = ("below", "above") if beside[0] > 0 else ("above", "below")
            return log_q, f"q* is half-stable: it attracts from {side} and repels {other}"
        if max(map(abs, beside)) <= MARGINAL:
            if self.keeps_zero and abs(self.drift_at_zero) < MARGINAL:
                return self.lost
        return log_q, ""

    def iterated(self, first: float) -> tuple[float, str]:
        """Where a map that does not rise everywhere takes q_1, layer by layer."""
        log_q = first
        for _ in range(PATIENCE):
            step = self.drift(log_q)
            log_q += step
            if abs(step) <= MARGINAL:
                return log_q, "the variance may jump across fixed points: q* is where it settled"
            if log_q > LOG_LARGE and not self.phi.is_bounded:
                return math.inf, "no fixed point: the variance grows without end"
            if log_q < LOG_SMALL and self.keeps_zero:
                return self.lost
        raise ValueError(
            f"with {self.phi.name!r} and these variances q does not settle within {PATIENCE} layers: it goes round, or is chaotic"
        )

    def fixed_points(self) -> list[FixedPoint]:
        """All of them, by rising q."""
        if self.keeps_all:
            raise ValueError("every variance is a fixed point here: q stays where the input puts it")
        found: list[float] = []
        for start in range(math.floor(LOG_SMALL), math.ceil(LOG_LARGE)):
            found += [x for x in self.roots(start) if not found or x - found[-1] > 1e-9]
        found = [x for x in found if not (self.keeps_zero and self.named(x)[0] == -math.inf)]
        between = [(x + y) / 2 for x, y in itertools.pairwise(found)]
        ends = [found[0] - 0.5, *between, found[-1] + 0.5] if found else [0.0]
        signs = [self.drift(x) for x in ends]
        points = [(x, below > 0, above < 0) for x, below, above in zip(found, signs, signs[1:], strict=False)]
        if self.keeps_zero:
            points.insert(0, (-math.inf, False, signs[0] < 0))
        variance = math.exp(self.log_weights)
        here = [moments(self.phi, max(x, -FAR)) for x, _, _ in points]
        return [
            FixedPoint(math.exp(x), variance * m.slope, variance * m.growth, *sides)
            for (x, *sides), m in zip(points, here, strict=True)
        ]
