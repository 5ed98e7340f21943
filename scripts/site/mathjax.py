"""TeX to HTML when the site is built: MathJax in V8, so that a reader's browser runs no script for it.

MathJax's own files come with the wheel sphinx-mathjax-offline; V8 is the wheel mini-racer.
"""

import functools
import html
import io
import json
import re
import time
from importlib.util import find_spec
from pathlib import Path

import v8
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<display>.*?)\\\])\s*</(?P=tag)>',
    re.DOTALL,
)
BOOT = r"""
globalThis.global = globalThis;
globalThis.messages = [];
const note = (...words) => messages.push(words.join(' '));
globalThis.console = {log: note, warn: note, error: note};
globalThis.setTimeout = (f) => { Promise.resolve().then(f); return 0; };
globalThis.MathJax = {
  loader: {
    paths: {mathjax: '/mathjax'},
    load: ['core', 'adaptors/liteDOM', 'input/tex-full', 'output/chtml', 'output/chtml/fonts/tex', 'a11y/assistive-mml'],
    require: (file) => { (0, eval)(sources[file]); return {}; },
  },
  tex: {formatError: (jax, error) => { throw error; }, packages: {'[-]': ['noerrors', 'noundefined']}},
  chtml: {fontURL: 'mathjax', adaptiveCSS: true, matchFontHeight: false},
  startup: {typeset: false},
};
(0, eval)(sources['/mathjax/startup.js']); 0
"""


class TexError(Exception):
    """A formula that MathJax cannot typeset."""


class Typesetter:
    """MathJax, started once; it remembers each formula, and which glyphs the site uses."""

    def __init__(self):
        self.files = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0]) / "static" / "mathjax"
        self.known: dict[tuple[str, bool], str] = {}
        self.engine = v8.start()
        sources = {
            f"/mathjax/{file.relative_to(self.files).as_posix()}": file.read_text() for file in self.files.rglob("*.js")
        }
        self.engine.eval(f"globalThis.sources = {json.dumps(sources)}; 0")
        self.engine.eval(BOOT)
        self._wait("typeof MathJax.tex2chtmlPromise == 'function' || null")

    def _wait(self, expression: str):
        """The expression's value, once it is no longer null."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if (value := self.engine.eval(expression)) is not None:
                return value
            time.sleep(0.002)
        raise TimeoutError(f"MathJax does not answer: {self.engine.eval('messages.join(`; `)')}")

    def formula(self, tex: str, display: bool) -> str:
        """One formula as HTML, with MathML for screen readers."""
        if (tex, display) not in self.known:
            self.engine.eval(
                "globalThis.answer = null;"
                f"MathJax.tex2chtmlPromise({json.dumps(tex)}, {{display: {json.dumps(display)}}})"
                ".then(node => { answer = 'ok' + MathJax.startup.adaptor.outerHTML(node); })"
                ".catch(error => { answer = 'no' + error.message; }); 0"
            )
            answer = str(self._wait("answer"))
            if answer.startswith("no"):
                raise TexError(f"{answer[2:]} in the formula {tex.strip()}")
            self.known[tex, display] = answer[2:]
        return self.known[tex, display]

    def page(self, content: str, name: str) -> str:
        """The page's HTML with every formula typeset; TexError names the page and the formula."""

        def replace(match):
            inline, display = match["inline"], match["display"]
            try:
                return self.formula(html.unescape(display if inline is None else inline), inline is None)
            except TexError as error:
                raise TexError(f"{name}: {error}") from None

        return FORMULA.sub(replace, content)

    def write_assets(self, folder: Path) -> None:
        """The stylesheet for the glyphs in use, and the fonts it names, cut down to these glyphs."""
        sheet = str(
            self.engine.eval(
                "MathJax.startup.adaptor.textContent(MathJax.startup.output.styleSheet(MathJax.startup.document))"
            )
        )
        characters = frozenset("".join(map(css_text, re.findall(r'content: "((?:[^"\\]|\\.)*)"', sheet))))
        (folder / "mathjax").mkdir(parents=True, exist_ok=True)
        for font in set(re.findall(r'url\("mathjax/([^"]+)\.woff"', sheet)):
            source = self.files / "output/chtml/fonts/woff-v2" / f"{font}.woff"
            (folder / "mathjax" / f"{font}.woff2").write_bytes(subset(source, characters))
        (folder / "mathjax.css").write_text(sheet.replace('.woff") format("woff")', '.woff2") format("woff2")'))


def css_text(string: str) -> str:
    """What stands between the quotes of a CSS string, escapes resolved."""
    return re.sub(
        r"\\(?:([0-9A-Fa-f]{1,6}) ?|(.))", lambda escape: chr(int(escape[1], 16)) if escape[1] else escape[2], string
    )


@functools.cache
def subset(file: Path, characters: frozenset[str]) -> bytes:
    """The font as WOFF2 with those of the characters that it has; whole if it has none."""
    font = TTFont(file, recalcTimestamp=False)
    if used := font.getBestCmap().keys() & set(map(ord, characters)):
        # without hints, and without a table of FontForge's own
        subsetter = Subsetter(Options(hinting=False, drop_tables=[*Options().drop_tables, "FFTM"]))
        subsetter.populate(unicodes=used)
        subsetter.subset(font)
    font.flavor = "woff2"
    buffer = io.BytesIO()
    font.save(buffer)
    return buffer.getvalue()
