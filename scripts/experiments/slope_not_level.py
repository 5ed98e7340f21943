"""Which sign of a vanishing gradient stays the same when width, batch and loss scale change."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from style import INK, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, activation, mean_field


@dataclass(frozen=True)
class Parameters:
    depth: int = 12
    networks: int = 40
    seed: int = 0
    cases: tuple = ((64, 1, 1.0), (256, 1, 1.0), (64, 64, 1.0), (64, 1, 1024.0))  # (width, batch, loss scale)
    # apart from the figure: another width, where all examples have one gradient at the top, and a narrow network
    others: tuple = ((128, 64, 1.0, True), (8, 1, 1.0, False))
    ends: int = 2  # layers left out of the fitted line at either end


PARAMETERS = Parameters()
TOLERANCE = 1e-4  # sums of BLAS differ in rounding between machines
LN10 = math.log(10)


def compute(p):
    with threadpool_limits(1):  # threads of BLAS only get in each other's way in matrices this small
        cases, others = ([case(p, *options) for options in chosen] for chosen in (p.cases, p.others))
    return {
        "depth": p.depth,
        "networks": p.networks,
        "predicted": significant(math.exp(mean_field(Network(p.depth, 64, "sigmoid", "xavier")).rate), 5),
        "cases": cases,
        "others": others,
    }


def case(p, width, batch, scale, shared=False):
    """log10 of each layer's |∂E/∂W| and |∂E/∂W|/|W| for the mean loss of a batch, its total, and the fitted factor."""
    phi, levels, ratios = activation("sigmoid"), [], []
    for trial in range(p.networks):
        generator = np.random.default_rng([p.seed, trial])
        weights = generator.standard_normal((p.depth, width, width)) / math.sqrt(width)
        h, slopes = [generator.standard_normal((width, batch))], []
        for matrix in weights:
            z = matrix @ h[-1]
            h.append(phi.value(z))
            slopes.append(phi.slope(z))
        g = scale * generator.standard_normal((width, 1 if shared else batch)) / batch  # of the mean over the batch
        g = np.broadcast_to(g, (width, batch))
        norms = np.empty(p.depth)
        for layer in range(p.depth - 1, -1, -1):
            delta = slopes[layer] * g
            norms[layer] = np.linalg.norm(delta @ h[layer].T)
            g = weights[layer].T @ delta
        levels.append(np.log10(norms))
        ratios.append(np.log10(norms / np.linalg.norm(weights, axis=(1, 2))))
    mean = np.mean(ratios, axis=0)
    layers = np.arange(p.ends, p.depth - p.ends)
    slopes = [np.polyfit(layers, trial[layers], 1)[0] for trial in ratios]
    return {
        "width": width,
        "batch": batch,
        "scale": scale,
        "ratio": [significant(x, 5) for x in mean],
        "bottom": significant(np.mean(levels, axis=0)[1], 4),
        "total": significant(np.mean([math.log10(np.linalg.norm(10**trial)) for trial in levels]), 4),
        "top": significant(np.mean(levels, axis=0)[-1], 4),
        "factor": significant(10 ** -np.mean(slopes), 4),
        "error": significant(10 ** -np.mean(slopes) * LN10 * np.std(slopes, ddof=1) / math.sqrt(p.networks), 2),
    }


def label(case):
    return f"width {case['width']}, batch {case['batch']}, loss × {case['scale']:g}"


def figure(result):
    drawing, axes = new_figure(7.0, 4.0)
    layers = np.arange(1, result["depth"] + 1)
    for case, shade, mark in zip(result["cases"], ramp(len(result["cases"])), "os^D", strict=True):
        middle = len(layers) // 2
        line = np.array(case["ratio"])[middle] + (layers - layers[middle]) * -math.log10(result["predicted"])
        axes.plot(layers, line, color=shade, linewidth=1)
        axes.plot(layers, case["ratio"], mark, color=shade)
        axes.annotate(
            label(case),
            (layers[-1], case["ratio"][-1]),
            (8, 5 if case["width"] == 256 else -3),
            textcoords="offset points",
            va="center",
            color=shade,
            fontsize=9,
        )
    axes.axhline(-7, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate("“1e-7 is sick”", (12.2, -7), (0, 4), textcoords="offset points", color=INK, fontsize=9)
    axes.set(xlabel="layer", ylabel="log₁₀ of |∂E/∂W|/|W|", xlim=(0.5, 18))
    axes.set_xticks(range(1, 13))
    return drawing


def caption(result):
    return (
        f"The same kind of network, sigmoid with Xavier weights and {result['depth']} layers, measured four ways; mean "
        f"over {result['networks']} networks with explicit matrices. Lines: the predicted slope, {result['predicted']:.3f} per layer, "
        "through the middle point of each."
    )


def alt(result):
    levels = [case["ratio"][1] for case in result["cases"]]
    factors = ", ".join(f"{case['factor']:.3f}" for case in result["cases"])
    return (
        f"Four rows of points with the same slope and different heights. Fitted factors per layer: {factors}. The heights differ by "
        f"{max(levels) - min(levels):.1f} decades, so that a threshold of 1e-7 calls some sick and others well."
    )


def table(result):
    rows = [
        ["Measured with", "Fitted factor per layer", "$\\log_{10}$ of the total norm", "of the top layer", "of layer 2"]
    ]
    for case in result["cases"]:
        row = [label(case), f"{case['factor']:.3f} ± {case['error']:.3f}"]
        rows.append(row + [f"{case[key]:.2f}" for key in ("total", "top", "bottom")])
    return rows


def data(result):
    rows = [["width", "batch", "loss_scale", "layer", "log10_ratio"]]
    for case in result["cases"]:
        rows += [[case["width"], case["batch"], case["scale"], layer + 1, x] for layer, x in enumerate(case["ratio"])]
    return rows


def numbers(result):
    levels = [case["ratio"][1] for case in result["cases"]]
    factors = [case["factor"] for case in result["cases"]]
    return {
        "predicted": result["predicted"],
        "smallest": min(factors),
        "largest": max(factors),
        "level_spread": max(levels) - min(levels),
        "total_above_top": max(case["total"] - case["top"] for case in result["cases"]),
        "narrow": result["others"][1]["factor"],
        "below_top": result["cases"][0]["top"] - result["cases"][0]["bottom"],
    }


def off_the_line(case, layer):
    """By how many decades a layer, counted from 0, is above the line through the two next ones."""
    ratio = case["ratio"]
    return ratio[layer] - (2 * ratio[layer + 1] - ratio[layer + 2])


PAGE = "diagnose/check.md"
CLAIMS = [
    Claim(
        "slope-not-level",
        "In this sigmoid network width, from 64 on, batch size and loss scale move all layers but the first up or down together; the "
        "factor per layer stays the same.",
        "belief: gradients below 1e-7 are sick",
        lambda r: f"× {r['predicted']:.3f} per layer",
        lambda r: "; ".join(f"{label(case)}: × {case['factor']:.3f} ± {case['error']:.3f}" for case in r["cases"]),
        "false as stated",
        lambda r: (
            # alike among each other, and within 2 % of the rate for infinite width and depth
            all(
                abs(case["factor"] / r["predicted"] - 1) < 0.02 + 4 * case["error"] / case["factor"]
                for case in [*r["cases"], r["others"][0]]
            )
            # the second layer stands on the line of the others; the first does not, where all examples pull the same way
            and all(abs(off_the_line(case, 1)) < 0.1 for case in [*r["cases"], r["others"][0]])
            and off_the_line(r["others"][0], 0) < -0.2
            # and a narrow network has another factor
            and r["others"][1]["factor"] + 4 * r["others"][1]["error"] < r["predicted"]
            and numbers(r)["level_spread"] > 2
        ),
        PAGE,
    ),
    Claim(
        "total-norm-is-blind",
        "In a sigmoid network the norm of the whole gradient does not see a vanishing gradient: it is the norm of the top layers.",
        "belief: look at the total norm",
        lambda r: f"top layers alone: {-0.5 * math.log10(1 - r['predicted'] ** 2):.3f} decades above the top one",
        lambda r: (
            f"at most {numbers(r)['total_above_top']:.3f} decades above the top layer, layer 2 {numbers(r)['below_top']:.1f} below it"
        ),
        "false as stated",
        lambda r: numbers(r)["total_above_top"] < 0.1 and numbers(r)["below_top"] > 5,
        PAGE,
    ),
]
