"""Weight variances that keep gradient or signal for every activation, and what the advised ones do over 100 layers."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, TRIALS, WIDTH, agrees, factor
from style import INK, colour, look, measured_style, new_figure

from vgp_kernels import (
    ACTIVATIONS,
    Network,
    activation,
    critical_weight_variance,
    mean_field,
    propagate,
    variance_preserving_weight_variance,
)
from vgp_kernels.theory.finite_width import log_gradient_at_width


@dataclass(frozen=True)
class Parameters:
    depth: int = 100
    width: int = WIDTH  # the theory is for infinite width
    trials: int = TRIALS
    seed: int = 0
    selu_depths: tuple = (100, 1000)  # over which the loss of SELU with gain ¾ is told
    selu_layers: tuple = (1, 10, 50, 100, 400)  # whose factors are told
    selu_width: int = 1024  # to measure a factor that differs from 1 by a thousandth
    selu_trials: int = 400
    selu_narrow: tuple = (64, 256)  # widths at which it does not grow
    selu_narrow_trials: int = 1000
    selu_ends: tuple = (100, 400)  # layers between which it is measured
    step: float = 1e-4  # of q, for the slope of the variance map
    leak: str = "leaky_relu(0.2)"


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)

# What documentation advises, as σ_w²: the square of PyTorch's calculate_gain; He where users take it for want of an entry
ADVISED = {
    "linear": (1.0, "PyTorch"),
    "sigmoid": (1.0, "PyTorch"),
    "tanh": (25 / 9, "PyTorch"),
    "relu": (2.0, "PyTorch"),
    "leaky_relu": (2 / (1 + 0.01**2), "PyTorch"),
    "leaky_relu(0.2)": (2 / (1 + 0.2**2), "PyTorch"),
    "selu": (9 / 16, "PyTorch"),
    "elu": (2.0, "He"),
    "gelu": (2.0, "He"),
    "silu": (2.0, "He"),
    "mish": (2.0, "He"),
    "softplus": (2.0, "He"),
}


def compute(p):
    return {
        "depth": p.depth,
        "width": p.width,
        "trials": p.trials,
        "selu": selu_three_quarters(p),
        "activations": [row(p, name) for name in sorted([*ACTIVATIONS, p.leak])],
    }


def row(p, name):
    critical, preserving = critical_weight_variance(name), variance_preserving_weight_variance(name)
    above, below = 1 + p.step, 1 - p.step
    growth = above / variance_preserving_weight_variance(name, above) - below / variance_preserving_weight_variance(
        name, below
    )
    found = {
        "activation": name,
        "critical": significant(critical, 9),
        "preserving": significant(preserving, 9),
        "chi_1": significant(preserving / critical, 9),
        "chi_q": significant(preserving * growth / (2 * p.step), 6),
        "at_preserving": measure(p, name, preserving, 1 / math.sqrt(preserving)),
        "at_critical": at_critical(p, name, critical),
    }
    if name in ADVISED:
        variance, source = ADVISED[name]
        found["advised"] = {"weight_variance": significant(variance, 9), "source": source} | measure(
            p, name, variance, 1.0
        )
    return found


def at_critical(p, name, variance):
    """What the weights that keep the gradient at q = 1 do when q = 1 is where the signal starts, but not where it stays; theory."""
    network = Network(p.depth, p.width, name, weight_variance=variance, input_rms=1 / math.sqrt(variance))
    log_gradient = mean_field(network).log_gradient
    unit = mean_field(Network(p.depth, p.width, name, weight_variance=variance))
    return {
        "last_factor": significant(math.exp(log_gradient[p.depth - 1] - log_gradient[p.depth]), 6),
        "decades_predicted": significant(log_gradient[0] / LN10, 5),
        "decades_of_unit_inputs": significant(unit.log_gradient[0] / LN10, 5),
    }


def measure(p, name, variance, input_rms):
    """The factor per layer; and the decades that the gradient gains over the whole depth, with their spread between networks."""
    whole, settled = (
        Network(depth, p.width, name, weight_variance=variance, input_rms=input_rms) for depth in (p.depth, DEPTH)
    )
    decades, theory = propagate(whole, p.trials, p.seed).log_gradient[:, 0] / LN10, mean_field(whole).log_gradient
    return factor(settled, p.trials, p.seed) | {
        "first_predicted": significant(math.exp(theory[0] - theory[1]), 5),  # of the first layer alone
        "decades_predicted": significant(theory[0] / LN10, 5),
        "decades": significant(decades.mean(), 5),
        "decades_error": significant(decades.std(ddof=1) / math.sqrt(p.trials), 2),
        "spread": significant(decades.std(ddof=1), 3),
        "shrank": significant(
            float((decades < decades.mean() - 1).mean()), 4
        ),  # networks that end a decade below the mean
        "grew": significant(float((decades > decades.mean() + 1).mean()), 4),
    }


def selu_three_quarters(p):
    """SELU with PyTorch's gain ¾: the factors of single layers, and what is left of the norm."""

    def network(depth, width=p.selu_width):
        return Network(depth, width, "selu", weight_variance=ADVISED["selu"][0])

    near, far = p.selu_ends
    theory, long = mean_field(network(far)), mean_field(network(max(p.selu_depths)))
    steps = np.exp(-np.diff(long.log_gradient))

    def measured(width, trials):
        flow = propagate(network(far, width), trials, p.seed).log_gradient
        rates = (flow[:, near] - flow[:, far - 1]) / (far - 1 - near)
        return {
            "measured": significant(math.exp(rates.mean()), 6),
            "error": significant(rates.std(ddof=1) / math.sqrt(trials), 2),
            "first": significant(math.exp((flow[:, 0] - flow[:, near]).mean()), 4),  # of what reached layer 100
        }

    predicted = (log_gradient_at_width(network(far))[[near, far - 1]] @ [1, -1]) / (far - 1 - near)
    return {
        "q_star": significant(theory.q_star, 5),
        "chi_1": significant(theory.chi_1, 6),
        "xi_q": significant(theory.xi_q, 4),
        "layers": {str(layer): significant(steps[layer - 1], 5) for layer in p.selu_layers},
        "left": {
            str(depth): significant(math.exp(mean_field(network(depth)).log_gradient[0]), 4) for depth in p.selu_depths
        },
        "from": near,
        "to": far,
        "predicted": significant(
            math.exp((theory.log_gradient[near] - theory.log_gradient[far - 1]) / (far - 1 - near)), 6
        ),
        "at_width": significant(math.exp(predicted), 6),
        **measured(p.selu_width, p.selu_trials),
        "narrow": {str(width): measured(width, p.selu_narrow_trials) for width in p.selu_narrow},
    }


def rows_by_gain(result):
    return sorted(result["activations"], key=lambda row: row["critical"])


def figure(result):
    drawing, (left, right) = new_figure(7.2, 4.8, ncols=2, width_ratios=[1.2, 1], sharey=True)
    rows = rows_by_gain(result)
    for height, row in enumerate(rows):
        shade, _, _ = look(row["activation"])
        left.plot([row["critical"], row["preserving"]], [height, height], color=shade, linewidth=1)
        left.plot(row["critical"], height, "o", color=shade)
        left.plot(row["preserving"], height, "s", color=shade, markerfacecolor="none")
        for entry, mark in ((row["at_preserving"], "s"), (row.get("advised"), "x")):
            if entry:
                style = measured_style(row["activation"]) | {"marker": mark, "linestyle": "none"}
                if mark == "s":
                    style |= {"markerfacecolor": "none"}
                right.errorbar(entry["measured"], height, xerr=entry["error"], **style)
        if "advised" in row:
            left.plot(row["advised"]["weight_variance"], height, "x", color=shade)
        right.plot(
            [row["at_preserving"]["predicted"]] * 2,
            [height - 0.3, height + 0.3],
            color=colour(row["activation"]),
        )
    left.set(xscale="log", xlabel="weight variance σ_w²")
    left.set_xticks([0.5, 1, 2, 5, 10, 20], ["½", "1", "2", "5", "10", "20"])
    left.minorticks_off()
    left.set_yticks(range(len(rows)), [activation(row["activation"]).label for row in rows])
    left.tick_params(axis="y", labelcolor=INK, length=0)
    right.axvline(1, color=INK, linewidth=0.8)
    right.set_xlabel("factor per layer")
    return drawing


def caption(result):
    return (
        "Left: the weight variance that keeps the gradient at $q = 1$ (dots), the one that keeps the signal (squares), the advised "
        "one (crosses: PyTorch's gain, else He). Right: factor per layer of the gradient's norm, averaged over layers 10 to 50, at the "
        "latter two in networks of "
        f"width {result['width']}; bars: predicted for the squares; points: measured over {result['trials']} networks."
    )


def alt(result):
    apart = [row for row in result["activations"] if abs(row["chi_1"] - 1) > 1e-6]
    return (
        f"For {len(apart)} of {len(result['activations'])} activations the weights that keep the signal are not those that keep the "
        "gradient. Between layers 10 and 50, at the weights that are advised, tanh and SELU networks have factors "
        f"{by_name(result)['tanh']['advised']['measured']:.3f} and {by_name(result)['selu']['advised']['measured']:.3f}, GELU with He "
        f"falls by {by_name(result)['gelu']['advised']['measured']:.2f} per layer."
    )


def by_name(result):
    return {row["activation"]: row for row in result["activations"]}


def table(result):
    header = ["Activation", "keeps the gradient", "keeps the signal", "$\\chi_1$ there", "$\\chi_q$ there"]
    rows = [[*header, "factor there, predicted / measured", "advised", "factor there, predicted / measured"]]
    for row in rows_by_gain(result):
        advised = row.get("advised")
        cells = [activation(row["activation"]).label, f"{row['critical']:.5f}", f"{row['preserving']:.5f}"]
        cells += [f"{row['chi_1']:.5f}", f"{row['chi_q']:.4f}", factors(row["at_preserving"])]
        cells += (
            [f"{advised['weight_variance']:.4g} ({advised['source']})", factors(advised)] if advised else ["–", "–"]
        )
        rows.append(cells)
    return rows


def factors(entry):
    return f"{entry['predicted']:.4f} / {entry['measured']:.4f} ± {entry['error']:.4f}"


def data(result):
    measured = ["decades_predicted", "decades", "spread", "measured", "error"]
    rows = [
        [
            "activation",
            "critical_weight_variance",
            "preserving_weight_variance",
            "chi_1_at_preserving",
            "chi_q_at_preserving",
        ]
        + [f"preserving_{x}" for x in ("decades_predicted", "decades", "spread", "factor", "factor_error")]
        + ["advised_weight_variance", "advised_by"]
        + [f"advised_{x}" for x in ("decades_predicted", "decades", "spread", "factor", "factor_error")]
    ]
    for row in rows_by_gain(result):
        cells = [row[x] for x in ("activation", "critical", "preserving", "chi_1", "chi_q")]
        cells += [row["at_preserving"][x] for x in measured]
        advised = row.get("advised", {})
        cells += [advised.get(x, "") for x in ("weight_variance", "source", *measured)]
        rows.append(cells)
    return rows


def numbers(result):
    found = {}
    for name, row in by_name(result).items():
        key = name.replace("(0.2)", "_02")
        found |= {f"{key}_{x}": row[x] for x in ("critical", "preserving", "chi_1", "chi_q")}
        found |= {
            f"{key}_kept_factor": row["at_preserving"]["measured"],
            f"{key}_kept_spread": row["at_preserving"]["spread"],
        }
        found |= {f"{key}_kept_predicted": row["at_preserving"]["predicted"]}
        found |= {f"{key}_critical_decades": row["at_critical"]["decades_predicted"]}
        found |= {f"{key}_critical_decades_unit": row["at_critical"]["decades_of_unit_inputs"]}
        found |= {f"{key}_critical_factor": row["at_critical"]["last_factor"]}
        if "advised" in row:
            found |= {
                f"{key}_advised_first": row["advised"]["first_predicted"],
                f"{key}_advised_factor": row["advised"]["measured"],
                f"{key}_advised_predicted": row["advised"]["predicted"],
                f"{key}_advised_decades": row["advised"]["decades"],
            }
    selu = result["selu"]
    found |= {f"selu_{x}": selu[x] for x in ("q_star", "xi_q")}
    found |= {"selu_late": selu["measured"], "selu_late_error": selu["error"], "selu_late_predicted": selu["predicted"]}
    found |= {f"selu_late_{width}": entry["measured"] for width, entry in selu["narrow"].items()}
    found |= {f"selu_layer_{layer}": step for layer, step in selu["layers"].items()}
    found |= {f"selu_left_{depth}": left for depth, left in selu["left"].items()}
    return found


def kept(result, name):
    """The network with the weights that keep its signal."""
    return by_name(result)[name]["at_preserving"]


def at(name, kind):
    def text(result):
        entry = by_name(result)[name]["advised"]
        error = f" ± {entry['error']:.4f}" if kind == "measured" else ""
        return f"{activation(name).label}, σ_w² = {entry['weight_variance']:.4g}: × {entry[kind]:.4f}{error} per layer, layers 10 to 50"

    return text


def joined(*texts):
    return lambda result: "; ".join(text(result) for text in texts)


PAGE = "fix/activations.md"
REPELLED = ("gelu", "silu", "mish")
CLAIMS = [
    Claim(
        "signal-or-gradient",
        "Of these activations only those made of straight lines through zero keep the gradient with the weights that keep the signal, "
        "at unit variance.",
        "the gain that keeps the signal keeps the gradient (heard often)",
        lambda r: "χ₁ = 1 at the signal-keeping weights only for linear, ReLU and leaky ReLU",
        lambda r: (
            "χ₁ = 1 for "
            + ", ".join(activation(x["activation"]).label for x in r["activations"] if abs(x["chi_1"] - 1) < 1e-6)
        ),
        "holds with a condition",
        lambda r: (
            {x["activation"] for x in r["activations"] if abs(x["chi_1"] - 1) < 1e-6}
            == {"linear", "relu", "leaky_relu", "leaky_relu(0.2)"}
            # and the networks do as theory says, where they stay at unit variance
            and all(agrees(x["at_preserving"]) for x in r["activations"] if x["chi_q"] <= 1 + 1e-6)
        ),
        PAGE,
    ),
    Claim(
        "he-does-not-suit-gelu",
        "He initialisation does not suit GELU, SiLU and Mish: from inputs of unit size their gradients vanish with it.",
        "advice found in tutorials",
        joined(at("gelu", "at_width"), at("silu", "at_width"), at("mish", "at_width")),
        joined(at("gelu", "measured"), at("silu", "measured"), at("mish", "measured")),
        "false as stated",
        lambda r: all(
            agrees(by_name(r)[name]["advised"]) and by_name(r)[name]["advised"]["measured"] < 0.9
            for name in ("gelu", "silu", "mish")
        ),
        PAGE,
    ),
    Claim(
        "tanh-five-thirds",
        "With the gain 5/3 gradients of a deep tanh network explode.",
        "PyTorch, torch.nn.init.calculate_gain",
        at("tanh", "at_width"),
        at("tanh", "measured"),
        "holds with a condition",
        lambda r: by_name(r)["tanh"]["advised"]["measured"] > 1.05 and agrees(by_name(r)["tanh"]["advised"]),
        PAGE,
    ),
    Claim(
        "unstable-gain",
        "The weights that keep the signal of GELU, SiLU and Mish in theory do not keep it in a network of finite width: the fixed "
        "point repels, and networks drift away from it to either side.",
        "the gain that keeps the signal keeps the signal (heard often)",
        lambda r: ", ".join(
            f"χ_q = {by_name(r)[x]['chi_q']:.3f} ({activation(x).label})" for x in ("gelu", "silu", "mish")
        ),
        lambda r: (
            "spread between networks after 100 layers, in decades, and shares a decade below and above the mean: "
            + ", ".join(
                f"{kept(r, x)['spread']:.2g}, {kept(r, x)['shrank']:.2f} and {kept(r, x)['grew']:.2f} ({activation(x).label})"
                for x in ("gelu", "silu", "mish", "elu")
            )
        ),
        "holds with a condition",
        lambda r: (
            all(by_name(r)[x]["chi_q"] > 1 and min(kept(r, x)["shrank"], kept(r, x)["grew"]) > 0.1 for x in REPELLED)
            # where it attracts, networks stay together
            and all(
                x["at_preserving"]["shrank"] + x["at_preserving"]["grew"] < 0.01
                for x in r["activations"]
                if x["chi_q"] < 0.99
            )
            and {x["activation"] for x in r["activations"] if x["chi_q"] > 1 + 1e-6} == set(REPELLED)
        ),
        PAGE,
    ),
    Claim(
        "selu-three-quarters",
        "PyTorch's gain of ¾ makes the gradient of a wide SELU network fall once, to about a quarter, while the signal settles at a "
        "smaller size, and then change slowly, at a rate that depends on the width: per layer it grows by about a thousandth at width "
        "1,024, stays nearly level at 256, and falls by about eight thousandths at 64. Gain 1 makes it grow by three per cent per "
        "layer at width 256.",
        "PyTorch, torch.nn.init.calculate_gain: SELU ¾, for more stable gradient flow",
        lambda r: (
            f"gain ¾: {r['selu']['left']['100']:.3f} of the norm after 100 layers, × {r['selu']['at_width']:.5f} per layer "
            f"beyond; gain 1: × {kept(r, 'selu')['at_width']:.4f} per layer"
        ),
        lambda r: (
            f"gain ¾: × {r['selu']['measured']:.5f} ± {r['selu']['error']:.5f} in layers {r['selu']['from']} to {r['selu']['to']}, "
            f"width {PARAMETERS.selu_width}, "
            + ", ".join(f"× {x['measured']:.4f} ± {x['error']:.4f}, width {n}" for n, x in r["selu"]["narrow"].items())
            + f"; gain 1: × {kept(r, 'selu')['measured']:.4f} ± {kept(r, 'selu')['error']:.4f} per layer"
        ),
        "holds with a condition",
        lambda r: (
            abs(r["selu"]["measured"] - r["selu"]["at_width"]) < 4 * r["selu"]["error"]
            and 1.001 <= round(r["selu"]["predicted"], 3) <= 1.002
            and abs(r["selu"]["measured"] - 1.001) < 0.0005 + 4 * r["selu"]["error"]
            and all(
                abs(r["selu"]["narrow"][width]["measured"] - told) < 0.0005 + 4 * r["selu"]["narrow"][width]["error"]
                for width, told in (("256", 1.0), ("64", 0.992))
            )
            and 0.2 < r["selu"]["left"]["100"] < 0.3
            and 0.2 < r["selu"]["first"] < 0.3
            and agrees(by_name(r)["selu"]["advised"])
            and agrees(kept(r, "selu"))
            and 0.03 < kept(r, "selu")["measured"] - 1 < 0.035
        ),
        PAGE,
    ),
]
