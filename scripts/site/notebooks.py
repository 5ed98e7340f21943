"""Lab pages without the half megabyte of styles and scripts that nbconvert puts into each; and the notebook to download."""

import ast
import hashlib
import json
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import jupytext
import nbformat
from mkdocs.utils import get_relative_url
from uv import find_uv_bin

from vgp_kernels.targets import sources

# Tags that belong to JupyterLab's own page, not to this site
DROPPED = [
    r"<style.*?</style>",
    r"<script.*?</script>",
    r"<script[^>]*/>",
    r'<div class="zeroclipboard-container">.*?</clipboard-copy>\s*</div>',
    r'<div class="clipboard-copy-txt".*?</div>',
    r'<a class="anchor-link".*?</a>',
    r' id="cell-id=[^"]*"',  # drawn at random
]


def let_go() -> None:
    """Drop the calls that jupytext holds on to: with each error of its imports it keeps the stack of who imported it.

    In it is MkDocs' command, whose log handler would then outlive Python's logging, and end with a TypeError.
    """
    for name in jupytext.__all__:
        for cell in getattr(getattr(jupytext, name), "__closure__", None) or ():
            if isinstance(error := cell.cell_contents, ImportError):
                error.__traceback__ = error.__context__ = None


# Between two pieces of what a cell prints: how it falls into pieces depends on the clock
BETWEEN_PIECES = (
    r'</pre>\s*</div>\s*</div>\s*<div class="jp-OutputArea-child">\s*'
    r'<div class="jp-OutputPrompt jp-OutputArea-prompt">\s*</div>\s*'
    r'<div class="jp-RenderedText jp-OutputArea-output" data-mime-type="text/plain" tabindex="0">\s*<pre>'
)


def is_notebook(content: str) -> bool:
    return '<div class="jupyter-wrapper">' in content


def slim(content: str) -> str:
    """The notebook's page in this site's own style, its formulas marked as those of other pages."""
    content = content[content.index('<div class="jupyter-wrapper">') :]
    for pattern in DROPPED:
        content = re.sub(pattern, "", content, flags=re.DOTALL)
    content = re.sub(BETWEEN_PIECES, "", content)
    content = re.sub(r"highlight-ipynb(?: hl-\w+)?", "highlight", content)
    content = re.sub(
        r'(<div class="highlight[^"]*"><pre>)(.*?)(</pre>)', r"\1<code>\2</code>\3", content, flags=re.DOTALL
    )
    content = content.replace("No description has been provided for this image", "Drawn by the code above")
    return mark_formulas(content)


def mark_formulas(content: str) -> str:
    """$…$ and $$…$$ outside code, as pymdownx.arithmatex marks them."""
    parts = re.split(r"(<pre.*?</pre>|<code.*?</code>|<svg.*?</svg>|<[^>]+>)", content, flags=re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", r'<div class="arithmatex">\\[\1\\]</div>', parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"\$([^$]+)\$", r'<span class="arithmatex">\\(\1\\)</span>', parts[i])
    return "".join(parts)


def resolve_links(content: str, lab, files) -> tuple[str, list[str]]:
    """The page with its links to other pages and files as addresses of the site, and those that lead nowhere.

    Links are written as on other pages, from the lab's own file or, with a slash, from docs/. MkDocs does not see them.
    """
    unresolved = []

    def replace(match):
        address, anchor = match["address"], match["anchor"] or ""
        path = posixpath.normpath(posixpath.join("/", posixpath.dirname(lab.src_uri), address))[1:]
        if path.endswith(".ipynb") and files.get_file_from_path(path.removesuffix("ipynb") + "py"):
            target = path  # write_downloads makes it
        elif file := files.get_file_from_path(path):
            target = file.url
        else:
            unresolved.append(address)
            return match[0]
        return f'{match["attribute"]}="{get_relative_url(target, lab.url)}{anchor}"'

    pattern = r'(?P<attribute>href|src)="(?![a-z]+:|#)(?P<address>[^"#]+)(?P<anchor>#[^"]*)?"'
    return re.sub(pattern, replace, content), unresolved


def cache(folder: Path, labs: Iterable[Path]) -> Path:
    """The subfolder for labs that ran with the kernels, the Python and the packages as they are now; others, and halves, are removed.

    Raises OSError if nothing can be kept there.
    """
    forms = [sources.digest(lab) for lab in sorted(labs)]
    forms += [sys.version, sorted((package.name, package.version) for package in distributions())]
    current = folder / hashlib.sha256(repr(forms).encode()).hexdigest()[:16]
    current.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=current).close()
    for old in folder.iterdir():
        if old != current:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for page in current.iterdir():
        if not is_whole(page):
            page.unlink()
    return current


def is_whole(page: Path) -> bool:
    """Does the file hold a page, as the plugin keeps it?"""
    try:
        return {"content", "toc_tokens"} <= set(json.loads(page.read_bytes()))
    except (ValueError, TypeError):
        return False


PROJECT = Path(__file__).resolve().parents[2]
INSTALL = """\
# What this lab needs and is missing here, as on Colab, Binder or in a bare Jupyter
import importlib.util
import subprocess
import sys

NEEDED = {needed}
missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)\
"""
OF_MODULE = {"sklearn": "scikit-learn"}  # packages of another name than their module
OF_WHEEL = {"numba", "numpy", "scipy"}  # come with our own


def needed(notebook, wheel: str) -> dict[str, str]:
    """{module: what pip installs for it} of all that the cells import and Python does not bring; of our own the wheel's address."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    # IPython runs the cells; what our own package needs comes with it
    own = {"vgp_kernels": wheel} if "vgp_kernels" in modules else {}
    others = sorted(modules - sys.stdlib_module_names - {"IPython", "vgp_kernels"} - (OF_WHEEL if own else set()))
    return own | {module: OF_MODULE.get(module, module) for module in others}


def write_downloads(docs: Path, site: Path, address: str) -> None:
    """Each lab as an .ipynb beside its page, with a first cell that installs what is missing; the kernels as a wheel of the site.

    address: where the site will be, with a slash at its end. Raises ValueError without one.
    """
    labs = sorted((docs / "labs").glob("*.py"))
    if not labs:
        return
    if not address:
        raise ValueError("site_url is empty in mkdocs.yml: the notebooks install the kernels from there")
    wheel = f"{address.rstrip('/')}/labs/{write_wheel(site / 'labs')}"
    for lab in labs:
        notebook = jupytext.read(lab)
        install = nbformat.v4.new_code_cell(INSTALL.format(needed=json.dumps(needed(notebook, wheel))))
        notebook.cells.insert(1, install)  # below the title
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number}"  # otherwise drawn at random
        jupytext.write(notebook, site / "labs" / f"{lab.stem}.ipynb")


def write_wheel(folder: Path) -> str:
    """The kernels as a wheel in this folder, the same bytes from the same sources; returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as built:
        command = [find_uv_bin(), "build", "--quiet", "--offline", "--wheel", "--out-dir", built, PROJECT]
        subprocess.run(command, check=True)
        [wheel] = Path(built).glob("*.whl")
        shutil.copy(wheel, folder)
    return wheel.name
