"""Weight variances that keep gradient or signal for every activation, and what the advised ones do over 100 layers."""

import math
from dataclasses import dataclass

from experiment import Claim, significant
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


@dataclass(frozen=True)
class Parameters:
    depth: int = 100
    width: int = 256  # a common size; the theory is for infinite width
    trials: int = 60  # error bars below the size of the points, but where a fixed point repels
    seed: int = 0
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
    }
    if name in ADVISED:
        variance, source = ADVISED[name]
        found["advised"] = {"weight_variance": significant(variance, 9), "source": source} | measure(
            p, name, variance, 1.0
        )
    return found


def measure(p, name, variance, input_rms):
    """Decades that the gradient gains over the whole depth, predicted and measured; `spread` is between networks."""
    network = Network(p.depth, p.width, name, weight_variance=variance, input_rms=input_rms)
    theory = mean_field(network).log_gradient[0]
    decades = propagate(network, p.trials, p.seed).log_gradient[:, 0] / LN10
    return {
        "predicted": significant(theory / LN10, 5),
        "measured": significant(decades.mean(), 5),
        "spread": significant(decades.std(ddof=1), 2),
        "factor": significant(10 ** (decades.mean() / p.depth), 5),
        "factor_predicted": significant(math.exp(theory / p.depth), 5),
        "error": significant(
            10 ** (decades.mean() / p.depth) * LN10 * decades.std(ddof=1) / p.depth / math.sqrt(p.trials), 2
        ),
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
                right.errorbar(entry["factor"], height, xerr=entry["error"], **style)
        if "advised" in row:
            left.plot(row["advised"]["weight_variance"], height, "x", color=shade)
        right.plot(
            [row["at_preserving"]["factor_predicted"]] * 2,
            [height - 0.3, height + 0.3],
            color=colour(row["activation"]),
        )
    left.set(xscale="log", xlabel="weight variance σ_w²")
    left.set_xticks([0.5, 1, 2, 5, 10, 20], ["½", "1", "2", "5", "10", "20"])
    left.minorticks_off()
    left.set_yticks(range(len(rows)), [activation(row["activation"]).label for row in rows])
    left.tick_params(axis="y", labelcolor=INK, length=0)
    right.axvline(1, color=INK, linewidth=0.8)
    right.set_xlabel(f"factor per layer, over {result['depth']} layers")
    return drawing


def caption(result):
    return (
        "Left: the weight variance that keeps the gradient at $q = 1$ (dots), the one that keeps the signal (squares), the advised "
        "one (crosses: PyTorch's gain, else He). Right: factor per layer of the gradient's norm at the latter two in networks of "
        f"width {result['width']}; bars: predicted for the squares; points: measured over {result['trials']} networks."
    )


def alt(result):
    apart = [row for row in result["activations"] if abs(row["chi_1"] - 1) > 1e-6]
    return (
        f"For {len(apart)} of {len(result['activations'])} activations the weights that keep the signal are not those that keep the "
        "gradient. At the weights that are advised, tanh and SELU networks have factors "
        f"{by_name(result)['tanh']['advised']['factor']:.3f} and {by_name(result)['selu']['advised']['factor']:.3f}, GELU with He "
        f"falls by {by_name(result)['gelu']['advised']['factor']:.2f} per layer."
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
    return f"{entry['factor_predicted']:.4f} / {entry['factor']:.4f} ± {entry['error']:.4f}"


def data(result):
    measured = ["predicted", "measured", "spread", "factor", "error"]
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
            f"{key}_kept_factor": row["at_preserving"]["factor"],
            f"{key}_kept_spread": row["at_preserving"]["spread"],
        }
        found |= {f"{key}_kept_predicted": row["at_preserving"]["factor_predicted"]}
        if "advised" in row:
            found |= {
                f"{key}_advised_factor": row["advised"]["factor"],
                f"{key}_advised_predicted": row["advised"]["factor_predicted"],
                f"{key}_advised_decades": row["advised"]["measured"],
            }
    return found


def agrees(entry):
    """Within 1 % per layer, the order of the correction for finite width (a few/width), and three standard errors."""
    return abs(entry["factor"] / entry["factor_predicted"] - 1) < 0.01 + 3 * entry["error"]


def kept(result, name):
    """The network with the weights that keep its signal."""
    return by_name(result)[name]["at_preserving"]


def at(name, kind):
    def text(result):
        entry = by_name(result)[name]["advised"]
        error = f" ± {entry['error']:.4f}" if kind == "factor" else ""
        return f"{activation(name).label}, σ_w² = {entry['weight_variance']:.4g}: × {entry[kind]:.4f}{error} per layer"

    return text


def joined(*texts):
    return lambda result: "; ".join(text(result) for text in texts)


PAGE = "fix/activations.md"
CLAIMS = [
    Claim(
        "signal-or-gradient",
        "Of these activations only those made of straight lines through zero keep the gradient with the weights that keep the signal, "
        "at unit variance.",
        "note 6.2",
        lambda r: "χ₁ = 1 at the signal-keeping weights only for linear, ReLU and leaky ReLU",
        lambda r: (
            "χ₁ = 1 for "
            + ", ".join(activation(x["activation"]).label for x in r["activations"] if abs(x["chi_1"] - 1) < 1e-6)
        ),
        "holds with a condition",
        lambda r: (
            {x["activation"] for x in r["activations"] if abs(x["chi_1"] - 1) < 1e-6}
            == {"linear", "relu", "leaky_relu", "leaky_relu(0.2)"}
        ),
        PAGE,
    ),
    Claim(
        "he-does-not-suit-gelu",
        "He initialisation does not suit GELU, SiLU and Mish: with it their gradients vanish.",
        "advice found in tutorials",
        joined(at("gelu", "factor_predicted"), at("silu", "factor_predicted"), at("mish", "factor_predicted")),
        joined(at("gelu", "factor"), at("silu", "factor"), at("mish", "factor")),
        "false as stated",
        lambda r: (
            all(0.6 < by_name(r)[name]["advised"]["factor"] < 0.8 for name in ("gelu", "silu"))
            and by_name(r)["mish"]["advised"]["factor"] < 1
            and agrees(by_name(r)["gelu"]["advised"])
        ),
        PAGE,
    ),
    Claim(
        "tanh-five-thirds",
        "With the gain 5/3 gradients of a deep tanh network explode.",
        "PyTorch, torch.nn.init.calculate_gain",
        at("tanh", "factor_predicted"),
        at("tanh", "factor"),
        "holds with a condition",
        lambda r: by_name(r)["tanh"]["advised"]["factor"] > 1.05 and agrees(by_name(r)["tanh"]["advised"]),
        PAGE,
    ),
    Claim(
        "unstable-gain",
        "The weights that keep the signal of GELU, SiLU and Mish in theory do not keep it in a network of finite width: the fixed "
        "point repels, and networks drift away from it to either side.",
        "note 6.2",
        lambda r: ", ".join(
            f"χ_q = {by_name(r)[x]['chi_q']:.3f} ({activation(x).label})" for x in ("gelu", "silu", "mish")
        ),
        lambda r: (
            "spread between networks after 100 layers, in decades: "
            + ", ".join(
                f"{by_name(r)[x]['at_preserving']['spread']:.2g} ({activation(x).label})"
                for x in ("gelu", "silu", "mish", "elu")
            )
        ),
        "holds with a condition",
        lambda r: (
            all(by_name(r)[x]["chi_q"] > 1 for x in ("gelu", "silu", "mish"))
            and all(
                by_name(r)[x]["at_preserving"]["spread"] > 2 * by_name(r)["elu"]["at_preserving"]["spread"]
                for x in ("gelu", "silu", "mish")
            )
        ),
        PAGE,
    ),
    Claim(
        "selu-three-quarters",
        "PyTorch's gain of ¾ lets the gradient of a SELU network vanish slowly, gain 1 lets it grow, about twice as fast: neither "
        "keeps it.",
        "PyTorch, torch.nn.init.calculate_gain: SELU ¾, for more stable gradient flow",
        lambda r: (
            f"gain ¾: {at('selu', 'factor_predicted')(r)}; gain 1: × {kept(r, 'selu')['factor_predicted']:.4f} per layer"
        ),
        lambda r: (
            f"gain ¾: {at('selu', 'factor')(r)}; gain 1: × {kept(r, 'selu')['factor']:.4f} ± {kept(r, 'selu')['error']:.4f} per layer"
        ),
        "holds with a condition",
        lambda r: (
            agrees(by_name(r)["selu"]["advised"])
            and agrees(kept(r, "selu"))
            and by_name(r)["selu"]["advised"]["measured"] < 0 < kept(r, "selu")["measured"]
            and 1.5 < -kept(r, "selu")["measured"] / by_name(r)["selu"]["advised"]["measured"] < 2.5
        ),
        PAGE,
    ),
]
