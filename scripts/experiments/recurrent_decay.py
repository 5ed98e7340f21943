"""How the gradient of a recurrent network changes over a hundred steps, beside three tests of its weights."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from experiment import Claim
from style import INK, measured_style, new_figure, ramp, theory_style
from threadpoolctl import threadpool_limits

from vgp_kernels import Recurrent, mean_field, propagate
from vgp_kernels.recurrent.kernels import draw
from vgp_kernels.theory.gates import scalar_factor, singular_value_bound


@dataclass(frozen=True)
class Parameters:
    steps: int = 100  # the length of sequence at which recurrent networks are known to fail
    width: int = 128  # a common size
    trials: int = 120
    seed: int = 0
    spectra: int = 30  # of so many of the matrices singular values and eigenvalues are computed too
    near: int = 10  # the factor per step is measured between these steps back from the loss
    far: int = 90
    # cell, weights, σ_w, variance of the input's share of a pre-activation
    networks: tuple = (
        ("linear", "gaussian", 0.45, 0.0),
        ("linear", "gaussian", 0.8, 0.0),
        ("linear", "gaussian", 1.0, 0.0),
        ("linear", "gaussian", 1.1, 0.0),
        ("linear", "orthogonal", 1.0, 0.0),
        ("tanh", "gaussian", 0.8, 0.1),
        ("tanh", "gaussian", 1.2, 1.0),
        ("tanh", "gaussian", 2.0, 0.01),
        ("tanh", "orthogonal", 1.0, 0.1),
    )
    bound_widths: tuple = (64, 128, 256)
    bound_sigmas: tuple = (0.55, 0.7, 0.9, 0.99)  # above the bound of 1/2 and below 1, linear
    bound_trials: int = 60
    wide: int = 512  # a width at which a hundred steps are too few
    wide_sigma: float = 0.99
    # apart from the figure: cell, weights, σ_w, variance of the input's share, width
    held_out: tuple = (
        ("tanh", "gaussian", 1.5, 2.0, 64),
        ("tanh", "gaussian", 1.1, 0.5, 256),
        ("erf", "gaussian", 1.2, 1.0, 128),
    )
    scalar_weight: float = 2.0  # of h_t = tanh(w h_{t-1}), which is then in one of its two stable states


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)


def recurrent(p, cell, law, sigma, drive, width=None):
    width = width or p.width
    return Recurrent(
        p.steps, width, cell, "orthogonal" if law == "orthogonal" else None, sigma**2, drive, input_width=width
    )


def per_step(p, decades):
    """The geometric mean factor per step, and its standard error, from log₁₀ of gradients by steps back."""
    rates = (decades[:, p.far] - decades[:, p.near]) / (p.far - p.near)
    factor = 10 ** rates.mean()
    return round(factor, 5), round(factor * LN10 * rates.std(ddof=1) / math.sqrt(len(rates)), 5)


def above_the_bound(p, width, sigmas):
    """Linear networks between the bound and 1: the factor per step beside largest singular value and spectral radius of the same W."""
    unit = recurrent(p, "linear", "gaussian", 1.0, 0.0, width)
    matrices = [draw(unit, trial, p.seed).weights.astype(np.float64) for trial in range(p.bound_trials)]
    with threadpool_limits(1):
        radii = np.array([np.abs(np.linalg.eigvals(w)).max() for w in matrices])
        largest = np.array([np.linalg.norm(w, 2) for w in matrices])
    radius, error = float(np.exp(np.log(radii).mean())), float(np.log(radii).std(ddof=1) / math.sqrt(len(radii)))
    rows = []
    for sigma in sigmas:
        network = recurrent(p, "linear", "gaussian", sigma, 0.0, width)
        decades = propagate(network, p.bound_trials, p.seed).log_gradient[:, ::-1] / LN10
        factor, factor_error = per_step(p, decades)
        rates = LN10 * (decades[:, p.far] - decades[:, p.near]) / (p.far - p.near)
        below = np.log(sigma * radii) - rates  # matrix by matrix
        rows.append(
            {
                "width": width,
                "sigma": sigma,
                "largest": round(sigma * float(largest.mean()), 4),
                "least_largest": round(sigma * float(largest.min()), 4),
                "radius": round(sigma * radius, 5),
                "radius_error": round(sigma * radius * error, 5),
                "factor_measured": factor,
                "factor_error": factor_error,
                "below": round(float(below.mean()), 5),
                "below_error": round(float(below.std(ddof=1)) / math.sqrt(p.bound_trials), 5),
                "most_below": round(float(below.max()), 5),
                "correlation": round(float(np.corrcoef(rates, np.log(radii))[0, 1]), 4),
            }
        )
    return rows


def spectra(p):
    """Mean largest singular value and geometric mean spectral radius of the very matrices of the networks, at σ_w = 1."""
    network = recurrent(p, "linear", "gaussian", 1.0, 0.0)
    matrices = [draw(network, trial, p.seed).weights.astype(np.float64) for trial in range(p.spectra)]
    with threadpool_limits(1):
        largest = np.mean([np.linalg.svd(w, compute_uv=False)[0] for w in matrices])
        radius = np.exp(np.mean([np.log(np.abs(np.linalg.eigvals(w)).max()) for w in matrices]))
    return float(largest), float(radius)


def compute(p):
    curves, spectrum = [], {"gaussian": spectra(p), "orthogonal": (1.0, 1.0)}
    for cell, law, sigma, drive in p.networks:
        network = recurrent(p, cell, law, sigma, drive)
        decades = propagate(network, p.trials, p.seed).log_gradient[:, ::-1] / LN10  # by steps back
        theory = mean_field(network.unrolled).log_gradient[::-1] / LN10
        rates = (decades[:, p.far] - decades[:, p.near]) / (p.far - p.near)
        factor = 10 ** rates.mean()
        curves.append(
            {
                "cell": cell,
                "law": law,
                "sigma": sigma,
                "drive": drive,
                "bound": round(singular_value_bound(network), 4),
                "largest": round(sigma * spectrum[law][0], 4),
                "radius": round(sigma * spectrum[law][1], 4),
                "factor_predicted": round(10 ** ((theory[p.far] - theory[p.near]) / (p.far - p.near)), 4),
                "factor_measured": round(factor, 4),
                "factor_error": round(factor * LN10 * rates.std(ddof=1) / math.sqrt(p.trials), 4),
                "predicted": [round(float(x), 3) for x in theory],
                "mean": [round(float(x), 3) for x in decades.mean(axis=0)],
                "standard_error": [round(float(x), 4) for x in decades.std(axis=0, ddof=1) / math.sqrt(p.trials)],
            }
        )
    return {
        "steps": p.steps,
        "width": p.width,
        "trials": p.trials,
        "scalar_weight": p.scalar_weight,
        "scalar_factor": round(scalar_factor(p.scalar_weight), 6),
        "curves": curves,
        "bound": [row for width in p.bound_widths for row in above_the_bound(p, width, p.bound_sigmas)],
        "wide": above_the_bound(p, p.wide, (p.wide_sigma,))[0],
        "held_out": [held_out(p, *options) for options in p.held_out],
    }


def held_out(p, cell, law, sigma, drive, width):
    network = recurrent(p, cell, law, sigma, drive, width)
    factor, error = per_step(p, propagate(network, p.trials, p.seed).log_gradient[:, ::-1] / LN10)
    theory = mean_field(network.unrolled).log_gradient[::-1]
    predicted = math.exp((theory[p.far] - theory[p.near]) / (p.far - p.near))
    return {
        "cell": cell,
        "sigma": sigma,
        "drive": drive,
        "width": width,
        "factor_predicted": round(predicted, 5),
        "factor_measured": factor,
        "factor_error": error,
    }


def name(curve):
    law = "orthogonal" if curve["law"] == "orthogonal" else "Gaussian"
    return f"{curve['cell']}, {law}, σ_w {curve['sigma']:g}"


def apart(heights, gap):
    """The heights, moved up as little as needed for labels that must not touch."""
    placed, order = list(heights), sorted(range(len(heights)), key=lambda i: heights[i])
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    return placed


def figure(result):
    drawing, (left, right) = new_figure(7.4, 4.0, 1, 2, sharey=True)
    back = np.arange(result["steps"] + 1)
    for axes, cell in ((left, "linear"), (right, "tanh")):
        own = [curve for curve in result["curves"] if curve["cell"] == cell]
        heights = apart([curve["mean"][-1] for curve in own], 2.0)
        for curve, shade, height in zip(own, ramp(len(own)), heights, strict=True):
            axes.plot(back, curve["predicted"], **theory_style(cell) | {"color": shade})
            shown = back[::10]
            values, errors = np.array(curve["mean"])[shown], np.array(curve["standard_error"])[shown]
            axes.errorbar(shown, values, errors, **measured_style(cell) | {"color": shade})
            law = "orthogonal" if curve["law"] == "orthogonal" else f"σ = {curve['sigma']:g}"
            axes.annotate(
                law, (102, height), xycoords="data", va="center", color=INK, fontsize=8, annotation_clip=False
            )
        axes.set_xlim(0, 135)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel(f"steps back from the loss ({cell})")
    left.set_ylabel("log₁₀ of the gradient's norm")
    left.set_ylim(-37, 12)
    return drawing


def caption(result):
    return (
        f"The norm of $\\partial E/\\partial h_t$, {result['steps']} steps back, in recurrent networks of width "
        f"{result['width']}: linear without input (left), tanh with random inputs (right). Lines: mean-field theory; points: "
        f"mean of the logarithm over {result['trials']} networks. The weights are the same at every step, and at this "
        "width one sees it: linear networks end above the line, near the spectral radius of their own matrix."
    )


def alt(result):
    ends = "; ".join(f"{name(c)} 10 to the {c['mean'][-1]:.1f}" for c in result["curves"])
    return f"Gradient norms over {result['steps']} steps back are straight lines on a logarithmic axis. At the end: {ends}."


def table(result):
    rows = [
        [
            "Network",
            "Input",
            "Largest singular value × slope",
            "Spectral radius",
            "Mean field",
            "Measured factor per step",
        ]
    ]
    for c in result["curves"]:
        rows.append(
            [
                name(c),
                f"{c['drive']:g}",
                f"{c['largest']:.2f}",
                f"{c['radius']:.3f}",
                f"{c['factor_predicted']:.3f}",
                f"{c['factor_measured']:.3f} ± {c['factor_error']:.3f}",
            ]
        )
    return rows


def data(result):
    rows = [
        [
            "cell",
            "weights",
            "sigma_w",
            "input_variance",
            "steps_back",
            "log10_predicted",
            "log10_mean",
            "standard_error",
        ]
    ]
    for c in result["curves"]:
        columns = zip(c["predicted"], c["mean"], c["standard_error"], strict=True)
        rows += [[c["cell"], c["law"], c["sigma"], c["drive"], step, *values] for step, values in enumerate(columns)]
    return rows


def curve(result, cell, law, sigma):
    return next(c for c in result["curves"] if (c["cell"], c["law"], c["sigma"]) == (cell, law, sigma))


def numbers(result):
    found = {
        "scalar_factor": result["scalar_factor"],
        "trials": result["trials"],
        "width": result["width"],
        "steps": result["steps"],
    }
    for c in result["curves"]:
        key = f"{c['cell']}_{c['law']}_{c['sigma']:g}".replace(".", "_")
        found |= {
            f"{key}_measured": c["factor_measured"],
            f"{key}_predicted": c["factor_predicted"],
            f"{key}_error": c["factor_error"],
            f"{key}_largest": c["largest"],
            f"{key}_radius": c["radius"],
            f"{key}_decades": c["mean"][-1],
        }
    for x in [*result["bound"], result["wide"]]:
        key = f"bound_{x['width']}_{x['sigma']:g}".replace(".", "_")
        found |= {f"{key}_{what}": x[what] for what in ("largest", "radius", "factor_measured")}
        found[f"below_{x['width']}"] = 100 * x["below"]
    return found


def factor_of(*key):
    return lambda r: "× {factor_measured:.3f} ± {factor_error:.3f} per step".format(**curve(r, *key))


def at_width(result):
    return [x for x in result["bound"] if x["width"] == result["width"]]


def agrees(c, expected):
    """Within 1 %, as the claims say, and four standard errors."""
    return abs(c["factor_measured"] / expected - 1) < 0.01 + 4 * c["factor_error"] / expected


CLAIMS = [
    Claim(
        "recurrent-vanishes-above-the-bound",
        "Somewhat above one half a Gaussian recurrent matrix passes no singular-value test, and yet the gradient of a linear network "
        "vanishes, until the spectral radius of that matrix reaches 1.",
        "Pascanu, Mikolov & Bengio 2013, proof in section 2.1: a norm of W below 1/γ is sufficient for vanishing",
        lambda r: "spectral radius " + ", ".join(f"{x['radius']:.3f}" for x in at_width(r)) + f" (width {r['width']})",
        lambda r: "factor per step " + ", ".join(f"{x['factor_measured']:.3f}" for x in at_width(r)),
        "holds with a condition",
        lambda r: all(
            x["least_largest"] > 1
            and agrees(x, x["radius"])
            and (x["radius"] > 0.97 or x["factor_measured"] < 1)
            and (x["radius"] < 1.01 or x["factor_measured"] > 1)
            for x in r["bound"]
        ),
        "fix/recurrent.md",
    ),
    Claim(
        "recurrent-linear-follows-the-radius",
        "Up to width 256 a linear recurrent network follows, over a hundred steps, the spectral radius of its own matrix, from about "
        "one per cent below; the wider it is, the less closely.",
        "textbook: λ < 1 iff the gradient vanishes",
        lambda r: f"spectral radius {curve(r, 'linear', 'gaussian', 1.0)['radius']:.3f}",
        factor_of("linear", "gaussian", 1.0),
        "holds with a condition",
        lambda r: (
            # matrix by matrix, in the logarithm
            all(abs(x["below"] - 0.01) < 0.005 + 4 * x["below_error"] and x["correlation"] > 0.85 for x in r["bound"])
            and r["wide"]["below"] - r["bound"][0]["below"]
            > 4 * math.hypot(r["wide"]["below_error"], r["bound"][0]["below_error"])
            and r["wide"]["correlation"] < min(x["correlation"] for x in r["bound"])
        ),
        "fix/recurrent.md",
    ),
    Claim(
        "recurrent-radius-above-one-vanishes",
        "A tanh network with a spectral radius above 1 loses its gradient when its inputs are strong enough for its weights.",
        "textbook: a spectral radius above 1 makes the gradient explode",
        lambda r: "mean field × {factor_predicted:.3f} per step".format(**curve(r, "tanh", "gaussian", 1.2)),
        factor_of("tanh", "gaussian", 1.2),
        "false as stated",
        lambda r: (
            curve(r, "tanh", "gaussian", 1.2)["radius"] > 1.1
            # and keeps growing when they are too weak for them
            and curve(r, "tanh", "gaussian", 2.0)["factor_measured"]
            > 1.1 + 4 * curve(r, "tanh", "gaussian", 2.0)["factor_error"]
            and agrees(curve(r, "tanh", "gaussian", 1.2), curve(r, "tanh", "gaussian", 1.2)["factor_predicted"])
            and curve(r, "tanh", "gaussian", 1.2)["factor_measured"] < 0.8
            # at other widths, weights, inputs and with another activation: theory and a few parts of the width
            and all(
                x["sigma"] > 1 > x["factor_measured"]
                and abs(x["factor_measured"] / x["factor_predicted"] - 1) < 2.5 / x["width"] + 4 * x["factor_error"]
                for x in r["held_out"]
            )
        ),
        "fix/recurrent.md",
    ),
    Claim(
        "recurrent-orthogonal-keeps",
        "An orthogonal matrix keeps the gradient of a linear network exactly; with tanh the slopes still shrink it.",
        "Saxe, McClelland & Ganguli 2014: orthogonal initialisation",
        lambda r: "linear × 1 per step; tanh × {factor_predicted:.3f}".format(**curve(r, "tanh", "orthogonal", 1.0)),
        lambda r: (
            f"linear × {curve(r, 'linear', 'orthogonal', 1.0)['factor_measured']:.4f} per step; "
            f"tanh {factor_of('tanh', 'orthogonal', 1.0)(r)}"
        ),
        "holds with a condition",
        lambda r: (
            curve(r, "linear", "orthogonal", 1.0)["factor_measured"] == 1
            and agrees(curve(r, "tanh", "orthogonal", 1.0), curve(r, "tanh", "orthogonal", 1.0)["factor_predicted"])
            and curve(r, "tanh", "orthogonal", 1.0)["factor_measured"] < 0.9
        ),
        "fix/recurrent.md",
    ),
]
