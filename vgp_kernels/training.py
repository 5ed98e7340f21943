"""Train deep classifiers: many networks side by side, one per core, the same bits for any number of threads.

Each network has its own initial weights and its own order of the examples, both keyed by (seed, trial).
"""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numba import njit, types

from vgp_kernels.arithmetic import ONE, STRICT, f32, f64, fma
from vgp_kernels.cpu import SOURCES
from vgp_kernels.explicit import (
    ACTIVATE,
    BACKWARD,
    FORWARD,
    PLAN,
    WORKSPACE,
    Weights,
    activate_function,
    backward_function,
    check_batch,
    check_labels,
    checked_examples,
    checked_law,
    cross_entropy,
    draw_parameters,
    forward_function,
    make_plan,
    make_workspace,
    norm,
    unpacked,
    weights_of,
)
from vgp_kernels.lanes import compile_once, prefer_wide_vectors
from vgp_kernels.network import Network
from vgp_kernels.propagate import checked_integer
from vgp_kernels.randomness import u32, words

OPTIMISERS = ("sgd", "momentum", "adam")
SGD, MOMENTUM, ADAM = range(3)
MOMENTUM_FACTOR = f32(0.9)
ADAM_FIRST, ADAM_SECOND, ADAM_EPSILON = f32(0.9), f32(0.999), f32(1e-8)  # the paper's values
ORDER = u32(18)  # purpose of random words

i8_1, f4_1, f8_1 = types.int64[::1], types.float32[::1], types.float64[::1]
f4_2, f8_2 = types.float32[:, ::1], types.float64[:, ::1]
TRAIN = types.void(
    types.FunctionType(ACTIVATE), types.FunctionType(FORWARD), types.FunctionType(BACKWARD), PLAN, WORKSPACE,
    f4_2, f4_1, types.int64, types.float32, types.int64, f4_2, i8_1, f4_2, i8_1,
    types.uint32, types.uint32, types.uint32, f8_1, f8_2, f8_2, f8_2,
)  # fmt: skip
TRAIN_LOSS, TRAIN_ACCURACY, TEST_LOSS, TEST_ACCURACY = range(4)  # rows of the scores


@njit(nogil=True, **STRICT)
def sgd(parameters, gradient, rate):
    """p ← p - ηg."""
    compile_once()
    prefer_wide_vectors()
    for i in range(parameters.size):
        parameters[i] = fma(-rate, gradient[i], parameters[i])


@njit(nogil=True, **STRICT)
def heavy_ball(parameters, gradient, velocity, rate):
    """v ← μv + g, p ← p - ηv."""
    compile_once()
    prefer_wide_vectors()
    for i in range(parameters.size):
        velocity[i] = fma(MOMENTUM_FACTOR, velocity[i], gradient[i])
        parameters[i] = fma(-rate, velocity[i], parameters[i])


@njit(nogil=True, **STRICT)
def adam(parameters, gradient, first, second, rate, first_share, second_share):
    """m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², p ← p - η m̂/(√v̂ + ε), m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ)."""
    compile_once()
    prefer_wide_vectors()
    for i in range(parameters.size):
        first[i] = fma(ONE - ADAM_FIRST, gradient[i] - first[i], first[i])
        second[i] = fma(ONE - ADAM_SECOND, gradient[i] * gradient[i] - second[i], second[i])
        parameters[i] -= rate * (first[i] / first_share) / (f32(math.sqrt(second[i] / second_share)) + ADAM_EPSILON)


@njit(nogil=True, **STRICT)
def shuffle(order, epoch, trial, seed_low, seed_high):
    """A random order of 0 … n-1 (Fisher & Yates), the same for the same epoch, trial and seed."""
    for i in range(order.size):
        order[i] = i
    for i in range(order.size - 1, 0, -1):
        word, _, _, _ = words(u32(i), trial, u32(epoch), ORDER, seed_low, seed_high)
        j = (np.int64(word) * np.int64(i + 1)) >> np.int64(32)
        order[i], order[j] = order[j], order[i]


@njit(nogil=True, **STRICT)
def evaluate(activate, forward, plan, parameters, inputs, labels, work):
    """(mean loss, accuracy) over all examples, with the running statistics of batch normalisation."""
    compile_once()
    batch = work.logits.shape[0]
    loss, right = 0.0, 0
    for start in range(0, len(labels), batch):
        end = min(start + batch, len(labels))
        forward(activate, plan, parameters, inputs[start:end], work, False)
        part, part_right = cross_entropy(work.logits[: end - start], labels[start:end], work.delta[: end - start])
        loss += part
        right += part_right
    return loss / len(labels), right / len(labels)


@functools.cache
def train_function(sources: str = SOURCES):
    """The kernel that trains one network."""

    @njit(TRAIN, cache=True, nogil=True, **STRICT)
    def train_one(
        activate, forward, backward, plan, work, vectors, initial, optimiser, rate, epochs, inputs, labels, test_inputs, test_labels,
        trial, seed_low, seed_high, batch_loss, scores, weight_gradient, movement,
    ):  # fmt: skip
        sources  # noqa: B018  # in the cache's key
        parameters, gradient = vectors[0], vectors[1]
        batch, matrices = work.logits.shape[0], plan.table.shape[0]
        steps = len(labels) // batch
        chosen, chosen_labels = np.empty((batch, inputs.shape[1]), np.float32), np.empty(batch, np.int64)
        order, no_norms = np.empty(len(labels), np.int64), np.empty(0)
        first_power, second_power = 1.0, 1.0
        for epoch in range(epochs + 1):
            if plan.normalisation == 0 or epoch > 0:
                scores[TRAIN_LOSS, epoch], scores[TRAIN_ACCURACY, epoch] = evaluate(
                    activate, forward, plan, parameters, inputs, labels, work
                )
                if len(test_labels) > 0:
                    scores[TEST_LOSS, epoch], scores[TEST_ACCURACY, epoch] = evaluate(
                        activate, forward, plan, parameters, test_inputs, test_labels, work
                    )
            for matrix in range(matrices):
                movement[epoch, matrix] = relative_movement(plan.table, matrix, parameters, initial)
            if epoch == epochs:
                break
            shuffle(order, epoch, trial, seed_low, seed_high)
            for step in range(steps):
                for i in range(batch):
                    example = order[step * batch + i]
                    chosen_labels[i] = labels[example]
                    for j in range(inputs.shape[1]):
                        chosen[i, j] = inputs[example, j]
                forward(activate, plan, parameters, chosen, work, True)
                loss, _ = cross_entropy(work.logits, chosen_labels, work.delta)
                batch_loss[epoch * steps + step] = loss / batch
                if math.isnan(loss):
                    return
                backward(plan, parameters, gradient, chosen, work, no_norms)
                if step == 0:
                    for matrix in range(matrices):
                        weight_gradient[epoch, matrix] = norm(weights_of(plan.table, matrix, gradient))
                if optimiser == SGD:
                    sgd(parameters, gradient, rate)
                elif optimiser == MOMENTUM:
                    heavy_ball(parameters, gradient, vectors[2], rate)
                else:
                    first_power *= f64(ADAM_FIRST)
                    second_power *= f64(ADAM_SECOND)
                    shares = f32(1.0 - first_power), f32(1.0 - second_power)
                    adam(parameters, gradient, vectors[2], vectors[3], rate, shares[0], shares[1])

    return train_one


@njit(nogil=True, **STRICT)
def relative_movement(table, matrix, parameters, initial):
    """|W - W_0|/|W_0|."""
    now, before = weights_of(table, matrix, parameters), weights_of(table, matrix, initial)
    moved, size = 0.0, 0.0
    for i in range(now.shape[0]):
        for j in range(now.shape[1]):
            moved += (f64(now[i, j]) - f64(before[i, j])) ** 2
            size += f64(before[i, j]) ** 2
    return math.sqrt(moved / size)


@dataclass(frozen=True, eq=False)
class Training:
    """What `train` recorded. Where a network has diverged, the numbers from there on are NaN."""

    network: Network
    seed: int
    batch_loss: np.ndarray
    """(trials, steps): the loss of each batch, before its step."""
    train_loss: np.ndarray
    """(trials, epochs + 1): over all training examples, after 0, 1, … epochs."""
    train_accuracy: np.ndarray
    """(trials, epochs + 1)."""
    test_loss: np.ndarray
    """(trials, epochs + 1); NaN without test examples."""
    test_accuracy: np.ndarray
    """(trials, epochs + 1); NaN without test examples."""
    weight_gradient: np.ndarray
    """(trials, epochs, matrices): |∂E/∂W| (Frobenius norm) of the first batch of each epoch, from the features to the
    classes; index 0 is at initialisation."""
    movement: np.ndarray
    """(trials, epochs + 1, matrices): |W - W_0|/|W_0| after 0, 1, … epochs."""
    parameters: np.ndarray
    """(trials, parameters): the weights and biases at the end, see `weights`."""
    plan: Any

    @property
    def trials(self) -> int:
        """The number of networks."""
        return len(self.batch_loss)

    @property
    def diverged(self) -> np.ndarray:
        """(trials): whether the loss became infinite or NaN."""
        return np.isnan(self.batch_loss[:, -1]) | np.isnan(self.train_loss[:, -1])

    def weights(self, trial: int) -> Weights:
        """The weights of this network at the end."""
        return unpacked(self.plan, self.parameters[trial])

    def epochs_to(self, accuracy: float) -> np.ndarray:
        """(trials): after how many epochs the training accuracy reached this value first; infinity if it never did."""
        reached = self.train_accuracy >= accuracy
        return np.where(reached.any(axis=1), reached.argmax(axis=1), np.inf)


def train(
    network: Network,
    inputs: Any,
    labels: Any,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int = 64,
    optimiser: str = "sgd",
    test_inputs: Any = None,
    test_labels: Any = None,
    trials: int = 1,
    seed: int = 0,
    law: str | None = None,
    threads: int | None = None,
) -> Training:
    """Train `trials` networks to classify the examples, and record how each of their layers learns.

    `network` gives the hidden layers; its input_width, input_rms, batch_size and input_correlation do not matter here.
    `inputs` is (examples, features), `labels` are whole numbers from 0 on. A linear output layer with softmax and
    cross-entropy stands on top, a residual network has a linear layer from the features to its width at the bottom. Norms
    have no trainable gain and shift, as in `Network`; batch normalisation uses the batch in training and running
    statistics (an exponential average) in evaluation.

    `optimiser` is "sgd", "momentum" (heavy ball, 0.9) or "adam" (0.9, 0.999, 1e-8). Each epoch takes the examples in a
    new random order and leaves out those that fill no whole batch. `law`: see `initial_weights`.

    The bits depend on the arguments only, not on `threads` (all cores unless given) nor on the processor. A network whose
    loss becomes infinite or NaN stops there: see `Training.diverged`.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range or unknown.
    """
    inputs, labels = checked_examples("inputs", inputs, labels)
    classes = max(int(labels.max()) + 1, 2)
    check_labels("labels", labels, classes)
    if test_inputs is None:
        test_inputs, test_labels = np.empty((0, inputs.shape[1]), np.float32), np.empty(0, np.int64)
    else:
        test_inputs, test_labels = checked_examples("test_inputs", test_inputs, test_labels)
        check_labels("test_labels", test_labels, classes)
        if test_inputs.shape[1] != inputs.shape[1]:
            raise ValueError(f"test_inputs must have {inputs.shape[1]} features, not {test_inputs.shape[1]}")
    plan, size = make_plan(network, inputs.shape[1], classes)
    law_number = checked_law(network, plan, law)
    if optimiser not in OPTIMISERS:
        raise ValueError(f"unknown optimiser {optimiser!r}; known: {', '.join(OPTIMISERS)}")
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, Real):
        raise TypeError(f"learning_rate must be a number, not {learning_rate!r}")
    if not 0 < learning_rate < 1e30:
        raise ValueError(f"learning_rate must be above 0 and finite, not {learning_rate!r}")
    epochs = checked_integer("epochs", epochs, 1, 1_000_000)
    batch_size = checked_integer("batch_size", batch_size, 1, len(inputs))
    check_batch(network, batch_size)
    trials, seed = checked_integer("trials", trials, 1, 2**31 - 1), checked_integer("seed", seed, 0, 2**64 - 1)
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = checked_integer("threads", threads, 1, 1024)

    kernels = activate_function(network.activation), forward_function(), backward_function()
    train_one = train_function()
    batch_loss = np.full((trials, epochs * (len(inputs) // batch_size)), np.nan)
    scores = np.full((trials, 4, epochs + 1), np.nan)
    matrices = len(plan.table)
    weight_gradient = np.full((trials, epochs, matrices), np.nan)
    movement = np.full((trials, epochs + 1, matrices), np.nan)
    parameters = np.empty((trials, size), np.float32)

    def run(trial: int) -> None:
        vectors = np.zeros((2 + OPTIMISERS.index(optimiser), size), np.float32)
        draw_parameters(network, plan, vectors[0], trial, seed, law_number)
        train_one(
            *kernels, plan, make_workspace(network, plan, batch_size), vectors, vectors[0].copy(),
            OPTIMISERS.index(optimiser), f32(learning_rate), epochs, inputs, labels, test_inputs, test_labels,
            u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32),
            batch_loss[trial], scores[trial], weight_gradient[trial], movement[trial],
        )  # fmt: skip
        parameters[trial] = vectors[0]

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run, range(trials)):
            pass
    return Training(network, seed, batch_loss, *scores.swapaxes(0, 1), weight_gradient, movement, parameters, plan)


def example_order(examples: int, epoch: int, trial: int = 0, seed: int = 0) -> np.ndarray:
    """The order in which `train` takes the examples in this epoch, counted from 0."""
    order = np.empty(examples, np.int64)
    shuffle(order, epoch, u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32))
    return order
