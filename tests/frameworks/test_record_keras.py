"""The recorder for Keras 3 against hand-written networks and loops, and the diagnosis of networks whose state is known.

Keras is not among the requirements. KERAS_BACKEND chooses the backend, JAX or PyTorch; the other runs in a process of its own.
"""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDERS = ROOT / "docs" / "assets" / "recorders"
INSTALLED = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed: pip install keras jax", allow_module_level=True)
BACKEND = os.environ.get("KERAS_BACKEND") or next(iter(INSTALLED), "none")
if BACKEND not in INSTALLED:
    pytest.skip(
        f"Keras's backend {BACKEND} is not installed, or the recorder does not know it", allow_module_level=True
    )
os.environ["KERAS_BACKEND"] = BACKEND
sys.path[:0] = [str(ROOT), str(RECORDERS)]
if importlib.util.find_spec("numba") is None:  # the diagnosis does without
    package = types.ModuleType("vgp_kernels")
    package.__path__ = [str(ROOT / "vgp_kernels")]
    sys.modules.setdefault("vgp_kernels", package)

import keras  # noqa: E402
import record_keras  # noqa: E402
from keras import layers, ops  # noqa: E402
from record_keras import record  # noqa: E402

from vgp_kernels.diagnosis import diagnose  # noqa: E402

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


def batch(count=32, *shape, classes=10):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *(shape or (20,)))).astype("float32"), rng.integers(classes, size=count)


def mlp(depth, activation, initialiser="he_normal", width=64, classes=10):
    hidden = [layers.Dense(width, activation, kernel_initializer=initialiser) for _ in range(depth)]
    return keras.Sequential([keras.Input((20,)), *hidden, layers.Dense(classes)])


def rows(report, kind, function=None):
    return [row for row in report["layers"] if row["kind"] == kind and function in (None, row["function"])]


def gradients_of(function, arrays):
    """∂E/∂a for each array, by the backend's own differentiation."""
    if BACKEND == "jax":
        import jax

        return [np.asarray(g) for g in jax.grad(lambda a: function(*a))([jax.numpy.asarray(a) for a in arrays])]
    import torch

    tensors = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    return [g.numpy() for g in torch.autograd.grad(function(*tensors), tensors, materialize_grads=True)]


def kernel(layer):
    return [ops.convert_to_numpy(w).astype("float64") for w in layer.weights]


# Against authorities outside of the recorder


def test_signal_and_gradient_are_those_of_a_network_written_by_hand():
    functions = {  # value, slope given the value
        "relu": (lambda z: np.maximum(z, 0), lambda h: (h > 0) * 1.0),
        "tanh": (np.tanh, lambda h: 1 - h**2),
        "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda h: h * (1 - h)),
    }
    model = keras.Sequential([keras.Input((20,)), *[layers.Dense(24, name) for name in functions], layers.Dense(3)])
    x, _ = batch(16)
    y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
    report = record(model, keras.losses.MeanSquaredError(), x, y, step=3)
    h, z_of, h_of = x.astype("float64"), [], []
    for layer in model.layers:
        weight, bias = kernel(layer)
        z_of.append(h @ weight + bias)
        h = functions[layer.activation.__name__][0](z_of[-1]) if layer is not model.layers[-1] else z_of[-1]
        h_of.append(h)
    delta = 2 * (h - y) / y.size
    wanted = {3: (delta, None)}
    for at in (2, 1, 0):
        from_above = delta @ kernel(model.layers[at + 1])[0].T
        delta = from_above * functions[model.layers[at].activation.__name__][1](h_of[at])
        wanted[at] = (delta, from_above)
    linear, activation = rows(report, "linear"), rows(report, "activation")
    assert [row["name"] for row in linear] == [layer.path for layer in model.layers]
    assert [row["function"] for row in activation] == list(functions)
    for at, row in enumerate(linear):
        assert row["gradient"] == pytest.approx(np.linalg.norm(wanted[at][0]), rel=1e-4)
        assert row["rms"] == pytest.approx(np.sqrt((z_of[at] ** 2).mean()), rel=1e-5)
        assert row["mean"] == pytest.approx(z_of[at].mean(), rel=1e-4, abs=1e-6)
        deviation = np.sqrt(((z_of[at] - z_of[at].mean(0)) ** 2).mean() / (z_of[at] ** 2).mean())
        assert row["deviation"] == pytest.approx(deviation, rel=1e-5)
        assert row["shape"] == list(z_of[at].shape) and row["inputs"] == 16
    for at, row in enumerate(activation):
        assert row["gradient"] == pytest.approx(np.linalg.norm(wanted[at][1]), rel=1e-4)
        slope = functions[row["function"]][1](h_of[at])
        assert row["slope"] == pytest.approx((slope**2).mean(), rel=1e-4)
    assert activation[0]["zeros"] == pytest.approx((h_of[0] == 0).mean()) and activation[0]["dead"] == 0
    assert activation[1]["saturated"] == pytest.approx((abs(h_of[1]) > 0.98).mean(), abs=1e-3)
    assert report["loss"] == pytest.approx(((h - y) ** 2).mean(), rel=1e-5)
    assert (report["step"], report["mode"], report["classes"], report["autocast"]) == (3, "train", None, "")
    below = [x.astype("float64"), *h_of]
    for at, layer in enumerate(model.layers):
        weight, bias = (row for row in report["parameters"] if row["name"].startswith(f"{layer.path}/"))
        assert weight["gradient"] == pytest.approx(np.linalg.norm(below[at].T @ wanted[at][0]), rel=1e-4)
        assert bias["gradient"] == pytest.approx(np.linalg.norm(wanted[at][0].sum(0)), rel=1e-4)
        assert weight["weight"] == pytest.approx(np.linalg.norm(kernel(layer)[0]), rel=1e-5)


def test_convolutions_norms_and_skips_have_the_gradient_of_the_network_cut_there():
    inputs = keras.Input((8, 8, 3))
    h = first = layers.Conv2D(6, 3, padding="same")(inputs)
    h = norm = layers.BatchNormalization()(h)
    h = layers.Activation("relu")(h)
    h = skip = layers.Add()([h, first])
    outputs = layers.Dense(4)(layers.GlobalAveragePooling2D()(h))
    model = keras.Model(inputs, outputs)
    x, y = batch(8, 8, 8, 3, classes=4)
    report = record(model, CROSSENTROPY, x, y)
    assert report["classes"] == 4
    for tensor, kind in ((norm, "norm"), (skip, "block")):
        upper = keras.Model([tensor, first], outputs) if kind == "norm" else keras.Model(tensor, outputs)
        lower = keras.Model(inputs, [tensor, first])
        h, below = lower.stateless_call(lower.trainable_variables, lower.non_trainable_variables, x, training=True)[0]
        h, below = ops.convert_to_numpy(h), ops.convert_to_tensor(ops.convert_to_numpy(below))

        def above(h, upper=upper, below=below, kind=kind):
            return CROSSENTROPY(y, upper([h, below] if kind == "norm" else h))

        [row] = rows(report, kind)
        [wanted] = gradients_of(above, [h])
        assert row["gradient"] == pytest.approx(np.linalg.norm(wanted), rel=1e-4)
        assert row["rms"] == pytest.approx(np.sqrt((h**2).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (layers.SimpleRNN, {"unroll": True}),
        (layers.LSTM, {}),
        (layers.LSTM, {"go_backwards": True}),
        (layers.GRU, {"return_sequences": True}),
    ],
)
def test_the_gradient_over_time_is_that_of_an_unrolled_loop(kind, more):
    recurrent = kind(8, **more)
    model = keras.Sequential([keras.Input((7, 3)), recurrent])
    x, _ = batch(5, 7, 3)
    report = record(model, lambda y, h: ops.mean(ops.sum(ops.square(h), axis=-1)), x, np.zeros((5, 1)))

    def loop(*zeros):
        """E with one zero for each state at each step, by the cell alone."""
        states = recurrent.cell.get_initial_state(batch_size=5)
        states, zeros = list(states) if isinstance(states, list | tuple) else [states], list(zeros)
        seen = []
        for t in range(7):
            _, states = recurrent.cell(ops.convert_to_tensor(x[:, 6 - t if more.get("go_backwards") else t]), states)
            states = [s + zeros.pop(0) for s in (states if isinstance(states, list | tuple) else [states])]
            seen.append(ops.mean(ops.sum(ops.square(states[0]), axis=-1)))
        return sum(seen) / 7 if more.get("return_sequences") else seen[-1]

    parts = 2 if kind is layers.LSTM else 1
    gradients = gradients_of(loop, [np.zeros((5, 8), "float32")] * (7 * parts))
    wanted = [np.linalg.norm(gradients[parts * t : parts * t + parts]) for t in range(7)]
    [row] = report["time"]
    assert row["name"] == recurrent.path
    assert row["gradient"] == pytest.approx(wanted, rel=1e-4)
    assert "inner_loop" not in vars(recurrent)


def test_the_gradient_over_time_by_finite_differences():
    recurrent = layers.SimpleRNN(6)
    model = keras.Sequential([keras.Input((5, 3)), recurrent])
    x, _ = batch(1, 5, 3)
    report = record(model, lambda y, h: ops.sum(ops.square(h)), x, np.zeros((1, 1)))
    weight, recurrent_weight, bias = kernel(recurrent)

    def error(step, zero):
        h = np.zeros(6)
        for t in range(5):
            h = np.tanh(x[0, t] @ weight + h @ recurrent_weight + bias) + (zero if t == step else 0)
        return (h**2).sum()

    for t in range(5):
        gradient = [(error(t, e) - error(t, -e)) / 2e-5 for e in 1e-5 * np.eye(6)]
        assert report["time"][0]["gradient"][t] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


def test_masked_steps_stacked_cells_and_both_directions():
    tokens = np.array([[3, 1, 0, 0, 0], [2, 0, 0, 0, 0]])
    cells = layers.StackedRNNCells([layers.GRUCell(4), layers.LSTMCell(5)])
    inputs = keras.Input((5,), dtype="int32")
    h = layers.Embedding(6, 4, mask_zero=True)(inputs)
    outputs = layers.Bidirectional(layers.LSTM(3))(h) + 0.1
    outputs = layers.Concatenate()([outputs, layers.RNN(cells)(h)])
    model = keras.Model(inputs, layers.Dense(2)(outputs))
    plain = ops.convert_to_numpy(model(tokens))
    report = record(model, CROSSENTROPY, tokens, np.array([0, 1]))
    wanted = CROSSENTROPY(np.array([0, 1]), plain)
    assert report["loss"] == pytest.approx(float(ops.convert_to_numpy(wanted)), rel=1e-5)
    assert [len(row["gradient"]) for row in report["time"]] == [2, 2, 2, 2]  # the others are masked in both inputs
    assert all(value > 0 for row in report["time"] for value in row["gradient"])
    assert any("masked" in note for note in report["notes"])


# What the pass leaves behind


def patched():
    places = [(keras.Layer, "__call__"), (keras.Operation, "__call__"), (ops, "relu"), (keras.activations, "tanh")]
    return [vars(owner)[name] for owner, name in places]


def test_nothing_changes_and_nothing_is_left_behind():
    model = keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=1),
            layers.Dense(10),
        ]
    )
    before = [ops.convert_to_numpy(v) for v in model.variables]
    functions, activation = patched(), model.layers[0].activation
    x, y = batch()
    report = record(model, CROSSENTROPY, x, y)
    assert record(model, CROSSENTROPY, x, y) == report  # the dropout's seed has not moved
    assert all(np.array_equal(ops.convert_to_numpy(v), b) for v, b in zip(model.variables, before, strict=True))
    assert patched() == functions and model.layers[0].activation is activation
    assert model.layers[0].activation is keras.activations.relu
    assert [row["kind"] for row in report["layers"]] == ["input", "linear", "activation", "norm", "linear"]


def test_an_error_in_the_pass_leaves_no_patch_and_no_file(tmp_path):
    class Broken(layers.Layer):
        def call(self, x, training=False):
            if training:
                raise KeyError("the reader's own")
            return x

    dense = layers.Dense(4, "relu")
    model = keras.Sequential([keras.Input((20,)), dense, Broken()])
    functions = patched()
    with pytest.raises(KeyError, match="own"):
        record(model, CROSSENTROPY, *batch(), tmp_path / "report.json")
    with pytest.raises(ValueError):  # in the dense layer, while its activation is replaced
        record(model, CROSSENTROPY, batch(32, 5)[0], batch()[1], tmp_path / "report.json")
    assert patched() == functions and dense.activation is keras.activations.relu
    assert not (tmp_path / "report.json").exists()


def test_shared_layers_frozen_ones_and_layers_called_twice():
    shared = layers.Dense(20, "tanh")
    model = keras.Sequential([keras.Input((20,)), shared, layers.Dense(10)])
    inputs = keras.Input((20,))
    last = layers.Dense(10)
    last.trainable = False
    model = keras.Model(inputs, last(shared(shared(inputs))))
    report = record(model, CROSSENTROPY, *batch())
    assert [row["name"] for row in rows(report, "linear")] == [shared.path, shared.path, last.path]
    assert len(rows(report, "activation")) == 2
    assert [row["trainable"] for row in report["parameters"]] == [True, True, False, False]
    assert [row["gradient"] is None for row in report["parameters"]] == [False, False, True, True]


def test_rematerialised_layers_and_activations_that_are_layers():
    with keras.RematScope(mode="full"):
        dense = layers.Dense(6, activation=layers.LeakyReLU())
        model = keras.Sequential([keras.Input((20,)), dense, layers.Dense(10)])
    report = record(model, CROSSENTROPY, *batch())
    seen = [(row["kind"], row["function"]) for row in report["layers"]]
    assert seen == [("input", ""), ("linear", ""), ("activation", "leaky_relu"), ("linear", "")]
    assert all("gradient" in row for row in report["layers"][1:]) and dense._remat_mode is not None


def test_a_layer_called_again_and_again_is_a_loop_over_time():
    class Loop(keras.Model):
        def __init__(self):
            super().__init__()
            self.input_to_h, self.h_to_h, self.head = layers.Dense(8), layers.Dense(8), layers.Dense(10)

        def call(self, x):
            h = ops.zeros((x.shape[0], 8))
            for t in range(x.shape[1]):
                h = ops.tanh(self.input_to_h(x[:, t]) + self.h_to_h(h))
            return self.head(h)

    model = Loop()
    report = record(model, CROSSENTROPY, *batch(16, 9, 3))
    assert [row["name"] for row in report["time"]] == [model.input_to_h.path, model.h_to_h.path]
    assert report["time"][0]["gradient"] == pytest.approx(report["time"][1]["gradient"], rel=1e-5)  # the same sum
    assert [row["name"] for row in rows(report, "linear")] == [model.head.path]


def test_functions_operations_and_layers_without_a_class_of_keras():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(8), layers.Dense(10)

        def call(self, x):
            h = ops.relu(self.first(x))
            return self.second(keras.activations.gelu(h) + ops.stop_gradient(h))

    report = record(Own(), CROSSENTROPY, *batch())  # which builds it
    seen = [(row["kind"], row["function"]) for row in report["layers"]]
    assert seen[1:] == [
        ("linear", ""),
        ("activation", "relu"),
        ("activation", "gelu"),
        ("operation", "detach"),
        ("linear", ""),
    ]
    inputs = keras.Input((20,))
    model = keras.Model(inputs, layers.Dense(10)(layers.LeakyReLU()(ops.relu(layers.Dense(8)(inputs)))))
    report = record(model, CROSSENTROPY, *batch())
    assert [row["function"] for row in rows(report, "activation")] == ["relu", "leaky_relu"]


def test_mixed_precision_and_a_scaled_loss():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp(2, "relu")
        model.compile("adam", CROSSENTROPY)
    finally:
        keras.config.set_dtype_policy("float32")
    report = record(model, CROSSENTROPY, *batch())
    assert report["autocast"] == "float16" and report["scale"] == 2.0**15
    assert {row["dtype"] for row in report["parameters"]} == {"float32"}
    assert diagnose(report)["verdict"] == "healthy"


def test_a_report_keeps_to_its_schema(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((RECORDERS / "report.schema.json").read_text())
    model = keras.Sequential([keras.Input((6, 20)), layers.GRU(8), layers.Dense(10, "sigmoid")])
    for number in (1.0, np.nan, np.inf):
        x, y = batch(32, 6, 20)
        record(model, CROSSENTROPY, number * x, y, tmp_path / "report.json", step=0)
        text = (tmp_path / "report.json").read_text()
        assert "NaN" not in text and "Infinity" not in text
        jsonschema.validate(json.loads(text), schema)


# What is said of networks whose state is known


def test_a_healthy_mlp_has_nothing():
    assert diagnose(record(mlp(8, "relu"), CROSSENTROPY, *batch(), step=0))["kind"] == "nothing_found"


def test_a_deep_sigmoid_network_vanishes():
    answer = diagnose(record(mlp(12, "sigmoid", "glorot_uniform"), CROSSENTROPY, *batch(), step=0))
    assert answer["kind"] == "vanishing" and answer["certainty"] == "certain"


def test_a_dead_layer_is_named():
    model = mlp(6, "relu")
    model.layers[3].bias.assign(np.full(64, -100.0))
    answer = diagnose(record(model, CROSSENTROPY, *batch(), step=0))
    assert answer["kind"] == "dead_layer" and answer["layers"] == [model.layers[3].path]


def test_a_frozen_body_is_no_illness_and_all_frozen_is():
    model = mlp(7, "relu")
    for layer in model.layers[:-1]:
        layer.trainable = False
    assert diagnose(record(model, CROSSENTROPY, *batch(), step=0))["kind"] == "nothing_found"
    model.trainable = False
    assert diagnose(record(model, CROSSENTROPY, *batch(), step=0))["kind"] == "all_frozen"


def test_what_is_cut_off_is_not_connected():
    inputs = keras.Input((20,))
    h = layers.Dense(16, "relu")(layers.Dense(16, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(10)(ops.stop_gradient(h)))
    report = record(model, CROSSENTROPY, *batch(), step=0)
    assert [row["gradient"] is None for row in report["parameters"]] == [True] * 4 + [False] * 2
    answer = diagnose(report)
    assert answer["kind"] == "not_connected" and "detach" in answer["why"]


def test_where_nan_arises():
    model = mlp(3, "relu")
    assert diagnose(record(model, CROSSENTROPY, batch()[0] * np.nan, batch()[1]))["kind"] == "nonfinite_input"
    answer = diagnose(record(model, lambda y, z: ops.mean(ops.log(z - 1e3)), *batch()))
    assert answer["layers"] == ["the loss"] and answer["kind"] == "nonfinite_signal"  # the function log, in the loss
    root = lambda y, z: ops.mean(ops.sqrt(0 * z))  # noqa: E731
    answer = diagnose(record(model, root, *batch()))
    assert answer["kind"] == "nonfinite_gradient"
    model.layers[1].kernel.assign(np.full((64, 64), np.nan))
    answer = diagnose(record(model, CROSSENTROPY, *batch()))
    assert answer["kind"] == "nonfinite_weights" and answer["layers"] == [model.layers[1].kernel.path]


def test_networks_with_norms_convolutions_and_embeddings_are_well():
    hidden = [part for _ in range(6) for part in (layers.Dense(64), layers.BatchNormalization(), layers.ReLU())]
    normed = keras.Sequential([keras.Input((20,)), *hidden, layers.Dense(10)])
    assert diagnose(record(normed, CROSSENTROPY, *batch(), step=0))["kind"] == "nothing_found"
    convolutions = [layers.Conv2D(n, 3, activation="relu", padding="same") for n in (8, 16)]
    cnn = [
        keras.Input((8, 8, 1)),
        convolutions[0],
        layers.MaxPooling2D(),
        convolutions[1],
        layers.Flatten(),
        layers.Dense(10),
    ]
    assert diagnose(record(keras.Sequential(cnn), CROSSENTROPY, *batch(32, 8, 8, 1), step=0))["kind"] == "nothing_found"
    tokens = np.random.default_rng(0).integers(50, size=(32, 7))
    words = [keras.Input((7,), dtype="int32"), layers.Embedding(50, 16), layers.GlobalAveragePooling1D()]
    words = keras.Sequential([*words, layers.Dense(32, "relu"), layers.Dense(10)])
    report = record(words, CROSSENTROPY, tokens, batch()[1], step=0)
    assert diagnose(report)["kind"] == "nothing_found" and len(rows(report, "embedding")) == 1


def test_a_transformer_is_well():
    h = inputs = keras.Input((6, 16))
    for _ in range(4):
        g = layers.LayerNormalization()(h)
        h = h + layers.MultiHeadAttention(2, 8)(g, g)
        g = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.Dense(16)(layers.Dense(32, "gelu")(g))])
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(h)))
    report = record(model, CROSSENTROPY, *batch(16, 6, 16), step=0)
    assert (len(rows(report, "attention")), len(rows(report, "norm")), len(rows(report, "block"))) == (4, 8, 8)
    assert diagnose(report)["kind"] == "nothing_found"


def test_recurrent_networks_over_time():
    def network(cell):
        return keras.Sequential([keras.Input((60, 4)), cell, layers.Dense(10)])

    forgetful = layers.SimpleRNN(16, recurrent_initializer=keras.initializers.Orthogonal(gain=0.6))
    answer = diagnose(record(network(forgetful), CROSSENTROPY, *batch(16, 60, 4), step=0))
    assert answer["kind"] == "vanishing_in_time" and answer["layers"] == [forgetful.path]
    lasting = layers.LSTM(16)
    model = network(lasting)
    bias = ops.convert_to_numpy(lasting.cell.bias).copy()
    bias[16:32] = 5  # the forget gate is open
    lasting.cell.bias.assign(bias)
    assert diagnose(record(model, CROSSENTROPY, *batch(16, 60, 4), step=0))["kind"] == "nothing_found"


def test_outputs_at_their_ends_and_heads_that_are_too_large():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    x, _ = batch()
    y = np.random.default_rng(1).integers(2, size=(32, 1))
    answer = diagnose(record(model, keras.losses.BinaryCrossentropy(), 1000 * x, y, step=0))
    assert answer["kind"] == "saturated_output" and answer["layers"] == [model.layers[-1].path]
    model = mlp(6, "relu")
    model.layers[-1].kernel.assign(100 * ops.convert_to_numpy(model.layers[-1].kernel))
    answer = diagnose(record(model, CROSSENTROPY, *batch(), step=0))
    assert answer["kind"] == "output_scale" and answer["layers"] == [model.layers[-1].path]


def test_the_softmax_twice_and_once_and_never():
    def network(*activation):
        return keras.Sequential([keras.Input((20,)), layers.Dense(32, "relu"), layers.Dense(10, *activation)])

    probabilities = keras.losses.SparseCategoricalCrossentropy()
    assert diagnose(record(network("softmax"), CROSSENTROPY, *batch(), step=0))["kind"] == "softmax_twice"
    report = record(network("softmax"), probabilities, *batch(), step=0)
    assert diagnose(report)["kind"] == "nothing_found" and report["notes"] == []
    report = record(network(), "sparse_categorical_crossentropy", *batch(), step=0)
    assert any("from_logits" in note for note in report["notes"]) and report["classes"] == 10
    model = keras.Sequential([keras.Input((20,)), layers.Dense(32, "relu"), layers.Dense(1, "softmax")])
    answer = diagnose(record(model, keras.losses.MeanSquaredError(), batch()[0], np.zeros((32, 1)), step=0))
    assert answer["kind"] == "constant_output"


def test_a_backend_that_is_not_known_is_named(monkeypatch):
    monkeypatch.setattr(record_keras, "PASSES", {})
    with pytest.raises(NotImplementedError, match=f"{BACKEND}.*snippet"):
        record(mlp(1, "relu"), CROSSENTROPY, *batch())


@pytest.mark.skipif("RECORD_KERAS_INNER" in os.environ, reason="this is the other backend's run")
@pytest.mark.parametrize("backend", [name for name in ("jax", "torch") if name != BACKEND])
def test_the_other_backend_passes_the_same_tests(backend):
    if backend not in INSTALLED:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull]
    command += ["--rootdir", str(ROOT / "tests" / "frameworks"), __file__]
    environment = os.environ | {"KERAS_BACKEND": backend, "RECORD_KERAS_INNER": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
