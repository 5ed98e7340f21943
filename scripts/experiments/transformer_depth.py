"""Gradients and token similarity in transformers of 2 to 64 blocks, with the norm before, after, or DeepNorm."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from style import INK, colour, new_figure

from vgp_kernels import Transformer, propagate
from vgp_kernels.theory.transformers import transformer_theory
from vgp_kernels.transformer.network import MATRICES


@dataclass(frozen=True)
class Parameters:
    depths: tuple = (2, 4, 8, 16, 32, 64)
    profile_depth: int = 32  # of which every block is shown
    width: int = 64
    heads: int = 4
    tokens: int = 16
    trials: int = 32  # in 64 post-LN blocks the first gradient over the last varies by a factor of four either way
    seed: int = 0
    norms: tuple = ("pre", "post", "deepnorm")
    collapse_blocks: int = 8  # of attention alone, with neither skip nor feed-forward branch
    collapse_late: int = 16  # the same, where weights are large
    alone: tuple = ((1.0, 1.0), (4.0, 1.0), (1.0, 4.0), (16.0, 1.0))  # σ_q² and σ_w² of attention alone
    alone_tokens: tuple = (8, 32)  # other numbers of tokens, with the usual weights
    head_widths: tuple = (4, 16, 64, 256)  # with and without the division by √d_k
    score_width: int = 256
    score_tokens: int = 64
    score_rows: int = 4000  # of random scores, for the typical row


PARAMETERS = Parameters()
TOLERANCE = None
LOOKS = {
    "pre": (colour("relu"), "^", "pre-LN"),
    "post": (colour("sigmoid"), "s", "post-LN"),
    "deepnorm": (colour("gelu"), "D", "DeepNorm"),
}
FEW = 5  # parts of the width, which theory for infinite width leaves out
PLAIN = (colour("linear"), "x", "attention alone, no skip")
SECOND, QUERY, VALUE = (MATRICES.index(name) for name in ("second", "query", "value"))


def compute(p):
    def transformer(blocks, **options):
        return Transformer(blocks, p.width, p.heads, p.tokens, **options)

    rows, profiles = [], {}
    for norm in p.norms:
        for depth in p.depths:
            network = transformer(depth, norm=norm)
            flow, theory = propagate(network, p.trials, p.seed), transformer_theory(network)
            second = flow.log_matrix_gradient[:, :, SECOND]
            query = flow.log_matrix_gradient[:, :, QUERY]
            last, ratio = np.exp(second[:, -1]), second[:, 0] - second[:, -1]
            rows.append(
                {
                    "norm": norm,
                    "depth": depth,
                    "last_predicted": significant(math.exp(theory.log_second_gradient[-1]), 4),
                    "last": significant(last.mean(), 4),
                    "last_error": significant(last.std(ddof=1) / math.sqrt(p.trials), 2),
                    "first_over_last": significant(math.exp(ratio.mean()), 4),
                    "first_over_last_error": significant(
                        ratio.std(ddof=1) / math.sqrt(p.trials), 2
                    ),  # of its logarithm
                    "first_over_last_predicted": significant(
                        math.exp(theory.log_second_gradient[0] - theory.log_second_gradient[-1]), 4
                    ),
                    "query_decades": significant((query[:, -1] - query[:, 0]).mean() / math.log(10), 4),
                    "residual_predicted": significant(math.exp(theory.log_residual[-1]), 4),
                    "residual": significant(math.exp(flow.log_residual[:, -1].mean()), 4),
                    "input_gradient": significant(math.exp(flow.log_gradient[:, 0].mean()), 4),
                    "input_gradient_predicted": significant(math.exp(theory.log_gradient[0]), 4),
                }
            )
            if depth == p.profile_depth:
                profiles[norm] = {
                    "residual": significant(np.exp(flow.log_residual.mean(axis=0)), 3),
                    "residual_predicted": significant(np.exp(theory.log_residual), 3),
                }
    alone = propagate(transformer(p.collapse_blocks, norm="none", skip=False, ffn_multiple=0), p.trials, p.seed)
    others = {
        f"{queries:g}_{weights:g}": collapsed(
            propagate(
                transformer(
                    p.collapse_late,
                    norm="none",
                    skip=False,
                    ffn_multiple=0,
                    query_variance=queries,
                    weight_variance=weights,
                ),
                p.trials,
                p.seed,
            )
        )
        for queries, weights in p.alone
    }
    other_tokens = {
        str(tokens): collapsed(
            propagate(
                Transformer(p.collapse_blocks, p.width, p.heads, tokens, norm="none", skip=False, ffn_multiple=0),
                p.trials,
                p.seed,
            )
        )
        for tokens in p.alone_tokens
    }
    return {
        "width": p.width,
        "tokens": p.tokens,
        "trials": p.trials,
        "profile_depth": p.profile_depth,
        "rows": rows,
        "slopes": {norm: round(slope([r for r in rows if r["norm"] == norm], "last"), 4) for norm in p.norms},
        "profiles": profiles,
        "collapse_rate": round(
            (profiles["post"]["residual"][-1] / profiles["post"]["residual"][-9]) ** (1 / 8), 4
        ),  # per block, over the last eight
        "alone": significant(np.exp(alone.log_residual.mean(axis=0)), 3),
        "alone_others": others,
        "alone_other_tokens": other_tokens,
        "scores": [scores(p, d_k, scaled) for d_k in p.head_widths for scaled in (True, False)],
    }


def collapsed(flow):
    """The distance of the tokens after four blocks and in the end: mean over networks, and its standard error after four."""
    distance, last = np.exp(flow.log_residual[:, 4]), np.exp(flow.log_residual[:, -1])
    return {
        "distance": significant(distance.mean(), 4),
        "error": significant(distance.std(ddof=1) / math.sqrt(len(distance)), 2),
        "last": significant(last.mean(), 2),
    }


def slope(rows, key):
    """Least-squares slope of ln(value) over ln(depth), from 4 blocks on."""
    points = [(math.log(row["depth"]), math.log(row[key])) for row in rows if row["depth"] >= 4]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def scores(p, d_k, scaled):
    """What the division by √d_k does to the first gradients, and to the derivative of a typical softmax."""
    network = Transformer(
        1, p.score_width, p.score_width // d_k, p.score_tokens, ffn_multiple=0, norm="pre", scaled_scores=scaled
    )
    sizes = propagate(network, p.trials, p.seed).log_matrix_gradient[:, 0]
    random = np.random.default_rng(p.seed).standard_normal((p.score_rows, p.score_tokens)) * (
        1 if scaled else math.sqrt(d_k)
    )
    weights = np.exp(random - random.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    square, cube = (weights**2).sum(axis=1), (weights**3).sum(axis=1)
    jacobian = np.sqrt(np.maximum(square - 2 * cube + square**2, 0))  # |diag A - A Aᵀ|
    return {
        "d_k": d_k,
        "scaled": scaled,
        "query_over_value": significant(math.exp((sizes[:, QUERY] - sizes[:, VALUE]).mean()), 4),
        "jacobian_median": significant(float(np.median(jacobian)), 3),
        "jacobian_rms": significant(float(np.sqrt(np.mean(jacobian**2))), 3),
    }


def rows_of(result, norm):
    return [row for row in result["rows"] if row["norm"] == norm]


def row_of(result, norm, depth):
    return next(row for row in rows_of(result, norm) if row["depth"] == depth)


def figure(result):
    drawing, (left, right) = new_figure(7.4, 4.0, 1, 2)
    for norm, (shade, marker, label) in LOOKS.items():
        rows = rows_of(result, norm)
        depths = [row["depth"] for row in rows]
        left.plot(depths, [row["last_predicted"] for row in rows], color=shade)
        left.errorbar(
            depths,
            [row["last"] for row in rows],
            [row["last_error"] for row in rows],
            color=shade,
            marker=marker,
            linestyle="none",
            label=label,
        )
        profile = result["profiles"][norm]
        blocks = np.arange(result["profile_depth"] + 1)
        right.plot(blocks, np.maximum(profile["residual_predicted"], 1e-16), color=shade)
        right.plot(blocks[::2], profile["residual"][::2], color=shade, marker=marker, linestyle="none", label=label)
    right.plot(
        range(len(result["alone"])), result["alone"], color=PLAIN[0], marker=PLAIN[1], linestyle="none", label=PLAIN[2]
    )
    left.set(xlabel="blocks", ylabel="norm of the gradient of the last weight matrix")
    left.set_xscale("log", base=2)
    left.set_yscale("log", base=2)
    left.set_xticks([row["depth"] for row in rows], [str(row["depth"]) for row in rows])
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set(xlabel="block", ylabel="distance of the tokens from being equal", ylim=(1e-8, 3))
    right.set_yscale("log")
    right.legend(loc="lower right", labelcolor=INK)
    return drawing


def caption(result):
    return (
        f"Transformers of width {result['width']} with {result['tokens']} tokens at initialisation, mean of {result['trials']} "
        "networks. Left: the gradient of the last feed-forward matrix over the number of blocks. Right: "
        f"$\\lVert x - \\bar x\\rVert/\\lVert x\\rVert$ of the tokens after each of {result['profile_depth']} blocks. Lines: "
        "mean-field theory; points: measured."
    )


def alt(result):
    slopes = ", ".join(f"{LOOKS[norm][2]} {value:.2f}" for norm, value in result["slopes"].items())
    return (
        f"The last gradient falls with depth as a power: exponents {slopes}. The tokens become equal in post-LN "
        "transformers, and within four blocks where there is attention alone; with pre-LN and DeepNorm they stay apart."
    )


def table(result):
    head = (
        "Norm, blocks|Last gradient, predicted|measured|First over last, predicted|measured|Query, last over first|"
        "Token distance, predicted|measured"
    )
    rows = [head.split("|")]
    for row in result["rows"]:
        if row["depth"] in (4, 16, 32, 64):
            rows.append(
                [
                    f"{LOOKS[row['norm']][2]}, {row['depth']}",
                    f"{row['last_predicted']:.2f}",
                    f"{row['last']:.2f} ± {row['last_error']:.2f}",
                    f"{row['first_over_last_predicted']:.2f}",
                    f"{row['first_over_last']:.2f} ± {row['first_over_last'] * row['first_over_last_error']:.2f}",
                    f"$10^{{{row['query_decades']:.1f}}}$",
                    f"{row['residual_predicted']:.2g}",
                    f"{row['residual']:.2g}",
                ]
            )
    return rows


def data(result):
    fields = list(result["rows"][0])
    return [fields, *([row[field] for field in fields] for row in result["rows"])]


def score_of(result, d_k, scaled):
    return next(row for row in result["scores"] if (row["d_k"], row["scaled"]) == (d_k, scaled))


def numbers(result):
    found = {"trials": result["trials"], "width": result["width"], "tokens": result["tokens"]}
    found["collapse_rate"] = result["collapse_rate"]
    for norm, value in result["slopes"].items():
        found[f"{norm}_slope"] = value
    for row in result["rows"]:
        fields = "last last_predicted first_over_last first_over_last_predicted query_decades residual".split()
        fields += "residual_predicted input_gradient".split()
        found |= {f"{row['norm']}_{row['depth']}_{field}": row[field] for field in fields}
    for block in range(5):
        found[f"alone_{block}"] = result["alone"][block]
    found |= {f"alone_{key}": entry["distance"] for key, entry in result["alone_others"].items()}
    for row in result["scores"]:
        key = f"{'scaled' if row['scaled'] else 'unscaled'}_{row['d_k']}"
        found |= {f"{key}_query": row["query_over_value"], f"{key}_median": row["jacobian_median"]}
        found[f"{key}_rms"] = row["jacobian_rms"]
    return found


def fallen(result, field):
    """By how many decades it is lower in post-LN transformers of 32 blocks than of 16; at 64 rounding decides."""
    sixteen, thirty_two = (row_of(result, "post", depth)[field] for depth in (16, 32))
    return sixteen - thirty_two if field == "query_decades" else math.log10(sixteen / thirty_two)


def divided(result):
    return [row["query_over_value"] for row in result["scores"] if row["scaled"]]


CLAIMS = [
    Claim(
        "last-gradient-of-pre-ln",
        "In a pre-LN transformer the last gradient falls as one over the square root of the number of blocks; in a post-LN "
        "transformer it does not fall.",
        "Xiong et al. 2020, theorem 1",
        lambda r: (
            "exponents -1/2 and 0; at 64 blocks "
            + ", ".join(f"{row_of(r, norm, 64)['last_predicted']:.2f}" for norm in ("pre", "post"))
        ),
        lambda r: (
            f"exponents {r['slopes']['pre']:.2f} and {r['slopes']['post']:.2f}; at 64 blocks "
            + ", ".join(f"{row_of(r, norm, 64)['last']:.2f}" for norm in ("pre", "post"))
        ),
        "holds",
        lambda r: (
            abs(r["slopes"]["pre"] + 0.5) < 0.06
            and abs(r["slopes"]["post"]) < 0.06
            # the law behind the exponents, at every depth: within four standard errors and a few parts of the width
            and all(
                abs(row["last"] / row["last_predicted"] - 1) < 4 * row["last_error"] / row["last"] + FEW / r["width"]
                for row in r["rows"]
                if row["norm"] != "deepnorm"
            )
        ),
        "fix/transformers.md",
    ),
    Claim(
        "post-ln-vanishing-is-of-the-queries",
        "In a post-LN transformer of up to 64 blocks the first block typically gets more than a tenth of the last one's gradient, at "
        "width 64; what vanishes is the gradient of the queries and keys at the top, because the tokens have become equal.",
        "Noci et al. 2022: rank collapse makes the gradients of queries and keys vanish",
        lambda r: f"tokens at distance {row_of(r, 'post', 16)['residual_predicted']:.2g} after 16 blocks",
        lambda r: (
            f"distance {row_of(r, 'post', 16)['residual']:.2g}; at 32 blocks the feed-forward gradient, first over last, is "
            f"{row_of(r, 'post', 32)['first_over_last']:.2f}, that of the queries, last over first, "
            f"10^{row_of(r, 'post', 32)['query_decades']:.1f}"
        ),
        "holds",
        lambda r: (
            all(
                row["first_over_last"] * math.exp(-3 * row["first_over_last_error"]) > 0.1 for row in rows_of(r, "post")
            )
            # it falls as the square of the distance: one factor is the values', one the keys'
            and 0.8 < fallen(r, "query_decades") / (2 * fallen(r, "residual")) < 1.2
            and row_of(r, "post", 16)["residual"] < 0.02
        ),
        "fix/transformers.md",
    ),
    Claim(
        "attention-alone-collapses",
        "Attention alone, with neither skip nor feed-forward branch, makes all tokens equal: within four blocks at the usual weights, "
        "and within sixteen where weights are so large that it picks single tokens.",
        "Dong, Cordonnier & Loukas 2021: pure attention loses rank doubly exponentially",
        lambda r: "the logarithm of the distance grows by a factor at each block",
        lambda r: (
            ", ".join(f"{value:.2g}" for value in r["alone"][:5])
            + "; after four blocks "
            + ", ".join(
                f"{entry['distance']:.2g} (σ_q² = {key.split('_')[0]}, σ_w² = {key.split('_')[1]})"
                for key, entry in list(r["alone_others"].items())[1:]
            )
            + "; after sixteen at most "
            + f"{max(entry['last'] for entry in r['alone_others'].values()):.0e}"
        ),
        "holds with a condition",
        lambda r: (
            all(entry["distance"] < 1e-6 for entry in (r["alone_others"]["1_1"], *r["alone_other_tokens"].values()))
            # each step multiplies the logarithm by more than two, once it has begun
            and r["alone"][4] < 1e-12
            and math.log(r["alone"][3]) / math.log(r["alone"][2]) > 2
            and all(r["alone_others"][key]["distance"] > 1000 * r["alone"][4] for key in ("4_1", "1_4"))
            and all(entry["last"] < 1e-6 for entry in r["alone_others"].values())
            and r["alone_others"]["16_1"]["distance"] - 4 * r["alone_others"]["16_1"]["error"]
            > 0.5  # more than half of the distance
        ),
        "fix/transformers.md",
    ),
    Claim(
        "deepnorm-is-flat",
        "With DeepNorm the gradient reaches the first block as large as it was, and the tokens stay apart at every depth.",
        "Wang et al. 2022 (DeepNet)",
        lambda r: f"first over last 1, distance {row_of(r, 'deepnorm', 64)['residual_predicted']:.2f} (64 blocks)",
        lambda r: (
            f"{row_of(r, 'deepnorm', 64)['first_over_last']:.2f}, distance {row_of(r, 'deepnorm', 64)['residual']:.2f}"
        ),
        "holds",
        lambda r: (
            all(
                abs(math.log(row["first_over_last"])) < 4 * row["first_over_last_error"] + FEW / r["width"]
                for row in rows_of(r, "deepnorm")
            )
            and all(row["residual"] > 0.9 for row in rows_of(r, "deepnorm"))
        ),
        "fix/transformers.md",
    ),
    Claim(
        "unscaled-scores",
        "At d_k = 256, over 64 tokens, a typical softmax loses most of its derivative without the division by √d_k, yet at "
        "initialisation the gradient of the queries as a whole does not vanish: the undecided rows carry it.",
        "Vaswani et al. 2017, section 3.2.1: large dot products push the softmax into regions of extremely small gradients",
        lambda r: (
            f"derivative of a typical softmax at d_k = 256: {score_of(r, 256, False)['jacobian_median']:.2g}, with the division "
            f"{score_of(r, 256, True)['jacobian_median']:.2g}"
        ),
        lambda r: (
            "query over value gradient at d_k = 256: "
            f"{score_of(r, 256, False)['query_over_value']:.2f}, with the division {score_of(r, 256, True)['query_over_value']:.2f}"
        ),
        "holds with a condition",
        lambda r: (
            score_of(r, 256, False)["jacobian_median"] < 0.3 * score_of(r, 256, True)["jacobian_median"]
            and score_of(r, 256, False)["query_over_value"] > score_of(r, 256, True)["query_over_value"]
            # with the division it is the same for every d_k
            and max(divided(r)) < 1.03 * min(divided(r))
            # the mean square, which the undecided rows decide, has not fallen with the median
            and score_of(r, 256, False)["jacobian_rms"] > 0.8 * score_of(r, 256, True)["jacobian_rms"]
        ),
        "fix/transformers.md",
    ),
]
