"""Steps per second of training: this package against PyTorch, JAX and NumPy on the same network.

    python scripts/benchmark_training.py                 measure, print the table, write docs/results/training/result.json
    python scripts/benchmark_training.py --print         print the table of the saved result

30 tanh layers of width 64, batches of 64 digits, plain SGD. PyTorch and JAX are no requirements of the project; those that
are missing are named and left out: pip install torch==2.13.0 jax==0.10.2
"""

import argparse
import functools
import importlib.util
import time
from dataclasses import asdict, dataclass

import experiment
import numpy as np
from benchmark import machine, made_with, spread
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, initial_weights, train


@dataclass(frozen=True)
class Parameters:
    depth: int = 30
    width: int = 64  # also the number of inputs
    batch: int = 64
    classes: int = 10
    rate: float = 0.02
    epochs: int = 8
    rounds: int = 7
    threads: int = 2


PARAMETERS = Parameters()
DEPTH, WIDTH, BATCH, RATE = PARAMETERS.depth, PARAMETERS.width, PARAMETERS.batch, PARAMETERS.rate


@functools.cache
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return ((inputs - inputs.mean()) / inputs.std()).astype(np.float32), labels


@functools.cache
def batches():
    examples = len(digits()[1])
    steps = PARAMETERS.epochs * (examples // BATCH)
    return np.stack([np.random.default_rng(step).integers(0, examples, BATCH) for step in range(steps)])


@functools.cache
def network():
    return Network(DEPTH, WIDTH, "tanh", "xavier")


@functools.cache
def start():
    return initial_weights(network(), WIDTH, PARAMETERS.classes)


def kernels(trials):
    """This package; `train` also measures loss and accuracy of all examples after each epoch, which counts here."""
    options = {"epochs": PARAMETERS.epochs, "batch_size": BATCH, "trials": trials, "threads": trials}
    train(network(), *digits(), learning_rate=RATE, **options)


def numpy_steps():
    inputs, labels = digits()
    weights = [matrix.T.copy() for matrix in start().matrices]
    biases = [bias.copy() for bias in start().biases]
    for batch in batches():
        h = [inputs[batch]]
        for matrix, bias in zip(weights[:-1], biases[:-1], strict=True):
            h.append(np.tanh(h[-1] @ matrix + bias))
        logits = h[-1] @ weights[-1] + biases[-1]
        delta = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(BATCH), labels[batch]] -= 1
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
    for matrix, bias in zip(start().matrices, start().biases, strict=True):
        linear = nn.Linear(matrix.shape[1], matrix.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(matrix), torch.tensor(bias)
        layers += [linear, nn.Tanh()]
    module = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.SGD(module.parameters(), lr=RATE)
    inputs, labels = map(torch.tensor, digits())
    for batch in torch.tensor(batches()):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()
        optimiser.step()


@functools.cache
def jax_function():
    import jax
    import jax.numpy as jnp

    inputs, labels = map(jnp.array, digits())

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

    hidden = jnp.stack([m.T for m in start().matrices[:-1]]), jnp.stack(start().biases[:-1])
    top = jnp.array(start().matrices[-1].T), jnp.array(start().biases[-1])
    jax.block_until_ready(jax_function()((hidden, top), jnp.array(batches())))


def limited(run, threads):
    def limited_run():
        with threadpool_limits(threads):
            run()

    return limited_run


RUNS = {
    "two_networks": ("this package, two networks on two threads", 2, lambda: kernels(2)),
    "one_network": ("this package, one network", 1, lambda: kernels(1)),
    "numpy": ("NumPy, one thread", 1, limited(numpy_steps, 1)),
    "torch": ("PyTorch", 1, torch_steps),
    "jax": ("JAX", 1, jax_steps),
}


def measure(p):
    """Steps per second of each program that is installed, and how many times those of the others the first makes."""
    missing = [name for name in ("torch", "jax") if importlib.util.find_spec(name) is None]
    runs = {name: run for name, run in RUNS.items() if name not in missing}
    times = {name: [] for name in runs}
    for _, _, run in runs.values():
        run()  # compiles
    for _ in range(p.rounds):  # in turn, so that a slow moment of the machine meets them all
        for name, (_, _, run) in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    rates = {name: runs[name][1] * len(batches()) / np.array(taken) for name, taken in times.items()}
    return {
        name: {"steps_per_second": spread(rate), "slower": spread(rates["two_networks"] / rate)}
        for name, rate in rates.items()
    }


def gigaflops(row):
    """6 B n² L floating-point operations a step: forward, back, and the weights' gradient, two each for a weight."""
    return row["steps_per_second"]["median"] * 6 * BATCH * WIDTH**2 * DEPTH / 1e9


def draw(document):
    """The table of the performance page, and the line about the machine."""
    rows = [["Program", "Steps per second", "GFLOP/s", "Times slower"]]
    for name, row in document["programs"].items():
        speed, slower = row["steps_per_second"], row["slower"]
        rows.append(
            [
                RUNS[name][0],
                f"{speed['median']:,.0f} ({speed['least']:,.0f} to {speed['most']:,.0f})",
                f"{gigaflops(row):.0f}",
                f"{slower['median']:.2f}",
            ]
        )
    return {"table.md": experiment.markdown_table(rows), "machine.md": machine(document)}


def numbers(document):
    found = {f"{name}_slower": row["slower"]["median"] for name, row in document["programs"].items()}
    return found | {name: row["steps_per_second"]["median"] for name, row in document["programs"].items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the saved result, measure nothing")
    if not parser.parse_args().print:
        document = {
            "about": __doc__.partition("\n")[0],
            "parameters": asdict(PARAMETERS),
            "made_with": made_with(PARAMETERS),
            "programs": measure(PARAMETERS),
        }
        experiment.write(experiment.folder("training") / "result.json", experiment.to_json(document) + "\n")
    print(*draw(experiment.saved("training")).values(), sep="\n")


if __name__ == "__main__":
    main()
