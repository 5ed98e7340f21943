"""What a GPU would do, without one: kernels under the simulator, and their machine code."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

from benchmark_cuda import assembled

PROGRAM = """
import pickle, sys
import simulator

simulator.BACKWARDS = {backwards}
simulator.interpret{rooms}
from vgp_kernels.targets import blocks

blocks.RESIDENT = 2, 2048  # blocks: fewer than networks
{run}
jobs = pickle.load(open(sys.argv[1], "rb"))
pickle.dump([run(*job) for job in jobs], open(sys.argv[2], "wb"))
"""


def simulated(rooms: tuple[str, ...], run: str, jobs: dict, order: str, folder: Path) -> dict:
    """{title: run(*job)}, from a process whose numba-cuda simulates a GPU, its lanes one after another in this order.

    `rooms` are the modules of the package that have code for several lanes, `run` is the source of the function.
    """
    (folder / "jobs").write_bytes(pickle.dumps([*jobs.values()]))
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": path}
    program = PROGRAM.format(backwards=order == "backwards", rooms=rooms, run=run)
    command = [sys.executable, "-c", program, str(folder / "jobs"), str(folder / "results")]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(jobs, pickle.loads((folder / "results").read_bytes()), strict=True))


def assert_same_bits(expected: object, found: dict) -> None:
    """The arrays found are those of a result with these names."""
    for name, array in found.items():
        wanted = getattr(expected, name)
        assert array.shape == wanted.shape and array.dtype == wanted.dtype
        assert array.tobytes() == wanted.tobytes(), f"{(array != wanted).sum()} of {array.size} differ in {name}"


def assert_strict(ptx: str) -> None:
    """Nothing in the PTX but arithmetic that IEEE 754 defines."""
    floating = re.findall(
        r"^\s+((?:add|sub|mul|fma|mad|div|rcp|sqrt|rsqrt|ex2|lg2|sin|cos|tanh)\.[\w.]*f(?:32|64))", ptx, re.M
    )
    assert len(floating) > 50
    assert {re.sub(r"\.f(32|64)$", "", word) for word in floating} <= {
        "add.rn", "sub.rn", "mul.rn", "fma.rn", "div.rn", "rcp.rn", "sqrt.rn"
    }  # fmt: skip


def strictly_assembled(ptx: str, architecture: str) -> dict[str, int]:
    """Registers, stack and spills of machine code in which nothing was there to contract."""
    assert_strict(ptx)
    code, figures = assembled(ptx, architecture)
    assert code == assembled(ptx, architecture, contract=True)[0], "the assembler found something to contract"
    return figures


def frames_of(ptx: str, architecture: str) -> dict[str, tuple[int, int, int]]:
    """{function: (bytes of stack, spill stores, spill loads)} of a kernel and the functions that it calls."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=architecture, ptxas_options=["-v", "-fmad=false"], verbose=True)
    text = re.sub(r"\.target sm_\w+", f".target {architecture}", ptx)
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    linker.link("cubin")
    found = re.findall(
        r"Function properties for (\S+)\s.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        linker.get_info_log(), re.S,
    )  # fmt: skip
    return {name: (int(stack), int(stores), int(loads)) for name, stack, stores, loads in found}


def assert_nothing_spills(frames: dict[str, tuple[int, int, int]], kernel: str, loops: tuple[str, ...]) -> None:
    """Neither the kernel spills registers nor do the functions that hold the loops over entries.

    The others save the registers that belong to their caller, each once, and load them again in the end: the calling
    convention asks for it, and the assembler counts it as spills.
    """
    for name, (_, stores, loads) in frames.items():
        assert stores == loads, name
    for name in (kernel, *loops):
        found = [figures for function, figures in frames.items() if name in function.partition("B")[0]]
        assert found and all(stores == loads == 0 for _, stores, loads in found), name
