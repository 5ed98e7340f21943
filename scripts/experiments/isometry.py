"""Singular values of whole networks: which weights stretch every direction alike, and up to which depth."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from style import INK, colour, measured_style, new_figure, theory_style

from vgp_kernels import Network, critical_point
from vgp_kernels.theory.spectra import log_singular_values, predict_spectrum


@dataclass(frozen=True)
class Parameters:
    width: int = 128  # matrices whose spectra take milliseconds; the edge is rounded off by some percent
    depths: tuple = (1, 2, 4, 8, 16)
    shown: int = 16  # the depth whose spectra are drawn
    trials: int = 64  # networks per point
    seed: int = 0
    bias_variance: float = 1e-5  # of tanh: on the critical line this keeps the pre-activations small, q* near 0.02


PARAMETERS = Parameters()
TOLERANCE = (1e-6, 1e-9)  # matrix products of BLAS differ in their last digits from machine to machine
LABELS = {
    "tanh_orthogonal": "tanh, orthogonal",
    "tanh_gaussian": "tanh, Gaussian",
    "relu_orthogonal": "ReLU, orthogonal",
    "relu_gaussian": "ReLU, He",
}


def network(p, kind, depth):
    activation, law = kind.split("_")
    initialiser = "orthogonal" if law == "orthogonal" else None
    if activation == "relu":
        return Network(depth, p.width, "relu", initialiser, weight_variance=2.0)
    weights, q = critical_point("tanh", p.bias_variance)
    rms = math.sqrt((q - p.bias_variance) / weights)  # the input starts at the fixed point
    return Network(depth, p.width, "tanh", initialiser, weights, p.bias_variance, input_rms=rms)


def compute(p):
    curves = []
    for kind in LABELS:
        points = []
        for depth in p.depths:
            here = network(p, kind, depth)
            theory = predict_spectrum(here)
            logs = np.array([log_singular_values(here, p.seed + trial) for trial in range(p.trials)])
            squares = np.exp(2 * logs)
            mean = squares.mean(axis=1)
            # in units of the network's own mean: at finite width that is log-normal and hides the shape of the spectrum
            largest, variance = squares.max(axis=1) / mean, squares.var(axis=1) / mean**2
            smallest = np.sqrt(squares.min(axis=1) / mean)
            root = math.sqrt(p.trials)
            points.append(
                {
                    "depth": depth,
                    "largest_predicted": significant(theory.largest / theory.mean, 6),
                    "largest": significant(largest.mean(), 6),
                    "largest_error": significant(largest.std(ddof=1) / root, 6),
                    "smallest": significant(smallest.mean(), 6),
                    "smallest_error": significant(smallest.std(ddof=1) / root, 6),
                    "variance_predicted": significant(theory.variance / theory.mean**2, 6),
                    "variance": significant(variance.mean(), 6),
                    "variance_error": significant(variance.std(ddof=1) / root, 6),
                }
            )
            if depth == p.shown:
                decades = logs[0] / math.log(10)
                spectrum = significant(np.maximum(decades, -12), 6)  # zeros, and what is as good as zero, at -12
        curves.append({"kind": kind, "points": points, "spectrum": spectrum})
    _, q = critical_point("tanh", p.bias_variance)
    return {"width": p.width, "trials": p.trials, "shown": p.shown, "q": significant(q, 5), "curves": curves}


def curve(result, kind):
    return next(c for c in result["curves"] if c["kind"] == kind)


def point(result, kind, depth=None):
    return next(x for x in curve(result, kind)["points"] if x["depth"] == (depth or result["shown"]))


def figure(result):
    drawing, (left, right) = new_figure(7.0, 3.8, 1, 2)
    for c in result["curves"]:
        activation, law = c["kind"].split("_")
        dashes = {} if law == "orthogonal" else {"linestyle": (0, (1.5, 1.5))}
        left.plot(
            range(1, result["width"] + 1), c["spectrum"], color=colour(activation), label=LABELS[c["kind"]], **dashes
        )
        depths = [x["depth"] for x in c["points"]]
        right.plot(depths, [x["largest_predicted"] for x in c["points"]], **theory_style(activation) | dashes)
        right.errorbar(
            depths,
            [x["largest"] for x in c["points"]],
            [x["largest_error"] for x in c["points"]],
            **measured_style(activation) | ({} if law == "orthogonal" else {"markerfacecolor": "none"}),
        )
    left.axhline(0, color=INK, linewidth=0.8)
    left.set(xlabel="direction, most stretched first", ylabel="log₁₀ of the singular value", ylim=(-6, 3))
    left.legend(loc="upper right", fontsize=8)
    right.set(xscale="log", yscale="log", xlabel="depth", ylabel="largest squared singular value / mean")
    right.set_xticks(depths, [str(d) for d in depths])
    right.minorticks_off()
    return drawing


def caption(result):
    return (
        f"Singular values of $\\partial h_L/\\partial h_0$ in networks of width {result['width']}, with weights that keep their mean "
        f"square at 1. Left: all singular values of one network of depth {result['shown']}. Right: the largest squared "
        f"one, predicted for infinite width (lines) and measured (points, mean of {result['trials']} networks with standard errors). "
        "Full symbols and lines: orthogonal weights."
    )


def alt(result):
    flat = curve(result, "tanh_orthogonal")["spectrum"]
    ends = "; ".join(f"{LABELS[c['kind']]} {point(result, c['kind'])['largest']:.3g}" for c in result["curves"])
    return (
        f"Left: the singular values of the orthogonal tanh network fall only from {10 ** flat[0]:.2f} to {10 ** flat[-1]:.2f}; the "
        "others fall from above 1 to far below. Right: "
        f"the largest squared singular value at depth {result['shown']}: {ends}."
    )


def table(result):
    header = ["Network", "Depth", "Largest s², predicted", "measured", "Variance of s², predicted", "measured"]
    rows = [header]
    for c in result["curves"]:
        for x in c["points"]:
            rows.append(
                [
                    LABELS[c["kind"]],
                    str(x["depth"]),
                    f"{x['largest_predicted']:.3f}",
                    f"{x['largest']:.3f} ± {x['largest_error']:.3f}",
                    f"{x['variance_predicted']:.3f}",
                    f"{x['variance']:.3f} ± {x['variance_error']:.3f}",
                ]
            )
    return rows


def data(result):
    keys = [*result["curves"][0]["points"][0]]
    return [["kind", *keys], *([c["kind"], *(x[k] for k in keys)] for c in result["curves"] for x in c["points"])]


def numbers(result):
    found = {"q": result["q"]}
    for c in result["curves"]:
        last, spectrum = point(result, c["kind"]), np.array(c["spectrum"])
        found |= {
            f"{c['kind']}_largest": math.sqrt(last["largest"]),
            f"{c['kind']}_smallest": last["smallest"],
            f"{c['kind']}_variance": last["variance"],
            f"{c['kind']}_variance_predicted": last["variance_predicted"],
            f"{c['kind']}_lost": float(np.mean(spectrum < -1)),  # the share of directions shrunk to less than a tenth
        }
    return found


def both(kind, what):
    return (
        lambda r: f"{LABELS[kind]}, depth {r['shown']}: {point(r, kind)[f'{what}_predicted']:.3f}",
        lambda r: f"{point(r, kind)[what]:.3f} ± {point(r, kind)[f'{what}_error']:.3f}",
    )


def near(x, what, share):
    """Within a share of the prediction, for the finite width, and four standard errors."""
    return abs(x[what] - x[f"{what}_predicted"]) < share * x[f"{what}_predicted"] + 4 * x[f"{what}_error"]


CLAIMS = [
    Claim(
        "norm-kept-directions-lost",
        "A mean gradient norm of 1 says nothing about single directions: in a ReLU network with He weights some are stretched, and "
        "most die out, the more the deeper it is.",
        "a gradient norm of 1 means that every direction is kept (heard often)",
        *both("relu_gaussian", "variance"),
        "false as stated",
        lambda r: (
            np.all(np.diff([x["variance"] for x in curve(r, "relu_gaussian")["points"]]) > 0)
            and all(near(x, "variance", 0.06) for x in curve(r, "relu_gaussian")["points"])
            and np.mean(np.array(curve(r, "relu_gaussian")["spectrum"]) < -1) > 0.5
            and max(curve(r, "relu_gaussian")["spectrum"]) > 0.3  # some are at least doubled
        ),
        "fix/orthogonal.md",
    ),
    Claim(
        "relu-is-never-isometric",
        "Orthogonal weights do not make a ReLU network isometric: the variance of its squared singular values is its depth.",
        "Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735",
        *both("relu_orthogonal", "variance"),
        "holds",
        lambda r: all(near(x, "variance", 0.06) for x in curve(r, "relu_orthogonal")["points"]),
        "fix/orthogonal.md",
    ),
    Claim(
        "tanh-can-be-isometric",
        "Orthogonal weights on the critical line make a tanh network nearly isometric: at q = 0.02 and 16 layers the most stretched "
        "direction has 1.16 times the root mean square and the most shrunk one about half of it.",
        "Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735",
        both("tanh_orthogonal", "largest")[0],
        lambda r: (
            f"{both('tanh_orthogonal', 'largest')[1](r)}; smallest singular value over the root mean square: "
            f"{point(r, 'tanh_orthogonal')['smallest']:.3f} ± {point(r, 'tanh_orthogonal')['smallest_error']:.3f}"
        ),
        "holds",
        lambda r: (
            all(near(x, "largest", 0.1) and near(x, "variance", 0.06) for x in curve(r, "tanh_orthogonal")["points"])
            and (round(r["q"], 2), r["shown"]) == (0.02, 16)
            and abs(math.sqrt(point(r, "tanh_orthogonal")["largest"]) - 1.16) < 0.01
            and abs(point(r, "tanh_orthogonal")["smallest"] - 0.5) < 0.02
        ),
        "fix/orthogonal.md",
    ),
]
