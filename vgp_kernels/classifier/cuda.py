"""Training: a block of threads has a network, from its first weights to its last step. The source is the CPU's."""

import functools
import math
from typing import Any

import numpy as np
from numba import njit, types

from vgp_kernels.classifier.kernels import Haar, Plan, Workspace, activation_source, backward, draw, forward
from vgp_kernels.classifier.learning import Task, Turn, learn
from vgp_kernels.classifier.weights import layout_of, room_for_haar, variances_of
from vgp_kernels.numerics.arithmetic import STRICT, f32, f64
from vgp_kernels.numerics.lanes import mine, part, row
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.targets import blocks
from vgp_kernels.targets.compiling import INSTALLED, compiling

if INSTALLED:
    from numba import cuda

MOST_LANES = 256  # of a block; always a power of two
I4, I8, F4, F8, FLAG = types.uint32, types.int64, types.float32, types.float64, types.boolean


def arrays(kind: Any, *dimensions: int) -> tuple[Any, ...]:
    return tuple(types.Array(kind, count, "C") for count in dimensions)


TRAIN = types.void(
    I4, I8,
    I8, I8, I8, I4, I4, FLAG, F8, *arrays(I8, 2, 2), *arrays(F8, 1), F8, I4, I4, F4, I8,
    *arrays(F4, 2), *arrays(I8, 1), *arrays(F4, 2), *arrays(I8, 1), I4, I4,
    *arrays(F8, 2, 3, 3, 3, 2),
    *arrays(F4, 2), *arrays(F8, 2), *arrays(I8, 2, 2), *arrays(F8, 2, 2), *arrays(F4, 2),
)  # fmt: skip


def training_kernel(name: str):
    """The kernel of the activation of this name."""
    activate = njit(**STRICT)(activation_source(name))

    def train_networks(
        first_trial, at,
        size, depth, width, residual, normalisation, norm_after, residual_scale, table, layout, variances, bias_variance, law,
        optimiser, rate, epochs, inputs, labels, test_inputs, test_labels, seed_low, seed_high,
        batch_loss, scores, weight_gradient, movement, parameters,
        room, terms, order, batch_labels, q, v, normals,
    ):  # fmt: skip
        here = cuda.blockIdx.x
        trial, of = u32(first_trial + u32(here)), at + here
        plan = Plan(depth, width, residual, normalisation, norm_after, residual_scale, table)
        work = Workspace(row(room, here), layout, row(terms, here))
        turn = Turn(row(order, here), row(batch_labels, here))
        own = part(work.room, 0, (size,))  # the parameters come first
        haar = Haar(row(q, here), row(v, here), row(normals, here))
        draw(plan, own, variances, bias_variance, law, trial, seed_low, seed_high, haar, None)
        learn(
            activate, forward, backward, plan, work, turn, size, optimiser, rate, epochs, inputs, labels, test_inputs,
            test_labels, trial, seed_low, seed_high, row(batch_loss, of), row(scores, of),
            row(weight_gradient, of), row(movement, of), None,
        )  # fmt: skip
        for i in mine(size):
            parameters[of, i] = f64(own[i])

    return train_networks


@functools.cache
def kernel(name: str, capability: tuple[int, int]):
    with compiling():
        return cuda.jit(TRAIN)(training_kernel(name))


def job_of(task: Task) -> blocks.Job:
    network, plan = task.network, task.plan
    layout, room = layout_of(plan, task.batch, task.vectors)
    q, v, normals = room_for_haar(plan, task.law)
    tiles = math.ceil(task.batch / 4) * math.ceil(network.width / 4)  # of the products
    return blocks.Job(
        functools.partial(kernel, network.activation),
        blocks.lanes_for(tiles, MOST_LANES),
        (
            task.size, plan.depth, plan.width, u32(plan.residual), u32(plan.normalisation), plan.norm_after, plan.residual_scale,
            plan.table, layout, variances_of(network, plan), network.bias_variance, u32(task.law), u32(task.optimiser),
            f32(task.rate), task.epochs, task.inputs, task.labels, task.test_inputs, task.test_labels,
            u32(task.seed & 0xFFFFFFFF), u32(task.seed >> 32),
        ),
        task.results,
        (
            ((room,), np.float32), ((2 * task.batch,), np.float64), ((len(task.labels),), np.int64), ((task.batch,), np.int64),
            ((q,), np.float64), ((v,), np.float64), ((normals,), np.float32),
        ),
    )  # fmt: skip


def run(task: Task, trials: int, progress: bool = False) -> list[np.ndarray]:
    """The results of all trials, by all GPUs: those of `training.run`."""
    *recorded, parameters = blocks.run(job_of(task), trials, False, progress)
    return [*recorded, parameters.astype(np.float32)]


def cost(task: Task) -> float:
    """Nanoseconds that a CPU's core takes for a network, about: fifty floating-point operations each."""
    return task.epochs * task.size * (8 * len(task.labels) + 2 * len(task.test_labels)) / 50
