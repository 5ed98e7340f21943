"""Predicted against measured factor per layer, for every activation and four initialisers."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from style import INK, MUTED, colour, look, new_figure

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, activation, mean_field, propagate
from vgp_kernels.mean_field import moments, nodes


@dataclass(frozen=True)
class Parameters:
    depth: int = 60
    width: int = 256  # a common size; the theory is for infinite width
    trials: int = 200
    seed: int = 0
    bottom: int = 10  # the factor per layer is measured between these layers, away from both ends
    top: int = 50
    initialisers: tuple = ("standard", "xavier", "he", "orthogonal")


PARAMETERS = Parameters()
TOLERANCE = None
OFF = 0.01  # a deviation that is spoken of


def compute(p):
    networks = []
    for name in ACTIVATIONS:
        for initialiser in p.initialisers:
            network = Network(p.depth, p.width, name, initialiser)
            flow, theory = propagate(network, p.trials, p.seed), mean_field(network)
            per_layer = (flow.log_gradient[:, p.bottom] - flow.log_gradient[:, p.top]) / (p.top - p.bottom)
            predicted = math.exp((theory.log_gradient[p.bottom] - theory.log_gradient[p.top]) / (p.top - p.bottom))
            factor = math.exp(per_layer.mean())
            networks.append(
                {
                    "activation": name,
                    "initialiser": initialiser,
                    "predicted": significant(predicted, 5),
                    "measured": significant(factor, 5),
                    "error": significant(factor * per_layer.std(ddof=1) / math.sqrt(p.trials), 2),
                    "deviation": round(100 * (factor / predicted - 1), 2),
                    "deviation_error": round(100 * per_layer.std(ddof=1) / math.sqrt(p.trials), 2),
                    "width_correction": round(100 * width_correction(network, theory.variance[p.depth // 2]), 2),
                    "along_over_across": round(along_over_across(network, theory.variance[p.depth // 2 :]), 4),
                }
            )
    return {"width": p.width, "trials": p.trials, "networks": networks}


def width_correction(network, q):
    """E ln √(Σ w_i s_i²) - ln √E s² to first order in 1/n: the mean of the logarithm is below the logarithm of the mean.

    With κ = E φ′⁴/(E φ′²)² it is -(3κ - 1)/4n for Gaussian weights and -3(κ - 1)/4n for orthogonal ones, which keep the
    length of δ and only turn it.
    """
    phi, root = activation(network.activation), math.sqrt(q)
    z, weight = nodes([kink / root for kink in {0.0, *phi.kinks}], 1 / max(root, 1e-3))
    slope = phi.slope(root * z)
    kappa = float(weight @ slope**4) / float(weight @ slope**2) ** 2
    return -(3 * kappa - (3 if network.law == "orthogonal" else 1)) / (4 * network.width)


def along_over_across(network, variances):
    """The factor of a gradient along the signal h, over that of a gradient in a random direction, at one layer.

    A change of h by εh makes φ(z) change by εzφ′(z), of which E zφφ′/√(E φ²) lies along φ(z).
    """
    here, q, above = moments(activation(network.activation), math.log(variances[0])), variances[0], variances[1]
    along = network.weight_variance * here.growth * math.sqrt(q / above)
    return along / math.sqrt(network.weight_variance * here.slope)


def figure(result):
    drawing, (left, right) = new_figure(7.0, 4.4, ncols=2, width_ratios=[1, 1])
    limits = (0.12, 1.7)
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
        right.errorbar(network["predicted"], network["deviation"], network["deviation_error"], elinewidth=1, **style)
    for network in off(result):
        right.annotate(
            f"{ACTIVATIONS[network['activation']].label}, {INITIALISERS[network['initialiser']].label}",
            (network["predicted"], network["deviation"]),
            (-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=INK,
            fontsize=9,
        )
    left.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel="factor predicted", ylabel="factor measured")
    right.set(xscale="log", xlim=limits, xlabel="factor predicted", ylabel="measured − predicted, in %")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_ticks([0.15, 0.25, 0.5, 1, 1.5], ["0.15", "0.25", "0.5", "1", "1.5"])
        axis.set_ticks([], minor=True)
    drawing.legend(loc="outside lower center", ncols=5, fontsize=8.5, columnspacing=1.2, handletextpad=0.3)
    return drawing


def off(result):
    return [n for n in result["networks"] if abs(n["deviation"]) > 100 * OFF + 3 * n["deviation_error"]]


def caption(result):
    return (
        f"The factor of the gradient's norm per layer for {len(result['networks'])} networks: {len(ACTIVATIONS)} activations with "
        f"the initialisers standard, Xavier, He and orthogonal, width {result['width']}, mean of the logarithm over "
        f"{result['trials']} networks. Left: on the diagonal, measurement equals prediction. Right: the difference, enlarged, with "
        "standard errors. Left of the dashed line the gradient vanishes, right of it it explodes."
    )


def alt(result):
    inside = len(result["networks"]) - len(off(result))
    return f"{inside} of {len(result['networks'])} networks lie within one per cent of the predicted factor."


def table(result):
    names = list(dict.fromkeys(n["initialiser"] for n in result["networks"]))
    rows = [["Activation", *(f"{INITIALISERS[name].label}: predicted, measured" for name in names)]]
    for activation_name in dict.fromkeys(n["activation"] for n in result["networks"]):
        own = {n["initialiser"]: n for n in result["networks"] if n["activation"] == activation_name}
        row = [f"{own[name]['predicted']:.4f}, {own[name]['measured']:.4f}" for name in names]
        rows.append([ACTIVATIONS[activation_name].label, *row])
    return rows


def data(result):
    fields = list(result["networks"][0])
    return [fields, *([n[field] for field in fields] for n in result["networks"])]


def numbers(result):
    found = {"networks": len(result["networks"]), "within": len(result["networks"]) - len(off(result))}
    for n in result["networks"]:
        name = f"{n['activation']}_{n['initialiser']}"
        found |= {
            f"{name}_predicted": n["predicted"],
            f"{name}_measured": n["measured"],
            f"{name}_deviation": n["deviation"],
            f"{name}_width_correction": n["width_correction"],
            f"{name}_along_over_across": n["along_over_across"],
        }
    found["median_deviation"] = round(float(np.median([abs(n["deviation"]) for n in result["networks"]])), 2)
    return found


CLAIMS = [
    Claim(
        "rate-is-predictable",
        "Two integrals, with no fitted constant, predict the factor per layer of a network of width 256 to within one per cent, except "
        "where a gradient along the signal decays more slowly than one across it.",
        "Schoenholz et al. 2017",
        lambda r: (
            f"{len(r['networks'])} factors from {min(n['predicted'] for n in r['networks']):.3f} to "
            f"{max(n['predicted'] for n in r['networks']):.3f}"
        ),
        lambda r: (
            f"{len(r['networks']) - len(off(r))} of {len(r['networks'])} within 1 % and three standard errors; off: "
            + (
                ", ".join(f"{n['activation']} with {n['initialiser']} by {n['deviation']:+.1f} %" for n in off(r))
                or "none"
            )
        ),
        "holds with a condition",
        lambda r: all(n["along_over_across"] > 1.02 for n in off(r)),
        "learn/predict-the-rate.md",
    ),
]
