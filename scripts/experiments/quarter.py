"""The bound (0.25)ⁿ beside the gradients of sigmoid chains and networks."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, agrees, factor
from style import INK, MUTED, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import INITIALISERS, Network, activation, mean_field, propagate


@dataclass(frozen=True)
class Parameters:
    depth: int = 100
    width: int = 256  # a common size; the theory is for infinite width
    trials: int = 1000  # error bars below the size of the points
    seed: int = 0
    initialisers: tuple = ("standard", "xavier", "he", "normal")
    shown: tuple = (1, 2, 5, 10, 20, 30, 50, 100)
    grid: int = 20_001  # points from -100 to 100 at which the slope is compared with 1/4
    chains: int = 10_000  # of single units, with random weights
    chain_depth: int = 10
    spectral_trials: int = 3  # matrices whose largest singular value is measured; it fluctuates by about 1 %


PARAMETERS = Parameters()
TOLERANCE = {
    "spectral_norm": 1e-3,
    "chains": 1e-9,
    "slope": {"off_differences": (0.0, 1e-9), "runner_up_predicted": 1e-12},
}
LN10 = math.log(10)


def compute(p):
    networks = []
    for initialiser in p.initialisers:
        network = Network(p.depth, p.width, "sigmoid", initialiser)
        flow, theory = propagate(network, p.trials, p.seed), mean_field(network)
        # n layers below the top one: the gradient at layer depth - n
        decades = flow.log_gradient[:, ::-1] / LN10
        networks.append(
            {
                "initialiser": initialiser,
                "weight_variance": network.weight_variance,
                "factor": factor(Network(DEPTH, p.width, "sigmoid", initialiser)),
                "predicted": [round(float(x), 4) for x in theory.log_gradient[::-1] / LN10],
                "mean": [round(float(x), 4) for x in decades.mean(axis=0)],
                "standard_error": [round(float(x), 4) for x in decades.std(axis=0, ddof=1) / math.sqrt(p.trials)],
                "learning_rate_spread": round(
                    float((flow.log_weight_gradient[:, -1] - flow.log_weight_gradient[:, -30]).mean() / LN10), 3
                ),
            }
        )
    return {
        "depth": p.depth,
        "width": p.width,
        "trials": p.trials,
        "shown": list(p.shown),
        "slope": slope(p),
        "chains": {"weights at most 1": largest_chain(p, 1.0), "weights up to 8": largest_chain(p, 8.0)},
        "bound": [significant(0.25**n, 7) for n in p.shown],
        "chain": chain(p.depth),
        "networks": networks,
        "spectral_norm": spectral_norm(p),
        "window": window(),
    }


def chain(depth):
    """The gradient of a chain of single sigmoid units, all weights 1, no biases, input 0: a product of slopes."""
    h, product, decades = 0.0, 1.0, [0.0]
    for _ in range(depth):
        h = 1 / (1 + math.exp(-h))
        product *= h * (1 - h)
        decades.append(round(math.log10(product), 4))
    return {"decades": decades, "factor": significant(h * (1 - h), 6), "fixed_point": significant(h, 6)}


def slope(p):
    """The largest slope on a grid, the second largest, and how far any is from central differences of the value."""
    sigmoid, z, step = activation("sigmoid"), np.linspace(-100, 100, p.grid), 1e-5
    slopes = sigmoid.slope(z)
    order = np.argsort(slopes)
    differences = (sigmoid.value(z + step) - sigmoid.value(z - step)) / (2 * step)
    at = float(abs(z[order[-2]]))
    return {
        "largest": float(slopes[order[-1]]),
        "largest_at": float(z[order[-1]]),
        "runner_up": float(slopes[order[-2]]),
        "runner_up_at": significant(at, 6),
        "runner_up_predicted": 0.25 * (1 - math.tanh(at / 2) ** 2),  # ¼ - (σ - ½)²
        "off_differences": significant(float(np.abs(slopes - differences).max()), 2),
    }


def largest_chain(p, bound):
    """The largest gradient of many random chains of single units, weights uniform on ±bound, over (¼)ⁿ."""
    generator = np.random.default_rng(p.seed)
    h, product = generator.standard_normal(p.chains), np.ones(p.chains)
    for _ in range(p.chain_depth):
        weight = generator.uniform(-bound, bound, p.chains)
        h = 1 / (1 + np.exp(-weight * h))
        product *= 4 * np.abs(weight) * h * (1 - h)
    return significant(float(product.max()), 4)


def spectral_norm(p):
    """Mean of the largest singular value of a Xavier matrix: 2σ_w for infinite width."""
    generator = np.random.default_rng(p.seed)
    matrices = generator.standard_normal((p.spectral_trials, p.width, p.width)) / math.sqrt(p.width)
    with threadpool_limits(1):  # threads of BLAS only get in each other's way in matrices this small
        return significant(float(np.linalg.norm(matrices, 2, axis=(1, 2)).mean()), 4)


def window():
    """The longest interval of inputs on which |w σ′(wx)| ≥ 1, and its w; s = |z| at the edge solves w σ′(s) = 1."""
    from scipy.optimize import minimize_scalar  # slow to import, and not needed by the drawings

    def length(w):
        return 2 / w * math.log(w * (1 + math.sqrt(1 - 4 / w)) / 2 - 1)

    found = minimize_scalar(lambda w: -length(w), bounds=(4.001, 20), method="bounded", options={"xatol": 1e-9})
    return {"weight": significant(float(found.x), 4), "length": significant(length(float(found.x)), 4)}


def lines(result):
    """(label, colour, network), from the largest factor down."""
    shades = dict(zip((n["initialiser"] for n in result["networks"]), ramp(len(result["networks"])), strict=True))
    for n in reversed(result["networks"]):
        name = n["initialiser"]
        yield INITIALISERS[name].label, shades[name], n


def figure(result):
    drawing, (left, right) = new_figure(7.0, 4.2, ncols=2, width_ratios=[1.5, 1])
    n = np.arange(51)
    left.plot(n, n * math.log10(0.25), color=INK, linewidth=2)
    left.plot(n[::10], result["chain"]["decades"][:51:10], color=INK, marker="x", linestyle="none")
    for row, (label, shade, network) in enumerate(lines(result)):
        left.plot(n, network["predicted"][:51], color=shade)
        left.errorbar(
            n[::5], network["mean"][:51:5], network["standard_error"][:51:5], color=shade, marker="o", linestyle="none"
        )
        left.annotate(
            label,
            (50, network["mean"][50]),
            (5, -5 if label == "Xavier" else 0),
            textcoords="offset points",
            va="center",
            color=shade,
            fontsize=9,
        )
        right.plot([network["factor"]["predicted"]] * 2, [row - 0.25, row + 0.25], color=shade)
        right.errorbar(network["factor"]["measured"], row, xerr=network["factor"]["error"], color=shade, marker="o")
    left.annotate(
        "(¼)ⁿ", (50, 50 * math.log10(0.25)), (5, 5), textcoords="offset points", va="center", color=INK, fontsize=9
    )
    last = len(result["networks"])
    right.plot(result["chain"]["factor"], last, color=INK, marker="x", linestyle="none")
    right.axvline(0.25, color=INK, linewidth=2)
    right.axvline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    right.set(xscale="log", xlim=(0.1, 1.6), ylim=(last + 0.5, -0.7), xlabel="factor per layer")
    right.set_xticks([0.1, 0.25, 0.5, 1], ["0.1", "¼", "0.5", "1"])
    right.minorticks_off()
    right.set_yticks([*range(last), last], [label for label, *_ in lines(result)] + ["single units,\nweight 1"])
    right.grid(visible=False, axis="y")
    left.set(xlabel="layers n between the loss and the gradient", ylabel="log₁₀ of the gradient's norm", xlim=(0, 69))
    left.set_xticks(range(0, 51, 10))
    return drawing


def caption(result):
    return (
        f"Sigmoid networks of width {result['width']}. Black line: $(0.25)^n$. Coloured lines: predicted for infinite width; "
        f"points: measured, mean of the logarithm over {result['trials']} networks. Crosses: a chain of single units with all "
        f"weights 1, the case that the formula is about. Right: the factor per layer, predicted (bars) and measured (points)."
    )


def alt(result):
    factors = ", ".join(f"{label} {n['factor']['measured']:.3g}" for label, _, n in lines(result))
    return (
        f"Five gradients beside the line of 0.25 to the n. Factors per layer: {factors}, single units with weight 1 "
        f"{result['chain']['factor']:.3g}. Two of the four networks lie above the line, one of them grows."
    )


def power(value):
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"${float(mantissa):.7g} \\times 10^{{{int(exponent)}}}$" if value < 1e-3 else f"{value:.7g}"


def table(result):
    names = [INITIALISERS[n["initialiser"]].label for n in result["networks"]]
    rows = [["n", "$(0.25)^n$", "single units, weight 1", *(f"{name}, measured" for name in names)]]
    for n, bound in zip(result["shown"], result["bound"], strict=True):
        row = [str(n), power(bound), f"$10^{{{result['chain']['decades'][n]:.2f}}}$"]
        rows.append(row + [f"$10^{{{network['mean'][n]:.2f}}}$" for network in result["networks"]])
    return rows


def data(result):
    rows = [["what", "n", "log10_predicted", "log10_mean", "standard_error"]]
    rows += [["0.25^n", n, round(n * math.log10(0.25), 4), "", ""] for n in range(result["depth"] + 1)]
    rows += [["single units, weight 1", n, "", x, 0] for n, x in enumerate(result["chain"]["decades"])]
    for network in result["networks"]:
        columns = zip(network["predicted"], network["mean"], network["standard_error"], strict=True)
        rows += [[network["initialiser"], n, *row] for n, row in enumerate(columns)]
    return rows


def numbers(result):
    found = {f"bound_{n}": bound for n, bound in zip(result["shown"], result["bound"], strict=True)}
    for n in result["networks"]:
        name = n["initialiser"]
        found |= {
            f"{name}_factor": n["factor"]["measured"],
            f"{name}_predicted": n["factor"]["predicted"],
            f"{name}_spread": n["learning_rate_spread"],
            f"{name}_finite_width": n["factor"]["at_width"],
            f"{name}_lost_50": -n["mean"][50],
        }
    found |= {
        "chain_factor": result["chain"]["factor"],
        "chain_fixed_point": result["chain"]["fixed_point"],
        "bound_lost_50": -50 * math.log10(0.25),
        "largest_slope": result["slope"]["largest"],
        "spectral_norm": result["spectral_norm"],
        "window_weight": result["window"]["weight"],
        "window_length": result["window"]["length"],
    }
    return found


def factors(result):
    return {n["initialiser"]: n["factor"]["measured"] for n in result["networks"]}


def listed(key):
    def text(result):
        return ", ".join(
            f"{INITIALISERS[n['initialiser']].label} {n['factor'][key]:.4g}"
            + (f" ± {n['factor']['error']:.1g}" if key == "measured" else "")
            for n in result["networks"]
        )

    return text


CLAIMS = [
    Claim(
        "slope-at-most-a-quarter",
        "The slope of the sigmoid is at most one quarter, and it is one quarter only at 0.",
        "note 3.1",
        lambda r: (
            f"0.25 at 0; {r['slope']['runner_up_predicted']:.8f} at the next points, ±{r['slope']['runner_up_at']:g}"
        ),
        lambda r: f"{r['slope']['largest']:.6g} at {abs(r['slope']['largest_at']):g}; {r['slope']['runner_up']:.8f}",
        "holds",
        lambda r: (
            r["slope"]["largest"] == 0.25
            and abs(r["slope"]["largest_at"]) < 1e-9
            and abs(r["slope"]["runner_up"] - r["slope"]["runner_up_predicted"]) < 1e-12
            and r["slope"]["off_differences"] < 1e-9  # it is the derivative of the value
        ),
        "learn/quarter-to-the-n.md",
    ),
    Claim(
        "quarter-is-no-rate",
        "The power of one quarter is an upper bound for a chain of single units whose weights are at most 1 in size; in a network the "
        "rate depends on the weights and can be smaller than one quarter, larger, or even larger than 1.",
        "note 3.2",
        listed("at_width"),
        listed("measured"),
        "false as stated",
        lambda r: (
            all(x <= n * math.log10(0.25) + 1e-4 for n, x in enumerate(r["chain"]["decades"]))
            and r["chains"]["weights at most 1"] < 1 < r["chains"]["weights up to 8"]
            and all(agrees(n["factor"]) for n in r["networks"])
            and factors(r)["standard"] < factors(r)["xavier"] < 0.25 < factors(r)["he"] < 1 < factors(r)["normal"]
        ),
        "learn/quarter-to-the-n.md",
    ),
]
