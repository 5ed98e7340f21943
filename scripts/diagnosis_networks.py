"""Sick and healthy PyTorch networks, built for real and recorded: what is true of each, and what the diagnosis says.

    python scripts/diagnosis_networks.py     build and ask all, write docs/assets/diagnosis.json, the page's table and examples

PyTorch is no requirement of the project: pip install torch==2.13.0. Each kind is built by several seeds and sizes. A case is a
function of (seed, size) that returns (model, loss): `loss()` makes the forward pass. `true` is what should be said; "healthy" means
that no illness may be named. Where the illness sits in a layer, `at` gives its name: a list is all that should be named, a set those
of which one should be. What each change does to the network is trained in diagnosis_cures.py.
"""

import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "assets" / "recorders"))

from record_torch import record  # noqa: E402

from vgp_kernels.diagnosis import diagnose  # noqa: E402
from vgp_kernels.diagnosis.kinds import KINDS  # noqa: E402

RESULT, TABLE = ROOT / "docs" / "assets" / "diagnosis.json", ROOT / "docs" / "assets" / "diagnosis_table.txt"
CURED = ROOT / "docs" / "assets" / "diagnosis_cures.txt"
EXAMPLES = ROOT / "docs" / "javascripts" / "doctor.examples.js"
SHOWN = (  # networks whose reports the page offers
    "sigmoid", "relu_default", "small_weights", "detached", "dead_layer", "sign", "one_softmax", "large_head", "rnn",
    "bad_where", "unet", "lora_0", "relu_he",
)  # fmt: skip
SEEDS = (0, 1, 2)
CASES: list[tuple[str, str, bool, Callable]] = []  # true kind, what it is, whether it is recorded at step 0, builder
LAYERS: dict[str, Callable] = {}  # by what it is: from the network the names of the layers that should be named


def case(true, what, first=True, at=None):
    def keep(build):
        CASES.append((true, what, first, build))
        if at is not None:
            LAYERS[what] = at
        return build

    return keep


def last(model):
    return [str(len(model) - 1)]


def next_to_last(model):
    return [str(len(model) - 2)]


def within(name):
    """All parameters of a part of the network."""
    return lambda model: [key for key, _ in model.named_parameters() if key.startswith(f"{name}.")]


def he(model):
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias) if m.bias is not None else None
    return model


def normal(model, gain, bias=True):
    """Weights of variance gain²/fan-in, biases 0."""
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=gain / math.sqrt(m.in_features))
            nn.init.zeros_(m.bias) if m.bias is not None else None
    return model


def mlp(depth, width, activation, classes=10, inputs=20):
    parts: list[nn.Module] = []
    for i in range(depth):
        parts += [nn.Linear(inputs if i == 0 else width, width), activation()]
    return nn.Sequential(*parts, nn.Linear(width, classes))


def classify(model, size=64, inputs=20, classes=10, scale=1.0):
    x, y = torch.randn(size, inputs) * scale, torch.randint(classes, (size,))
    return model, lambda: F.cross_entropy(model(x), y)


def images(model, size=8, side=32, channels=3, classes=10):
    x, y = torch.randn(size, channels, side, side), torch.randint(classes, (size,))
    return model, lambda: F.cross_entropy(model(x), y)


# size 0, 1: two depths and widths of each kind
def deep(size):
    return (12, 64) if size == 0 else (24, 128)


@case("vanishing", "sigmoid MLP, PyTorch’s default")
def sigmoid(size):
    return classify(mlp(*deep(size), nn.Sigmoid))


@case("vanishing", "sigmoid MLP, Xavier")
def sigmoid_xavier(size):
    return classify(normal(mlp(*deep(size), nn.Sigmoid), 1.0))


@case("vanishing", "four sigmoid layers of 500, default")
def shallow_sigmoid(size):
    return classify(mlp(4 + size, 500, nn.Sigmoid))


@case("vanishing", "ReLU MLP, PyTorch’s default, with biases")
def relu_default(size):
    return classify(mlp(*deep(size), nn.ReLU))


@case("vanishing", "tanh MLP, PyTorch’s default")
def tanh_default(size):
    return classify(mlp(*deep(size), nn.Tanh))


@case("exploding", "tanh MLP, weights of variance 9/n")
def tanh_large(size):
    return classify(normal(mlp(*deep(size), nn.Tanh), 3.0))


@case("exploding", "plain network of batch norm and ReLU, 40 layers")
def batch_norm_deep(size):
    parts: list[nn.Module] = []
    for i in range(40 + 10 * size):
        parts += [nn.Linear(20 if i == 0 else 64, 64), nn.BatchNorm1d(64), nn.ReLU()]
    return classify(nn.Sequential(*parts, nn.Linear(64, 10)), size=128)


@case("signal_dies", "ReLU MLP, weights N(0, 0.01²), biases 0")
def small_weights(size):
    model = mlp(*deep(size), nn.ReLU)
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.01)
            nn.init.zeros_(m.bias)
    return classify(model)


@case("signal_dies", "ReLU MLP, Xavier, biases 0")
def relu_xavier(size):
    return classify(normal(mlp(16 + 8 * size, 128, nn.ReLU), 1.0))


@case("signal_grows", "ReLU MLP, weights twice He’s")
def large_weights(size):
    return classify(normal(mlp(*deep(size), nn.ReLU), 2 * math.sqrt(2)))


class Cut(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.below, self.above = mlp(4 + size, 64, nn.ReLU, classes=20), mlp(4, 64, nn.ReLU)

    def forward(self, x):
        return self.above(self.below(x).detach())


@case("not_connected", "detach() in the middle", at=within("below"))
def detached(size):
    return classify(Cut(size))


@case("not_connected", "reentrant checkpoint, input without a gradient", at=within("0"))
def checkpointed(size):
    model = nn.Sequential(mlp(4 + size, 64, nn.ReLU, classes=20), mlp(4, 64, nn.ReLU))
    x, y = torch.randn(64, 20), torch.randint(10, (64,))

    def loss():
        h = torch.utils.checkpoint.checkpoint(model[0], x, use_reentrant=True)
        return F.cross_entropy(model[1](h), y)

    return model, loss


@case("all_frozen", "every parameter frozen")
def frozen(size):
    model = mlp(4 + size, 64, nn.ReLU).requires_grad_(False)
    x, y = torch.randn(64, 20, requires_grad=True), torch.randint(10, (64,))
    return model, lambda: F.cross_entropy(model(x), y)


@case("zero_weights", "one matrix all 0", at=lambda model: ["8.weight"])
def zero_matrix(size):
    model = he(mlp(6 + 4 * size, 64, nn.ReLU))
    nn.init.zeros_(model[8].weight)
    return classify(model)


@case("dead_layer", "one ReLU layer off, by its biases", at=lambda model: ["7"])
def dead_layer(size):
    model = he(mlp(6 + 4 * size, 64, nn.ReLU))
    nn.init.constant_(model[6].bias, -100.0)
    return classify(model)


@case("dead_units", "nine of ten units of a layer off", at=lambda model: ["7"])
def dead_units(size):
    model = he(mlp(6 + 4 * size, 100, nn.ReLU))
    model[6].bias.data[:90] = -100.0
    return classify(model)


@case("dead_units", "dying ReLU: trained with a step far too large", first=False)
def dying(size):
    model = he(mlp(3 + size, 64, nn.ReLU, classes=1))
    x = torch.randn(256, 20)
    y = x[:, :1].sin() + 2
    optimiser = torch.optim.SGD(model.parameters(), lr=2.0)
    for _ in range(10):
        optimiser.zero_grad()
        F.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 30.0)
        optimiser.step()
    return model, lambda: F.mse_loss(model(x), y)


class Sign(nn.Module):
    def forward(self, x):
        return torch.sign(x)


@case(
    "zero_slope",
    "sign as an activation",
    at=lambda model: {name for name, m in model.named_modules() if isinstance(m, Sign)},
)
def sign(size):
    return classify(mlp(4 + 2 * size, 64, Sign))


class Rounded(nn.Linear):
    def forward(self, x):
        return F.linear(x, torch.round(self.weight * 8) / 8, self.bias)


@case(
    "zero_slope",
    "rounded weights, no straight-through estimator",
    at=lambda model: {name for name, m in model.named_modules() if isinstance(m, Rounded)},
)
def rounded(size):
    return classify(
        nn.Sequential(Rounded(20, 64), nn.ReLU(), *[Rounded(64, 64), nn.ReLU()] * (2 + size), nn.Linear(64, 10))
    )


@case("constant_output", "softmax over one output", at=last)
def one_softmax(size):
    model = nn.Sequential(*mlp(2 + size, 64, nn.ReLU, classes=1), nn.Softmax(dim=1))
    x, y = torch.randn(64, 20), torch.randint(2, (64, 1)).float()
    return model, lambda: F.binary_cross_entropy(model(x), y)


@case("softmax_twice", "softmax before the cross-entropy", at=last)
def two_softmaxes(size):
    return classify(nn.Sequential(*he(mlp(3 + size, 64, nn.ReLU)), nn.Softmax(dim=1)))


@case(
    "saturated",
    "tanh MLP, inputs of size 100",
    at=lambda model: [name for name, m in model.named_modules() if isinstance(m, nn.Tanh)],
)
def large_inputs(size):
    return classify(normal(mlp(4 + size, 64, nn.Tanh), 5.0), scale=100.0)


@case("saturated_output", "tanh output, inputs not scaled", at=last)
def actor(size):
    model = nn.Sequential(*mlp(2, 128 + 128 * size, nn.ReLU, classes=2), nn.Tanh())
    x, y = torch.randn(64, 20) * 200, torch.rand(64, 2) * 1.6 - 0.8
    return model, lambda: F.mse_loss(model(x), y)


class Language(nn.Module):
    def __init__(self, size, std):
        super().__init__()
        d = 64 + 64 * size
        self.embedding = nn.Embedding(1000, d)
        block = nn.TransformerEncoderLayer(d, 4, 2 * d, batch_first=True, norm_first=True, dropout=0.0)
        self.blocks = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 1000, bias=False)
        nn.init.normal_(self.head.weight, std=d**-0.5 if std is None else std)

    def forward(self, tokens):
        return self.head(self.norm(self.blocks(self.embedding(tokens))))


def language(size, std=None):
    model = Language(size, std)
    x, y = torch.randint(1000, (4, 16)), torch.randint(1000, (64,))
    return model, lambda: F.cross_entropy(model(x).flatten(0, 1), y)


@case("output_scale", "language model, head with deviation 1", at=lambda model: ["head"])
def large_head(size):
    return language(size, 1.0)


class Sequence(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def sequences(cell, steps):
    return classify_sequence(Sequence(cell), steps)


def classify_sequence(model, steps):
    """What is the largest of three numbers of the first time step?"""
    x = torch.randn(128, steps, 4)
    y = x[:, 0, :3].argmax(1)
    return model, lambda: F.cross_entropy(model(x), y)


@case("vanishing_in_time", "tanh RNN, default, last step read", at=lambda model: ["cell"])
def rnn(size):
    return sequences(nn.RNN(4, 32 + 32 * size, batch_first=True), 60 + 60 * size)


@case("vanishing_in_time", "LSTM, default, last of 100 steps read", at=lambda model: ["cell"])
def lstm_default(size):
    return sequences(nn.LSTM(4, 32 + 32 * size, batch_first=True), 100)


@case("exploding_in_time", "ReLU RNN, recurrent weights twice orthogonal", at=lambda model: ["cell"])
def rnn_large(size):
    cell = nn.RNN(4, 32 + 32 * size, batch_first=True, nonlinearity="relu")
    nn.init.orthogonal_(cell.weight_hh_l0, 2.0)
    return sequences(cell, 50)


@case("nonfinite_weights", "one weight NaN", at=lambda model: ["2.weight"])
def bad_weight(size):
    model = he(mlp(4 + size, 64, nn.ReLU))
    model[2].weight.data[0, 0] = math.nan
    return classify(model)


@case("nonfinite_input", "NaN in the data", at=lambda model: ["input"])
def bad_data(size):
    model = he(mlp(4 + size, 64, nn.ReLU))
    x, y = torch.randn(64, 20), torch.randint(10, (64,))
    x[3, 4] = math.nan
    return model, lambda: F.cross_entropy(model(x), y)


class LogAtZero(nn.Module):
    def forward(self, x):
        return torch.log(torch.relu(x))


@case("nonfinite_signal", "logarithm of 0 inside the network", at=next_to_last)
def bad_log(size):
    return classify(nn.Sequential(*he(mlp(3 + size, 64, nn.ReLU, classes=64)), LogAtZero(), nn.Linear(64, 10)))


@case("nonfinite_signal", "softmax over a row in which all is masked", at=next_to_last)
def masked(size):
    class Masked(nn.Module):
        def forward(self, x):
            mask = torch.zeros_like(x)
            mask[5] = -math.inf
            return torch.softmax(x + mask, -1)

    return classify(nn.Sequential(*mlp(3 + size, 64, nn.ReLU, classes=64), Masked(), nn.Linear(64, 10)))


@case("nonfinite_gradient", "root at 0 in the loss", at=lambda model: ["the loss"])
def bad_root(size):
    model = he(mlp(3 + size, 64, nn.ReLU, classes=4))
    x, y = torch.randn(64, 20), 3 * torch.rand(64)
    x[0] = 0
    return model, lambda: F.mse_loss(model(x).square().sum(1).sqrt(), y)


@case("nonfinite_gradient", "where() masks a logarithm at 0", at=lambda model: ["the loss"])
def bad_where(size):
    model = he(mlp(3 + size, 64, nn.ReLU, classes=4))
    x = torch.randn(64, 20)

    def loss():
        y = torch.relu(model(x))
        return torch.where(y > 0, torch.log(y), torch.zeros_like(y)).mean()

    return model, loss


@case("outlier", "one layer with weights 10⁵ times as large, undone behind it", at=lambda model: ["10.layer"])
def outlier(size):
    model = he(mlp(12 + 6 * size, 64, nn.ReLU))

    class Small(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) * 1e-5

    scaled = nn.Linear(64, 64)
    with torch.no_grad():
        scaled.weight.copy_(model[10].weight * 1e5)
        nn.init.zeros_(scaled.bias)
    model[10] = Small(scaled)
    return classify(model)


# Healthy ones


@case("healthy", "textbook MLP, two hidden layers, default")
def textbook(size):
    return classify(mlp(2, 128 + 384 * size, nn.ReLU))


@case("healthy", "MLP of tanh, two hidden layers, default")
def textbook_tanh(size):
    return classify(mlp(2, 64 + 64 * size, nn.Tanh))


@case("healthy", "LeNet")
def lenet(size):
    return images(
        nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84 + 40 * size), nn.ReLU(), nn.Linear(84 + 40 * size, 10),
        )
    )  # fmt: skip


@case("healthy", "ReLU MLP, He")
def relu_he(size):
    return classify(he(mlp(*deep(size), nn.ReLU)))


@case("healthy", "tanh MLP, Xavier, ten layers")
def tanh_xavier(size):
    return classify(normal(mlp(10, 128 + 128 * size, nn.Tanh), 1.0))


@case("healthy", "centred sigmoid, weights of variance 16/n")
def centred_sigmoid(size):
    class Centred(nn.Module):
        def forward(self, x):
            return torch.sigmoid(x) - 0.5

    return classify(normal(mlp(10, 128 + 128 * size, Centred), 4.0))


@case("healthy", "SELU MLP, its own initialisation")
def selu(size):
    return classify(normal(mlp(*deep(size), nn.SELU), 1.0))


def vgg(width, norm):
    parts: list[nn.Module] = []
    channels = 3
    for stage, convolutions in enumerate((2, 2, 3, 3)):
        for _ in range(convolutions):
            out = width * 2 ** min(stage, 2)
            parts += [nn.Conv2d(channels, out, 3, padding=1), *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
            channels = out
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels * 4, 128), nn.ReLU(), nn.Linear(128, 10))


@case("healthy", "VGG of ten convolutions, He")
def vgg_he(size):
    return images(he(vgg(16 + 8 * size, False)))


@case("healthy", "VGG of ten convolutions, batch norm")
def vgg_norm(size):
    return images(vgg(16 + 8 * size, True), size=16)


class Residual(nn.Module):
    def __init__(self, channels, zero=False):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.c2, self.n2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        if zero:
            nn.init.zeros_(self.n2.weight)

    def forward(self, x):
        return F.relu(x + self.n2(self.c2(F.relu(self.n1(self.c1(x))))))


def resnet(blocks, channels, zero=False):
    body = [Residual(channels, zero) for _ in range(blocks)]
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), *body,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10),
    )  # fmt: skip


@case("healthy", "ResNet of eight blocks")
def resnet_8(size):
    return images(resnet(8, 16 + 8 * size), side=16)


@case("healthy", "ResNet whose branches start at 0 (by design)")
def resnet_zero(size):
    return images(resnet(8, 16 + 8 * size, zero=True), side=16)


@case("healthy", "pre-LN transformer")
def transformer(size):
    return language(size)


@case("healthy", "SIREN, ten layers")
def siren(size):
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(30 * x)

    model = mlp(8 + 2 * size, 64, Sine, classes=1, inputs=2)
    for i, m in enumerate(m for m in model if isinstance(m, nn.Linear)):
        bound = 1 / m.in_features if i == 0 else math.sqrt(6 / m.in_features) / 30
        nn.init.uniform_(m.weight, -bound, bound)
    x = torch.rand(256, 2) * 2 - 1
    return model, lambda: F.mse_loss(model(x), (x[:, :1] * 9).sin())


def two(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.d1, self.d2, self.mid = two(3, c), two(c, 2 * c), two(2 * c, 4 * c)
        self.u2, self.u1 = nn.ConvTranspose2d(4 * c, 2 * c, 2, 2), nn.ConvTranspose2d(2 * c, c, 2, 2)
        self.e2, self.e1, self.out = two(4 * c, 2 * c), two(2 * c, c), nn.Conv2d(c, 2, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        m = self.mid(F.max_pool2d(b, 2))
        return self.out(self.e1(torch.cat([a, self.u1(self.e2(torch.cat([b, self.u2(m)], 1)))], 1)))


@case("healthy", "U-Net")
def unet(size):
    model = he(UNet(8 + 8 * size))
    x, y = torch.randn(4, 3, 32, 32), torch.randint(2, (4, 32, 32))
    return model, lambda: F.cross_entropy(model(x), y)


@case("healthy", "graph network of two layers")
def graph(size):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(20, 16 + 16 * size), nn.Linear(16 + 16 * size, 4)
            links = (torch.rand(60, 60) < 0.1).float() + torch.eye(60)
            self.register_buffer("links", links / links.sum(1, keepdim=True))

        def forward(self, x):
            return self.links @ self.b(F.relu(self.links @ self.a(x)))

    return classify(Graph(), size=60, classes=4)


@case("healthy", "LSTM, forget gate open")
def lstm_open(size):
    cell = nn.LSTM(4, 32 + 32 * size, batch_first=True)
    n = cell.hidden_size
    nn.init.constant_(cell.bias_hh_l0.data[n : 2 * n], 4.0)
    return sequences(cell, 60)


class LoRA(nn.Module):
    def __init__(self, layer, rank=4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + F.linear(F.linear(x, self.lora_A), self.lora_B)


def steps(model, loss, count, rate=0.1):
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(count):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    optimiser.zero_grad()
    return model, loss


def lora(size):
    model = he(mlp(4 + 2 * size, 64, nn.ReLU))
    return classify(nn.Sequential(*[LoRA(m) if isinstance(m, nn.Linear) else m for m in model]))


@case("healthy", "LoRA at step 0 (by design)")
def lora_0(size):
    return lora(size)


@case("healthy", "LoRA at step 1", first=False)
def lora_1(size):
    return steps(*lora(size), 1)


class Gated(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm, self.f = nn.LayerNorm(d), nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.gate = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        return x + self.gate * self.f(self.norm(x))


def gated(size):
    d = 32 + 32 * size
    return classify(nn.Sequential(nn.Linear(20, d), *[Gated(d) for _ in range(8)], nn.LayerNorm(d), nn.Linear(d, 10)))


@case("healthy", "gates at 0, as in adaLN-zero, step 0 (by design)")
def gated_0(size):
    return gated(size)


@case("healthy", "gates at 0, as in adaLN-zero, step 2", first=False)
def gated_2(size):
    return steps(*gated(size), 2)


@case("healthy", "MLP trained to a small loss", first=False)
def trained(size):
    return steps(*classify(he(mlp(4, 64 + 64 * size, nn.ReLU))), 200, 0.1)


@case("healthy", "sigmoid output, trained", first=False)
def trained_sigmoid(size):
    model = nn.Sequential(*he(mlp(2, 64 + 64 * size, nn.ReLU, classes=1)), nn.Sigmoid())
    x = torch.randn(128, 20)
    y = (x[:, :1] > 0).float()
    return steps(model, lambda: F.binary_cross_entropy(model(x), y), 300, 0.3)


def examples():
    """{name: report} of the networks that the page offers, without what the rules do not use."""
    kept = {}
    for _, _, first, build in CASES:
        if build.__name__ in SHOWN:
            torch.manual_seed(0)
            model, loss = build(0)
            with record(model, step=0 if first else 100) as recorder:
                loss().backward()
            kept[build.__name__] = shorter(recorder.report)
    return kept


def shorter(value):
    """Four significant figures, and no field that is empty."""
    if isinstance(value, dict):
        return {key: shorter(part) for key, part in value.items() if part not in ("", [], None) or key == "gradient"}
    if isinstance(value, list):
        return [shorter(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def ask(true, what, first, build, seed, size):
    """{network, true, said, outcome, layer, change, …} for one network.

    `layer`: whether the right layers are named, None where the illness sits in no one; `change`: whether the change is that of
    the true kind, for a healthy network none.
    """
    torch.manual_seed(seed)
    model, loss = build(size)
    with record(model, step=0 if first else 100) as recorder:
        loss().backward()
    answer = diagnose(recorder.report)
    if true == "healthy":
        outcome = (
            "accused"
            if answer["verdict"] == "sick"
            else "right"
            if answer["verdict"] != "unknown"
            else "cannot be told"
        )
    elif answer["kind"] == true:
        outcome = "right"
    elif answer["verdict"] in ("healthy", "note"):
        outcome = "cleared"
    else:
        outcome = "cannot be told" if answer["verdict"] == "unknown" else "another kind"
    return {
        "network": what,
        "true": true,
        "said": answer["kind"],
        "where": answer["where"],
        "seed": seed,
        "size": size,
        "outcome": outcome,
        "layer": layer_is_right(LAYERS[what](model), answer["layers"]) if what in LAYERS else None,
        "change": outcome == "right" if true == "healthy" else KINDS[answer["kind"]]["code"] == KINDS[true]["code"],
    }


def layer_is_right(true, named):
    """Whether all of a list are named and no others, or one of a set."""
    return set(named) == set(true) if isinstance(true, list) else len(named) == 1 and named[0] in true


def everything(seeds=SEEDS):
    torch.set_num_threads(1)
    return [ask(*one, seed, size) for one in CASES for seed in seeds for size in (0, 1)]


def table(rows):
    """The rows as Markdown: one line per kind of network."""
    lines = ["| Network | True | Said | Right | Layer | Change |", "| :--- | :--- | :--- | ---: | ---: | ---: |"]
    for true, what, _, _ in CASES:
        mine = [row for row in rows if row["network"] == what]
        said = sorted({row["said"].replace("_", " ") for row in mine})
        right, layer, change = (
            "" if scores[0] is None else f"{sum(scores)} of {len(mine)}"
            for scores in (
                [row["outcome"] == "right" for row in mine], [row["layer"] for row in mine], [row["change"] for row in mine]
            )
        )  # fmt: skip
        lines.append(f"| {what} | {true.replace('_', ' ')} | {', '.join(said)} | {right} | {layer} | {change} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import diagnosis_cures as cures  # which builds these networks

    found, trained = everything(), cures.everything()
    versions = {"torch": torch.__version__.split("+")[0], "python": platform.python_version()}
    made_with = versions | {"seeds": list(SEEDS), "command": "python scripts/diagnosis_networks.py"}
    training = {"seeds": list(cures.SEEDS), "steps": cures.STEPS, "optimiser": f"Adam, rate {cures.RATE}"}
    parts = {"networks": found, "trained": trained}
    lines = [f' "made_with": {json.dumps(made_with)}', f' "training": {json.dumps(training)}']
    for name, rows in parts.items():
        inner = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
        lines.append(f' "{name}": [\n{inner}\n ]')
    RESULT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    TABLE.write_text(table(found))
    CURED.write_text(cures.table(trained))
    reports = ",\n".join(f"{json.dumps(name)}: {json.dumps(report)}" for name, report in examples().items())
    EXAMPLES.write_text(
        f"// Recorded by scripts/diagnosis_networks.py from small networks.\nconst VGP_EXAMPLES = {{\n{reports}\n}};\n"
    )
    for row in found:
        if row["outcome"] != "right":
            print(row)
    print(
        {
            outcome: sum(row["outcome"] == outcome for row in found)
            for outcome in sorted({row["outcome"] for row in found})
        }
    )
