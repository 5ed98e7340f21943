"""Networks in time: a block of threads has a network, and its lanes the entries of each vector (`vgp_kernels.recurrent.kernels`)."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from vgp_kernels.numerics.arithmetic import STRICT
from vgp_kernels.numerics.lanes import row
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.recurrent.kernels import (
    DOUBLE,
    KIND,
    SINGLE,
    WORD,
    Logs,
    arrays_of,
    draw_into,
    kind_of,
    output_shapes,
    sizes_of,
    through_gru,
    through_lstm,
    through_simple,
)
from vgp_kernels.recurrent.network import GATES, Recurrent
from vgp_kernels.targets import blocks
from vgp_kernels.targets.cache import named
from vgp_kernels.targets.compiling import INSTALLED, compiling

if INSTALLED:
    from numba import cuda

MOST_LANES = 256
LONG = types.int64


def through_function(cell: str) -> Callable:
    """A network with this cell, forward and back."""
    if cell in GATES:
        return through_lstm if cell == "lstm" else through_gru

    @njit(**STRICT)
    @named(cell)
    def through(drawn, room, logs, watch):
        return through_simple(cell, drawn, room, logs, watch)

    return through


def network_kernel(cell: str) -> Callable:
    """The kernel of networks with this cell."""
    through = through_function(cell)

    def run_networks(
        first_trial, at, kind, seed_low, seed_high,
        log_signal, log_gradient, log_weight_gradient, log_cell_gradient, log_direct_gradient, log_total, single, double,
    ):  # fmt: skip
        here = cuda.blockIdx.x
        of = at + here
        drawn, room, _ = arrays_of(kind, row(single, here), row(double, here))
        logs = Logs(
            row(log_signal, of), row(log_gradient, of), row(log_weight_gradient, of), row(log_cell_gradient, of),
            row(log_direct_gradient, of),
        )  # fmt: skip
        draw_into(kind, (u32(first_trial + u32(here)), seed_low, seed_high), drawn, room, None)
        log_total[of] = through(drawn, room, logs, None)

    return run_networks


def signature() -> Any:
    """The kernel's."""
    rows = DOUBLE[:, ::1]
    return types.void(WORD, LONG, KIND, WORD, WORD, rows, rows, rows, rows, rows, DOUBLE[::1], SINGLE[:, ::1], rows)


@functools.cache
def kernel(cell: str, capability: tuple[int, int]):
    """The kernel of this cell for the GPUs of this compute capability."""
    with compiling():
        return cuda.jit(signature())(network_kernel(cell))


def cost(network: Recurrent) -> float:
    """About how many nanoseconds a core of a CPU takes for a network."""
    n, m = network.width, network.input_width
    haar = 0.1 * n * n if network.law == "orthogonal" else 0.0
    return network.gates * n * (network.steps * (0.17 * n + 0.04 * m + 4) + 2 * (n + m) + haar) + 1e4


def run(network: Recurrent, trials: int, seed: int, on_device: bool, progress: bool = False) -> list[Any]:
    """The Logs and ln |∂E/∂W| of all trials."""
    kind = kind_of(network)
    single, double = sizes_of(kind)
    job = blocks.Job(
        functools.partial(kernel, network.cell), blocks.lanes_for(network.width, MOST_LANES),
        (kind, u32(seed & 0xFFFFFFFF), u32(seed >> 32)),
        output_shapes(network), (((single,), np.float32), ((double,), np.float64)),
    )  # fmt: skip
    return blocks.run(job, trials, on_device, progress)
