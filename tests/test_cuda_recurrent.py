"""Recurrent networks on a GPU: the CPU's bits under Numba's simulator and on a GPU, and the machine code."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES, assembled
from test_cuda import assert_strict, toolkit  # noqa: F401

from vgp_kernels import Recurrent, propagate
from vgp_kernels import cuda as target
from vgp_kernels.cuda import blocks, compiling, recurrent

SIMULATE = """
import pickle, sys
import simulator
simulator.BACKWARDS = sys.argv[3] == "backwards"
simulator.interpret("frames", "matrices", "recurrent", "cuda.recurrent")
from vgp_kernels.cuda import blocks, recurrent

recurrent.MOST_LANES, blocks.RESIDENT = 64, (3, 192)
jobs = pickle.load(open(sys.argv[1], "rb"))
pickle.dump([recurrent.run(*job, on_device=False) for job in jobs], open(sys.argv[2], "wb"))
"""

JOBS = {  # network, trials, seed; there is room for three networks at a time
    "simple, two warps": (Recurrent(2, 37, "tanh", "lecun", bias_variance=0.1, input_width=5, initial_rms=0.7), 1, 3),
    "simple, wider than its lanes": (Recurrent(2, 67, "gelu", "pytorch", input_width=3), 1, 5),
    "simple, one unit": (Recurrent(5, 1, "relu", "he"), 5, 2**63 + 5),
    "simple, Haar": (Recurrent(2, 35, "linear", "orthogonal", 0.8, input_variance=0.0), 1, 4),
    "simple, dead": (Recurrent(4, 2, "relu", "he", input_width=2), 7, 7),
    "LSTM, two warps": (Recurrent(2, 34, "lstm", "lecun", bias_variance=0.3, input_width=3, forget_bias=0.8), 1, 1),
    "LSTM, chrono": (Recurrent(4, 5, "lstm", "pytorch", longest_memory=30), 4, 6),
    "LSTM, Haar": (Recurrent(3, 6, "lstm", "orthogonal", initial_rms=1.3), 1, 8),
    "GRU, two warps": (Recurrent(2, 34, "gru", "lecun", input_width=6, forget_bias=-0.5), 1, 9),
    "GRU, chrono, Haar": (Recurrent(4, 7, "gru", "orthogonal", longest_memory=9), 1, 10),
    "GRU, PyTorch": (Recurrent(2, 3, "gru", "pytorch", input_width=2), 4, 11),
}  # fmt: skip
CELLS = ("tanh", "lstm", "gru")


def assert_same(found, network, trials, seed):
    flow = propagate(network, trials, seed, target="cpu")
    names = ["signal", "gradient", "weight_gradient", "cell_gradient", "direct_gradient", "total_weight_gradient"]
    for name, array in zip(names, found, strict=True):
        expected = getattr(flow, f"log_{name}", None)
        if expected is not None:
            assert array.shape == expected.shape
            assert array.tobytes() == expected.tobytes(), (
                f"{np.sum(array != expected)} of {array.size} differ in {name}"
            )


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def simulated(request, toolkit, tmp_path_factory):  # noqa: F811
    """{title: outputs} of a GPU that is simulated lane by lane, in this order."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "jobs").write_bytes(pickle.dumps(list(JOBS.values())))
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_OPT": "0", "PYTHONPATH": path}
    environment["NUMBA_CACHE_DIR"] = str(folder)
    command = [sys.executable, "-c", SIMULATE, str(folder / "jobs"), str(folder / "results"), request.param]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(JOBS, pickle.loads((folder / "results").read_bytes()), strict=True))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, simulated):
    assert_same(simulated[title], *JOBS[title])


def test_the_cases_reach_what_they_are_named_for(simulated):
    assert np.isneginf(simulated["simple, dead"][0]).any()
    assert {network.law for network, _, _ in JOBS.values()} == {"gaussian", "orthogonal", "uniform"}
    assert all(
        blocks.lanes_for(JOBS[title][0].width, recurrent.MOST_LANES) == 64 for title in JOBS if "two warps" in title
    )


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):  # noqa: F811
    if lacking := target.missing():
        pytest.skip(lacking)
    monkeypatch.setattr(blocks, "RESIDENT", (1, 1024))
    network, trials, seed = JOBS[title]
    assert_same(recurrent.run(network, 200 * trials, seed, on_device=False), network, 200 * trials, seed)


@pytest.mark.parametrize("cell", CELLS)
def test_kernels_compile_to_strict_code_without_spills(cell, toolkit):  # noqa: F811
    ptx = compiling.ptx(recurrent.network_kernel(cell), recurrent.signature(), (7, 5))
    assert_strict(ptx)
    for architecture in ARCHITECTURES:
        code, figures = assembled(ptx, architecture)
        assert figures["spill_stores"] == figures["spill_loads"] == 0
        assert figures["registers"] * recurrent.MOST_LANES <= 65_536  # a multiprocessor's
        assert figures["stack"] <= 1024  # arguments of functions
    assert code == assembled(ptx, architecture, contract=True)[0], "the assembler found something to contract"


def test_cost_is_that_of_a_core():
    small, large = Recurrent(20, 8, "tanh", "lecun"), Recurrent(100, 128, "lstm", "lecun")
    assert recurrent.cost(small) == pytest.approx(1.4e4, rel=0.5)
    assert recurrent.cost(large) == pytest.approx(1.6e6, rel=0.5)
