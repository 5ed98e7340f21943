"""Where tanh networks lose the gradient, where they blow it up, and how fast, in the plane of the two variances."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, agrees, factor
from style import INK, MUTED, colour, measured_style, new_figure, ramp, theory_style

from vgp_kernels import Network, activation, critical_point, mean_field, propagate
from vgp_kernels.theory.finite_width import log_gradient_at_width
from vgp_kernels.theory.mean_field import moments


@dataclass(frozen=True)
class Parameters:
    activation: str = "tanh"
    width: int = (
        512  # wide, because near the critical line a small shift of the rate is a large shift of the depth scale
    )
    trials: int = 150
    seed: int = 0
    # a narrow network so near the line that its width decides: σ_w², width, depth, and the layers between which it is measured,
    # where its signal has settled
    near: tuple = (1.1, 128, 400, 200, 390)
    weight_variances: tuple = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # the grid of measured networks
    bias_variances: tuple = (0.025, 0.1, 0.2, 0.3)
    line_bias_variance: float = 0.05  # Schoenholz et al. 2017 use it in their figures
    line: tuple = (0.5, 0.8, 1.1, 1.3, 1.5, 1.6, 1.95, 2.1, 2.4, 2.8, 3.4, 4.0)
    factors: tuple = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)  # lines of equal factor


PARAMETERS = Parameters()
TOLERANCE = None


def compute(p):
    grid = [measure(p, w, b) for b in p.bias_variances for w in p.weight_variances]
    line = [measure(p, w, p.line_bias_variance) for w in p.line]
    fine = np.linspace(0.4, 4.2, 77)
    theory = [
        mean_field(Network(1, 1, p.activation, weight_variance=float(w), bias_variance=p.line_bias_variance))
        for w in fine
    ]
    critical, q = critical_point(p.activation, p.line_bias_variance)
    return {
        "width": p.width,
        "trials": p.trials,
        "activation": p.activation,
        "grid": grid,
        "contours": [contour(p.activation, factor) for factor in p.factors],
        "line_bias_variance": p.line_bias_variance,
        "line": line,
        "near": near_the_line(p),
        "theory": [[round(float(w), 4), significant(t.xi_gradient, 5)] for w, t in zip(fine, theory, strict=True)],
        "critical_weight_variance": significant(critical, 7),
        "critical_q": significant(q, 6),
    }


def measure(p, weight_variance, bias_variance):
    network = Network(DEPTH, p.width, p.activation, weight_variance=weight_variance, bias_variance=bias_variance)
    found = factor(network, p.trials, p.seed)
    rate, error = math.log(found["measured"]), found["error"] / found["measured"]
    return {
        "weight_variance": weight_variance,
        "bias_variance": bias_variance,
        **found,
        "xi_predicted": significant(mean_field(network).xi_gradient, 5),
        "xi_measured": significant(-1 / (2 * rate), 4),
        "xi_error": significant(error / (2 * rate**2), 2),
    }


def near_the_line(p):
    """A network for which infinite width says explosion and its own width says vanishing."""
    variance, width, depth, low, high = p.near
    network = Network(depth, width, p.activation, weight_variance=variance)
    flow, theory, here = (
        propagate(network, p.trials, p.seed).log_gradient,
        mean_field(network),
        log_gradient_at_width(network),
    )
    rates = (flow[:, low] - flow[:, high]) / (high - low)
    return {
        "weight_variance": variance,
        "width": width,
        "predicted": significant(math.exp((theory.log_gradient[low] - theory.log_gradient[high]) / (high - low)), 6),
        "at_width": significant(math.exp((here[low] - here[high]) / (high - low)), 6),
        "measured": significant(math.exp(rates.mean()), 6),
        "error": significant(rates.std(ddof=1) / math.sqrt(p.trials), 2),
    }


def contour(name, factor):
    """Points (σ_w², σ_b²) with √χ₁ = factor: for each q, σ_w² = factor²/E φ′² and σ_b² = q - σ_w² E φ². No root is sought."""
    points = []
    for q in np.geomspace(1e-6, 6, 240):
        here = moments(activation(name), math.log(q))
        weights = factor**2 / here.slope
        points.append([significant(weights, 5), round(float(q - weights * math.exp(here.log_value)), 6)])
    inside = [point for point in points if -0.02 <= point[1] <= 0.5 and point[0] <= 4.5]
    return {"factor": factor, "points": inside}


def figure(result):
    drawing, (left, right) = new_figure(7.0, 4.0, ncols=2, width_ratios=[1.2, 1])
    shades = dict(zip((c["factor"] for c in result["contours"]), ramp(len(result["contours"])), strict=True))
    for c in result["contours"]:
        weights, biases = np.array(c["points"]).T
        critical = c["factor"] == 1
        left.plot(weights, biases, color=INK if critical else shades[c["factor"]], linewidth=2.4 if critical else 1.2)
        top = np.interp(0.34, biases, weights) if biases.max() > 0.34 else math.inf
        if top < 3.4:
            left.annotate(
                f"{c['factor']:g}",
                (top, 0.345),
                annotation_clip=False,
                ha="center",
                va="bottom",
                color=INK if critical else shades[c["factor"]],
                fontsize=8.5,
            )
    for g in result["grid"]:
        left.annotate(
            f"{g['measured']:.{3 if abs(g['measured'] - 1) < 0.006 else 2}f}",
            (g["weight_variance"], g["bias_variance"]),
            ha="center",
            va="center",
            color=ramp(3)[0 if g["measured"] < 1 else 2],
            fontsize=9,
            weight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "#ffffff", "edgecolor": "none"},
        )
    left.set(
        xlim=(0.3, 3.4), ylim=(0, 0.34), xlabel="weight variance $\\sigma_w^2$", ylabel="bias variance $\\sigma_b^2$"
    )
    left.grid(visible=False)
    weights, scales = np.array(result["theory"]).T
    for side in (weights < result["critical_weight_variance"], weights > result["critical_weight_variance"]):
        right.plot(weights[side], np.abs(scales[side]), **theory_style(result["activation"]))
    for m in result["line"]:
        right.errorbar(
            m["weight_variance"], abs(m["xi_measured"]), m["xi_error"], **measured_style(result["activation"])
        )
    right.axvline(result["critical_weight_variance"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for x, text, side in ((1.62, "vanishes", "right"), (1.9, "explodes", "left")):
        right.annotate(text, (x, 1.25), ha=side, color=colour(result["activation"]), fontsize=9)
    right.set(yscale="log", ylim=(1, 100), xlabel="weight variance $\\sigma_w^2$", ylabel="depth scale |ξ|, layers")
    return drawing


def caption(result):
    return (
        f"tanh networks. Left: lines on which the factor of the gradient's norm per layer is predicted to be the number above them; "
        f"the thick line is the critical one, factor 1. Numbers in the plane: measured, width {result['width']}, "
        f"{result['trials']} networks each. Right: depth scale of the squared gradient norm, $|\\xi| = 1/|\\ln \\chi_1|$, for "
        f"$\\sigma_b^2 = {result['line_bias_variance']}$; line: predicted; points: measured, with standard errors."
    )


def alt(result):
    return (
        "Measured factors lie between the predicted lines of equal factor: below 1 left of the critical line, above 1 right of it. "
        f"The depth scale grows without bound at a weight variance of {result['critical_weight_variance']:.3f}."
    )


def table(result):
    rows = [["$\\sigma_w^2$", "factor, predicted", "measured", "depth scale $\\xi$, predicted", "measured"]]
    for m in result["line"]:
        rows.append(
            [
                f"{m['weight_variance']:g}",
                f"{m['predicted']:.4f}",
                f"{m['measured']:.4f} ± {m['error']:.1g}",
                f"{m['xi_predicted']:.4g}",
                f"{m['xi_measured']:.4g} ± {m['xi_error']:.1g}",
            ]
        )
    return rows


def data(result):
    fields = list(result["grid"][0])
    return [fields, *([m[field] for field in fields] for m in result["grid"] + result["line"])]


def numbers(result):
    found = {"critical_weight_variance": result["critical_weight_variance"]}
    for m in result["line"]:
        name = f"{m['weight_variance']:g}".replace(".", "_")
        found |= {f"factor_{name}": m["measured"], f"predicted_{name}": m["predicted"]}
        found |= {f"xi_{name}": m["xi_measured"], f"xi_predicted_{name}": m["xi_predicted"]}
    found |= {f"near_{key}": r for key, r in result["near"].items() if key != "width"}
    found["on_side"] = len(sided(result))
    for m in everyone(result):
        if m not in sided(result):
            found |= {f"other_side_{key}": m[key] for key in ("predicted", "at_width", "measured", "error")}
    found["points"] = len(result["grid"]) + len(result["line"])
    found["largest_deviation"] = round(
        100 * max(abs(m["measured"] / m["predicted"] - 1) for m in result["grid"] + result["line"]), 2
    )
    return found


def everyone(result):
    return result["grid"] + result["line"]


def sided(result):
    """The networks on the side of 1 that infinite width predicts."""
    return [m for m in everyone(result) if (m["measured"] < 1) == (m["predicted"] < 1)]


CLAIMS = [
    Claim(
        "critical-line",
        "In the plane of weight and bias variance the gradient of an infinitely wide tanh network vanishes on one side of the critical "
        "line and explodes on the other; a finite width lowers the factor by a share of order 1/width, and so "
        "moves the line.",
        "Schoenholz et al. 2017",
        lambda r: (
            f"at bias variance {r['line_bias_variance']} the line is at weight variance {r['critical_weight_variance']:.4f}"
        ),
        lambda r: (
            f"{len(sided(r))} of {len(everyone(r))} networks of width {r['width']} on the side that infinite width predicts; "
            f"σ_w² = {r['near']['weight_variance']}, width "
            f"{r['near']['width']}: √χ₁ = {r['near']['predicted']:.4f}, measured {r['near']['measured']:.4f} ± {r['near']['error']:.4f}"
        ),
        "holds",
        lambda r: (
            all(map(agrees, everyone(r)))
            # on the side that theory for this width predicts, unless it is too near to tell
            and all(
                (m["measured"] < 1) == (m["at_width"] < 1) or abs(m["measured"] - 1) < 4 * m["error"]
                for m in everyone(r)
            )
            and all(m in sided(r) or abs(m["predicted"] - 1) < 2 / r["width"] for m in everyone(r))
            # lower, by half a part of the width or more and at most two
            and all(0.5 < r["width"] * (1 - m["measured"] / m["predicted"]) < 2 for m in everyone(r))
            and r["near"]["measured"] < 1 < r["near"]["predicted"]
            and abs(r["near"]["measured"] - r["near"]["at_width"])
            < 4 * r["near"]["error"] + 2 * (2 / r["near"]["width"]) ** 2
        ),
        "learn/predict-the-rate.md",
    ),
]
