"""Training on GPUs without one: its bits under the simulator, lanes in either order, and its PTX and machine code."""

import functools

import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES
from gpu_code import assert_same_bits, simulated, strictly_assembled

from vgp_kernels import Network, train
from vgp_kernels.classifier import cuda as training
from vgp_kernels.targets import compiling
from vgp_kernels.targets import gpu as target

QUANTITIES = (
    "batch_loss", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "weight_gradient", "movement", "parameters",
)  # fmt: skip
FEATURES, CLASSES = 5, 3


def job(network, trials=1, examples=11, tests=0, **options):
    generator = np.random.default_rng(examples)
    inputs, labels = (
        generator.standard_normal((examples + tests, FEATURES)),
        generator.integers(0, CLASSES, examples + tests),
    )
    labels[0] = CLASSES - 1
    given = {"learning_rate": 0.1, "epochs": 1, "batch_size": 4, "seed": 3} | options
    if tests:
        given |= {"test_inputs": inputs[examples:], "test_labels": labels[examples:]}
    return network, inputs[:examples], labels[:examples], given | {"trials": trials}


JOBS = {
    "more networks than blocks, ragged": job(Network(2, 7, "tanh", "xavier", bias_variance=0.1), 3, tests=5, epochs=2),
    "more columns than lanes of a warp": job(Network(1, 37, "relu", "he"), optimiser="momentum", examples=8),
    "more tiles than lanes": job(Network(1, 37, "relu", "he"), law="uniform", batch_size=29, examples=31),
    "Haar, Adam": job(Network(2, FEATURES, "gelu", "orthogonal"), 2, optimiser="adam", seed=2**63 + 5),
    "batch norm": job(Network(2, 6, "tanh", "he", normalisation="batch", batch_size=4), epochs=2),
    "batch norm after sums": job(
        Network(
            1, 6, "relu", "he", residual="postactivation", normalisation="batch", norm_position="post", batch_size=4
        )
    ),
    "layer norm, two weights": job(
        Network(2, 6, "tanh", "he", residual="two_weights", normalisation="layer", bias_variance=0.1)
    ),
    "rms norm after": job(Network(2, 6, "relu", "he", normalisation="rms", norm_position="post")),
    "skips, Haar": job(Network(2, 6, "tanh", "orthogonal", residual="preactivation", residual_scale=0.5)),
    "one that diverges": job(Network(3, 6, "relu", "he"), 3, learning_rate=1e12, epochs=2),
}

RUN = """
from vgp_kernels import train
from vgp_kernels.classifier import cuda as training
from vgp_kernels.numerics import products
import numpy as np

training.MOST_LANES = 64
products.multiply = products.multiply_in_lanes  # which of the two is the compiler's choice

def run(network, inputs, labels, options):
    found = vars(train(network, inputs, labels, target="cuda", **options))
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
"""


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def found(request, toolkit, tmp_path_factory):
    rooms = ("numerics.products", "classifier.kernels", "classifier.learning", "classifier.cuda")
    return simulated(rooms, RUN, JOBS, request.param, tmp_path_factory.mktemp("simulated"))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, found):
    network, inputs, labels, options = JOBS[title]
    assert_same_bits(train(network, inputs, labels, **options), {name: found[title][name] for name in QUANTITIES})


def test_the_cases_reach_what_they_are_named_for(found):
    assert np.isnan(found["one that diverges"]["batch_loss"]).any()
    assert not np.isnan(found["more networks than blocks, ragged"]["test_loss"]).any()


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, toolkit):
    if lacking := target.missing():
        pytest.skip(lacking)
    network, inputs, labels, options = JOBS[title]
    expected, training = (train(network, inputs, labels, target=name, **options) for name in ("cpu", "cuda"))
    assert_same_bits(expected, {name: getattr(training, name) for name in QUANTITIES})


# The compiler


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(training.training_kernel(name), training.TRAIN, capability)


@pytest.mark.parametrize(
    ("name", "capability", "architecture"),
    [*[("tanh", (7, 5), architecture) for architecture in ARCHITECTURES], ("gelu", (9, 0), "sm_90")],
)
def test_the_kernel_compiles_to_strict_code(name, capability, architecture, toolkit):
    ptx = kernel_ptx(name, capability)
    figures = strictly_assembled(ptx, architecture)
    assert figures["registers"] <= 255  # a block of 256 threads has a multiprocessor's
    assert figures["spill_stores"] == figures["spill_loads"] == 0


# What it says when it cannot run


def test_without_a_gpu_the_target_says_what_is_missing(toolkit):
    if target.missing() is None:
        pytest.skip("there is a GPU")
    network, inputs, labels, options = JOBS["rms norm after"]
    with pytest.raises(RuntimeError, match=r"target 'cuda' cannot run here: no NVIDIA .*; or take target='cpu'"):
        train(network, inputs, labels, target="cuda", **options)
    with pytest.raises(ValueError, match="unknown target 'gpu'"):
        train(network, inputs, labels, target="gpu", **options)
    assert train(network, inputs, labels, target="auto", **options).trials == 1
