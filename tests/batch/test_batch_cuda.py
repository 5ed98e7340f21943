"""Networks with batches, norms and skips as a warp runs them: the CPU's bits, whichever lane is first, and the machine code."""

import functools

import numba
import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES
from gpu_code import assert_nothing_spills, assert_same_bits, frames_of, simulated, strictly_assembled

from vgp_kernels import Network, propagate
from vgp_kernels.batch import cuda as batches
from vgp_kernels.batch import kernels as batch
from vgp_kernels.targets import blocks, compiling
from vgp_kernels.targets import gpu as target

QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient", "correlation", "gradient_correlation")
ALL = 2**27  # bytes kept for the way back: more than these networks need

RUN = """
from vgp_kernels.batch import cuda as batches
from vgp_kernels.batch import kernels as batch

def run(network, trials, seed, loss, memory):
    batch.MEMORY = memory
    return batches.run(network, trials, seed, False, shared_loss=loss == "shared")
"""


def job(width, name, depth=2, trials=1, seed=3, loss="independent", memory=ALL, **options):
    law = {} if {"initialiser", "weight_variance"} & set(options) else {"weight_variance": 1.7}
    return Network(depth, width, name, **(law | options)), trials, seed, loss, memory


JOBS = {  # network, trials, seed, loss gradient, MEMORY
    "a batch, more networks than blocks": job(5, "tanh", trials=3, batch_size=2, bias_variance=0.1, input_correlation=0.3),
    "more units than lanes": job(37, "gelu", batch_size=3, bias_variance=0.1, input_width=41, seed=2**63 + 5),
    "more inputs than lanes": job(3, "tanh", depth=1, batch_size=34, input_correlation=1.0),
    "Haar": job(35, "tanh", initialiser="orthogonal", batch_size=3, input_correlation=0.5, bias_variance=0.2),
    "more inputs than units": job(3, "tanh", batch_size=5, input_width=6, loss="shared"),
    "the same inputs": job(33, "relu", batch_size=3, input_correlation=1.0, bias_variance=0.3),
    "opposite inputs": job(4, "tanh", batch_size=2, input_correlation=-1.0),
    "layer norm, one input": job(33, "tanh", normalisation="layer", trials=3),
    "RMS norm after, Haar": job(5, "sigmoid", initialiser="orthogonal", normalisation="rms", norm_position="post", batch_size=2),
    "batch norm": job(34, "relu", normalisation="batch", batch_size=4, bias_variance=0.3),
    "batch norm in inference mode, after": job(
        5, "tanh", normalisation="batch_inference", batch_size=3, norm_position="post"),
    "W φ(x), batch norm": job(5, "elu", residual="preactivation", normalisation="batch", batch_size=3, residual_scale=0.5),
    "φ(W x + b)": job(36, "tanh", residual="postactivation", bias_variance=0.2, residual_scale=1e-3),
    "two weights, layer norm": job(5, "gelu", residual="two_weights", normalisation="layer", batch_size=2, bias_variance=0.1),
    "two weights, Haar": job(4, "tanh", initialiser="orthogonal", residual="two_weights", bias_variance=0.1),
    "segments": job(3, "tanh", depth=5, batch_size=2, memory=400),
    "signals that leave float32's range": job(3, "relu", depth=8, batch_size=2, weight_variance=1e-20),
    "signals that leave it upwards": job(3, "relu", depth=8, batch_size=2, weight_variance=1e20, bias_variance=0.2, seed=7),
    "dead networks": job(2, "relu", depth=4, batch_size=2, trials=3),
}  # fmt: skip


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def found(request, toolkit, tmp_path_factory):
    rooms = ("numerics.frames", "batch.normalisation", "batch.kernels", "batch.cuda")
    return simulated(rooms, RUN, JOBS, request.param, tmp_path_factory.mktemp("simulated"))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, found, monkeypatch):
    network, trials, seed, loss, memory = JOBS[title]
    monkeypatch.setattr(batch, "MEMORY", memory)
    expected = propagate(network, trials, seed, loss_gradient=loss)
    assert_same_bits(expected, dict(zip(QUANTITIES, found[title], strict=True)))


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):
    if lacking := target.missing():
        pytest.skip(lacking)
    network, trials, seed, loss, memory = JOBS[title]
    monkeypatch.setattr(batch, "MEMORY", memory)
    monkeypatch.setattr(blocks, "RESIDENT", (2, 2048))
    expected, flow = (propagate(network, trials, seed, name, loss_gradient=loss) for name in ("cpu", "cuda"))
    assert_same_bits(expected, {name: getattr(flow, name) for name in QUANTITIES})


# The compiler

LOOPS = ("frames3dot", "frames6sum_of", "add_multiple", "fill_normals", "frames7combine", "project_units", "apply_")


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(batches.network_kernel(name), batches.signature(), capability)


@pytest.mark.parametrize(
    ("name", "capability", "architecture"),
    [*[("tanh", (7, 5), architecture) for architecture in ARCHITECTURES], ("gelu", (9, 0), "sm_90")],
)
def test_the_kernel_compiles_to_strict_code_without_spills(name, capability, architecture, toolkit):
    ptx = kernel_ptx(name, capability)
    strictly_assembled(ptx, architecture)
    frames = frames_of(ptx, architecture)
    assert_nothing_spills(frames, "run_networks", LOOPS)
    assert max(stack for stack, _, _ in frames.values()) < 4096  # arguments of functions


@pytest.mark.parametrize("title", JOBS)
def test_the_kernel_takes_what_it_is_given(title, toolkit):
    network, _, _, loss, _ = JOBS[title]
    block, segment = batch.block_of(network, loss == "shared"), batch.segment_of(network)
    room = [np.empty((2, *shape), dtype) for _, shape, dtype in batches.room_of(block, segment)]
    assert all(array.size for array in room)  # an array without entries has no layout on a GPU
    given = [np.uint32(0), 0, block, segment, np.uint32(0), np.uint32(0), *[np.empty((2, 3))] * 5, *room]
    assert [*map(numba.typeof, given)] == [*batches.signature().args]
