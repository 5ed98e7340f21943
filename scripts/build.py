"""Compute the results of the site and draw its figures and tables.

    python scripts/build.py                    compute what is stale, draw what is outdated
    python scripts/build.py --only NAME        only this experiment (may be repeated)
    python scripts/build.py --list             what there is, and in which state
    python scripts/build.py --draw             draw again from the saved results, compute nothing
    python scripts/build.py --force            compute again, stale or not
    python scripts/build.py --check            compute again in memory and compare with what is committed
    python scripts/build.py --target cuda      compute on NVIDIA GPUs what has a kernel for them; may go with all others

Files are replaced whole or not at all: an experiment that fails, or an interruption, leaves the last good ones.
Exit code: 0 all is well; 1 an experiment, a claim or a check failed; 2 wrong usage.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from types import ModuleType

import drawing
import experiment
import ledger
from experiment import Failed
from tqdm import tqdm

from vgp_kernels import ACTIVATIONS
from vgp_kernels.targets import cache

HERO = "depth_decay"  # its figure is the README's picture, the only one that is committed


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(arguments)
    if options.list:
        print_list(options.only)
        return 0
    if lacking := cache.compiler_missing():
        print(lacking, file=sys.stderr)
        return 1
    if options.target == "cuda":
        from vgp_kernels.targets import gpu as cuda  # takes a second

        if lacking := cuda.missing():
            print(f"--target cuda cannot run here: {lacking}", file=sys.stderr)
            return 1
    os.environ["VGP_TARGET"] = options.target  # for `propagate`, in the processes of all experiments
    action = check if options.check else draw if options.draw else force if options.force else update
    begin = time.perf_counter()
    failures = [name for name, details in attempts(action, options.only) if details]
    if not options.check and show("tables", *attempt(write_tables)):
        failures.append("tables")
    verdict = f"failed: {', '.join(failures)}" if failures else "all is well"
    print(f"{len(options.only)} experiments in {time.perf_counter() - begin:.1f} s: {verdict}")
    return 1 if failures else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="an experiment; may be repeated")
    mode = parser.add_mutually_exclusive_group()
    for option in ("list", "draw", "force", "check"):
        mode.add_argument(f"--{option}", action="store_true")
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu", help="where propagate runs")
    options = parser.parse_args(arguments)
    known = experiment.names()
    if unknown := [name for name in options.only if name not in known]:
        parser.error(f"unknown experiment {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    options.only = list(dict.fromkeys(options.only)) or known
    return options


def attempts(action: Callable[[str], str], names: list[str]) -> Iterator[tuple[str, str]]:
    """Do it for each experiment, as many at a time as there are processors; yields name and details of a failure."""
    workers = min(len(names), os.cpu_count() or 1)
    with tqdm(total=len(names), unit="experiment", leave=False, disable=None) as bar:  # None: only on a terminal
        if workers == 1:
            outcomes: Iterable = (attempt(action, name) for name in names)
        else:
            outcomes = ProcessPoolExecutor(workers, get_context("spawn")).map(partial(attempt, action), names)
        for name, outcome in zip(names, outcomes, strict=True):
            yield name, show(name, *outcome)
            bar.update()


def attempt(action: Callable[..., str], *arguments: str) -> tuple[str, float, str]:
    """(outcome, seconds, details of a failure); one failure does not stop the others."""
    begin = time.perf_counter()
    try:
        outcome, details = action(*arguments), ""
    except Failed as failure:
        outcome, details = "FAILED", str(failure)
    except Exception:
        outcome, details = "FAILED", traceback.format_exc()
    return outcome, time.perf_counter() - begin, details


def show(name: str, outcome: str, seconds: float, details: str) -> str:
    """Say how it went and how long it took; returns the details of a failure."""
    tqdm.write(f"{name:24} {outcome:22} {seconds:6.1f} s")
    if details:
        tqdm.write(details, file=sys.stderr)
    return details


def print_list(names: list[str]) -> None:
    """Name, state of the result, state of the drawings, and what is measured."""
    for name in names:
        drawn = "drawn" if experiment.is_drawn(name) else "to draw"
        print(f"{name:24} {experiment.state(name):8} {drawn:8} {experiment.about(name)}")


def update(name: str) -> str:
    """Compute unless the result is fresh, draw unless the drawings are made from it by the present code."""
    if experiment.state(name) != "fresh":
        return force(name)
    return "up to date" if experiment.is_drawn(name) else draw(name)


def force(name: str) -> str:
    """Compute and draw, then write: if either fails, nothing has been touched."""
    document = experiment.compute(name)
    drawings = experiment.draw(name, document)
    experiment.write(experiment.folder(name) / "result.json", experiment.to_json(document) + "\n")
    write_drawings(name, drawings)
    experiment.remember(name, drawings, computed_now=True)
    return "computed, drawn"


def draw(name: str) -> str:
    """Draw from the saved result."""
    drawings = experiment.draw(name, experiment.saved(name))
    write_drawings(name, drawings)
    experiment.remember(name, drawings, computed_now=False)
    return "drawn"


def write_drawings(name: str, drawings: Mapping[str, str | bytes]) -> None:
    for file, content in drawings.items():
        experiment.write(experiment.folder(name) / file, content)
    if name == HERO:
        experiment.write(experiment.ROOT / "docs" / "assets" / "hero.svg", drawings["figure.svg"])


def check(name: str) -> str:
    """Compute again and compare with the committed result, field by field; writes nothing."""
    committed, computed = experiment.saved(name), experiment.compute(name)
    tolerance = {"result": experiment.load(name).TOLERANCE}
    found = [
        line
        for field in ("parameters", "result")
        for line in experiment.differences(committed[field], computed[field], tolerance.get(field), f"{name}: {field}")
    ]
    if found:
        raise Failed("\n".join(found[:20] + [f"{name}: and {len(found) - 20} more"] * (len(found) > 20)))
    return "as committed"


def write_tables() -> str:
    """Write what the benchmarks have to show, and the tables of claims and of experiments once all have a result."""
    for name, module in experiment.benchmarks().items():
        write_drawings(name, module.draw(experiment.saved(name)) if experiment.is_saved(name) else not_measured(module))
    if missing := [name for name in experiment.names() if not experiment.is_saved(name)]:
        return f"wait for {', '.join(missing)}"
    rows = ledger.rows()
    lists = {
        "experiments.md": experiment.overview(),
        "figures.md": experiment.gallery(),
        "activations.md": activations(),
    }
    for file, text in (ledger.files(rows) | lists).items():
        experiment.write(experiment.RESULTS / file, text)
    if broken := [row["key"] for row in rows if row["holds"] is False]:
        raise Failed(f"claims that their results no longer bear out: {', '.join(broken)}")
    return "written"


def not_measured(benchmark: ModuleType) -> dict[str, str | bytes]:
    return {"table.md": f"**Not measured yet.** The command that does it: `python scripts/{benchmark.__name__}.py`.\n"}


def activations() -> str:
    """A Markdown table of the activation functions that a network may have."""
    rows = [[f"`{a.name}`", a.label, f"${a.formula}$"] for a in ACTIVATIONS.values()]
    return experiment.markdown_table([["Name", "Function", "$\\varphi(z)$"], *rows], align="left")


def draw_missing() -> list[str]:
    """Draw what is missing or made from something else, and write tables; computes nothing. For the start of the site.

    Returns the names of experiments whose result is stale. Raises Failed, in one line, if one has no result.
    """
    for name in experiment.names():
        if not experiment.is_drawn(name):
            draw(name)
    stale = [name for name in experiment.names() if experiment.state(name) == "stale"]
    drawing.draw_missing()
    write_tables()
    return stale


def stale_results(names: list[str]) -> str:
    """What to say of them, in a sentence."""
    which = f"the result of {names[0]} is" if len(names) == 1 else f"the results of {', '.join(names)} are"
    return f"{which} stale: run `make results`, or the site shows what was measured before"


if __name__ == "__main__":
    sys.exit(main())
