"""What clipping, learning rates, Adam and loss scaling do to the steps of a deep sigmoid network, layer by layer."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, factor
from style import INK, MUTED, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import INITIALISERS, Network, activation, mean_field, propagate


@dataclass(frozen=True)
class Parameters:
    depth: int = 30
    width: int = 128
    trials: int = 300  # of the kernel
    explicit_trials: int = 20  # networks whose every weight is looked at
    seed: int = 0
    epsilon: float = 1e-8  # Adam's, in PyTorch and Optax; Keras has 1e-7
    clip: float = 1.0  # the norm to which the whole gradient is cut
    scales: tuple = (
        10,
        15,
    )  # loss scales 2^k; fp16 ends at 65,504, so that 2^15 is the largest a gradient of 1 can bear
    networks: tuple = (
        ("sigmoid", "standard"),
        ("sigmoid", "xavier"),
        ("sigmoid", "he"),
        ("tanh", "standard"),
        ("tanh", "xavier"),
        ("relu", "xavier"),
        ("relu", "he"),
    )


PARAMETERS = Parameters()
TOLERANCE = {"steps": 1e-4}  # sums of BLAS differ in rounding between machines
LN10 = math.log(10)
STEPS = {
    "sgd": "gradient descent",
    "faster": "a thousand times the rate",
    "clipped": "clipped to norm 1",
    "adam": "Adam, first step",
}


def compute(p):
    with threadpool_limits(1):  # threads of BLAS only get in each other's way in matrices this small
        steps = explicit_steps(p)
    theory = mean_field(Network(p.depth, p.width, "sigmoid", "xavier"))
    entry = theory.log_weight_gradient - math.log(p.width)  # ln of the root mean square entry
    return {
        "depth": p.depth,
        "width": p.width,
        "trials": p.trials,
        "explicit_trials": p.explicit_trials,
        "epsilon": p.epsilon,
        "steps": steps,
        "predicted": {
            "sgd": [significant(x, 5) for x in (entry / LN10 - math.log10(1 / math.sqrt(p.width)))],
            "adam": [significant(x, 5) for x in (adam(np.exp(entry), p.epsilon) - math.log10(1 / math.sqrt(p.width)))],
        },
        "adam_alive": int((np.exp(entry) > p.epsilon).sum()),
        "networks": [row(p, *names) for names in p.networks],
    }


def adam(entry, epsilon):
    """log10 of Adam's first step, rate 1, for a gradient of this size: g/(|g| + ε)."""
    return np.log10(entry / (entry + epsilon))


def explicit_steps(p):
    """log10 of |ΔW_l|/|W_l| at rate 1 (rate 1 for Adam too), mean over networks with explicit matrices."""
    phi, logs = activation("sigmoid"), {name: [] for name in STEPS}
    for trial in range(p.explicit_trials):
        generator = np.random.default_rng([p.seed, trial])
        weights = generator.standard_normal((p.depth, p.width, p.width)) / math.sqrt(p.width)
        h, slopes = [np.ones(p.width)], []
        for matrix in weights:
            z = matrix @ h[-1]
            h.append(phi.value(z))
            slopes.append(phi.slope(z))
        g = generator.standard_normal(p.width)
        g /= np.linalg.norm(g)
        gradients = []
        for layer in range(p.depth - 1, -1, -1):
            delta = slopes[layer] * g
            gradients.insert(0, np.outer(delta, h[layer]))
            g = weights[layer].T @ delta
        norms = np.array([np.linalg.norm(gradient) for gradient in gradients])
        own = np.array([np.linalg.norm(matrix) for matrix in weights])
        total = math.sqrt((norms**2).sum())
        sizes = {
            "sgd": norms,
            "faster": 1000 * norms,
            "clipped": norms * min(1.0, p.clip / total),
            "adam": np.array([np.linalg.norm(gradient / (np.abs(gradient) + p.epsilon)) for gradient in gradients]),
        }
        for name, size in sizes.items():
            logs[name].append(np.log10(size / own))
    return {name: [significant(x, 5) for x in np.mean(values, axis=0)] for name, values in logs.items()}


def row(p, name, initialiser):
    """How many layers one learning rate serves, and what scaling the loss gains in half precision."""
    network = Network(p.depth, p.width, name, initialiser)
    theory, flow = mean_field(network), propagate(network, p.trials, p.seed)
    per_layer = factor(Network(DEPTH, p.width, name, initialiser), p.trials, p.seed)
    rate = -math.log10(per_layer["measured"])  # decades lost per layer
    return {
        "activation": name,
        "initialiser": initialiser,
        "factor": per_layer["measured"],
        "factor_error": per_layer["error"],
        "factor_predicted": per_layer["predicted"],
        "served_predicted": served(theory.log_weight_gradient / LN10),
        "served": significant(np.mean([served(trial) for trial in flow.log_weight_gradient / LN10]), 3),
        "horizon": horizon(10**-rate, 0),
        "gained": {str(k): gained(10**-rate, k) for k in p.scales},
        "gained_predicted": {
            str(k): significant(k * math.log10(2) / rate, 3) if rate > math.log10(2) else None for k in p.scales
        },
    }


def served(decades):
    """The largest number of layers whose weight gradients lie within a factor of 10."""
    values = np.sort(decades)
    return int(max(np.searchsorted(values, low + 1.0, side="right") - i for i, low in enumerate(values)))


def horizon(factor, exponent):
    """Layers until a gradient of 1 times 2^exponent, multiplied by the factor in fp16, is 0; None if it never is."""
    value, step = np.float16(2.0**exponent), np.float16(factor)
    for layers in range(1, 1000):
        if value * step == value:
            return None
        value *= step
        if value == 0:
            return layers
    return None


def gained(factor, exponent):
    before, after = horizon(factor, 0), horizon(factor, exponent)
    return None if before is None or after is None else after - before


def figure(result):
    drawing, axes = new_figure(7.0, 4.2)
    layers = np.arange(1, result["depth"] + 1)
    shades = dict(zip(STEPS, ramp(4), strict=True))
    for name, mark in zip(STEPS, "os^D", strict=True):
        axes.plot(layers, result["steps"][name], mark, color=shades[name], markersize=3.8)
        if name in result["predicted"]:
            axes.plot(layers, result["predicted"][name], color=shades[name])
        height = result["steps"][name][-1]
        text = STEPS[name]
        axes.annotate(
            text,
            (layers[-1], height),
            (8, -8 if name == "clipped" else 4 if name == "sgd" else 0),
            textcoords="offset points",
            va="center",
            color=shades[name],
            fontsize=9,
        )
    axes.axhspan(-4, -2, color=MUTED, alpha=0.15, linewidth=0)
    axes.annotate("a step of 1 % to 0.01 %", (1.2, -2.9), color=INK, fontsize=9)
    axes.set(xlabel="layer", ylabel="log₁₀ of the step over the weights, |ΔW|/|W|", xlim=(0, 43))
    axes.set_xticks(range(0, 31, 5))
    return drawing


def caption(result):
    return (
        f"First step of a sigmoid network with Xavier weights, {result['depth']} layers of width {result['width']}, gradient of norm "
        f"1 at the top, learning rate 1. Points: explicit matrices, {result['explicit_trials']} networks; lines: predicted. Grey: "
        "steps of a useful size."
    )


def alt(result):
    steps = result["steps"]
    return (
        f"From the last layer to the first the step falls by {steps['sgd'][-1] - steps['sgd'][0]:.0f} decades. A larger rate lifts all "
        f"layers alike and clipping lowers all alike. Adam keeps the steps equal in the upper {result['adam_alive']} layers, and below "
        "them they fall just as before."
    )


def name_of(row):
    return f"{activation(row['activation']).label}, {INITIALISERS[row['initialiser']].label}"


def table(result):
    rows = [
        [
            "Network",
            "Factor per layer",
            f"Layers of {result['depth']} that one rate serves, predicted",
            "measured",
            "fp16: layers until 0",
            "gained by scale $2^{15}$, predicted",
            "stepped in fp16",
        ]
    ]
    for row in result["networks"]:
        gain = row["gained_predicted"]["15"]
        rows.append(
            [
                name_of(row),
                f"{row['factor']:.3f}",
                str(row["served_predicted"]),
                f"{row['served']:.1f}",
                str(row["horizon"] or "–"),
                f"{gain:.1f}" if gain else "–",
                "–" if row["gained"]["15"] is None else str(row["gained"]["15"]),
            ]
        )
    return rows


def data(result):
    rows = [["what", "layer_or_network", "predicted", "measured"]]
    for name, values in result["steps"].items():
        predicted = result["predicted"].get(name, [""] * len(values))
        rows += [[f"log10 step, {name}", layer + 1, predicted[layer], x] for layer, x in enumerate(values)]
    for row in result["networks"]:
        rows.append(["layers served by one rate", name_of(row), row["served_predicted"], row["served"]])
        for k in row["gained"]:
            rows.append(
                [
                    f"layers gained in fp16 by loss scale 2^{k}",
                    name_of(row),
                    row["gained_predicted"][k],
                    row["gained"][k],
                ]
            )
    return rows


def numbers(result):
    steps = result["steps"]
    found = {
        "spread": steps["sgd"][-1] - steps["sgd"][0],
        "adam_alive": result["adam_alive"],
        "adam_top_spread": max(steps["adam"][-10:]) - min(steps["adam"][-10:]),
        "adam_spread": max(steps["adam"]) - steps["adam"][0],
        "clip_change": max(abs(a - b) for a, b in zip(steps["sgd"], steps["clipped"], strict=True)),
    }
    for row in result["networks"]:
        key = f"{row['activation']}_{row['initialiser']}"
        found |= {f"{key}_served": row["served"], f"{key}_served_predicted": row["served_predicted"]}
        if row["horizon"] is not None:
            found[f"{key}_horizon"] = row["horizon"]
        if row["gained"]["15"] is not None:
            found[f"{key}_gained"] = row["gained"]["15"]
        if row["gained_predicted"]["15"] is not None:
            found[f"{key}_gained_predicted"] = row["gained_predicted"]["15"]
    return found


PAGE = "fix/what-cannot-fix.md"
CLAIMS = [
    Claim(
        "one-rate-serves-two-layers",
        "No single learning rate serves a deep sigmoid network: only two or three of its thirty layers have steps of the same size "
        "within a factor of ten.",
        "advice: use a larger learning rate",
        lambda r: f"{r['networks'][1]['served_predicted']} of {r['depth']} layers",
        lambda r: f"{r['networks'][1]['served']:.2f} of {r['depth']} layers",
        "false as stated",
        lambda r: (
            abs(r["networks"][1]["served"] - r["networks"][1]["served_predicted"]) < 0.5
            and 2 <= r["networks"][1]["served"] <= 3
        ),
        PAGE,
    ),
    Claim(
        "adam-until-epsilon",
        "Adam's first step is nearly as large in all layers whose gradients exceed its ε; far below that the steps vanish as before.",
        "advice: use Adam",
        lambda r: f"gradients above ε in the upper {r['adam_alive']} of {r['depth']} layers",
        lambda r: (
            f"steps of the upper 10 layers within {numbers(r)['adam_top_spread']:.2f} decades, of the first layer "
            f"{numbers(r)['adam_spread']:.1f} decades below"
        ),
        "holds with a condition",
        lambda r: (
            # g/(|g| + ε), layer by layer, within four standard errors of twenty networks' logarithms
            max(abs(a - b) for a, b in zip(r["steps"]["adam"], r["predicted"]["adam"], strict=True)) < 0.15
            and numbers(r)["adam_top_spread"] < 0.5
            and numbers(r)["adam_spread"] > 5
        ),
        PAGE,
    ),
    Claim(
        "loss-scaling-moves-the-horizon",
        "Scaling the loss moves the depth at which half precision reaches zero by a fixed number of layers, log(scale) over the loss "
        "per layer.",
        "advice: use loss scaling",
        lambda r: ", ".join(
            f"{name_of(x)} {x['gained_predicted']['15']:.1f}" for x in r["networks"] if x["gained"]["15"] is not None
        ),
        lambda r: ", ".join(f"{x['gained']['15']}" for x in r["networks"] if x["gained"]["15"] is not None),
        "holds with a condition",
        lambda r: all(
            abs(x["gained"]["15"] - x["gained_predicted"]["15"]) < 1.5
            for x in r["networks"]
            if x["gained"]["15"] is not None
        ),
        PAGE,
    ),
]
