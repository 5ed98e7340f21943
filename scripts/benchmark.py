"""How fast `propagate` is, beside other programs that do the same job, measured in one run by turns.

    python scripts/benchmark.py                 measure, print the tables, write docs/results/benchmark/result.json
    python scripts/benchmark.py --print         print the tables of the saved result

The job: for each of many random tanh networks with Xavier weights, the norms of signal, gradient and weight gradient at
every layer. Before anything is timed, each program's gradient at the bottom is checked against that of `propagate`.
PyTorch and JAX take part where they are installed. Times differ from machine to machine and from run to run: they are
medians over rounds in which all programs take turns, with the least and the most, and what counts are ratios: of the time
that passes and, in brackets, of the time that all threads of the program spend on the processor, which other work on the
machine disturbs less. So this is no experiment of scripts/build.py, and `--check` does not repeat it.

The cost of identical bits: the same kernels once as they are, once with the compiler free to fuse multiplications and
additions (fastmath={'contract'}), once without any fused multiply-add.
"""

import argparse
import functools
import importlib.util
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import experiment
import numpy as np
from style import MUTED, new_figure, ramp

from vgp_kernels import ACTIVATIONS


@dataclass(frozen=True)
class Parameters:
    shapes: tuple = ((64, 32), (64, 128), (256, 128), (1024, 128))  # width, depth
    rounds: int = 7
    seconds: float = 0.4  # for one program's turn, unless a single network takes longer
    sizes: tuple = (128, 256, 512, 1024, 2048, 4096)  # of width and of depth, for the exponents
    other_depth: int = 64  # while the width varies
    other_width: int = 256  # while the depth varies
    activations: tuple = ("tanh", "relu", "gelu", "sigmoid")  # for the cost of identical bits
    threads: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seed: int = 0


# The programs: (trials, width, depth) -> ln |∂E/∂h_l|, (trials, depth + 1), having computed the other norms too


def by_propagate(trials, width, depth):
    from vgp_kernels import Network, propagate

    return propagate(Network(depth, width, "tanh", "xavier"), trials).log_gradient


def by_numpy(trials, width, depth):
    """Explicit matrices, one network after another; float32, NumPy's fastest generator."""
    generator = np.random.Generator(np.random.SFC64(1))
    scale = np.float32(1 / math.sqrt(width))
    log_gradient = np.zeros((trials, depth + 1))
    log_signal, log_weight_gradient = np.zeros((trials, depth + 1)), np.empty((trials, depth))
    for trial in range(trials):
        h, matrices, slopes, norms = np.ones(width, np.float32), [], [], [math.sqrt(width)]
        for layer in range(1, depth + 1):
            matrix = generator.standard_normal((width, width), dtype=np.float32)
            matrix *= scale
            h = np.tanh(matrix @ h)
            matrices.append(matrix)
            slopes.append(1 - h * h)
            norms.append(math.sqrt(h @ h))
            log_signal[trial, layer] = math.log(norms[-1] / math.sqrt(width))
        g = generator.standard_normal(width, dtype=np.float32)
        g /= np.float32(math.sqrt(g @ g))
        total = 0.0
        for layer in range(depth, 0, -1):
            delta = slopes[layer - 1] * g
            norm = math.sqrt(delta @ delta)
            total += math.log(norm)
            log_weight_gradient[trial, layer - 1] = total + math.log(norms[layer - 1])
            g = (delta / np.float32(norm)) @ matrices[layer - 1]
            log_gradient[trial, layer - 1] = total + 0.5 * math.log(g @ g)
    return log_gradient


def by_numpy_without_matrices(trials, width, depth):
    """The algorithm of `propagate`, vectorised over networks and units."""
    generator = np.random.Generator(np.random.SFC64(1))
    scale, layers = np.ones(trials), []
    uu, hu, hh = 1.0, math.sqrt(width) * generator.standard_normal(trials), np.full(trials, float(width))
    layers.append((hh, hu, uu * generator.chisquare(width, trials)))
    for _ in range(depth):
        e = generator.standard_normal((trials, width), dtype=np.float32)
        u = generator.standard_normal((trials, width), dtype=np.float32)
        h = np.tanh(scale.astype(np.float32)[:, None] * e)
        d = 1 - h * h
        p, r = d * u, d * h
        sums = [
            np.einsum("tu,tu->t", x, y) for x, y in ((h, h), (h, u), (u, u), (p, p), (p, r), (r, r), (e, p), (e, r))
        ]
        layers.append((*sums, scale))
        scale = np.sqrt(sums[0] / width)
    log_gradient = np.zeros((trials, depth + 1))
    log_signal = np.stack([0.5 * np.log(layer[0] / width) for layer in layers], axis=1)
    log_weight_gradient = np.empty((trials, depth))
    tau, a, total = 1 / np.sqrt(layers[depth][2]), np.zeros(trials), np.zeros(trials)
    for layer in range(depth, 0, -1):
        _, _, _, pp, pr, rr, ep, er, scale = layers[layer]
        hh, hu, uu = layers[layer - 1][:3]
        norm = np.sqrt(tau * tau * pp + 2 * tau * a * pr + a * a * rr)
        total = total + np.log(norm)
        log_weight_gradient[:, layer - 1] = total + 0.5 * math.log(width) + log_signal[:, layer - 1]
        along = scale * (tau * ep + a * er) / norm / hh
        tau = 1 / math.sqrt(width)
        a = along - tau * hu / hh
        log_gradient[:, layer - 1] = total + 0.5 * np.log(along**2 * hh + tau**2 * (uu - hu * hu / hh))
    return log_gradient


ENTRIES = 250_000_000  # of weight matrices at a time: 1 GB


def portions(trials, width, depth):
    """Networks at a time whose matrices have so many entries."""
    most = max(1, ENTRIES // (width * width * depth))
    return [min(most, trials - first) for first in range(0, trials, most)]


def by_torch(trials, width, depth):
    """Explicit matrices, batched over networks (torch.bmm)."""
    import torch

    def portion(count):
        scale = 1 / math.sqrt(width)
        matrices = torch.randn(depth, count, width, width).mul_(scale)
        h = torch.ones(count, width, 1)
        slopes, norms = [], [torch.linalg.vector_norm(h, dim=(1, 2))]
        for matrix in matrices:
            h = torch.tanh(torch.bmm(matrix, h))
            slopes.append(1 - h * h)
            norms.append(torch.linalg.vector_norm(h, dim=(1, 2)))
        torch.log(torch.stack(norms, 1) / math.sqrt(width))
        g = torch.randn(count, width, 1)
        g = g / torch.linalg.vector_norm(g, dim=(1, 2), keepdim=True)
        total, gradient, weight_gradient = torch.zeros(count), [torch.zeros(count)], []
        for layer in range(depth, 0, -1):
            delta = slopes[layer - 1] * g
            norm = torch.linalg.vector_norm(delta, dim=(1, 2))
            total = total + torch.log(norm)
            weight_gradient.append(total + torch.log(norms[layer - 1]))
            g = torch.bmm(matrices[layer - 1].transpose(1, 2), delta / norm[:, None, None])
            gradient.append(total + torch.log(torch.linalg.vector_norm(g, dim=(1, 2))))
        return torch.stack(gradient[::-1], 1).cpu().numpy()

    torch.set_num_threads(PARAMETERS.threads)
    with torch.no_grad():
        return np.concatenate([portion(count) for count in portions(trials, width, depth)])


def by_jax(trials, width, depth):
    """Explicit matrices, layer by layer (jax.lax.scan), drawn again on the way back instead of kept; compiled."""
    import jax

    return np.concatenate([
        jax.block_until_ready(jax_portion(width, depth)(jax.random.split(jax.random.key(first), count)))
        for first, count in enumerate(portions(trials, width, 1))
    ])  # fmt: skip


def jax_portion(width, depth, compiled={}):  # noqa: B006  # compiled once for each shape
    import jax
    import jax.numpy as jnp

    def run(key):
        keys = jax.random.split(key, depth + 1)

        def matrix(key):
            return jax.random.normal(key, (width, width), jnp.float32) / math.sqrt(width)

        def forward(h, key):
            below = jnp.linalg.norm(h)
            h = jnp.tanh(matrix(key) @ h)
            return h, (1 - h * h, below, jnp.log(jnp.linalg.norm(h) / math.sqrt(width)))

        def back(state, layer):
            (g, total), (key, slope, below) = state, layer
            delta = slope * g
            norm = jnp.linalg.norm(delta)
            total = total + jnp.log(norm)
            g = (delta / norm) @ matrix(key)
            return (g, total), (total + jnp.log(jnp.linalg.norm(g)), total + jnp.log(below))

        _, (slopes, below, log_signal) = jax.lax.scan(forward, jnp.ones(width), keys[:-1])
        g = jax.random.normal(keys[-1], (width,))
        _, (gradient, weight_gradient) = jax.lax.scan(
            back, (g / jnp.linalg.norm(g), 0.0), (keys[:-1], slopes, below), reverse=True
        )
        return jnp.append(gradient, 0.0), weight_gradient, log_signal

    if (width, depth) not in compiled:
        compiled[width, depth] = jax.jit(jax.vmap(run))
    return lambda keys: compiled[width, depth](keys)[0]


PARAMETERS = Parameters()
PROGRAMS: dict[str, tuple[str, str | None, Callable]] = {
    "propagate": ("propagate", None, by_propagate),
    "numpy_same_algorithm": ("NumPy, the same algorithm", None, by_numpy_without_matrices),
    "numpy": ("NumPy, explicit matrices", None, by_numpy),
    "torch": ("PyTorch, explicit matrices", "torch", by_torch),
    "jax": ("JAX, explicit matrices", "jax", by_jax),
}


def installed():
    """The programs that can run here."""
    return {
        name: program
        for name, (_, needs, program) in PROGRAMS.items()
        if needs is None or importlib.util.find_spec(needs) is not None
    }


CLOCKS = {"elapsed": time.perf_counter, "processor": time.process_time}


def seconds(function, *arguments) -> np.ndarray:
    """By each clock: what passes, and what all threads together spend."""
    begin = [clock() for clock in CLOCKS.values()]
    function(*arguments)
    return np.array([clock() for clock in CLOCKS.values()]) - begin


def microseconds(program, trials, width, depth) -> np.ndarray:
    """Per network."""
    return seconds(program, trials, width, depth) / trials * 1e6


def fitting_trials(program, width, depth, budget) -> int:
    """How many networks fill the time, from runs that double until they take a quarter of it."""
    trials = 1
    program(trials, width, depth)  # compiles
    while (taken := seconds(program, trials, width, depth)[0]) < budget / 4:
        trials *= 2
    return max(1, round(trials * budget / taken))


def spread(values) -> dict[str, float]:
    """Median, least and most, to three digits."""
    return {name: float(f"{of(values):.3g}") for name, of in (("median", np.median), ("least", min), ("most", max))}


def by_clock(values: np.ndarray) -> dict[str, dict[str, float]]:
    """The spread over rounds (rows) for each clock (column)."""
    return {name: spread(column) for name, column in zip(CLOCKS, values.T, strict=True)}


def take_turns(runs: dict[object, Callable[[], np.ndarray]], rounds: int) -> dict[object, np.ndarray]:
    """Each run's results, one row from every round."""
    found: dict[object, list[np.ndarray]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return {name: np.array(rows) for name, rows in found.items()}


def compare(p: Parameters) -> list[dict]:
    """Microseconds per network of each program, and how many times those of `propagate`, round by round."""
    rows = []
    for width, depth in p.shapes:
        programs = installed()
        reference = by_propagate(4000, width, depth)[:, 0]
        runs = {}
        for name, program in programs.items():
            trials = fitting_trials(program, width, depth, p.seconds)
            sample = program(trials, width, depth)[:, 0]
            if abs(sample.mean() - reference.mean()) > 6 * reference.std() * math.sqrt(1 / trials + 1 / 4000):
                raise RuntimeError(f"{name} does not compute what propagate computes at width {width}, depth {depth}")
            runs[name] = functools.partial(microseconds, program, trials, width, depth)
        times = take_turns(runs, p.rounds)
        ratios = {name: by_clock(values / times["propagate"]) for name, values in times.items()}
        absolute = {name: by_clock(values) for name, values in times.items()}
        rows.append({"width": width, "depth": depth, "microseconds": absolute, "times": ratios})
        print(f"width {width}, depth {depth}:", {k: v["elapsed"]["median"] for k, v in ratios.items()}, flush=True)
    return rows


def growth(p: Parameters) -> dict:
    """The exponents of width and depth in the processor time per network: slopes of least squares in logarithms."""
    shapes = [(width, p.other_depth) for width in p.sizes], [(p.other_width, depth) for depth in p.sizes]
    found = {}
    for name, series in zip(("width", "depth"), shapes, strict=True):
        runs = {}
        for shape in series:
            trials = 64 * p.threads * max(1, round(fitting_trials(by_propagate, *shape, p.seconds) / (64 * p.threads)))
            runs[shape] = functools.partial(microseconds, by_propagate, trials, *shape)
        times = take_turns(runs, p.rounds)
        medians = [float(np.median(times[shape][:, 1])) for shape in series]
        (slope, _), covariance = np.polyfit(np.log(p.sizes), np.log(medians), 1, cov=True)
        found[name] = {
            "sizes": list(p.sizes),
            "microseconds": [by_clock(times[shape]) for shape in series],
            "exponent": round(float(slope), 3),
            "standard_error": round(float(math.sqrt(covariance[0, 0])), 3),
        }
        print(f"time ~ {name}^{slope:.3f}", flush=True)
    return found


# The cost of identical bits: each variant of the arithmetic lives in a process and a cache of its own

VARIANTS = {
    "identical": "fused where the source says so (the same bits everywhere)",
    "contracted": "fused where the compiler likes (fastmath={'contract'})",
    "unfused": "no fused multiply-add",
}


def prepare(variant: str) -> None:
    """Change the arithmetic before any kernel is compiled."""
    from llvmlite import ir

    from vgp_kernels.numerics import arithmetic

    if variant == "contracted":
        arithmetic.STRICT["fastmath"] = {"contract"}
    if variant == "unfused":
        ir.IRBuilder.fma = lambda builder, a, b, c, name="": builder.fadd(builder.fmul(a, b), c, name)


def nanoseconds_per_unit(activation: str, trials: int, width: int, depth: int) -> float:
    """Of processor time."""
    from vgp_kernels import Network, propagate

    network = Network(depth, width, activation, "xavier")
    return float(seconds(propagate, network, trials)[1]) / (trials * width * depth) * 1e9


def cost_of_identical_bits(p: Parameters, width: int = 1024, depth: int = 32) -> list[dict]:
    """Nanoseconds per unit of each variant and activation, and each variant's ratio to the identical bits."""
    pools, kept = {}, os.environ.get("NUMBA_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        try:
            for variant in VARIANTS:
                os.environ["NUMBA_CACHE_DIR"] = f"{folder}/{variant}"
                context = multiprocessing.get_context("spawn")
                pools[variant] = ProcessPoolExecutor(1, context, initializer=prepare, initargs=(variant,))
                pools[variant].submit(os.getpid).result()
            rows = []
            for activation in p.activations:
                for pool in pools.values():
                    pool.submit(nanoseconds_per_unit, activation, 1, 1, 1).result()  # compiles
                pilot = pools["identical"].submit(nanoseconds_per_unit, activation, 128, width, depth).result()
                trials = 128 * max(1, round(p.seconds * 1e9 / (pilot * 128 * width * depth)))

                def run(pool, activation=activation, trials=trials):
                    return pool.submit(nanoseconds_per_unit, activation, trials, width, depth).result()

                times = take_turns({name: lambda pool=pool: run(pool) for name, pool in pools.items()}, p.rounds)
                ratios = {name: spread(values / times["identical"]) for name, values in times.items()}
                nanoseconds = {name: spread(values) for name, values in times.items()}
                rows.append({"activation": activation, "nanoseconds": nanoseconds, "times": ratios})
                print(f"{activation}:", {name: ratio["median"] for name, ratio in ratios.items()}, flush=True)
            return rows
        finally:
            for pool in pools.values():
                pool.shutdown()
            if kept is None:
                del os.environ["NUMBA_CACHE_DIR"]
            else:
                os.environ["NUMBA_CACHE_DIR"] = kept


FIRST_CALL = """
import time; begin = time.perf_counter()
from vgp_kernels import Network, propagate
imported = time.perf_counter()
propagate(Network(50, 256, "sigmoid", "xavier"), trials=100)
print(imported - begin, time.perf_counter() - imported, time.process_time())
"""


def first_call(p: Parameters) -> dict:
    """Seconds of a new Python process with compiled kernels in the cache: import, first call, processor, and in all."""
    found = []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(p.rounds + 1):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True, env=environment
        )
        found.append((*map(float, done.stdout.split()), time.perf_counter() - begin))
    return {
        name: spread(values)
        for name, values in zip(("import", "call", "processor", "process"), zip(*found[1:], strict=True), strict=True)
    }


def made_with(p: Parameters) -> dict:
    """The machine and the versions."""
    packages = ["numpy", "numba", *(needs for _, needs, _ in PROGRAMS.values() if needs)]
    present = {name: version(name) for name in packages if importlib.util.find_spec(name) is not None}
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "threads": p.threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **present,
        "not_installed": [name for name in packages if name not in present],
    }


def processor() -> str:
    if (information := Path("/proc/cpuinfo")).exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# What the page shows


def taking_part(document: dict) -> list[str]:
    """The other programs, as far as they were installed."""
    return [name for name in PROGRAMS if name != "propagate" and name in document["compare"][0]["times"]]


def compared(document: dict) -> str:
    """Time of `propagate`, and how many times that of the others."""
    rows = [["Width, depth", "`propagate`, µs per network", *(PROGRAMS[name][0] for name in taking_part(document))]]
    for row in document["compare"]:
        ratios = [row["times"][name] for name in taking_part(document)]
        cells = [f"{r['elapsed']['median']:,g}× ({r['processor']['median']:,g}×)" for r in ratios]
        ours = row["microseconds"]["propagate"]["elapsed"]["median"]
        rows.append([f"{row['width']}, {row['depth']}", f"{ours:.4g}", *cells])
    return experiment.markdown_table(rows)


def bits(document: dict) -> str:
    """What identical bits cost."""
    rows = [["Arithmetic", *(ACTIVATIONS[row["activation"]].label for row in document["identical_bits"])]]
    for name, label in VARIANTS.items():
        rows.append([label])
        for row in document["identical_bits"]:
            rows[-1].append(f"{row['nanoseconds'][name]['median']:.3g} ns ({row['times'][name]['median']:.3g}×)")
    return experiment.markdown_table(rows)


def machine(document: dict) -> str:
    """Where and when it was measured."""
    made = document["made_with"]
    packages = ", ".join(f"{name} {made[name]}" for name in ("numpy", "numba", "torch", "jax") if name in made)
    text = f"{made['processor']}, {made['threads']} threads, {made['system']}; Python {made['python']}, {packages}"
    absent = f"; not installed: {', '.join(made['not_installed'])}" if made["not_installed"] else ""
    return f"Measured on {text}{absent}; {made['date']}, load of the machine at the start {made['load']}.\n"


def figure(document: dict):
    """Time per network against the width, at the depth that was measured most."""
    depth = common_depth(document)
    rows = [row for row in document["compare"] if row["depth"] == depth]
    widths = np.array([row["width"] for row in rows])
    drawing, axes = new_figure(7, 4)
    programs = ["propagate", *taking_part(document)]
    for name, colour, marker in zip(programs, ramp(len(programs)), "osD^v", strict=False):
        times = [row["microseconds"][name]["elapsed"] for row in rows]
        median, least, most = (np.array([time[kind] for time in times]) for kind in ("median", "least", "most"))
        bars = [median - least, most - median]
        axes.errorbar(widths, median, bars, color=colour, marker=marker, elinewidth=1, label=PROGRAMS[name][0])
        if name in ("propagate", "numpy"):
            power = 1 if name == "propagate" else 2
            axes.plot(widths, median[0] * (widths / widths[0]) ** power, color=MUTED, linestyle=":", linewidth=1.2)
    axes.set(
        xscale="log", yscale="log", xlabel="width", ylabel="µs per network", xlim=(widths[0] * 0.9, widths[-1] * 4.5)
    )
    axes.set_xticks(widths, map(str, widths))
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    return drawing


def common_depth(document: dict) -> int:
    depths = [row["depth"] for row in document["compare"]]
    return max(depths, key=depths.count)


def caption(document: dict) -> str:
    return (
        f"Time per network of depth {common_depth(document)} by width: medians, with the least and the most of "
        f"{document['parameters']['rounds']} rounds. Dotted: proportional to the width, and to its square. "
        "“NumPy, the same algorithm” makes no matrices either; the other three do."
    )


def alt(document: dict) -> str:
    last = document["compare"][-1]
    ratios = ", ".join(f"{PROGRAMS[n][0]} {last['times'][n]['elapsed']['median']:,g}" for n in taking_part(document))
    return (
        f"At width {last['width']} and depth {last['depth']} the others take many times as long as propagate, and the "
        f"distance grows with the width: {ratios} times."
    )


def data(document: dict) -> list[list]:
    rows = [
        ["width", "depth", "program", "clock", "microseconds", "least", "most", "times", "times_least", "times_most"]
    ]
    for row in document["compare"]:
        for name, by_clocks in row["microseconds"].items():
            for clock, time_taken in by_clocks.items():
                ratio = row["times"][name][clock]
                rows.append([row["width"], row["depth"], name, clock, *time_taken.values(), *ratio.values()])
    return rows


def draw(document: dict) -> dict[str, str | bytes]:
    """Everything that the performance page includes, by file name."""
    return {
        **experiment.figure_files(
            "benchmark", figure(document), alt(document), caption(document), "python scripts/benchmark.py"
        ),
        "table.md": compared(document),
        "bits.md": bits(document),
        "machine.md": machine(document),
        "data.csv": experiment.to_csv(data(document)),
    }


def numbers(document: dict) -> dict[str, float]:
    """Medians: the time of `propagate`, ratios by elapsed and by processor time, exponents, the first call."""
    found = {}
    for row in document["compare"]:
        shape = f"{row['width']}_{row['depth']}"
        found[f"microseconds_{shape}"] = row["microseconds"]["propagate"]["elapsed"]["median"]
        for name in taking_part(document):
            found[f"{name}_{shape}"] = row["times"][name]["elapsed"]["median"]
            found[f"{name}_processor_{shape}"] = row["times"][name]["processor"]["median"]
    for name, growth_of in document["growth"].items():
        found |= {f"{name}_exponent": growth_of["exponent"], f"{name}_exponent_error": growth_of["standard_error"]}
    for row in document["identical_bits"]:
        found |= {f"{name}_{row['activation']}": row["times"][name]["median"] for name in VARIANTS}
        found[f"nanoseconds_{row['activation']}"] = row["nanoseconds"]["identical"]["median"]
    contracted = [row["times"]["contracted"]["median"] for row in document["identical_bits"]]
    unfused = [row["times"]["unfused"]["median"] for row in document["identical_bits"]]
    found |= {"contracted_least": min(contracted), "contracted_most": max(contracted)}
    found |= {"unfused_least": min(unfused), "unfused_most": max(unfused)}
    return found | {f"first_{name}": spread_of["median"] for name, spread_of in document["first_call"].items()}


def report(document: dict) -> str:
    """The tables, for a terminal."""
    growth_of, first = document["growth"], document["first_call"]
    lines = [machine(document), compared(document), bits(document)]
    lines += [f"time ~ {name}^({g['exponent']} ± {g['standard_error']})" for name, g in growth_of.items()]
    lines.append(
        f"first call in a new process: {first['process']['median']:.2f} s from start to end, "
        f"{first['processor']['median']:.2f} s on the processor"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the saved result, measure nothing")
    if parser.parse_args().print:
        print(report(experiment.saved("benchmark")))
        return 0
    p = PARAMETERS
    document = {
        "about": __doc__.partition("\n")[0],
        "parameters": asdict(p),
        "made_with": made_with(p),
        "first_call": first_call(p),
        "compare": compare(p),
        "growth": growth(p),
        "identical_bits": cost_of_identical_bits(p),
    }
    experiment.write(experiment.folder("benchmark") / "result.json", experiment.to_json(document) + "\n")
    print(report(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
