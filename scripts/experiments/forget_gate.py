"""What a forget gate's bias does to the gradient of an LSTM and a GRU: the direct path alone, and all paths together."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim
from experiments.recurrent_decay import apart
from style import INK, MUTED, colour, new_figure, ramp

from vgp_kernels import Recurrent, propagate
from vgp_kernels.theory.gates import forget_factor, half_life


@dataclass(frozen=True)
class Parameters:
    steps: int = 100
    width: int = 128
    input_width: int = 64
    more_inputs: tuple = (128, 256)  # with which the gates move more
    more_bias: float = 3.0
    trials: int = 40
    seed: int = 0
    biases: tuple = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)  # 0 is PyTorch's default, 1 the advice of Jozefowicz et al. 2015
    longest_memory: int = 100  # of chrono initialisation
    chrono_others: tuple = ((50, 64), (200, 64))  # (longest memory and steps, width) apart from the figure
    long_steps: int = 600  # a sequence in which the cell has time to fill
    long_biases: tuple = (3.0, 5.0)
    long_windows: tuple = ((10, 90), (100, 300), (510, 590))  # steps back from the loss; the last is the beginning
    draws: int = 400  # networks of gates alone, whose direct path is the prediction
    near: int = 10  # the factor per step is measured between these steps back from the loss
    far: int = 90


PARAMETERS = Parameters()
TOLERANCE = None
LN10 = math.log(10)
LOOKS = {"direct": (colour("relu"), "o"), "lstm": (colour("sigmoid"), "s"), "gru": (colour("gelu"), "^")}
CELLS = ("lstm", "gru")


def chrono_direct(longest_memory, steps):
    """Norm of the direct path, relative to its start, when a unit keeps u/(1 + u) per step and u is uniform on 1 … T - 1."""
    u = np.linspace(1, longest_memory - 1, 20_001)
    kept = np.log(u / (1 + u))
    return [0.5 * math.log(float(np.mean(np.exp(2 * k * kept)))) for k in range(steps + 1)]


def gates_alone(p, width, steps, forget_bias):
    """ln of the direct path's norm, by steps back: gates that see their biases and the inputs, but not the state.

    PyTorch's law for weights and both biases, uniform on ±1/√n. `forget_bias` draws what is added for each unit.
    """
    generator, found = np.random.default_rng(p.seed), []
    for _ in range(p.draws):
        biases = forget_bias(generator, width) + generator.uniform(-1, 1, (2, width)).sum(axis=0) / math.sqrt(width)
        inputs = np.sqrt((generator.uniform(-1, 1, (width, p.input_width)) ** 2).sum(axis=1) / width)
        z = biases + inputs * generator.standard_normal((steps, width))
        logs = np.cumsum(-np.log1p(np.exp(-z)), axis=0)
        found.append(0.5 * np.log(np.mean(np.exp(2 * logs), axis=1)))
    return np.concatenate([np.zeros((p.draws, 1)), found], axis=1)


def chrono_other(p, longest, width):
    """What is left of the gradient after T steps with chrono initialisation for T, in decades."""
    found = {"longest_memory": longest, "width": width}
    for cell in CELLS:
        network = Recurrent(longest, width, cell, "pytorch", input_width=p.input_width, longest_memory=longest)
        logs = propagate(network, p.trials, p.seed).log_cell_gradient
        left = (logs[:, 0] - logs[:, -1]) / LN10
        found |= {
            cell: round(float(left.mean()), 4),
            f"{cell}_error": round(float(left.std(ddof=1)) / math.sqrt(p.trials), 4),
        }
    return found


def long(p, bias):
    """The factor per step along all paths of a long LSTM, between several pairs of steps back from the loss."""
    network = Recurrent(p.long_steps, p.width, "lstm", "pytorch", input_width=p.input_width, forget_bias=bias)
    logs = propagate(network, p.trials, p.seed).log_cell_gradient[:, ::-1]
    windows = []
    for near, far in p.long_windows:
        rates = (logs[:, far] - logs[:, near]) / (far - near)
        factor = math.exp(rates.mean())
        windows.append(
            {
                "from": near,
                "to": far,
                "factor": round(factor, 5),
                "factor_error": round(factor * rates.std(ddof=1) / math.sqrt(p.trials), 5),
            }
        )
    return {"bias": bias, "windows": windows}


def with_more_inputs(p, inputs):
    """The factor per step along all paths of an LSTM with so many inputs."""
    network = Recurrent(p.steps, p.width, "lstm", "pytorch", input_width=inputs, forget_bias=p.more_bias)
    logs = propagate(network, p.trials, p.seed).log_cell_gradient[:, ::-1]
    rates = (logs[:, p.far] - logs[:, p.near]) / (p.far - p.near)
    factor = math.exp(rates.mean())
    return {
        "inputs": inputs,
        "factor": round(factor, 5),
        "factor_error": round(factor * rates.std(ddof=1) / math.sqrt(p.trials), 5),
    }


def compute(p):
    def run(cell, **options):
        network = Recurrent(p.steps, p.width, cell, "pytorch", input_width=p.input_width, **options)
        flow = propagate(network, p.trials, p.seed)
        found = {}
        for kind, logs in (("direct", flow.log_direct_gradient), ("full", flow.log_cell_gradient)):
            back = (logs - logs[:, -1:])[:, ::-1]  # relative to the last step, by steps back
            rates = (back[:, p.far] - back[:, p.near]) / (p.far - p.near)
            factor = math.exp(rates.mean())
            found |= {
                kind: [round(float(x), 3) for x in back.mean(axis=0) / LN10],
                f"{kind}_factor": round(factor, 4),
                f"{kind}_error": round(factor * rates.std(ddof=1) / math.sqrt(p.trials), 5),
                f"{kind}_end_error": round(float(back[:, -1].std(ddof=1)) / LN10 / math.sqrt(p.trials), 4),
            }
        return found

    rows = [
        {
            "cell": cell,
            "bias": bias,
            "gate": round(forget_factor(bias), 6),
            "half_life": round(half_life(forget_factor(bias)), 3),
            "direct_predicted": round(alone_factor(p, bias), 5),
        }
        | run(cell, forget_bias=bias)
        for cell in CELLS
        for bias in p.biases
    ]
    chrono = {cell: run(cell, longest_memory=p.longest_memory) for cell in CELLS}
    return {
        "steps": p.steps,
        "width": p.width,
        "trials": p.trials,
        "rows": rows,
        "longest_memory": p.longest_memory,
        "chrono": chrono,
        "chrono_predicted": [round(x / LN10, 3) for x in chrono_direct(p.longest_memory, p.steps)],
        "chrono_alone": round(float(chrono_alone(p)[:, -1].mean()) / LN10, 4),
        "chrono_others": [chrono_other(p, *options) for options in p.chrono_others],
        "more_inputs": [with_more_inputs(p, inputs) for inputs in p.more_inputs],
        "long_steps": p.long_steps,
        "long": [long(p, bias) for bias in p.long_biases],
        "chrono_longest": round((1 - 1 / p.longest_memory) ** p.longest_memory, 5),
    }


def alone_factor(p, bias):
    """The factor per step of the direct path through gates alone, between the same steps as it is measured."""
    logs = gates_alone(p, p.width, p.far, lambda generator, width: bias)
    return math.exp((logs[:, p.far] - logs[:, p.near]).mean() / (p.far - p.near))


def chrono_alone(p):
    return gates_alone(
        p, p.width, p.steps, lambda generator, width: np.log(generator.uniform(1, p.longest_memory - 1, width))
    )


def figure(result):
    drawing, (left, right) = new_figure(7.4, 4.0, 1, 2)
    biases = np.linspace(-0.2, 5.2, 200)
    left.plot(biases, 1 / (1 + np.exp(-biases)), color=LOOKS["direct"][0], label="σ(b): the gate alone")
    lstm, gru = ([row for row in result["rows"] if row["cell"] == cell] for cell in CELLS)
    for rows, kind, look, text in (
        (lstm, "direct", "direct", "LSTM, direct path"),
        (lstm, "full", "lstm", "LSTM, all paths"),
        (gru, "full", "gru", "GRU, all paths"),
    ):
        shade, marker = LOOKS[look]
        left.errorbar(
            [row["bias"] for row in rows],
            [row[f"{kind}_factor"] for row in rows],
            [row[f"{kind}_error"] for row in rows],
            color=shade,
            marker=marker,
            linestyle="none",
            label=text,
        )
    left.axhline(1, color=MUTED, linewidth=0.8)
    left.set(xlabel="forget bias b", ylabel="factor of the gradient per step")
    left.legend(loc="lower right")
    back = np.arange(result["steps"] + 1)
    shown = [row for row in lstm if row["bias"] in (0.0, 1.0, 3.0, 5.0)]
    chrono = result["chrono"]["lstm"]["full"]
    heights = apart([*(row["full"][-1] for row in shown), chrono[-1]], 1.3)
    for row, shade in zip(shown, ramp(len(shown)), strict=True):
        right.plot(back, row["direct"], color=shade, linestyle=(0, (4, 2)))
        right.plot(back, row["full"], color=shade)
    right.plot(back, chrono, color=LOOKS["direct"][0])
    right.plot(back[::10], result["chrono_predicted"][::10], color=LOOKS["direct"][0], marker="x", linestyle="none")
    for text, height in zip([*(f"b = {row['bias']:g}" for row in shown), "chrono"], heights, strict=True):
        right.annotate(text, (102, height), va="center", color=INK, fontsize=8)
    right.set(xlabel="steps back from the loss (LSTM)", ylabel="log₁₀ of the cell's gradient")
    right.set_xlim(0, 125)
    right.set_xticks(range(0, 101, 25))
    return drawing


def caption(result):
    return (
        f"Left: the factor per step in LSTM and GRU of width {result['width']} with PyTorch's initialisation plus a forget bias; "
        f"{result['trials']} networks, error bars smaller than the points. Right: the gradient of an LSTM's cell over "
        f"{result['steps']} steps, along all paths (solid) and along the direct path alone (dashed); crosses: predicted for "
        f"chrono initialisation with T = {result['longest_memory']}."
    )


def alt(result):
    ends = ", ".join(
        f"bias {row['bias']:g}: × {row['full_factor']:.3f}" for row in result["rows"] if row["cell"] == "lstm"
    )
    return (
        "The direct path of an LSTM keeps per step what its forget gate lets through; all paths together keep more. "
        f"Factor per step along all paths, {ends}."
    )


def table(result):
    rows = [
        ["Cell, forget bias", "σ(b)", "Half-life at σ(b), steps", "Direct path", "All paths", "All paths, 100 steps"]
    ]
    for row in result["rows"]:
        rows.append(
            [
                f"{row['cell'].upper()}, {row['bias']:g}",
                f"{row['gate']:.4f}",
                f"{row['half_life']:.1f}",
                f"{row['direct_factor']:.4f} ± {row['direct_error']:.4f}",
                f"{row['full_factor']:.4f} ± {row['full_error']:.4f}",
                f"$10^{{{row['full'][-1]:.1f}}}$",
            ]
        )
    for cell, row in result["chrono"].items():
        rows.append(
            [
                f"{cell.upper()}, chrono {result['longest_memory']}",
                "–",
                "–",
                f"{row['direct_factor']:.4f} ± {row['direct_error']:.4f}",
                f"{row['full_factor']:.4f} ± {row['full_error']:.4f}",
                f"$10^{{{row['full'][-1]:.1f}}}$",
            ]
        )
    return rows


def data(result):
    rows = [["cell", "forget_bias", "steps_back", "log10_direct", "log10_all_paths"]]
    named = [(row["cell"], f"{row['bias']:g}", row) for row in result["rows"]]
    named += [(cell, f"chrono {result['longest_memory']}", row) for cell, row in result["chrono"].items()]
    for cell, bias, row in named:
        columns = zip(row["direct"], row["full"], strict=True)
        rows += [[cell, bias, step, *values] for step, values in enumerate(columns)]
    return rows


def row_of(result, cell, bias):
    return next(row for row in result["rows"] if (row["cell"], row["bias"]) == (cell, bias))


def numbers(result):
    found = {"chrono_longest": result["chrono_longest"], "chrono_predicted": 10 ** result["chrono_predicted"][-1]}
    found["chrono_alone"] = 10 ** result["chrono_alone"]
    for row in result["long"]:
        for where, window in zip(("end", "middle", "beginning"), row["windows"], strict=True):
            found[f"long_{row['bias']:g}_{where}"] = window["factor"]
    found |= {f"more_{x['inputs']}": x["factor"] for x in result["more_inputs"]}
    found |= {"steps": result["steps"], "trials": result["trials"], "width": result["width"]}
    for row in result["rows"]:
        key = f"{row['cell']}_{row['bias']:g}"
        found |= {
            f"{key}_gate": row["gate"],
            f"{key}_half_life": row["half_life"],
            f"{key}_direct": row["direct_factor"],
            f"{key}_direct_predicted": row["direct_predicted"],
            f"{key}_full": row["full_factor"],
            f"{key}_decades": row["full"][-1],
            f"{key}_direct_decades": row["direct"][-1],
            f"{key}_gate_decades": result["steps"] * math.log10(row["gate"]),
        }
    for cell, row in result["chrono"].items():
        found |= {f"{cell}_chrono_direct": 10 ** row["direct"][-1], f"{cell}_chrono_full": 10 ** row["full"][-1]}
    return found


CLAIMS = [
    Claim(
        "lstm-default-vanishes",
        "An LSTM with PyTorch's default initialisation loses its gradient, like any other network, long before a hundred steps.",
        "textbook: the LSTM solved the vanishing gradient problem",
        lambda r: f"direct path 10^{r['steps'] * math.log10(row_of(r, 'lstm', 0.0)['gate']):.1f}",
        lambda r: f"all paths 10^{row_of(r, 'lstm', 0.0)['full'][-1]:.1f}",
        "false as stated",
        lambda r: (
            row_of(r, "lstm", 0.0)["full"][-1] < -12
            # the same factor over a hundred steps as between the tenth and the ninetieth
            and abs(
                row_of(r, "lstm", 0.0)["full"][-1] / (r["steps"] * math.log10(row_of(r, "lstm", 0.0)["full_factor"]))
                - 1
            )
            < 0.03
        ),
        "fix/lstm-gru.md",
    ),
    Claim(
        "lstm-direct-path-is-a-power",
        "The direct path of an LSTM is a power too: what it keeps per step is what biases and inputs alone let through the gates, to "
        "within one per cent; with half as many inputs as units that is σ(b) for a forget bias b of 3 and above.",
        "textbook: the LSTM has no factor to the power T",
        lambda r: (
            ", ".join(f"{row_of(r, 'lstm', b)['direct_predicted']:.3f}" for b in (0.0, 1.0, 3.0, 5.0))
            + " (b = 0, 1, 3, 5)"
        ),
        lambda r: ", ".join(f"{row_of(r, 'lstm', b)['direct_factor']:.3f}" for b in (0.0, 1.0, 3.0, 5.0)) + " per step",
        "false as stated",
        lambda r: all(
            abs(row["direct_factor"] / row["direct_predicted"] - 1) < 0.01
            and (row["bias"] < 3 or abs(row["direct_factor"] / row["gate"] - 1) < 0.01)
            for row in r["rows"]
        ),
        "fix/lstm-gru.md",
    ),
    Claim(
        "lstm-full-gradient-can-explode",
        "With a forget bias of 3 and above, and half as many inputs as units, the gradient of an LSTM of width 128 along all paths "
        "grows over the first hundred steps, while its cell fills, though its direct path shrinks; in a longer sequence it then "
        "changes by less than one per cent per step.",
        "textbook: the LSTM only vanishes or keeps",
        lambda r: f"direct path × {row_of(r, 'lstm', 5.0)['gate']:.4f} per step, below 1",
        lambda r: (
            f"all paths × {row_of(r, 'lstm', 5.0)['full_factor']:.4f} ± {row_of(r, 'lstm', 5.0)['full_error']:.4f}; of "
            f"{r['long_steps']} steps in the first × {r['long'][-1]['windows'][-1]['factor']:.4f}, in the last × "
            f"{r['long'][-1]['windows'][0]['factor']:.4f}"
        ),
        "false as stated",
        lambda r: (
            all(
                row_of(r, "lstm", b)["full_factor"] > 1 + 4 * row_of(r, "lstm", b)["full_error"]
                for b in (3.0, 4.0, 5.0)
            )
            and all(
                row_of(r, "lstm", b)["direct_factor"] < 1 - 4 * row_of(r, "lstm", b)["direct_error"]
                for b in (3.0, 4.0, 5.0)
            )
            # not with twice as many inputs as units
            and r["more_inputs"][-1]["factor"] + 4 * r["more_inputs"][-1]["factor_error"] < 1
            # in a long sequence: it grows at the beginning, and hardly changes later
            and all(
                beginning["factor"] > 1.01 > 1 + abs(x["factor"] - 1) + 4 * x["factor_error"]
                for row in r["long"]
                for *settled, beginning in [row["windows"]]
                for x in settled
            )
        ),
        "fix/lstm-gru.md",
    ),
    Claim(
        "chrono-keeps",
        "Chrono initialisation for T steps still has more than a tenth of the gradient after T steps, in layers with no more inputs "
        "than units.",
        "Tallec & Ollivier 2018, chrono initialisation",
        lambda r: f"direct path × {10 ** r['chrono_alone']:.3f} in {r['steps']} steps",
        lambda r: (
            f"T = {r['steps']}: "
            + ", ".join(
                f"{cell.upper()} × {10 ** r['chrono'][cell]['full'][-1]:.3f}, direct path {10 ** r['chrono'][cell]['direct'][-1]:.3f}"
                for cell in CELLS
            )
            + "; "
            + ", ".join(f"T = {x['longest_memory']}: LSTM × {10 ** x['lstm']:.3f}" for x in r["chrono_others"])
        ),
        "holds",
        lambda r: all(
            abs(r["chrono"][cell]["direct"][-1] - r["chrono_alone"])
            < 0.03  # decades: the state's own share in the gates
            and r["chrono"][cell]["full"][-1] - 4 * r["chrono"][cell]["full_end_error"] > -1
            and all(x[cell] - 4 * x[f"{cell}_error"] > -1 for x in r["chrono_others"])
            for cell in CELLS
        ),
        "fix/lstm-gru.md",
    ),
]
