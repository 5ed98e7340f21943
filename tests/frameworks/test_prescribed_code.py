"""The code of each prescription, run as it stands in PyTorch, Keras and JAX: it does what the change says.

None of the frameworks is among the requirements: what is not installed is skipped by name.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import ClassVar

import pytest

for name in ("torch", "keras", "jax", "flax"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: see `make frameworks`", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "assets" / "recorders")]
os.environ.setdefault("KERAS_BACKEND", "jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
from flax import nnx  # noqa: E402

from vgp_kernels.diagnosis import diagnose  # noqa: E402
from vgp_kernels.diagnosis.kinds import CODE, KINDS  # noqa: E402

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 20)).astype("float32"), RNG.integers(10, size=64)


def optax_loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


class PyTorch:
    names: ClassVar = {"torch": torch, "criterion": torch.nn.functional.cross_entropy}
    tensor = staticmethod(torch.tensor)

    @staticmethod
    def array(x):
        return x.detach().numpy()

    @staticmethod
    def slope(function, x):
        x = torch.tensor(x, requires_grad=True)
        function(x).sum().backward()
        return x.grad.numpy()

    @staticmethod
    def layer(inputs, units):
        layer = torch.nn.Linear(inputs, units)
        torch.nn.init.constant_(layer.bias, 1.0)
        return layer

    @staticmethod
    def kernel(layer):
        return layer.weight.detach().numpy().T

    @classmethod
    def mlp(cls):
        return torch.nn.Sequential(
            cls.layer(20, 200), torch.nn.ReLU(), cls.layer(200, 300), torch.nn.ReLU(), cls.layer(300, 10)
        )

    @staticmethod
    def without_biases():
        return torch.nn.Sequential(torch.nn.Linear(400, 300, bias=False))

    @staticmethod
    def layers(model):
        return [layer for layer in model if isinstance(layer, torch.nn.Linear)]

    @staticmethod
    def weights(model):
        return [p.detach().numpy().copy() for p in model.parameters()]

    @classmethod
    def trained(cls, model):
        """The names that one step of training needs, after the gradient and before the step."""
        cls.names["criterion"](model(torch.tensor(X)), torch.tensor(Y)).backward()
        return {"optimiser": torch.optim.Adam(model.parameters(), 1e-2)}


class Keras:
    names: ClassVar = {"keras": keras, "criterion": CROSSENTROPY}
    tensor = staticmethod(keras.ops.convert_to_tensor)
    array = staticmethod(keras.ops.convert_to_numpy)

    @staticmethod
    def slope(function, x):
        return np.asarray(jax.grad(lambda x: function(x).sum())(jnp.asarray(x)))

    @staticmethod
    def layer(inputs, units, activation=None):
        layer = keras.layers.Dense(units, activation, bias_initializer="ones")
        layer.build((None, inputs))
        return layer

    @staticmethod
    def kernel(layer):
        return keras.ops.convert_to_numpy(layer.kernel)

    @classmethod
    def mlp(cls):
        hidden = [cls.layer(20, 200, "relu"), cls.layer(200, 300, "relu")]
        model = keras.Sequential([keras.Input((20,)), *hidden, cls.layer(300, 10)])
        model.compile(keras.optimizers.Adam(1e-2), CROSSENTROPY)
        return model

    @staticmethod
    def without_biases():
        return keras.Sequential([keras.Input((400,)), keras.layers.Dense(300, use_bias=False)])

    @staticmethod
    def layers(model):
        return model.layers

    @staticmethod
    def weights(model):
        return [keras.ops.convert_to_numpy(v) for v in model.variables]

    @staticmethod
    def trained(model):
        return {}


class Jax:
    names: ClassVar = {"jax": jax, "jnp": jnp, "nnx": nnx, "optax": optax, "loss": optax_loss}
    tensor = staticmethod(jnp.asarray)
    array = staticmethod(np.asarray)
    slope = staticmethod(Keras.slope)

    @staticmethod
    def layer(inputs, units):
        return nnx.Linear(inputs, units, bias_init=nnx.initializers.ones, rngs=nnx.Rngs(0))

    @staticmethod
    def kernel(layer):
        return np.asarray(layer.kernel[...])

    @classmethod
    def mlp(cls):
        return nnx.Sequential(cls.layer(20, 200), nnx.relu, cls.layer(200, 300), nnx.relu, cls.layer(300, 10))

    @staticmethod
    def without_biases():
        return nnx.Sequential(nnx.Linear(400, 300, use_bias=False, rngs=nnx.Rngs(0)))

    @staticmethod
    def layers(model):
        return [layer for layer in model.layers if isinstance(layer, nnx.Linear)]

    @staticmethod
    def weights(model):
        return [np.asarray(w) for w in jax.tree.leaves(nnx.state(model, nnx.Param))]

    @staticmethod
    def trained(model):
        return {
            "optimiser": nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param),
            "gradients": nnx.grad(optax_loss)(model, X, Y),
        }


def run(code, side, **names):
    """The names after the code has run with these, and what it has printed."""
    names, said = {"math": math, **side.names, **names}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "prescription", "exec"), names)
    return names, said.getvalue()


def error(model, side):
    logits = side.array(model(side.tensor(X))).astype("float64")
    return crossentropy(logits, Y)


def crossentropy(logits, target):
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(target)), target])


def size_of_a_step_s_gradient(side, code, **more):
    """The norm that Adam sees in its first step, of a gradient made a million times as large."""
    model = side.mlp()
    if side is PyTorch:
        (1e6 * torch.nn.functional.cross_entropy(model(torch.tensor(X)), torch.tensor(Y))).backward()
        names, _ = run(code, side, model=model, **more)
        return names, np.sqrt(sum((p.grad**2).sum().item() for p in model.parameters()))
    names, _ = run(code, side, model=model, **more)
    if side is Keras:
        optimizer = model.optimizer
        optimizer.apply([1e6 * keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
        moments = [keras.ops.convert_to_numpy(v) for v in optimizer.variables if v.path.endswith("_momentum")]
    else:
        names["optimiser"].update(model, jax.tree.map(lambda w: 1e6 * jnp.ones_like(w), nnx.state(model, nnx.Param)))
        moments = [np.asarray(m) for m in jax.tree.leaves(names["optimiser"].opt_state[1][0].mu)]
    assert len(moments) == 6
    return names, np.sqrt(sum((m**2).sum() for m in moments)) / 0.1  # β₁ = 0.9


def clip(side, code, tmp_path):
    assert size_of_a_step_s_gradient(side, code)[1] == pytest.approx(1, rel=1e-3)


def finite(side, code, tmp_path):
    run(code, side, x=side.tensor(X))
    for bad in (np.nan, np.inf):
        with pytest.raises(AssertionError):
            run(code, side, x=side.tensor(np.where(np.arange(20) == 3, np.float32(bad), X)))


def guard(side, code, tmp_path):
    x = np.array([0.0, 1e-3, 2.0], "float32")
    y = side.array(run(code, side, x=side.tensor(x))[0]["y"])
    assert y[1:] == pytest.approx(np.log(x[1:]), rel=1e-5) and np.isfinite(y[0])
    assert np.isfinite(side.slope(lambda x: run(code, side, x=x)[0]["y"], x)).all()


def logits(side, code, tmp_path):
    z = RNG.normal(size=(8, 5)).astype("float32") * 100  # where log(softmax(z)) is −∞
    names, _ = run(code, side, logits=side.tensor(z), target=side.tensor(Y[:8] % 5))
    centred = z.astype("float64") - z.max(1, keepdims=True)
    assert float(names["loss"]) == pytest.approx(crossentropy(centred, Y[:8] % 5), rel=1e-5)


def where(side, code, tmp_path):
    x = np.array([-1.0, 0.0, 4.0], "float32")
    assert side.array(run(code, side, x=side.tensor(x))[0]["y"]).tolist() == [0, 0, 2]
    assert side.slope(lambda x: run(code, side, x=x)[0]["y"], x).tolist() == [0, 0, 0.25]


def first_bad(side, code, tmp_path):
    if side is PyTorch:
        model = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.ReLU())
        criterion = lambda h, y: (h * 0).sqrt().sum()  # noqa: E731
        with pytest.raises(RuntimeError, match=r"MulBackward0.*nan"):
            run(code, side, model=model, criterion=criterion, x=torch.tensor(X), y=torch.tensor(Y))
    elif side is Keras:
        layers = [keras.layers.Dense(10), keras.layers.Activation(lambda h: keras.ops.log(0 * h), name="bad")]
        model = keras.Sequential([keras.Input((20,)), *layers, keras.layers.Dense(10)])
        said = run(code, side, model=model, x=X)[1].split()
        assert said[1::2] == ["True", "False", "False"] and said[2] == "bad"
    else:
        with pytest.raises(FloatingPointError, match="nan"):
            run(code, side, model=side.mlp(), loss=lambda m, x, y: jnp.sqrt(0 * m(x)).sum(), x=X, y=Y)


def unfreeze(side, code, tmp_path):
    model = side.mlp()
    if side is PyTorch:
        model.requires_grad_(False)
        run(code, side, model=model)
        assert all(p.requires_grad for p in model.parameters())
    elif side is Keras:
        for layer in model.layers:
            layer.trainable = False
        before = side.weights(model)
        run(code, side, model=model)
        model.train_on_batch(X, Y)
        assert all((a != b).any() for a, b in zip(before, side.weights(model), strict=True))
    else:
        gradients = run(code, side, model=model, x=X, y=Y)[0]["gradients"]
        assert [g.shape for g in jax.tree.leaves(gradients)] == [w.shape for w in side.weights(model)]


def connect(side, code, tmp_path):
    if side is PyTorch:
        block = side.layer(20, 5)
        run(code, side, block=block, x=torch.tensor(X))[0]["y"].sum().backward()
        assert block.weight.grad is not None
    elif side is Keras:
        x = np.array([-1.0, 2.0], "float32")
        assert side.slope(lambda x: run(code, side, x=x)[0]["y"], x).tolist() == [0, 1]
    else:
        cut = lambda m, x, y: optax_loss(lambda x: jax.lax.stop_gradient(m(x)), x, y)  # noqa: E731
        assert "stop_gradient" in run(code, side, model=side.mlp(), loss=cut, x=X, y=Y)[1]
        chosen = lambda m, x, y: jnp.argmax(m(x), -1).sum() * 1.0  # noqa: E731
        assert "argmax" in run(code, side, model=side.mlp(), loss=chosen, x=X, y=Y)[1]
        simple = lambda m, x, y: (m(x) ** 2).mean()  # noqa: E731
        assert "argmax" not in run(code, side, model=side.mlp(), loss=simple, x=X, y=Y)[1]


def freeze(side, code, tmp_path):
    if side is PyTorch:
        parameter = side.layer(3, 4).weight
        run(code, side, parameter=parameter)
        assert not parameter.requires_grad
    elif side is Keras:
        layer = side.layer(3, 4)
        run(code, side, layer=layer)
        assert layer.trainable_weights == []
    else:
        params, labels = {"a": jnp.ones(3), "b": jnp.ones(3)}, {"a": "train", "b": "freeze"}
        optimiser = run(code, side, labels=labels)[0]["optimiser"]
        updates, _ = optimiser.update(params, optimiser.init(params), params)
        assert (updates["a"] != 0).all() and (updates["b"] == 0).all()


def list_missing(side, code, tmp_path):
    model = side.mlp()
    if side is PyTorch:
        model[2:](torch.ones(1, 200)).sum().backward()
        assert run(code, side, model=model)[1] == "['0.weight', '0.bias']\n"
    else:
        said = run(code, side, model=model)[1]
        assert said.count("kernel") == said.count("bias") == 3


def bce(side, code, tmp_path):
    z, y = np.array([[-2.0], [0.5]], "float32"), np.array([[1.0], [0.0]], "float32")
    found = run(code, side, output=side.tensor(z), target=side.tensor(y))[0]["loss"]
    p = 1 / (1 + np.exp(-z))
    assert float(found) == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-5)
    slope = side.slope(lambda z: run(code, side, output=z, target=side.tensor(y))[0]["loss"], z)
    assert slope == pytest.approx((p - y) / 2, rel=1e-4)


def straight(side, code, tmp_path):
    x = np.array([-3.0, 0.2, 2.0], "float32")
    assert side.array(run(code, side, x=side.tensor(x))[0]["y"]) == pytest.approx(np.sign(x))
    assert side.slope(lambda x: run(code, side, x=x)[0]["y"], x).tolist() == [1, 1, 1]


def drawn(side, layer, variance):
    """Independent weights of this variance, biases 0; the variance of 40,000 numbers is known to a hundredth."""
    kernel = side.kernel(layer)
    assert kernel.var() == pytest.approx(variance, rel=4 * (2 / kernel.size) ** 0.5)
    assert abs(kernel.mean()) < 4 * (variance / kernel.size) ** 0.5
    assert (side.array(layer.bias) == 0).all()


def he(side, code, tmp_path):
    layer = side.layer(400, 300)
    run(code, side, layer=layer)
    drawn(side, layer, 2 / 400)


def he_everywhere(side, code, tmp_path):
    model = side.mlp()
    run(code, side, model=model)
    for layer, inputs in zip(side.layers(model), (20, 200, 300), strict=True):
        drawn(side, layer, 2 / inputs)
    model = side.without_biases()
    run(code, side, model=model)
    assert side.kernel(side.layers(model)[0]).var() == pytest.approx(2 / 400, rel=0.02)


def step(side, code, tmp_path):
    model = side.mlp()
    before = side.weights(model)
    run(code, side, model=model, x=X, y=Y, **side.trained(model))
    assert all((a != b).any() for a, b in zip(before, side.weights(model), strict=True))


def scaler(side, code, tmp_path):
    model = side.mlp()
    if side is PyTorch:
        loss = side.names["criterion"](model(torch.tensor(X)), torch.tensor(Y))
        [wanted, *_] = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        names, _ = run(code, side, loss=loss)
        assert torch.allclose(model[0].weight.grad, wanted * names["scaler"].get_scale())
        assert names["scaler"].get_scale() == 2**16
    elif side is Keras:
        run(code, side, model=model)
        assert float(model.optimizer.scale_loss(keras.ops.ones(()))) == 2**15
        before = side.weights(model)
        model.train_on_batch(X, Y)
        moved = [abs(a - b).max() for a, b in zip(before, side.weights(model), strict=True)]
        assert moved[:6] == pytest.approx([1e-3] * 6, rel=0.05)  # Adam's step, as without the scale
    else:
        names, _ = run(code, side, model=model, x=X, y=Y)
        wanted = nnx.grad(optax_loss)(model, X, Y)
        for g, s, w in zip(*map(jax.tree.leaves, (names["gradients"], names["scaled"], wanted)), strict=True):
            assert jnp.allclose(g, w, rtol=1e-4, atol=1e-8) and jnp.allclose(s, 2.0**15 * w, rtol=1e-4, atol=1e-3)


def scaled_input(side, x):
    x = side.array(x)
    assert abs(x.mean(0)).max() < 1e-5 and x.std(0) == pytest.approx(np.ones(x.shape[1]), rel=0.01)


def tensor_or_array(side, x):
    return x if side is Keras else side.tensor(x)


def xavier(side, code, tmp_path):
    layer = side.layer(400, 300)
    names, _ = run(code, side, layer=layer, x=tensor_or_array(side, 100 * X + 7))
    drawn(side, layer, 2 / 700)
    scaled_input(side, names["x"])


def small_last(side, code, tmp_path):
    last = side.layer(400, 300)
    names, _ = run(code, side, last=last, x=tensor_or_array(side, 100 * X + 7))
    kernel = side.kernel(last)
    assert abs(kernel).max() <= 3e-3 and kernel.std() == pytest.approx(3e-3 / 3**0.5, rel=0.02)
    scaled_input(side, names["x"])


def head(side, code, tmp_path):
    head = side.layer(400, 300)
    run(code, side, head=head)
    assert side.kernel(head).std() == pytest.approx(400**-0.5, rel=0.02)


def forget(side, code, tmp_path):
    """With all other weights 0 and no input a cell state of 1 becomes σ(ln 60) = 60/61."""
    state = np.ones((1, 3), "float32")
    if side is PyTorch:
        lstm = torch.nn.LSTM(2, 3, batch_first=True)
        for p in lstm.parameters():
            torch.nn.init.zeros_(p)
        run(code, side, lstm=lstm, steps=60)
        _, (_, c) = lstm(torch.zeros(1, 1, 2), (torch.zeros(1, 1, 3), torch.tensor(state)[None]))
        c = c[0].detach().numpy()
    elif side is Keras:
        lstm = keras.layers.LSTM(3)
        lstm.build((None, 5, 2))
        for v in lstm.variables:
            v.assign(keras.ops.zeros(v.shape))
        run(code, side, lstm=lstm, steps=60)
        _, (_, c) = lstm.cell(keras.ops.zeros((1, 2)), [keras.ops.zeros((1, 3)), keras.ops.convert_to_tensor(state)])
    else:
        cell = nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0))
        nnx.update(cell, jax.tree.map(jnp.zeros_like, nnx.state(cell, nnx.Param)))
        run(code, side, cell=cell, steps=60)
        (c, _), _ = cell((jnp.asarray(state), jnp.zeros((1, 3))), jnp.zeros((1, 2)))
    assert np.asarray(c) == pytest.approx(np.full((1, 3), 60 / 61), rel=1e-5)


def orthogonal(side, code, tmp_path):
    if side is PyTorch:
        rnn = torch.nn.RNN(4, 32)
        names: ClassVar = {"rnn": rnn}
    elif side is Keras:
        rnn = keras.layers.SimpleRNN(32, recurrent_initializer="he_normal")
        rnn.build((None, 5, 4))
        names: ClassVar = {"rnn": rnn}
    else:
        names: ClassVar = {
            "cell": nnx.SimpleCell(4, 32, recurrent_kernel_init=nnx.initializers.he_normal(), rngs=nnx.Rngs(0))
        }
    names, size = size_of_a_step_s_gradient(side, code, **names)
    w = rnn.weight_hh_l0.detach().numpy() if side is PyTorch else np.asarray(names["recurrent"][...])
    assert w @ w.T == pytest.approx(np.eye(32), abs=1e-5)
    assert size == pytest.approx(1, rel=1e-3)


def compare(side, code, tmp_path):
    layer, neighbour = side.layer(9, 8), side.layer(7, 6)
    said = run(code, side, layer=layer, neighbour=neighbour)[1]
    wanted = [np.linalg.norm(side.kernel(one)) for one in (layer, neighbour)]
    assert [float(norm) for norm in re.findall(r"\d+\.\d+", said)] == pytest.approx(wanted, rel=1e-4)


def record(side, code, tmp_path):
    with contextlib.chdir(tmp_path):
        run(code, side, model=side.mlp(), x=side.tensor(X), y=side.tensor(Y))
    report = json.loads((tmp_path / "report.json").read_text())
    assert diagnose(report)["verdict"] == "healthy"
    assert report["framework"].startswith({PyTorch: "PyTorch", Keras: "Keras", Jax: "JAX"}[side])


def one_batch(side, code, tmp_path):
    model = side.mlp()
    before = error(model, side)
    run(code, side, model=model, x=side.tensor(X), y=side.tensor(Y), **side.trained(model))
    assert error(model, side) < 0.05 * before


SIDES = {"PyTorch": PyTorch, "Keras": Keras, "JAX": Jax}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("framework", SIDES)
@pytest.mark.parametrize("name", CODE)
def test_the_code_does_what_the_change_says(name, framework, tmp_path):
    globals()[name](SIDES[framework], CODE[name][framework], tmp_path)


def test_each_code_is_there_for_all_frameworks_and_is_prescribed():
    assert all(list(texts) == list(SIDES) for texts in CODE.values())
    assert set(CODE) == {kind["code"] for kind in KINDS.values()} - {""}
