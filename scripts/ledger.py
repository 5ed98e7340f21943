"""The claim ledger: every sentence of the note the site starts from, and what came of it when it was measured."""

import json
import re

import experiment

SECTIONS = {
    "1": "What it is",
    "2": "Why it happens",
    "3": "The formula",
    "4": "What follows",
    "5": "Saturation",
    "6": "The solutions",
    "7": "The conclusion",
}
NOTE = {
    "1.1": "Gradients become extremely small as they go back through many layers.",
    "1.2": "Learning of the early layers is then very slow, or stalls.",
    "1.3": "It is worse with sigmoid and tanh.",
    "2.1": "By the chain rule, ∂E/∂w = ∂E/∂y_L · ∂y_L/∂y_{L−1} ⋯ ∂y_1/∂w: one factor per layer.",
    "2.2": "For sigmoid and tanh each factor is less than 1.",
    "2.3": "Many small factors multiply, and the product vanishes.",
    "3.1": "σ(x) = 1/(1+e⁻ˣ) has σ′ = σ(1−σ) ≤ 0.25.",
    "3.2": "In n layers the gradient shrinks like (0.25)ⁿ → 0: it vanishes exponentially.",
    "4.1": "Early layers stop updating.",
    "4.2": "Complex features are not captured.",
    "4.3": "Training is slow or does not converge.",
    "5.1": "The sigmoid saturates near 0 or 1 for large |x|, where its derivative is almost zero.",
    "6.1": "ReLU: its gradient is 1 for x > 0.",
    "6.2": "Leaky ReLU and ELU: a small gradient remains for x < 0.",
    "6.3": "Batch normalisation keeps the gradients stable.",
    "6.4": "Residual connections let the gradient pass by.",
    "6.5": "Xavier and He initialisation keep the layers out of saturation.",
    "7.1": "Vanishing gradients are a major challenge for networks with sigmoid and tanh.",
    "7.2": "ReLU, residual networks and batch normalisation mitigate it.",
}
# What must be added to a sentence of the note before it is true, or what it leaves out although it is.
REMARKS = {
    "1.1": "where the factor per layer is below 1, as in sigmoid networks with the usual weights",
    "1.2": "in networks like the sigmoid's, against the layers above, on the plateau; in a ReLU network without biases all layers wait",
    "1.3": "of the sigmoid, at the same weights; tanh without biases loses less than ReLU with Xavier's weights",
    "2.1": "each factor is a matrix",
    "2.2": "of the slopes, but for tanh at 0; the factor of a layer is its slopes times its weights",
    "2.3": "if they stay well below 1",
    "3.1": "",
    "3.2": "it is not a rate, but an upper bound for chains of single units with weights of at most 1",
    "4.1": "nearly, while the plateau lasts, and not in ReLU networks without biases, where all layers are equally slow",
    "4.2": "the digits learned here need no complex feature",
    "4.3": "with plain gradient descent and Xavier's weights; five layers converge late, and that ten never do is not measured",
    "5.1": "gradients vanish without saturation as well",
    "6.1": "a layer passes half of its units, so that the weights decide",
    "6.2": "ELU's is near 1 just below zero and almost 0 far below; the weights decide whether the gradient lasts",
    "6.3": "they no longer vanish; in ReLU networks they grow as a power of the depth with skips, by 1.2 or more per layer without",
    "6.4": "in ReLU networks what is added at each block needs a scale or a norm, or it explodes",
    "6.5": "at the start, if the inputs have a mean square near 1 or less; they help because they set the weights' share of the factor",
    "7.1": "of the sigmoid, at the usual weights; of tanh, with weights that are too small or biases that are too large",
    "7.2": "ReLU with He's weights, skips with a scale or a norm",
}
FIELDS = "key source source_sentence sentence predicted measured verdict remark holds page experiment".split()
SYMBOLS = {"holds": "✓", "holds with a condition": "◐", "false as stated": "✗", "not yet measured": "○"}
MEANINGS = {
    "holds": "true as it is stated; what it leaves out, if anything, stands beside the verdict",
    "holds with a condition": "true after a condition is added, which stands beside the verdict or in the sentence under *Found here*",
    "false as stated": "the measurement contradicts it; what is true instead stands under *Found here*",
    "not yet measured": "no experiment of this site answers it so far",
}


def rows() -> list[dict]:
    """One row for each claim, and one for each sentence of the note that no claim answers; papers come last."""
    found: dict[str, list[dict]] = {f"note {number}": [] for number in NOTE}
    for name in experiment.names():
        result = experiment.result(name)
        for claim in experiment.load(name).CLAIMS:
            if claim.source.startswith("note ") and claim.source not in found:
                raise ValueError(f"claim {claim.key!r}: unknown source {claim.source!r}; known: note {', '.join(NOTE)}")
            row = {
                "key": claim.key,
                "source": claim.source,
                "source_sentence": NOTE.get(claim.source.removeprefix("note "), ""),
                "sentence": claim.sentence,
                "predicted": claim.predicted(result),
                "measured": claim.measured(result),
                "verdict": claim.verdict,
                "remark": REMARKS.get(claim.source.removeprefix("note "), ""),
                "holds": bool(claim.holds(result)),
                "page": claim.page,
                "experiment": name,
            }
            found.setdefault(claim.source, []).append(row)
    keys = [row["key"] for group in found.values() for row in group]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"two claims have the same key: {', '.join(twice)}")
    for source, group in found.items():
        if len(given := {row["verdict"] for row in group}) > 1 and source.startswith("note "):
            raise ValueError(f"{source} has more than one verdict: {', '.join(sorted(given))}")
    return [row for source, group in found.items() for row in group or [unmeasured(source)]]


def unmeasured(source: str) -> dict:
    """The row of a sentence of the note that no experiment has measured yet."""
    number = source.removeprefix("note ")
    stated = {
        "source": source,
        "source_sentence": NOTE[number],
        "verdict": "not yet measured",
        "remark": REMARKS[number],
    }
    stated |= {"holds": None}
    return dict.fromkeys(FIELDS, "") | stated


def files(rows: list[dict]) -> dict[str, str]:
    """The ledger for the page, for a spreadsheet and for a program, by file name."""
    table = [FIELDS, *([row[field] for field in FIELDS] for row in rows)]
    return {
        "claims.md": markdown(rows),
        "verdicts.md": verdicts(rows),
        "claims.csv": experiment.to_csv(table),
        "claims.json": json.dumps(rows, indent=1, ensure_ascii=False) + "\n",
    }


def verdicts(rows: list[dict]) -> str:
    """A table of the verdicts: how many sentences have it, and what it means."""
    given = [row["verdict"] for row in rows]
    lines = [
        [f"{symbol} {verdict}", str(given.count(verdict)), MEANINGS[verdict]] for verdict, symbol in SYMBOLS.items()
    ]
    return experiment.markdown_table([["Verdict", "Sentences", "It means"], *lines], align="left right left")


def markdown(rows: list[dict]) -> str:
    """A section with a table for each part of the note, and one for what papers and textbooks say."""
    parts = [(f"note {number}.", f"{number}. {title}") for number, title in SECTIONS.items()]
    text = ""
    for start, title in [*parts, ("", "Papers and textbooks")]:
        own = [row for row in rows if row["source"].startswith(start or "note ") == bool(start)]
        if own:
            lines = [["Stated", "Found here", "Predicted", "Measured", "Verdict"], *map(cells, own)]
            text += f"## {title}\n\n{experiment.markdown_table(lines, align='left')}\n"
    return text


def typeset(text: str) -> str:
    """Plain text with its exponents raised and its indices lowered: 10^-3, 10^(-3 ± 1), y_L, y_{L−1}."""
    text = re.sub(
        r"\^(\([^)]*\)|-?[\d.]*\d)", lambda power: f"<sup>{power[1].strip('()').replace('-', '−')}</sup>", text
    )
    return re.sub(r"_(?:\{([^}]*)\}|(\w))", lambda index: f"<sub>{index[1] or index[2]}</sub>", text)


def cells(row: dict) -> list[str]:
    verdict = f"{SYMBOLS[row['verdict']]} {row['verdict']}" + (f": {row['remark']}" if row["remark"] else "")
    if not row["key"]:
        return [typeset(row["source_sentence"]), "—", "—", "—", verdict]
    anchor = f'<a id="claim-{row["key"]}"></a>'
    links = f"[page](/{row['page']}) · [result](/results/{row['experiment']}/result.json)"
    stated = typeset(row["source_sentence"] or row["source"])
    found = f"{row['sentence']}<br>{links}"
    return [anchor + stated, found, typeset(row["predicted"]), typeset(row["measured"]), verdict]
