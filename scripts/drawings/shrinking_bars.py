"""A chain of single units in which each leaves a quarter of the gradient."""

from drawing import GRADIENT, WIDTHS, arrow, sheet, unit
from style import MUTED

READS = ()


def draw(phone):
    count, base, tall = (5, 1.2, 1.6) if phone else (6, 1.2, 1.9)
    figure, axes = sheet(phone, 3.2 if phone else 3.5)
    step = (WIDTHS[phone] - 0.9) / count
    axes.plot([0.1, WIDTHS[phone] - 0.1], [base, base], color=MUTED, linewidth=0.8)
    for place in range(count + 1):  # from the input to the loss
        x, left = 0.4 + step * place, 0.25 ** (count - place)
        axes.bar(x, tall * left, 0.34, base, color=GRADIENT)
        text = {"ha": "center", "fontsize": 8 if phone else 10}
        axes.text(x, base + tall * left + 0.06, f"{left:.3g}", va="bottom", **text)
        if place < count:
            unit(axes, x, 0.75, "σ", radius=0.19)
            arrow(axes, (x + 0.19, 0.75), (x + step - 0.19, 0.75), MUTED)
            arrow(axes, (x + step - 0.14, 0.42), (x + 0.14, 0.42), GRADIENT, 2)
            axes.text(x + step / 2, 0.3, "× ¼", va="top", **text)
        else:
            axes.text(x, 0.75, "loss", va="center", **text)
    axes.text(0.4, 0.02, "input", va="bottom", ha="center", fontsize=8 if phone else 10)
    return figure


def alt():
    return (
        "A chain of sigmoid units from the input on the left to the loss on the right. The bar over the loss has height 1. Each unit "
        "to the left leaves a quarter: 0.25, 0.0625, 0.0156, 0.0039. The bars over the first units cannot be seen any more."
    )


def caption():
    return "Read it from right to left: the gradient starts at the loss with size 1. Each unit on the way passes on a quarter."
