"""How near remedies bring the factor of a layer to 1."""

from drawing import GRADIENT, WIDTHS
from style import INK, MUTED, new_figure

READS = ("remedies",)
ROWS = {  # from the top down, ill networks first
    "sigmoid": "sigmoid, Xavier's weights",
    "relu_xavier": "ReLU, Xavier's weights",
    "relu": "ReLU, He's weights",
    "centred_sigmoid": "sigmoid − ½, 4 × Xavier's",
    "sigmoid_batch": "sigmoid, batch norm",
    "sigmoid_skip": "sigmoid, skip",
    "relu_batch": "ReLU, batch norm, no skip",
    "relu_skip": "ReLU, skip without scale",
    "relu_skip_scaled": "ReLU, skip with scale",
}


def draw(phone, result):
    figure, axes = new_figure(WIDTHS[phone], 3.8)
    axes.axvline(1, color=INK, linewidth=1.2)
    for row, name in enumerate(ROWS):
        factor = result["networks"][name]["measured"]
        axes.plot([1, factor], [row, row], color=GRADIENT, linewidth=3)
        axes.plot(factor, row, "o", color=GRADIENT, markersize=8)
        axes.annotate(f"{factor:.3g}", (1.56, row), va="center", fontsize=9)
    axes.annotate("vanishes", (0.95, -1.1), ha="right", color=INK, fontsize=9)
    axes.annotate("explodes", (1.05, -1.1), color=INK, fontsize=9)
    axes.set_yticks(range(len(ROWS)), [label.replace(", ", ",\n", 1) if phone else label for label in ROWS.values()])
    axes.tick_params(axis="y", labelsize=8 if phone else 10, length=0)
    axes.set(
        xlim=(0.1, 1.85),
        ylim=(len(ROWS) - 0.5, -1.4),
        xticks=[0.25, 0.5, 1, 1.5],
        xticklabels=["¼", "½", "1", "1½"],
        xlabel="factor per layer",
    )
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_color(MUTED)
    return figure


def alt(result):
    at = {name: f"{network['measured']:.3g}" for name, network in result["networks"].items()}
    return (
        f"A line at the factor 1, and how far each network is from it. A sigmoid network has {at['sigmoid']}, far below. ReLU with "
        f"He's weights has {at['relu']} and a sigmoid with batch norm {at['sigmoid_batch']}: both near 1. ReLU with skips without "
        f"a scale has {at['relu_skip']}, above 1."
    )


def caption():
    return "Measured factors, before and after a remedy. At the line the gradient keeps its size, on either side it does not."
