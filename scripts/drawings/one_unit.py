"""One unit: what it does to the signal, and what it does to the gradient that comes back."""

from drawing import GRADIENT, SIGNAL, WIDTHS, arrow, box, sheet

READS = ()


def draw(phone):
    figure, axes = sheet(phone, 2.7)
    width = WIDTHS[phone]
    ends, steps = (0.35, width - 0.35), (width * 0.335, width * 0.665)
    size = {"ha": "center", "fontsize": 9 if phone else 10}
    for x, word in zip(steps, ("× w", "σ"), strict=True):
        box(axes, x, 1.85, word, 0.62 if phone else 0.9)
    stops = (ends[0], *steps, ends[1])
    half = 0.31 if phone else 0.45
    for index in range(3):
        left = stops[index] + (half if index else 0.12)
        right = stops[index + 1] - (half if index < 2 else 0.12)
        arrow(axes, (left, 1.85), (right, 1.85), SIGNAL, 2.4)
        arrow(axes, (right, 0.75), (left, 0.75), GRADIENT, 2.4)
    for x, word in zip(steps, ("× w", "× slope σ′(z)"), strict=True):
        box(
            axes,
            x,
            0.75,
            word if x == steps[0] or not phone else "× σ′(z)",
            0.62 if phone else 1.3 if x == steps[1] else 0.9,
            colour=GRADIENT,
        )
    for x, word in zip(ends, ("x", "y"), strict=True):
        axes.text(x, 1.85, word, va="center", **size)
    axes.text(sum(steps) / 2, 1.95, "z", va="bottom", **size)
    axes.text(ends[1], 0.75, "g", va="center", **size)
    axes.text(0.2, 2.4, "signal", color=SIGNAL, fontsize=10)
    axes.text(0.2, 0.12, "gradient", color=GRADIENT, fontsize=10)
    axes.text(ends[0], 0.75, "?", va="center", **size)
    return figure


def alt():
    return (
        "A unit as two boxes. Above, the signal x goes right: it is multiplied by the weight w, which gives z. The sigmoid makes y "
        "of z. Below, the gradient g comes back to the left: it is multiplied by the slope at z, then by the weight w."
    )


def caption():
    return "Each box that the signal passes going up has a partner that the gradient passes coming back."
