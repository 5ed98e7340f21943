"""What MkDocs calls: figures are drawn once at the start, formulas are typeset, notebook pages made light."""

import functools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts" / "site")]

import build  # noqa: E402
import mathjax  # noqa: E402
import notebooks  # noqa: E402

typesetter = functools.cache(mathjax.Typesetter)


def on_startup(command, dirty):
    """Draw what is missing before the docs folder is watched; drawing it later would rebuild without end."""
    build.draw_missing()


def on_page_content(html, page, config, files):
    if notebooks.is_notebook(html):
        html = notebooks.slim(html)
    return typesetter().page(html, page.file.src_uri)


def on_post_build(config):
    site = Path(config.site_dir)
    typesetter().write_assets(site / "assets" / "math")
    notebooks.write_downloads(Path(config.docs_dir), site)
