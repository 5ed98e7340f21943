"""The deck: one page of Markdown with `---` between its slides, shown one at a time and printed one to a sheet."""

import re

PAGE = "teach/slides.md"


def page(html: str) -> str:
    """The page's HTML with each part between two rules as a slide; before the first and after the last is for the screen only.

    Raises ValueError for a slide without a title.
    """
    before, *slides, after = re.split(r"<hr ?/?>", html)
    return f'<div class="screen">{before}</div>{deck(slides)}<div class="screen">{after}</div>'


def deck(slides: list[str]) -> str:
    parts = "\n".join(map(slide, slides))
    return f'<div class="deck" role="region" aria-label="Slides" tabindex="0">\n{parts}\n</div>'


def slide(html: str) -> str:
    title = re.search(r'<h2 id="([^"]+)"', html)
    if not title:
        raise ValueError(f"{PAGE}: a slide has no title; begin it with `## `: {html.strip()[:80]!r}")
    return f'<section class="slide" aria-labelledby="{title[1]}">{html}</section>'
