"""ReLU: the factor per layer against the weights, and the units that are off for every input."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, WIDTH, agrees, factor
from style import INK, colour, measured_style, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, propagate


@dataclass(frozen=True)
class Parameters:
    depth: int = 50
    width: int = WIDTH  # the theory is for infinite width
    trials: int = 1000  # error bars below the size of the points
    seed: int = 0
    weight_variances: tuple = (1 / 3, 1.0, 1.5, 2.0, 2.5, 3.0)
    sizes: tuple = (256, 256, 256, 256, 256, 128, 128, 128, 128, 128)  # of the UvA tutorial
    networks: int = 40  # whose units are counted over all the digits
    narrow: tuple = ((2, 5), (3, 8), (4, 10), (8, 50))  # (width, depth) of networks that may be born dead
    narrow_trials: int = 20_000


PARAMETERS = Parameters()
TOLERANCE = {
    "dead": (0.0, 0.002),
    "dead_error": (0.0, 0.002),
}  # a unit of 128 is 0.008; sums of BLAS differ in rounding
LN10 = math.log(10)
LAWS = {"default": "PyTorch's default", "small": "PyTorch's weights, zero biases", "he": "He, zero biases"}


def compute(p):
    rows = []
    for variance in p.weight_variances:
        flow = propagate(Network(p.depth, p.width, "relu", weight_variance=variance), p.trials, p.seed)
        weights = flow.log_weight_gradient.mean(axis=0) / LN10
        spreads = np.ptp(flow.log_weight_gradient, axis=1) / LN10
        differences = (flow.log_weight_gradient[:, 0] - flow.log_weight_gradient[:, -1]) / LN10
        rows.append(
            {
                "weight_variance": significant(variance, 6),
                **factor(Network(DEPTH, p.width, "relu", weight_variance=variance), seed=p.seed),
                "gradient_decades": significant((flow.log_gradient[:, 0].mean()) / LN10, 4),
                "weight_gradient_decades": significant(weights[0] - weights[-1], 2),
                "weight_gradient_spread": significant(weights.max() - weights.min(), 3),
                "spread_in_one": significant(np.median(spreads), 3),
                "weight_gradient_error": significant(differences.std(ddof=1) / math.sqrt(p.trials), 2),
            }
        )
    return {
        "depth": p.depth,
        "width": p.width,
        "trials": p.trials,
        "sizes": list(p.sizes),
        "factors": rows,
        "networks": p.networks,
        **dead_units(p),
        "born_dead": [born_dead(p, width, depth) for width, depth in p.narrow],
    }


def dead_units(p):
    """Share of units, layer by layer, that are 0 for all the digits; the three laws share their random numbers."""
    from sklearn.datasets import load_digits  # slow to import, and not needed by the drawings

    pixels = load_digits().data
    inputs = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    shares: dict[str, list] = {law: [] for law in LAWS}
    changed = 0
    with threadpool_limits(1):  # so that the sums are taken in one order
        for trial in range(p.networks):
            patterns = {law: pattern(p, inputs, law, trial) for law in LAWS}
            changed += sum(int((a != b).sum()) for a, b in zip(patterns["small"], patterns["he"], strict=True))
            for law, layers in patterns.items():
                shares[law].append([float(layer.mean()) for layer in layers])
    table = {law: np.array(values) for law, values in shares.items()}
    return {
        "inputs": len(inputs),
        "dead": {law: [round(float(x), 4) for x in values.mean(axis=0)] for law, values in table.items()},
        "dead_error": {
            law: [round(float(x), 4) for x in values.std(axis=0, ddof=1) / math.sqrt(p.networks)]
            for law, values in table.items()
        },
        "changed": changed,
    }


def pattern(p, inputs, law, trial):
    """For each layer, which units are 0 for every input."""
    generator = np.random.default_rng([p.seed, trial])
    gain = math.sqrt(6) if law == "he" else 1.0  # U(-√6/√n, √6/√n) has the variance 2/n
    h, dead = inputs, []
    for size in p.sizes:
        bound = np.float32(1 / math.sqrt(h.shape[1]))
        weights = generator.uniform(-1, 1, (h.shape[1], size)).astype(np.float32)
        biases = generator.uniform(-1, 1, size).astype(np.float32)
        z = h @ (weights * bound * np.float32(gain)) + (biases * bound if law == "default" else 0)
        h = np.maximum(z, 0)
        dead.append((z <= 0).all(axis=0))
    return dead


def born_dead(p, width, depth):
    """The share of networks whose output is 0 for a given input, predicted (exact) and measured."""
    flow = propagate(Network(depth, width, "relu", "he"), p.narrow_trials, p.seed)
    share = float(np.isneginf(flow.log_signal[:, -1]).mean())
    return {
        "width": width,
        "depth": depth,
        "predicted": significant(1 - (1 - 0.5**width) ** depth, 5),
        "measured": significant(share, 5),
        "error": significant(math.sqrt(share * (1 - share) / p.narrow_trials), 2),
    }


def figure(result):
    drawing, (left, right) = new_figure(7.0, 3.8, ncols=2)
    variances = np.linspace(0.2, 3.2, 100)
    left.plot(variances, np.sqrt(variances / 2), color=colour("relu"))
    for row in result["factors"]:
        left.errorbar(row["weight_variance"], row["measured"], row["error"], **measured_style("relu"))
    names = {1 / 3: "PyTorch's default", 1.0: "Xavier", 2.0: "He"}
    for row in result["factors"]:
        for variance, name in names.items():
            if abs(row["weight_variance"] - variance) < 1e-3:
                left.annotate(
                    name, (variance, row["measured"]), (8, -9), textcoords="offset points", color=INK, fontsize=9
                )
    left.axhline(1, color=INK, linewidth=0.8)
    left.set(xlabel="weight variance σ_w²", ylabel="factor of the gradient's norm per layer", ylim=(0, 1.4))
    layers = np.arange(1, len(result["dead"]["he"]) + 1)
    shades = dict(zip(LAWS, ramp(3), strict=True))
    for law, mark in (("default", "o"), ("he", "s")):
        right.errorbar(
            layers,
            result["dead"][law],
            result["dead_error"][law],
            color=shades[law],
            marker=mark,
            capsize=2,
            linewidth=1,
        )
        right.annotate(
            LAWS[law],
            (10, 0.19) if law == "he" else (4.2, 0.3),
            ha="right",
            color=shades[law],
            fontsize=9,
        )
    right.axhline(0.5, color=INK, linewidth=0.8)
    right.set(xlabel="layer", ylabel="share of units off for every input", ylim=(-0.02, 0.6))
    right.set_xticks(layers)
    return drawing


def caption(result):
    return (
        f"Left: factor per layer of ReLU networks of width {result['width']} and depth {result['depth']}; line: "
        f"$\\sigma_w/\\sqrt2$; points: measured over {result['trials']} networks, errors smaller than the points. Right: units that "
        f"are off for each of {result['inputs']} digits before training, mean and standard error over {result['networks']} networks."
    )


def alt(result):
    he, default = result["dead"]["he"], result["dead"]["default"]
    return (
        f"The measured factor per layer lies on the line sigma over root 2: 0.41 with PyTorch's default, 1 with He. After ten layers "
        f"{100 * default[-1]:.0f} per cent of the units are off for every input with PyTorch's default, and {100 * he[-1]:.0f} per "
        "cent with He and zero biases."
    )


def table(result):
    rows = [
        [
            "Weight variance",
            "Factor, predicted",
            "measured",
            "Gradient, decades over all layers",
            "Spread of weight gradients, decades",
        ]
    ]
    for row in result["factors"]:
        rows.append(
            [
                f"{row['weight_variance']:.4g}",
                f"{row['predicted']:.4f}",
                f"{row['measured']:.4f} ± {row['error']:.4f}",
                f"{row['gradient_decades']:.2f}",
                f"{row['weight_gradient_spread']:.3f}",
            ]
        )
    return rows


def data(result):
    rows = [["what", "weight_variance_or_width", "layer_or_depth", "predicted", "measured", "standard_error"]]
    rows += [
        ["factor per layer", r["weight_variance"], "", r["predicted"], r["measured"], r["error"]]
        for r in result["factors"]
    ]
    for law, shares in result["dead"].items():
        rows += [
            [f"dead units, {law}", "", layer + 1, "", share, result["dead_error"][law][layer]]
            for layer, share in enumerate(shares)
        ]
    rows += [
        ["born dead", r["width"], r["depth"], r["predicted"], r["measured"], r["error"]] for r in result["born_dead"]
    ]
    return rows


def numbers(result):
    found = {
        "default_dead": 100 * result["dead"]["default"][-1],
        "he_dead": 100 * result["dead"]["he"][-1],
        "default_dead_5": 100 * result["dead"]["default"][4],
        "he_dead_5": 100 * result["dead"]["he"][4],
        "changed": result["changed"],
        "spread": max(row["weight_gradient_spread"] for row in result["factors"]),
        "spread_in_one": result["factors"][0]["spread_in_one"],
        "inputs": result["inputs"],
    }
    names = {0.333333: "default", 1.0: "xavier", 2.0: "he"}
    for row in result["factors"]:
        if row["weight_variance"] in names:
            name = names[row["weight_variance"]]
            found |= {f"{name}_factor": row["measured"], f"{name}_lost": -row["gradient_decades"]}
    for row in result["born_dead"]:
        name = f"born_{row['width']}_{row['depth']}"
        found |= {name: row["measured"], f"{name}_predicted": row["predicted"]}
    return found


def within(row):
    return abs(row["measured"] - row["predicted"]) < 4 * row["error"]


PAGE = "fix/relu.md"
CLAIMS = [
    Claim(
        "relu-all-layers-alike",
        "In ReLU networks without biases, with layers of equal width, the gradients of the weights from one input have on average the "
        "same size in all layers, whatever the size of the weights: if they vanish, they vanish together.",
        "note 4.1",
        lambda r: "no spread between layers, for any weight variance",
        lambda r: (
            f"largest spread between two of {r['depth']} layers: {numbers(r)['spread']:.3f} decades on average, "
            f"{numbers(r)['spread_in_one']:.2f} in one network"
        ),
        "holds with a condition",
        lambda r: all(
            agrees(row) and row["weight_gradient_spread"] < 4 * row["weight_gradient_error"] for row in r["factors"]
        ),
        PAGE,
    ),
    Claim(
        "dead-units-are-biases",
        "Without biases the size of the weights does not change which units are dead; half of the units die with depth in PyTorch's "
        "default because there the biases outgrow a shrinking signal.",
        "UvA Deep Learning tutorials, tutorial 3",
        lambda r: "default: one half; without biases: the same units for every weight variance",
        lambda r: (
            f"default: {numbers(r)['default_dead']:.0f} %; He, zero biases: {numbers(r)['he_dead']:.0f} %; units that differ between "
            f"σ_w² = 1/3 and 2: {r['changed']}"
        ),
        "holds with a condition",
        lambda r: (
            abs(r["dead"]["default"][-1] - 0.5) < 4 * r["dead_error"]["default"][-1]
            and r["dead"]["he"][-1] + 4 * r["dead_error"]["he"][-1] < 0.25
            and r["changed"] == 0
        ),
        PAGE,
    ),
    Claim(
        "born-dead",
        "A narrow ReLU network is born dead for an input with probability 1 − (1 − 2⁻ⁿ)^L.",
        "Lu, Shin, Su & Karniadakis 2020",
        lambda r: ", ".join(f"n = {x['width']}, L = {x['depth']}: {x['predicted']:.4f}" for x in r["born_dead"]),
        lambda r: ", ".join(f"{x['measured']:.4f} ± {x['error']:.4f}" for x in r["born_dead"]),
        "holds",
        lambda r: all(within(row) for row in r["born_dead"]),
        PAGE,
    ),
]
