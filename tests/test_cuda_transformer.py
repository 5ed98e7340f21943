"""Transformers as a block of threads runs them: the CPU's bits, whichever lane is first, and the machine code."""

import functools
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from benchmark_cuda import ARCHITECTURES, assembled
from test_cuda import assert_strict, toolkit  # noqa: F401

from vgp_kernels import Transformer, propagate
from vgp_kernels import cuda as target
from vgp_kernels.cuda import blocks, compiling, transformers

QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient", "log_matrix_gradient", "log_residual")

SIMULATE = """
import pickle, sys
import simulator
simulator.BACKWARDS = sys.argv[3] == "backwards"
simulator.interpret("frames", "matrices", "attention", "cuda.transformers")
from vgp_kernels.cuda import blocks, transformers

blocks.RESIDENT = 2, 2048  # blocks: fewer than networks
results = []
for network, trials, seed, lanes in pickle.load(open(sys.argv[1], "rb")):
    transformers.LANES = lanes
    results.append(transformers.run(network, trials, seed, False))
pickle.dump(results, open(sys.argv[2], "wb"))
"""


def job(blocks, width, trials=1, seed=3, lanes=64, **options):
    return Transformer(blocks, width, **({"tokens": 3, "ffn_multiple": 1} | options)), trials, seed, lanes


JOBS = {  # network, trials, seed, lanes
    "more networks than blocks": job(2, 4, trials=5, heads=2, norm="pre", activation="gelu", seed=2**63 + 5),
    "normals that matrices share": job(3, 3, tokens=2, norm="pre", activation="tanh", token_correlation=0.3),
    "more entries than lanes": job(1, 35, tokens=5, heads=5, ffn_multiple=2, norm="post", activation="silu"),
    "more tokens than lanes": job(1, 4, tokens=67, norm="pre", lanes=32),
    "post, two blocks": job(2, 6, heads=3, tokens=4, norm="post", query_variance=4.0),
    "deepnorm": job(3, 4, ffn_multiple=3, norm="deepnorm"),
    "no norm": job(2, 4, heads=2, norm="none", activation="elu", scaled_scores=False, branch_scale=0.5),
    "attention only": job(3, 4, heads=4, tokens=5, norm="none", skip=False, ffn_multiple=0),
    "one token": job(2, 4, tokens=1),
    "equal tokens": job(2, 8, heads=2, tokens=5, token_correlation=1.0),
    "width one": job(2, 1, tokens=4, norm="none"),
}


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


def assert_same(found, job):
    network, trials, seed, _ = job
    flow = propagate(network, trials, seed)
    for name, array in zip(QUANTITIES, found, strict=True):
        expected = getattr(flow, name)
        assert array.shape == expected.shape and array.dtype == expected.dtype
        assert array.tobytes() == expected.tobytes(), f"{name}: {array - expected}"


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, order, simulated):
    assert_same(simulated[order][title], JOBS[title])


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):  # noqa: F811
    if lacking := target.missing():
        pytest.skip(lacking)
    network, trials, seed, lanes = JOBS[title]
    monkeypatch.setattr(transformers, "LANES", lanes)
    monkeypatch.setattr(blocks, "RESIDENT", (2, 2048))
    assert_same(transformers.run(network, trials, seed, False), JOBS[title])


# The compiler

LOOPS = ("multiply", "transpose", "combine", "draw_normals", "softmax", "activate_with")


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(transformers.transformer_kernel(name), transformers.signature(), capability)


def frames_of(ptx, architecture):
    """{function: (bytes of stack, spill stores, spill loads)}, at the number of registers that the kernel may have."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(
        arch=architecture, ptxas_options=["-v", "-fmad=false", f"-maxrregcount={transformers.REGISTERS}"], verbose=True
    )
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    found = re.findall(
        r"Function properties for (\S+)\s.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        linker.get_info_log(), re.S,
    )  # fmt: skip
    return {name: tuple(map(int, figures)) for name, *figures in found}


@pytest.mark.parametrize(("name", "architecture"), [*zip(("tanh", "gelu", "relu"), ARCHITECTURES, strict=True)])
def test_the_kernel_compiles_to_strict_code_whose_loops_do_not_spill(name, architecture, toolkit):  # noqa: F811
    ptx = kernel_ptx(name, (int(architecture[3:-1]), int(architecture[-1])))
    assert_strict(ptx)
    code, _ = assembled(ptx, architecture)
    assert code == assembled(ptx, architecture, contract=True)[0], "the assembler found something to contract"
    frames = frames_of(ptx, architecture)
    for loop in LOOPS:
        found = [figures for function, figures in frames.items() if loop in function.partition("B")[0]]
        # a function saves the registers that belong to its caller, each once, and loads them again in the end
        assert found and all(stores == loads <= stack <= 320 for stack, stores, loads in found), loop
    assert max(stack for stack, _, _ in frames.values()) < 1024
