"""Classifiers with given weights: their layout, their first weights, and the gradients of one batch."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgp_kernels.classifier.kernels import (
    ALIGNED,
    BIAS_OFFSET,
    FAN_IN,
    FAN_OUT,
    GRADIENT,
    INPUTS,
    LAWS,
    NONE,
    ORTHOGONAL,
    OTHERS,
    PARAMETERS,
    PREACTIVATION,
    SIGNAL,
    TWO_WEIGHTS,
    VECTORS,
    Haar,
    Plan,
    Workspace,
    activate_function,
    backward_function,
    draw_function,
    forward_function,
    loss_of,
    norm,
)
from vgp_kernels.initialisers import INITIALISERS
from vgp_kernels.network import NORMALISATIONS, RESIDUALS, Network, checked_integer
from vgp_kernels.numerics.randomness import u32
from vgp_kernels.numerics.watch import NEVER


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters of a classifier, each matrix of shape (fan_out, fan_in), from the features to the classes.

    A residual network begins with the matrix from the features to its width. A bias is None where the block has none.
    """

    matrices: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray | None, ...]


@dataclass(frozen=True, eq=False)
class WeightGradients:
    """What `weight_gradients` found for one batch."""

    loss: float
    accuracy: float
    signal: np.ndarray
    """(depth + 1): root mean square of h_l over units and batch, l = 0 … depth; h_0 is what enters the first block."""
    gradient: np.ndarray
    """(depth + 1): |∂E/∂h_l|, the Frobenius norm over units and batch, of the batch's mean loss E."""
    weight_gradient: np.ndarray
    """(matrices): |∂E/∂W|, the Frobenius norms, from the features to the classes."""
    gradients: Weights
    """∂E/∂W and ∂E/∂b themselves."""


def initial_weights(
    network: Network, features: int, classes: int, trial: int = 0, seed: int = 0, law: str | None = None
) -> Weights:
    """The weights with which `train` starts network number `trial`, as float32 arrays.

    `law` is "gaussian", "uniform" (entries between ±√(3σ_w²/fan_in)) or "orthogonal"; unless given, that of the
    network's initialiser. Biases follow the same law with variance σ_b². In an orthogonal network the biases, the output
    layer and the bottom layer of a residual network are Gaussian, of the same variances.

    Raises TypeError or ValueError for bad input.
    """
    plan, size = make_plan(network, features, classes)
    trial, seed = checked_integer("trial", trial, 0, 2**31 - 1), checked_integer("seed", seed, 0, 2**64 - 1)
    parameters = np.empty(size, np.float32)
    draw_parameters(network, plan, parameters, trial, seed, checked_law(network, plan, law))
    return unpacked(plan, parameters)


def weight_gradients(network: Network, weights: Weights, inputs: Any, labels: Any) -> WeightGradients:
    """Send one batch forward and back through given weights.

    `inputs` is (batch, features), `labels` are whole numbers from 0 to classes - 1. Batch normalisation takes the
    statistics of this batch.

    Raises TypeError or ValueError for bad input.
    """
    inputs, labels = checked_examples("inputs", inputs, labels)
    if not isinstance(weights, Weights) or not weights.matrices:
        raise TypeError(f"weights must be Weights, as initial_weights returns them, not {type(weights).__name__}")
    plan, size = make_plan(network, inputs.shape[1], np.shape(weights.matrices[-1])[0])
    classes = int(plan.table[-1, FAN_OUT])
    check_labels("labels", labels, classes)
    check_batch(network, len(inputs))
    batch = len(inputs)
    work = make_workspace(plan, batch, OTHERS)
    array_of(work, VECTORS, PARAMETERS, size)[:] = packed(plan, size, weights)
    array_of(work, INPUTS, 0, inputs.size)[:] = inputs.ravel()
    norms = np.empty(plan.depth + 1)
    forward_function()(activate_function(network.activation), plan, work, batch, True)
    loss, right = loss_of(plan, work, labels, batch)
    backward_function()(plan, work, batch, norms)
    signals = [array_of(work, SIGNAL, block, batch * network.width) for block in range(plan.depth + 1)]
    if plan.residual == NONE:
        signals[0] = inputs.ravel()
    gradients = unpacked(plan, array_of(work, VECTORS, GRADIENT, size).copy())
    return WeightGradients(
        loss / batch,
        right / batch,
        np.array([norm(x.reshape(1, -1)) / math.sqrt(x.size) for x in signals]),
        norms,
        np.array([norm(matrix) for matrix in gradients.matrices]),
        gradients,
    )


def make_plan(network: Network, features: int, classes: int) -> tuple[Plan, int]:
    """Where the parameters of a classifier lie, and how many there are."""
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {network!r}; for example Network(5, 64, 'relu', 'he')")
    features = checked_integer("features", features, 1, 10_000_000)
    classes = checked_integer("classes", classes, 2, 1_000_000)
    if network.residual is None and network.input_width not in (None, features, network.width):
        raise ValueError(
            f"the inputs have {features} features, but the network's input_width is {network.input_width}; leave it out"
        )
    residual = 0 if network.residual is None else 1 + list(RESIDUALS).index(network.residual)
    normalisation = 0 if network.normalisation is None else 1 + NORMALISATIONS.index(network.normalisation)
    shapes = []  # (fan_out, fan_in, has a bias)
    if residual:
        shapes.append((network.width, features, True))
    for block in range(network.depth):
        fan_in = features if block == 0 and not residual else network.width
        shapes.append((network.width, fan_in, residual != PREACTIVATION))
        if residual == TWO_WEIGHTS:
            shapes.append((network.width, network.width, False))
    shapes.append((classes, network.width, True))
    table, size = np.empty((len(shapes), 4), np.int64), 0
    for index, (fan_out, fan_in, biased) in enumerate(shapes):
        after = size + fan_out * fan_in
        table[index] = size, fan_out, fan_in, after if biased else -1
        size = after + fan_out * biased
    norm_after = network.normalisation is not None and network.norm_position == "post"
    return Plan(network.depth, network.width, residual, normalisation, norm_after, network.residual_scale, table), size


def layout_of(plan: Plan, batch: int, vectors: int) -> tuple[np.ndarray, int]:
    """The layout of a workspace, and the size of its room."""
    depth, width, classes = plan.depth, plan.width, int(plan.table[-1, FAN_OUT])
    sizes, features = plan.table[:, FAN_OUT] * plan.table[:, FAN_IN], int(plan.table[0, FAN_IN])
    size = int((sizes + plan.table[:, FAN_OUT] * (plan.table[:, BIAS_OFFSET] >= 0)).sum())
    shapes = (
        (vectors, 1, size), (1, batch, features), (depth + 1, batch, width), (depth, batch, width),
        (depth * (plan.residual != NONE), batch, width), (depth * (plan.normalisation != NONE), batch, width),
        (depth, 1, max(batch, width)), (depth, 2, width), (1, 2, width), (1, 1, max(int(sizes.max()), batch * features)),
        (3, batch, width), (1, batch, classes), (1, batch, classes),
    )  # fmt: skip
    layout, size = np.empty((len(shapes), 2), np.int64), 0
    for kind, (count, rows, columns) in enumerate(shapes):
        step = -(-rows * columns // ALIGNED) * ALIGNED if count else 0
        layout[kind] = size, step
        size += count * step
    return layout, size


def make_workspace(plan: Plan, batch: int, vectors: int) -> Workspace:
    layout, size = layout_of(plan, batch, vectors)
    return Workspace(np.zeros(size, np.float32), layout, np.empty(2 * batch))


def array_of(work: Workspace, kind: int, index: int, size: int) -> np.ndarray:
    """The first entries of the matrix of this kind and number."""
    start, step = work.layout[kind].tolist()
    return work.room[start + index * step :][:size]


def room_for_haar(plan: Plan, law: int) -> tuple[int, int, int]:
    """The sizes of what a matrix of this law is drawn in: see Haar."""
    n = plan.width if law == ORTHOGONAL else 0
    return n * n, n, n * (n + 1) // 2


def variances_of(network: Network, plan: Plan) -> np.ndarray:
    """Of each matrix's weights, times its fan-in."""
    variances = np.full(len(plan.table), network.weight_variance)
    if network.initialiser is not None and network.law != "orthogonal":
        rule = INITIALISERS[network.initialiser]
        variances[:] = [rule.variance(fan_in, fan_out) for _, fan_out, fan_in, _ in plan.table.tolist()]
    return variances


def draw_parameters(
    network: Network,
    plan: Plan,
    parameters: np.ndarray,
    trial: int,
    seed: int,
    law: int,
    watch: np.ndarray = NEVER,
) -> None:
    q, v, normals = room_for_haar(plan, law)
    draw_function()(
        plan, parameters, variances_of(network, plan), network.bias_variance, law, u32(trial),
        u32(seed & 0xFFFFFFFF), u32(seed >> 32), Haar(np.empty(q), np.empty(v), np.empty(normals, np.float32)),
        watch,
    )  # fmt: skip


def unpacked(plan: Plan, parameters: np.ndarray) -> Weights:
    """Views of the matrices and biases in the vector of all parameters."""
    matrices, biases = [], []
    for offset, fan_out, fan_in, bias in plan.table.tolist():
        matrices.append(parameters[offset : offset + fan_out * fan_in].reshape(fan_out, fan_in))
        biases.append(parameters[bias : bias + fan_out] if bias >= 0 else None)
    return Weights(tuple(matrices), tuple(biases))


def packed(plan: Plan, size: int, weights: Weights) -> np.ndarray:
    """The vector of all parameters; ValueError where a shape is not the network's."""
    parameters = np.empty(size, np.float32)
    views = unpacked(plan, parameters)
    if not len(weights.matrices) == len(weights.biases) == len(views.matrices):
        raise ValueError(
            f"this network has {len(views.matrices)} weight matrices and as many biases (None where a block has none), "
            f"not {len(weights.matrices)} and {len(weights.biases)}"
        )
    for kind in ("matrices", "biases"):
        pairs = zip(getattr(views, kind), getattr(weights, kind), strict=True)
        for index, (view, given) in enumerate(pairs):
            values = None if given is None else in_memory(given)
            wanted, found = None if view is None else view.shape, None if values is None else values.shape
            if wanted != found:
                raise ValueError(f"{kind}[{index}] must have the shape {wanted} (fan_out, fan_in), not {found}")
            if view is not None:
                view[:] = values
    return parameters


def in_memory(array: Any) -> np.ndarray:
    """The array as NumPy's; what lies on a GPU (an array of CuPy, PyTorch, Numba, ...) is copied."""
    if not hasattr(array, "__cuda_array_interface__"):
        return np.asarray(array)
    from numba import cuda

    return cuda.as_cuda_array(array).copy_to_host()


def checked_law(network: Network, plan: Plan, law: str | None) -> int:
    """The law's number in LAWS."""
    law = network.law if law is None else law
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    if network.law == "orthogonal" and law != "orthogonal":
        raise ValueError(
            f"initialiser 'orthogonal' and law {law!r} contradict each other; give weight_variance instead"
        )
    if law == "orthogonal" and not plan.residual and plan.table[0, FAN_IN] != network.width:
        raise ValueError(
            f"orthogonal weights are square: {plan.table[0, FAN_IN]} features do not fit width {network.width}; "
            "take that width, a residual network, or another law"
        )
    return LAWS.index(law)


def checked_examples(name: str, inputs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as (examples, features) float32, labels as int64."""
    inputs, labels = in_memory(inputs), in_memory(labels)
    if inputs.ndim != 2 or 0 in inputs.shape or inputs.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers of shape (examples, features), not {inputs.dtype} {inputs.shape}")
    if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {len(inputs)} whole numbers, one for each of the {name}, not {labels.dtype} {labels.shape}"
        )
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(inputs, np.float32)
    if not np.isfinite(inputs).all():
        raise ValueError(f"{name} must be finite in float32; they hold NaN or infinity")
    return inputs, np.ascontiguousarray(labels, np.int64)


def check_labels(name: str, labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name} must be from 0 to {classes - 1}, not {labels.min()} to {labels.max()}")


def check_batch(network: Network, batch: int) -> None:
    if network.normalisation == "batch" and batch < 2:
        raise ValueError("batch normalisation needs a batch of at least 2 examples")
