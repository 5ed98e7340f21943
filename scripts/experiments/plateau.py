"""How long a chain of equal weights waits before it learns: gradient descent against the exact time, by depth."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from experiment import Claim
from scipy.integrate import quad
from style import INK, MUTED, new_figure, ramp


@dataclass(frozen=True)
class Parameters:
    starts: tuple = (0.3, 0.5, 0.7)  # the initial weights: ⅓ to ⅔ of what they become
    depths: tuple = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
    learnt: float = 0.95  # of the product's final value 1
    step: float = 4e-3  # of gradient descent, times 1/depth: the error of its time is of this order
    longest: float = 40.0  # chains that wait longer are left to the formula


PARAMETERS = Parameters()
TOLERANCE = (1e-6, 1e-9)  # powers of float64 from the system's library


def compute(p):
    runs = []
    for start in p.starts:
        for depth in p.depths:
            exact = waiting_time(start, depth, p.learnt)
            runs.append(
                {
                    "start": start,
                    "depth": depth,
                    "exact": significant(exact),
                    "asymptote": significant(start ** (2 - depth) / (depth - 2)) if depth > 2 else None,
                    "descent": significant(descent(start, depth, p.learnt, p.step / depth))
                    if exact < p.longest
                    else None,
                }
            )
    return {"learnt": p.learnt, "starts": list(p.starts), "runs": runs}


def significant(x):
    return float(f"{x:.8e}")


def waiting_time(start, depth, learnt):
    """∫ da / (a^(D-1) (1 - a^D)) from the start to where a^D is what counts as learnt."""
    end = learnt ** (1 / depth)
    return quad(lambda a: 1 / (a ** (depth - 1) * (1 - a**depth)), start, end, epsabs=0, epsrel=1e-11)[0]


def descent(start, depth, learnt, step):
    """The time, steps times step size, of gradient descent on ½(1 - Πa)² in D separate weights."""
    weights, steps = np.full(depth, start), 0
    while (product := float(np.prod(weights))) < learnt:
        weights += step * (1 - product) * product / weights
        steps += 1
    return steps * step


def figure(result):
    drawing, axes = new_figure(6.4, 4.0)
    for start, colour in zip(result["starts"], ramp(len(result["starts"])), strict=True):
        runs = [run for run in result["runs"] if run["start"] == start]
        depths = [run["depth"] for run in runs]
        axes.plot(depths, [run["exact"] for run in runs], color=colour)
        far = [run for run in runs if run["asymptote"]]
        axes.plot([r["depth"] for r in far], [r["asymptote"] for r in far], color=MUTED, linestyle=":", linewidth=1.2)
        done = [run for run in runs if run["descent"]]
        axes.plot([r["depth"] for r in done], [r["descent"] for r in done], "o", color=colour)
        axes.annotate(
            f"a₀ = {start:g}", (depths[-1], runs[-1]["exact"]), (6, 0), textcoords="offset points", va="center",
            color=INK, fontsize=9,
        )  # fmt: skip
    axes.set(yscale="log", xlabel="depth D", ylabel=f"time until {result['learnt']:.0%} is learnt", xlim=(0.5, 22.5))
    return drawing


def caption(result):
    return (
        "The time in which a chain of $D$ equal weights $a_0$ learns. Lines: the exact integral; dots: gradient descent; dotted: "
        "$a_0^{-(D-2)}/(D-2)$, to which the time tends in deep chains."
    )


def alt(result):
    ends = "; ".join(
        f"from {r['start']} at depth {r['depth']} it is {r['exact']:.3g}" for r in result["runs"] if r["depth"] == 20
    )
    return f"In deep chains the waiting time grows exponentially with depth: {ends}. Dots of gradient descent lie on the lines."


def table(result):
    rows = [["Initial weight", "Depth", "Time, exact", "by gradient descent", "$a_0^{-(D-2)}/(D-2)$"]]
    for run in result["runs"]:
        if run["start"] == 0.5:
            shown = [f"{run[key]:.4g}" if run[key] else "—" for key in ("exact", "descent", "asymptote")]
            rows.append([f"{run['start']:g}", str(run["depth"]), *shown])
    return rows


def data(result):
    columns = ["start", "depth", "exact", "descent", "asymptote"]
    return [columns, *([run[column] for column in columns] for run in result["runs"])]


def numbers(result):
    return {
        f"{kind}_{10 * run['start']:.0f}_{run['depth']}": run[kind]
        for run in result["runs"]
        for kind in ("exact", "descent", "asymptote")
        if run[kind]
    }


def worst(result):
    return max(abs(math.log(run["descent"] / run["exact"])) for run in result["runs"] if run["descent"])


def deep(result, start):
    """The chains from this start whose depth is large against 1/ln(1/a₀)."""
    runs = [run for run in result["runs"] if run["start"] == start]
    return [run for run in runs if run["depth"] * math.log(1 / start) > 4]


def growth(result, start):
    """By which factor the wait grows per layer, between the two deepest chains."""
    before, last = deep(result, start)[-2:]
    return (last["exact"] / before["exact"]) ** (1 / (last["depth"] - before["depth"]))


def tends_to_asymptote(result, start):
    """In deep chains the wait grows with each layer, and what the asymptote leaves out is a smaller and smaller share."""
    waits = [run["exact"] for run in deep(result, start)]
    left_out = [abs(run["exact"] / run["asymptote"] - 1) for run in deep(result, start)]
    return waits == sorted(waits) and left_out == sorted(left_out, reverse=True) and left_out[-1] < 0.02


CLAIMS = [
    Claim(
        "plateau-is-the-inverse-gradient",
        "In a deep chain of equal weights below one each further layer makes the wait longer, by a factor that tends to 1/a₀; a "
        "shallow chain may wait less with one layer more.",
        "Saxe, McClelland & Ganguli 2014",
        lambda r: "the integral of da / (a^(D-1) (1 - a^D))",
        lambda r: (
            f"gradient descent agrees within {100 * worst(r):.2g} %; per layer × "
            + ", ".join(f"{growth(r, start):.2f} from a₀ = {start:g}" for start in r["starts"])
        ),
        "holds",
        lambda r: (
            worst(r) < PARAMETERS.step
            and all(tends_to_asymptote(r, start) for start in r["starts"])
            # (D-2)/(D-1) of 1/a₀ with each layer
            and all(0.9 < start * growth(r, start) < 1 for start in r["starts"])
            and any(a["exact"] > b["exact"] for a, b in pairwise(r["runs"]) if a["start"] == b["start"])
        ),
        "learn/consequences.md",
    )
]
