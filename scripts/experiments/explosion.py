"""Where gradients explode: factors per layer above 1, and products of matrices whose spectral radius misleads."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments._factor import DEPTH, WIDTH, agrees, factor
from scipy.integrate import quad
from scipy.special import digamma, erf, polygamma
from style import INK, MUTED, colour, measured_style, new_figure, theory_style

from vgp_kernels import Network


@dataclass(frozen=True)
class Parameters:
    sizes: tuple = (2, 3, 4, 8, 16, 32)  # of square matrices with entries N(0, 1/n)
    factors: int = 100  # matrices in a product
    products: int = 2000
    radii: int = 20_000  # matrices whose spectral radius is averaged
    printed_size: int = 4  # the textbook's product: 100 matrices N(0, 1) times one to begin with
    printed_factors: int = 101
    printed_products: int = 2000
    powers: tuple = (1, 5, 10, 20, 50, 100)
    other_widths: tuple = (128, 1024)
    other_networks: tuple = (
        ("sigmoid", 200.0),
        ("tanh", 6.0),
        ("erf", 3.0),
        ("selu", 1.5),
        ("elu", 2.5),
    )  # all above 1
    near_one: tuple = (104, 117)  # widths of sigmoid networks with N(0, 1)
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = (1e-6, 1e-9)  # eigenvalues and matrix products of BLAS differ in their last digits between machines
CASES = {
    "sigmoid_he": ("sigmoid, He", {"activation": "sigmoid", "initialiser": "he"}),
    "sigmoid_normal": ("sigmoid, N(0, 1)", {"activation": "sigmoid", "weight_variance": 256.0}),
    "tanh_xavier": ("tanh, Xavier", {"activation": "tanh", "initialiser": "xavier"}),
    "tanh_he": ("tanh, He", {"activation": "tanh", "initialiser": "he"}),
    "tanh_gain": ("tanh, gain 5/3", {"activation": "tanh", "weight_variance": 25 / 9}),
    "tanh_normal": ("tanh, N(0, 1)", {"activation": "tanh", "weight_variance": 256.0}),
    "relu_he": ("ReLU, He", {"activation": "relu", "initialiser": "he"}),
    "relu_normal": ("ReLU, N(0, 1)", {"activation": "relu", "weight_variance": 256.0}),
    "selu_lecun": ("SELU, LeCun", {"activation": "selu", "initialiser": "lecun"}),
    "elu_he": ("ELU, He", {"activation": "elu", "initialiser": "he"}),
}
PRINTED = 2.4e25  # the largest entry in the textbook's slides, see the museum
NON_NORMAL = np.array([[0.9, 10.0], [0.0, 0.9]])


def compute(p):
    generator = np.random.default_rng(p.seed)
    return {
        "width": WIDTH,
        "layers": {key: layer_factor(Network(DEPTH, WIDTH, **options)) for key, (_, options) in CASES.items()},
        "other_widths": {
            str(n): {name: layer_factor(Network(DEPTH, n, name, weight_variance=v)) for name, v in p.other_networks}
            for n in p.other_widths
        },
        "near_one": {str(n): layer_factor(Network(DEPTH, n, "sigmoid", weight_variance=float(n))) for n in p.near_one},
        "factors": p.factors,
        "matrices": [random_product(p, n, generator) for n in p.sizes],
        "powers": list(p.powers),
        "norms_of_powers": [norm(np.linalg.matrix_power(NON_NORMAL, k)) for k in p.powers],
        "norm": norm(NON_NORMAL),
        "radius": significant(float(max(abs(np.linalg.eigvals(NON_NORMAL)))), 6),
        "alternating": [norm(np.linalg.matrix_power(NON_NORMAL @ NON_NORMAL.T, k // 2)) for k in (2, 10)],
        "printed": printed_product(p, generator),
    }


def norm(matrix):
    return significant(float(np.linalg.norm(matrix, 2)), 6)


def layer_factor(network):
    return {"weight_variance": network.weight_variance} | factor(network)


def lyapunov(n):
    """ln of the growth per factor of |A_k … A_1 u|, entries N(0, 1/n): E ln |Au|, where n|Au|² is chi-squared with n degrees."""
    return 0.5 * (float(digamma(n / 2)) + math.log(2 / n))


def random_product(p, n, generator):
    """Growth per factor of a vector under independent matrices N(0, 1/n), beside what one such matrix looks like."""
    matrices = generator.normal(scale=n**-0.5, size=(p.radii, n, n))
    logs = np.zeros(p.products)
    vectors = generator.normal(size=(p.products, n))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for _ in range(p.factors):
        new = generator.normal(scale=n**-0.5, size=(p.products, n, n))
        vectors = np.einsum("pij,pj->pi", new, vectors)
        length = np.linalg.norm(vectors, axis=1)
        logs += np.log(length)
        vectors /= length[:, None]
    growth = math.exp(logs.mean() / p.factors)
    return {
        "n": n,
        "radius": significant(float(np.abs(np.linalg.eigvals(matrices)).max(axis=1).mean()), 6),
        "norm": significant(float(np.linalg.norm(matrices, 2, axis=(1, 2)).mean()), 6),
        "predicted": significant(math.exp(lyapunov(n)), 6),
        "measured": significant(growth, 6),
        "error": significant(growth * logs.std(ddof=1) / p.factors / math.sqrt(p.products), 2),
    }


def printed_product(p, generator):
    """ln of the largest entry of a product of matrices N(0, 1): mean and standard deviation, predicted and measured.

    After many factors P = σ u vᵀ, with independent u, v uniform on the sphere, and ln |Pe| = ln σ + ln |v·e| for a fixed e, a sum of
    independent ½ ln χ²_n; hence mean and variance of ln σ. The largest entry is σ max|u_i| max|v_j|.
    """
    n, k = p.printed_size, p.printed_factors
    mean, variance = 0.5 * (digamma(n / 2) + math.log(2)), 0.25 * polygamma(1, n / 2)
    mean_v = 0.5 * (digamma(0.5) - digamma(n / 2))
    variance_v = 0.25 * (polygamma(1, 0.5) - polygamma(1, n / 2))

    def moment(power):
        """E (ln max|g_i|)^power of n normal numbers, from their distribution erf(x/√2)ⁿ."""

        def integrand(x):
            density = n * erf(x / math.sqrt(2)) ** (n - 1) * math.sqrt(2 / math.pi) * math.exp(-(x**2) / 2)
            return math.log(x) ** power * density

        return quad(integrand, 0, 10)[0]

    # ln max|u_i| = ln max|g_i| - ln|g| with |g| independent of u = g/|g|
    mean_max = moment(1) - mean
    variance_max = moment(2) - moment(1) ** 2 - variance
    products = np.broadcast_to(np.eye(n), (p.printed_products, n, n))
    for _ in range(k):
        products = generator.normal(size=(p.printed_products, n, n)) @ products
    logs = np.log(np.abs(products).max(axis=(1, 2)))
    return {
        "size": n,
        "factors": k,
        "products": p.printed_products,
        "mean_predicted": significant(float(k * mean - mean_v + 2 * mean_max), 6),
        "deviation_predicted": significant(math.sqrt(k * variance - variance_v + 2 * variance_max), 6),
        "mean": significant(float(logs.mean()), 6),
        "deviation": significant(float(logs.std(ddof=1)), 6),
        "error": significant(float(logs.std(ddof=1)) / math.sqrt(p.printed_products), 2),
    }


def figure(result):
    drawing, (left, right) = new_figure(7.4, 3.7, ncols=2, width_ratios=(1.15, 1))
    layers = result["layers"]
    for row, (key, entry) in enumerate(layers.items()):
        name = CASES[key][1]["activation"]
        left.plot([entry["at_width"]] * 2, [row - 0.35, row + 0.35], color=INK)
        left.errorbar(entry["measured"], row, xerr=entry["error"], **measured_style(name))
    left.axvline(1, color=MUTED, linewidth=0.9)
    left.set_yticks(range(len(layers)), [CASES[key][0] for key in layers])
    left.tick_params(axis="y", length=0)
    left.grid(axis="y", visible=False)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlabel("factor per layer")
    left.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    left.minorticks_off()

    matrices = result["matrices"]
    sizes = [entry["n"] for entry in matrices]
    right.plot(sizes, [entry["predicted"] for entry in matrices], **theory_style("linear"))
    right.errorbar(
        sizes,
        [entry["measured"] for entry in matrices],
        [entry["error"] for entry in matrices],
        **measured_style("linear"),
    )
    for field, label, mark, name in (("norm", "norm", "^", "tanh"), ("radius", "spectral radius", "s", "sigmoid")):
        values = [entry[field] for entry in matrices]
        right.plot(sizes, values, color=colour(name), marker=mark, linestyle=":")
        right.annotate(
            label, (sizes[-1], values[-1]), (-2, 6), textcoords="offset points", ha="right", color=colour(name)
        )
    right.annotate(
        "growth per factor\nof the product", (sizes[-1], matrices[-1]["predicted"]), (-2, -40), textcoords="offset points",
        ha="right", color=colour("linear"),
    )  # fmt: skip
    right.axhline(1, color=MUTED, linewidth=0.9)
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [str(n) for n in sizes])
    right.minorticks_off()
    right.set_ylim(0.5, 2.2)
    right.set_xlabel("size n of the matrices, entries N(0, 1/n)")
    return drawing


def caption(result):
    return (
        f"Left: the factor per layer of the gradient's norm, networks of width {result['width']}: predicted for this width (line) and "
        f"measured (point); right of 1 gradients explode. Right: products of {result['factors']} independent matrices with entries "
        "N(0, 1/n). Line: predicted growth per factor; crosses: measured; triangles and squares: average norm and spectral radius of "
        "one factor, both above the growth."
    )


def alt(result):
    layers = result["layers"]
    four = next(entry for entry in result["matrices"] if entry["n"] == 4)
    return (
        f"Sigmoid with weights N(0, 1) multiplies the gradient by {layers['sigmoid_normal']['measured']:.3f} per layer, tanh with He "
        f"by {layers['tanh_he']['measured']:.3f}. Matrices of size 4 have an average spectral radius of {four['radius']:.2f}, and "
        f"their product shrinks by {four['measured']:.3f} per factor, as predicted."
    )


def table(result):
    rows = [["Network", "$\\sigma_w^2$", "Factor $\\sqrt{\\chi_1}$", "Predicted at width 256", "Measured"]]
    for key, entry in result["layers"].items():
        rows.append(
            [
                CASES[key][0],
                f"{entry['weight_variance']:.4g}",
                f"{entry['predicted']:.4f}",
                f"{entry['at_width']:.4f}",
                f"{entry['measured']:.4f} ± {entry['error']:.4f}",
            ]
        )
    return rows


def data(result):
    rows = [["kind", "case", "predicted", "measured", "standard_error", "spectral_radius", "norm"]]
    for key, entry in result["layers"].items():
        rows.append(["network", CASES[key][0], entry["at_width"], entry["measured"], entry["error"], "", ""])
    for entry in result["matrices"]:
        values = [entry[field] for field in ("predicted", "measured", "error", "radius", "norm")]
        rows.append(["product", f"n = {entry['n']}", *values])
    return rows


def numbers(result):
    printed = result["printed"]
    found = {key: entry["measured"] for key, entry in result["layers"].items()}
    found |= {f"{key}_wide": entry["predicted"] for key, entry in result["layers"].items()}
    for n, entry in result["near_one"].items():
        found |= {
            f"near_one_{n}": entry["measured"],
            f"near_one_{n}_shift": math.log(entry["predicted"] / entry["at_width"]),
        }
    for entry in result["matrices"]:
        found |= {f"{field}_{entry['n']}": entry[field] for field in ("radius", "norm", "predicted", "measured")}
    found |= {f"power_{k}": value for k, value in zip(result["powers"], result["norms_of_powers"], strict=True)}
    return found | {
        "non_normal_norm": result["norm"],
        "non_normal_radius": result["radius"],
        "alternating_10": result["alternating"][1],
        "printed_typical": math.exp(printed["mean"]),
        "printed_typical_predicted": math.exp(printed["mean_predicted"]),
        "printed_spread": math.exp(printed["deviation"]),
        "printed_deviation": printed["deviation"],
        "printed_deviation_predicted": printed["deviation_predicted"],
        "printed_in_book": (math.log(PRINTED) - printed["mean_predicted"]) / printed["deviation_predicted"],
    }


EXPLODING = ("sigmoid_normal", "tanh_he", "tanh_gain", "tanh_normal", "relu_normal", "selu_lecun", "elu_he")


def explodes_as_predicted(result):
    """Measured above 1 and as predicted for the width; and the widest networks are the nearest to √χ₁."""
    narrow, wide = (list(entries.values()) for entries in result["other_widths"].values())
    exploding = [*(result["layers"][key] for key in EXPLODING), *narrow, *wide]
    return (
        all(agrees(entry) for entry in [*exploding, *result["layers"].values()])
        and all(entry["measured"] > 1 for entry in exploding)
        and all(
            abs(far["measured"] / far["predicted"] - 1) < abs(near["measured"] / near["predicted"] - 1)
            for near, far in zip(narrow, wide, strict=True)
        )
    )


def product_as_predicted(result):
    return all(abs(e["measured"] - e["predicted"]) < 4 * e["error"] for e in result["matrices"])


PAGE = "learn/why-explode.md"
CLAIMS = [
    Claim(
        "explosion-same-product",
        "Gradients of wide networks explode where χ₁ > 1, by the same factor √χ₁ per layer with which they vanish elsewhere, less a "
        "correction of order 1/width: sigmoid with weights N(0, 1) at width 256 explodes, and so do tanh with He's weights and SELU "
        "with LeCun's.",
        "Schoenholz and others 2017",
        lambda r: "; ".join(
            f"{CASES[k][0]} × {r['layers'][k]['at_width']:.4f} (√χ₁ {r['layers'][k]['predicted']:.4f})"
            for k in ("sigmoid_normal", "tanh_he", "selu_lecun")
        ),
        lambda r: "; ".join(
            f"{CASES[k][0]} × {r['layers'][k]['measured']:.4f} ± {r['layers'][k]['error']:.4f}"
            for k in ("sigmoid_normal", "tanh_he", "selu_lecun")
        ),
        "holds",
        explodes_as_predicted,
        PAGE,
    ),
    Claim(
        "lyapunov-not-radius",
        "The spectral radius of the factors does not decide whether a product of matrices diverges; the Lyapunov exponent does: "
        "Gaussian matrices of size 3 and 4 with an average spectral radius near 1 have a product that shrinks, and two matrices of "
        "spectral radius 0.9 have one that explodes.",
        "spectral radius > 1 means divergence (heard often)",
        lambda r: f"size 4: × {r['matrices'][2]['predicted']:.4f} per factor; alternating: × {r['norm']:.4f}",
        lambda r: (
            f"size 4: × {r['matrices'][2]['measured']:.4f} ± {r['matrices'][2]['error']:.4f}; alternating: "
            f"× {r['alternating'][1] ** 0.1:.4f}"
        ),
        "false as stated",
        lambda r: (
            product_as_predicted(r)
            and all(abs(e["radius"] - 1) < 0.05 and e["measured"] < 0.9 for e in r["matrices"][1:3])
            and abs(r["alternating"][1] ** 0.1 / r["norm"] - 1) < 1e-4
            and r["radius"] < 1 < r["alternating"][1] ** 0.1
        ),
        PAGE,
    ),
    Claim(
        "gaussian-product-law",
        "The logarithm of the size of the largest entry of the product of 101 Gaussian 4 × 4 matrices has the mean and the standard "
        "deviation that "
        "follow from digamma functions and one integral; a textbook's printout is less than one standard deviation from this mean.",
        "Zhang, Lipton, Li and Smola, Dive into deep learning, section 5.4",
        lambda r: (
            f"ln: {r['printed']['mean_predicted']:.2f}, standard deviation {r['printed']['deviation_predicted']:.2f}"
        ),
        lambda r: (
            f"ln: {r['printed']['mean']:.2f} ± {r['printed']['error']:.2f}, standard deviation {r['printed']['deviation']:.2f}"
        ),
        "holds",
        lambda r: (
            abs(r["printed"]["mean"] - r["printed"]["mean_predicted"]) < 4 * r["printed"]["error"]
            and abs(r["printed"]["deviation"] / r["printed"]["deviation_predicted"] - 1)
            < 4 / math.sqrt(2 * r["printed"]["products"])
            and abs(math.log(PRINTED) - r["printed"]["mean"]) < r["printed"]["deviation"]
        ),
        PAGE,
    ),
]
