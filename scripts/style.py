"""How figures look: one colour per activation, theory as lines, measurements as points, light and dark in one SVG.

    figure, axes = new_figure()
    axes.plot(depth, predicted, **theory_style("tanh"), label="tanh")
    axes.errorbar(depth, mean, error, **measured_style("tanh"))

Colours are written for a white page. `svg` turns each colour it meets into its counterpart for the dark page.
"""

import io
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#656d76", "#dfe3e8"  # text and axes; reference lines and remarks; grid
PAGES = {"light": "#ffffff", "dark": "#1e2129"}  # the backgrounds of mkdocs-material's default and slate schemes

# Colour, line and marker. The colours of the first seven were searched for: the least similar pair is as far apart as
# can be for readers with and without colour blindness, on both pages. Relatives share a colour and differ in the line.
LOOKS = {
    "sigmoid": ("#e55403", "-", "o"),
    "tanh": ("#1311a3", "-", "s"),
    "relu": ("#06a36d", "-", "^"),
    "gelu": ("#975fe2", "-", "D"),
    "selu": ("#b50a67", "-", "v"),
    "elu": ("#00719c", (0, (6, 2)), "P"),
    "leaky_relu": ("#644701", (0, (6, 2)), "<"),
    "linear": ("#57606a", "-", "x"),
    "centred_sigmoid": ("#e55403", (0, (6, 2)), "p"),
    "softplus": ("#e55403", (0, (1.5, 1.5)), ">"),
    "erf": ("#1311a3", (0, (6, 2)), "h"),
    "hard_tanh": ("#1311a3", (0, (1.5, 1.5)), "d"),
    "silu": ("#975fe2", (0, (6, 2)), "X"),
    "mish": ("#975fe2", (0, (1.5, 1.5)), "*"),
}

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with Matplotlib: the same outlines on every machine
        "font.size": 10,
        "svg.fonttype": "path",
        "svg.hashsalt": "vanishing-gradients",  # the same figure, the same bytes
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "figure.facecolor": PAGES["light"],  # not transparent: a browser that keeps the light figure on the dark
        "axes.facecolor": "none",  #            page (Safari) then shows a white card instead of dark ink on dark
    }
)


def new_figure(width: float = 7.0, height: float = 4.0, nrows: int = 1, ncols: int = 1, **options):
    """A figure of so many inches (7 fills a page's column) and its axes; `options` go to Figure.subplots."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(nrows, ncols, **options)


def look(name: str) -> tuple:
    """Colour, line and marker of an activation; a parameter, as in "leaky_relu(0.2)", changes nothing."""
    family = name.partition("(")[0]
    if family not in LOOKS:
        raise ValueError(f"no look for {name!r}; known: {', '.join(LOOKS)}")
    return LOOKS[family]


def colour(name: str) -> str:
    """The activation's colour, the same on every page."""
    return look(name)[0]


def theory_style(name: str) -> dict:
    """Options for `plot`: theory is always a line."""
    colour, line, _ = look(name)
    return {"color": colour, "linestyle": line, "marker": "none"}


def measured_style(name: str) -> dict:
    """Options for `errorbar`: measurements are always points, with error bars."""
    colour, _, marker = look(name)
    return {"color": colour, "linestyle": "none", "marker": marker, "elinewidth": 1.0, "capsize": 2.0}


def ramp(count: int) -> list[str]:
    """Colours for an ordered family (layers, depths, variances), first to last, told apart by lightness as well."""
    first, last = to_oklab("#134e8a"), to_oklab("#d9730d")
    return [to_hex(first + (last - first) * t) for t in np.linspace(0, 1, count)]


# Colour arithmetic. OKLab: Ottosson 2020, "A perceptual color space for image processing"

TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_linear(colour: str) -> np.ndarray:
    """Linear-light red, green and blue of "#rrggbb"."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def to_oklab(colour: str) -> np.ndarray:
    """Lightness (0 to 1), green-red and blue-yellow."""
    return TO_LAB @ np.cbrt(TO_CONE @ to_linear(colour))


def to_hex(oklab: np.ndarray) -> str:
    """The nearest colour of the same lightness and hue that a screen has."""
    for chroma in np.linspace(1, 0, 101):
        linear = np.linalg.solve(TO_CONE, np.linalg.solve(TO_LAB, oklab * [1, chroma, chroma]) ** 3)
        if linear.min() > -1e-4 and linear.max() < 1 + 1e-4:
            break
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * value):02x}" for value in encoded)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    low, high = sorted(float(to_linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (one, other))
    return high / low


def dark(colour: str) -> str:
    """The colour's counterpart on the dark page: hue kept, lightness turned over, white becoming the page's own."""
    lightness, *hue = to_oklab(colour)
    page, *tint = to_oklab(PAGES["dark"])
    return to_hex(np.array([page + 0.875 * (1 - lightness), *(hue + lightness * np.array(tint))]))


def svg(figure: Figure) -> str:
    """The figure as SVG that follows the reader's light or dark page; the same figure gives the same bytes.

    The dark colours are rules of a media query that override the light ones, so that a program which knows no media
    queries (a word processor, a drawing program) still shows the light figure.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = re.sub(r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*', shortened, buffer.getvalue())
    pairs = sorted(set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", text)))
    rules = "".join(f'[style*="{prop}: {light}"]{{{prop}:{dark(light)}!important}}' for prop, light in pairs)
    style = f"<style>@media (prefers-color-scheme:dark){{svg{{fill:{dark(INK)}}}{rules}}}</style>"
    head, tag, body = text.partition("<defs>")
    return head + style + tag + body


def printed(figure: Figure, kind: str) -> bytes:
    """The light figure as "pdf" or "png", for slides and print; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def shortened(coordinates: re.Match) -> str:
    """The coordinates to a tenth of a point: less to load, and no eye sees it."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".rstrip("0").rstrip("."), coordinates[0])
