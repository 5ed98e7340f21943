"""Error signal, weight gradient and relative update, layer by layer, in three networks of depth 30."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from style import INK, MUTED, measured_style, new_figure, theory_style

from vgp_kernels import ACTIVATIONS, Network, mean_field, propagate
from vgp_kernels.theory.finite_width import log_gradient_at_width


@dataclass(frozen=True)
class Parameters:
    depth: int = 30  # the deepest plain network of He et al. 2015
    width: int = 256  # a common size; the theory is for infinite width
    trials: int = 1000  # error bars below the size of the points
    seed: int = 0
    initialiser: str = "xavier"
    activations: tuple = ("sigmoid", "tanh", "relu")
    learning_rate: float = 0.1  # a common one; it moves the third panel up or down and changes no slope


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)
QUANTITIES = {
    "delta": "error signal $\\lvert\\delta_l\\rvert$",
    "weight_gradient": "weight gradient $\\lvert\\partial E/\\partial W_l\\rvert$",
    "relative_update": "relative update $\\eta\\lvert\\partial E/\\partial W_l\\rvert/\\lvert W_l\\rvert$",
}


def log_delta(log_weight_gradient, log_signal, fan_in):
    """ln |δ_l|, l = 1 … depth, from |∂E/∂W_l| = |δ_l| |h_{l-1}|."""
    return log_weight_gradient - log_signal[..., :-1] - 0.5 * math.log(fan_in)


def compute(p):
    curves = []
    for activation in p.activations:
        network = Network(p.depth, p.width, activation, p.initialiser)
        flow, theory = propagate(network, p.trials, p.seed), mean_field(network)
        # |W| is within a fraction 1/n of its root mean square σ_w √n
        log_update = math.log(p.learning_rate) - 0.5 * math.log(network.weight_variance * p.width)
        shift = log_gradient_at_width(network) - theory.log_gradient
        quantities = {}
        for name in QUANTITIES:
            measured, predicted = (
                log_delta(source.log_weight_gradient, source.log_signal, p.width)
                if name == "delta"
                else source.log_weight_gradient + (log_update if name == "relative_update" else 0.0)
                for source in (flow, theory)
            )
            decades = measured / LN10
            falls = decades[:, 0] - decades[:, -1]
            quantities[name] = {
                "predicted": [round(float(x), 4) for x in predicted / LN10],
                "mean": [round(float(x), 4) for x in decades.mean(axis=0)],
                "standard_error": [round(float(x), 4) for x in decades.std(axis=0, ddof=1) / math.sqrt(p.trials)],
                "bottom_over_top_predicted": round(float((predicted[0] - predicted[-1]) / LN10), 4),
                "bottom_over_top_at_width": round(
                    float((predicted[0] - predicted[-1] + shift[1] - shift[-1]) / LN10), 4
                ),
                "bottom_over_top": round(float(falls.mean()), 4),
                "bottom_over_top_error": round(float(falls.std(ddof=1) / math.sqrt(p.trials)), 4),
            }
        curves.append({"activation": activation, "quantities": quantities})
    return {
        "depth": p.depth,
        "width": p.width,
        "trials": p.trials,
        "learning_rate": p.learning_rate,
        "curves": curves,
    }


def figure(result):
    drawing, axes = new_figure(7.0, 3.9, ncols=3, sharey=True)
    layers = np.arange(1, result["depth"] + 1)
    marked = np.r_[0, 4 : result["depth"] : 5]
    for panel, name, title in zip(
        axes, QUANTITIES, ("error signal", "weight gradient", "relative update"), strict=True
    ):
        for curve in result["curves"]:
            values = curve["quantities"][name]
            panel.plot(layers, values["predicted"], **theory_style(curve["activation"]))
            mean, error = np.array(values["mean"])[marked], np.array(values["standard_error"])[marked]
            panel.errorbar(
                layers[marked],
                mean,
                error,
                **measured_style(curve["activation"]),
                label=ACTIVATIONS[curve["activation"]].label,
            )
        panel.set(xlabel="layer", xticks=[1, 10, 20, 30], yticks=range(-20, 1, 5))
        panel.annotate(title, (0.04, 1.02), xycoords="axes fraction", color=INK, fontsize=10)
    axes[0].set_ylabel("log₁₀ of the norm")
    axes[0].legend(loc="lower right")
    update = axes[2]
    update.axhline(math.log10(2**-24), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    update.annotate("float32 rounds\nthe step away", (1, -7.6), ha="left", va="top", color=MUTED, fontsize=8.5)
    return drawing


def caption(result):
    return (
        f"Three networks with Xavier initialisation, depth {result['depth']}, width {result['width']}; layer {result['depth']} "
        f"is next to the loss, where the gradient has norm 1. Lines: predicted. Points: measured, mean of the logarithm over "
        f"{result['trials']} networks. Left: $|\\delta_l|$; middle: $|\\partial E/\\partial W_l|$; right: the share of its own "
        f"size by which one step of gradient descent with $\\eta = {result['learning_rate']}$ changes $W_l$. Below the dashed "
        f"line, $2^{{-24}}$, most weights stay the same number in float32."
    )


def alt(result):
    falls = "; ".join(
        f"{ACTIVATIONS[c['activation']].label}: error signal {c['quantities']['delta']['bottom_over_top']:.1f} decades, "
        f"weight gradient {c['quantities']['weight_gradient']['bottom_over_top']:.1f}"
        for c in result["curves"]
    )
    return f"Predicted lines run through measured points. From the top layer to the first: {falls}."


def table(result):
    rows = [["First layer over last", "predicted", "measured"]]
    for c in result["curves"]:
        for name, title in list(QUANTITIES.items())[:2]:  # the update falls as the weight gradient does
            values = c["quantities"][name]
            rows.append(
                [
                    f"{ACTIVATIONS[c['activation']].label}, {title}",
                    f"$10^{{{values['bottom_over_top_predicted']:.3f}}}$",
                    f"$10^{{{values['bottom_over_top']:.3f} \\pm {values['bottom_over_top_error']:.3f}}}$",
                ]
            )
    return rows


def data(result):
    rows = [["activation", "quantity", "layer", "log10_predicted", "log10_mean", "standard_error"]]
    for c in result["curves"]:
        for name, values in c["quantities"].items():
            columns = zip(values["predicted"], values["mean"], values["standard_error"], strict=True)
            rows += [[c["activation"], name, layer, *row] for layer, row in enumerate(columns, start=1)]
    return rows


def numbers(result):
    found = {}
    for c in result["curves"]:
        for name, values in c["quantities"].items():
            name = f"{c['activation']}_{name}"
            found[f"{name}_below"] = -values["bottom_over_top"]
            found[f"{name}_ratio"] = 10 ** values["bottom_over_top"]
            found[f"{name}_below_one"] = -values["mean"][0]
    return found


def falls(result, kind):
    found = []
    for c in result["curves"]:
        values = c["quantities"]["relative_update"]
        error = "" if kind == "_predicted" else f" ± {values['bottom_over_top_error']:.3f}"
        found.append(f"{c['activation']} {values['bottom_over_top' + kind]:.3f}{error}")
    return f"log₁₀ of the first layer's relative update over the last's: {', '.join(found)}"


def fall(result, activation, name, kind=""):
    return next(c for c in result["curves"] if c["activation"] == activation)["quantities"][name][
        f"bottom_over_top{kind}"
    ]


def error(result, activation, name):
    return fall(result, activation, name, "_error")


def as_predicted(result, activation, name):
    """Within four standard errors and a hundredth of a decade, for the size of the signal and for the next order of 1/width."""
    off = fall(result, activation, name) - fall(result, activation, name, "_at_width")
    return abs(off) < 4 * error(result, activation, name) + 0.01


CLAIMS = [
    Claim(
        "slow-against-the-top",
        "What makes the first layers of a sigmoid network slow is that their step is tiny against that of the last layers; in a ReLU "
        "network with Xavier initialisation and no biases every layer takes the same small step, although its error signal vanishes.",
        "note 1.2",
        lambda r: falls(r, "_predicted"),
        lambda r: falls(r, ""),
        "holds with a condition",
        lambda r: (
            all(as_predicted(r, activation, "delta") for activation in ("sigmoid", "relu"))
            and as_predicted(r, "sigmoid", "relative_update")
            and fall(r, "sigmoid", "relative_update") < -10
            # the signal makes good what the error signal has lost
            and abs(fall(r, "relu", "relative_update")) < 4 * error(r, "relu", "relative_update")
            and fall(r, "relu", "delta") < -3
        ),
        "learn/what-vanishes.md",
    ),
]
