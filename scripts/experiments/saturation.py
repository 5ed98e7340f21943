"""Slopes of the sigmoid against the size of its inputs, and what that does to the gradient."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import BOTTOM, DEPTH, TOP, TRIALS, WIDTH, shift_by_width
from experiments.what_vanishes import log_delta
from style import INK, MUTED, measured_style, new_figure, ramp, theory_style
from threadpoolctl import threadpool_limits

from vgp_kernels import INITIALISERS, Network, activation, mean_field, propagate
from vgp_kernels.theory.mean_field import moments, nodes


@dataclass(frozen=True)
class Parameters:
    variances: tuple = (0.01, 0.1, 0.25, 1.0, 4.0, 16.0, 64.0, 256.0)  # of the pre-activations
    draws: int = 200_000  # slopes drawn for each variance
    depth: int = DEPTH
    width: int = WIDTH  # the theory is for infinite width
    trials: int = TRIALS
    seed: int = 0
    bottom: int = BOTTOM
    top: int = TOP
    weight_variances: tuple = (1 / 3, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
    far: tuple = (1.0, 5.0, 10.0, 20.0)  # |x| at which slopes are told
    initialised: tuple = (("sigmoid", "xavier"), ("sigmoid", "he"), ("tanh", "xavier"), ("tanh", "he"))
    input_sizes: tuple = (1.0, 10.0)  # root mean squares
    forward_layers: int = 10
    forward_trials: int = 40
    edge: float = 0.05  # a unit counts as saturated if its value is within this of 0 or 1


PARAMETERS = Parameters()
TOLERANCE = {"initialised": (0.01, 0.001)}  # sums of BLAS differ in rounding, and a unit may then count or not


def compute(p):
    log_edge, critical = math.log((1 - p.edge) / p.edge), critical_weight_variance()
    q = np.geomspace(0.005, 512, 61)
    w = np.geomspace(0.1, 2048, 61)
    return {
        "width": p.width,
        "trials": p.trials,
        "draws": p.draws,
        "edge": p.edge,
        "slopes": [slopes(p, variance) for variance in p.variances],
        "slope_theory": [[significant(float(x), 5), *predicted_slopes(float(x))] for x in q],
        "networks": [measure(p, variance, log_edge) for variance in p.weight_variances],
        "network_theory": [predicted_network(float(x), log_edge) for x in w],
        "critical_weight_variance": significant(critical, 8),
        "critical_saturated": predicted_network(critical, log_edge)[3],
        "initialised": [
            {"activation": name, "initialiser": law, "input_size": size} | saturated_units(p, name, law, size)
            for name, law in p.initialised
            for size in p.input_sizes
        ],
        "far": list(p.far),
        "far_slopes": {name: far_slopes(p, name) for name in ("sigmoid", "relu", "leaky_relu", "elu")},
        "first_zero": {"float64": first_zero(np.float64), "float32": first_zero(np.float32)},
    }


def predicted_slopes(q):
    """√E σ′² and exp E ln σ′ at pre-activation variance q."""
    phi, root = activation("sigmoid"), math.sqrt(q)
    z, weight = nodes([0.0], 1 / max(root, 1e-3))
    # ln σ′ = -|x| - 2 ln(1 + e^-|x|) neither underflows nor cancels
    x = np.abs(root * z)
    log_slope = -x - 2 * np.log1p(np.exp(-x))
    mean_square = moments(phi, math.log(q)).slope
    return [significant(math.sqrt(mean_square), 6), significant(math.exp(float(weight @ log_slope)), 6)]


def slopes(p, q):
    z = math.sqrt(q) * np.random.default_rng(p.seed).standard_normal(p.draws)
    square = activation("sigmoid").slope(z) ** 2
    x = np.abs(z)
    logs = -x - 2 * np.log1p(np.exp(-x))
    mean_square, typical = float(square.mean()), math.exp(float(logs.mean()))
    return {
        "variance": q,
        "predicted": predicted_slopes(q),
        "root_mean_square": significant(math.sqrt(mean_square), 5),
        "root_mean_square_error": significant(0.5 * float(square.std()) / math.sqrt(p.draws * mean_square), 2),
        "geometric_mean": significant(typical, 5),
        "geometric_mean_error": significant(typical * float(logs.std()) / math.sqrt(p.draws), 2),
    }


def saturated(q, log_edge):
    """P(|z| > ln((1 - edge)/edge)) for z ~ N(0, q)."""
    return math.erfc(log_edge / math.sqrt(2 * q))


def predicted_network(weight_variance, log_edge):
    theory = mean_field(Network(1, 1, "sigmoid", weight_variance=weight_variance))
    return [
        significant(weight_variance, 5),
        significant(math.sqrt(theory.chi_1 / weight_variance), 6),
        significant(math.sqrt(theory.chi_1), 6),
        significant(saturated(theory.q_star, log_edge), 5),
    ]


def measure(p, weight_variance, log_edge):
    network = Network(p.depth, p.width, "sigmoid", weight_variance=weight_variance)
    flow = propagate(network, p.trials, p.seed)
    _, slope, both, share = predicted_network(weight_variance, log_edge)
    layers = slice(p.bottom, p.top)
    factors = {
        "slopes": log_delta(flow.log_weight_gradient, flow.log_signal, p.width)[:, layers]
        - flow.log_gradient[:, 1:][:, layers],
        "both": flow.log_gradient[:, :-1][:, layers] - flow.log_gradient[:, 1:][:, layers],
    }
    found = {"weight_variance": weight_variance, "saturated": share, "slopes_predicted": slope, "both_predicted": both}
    shift, doubt = shift_by_width(network)
    found |= {"both_at_width": significant(both * math.exp(shift), 6), "doubt": significant(doubt, 2)}
    for name, logs in factors.items():
        per_trial = logs.mean(axis=1)
        factor = math.exp(per_trial.mean())
        found[name] = significant(factor, 5)
        found[f"{name}_error"] = significant(factor * per_trial.std(ddof=1) / math.sqrt(p.trials), 2)
    return found


def saturated_units(p, name, law, size):
    """The share of units, layer by layer, whose slope is below that of a sigmoid at the edge, over the largest; explicit matrices."""
    phi, shares = activation(name), []
    deviation = math.sqrt(Network(1, p.width, name, law).weight_variance / p.width)
    least = 4 * p.edge * (1 - p.edge) * float(phi.slope(np.zeros(1))[0])
    with threadpool_limits(1):  # so that the sums are taken in one order
        for trial in range(p.forward_trials):
            generator = np.random.default_rng([p.seed, trial])
            h, layers = size * generator.standard_normal(p.width), []
            for _ in range(p.forward_layers):
                z = deviation * generator.standard_normal((p.width, p.width)) @ h
                h = phi.value(z)
                layers.append(float((phi.slope(z) < least).mean()))
            shares.append(layers)
    shares = np.array(shares)
    return {
        "share": significant(shares.mean(axis=0), 4),
        "share_error": significant(shares.std(axis=0, ddof=1) / math.sqrt(p.forward_trials), 2),
    }


def critical_weight_variance():
    """The σ_w² at which a wide sigmoid network without biases keeps the gradient's norm."""
    from scipy.optimize import brentq  # slow to import, and not needed by the drawings

    return float(
        brentq(lambda w: mean_field(Network(1, 1, "sigmoid", weight_variance=w)).chi_1 - 1, 16, 1024, xtol=1e-9)
    )


def far_slopes(p, name):
    """The slopes at -|x| and at |x|."""
    return {
        side: [significant(float(activation(name).slope(np.array([sign * x]))[0]), 6) for x in p.far]
        for side, sign in (("below", -1), ("above", 1))
    }


def first_zero(kind):
    """The first whole x at which σ(x)(1 - σ(x)), worked out in floating point as it stands, is 0."""
    x = 0
    while True:
        s = kind(1) / (kind(1) + np.exp(kind(-x)))
        if s * (kind(1) - s) == 0:
            return x
        x += 1


def figure(result):
    drawing, (left, right) = new_figure(7.0, 4.0, ncols=2)
    q, mean_square, typical = np.array(result["slope_theory"]).T
    left.plot(q, mean_square, **theory_style("sigmoid"))
    left.plot(q, typical, **theory_style("sigmoid") | {"linestyle": (0, (1.5, 1.5))})
    for s in result["slopes"]:
        for name in ("root_mean_square", "geometric_mean"):
            left.errorbar(s["variance"], s[name], s[f"{name}_error"], **measured_style("sigmoid"))
    left.axhline(0.25, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    left.annotate("¼", (0.006, 0.27), color=INK, ha="center", va="bottom", fontsize=9)
    left.annotate("wide layer: root\nmean square", (13, 0.135), color=INK, fontsize=9, va="bottom")
    left.annotate("single units:\ngeometric mean", (2.2, 0.011), color=INK, fontsize=9, va="bottom", ha="right")
    left.set(
        xscale="log", yscale="log", ylim=(1e-3, 0.6), xlabel="variance q of the inputs", ylabel="slope of the sigmoid"
    )
    w, slope, both, share = np.array(result["network_theory"]).T
    weights_colour, saturated_colour = ramp(2)
    right.plot(w, slope, **theory_style("sigmoid"))
    right.plot(w, both, color=weights_colour, linewidth=2)
    right.fill_between(w, 0.03, 0.03 * (3.5 / 0.03) ** share, color=MUTED, alpha=0.15, linewidth=0)
    for n in result["networks"]:
        right.errorbar(n["weight_variance"], n["slopes"], n["slopes_error"], **measured_style("sigmoid"))
        right.errorbar(
            n["weight_variance"], n["both"], n["both_error"], color=weights_colour, marker="s", linestyle="none"
        )
    right.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    right.annotate("slopes", (0.12, 0.27), color=saturated_colour, fontsize=9, va="bottom")
    right.annotate("gradient's factor", (5, 0.62), color=weights_colour, fontsize=9, ha="right", va="bottom")
    right.annotate("share of\nsaturated units", (160, 0.036), color=INK, fontsize=9, va="bottom", ha="center")
    right.set(
        xscale="log",
        yscale="log",
        ylim=(0.03, 3.5),
        xlim=(0.1, 2048),
        xlabel="weight variance $\\sigma_w^2$",
        ylabel="factor per layer",
    )
    return drawing


def caption(result):
    return (
        f"Left: the slope of the sigmoid for inputs $z \\sim N(0, q)$; lines: by quadrature; points: {result['draws']:,} draws. Right: "
        f"sigmoid networks of width {result['width']} without biases; lines: predicted; points: measured over {result['trials']} "
        f"networks. Grey, from bottom (none) to top (all): predicted share of units whose value is within {result['edge']:g} of 0 or 1."
    )


def alt(result):
    least, most = result["networks"][0], result["networks"][-1]
    return (
        f"With weight variance {least['weight_variance']:.2g} no unit is saturated and the factor is {least['both']:.3g}; with "
        f"{most['weight_variance']:g}, {most['saturated']:.0%} of the units are saturated and the factor is {most['both']:.3g}."
    )


def table(result):
    rows = [["$\\sigma_w^2$", "saturated", "slopes, predicted", "measured", "gradient, predicted", "measured"]]
    for n in result["networks"]:
        rows.append(
            [
                f"{n['weight_variance']:.3g}",
                share(n),
                f"{n['slopes_predicted']:.4f}",
                f"{n['slopes']:.4f} ± {n['slopes_error']:.4f}",
                f"{n['both_predicted']:.4f}",
                f"{n['both']:.4f} ± {n['both_error']:.4f}",
            ]
        )
    return rows


def share(network):
    """The saturated units, in words; one in a million counts as none."""
    return f"{100 * network['saturated']:.2g} %" if network["saturated"] > 1e-6 else "0 %"


def data(result):
    rows = [["x", "what", "predicted", "measured", "standard_error"]]
    for s in result["slopes"]:
        for name, predicted in zip(("root_mean_square", "geometric_mean"), s["predicted"], strict=True):
            rows.append([s["variance"], f"slope, {name}", predicted, s[name], s[f"{name}_error"]])
    for n in result["networks"]:
        for name in ("slopes", "both"):
            rows.append([n["weight_variance"], f"network, {name}", n[f"{name}_predicted"], n[name], n[f"{name}_error"]])
        rows.append([n["weight_variance"], "network, saturated", n["saturated"], "", ""])
    return rows


def numbers(result):
    found = {
        "critical_weight_variance": result["critical_weight_variance"],
        "saturated_critical": 100 * result["critical_saturated"],
    }
    for n in result["networks"]:
        name = (
            f"{n['weight_variance']:.2g}".replace(".", "_") if n["weight_variance"] < 1 else f"{n['weight_variance']:g}"
        )
        found |= {
            f"slopes_{name}": n["slopes"],
            f"factor_{name}": n["both"],
            f"predicted_{name}": n["both_predicted"],
            f"saturated_{name}": 100 * n["saturated"],
        }
    for s in result["slopes"]:
        name = f"{s['variance']:g}".replace(".", "_")
        found |= {f"rms_{name}": s["root_mean_square"], f"typical_{name}": s["geometric_mean"]}
    return found | {f"zero_{kind}": x for kind, x in result["first_zero"].items()}


CLAIMS = [
    Claim(
        "saturation-not-needed",
        "The slope of a saturated sigmoid is almost zero, but the gradient does not need saturation to vanish at the start of "
        "training: it vanishes where no unit is saturated. It can even explode where most units are: at σ_w² = 256 with 79 % "
        "saturated.",
        "note 5.1",
        lambda r: "; ".join(f"{share(n)} saturated: × {n['both_predicted']:.4f}" for n in ends(r)),
        lambda r: "; ".join(f"× {n['both']:.4f} ± {n['both_error']:.4f}" for n in ends(r)) + " per layer",
        "holds",
        lambda r: (
            ends(r)[0]["saturated"] < 1e-6
            and share(ends(r)[1]) == "79 %"
            and ends(r)[0]["both"] < 0.2
            and ends(r)[1]["both"] > 1.1
            and all(map(near_prediction, r["networks"]))
            # σ′ ≤ e^-|x|, on either side
            and all(
                0 < slope <= math.exp(-x)
                for slopes in r["far_slopes"]["sigmoid"].values()
                for x, slope in zip(r["far"], slopes, strict=True)
            )
        ),
        "learn/saturation.md",
    ),
    Claim(
        "initialisers-avoid-saturation",
        "With inputs of mean square 1, Xavier and He initialisation leave less than a third of sigmoid and tanh units saturated in the "
        "first layer and less than a tenth from the fourth on; with inputs ten times as large most units of the first are.",
        "note 6.5",
        lambda r: "few units",
        lambda r: "; ".join(
            f"{activation(x['activation']).label}, {INITIALISERS[x['initialiser']].label}, inputs of size {x['input_size']:g}: "
            f"{100 * x['share'][0]:.2g} % in the first layer, {100 * x['share'][3]:.2g} % in the fourth"
            for x in r["initialised"]
        ),
        "holds with a condition",
        lambda r: all(
            x["share"][0] + 4 * x["share_error"][0] < 1 / 3
            and all(share + 4 * error < 0.1 for share, error in zip(x["share"][3:], x["share_error"][3:], strict=True))
            if x["input_size"] == 1
            else x["share"][0] - 4 * x["share_error"][0] > 0.5
            for x in r["initialised"]
        ),
        "learn/saturation.md",
    ),
    Claim(
        "relu-slope-is-one",
        "The slope of ReLU is 1 above zero and 0 below.",
        "note 6.1",
        lambda r: "1 and 0",
        lambda r: "; ".join(
            f"at ±{x:g}: {above:g} and {below:g}"
            for x, above, below in zip(
                r["far"], *(r["far_slopes"]["relu"][side] for side in ("above", "below")), strict=True
            )
        ),
        "holds",
        lambda r: set(r["far_slopes"]["relu"]["above"]) == {1.0} and set(r["far_slopes"]["relu"]["below"]) == {0.0},
        "fix/relu.md",
    ),
    Claim(
        "leaks-keep-a-slope",
        "Below zero leaky ReLU keeps a slope of 0.01, and ELU one of e^x, near 1 just below zero and almost zero far below.",
        "note 6.2",
        lambda r: f"leaky ReLU 0.01; ELU at −5: {math.exp(-5):.3g}",
        lambda r: f"{r['far_slopes']['leaky_relu']['below'][1]:g}; {r['far_slopes']['elu']['below'][1]:.3g}",
        "holds with a condition",
        lambda r: (
            set(r["far_slopes"]["leaky_relu"]["below"]) == {0.01}
            and all(
                abs(slope / math.exp(-x) - 1) < 1e-5
                for x, slope in zip(r["far"], r["far_slopes"]["elu"]["below"], strict=True)
            )
        ),
        "fix/index.md",
    ),
]


def near_prediction(n):
    """The gradient's factor as predicted for this width, within four standard errors and the next order."""
    return abs(n["both"] / n["both_at_width"] - 1) < 4 * n["both_error"] / n["both"] + n["doubt"]


def ends(result):
    return [n for n in result["networks"] if n["weight_variance"] < 0.5 or n["weight_variance"] == 256]
