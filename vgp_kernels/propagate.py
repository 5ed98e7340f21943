"""Run random networks forward and back, and keep the norms of signals and gradients."""

import os
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, overload

import numpy as np

from vgp_kernels import batch, cpu, pool
from vgp_kernels.network import Network, check_name

if TYPE_CHECKING:
    from vgp_kernels.attention import Transformer, TransformerFlow
    from vgp_kernels.recurrent import Recurrent, RecurrentFlow

TARGETS = ("cpu", "cuda", "auto")
OUTPUTS = ("host", "device")
LOSS_GRADIENTS = ("independent", "shared")


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """What `propagate` measured, layer by layer, in natural logarithms; -inf where a norm is exactly 0."""

    network: Network
    seed: int
    log_signal: np.ndarray  # or, with output="device", an array on the GPU; so are the others
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
        return self.log_signal.shape[0]


@overload
def propagate(
    network: Network,
    trials: int = 1000,
    seed: int = 0,
    target: str | None = None,
    threads: int | None = None,
    loss_gradient: str = "independent",
    output: str = "host",
    progress: bool = False,
) -> GradientFlow: ...
@overload
def propagate(
    network: "Recurrent",
    trials: int = 1000,
    seed: int = 0,
    target: str | None = None,
    threads: int | None = None,
    *,
    output: str = "host",
    progress: bool = False,
) -> "RecurrentFlow": ...
@overload
def propagate(
    network: "Transformer",
    trials: int = 1000,
    seed: int = 0,
    target: str | None = None,
    threads: int | None = None,
    *,
    output: str = "host",
    progress: bool = False,
) -> "TransformerFlow": ...
def propagate(  # type: ignore[no-untyped-def]
    network, trials=1000, seed=0, target=None, threads=None, loss_gradient="independent", output="host", progress=False
):  # fmt: skip
    """Draw `trials` independent networks and return the norms of their signals and gradients at every layer.

    The loss gradient ∂E/∂h_depth is a random direction of norm 1, so the results say by which factor a gradient shrinks
    or grows on its way down. The joint law of all norms is exact for Gaussian and for Haar-distributed orthogonal
    weights, at every width and depth, in O(width · depth) per network. Values of φ and φ′ are float32; slopes below its
    range count as 0.

    Of a batch, ∂E/∂h_depth is a random direction of the gradients of all inputs together; with the `loss_gradient`
    "shared" it is one direction that all inputs have in common. With batches, norms or skips the cost is
    O(batch_size² · width · depth). Norms have no ε: what is constant is normalised to 0 and passes no gradient.

    A Recurrent network goes through time instead and a Transformer through its blocks: see RecurrentFlow and TransformerFlow.

    The bits depend on network and seed only: not on `threads` (all cores unless given), not on the target, and the first
    ten of a thousand trials are those of a run with ten.

    `target` "cuda" takes all NVIDIA GPUs; "auto" takes them where there are any and the job is large enough to gain. The
    default is "cpu", or what the environment variable VGP_TARGET says. With `output` "device" the results stay on the
    current GPU, as arrays with `__cuda_array_interface__`, for CuPy, PyTorch or JAX to take over.

    With `progress=True` a bar on stderr shows which part is done, by tqdm where that is installed. Ctrl-C stops all threads
    within about a second: at their next layer, block, or step in time.

    Raises TypeError for a value of the wrong type, ValueError for one that is out of range or unknown, RuntimeError, which
    says what is missing, if "cuda" cannot run here, and MemoryError for a network that does not fit into the GPU's memory.
    """
    from vgp_kernels import attention, recurrent  # not above: results of feed-forward networks do not depend on them

    if not isinstance(network, Network | recurrent.Recurrent | attention.Transformer):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(50, 256, 'tanh', 'xavier')")
    trials = checked_integer("trials", trials, 1, 2**31)
    seed = checked_integer("seed", seed, 0, 2**64 - 1)
    threads = checked_integer("threads", pool.all_threads() if threads is None else threads, 1, 1024)
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, not {progress!r}")
    check_name("loss_gradient", loss_gradient, LOSS_GRADIENTS)
    check_name("output", output, OUTPUTS)
    shared_loss = loss_gradient == "shared"
    if shared_loss and not isinstance(network, Network):
        raise ValueError(f"loss_gradient {loss_gradient!r} is for batches of a Network; leave it out")
    on_gpu = takes_gpu(network, trials, target)
    if output == "device" and not on_gpu:
        raise ValueError("output 'device' needs target='cuda'")
    if on_gpu:
        from vgp_kernels import cuda

        outputs = cuda.run(network, trials, seed, output == "device", shared_loss, progress)
    elif isinstance(network, Network):
        layers, weights = (trials, network.depth + 1), (trials, network.depth * network.weights_per_layer)
        outputs = np.empty(layers), np.empty(layers), np.empty(weights)
        if network.is_plain:
            cpu.run(network, trials, seed, threads, progress, outputs)
        else:
            outputs += np.empty(layers), np.empty(layers)
            batch.run(network, trials, seed, threads, progress, shared_loss, outputs)
    else:
        room = recurrent if isinstance(network, recurrent.Recurrent) else attention
        outputs = room.run(network, trials, seed, threads, progress)
    if isinstance(network, recurrent.Recurrent):
        return recurrent.flow_of(network, seed, outputs)
    if isinstance(network, attention.Transformer):
        return attention.TransformerFlow(network, seed, *outputs)
    undefined = np.broadcast_to(np.nan, (trials, network.depth + 1))  # the correlations of a single input
    return GradientFlow(network, seed, *outputs, *[undefined] * (5 - len(outputs)))


def takes_gpu(job: object, trials: int, target: str | None) -> bool:
    """Whether the target, or the default if it is None, means a GPU for so many networks, or for a task of `train`.

    Raises what `propagate` and `train` raise.
    """
    given = os.environ.get("VGP_TARGET", "cpu") if target is None else target
    check_name("target", given, TARGETS)
    if given == "cpu":
        return False
    from vgp_kernels import cuda  # it takes half a second

    return cuda.wanted(job, trials, given)


def checked_integer(name: str, value: object, smallest: int, largest: int) -> int:
    """The value as an int; TypeError or ValueError if it is no whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value)
    if not smallest <= number <= largest:
        raise ValueError(f"{name} must be from {smallest} to {largest}, not {value!r}")
    return number
