"""The CUDA target: what it needs, when a job gains by it, and the rooms that run each family of networks on a GPU.

The source of generator, elementary functions, activations and layers is the CPU's, and so is the order in which each
network adds up its units: that the bits are the CPU's then depends on the compiler alone, see `compiling`.

`numba_cuda` is optional: this package imports without it, and without a GPU.
"""

from typing import Any

from vgp_kernels.attention import Transformer
from vgp_kernels.cuda import batches, plain, recurrent, training, transformers
from vgp_kernels.cuda.compiling import INSTALLED
from vgp_kernels.network import Network
from vgp_kernels.recurrent import Recurrent

if INSTALLED:
    from numba import cuda

GAIN = 1e10  # nanoseconds of a CPU's core that a job must cost for "auto" to take the GPU: to compile takes as long


def room_of(job: object) -> Any:
    """The module with `cost` and `run` for such networks, or for a task of `train`."""
    if isinstance(job, Network):
        return plain if job.is_plain else batches
    if isinstance(job, Recurrent):
        return recurrent
    return transformers if isinstance(job, Transformer) else training


def wanted(job: object, trials: int, target: str) -> bool:
    """Whether these networks shall run on a GPU; RuntimeError if target "cuda" cannot run here."""
    lacking = missing()
    if target == "auto":
        return lacking is None and trials * room_of(job).cost(job) >= GAIN
    if lacking is not None:
        raise RuntimeError(f"target 'cuda' cannot run here: {lacking}; or take target='cpu'")
    return True


def missing() -> str | None:
    """What the CUDA target lacks here and how to get it; None if it can run."""
    if not INSTALLED:
        return (
            "numba-cuda is not installed, or not beside a NumPy that it can work with; get both with: "
            "pip install 'numba-cuda[cu13]<0.31' 'numpy<2.5' (NVIDIA drivers from 580 on) "
            "or pip install 'numba-cuda[cu12]<0.31' 'numpy<2.5' (from 525 on)"
        )
    try:
        count = len(cuda.gpus)
    except cuda.CudaSupportError as error:
        words = " ".join(str(error).split()).removeprefix("Error at driver init: ").rstrip(" :")
        return f"no NVIDIA driver answers ({words})"
    return None if count else "no NVIDIA GPU is visible; CUDA_VISIBLE_DEVICES says which ones may be"


def run(network: Any, trials: int, seed: int, on_device: bool, shared_loss: bool, progress: bool = False) -> Any:
    """The results of all trials, as NumPy arrays, computed by all GPUs; or kept on the current GPU, computed there."""
    room = room_of(network)
    return room.run(network, trials, seed, on_device, *[shared_loss] if room is batches else [], progress=progress)
