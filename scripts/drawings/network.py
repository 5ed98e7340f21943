"""A small network: the signal goes up through its layers, and the gradient comes back and fades."""

from drawing import GRADIENT, SIGNAL, WIDTHS, arrow, sheet, unit
from style import INK, MUTED, PAGES

READS = ()


def draw(phone):
    figure, axes = sheet(phone, 3.3)
    layers, rows = 3 if phone else 4, (1.25, 1.65, 2.05)
    columns = layers + 2  # the input and the loss besides
    step = (WIDTHS[phone] - 0.8) / (columns - 1)
    at = [0.4 + step * column for column in range(columns)]
    size = {"fontsize": 9 if phone else 10, "ha": "center"}
    for column in range(columns - 1):
        for y in rows:
            unit(axes, at[column], y, radius=0.13, colour=MUTED if column == 0 else INK)
            for goal in rows if column < columns - 2 else rows[1:2]:
                axes.plot([at[column], at[column + 1]], [y, goal], color=MUTED, linewidth=0.7, zorder=1)
        axes.text(at[column], 2.32, "input" if column == 0 else f"layer {column}", va="bottom", **size)
        arrow(axes, (at[column] + 0.1, 2.75), (at[column + 1] - 0.1, 2.75), SIGNAL, 4)
        back = layers - column
        arrow(axes, (at[column + 1] - 0.1, 0.72), (at[column] + 0.1, 0.72), GRADIENT, 9 * 0.5**back)
        left = "1" if back == 0 else f"1/{4**back}" if back > 1 else "1/4"
        axes.text((at[column] + at[column + 1]) / 2, 0.46, left, va="top", **size)
    axes.text(
        at[-1], rows[1], "loss", va="center", bbox={"facecolor": PAGES["light"], "edgecolor": "none", "pad": 2}, **size
    )
    axes.text(0.2, 2.98, "signal: from the input to the loss", va="bottom", fontsize=10)
    axes.text(
        0.2,
        0.06,
        "gradient: back from the loss, and smaller at each layer",
        fontsize=8.5 if phone else 10,
    )
    return figure


def alt():
    return (
        "A network with the input on the left, layers of three units and the loss on the right. Equally thick arrows show the signal "
        "that goes right. The arrows that come back from the loss get thinner at each layer: 1, then a quarter, a sixteenth, a 64th."
    )


def caption():
    return (
        "A signal goes from left to right. The gradient comes back from right to left. Here each layer passes on a quarter of it. "
        "(The arrows get thinner more slowly than the numbers, so that you can still see them.)"
    )
