"""How fast `propagate` is on a GPU, and whether it gives the processor's bits there.

    python scripts/benchmark_cuda.py               verify, measure, print the tables, write docs/results/cuda/result.json
    python scripts/benchmark_cuda.py --verify      only compare the bits with the CPU's
    python scripts/benchmark_cuda.py --print       print the tables of the saved result
    python scripts/benchmark_cuda.py --resources   registers, spills and instructions of the kernels; needs no GPU

Nothing is measured unless every job of `verified` and `trained` gives the CPU's bits. Kernels are timed by CUDA
events, programs by the clock on the wall, results on the host included, and in turns with PyTorch and JAX, explicit
matrices on the same GPU, where they are installed. A floor is the time in which the GPU could at best

    issue     issue the instructions of the units' loop, 128 a cycle and multiprocessor (four schedulers with 32 lanes)
    special   start its special functions (reciprocals and roots), 16 a cycle and multiprocessor
    memory    write and read the sums once, at the speed of a copy within the memory

It is stated for the highest clock that the card reports. `nvdisasm`, which counts the instructions, is part of the CUDA
toolkit and a package: pip install nvidia-cuda-nvdisasm.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import benchmark
import experiment
import numpy as np
from benchmark import spread, take_turns

from vgp_kernels import ACTIVATIONS, Network, Recurrent, Transformer, propagate, train
from vgp_kernels.plain import cuda as plain
from vgp_kernels.targets import compiling
from vgp_kernels.targets import gpu as target
from vgp_kernels.transformer.network import NORMS

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
SPECIAL = 16  # special functions a cycle and multiprocessor
LANES = 128  # instructions a cycle and multiprocessor, counted by threads


@dataclass(frozen=True)
class Parameters:
    shapes: tuple = ((64, 32), (256, 128), (1024, 128))  # width, depth
    networks: tuple = (1_000, 10_000, 100_000)  # from too few to fill a GPU to enough
    activations: tuple = ("relu", "tanh", "sigmoid", "gelu")
    rounds: int = 9
    warm_up: int = 3
    most: int = 1_000_000  # networks of a program's turn, so that its results fit into memory
    seconds: float = 0.4  # for one program's turn, unless a single network takes longer
    seed: int = 0


PARAMETERS = Parameters()


# Verifying

Job = tuple[Network | Recurrent | Transformer, int, int, dict]  # network, trials, seed, what else `propagate` is given
NAMES = [*ACTIVATIONS, "leaky_relu(0.3)", "elu(0.5)"]


def verified() -> list[Job]:
    """What must give the CPU's bits: of every family, every activation and option, and corner cases."""
    return [*plain_networks(), *batches(), *recurrent_networks(), *transformers()]


def plain_networks() -> list[Job]:
    laws = [
        {"weight_variance": 1.7}, {"weight_variance": 1.7, "bias_variance": 0.4}, {"initialiser": "orthogonal"},
        {"initialiser": "orthogonal", "weight_variance": 0.8, "bias_variance": 0.2},
    ]  # fmt: skip
    jobs: list[Job] = [
        (Network(6, 131, name, **law), 300, seed, {}) for seed, (name, law) in enumerate(itertools.product(NAMES, laws))
    ]
    jobs += [
        (Network(4, width, "tanh", "xavier", input_width=7), 1000, 2**63 + width, {}) for width in (1, 2, 3, 255, 1025)
    ]
    jobs += [(Network(40, 3, "relu", weight_variance=variance), 500, 1, {}) for variance in (1e-12, 1e12)]
    jobs += [(Network(3, 2, "relu", "he"), 300_000, 2, {})]  # more than pass through at a time; many are born dead
    return [*jobs, (Network(5_000, 64, "tanh", weight_variance=1.2), 40, 3, {})]


def batches() -> list[Job]:
    laws = [{"weight_variance": 1.7}, {"initialiser": "orthogonal"}]
    norms: list[dict] = [{}]
    norms += [
        {"normalisation": norm, "norm_position": place}
        for norm, place in itertools.product(("batch", "batch_inference", "layer", "rms"), ("pre", "post"))
    ]
    skips: list[dict] = [{}]
    skips += [{"residual": skip, "residual_scale": 0.7} for skip in ("preactivation", "postactivation", "two_weights")]
    jobs: list[Job] = [
        (Network(4, width, "tanh", batch_size=size, input_correlation=0.3, **law, **norm, **skip), 50, size, {})
        for (width, size), law, norm, skip in itertools.product([(37, 3), (131, 40)], laws, norms, skips)
    ]
    jobs += [
        (
            Network(3, 65, name, "xavier", bias_variance=0.2, batch_size=5, input_width=9),
            100,
            7,
            {"loss_gradient": "shared"},
        )
        for name in NAMES
    ]
    jobs += [(Network(5, 33, "relu", weight_variance=scale, batch_size=3), 50, 1, {}) for scale in (1e-12, 1e12)]
    return [*jobs, (Network(1_000, 256, "tanh", "xavier", batch_size=32), 10, 2, {})]  # in segments


def recurrent_networks() -> list[Job]:
    cells, laws = ("tanh", "lstm", "gru"), ("lecun", "orthogonal", "pytorch")
    jobs: list[Job] = [
        (Recurrent(6, 45, name, "lecun", input_width=7), 200, seed, {}) for seed, name in enumerate(NAMES)
    ]
    jobs += [
        (Recurrent(5, width, cell, law, initial_rms=0.8), 100, width, {})
        for cell, law, width in itertools.product(cells, laws, (1, 33, 100))
    ]
    jobs += [(Recurrent(40, 64, cell, "pytorch", longest_memory=30), 100, 2**63, {}) for cell in ("lstm", "gru")]
    return [*jobs, (Recurrent(500, 300, "tanh", "orthogonal", weight_variance=1.2), 5, 1, {})]


def transformers() -> list[Job]:
    jobs: list[Job] = [
        (Transformer(3, 40, heads=4, tokens=6, ffn_multiple=2, activation=name), 50, seed, {})
        for seed, name in enumerate(NAMES)
    ]
    jobs += [
        (Transformer(2, 33, heads=3, tokens=tokens, ffn_multiple=multiple, activation="gelu", norm=norm), 40, 2**63, {})
        for tokens, multiple, norm in itertools.product((1, 5, 130), (0, 1), NORMS)
    ]
    jobs += [
        (Transformer(3, 7, tokens=4, skip=False, norm="none", scaled_scores=False), 1000, 1, {}),
        (Transformer(3, 16, heads=2, tokens=5, token_correlation=1.0, query_variance=9.0), 200, 2, {}),
        (Transformer(24, 64, heads=4, norm="deepnorm"), 100, 3, {}),
        (Transformer(4, 512, heads=8, tokens=32, branch_scale=0.3), 10, 4, {}),
    ]
    return jobs


def trained() -> list[tuple[Network, dict]]:
    """(network, what else `train` is given): every norm, skip, optimiser and activation, and networks that diverge."""
    norms: list[dict] = [{}, *({"normalisation": norm, "batch_size": 8} for norm in ("batch", "layer", "rms"))]
    skips: list[dict] = [{}, *({"residual": skip} for skip in ("preactivation", "postactivation", "two_weights"))]
    jobs = [
        (Network(3, 21, "tanh", "he", **norm, **skip), {"optimiser": optimiser})
        for norm, skip, optimiser in itertools.product(norms, skips, ("sgd", "momentum", "adam"))
    ]
    jobs += [(Network(3, 64, name, "he", bias_variance=0.1), {"batch_size": 29}) for name in NAMES]
    return [*jobs, (Network(3, 64, "relu", "he"), {"learning_rate": 1e9})]


def examples(count: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, and labels that depend on them."""
    inputs = np.random.default_rng(0).standard_normal((count, features)).astype(np.float32)
    return inputs, (inputs[:, :3] > 0).sum(axis=1)


def verify() -> int:
    """How many networks gave the CPU's bits; raises RuntimeError at the first job that did not."""
    count = 0
    for network, trials, seed, options in verified():
        on_cpu, on_gpu = (propagate(network, trials, seed, name, **options) for name in ("cpu", "cuda"))
        assert_same(network, on_cpu, on_gpu)
        count += trials
    inputs, labels = examples(100, 12)
    for network, options in trained():
        given = {"learning_rate": 0.05, "epochs": 2, "batch_size": 8, "trials": 20} | options
        assert_same(network, *(train(network, inputs, labels, target=name, **given) for name in ("cpu", "cuda")))
        count += given["trials"]
    return count


def assert_same(network: object, on_cpu: object, on_gpu: object) -> None:
    """RuntimeError unless all arrays of two results have the same bits."""
    for name, expected in vars(on_cpu).items():
        found = getattr(on_gpu, name)
        if isinstance(expected, np.ndarray) and found.tobytes() != expected.tobytes():
            differ = ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
            raise RuntimeError(
                f"{network}: {differ.sum()} of {differ.size} in {name} differ, by up to {np.abs(found - expected)[differ].max():.3g}"
            )


# Machine code


def assembled(ptx: str, architecture: str, contract: bool = False) -> tuple[bytes, dict[str, int]]:
    """The machine code, by the linker that Numba uses, and what it needs: registers, bytes of stack and of spills."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    text = re.sub(r"\.target sm_\w+", f".target {architecture}", ptx)
    options = LinkerOptions(arch=architecture, ptxas_options=["-v", f"-fmad={str(contract).lower()}"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    code = re.sub(
        rb"-fmad (false |true \0)", b"-fmad" + bytes(7), bytes(linker.link("cubin").code)
    )  # it notes its options
    log = linker.get_info_log()
    # of the kernel, and of every function that it calls
    found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    used = re.findall(r"used (\d+) registers", log)
    if not found or not used:
        raise RuntimeError(f"the linker says nothing of registers and spills:\n{log}")
    stack, stores, loads = (sum(map(int, column)) for column in zip(*found, strict=True))
    return code, {"registers": max(map(int, used)), "stack": stack, "spill_stores": stores, "spill_loads": loads}


def units_kernel(name: str) -> Callable:
    """The loop over unit pairs and nothing else: what is counted for the floor."""
    from numba import cuda

    from vgp_kernels.numerics.arithmetic import ONE, ZERO
    from vgp_kernels.numerics.randomness import u32
    from vgp_kernels.plain.recursion import add_pair

    def run(pairs, scales, seed, sums):
        thread = cuda.grid(1)
        hh = pp = pr = rr = hu = ep = er = uu = ZERO
        for pair in range(pairs):
            hh, pp, pr, rr, hu, ep, er, uu = add_pair(
                name,
                False,
                pair,
                ONE,
                scales[thread],
                ZERO,
                u32(thread),
                seed,
                seed,
                seed,
                hh,
                pp,
                pr,
                rr,
                hu,
                ep,
                er,
                uu,
            )
        sums[0, thread], sums[1, thread], sums[2, thread], sums[3, thread] = hh, pp, pr, rr
        sums[4, thread], sums[5, thread], sums[6, thread], sums[7, thread] = hu, ep, er, uu

    return run


@functools.cache
def instructions_per_pair(name: str, architecture: str) -> dict[str, int]:
    """The instructions of one turn of the loop over unit pairs, by kind."""
    from numba import types

    single = types.float32
    signature = types.void(types.int64, single[::1], types.uint32, single[:, ::1])
    major, minor = divmod(int(architecture.removeprefix("sm_")), 10)
    code, _ = assembled(compiling.ptx(units_kernel(name), signature, (major, minor)), architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        listing = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=True).stdout
    loop = longest_loop(listing)
    special = sum(word.startswith("MUFU") for word in loop)
    fused = sum(word.startswith("FFMA") for word in loop)
    return {"all": len(loop), "fused_multiply_add": fused, "special": special}


def disassembler() -> str:
    """The path of nvdisasm; RuntimeError if there is none."""
    packages = [Path(path) for path in sys.path if path]
    found = shutil.which("nvdisasm") or next(
        (str(file) for path in packages for file in path.glob("nvidia/*/bin/nvdisasm")), None
    )
    if found is None:
        raise RuntimeError("nvdisasm is missing: pip install nvidia-cuda-nvdisasm, or take it from the CUDA toolkit")
    return found


def longest_loop(listing: str) -> list[str]:
    """The opcodes of the longest loop that has no other loop in it."""
    words: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(words)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*);", line):
            words.append(found[1])
            back = re.search(r"`\((\.L_x_\d+)\)", found[2])
            if found[1].startswith("BRA") and back and back[1] in labels:
                loops.append((labels[back[1]], len(words)))
    innermost = [
        (begin, end) for begin, end in loops
        if not any(begin <= other[0] and other[1] <= end and other != (begin, end) for other in loops)
    ]  # fmt: skip
    begin, end = max(innermost, key=lambda loop: loop[1] - loop[0])
    return words[begin:end]


def resources() -> list[list[str]]:
    """A table of all kernels: registers on each architecture, bytes spilt, and instructions per unit on the last."""
    rows = [
        [
            "Kernel",
            *(f"registers, {architecture}" for architecture in ARCHITECTURES),
            "bytes spilt",
            "instructions a unit",
        ]
    ]
    compiled = {name: (plain.forward_kernel(name), plain.FORWARD) for name in ACTIVATIONS}
    others = {"input": (plain.run_input, plain.INPUT), "back": (plain.run_back, plain.BACK)}
    for name, (kernel, signature) in (compiled | others).items():
        ptx = compiling.ptx(kernel, signature, (7, 5))
        figures = [assembled(ptx, architecture)[1] for architecture in ARCHITECTURES]
        spilt = sum(row["spill_stores"] + row["spill_loads"] for row in figures)
        count = "" if name in others else f"{instructions_per_pair(name, ARCHITECTURES[-1])['all'] / 2:.0f}"
        rows.append([name, *(str(row["registers"]) for row in figures), str(spilt), count])
    return rows


# Measuring


@dataclass(frozen=True)
class Device:
    """What the floors need to know of a GPU."""

    architecture: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float


def device() -> Device:
    from numba import cuda

    gpu = cuda.get_current_device()
    major, minor = gpu.compute_capability
    hertz = float(nvidia_smi("clocks.max.sm").split()[0]) * 1e6
    return Device(f"sm_{major}{minor}", gpu.MULTIPROCESSOR_COUNT, hertz, copy_speed())


def nvidia_smi(field: str) -> str:
    """What the driver says of the GPU that is measured."""
    from numba import cuda

    identity = cuda.get_current_device().uuid
    command = ["nvidia-smi", f"--id={identity}", f"--query-gpu={field}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def by_events(work: Callable, stream, p: Parameters) -> np.ndarray:
    """Seconds of each round, on the GPU's own clock."""
    from numba import cuda

    begin, end = cuda.event(), cuda.event()
    for _ in range(p.warm_up):
        work()
    found = []
    for _ in range(p.rounds):
        begin.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return np.array(found)


def copy_speed(size: int = 2**28) -> float:
    """Bytes read and written a second by a copy within the GPU's memory."""
    from numba import cuda

    source, copy = cuda.device_array(size, np.uint8), cuda.device_array(size, np.uint8)
    stream = cuda.stream()
    taken = by_events(lambda: copy.copy_to_device(source, stream=stream), stream, PARAMETERS)
    return 2 * size / float(np.median(taken))


def kernel_seconds(network: Network, networks: int, p: Parameters) -> np.ndarray:
    """Of one portion on the GPU, forward and back, without copies."""
    from numba import cuda

    workers = plain.workers_for(networks, network.width)
    lanes = plain.THREADS // workers
    room = plain.Room(math.ceil(networks / lanes) * lanes, network.depth, None)
    capability = cuda.get_current_device().compute_capability
    launch = plain.launcher(network, p.seed, capability, (lanes, workers))
    return by_events(lambda: launch(room, 0, networks, 0), room.stream, p)


def floors(network: Network, gpu: Device) -> dict[str, float]:
    """Seconds per network that no program with these instructions and sums can beat on this GPU."""
    counts = instructions_per_pair(network.activation, gpu.architecture)
    pairs = math.ceil(network.width / 2) * network.depth
    cycles = gpu.multiprocessors * gpu.hertz
    return {
        "issue": pairs * counts["all"] / LANES / cycles,
        "special": pairs * counts["special"] / SPECIAL / cycles,
        "memory": 2 * plain.bytes_per_network(network.depth) / gpu.bytes_per_second,
    }


def kernels(p: Parameters) -> list[dict]:
    """Microseconds per network of the kernels alone, and their distance to the highest floor."""
    gpu, rows = device(), []
    for (width, depth), networks in itertools.product(p.shapes, p.networks):
        for name in p.activations if networks == max(p.networks) else ("tanh",):
            network = Network(depth, width, name, "xavier")
            taken = kernel_seconds(network, networks, p) / networks * 1e6
            lowest = {kind: seconds * 1e6 for kind, seconds in floors(network, gpu).items()}
            rows.append({
                "activation": name, "width": width, "depth": depth, "networks": networks,
                "microseconds": spread(taken),
                "floors": {kind: float(f"{value:.3g}") for kind, value in lowest.items()},
                "over_floor": spread(taken / max(lowest.values())),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def by_gpu(trials: int, width: int, depth: int) -> np.ndarray:
    return propagate(Network(depth, width, "tanh", "xavier"), trials, target="cuda").log_gradient


def by_gpu_kept(trials: int, width: int, depth: int) -> np.ndarray:
    """Only the gradient at the bottom is fetched."""
    flow = propagate(Network(depth, width, "tanh", "xavier"), trials, target="cuda", output="device")
    return flow.log_gradient[:, :1].copy_to_host()


def by_torch(trials: int, width: int, depth: int) -> np.ndarray:
    import torch

    with torch.device("cuda"):
        return benchmark.by_torch(trials, width, depth)


# networks of every other family, and how they are run: (trials, target)
FAMILIES: dict[str, Callable] = {
    title: functools.partial(lambda network, trials, name: propagate(network, trials, target=name), network)
    for title, network in {
        "32 inputs, batch norm, 50 layers of 256": Network(50, 256, "relu", "he", batch_size=32, normalisation="batch"),
        "layer norm and skips, 100 layers of 256": Network(
            100, 256, "gelu", "he", normalisation="layer", residual="preactivation"
        ),
        "tanh, 100 steps, width 128": Recurrent(100, 128, "tanh", "orthogonal"),
        "LSTM, 100 steps, width 128": Recurrent(100, 128, "lstm", "pytorch"),
        "transformer, 12 blocks of width 128": Transformer(12, 128, heads=4),
    }.items()
}


def by_training(trials: int, name: str) -> object:
    options = {"learning_rate": 0.01, "epochs": 2, "trials": trials, "target": name}
    return train(Network(10, 64, "tanh", "xavier"), *examples(640, 64), **options)


FAMILIES["20 steps of training 10 layers of 64"] = by_training


def families(p: Parameters) -> list[dict]:
    """Microseconds per network of every other family, and how many times as long the processor takes."""
    rows = []
    for title, program in FAMILIES.items():
        runs, trials = {}, {}
        for name in ("cuda", "cpu"):
            trials[name] = fitting_trials(lambda count, *_, program=program, name=name: program(count, name), 0, 0, p)

            def run(program=program, name=name, count=trials[name]):
                begin = time.perf_counter()
                program(count, name)
                return np.array((time.perf_counter() - begin) / count * 1e6)

            runs[name] = run
        times = take_turns(runs, p.rounds)
        rows.append({
            "family": title, "trials": trials,
            "microseconds": {name: spread(values) for name, values in times.items()},
            "times": spread(times["cpu"] / times["cuda"]),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


PROGRAMS: dict[str, tuple[str, Callable]] = {
    "cuda": ("propagate on the GPU", by_gpu),
    "cuda_kept": ("the same, results left there", by_gpu_kept),
    "cpu": ("propagate on the processor", benchmark.by_propagate),
    "torch": ("PyTorch on the GPU, explicit matrices", by_torch),
    "jax": ("JAX on the GPU, explicit matrices", benchmark.by_jax),
}


def left_out() -> dict[str, str]:
    """The programs that cannot run here, and why."""
    reasons = {}
    for name in ("torch", "jax"):
        if importlib.util.find_spec(name) is None:
            reasons[name] = "not installed"
    if "torch" not in reasons:
        import torch

        if not torch.cuda.is_available():
            reasons["torch"] = "installed without CUDA"
    if "jax" not in reasons:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared with the others
        import jax

        if jax.default_backend() != "gpu":
            reasons["jax"] = "installed without CUDA"
    return reasons


def fitting_trials(program: Callable, width: int, depth: int, p: Parameters) -> int:
    """How many networks fill a turn, but no more than `most`, from runs that double until they take a quarter of it."""
    trials = 1
    program(trials, width, depth)  # compiles
    while (taken := benchmark.seconds(program, trials, width, depth)[0]) < p.seconds / 4 and trials < p.most:
        trials = min(2 * trials, p.most)
    return min(max(1, round(trials * p.seconds / taken)), p.most)


def programs(p: Parameters) -> list[dict]:
    """Microseconds per network of each program, results on the host included, and how many times those of the first."""
    from numba import cuda

    rows, skipped = [], left_out()
    benchmark.ENTRIES = int(cuda.current_context().get_memory_info().free // 16)  # a quarter of the GPU's memory
    for width, depth in p.shapes:
        reference = benchmark.by_propagate(4000, width, depth)[:, 0]
        runs, trials = {}, {}
        for name, (_, program) in PROGRAMS.items():
            if name in skipped:
                continue
            trials[name] = fitting_trials(program, width, depth, p)
            sample = program(trials[name], width, depth)[:, 0]
            if abs(sample.mean() - reference.mean()) > 6 * reference.std() * math.sqrt(1 / len(sample) + 1 / 4000):
                raise RuntimeError(f"{name} does not compute what propagate computes at width {width}, depth {depth}")

            def run(program=program, count=trials[name], width=width, depth=depth):
                begin = time.perf_counter()
                program(count, width, depth)
                return np.array((time.perf_counter() - begin) / count * 1e6)

            runs[name] = run
        times = take_turns(runs, p.rounds)
        rows.append({
            "width": width, "depth": depth, "trials": trials,
            "microseconds": {name: spread(values) for name, values in times.items()},
            "times": {name: spread(values / times["cuda"]) for name, values in times.items()},
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def made_with() -> dict:
    """The GPU, the driver, the clocks before and after, the versions."""
    from numba import cuda

    packages = ["numba", "numba-cuda", "numpy", "torch", "jax", "nvidia-nvvm", "nvidia-nvjitlink"]
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {
        "date": date.today().isoformat(),
        "gpu": nvidia_smi("name"),
        "gpus": len(cuda.gpus),
        "driver": nvidia_smi("driver_version"),
        "compute_capability": ".".join(map(str, cuda.get_current_device().compute_capability)),
        "multiprocessors": cuda.get_current_device().MULTIPROCESSOR_COUNT,
        "clocks": nvidia_smi("clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu,persistence_mode"),
        "processor": benchmark.processor(),
        "threads": benchmark.PARAMETERS.threads,
        "python": platform.python_version(),
        **found,
        "left_out": left_out(),
        "command": "python scripts/benchmark_cuda.py",
    }


# Showing


def draw(document: dict) -> dict[str, str]:
    """The part of the performance page that a GPU has measured."""
    kernel_rows = [["Activation", "Width, depth", "Networks", "µs a network", "Over the floor"]]
    for row in document["kernels"]:
        taken, over = row["microseconds"], row["over_floor"]
        kernel_rows.append([
            row["activation"], f"{row['width']}, {row['depth']}", f"{row['networks']:,}",
            f"{taken['median']:.3g} ({taken['least']:.3g} to {taken['most']:.3g})", f"{over['median']:.2f}",
        ])  # fmt: skip
    names = [name for name in PROGRAMS if name in document["programs"][0]["times"]]
    program_rows = [["Width, depth", "µs a network", *(PROGRAMS[name][0] for name in names[1:])]]
    for row in document["programs"]:
        times = [f"{row['times'][name]['median']:,.3g}×" for name in names[1:]]
        program_rows.append([f"{row['width']}, {row['depth']}", f"{row['microseconds']['cuda']['median']:.3g}", *times])
    family_rows = [["Networks", "µs a network", "the processor"]]
    for row in document["families"]:
        taken = f"{row['microseconds']['cuda']['median']:,.3g}"
        family_rows.append([row["family"], taken, f"{row['times']['median']:,.3g}×"])
    m = document["made_with"]
    skipped = "; ".join(f"{name}: {why}" for name, why in m["left_out"].items()) or "nothing"
    verified = f"{document['verified_networks']:,} networks, of every kind, were run on both first: the bits are those of the CPU."
    text = [
        f"Measured on {m['gpu']}, driver {m['driver']}, numba-cuda {m['numba-cuda']}, {m['date']}; left out: {skipped}. {verified}",
        "Time of one network of many, results on the host included, and how many times as long other programs take:",
        experiment.markdown_table(program_rows),
        "The other families, and how many times as long all cores of the processor take:",
        experiment.markdown_table(family_rows),
        "The kernels alone, by CUDA events, and how many times the floor: the time in which the card could at best issue their "
        "instructions, start their special functions or move their bytes.",
        experiment.markdown_table(kernel_rows),
    ]
    return {"table.md": "\n\n".join(text)}


def numbers(document: dict) -> dict[str, float]:
    found: dict[str, float] = {"verified_networks": document["verified_networks"]}
    for row in document["programs"]:
        shape = f"{row['width']}_{row['depth']}"
        found[f"microseconds_{shape}"] = row["microseconds"]["cuda"]["median"]
        found |= {f"{name}_{shape}": times["median"] for name, times in row["times"].items()}
    for row in document["kernels"]:
        key = f"over_floor_{row['activation']}_{row['width']}_{row['depth']}_{row['networks']}"
        found[key] = row["over_floor"]["median"]
    return found


RESULT = experiment.folder("cuda") / "result.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--verify", action="store_true", help="only compare the bits with the CPU's")
    mode.add_argument("--print", action="store_true", help="print the tables of the saved result")
    mode.add_argument("--resources", action="store_true", help="registers, spills and instructions; needs no GPU")
    options = parser.parse_args()
    if options.print:
        if not RESULT.exists():
            print("not measured yet: no GPU has run this command")
            return 0
        print(*draw(json.loads(RESULT.read_text())).values(), sep="\n")
        return 0
    if options.resources:
        if not target.INSTALLED:
            print(target.missing(), file=sys.stderr)
            return 1
        print(experiment.markdown_table(resources()))
        return 0
    if lacking := target.missing():
        print(f"cannot measure here: {lacking}", file=sys.stderr)
        return 1
    count = verify()
    print(f"{count:,} networks give the bits of the CPU")
    if options.verify:
        return 0
    p = PARAMETERS
    before = made_with()
    document = {
        "about": __doc__.partition("\n")[0],
        "parameters": asdict(p),
        "made_with": before,
        "verified_networks": count,
        "kernels": kernels(p),
        "programs": programs(p),
        "families": families(p),
        "clocks_after": nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu"),
    }
    experiment.write(RESULT, experiment.to_json(document) + "\n")
    print(*draw(document).values(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
