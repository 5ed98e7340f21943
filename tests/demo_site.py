"""A small site with every instrument on a page, built and served as the real one is, under a sub-path."""

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path

import instruments
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).resolve().parent.parent
SUB_PATH = "/some/where/"


def build_demo(folder: Path, port: int) -> Path:
    """Build it into folder/site; returns that."""
    docs = folder / "docs"
    for part in ("javascripts", "stylesheets"):
        shutil.copytree(ROOT / "docs" / part, docs / part)
    shutil.copy(ROOT / "docs" / "assets" / "logo.svg", docs)
    tags = "\n\n".join(
        f'## {name}\n\n<div class="instrument" data-instrument="{name}"></div>' for name in instruments.names()
    )
    (docs / "index.md").write_text("# Start\n\n[the instruments](demo.md)\n")
    (docs / "demo.md").write_text(f"# Demo\n\n{tags}\n\n[back](index.md)\n")
    config = folder / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\n"
        f"site_url: http://127.0.0.1:{port}{SUB_PATH}\n"
        "nav: [index.md, demo.md]\n"
        "theme: {name: material, logo: logo.svg, favicon: logo.svg}\n"
        "extra_css: [stylesheets/extra.css]\n"
        "plugins: [mkdocs-jupyter: {include: []}]\n"
        f"hooks: [{ROOT / 'scripts/site/hooks.py'}]\n"
    )
    site = folder / "served" / SUB_PATH.strip("/")
    build(load_config(str(config), site_dir=str(site), strict=False))
    return site


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """Serve the folder at a free port; shut it down with .shutdown()."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
