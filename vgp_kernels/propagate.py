"""Run random networks forward and back, and keep the norms of signals and gradients."""

from typing import TYPE_CHECKING, overload

from vgp_kernels.network import GradientFlow, Network, check_name, checked_integer
from vgp_kernels.targets.families import family_of, takes_gpu
from vgp_kernels.targets.pool import all_threads

if TYPE_CHECKING:
    from vgp_kernels.recurrent.network import Recurrent, RecurrentFlow
    from vgp_kernels.transformer.network import Transformer, TransformerFlow

OUTPUTS = ("host", "device")
LOSS_GRADIENTS = ("independent", "shared")


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
    family = family_of(network)
    trials = checked_integer("trials", trials, 1, 2**31)
    seed = checked_integer("seed", seed, 0, 2**64 - 1)
    threads = checked_integer("threads", all_threads() if threads is None else threads, 1, 1024)
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, not {progress!r}")
    check_name("loss_gradient", loss_gradient, LOSS_GRADIENTS)
    check_name("output", output, OUTPUTS)
    if loss_gradient == "shared" and not isinstance(network, Network):
        raise ValueError(f"loss_gradient {loss_gradient!r} is for batches of a Network; leave it out")
    options = {"shared_loss": True} if loss_gradient == "shared" and family.name == "batch" else {}
    on_gpu = takes_gpu(network, trials, target)
    if output == "device" and not on_gpu:
        raise ValueError("output 'device' needs target='cuda'")
    if on_gpu:
        arrays = family.cuda.run(network, trials, seed, output == "device", progress, **options)
    else:
        arrays = family.kernels.run(network, trials, seed, threads, progress, **options)
    return family.flow_of(network, seed, arrays)
