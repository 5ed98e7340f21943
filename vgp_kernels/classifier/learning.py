"""Train deep classifiers: many networks side by side, one per core, the same bits for any number of threads.

Each network has its own initial weights and its own order of the examples, both keyed by (seed, trial).
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.classifier.kernels import (
    ACTIVATE,
    BACKWARD,
    BATCH,
    FAN_IN,
    FAN_OUT,
    FORWARD,
    GRADIENT,
    INPUTS,
    OFFSET,
    OTHERS,
    PARAMETERS,
    PLAN,
    STATISTICS,
    VECTORS,
    WORKSPACE,
    Plan,
    activate_function,
    at,
    backward_function,
    draw_function,
    forward_function,
    loss_of,
    norm,
    scaled,
    set_all,
)
from vgp_kernels.classifier.weights import array_of, draw_parameters, make_workspace
from vgp_kernels.network import Network
from vgp_kernels.numerics.arithmetic import ONE, STRICT, ZERO, f32, f64, fma
from vgp_kernels.numerics.lanes import (
    address,
    columns_of_lane,
    compile_once,
    doubles,
    float_matrix,
    floats,
    integers,
    lane,
    mine,
    prefer_wide_vectors,
    rows_of_warp,
    together,
)
from vgp_kernels.numerics.randomness import u32, words
from vgp_kernels.numerics.watch import STOP, WATCH, halted, stopped
from vgp_kernels.targets.cache import cached
from vgp_kernels.targets.pool import announced, share

OPTIMISERS = ("sgd", "momentum", "adam")
SGD, MOMENTUM, ADAM = range(3)
MOMENTUM_FACTOR = f32(0.9)
ADAM_FIRST, ADAM_SECOND, ADAM_EPSILON = f32(0.9), f32(0.999), f32(1e-8)  # the paper's values
ORDER = u32(18)  # purpose of random words


class Turn(NamedTuple):
    """The order of the examples, and the labels of the batch whose turn it is."""

    order: np.ndarray  # (examples) int64
    labels: np.ndarray  # (batch) int64


i8_1, f4_2, f8_1, f8_2 = types.int64[::1], types.float32[:, ::1], types.float64[::1], types.float64[:, ::1]
TURN = types.NamedUniTuple(i8_1, 2, Turn)
TRAIN = types.void(
    types.FunctionType(ACTIVATE), types.FunctionType(FORWARD), types.FunctionType(BACKWARD), PLAN, WORKSPACE,
    TURN, types.int64, types.int64, types.float32, types.int64, f4_2, i8_1, f4_2, i8_1,
    types.uint32, types.uint32, types.uint32, f8_1, f8_2, f8_2, f8_2, WATCH,
)  # fmt: skip
TRAIN_LOSS, TRAIN_ACCURACY, TEST_LOSS, TEST_ACCURACY = range(4)  # rows of the scores


@njit(nogil=True, **STRICT)
def sgd(room, parameters, gradient, n, rate):
    """p ← p - ηg."""
    compile_once()
    prefer_wide_vectors()
    p, g = floats(room, parameters, n), floats(room, gradient, n)
    for i in mine(n):
        p[i] = fma(-rate, g[i], p[i])
    together()


@njit(nogil=True, **STRICT)
def heavy_ball(room, parameters, gradient, velocity, n, rate):
    """v ← μv + g, p ← p - ηv."""
    compile_once()
    prefer_wide_vectors()
    p, g, v = floats(room, parameters, n), floats(room, gradient, n), floats(room, velocity, n)
    for i in mine(n):
        v[i] = fma(MOMENTUM_FACTOR, v[i], g[i])
        p[i] = fma(-rate, v[i], p[i])
    together()


@njit(nogil=True, **STRICT)
def adam(room, parameters, gradient, first, second, n, rate, first_share, second_share):
    """m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², p ← p - η m̂/(√v̂ + ε), m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ)."""
    compile_once()
    prefer_wide_vectors()
    p, g = floats(room, parameters, n), floats(room, gradient, n)
    m, v = floats(room, first, n), floats(room, second, n)
    for i in mine(n):
        m[i] = fma(ONE - ADAM_FIRST, g[i] - m[i], m[i])
        v[i] = fma(ONE - ADAM_SECOND, g[i] * g[i] - v[i], v[i])
        p[i] -= rate * (m[i] / first_share) / (f32(math.sqrt(v[i] / second_share)) + ADAM_EPSILON)
    together()


@njit(nogil=True, **STRICT)
def shuffle(order, epoch, trial, seed_low, seed_high):
    """A random order of 0 … n-1 (Fisher & Yates), the same for the same epoch, trial and seed."""
    compile_once()
    if lane() == 0:
        for i in range(order.size):
            order[i] = i
        for i in range(order.size - 1, 0, -1):
            word, _, _, _ = words(u32(i), trial, u32(epoch), ORDER, seed_low, seed_high)
            j = (np.int64(word) * np.int64(i + 1)) >> np.int64(32)
            order[i], order[j] = order[j], order[i]
    together()


@njit(nogil=True, **STRICT)
def take(room, x, start, rows, features, order, shuffled, inputs, labels, taken):
    """The next examples from `start` on become the batch, as they lie there or in their random order."""
    compile_once()
    batch, of_batch, orders = (
        float_matrix(room, x, rows, features),
        integers(taken, 0, rows),
        integers(order, 0, start + rows),
    )
    for i in rows_of_warp(rows):
        example = orders[start + i] if shuffled else start + i
        given = floats(inputs, example * features, features)
        for j in columns_of_lane(features):
            batch[i, j] = given[j]
    for i in mine(rows):
        example = orders[start + i] if shuffled else start + i
        of_batch[i] = integers(labels, example, 1)[0]
    together()


@njit(nogil=True, **STRICT)
def take_batch(work, turn, start, rows, shuffled, inputs, labels):
    take(
        address(work.room), at(work, INPUTS, 0), start, rows, inputs.shape[1], address(turn.order), shuffled,
        address(inputs), address(labels), address(turn.labels),
    )  # fmt: skip


@njit(nogil=True, **STRICT)
def evaluate(activate, forward, plan, inputs, labels, work, turn, by_batch, watch):
    """(mean loss, accuracy) over all examples, with the running statistics of batch normalisation, or those of each batch.

    A batch of one example has none and is left out.
    """
    batch, count = turn.labels.size, 0
    loss, right = 0.0, 0.0
    for start in range(0, len(labels), batch):
        rows = min(batch, len(labels) - start)
        if stopped(watch) or (by_batch and rows == 1):
            break
        take_batch(work, turn, start, rows, False, inputs, labels)
        forward(activate, plan, work, rows, by_batch)
        loss_here, right_here = loss_of(plan, work, turn.labels, rows)
        loss += loss_here
        right += right_here
        count += rows
    return loss / count, right / count


@njit(nogil=True, **STRICT)
def forget(results, n):
    """n numbers become NaN."""
    compile_once()
    numbers = doubles(results, 0, n)
    for i in mine(n):
        numbers[i] = math.nan
    together()


@njit(nogil=True, **STRICT)
def begin(plan, work, vectors, size):
    """What a network begins with."""
    room = address(work.room)
    for index in range(OTHERS, vectors - 1):
        set_all(room, at(work, VECTORS, index), ZERO, size)
    scaled(room, ONE, at(work, VECTORS, PARAMETERS), at(work, VECTORS, vectors - 1), size)
    forget_statistics(plan, work)


@njit(nogil=True, **STRICT)
def forget_statistics(plan, work):
    """Running means 0, running variances 1."""
    room = address(work.room)
    for block in range(plan.depth):
        mean = at(work, STATISTICS, block)
        set_all(room, mean, ZERO, plan.width)
        set_all(room, mean + plan.width, ONE, plan.width)


@njit(nogil=True, **STRICT)
def learn(
    activate, forward, backward, plan, work, turn, size, optimiser, rate, epochs, inputs, labels, test_inputs, test_labels,
    trial, seed_low, seed_high, batch_loss, scores, weight_gradient, movement, watch,
):  # fmt: skip
    """Train one network from its first parameters on."""
    vectors = OTHERS + optimiser + 1
    begin(plan, work, vectors, size)
    forget(address(batch_loss), batch_loss.size)
    forget(address(scores), scores.size)
    forget(address(weight_gradient), weight_gradient.size)
    forget(address(movement), movement.size)
    parameters, gradient, initial = (
        at(work, VECTORS, PARAMETERS),
        at(work, VECTORS, GRADIENT),
        at(work, VECTORS, vectors - 1),
    )
    first, second = at(work, VECTORS, OTHERS), at(work, VECTORS, OTHERS + 1)
    room, table, no_norms = address(work.room), plan.table, work.terms[:0]
    matrices, batch = table.shape[0], turn.labels.size
    steps = len(labels) // batch
    first_power, second_power = 1.0, 1.0
    for epoch in range(epochs + 1):
        by_batch = plan.normalisation == BATCH and epoch == 0
        scores[TRAIN_LOSS, epoch], scores[TRAIN_ACCURACY, epoch] = evaluate(
            activate, forward, plan, inputs, labels, work, turn, by_batch, watch
        )
        if len(test_labels) > 0:
            scores[TEST_LOSS, epoch], scores[TEST_ACCURACY, epoch] = evaluate(
                activate, forward, plan, test_inputs, test_labels, work, turn, by_batch, watch
            )
        if by_batch:
            forget_statistics(plan, work)
        for index in mine(matrices):
            movement[epoch, index] = relative_movement(
                room,
                parameters + table[index, OFFSET],
                initial + table[index, OFFSET],
                table[index, FAN_OUT] * table[index, FAN_IN],
            )
        if epoch == epochs:
            break
        shuffle(turn.order, epoch, trial, seed_low, seed_high)
        for step in range(steps):
            if halted(watch):
                return
            take_batch(work, turn, step * batch, batch, True, inputs, labels)
            forward(activate, plan, work, batch, True)
            loss, _ = loss_of(plan, work, turn.labels, batch)
            batch_loss[epoch * steps + step] = loss / batch
            if math.isnan(loss):
                return
            backward(plan, work, batch, no_norms)
            if step == 0:
                for index in mine(matrices):
                    weight_gradient[epoch, index] = norm(
                        float_matrix(room, gradient + table[index, OFFSET], table[index, FAN_OUT], table[index, FAN_IN])
                    )
            if optimiser == SGD:
                sgd(room, parameters, gradient, size, rate)
            elif optimiser == MOMENTUM:
                heavy_ball(room, parameters, gradient, first, size, rate)
            else:
                first_power *= f64(ADAM_FIRST)
                second_power *= f64(ADAM_SECOND)
                shares = f32(1.0 - first_power), f32(1.0 - second_power)
                adam(room, parameters, gradient, first, second, size, rate, shares[0], shares[1])


@functools.cache
def train_function():
    """The kernel that trains one network."""

    @cached(TRAIN, nogil=True, **STRICT)
    def train_one(
        activate, forward, backward, plan, work, turn, size, optimiser, rate, epochs, inputs, labels, test_inputs, test_labels,
        trial, seed_low, seed_high, batch_loss, scores, weight_gradient, movement, watch,
    ):  # fmt: skip
        learn(
            activate, forward, backward, plan, work, turn, size, optimiser, rate, epochs, inputs, labels, test_inputs,
            test_labels, trial, seed_low, seed_high, batch_loss, scores, weight_gradient, movement, watch,
        )  # fmt: skip

    return train_one


@njit(nogil=True, **STRICT)
def relative_movement(room, weights, initial, n):
    """|W - W_0|/|W_0|."""
    compile_once()
    now, before = floats(room, weights, n), floats(room, initial, n)
    moved, size = 0.0, 0.0
    for i in range(n):
        step = f64(now[i]) - f64(before[i])
        moved += step * step
        size += f64(before[i]) * f64(before[i])
    return math.sqrt(moved / size)


class Task(NamedTuple):
    """What `train` was asked for, checked."""

    network: Network
    plan: Plan
    size: int  # of all parameters
    law: int
    optimiser: int
    rate: float
    epochs: int
    batch: int
    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    seed: int

    @property
    def family(self) -> str:
        return "classifier"

    @property
    def results(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of what is recorded of a network, and of its parameters."""
        epochs, matrices = self.epochs, len(self.plan.table)
        steps = epochs * (len(self.labels) // self.batch)
        return (steps,), (4, epochs + 1), (epochs, matrices), (epochs + 1, matrices), (self.size,)

    @property
    def vectors(self) -> int:
        """How many vectors as long as the parameters: these, the gradient, what the optimiser keeps, the initial ones."""
        return OTHERS + self.optimiser + 1


def run(task: Task, trials: int, threads: int, progress: bool) -> list[np.ndarray]:
    """The results of all trials, a network on each core."""
    with announced(progress):
        kernels = activate_function(task.network.activation), forward_function(), backward_function()
        train_one, _ = train_function(), draw_function()
    seeds = u32(task.seed & 0xFFFFFFFF), u32(task.seed >> 32)
    recorded = [np.empty((trials, *shape)) for shape in task.results[:-1]]
    parameters = np.empty((trials, task.size), np.float32)

    def run_trial(trial: int, watch: np.ndarray) -> None:
        work = make_workspace(task.plan, task.batch, task.vectors)
        turn = Turn(np.empty(len(task.labels), np.int64), np.empty(task.batch, np.int64))
        own = array_of(work, VECTORS, PARAMETERS, task.size)
        draw_parameters(task.network, task.plan, own, trial, task.seed, task.law, watch)
        if watch[STOP]:
            return
        train_one(
            *kernels, task.plan, work, turn, task.size, task.optimiser, f32(task.rate), task.epochs, task.inputs, task.labels,
            task.test_inputs, task.test_labels, u32(trial), *seeds, *[array[trial] for array in recorded],
            watch,
        )  # fmt: skip
        parameters[trial] = own

    def run_trials(waiting: Iterator[int], watch: np.ndarray) -> None:
        for trial in waiting:
            run_trial(trial, watch)

    share(range(trials), threads, run_trials, progress, task.epochs * (len(task.labels) // task.batch))
    return [*recorded, parameters]


def example_order(examples: int, epoch: int, trial: int = 0, seed: int = 0) -> np.ndarray:
    """The order in which `train` takes the examples in this epoch, counted from 0."""
    order = np.empty(examples, np.int64)
    shuffle(order, epoch, u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32))
    return order
