"""One network in PyTorch, Keras and JAX: the prediction is the same, and that of the weights themselves.

None of the frameworks is among the requirements: what is not installed is skipped by name.
"""

import importlib.util
import itertools
import os
import sys
from pathlib import Path

import pytest

for name in ("torch", "keras", "jax", "flax"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: see `make frameworks`", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "assets" / "recorders")]
os.environ.setdefault("KERAS_BACKEND", "jax")

import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import record_jax  # noqa: E402
import record_keras  # noqa: E402
import torch  # noqa: E402
from flax import nnx  # noqa: E402
from record_torch import record as record_torch  # noqa: E402

from vgp_kernels.diagnosis import diagnose  # noqa: E402

WIDTHS = [20, 48, 96, 32, 80, 48, 128, 40, 64, 10]  # no two neighbours alike: a matrix read the other way round is told
SLOPES = {"sigmoid": lambda h: h * (1 - h), "tanh": lambda h: 1 - h**2, "relu": lambda h: (h > 0) * 1.0}
FUNCTIONS = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}
GAINS = {"sigmoid": 1.0, "tanh": 0.5, "relu": 0.8}


def drawn(function):
    """Matrices (in, out), inputs and classes."""
    rng = np.random.default_rng(0)
    std = [(GAINS[function] / m) ** 0.5 for m in WIDTHS[:-1]]
    shapes = zip(std, WIDTHS[:-1], WIDTHS[1:], strict=True)
    weights = [rng.normal(0, s, (m, n)).astype("float32") for s, m, n in shapes]
    return weights, rng.normal(size=(256, WIDTHS[0])).astype("float32"), rng.integers(10, size=256)


def by_torch(function, weights, x, y):
    phi = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[function]
    parts = [part for w in weights for part in (torch.nn.Linear(*w.shape), phi())]
    model = torch.nn.Sequential(*parts[:-1])
    with torch.no_grad():
        for layer, w in zip(model[::2], weights, strict=True):
            layer.weight.copy_(torch.tensor(w.T))
            layer.bias.zero_()
    with record_torch(model, step=0) as recorder:
        torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).backward()
    return recorder.report


def by_keras(function, weights, x, y):
    layers = [keras.layers.Dense(w.shape[1], function) for w in weights[:-1]]
    model = keras.Sequential([keras.Input((WIDTHS[0],)), *layers, keras.layers.Dense(10)])
    for layer, w in zip(model.layers, weights, strict=True):
        layer.kernel.assign(w)
    return record_keras.record(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), x, y, step=0)


class Flax(nnx.Module):
    def __init__(self, function, weights):
        self.layers = nnx.List([nnx.Linear(*w.shape, rngs=nnx.Rngs(0)) for w in weights])
        for layer, w in zip(self.layers, weights, strict=True):
            layer.kernel.set_value(jnp.asarray(w))
        self.phi = getattr(nnx, function)

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = self.phi(layer(x))
        return self.layers[-1](x)


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def by_flax(function, weights, x, y):
    return record_jax.record(lambda m, x, y: cross_entropy(m(x), y), Flax(function, weights), x, y, step=0)


def by_jax(function, weights, x, y):
    """Parameters of one's own, the matrices (out, in)."""
    phi = getattr(nnx, function)

    def loss(params, x, y):
        for w in params[:-1]:
            x = phi(x @ w["a"].T)
        return cross_entropy(x @ params[-1]["a"].T, y)

    return record_jax.record(loss, [{"a": jnp.asarray(w.T)} for w in weights], x, y, step=0)


def number(answer, label):
    return float(next(item["value"] for item in answer["evidence"] if item["label"] == label))


@pytest.mark.parametrize("record", [by_torch, by_keras, by_flax, by_jax])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_factor_is_predicted_from_the_weights_in_any_framework(function, record):
    weights, x, y = drawn(function)
    h, slopes = x, []
    for w in weights[:-1]:
        h = FUNCTIONS[function](h @ w)
        slopes.append((SLOPES[function](h) ** 2).mean() ** 0.5)
    passed = [np.linalg.norm(w) / w.shape[1] ** 0.5 for w in weights]
    # from the last hidden layer to the first: through the matrices between them, at the slopes of the lower ones
    of_weights = np.exp(np.mean(np.log(passed[1:-1])))
    of_slopes = np.exp(np.mean(np.log(slopes[:-1])))
    answer = diagnose(record(function, weights, x, y))
    assert number(answer, "of it, the weights") == pytest.approx(of_weights, rel=5e-3)
    assert number(answer, "of it, the activation’s slope") == pytest.approx(of_slopes, rel=5e-3)
    assert number(answer, "predicted factor per layer") == pytest.approx(of_weights * of_slopes, rel=5e-3)
    assert number(answer, "factor per layer, going back") == pytest.approx(of_weights * of_slopes, rel=0.15)


def test_a_convolution_s_units_are_found_in_any_framework():
    """Kernels of 3 × 3 between unlike numbers of channels, the last of them transposed."""
    channels, rng = [3, 8, 24, 6, 16, 10], np.random.default_rng(0)
    kernels = [
        rng.normal(0, (1 / (9 * m)) ** 0.5, (3, 3, m, n)).astype("float32") for m, n in itertools.pairwise(channels)
    ]
    x, y = rng.normal(size=(4, 12, 12, 3)).astype("float32"), rng.integers(10, size=4)
    passed = [np.linalg.norm(k) / k.shape[3] ** 0.5 for k in kernels]
    wanted = np.exp(np.mean(np.log(passed[1:])))

    kinds = [torch.nn.Conv2d] * 4 + [torch.nn.ConvTranspose2d]
    parts = [
        p for kind, k in zip(kinds, kernels, strict=True) for p in (kind(*k.shape[2:], 3, padding=1), torch.nn.Tanh())
    ]
    model = torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(10 * 144, 10))
    with torch.no_grad():
        for layer, k in zip(model[:10:2], kernels, strict=True):
            transposed = isinstance(layer, torch.nn.ConvTranspose2d)
            layer.weight.copy_(torch.tensor(k).permute((2, 3, 0, 1) if transposed else (3, 2, 0, 1)))
    with record_torch(model, step=0) as recorder:
        torch.nn.functional.cross_entropy(model(torch.tensor(x).permute(0, 3, 1, 2)), torch.tensor(y)).backward()

    kinds = [keras.layers.Conv2D] * 4 + [keras.layers.Conv2DTranspose]
    hidden = [kind(k.shape[3], 3, padding="same", activation="tanh") for kind, k in zip(kinds, kernels, strict=True)]
    network = keras.Sequential([keras.Input(x.shape[1:]), *hidden, keras.layers.Flatten(), keras.layers.Dense(10)])
    for layer, k in zip(hidden, kernels, strict=True):
        layer.kernel.assign(k.swapaxes(2, 3) if isinstance(layer, keras.layers.Conv2DTranspose) else k)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    class Net(nnx.Module):
        def __init__(self):
            kinds = [nnx.Conv] * 4 + [nnx.ConvTranspose]
            self.hidden = nnx.List(
                [kind(*k.shape[2:], (3, 3), rngs=nnx.Rngs(0)) for kind, k in zip(kinds, kernels, strict=True)]
            )
            for layer, k in zip(self.hidden, kernels, strict=True):
                layer.kernel.set_value(jnp.asarray(k))
            self.head = nnx.Linear(10 * 144, 10, rngs=nnx.Rngs(0))

        def __call__(self, x):
            for layer in self.hidden:
                x = jnp.tanh(layer(x))
            return self.head(x.reshape(len(x), -1))

    reports = [
        recorder.report,
        record_keras.record(network, loss, x, y, step=0),
        record_jax.record(lambda m, x, y: cross_entropy(m(x), y), Net(), x, y, step=0),
    ]
    for report in reports:
        assert number(diagnose(report), "of it, the weights") == pytest.approx(wanted, rel=5e-3), report["framework"]
