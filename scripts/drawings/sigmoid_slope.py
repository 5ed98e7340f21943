"""The sigmoid and, under it, its slope."""

import numpy as np
from drawing import WIDTHS
from style import INK, MUTED, new_figure, theory_style

from vgp_kernels import activation

READS = ()


def draw(phone):
    figure, (above, below) = new_figure(WIDTHS[phone], 4.6, nrows=2, sharex=True)
    x, sigmoid = np.linspace(-8, 8, 321), activation("sigmoid")
    above.plot(x, sigmoid.value(x), **theory_style("sigmoid") | {"linewidth": 2.4})
    above.plot([-1.6, 1.6], [0.1, 0.9], color=INK, linewidth=1.2)
    above.plot(0, 0.5, "o", color=INK)
    above.annotate("steepest here", (0.5, 0.5), va="center")
    above.annotate("flat", (-6.5, 0.08), ha="center")
    above.annotate("flat", (6.5, 0.92), ha="center", va="top")
    above.set(yticks=[0, 0.5, 1], yticklabels=["0", "½", "1"], ylabel="σ(x)")
    below.plot(x, sigmoid.slope(x), **theory_style("sigmoid") | {"linewidth": 2.4})
    below.axhline(0.25, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    below.plot(0, 0.25, "o", color=INK)
    below.annotate("never above ¼", (8, 0.258), ha="right", va="bottom")
    below.set(yticks=[0, 0.25], yticklabels=["0", "¼"], ylim=(0, 0.31), ylabel="slope σ′(x)", xlabel="x")
    below.set_xticks([-8, -4, 0, 4, 8])
    return figure


def alt():
    return (
        "Above, the sigmoid rises from 0 to 1 like an S and is steepest at 0. Below, its slope is a hill: one quarter at 0, "
        "never more, and almost zero beyond 4 and −4, where the S is flat."
    )


def caption():
    return "The sigmoid, and below it how steep it is. The slope is greatest at 0, and even there it is only ¼."
