"""What the default initialisations of the frameworks do to gradients, and what the fan mode does in layers of unequal width."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import BOTTOM, DEPTH, TOP, TRIALS, WIDTH
from experiments._factor import agrees as agrees_at_width
from experiments._factor import factor as measured_factor
from style import INK, MUTED, colour, measured_style, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, activation


@dataclass(frozen=True)
class Parameters:
    depth: int = DEPTH
    width: int = WIDTH  # the theory is for infinite width
    trials: int = TRIALS
    seed: int = 0
    activations: tuple = ("sigmoid", "tanh", "relu", "gelu", "selu")
    uniform_trials: int = 60  # networks with explicit uniform matrices
    ratios: tuple = (1, 2, 4, 8)  # width of the wide layers over that of the narrow ones
    narrow: int = 32
    pairs: int = 10
    fan_trials: int = 400


PARAMETERS = Parameters()
TOLERANCE = {"uniform": 1e-4, "fans": 1e-4}  # sums of BLAS differ in rounding between machines
TRUNCATED = 1 - 2 * 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))  # variance of N(0, 1) cut at ±2
MODES = {"fan_in": "fan in", "fan_out": "fan out", "fan_avg": "average (Glorot)"}


def defaults(width):
    """(σ_w², σ_b²) of a square layer by framework, from their documentation."""
    return {
        "PyTorch, Equinox, MLX": (1 / 3, 1 / (3 * width)),
        "Haiku, Sonnet": (TRUNCATED, 0.0),
        "Keras, Flax, Paddle": (1.0, 0.0),
    }


def compute(p):
    rows = []
    for framework, (weights, biases) in defaults(p.width).items():
        cells = {}
        for name in p.activations:
            network = Network(p.depth, p.width, name, weight_variance=weights, bias_variance=biases)
            cells[name] = measured_factor(network, p.trials, p.seed)
        rows.append(
            {
                "framework": framework,
                "weight_variance": significant(weights, 6),
                "bias_variance": significant(biases, 6),
                "activations": cells,
            }
        )
    with threadpool_limits(1):  # threads of BLAS only get in each other's way in matrices this small
        uniform = {name: factor(uniform_networks(p, name)) for name in p.activations}
        fans = [fan_row(p, mode, ratio) for mode in MODES for ratio in p.ratios]
    return {"depth": p.depth, "width": p.width, "trials": p.trials, "rows": rows, "uniform": uniform, "fans": fans}


def factor(per_layer):
    """The geometric mean factor and its standard error, from logarithms per layer."""
    mean = math.exp(np.mean(per_layer))
    return {
        "measured": significant(mean, 5),
        "error": significant(mean * np.std(per_layer, ddof=1) / math.sqrt(len(per_layer)), 2),
    }


def uniform_networks(p, name):
    """ln of the factor per layer in networks with explicit matrices from PyTorch's own law, U(±1/√n), biases too."""
    phi, bound, found = activation(name), 1 / math.sqrt(p.width), []
    for trial in range(p.uniform_trials):
        generator = np.random.default_rng([p.seed, trial])
        weights = generator.uniform(-bound, bound, (p.depth, p.width, p.width))
        biases = generator.uniform(-bound, bound, (p.depth, p.width))
        h, slopes = np.ones(p.width), []
        for matrix, bias in zip(weights, biases, strict=True):
            z = matrix @ h + bias
            h = phi.value(z)
            slopes.append(phi.slope(z))
        g, norms = generator.standard_normal(p.width), []
        for matrix, slope in zip(weights[::-1], slopes[::-1], strict=True):
            norms.append(np.linalg.norm(g))
            g = matrix.T @ (slope * g)
        norms.append(np.linalg.norm(g))
        norms = norms[::-1]  # norms[l] is |∂E/∂h_l|
        found.append(math.log(norms[BOTTOM] / norms[TOP]) / (TOP - BOTTOM))
    return np.array(found)


def fan_row(p, mode, ratio):
    """Factor per pair of layers, narrow to wide to narrow, of ReLU networks with He's factor 2 over the fan of this mode."""
    logs = {"signal": [], "gradient": []}
    for trial in range(p.fan_trials):
        generator = np.random.default_rng([p.seed, trial])
        sizes = [p.narrow * (ratio if layer % 2 else 1) for layer in range(2 * p.pairs + 1)]
        h, matrices, active = np.ones(p.narrow), [], []
        for fan_in, fan_out in itertools.pairwise(sizes):
            fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
            matrices.append(generator.standard_normal((fan_out, fan_in)) * math.sqrt(2 / fan))
            z = matrices[-1] @ h
            h = np.maximum(z, 0)
            active.append(z > 0)
        g = generator.standard_normal(p.narrow)
        start = np.linalg.norm(g)
        for matrix, on in zip(matrices[::-1], active[::-1], strict=True):
            g = matrix.T @ (on * g)
        logs["signal"].append(math.log(np.linalg.norm(h) / math.sqrt(p.narrow)) / p.pairs)
        logs["gradient"].append(math.log(np.linalg.norm(g) / start) / p.pairs)
    square = {"fan_in": 1.0, "fan_out": 1.0, "fan_avg": 4 * ratio / (1 + ratio) ** 2}[mode]
    # the mean of a logarithm, not the logarithm of a mean: -5/4n per layer for ReLU (Hanin & Nica 2018)
    shift = -1.25 * (1 / p.narrow + 1 / (p.narrow * ratio))
    return {
        "mode": mode,
        "ratio": ratio,
        "predicted": significant(math.sqrt(square), 5),
        "finite_width": significant(math.sqrt(square) * math.exp(shift), 5),
        "gradient": factor(np.array(logs["gradient"])),
        "signal": factor(np.array(logs["signal"])),
    }


def figure(result):
    drawing, (left, right) = new_figure(7.2, 3.9, ncols=2, width_ratios=[1.35, 1])
    for height, row in enumerate(result["rows"]):
        for offset, (name, cell) in enumerate(row["activations"].items()):
            place = height + 0.14 * (offset - 2)
            left.plot([cell["predicted"]] * 2, [place - 0.07, place + 0.07], color=colour(name))
            label = activation(name).label if height == 0 else None
            left.errorbar(cell["measured"], place, xerr=cell["error"], label=label, **measured_style(name))
    left.axvline(1, color=INK, linewidth=0.8)
    left.set_yticks(range(len(result["rows"])), [row["framework"].replace(", ", ",\n", 1) for row in result["rows"]])
    left.tick_params(axis="y", labelcolor=INK, length=0)
    left.grid(visible=False, axis="y")
    left.invert_yaxis()
    left.set(xlabel="factor per layer", xlim=(0.05, 1.15))
    left.legend(loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=3)
    shades = dict(zip(MODES, ramp(3), strict=True))
    for mode, mark in zip(MODES, "os^", strict=True):
        rows = [row for row in result["fans"] if row["mode"] == mode]
        ratios = [row["ratio"] for row in rows]
        right.plot(ratios, [row["finite_width"] for row in rows], color=shades[mode], linewidth=1)
        right.errorbar(
            np.array(ratios) * {"fan_in": 0.96, "fan_out": 1.04}.get(mode, 1.0),
            [row["gradient"]["measured"] for row in rows],
            [row["gradient"]["error"] for row in rows],
            color=shades[mode],
            marker=mark,
            linestyle="none",
            label=MODES[mode],
        )
    right.axhline(1, color=MUTED, linewidth=0.8)
    right.set(
        xscale="log", xlabel="width of wide over narrow layers", ylabel="factor per pair of layers", ylim=(0, 1.1)
    )
    right.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    right.minorticks_off()
    right.legend(loc="lower left")
    return drawing


def caption(result):
    return (
        f"Left: factor per layer with each framework's default, networks of width {result['width']}; bars: predicted; points: "
        f"measured over {result['trials']} networks with normal weights of the default's variance. Right: layers that are narrow and "
        "wide in turn, ReLU, variance 2 over the fan; lines: predicted for this width; points: measured with explicit matrices."
    )


def alt(result):
    torch, keras = (find(result, start)["activations"] for start in ("PyTorch", "Keras"))
    return (
        f"With PyTorch's default a ReLU network has the factor {torch['relu']['measured']:.3f} per layer and a tanh network "
        f"{torch['tanh']['measured']:.3f}; with Keras's {keras['relu']['measured']:.3f} and {keras['tanh']['measured']:.3f}. Where "
        f"widths alternate by a factor of 4, Glorot's average loses {1 - fan(result, 'fan_avg', 4)['gradient']['measured']:.0%} of the "
        "gradient per pair of layers; fan in and fan out do not."
    )


def find(result, start):
    return next(row for row in result["rows"] if row["framework"].startswith(start))


def fan(result, mode, ratio):
    return next(row for row in result["fans"] if (row["mode"], row["ratio"]) == (mode, ratio))


def table(result):
    names = list(result["uniform"])
    rows = [["Default", "weight variance", "bias variance", *(activation(name).label for name in names)]]
    for row in result["rows"]:
        cells = [f"{row['activations'][n]['predicted']:.3f} / {row['activations'][n]['measured']:.3f}" for n in names]
        rows.append([row["framework"], f"{row['weight_variance']:.4g}", f"{row['bias_variance']:.2g}", *cells])
    cells = [f"– / {result['uniform'][n]['measured']:.3f}" for n in names]
    rows.append(["PyTorch, uniform law, explicit matrices", "", "", *cells])
    return rows


def data(result):
    rows = [
        [
            "what",
            "activation_or_mode",
            "weight_variance_or_ratio",
            "bias_variance",
            "predicted",
            "measured",
            "standard_error",
        ]
    ]
    for row in result["rows"]:
        for name, cell in row["activations"].items():
            variances = [row["weight_variance"], row["bias_variance"]]
            rows.append([row["framework"], name, *variances, cell["predicted"], cell["measured"], cell["error"]])
    rows += [
        ["PyTorch, uniform, explicit", n, "", "", "", x["measured"], x["error"]] for n, x in result["uniform"].items()
    ]
    for row in result["fans"]:
        for what in ("gradient", "signal"):
            values = [row["predicted"], row[what]["measured"], row[what]["error"]]
            rows.append([f"{what} per pair of layers", row["mode"], row["ratio"], "", *values])
    return rows


def numbers(result):
    found = {"truncated": find(result, "Haiku")["weight_variance"]}
    for row in result["rows"]:
        framework = row["framework"].partition(",")[0].lower()
        for name, cell in row["activations"].items():
            found |= {f"{framework}_{name}": cell["measured"], f"{framework}_{name}_predicted": cell["predicted"]}
    found |= {f"uniform_{name}": cell["measured"] for name, cell in result["uniform"].items()}
    for row in result["fans"]:
        key = f"{row['mode']}_{row['ratio']}"
        found |= {
            key: row["gradient"]["measured"],
            f"{key}_predicted": row["predicted"],
            f"{key}_signal": row["signal"]["measured"],
        }
        found |= {f"{key}_finite_width": row["finite_width"]}
    return found


def torch_cell(result, name):
    return find(result, "PyTorch")["activations"][name]


def uniform_agrees(result, name):
    """As predicted for normal weights of this width, within four standard errors and one part of the width."""
    cell, predicted = result["uniform"][name], torch_cell(result, name)["at_width"]
    return abs(cell["measured"] / predicted - 1) < 4 * cell["error"] / cell["measured"] + 1 / result["width"]


def fan_agrees(row):
    """Signal and gradient as predicted to first order in 1/width, within four standard errors and the next order, twice its square."""
    shift = math.log(row["finite_width"] / row["predicted"])
    return all(
        abs(row[what]["measured"] / row["finite_width"] - 1)
        < 4 * row[what]["error"] / row[what]["measured"] + 2 * shift**2
        for what in ("gradient", "signal")
    )


def relu_by_default(result, kind):
    """The factor of ReLU by framework, "predicted" or "measured"."""
    cells = [(name, find(result, name)["activations"]["relu"]) for name in ("Keras", "Haiku", "PyTorch")]
    errors = {"predicted": "", "measured": " ± {error:.4f}"}[kind]
    return ", ".join(f"{name} {cell[kind]:.4f}{errors.format_map(cell)}" for name, cell in cells)


PAGE = "fix/initialisation.md"
CLAIMS = [
    Claim(
        "pytorch-default-is-not-he",
        "PyTorch's default for linear layers is not He's initialisation: its weight variance is one sixth of He's, and a ReLU network "
        "loses a factor of 0.41 per layer.",
        "belief found in tutorials",
        lambda r: f"× {torch_cell(r, 'relu')['at_width']:.4f} per layer",
        lambda r: (
            f"× {torch_cell(r, 'relu')['measured']:.4f} ± {torch_cell(r, 'relu')['error']:.4f} "
            f"(normal law), {r['uniform']['relu']['measured']:.4f} ± {r['uniform']['relu']['error']:.4f} (uniform law)"
        ),
        "false as stated",
        lambda r: (
            agrees_at_width(torch_cell(r, "relu"))
            and uniform_agrees(r, "relu")
            and f"{torch_cell(r, 'relu')['measured']:.2f}" == "0.41"
            and abs(find(r, "PyTorch")["weight_variance"] * 6 / 2 - 1) < 1e-5
        ),
        PAGE,
    ),
    Claim(
        "only-the-variance-counts",
        "Whether weights are uniform or normal does not matter in layers of this width: only their variance does.",
        "theory for normal weights says nothing of uniform ones (heard often)",
        lambda r: ", ".join(f"{activation(n).label} {torch_cell(r, n)['at_width']:.4f}" for n in r["uniform"]),
        lambda r: ", ".join(
            f"{activation(n).label} {x['measured']:.4f} ± {x['error']:.4f}" for n, x in r["uniform"].items()
        ),
        "false as stated",
        lambda r: all(uniform_agrees(r, name) and agrees_at_width(torch_cell(r, name)) for name in r["uniform"]),
        PAGE,
    ),
    Claim(
        "both-fans-hold",
        "The conditions for fan in and fan out hold together in square layers, and either one alone keeps signal and gradient in "
        "layers of unequal width; it is their average that loses both where widths alternate.",
        "belief: in layers of unequal width only the average of fan in and fan out keeps both signal and gradient",
        lambda r: (
            f"4 : 1, per pair: fan in {fan(r, 'fan_in', 4)['finite_width']:.3f}, average {fan(r, 'fan_avg', 4)['finite_width']:.3f}"
        ),
        lambda r: ", ".join(
            f"{MODES[m]} {fan(r, m, 4)['gradient']['measured']:.3f} ± {fan(r, m, 4)['gradient']['error']:.3f}"
            for m in MODES
        ),
        "false as stated",
        lambda r: (
            all(map(fan_agrees, r["fans"]))
            and all(
                fan(r, "fan_avg", ratio)[what]["measured"] < 0.9 < fan(r, mode, ratio)[what]["measured"]
                for mode in ("fan_in", "fan_out")
                for ratio in (2, 4, 8)
                for what in ("gradient", "signal")
            )
        ),
        PAGE,
    ),
    Claim(
        "defaults-differ",
        "From which framework's default a network starts does matter: ReLU keeps 0.70 of its gradient per layer with that of Keras, "
        "0.62 with Haiku's and 0.41 with PyTorch's.",
        "belief: the framework's default does not matter",
        lambda r: relu_by_default(r, "predicted"),
        lambda r: relu_by_default(r, "measured"),
        "false as stated",
        lambda r: all(
            agrees_at_width(find(r, name)["activations"]["relu"])
            and f"{find(r, name)['activations']['relu']['measured']:.2f}" == written
            for name, written in (("Keras", "0.70"), ("Haiku", "0.62"), ("PyTorch", "0.41"))
        ),
        PAGE,
    ),
]
