"""What one layer contributes to the product: its weights, its slopes, and both."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import BOTTOM, DEPTH, TOP, TRIALS, WIDTH
from experiments.what_vanishes import log_delta
from style import INK, MUTED, colour, measured_style, new_figure, ramp, theory_style
from threadpoolctl import threadpool_limits

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, activation, mean_field, propagate
from vgp_kernels.theory.mean_field import nodes


@dataclass(frozen=True)
class Parameters:
    depth: int = DEPTH
    width: int = WIDTH  # the theory is for infinite width
    trials: int = TRIALS
    seed: int = 0
    bottom: int = BOTTOM
    top: int = TOP
    initialisers: tuple = ("standard", "xavier", "he", "normal")
    # the factor of the slopes against the width, at a variance where the two means are far apart
    variance: float = 4.0
    widths: tuple = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    draws: int = 200_000  # slopes drawn for each width
    # a small network with explicit matrices
    small_width: int = 4
    small_depth: int = 6
    step: float = 1e-5  # of the central difference: the cube root of float64's rounding, where its error is least
    # singular values
    jacobian_depth: int = 10
    jacobian_width: int = 128
    jacobian_trials: int = 10


PARAMETERS = Parameters()
# Central differences lose half of the digits, and how the rest is rounded differs between machines
TOLERANCE = {"check": {"largest_difference": (0.0, 1e-6)}}


def compute(p):
    with threadpool_limits(1):  # threads of BLAS only get in each other's way in matrices this small
        spectrum = jacobian(p)
    return {
        "width": p.width,
        "trials": p.trials,
        "layers": [layer_factors(p, initialiser) for initialiser in p.initialisers],
        "variance": p.variance,
        "widths": list(p.widths),
        "slopes": [slope_factors(p, name) for name in ("sigmoid", "tanh")],
        "check": check_with_differences(p),
        "jacobian": spectrum,
    }


def layer_factors(p, initialiser):
    """The factor of |∂E/∂h| in one layer, taken apart: |δ_l|/|g_l| is the slopes' share, |g_{l-1}|/|δ_l| the weights'."""
    network = Network(p.depth, p.width, "sigmoid", initialiser)
    flow, theory = propagate(network, p.trials, p.seed), mean_field(network)
    delta = log_delta(flow.log_weight_gradient, flow.log_signal, p.width)
    layers = slice(p.bottom, p.top)
    shares = {
        "slopes": delta[:, layers] - flow.log_gradient[:, 1:][:, layers],
        "weights": flow.log_gradient[:, :-1][:, layers] - delta[:, layers],
        "both": flow.log_gradient[:, :-1][:, layers] - flow.log_gradient[:, 1:][:, layers],
    }
    predicted = {
        "slopes": math.sqrt(theory.chi_1 / network.weight_variance),
        "weights": math.sqrt(network.weight_variance),
        "both": math.sqrt(theory.chi_1),
    }
    found = {"initialiser": initialiser}
    for name, share in shares.items():
        per_trial = share.mean(axis=1)
        factor = math.exp(per_trial.mean())
        found[name] = {
            "predicted": significant(predicted[name], 5),
            "measured": significant(factor, 5),
            "error": significant(factor * per_trial.std(ddof=1) / math.sqrt(p.trials), 2),
        }
    return found


def slope_factors(p, name):
    """|δ|/|g| = √(Σ φ′(z_i)² g_i²/|g|²), geometric mean over draws, for z_i ~ N(0, q) and g of random direction."""
    phi = activation(name)
    generator = np.random.default_rng(p.seed)
    means, errors = [], []
    for width in p.widths:
        shape = p.draws // width, width
        z, g = math.sqrt(p.variance) * generator.standard_normal(shape), generator.standard_normal(shape)
        logs = 0.5 * np.log(((phi.slope(z) * g) ** 2).sum(axis=1) / (g**2).sum(axis=1))
        factor = math.exp(logs.mean())
        means.append(significant(factor, 5))
        errors.append(significant(factor * logs.std(ddof=1) / math.sqrt(len(logs)), 2))
    z, weight = nodes([0.0], 1.0)
    slope = phi.slope(math.sqrt(p.variance) * z)
    return {
        "activation": name,
        "geometric_mean": significant(math.exp(float(weight @ np.log(slope))), 6),
        "root_mean_square": significant(math.sqrt(float(weight @ slope**2)), 6),
        "mean": significant(float(weight @ slope), 6),
        "measured": means,
        "error": errors,
    }


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(matrices, h):
    """h_0 … h_L."""
    signals = [h]
    for matrix in matrices:
        signals.append(sigmoid(matrix @ signals[-1]))
    return signals


def check_with_differences(p):
    """∂E/∂W_l as a product of matrices, against central differences of E = ½|h_L|², for every weight of a small network."""
    generator = np.random.default_rng(p.seed)
    n = p.small_width
    matrices = [generator.standard_normal((n, n)) for _ in range(p.small_depth)]
    x = generator.standard_normal(n)

    def loss():
        return 0.5 * float(np.sum(forward(matrices, x)[-1] ** 2))

    signals = forward(matrices, x)
    row = signals[-1][None, :]  # ∂E/∂h_L
    worst, first = 0.0, 0.0
    for layer in range(p.small_depth, 0, -1):
        matrix, h = matrices[layer - 1], signals[layer]
        slopes = np.diag(h * (1 - h))
        product = np.outer((row @ slopes).ravel(), signals[layer - 1])
        differences = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                kept, losses = matrix[i, j], []
                for shift in (p.step, -p.step):
                    matrix[i, j] = kept + shift
                    losses.append(loss())
                matrix[i, j] = kept
                differences[i, j] = (losses[0] - losses[1]) / (2 * p.step)
        worst = max(worst, float(np.linalg.norm(product - differences) / np.linalg.norm(product)))
        first = float(np.linalg.norm(product))
        row = row @ slopes @ matrix  # one more factor D W
    return {
        "depth": p.small_depth,
        "weights": p.small_depth * n * n,
        "first_layer_norm": significant(first, 4),
        "largest_difference": significant(worst, 2),
    }


def jacobian(p):
    """Singular values of J = D_L W_L ⋯ D_1 W_1 for sigmoid and Xavier, beside the product of the layers' norms."""
    generator = np.random.default_rng(p.seed)
    n = p.jacobian_width
    rows = []
    for _ in range(p.jacobian_trials):
        product, bound, h = np.eye(n), 1.0, generator.choice([-1.0, 1.0], n)
        for _ in range(p.jacobian_depth):
            matrix = generator.standard_normal((n, n)) / math.sqrt(n)
            h = sigmoid(matrix @ h)
            layer = (h * (1 - h))[:, None] * matrix
            product = layer @ product
            bound *= np.linalg.norm(layer, 2)
        values = np.linalg.svd(product, compute_uv=False)
        rows.append([bound, values[0], math.sqrt(float(np.mean(values**2))), float(np.median(values))])
    logs = np.log(rows)
    names = ("product_of_norms", "largest", "root_mean_square", "median")
    per_layer = np.exp(logs.mean(axis=0) / p.jacobian_depth)
    theory = mean_field(Network(p.jacobian_depth, n, "sigmoid", "xavier"))
    predicted = math.exp(float(theory.log_gradient[0]) / p.jacobian_depth)
    return {
        "depth": p.jacobian_depth,
        "width": n,
        "trials": p.jacobian_trials,
        "predicted_root_mean_square": significant(predicted, 4),
        "per_layer": {name: significant(float(x), 4) for name, x in zip(names, per_layer, strict=True)},
    }


def figure(result):
    drawing, (left, right) = new_figure(7.0, 3.7, ncols=2, width_ratios=[1.25, 1])
    colours = ramp(2)
    for row, layer in enumerate(result["layers"]):
        slopes, both = layer["slopes"]["measured"], layer["both"]["measured"]
        for start, stop, height, shade in (
            (1.0, slopes, row + 0.12, colours[1]),
            (slopes, both, row - 0.12, colours[0]),
        ):
            left.annotate(
                "",
                (stop, height),
                (start, height),
                arrowprops={"arrowstyle": "-|>", "color": shade, "linewidth": 2, "shrinkA": 0, "shrinkB": 0},
            )
        predicted = layer["both"]["predicted"]
        left.plot([predicted] * 2, [row - 0.32, row + 0.02], color=INK, linewidth=1.4)
        left.plot(both, row - 0.12, marker="o", color=INK, markersize=4.5)
        left.annotate(f"{both:.3g}", (both, row - 0.34), ha="center", va="bottom", color=INK, fontsize=9)
    for x in (0.25, 1):
        left.axvline(x, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    left.plot([], [], color=colours[1], linewidth=2, label="slopes")
    left.plot([], [], color=colours[0], linewidth=2, label="weights")
    left.plot([], [], color=INK, marker="o", markersize=4.5, linestyle="none", label="both, measured")
    left.plot([], [], color=INK, marker="|", markersize=9, linestyle="none", label="both, predicted")
    left.legend(loc="upper center", bbox_to_anchor=(0.42, 1.2), ncols=2, fontsize=8.5)
    left.set(xscale="log", xlim=(0.05, 2), ylim=(len(result["layers"]) - 0.5, -0.7), xlabel="factor of one layer")
    left.set_xticks([0.05, 0.1, 0.25, 0.5, 1, 2], ["0.05", "0.1", "¼", "0.5", "1", "2"])
    left.minorticks_off()
    left.set_yticks(
        range(len(result["layers"])), [INITIALISERS[layer["initialiser"]].label for layer in result["layers"]]
    )
    left.grid(visible=False, axis="y")
    for slopes in result["slopes"]:
        name = slopes["activation"]
        right.axhline(slopes["root_mean_square"], **theory_style(name))
        right.axhline(slopes["geometric_mean"], color=colour(name), linestyle=(0, (1.5, 1.5)))
        right.errorbar(result["widths"], slopes["measured"], slopes["error"], **measured_style(name))
        right.annotate(
            ACTIVATIONS[name].label,
            (1.3, slopes["root_mean_square"]),
            (0, 4),
            textcoords="offset points",
            color=colour(name),
        )
    right.set(xscale="log", yscale="log", ylim=(0.08, 0.7), xlabel="width", ylabel="factor of the slopes")
    right.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    right.set_yticks([0.1, 0.2, 0.3, 0.5], ["0.1", "0.2", "0.3", "0.5"])
    right.minorticks_off()
    return drawing


def caption(result):
    return (
        f"Left: what one layer of a sigmoid network (width {result['width']}) does to the gradient's norm: first the slopes, then "
        f"the weights; means over {result['trials']} networks, standard errors below the size of the points. Right: the slopes "
        f"alone, for pre-activations of variance {result['variance']:g}. Points: measured. Solid lines: predicted for a wide layer, "
        f"$\\sqrt{{\\mathbb E\\,\\varphi'^2}}$; dotted: for a chain of single units, $\\exp \\mathbb E \\ln \\varphi'$."
    )


def alt(result):
    parts = ", ".join(
        f"{INITIALISERS[layer['initialiser']].label}: slopes {layer['slopes']['measured']:.3g} times weights "
        f"{layer['weights']['measured']:.3g} is {layer['both']['measured']:.3g}"
        for layer in result["layers"]
    )
    return (
        f"One sigmoid layer: {parts}. Right: from width 1 to 256 the slopes' factor goes from the geometric mean to the "
        "root mean square."
    )


def table(result):
    rows = [
        [
            "Sigmoid, initialiser",
            "slopes, predicted",
            "measured",
            "weights, predicted",
            "measured",
            "both, predicted",
            "measured",
        ]
    ]
    for layer in result["layers"]:
        row = [INITIALISERS[layer["initialiser"]].label]
        for name in ("slopes", "weights", "both"):
            row += [f"{layer[name]['predicted']:.4g}", f"{layer[name]['measured']:.4g}"]
        rows.append(row)
    return rows


def data(result):
    rows = [["kind", "name", "width", "predicted", "measured", "standard_error"]]
    for layer in result["layers"]:
        for name in ("slopes", "weights", "both"):
            values = layer[name]
            rows.append([name, layer["initialiser"], result["width"], *values.values()])
    for slopes in result["slopes"]:
        ends = {1: slopes["geometric_mean"]}
        for width, mean, error in zip(result["widths"], slopes["measured"], slopes["error"], strict=True):
            rows.append(["slopes of one layer", slopes["activation"], width, ends.get(width, ""), mean, error])
        rows.append(["slopes of one layer", slopes["activation"], "infinite", slopes["root_mean_square"], "", ""])
    return rows


def numbers(result):
    found = {}
    for layer in result["layers"]:
        for name in ("slopes", "weights", "both"):
            found[f"{layer['initialiser']}_{name}"] = layer[name]["measured"]
            found[f"{layer['initialiser']}_{name}_predicted"] = layer[name]["predicted"]
    for slopes in result["slopes"]:
        name = slopes["activation"]
        found[f"{name}_geometric_mean"] = slopes["geometric_mean"]
        found[f"{name}_root_mean_square"] = slopes["root_mean_square"]
        found[f"{name}_mean"] = slopes["mean"]
        found[f"{name}_narrow"], found[f"{name}_wide"] = slopes["measured"][0], slopes["measured"][-1]
    found["weights_checked"] = result["check"]["weights"]
    found |= {f"jacobian_{name}": value for name, value in result["jacobian"]["per_layer"].items()}
    found["jacobian_predicted"] = result["jacobian"]["predicted_root_mean_square"]
    return found


CLAIMS = [
    Claim(
        "product-of-matrices",
        "The gradient is a product with one factor per layer, and each factor is a matrix: the slopes times the weights.",
        "note 2.1",
        lambda r: "the product equals the derivative",
        lambda r: (
            f"all {r['check']['weights']} weight derivatives of a network of {r['check']['depth']} layers agree with central "
            f"differences to {r['check']['largest_difference']:.0e}, relative"
        ),
        "holds",
        lambda r: (
            r["check"]["largest_difference"] < 1e-6
            and all(
                # of the slopes' share and of the weights', each predicted by itself, but for a share of order 1/width
                abs(layer[share]["measured"] / layer[share]["predicted"] - 1)
                < 4 * layer[share]["error"] / layer[share]["predicted"] + 8 / r["width"]
                for layer in r["layers"]
                for share in ("slopes", "weights")
            )
        ),
        "learn/why-a-product.md",
    ),
]
