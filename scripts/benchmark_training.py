"""Steps per second of training: this package against PyTorch, JAX and NumPy on the same network.

    python scripts/benchmark_training.py

30 tanh layers of width 64, batches of 64 digits, plain SGD. PyTorch and JAX are no requirements of the project; those that
are missing are named and left out: pip install torch==2.13.0 jax==0.10.2
"""

import functools
import importlib.util
import math
import platform
import statistics
import time

import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, initial_weights, train

DEPTH, WIDTH, BATCH, CLASSES, RATE, EPOCHS, REPEATS = 30, 64, 64, 10, 0.02, 8, 7
NETWORK = Network(DEPTH, WIDTH, "tanh", "xavier")


def digits():
    inputs, labels = load_digits(return_X_y=True)
    return ((inputs - inputs.mean()) / inputs.std()).astype(np.float32), labels


INPUTS, LABELS = digits()
STEPS = EPOCHS * (len(LABELS) // BATCH)
BATCHES = np.stack([np.random.default_rng(step).integers(0, len(LABELS), BATCH) for step in range(STEPS)])
WEIGHTS = initial_weights(NETWORK, WIDTH, CLASSES)


def kernels(trials):
    """This package; `train` also measures loss and accuracy of all examples after each epoch, which counts here."""
    train(NETWORK, INPUTS, LABELS, learning_rate=RATE, epochs=EPOCHS, batch_size=BATCH, trials=trials, threads=trials)


def numpy_steps():
    weights = [matrix.T.copy() for matrix in WEIGHTS.matrices]
    biases = [bias.copy() for bias in WEIGHTS.biases]
    for batch in BATCHES:
        h = [INPUTS[batch]]
        for matrix, bias in zip(weights[:-1], biases[:-1], strict=True):
            h.append(np.tanh(h[-1] @ matrix + bias))
        logits = h[-1] @ weights[-1] + biases[-1]
        delta = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(BATCH), LABELS[batch]] -= 1
        delta /= BATCH
        for layer in range(DEPTH, -1, -1):
            below = delta @ weights[layer].T
            weights[layer] -= RATE * (h[layer].T @ delta)
            biases[layer] -= RATE * delta.sum(axis=0)
            delta = below * (1 - h[layer] ** 2)


def torch_steps():
    import torch
    from torch import nn

    layers = []
    for matrix, bias in zip(WEIGHTS.matrices, WEIGHTS.biases, strict=True):
        linear = nn.Linear(matrix.shape[1], matrix.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(matrix), torch.tensor(bias)
        layers += [linear, nn.Tanh()]
    module = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.SGD(module.parameters(), lr=RATE)
    inputs, labels, batches = torch.tensor(INPUTS), torch.tensor(LABELS), torch.tensor(BATCHES)
    for batch in batches:
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()
        optimiser.step()


@functools.cache
def jax_function():
    import jax
    import jax.numpy as jnp

    inputs, labels = jnp.array(INPUTS), jnp.array(LABELS)

    def loss(parameters, batch):
        hidden, (matrix, bias) = parameters
        h, _ = jax.lax.scan(lambda h, layer: (jnp.tanh(h @ layer[0] + layer[1]), None), inputs[batch], hidden)
        scores = jax.nn.log_softmax(h @ matrix + bias)
        return -jnp.take_along_axis(scores, labels[batch][:, None], 1).mean()

    def step(parameters, batch):
        gradient = jax.grad(loss)(parameters, batch)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), None

    return jax.jit(lambda parameters, batches: jax.lax.scan(step, parameters, batches)[0])


def jax_steps():
    import jax
    import jax.numpy as jnp

    hidden = jnp.stack([m.T for m in WEIGHTS.matrices[:-1]]), jnp.stack(WEIGHTS.biases[:-1])
    top = jnp.array(WEIGHTS.matrices[-1].T), jnp.array(WEIGHTS.biases[-1])
    jax.block_until_ready(jax_function()((hidden, top), jnp.array(BATCHES)))


def limited(run, threads):
    def limited_run():
        with threadpool_limits(threads):
            run()

    return limited_run


def main():
    runs = {
        "this package, two networks on two threads": (2, lambda: kernels(2)),
        "this package, one network": (1, lambda: kernels(1)),
        "NumPy, one BLAS thread": (1, limited(numpy_steps, 1)),
    }
    for name, run in (("torch", torch_steps), ("jax", jax_steps)):
        if importlib.util.find_spec(name):
            runs[name] = (1, run)
        else:
            print(f"{name} is not installed: left out")
    times = {name: [] for name in runs}
    for _, run in runs.values():
        run()  # compiles
    for _ in range(REPEATS):  # in turn, so that a slow moment of the machine meets them all
        for name, (_, run) in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    first = next(iter(runs))
    print(f"{platform.processor() or platform.machine()}, {STEPS} steps, median of {REPEATS} runs in turn")
    for name, (networks, _) in runs.items():
        speed = networks * STEPS / statistics.median(times[name])
        pairs = zip(times[name], times[first], strict=True)
        slower = statistics.median(runs[first][0] / networks * a / b for a, b in pairs)
        flops = speed * 6 * BATCH * WIDTH * WIDTH * DEPTH
        print(
            f"{name:45}{speed:8.0f} steps/s{flops / 1e9:8.0f} GFLOP/s{'' if math.isclose(slower, 1) else f'   {slower:.2f}x slower'}"
        )


if __name__ == "__main__":
    main()
