"""The flat ends of the sigmoid, and its slope at three places."""

import numpy as np
from drawing import WIDTHS
from style import INK, MUTED, new_figure, theory_style

from vgp_kernels import activation

READS = ()
EDGE = float(np.log(19))  # beyond it a value is within 0.05 of 0 or 1
PLACES = (0.0, 2.0, 6.0)


def slopes():
    return activation("sigmoid").slope(np.array(PLACES))


def draw(phone):
    figure, axes = new_figure(WIDTHS[phone], 3.4)
    x, sigmoid = np.linspace(-8, 8, 321), activation("sigmoid")
    for start, end in ((-8, -EDGE), (EDGE, 8)):
        axes.axvspan(start, end, color=MUTED, alpha=0.16, linewidth=0)
    axes.plot(x, sigmoid.value(x), **theory_style("sigmoid") | {"linewidth": 2.4})
    marks = zip(PLACES, sigmoid.value(np.array(PLACES)), slopes(), ((0.5, 0.44), (2.2, 0.72), (7.9, 0.86)), strict=True)
    for place, value, slope, words in marks:
        reach = np.array([-1.2, 1.2])
        axes.plot(place + reach, value + slope * reach, color=INK, linewidth=1.4)
        axes.plot(place, value, "o", color=INK)
        side = "right" if place > 5 else "left"
        axes.annotate(f"slope {slope:.2g}", words, ha=side, fontsize=9)
    for middle, word in (((-8 - EDGE) / 2, "flat end"), ((8 + EDGE) / 2, "flat end")):
        axes.annotate(word, (middle, 0.5), ha="center", va="center", fontsize=9)
    axes.set(
        xlim=(-8, 8),
        xlabel="z, what goes into the unit",
        ylabel="σ(z)",
        yticks=[0, 0.5, 1],
        yticklabels=["0", "½", "1"],
    )
    return figure


def alt():
    middle, side, end = slopes()
    return (
        f"The sigmoid with its two flat ends shaded, below {-EDGE:.1f} and above {EDGE:.1f}. Its slope is {middle:.2g} in the middle, "
        f"{side:.2g} at 2 and only {end:.2g} at 6, on a flat end."
    )


def caption():
    return (
        "On the shaded flat ends the value of the sigmoid is within 0.05 of 0 or of 1. The short lines show the slope."
    )
