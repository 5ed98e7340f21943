"""The CUDA target: what it needs, and when a job gains by it.

The source of generator, elementary functions, activations and layers is the CPU's, and so is the order in which each
network adds up its units: that the bits are the CPU's then depends on the compiler alone, see `compiling`.

`numba_cuda` is optional: this package imports without it, and without a GPU.
"""

from vgp_kernels.targets.compiling import INSTALLED

if INSTALLED:
    from numba import cuda

GAIN = 1e10  # nanoseconds of a CPU's core that a job must cost for "auto" to take the GPU: to compile takes as long


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
