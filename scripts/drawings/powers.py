"""What becomes of 1 when each layer multiplies by the same number."""

from drawing import WIDTHS
from style import INK, MUTED, new_figure, ramp

READS = ()
FACTORS = (0.25, 0.5, 0.9, 1.1, 1.5, 2)
ROOM = {0.9: -8, 1.1: 8}  # points by which labels are moved that would touch the next
DEPTH = 50


def draw(phone):
    figure, axes = new_figure(WIDTHS[phone], 3.9)
    axes.plot([0, DEPTH], [1, 1], color=MUTED, linewidth=1.4)
    axes.annotate("× 1", (DEPTH + 1, 1), va="center", fontsize=9)
    for factor, colour in zip(FACTORS, ramp(len(FACTORS)), strict=True):
        axes.plot([0, DEPTH], [1, factor**DEPTH], color=colour, linewidth=2)
        room = {"xytext": (0, ROOM.get(factor, 0)), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"× {factor:g}", (DEPTH + 1, factor**DEPTH), fontsize=9, **room)
    axes.annotate("explodes", (3, 1e10), color=INK)
    axes.annotate("vanishes", (3, 1e-22), color=INK)
    axes.set(
        yscale="log", xlim=(0, DEPTH * (1.45 if phone else 1.22)), ylim=(1e-32, 1e17), ylabel="size of the gradient"
    )
    axes.set(xlabel="layers on the way back", xticks=range(0, DEPTH + 1, 10), yticks=[1e-30, 1e-20, 1e-10, 1, 1e10])
    return figure


def alt():
    return (
        "Straight lines that start at 1, on a scale of powers of ten. With a factor of 0.25 per layer the line falls to 10 to the "
        "minus 30 after fifty layers, with 0.9 only a little. With 1.1 it rises slowly, with 2 to 10 to the 15. Only 1 stays level."
    )


def caption():
    return (
        "Each line multiplies by one number again and again. Going up one mark on the left means ten thousand million times more. "
        "A factor a little below 1 or above 1 does little harm in ten layers. In fifty layers it counts."
    )
