"""What an experiment is: a module `experiments/NAME.py`, found by its folder, with these names.

    PARAMETERS         instance of a frozen dataclass: every number that was chosen, the seed among them
    TOLERANCE          None: the result is the same to the last bit everywhere; or how far another machine may be off
    compute(p)         -> the result: a dict of plain lists, numbers and strings
    figure(result)     -> a Matplotlib figure             (figure.svg, .pdf, .png)
    caption(result)    -> what is seen, in Markdown       (figure.md, with alt and the downloads)
    alt(result)        -> the finding, for who cannot see the figure
    table(result)      -> rows of strings, the header first  (table.md)
    data(result)       -> rows, the header first             (data.csv)
    numbers(result)    -> the numbers that pages may quote, by name
    CLAIMS             list of Claim

Only `compute` calls the kernels; the others read the result, so figures are redrawn without computing anything again.

What a benchmark is: a command `benchmark.py` or `benchmark_NAME.py` that measures times and writes them to
docs/results/NAME (docs/results/benchmark for the first). Times are no bits: nothing computes them again and compares. For
pages it has

    draw(document)     -> what is drawn, by file name
    numbers(document)  -> the numbers that pages may quote, by name
"""

import ast
import csv
import functools
import hashlib
import importlib
import io
import json
import math
import os
import platform
import re
import symtable
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import style
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "scripts" / "experiments"
KERNELS = ROOT / "vgp_kernels"
RESULTS = ROOT / "docs" / "results"

REQUIRED = "PARAMETERS TOLERANCE compute figure caption alt table data numbers CLAIMS".split()
DRAWN = ("figure.svg", "figure.pdf", "figure.png", "figure.md", "table.md", "data.csv")
VERDICTS = ("holds", "holds with a condition", "false as stated", "not yet measured")


@dataclass(frozen=True)
class Claim:
    """A sentence of the site, what it answers, and whether the result bears it out."""

    key: str  # the sentence's name in addresses: claim-KEY
    sentence: str  # verbatim on the page
    source: str  # "note 3.2", a sentence of ledger.NOTE, or the paper that is tested
    predicted: Callable[[dict], str]
    measured: Callable[[dict], str]
    verdict: str  # on the source, one of VERDICTS
    holds: Callable[[dict], bool]
    page: str  # from docs/: "learn/why-a-product.md"

    def __post_init__(self):
        if self.verdict not in VERDICTS:
            raise ValueError(f"claim {self.key!r}: unknown verdict {self.verdict!r}; known: {', '.join(VERDICTS)}")


def names() -> list[str]:
    """Every experiment there is."""
    return sorted(path.stem for path in EXPERIMENTS.glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    """The experiment's module, with all the names an experiment needs."""
    module = importlib.import_module(f"experiments.{name}")
    if missing := [required for required in REQUIRED if not hasattr(module, required)]:
        raise AttributeError(f"{EXPERIMENTS / name}.py lacks {', '.join(missing)}")
    return module


def benchmarks() -> dict[str, ModuleType]:
    """Every benchmark there is, by the name of its result."""
    stems = sorted(path.stem for path in (ROOT / "scripts").glob("benchmark*.py"))
    return {stem.removeprefix("benchmark_"): importlib.import_module(stem) for stem in stems}


def about(name: str) -> str:
    """What is measured, in the first line of the experiment."""
    return (ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text())) or "").partition("\n")[0]


# What a result depends on


def normal_form(node) -> object:
    """A syntax tree as nested lists, without positions, docstrings and comments, and the same on every Python.

    `ast.dump` will not do: which empty fields it prints differs between Python 3.11, 3.12 and 3.13.
    """
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            fields["body"] = node.body[1:]
        return [type(node).__name__, *([field, normal_form(v)] for field, v in fields.items() if v not in (None, []))]
    return [normal_form(item) for item in node] if isinstance(node, list) else repr(node)


def bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a value to."""
    match statement:
        case ast.FunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        case ast.Assign() | ast.AnnAssign():
            names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            return {name.id for name in names if isinstance(name.ctx, ast.Store)}
        case _:
            return set()


def names_used(statement: ast.stmt) -> set[str]:
    """The names of the module that a statement at its top uses; a function's own variables do not count."""
    tables, used = [symtable.symtable(ast.unparse(statement), "statement", "exec")], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        outside = {symbol for symbol in table.get_symbols() if symbol.is_global() or table.get_type() == "module"}
        used |= {symbol.get_name() for symbol in outside if symbol.is_referenced()}
    return used


def needed_for(wanted: set[str], name: str) -> list[ast.stmt]:
    """The statements of experiment `name`, and of experiments it imports from, on which the wanted names depend."""
    body = ast.parse((EXPERIMENTS / f"{name}.py").read_text()).body[1:]
    while True:
        kept = [statement for statement in body if not bound_names(statement) or bound_names(statement) & wanted]
        used = set().union(*map(names_used, kept))
        if used <= wanted:
            break
        wanted = wanted | used
    for statement in list(kept):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("experiments."):
            kept += needed_for({alias.name for alias in statement.names}, statement.module.removeprefix("experiments."))
    return kept


def sources(name: str) -> str:
    """Hash of the code a result depends on: what `compute` and PARAMETERS reach in the experiment and in the kernels.

    It is taken of the syntax, so that neither a comment nor the wording of a caption makes a result stale. Kernels that
    are imported inside a function (targets with the bits of the CPU) do not count.
    """
    statements = needed_for({"compute", "PARAMETERS"}, name)
    forms = [normal_form(statement) for statement in statements]
    forms += [[path.stem, *kernel_form(path)] for path in kernels_reached(statements)]
    return hashlib.sha256(repr(forms).encode()).hexdigest()[:16]


def kernels_reached(statements: list[ast.stmt]) -> list[Path]:
    """The files of vgp_kernels that the statements import, directly or through one another."""
    reached: set[Path] = set()
    while new := {KERNELS / f"{module}.py" for module in imported_kernels(statements)} - reached:
        reached |= new
        statements = [statement for path in new for statement in ast.parse(path.read_text()).body]
    return sorted(reached)


def imported_kernels(statements: list[ast.stmt]) -> set[str]:
    """The modules of vgp_kernels that the statements name; a public name counts as the module it comes from."""
    found = set()
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == "vgp_kernels":
            _, _, module = (statement.module or "").partition(".")
            found |= {module} if module else {public_names().get(alias.name, alias.name) for alias in statement.names}
    return found


@functools.cache
def public_names() -> dict[str, str]:
    """The module of each name that `vgp_kernels` itself offers."""
    body = ast.parse((KERNELS / "__init__.py").read_text()).body
    imports = [statement for statement in body if isinstance(statement, ast.ImportFrom)]
    return {alias.name: (node.module or "").removeprefix("vgp_kernels.") for node in imports for alias in node.names}


@functools.cache
def kernel_form(path: Path) -> list:
    return normal_form(ast.parse(path.read_text()))


# Computing, saving, reading


def compute(name: str) -> dict:
    """What result.json is to hold, computed now. `made_with` is for the record: nothing is compared with it."""
    module = load(name)
    tolerance = {} if module.TOLERANCE is None else {"tolerance": module.TOLERANCE}
    document = {
        "experiment": name,
        "about": about(name),
        "parameters": asdict(module.PARAMETERS),
        **tolerance,
        "made_with": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{package: version(package) for package in ("numpy", "numba")},
        },
        "sources": sources(name),
        "result": module.compute(module.PARAMETERS),
    }
    return json.loads(to_json(document))  # what is drawn now is what will be read tomorrow


def to_json(value, indent: str = "") -> str:
    """JSON with one line for each list of plain values: short, readable and good to diff. NaN and infinities raise."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(str(key), ensure_ascii=False)}: {to_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        return "[\n" + ",\n".join(inner + to_json(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def significant(value, digits: int):
    """The number, or each number of nested lists and arrays, rounded to so many significant digits, as plain floats."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [significant(item, digits) for item in value]
    return float(f"{value:.{digits - 1}e}")


def folder(name: str) -> Path:
    """Where everything made for an experiment lies."""
    return RESULTS / name


def saved(name: str) -> dict:
    """The saved result.json: parameters, made_with, sources, result."""
    path = folder(name) / "result.json"
    if not path.exists():
        raise FileNotFoundError(f"no result for {name!r}: run `python scripts/build.py --only {name}`")
    return json.loads(path.read_text())


def result(name: str) -> dict:
    """The saved result, as figure, table, numbers and claims read it."""
    return saved(name)["result"]


def quotable() -> dict[str, dict[str, float]]:
    """The numbers that pages may quote, by the name of the experiment or benchmark."""
    found = {name: load(name).numbers(result(name)) for name in names()}
    return found | {name: module.numbers(saved(name)) for name, module in benchmarks().items() if is_saved(name)}


def is_saved(name: str) -> bool:
    return (folder(name) / "result.json").exists()


def state(name: str) -> str:
    """Is the saved result "fresh", "stale" (its sources have changed) or "missing"?"""
    if not is_saved(name):
        return "missing"
    return "fresh" if saved(name)["sources"] == sources(name) else "stale"


def write(path: Path, content: str | bytes) -> None:
    """Write a file at once or not at all: who reads it meanwhile, or after a crash, finds the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# Drawing


def overview() -> str:
    """A Markdown table of all experiments: what is measured, with which seed, from which sources, and the files."""
    rows = [["Experiment", "What is measured", "Seed", "Sources", "Files"]]
    for name in names():
        document = saved(name)
        seed = document["parameters"].get("seed", "none")
        rows.append([f"`{name}`", document["about"], str(seed), f"`{document['sources']}`", downloads(name)])
    return markdown_table(rows, align="left")


def gallery() -> str:
    """The figures of all pages, small, part by part, each with its subject, the page that explains it and its downloads."""
    text, shown = "", set()
    for part in ("learn", "fix", "diagnose", "verify"):
        text += f'### {part.capitalize()}\n\n<div class="gallery" markdown>\n\n'
        for page in sorted((ROOT / "docs" / part).glob("*.md")):
            content = page.read_text()
            title = re.search(r"^# (.*)", content, re.MULTILINE)
            for name in re.findall(r'^--8<-- "results/(\w+)/figure.md"', content, re.MULTILINE):
                if name in names() and name not in shown:
                    shown.add(name)
                    text += (
                        f'<figure markdown="span">\n'
                        f"![{load(name).alt(result(name))}](/results/{name}/figure.svg){{ loading=lazy }}\n"
                        f'<figcaption markdown="span">`{name}` · {about(name)} [{title[1]}](/{part}/{page.name})\n'
                        f'<span class="downloads">{downloads(name)}</span></figcaption>\n</figure>\n\n'
                    )
        text += "</div>\n\n"
    return text


def is_drawn(name: str) -> bool:
    """Are figure and tables there, and newer than the result and the code that draws them?"""
    made = [folder(name) / file for file in DRAWN]
    made_from = [folder(name) / "result.json", EXPERIMENTS / f"{name}.py", Path(__file__), Path(style.__file__)]
    if not all(path.exists() for path in made):
        return False
    return min(path.stat().st_mtime for path in made) >= max(path.stat().st_mtime for path in made_from)


def draw(name: str, document: dict) -> dict[str, str | bytes]:
    """Everything that is drawn from a result, by file name. Writes nothing."""
    module, result = load(name), document["result"]
    command = f"python scripts/build.py --only {name}"
    return {
        **figure_files(name, module.figure(result), module.alt(result), module.caption(result), command),
        "table.md": markdown_table(module.table(result)),
        "data.csv": to_csv(module.data(result)),
    }


def figure_files(name: str, figure: Figure, alt: str, caption: str, command: str) -> dict[str, str | bytes]:
    """The figure in each format, and the Markdown that shows it with its caption, downloads and command."""
    width, height = (round(96 * inches) for inches in figure.get_size_inches())  # CSS pixels, so that no text jumps
    shown = (
        f'<figure markdown="span">\n'
        f"![{alt}](/results/{name}/figure.svg){{ loading=lazy width={width} height={height} }}\n"
        f'<figcaption markdown="span">{caption}\n'
        f'<span class="downloads">{downloads(name)} · `{command}`</span></figcaption>\n'
        f"</figure>\n"
    )
    return {
        "figure.svg": style.svg(figure),
        "figure.pdf": style.printed(figure, "pdf"),
        "figure.png": style.printed(figure, "png"),
        "figure.md": shown,
    }


def downloads(name: str) -> str:
    """Links to the figure in each format, its data and its result file."""
    formats = {
        "SVG": "figure.svg",
        "PDF": "figure.pdf",
        "PNG": "figure.png",
        "data": "data.csv",
        "result": "result.json",
    }
    return " · ".join(f"[{label}](/results/{name}/{file})" for label, file in formats.items())


def markdown_table(rows: list[list[str]], align: str = "") -> str:
    """A Markdown table; the first row is the header. Columns of numbers are set to the right, others and the first to the left.

    `align`: left or right for each column, the last for the rest.
    """
    columns = list(zip(*rows[1:], strict=True))
    sides = align.split() or ["left", *("left" if is_text(column) else "right" for column in columns[1:])]
    rules = [{"left": ":---", "right": "---:"}[side] for side in sides]
    rules += rules[-1:] * (len(rows[0]) - len(rules))
    return "".join("| " + " | ".join(map(cell_text, row)) + " |\n" for row in [rows[0], rules, *rows[1:]])


def is_text(cells: Iterable[str]) -> bool:
    """Do most of the cells begin with a word?"""
    words = [bool(re.match(r"\W*[^\W\d_]{2}", re.sub(r"\$[^$]*\$", "0", cell))) for cell in cells]
    return 2 * sum(words) > len(words)


def cell_text(cell: str) -> str:
    """The cell with its vertical bars written so that they do not end it: as TeX in formulas, as entities elsewhere."""
    in_formulas = re.sub(r"\$[^$]*\$", lambda math: math[0].replace(r"\|", r"\Vert ").replace("|", r"\vert "), cell)
    return in_formulas.replace("|", "&#124;")


def to_csv(rows: list[list]) -> str:
    """Comma-separated values, floats to their last digit."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


# Checking


def differences(committed, computed, tolerance=None, path: str = "result") -> Iterator[str]:
    """Where a computed value is not the committed one, each with the path of the field.

    Without tolerance, equal means the same JSON text. A tolerance is a number (relative), a pair (relative, absolute)
    or a dict from field to one of them; fields it does not name are compared exactly.
    """
    if isinstance(committed, dict) and isinstance(computed, dict):
        for key in committed | computed:
            if key not in committed or key not in computed:
                yield f"{path}.{key} is only in the {'committed' if key in committed else 'computed'} file"
            else:
                inner = tolerance.get(key) if isinstance(tolerance, dict) else tolerance
                yield from differences(committed[key], computed[key], inner, f"{path}.{key}")
    elif isinstance(committed, list) and isinstance(computed, list):
        if len(committed) != len(computed):
            yield f"{path} has {len(committed)} entries in the committed file and {len(computed)} in the computed one"
        for index, pair in enumerate(zip(committed, computed, strict=False)):
            yield from differences(*pair, tolerance, f"{path}[{index}]")
    elif not same(committed, computed, tolerance):
        yield f"{path}: committed {committed!r}, computed {computed!r}"


def same(committed, computed, tolerance) -> bool:
    if tolerance is None or not all(type(value) in (int, float) for value in (committed, computed)):
        return json.dumps(committed) == json.dumps(computed)
    relative, absolute = tolerance if isinstance(tolerance, list | tuple) else (tolerance, 0.0)
    return math.isclose(committed, computed, rel_tol=relative, abs_tol=absolute)
