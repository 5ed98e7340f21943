"""How the gradient's norm falls, layer by layer, in six networks of depth 100."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from experiments._factor import DEPTH, agrees, factor
from style import INK, measured_style, new_figure, theory_style

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, mean_field, propagate
from vgp_kernels.theory.finite_width import log_gradient_at_width


@dataclass(frozen=True)
class Parameters:
    depth: int = 100  # deep enough that an exponential cannot be mistaken for a power
    width: int = 256  # a common size; the theory is for infinite width
    trials: int = 1000  # error bars below the size of the points
    seed: int = 0
    networks: tuple = (
        ("sigmoid", "standard"),
        ("sigmoid", "xavier"),
        ("tanh", "standard"),
        ("tanh", "xavier"),
        ("relu", "xavier"),
        ("relu", "he"),
    )


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)


def compute(p):
    curves = []
    for activation, initialiser in p.networks:
        network = Network(p.depth, p.width, activation, initialiser)
        decades = propagate(network, p.trials, p.seed).log_gradient / LN10
        theory = mean_field(network)
        low, high = np.quantile(decades, [0.1, 0.9], axis=0)
        curves.append(
            {
                "activation": activation,
                "initialiser": initialiser,
                "predicted": [round(float(x), 4) for x in theory.log_gradient / LN10],
                "at_width": [round(float(x), 4) for x in log_gradient_at_width(network) / LN10],
                "mean": [round(float(x), 4) for x in decades.mean(axis=0)],
                "standard_error": [round(float(x), 4) for x in decades.std(axis=0, ddof=1) / math.sqrt(p.trials)],
                "tenth": [round(float(x), 3) for x in low],
                "ninetieth": [round(float(x), 3) for x in high],
                "factor": factor(Network(DEPTH, p.width, activation, initialiser)),
            }
        )
    return {"trials": p.trials, "width": p.width, "depth": p.depth, "curves": curves}


def label(curve):
    return f"{ACTIVATIONS[curve['activation']].label}, {INITIALISERS[curve['initialiser']].label}"


def figure(result):
    drawing, axes = new_figure(7.0, 4.6)
    layers = np.arange(result["depth"] + 1)
    marked = layers[::5]
    for curve in result["curves"]:
        look = theory_style(curve["activation"]) | (
            {"linestyle": (0, (1.5, 1.5))} if curve["initialiser"] != "xavier" else {}
        )
        axes.plot(layers, curve["predicted"], **look)
        axes.fill_between(layers, curve["tenth"], curve["ninetieth"], color=look["color"], alpha=0.18, linewidth=0)
        values, errors = np.array(curve["mean"])[marked], np.array(curve["standard_error"])[marked]
        axes.errorbar(marked, values, errors, **measured_style(curve["activation"]))
    height = float("inf")
    for curve in sorted(result["curves"], key=lambda c: -c["mean"][0]):
        height = min(curve["mean"][0], height - 4)  # four decades are a line of text
        axes.text(-2, height, label(curve), ha="right", va="center", color=INK, fontsize=9)
    axes.set(xlabel="layer (100 is the loss, 0 the input)", ylabel="log₁₀ of the gradient's norm")
    axes.set_xlim(-37, 101)
    axes.set_xticks(range(0, 101, 20))
    return drawing


def caption(result):
    return (
        f"The norm of $\\partial E/\\partial h_l$ in networks of width {result['width']}, with norm 1 at the last layer. Lines: "
        f"predicted for infinite width (solid: Xavier; dotted: the other). Points: measured, mean of the logarithm over "
        f"{result['trials']} networks, with standard errors smaller than the points; bands: the middle 80 % of the networks."
    )


def alt(result):
    ends = "; ".join(f"{label(c)} 10 to the {c['mean'][0]:.1f}" for c in result["curves"])
    return f"Predicted lines run through measured points. After 100 layers the gradient's norm is: {ends}."


def table(result):
    rows = [["Network", "Factor per layer, predicted", "measured", "After 100 layers, measured"]]
    for c in result["curves"]:
        rows.append(
            [
                label(c),
                f"{c['factor']['predicted']:.5f}",
                f"{c['factor']['measured']:.5f} ± {c['factor']['error']:.5f}",
                f"$10^{{{c['mean'][0]:.1f}}}$",
            ]
        )
    return rows


def data(result):
    rows = [["activation", "initialiser", "layer", "log10_predicted", "log10_mean", "standard_error", "q10", "q90"]]
    for c in result["curves"]:
        columns = zip(c["predicted"], c["mean"], c["standard_error"], c["tenth"], c["ninetieth"], strict=True)
        rows += [[c["activation"], c["initialiser"], layer, *values] for layer, values in enumerate(columns)]
    return rows


def numbers(result):
    found = {}
    for c in result["curves"]:
        name = f"{c['activation']}_{c['initialiser']}"
        found |= {
            f"{name}_factor": c["factor"]["measured"],
            f"{name}_predicted": c["factor"]["predicted"],
            f"{name}_decades": c["mean"][0],
            f"{name}_lost": -c["mean"][0],
            f"{name}_lost_predicted": -c["predicted"][0],
        }
    return found


def curve(result, activation, initialiser):
    return next(c for c in result["curves"] if (c["activation"], c["initialiser"]) == (activation, initialiser))


def per_layer(activation, initialiser, kind):
    def text(result):
        c = curve(result, activation, initialiser)
        if kind == "predicted":
            return f"× {c['factor']['at_width']:.5f} per layer"
        return f"× {c['factor']['measured']:.5f} ± {c['factor']['error']:.5f} per layer"

    return text


def measured(result, activation, initialiser="xavier"):
    return curve(result, activation, initialiser)["factor"]["measured"]


def steps(c):
    """log₁₀ of the mean factor of every layer but the first tenth."""
    return np.diff(c["mean"])[len(c["mean"]) // 10 :]


def is_straight(c):
    """No layer's factor differs from another's by more than chance: 4½ standard errors of a single layer, for 90 of them."""
    return np.all(np.abs(steps(c) - steps(c).mean()) < 4.5 * c["standard_error"][-2])


def as_predicted(c):
    """The measured curve within four standard errors of theory for this width, and what lies between the first layers and the last."""
    off = np.abs(np.subtract(c["mean"], c["at_width"]))
    next_order = c["factor"]["doubt"] * np.arange(len(off))[::-1] / LN10
    return np.all(off <= 4 * np.array(c["standard_error"]) + next_order + 1e-4)


CLAIMS = [
    Claim(
        "exponentially-small",
        "In a sigmoid network with Xavier initialisation the gradient shrinks by the same factor at every layer but the first few, so "
        "that it falls exponentially with depth.",
        "note 1.1",
        per_layer("sigmoid", "xavier", "predicted"),
        per_layer("sigmoid", "xavier", "measured"),
        "holds with a condition",
        lambda r: all(
            is_straight(c) and as_predicted(c) and agrees(c["factor"]) and c["factor"]["measured"] < 0.3
            for c in r["curves"]
            if c["activation"] == "sigmoid"
        ),
        "learn/what-vanishes.md",
    ),
    Claim(
        "sigmoid-worst",
        "At the same initialisation a sigmoid network loses far more per layer than a tanh network, and a ReLU network can lose more "
        "than a tanh one.",
        "note 1.3",
        lambda r: (
            ", ".join(f"{a} {curve(r, a, 'xavier')['factor']['at_width']:.3f}" for a in ("sigmoid", "tanh", "relu"))
            + " (Xavier)"
        ),
        lambda r: ", ".join(f"{a} {measured(r, a):.3f}" for a in ("sigmoid", "tanh", "relu")) + " (Xavier)",
        "holds with a condition",
        lambda r: (
            all(agrees(c["factor"]) for c in r["curves"])
            and measured(r, "sigmoid") < 0.5 * measured(r, "relu") < 0.5 * measured(r, "tanh")
            and measured(r, "sigmoid", "standard") < 0.5 * measured(r, "tanh", "standard")
        ),
        "learn/what-vanishes.md",
    ),
    Claim(
        "factor-not-slope",
        "What decides is whether the factor of the whole layer, weights and slopes together, is below 1; in an infinitely wide tanh "
        "network with Xavier initialisation it tends to 1 and the gradient falls only as a power of the depth.",
        "note 2.2",
        lambda r: f"tanh, Xavier: {curve(r, 'tanh', 'xavier')['at_width'][0]:.2f} decades in {r['depth']} layers",
        lambda r: (
            f"{curve(r, 'tanh', 'xavier')['mean'][0]:.2f} ± {curve(r, 'tanh', 'xavier')['standard_error'][0]:.2f} decades"
        ),
        "holds with a condition",
        lambda r: (
            as_predicted(curve(r, "tanh", "xavier"))
            # infinitely wide, the norm falls as 1/√l: from the tenth layer to the hundredth by half a decade
            and abs(curve(r, "tanh", "xavier")["predicted"][10] / -0.5 - 1) < 0.1
        ),
        "learn/why-a-product.md",
    ),
    Claim(
        "many-factors-multiply",
        "A hundred factors of 0.235 multiply to less than one part in ten to the sixtieth. Factors below 1 that tend to 1 need not: "
        "a hundred tanh layers of width 256 with Xavier initialisation leave more than a twentieth.",
        "note 2.3",
        lambda r: f"10^{curve(r, 'sigmoid', 'xavier')['at_width'][0]:.1f}",
        lambda r: (
            f"10^({curve(r, 'sigmoid', 'xavier')['mean'][0]:.2f} ± {curve(r, 'sigmoid', 'xavier')['standard_error'][0]:.2f})"
        ),
        "holds",
        lambda r: (
            as_predicted(curve(r, "sigmoid", "xavier"))
            and f"{measured(r, 'sigmoid'):.3f}" == "0.235"
            and curve(r, "sigmoid", "xavier")["mean"][0] < -60
            and as_predicted(curve(r, "tanh", "xavier"))
            and curve(r, "tanh", "xavier")["mean"][0] > math.log10(1 / 20)
        ),
        "learn/why-a-product.md",
    ),
]
