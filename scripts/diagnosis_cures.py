"""Each sick network of diagnosis_networks.py trained as it is, and with the one change that its diagnosis prescribes.

Both start from the same weights. They are trained for a short while with Adam at PyTorch's default rate, on a made task with new
inputs at each step, and judged by the loss on inputs that they have not seen, relative to that of the best constant answer. The
change is the code of vgp_kernels/diagnosis/kinds.py, run as it stands there, or what the words beside it say.
"""

import inspect
import math
import statistics
from collections.abc import Callable

import diagnosis_networks as networks
import torch
from torch import nn

from vgp_kernels.diagnosis.kinds import CODE

STEPS, RATE = 200, 1e-3
SEEDS = (0, 1, 2)
CURES: dict[
    str, tuple[str, Callable]
] = {}  # by the name of the builder: what is changed, and the function that does it


def cure(*names, what):
    def keep(change):
        for name in names:
            CURES[name] = (what, change)
        return change

    return keep


def run(code, **names):
    """The names after the prescribed code has run with these."""
    names |= {"torch": torch, "math": math}
    exec(CODE[code]["PyTorch"], names)
    return names


def data(loss):
    """The variables of the batch that a case's loss closes over."""
    return inspect.getclosurevars(loss).nonlocals


# Each gets (model, loss), changes the network in place and gives (loss, what is done before each step)


@cure("relu_default", "small_weights", "relu_xavier", "large_weights", what="He’s rule, biases 0")
def draw(model, loss):
    run("he_everywhere", model=model)
    return loss, None


@cure("tanh_default", "tanh_large", what="weights with the gain of tanh, biases 0")
def draw_for_tanh(model, loss):
    exec(CODE["he_everywhere"]["PyTorch"].replace('"relu"', '"tanh"'), {"torch": torch, "model": model})
    return loss, None


@cure("sigmoid", "sigmoid_xavier", "shallow_sigmoid", what="ReLU in place of the sigmoid, He’s rule")
def another_activation(model, loss):
    for i, layer in enumerate(model):
        if isinstance(layer, nn.Sigmoid):
            model[i] = nn.ReLU()
    return draw(model, loss)


class Skip(nn.Module):
    def __init__(self, *branch):
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x):
        return x + self.branch(x)


@cure("batch_norm_deep", what="skips, y = x + branch(norm(x))")
def skips(model, loss):
    first, *body, head = [model[i] for i in range(len(model))]
    del model[:]
    model.append(first)
    for i in range(0, len(body) - 2, 3):  # norm and ReLU of a layer, then the next layer
        model.append(Skip(*body[i : i + 3]))
    for part in (*body[-2:], head):
        model.append(part)
    return loss, None


@cure("detached", what="without detach()")
def connect(model, loss):
    model.forward = lambda x: model.above(model.below(x))
    return loss, None


@cure("frozen", what="all parameters ask for a gradient")
def unfreeze(model, loss):
    run("unfreeze", model=model)
    return loss, None


@cure("zero_matrix", what="He’s rule for the layer")
def draw_one(model, loss):
    run("he", layer=model[8])
    return loss, None


@cure("dead_layer", "dead_units", what="He’s rule and biases 0 for the layer")
def draw_dead(model, loss):
    run("he", layer=model[6])
    return loss, None


class Straight(nn.Module):
    def forward(self, x):
        return run("straight", x=x)["y"]


@cure("sign", what="straight through sign")
def straight(model, loss):
    for i, layer in enumerate(model):
        if isinstance(layer, networks.Sign):
            model[i] = Straight()
    return loss, None


@cure("one_softmax", what="sigmoid within the loss")
def logits_of_one(model, loss):
    x, y = (data(loss)[name] for name in "xy")
    model[-1] = nn.Identity()
    return lambda: run("bce", output=model(x), target=y)["loss"], None


@cure("two_softmaxes", what="the loss takes logits")
def once(model, loss):
    model[-1] = nn.Identity()
    return loss, None


@cure("large_inputs", what="inputs of deviation 1, Xavier’s rule")
def unsaturated(model, loss):
    x = data(loss)["x"]
    for layer in model:
        if isinstance(layer, nn.Linear):
            x.copy_(run("xavier", layer=layer, x=x)["x"])
    return loss, None


@cure("actor", what="inputs of deviation 1, a small last layer")
def small_output(model, loss):
    x = data(loss)["x"]
    x.copy_(run("small_last", last=model[-2], x=x)["x"])
    return loss, None


@cure("large_head", what="head of deviation 1/√n")
def small_head(model, loss):
    run("head", head=model.head)
    return loss, None


@cure("rnn", what="an LSTM, forget gate open")
def gated(model, loss):
    model.cell = nn.LSTM(model.cell.input_size, model.cell.hidden_size, batch_first=True)
    return forget_gate(model, loss)


@cure("lstm_default", what="forget gate open")
def forget_gate(model, loss):
    run("forget", lstm=model.cell, steps=data(loss)["x"].shape[1])
    return loss, None


@cure("rnn_large", what="orthogonal weights, clipping")
def orthogonal(model, loss):
    run("orthogonal", rnn=model.cell, model=model)
    return loss, lambda: run("clip", model=model)


@cure("bad_weight", what="weights drawn again, clipping")
def start_again(model, loss):
    run("he_everywhere", model=model)
    return loss, lambda: run("clip", model=model)


@cure("bad_data", what="what is not finite filled in with 0")
def fill_in(model, loss):
    x = data(loss)["x"]
    x.nan_to_num_(0.0)
    run("finite", x=x)
    return loss, None


class Guarded(nn.Module):
    def forward(self, x):
        return run("guard", x=torch.relu(x))["y"]


@cure("bad_log", what="the logarithm’s argument kept away from 0")
def guard(model, loss):
    model[-2] = Guarded()
    return loss, None


@cure("masked", what="no row in which all is masked")
def unmasked(model, loss):
    model[-2] = nn.Softmax(-1)
    return loss, None


@cure("bad_root", what="the root’s argument changed where it is 0")
def safe_root(model, loss):
    x, y = (data(loss)[name] for name in "xy")
    return lambda: nn.functional.mse_loss(run("where", x=model(x).square().sum(1))["y"], y), None


@cure("outlier", what="the layer like its neighbours")
def alike(model, loss):
    model[10] = nn.Linear(64, 64)
    run("he", layer=model[10])
    return loss, None


# Training


def drawer(loss):
    """A function that draws the next batch in the place of the last: normal inputs of the same size, what is 0 or NaN stays so.

    What is asked: which of the first numbers is the largest (of the first time step; of a token its last digit), whether the
    first is above 0, or a smooth function of them.
    """
    x, y = (data(loss)[name] for name in "xy")
    whole = not x.is_floating_point()
    known = None if whole else torch.isfinite(x)
    scale = None if whole else x[known].std()
    zero = None if whole else x == 0

    @torch.no_grad()
    def draw():
        if whole:
            x.random_(1000)
            y.copy_(x.flatten() % 10)
            return
        z = torch.randn_like(x).masked_fill(zero, 0.0)
        x.copy_(torch.where(known, z * scale, x))
        first = z[:, 0] if x.ndim == 3 else z
        if not y.is_floating_point():
            y.copy_(first[:, : 3 if x.ndim == 3 else 10].argmax(1))
        elif y.ndim == 1:
            y.copy_(first[:, :3].norm(dim=1))
        elif y.shape[1] == 1:
            y.copy_(first[:, :1] > 0)
        else:
            y.copy_(0.8 * torch.sin(first[:, : y.shape[1]]))

    return draw


def trivial(y):
    """The loss of the best answer that does not look at the input: classes by their frequency, or the mean."""
    if y.is_floating_point() and not bool(((y == 0) | (y == 1)).all()):
        return y.var(0, correction=0).mean().item()
    shares = torch.bincount(y.flatten().long()).double() / y.numel()
    return -sum(share * math.log(share) for share in shares.tolist() if share > 0)


def train(model, loss, draw, y, before_step=None):
    """The loss on new batches after training, relative to the trivial loss; NaN if it is not finite on the way."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, RATE) if parameters else None
    for _ in range(STEPS if parameters else 0):
        draw()
        value = loss()
        if not math.isfinite(value.item()):
            return math.nan
        optimiser.zero_grad()
        value.backward()
        if before_step is not None:
            before_step()
        optimiser.step()
    losses, targets = [], []
    for _ in range(10):
        draw()
        losses.append(loss().item())
        targets.append(y.clone())
    return statistics.mean(losses) / trivial(torch.cat(targets))


def compare(case, seed):
    """{network, true, change, seed, as_it_is, changed}: losses relative to the trivial one."""
    true, what, _, build = case
    change, treat = CURES[build.__name__]
    losses = []
    for treated in (False, True):
        torch.manual_seed(seed)
        model, loss = build(0)
        y, untreated = data(loss)["y"], loss
        loss, before_step = treat(model, loss) if treated else (loss, None)
        losses.append(train(model, loss, drawer(untreated), y, before_step))
    row = {"network": what, "true": true, "change": change, "seed": seed}
    return row | {"as_it_is": rounded(losses[0]), "changed": rounded(losses[1])}


def rounded(value):
    """Three figures, or text, as JSON has no NaN."""
    return float(f"{value:.3g}") if math.isfinite(value) else "NaN"


def helps(row):
    """At least a twentieth of the trivial loss better than the trivial answer, and than the network as it is."""
    as_it_is = 1 if row["as_it_is"] == "NaN" else min(1, row["as_it_is"])
    return float(row["changed"]) < as_it_is - 0.05


def treated():
    return [case for case in networks.CASES if case[3].__name__ in CURES]


def everything(seeds=SEEDS):
    torch.set_num_threads(1)
    return [compare(case, seed) for case in treated() for seed in seeds]


def table(rows):
    """The rows as Markdown: one line per network, medians over the seeds, and how they were made."""
    lines = ["| Network | Change | As it is | Changed | Helps |", "| :--- | :--- | ---: | ---: | ---: |"]
    for what in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == what]
        middle = {key: statistics.median(float(row[key]) for row in mine) for key in ("as_it_is", "changed")}
        as_it_is, changed = ("NaN" if math.isnan(value) else f"{value:.2g}" for value in middle.values())
        lines.append(
            f"| {what} | {mine[0]['change']} | {as_it_is} | {changed} | {sum(map(helps, mine))} of {len(mine)} |"
        )
    seeds = len({row["seed"] for row in rows})
    lines.append(f"\nLosses after {STEPS} steps of Adam at rate {RATE}, medians over {seeds} seeds.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(everything()))
