"""What MkDocs calls: figures and kernels are made at the start, formulas typeset, notebooks made light, instruments drawn."""

import errno
import functools
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "scripts"), str(ROOT / "scripts" / "site")]
sys.path[:0] = PATHS

import build  # noqa: E402
import cells  # noqa: E402
import experiment  # noqa: E402
import instruments  # noqa: E402
import mathjax  # noqa: E402
import notebooks  # noqa: E402
import rules  # noqa: E402
import searching  # noqa: E402
import slides  # noqa: E402
import symbols  # noqa: E402
from mkdocs.exceptions import Abort  # noqa: E402

from vgp_kernels.targets import cache  # noqa: E402

# Tables, code, exercises, captions, footnotes, docstrings: half of the words, which every page would fetch with the index
NOT_SEARCHED = re.compile(
    r'(<(?:table|pre|details|figcaption)|<h2 id="(?:exercises|ask-yourself)"|'
    r'<div class="(?:footnote|instrument|doc doc-contents)[^"]*")(?=[ >])'
)

log = logging.getLogger("mkdocs.hooks.site")  # a warning here fails a strict build
REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}
first_build: list[tuple[str, list[str]]] = []  # the command, and what is stale, until the first build has begun
typesetter = functools.cache(mathjax.Typesetter)


def on_startup(command, dirty):
    """Draw what is missing before the docs folder is watched; drawing it later would rebuild without end."""
    sys.path[:0] = PATHS  # MkDocs takes away what was added while it loaded this file
    if lacking := cache.compiler_missing():
        raise Abort(lacking)
    notebooks.let_go()
    if changed := last_change():
        os.environ.setdefault("SOURCE_DATE_EPOCH", changed)  # the date in the site map; MkDocs would take today's
    log.info("Figures and tables are drawn that are missing or no longer those of their results")
    try:
        stale = build.draw_missing()
        instruments.write_data()
        rules.write_script()
    except experiment.Failed as failure:
        raise Abort(str(failure)) from None
    if stale and command == "serve":  # before the warnings of a strict build are counted: it may be looked at
        log.warning(build.stale_results(stale))
    first_build.append((command, stale))


def last_change() -> str:
    """When the sources were last committed, in seconds since 1970; "" where there is no history."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def on_config(config):
    """Say what cannot work before a minute has passed, and have labs run again when the kernels have changed.

    A page with an old result can be looked at, but a strict build does not let it out.
    """
    command, stale = first_build.pop() if first_build else ("", [])
    if command == "serve" and (refusal := why_not_served(config.dev_addr)):
        raise Abort(refusal)
    if stale and command != "serve":
        if config.strict:
            raise Abort(build.stale_results(stale))
        log.warning(build.stale_results(stale))
    labs = config.plugins["mkdocs-jupyter"].config
    try:
        folder = notebooks.cache(ROOT / ".cache" / "labs", (ROOT / "docs" / "labs").glob("*.py"))
        labs["cache_dir"] = str(folder)
    except OSError as error:
        log.info("the labs run without their cache: %s: %s", error.filename, error.strerror)
        labs["cache"] = False
    if labs["include"] and not (labs["cache"] and any(folder.iterdir())):
        log.info("The labs are run, which compiles kernels and takes a minute; next time only if something has changed")


def why_not_served(address) -> str:
    """Why the site cannot be served at this address, empty if it can."""
    try:
        with socket.create_server((address.host, address.port)):
            return ""
    except OSError as error:
        return (
            f"the site cannot be served at {address.host}:{address.port} ({error.strerror}); "
            "choose another port: .venv/bin/mkdocs serve -a 127.0.0.1:8001"
        )


def on_build_error(error):
    """A full disk or a folder that cannot be written is a matter for a sentence."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        raise Abort(f"the site cannot be written: {error.filename or 'its folder'}: {error.strerror}")


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri == "teach/figures.md":  # how to cite: where, and which version
        markdown = markdown.replace("SITE_URL", config.site_url).replace("VERSION", version())
    try:
        return cells.page(markdown, page.file.src_uri)
    except cells.CellError as error:
        raise Abort(str(error)) from None


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def citation(config) -> str:
    """What is cited, in the Citation File Format 1.2.0, which is YAML."""
    fields = {
        "cff-version": "1.2.0",
        "message": "If you use the text, the figures or the kernels, please cite them so.",
        "title": f"{config.site_name}: proved, then measured",
        "type": "software",
        "authors": [{"name": "The vgp-kernels authors"}],
        "version": version(),
        "url": config.site_url,
        "license": ["BSD-3-Clause", "CC-BY-4.0"],
    }
    return yaml.safe_dump(fields, sort_keys=False)


def on_page_content(html, page, config, files):
    if notebooks.is_notebook(html):
        html, unresolved = notebooks.resolve_links(notebooks.slim(html), page.file, files)
        for address in unresolved:
            log.warning("%s links to %s, which is not there", page.file.src_uri, address)
    if page.file.src_uri != "reference/notation.md":  # where the table says it
        html = symbols.page(html)
    html = instruments.page(typesetter().page(html, page.file.src_uri))
    if page.file.src_uri == slides.PAGE:
        html = slides.page(html)
    return NOT_SEARCHED.sub(r"\1 data-search-exclude", html)


def on_post_template(output, template_name, config):
    return with_search(output, config) if template_name == "404.html" else output


def on_post_page(output, page, config):
    return with_search(output, config)


def is_searched(config) -> bool:
    return any(name.split("/")[-1] == "search" for name in config.plugins)


def with_search(output, config):
    """Name the search dialogue for screen readers, which the theme leaves without a name, and start our own search."""
    if is_searched(config):
        output = searching.page(output)
    return output.replace('<div class="md-search"', '<div class="md-search" aria-label="Search"')


def on_post_build(config):
    site = Path(config.site_dir)
    typesetter().write_assets(site / "assets" / "math")
    cells.write_engine(site / "assets" / "python")
    notebooks.write_downloads(Path(config.docs_dir), site, config.site_url)
    (site / "CITATION.cff").write_text(citation(config))
    if is_searched(config):
        searching.write(site)
