"""Recurrent networks on a GPU: the CPU's bits under Numba's simulator and on a GPU, and the machine code."""

import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES
from gpu_code import assert_nothing_spills, assert_same_bits, frames_of, simulated, strictly_assembled

from vgp_kernels import Recurrent, propagate
from vgp_kernels.recurrent import cuda as recurrent
from vgp_kernels.targets import blocks, compiling
from vgp_kernels.targets import gpu as target

RUN = """
from vgp_kernels.recurrent import cuda as recurrent

recurrent.MOST_LANES = 64

def run(network, trials, seed):
    return recurrent.run(network, trials, seed, False)
"""

JOBS = {  # network, trials, seed; there is room for two networks at a time
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
QUANTITIES = (
    "log_signal", "log_gradient", "log_weight_gradient", "log_cell_gradient", "log_direct_gradient", "log_total_weight_gradient",
)  # fmt: skip
CELLS = ("tanh", "lstm", "gru")


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def found(request, toolkit, tmp_path_factory):
    rooms = ("numerics.frames", "numerics.matrices", "recurrent.kernels", "recurrent.cuda")
    return simulated(rooms, RUN, JOBS, request.param, tmp_path_factory.mktemp("simulated"))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, found):
    expected = propagate(*JOBS[title])
    named = zip(QUANTITIES, found[title], strict=True)
    assert_same_bits(expected, {name: array for name, array in named if hasattr(expected, name)})


def test_the_cases_reach_what_they_are_named_for(found):
    assert np.isneginf(found["simple, dead"][0]).any()
    assert {network.law for network, _, _ in JOBS.values()} == {"gaussian", "orthogonal", "uniform"}
    assert all(blocks.lanes_for(JOBS[title][0].width, 64) == 64 for title in JOBS if "two warps" in title)


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):
    if lacking := target.missing():
        pytest.skip(lacking)
    monkeypatch.setattr(blocks, "RESIDENT", (1, 1024))
    network, trials, seed = JOBS[title]
    expected, flow = (propagate(network, 200 * trials, seed, name) for name in ("cpu", "cuda"))
    assert_same_bits(expected, {name: getattr(flow, name) for name in QUANTITIES if hasattr(expected, name)})


@pytest.mark.parametrize("cell", CELLS)
def test_kernels_compile_to_strict_code_without_spills(cell, toolkit):
    ptx = compiling.ptx(recurrent.network_kernel(cell), recurrent.signature(), (7, 5))
    for architecture in ARCHITECTURES:
        figures = strictly_assembled(ptx, architecture)
        assert_nothing_spills(frames_of(ptx, architecture), "run_networks", ("add_rows", "fill_with", "frames3dot"))
        assert figures["registers"] * recurrent.MOST_LANES <= 65_536  # a multiprocessor's
        assert figures["stack"] <= 1024  # arguments of functions


def test_cost_is_that_of_a_core():
    small, large = Recurrent(20, 8, "tanh", "lecun"), Recurrent(100, 128, "lstm", "lecun")
    assert recurrent.cost(small) == pytest.approx(1.4e4, rel=0.5)
    assert recurrent.cost(large) == pytest.approx(1.6e6, rel=0.5)
