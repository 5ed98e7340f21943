"""The gradient of each layer's weights in a sigmoid network before training."""

from drawing import GRADIENT, WIDTHS, arrow
from style import INK, new_figure

READS = ("consequences",)


def gradients(result):
    run = next(run for run in result["plateaus"] if run["depth"] == result["layers_of"])
    return run["weight_gradient"][: result["layers_of"]]


def draw(phone, result):
    figure, axes = new_figure(WIDTHS[phone], 2.9)
    sizes, layers = gradients(result), range(1, len(gradients(result)) + 1)
    axes.bar(layers, sizes, 0.55, color=GRADIENT)
    for layer, size in zip(layers, sizes, strict=True):
        axes.annotate(
            f"{size:.2g}", (layer, size), (0, 3), textcoords="offset points", ha="center", fontsize=9 if phone else 10
        )
    axes.annotate("the gradient comes back this way", (2.5, 0.33), ha="center", fontsize=8 if phone else 10)
    arrow(axes, (3.6, 0.29), (1.4, 0.29), GRADIENT, 2)
    axes.grid(False)
    axes.set(xticks=list(layers), ylim=(0, 0.56), yticks=[0, 0.25, 0.5], ylabel="size of the gradient")
    axes.set_xlabel(
        "layer (input on the left)" if phone else "hidden layer (input on the left, loss on the right)", color=INK
    )
    return figure


def alt(result):
    first, *_, last = sizes = gradients(result)
    return (
        f"Bars for the {len(sizes)} layers, the input on the left. The last layer's gradient is {last:.2g}. Each layer to the left "
        f"has about a quarter of the next one, and the first has {first:.2g}: its bar cannot be seen."
    )


def caption():
    return (
        "How strongly each layer is told to change in the first step of training. The first layers hear almost nothing."
    )
