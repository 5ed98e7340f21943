"""Predicted against measured factor per layer: every activation with five initialisers, and networks drawn at random."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from experiments._factor import DEPTH, TRIALS, WIDTH, agrees, along_over_across, factor
from style import INK, MUTED, colour, look, new_figure

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network


@dataclass(frozen=True)
class Parameters:
    initialisers: tuple = ("standard", "xavier", "he", "normal", "orthogonal")
    held_out: int = 30  # networks whose every setting is drawn, before anything is measured
    widths: tuple = (64, 128, 512)
    depths: tuple = (60, 80, 120)
    weight_variances: tuple = (0.3, 30.0)  # ends of a uniform law of the logarithm
    bias_variances: tuple = (0.0, 0.05, 0.5)
    trials: int = TRIALS
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None
OFF = 0.01  # a deviation that is spoken of


def compute(p):
    named = [(Network(DEPTH, WIDTH, name, start), start) for name in ACTIVATIONS for start in p.initialisers]
    return {
        "width": WIDTH,
        "trials": p.trials,
        "networks": [{"initialiser": start} | entry(p, network) for network, start in named],
        "held_out": [entry(p, network) for network in drawn(p)],
    }


def drawn(p):
    """Networks of random activation, width, depth and variances."""
    generator = np.random.default_rng(p.seed)
    low, high = p.weight_variances
    for _ in range(p.held_out):
        name, width, depth, biases = (
            generator.choice(values) for values in (sorted(ACTIVATIONS), p.widths, p.depths, p.bias_variances)
        )
        weights = float(f"{low * (high / low) ** generator.random():.3g}")
        yield Network(int(depth), int(width), str(name), weight_variance=weights, bias_variance=float(biases))


def entry(p, network):
    found = factor(network, p.trials, p.seed)
    return {
        "activation": network.activation,
        "width": network.width,
        "depth": network.depth,
        "weight_variance": network.weight_variance,
        "bias_variance": network.bias_variance,
        **found,
        "deviation": percent(found["measured"] / found["predicted"] - 1),  # from theory for infinite width
        "deviation_error": percent(found["error"] / found["measured"]),
        "along_over_across": along_over_across(network),
    }


def percent(share):
    return round(100 * share, 3)


def figure(result):
    drawing, (left, right) = new_figure(7.0, 4.4, ncols=2, width_ratios=[1, 1])
    limits = (0.12, 20)
    left.plot(limits, limits, color=MUTED, linewidth=1)
    for panel in (left, right):
        panel.axvline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    left.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    right.axhline(0, color=MUTED, linewidth=1)
    named = set()
    for network in result["networks"]:
        name = network["activation"]
        style = {"color": colour(name), "marker": look(name)[2], "linestyle": "none", "markersize": 5.5, "alpha": 0.85}
        label = ACTIVATIONS[name].label if name not in named else None
        named.add(name)
        left.plot(network["predicted"], network["measured"], **style, label=label)
        right.errorbar(network["predicted"], left_over(network), network["deviation_error"], elinewidth=1, **style)
    for network in beyond(result):
        right.annotate(
            f"{ACTIVATIONS[network['activation']].label}, {INITIALISERS[network['initialiser']].label}",
            (network["predicted"], left_over(network)),
            (-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=INK,
            fontsize=9,
        )
    left.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel="factor predicted", ylabel="factor measured")
    right.set(xscale="log", xlim=limits, xlabel="factor predicted", ylabel="measured − predicted, in %", ylim=(-1.2, 4))
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_ticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axis.set_ticks([], minor=True)
    drawing.legend(loc="outside lower center", ncols=5, fontsize=8.5, columnspacing=1.2, handletextpad=0.3)
    return drawing


def left_over(network):
    """Measured minus predicted, in %: predicted for this width, or for infinite width where the correction is not small."""
    return 100 * (network["measured"] / network.get("at_width", network["predicted"]) - 1)


def beyond(result):
    """The networks for which the first order in 1/width is not enough."""
    return [n for n in result["networks"] if "at_width" not in n]


def off(result):
    """The networks that theory for infinite width misses by more than one per cent."""
    return [n for n in result["networks"] if abs(n["deviation"]) > 100 * OFF + 4 * n["deviation_error"]]


def caption(result):
    return (
        f"The factor of the gradient's norm per layer for {len(result['networks'])} networks: {len(ACTIVATIONS)} activations with "
        f"five initialisers, width {result['width']}, mean of the logarithm over {result['trials']} networks. Left: measured against "
        "the prediction for infinite width. Right: what is left, with standard errors, when the prediction is corrected for the "
        "width; named is the one for which the correction is not small, uncorrected."
    )


def alt(result):
    return (
        f"Points lie on the diagonal. Theory for infinite width misses {len(off(result))} of {len(result['networks'])} networks by "
        f"more than one per cent; corrected for the width, all but {len(beyond(result))} lie within "
        f"{largest_left_over(result['networks']):.1f} per cent."
    )


def largest_left_over(networks):
    return max(abs(left_over(n)) for n in networks if "at_width" in n)


def table(result):
    names = list(dict.fromkeys(n["initialiser"] for n in result["networks"]))
    rows = [["Activation", *(f"{INITIALISERS[name].label}: predicted, measured" for name in names)]]
    for activation_name in dict.fromkeys(n["activation"] for n in result["networks"]):
        own = {n["initialiser"]: n for n in result["networks"] if n["activation"] == activation_name}
        row = [f"{own[name]['predicted']:.4f}, {own[name]['measured']:.4f}" for name in names]
        rows.append([ACTIVATIONS[activation_name].label, *row])
    return rows


def data(result):
    fields = "initialiser activation width depth weight_variance bias_variance predicted at_width doubt measured error".split()
    return [fields, *([n.get(field, "") for field in fields] for n in result["networks"] + result["held_out"])]


def numbers(result):
    named, held_out = result["networks"], result["held_out"]
    found = {
        "networks": len(named),
        "within": len(named) - len(off(result)),
        "off": len(off(result)),
        "left_over": largest_left_over(named),
        "held_out": len(held_out),
        "held_out_met": sum("at_width" in n and agrees(n) for n in held_out),
        "held_out_beyond": sum("at_width" not in n for n in held_out),
        "held_out_left_over": largest_left_over(held_out),
        "held_out_smallest": min(n["measured"] for n in held_out),
        "held_out_largest": max(n["measured"] for n in held_out),
    }
    for n in named:
        name = f"{n['activation']}_{n['initialiser']}"
        found |= {f"{name}_{key}": n[key] for key in ("predicted", "measured", "deviation", "along_over_across")}
        if "at_width" in n:
            found[f"{name}_at_width"] = n["at_width"]
            found[f"{name}_shift_of_log"] = n["width"] * math.log(n["at_width"] / n["predicted"])
            found[f"{name}_shift"] = 100 * (n["at_width"] / n["predicted"] - 1)
    return found


def everyone(result):
    return result["networks"] + result["held_out"]


CLAIMS = [
    Claim(
        "rate-is-predictable",
        "Two integrals, with no fitted constant, predict the factor per layer of an infinitely wide network; a few more give a "
        "correction of order 1/width, and with it the factors of finite networks are met wherever the correction is small.",
        "Schoenholz et al. 2017",
        lambda r: (
            f"{len(everyone(r))} factors from {min(n['predicted'] for n in everyone(r)):.3f} to "
            f"{max(n['predicted'] for n in everyone(r)):.3f}, a third of them at settings that were drawn"
        ),
        lambda r: (
            f"{sum('at_width' in n for n in everyone(r))} met within four standard errors and the next order, the largest difference "
            f"{largest_left_over(everyone(r)):.1f} %; in {sum('at_width' not in n for n in everyone(r))} the correction is not small; "
            f"without the correction {len(off(r))} of {len(r['networks'])} are off by more than 1 %"
        ),
        "holds with a condition",
        lambda r: (
            all(agrees(n) for n in everyone(r) if "at_width" in n)
            and sum("at_width" in n for n in everyone(r)) > 0.9 * len(everyone(r))
        ),
        "learn/predict-the-rate.md",
    ),
]
