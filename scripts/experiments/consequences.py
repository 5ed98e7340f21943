"""What vanishing gradients do to training: plateaus on handwritten digits, layer by layer, and which fixes end them."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from experiment import Claim
from style import INK, MUTED, new_figure, ramp

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, mean_field, train


@dataclass(frozen=True)
class Fix:
    """A network of the table and how it is trained."""

    answers: str  # which of the advised fixes it tries
    depth: int
    activation: str
    initialiser: str | None
    rate: float
    optimiser: str = "sgd"
    weight_variance: float | None = None
    normalisation: str | None = None
    residual: str | None = None
    residual_scale: float = 1.0


@dataclass(frozen=True)
class Parameters:
    training_examples: int = 1437  # four fifths of the 1,797 digits
    split_seed: int = 0
    width: int = 64
    batch_size: int = 64
    trials: int = 3  # networks, each with its own weights and order of examples
    seed: int = 0
    rate: float = 0.5  # about the largest at which the sigmoid networks train steadily
    depths: tuple = (2, 3, 4, 5, 6)
    epochs: tuple = (40, 60, 120, 300, 600)  # until the plateau is over, but for the last, which would take too long
    layers_of: int = 5  # the depth whose layers are shown one by one
    learnt: float = 0.9  # accuracy on the training set at which the plateau counts as over
    fix_epochs: int = 20
    # Rates: 0.05, but for what diverges with it, or learns only with more (sigmoid)
    fixes: tuple = (
        Fix("none", 5, "sigmoid", "xavier", 0.5),
        Fix("none", 10, "sigmoid", "xavier", 0.5),
        Fix("weights", 10, "centred_sigmoid", None, 0.2, weight_variance=16.0),
        Fix("weights", 5, "sigmoid", "normal", 0.5),
        Fix("batch norm", 10, "sigmoid", "xavier", 0.5, normalisation="batch"),
        Fix("skips", 10, "sigmoid", "xavier", 0.05, residual="postactivation"),
        Fix("Adam", 5, "sigmoid", "xavier", 0.01, "adam"),
        Fix("Adam", 10, "sigmoid", "xavier", 0.01, "adam"),
        Fix("tanh", 10, "tanh", "standard", 0.05),
        Fix("tanh", 30, "tanh", "xavier", 0.02),
        Fix("tanh", 30, "tanh", "orthogonal", 0.05),
        Fix("ReLU", 10, "relu", "standard", 0.05),
        Fix("ReLU", 10, "relu", "xavier", 0.05),
        Fix("ReLU", 30, "relu", "xavier", 0.05),
        Fix("ReLU", 10, "relu", "he", 0.05),
        Fix("ReLU", 30, "relu", "xavier", 0.001, "adam"),
        Fix("ReLU", 30, "relu", "he", 0.01),
        Fix("ReLU", 30, "relu", "he", 0.001, "adam"),
        Fix("leaky ReLU, ELU", 30, "leaky_relu", "xavier", 0.05),
        Fix("leaky ReLU, ELU", 30, "elu", "xavier", 0.05),
        Fix("batch norm", 10, "relu", "he", 0.05, normalisation="batch"),
        Fix("batch norm", 30, "relu", "he", 0.05, normalisation="batch"),
        Fix("skips", 10, "relu", "he", 0.05, residual="preactivation"),
        Fix("skips", 10, "relu", "he", 0.05, residual="preactivation", residual_scale=10**-0.5),
        Fix("skips", 30, "relu", "he", 0.05, residual="preactivation", residual_scale=30**-0.5),
        Fix("skips", 30, "relu", "he", 0.05, normalisation="batch", residual="preactivation"),
    )


PARAMETERS = Parameters()
TOLERANCE = None
LEARNS, HARDLY = 0.95, 0.25  # of the training set, mean of the networks
CHANCE = 0.15  # of the training set, the best of the networks; one answer for all is right for a tenth
KEPT = 40  # points of each curve that are stored


def digits(training_examples, seed):
    """scikit-learn's 8 × 8 digits in a random order, standardised by one mean and one deviation of all pixels."""
    from sklearn.datasets import load_digits  # slow to import, and not needed by the drawings

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    inputs, labels = inputs[order], labels[order]
    seen = inputs[:training_examples]
    inputs = (inputs - seen.mean()) / seen.std()
    first, rest = slice(None, training_examples), slice(training_examples, None)
    return {"inputs": inputs[first], "labels": labels[first], "test_inputs": inputs[rest], "test_labels": labels[rest]}


def compute(p):
    data = digits(p.training_examples, p.split_seed)
    options = {"batch_size": p.batch_size, "trials": p.trials, "seed": p.seed} | data
    plateaus = [
        plateau(p, Network(depth, p.width, "sigmoid", "xavier"), epochs, options)
        for depth, epochs in zip(p.depths, p.epochs, strict=True)
    ]
    return {
        "trials": p.trials,
        "width": p.width,
        "learnt": p.learnt,
        "layers_of": p.layers_of,
        "fix_epochs": p.fix_epochs,
        "factor": round(math.exp(mean_field(Network(100, p.width, "sigmoid", "xavier")).rate), 5),
        "plateaus": plateaus,
        "fixes": [fix_outcome(p, fix, options) for fix in p.fixes],
    }


def plateau(p, network, epochs, options):
    done = train(network, learning_rate=p.rate, epochs=epochs, **options)
    kept = sorted({round(x) for x in np.geomspace(1, epochs + 1, KEPT)})
    accuracy, movement = done.train_accuracy[:, np.array(kept) - 1], done.movement[:, np.array(kept) - 1]
    return {
        "depth": network.depth,
        "epochs": [epoch - 1 for epoch in kept],
        "accuracy": rounded(accuracy.mean(axis=0)),
        "lowest": rounded(accuracy.min(axis=0)),
        "highest": rounded(accuracy.max(axis=0)),
        "movement": [rounded(layer, 5) for layer in movement.mean(axis=0).T],
        "weight_gradient": [float(f"{g:.3e}") for g in geometric_mean(done.weight_gradient[:, 0])],
        "epochs_to_learn": [None if math.isinf(e) else int(e) for e in done.epochs_to(p.learnt)],
        "best_train": rounded(done.train_accuracy.max(axis=1)),
        "last_test": rounded(done.test_accuracy[:, -1]),
    }


def fix_outcome(p, fix, options):
    batch = {"batch_size": 2} if fix.normalisation == "batch" else {}
    network = Network(
        fix.depth, p.width, fix.activation, fix.initialiser, fix.weight_variance, normalisation=fix.normalisation,
        residual=fix.residual, residual_scale=fix.residual_scale, **batch,
    )  # fmt: skip
    done = train(network, learning_rate=fix.rate, epochs=p.fix_epochs, optimiser=fix.optimiser, **options)
    hidden = geometric_mean(done.weight_gradient[:, 0])[1 if fix.residual else 0 : -1]
    accuracy = np.nan_to_num(done.train_accuracy[:, -1])
    return {
        "answers": fix.answers,
        "depth": fix.depth,
        "activation": fix.activation,
        "initialiser": fix.initialiser or f"σ_w² = {fix.weight_variance:g}",
        "normalisation": fix.normalisation,
        "residual_scale": round(fix.residual_scale, 4) if fix.residual else None,
        "optimiser": fix.optimiser,
        "rate": fix.rate,
        "train": rounded(accuracy),
        "test": rounded(np.nan_to_num(done.test_accuracy[:, -1])),
        "diverged": int(done.diverged.sum()),
        "epochs_to_learn": [None if math.isinf(e) else int(e) for e in done.epochs_to(p.learnt)],
        "first_over_last": float(f"{hidden[0] / hidden[-1]:.3e}"),
        "gradients": [float(f"{g:.3e}") for g in hidden],
    }


def geometric_mean(values):
    return np.exp(np.mean(np.log(values), axis=0))


def rounded(values, digits=4):
    return [round(float(value), digits) for value in values]


def figure(result):
    drawing, (left, right) = new_figure(7.4, 3.9, ncols=2)
    for run, colour in zip(result["plateaus"], ramp(len(result["plateaus"])), strict=True):
        epochs = np.array(run["epochs"]) + 1
        left.plot(epochs, run["accuracy"], color=colour)
        left.fill_between(epochs, run["lowest"], run["highest"], color=colour, alpha=0.2, linewidth=0)
        at = (mean_epochs(run) + 1, result["learnt"]) if mean_epochs(run) else (epochs[-1], run["accuracy"][-1])
        left.annotate(str(run["depth"]), at, (4, 4), textcoords="offset points", color=INK, fontsize=9)
    left.axhline(0.1, color=MUTED, linewidth=0.8, linestyle=":")
    left.set(xscale="log", xlabel="epoch + 1", ylabel="accuracy on the training set", ylim=(0, 1.06))
    run = deepest(result)
    names = [*(f"layer {i}" for i in range(1, run["depth"] + 1)), "output"]
    for layer, colour, name in zip(run["movement"], ramp(len(names)), names, strict=True):
        right.plot(np.array(run["epochs"])[1:] + 1, layer[1:], color=colour, label=name)
    right.set(xscale="log", yscale="log", xlabel="epoch + 1", ylabel="movement |W − W₀| / |W₀|")
    right.legend(loc="lower right")
    return drawing


def caption(result):
    return (
        f"Sigmoid networks with Xavier initialisation learn handwritten digits (width {result['width']}, SGD). Left: accuracy, mean "
        f"of {result['trials']} networks, with bands from the lowest to the highest; the numbers are hidden layers; dotted: "
        f"guessing. Right: how far each layer of the networks with {result['layers_of']} hidden layers has moved from its initial "
        "weights. Early on the plateau the first two have moved far less than the last two hidden ones."
    )


def alt(result):
    return (
        f"Accuracy stays near guessing, then rises steeply. Epochs until {result['learnt']:.0%}: {plateau_text(result)}. Early "
        "on the plateau the first two layers have moved far less than the last two hidden ones; at its end all layers move "
        "together, the first one far."
    )


def deepest(result):
    return run_of(result, result["layers_of"])


def run_of(result, depth):
    return next(run for run in result["plateaus"] if run["depth"] == depth)


def mean_epochs(run):
    times = run["epochs_to_learn"]
    return None if None in times else sum(times) / len(times)


def outcome(fix):
    mean = np.mean(fix["train"])
    if fix["diverged"]:
        return "diverges"
    if max(fix["train"]) <= CHANCE:
        return "stays at chance"
    return "learns" if mean >= LEARNS else "learns in part" if mean > HARDLY else "hardly learns"


def label(fix):
    initialiser = INITIALISERS[fix["initialiser"]].label if fix["initialiser"] in INITIALISERS else "$\\sigma_w^2=16$"
    parts = [f"{ACTIVATIONS[fix['activation']].label}, {initialiser}"]
    if fix["normalisation"]:
        parts.append("batch norm")
    if fix["residual_scale"] is not None:
        parts.append("skips" if fix["residual_scale"] == 1 else "skips, branch × $1/\\sqrt{L}$")
    parts.append(f"{'Adam' if fix['optimiser'] == 'adam' else 'SGD'} {fix['rate']:g}")
    return ", ".join(parts)


def table(result):
    rows = [["Network", "Layers", "First over last gradient", "Accuracy (train), lowest–highest", "Outcome"]]
    for fix in result["fixes"]:
        band = f"{min(fix['train']):.3f}–{max(fix['train']):.3f}" if not fix["diverged"] else "—"
        rows.append([label(fix), str(fix["depth"]), f"{fix['first_over_last']:.2g}", band, outcome(fix)])
    return rows


def data(result):
    rows = [["depth", "epoch", "accuracy", "lowest", "highest", *(f"movement_{i}" for i in range(1, 8))]]
    for run in result["plateaus"]:
        for index, epoch in enumerate(run["epochs"]):
            moved = [layer[index] for layer in run["movement"]]
            values = [run[key][index] for key in ("accuracy", "lowest", "highest")]
            rows.append([run["depth"], epoch, *values, *moved, *[""] * (7 - len(moved))])
    return rows


def numbers(result):
    found = {"factor": result["factor"], "inverse_factor": 1 / result["factor"]}
    for run in result["plateaus"]:
        if mean_epochs(run) is not None:
            found[f"epochs_{run['depth']}"] = mean_epochs(run)
        else:
            found[f"waited_{run['depth']}"] = run["epochs"][-1]
        found[f"best_{run['depth']}"] = min(run["best_train"])
    found |= {f"growth_{depth}": growth for depth, growth in growths(result).items()}
    found["growth_6_least"] = math.floor(10 * found["growth_6"]) / 10
    found |= {f"gradient_{i + 1}": g for i, g in enumerate(deepest(result)["weight_gradient"])}
    run = deepest(result)
    early = next(i for i, epoch in enumerate(run["epochs"]) if epoch >= result["fix_epochs"])
    found |= {f"early_{i + 1}": 100 * layer[early] for i, layer in enumerate(run["movement"])}
    found |= {f"late_{i + 1}": 100 * layer[-1] for i, layer in enumerate(run["movement"])}
    found["early_epoch"] = run["epochs"][early]
    for fix in result["fixes"]:
        name = key(fix)
        found[f"{name}_accuracy"], found[f"{name}_ratio"] = float(np.mean(fix["train"])), fix["first_over_last"]
        found |= {f"{name}_lowest": min(fix["train"]), f"{name}_highest": max(fix["train"])}
        found[f"{name}_gradient"] = fix["gradients"][0]
    return found


def key(fix):
    initialiser = fix["initialiser"] if fix["initialiser"] in INITIALISERS else "16"
    parts = [fix["activation"], initialiser, str(fix["depth"])]
    if fix["normalisation"]:
        parts.append("batch")
    if fix["residual_scale"] is not None:
        parts.append("skips" if fix["residual_scale"] == 1 else "scaled_skips")
    return "_".join(parts + (["adam"] if fix["optimiser"] == "adam" else []))


def outcomes(result):
    return {key(fix): outcome(fix) for fix in result["fixes"]}


def accuracies(*names):
    def text(result):
        return "; ".join(
            f"{label(f)}, {f['depth']} layers: " + ("diverges" if f["diverged"] else f"{np.mean(f['train']):.3f}")
            for f in (fix_of(result, name) for name in names)
        )

    return text


def has(**expected):
    return lambda result: all(
        outcomes(result)[name] in ((words,) if isinstance(words, str) else words) for name, words in expected.items()
    )


def movements(result):
    n = numbers(result)
    last = result["layers_of"]
    return (
        f"first layer {n['early_1']:.1f} %, layer {last} {n[f'early_{last}']:.1f} % of its length after {n['early_epoch']} epochs; "
        f"{n['late_1']:.0f} % and {n[f'late_{last}']:.0f} % at the end"
    )


def first_wait(result):
    """Whether the first two layers have moved less than half as far as the last two hidden ones, at each epoch up to the early one."""
    run = deepest(result)
    stop = run["epochs"].index(numbers(result)["early_epoch"]) + 1
    hidden = np.array(run["movement"])[:-1, 1:stop]
    return bool(np.all(hidden[:2].max(axis=0) < hidden[-2:].min(axis=0) / 2))


def finished(result):
    return [run for run in result["plateaus"] if mean_epochs(run) is not None]


def growths(result):
    """By which factor the wait is longer than with one layer less, by depth; at least by this where it has no end."""
    runs = result["plateaus"]
    pairs = zip(finished(result), runs[1:], strict=False)
    return {b["depth"]: (mean_epochs(b) or b["epochs"][-1]) / mean_epochs(a) for a, b in pairs}


def plateau_text(result):
    waits = [(r["depth"], mean_epochs(r), r["epochs"][-1]) for r in result["plateaus"]]
    return "; ".join(f"{d} layers: {w:.0f} epochs" if w else f"{d} layers: more than {e}" for d, w, e in waits)


def fix_of(result, name):
    return next(fix for fix in result["fixes"] if key(fix) == name)


PAGE = "learn/consequences.md"
CLAIMS = [
    Claim(
        "plateaus-grow-with-depth",
        "On these digits each further layer more than doubles the epochs until a sigmoid network with Xavier initialisation has learnt "
        "them; a deep one waits on a plateau first.",
        "note 1.2",
        lambda r: f"× {1 / r['factor']:.2f} per layer, if the wait were the inverse of the first layer's gradient",
        plateau_text,
        "holds with a condition",
        lambda r: (
            all(growth > 2 for growth in growths(r).values())
            # in every single network, too
            and all(
                min(deep["epochs_to_learn"]) > 2 * max(shallow["epochs_to_learn"])
                for shallow, deep in pairwise(finished(r))
            )
        ),
        PAGE,
    ),
    Claim(
        "early-layers-wait-then-move",
        "The early layers do not stop: early on the plateau the first two move far less than the last two hidden ones, but once it "
        "ends the first moves by more than its own length.",
        "note 4.1",
        lambda r: "—",
        movements,
        "holds with a condition",
        lambda r: first_wait(r) and numbers(r)["early_1"] < 5 and numbers(r)["late_1"] > 100,
        PAGE,
    ),
    Claim(
        "relu-layers-slow-together",
        "In a ReLU network with too small weights and without biases no layer is worse off than another: all gradients are equally "
        "small, and all layers wait together.",
        "note 4.1",
        lambda r: "the gradients of all ten layers are equal",
        lambda r: " to ".join(f"{f(fix_of(r, 'relu_standard_10')['gradients']):.1e}" for f in (min, max)),
        "holds with a condition",
        lambda r: (
            max(fix_of(r, "relu_standard_10")["gradients"]) < 1.5 * min(fix_of(r, "relu_standard_10")["gradients"])
            and outcomes(r)["relu_standard_10"] == "stays at chance"
        ),
        PAGE,
    ),
    Claim(
        "features-are-delayed",
        "What is delayed is not lost: sigmoid networks with up to five hidden layers learn more than 95 % of the training set after "
        "their plateau.",
        "note 4.3",
        lambda r: "—",
        lambda r: "; ".join(f"{x['depth']} layers: {min(x['best_train']):.3f} or more" for x in finished(r)),
        "holds with a condition",
        lambda r: all(min(run["best_train"]) > 0.95 for run in finished(r)) and finished(r)[-1]["depth"] >= 5,
        PAGE,
    ),
    Claim(
        "slow-or-not-at-all",
        "Within twenty epochs of plain SGD, in which two hidden layers pass 90 %, sigmoid networks with five or ten layers and Xavier "
        "weights stay at chance.",
        "note 4.3",
        lambda r: f"the first gradient of 10 layers is {r['factor'] ** 9:.1e} of the last",
        accuracies("sigmoid_xavier_5", "sigmoid_xavier_10"),
        "holds with a condition",
        lambda r: (
            has(sigmoid_xavier_5="stays at chance", sigmoid_xavier_10="stays at chance")(r)
            and max(run_of(r, 2)["epochs_to_learn"]) < r["fix_epochs"]
        ),
        PAGE,
    ),
    Claim(
        "relu-needs-its-weights",
        "ReLU alone does not make thirty layers train with plain SGD: with Xavier initialisation they stay at chance, with He "
        "initialisation they learn in part. With Adam both leave chance.",
        "note 6.1",
        lambda r: f"Xavier: all gradients are about 2^-{29 / 2:.1f} of He's",
        accuracies("relu_xavier_30", "relu_he_30", "relu_xavier_30_adam", "relu_he_30_adam"),
        "holds",
        has(
            relu_xavier_30="stays at chance",
            relu_he_30="learns in part",
            relu_xavier_30_adam=("learns", "learns in part"),
            relu_he_30_adam=("learns", "learns in part"),
        ),
        PAGE,
    ),
    Claim(
        "a-leak-is-not-a-scale",
        "A small slope below zero does not help plain SGD where the scale is wrong: thirty leaky ReLU layers with Xavier "
        "initialisation stay at chance, while thirty ELU layers leave it.",
        "note 6.2",
        lambda r: "—",
        accuracies("leaky_relu_xavier_30", "elu_xavier_30"),
        "holds with a condition",
        has(leaky_relu_xavier_30="stays at chance", elu_xavier_30=("learns", "learns in part")),
        PAGE,
    ),
    Claim(
        "batch-norm-trains-ten",
        "Batch normalisation makes ten layers train, of sigmoid and of ReLU units; after twenty epochs at the rate 0.05 thirty ReLU "
        "layers have learnt only in part, and with skips fully.",
        "note 6.3",
        lambda r: "—",
        accuracies("sigmoid_xavier_10_batch", "relu_he_10_batch", "relu_he_30_batch", "relu_he_30_batch_skips"),
        "holds with a condition",
        has(
            sigmoid_xavier_10_batch="learns",
            relu_he_10_batch="learns",
            relu_he_30_batch="learns in part",
            relu_he_30_batch_skips="learns",
        ),
        PAGE,
    ),
    Claim(
        "skips-need-a-scale",
        "Without a norm ten ReLU blocks diverge at rate 0.05; with branches divided by the root of the depth ten blocks and thirty "
        "learn at this rate.",
        "note 6.4",
        lambda r: "unscaled the mean square doubles at each block",
        accuracies("relu_he_10_skips", "relu_he_10_scaled_skips", "relu_he_30_scaled_skips"),
        "holds",
        lambda r: (
            has(relu_he_10_skips="diverges", relu_he_10_scaled_skips="learns", relu_he_30_scaled_skips="learns")(r)
            and {
                fix_of(r, name)["rate"]
                for name in ("relu_he_10_skips", "relu_he_10_scaled_skips", "relu_he_30_scaled_skips")
            }
            == {0.05}
        ),
        PAGE,
    ),
    Claim(
        "xavier-does-not-rescue-sigmoid",
        "With twenty epochs of plain SGD Xavier initialisation leaves ten sigmoid layers at chance; thirty orthogonal tanh layers, ten "
        "He-initialised ReLU layers and ten centred sigmoid layers with four times Xavier's deviation learn.",
        "note 6.5",
        lambda r: f"sigmoid, Xavier: × {r['factor']:.3f} per layer",
        accuracies("sigmoid_xavier_10", "tanh_orthogonal_30", "relu_he_10", "centred_sigmoid_16_10"),
        "holds with a condition",
        has(
            sigmoid_xavier_10="stays at chance",
            tanh_orthogonal_30="learns",
            relu_he_10="learns",
            centred_sigmoid_16_10="learns",
        ),
        PAGE,
    ),
    Claim(
        "sigmoid-does-learn",
        "Deep sigmoid networks do learn: five layers with weights N(0, 1), or with Adam, and ten with centred units and four times "
        "Xavier's deviation; what fails in twenty epochs, without norms and skips, are small weights such as Xavier's: five layers "
        "with plain SGD, and ten with Adam too.",
        "belief: sigmoid networks fail to learn, shown at one learning rate and one seed",
        lambda r: f"sigmoid, Xavier: × {r['factor']:.3f} per layer; the step and the weights are free",
        accuracies(
            "sigmoid_xavier_5",
            "sigmoid_xavier_10_adam",
            "sigmoid_normal_5",
            "sigmoid_xavier_5_adam",
            "centred_sigmoid_16_10",
        ),
        "false as stated",
        has(
            sigmoid_xavier_5="stays at chance",
            sigmoid_xavier_10_adam="hardly learns",
            sigmoid_normal_5="learns",
            sigmoid_xavier_5_adam="learns",
            centred_sigmoid_16_10="learns",
        ),
        PAGE,
    ),
]
