"""What each remedy does to the factor by which a layer multiplies the gradient's norm, and through which part of the layer."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from experiments._factor import BOTTOM, DEPTH, TOP, TRIALS, WIDTH, factor
from experiments._factor import agrees as agrees_at_width
from matplotlib.patches import Patch
from style import INK, MUTED, new_figure, ramp

from vgp_kernels import Network, activation, mean_field
from vgp_kernels.theory.moments import moments


@dataclass(frozen=True)
class Parameters:
    depth: int = DEPTH
    width: int = WIDTH
    trials: int = TRIALS
    batch_size: int = 16
    batch_trials: int = 48  # a batch costs 256 times as much as one input
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None

SCALED = "scaled"  # α = 1/√depth, which the depth decides
NETWORKS = {
    "sigmoid_standard": ("sigmoid, standard", {"activation": "sigmoid", "initialiser": "standard"}),
    "sigmoid": ("sigmoid, Xavier", {"activation": "sigmoid", "initialiser": "xavier"}),
    "sigmoid_he": ("sigmoid, He", {"activation": "sigmoid", "initialiser": "he"}),
    "sigmoid_batch": (
        "sigmoid, Xavier, batch norm",
        {"activation": "sigmoid", "initialiser": "xavier", "normalisation": "batch"},
    ),
    "sigmoid_layer": (
        "sigmoid, Xavier, layer norm",
        {"activation": "sigmoid", "initialiser": "xavier", "normalisation": "layer"},
    ),
    "sigmoid_skip": (
        "sigmoid, Xavier, skip",
        {"activation": "sigmoid", "initialiser": "xavier", "residual": "preactivation"},
    ),
    "centred_sigmoid": ("centred sigmoid, 4 × Xavier", {"activation": "centred_sigmoid", "weight_variance": 16.0}),
    "tanh_standard": ("tanh, standard", {"activation": "tanh", "initialiser": "standard"}),
    "tanh": ("tanh, Xavier", {"activation": "tanh", "initialiser": "xavier"}),
    "tanh_biased": (
        "tanh, Xavier, biases N(0, 1)",
        {"activation": "tanh", "initialiser": "xavier", "bias_variance": 1.0},
    ),
    "relu_standard": ("ReLU, standard", {"activation": "relu", "initialiser": "standard"}),
    "relu_xavier": ("ReLU, Xavier", {"activation": "relu", "initialiser": "xavier"}),
    "relu": ("ReLU, He", {"activation": "relu", "initialiser": "he"}),
    "leaky_relu": ("leaky ReLU, He", {"activation": "leaky_relu", "initialiser": "he"}),
    "elu": ("ELU, He", {"activation": "elu", "initialiser": "he"}),
    "relu_batch": ("ReLU, He, batch norm", {"activation": "relu", "initialiser": "he", "normalisation": "batch"}),
    "relu_skip": ("ReLU, He, skip", {"activation": "relu", "initialiser": "he", "residual": "preactivation"}),
    "relu_skip_scaled": (
        "ReLU, He, skip, α = 1/√L",
        {"activation": "relu", "initialiser": "he", "residual": "preactivation", "residual_scale": SCALED},
    ),
}
# (the note's remedy, the network before, the network with it)
REMEDIES = (
    ("ReLU", "sigmoid", "relu_xavier"),
    ("ReLU with He", "sigmoid", "relu"),
    ("Leaky ReLU", "relu", "leaky_relu"),
    ("ELU", "relu", "elu"),
    ("Batch norm", "sigmoid", "sigmoid_batch"),
    ("Batch norm", "relu", "relu_batch"),
    ("Residual", "sigmoid", "sigmoid_skip"),
    ("Residual", "relu", "relu_skip"),
    ("Residual, scaled", "relu", "relu_skip_scaled"),
    ("Xavier", "sigmoid_standard", "sigmoid"),
    ("Xavier", "tanh_standard", "tanh"),
    ("He", "relu_xavier", "relu"),
)
FEW = 1.5  # parts of the width: norms and skips add to the 1.25 of a plain ReLU layer
PARTS = ("weight", "slope", "norm", "skip")
PART_COLOURS = dict(zip(PARTS, ramp(4), strict=True))


def network(p, options):
    options = dict(options)
    if options.get("residual_scale") == SCALED:
        options["residual_scale"] = 1 / math.sqrt(p.depth)
    if options.get("normalisation") == "batch":
        options["batch_size"] = p.batch_size
    return Network(p.depth, p.width, **options)


def parts(net, theory, bottom, top):
    """ln of what weights, slopes, norm and skip multiply the gradient's norm by, per layer; they add up to the whole."""
    phi = activation(net.activation)
    layers = range(bottom, top)  # h_bottom … h_top: the layers bottom + 1 … top
    total = np.diff(-theory.log_gradient[bottom : top + 1])
    log_q = [0.0 if net.normalisation else theory.log_variance[layer] for layer in layers]
    weight = 0.5 * math.log(net.weight_variance) + (math.log(net.residual_scale) if net.residual else 0.0)
    slope = np.array([0.5 * math.log(moments(phi, x).slope) for x in log_q])
    branch = total if net.residual is None else 0.5 * np.log(np.expm1(2 * total))
    found = {"weight": weight, "slope": slope.mean(), "norm": 0.0, "skip": (total - branch).mean()}
    if net.normalisation:
        found["norm"] = (branch - slope).mean() - weight
    return {part: round(float(found[part]), 4) for part in PARTS}


def compute(p):
    measured = {}
    for key, (label, options) in NETWORKS.items():
        net = network(p, options)
        trials = p.batch_trials if net.normalisation == "batch" else p.trials
        measured[key] = {
            "label": label,
            **factor(net, trials, p.seed),
            "trials": trials,
            "parts": parts(net, mean_field(net), BOTTOM, TOP),
        }
    return {"depth": p.depth, "width": p.width, "batch_size": p.batch_size, "networks": measured}


def figure(result):
    networks = list(result["networks"].values())
    drawing, axes = new_figure(7.4, 6.7)
    for row, entry in enumerate(networks):
        position = 0.0
        for part, offset in zip(PARTS, (-0.3, -0.1, 0.1, 0.3 if entry["parts"]["norm"] else 0.1), strict=True):
            step = entry["parts"][part] / math.log(10)
            if step:
                axes.barh(row + offset, step, 0.2, left=position, color=PART_COLOURS[part])
            position += step
        end = math.log10(entry["predicted"])
        axes.plot([end, end], [row - 0.42, row + 0.42], color=INK, linewidth=1.4)
        error = entry["error"] / entry["measured"] / math.log(10)
        axes.errorbar(
            math.log10(entry["measured"]),
            row,
            xerr=error,
            color=INK,
            marker="o",
            markersize=5.5,
            markeredgecolor="#ffffff",
        )
        axes.annotate(
            f"× {entry['measured']:.3f}",
            (1, row),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=0)
    axes.set_yticks(range(len(networks)), [entry["label"] for entry in networks])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    axes.use_sticky_edges = False
    axes.margins(x=0.04)
    axes.set_xlabel("log₁₀ of the factor per layer: below 0 the gradient vanishes, above 0 it explodes")
    handles = [Patch(color=PART_COLOURS[part], label=part) for part in PARTS]
    axes.legend(handles=handles, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
    return drawing


def caption(result):
    return (
        f"What one layer does to the gradient's norm, in networks of depth {result['depth']} and width {result['width']}. Bars: the "
        "predicted share of weights, slopes, norm and skip, one after the other; they end at the predicted factor (line). Points: "
        "measured between layers 10 and 50, with standard errors smaller than the points; the measured factor stands at the right."
    )


def alt(result):
    n = result["networks"]
    return (
        f"Between layers 10 and 50 the gradient's norm is multiplied per layer by {n['sigmoid']['measured']:.3f} in a sigmoid "
        f"network, by {n['relu']['measured']:.3f} with ReLU and He initialisation, by {n['relu_batch']['measured']:.3f} if batch "
        f"normalisation is added, by {n['relu_skip']['measured']:.3f} if a skip is added, and by "
        f"{n['relu_skip_scaled']['measured']:.3f} with a scaled skip."
    )


def table(result):
    rows = [["Remedy", "Before", "Factor before (layers 10 to 50)", "After", "Factor after, predicted", "measured"]]
    for remedy, before, after in REMEDIES:
        old, new = result["networks"][before], result["networks"][after]
        measured = f"{new['measured']:.4f} ± {new['error']:.4f}"
        rows.append([remedy, old["label"], f"{old['measured']:.4f}", new["label"], f"{new['predicted']:.4f}", measured])
    return rows


def data(result):
    rows = [
        [
            "network",
            "factor_predicted",
            "factor_measured",
            "standard_error",
            "trials",
            *(f"ln_{part}" for part in PARTS),
        ]
    ]
    for entry in result["networks"].values():
        values = [entry["parts"][part] for part in PARTS]
        rows.append([entry["label"], entry["predicted"], entry["measured"], entry["error"], entry["trials"], *values])
    return rows


def numbers(result):
    found = {}
    for key, entry in result["networks"].items():
        found |= {key: entry["measured"], f"{key}_predicted": entry["predicted"]}
    return found


def agrees(result, *keys):
    """Plain networks as predicted for their width; others, whose prediction is for infinite width, within a few parts of it."""
    entries = [result["networks"][key] for key in keys]
    return all(
        agrees_at_width(e)
        if "at_width" in e
        else abs(e["measured"] / e["predicted"] - 1) < FEW / result["width"] + 4 * e["error"] / e["measured"]
        for e in entries
    )


def factors(*keys):
    """(predicted, measured) texts for a claim."""

    def predicted(result):
        return "; ".join(
            f"{NETWORKS[key][0]} × {result['networks'][key].get('at_width', result['networks'][key]['predicted']):.3f}"
            for key in keys
        )

    def measured(result):
        entries = [(NETWORKS[key][0], result["networks"][key]) for key in keys]
        return "; ".join(f"{label} × {e['measured']:.4f} ± {e['error']:.4f}" for label, e in entries)

    return predicted, measured


def value(result, key):
    return result["networks"][key]["measured"]


def deep(result, key, layer=1000):
    """The predicted factor of one layer far up."""
    net = Network(layer, result["width"], **NETWORKS[key][1])
    return math.exp(-np.diff(mean_field(net).log_gradient)[-1])


PAGE = "fix/index.md"
CLAIMS = [
    Claim(
        "relu-half",
        "ReLU passes the gradient unchanged only through the units that are on, half of them: its factor per layer is σ_w/√2, so that "
        "it vanishes with Xavier initialisation and is kept with He's.",
        "note 6.1",
        *factors("relu_xavier", "relu"),
        "holds",
        lambda r: (
            agrees(r, "relu_xavier", "relu") and value(r, "relu_xavier") < 0.72 and abs(value(r, "relu") - 1) < 0.02
        ),
        PAGE,
    ),
    Claim(
        "leaky-death-not-scale",
        "A small slope below zero leaves the scale of the gradient to the weights: leaky ReLU with slope 0.01 has nearly the factor of "
        "ReLU, and ELU with He's weights a factor above 1.",
        "note 6.2",
        *factors("relu", "leaky_relu", "elu"),
        "holds with a condition",
        lambda r: (
            agrees(r, "leaky_relu", "elu")
            and abs(value(r, "leaky_relu") - value(r, "relu")) < 0.01 < value(r, "elu") - 1
            and 0 < deep(r, "elu") - 1 < 0.01
        ),
        PAGE,
    ),
    Claim(
        "batch-norm-explodes",
        "Batch normalisation ends the vanishing of a sigmoid network, but without skips it does not keep gradients stable: at "
        "initialisation it multiplies those of a ReLU network by 1.26 per layer with batches of 16.",
        "note 6.3",
        *factors("sigmoid_batch", "relu_batch"),
        "holds with a condition",
        lambda r: (
            agrees(r, "sigmoid_batch", "relu_batch")
            and round(value(r, "relu_batch"), 2) == 1.26
            and r["batch_size"] == 16
            and value(r, "sigmoid_batch") > 0.95
        ),
        PAGE,
    ),
    Claim(
        "skips-need-scale",
        "A skip lets the gradient pass, and more is added to it at every block: unscaled, the norm of a ReLU network with one He "
        "weight per block grows by √2 per block; with the branch scaled by 1/√L its root mean square stays within a factor of two "
        "over the whole network.",
        "note 6.4",
        *factors("relu_skip", "relu_skip_scaled"),
        "holds",
        lambda r: agrees(r, "relu_skip", "relu_skip_scaled") and value(r, "relu_skip_scaled") ** r["depth"] < 2,
        PAGE,
    ),
    Claim(
        "initialisers-set-the-variance",
        "Xavier and He initialisation choose the weights' share of the factor. The factor becomes nearly 1 where they were derived, "
        "Xavier for slopes near 1 and He for ReLU, and not for the sigmoid.",
        "note 6.5",
        *factors("sigmoid", "sigmoid_he", "tanh", "relu"),
        "holds with a condition",
        lambda r: (
            agrees(r, "sigmoid", "sigmoid_he", "tanh", "relu")
            and max(value(r, "sigmoid"), value(r, "sigmoid_he")) < 0.33
            and min(value(r, "tanh"), value(r, "relu")) > 0.95
        ),
        PAGE,
    ),
    Claim(
        "challenge-of-sigmoid-and-weights",
        "With the usual weights a sigmoid layer leaves a seventh to a third of the gradient. The gradient vanishes as well in "
        "tanh networks whose weights are too small or whose biases are too large, and in ReLU networks whose weights are too small.",
        "note 7.1",
        *factors(
            "sigmoid_standard", "sigmoid", "sigmoid_he", "tanh_standard", "tanh_biased", "relu_standard", "tanh", "relu"
        ),
        "holds with a condition",
        lambda r: (
            agrees(
                r, "sigmoid_standard", "sigmoid", "sigmoid_he", "tanh_standard", "tanh_biased", "relu_standard", "tanh"
            )
            and f"{1 / value(r, 'sigmoid_standard'):.0f}" == "7"
            and value(r, "sigmoid_standard") < value(r, "sigmoid") < value(r, "sigmoid_he") < 1 / 3
            and max(value(r, key) for key in ("tanh_standard", "tanh_biased", "relu_standard")) < 0.7
            and min(value(r, "tanh"), value(r, "relu")) > 0.95
        ),
        PAGE,
    ),
    Claim(
        "remedies-mitigate",
        "ReLU with He's weights keeps the gradient nearly as it is, a skip leads it round the layer, and batch normalisation stops the "
        "shrinking. But two can overdo it: in deep ReLU networks plain skips, and batch normalisation without skips, make gradients "
        "grow.",
        "note 7.2",
        *factors("sigmoid", "relu", "sigmoid_skip", "sigmoid_batch", "relu_skip", "relu_batch"),
        "holds",
        lambda r: (
            agrees(r, "relu", "sigmoid_skip", "sigmoid_batch", "relu_skip", "relu_batch")
            and all(0.95 < value(r, k) < 1.1 for k in ("relu", "sigmoid_skip", "sigmoid_batch"))
            and min(value(r, "relu_skip"), value(r, "relu_batch")) > 1.2
        ),
        PAGE,
    ),
]
