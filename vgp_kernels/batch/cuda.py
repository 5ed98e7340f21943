"""Batches, norms and skips: a warp has a network, and its lanes have the entries of each row (`vgp_kernels.batch.kernels`)."""

import functools
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

from vgp_kernels.batch.kernels import (
    BLOCK,
    Block,
    Kept,
    Key,
    Room,
    Work,
    apply_activation,
    block_of,
    segment_of,
    shapes,
    take_network,
)
from vgp_kernels.network import Network
from vgp_kernels.numerics.arithmetic import STRICT
from vgp_kernels.numerics.lanes import WAYS, compile_once, row
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.targets import blocks
from vgp_kernels.targets.cache import named
from vgp_kernels.targets.compiling import INSTALLED, compiling

if INSTALLED:
    from numba import cuda

DTYPES = {"rank": np.int64, "scales": np.int64, "slope": np.float32}  # and of all exponents int64; of others float64


@functools.cache
def apply_function(name: str):
    """`batch.apply_activation` of the activation of this name."""

    @njit(**STRICT)
    @named(name)
    def apply(activation, u, n, factors, slope):
        compile_once()
        apply_activation(name, u, n, factors, slope)

    return apply


def network_kernel(name: str):
    """The kernel of networks with the activation of this name."""
    apply = apply_function(name)

    def run_networks(
        first_trial, at, block, segment, seed_low, seed_high,
        log_signal, log_gradient, log_weight_gradient, correlation, gradient_correlation,
        q, y, r, rank, kept_exponents, slope, normalised, inverse, scales,
        branch, branch_exponents, inputs, outputs, coefficients, product, draw, draw_coefficients, factors, rest,
        x, exponents, starts, start_exponents,
    ):  # fmt: skip
        here = cuda.blockIdx.x
        room = Room(
            Kept(
                row(q, here), row(y, here), row(r, here), row(rank, here), row(kept_exponents, here), row(slope, here),
                row(normalised, here), row(inverse, here), row(scales, here),
            ),
            Work(
                row(branch, here), row(branch_exponents, here), row(inputs, here), row(outputs, here),
                row(coefficients, here), row(product, here), row(draw, here), row(draw_coefficients, here),
                row(factors, here), row(rest, here),
            ),
            row(x, here), row(exponents, here), row(starts, here), row(start_exponents, here),
        )  # fmt: skip
        key, of = Key(u32(first_trial + u32(here)), seed_low, seed_high), at + here
        take_network(
            apply, block, segment, key, room, row(log_signal, of), row(log_gradient, of),
            row(log_weight_gradient, of), row(correlation, of), row(gradient_correlation, of), None,
        )  # fmt: skip

    return run_networks


def room_of(block: Block, segment: int) -> list[tuple[str, tuple[int, ...], Any]]:
    """(name, shape, type) of the arrays that a network works in."""
    room = shapes(block, segment)
    of = [*zip(Kept._fields, room.kept, strict=True), *zip(Work._fields, room.work, strict=True)]
    of += zip(Room._fields[2:], room[2:], strict=True)
    return [
        (name, shape, np.int64 if name.endswith("exponents") else DTYPES.get(name, np.float64)) for name, shape in of
    ]


def signature() -> Any:
    """The kernel's."""
    word, long, rows = types.uint32, types.int64, types.float64[:, ::1]
    smallest = block_of(Network(1, 1, "tanh", "xavier"), False)
    room = [types.Array(from_dtype(np.dtype(dtype)), len(shape) + 1, "C") for _, shape, dtype in room_of(smallest, 1)]
    return types.void(word, long, BLOCK, long, word, word, *[rows] * 5, *room)


@functools.cache
def kernel(name: str, capability: tuple[int, int]):
    """The kernel of this activation for the GPUs of this compute capability."""
    with compiling():
        return cuda.jit(signature())(network_kernel(name))


def run(
    network: Network, trials: int, seed: int, on_device: bool, progress: bool = False, shared_loss: bool = False
) -> list[Any]:
    """ln RMS h, ln |∂E/∂h|, ln |∂E/∂W| and the mean cosines of h and of ∂E/∂h of all trials; each (trials, layers)."""
    block, segment = block_of(network, shared_loss), segment_of(network)
    layers, weights = (network.depth + 1,), (network.depth * network.weights_per_layer,)
    job = blocks.Job(
        functools.partial(kernel, network.activation), WAYS,
        (block, segment, u32(seed & 0xFFFFFFFF), u32(seed >> 32)),
        (layers, layers, weights, layers, layers),
        tuple((shape, dtype) for _, shape, dtype in room_of(block, segment)),
    )  # fmt: skip
    return blocks.run(job, trials, on_device, progress)


def cost(network: Network) -> float:
    """Nanoseconds that a CPU's core takes for a network, about."""
    inputs = network.batch_size
    return network.depth * network.weights_per_layer * network.width * (15 + 8 * inputs + 1.4 * inputs * inputs)
