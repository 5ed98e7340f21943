"""Training on GPUs without one: its bits under the simulator, lanes in either order, and its PTX and machine code."""

import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES, assembled
from test_cuda import assert_strict, toolkit  # noqa: F401

from vgp_kernels import Network, train
from vgp_kernels import cuda as target
from vgp_kernels.cuda import compiling, training

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

SIMULATE = """
import pickle, sys
import simulator
simulator.BACKWARDS = sys.argv[3] == "backwards"
simulator.interpret("products", "explicit", "training", "cuda.training")
from vgp_kernels import products
from vgp_kernels.cuda import blocks, training
from vgp_kernels.training import train

products.multiply = products.multiply_in_lanes  # which of the two is the compiler's choice

training.MOST_LANES = 64
blocks.RESIDENT = 2, 2048
results = []
for network, inputs, labels, options in pickle.load(open(sys.argv[1], "rb")):
    found = train(network, inputs, labels, target="cuda", **options)
    results.append([getattr(found, name) for name in pickle.loads(bytes.fromhex(sys.argv[4]))])
pickle.dump(results, open(sys.argv[2], "wb"))
"""


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def simulated(request, toolkit, tmp_path_factory):  # noqa: F811
    """{title: the arrays}, from a process whose numba-cuda simulates a GPU, its lanes one after another in this order."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "jobs").write_bytes(pickle.dumps(list(JOBS.values())))
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_OPT": "0", "PYTHONPATH": paths}
    files = [str(folder / "jobs"), str(folder / "results")]
    command = [sys.executable, "-c", SIMULATE, *files, request.param, pickle.dumps(QUANTITIES).hex()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(JOBS, pickle.loads((folder / "results").read_bytes()), strict=True))


def assert_same(expected, found):
    for name, array in zip(QUANTITIES, found, strict=True):
        wanted = getattr(expected, name)
        assert array.shape == wanted.shape and array.dtype == wanted.dtype
        assert array.tobytes() == wanted.tobytes(), f"{np.sum(array != wanted)} of {array.size} differ in {name}"


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, simulated):
    network, inputs, labels, options = JOBS[title]
    assert_same(train(network, inputs, labels, **options), simulated[title])


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, toolkit):  # noqa: F811
    if lacking := target.missing():
        pytest.skip(lacking)
    network, inputs, labels, options = JOBS[title]
    found = train(network, inputs, labels, target="cuda", **options)
    assert_same(train(network, inputs, labels, **options), [getattr(found, name) for name in QUANTITIES])


def test_the_cases_reach_what_they_are_named_for(simulated):
    assert np.isnan(simulated["one that diverges"][0]).any()
    assert not np.isnan(simulated["more networks than blocks, ragged"][3]).any()


# The compiler


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(training.training_kernel(name), training.TRAIN, capability)


@pytest.mark.parametrize(
    ("name", "capability", "architecture"),
    [*[("tanh", (7, 5), architecture) for architecture in ARCHITECTURES], ("gelu", (9, 0), "sm_90")],
)
def test_the_kernel_compiles_to_strict_code(name, capability, architecture, toolkit):  # noqa: F811
    ptx = kernel_ptx(name, capability)
    assert_strict(ptx)
    code, figures = assembled(ptx, architecture)
    assert code == assembled(ptx, architecture, contract=True)[0], "the assembler found something to contract"
    assert figures["registers"] <= 255  # a block of 256 threads has a multiprocessor's
    assert figures["spill_stores"] == figures["spill_loads"] == 0


# What it says when it cannot run


def test_without_a_gpu_the_target_says_what_is_missing(toolkit):  # noqa: F811
    if target.missing() is None:
        pytest.skip("there is a GPU")
    network, inputs, labels, options = JOBS["rms norm after"]
    with pytest.raises(RuntimeError, match=r"target 'cuda' cannot run here: no NVIDIA .*; or take target='cpu'"):
        train(network, inputs, labels, target="cuda", **options)
    with pytest.raises(ValueError, match="unknown target 'gpu'"):
        train(network, inputs, labels, target="gpu", **options)
    assert train(network, inputs, labels, target="auto", **options).trials == 1
