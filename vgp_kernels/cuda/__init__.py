"""The CUDA target: which networks run on a GPU, what that needs, and running them.

The source of generator, elementary functions, activations and recursion is the CPU's, and so is the order in which each
network adds up its units: that the bits are the CPU's then depends on the compiler alone, see `compiling`.

`numba_cuda` is optional: this package imports without it, and without a GPU.
"""

from typing import Any, TypeGuard

from vgp_kernels.cuda import plain
from vgp_kernels.cuda.compiling import INSTALLED
from vgp_kernels.network import Network

if INSTALLED:
    from numba import cuda

GAIN = 2**30  # units, over all layers and networks, from which on "auto" takes the GPU: about a second of a CPU's work


def has_kernel(network: object) -> TypeGuard[Network]:
    return isinstance(network, Network) and network.is_plain


def wanted(network: object, trials: int, target: str) -> bool:
    """Whether these networks shall run on a GPU.

    Raises ValueError if target "cuda" has no kernel for them, RuntimeError if it cannot run here.
    """
    if not has_kernel(network):
        if target == "auto":
            return False
        raise ValueError(f"target 'cuda' has no kernel for {family(network)}; take target='cpu'")
    lacking = missing()
    if target == "auto":
        return lacking is None and trials * network.depth * network.width >= GAIN
    if lacking is not None:
        raise RuntimeError(f"target 'cuda' cannot run here: {lacking}; or take target='cpu'")
    return True


def family(network: object) -> str:
    """What kind of network this is, in words."""
    if not isinstance(network, Network):
        return f"a {type(network).__name__}"
    return "networks with batches, norms or skips"


def missing() -> str | None:
    """What the CUDA target lacks here and how to get it; None if it can run."""
    if not INSTALLED:
        return (
            "numba-cuda is not installed; get it with: pip install 'numba-cuda[cu13]' (NVIDIA drivers from 580 on) "
            "or pip install 'numba-cuda[cu12]' (from 525 on)"
        )
    try:
        count = len(cuda.gpus)
    except cuda.CudaSupportError as error:
        words = " ".join(str(error).split()).removeprefix("Error at driver init: ").rstrip(" :")
        return f"no NVIDIA driver answers ({words})"
    return None if count else "no NVIDIA GPU is visible; CUDA_VISIBLE_DEVICES says which ones may be"


def run(network: Network, trials: int, seed: int, on_device: bool) -> tuple[Any, ...]:
    """The results of all trials, as NumPy arrays, computed by all GPUs; or kept on the current GPU, computed there."""
    return plain.run(network, trials, seed, on_device)
