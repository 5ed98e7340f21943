"""One block of a network and the four places in which remedies act."""

from itertools import pairwise

from drawing import GRADIENT, SIGNAL, WIDTHS, arrow, box, sheet

READS = ()
PLACES = {"norm": "keeps the\nspread at 1", "weights": "Xavier, He", "curve": "sigmoid,\nReLU, …"}


def draw(phone):
    figure, axes = sheet(phone, 2.9)
    width, wide = WIDTHS[phone], 0.66 if phone else 1.1
    size = {"ha": "center", "fontsize": 8.5 if phone else 10}
    end = width - 0.55
    stops = [0.12, *(0.35 + (end - 0.6) * (index + 0.5) / 3 for index in range(3)), end]
    for index, (start, stop) in enumerate(pairwise(stops)):
        left = start + (wide / 2 if index else 0)
        right = stop - (wide / 2 if index < 3 else 0.16)
        arrow(axes, (left, 1.55), (right, 1.55), SIGNAL, 2)
        arrow(axes, (right, 1.38), (left, 1.38), GRADIENT, 2)
    for x, (name, text) in zip(stops[1:-1], PLACES.items(), strict=True):
        box(axes, x, 1.465, name, wide, 0.62)
        axes.text(x, 0.98, text, va="top", **size)
    box(axes, end, 1.465, "+", 0.32, 0.45)
    arrow(axes, (end + 0.16, 1.55), (width - 0.06, 1.55), SIGNAL, 2)
    arrow(axes, (width - 0.06, 1.38), (end + 0.16, 1.38), GRADIENT, 2)
    top, fork = 2.45, 0.2
    for height, colour, gap in ((top, SIGNAL, 0), (top - 0.17, GRADIENT, 0.1)):
        axes.plot(
            [fork + gap, fork + gap, end - gap, end - gap],
            [1.5, height, height, 1.69],
            color=colour,
            linewidth=2,
            zorder=1,
        )
    axes.text((fork + end) / 2, top + 0.08, "skip: a way past the block", va="bottom", **size)
    axes.text(0.12, 0.12, "blue: signal,  orange: gradient", fontsize=10)
    return figure


def alt():
    return (
        "A block of three boxes in a row: norm, weights, curve. The signal passes them to the right and the gradient to the left. "
        "Above them a line, the skip, leads past all three boxes and joins again behind them, for both directions."
    )


def caption():
    return "A block of a modern network. The gradient passes its boxes on the way back, and it has a second way along the skip."
