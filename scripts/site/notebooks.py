"""Lab pages without the half megabyte of styles and scripts that nbconvert puts into each; and the notebook to download."""

import re
from pathlib import Path

import jupytext

# Tags that belong to JupyterLab's own page, not to this site
DROPPED = [
    r"<style.*?</style>",
    r"<script.*?</script>",
    r"<script[^>]*/>",
    r'<div class="zeroclipboard-container">.*?</clipboard-copy>\s*</div>',
    r'<div class="clipboard-copy-txt".*?</div>',
    r'<a class="anchor-link".*?</a>',
]


def is_notebook(content: str) -> bool:
    return '<div class="jupyter-wrapper">' in content


def slim(content: str) -> str:
    """The notebook's page in this site's own style, its formulas marked as those of other pages."""
    content = content[content.index('<div class="jupyter-wrapper">') :]
    for pattern in DROPPED:
        content = re.sub(pattern, "", content, flags=re.DOTALL)
    content = re.sub(r"highlight-ipynb(?: hl-\w+)?", "highlight", content)
    content = re.sub(
        r'(<div class="highlight[^"]*"><pre>)(.*?)(</pre>)', r"\1<code>\2</code>\3", content, flags=re.DOTALL
    )
    return mark_formulas(content)


def mark_formulas(content: str) -> str:
    """$…$ and $$…$$ outside code, as pymdownx.arithmatex marks them."""
    parts = re.split(r"(<pre.*?</pre>|<code.*?</code>|<svg.*?</svg>|<[^>]+>)", content, flags=re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", r'<div class="arithmatex">\\[\1\\]</div>', parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"\$([^$]+)\$", r'<span class="arithmatex">\\(\1\\)</span>', parts[i])
    return "".join(parts)


def write_downloads(docs: Path, site: Path) -> None:
    """Each lab as an .ipynb beside its page."""
    for lab in sorted((docs / "labs").glob("*.py")):
        target = site / "labs" / f"{lab.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        jupytext.write(jupytext.read(lab), target)
