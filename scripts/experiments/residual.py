"""What a skip does to the gradient: growth per block, the scale of the branch, lengths of paths, shattering."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from experiment import Claim, significant
from style import INK, MUTED, colour, new_figure, ramp

from vgp_kernels import Network, mean_field, propagate
from vgp_kernels.theory.finite_width import log_norms


@dataclass(frozen=True)
class Parameters:
    width: int = 256
    depth: int = 1000  # blocks
    trials: int = 16
    plain_trials: int = 300  # without skips
    scales: tuple = (1.0, 0.3, 0.1, "1/√L")  # α
    shorter: tuple = (1, 10, 100)  # other depths at which α = 1/√L is measured
    veit_blocks: int = 54  # of the 110-layer network of Veit and others
    nudge: float = 0.02  # relative change of α of which the slope of ln|g| is taken
    path_trials: int = 60
    path_depth: int = 50
    shatter_depths: tuple = (1, 2, 3, 5, 10, 20, 50)
    shatter_trials: int = 60
    shatter_size: int = 2  # two inputs, orthogonal
    batch_size: int = 16  # with batch normalisation
    batch_trials: int = 6
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None
BLOCKS = {
    "preactivation": "x + W φ(x), He",
    "two_weights": "x + W₂ φ(W₁ x), He",
}
BRANCH = {"preactivation": 1, "two_weights": 2}  # r, what a branch does to the square of the gradient
SHATTER = {
    "plain": ("He", {}),
    # statistics that do not depend on the input: in training mode the gradients of a batch add up to 0, and any two of
    # them have the correlation -1/(B - 1) after the first norm
    "batch": ("He, batch norm", {"normalisation": "batch_inference"}),
    "batch_training": ("He, batch norm in training", {"normalisation": "batch"}),
    "skip": ("He, skip", {"residual": "preactivation"}),
    "skip_batch": ("He, batch norm, skip", {"normalisation": "batch_inference", "residual": "preactivation"}),
    "skip_scaled": ("He, skip, α = 1/√L", {"residual": "preactivation", "residual_scale": "1/√L"}),
}


def alpha(scale, depth):
    return 1 / math.sqrt(depth) if scale == "1/√L" else scale


def block(depth, width, scale=1.0, residual="preactivation"):
    return Network(depth, width, "relu", "he", residual=residual, residual_scale=alpha(scale, depth))


def compute(p):
    depths = (*p.shorter, p.depth)
    return {
        "width": p.width,
        "depth": p.depth,
        "trials": p.trials,
        "scales": {str(scale): curve(p, block(p.depth, p.width, scale)) for scale in p.scales},
        "blocks": {kind: total(p, block(p.depth, p.width, 1.0, kind)) for kind in BLOCKS},
        "plain": curve(replace(p, trials=p.plain_trials), Network(p.depth, p.width, "relu", "he")),
        "plain_exact": significant(float(log_norms(Network(p.depth, p.width, "relu", "he")).log_gradient[0]), 6),
        "scaled": {str(depth): total(p, block(depth, p.width, "1/√L")) for depth in depths},
        "scaled_two": {str(depth): total(p, block(depth, p.width, "1/√L", "two_weights")) for depth in depths},
        "identity": identity(p),
        "path_depth": p.path_depth,
        "paths": {str(scale): paths(p, block(p.path_depth, p.width, scale)) for scale in ("1/√L", 0.3, 1.0)},
        "paths_two": {
            str(scale): paths(p, block(p.path_depth, p.width, scale, "two_weights")) for scale in ("1/√L", 0.3, 1.0)
        },
        "veit_blocks": p.veit_blocks,
        "veit_short": significant(short_paths(p.veit_blocks, 17), 4),
        "veit_normalised": significant(sum(1 / (2 + (1 - 1 / math.pi) * k) for k in range(p.veit_blocks)), 4),
        "batch_size": p.batch_size,
        "shatter_depths": list(p.shatter_depths),
        "shatter": {key: shatter(p, options) for key, (_, options) in SHATTER.items()},
    }


def logs(p, network, trials):
    return propagate(network, trials, p.seed).log_gradient


def curve(p, network):
    """Mean ln |∂E/∂h_l| at every fiftieth block, predicted and measured."""
    flow, theory = logs(p, network, p.trials), mean_field(network).log_gradient
    every = slice(None, None, 50)
    return {
        "predicted": significant(theory[every], 6),
        "measured": significant(flow.mean(axis=0)[every], 6),
        "error": significant(flow.std(axis=0, ddof=1)[every] / math.sqrt(p.trials), 2),
    }


def total(p, network):
    """ln |∂E/∂h_0|, predicted and measured."""
    flow = logs(p, network, p.trials)[:, 0]
    return {
        "depth": network.depth,
        "predicted": significant(float(mean_field(network).log_gradient[0]), 6),
        "measured": significant(flow.mean(), 6),
        "error": significant(flow.std(ddof=1) / math.sqrt(p.trials), 2),
    }


def identity(p):
    """With α = 0: the largest |ln| of a gradient of a signal, and how many branches get a gradient."""
    flow = propagate(block(p.depth, p.width, 0.0), 2, p.seed)
    return {
        "largest": float(np.abs(flow.log_gradient).max()),
        "branches": int(np.isfinite(flow.log_weight_gradient).sum()),
    }


def paths(p, network):
    """Mean length of a path, weighed by its share of E|∂E/∂h_0|².

    E|g|² = Σ_k C(L, k) (α² r)^k for branches that multiply the square by r: lengths are binomial with probability
    α² r/(1 + α² r), and the mean is half the slope of ln E|g|² over ln α. It is
    measured as a difference between the same random networks with other α.
    """
    up, down = (
        logs(p, replace(network, residual_scale=network.residual_scale * math.exp(sign * p.nudge)), p.path_trials)[:, 0]
        for sign in (1, -1)
    )
    slopes = (up - down) / (2 * p.nudge)
    square = network.residual_scale**2 * BRANCH[network.residual]
    share = square / (1 + square)
    return {
        "predicted": significant(network.depth * share, 6),
        "deviation": significant(math.sqrt(network.depth * share * (1 - share)), 4),
        "measured": significant(slopes.mean(), 6),
        "error": significant(slopes.std(ddof=1) / math.sqrt(p.path_trials), 2),
    }


def short_paths(blocks, longest):
    """Share of all paths through `blocks` blocks that take at most `longest` branches."""
    return sum(math.comb(blocks, k) for k in range(longest + 1)) / 2**blocks


def shatter(p, options):
    """Correlation of the input gradients at two orthogonal inputs, for one linear read-out, over the depth."""
    found = {"predicted": [], "measured": [], "error": []}
    for depth in p.shatter_depths:
        chosen = dict(options)
        if "residual_scale" in chosen:
            chosen["residual_scale"] = alpha(chosen["residual_scale"], depth)
        size, trials = (
            (p.batch_size, p.batch_trials) if "normalisation" in chosen else (p.shatter_size, p.shatter_trials)
        )
        network = Network(depth, p.width, "relu", "he", batch_size=size, **chosen)
        measured = propagate(network, trials, p.seed, loss_gradient="shared").gradient_correlation[:, 0]
        found["predicted"].append(significant(float(mean_field(network).gradient_correlation[0]), 6))
        found["measured"].append(significant(measured.mean(), 6))
        found["error"].append(significant(measured.std(ddof=1) / math.sqrt(trials), 2))
    return found


LN10 = math.log(10)


def figure(result):
    drawing, (left, right) = new_figure(7.4, 3.8, ncols=2)
    shades = dict(zip(result["scales"], ramp(len(result["scales"])), strict=True))
    blocks = np.arange(0, result["depth"] + 1, 50)
    for key, entry in result["scales"].items():
        left.plot(blocks, np.array(entry["predicted"]) / LN10, color=shades[key])
        left.errorbar(
            blocks[::2],
            np.array(entry["measured"])[::2] / LN10,
            np.array(entry["error"])[::2] / LN10,
            color=shades[key], linestyle="none", marker="o", markersize=3.5,
        )  # fmt: skip
        at = {"1.0": 6, "0.3": 8, "0.1": 6, "1/√L": 12}[key]
        left.annotate(
            f"α = {key.removesuffix('.0')}",
            (blocks[at], entry["predicted"][at] / LN10),
            (4, 5),
            textcoords="offset points",
            color=shades[key],
        )
    left.set_yscale("symlog", linthresh=1)
    left.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    left.set_ylim(-0.1, 400)
    left.set_xlabel("block (0 = input)")
    left.set_ylabel("decades the gradient has grown")
    shown = {key: entry for key, entry in result["shatter"].items() if key != "batch_training"}  # a constant
    colours = dict(zip(shown, [INK, colour("sigmoid"), *ramp(3)], strict=True))
    depths = result["shatter_depths"]
    for mark, (key, entry) in zip("osD^v", shown.items(), strict=True):
        right.plot(depths, entry["predicted"], color=colours[key])
        right.errorbar(
            depths, entry["measured"], entry["error"], color=colours[key], linestyle="none", marker=mark,
            label=SHATTER[key][0],
        )  # fmt: skip
    right.axhline(0, color=MUTED, linewidth=0.9)
    right.set_xscale("log")
    right.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.minorticks_off()
    right.set_xlabel("layers or blocks")
    right.set_ylabel("correlation of two input gradients")
    right.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8, columnspacing=0.8, handletextpad=0.2)
    return drawing


def caption(result):
    return (
        f"Lines predicted, points measured, width {result['width']}. Left: {result['depth']:,} ReLU blocks with skips and a branch "
        "scaled by α: how much larger the gradient is than at the top (the axis is straight below 1, logarithmic above). Right: "
        "correlation of the gradients that one read-out has at two orthogonal inputs, over the depth; batch norm with fixed statistics."
    )


def alt(result):
    scales, shatter = result["scales"], result["shatter"]
    return (
        f"Over a thousand blocks the gradient grows by {scales['1.0']['measured'][0] / LN10:.0f} decades without scaling and by a "
        f"factor of {math.exp(scales['1/√L']['measured'][0]):.2f} with branches divided by the root of the depth. At depth 50 the "
        f"correlation of two gradients is {shatter['plain']['measured'][-1]:.3f} without skips and "
        f"{shatter['skip_scaled']['measured'][-1]:.2f} with scaled skips."
    )


def table(result):
    rows = [["Network", "Blocks", "Gradient grows by, predicted", "Measured"]]

    def line(label, depth, predicted, measured):
        rows.append([label, f"{depth:,}", power(predicted), power(measured)])

    line("He, no skip", result["depth"], result["plain"]["predicted"][0], result["plain"]["measured"][0])
    for kind, label in BLOCKS.items():
        line(label, result["depth"], result["blocks"][kind]["predicted"], result["blocks"][kind]["measured"])
    for scale, entry in result["scales"].items():
        if scale in ("0.3", "0.1"):
            line(f"x + {scale} · W φ(x)", result["depth"], entry["predicted"][0], entry["measured"][0])
    for entry in result["scaled"].values():
        line("x + W φ(x)/√L", entry["depth"], entry["predicted"], entry["measured"])
    return rows


def power(log):
    """e^log as text."""
    return f"{math.exp(log):.3f}" if abs(log) < 5 else f"$10^{{{log / LN10:.2f}}}$"


def data(result):
    rows = [["kind", "case", "depth", "predicted", "measured", "standard_error"]]
    for scale, entry in result["scales"].items():
        values = zip(entry["predicted"], entry["measured"], entry["error"], strict=True)
        rows += [["ln gradient", f"alpha = {scale}", 50 * i, *value] for i, value in enumerate(values)]
    for key, entry in result["shatter"].items():
        values = zip(result["shatter_depths"], entry["predicted"], entry["measured"], entry["error"], strict=True)
        rows += [["correlation of gradients", SHATTER[key][0], *value] for value in values]
    for scale, entry in result["paths"].items():
        values = [entry[field] for field in ("predicted", "measured", "error")]
        rows.append(["mean path length", f"alpha = {scale}", result["path_depth"], *values])
    return rows


def numbers(result):
    found = {"short_paths_percent": 100 * result["veit_short"], "identity": result["identity"]["largest"]}
    found |= {"normalised_paths": result["veit_normalised"], "plain_log": result["plain"]["measured"][0] / LN10}
    found["plain_log_exact"] = result["plain_exact"] / LN10
    found["plain_log_error"] = result["plain"]["error"][0] / LN10
    found["branches"] = result["identity"]["branches"]
    for kind, entry in result["blocks"].items():
        for field in ("predicted", "measured"):
            found[f"{kind}_{field}"] = math.exp(2 * entry[field] / result["depth"])
        found[f"{kind}_decades"] = entry["measured"] / LN10
    for depth, entry in result["scaled"].items():
        found |= {f"scaled_{depth}_{field}": math.exp(entry[field]) for field in ("predicted", "measured")}
    for depth, entry in result["scaled_two"].items():
        found[f"scaled_two_{depth}_squared"] = math.exp(2 * entry["measured"])
    for scale, entry in result["paths_two"].items():
        name = scale.replace("1/√L", "scaled").replace(".", "_")
        found |= {f"path_two_{name}_{field}": entry[field] for field in ("predicted", "measured", "error")}
    for scale, entry in result["paths"].items():
        name = scale.replace("1/√L", "scaled").replace(".", "_")
        found |= {f"path_{name}_{field}": entry[field] for field in ("predicted", "measured", "error", "deviation")}
    for key, entry in result["shatter"].items():
        for i, depth in enumerate(result["shatter_depths"]):
            found |= {f"{key}_{depth}": entry["measured"][i], f"{key}_{depth}_predicted": entry["predicted"][i]}
    return found


def close(entry, relative):
    """Predicted and measured logarithms, within a share of them and three standard errors."""
    return abs(entry["measured"] - entry["predicted"]) < relative * abs(entry["predicted"]) + 3 * entry["error"]


def correlated(result, *keys):
    """Correlations within 0.02 (finite width) and three standard errors."""
    entries = [result["shatter"][key] for key in keys]
    return all(
        np.all(np.abs(np.subtract(e["measured"], e["predicted"])) < 0.02 + 3 * np.array(e["error"])) for e in entries
    )


def halves(layers, values):
    """Whether each value is about the one before, halved once for each of so many layers."""
    return all(
        0.4 < (after / before) ** (1 / n) < 0.6 for n, (before, after) in zip(layers, pairwise(values), strict=True)
    )


def at_most(entries, limit):
    """ln of the norm as predicted at every depth, rising with it, and not above the limit."""
    predicted = [entry["predicted"] for entry in entries.values()]
    return (
        np.all(np.diff(predicted) > 0)
        and limit - 0.01 < predicted[-1] < limit
        and all(close(entry, 0.02) and entry["measured"] < limit + 3 * entry["error"] for entry in entries.values())
    )


def whole(result, kind):
    """The square of the norm over the deepest network, as text."""
    return f"{math.exp(2 * result[kind][str(result['depth'])]['measured']):.2f}"


def per_block(field):
    def text(result):
        entries = ((BLOCKS[kind], result["blocks"][kind]) for kind in BLOCKS)
        return "; ".join(f"{label}: squared × {math.exp(2 * e[field] / result['depth']):.3f}" for label, e in entries)

    return text


def lengths(field):
    def text(result):
        return "; ".join(f"α = {scale}: {entry[field]:.2f}" for scale, entry in result["paths"].items())

    return text


def at_fifty(field):
    def text(result):
        return "; ".join(f"{SHATTER[key][0]}: {entry[field][-1]:.3f}" for key, entry in result["shatter"].items())

    return text


PAGE = "fix/residual.md"
CLAIMS = [
    Claim(
        "skip-is-not-enough",
        "In a wide ReLU network an unscaled skip on average doubles the squared norm of the gradient in each block of one He weight"
        " and trebles it in each block of two; divided by the square root of the depth, branches of one He weight make its mean at "
        "most e in all, and branches of two at most e².",
        "a skip is enough (heard often)",
        lambda r: f"{per_block('predicted')(r)}; scaled: squared × e = {math.e:.3f}, × e² = {math.e**2:.3f}",
        lambda r: f"{per_block('measured')(r)}; scaled: {whole(r, 'scaled')}, {whole(r, 'scaled_two')}",
        "false as stated",
        lambda r: (
            all(close(entry, 0.01) for entry in r["blocks"].values())
            and all(at_most(r[kind], limit) for kind, limit in (("scaled", 0.5), ("scaled_two", 1.0)))
        ),
        PAGE,
    ),
    Claim(
        "paths-are-binomial",
        "Weighed by its share of the squared gradient, a path through L blocks of one He weight takes Lα²/(1 + α²) branches on "
        "average: half of them without scaling, and a single one with branches divided by √L.",
        "Veit, Wilber and Belongie 2016",
        lengths("predicted"),
        lengths("measured"),
        "holds with a condition",
        lambda r: all(close(entry, 0.03) for kind in ("paths", "paths_two") for entry in r[kind].values()),
        PAGE,
    ),
    Claim(
        "zero-branch-zero-gradient",
        "With α = 0 at the start a network of any depth passes every gradient unchanged, and no weight in a branch gets any.",
        "Bachlechner and others 2020",
        lambda r: "gradient × 1; weights 0",
        lambda r: (
            f"ln of the factor: {r['identity']['largest']:.0f}; branches with a gradient: {r['identity']['branches']}"
        ),
        "holds",
        lambda r: r["identity"] == {"largest": 0.0, "branches": 0},
        PAGE,
    ),
    Claim(
        "gradients-shatter",
        "Gradients at two orthogonal inputs lose about half of their correlation per layer under batch normalisation without skips, a "
        "power of the depth with He's weights or with skips, and a third in all with scaled skips.",
        "Balduzzi and others 2017",
        at_fifty("predicted"),
        at_fifty("measured"),
        "holds with a condition",
        lambda r: (
            correlated(r, *SHATTER)
            and halves([1, 1, 1, 2], [1.0, *r["shatter"]["batch"]["measured"][:4]])
            and abs(r["shatter"]["skip_scaled"]["measured"][-1] - 2 / 3) < 0.05
        ),
        PAGE,
    ),
]
