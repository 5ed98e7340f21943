"""At which depth a shrinking gradient becomes 0, in four number formats."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from style import INK, MUTED, new_figure, ramp

from vgp_kernels import Network, mean_field
from vgp_kernels.theory.number_formats import NUMBER_FORMATS, horizon, horizon_by_logarithm, lost_update, number_format


@dataclass(frozen=True)
class Parameters:
    width: int = 256  # only the initialiser "normal" depends on it
    depth: int = 60  # by then a plain network's factor per layer is that of its fixed point
    learning_rate: float = 0.1  # for the update that is rounded away
    weight: float = 0.05  # a common size of a weight
    ratios: tuple = (0.25, 0.5)  # besides those of networks
    learning_rates: tuple = (1e-3, 1.0)  # with which the update is compared with the gradient
    weights: tuple = (0.01, 1.0)
    networks: tuple = (
        ("sigmoid", "standard"),
        ("sigmoid", "xavier"),
        ("sigmoid", "he"),
        ("relu", "standard"),
        ("tanh", "standard"),
        ("relu", "xavier"),
    )
    # whole ReLU networks with Xavier weights in single precision: widths, networks of each, and more layers than they need
    whole_widths: tuple = (64, 256)
    whole_trials: int = 3
    whole_depth: int = 320
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None


def compute(p):
    ratios = [("1/4 per layer", p.ratios[0]), ("1/2 per layer", p.ratios[1])]
    for activation, initialiser in p.networks:
        theory = mean_field(Network(p.depth, p.width, activation, initialiser))
        # float32 would hold more digits than a page needs; the horizons do not change with the seventh
        ratios.append((f"{activation}, {initialiser}", float(f"{theory.chi_1**0.5:.6g}")))
    rows = []
    for label, ratio in ratios:
        formats = {}
        for name in NUMBER_FORMATS:
            gradual, flushed = horizon(name, ratio), horizon(name, ratio, flush=True)
            formats[name] = {
                "predicted": horizon_by_logarithm(name, ratio),
                "zero": gradual.depth,
                "stall": gradual.stall,
                "subnormal": gradual.subnormal,
                "flushed": flushed.depth,
                "lost": lost_update(name, ratio, p.learning_rate, p.weight),
                "latest_lost": max(lost_update(name, ratio, rate, w) for rate in p.learning_rates for w in p.weights),
                "added_to_zero": added_to_zero(name, ratio, p.learning_rate),
                "stepped": stepped(name, ratio),
            }
        rows.append({"label": label, "ratio": ratio, "formats": formats})
    generator = np.random.default_rng(p.seed)
    whole = {str(n): [underflow(n, p.whole_depth, generator) for _ in range(p.whole_trials)] for n in p.whole_widths}
    return {"learning_rate": p.learning_rate, "weight": p.weight, "rows": rows, "whole": whole}


NATIVE = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}  # that the processor itself rounds


def stepped(name, ratio):
    """Where NumPy's own arithmetic comes to 0, or to rest: layers, 0 or the number at rest; None for bfloat16."""
    if name not in NATIVE:
        return None
    kind, layers = NATIVE[name], 0
    value, factor = kind(1), kind(ratio)
    while value:
        following, layers = value * factor, layers + 1
        if following == value:
            break
        value = following
    return [layers, float(value)]


def underflow(width, depth, generator):
    """Layers after which every entry of a float32 gradient is 0, of norm 1 at the top of ReLU layers; None if some entry never is."""
    weights, slopes = [], []
    h = generator.standard_normal(width)
    for _ in range(depth):
        matrix = generator.standard_normal((width, width)) / math.sqrt(width)
        h = np.maximum(matrix @ (h / np.linalg.norm(h)), 0)  # rescaled, which leaves the slopes as they are
        weights.append(matrix.astype(np.float32))
        slopes.append((h > 0).astype(np.float32))
    g = generator.standard_normal(width)
    g = (g / np.linalg.norm(g)).astype(np.float32)
    for layers, (matrix, slope) in enumerate(zip(reversed(weights), reversed(slopes), strict=True), start=1):
        g = (matrix * (slope * g)[:, None]).sum(axis=0)  # row by row, the same order on every machine
        if not g.any():
            return layers
    return None


def added_to_zero(name, ratio, learning_rate):
    """The depth from which a weight of 0 is no longer changed: where η rⁿ is at most half the smallest number."""
    form = number_format(name)
    halves = form.precision - form.smallest_exponent
    return math.ceil((halves * math.log(2) + math.log(learning_rate)) / -math.log(ratio) - 1e-9)


def row(result, label):
    return next(r for r in result["rows"] if r["label"] == label)


def title(r):
    """The row's name for people."""
    activation, _, initialiser = r["label"].partition(", ")
    if not initialiser:
        return r["label"]
    names = {"standard": "1/3", "xavier": "Xavier", "he": "He"}
    return f"{ {'relu': 'ReLU'}.get(activation, activation) }, {names[initialiser]}"


def figure(result):
    drawing, axes = new_figure(7.0, 4.4)
    labels, colours = [title(r) for r in result["rows"]], ramp(len(NUMBER_FORMATS))
    for place, (name, colour) in enumerate(zip(NUMBER_FORMATS, colours, strict=True)):
        for y, r in enumerate(result["rows"]):
            here, height = r["formats"][name], y + 0.24 - 0.16 * place
            end = here["zero"] or here["stall"]
            axes.plot([1, end], [height, height], color=colour, linewidth=3.2, solid_capstyle="butt")
            marker = "|" if here["zero"] else ">"
            axes.plot([end], [height], color=colour, marker=marker, markersize=6, linestyle="none")
            axes.plot([here["lost"]], [height], color=INK, marker="o", markersize=2.6, linestyle="none")
        axes.plot([], [], color=colour, linewidth=3.2, label=NUMBER_FORMATS[name].label)
    axes.plot([], [], color=INK, marker="o", markersize=2.6, linestyle="none", label="update lost in the weight")
    axes.plot([], [], color=MUTED, marker=">", markersize=6, linestyle="none", label="never 0: stalls")
    axes.set(xscale="log", xlabel="layers", xlim=(1, 4000), yticks=range(len(labels)), yticklabels=labels)
    axes.invert_yaxis()
    drawing.legend(loc="outside upper center", ncols=3, fontsize=8)
    return drawing


def caption(result):
    return (
        "Layers after which one number has become exactly 0 that begins at 1, is multiplied layer by layer with the factor of each "
        "network and rounded to the format at each step. Arrows: the product never reaches 0 but stalls at a subnormal number. "
        f"Dots: from here on an update with learning rate {result['learning_rate']:g} no longer changes a weight of "
        f"{result['weight']:g}."
    )


def alt(result):
    quarter = row(result, "1/4 per layer")["formats"]
    ends = ", ".join(f"{name} {quarter[name]['zero']}" for name in quarter)
    return (
        f"Bars from 1 to the depth where the product is 0. With a factor of one quarter: {ends} layers. Dots for lost updates lie "
        f"far to the left of the bars' ends."
    )


def table(result):
    rows = [["Factor per layer", *(f"{form.label}" for form in NUMBER_FORMATS.values())]]
    for r in result["rows"]:
        cells = []
        for name in NUMBER_FORMATS:
            here = r["formats"][name]
            end = str(here["zero"]) if here["zero"] else f"stalls at {here['stall']}"
            cells.append(f"{end} ({here['flushed']}; {here['lost']})")
        rows.append([f"{title(r)}: {r['ratio']:.4f}", *cells])
    return rows


def data(result):
    rows = [["network", "ratio", "format", "zero", "stall", "subnormal", "zero_with_flush", "update_lost"]]
    for r in result["rows"]:
        for name, here in r["formats"].items():
            rows.append(
                [r["label"], r["ratio"], name, *(here[k] for k in ("zero", "stall", "subnormal", "flushed", "lost"))]
            )
    return rows


def numbers(result):
    found = {}
    for r in result["rows"]:
        key = r["label"].replace("1/4 per layer", "quarter").replace("1/2 per layer", "half").replace(", ", "_")
        found[f"{key}_ratio"] = r["ratio"]
        for name, here in r["formats"].items():
            for what in ("predicted", "zero", "stall", "flushed", "lost", "latest_lost", "added_to_zero"):
                if here[what] is not None:
                    found[f"{key}_{name}_{what}"] = here[what]
    if None not in ends(result):
        found |= {"whole_first": min(ends(result)), "whole_last": max(ends(result))}
    return found


def ends(result):
    """Layers after which the gradients of whole networks are 0."""
    return [layers for one_width in result["whole"].values() for layers in one_width]


def zeros(result, label, what="zero"):
    return ", ".join(f"{name} {here[what]}" for name, here in row(result, label)["formats"].items())


def is_as_stepped(result):
    """The processor's own arithmetic comes to 0, or to rest, after as many layers."""
    return all(
        here["stepped"] in (None, [here["zero"], 0.0])
        or (here["stepped"][0] == here["stall"] and here["stepped"][1] > 0)
        for each in result["rows"]
        for here in each["formats"].values()
    )


CLAIMS = [
    Claim(
        "quarter-reaches-zero-late",
        "In single precision a factor of one quarter per layer needs 75 layers to become exactly 0, and 13 in half precision.",
        "belief: at one quarter per layer the gradient is soon exactly 0",
        lambda r: zeros(r, "1/4 per layer", "predicted") + ": ¼ⁿ at half the smallest number",
        lambda r: zeros(r, "1/4 per layer"),
        "false as stated",
        lambda r: (
            all(here["zero"] == here["predicted"] for here in row(r, "1/4 per layer")["formats"].values())
            and is_as_stepped(r)
            and [row(r, "1/4 per layer")["formats"][name]["zero"] for name in ("fp32", "fp16")] == [75, 13]
        ),
        "learn/number-formats.md",
    ),
    Claim(
        "update-lost-first",
        "Where gradient and weight have one format, the update is too small to change a weight of usual size before the gradient "
        "underflows; only a weight of 0, as many biases begin, is changed nearly to the end.",
        "vanishing means that numbers become 0 (heard often)",
        lambda r: "where η rⁿ < |w| 2⁻²⁴ in single precision: fewer layers than underflow needs",
        lambda r: (
            f"{zeros(r, '1/4 per layer', 'lost')} against {zeros(r, '1/4 per layer')} layers; at the most favourable rate and weight "
            f"{zeros(r, '1/4 per layer', 'latest_lost')}; a weight of 0 after {zeros(r, '1/4 per layer', 'added_to_zero')}"
        ),
        "holds",
        lambda r: all(
            here["lost"] <= here["latest_lost"] < (here["zero"] or here["stall"])
            # η itself costs log η/log r layers, no more
            and (
                here["zero"] is None
                or abs(here["added_to_zero"] - here["zero"] - math.log(r["learning_rate"]) / -math.log(each["ratio"]))
                < 3
            )
            for each in r["rows"]
            for here in each["formats"].values()
        ),
        "learn/number-formats.md",
    ),
    Claim(
        "stalls-above-zero",
        "One number that is multiplied again and again by a factor well between one half and 1 never becomes 0: it stalls at a "
        "subnormal number, unless the processor flushes subnormal numbers to 0.",
        "IEEE 754, rounding to nearest",
        lambda r: "r > ½: the smallest number rounds back to itself",
        lambda r: (
            f"the factor of ReLU, Xavier: stalls at {zeros(r, 'relu, xavier', 'stall')}; "
            f"flushed: 0 at {zeros(r, 'relu, xavier', 'flushed')}"
        ),
        "holds",
        lambda r: all(
            (each["ratio"] > 0.5) == (here["zero"] is None) and here["flushed"] is not None and is_as_stepped(r)
            for each in r["rows"]
            for here in each["formats"].values()
        ),
        "learn/number-formats.md",
    ),
    Claim(
        "networks-do-not-stall",
        "The gradient of a whole ReLU network with Xavier weights does not stall in single precision: it is exactly 0 somewhat before "
        "one number with the same factor comes to rest.",
        "IEEE 754, rounding to nearest",
        lambda r: f"before {row(r, 'relu, xavier')['formats']['fp32']['stall']} layers",
        lambda r: "; ".join(f"width {n}: {', '.join(map(str, layers))} layers" for n, layers in r["whole"].items()),
        "holds",
        lambda r: all(
            end is not None and 0.8 < end / row(r, "relu, xavier")["formats"]["fp32"]["stall"] < 1 for end in ends(r)
        ),
        "learn/number-formats.md",
    ),
]
