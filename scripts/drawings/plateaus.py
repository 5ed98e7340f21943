"""How long sigmoid networks wait before they learn, by their number of layers."""

import numpy as np
from drawing import WIDTHS
from style import MUTED, new_figure, ramp

READS = ("consequences",)


def runs(result):
    return result["plateaus"]


def draw(phone, result):
    figure, axes = new_figure(WIDTHS[phone], 3.7)
    axes.axhline(0.1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("guessing", (1.05, 0.03), color=MUTED, fontsize=9)
    for run, colour in zip(runs(result), ramp(len(runs(result))), strict=True):
        epochs, right = (np.array(run[name][1:]) for name in ("epochs", "accuracy"))  # from the first epoch on
        axes.plot(epochs, right, color=colour, linewidth=2.2)
        learnt = np.argmax(right > 0.6) or -1  # the first epoch at which it knows so many, or the last of all
        place = (epochs[learnt] * 0.8, 0.62) if learnt > 0 else (epochs[-1], 0.14)
        axes.annotate(str(run["depth"]), place, ha="right", weight="bold")
    axes.set(
        xscale="log", xlim=(1, 700), ylim=(0, 1.05), xlabel="times through the data (epochs)", ylabel="share right"
    )
    axes.set(xticks=[1, 10, 100], xticklabels=["1", "10", "100"], yticks=[0, 0.5, 1], yticklabels=["0", "½", "1"])
    return figure


def alt(result):
    said = ", ".join(
        f"with {run['depth']} layers about {sum(run['epochs_to_learn']) / len(run['epochs_to_learn']):.0f}"
        for run in runs(result)[:-1]
    )
    last = runs(result)[-1]
    return (
        f"Each curve stays flat at one in ten, which is guessing, and then rises to nearly 1. The wait grows: {said} epochs. "
        f"The network with {last['depth']} layers still guesses after {last['epochs'][-1]}."
    )


def caption():
    return (
        "Share of handwritten digits that a sigmoid network recognises while it trains, with two to six hidden layers. "
        "The number at a curve counts the layers. "
        "Each mark on the lower axis is ten times the one before."
    )
