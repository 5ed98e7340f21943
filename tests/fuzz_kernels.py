"""Random networks of every family, over the whole range of each parameter, through `propagate` and `train`.

What is asked of each: a refusal is a sentence (ValueError, TypeError or MemoryError), all results are finite, or -inf or NaN where
the docstrings say so, and one thread and two give the same bits. `python tests/fuzz_kernels.py SECONDS SEED`.
"""

import math
import os
import sys
import time
import warnings

import numpy as np

from vgp_kernels import Network, Recurrent, Transformer, propagate
from vgp_kernels.train import train

ACTIVATIONS = (
    "linear", "relu", "leaky_relu", "leaky_relu(0.3)", "elu", "selu", "gelu", "silu", "softplus", "sigmoid", "tanh", "mish",
)  # fmt: skip
WORK = 3e7  # entries of weights, times what passes them
UNDEFINED = ("correlation", "gradient_correlation")  # NaN where there is no pair of inputs


class Draw:
    """Random values, more often than not at the ends of their range."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def one_of(self, *values):
        return values[self.generator.integers(len(values))]

    def chance(self, part):
        return self.generator.random() < part

    def count(self, most):
        return int(
            min(most, self.one_of(1, 2, 3, 4, 5, 8, 17, 33, int(math.exp(self.generator.uniform(0, math.log(most))))))
        )

    def scale(self, largest, zero=False):
        """From 1/largest to largest, on a scale of logarithms."""
        if zero and self.chance(0.2):
            return 0.0
        if self.chance(0.5):
            return float(math.exp(self.generator.uniform(-1, 1)))
        end = math.log(largest)
        return self.one_of(largest, 1 / largest, float(math.exp(self.generator.uniform(-end, end))))

    def some(self, **options):
        """A part of the options, which are functions."""
        return {name: make() for name, make in options.items() if self.chance(0.4)}


def networks(draw):
    width, depth = draw.count(300), draw.count(3000)
    options = draw.some(
        bias_variance=lambda: draw.scale(1e30, zero=True),
        input_width=lambda: draw.count(300),
        input_rms=lambda: draw.scale(1e15),
        batch_size=lambda: draw.count(12),
        input_correlation=lambda: draw.one_of(0.0, 1.0, -1.0, 0.999999, -0.1, float(draw.generator.uniform(-1, 1))),
        normalisation=lambda: draw.one_of("batch", "batch_inference", "layer", "rms"),
        norm_position=lambda: draw.one_of("pre", "post"),
        residual=lambda: draw.one_of("preactivation", "postactivation", "two_weights"),
        residual_scale=lambda: draw.scale(1e15, zero=True),
    )
    weights = draw.one_of(
        {"weight_variance": draw.scale(1e30)},
        {"initialiser": "orthogonal", "weight_variance": draw.scale(1e30)},
        {"initialiser": draw.one_of("xavier", "he", "lecun", "orthogonal")},
    )
    network = Network(depth, width, draw.one_of(*ACTIVATIONS), **weights, **options)
    loss = draw.one_of("independent", "shared")
    return network, depth * width * (20 + network.batch_size**2 * 4), {"loss_gradient": loss}


def recurrent_networks(draw):
    steps, width, cell = draw.count(2000), draw.count(60), draw.one_of(*ACTIVATIONS, "lstm", "gru", "lstm", "gru")
    options = draw.some(
        input_variance=lambda: draw.scale(1e30, zero=True),
        bias_variance=lambda: draw.scale(1e30, zero=True),
        input_width=lambda: draw.count(60),
        initial_rms=lambda: draw.scale(1e15, zero=True),
    )
    if cell in ("lstm", "gru"):
        gates = dict(
            forget_bias=lambda: float(draw.generator.uniform(-1000, 1000)), longest_memory=lambda: draw.count(9999)
        )
        options |= draw.some(**gates)
    weights = draw.one_of(
        {"weight_variance": draw.scale(1e30)}, {"initialiser": draw.one_of("orthogonal", "lecun", "pytorch")}
    )
    return Recurrent(steps, width, cell, **weights, **options), steps * width * (width + 20) * 4, {}


def transformers(draw):
    blocks, heads = draw.count(500), draw.count(4)
    width, inside, tokens = heads * draw.count(8), draw.one_of(0, 1, 4), draw.count(12)
    options = draw.some(
        norm=lambda: draw.one_of("pre", "post", "deepnorm", "none", "none"),
        skip=lambda: draw.chance(0.5),
        branch_scale=lambda: draw.scale(1e15),
        weight_variance=lambda: draw.scale(1e30),
        query_variance=lambda: draw.scale(1e30),
        second_variance=lambda: draw.scale(1e30),
        scaled_scores=lambda: draw.chance(0.5),
        token_correlation=lambda: draw.one_of(0.0, 1.0, 0.5, 0.999999),
    )
    network = Transformer(
        blocks, width, heads, tokens, ffn_multiple=inside, activation=draw.one_of(*ACTIVATIONS), **options
    )
    return network, (network.weights + blocks * tokens * 50) * (tokens + 4) * 2, {}


FAMILIES = (networks, recurrent_networks, transformers)


def check_flow(draw, family):
    network, work, options = family(draw)
    trials = draw.one_of(1, 2, 5, 20, 70)
    if work * trials > WORK:
        trials = 1
    if work > WORK:
        return
    seed = int(draw.generator.integers(2**63))
    one, two = (propagate(network, trials, seed, threads=threads, **options) for threads in (1, 2))
    for name, values in arrays_of(one).items():
        say = f"{name} of propagate({network}, {trials}, {seed}, **{options})"
        assert values.tobytes() == arrays_of(two)[name].tobytes(), f"the bits of {say} depend on threads"
        allowed = (values < math.inf) | (np.isnan(values) if name in UNDEFINED else False)
        assert allowed.all(), f"{say} is {values[~allowed][0]}"


def check_training(draw):
    examples, features, classes = draw.count(60), draw.count(20), draw.one_of(2, 3, 10)
    inputs = draw.scale(1e38) * np.clip(draw.generator.standard_normal((examples, features)), -3, 3)
    labels = draw.generator.integers(0, classes, examples)
    tests = draw.count(examples)
    network, _, _ = networks(draw)
    options = dict(
        learning_rate=draw.scale(1e10), epochs=draw.count(4), batch_size=min(draw.count(60), examples),
        optimiser=draw.one_of("sgd", "momentum", "adam"), trials=draw.one_of(1, 3), seed=int(draw.generator.integers(2**63)),
        **draw.some(law=lambda: draw.one_of("gaussian", "uniform", "orthogonal")),
        **draw.one_of({}, {"test_inputs": inputs[:tests], "test_labels": labels[:tests]}),
    )  # fmt: skip
    size = network.depth * network.width * (2 * network.width + features)
    if size * options["epochs"] * examples * options["trials"] > WORK * 10:
        return
    one, two = (train(network, inputs, labels, threads=threads, **options) for threads in (1, 2))
    for name, values in arrays_of(one).items():
        say = f"{name} of train({network}, inputs of {inputs.shape}, {options})"
        assert values.tobytes() == arrays_of(two)[name].tobytes(), f"the bits of {say} depend on threads"
        fine = np.isfinite(values)
        if name in ("test_loss", "test_accuracy"):
            fine |= "test_inputs" not in options or (tests == 1 and network.normalisation == "batch")
        if not fine.all() and name != "parameters":
            rows = ~fine.reshape(len(values), -1).all(axis=1)
            assert one.diverged[rows].all(), f"{say} is {values[~fine][0]}, and nothing diverged"


def is_clean(refusal):
    """Whether it is a sentence, and raised by a check of ours; memory is NumPy's or Numba's to refuse."""
    place = refusal.__traceback__
    while place.tb_next:
        place = place.tb_next
    ours = "vgp_kernels" in place.tb_frame.f_code.co_filename
    return len(str(refusal).split()) > 4 and (ours or isinstance(refusal, MemoryError))


def arrays_of(result):
    return {name: value for name, value in vars(result).items() if isinstance(value, np.ndarray)}


def main(seconds: float, seed: int, most: float = math.inf) -> dict[str, int]:
    """How many were computed and refused, within so many seconds; AssertionError, or what else went wrong, names the case."""
    end, count, done = time.monotonic() + seconds, 0, {"computed": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        while time.monotonic() < end and count < most:
            draw = Draw([seed, count])
            kind = draw.generator.integers(len(FAMILIES) + 1)
            try:
                check_training(draw) if kind == len(FAMILIES) else check_flow(draw, FAMILIES[kind])
                done["computed"] += 1
            except (ValueError, TypeError, MemoryError) as refusal:
                assert is_clean(refusal), f"case {count} of seed {seed}: {refusal!r} is no refusal"
                done["refused"] += 1
            except BaseException as fault:
                fault.add_note(f"case {count} of seed {seed}")
                raise
            count += 1
    return done


if __name__ == "__main__":
    print(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4))))
