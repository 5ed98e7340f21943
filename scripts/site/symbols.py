"""Tooltips: the first formula of a page that begins with a symbol of the notation page says what the symbol means."""

import functools
import html
import re
from pathlib import Path

NOTATION = Path(__file__).resolve().parents[2] / "docs" / "reference" / "notation.md"
ROW = re.compile(r"^\| (?P<symbols>\$.+?) \|[^|]*\| (?P<meanings>.+?) \|$", re.MULTILINE)


@functools.cache
def meanings() -> dict[str, str]:
    """What each symbol of the first table means, by its TeX; a cell with several symbols says it of each, in turn.

    Single letters are left out: n counts units here, and steps or layers in the next argument.
    """
    table = NOTATION.read_text().partition("## Conventions")[0]
    found = {}
    for row in ROW.finditer(table):
        symbols = [tex.partition(" =")[0] for tex in re.findall(r"\$([^$]+)\$", row["symbols"])]
        words = re.sub(r"[$*]", "", row["meanings"]).split("; ")
        found |= dict(zip(symbols, words, strict=True))
    return {tex: meaning for tex, meaning in found.items() if len(tex) > 1}


def page(content: str) -> str:
    """The page's HTML, formulas not yet typeset, with a tooltip for each symbol where it is first met.

    The theme shows it under a pointer and on focus: by the keyboard, or by a finger that taps.
    """
    for tex, meaning in meanings().items():
        symbol = re.compile(
            rf'<span class="arithmatex">\\\({re.escape(html.escape(tex, False))}(?![\w\'^_{{]).*?\\\)</span>'
        )
        content = symbol.sub(
            lambda span, said=meaning: f'<abbr title="{html.escape(said)}" tabindex="0">{span[0]}</abbr>',
            content,
            count=1,
        )
    return content
