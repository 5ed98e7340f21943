"""Which depths train: accuracy of tanh networks over depth and weight variance, with six predicted depth scales."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from experiment import Claim, significant
from experiments.consequences import digits
from matplotlib.colors import ListedColormap
from style import INK, PAGES, new_figure, ramp

from vgp_kernels import Network, critical_point, mean_field, train


@dataclass(frozen=True)
class Parameters:
    depths: tuple = (4, 8, 16, 24, 32, 40, 52)
    weight_variances: tuple = (1.0, 1.2, 1.4, 1.6, 1.76, 2.2, 2.7, 3.2, 4.0)
    bias_variance: float = 0.05  # that of Schoenholz et al. 2017
    width: int = 64
    batch_size: int = 64
    rate: float = 0.02  # small enough for the chaotic networks
    epochs: int = 8
    trials: int = 1
    longer_epochs: int = 40  # at one depth and with weights for which six depth scales are 22 layers
    longer_weight_variance: float = 1.0
    longer_depth: int = 32
    seed: int = 0
    training_examples: int = 1437
    split_seed: int = 0
    curve: tuple = tuple(round(1 + 0.05 * i, 2) for i in range(61))  # weight variances at which the prediction is drawn


PARAMETERS = Parameters()
TOLERANCE = {"six_scales": 1e-4, "at_grid": 1e-4, "critical": 1e-6}  # ξ_c is ill-conditioned near the critical line
SCALES = 6  # depths up to so many depth scales were found trainable


def compute(p):
    data = digits(p.training_examples, p.split_seed)
    accuracy = [
        [accuracy_of(p, depth, variance, data, p.epochs) for depth in p.depths] for variance in p.weight_variances
    ]
    return {
        "width": p.width,
        "epochs": p.epochs,
        "depths": list(p.depths),
        "weight_variances": list(p.weight_variances),
        "accuracy": accuracy,
        "longer": {
            "epochs": p.longer_epochs,
            "weight_variance": p.longer_weight_variance,
            "depth": p.longer_depth,
            "accuracy": accuracy_of(p, p.longer_depth, p.longer_weight_variance, data, p.longer_epochs),
        },
        "curve": list(p.curve),
        "six_scales": [six_scales(p, variance) for variance in p.curve],
        "at_grid": [six_scales(p, variance) for variance in p.weight_variances],
        "critical": significant(critical_point("tanh", p.bias_variance)[0], 7),
    }


def accuracy_of(p, depth, variance, data, epochs):
    network = Network(depth, p.width, "tanh", weight_variance=variance, bias_variance=p.bias_variance)
    done = train(
        network, learning_rate=p.rate, epochs=epochs, batch_size=p.batch_size, trials=p.trials, seed=p.seed, **data
    )
    return round(float(np.nan_to_num(done.train_accuracy[:, -1]).mean()), 4)


def six_scales(p, variance):
    network = Network(100, p.width, "tanh", weight_variance=variance, bias_variance=p.bias_variance)
    return significant(min(SCALES * mean_field(network).xi_c, 1e6), 6)


def figure(result):
    drawing, axes = new_figure(7.0, 4.2)
    shades = ListedColormap(ramp(9)[::-1])
    edges = cell_edges(result["weight_variances"]), cell_edges(result["depths"])
    cells = axes.pcolormesh(*edges, np.array(result["accuracy"]).T, cmap=shades, vmin=0.1, vmax=1, edgecolors="none")
    axes.plot(result["curve"], result["six_scales"], color=INK, linewidth=2)
    axes.plot(result["weight_variances"], half_depths(result), "o", color=INK, markerfacecolor=PAGES["light"])
    axes.set(
        xlabel="weight variance σ_w²",
        ylabel="layers",
        ylim=(edges[1][0], edges[1][-1]),
        xlim=(edges[0][0], edges[0][-1]),
    )
    axes.grid(False)
    drawing.colorbar(cells, ax=axes, label="accuracy on the training set")
    return drawing


def cell_edges(centres):
    """Borders half-way between the centres."""
    inner = [(a + b) / 2 for a, b in pairwise(centres)]
    return [2 * centres[0] - inner[0], *inner, 2 * centres[-1] - inner[-1]]


def half_depths(result):
    """For each weight variance, the depth at which the accuracy falls through one half."""
    return [half_depth(result["depths"], row) for row in result["accuracy"]]


def shorter(result):
    """The accuracy of the network that is trained longer, where the others end."""
    longer = result["longer"]
    row = result["accuracy"][result["weight_variances"].index(longer["weight_variance"])]
    return row[result["depths"].index(longer["depth"])]


def half_depth(depths, row):
    """The depth at which the accuracy falls through one half; NaN where it never does."""
    last = max((i for i, accuracy in enumerate(row) if accuracy >= 0.5), default=None)
    if last is None or last == len(row) - 1:
        return math.nan
    share = (row[last] - 0.5) / (row[last] - row[last + 1])
    return depths[last] + share * (depths[last + 1] - depths[last])


def caption(result):
    return (
        f"Accuracy of tanh networks (width {result['width']}, $\\sigma_b^2=0.05$) after {result['epochs']} epochs on the digits, one "
        "network a cell. Line: predicted, six depth scales $6\\xi_c$. Rings: measured, where the accuracy falls through one half. "
        f"The line has a pole at the critical weight variance {result['critical']:.3f}."
    )


def alt(result):
    pairs = zip(result["weight_variances"], half_depths(result), strict=True)
    ends = ", ".join(f"{v:g}: {d:.0f}" for v, d in pairs if not math.isnan(d))
    return f"Networks train down to a depth that is greatest near the critical variance. Half accuracy at, by variance, {ends} layers."


def table(result):
    rows = [["$\\sigma_w^2$", "$6\\xi_c$, predicted", "Depth of half accuracy, measured", *map(str, result["depths"])]]
    columns = zip(result["weight_variances"], result["at_grid"], half_depths(result), result["accuracy"], strict=True)
    for variance, scales, half, row in columns:
        shown = f"more than {result['depths'][-1]}" if math.isnan(half) else f"{half:.0f}"
        rows.append([f"{variance:g}", f"{scales:.0f}", shown, *(f"{accuracy:.2f}" for accuracy in row)])
    return rows


def data(result):
    rows = [["weight_variance", "depth", "accuracy"]]
    for variance, row in zip(result["weight_variances"], result["accuracy"], strict=True):
        rows += [[variance, depth, accuracy] for depth, accuracy in zip(result["depths"], row, strict=True)]
    return rows


def numbers(result):
    found = {"critical": result["critical"], "longer": result["longer"]["accuracy"], "shorter": shorter(result)}
    columns = zip(result["weight_variances"], result["at_grid"], half_depths(result), strict=True)
    for variance, scales, half in columns:
        name = f"{variance:g}".replace(".", "_")
        found[f"scales_{name}"] = scales
        if not math.isnan(half):
            found[f"half_{name}"] = half
    return found


def away_from_critical(result):
    """(weight variance, predicted, measured depth) where six depth scales are less than the deepest network."""
    columns = zip(result["weight_variances"], result["at_grid"], half_depths(result), strict=True)
    return [column for column in columns if column[1] < result["depths"][-1]]


def shares(result):
    """Measured over predicted depths away from the critical line: (where gradients vanish, where they explode)."""
    found = [(variance < result["critical"], half / scales) for variance, scales, half in away_from_critical(result)]
    return [share for vanish, share in found if vanish], [share for vanish, share in found if not vanish]


def early(result):
    """How much accuracy the deepest networks have lost where they are within six depth scales."""
    rows = zip(result["accuracy"], result["at_grid"], strict=True)
    return [max(row) - row[-1] for row, scales in rows if scales >= result["depths"][-1]]


CLAIMS = [
    Claim(
        "six-depth-scales",
        "After eight epochs at the rate 0.02 tanh networks away from the critical line have learnt down to about six depth scales "
        "where gradients vanish, and to less, but more than half of that, where they explode; near it accuracy falls before that "
        "depth. With five times the epochs they learn deeper where gradients vanish.",
        "Schoenholz et al. 2017",
        lambda r: ", ".join(f"{scales:.0f}" for _, scales, _ in away_from_critical(r)) + " layers",
        lambda r: (
            ", ".join(f"{half:.0f}" for _, _, half in away_from_critical(r))
            + f" layers; near the line {min(early(r)):.2f} or more of accuracy lost at {r['depths'][-1]} layers; at "
            f"σ_w² = {r['longer']['weight_variance']:g} and {r['longer']['depth']} layers {shorter(r):.2f}, after "
            f"{r['longer']['epochs']} epochs {r['longer']['accuracy']:.2f}"
        ),
        "holds with a condition",
        lambda r: (
            r["epochs"] == 8
            and r["longer"]["epochs"] == 5 * r["epochs"]
            and shorter(r) < 0.5 < r["longer"]["accuracy"]
            and r["longer"]["depth"]
            > 8 * r["at_grid"][r["weight_variances"].index(r["longer"]["weight_variance"])] / SCALES
            and min(map(len, shares(r))) >= 2
            # one network a cell: the depth is known to one part of the grid, a twelfth or so
            and all(abs(share - 1) < 1 / 12 for share in shares(r)[0])
            and all(0.5 < share < 1 - 1 / 12 for share in shares(r)[1])
            and min(early(r)) > 0.1
        ),
        "learn/consequences.md",
    )
]
