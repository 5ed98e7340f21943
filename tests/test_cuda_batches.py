"""Networks with batches, norms and skips as a warp runs them: the CPU's bits, whichever lane is first, and the machine code."""

import functools
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES, assembled
from test_cuda import assert_strict, toolkit  # noqa: F401

from vgp_kernels import Network, batch, propagate
from vgp_kernels import cuda as target
from vgp_kernels.cuda import batches, blocks, compiling

QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient", "correlation", "gradient_correlation")
ALL = 2**27  # bytes kept for the way back: more than these networks need

SIMULATE = """
import pickle, sys
import simulator
simulator.BACKWARDS = sys.argv[3] == "backwards"
simulator.interpret("frames", "normalisation", "batch", "cuda.batches")
from vgp_kernels import batch
from vgp_kernels.cuda import batches, blocks

blocks.RESIDENT = 2, 2048  # blocks: fewer than networks
results = []
for network, trials, seed, loss, memory in pickle.load(open(sys.argv[1], "rb")):
    batch.MEMORY = memory
    results.append(batches.run(network, trials, seed, False, loss == "shared"))
pickle.dump(results, open(sys.argv[2], "wb"))
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


@pytest.fixture(scope="module")
def simulated(toolkit, tmp_path_factory):  # noqa: F811
    """{order: {title: the five arrays}}, from processes whose numba-cuda simulates a GPU."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "jobs").write_bytes(pickle.dumps(list(JOBS.values())))
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {
        "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": path
    }  # fmt: skip

    def run(order):
        command = [sys.executable, "-c", SIMULATE, str(folder / "jobs"), str(folder / order), order]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(zip(JOBS, pickle.loads((folder / order).read_bytes()), strict=True))

    orders = ("forwards", "backwards")
    with ThreadPoolExecutor() as pool:
        return dict(zip(orders, pool.map(run, orders), strict=True))


def assert_same(found, job, monkeypatch):
    network, trials, seed, loss, memory = job
    monkeypatch.setattr(batch, "MEMORY", memory)
    flow = propagate(network, trials, seed, loss_gradient=loss)
    for name, array in zip(QUANTITIES, found, strict=True):
        expected = getattr(flow, name)
        assert array.shape == expected.shape and array.dtype == expected.dtype
        assert array.tobytes() == expected.tobytes(), f"{name}: {array - expected}"


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, order, simulated, monkeypatch):
    assert_same(simulated[order][title], JOBS[title], monkeypatch)


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):  # noqa: F811
    if lacking := target.missing():
        pytest.skip(lacking)
    network, trials, seed, loss, memory = JOBS[title]
    monkeypatch.setattr(batch, "MEMORY", memory)
    monkeypatch.setattr(blocks, "RESIDENT", (2, 2048))
    assert_same(batches.run(network, trials, seed, False, loss == "shared"), JOBS[title], monkeypatch)


# The compiler

LOOPS = (
    "frames3dot",
    "frames6sum_of",
    "frames12add_multiple",
    "frames12fill_normals",
    "frames7combine",
    r"4cuda7batches\d+apply_",
)


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(batches.network_kernel(name), batches.signature(), capability)


def frames_of(ptx, architecture):
    """{function: (bytes of stack, spill stores, spill loads)}, at the number of registers that the kernel may have."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(
        arch=architecture, ptxas_options=["-v", "-fmad=false", f"-maxrregcount={batches.REGISTERS}"], verbose=True
    )
    text = re.sub(r"\.target sm_\w+", f".target {architecture}", ptx)
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    linker.link("cubin")
    found = re.findall(
        r"Function properties for (\S+)\s.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        linker.get_info_log(), re.S,
    )  # fmt: skip
    return {name: tuple(map(int, figures)) for name, *figures in found}


@pytest.mark.parametrize(
    ("name", "capability", "architecture"),
    [*[("tanh", (7, 5), architecture) for architecture in ARCHITECTURES], ("gelu", (9, 0), "sm_90")],
)
def test_the_kernel_compiles_to_strict_code_whose_loops_do_not_spill(name, capability, architecture, toolkit):  # noqa: F811
    ptx = kernel_ptx(name, capability)
    assert_strict(ptx)
    code, _ = assembled(ptx, architecture)
    assert code == assembled(ptx, architecture, contract=True)[0], "the assembler found something to contract"
    frames = frames_of(ptx, architecture)
    for loop in LOOPS:
        ((stack, stores, loads),) = (
            figures for function, figures in frames.items() if re.match(rf"_ZN11vgp_kernels6?{loop}", function)
        )
        # a function saves the registers that belong to its caller, each once, and loads them again in the end
        assert stores == loads <= stack <= 128, loop
    assert max(stack for stack, _, _ in frames.values()) < 4096


@pytest.mark.parametrize("title", JOBS)
def test_the_kernel_takes_what_it_is_given(title, toolkit):  # noqa: F811
    network, _, _, loss, _ = JOBS[title]
    block, segment = batch.block_of(network, loss == "shared"), batch.segment_of(network)
    room = [np.empty((2, *shape), dtype) for _, shape, dtype in batches.room_of(block, segment)]
    assert all(array.size for array in room)  # an array without entries has no layout on a GPU
    given = [np.uint32(0), 0, block, segment, np.uint32(0), np.uint32(0), *[np.empty((2, 3))] * 5, *room]
    assert [*map(numba.typeof, given)] == [*batches.signature().args]
