"""One unit: what it does to the signal, and what it does to the gradient that comes back."""

from drawing import GRADIENT, SIGNAL, WIDTHS, arrow, box, sheet
from style import INK

READS = ()


def draw(phone):
    figure, axes = sheet(phone, 2.6)
    width = WIDTHS[phone]
    stops = (0.3, width * 0.33, width * 0.67, width - 0.3)
    half = 0.34 if phone else 0.65  # of a box
    size = {"ha": "center", "va": "center", "fontsize": 9 if phone else 10}
    for height, words, colour in (
        (1.75, ("x", "× w", "σ", "y"), SIGNAL),
        (0.7, ("?", "× w", "× σ′(z)" if phone else "× slope σ′(z)", "g"), GRADIENT),
    ):
        for index in range(3):
            ends = [
                (stops[index] + (half if index else 0.12), height),
                (stops[index + 1] - (half if index < 2 else 0.12), height),
            ]
            arrow(axes, *(ends if colour == SIGNAL else ends[::-1]), colour, 2.4)
        axes.text(stops[0], height, words[0], **size)
        axes.text(stops[3], height, words[3], **size)
        for x, word in zip(stops[1:3], words[1:3], strict=True):
            box(axes, x, height, word, 2 * half, colour=INK if colour == SIGNAL else GRADIENT)
    axes.text(width / 2, 1.93, "z", **size)
    axes.text(0.2, 2.3, "signal, going up", fontsize=10)
    axes.text(0.2, 0.15, "gradient, coming back", fontsize=10)
    return figure


def alt():
    return (
        "A unit as two boxes. Above, the signal x goes right: it is multiplied by the weight w, which gives z. The sigmoid makes y "
        "of z. Below, the gradient g comes back to the left: it is multiplied by the slope at z, then by the weight w."
    )


def caption():
    return "Each box that the signal passes going up has a partner that the gradient passes coming back."
