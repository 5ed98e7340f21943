"""What a gradient is: the slope of the loss, which is steep in one place and nearly flat in another."""

import numpy as np
from drawing import GRADIENT, WIDTHS
from style import INK, MUTED, new_figure

READS = ()


def loss(w):
    """A curve with a plateau, a slope and a valley."""
    return 1 / (1 + np.exp(1.6 * (w - 1))) + 0.01 * np.maximum(w - 3.5, 0) ** 2


def draw(phone):
    figure, axes = new_figure(WIDTHS[phone], 3.2)
    w = np.linspace(-4, 6, 301)
    axes.plot(w, loss(w), color=INK, linewidth=2)
    for place, words, x, y in (
        (-1.6, "nearly flat:\na small step", -3.4, 0.7),
        (0.7, "steep:\na large step", 2.3, 0.62),
    ):
        slope = (loss(place + 1e-4) - loss(place - 1e-4)) / 2e-4
        reach = np.array([-0.8, 0.8])
        axes.plot(place + reach, loss(place) + slope * reach, color=GRADIENT, linewidth=1.6)
        axes.plot(place, loss(place), "o", color=GRADIENT, markersize=7)
        end = (place - 4 * slope, loss(place) + 0.09)
        axes.annotate(
            "", end, (place, loss(place) + 0.09), arrowprops={"arrowstyle": "-|>", "color": GRADIENT, "lw": 2.4}
        )
        axes.annotate(words, (x, y), va="center", fontsize=9)
    axes.annotate("lowest loss", (4.2, 0.09), ha="center", color=MUTED, fontsize=9)
    axes.set(xlabel="one weight w", ylabel="loss E", xticks=[], yticks=[], ylim=(-0.05, 1.2))
    return figure


def alt():
    return (
        "The loss as a curve over one weight: nearly flat on the left, then steep, then a valley. At a point on the steep part the "
        "step downhill is long. At a point on the flat part the step is so short that it can hardly be seen."
    )


def caption():
    return "A step of training goes downhill. It is long where the curve is steep, and short where the curve is nearly flat."
