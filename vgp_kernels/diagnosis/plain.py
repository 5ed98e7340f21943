"""What the rules need beyond plain Python: each of these functions has a twin of the same name in docs/javascripts/doctor.js.

The rules are written once, in `rules.py`, and translated for the page by scripts/site/rules.py. What differs between the two
languages (numbers as text, sorting, what a type is) is kept here, and is small.
"""

import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import pairwise

NUMBERS = re.compile(r"(^|[._])[0-9]+")
THREE = Context(prec=3, rounding=ROUND_HALF_UP)


def is_number(x) -> bool:
    """A number, not a truth value."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def is_text(x) -> bool:
    return isinstance(x, str)


def is_list(x) -> bool:
    return isinstance(x, list)


def is_dict(x) -> bool:
    return isinstance(x, dict)


def is_finite(x) -> bool:
    """Neither infinite nor NaN."""
    return -math.inf < x < math.inf


def as_float(x) -> float:
    """The number in double precision; an integer beyond its range is infinite, as JavaScript reads it."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def figures(x: float) -> str:
    """The number with three significant figures, half away from zero: "0.0456", "1.23e-9", "NaN", "Infinity"."""
    if x != x:
        return "NaN"
    if not is_finite(x):
        return "Infinity" if x > 0 else "-Infinity"
    rounded = THREE.create_decimal(Decimal(x))
    if not rounded:
        return "0"
    exponent = rounded.adjusted()
    if -5 < exponent < 6:
        return format(rounded.normalize(), "f")
    return f"{format(rounded.scaleb(-exponent).normalize(), 'f')}e{exponent}"


def text_key(text: str) -> list:
    """By which names sort as a person counts: "layer_2" before "layer_10"."""
    key: list = []
    digits = ""
    for character in text + " ":
        if "0" <= character <= "9":
            digits += character
            continue
        if digits:
            key.append((0, int(digits[:15]), ""))  # JavaScript counts exactly to 2⁵³
            digits = ""
        key.append((1, 0, character))
    return key


def naturally_sorted(rows: list) -> list:
    """The rows (dictionaries with a "name") in the order in which a person counts their names."""
    return sorted(rows, key=lambda row: text_key(row["name"]))


def is_alphabetical(rows: list) -> bool:
    """Whether the names stand in the order of text, character by character."""
    return all(a["name"] <= b["name"] for a, b in pairwise(rows))


def pattern(name: str) -> str:
    """The name without the numbers that count layers: what "blocks.3.query1" and "blocks.4.query1" share."""
    return NUMBERS.sub(r"\1#", name)
