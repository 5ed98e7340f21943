"""Running networks that take a block of threads each: see `vgp_kernels.numerics.lanes` for what such a block runs."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vgp_kernels.numerics.lanes import WAYS
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.targets.compiling import INSTALLED
from vgp_kernels.targets.pool import share

if INSTALLED:
    from numba import cuda

RESIDENT = 32, 2048  # blocks and threads that a multiprocessor holds at most
PORTION = 2**16  # networks of which the results lie in a GPU's memory at a time


class Job(NamedTuple):
    """The networks to run: a block of the kernel takes one, and the kernel is started again for those that find no room.

    A loop over networks in the kernel would hold all that the compiler can move out of it, in registers that it then lacks.

    The kernel's parameters are the first trial (uint32) and the row of its result (int64), then `arguments`, the `outputs`
    (C-contiguous, networks first) and the `room` (C-contiguous, blocks first).
    """

    kernel: Callable[[tuple[int, int]], Any]  # for the GPUs of a compute capability
    lanes: int  # threads of a block, a power of two
    arguments: tuple[Any, ...]
    outputs: tuple[tuple[int, ...], ...]  # shapes of a network's results, float64
    room: tuple[tuple[tuple[int, ...], Any], ...]  # shapes and types of what a block works in


def lanes_for(entries: int, most: int) -> int:
    """Threads of a block whose vectors have so many entries: a power of two, as `lanes.mine` needs, and whole warps."""
    return min(most, max(WAYS, 2 ** math.ceil(math.log2(entries))))


def bytes_of(arrays: tuple[tuple[tuple[int, ...], Any], ...]) -> int:
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays)


def run(job: Job, trials: int, on_device: bool, progress: bool = False) -> list[Any]:
    """The outputs of all trials: computed by all GPUs, into NumPy arrays; or by the current GPU, and kept there."""
    devices = [cuda.gpus.current or cuda.gpus[0]] if on_device else list(cuda.gpus)
    results = [(cuda.device_array if on_device else np.empty)((trials, *shape), np.float64) for shape in job.outputs]
    portion = trials
    if not on_device:
        portion = min(math.ceil(trials / len(devices)), *(results_that_fit(device, job) for device in devices))
    idle = iter(devices)

    def work(starts: Iterator[int], watch: np.ndarray) -> None:
        device = next(idle)
        with device:
            kernel, stream = job.kernel(device.compute_capability), cuda.stream()
            parts: list[Any] = results
            if not on_device:
                parts = [cuda.device_array((portion, *shape), np.float64) for shape in job.outputs]
            blocks = min(portion, blocks_that_fit(device, job))
            arguments = [cuda.to_device(part) if isinstance(part, np.ndarray) else part for part in job.arguments]
            room = [cuda.device_array((blocks, *shape), dtype) for shape, dtype in job.room]
            for first in starts:
                count = min(portion, trials - first)
                at = first if on_device else 0
                for start in range(0, count, blocks):
                    here = min(blocks, count - start)
                    kernel[here, job.lanes, stream](u32(first + start), at + start, *arguments, *parts, *room)
                if not on_device:
                    for result, part in zip(results, parts, strict=True):
                        result[first : first + count] = part.copy_to_host(stream=stream)[:count]
                stream.synchronize()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grid size")  # Numba's, of jobs that do not fill a GPU
        share(range(0, trials, portion), len(devices), work, progress)
    return results


def results_that_fit(device: Any, job: Job) -> int:
    """How many networks' results fit into a fifth of the GPU's free memory: PORTION at most, one at least."""
    with device:
        free = cuda.current_context().get_memory_info().free
    return int(max(1, min(0.2 * free / bytes_of(tuple((shape, np.float64) for shape in job.outputs)), PORTION)))


def blocks_that_fit(device: Any, job: Job) -> int:
    """How many blocks the GPU runs at the same time, in four fifths of its free memory."""
    free, needed = cuda.current_context().get_memory_info().free, bytes_of(job.room)
    fit = 0.8 * free / needed
    if fit < 1:
        raise MemoryError(f"a network needs {needed:,} bytes, and the GPU has {free:,} free; take target='cpu'")
    return int(min(device.MULTIPROCESSOR_COUNT * min(RESIDENT[0], RESIDENT[1] // job.lanes), fit))
