"""What MkDocs calls: figures and kernels are made at the start, formulas typeset, notebooks made light, instruments drawn."""

import functools
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "scripts"), str(ROOT / "scripts" / "site")]
sys.path[:0] = PATHS

import build  # noqa: E402
import instruments  # noqa: E402
import mathjax  # noqa: E402
import notebooks  # noqa: E402
import symbols  # noqa: E402

# Tables, code, exercises, captions, footnotes, docstrings: half of the words, which every page would fetch with the index
NOT_SEARCHED = re.compile(
    r'(<(?:table|pre|details|figcaption)|<h2 id="exercises"|<div class="(?:footnote|instrument|doc doc-contents)[^"]*")(?=[ >])'
)

log = logging.getLogger("mkdocs.hooks.site")  # a warning here fails a strict build
typesetter = functools.cache(mathjax.Typesetter)


def on_startup(command, dirty):
    """Draw what is missing before the docs folder is watched; drawing it later would rebuild without end."""
    sys.path[:0] = PATHS  # MkDocs takes away what was added while it loaded this file
    if changed := last_change():
        os.environ.setdefault("SOURCE_DATE_EPOCH", changed)  # the date in the site map; MkDocs would take today's
    log.info("Figures and tables are drawn that are missing or older than their results")
    build.draw_missing()
    instruments.write_data()


def last_change() -> str:
    """When the sources were last committed, in seconds since 1970; "" where there is no history."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def on_config(config):
    """Run the labs again when what they run on has changed: the plugin itself looks at nothing but the notebook."""
    labs = config.plugins["mkdocs-jupyter"].config
    folder = notebooks.cache(ROOT / ".cache" / "labs")
    labs["cache_dir"] = str(folder)
    if labs["include"] and not (labs["cache"] and folder.exists()):
        log.info("The labs are run, which compiles kernels and takes a minute; next time only if something has changed")


def on_page_content(html, page, config, files):
    if notebooks.is_notebook(html):
        html, unresolved = notebooks.resolve_links(notebooks.slim(html), page.file, files)
        for address in unresolved:
            log.warning("%s links to %s, which is not there", page.file.src_uri, address)
    if page.file.src_uri != "reference/notation.md":  # where the table says it
        html = symbols.page(html)
    html = instruments.page(typesetter().page(html, page.file.src_uri))
    return NOT_SEARCHED.sub(r"\1 data-search-exclude", html)


def on_post_page(output, page, config):
    """Name the search dialogue for screen readers; the theme leaves it without a name."""
    return output.replace('<div class="md-search"', '<div class="md-search" aria-label="Search"')


def on_post_build(config):
    site = Path(config.site_dir)
    typesetter().write_assets(site / "assets" / "math")
    notebooks.write_downloads(Path(config.docs_dir), site)
