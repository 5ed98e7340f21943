"""Train deep classifiers, and see how each of their layers learns."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from vgp_kernels.classifier.learning import OPTIMISERS, TRAIN_LOSS, Task, run
from vgp_kernels.classifier.weights import (
    Weights,
    check_batch,
    check_labels,
    checked_examples,
    checked_law,
    make_plan,
    unpacked,
)
from vgp_kernels.network import Network, checked_integer
from vgp_kernels.targets.families import family_of, takes_gpu
from vgp_kernels.targets.pool import all_threads


@dataclass(frozen=True, eq=False)
class Training:
    """What `train` recorded. Where a network has diverged, the numbers from there on are NaN.

    It has where its loss is no longer finite, or a gradient or weight: of these, from the epoch on in which that shows.
    """

    network: Network
    seed: int
    batch_loss: np.ndarray
    """(trials, steps): the loss of each batch, before its step."""
    train_loss: np.ndarray
    """(trials, epochs + 1): over all training examples, after 0, 1, … epochs. Batch normalisation has no running statistics before
    the first step: after 0 epochs, this and the next three take those of each batch of examples."""
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
        """(trials): whether the loss, a gradient or a weight became infinite or NaN."""
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
    target: str | None = None,
    progress: bool = False,
) -> Training:
    """Train `trials` networks to classify the examples, and record how each of their layers learns.

    `network` gives the hidden layers; its input_width, input_rms, batch_size and input_correlation do not matter here.
    `inputs` is (examples, features), `labels` are whole numbers from 0 on. A linear output layer with softmax and
    cross-entropy stands on top, a residual network has a linear layer from the features to its width at the bottom. Norms
    have no trainable gain and shift, as in `Network`; batch normalisation uses the batch in training and running
    statistics (an exponential average) in evaluation.

    `optimiser` is "sgd", "momentum" (heavy ball, 0.9) or "adam" (0.9, 0.999, 1e-8). Each epoch takes the examples in a
    new random order and leaves out those that fill no whole batch. `law`: see `initial_weights`.

    The bits depend on the arguments only, not on `threads` (all cores unless given) nor on the processor or the target. A
    network whose loss becomes infinite or NaN stops there: see `Training.diverged`.

    `target` "cuda" takes all NVIDIA GPUs, "auto" takes them where there are any and the job is large enough to gain. The
    default is "cpu", or what the environment variable VGP_TARGET says.

    With `progress=True` a bar on stderr shows which part is done, by tqdm where that is installed. Ctrl-C stops all threads
    at their next step.

    Raises TypeError for a value of the wrong type, ValueError for one that is out of range or unknown, and RuntimeError,
    which says what is missing, if "cuda" cannot run here.
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
    threads = checked_integer("threads", all_threads() if threads is None else threads, 1, 1024)
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, not {progress!r}")

    task = Task(
        network, plan, size, law_number, OPTIMISERS.index(optimiser), float(learning_rate), epochs, batch_size,
        inputs, labels, test_inputs, test_labels, seed,
    )  # fmt: skip
    if takes_gpu(task, trials, target):
        results = family_of(task).cuda.run(task, trials, progress)
    else:
        results = run(task, trials, threads, progress)
    for array in results:  # the sign of a NaN is not the same on all processors
        array[np.isnan(array)] = math.nan
    forget_hidden_divergence(*results[:4])
    batch_loss, scores, weight_gradient, movement, parameters = results
    return Training(network, seed, batch_loss, *scores.swapaxes(0, 1), weight_gradient, movement, parameters, plan)


def forget_hidden_divergence(
    batch_loss: np.ndarray, scores: np.ndarray, weight_gradient: np.ndarray, movement: np.ndarray
) -> None:
    """Put NaN from where weights or a loss were lost, though the loss is a number again.

    φ(NaN) = 0 makes it one for ReLU and its like, and so do running statistics that catch up with the weights.
    """
    epochs = weight_gradient.shape[1]
    steps = batch_loss.shape[1] // epochs
    in_training = ~np.isfinite(weight_gradient).all(axis=2) | ~np.isfinite(movement[:, 1:]).all(axis=2)
    lost = in_training | ~np.isfinite(scores[:, TRAIN_LOSS, 1:])
    for trial in np.flatnonzero(lost.any(axis=1) & ~np.isnan(batch_loss[:, -1])):
        epoch = int(lost[trial].argmax())
        batch_loss[trial, (epoch if in_training[trial, epoch] else epoch + 1) * steps :] = math.nan
        for after in (scores[trial, :, epoch + 1 :], weight_gradient[trial, epoch + 1 :], movement[trial, epoch + 1 :]):
            after[:] = math.nan
