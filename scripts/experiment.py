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
import hashlib
import importlib
import io
import json
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import style
from matplotlib.figure import Figure

from vgp_kernels.targets import cache, sources

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
EXPERIMENTS = SCRIPTS / "experiments"
RESULTS = ROOT / "docs" / "results"

REQUIRED = "PARAMETERS TOLERANCE compute figure caption alt table data numbers CLAIMS".split()
DRAWN = ("figure.svg", "figure.pdf", "figure.png", "figure.md", "table.md", "data.csv")
NOTED = ".made_from.json"  # see `remembered`
FIELDS = ("about", "parameters", "made_with")  # of every result.json; an experiment's has its result besides
VERDICTS = ("holds", "holds with a condition", "false as stated", "not yet measured")


class Failed(Exception):
    """Something that the reader of the message can mend without a traceback."""


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


# What is made from what

COMPUTED_BY = ("compute", "PARAMETERS")  # of an experiment
DRAWN_BY = ("figure", "caption", "alt", "table", "data")


def digest(file: Path, names: Iterable[str]) -> str:
    """A digest of the code on which these names in a script depend: neither a comment nor the wording of a caption counts."""
    scripts = {path.stem: path.parent for path in [*SCRIPTS.glob("*.py"), *SCRIPTS.glob("site/*.py")]}
    return sources.digest(file, names, {**sources.KERNELS, **scripts, EXPERIMENTS.name: EXPERIMENTS.parent})


def computed_by(name: str) -> str:
    """What the result is computed by, as it is now."""
    return digest(EXPERIMENTS / f"{name}.py", COMPUTED_BY)


def drawn_by(name: str) -> str:
    """What the drawings are made by, as it is now."""
    parts = digest(EXPERIMENTS / f"{name}.py", DRAWN_BY), digest(Path(__file__), ["drawings"]), version("matplotlib")
    return " ".join(parts)


def remembered(name: str) -> dict:
    """What was noted when the drawings were made, beside them and not committed; nothing if that cannot be read.

    result: digest of result.json; computed_by and drawn_by: of the code; drawn: of each drawing, by file name.
    """
    try:
        noted = json.loads((folder(name) / NOTED).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def remember(name: str, drawings: dict[str, bytes], computed_now: bool) -> None:
    """Note what the drawings were made from. A result that is seen for the first time counts as computed by the present code."""
    noted, result = remembered(name), digest_of(folder(name) / "result.json")
    known = noted.get("computed_by") if noted.get("result") == result and not computed_now else None
    note = {
        "result": result,
        "computed_by": known or computed_by(name),
        "drawn_by": drawn_by(name),
        "drawn": {file: hashlib.sha256(content).hexdigest() for file, content in drawings.items()},
    }
    write(folder(name) / NOTED, json.dumps(note, indent=1) + "\n")


def digest_of(path: Path) -> str:
    """The digest of a file's bytes, empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


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
    """The saved result.json: parameters, made_with, result. Raises Failed, with the way out, if it cannot be used."""
    path = folder(name) / "result.json"
    fields, remedy = FIELDS, "measure it again"
    if name in names():
        fields, remedy = (*FIELDS, "result"), f"run `python scripts/build.py --only {name}`"
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Failed(f"no result for {name!r}: {remedy}") from None
    except OSError as error:
        raise Failed(f"{shown(path)} cannot be read ({error.strerror}): {remedy}") from None
    except ValueError:
        raise Failed(f"{shown(path)} is no JSON, or only a part of it: {remedy}") from None
    if not isinstance(document, dict) or (missing := [field for field in fields if field not in document]):
        lacks = f"lacks {', '.join(missing)}" if isinstance(document, dict) else "holds no fields"
        raise Failed(f"{shown(path)} is of another version, it {lacks}: {remedy}")
    return document


def shown(path: Path) -> str:
    """The path as a message names it."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


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
    """Is the saved result "fresh", "stale" (its parameters or the code that computes it have changed), "damaged" or "missing"?

    Without a note of what it was computed by, as after cloning, it is fresh if its parameters are those of now.
    """
    if not is_saved(name):
        return "missing"
    try:
        document = saved(name)
    except Failed:
        return "damaged"
    if document["parameters"] != json.loads(to_json(asdict(load(name).PARAMETERS))):
        return "stale"
    noted = remembered(name)
    seen = noted.get("result") == digest_of(folder(name) / "result.json")
    return "stale" if seen and noted.get("computed_by") != computed_by(name) else "fresh"


def write(path: Path, content: str | bytes) -> None:
    """Write a file at once or not at all; raises Failed if the disk refuses."""
    try:
        cache.write(path, content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise Failed(f"{shown(path)} cannot be written: {error.strerror or error}") from None


# Drawing


def overview() -> str:
    """A Markdown table of all experiments: what is measured, with which seed, the result's fingerprint, and the files."""
    rows = [["Experiment", "What is measured", "Seed", "Fingerprint", "Files"]]
    for name in names():
        document = saved(name)
        seed = document["parameters"].get("seed", "none")
        rows.append([f"`{name}`", document["about"], str(seed), f"`{fingerprint(document)}`", downloads(name)])
    return markdown_table(rows, align="left")


def fingerprint(document: dict) -> str:
    """A digest of the parameters and the numbers of a result: equal where these are, to the last digit."""
    content = to_json({field: document[field] for field in ("parameters", "result")})
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
    """Are figure and tables there, whole, and drawn from this result by this code?"""
    noted, drawn = remembered(name), {file: digest_of(folder(name) / file) for file in DRAWN}
    now = {"result": digest_of(folder(name) / "result.json"), "drawn_by": drawn_by(name), "drawn": drawn}
    return all(noted.get(field) == value for field, value in now.items())


def draw(name: str, document: dict) -> dict[str, bytes]:
    """Everything that is drawn from a result, by file name. Writes nothing."""
    made = drawings(name, load(name), document["result"])
    return {file: content if isinstance(content, bytes) else content.encode() for file, content in made.items()}


def drawings(name: str, module: ModuleType, result: dict) -> dict[str, str | bytes]:
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
