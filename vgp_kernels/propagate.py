"""Run random networks forward and back, and keep the norms of signals and gradients."""

import os
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, overload

import numpy as np

from vgp_kernels import batch, cpu
from vgp_kernels.network import Network, check_name

if TYPE_CHECKING:
    from vgp_kernels.attention import Transformer, TransformerFlow
    from vgp_kernels.recurrent import Recurrent, RecurrentFlow

TARGETS = ("cpu",)
LOSS_GRADIENTS = ("independent", "shared")


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """What `propagate` measured, layer by layer, in natural logarithms; -inf where a norm is exactly 0."""

    network: Network
    seed: int
    log_signal: np.ndarray
    """(trials, depth + 1): ln of the root mean square of h_l over units and inputs, l = 0 … depth; h_0 is the input."""
    log_gradient: np.ndarray
    """(trials, depth + 1): ln |∂E/∂h_l| of all inputs together, l = 0 … depth, with |∂E/∂h_depth| = 1."""
    log_weight_gradient: np.ndarray
    """(trials, depth · weights_per_layer): ln |∂E/∂W_l| (Frobenius norm), l = 1 … depth; of two weights, W₁ before W₂."""
    correlation: np.ndarray
    """(trials, depth + 1): the mean cosine between the h_l of two inputs, over all pairs of inputs with h_l ≠ 0; NaN without one."""
    gradient_correlation: np.ndarray
    """(trials, depth + 1): the same of ∂E/∂h_l."""

    @property
    def trials(self) -> int:
        """The number of independent networks."""
        return len(self.log_signal)


@overload
def propagate(
    network: Network,
    trials: int = 1000,
    seed: int = 0,
    target: str = "cpu",
    threads: int | None = None,
    loss_gradient: str = "independent",
) -> GradientFlow: ...
@overload
def propagate(
    network: "Recurrent", trials: int = 1000, seed: int = 0, target: str = "cpu", threads: int | None = None
) -> "RecurrentFlow": ...
@overload
def propagate(
    network: "Transformer", trials: int = 1000, seed: int = 0, target: str = "cpu", threads: int | None = None
) -> "TransformerFlow": ...
def propagate(network, trials=1000, seed=0, target="cpu", threads=None, loss_gradient="independent"):  # type: ignore[no-untyped-def]
    """Draw `trials` independent networks and return the norms of their signals and gradients at every layer.

    The loss gradient ∂E/∂h_depth is a random direction of norm 1, so the results say by which factor a gradient shrinks
    or grows on its way down. The joint law of all norms is exact for Gaussian and for Haar-distributed orthogonal
    weights, at every width and depth, in O(width · depth) per network. Values of φ and φ′ are float32; slopes below its
    range count as 0.

    Of a batch, ∂E/∂h_depth is a random direction of the gradients of all inputs together; with the `loss_gradient`
    "shared" it is one direction that all inputs have in common. With batches, norms or skips the cost is
    O(batch_size² · width · depth). Norms have no ε: what is constant is normalised to 0 and passes no gradient.

    A Recurrent network goes through time instead and a Transformer through its blocks: see RecurrentFlow and TransformerFlow.

    The bits depend on network and seed only: not on `threads` (all cores unless given), and the first ten of a thousand
    trials are those of a run with ten.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range or unknown.
    """
    from vgp_kernels import attention, recurrent  # not above: results of feed-forward networks do not depend on them

    if not isinstance(network, Network | recurrent.Recurrent | attention.Transformer):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(50, 256, 'tanh', 'xavier')")
    trials = checked_integer("trials", trials, 1, 2**31)
    seed = checked_integer("seed", seed, 0, 2**64 - 1)
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = checked_integer("threads", threads, 1, 1024)
    if not isinstance(target, str) or target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; known: {', '.join(TARGETS)}")
    check_name("loss_gradient", loss_gradient, LOSS_GRADIENTS)
    if not isinstance(network, Network):
        if loss_gradient != "independent":
            raise ValueError(f"loss_gradient {loss_gradient!r} is for batches of a Network; leave it out")
        room = recurrent if isinstance(network, recurrent.Recurrent) else attention
        return room.run(network, trials, seed, threads)
    layers, weights = network.depth + 1, network.depth * network.weights_per_layer
    outputs = np.empty((trials, layers)), np.empty((trials, layers)), np.empty((trials, weights))
    if network.is_plain:
        correlations = (np.broadcast_to(np.nan, (trials, layers)),) * 2
        cpu.run(network, trials, seed, threads, outputs)
    else:
        correlations = np.full((trials, layers), np.nan), np.full((trials, layers), np.nan)
        batch.run(network, trials, seed, threads, loss_gradient == "shared", outputs + correlations)
    return GradientFlow(network, seed, *outputs, *correlations)


def checked_integer(name: str, value: object, smallest: int, largest: int) -> int:
    """The value as an int; TypeError or ValueError if it is no whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value)
    if not smallest <= number <= largest:
        raise ValueError(f"{name} must be from {smallest} to {largest}, not {value!r}")
    return number
