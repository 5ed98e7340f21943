"""What a drawing is: a module `drawings/NAME.py`, found by its folder, that explains rather than measures, with these names.

    READS                   names of the results whose numbers it shows, or ()
    draw(phone, *results)   -> a Matplotlib figure: for a column of the page, or narrow and with less in it, for a phone
    alt(*results)           -> what is seen, for who cannot see it
    caption()               -> what to look at, in Markdown
    SEES                    (if any) the files besides that it is made from

A page shows it with `--8<-- "results/drawings/NAME.md"`. Figures are drawn when the site is built, light and dark in one.

Diagrams are drawn on a sheet whose coordinates are inches, so that circles are round: `sheet`, `unit`, `box`, `arrow`.
The input is on the left and the loss on the right. What goes up is drawn in SIGNAL, what comes back in GRADIENT.
"""

import importlib
import json
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import experiment
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

DRAWINGS = experiment.SCRIPTS / "drawings"
MADE_FROM = ".made_from.json"
SIGNAL, GRADIENT = style.ramp(2)
WIDTHS = {False: 7.0, True: 3.7}  # inches, of a page's column and of a phone's


def names() -> list[str]:
    """Every drawing there is."""
    return sorted(path.stem for path in DRAWINGS.glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    return importlib.import_module(f"drawings.{name}")


def folder() -> Path:
    """Where drawings lie; nothing in it is committed."""
    return experiment.RESULTS / "drawings"


def figure(module: ModuleType, phone: bool) -> Figure:
    """The drawing, from the results as they are saved."""
    return module.draw(phone, *map(experiment.result, module.READS))


def alt_text(module: ModuleType) -> str:
    return module.alt(*map(experiment.result, module.READS))


def files(name: str, figures: dict[bool, Figure], alt: str, caption: str) -> dict[str, bytes]:
    """All that is made of a drawing, by file name: the picture for pages, phones and slides, and the Markdown that shows it."""
    wide, narrow = figures[False], figures[True]
    links = " · ".join(f"[{kind.upper()}](/results/drawings/{name}.{kind})" for kind in ("svg", "pdf", "png"))
    text = (
        f'<figure class="drawing" markdown="span">\n'
        f"{image(alt, name, wide, 'wide')}\n{image(alt, f'{name}-phone', narrow, 'phone')}\n"
        f'<figcaption markdown="span">{caption}\n<span class="downloads">{links}</span></figcaption>\n</figure>\n'
    )
    return {
        f"{name}.svg": style.svg(wide).encode(),
        f"{name}-phone.svg": style.svg(narrow).encode(),
        f"{name}.pdf": style.printed(wide, "pdf"),
        f"{name}.png": style.printed(wide, "png"),
        f"{name}.md": text.encode(),
    }


def image(alt: str, file: str, figure: Figure, screen: str) -> str:
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return f"![{alt}](/results/drawings/{file}.svg){{ .{screen} loading=lazy width={width} height={height} }}"


def made(name: str) -> dict[str, bytes]:
    """The drawing's files, from its module and the saved results."""
    module = load(name)
    return files(name, {phone: figure(module, phone) for phone in WIDTHS}, alt_text(module), module.caption())


def made_from(name: str) -> str:
    """What the drawing is made from, as it is now: its code and the results that it reads."""
    code = experiment.digest(DRAWINGS / f"{name}.py", ["READS", "draw", "alt", "caption"])
    module = load(name)
    seen = [experiment.folder(read) / "result.json" for read in module.READS] + getattr(module, "SEES", [])
    results = map(experiment.digest_of, seen)
    return " ".join([code, experiment.digest(Path(__file__), ["files"]), version("matplotlib"), *results])


def gallery() -> str:
    """All drawings, small, with what to look at and their files, for the page of figures for teaching."""
    shown = "\n".join((folder() / f"{name}.md").read_text() for name in names())
    return f'<div class="gallery" markdown>\n\n{shown}</div>\n'


def draw_missing() -> None:
    """Draw what is not there, or was made from something else."""
    try:
        noted = json.loads((folder() / MADE_FROM).read_text())
    except (OSError, ValueError):  # none drawn so far, or the note is not whole
        noted = {}
    now = {name: made_from(name) for name in names()}
    for name in names():
        if noted.get(name) != now[name] or not (folder() / f"{name}.md").exists():
            for file, content in made(name).items():
                experiment.write(folder() / file, content)
    experiment.write(folder() / "gallery.md", gallery().encode())
    if noted != now:
        experiment.write(folder() / MADE_FROM, json.dumps(now, indent=1) + "\n")


# Parts of diagrams


def sheet(phone: bool, height: float) -> tuple[Figure, Axes]:
    """An empty figure, so many inches high, and axes in inches that fill it."""
    figure = Figure(figsize=(WIDTHS[phone], height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTHS[phone]), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def unit(axes: Axes, x: float, y: float, text: str = "", radius: float = 0.2, colour: str = style.INK) -> None:
    """A unit of a network: a circle with a word in it."""
    axes.add_patch(Circle((x, y), radius, facecolor=style.PAGES["light"], edgecolor=colour, linewidth=1.4, zorder=3))
    axes.text(x, y, text, ha="center", va="center", zorder=4)


def box(axes: Axes, x: float, y: float, text: str, width: float, height: float = 0.4, colour: str = style.INK) -> None:
    """A step of a calculation: a box with a word in it, its middle at (x, y)."""
    shape = "round,pad=0,rounding_size=0.08"
    corner = (x - width / 2, y - height / 2)
    look = {"facecolor": style.PAGES["light"], "edgecolor": colour, "linewidth": 1.4, "zorder": 3}
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **look))
    axes.text(x, y, text, ha="center", va="center", zorder=4)


def arrow(axes: Axes, start: tuple, end: tuple, colour: str, width: float = 1.6, bend: float = 0) -> None:
    """An arrow, so many points thick; `bend` is how far it swings out to one side."""
    head = 6 + 1.6 * width
    look = {"color": colour, "linewidth": width, "zorder": 2, "shrinkA": 0, "shrinkB": 0}
    line = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=head, connectionstyle=line, **look))
