"""What theory predicts for infinitely wide networks, for any φ, by quadrature.

Poole et al. 2016 and Schoenholz et al. 2017: the pre-activations of layer l are N(0, q_l) with q_{l+1} = σ_w² E φ(√q_l Z)² + σ_b²,
and the squared norm of the gradient is multiplied per layer by χ₁ = σ_w² E φ′(√q Z)², with Z ~ N(0, 1). Batches, norms and skips
follow from the same two steps, taken one operation at a time: a layer's second moments over its units go forward (`Kernel`), the
gradient's go back. Batch normalisation: Yang et al. 2019, here at every batch size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.moments import (
    LOG_LARGE,
    LOG_SMALL,
    batch_moments,
    moments,
    pair_moments,
    representative,
)
from vgp_kernels.moments import nodes as nodes  # offered here as well
from vgp_kernels.moments import pair_moment as pair_moment
from vgp_kernels.network import Network

MARGINAL = 1e-12  # a drift of ln q per layer below this is none
FAR = 600.0  # ln q where only the limit is asked for
PATIENCE = 10_000  # layers within which a normalised network settles

# How a gradient goes back through an operation: (Γ_aa, Γ_ab) below from those above, Γ_ab the product of the gradients of
# inputs a and b summed over the units, equal for all inputs and for all pairs.
Back = np.ndarray
IDENTITY: Back = np.eye(2)


def log_sum(x: float, y: float) -> float:
    """ln(eˣ + eʸ)."""
    return float(np.logaddexp(x, y))


def log_or_minus_infinity(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


@dataclass(frozen=True)
class Kernel:
    """Second moments over the units of a layer, equal for all inputs of a batch and for all pairs of them."""

    log_square: float
    """ln E h²."""
    correlation: float
    """E h_a h_b/E h² for two inputs a, b."""
    mean: float
    """E h/√(E h²)."""
    normal: bool
    """Whether the units are normally distributed."""


@dataclass(frozen=True)
class Operation:
    """One step of a layer: forward on kernels, and back on gradients."""

    apply: Callable[[Kernel], tuple[Kernel, Back]]
    is_dense: bool = False


def dense(weight_variance: float, bias_variance: float = 0.0) -> Operation:
    """z = Wh + b."""
    log_weights, log_biases = math.log(weight_variance), log_or_minus_infinity(bias_variance)

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        log_square = log_sum(log_weights + kernel.log_square, log_biases)
        from_weights = math.exp(log_weights + kernel.log_square - log_square)
        after = Kernel(log_square, 1 - (1 - kernel.correlation) * from_weights, 0.0, True)
        return after, weight_variance * IDENTITY

    return Operation(apply, is_dense=True)


def activate(name: str) -> Operation:
    """h = φ(z) of normal z."""
    phi = activation(name)

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        here, pair = moments(phi, kernel.log_square), pair_moments(phi, kernel.log_square, kernel.correlation)
        return Kernel(here.log_value, pair.correlation, here.mean, False), np.diag([here.slope, pair.slopes])

    return Operation(apply)


def normalise(kind: str) -> Operation:
    """Layer and RMS normalisation: with many units, division by the standard deviation or the root mean square."""

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        # what is subtracted, and the projections in the norm's Jacobian, are one direction in n
        shift = kernel.mean**2 if kind == "layer" else 0.0
        after = Kernel(
            0.0,
            (kernel.correlation - shift) / (1 - shift) if kernel.correlation != 1 else 1.0,
            0.0 if kind == "layer" else kernel.mean,
            kernel.normal,
        )
        return after, math.exp(-kernel.log_square) / (1 - shift) * IDENTITY

    return Operation(apply)


def batch_normalise(name: str, size: int, fixed_statistics: bool) -> Operation:
    """h = φ(BN(z)) of normal z; its Jacobian is (√B/|Gz|) D (G - uuᵀ) with u = Gz/|Gz|, D = diag φ′, G = I - 11ᵀ/B.

    With fixed statistics the gradient does not see that mean and variance depend on z.
    """
    here = batch_moments(activation(name), size)

    def apply(kernel: Kernel) -> tuple[Kernel, Back]:
        after = Kernel(here.log_value, here.correlation, here.mean, False)
        if size == 2 and not fixed_statistics:
            return after, np.zeros((2, 2))
        # E B/|Gz|²: |Gz|² is chi-squared with B - 1 degrees of freedom, times the variance across inputs
        scale = size / (size - 3) if size > 3 else math.inf
        scale *= math.exp(-kernel.log_square) / (1 - kernel.correlation)
        if fixed_statistics:
            return after, scale * np.diag([here.slope, here.slopes])
        # Γ = γ G + γ₀ 11ᵀ/B with γ = Γ_aa - Γ_ab and γ₀ = Γ_aa + (B - 1) Γ_ab; what comes out has γ only
        trace = here.centred_trace * np.array([1, -1]) + here.common_trace * np.array([1, size - 1])
        with np.errstate(invalid="ignore"):
            gamma = scale / (size - 1) * trace
        return after, np.outer([(size - 1) / size, -1 / size], gamma)

    return Operation(apply)


def add(kernel: Kernel, branch: Kernel, scale: float) -> Kernel:
    """x + α times an independent branch."""
    if scale == 0:
        return kernel
    logs = kernel.log_square, branch.log_square + 2 * math.log(scale)
    top = max(logs)
    x, y = (math.exp((log - top) / 2) for log in logs)
    cross = 2 * kernel.mean * branch.mean * x * y
    square = x * x + y * y + cross
    lost = (1 - kernel.correlation) * x * x + (1 - branch.correlation) * y * y
    return Kernel(
        top + math.log(square),
        1 - lost / square,
        (kernel.mean * x + branch.mean * y) / math.sqrt(square),
        kernel.normal and branch.normal,
    )


@dataclass(frozen=True)
class Layer:
    """A layer, or a block with a skip, of a network: the branch, α (None without skip), and what follows the sum."""

    branch: tuple[Operation, ...]
    scale: float | None
    tail: tuple[Operation, ...]


@dataclass(frozen=True)
class Passage:
    """What a layer does to one kernel."""

    before: Kernel
    after: Kernel
    back: Back
    log_variance: float  # ln q, of what the activation, or the norm right before it, takes
    weights: tuple[tuple[float, float, Back], ...]  # (ln E h², correlation) of each W's input, and ∂E/∂z from ∂E/∂h_l


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
        tail_back = back @ tail_back
    way = tail_back if layer.scale is None else layer.scale**2 * tail_back
    weights: list[tuple[float, float, Back]] = []
    for operation, before, back in reversed(stages):
        if operation.is_dense:
            weights.insert(0, (before.log_square, before.correlation, way))
        with np.errstate(invalid="ignore"):  # infinite expectations
            way = back @ way
    whole = way if layer.scale is None else tail_back + way
    return Passage(kernel, current, whole, log_variance, tuple(weights))


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


def input_kernel(network: Network, correlation: float) -> Kernel:
    """The input: normal entries, as after a random rotation."""
    return Kernel(2 * math.log(network.input_rms), correlation, 0.0, True)


@dataclass(frozen=True, eq=False)
class Course:
    """The second moments on the way through a network, layer by layer; k counts the weight matrices of a layer."""

    log_square: np.ndarray
    """(depth + 1,): ln E h_l²."""
    correlation: np.ndarray
    """(depth + 1,)."""
    log_variance: np.ndarray
    """(depth,): ln q_l."""
    back: np.ndarray
    """(depth, 2, 2)."""
    weight_log_square: np.ndarray
    """(depth, k): ln E h² of the matrix's input, and its correlation."""
    weight_correlation: np.ndarray
    weight_back: np.ndarray
    """(depth, k, 2, 2): from ∂E/∂h_l to ∂E/∂z of the matrix."""


def course(network: Network, correlation: float) -> Course:
    """Through all layers; once a layer changes nothing, or only ln q and that by a constant step, the rest follows."""
    first, others = layers(network)
    depth, matrices = network.depth, network.weights_per_layer
    current = input_kernel(network, correlation)
    log_square, correlations, log_variance = np.empty(depth + 1), np.empty(depth + 1), np.empty(depth)
    log_square[0], correlations[0] = current.log_square, correlation
    back, weight_back = np.empty((depth, 2, 2)), np.empty((depth, matrices, 2, 2))
    weight_log_square, weight_correlation = np.empty((2, depth, matrices))
    previous = None
    for i in range(depth):
        here = pass_through(first if i == 0 else others, current)
        step = repeating_step(network, previous, here) if i > 1 else None
        until = i + 1 if step is None else depth
        rest = np.arange(until - i) * (step or 0.0)
        log_square[i + 1 : until + 1] = here.after.log_square + rest
        correlations[i + 1 : until + 1] = here.after.correlation
        log_variance[i:until], back[i:until] = here.log_variance + rest, here.back
        for k, (log_input, input_correlation, way) in enumerate(here.weights):
            weight_log_square[i:until, k], weight_correlation[i:until, k] = log_input + rest, input_correlation
            weight_back[i:until, k] = way
        if until == depth:
            break
        previous, current = here, here.after
    return Course(log_square, correlations, log_variance, back, weight_log_square, weight_correlation, weight_back)


def repeating_step(network: Network, previous: Passage | None, here: Passage) -> float | None:
    """What each further layer adds to ln E h²; None if they are not all like this one."""
    before, after = here.before, here.after
    if abs(after.correlation - before.correlation) > 1e-13 or abs(after.mean - before.mean) > 4e-16:
        return None
    step = after.log_square - before.log_square
    if abs(step) <= 4e-16 * max(abs(after.log_square), 1):
        return 0.0
    scales = representative(activation(network.activation), here.log_variance) != here.log_variance
    if previous is None or not scales or not np.allclose(previous.back, here.back, rtol=1e-12, atol=0):
        return None
    return step if abs(step - (previous.after.log_square - previous.before.log_square)) <= 1e-13 else None


def gradient_curves(network: Network, way: Course) -> tuple[np.ndarray, np.ndarray]:
    """(ln E|∂E/∂h_l|², ln E|∂E/∂W|²) for a random direction of norm 1 at the top."""
    fan_in = np.full(way.weight_log_square.shape, network.width)
    fan_in[0, 0] = network.fan_in
    log_input = np.log(fan_in) + way.weight_log_square
    if not way.back[:, 0, 1].any():  # inputs do not mix: Γ_ab stays 0
        with np.errstate(divide="ignore"):
            steps, weight_steps = np.log(way.back[:, 0, 0]), np.log(way.weight_back[..., 0, 0])
        log_gradient = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        return log_gradient, log_gradient[1:, None] + weight_steps + log_input
    size, scale = network.batch_size, 0.0
    log_gradient, log_weights = np.zeros(network.depth + 1), np.empty_like(log_input)
    gamma = np.array([1 / size, 0.0])
    for i in reversed(range(network.depth)):
        for k, matrix in enumerate(way.weight_back[i]):
            square = size * matrix @ gamma @ [1, (size - 1) * way.weight_correlation[i, k]]
            log_weights[i, k] = scale + log_of_expectation(square) + log_input[i, k]
        gamma = way.back[i] @ gamma
        scale += log_of_expectation(size * gamma[0])
        log_gradient[i] = scale
        if math.isinf(scale):
            log_gradient[:i] = log_weights[:i] = scale
            break
        gamma /= size * gamma[0]
    return log_gradient, log_weights


def log_of_expectation(x: float) -> float:
    """ln x, where what is not finite is an infinite expectation."""
    return log_or_minus_infinity(x) if math.isfinite(x) else math.inf


@dataclass(frozen=True, eq=False)
class MeanField:
    """The prediction for one network; see `mean_field`."""

    network: Network
    q_star: float
    """Variance of the pre-activations at the fixed point that q_1 flows to: 0 or infinite where there is none between."""
    chi_1: float
    """χ₁, the factor of the squared gradient norm per layer at q*: without norms and skips σ_w² E φ′²."""
    chi_q: float
    """dq_{l+1}/dq_l at q*; 0 with a norm, NaN where q grows from block to block."""
    remark: str
    """What is special about the fixed point; empty if nothing is."""
    log_variance: np.ndarray
    """(depth,): ln q_l, l = 1 … depth, of what the activation, or the norm right before it, takes in."""
    log_signal: np.ndarray
    """(depth + 1,): ln of the root mean square of h_l, l = 0 … depth."""
    log_gradient: np.ndarray
    """(depth + 1,): ½ ln E|∂E/∂h_l|² (Frobenius norm over a batch), with |∂E/∂h_depth| = 1."""
    log_weight_gradient: np.ndarray
    """(depth,): ½ ln E|∂E/∂W_l|² (Frobenius norm), l = 1 … depth; (2 depth,) for blocks of two weights."""

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
    def correlation(self) -> np.ndarray:
        """(depth + 1,): E h_a h_b/E h² for two inputs of the batch, l = 0 … depth; from `input_correlation`."""
        return course(self.network, pair_correlation(self.network)).correlation

    @cached_property
    def gradient_correlation(self) -> np.ndarray:
        """(depth + 1,): cosine of the gradients that one linear read-out of h_depth has at two inputs, l = 0 … depth.

        It is 1 at the top (Balduzzi et al. 2017); NaN where no gradient passes.
        """
        back = course(self.network, pair_correlation(self.network)).back
        found, gamma = np.full(self.network.depth + 1, math.nan), np.ones(2)
        found[-1] = 1.0
        for i in reversed(range(self.network.depth)):
            gamma = back[i] @ gamma
            if not 0 < gamma[0] < math.inf:
                break
            gamma /= gamma[0]
            found[i] = gamma[1]
        return found

    @cached_property
    def c_star(self) -> float:
        """Correlation to which the pre-activations of two inputs flow: 1, or the fixed point below 1 where χ₁ > 1.

        With skips, and a norm of the sum, that of the blocks' outputs. ValueError where q grows from block to block.
        """
        if is_over_batch(self.network) and self.network.residual is None:
            return self._cycle(self.network.input_correlation).after.correlation
        if grows(self.network):
            raise ValueError("the correlation has no fixed point where each block adds variance; see .correlation")
        if self.phase != "chaotic" or not 0 < self.q_star < math.inf:
            return 1.0

        def excess(c: float) -> float:
            return self._cycle(c).after.correlation - c

        from scipy.optimize import brentq  # slow to import, and not needed by most

        if excess(0.0) <= 1e-14:
            return 0.0
        return float(brentq(excess, 0.0, 1 - 1e-10, xtol=1e-14))

    @cached_property
    def xi_c(self) -> float:
        """Depth scale on which correlations approach c*: without norms -1/ln(σ_w² E φ′(u₁) φ′(u₂)) layers at c*."""
        if is_over_batch(self.network):
            raise ValueError("batch normalisation brings a batch of equal correlations to c_star in one layer")
        if self.c_star == 1.0:
            return self.xi_gradient
        return depth_scale(float(self._cycle(self.c_star).back[1, 1]))

    def _cycle(self, c: float) -> Passage:
        """One layer at the fixed point, from pre-activations to pre-activations; with skips, from block to block."""
        _, layer = layers(self.network)
        if layer.scale is not None:
            return pass_through(layer, replace(settled(self.network).after, correlation=c))
        rotated = Layer((*layer.branch[1:], *layer.tail, layer.branch[0]), None, ())
        return pass_through(rotated, Kernel(math.log(self.q_star), c, 0.0, True))


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


def correlation_that_matters(network: Network) -> float:
    """Only batch normalisation makes norms depend on correlations; elsewhere 1 saves computing them."""
    return network.input_correlation if is_over_batch(network) else 1.0


def grows(network: Network) -> bool:
    """Whether each block adds variance that no norm takes away."""
    return (
        network.residual is not None
        and network.residual_scale > 0
        and (network.normalisation is None or network.norm_position == "pre")
    )


def mean_field(network: Network) -> MeanField:
    """Theory for infinitely wide networks: fixed point, depth scales, and the curves at finite depth.

    The curves are root mean squares, over networks, units and inputs; inputs are taken to point in random directions,
    with `input_correlation` between any two. Raises TypeError if `network` is no Network, ValueError where there is no
    theory: batch normalisation in the position "post", or of inputs that are all the same.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(50, 256, 'tanh', 'xavier')")
    way = course(network, correlation_that_matters(network))
    log_gradient, log_weights = gradient_curves(network, way)
    return MeanField(
        network,
        *fixed_point(network),
        way.log_variance,
        way.log_square / 2,
        log_gradient / 2,
        log_weights.ravel() / 2,
    )


def fixed_point(network: Network) -> tuple[float, float, float, str]:
    """(q*, χ₁, χ_q, remark)."""
    if grows(network):
        _, layer = layers(network)
        chi = float(pass_through(layer, Kernel(FAR, correlation_that_matters(network), 0.0, True)).back[0, 0])
        return math.inf, chi, math.nan, "each block adds variance: q* and χ₁ are the limits at infinite depth"
    if network.normalisation is None and network.residual is None:
        log_q, remark = plain_fixed_point(network)
        here = moments(activation(network.activation), min(max(log_q, -FAR), FAR))
        variance = network.weight_variance
        return math.exp(log_q) if log_q < 709 else math.inf, variance * here.slope, variance * here.growth, remark
    passage = settled(network)
    remark = ""
    if is_over_batch(network) and network.batch_size <= 3:
        remark = f"with {network.batch_size} inputs per batch the squared gradient has no finite expectation"
        if network.normalisation == "batch" and network.batch_size == 2:
            remark = "of two inputs batch normalisation leaves only a sign: no gradient passes"
    # the eigenvalue: batch normalisation leaves one direction in (Γ_aa, Γ_ab)
    mixes = passage.back[0, 1] != 0
    chi = passage.back.trace() if mixes else passage.back[0, 0]
    return math.exp(passage.log_variance), float(chi) if math.isfinite(chi) else math.inf, 0.0, remark


def settled(network: Network) -> Passage:
    """The passage through a layer that no longer changes the second moments at one input."""
    first, others = layers(network)
    here = pass_through(first, input_kernel(network, correlation_that_matters(network)))
    for _ in range(PATIENCE):
        here = pass_through(others, here.after)
        before, after = here.before, here.after
        if max(abs(after.log_square - before.log_square), abs(after.mean - before.mean)) < MARGINAL:
            return here
    raise ValueError(f"{network} does not settle within {PATIENCE} layers")


def plain_fixed_point(network: Network) -> tuple[float, str]:
    """(ln q*, remark): where q_l goes from q_1 without norms and skips."""
    phi = activation(network.activation)
    log_weights, log_biases = math.log(network.weight_variance), log_or_minus_infinity(network.bias_variance)
    first = log_sum(math.log(network.first_weight_variance) + 2 * math.log(network.input_rms), log_biases)

    def drift(log_q: float) -> float:
        return log_sum(log_weights + moments(phi, log_q).log_value, log_biases) - log_q

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
