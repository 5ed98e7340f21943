"""What batch, layer and RMS normalisation do to the gradient per layer, for each batch size and activation, with and without skips."""

import math
from dataclasses import dataclass, replace

import numpy as np
from experiment import Claim, significant
from style import INK, MUTED, measured_style, new_figure, ramp, theory_style

from vgp_kernels import ACTIVATIONS, Network, activation, mean_field, propagate
from vgp_kernels.theory.moments import moments


@dataclass(frozen=True)
class Parameters:
    depth: int = 40
    bottom: int = 8  # the factor is measured between these layers, away from both ends
    top: int = 36
    width: int = 256
    curve: tuple = (4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024)  # batch sizes of the predicted curve
    sizes: tuple = (4, 5, 6, 8, 16, 32, 64)  # measured batch sizes
    pairs: int = 600  # trials = pairs/B, at least 6 and at most 60: a network costs B² as much as one input
    activation_size: int = 16  # the batch of the comparison of activations
    activation_trials: int = 8
    triples: tuple = (64, 256, 1024)  # widths measured with three inputs per batch
    triple_trials: int = 20
    norm_trials: int = 60  # of layer and RMS normalisation, one input
    skip_depth: int = 50
    skip_size: int = 32
    skip_trials: int = 8
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None
NORMS = {
    "layer_pre": ("layer norm before φ", "layer", "pre"),
    "layer_post": ("layer norm after φ", "layer", "post"),
    "rms_pre": ("RMS norm before φ", "rms", "pre"),
    "rms_post": ("RMS norm after φ", "rms", "post"),
}
NORMED = ("relu", "tanh", "gelu", "sigmoid")


def compute(p):
    relu = Network(p.depth, p.width, "relu", "he", normalisation="batch", batch_size=32)
    activations = {}
    for name in ACTIVATIONS:
        batch = Network(p.depth, p.width, name, "lecun", normalisation="batch", batch_size=p.activation_size)
        activations[name] = factor(p, batch, p.activation_trials) | {"infinite": significant(infinite(name), 8)}
    one = {}
    for name in NORMED:
        for key, (_, norm, position) in NORMS.items():
            network = Network(p.depth, p.width, name, "he", normalisation=norm, norm_position=position)
            one[f"{name}_{key}"] = factor(p, network, p.norm_trials)
    return {
        "depth": p.depth,
        "width": p.width,
        "curve": list(p.curve),
        "curve_predicted": [significant(math.exp(mean_field(replace(relu, width=b, batch_size=b)).rate), 6) for b in p.curve],
        "sizes": list(p.sizes),
        "measured": [factor(p, replace(relu, batch_size=b), trials(p, b)) for b in p.sizes],
        "inference": factor(p, replace(relu, normalisation="batch_inference", batch_size=16), trials(p, 16)),
        "weights": [
            factor(p, replace(relu, initialiser=None, weight_variance=variance, batch_size=16), 8) for variance in (0.01, 100.0)
        ],
        "pairs_passed": passed(p, replace(relu, batch_size=2)),
        "triples": {str(n): factor(p, replace(relu, width=n, batch_size=3), p.triple_trials) for n in p.triples},
        "activation_size": p.activation_size,
        "activations": activations,
        "norms": one,
        "skips": skips(p),
    }  # fmt: skip


def trials(p, size):
    return min(60, max(6, p.pairs // size))


def factor(p, network, count):
    """Factor per layer: predicted in the width's limit (none where it is infinite) and measured, with its standard error."""
    flow = propagate(network, count, p.seed).log_gradient
    per_layer = (flow[:, p.bottom] - flow[:, p.top]) / (p.top - p.bottom)
    measured = math.exp(per_layer.mean())
    chi = mean_field(network).chi_1
    return {
        "predicted": significant(math.sqrt(chi), 6) if math.isfinite(chi) else None,
        "measured": significant(measured, 6),
        "error": significant(measured * per_layer.std(ddof=1) / math.sqrt(count), 2),
        "trials": count,
    }


def infinite(name):
    """Factor for infinite batches, √(E φ′²/Var φ)."""
    here = moments(activation(name), 0.0)
    return math.sqrt(here.slope / math.exp(here.log_value) / (1 - here.mean**2))


def passed(p, network):
    """How many of the networks pass any gradient through their first layer."""
    flow = propagate(network, p.activation_trials, p.seed).log_gradient
    return int(np.isfinite(flow[:, network.depth - 1]).sum())


def skips(p):
    """ln |∂E/∂h_l| over the layers with batch normalisation, without and with skips."""
    plain = Network(p.skip_depth, p.width, "relu", "he", normalisation="batch", batch_size=p.skip_size)
    found = {}
    for key, network in (("plain", plain), ("skip", replace(plain, residual="preactivation"))):
        flow, theory = propagate(network, p.skip_trials, p.seed).log_gradient, mean_field(network).log_gradient
        found[key] = {
            "predicted": significant(theory, 6),
            "measured": significant(flow.mean(axis=0), 6),
            "error": significant(flow.std(axis=0, ddof=1) / math.sqrt(p.skip_trials), 2),
        }
    layers = np.arange(1, p.skip_depth + 1)
    limit = np.log1p(1 / (1 + (1 - 1 / math.pi) * (layers - 1))).sum()
    return found | {"depth": p.skip_depth, "size": p.skip_size, "squared_limit": significant(float(np.exp(limit)), 6)}


def figure(result):
    drawing, (left, right) = new_figure(7.4, 3.7, ncols=2)
    left.plot(result["curve"], result["curve_predicted"], **theory_style("relu"))
    points = result["measured"]
    left.errorbar(
        result["sizes"], [e["measured"] for e in points], [e["error"] for e in points], **measured_style("relu")
    )
    limit = result["activations"]["relu"]["infinite"]
    left.axhline(limit, color=MUTED, linewidth=0.9, linestyle=":")
    left.annotate("√(π/(π−1))", (1024, limit), (0, -14), textcoords="offset points", ha="right", color=MUTED)
    left.axhline(1, color=MUTED, linewidth=0.9)
    left.set_xscale("log", base=2)
    left.set_xticks([4, 16, 64, 256, 1024], ["4", "16", "64", "256", "1024"])
    left.minorticks_off()
    left.set_ylim(0.95, 1.85)
    left.set_xlabel("inputs per batch")
    left.set_ylabel("factor per layer")
    skip = result["skips"]
    for (key, label), shade, mark in zip(
        (("plain", "without skips"), ("skip", "with skips")), (INK, ramp(2)[1]), "os", strict=True
    ):
        entry = skip[key]
        layers = np.arange(skip["depth"] + 1)
        right.plot(layers, np.array(entry["predicted"]) / math.log(10), color=shade)
        right.errorbar(
            layers[::5],
            np.array(entry["measured"])[::5] / math.log(10),
            np.array(entry["error"])[::5] / math.log(10),
            color=shade, linestyle="none", marker=mark, capsize=2.0,
        )  # fmt: skip
        right.annotate(
            label, (10, entry["predicted"][10] / math.log(10)), (6, 6), textcoords="offset points", color=shade
        )
    right.set_xlabel("layer (0 = input)")
    right.set_ylabel("log₁₀ of the gradient's norm, top = 0")
    return drawing


def caption(result):
    skip = result["skips"]
    return (
        f"Batch-normalised ReLU networks of width {result['width']}: lines predicted, points measured. Left: the factor per layer of "
        "the gradient's norm, over the batch size. At four inputs the expected square is carried by rare units whose "
        "pre-activations happen to be nearly equal: the typical factor is below it. "
        f"Right: {skip['depth']} layers or blocks, batches of {skip['size']}."
    )


def alt(result):
    return (
        f"The factor per layer falls from {result['measured'][0]['measured']:.2f} with four inputs per batch to "
        f"{result['measured'][-1]['measured']:.3f} with sixty-four and never below 1.211. Over fifty layers the gradient grows by "
        f"{result['skips']['plain']['measured'][0] / math.log(10):.1f} decades without skips and by "
        f"{result['skips']['skip']['measured'][0] / math.log(10):.1f} with them."
    )


def table(result):
    size = result["activation_size"]
    rows = [["Activation", "B → ∞, predicted", f"B = {size}, predicted", f"B = {size}, measured"]]
    for name, entry in sorted(result["activations"].items(), key=lambda item: item[1]["infinite"]):
        measured = f"{entry['measured']:.4f} ± {entry['error']:.4f}"
        rows.append([ACTIVATIONS[name].label, f"{entry['infinite']:.4f}", f"{entry['predicted']:.4f}", measured])
    return rows


def data(result):
    rows = [["case", "activation", "batch_size", "predicted", "measured", "standard_error", "trials"]]

    def line(case, name, size, entry):
        predicted = "" if entry["predicted"] is None else entry["predicted"]
        rows.append([case, name, size, predicted, entry["measured"], entry["error"], entry["trials"]])

    for size, entry in zip(result["sizes"], result["measured"], strict=True):
        line("batch", "relu", size, entry)
    for width, entry in result["triples"].items():
        line(f"batch, width {width}", "relu", 3, entry)
    line("batch, fixed statistics", "relu", 16, result["inference"])
    for name, entry in result["activations"].items():
        line("batch", name, result["activation_size"], entry)
    for key, entry in result["norms"].items():
        name, _, norm = key.partition("_")
        line(NORMS[norm][0], name, 1, entry)
    return rows


def numbers(result):
    found = {f"batch_{b}": e["measured"] for b, e in zip(result["sizes"], result["measured"], strict=True)}
    found |= {f"predicted_{b}": v for b, v in zip(result["curve"], result["curve_predicted"], strict=True)}
    found |= {f"triple_{n}": e["measured"] for n, e in result["triples"].items()}
    found |= {f"infinite_{name}": e["infinite"] for name, e in result["activations"].items()}
    found |= {f"{name}_measured": e["measured"] for name, e in result["activations"].items()}
    found |= {key: e["measured"] for key, e in result["norms"].items()}
    found |= {f"{key}_predicted": e["predicted"] for key, e in result["norms"].items()}
    skip, lost = result["skips"], math.log(10)
    return found | {
        "depth_scale": 1 / math.log(result["activations"]["relu"]["infinite"] ** 2),
        "inference": result["inference"]["measured"],
        "inference_predicted": result["inference"]["predicted"],
        "small_weights": result["weights"][0]["measured"],
        "large_weights": result["weights"][1]["measured"],
        "pairs_passed": result["pairs_passed"],
        "plain_decades": skip["plain"]["measured"][0] / lost,
        "plain_decades_predicted": skip["plain"]["predicted"][0] / lost,
        "skip_factor": math.exp(skip["skip"]["measured"][0]),
        "skip_factor_predicted": math.exp(skip["skip"]["predicted"][0]),
        "skip_limit": math.sqrt(skip["squared_limit"]),
    }


def agrees(entry):
    """Within 1 % (of the order of a few parts of the width) and three standard errors."""
    return abs(entry["measured"] - entry["predicted"]) < 0.01 * entry["predicted"] + 3 * entry["error"]


def follows(entry):
    """The curve within 3 % of a decade per layer of growth, or three standard errors, at every layer."""
    predicted, measured = np.array(entry["predicted"]), np.array(entry["measured"])
    return np.all(np.abs(measured - predicted) < 0.03 * np.abs(predicted) + 3 * np.array(entry["error"]) + 0.02)


def power_of_depth(skips):
    """The power of the depth, 1 + (1 - 1/π) l, with which the gradient's norm grows from the top down to the tenth block."""
    blocks = np.arange(10, skips["depth"] + 1)
    sizes = np.log(1 + (1 - 1 / math.pi) * blocks)
    return -np.polyfit(sizes, np.array(skips["skip"]["measured"])[blocks], 1)[0]


def entry_of(result, kind, key):
    """One of the result's entries, by name."""
    return result["measured"][result["sizes"].index(key)] if kind == "sizes" else result[kind][key]


def factors(*cases):
    """(predicted, measured) texts for a claim."""

    def predicted(result):
        return "; ".join(f"{label}: × {entry_of(result, *case)['predicted']:.4f}" for label, *case in cases)

    def measured(result):
        entries = [(label, entry_of(result, *case)) for label, *case in cases]
        return "; ".join(f"{label}: × {e['measured']:.4f} ± {e['error']:.4f}" for label, e in entries)

    return predicted, measured


def growth(field):
    """Text for a claim: the whole growth with and without skips."""

    def text(result):
        skip, plain = (result["skips"][key][field][0] for key in ("skip", "plain"))
        return (
            f"{result['skips']['depth']} blocks: × {math.exp(skip):.2f}; layers without skips: × {math.exp(plain):.3g}"
        )

    return text


PAGE = "fix/normalisation.md"
CLAIMS = [
    Claim(
        "batch-norm-rate",
        "Batch normalisation without skips, over more than three inputs, multiplies the gradient of a wide network by more than 1 per "
        "layer, with any piecewise smooth activation without jumps; only with large batches does a straight line keep it. For ReLU "
        "the factor is "
        "√(π/(π−1)) = 1.211 with large batches and more with small ones, whatever the weights.",
        "Yang and others 2019",
        *factors(("ReLU, B = 64", "sizes", 64), ("tanh, B = 16", "activations", "tanh")),
        "holds",
        lambda r: (
            all(agrees(e) and e["measured"] > 1 + 4 * e["error"] for e in r["activations"].values())
            and all((e["infinite"] > 1 + 1e-6) == (name != "linear") for name, e in r["activations"].items())
            and all(agrees(e) for e in r["measured"][2:])
            and np.all(np.diff([r["activations"]["relu"]["infinite"], *(e["measured"] for e in r["measured"][::-1])]) > 0)
            and abs(r["weights"][0]["measured"] / r["weights"][1]["measured"] - 1) < 0.01
        ),
        PAGE,
    ),
    Claim(
        "batch-norm-pairs",
        "With two inputs per batch no gradient at all passes a batch normalisation; with three its square has no finite expectation, "
        "and the factor grows with the width.",
        "Yang and others 2019",
        lambda r: "B = 2: 0; B = 3: no finite expectation",
        lambda r: f"B = 2: {r['pairs_passed']} networks pass any; B = 3: " + ", ".join(
            f"× {e['measured']:.2f} (width {n})" for n, e in r["triples"].items()
        ),
        "holds",
        lambda r: r["pairs_passed"] == 0 and np.all(np.diff([e["measured"] for e in r["triples"].values()]) > 0),
        PAGE,
    ),
    Claim(
        "batch-norm-with-skips",
        "With skips around it batch normalisation is tame: the gradient of a ReLU network grows as a power of the depth, "
        "because each block adds a smaller part to a growing sum.",
        "De and Smith 2020",
        growth("predicted"),
        growth("measured"),
        "holds",
        lambda r: (
            follows(r["skips"]["skip"])
            and follows(r["skips"]["plain"])
            and abs(power_of_depth(r["skips"]) / (0.5 * math.pi / (math.pi - 1)) - 1) < 0.05
        ),
        PAGE,
    ),
    Claim(
        "layer-norm-mean",
        "Layer and RMS normalisation before ReLU keep its gradient; layer normalisation after ReLU removes the mean of the units and "
        "explodes like batch normalisation.",
        "layer normalisation stabilises gradients (heard often)",
        *factors(("before", "norms", "relu_layer_pre"), ("after", "norms", "relu_layer_post")),
        "holds with a condition",
        lambda r: all(agrees(r["norms"][f"relu_{key}"]) for key in NORMS) and r["norms"]["relu_layer_post"]["measured"] > 1.19,
        PAGE,
    ),
]  # fmt: skip
