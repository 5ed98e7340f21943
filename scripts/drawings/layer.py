"""In a layer a unit gets a part of its gradient from every unit of the next layer."""

from drawing import GRADIENT, arrow, sheet, unit
from style import INK, MUTED, PAGES

READS = ()


def draw(phone):
    figure, axes = sheet(phone, 3.2)
    left, right = (0.75, 2.75) if phone else (1.9, 4.9)
    rows = (2.5, 1.65, 0.8)
    for y in rows:
        for other in rows:
            axes.plot([left, right], [y, other], color=MUTED, linewidth=0.6, zorder=1)
    size = {"fontsize": 9 if phone else 10}
    for y, number in zip(rows, "123", strict=True):
        unit(axes, left, y, colour=MUTED if number != "2" else INK)
        unit(axes, right, y, "σ")
        aim = rows[1] + 0.1 * (y - rows[1])
        arrow(axes, (right - 0.22, y), (left + 0.24, aim), GRADIENT, 2.2)
        axes.text(right + 0.3, y, f"g{'₁₂₃'[int(number) - 1]}", va="center", **size)
        middle, height = (left + right) / 2, (y + aim) / 2
        patch = {"facecolor": PAGES["light"], "edgecolor": "none", "pad": 1.5}
        axes.text(
            middle,
            height,
            "slope × weight",
            ha="center",
            va="center",
            bbox=patch,
            zorder=5,
            fontsize=8 if phone else 10,
        )
    axes.text(left - 0.3, rows[1], "sum", ha="right", va="center", **size)
    axes.text(left, 0.2, "this layer", ha="center", **size)
    axes.text(right, 0.2, "next layer", ha="center", **size)
    axes.text((left + right) / 2, 2.95, "one unit, three ways back", ha="center", va="center", **size)
    return figure


def alt():
    return (
        "Two layers of three units. From each unit of the next layer an arrow goes back to the middle unit of this layer. Each arrow "
        "carries slope times weight. The middle unit adds up the three."
    )


def caption():
    return "A message comes back by every line. Each is multiplied by a slope and by a weight of its own, and the unit adds them up."
