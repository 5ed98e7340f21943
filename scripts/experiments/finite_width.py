"""How the gradient of one ReLU network differs from the mean over many: the log-normal law of finite width."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from style import INK, colour, measured_style, new_figure

from vgp_kernels import Network, propagate
from vgp_kernels.theory.finite_width import death_probability, log_normal, log_norms


@dataclass(frozen=True)
class Parameters:
    widths: tuple = (16, 32, 64, 128, 256, 512)  # a factor of 32: the law is one in depth/width
    depth: int = 64
    trials: int = 4000  # the median of the logarithm is then known to a few hundredths
    seed: int = 0
    shown: int = 64  # the width of the histogram: as deep as wide
    bins: int = 33
    narrow: int = 4  # narrow enough that layers die
    held_out: tuple = ((32, 20), (96, 150), (200, 40))  # (width, depth) apart from those of the figure
    short: tuple = (50, 100)  # (width, depth) of an example in the text


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)


def compute(p):
    rows = []
    for width, depth in (*((width, p.depth) for width in p.widths), *p.held_out):
        network = Network(depth, width, "relu", "he")
        log_gradient = propagate(network, p.trials, p.seed).log_gradient[:, 0]
        alive = np.isfinite(log_gradient)
        logs = 2 * log_gradient[alive]  # of the squared norm
        exact = log_norms(network)
        approximate_mean, beta = log_normal(network)
        row = {
            "width": width,
            "depth": depth,
            "alive": int(alive.sum()),
            "mean": float(logs.mean()),
            "mean_error": float(logs.std(ddof=1) / math.sqrt(len(logs))),
            "variance": float(logs.var(ddof=1)),
            "variance_error": float(np.std((logs - logs.mean()) ** 2, ddof=1) / math.sqrt(len(logs))),
            "median": float(np.median(logs)),
            "log_of_mean": float(np.log(np.mean(np.exp(logs)))),
            "exact_mean": 2 * float(exact.log_gradient[0]),
            "exact_variance": 4 * float(exact.log_gradient_variance[0]),
            "log_normal_mean": approximate_mean,
            "log_normal_variance": beta,
        }
        rows.append({key: value if isinstance(value, int) else significant(value, 6) for key, value in row.items()})
        if (width, depth) == (p.shown, p.depth):
            low, high = (row["exact_mean"] + k * math.sqrt(row["exact_variance"]) for k in (-4, 4))
            counts, edges = np.histogram(logs, bins=p.bins, range=(low, high))
            histogram = {"edges": significant(edges, 6), "counts": [int(c) for c in counts]}
            share = {"above_one": significant(float(np.mean(logs > 0)), 4)}
    narrow = Network(p.depth, p.narrow, "relu", "he")
    dead = np.mean(np.isneginf(propagate(narrow, p.trials, p.seed).log_gradient[:, 0]))
    death = {"width": p.narrow, "measured": significant(dead, 6), "expected": significant(death_probability(narrow), 6)}
    return {
        "depth": p.depth,
        "trials": p.trials,
        "shown": p.shown,
        "rows": rows[: len(p.widths)],
        "held_out": rows[len(p.widths) :],
        "skips": {key: skip_variance(p, scale) for key, scale in (("unscaled", 1.0), ("scaled", p.shown**-0.5))},
        "short": significant(
            math.exp(-float(log_norms(Network(p.short[1], p.short[0], "relu", "he")).log_gradient[0])), 4
        ),
        "histogram": histogram,
        "dead": death,
        **share,
    }


def skip_variance(p, scale):
    """Variance of ln |g|² with skips round the layers, as deep as wide."""
    network = Network(p.shown, p.shown, "relu", "he", residual="preactivation", residual_scale=scale)
    logs = 2 * propagate(network, p.trials, p.seed).log_gradient[:, 0]
    square = (logs - logs.mean()) ** 2
    return {
        "variance": significant(logs.var(ddof=1), 4),
        "variance_error": significant(np.std(square, ddof=1) / math.sqrt(p.trials), 2),
    }


def normal_density(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * math.pi * variance)


def at_width(result, width):
    return next(r for r in result["rows"] if r["width"] == width)


def figure(result):
    drawing, (left, right) = new_figure(7.0, 3.6, 1, 2)
    shown = at_width(result, result["shown"])
    edges, counts = np.array(result["histogram"]["edges"]), np.array(result["histogram"]["counts"])
    widths = np.diff(edges)
    left.bar(
        edges[:-1] / LN10,
        counts / (counts.sum() * widths / LN10),
        widths / LN10,
        align="edge",
        color=colour("relu"),
        alpha=0.35,
    )
    x = np.linspace(edges[0], edges[-1], 200)
    left.plot(x / LN10, LN10 * normal_density(x, shown["exact_mean"], shown["exact_variance"]), color=colour("relu"))
    left.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    left.annotate(
        "mean over networks: 1",
        (0, 0.02),
        (-4, 0),
        textcoords="offset points",
        xycoords=("data", "axes fraction"),
        rotation=90,
        ha="right",
        va="bottom",
        fontsize=8,
    )
    left.set(
        xlabel="log₁₀ of the squared gradient norm",
        ylabel="density",
        title=f"width {result['shown']}, depth {result['depth']}",
    )
    left.title.set_fontsize(9)
    n = np.array([r["width"] for r in result["rows"]])
    right.plot(n, [r["exact_mean"] / LN10 for r in result["rows"]], color=colour("relu"))
    right.plot(
        n, [r["log_normal_mean"] / LN10 for r in result["rows"]], color=colour("relu"), linestyle=(0, (1.5, 1.5))
    )
    right.errorbar(
        n,
        [r["mean"] / LN10 for r in result["rows"]],
        [r["mean_error"] / LN10 for r in result["rows"]],
        **measured_style("relu"),
    )
    right.axhline(0, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    right.set(xscale="log", xlabel="width", ylabel="mean of log₁₀ of the squared norm", xticks=n, xticklabels=n)
    right.minorticks_off()
    return drawing


def caption(result):
    return (
        f"ReLU networks with He weights, depth {result['depth']}, {result['trials']} of each width: the squared norm of the gradient "
        "at the input, 1 at the top. Left: its logarithm in single networks (bars) and the normal law of the exact mean and variance "
        "(line). Right: the mean of the logarithm, measured (points, with standard errors), exact (line), and "
        "$-\\tfrac52 L/n$ (dotted). Dashed: the mean of the squared norm itself, which is 1 at every width."
    )


def alt(result):
    shown = at_width(result, result["shown"])
    return (
        f"Left: a bell curve over a histogram, centred at 10 to the {shown['mean'] / LN10:.2f}, far left of 1. Right: "
        f"the mean of the logarithm rises to 0 with width; at {result['rows'][0]['width']} {result['rows'][0]['mean'] / LN10:.1f}."
    )


def table(result):
    rows = [["Width", "Mean of ln |g|², exact", "measured", "Variance, exact", "measured", "ln of the mean, measured"]]
    for r in result["rows"]:
        rows.append(
            [
                str(r["width"]),
                f"{r['exact_mean']:.3f}",
                f"{r['mean']:.3f} ± {r['mean_error']:.3f}",
                f"{r['exact_variance']:.3f}",
                f"{r['variance']:.3f} ± {r['variance_error']:.3f}",
                f"{r['log_of_mean']:.3f}",
            ]
        )
    return rows


def data(result):
    keys = [*result["rows"][0]]
    return [keys, *([r[key] for key in keys] for r in result["rows"])]


def numbers(result):
    shown, narrowest = at_width(result, result["shown"]), result["rows"][0]
    found = {
        "dead_measured": result["dead"]["measured"],
        "dead_expected": result["dead"]["expected"],
        "above_one": result["above_one"],
        "typical": math.exp(shown["mean"] / 2),
        "narrowest_typical": math.exp(narrowest["mean"] / 2),
        "widest_typical": math.exp(result["rows"][-1]["mean"] / 2),
        "spread": math.exp(math.sqrt(shown["variance"]) / 2),
        "skip_variance": result["skips"]["unscaled"]["variance"],
        "scaled_skip_variance": result["skips"]["scaled"]["variance"],
        "short": result["short"],
    }
    for r in result["rows"]:
        found |= {f"mean_{r['width']}": r["mean"], f"variance_{r['width']}": r["variance"]}
        found |= {f"exact_mean_{r['width']}": r["exact_mean"], f"exact_variance_{r['width']}": r["exact_variance"]}
    return found


def everyone(result):
    return result["rows"] + result["held_out"]


def deaths(result, row):
    """How many networks of this width and depth are expected to be dead."""
    return -result["trials"] * math.expm1(row["depth"] * math.log1p(-(0.5 ** row["width"])))


CLAIMS = [
    Claim(
        "mean-is-not-typical",
        "He weights keep the mean of the squared gradient norm at 1, but the gradient of a typical network that is as deep as it is "
        "wide is smaller: the logarithm of the squared norm falls by about five halves of depth over width.",
        "Hanin & Nica 2018, arXiv:1812.05994",
        lambda r: f"mean of ln |g|² = {at_width(r, r['shown'])['exact_mean']:.3f} at width and depth {r['shown']}",
        lambda r: f"{at_width(r, r['shown'])['mean']:.3f} ± {at_width(r, r['shown'])['mean_error']:.3f}",
        "holds",
        lambda r: (
            all(abs(row["mean"] - row["exact_mean"]) < 4 * row["mean_error"] for row in everyone(r))
            # five halves of depth over width, less than four parts of the width off
            and all(abs(row["exact_mean"] / row["log_normal_mean"] - 1) < 4 / row["width"] for row in everyone(r))
        ),
        "learn/width.md",
    ),
    Claim(
        "width-sets-the-spread",
        "From one network to the next the logarithm of the squared gradient norm varies with a variance of about five times depth over "
        "width, more by a third at width 16 and by a sixteenth at width 64.",
        "Hanin & Nica 2018, arXiv:1812.05994",
        lambda r: f"{at_width(r, r['shown'])['exact_variance']:.3f} exactly, 5 L/n = {5 * r['depth'] / r['shown']:.2f}",
        lambda r: f"{at_width(r, r['shown'])['variance']:.3f} ± {at_width(r, r['shown'])['variance_error']:.3f}",
        "holds",
        lambda r: (
            all(abs(row["variance"] - row["exact_variance"]) < 4 * row["variance_error"] for row in everyone(r))
            and all(
                0 < row["exact_variance"] / row["log_normal_variance"] - 1 < 6 / row["width"] for row in everyone(r)
            )
            and all(
                abs(at_width(r, n)["exact_variance"] / at_width(r, n)["log_normal_variance"] - 1 - more) < 0.1 * more
                for n, more in ((16, 1 / 3), (64, 1 / 16))
            )
        ),
        "learn/width.md",
    ),
    Claim(
        "narrow-networks-are-born-dead",
        "A narrow deep ReLU network is often dead from the start for a given input: some layer gives 0 at every unit, and no gradient "
        "passes.",
        "Lu, Shin, Su & Karniadakis 2019, arXiv:1903.06733",
        lambda r: f"1 - (1 - 2⁻ⁿ)ᴸ = {r['dead']['expected']:.4f} at width {r['dead']['width']}, depth {r['depth']}",
        lambda r: f"{r['dead']['measured']:.4f} of {r['trials']} networks",
        "holds",
        lambda r: (
            abs(r["dead"]["measured"] - r["dead"]["expected"])
            < 4 * math.sqrt(r["dead"]["expected"] * (1 - r["dead"]["expected"]) / r["trials"])
            # and at all other widths and depths, by the same formula
            and all(
                abs(r["trials"] - row["alive"] - deaths(r, row)) < 4 * math.sqrt(deaths(r, row)) + 1
                for row in everyone(r)
            )
        ),
        "learn/width.md",
    ),
]
