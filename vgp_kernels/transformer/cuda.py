"""Transformers: a block of threads has one, and its lanes have the entries of each matrix (`vgp_kernels.transformer.kernels`)."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from vgp_kernels.numerics.arithmetic import STRICT
from vgp_kernels.numerics.lanes import compile_once, row
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.targets import blocks
from vgp_kernels.targets.cache import named
from vgp_kernels.targets.compiling import INSTALLED, compiling
from vgp_kernels.transformer.kernels import (
    LAYOUT,
    OUTPUTS,
    ROOM,
    RULES,
    Room,
    Rules,
    activate,
    layout_of,
    results,
    run_transformer,
)
from vgp_kernels.transformer.network import Transformer

if INSTALLED:
    from numba import cuda

LANES = 128  # of a block
WORD, LONG = types.uint32, types.int64


@functools.cache
def activate_function(name: str):
    """`attention.activate` of the activation of this name."""
    apply = njit(inline="always", **STRICT)(activate)

    @njit(**STRICT)
    @named(name)
    def activate_with(z, slope):
        compile_once()
        apply(name, z, slope)

    return activate_with


def transformer_kernel(name: str) -> Callable:
    """The kernel of transformers with the activation of this name."""
    activate_with = activate_function(name)

    def run_transformers(
        first_trial, at, rules, layout, seed_low, seed_high,
        log_signal, log_gradient, log_weight_gradient, log_matrix_gradient, log_residual, single, double,
    ):  # fmt: skip
        here = cuda.blockIdx.x
        of, room = at + here, Room(layout, row(single, here), row(double, here))
        run_transformer(
            activate_with, rules, u32(first_trial + u32(here)), seed_low, seed_high, room,
            row(log_signal, of), row(log_gradient, of), row(log_weight_gradient, of), row(log_matrix_gradient, of),
            row(log_residual, of), None,
        )  # fmt: skip

    return run_transformers


def signature() -> Any:
    """The kernel's."""
    arrays = [array.copy(ndim=array.ndim + 1) for array in (*OUTPUTS, *ROOM.types[1:])]
    return types.void(WORD, LONG, RULES, LAYOUT, WORD, WORD, *arrays)


@functools.cache
def kernel(name: str, capability: tuple[int, int]):
    """The kernel of this activation for the GPUs of this compute capability."""
    with compiling():
        return cuda.jit(signature())(transformer_kernel(name))


def run(network: Transformer, trials: int, seed: int, on_device: bool, progress: bool = False) -> list[Any]:
    """What `TransformerFlow` has, in its order, of all trials. A block draws the weights of one block of its transformer at a time."""
    layout, single, double = layout_of(network, 1)
    job = blocks.Job(
        functools.partial(kernel, network.activation), LANES,
        (Rules.of(network), layout, u32(seed & 0xFFFFFFFF), u32(seed >> 32)),
        results(network), (((single,), np.float32), ((double,), np.float64)),
    )  # fmt: skip
    return blocks.run(job, trials, on_device, progress)


def cost(network: Transformer) -> float:
    """Nanoseconds that a CPU's core takes for a transformer, about."""
    scores = network.blocks * network.tokens**2 * (2 * network.width + 25 * network.heads)
    return 1e5 + network.weights * (9 + 0.2 * network.tokens) + scores
