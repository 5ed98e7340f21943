"""The recorder for JAX against JAX's own gradients and NumPy, and the diagnosis against networks whose state is known.

JAX and Flax are not among the requirements: the tests are skipped where they are missing.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import pytest

for name in ("jax", "flax"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install jax==0.10.2 flax==0.12.8", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "docs" / "assets" / "recorders")]
if importlib.util.find_spec("numba") is None:  # the diagnosis needs none, the package round it does
    sys.modules["vgp_kernels"] = types.ModuleType("vgp_kernels")
    sys.modules["vgp_kernels"].__path__ = [str(ROOT / "vgp_kernels")]
else:
    sys.path[:0] = [str(ROOT)]

# compiling for the CPU takes most of the time; a few cores are enough
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true --xla_cpu_multi_thread_eigen=false")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import linen, nnx  # noqa: E402
from record_jax import record  # noqa: E402

from vgp_kernels.diagnosis import diagnose  # noqa: E402

CLOSE = 2e-5  # relative: sums of some thousand float32 numbers in another order
KEY = jax.random.key(0)
X, Y = jax.random.normal(jax.random.key(1), (32, 20)), jnp.arange(32) % 10


def mlp(depth=8, width=64, gain=2.0, head=1.0):
    """`depth` hidden layers and a head: weight variances gain / fan-in and head / fan-in, biases 0."""
    sizes = [20] + [width] * depth + [10]
    keys = jax.random.split(KEY, depth + 1)
    gains = [gain] * depth + [head]
    return [
        {"w": jax.random.normal(key, (m, n)) * (g / m) ** 0.5, "b": jnp.zeros(n)}
        for key, m, n, g in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)
    ]


def cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean()


def network(params, x, phi=jax.nn.relu):
    for layer in params[:-1]:
        x = phi(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def loss(params, x, y):
    return cross_entropy(network(params, x), y)


def rows(report, kind):
    return [row for row in report["layers"] if row["kind"] == kind]


def close(found, wanted):
    return found == pytest.approx(float(wanted), rel=CLOSE, abs=1e-30)


def gradients(report):
    return {row["name"].removesuffix(" (bias)"): row["gradient"] for row in report["parameters"]}


def agrees_with_jax(report, loss, params, *batch, names=None):
    """The loss and the norm of each parameter's gradient are those of jax.value_and_grad."""
    value, wanted = jax.value_and_grad(loss)(params, *batch)
    assert close(report["loss"], value)
    found = sorted(row["gradient"] for row in report["parameters"])
    norms = sorted(float(jnp.linalg.norm(g)) for g in jax.tree.leaves(wanted))
    assert found == pytest.approx(norms, rel=1e-4, abs=1e-6)  # sums that cancel: the bias of a key has gradient 0


def explicit(params, x, phi, taps):
    """The network again, with a term added to each output: ∂E/∂(term) is ∂E/∂h."""
    outputs, h = [], x
    for i, layer in enumerate(params):
        h = h @ layer["w"] + layer["b"] + taps[2 * i]
        outputs.append(h)
        if i < len(params) - 1:
            h = phi(h) + taps[2 * i + 1]
            outputs.append(h)
    return h, outputs


@pytest.mark.parametrize("phi", [jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jax.nn.gelu, jax.nn.elu])
def test_signal_and_gradient_are_those_of_a_network_written_out(phi):
    params = mlp(5)
    report = record(lambda p, x, y: cross_entropy(network(p, x, phi), y), params, X, Y, step=3)
    taps = [jnp.zeros((32, 64))] * 10 + [jnp.zeros((32, 10))]
    gradient = jax.grad(lambda taps: cross_entropy(explicit(params, X, phi, taps)[0], Y))(taps)
    _, outputs = explicit(params, X, phi, taps)
    kinds = ["input"] + ["linear", "activation"] * 5 + ["linear"]
    assert [row["kind"] for row in report["layers"]] == kinds
    assert [row["name"] for row in rows(report, "linear")] == ["0", "1", "2", "3", "4", "5"]
    function = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}.get(phi.__name__, phi.__name__)
    assert {row["function"] for row in rows(report, "activation")} == {function}
    for row, g, h in zip(report["layers"][1:], gradient, outputs, strict=True):
        h = np.asarray(h, np.float64)
        rms = np.sqrt(np.mean(h**2))
        assert row["shape"] == list(h.shape) and row["inputs"] == 32
        assert row["gradient"] == pytest.approx(float(np.linalg.norm(g)), rel=1e-4)
        assert row["rms"] == pytest.approx(rms, rel=1e-5) and row["mean"] == pytest.approx(h.mean(), rel=1e-3, abs=1e-6)
        assert row["deviation"] == pytest.approx(np.sqrt(np.mean((h - h.mean(0)) ** 2)) / rms, rel=1e-4)
        if row["kind"] == "activation":
            assert close(row["zeros"], np.mean(h == 0)) and close(row["dead"], np.mean(np.all(h == 0, 0)))
        if function == "tanh" and row["kind"] == "activation":
            assert row["slope"] == pytest.approx(np.mean((1 - h**2) ** 2), rel=1e-4)
            assert row["saturated"] == pytest.approx(np.mean(np.abs(h) > 0.98), abs=1e-3)
    assert (report["classes"], report["step"]) == (10, 3)


def test_loss_and_gradients_are_those_of_value_and_grad():
    params = mlp(4)
    value, wanted = jax.jit(jax.value_and_grad(loss))(params, X, Y)
    report = record(loss, params, X, Y)
    assert close(report["loss"], value)
    for i, layer in enumerate(wanted):
        for key, g in layer.items():
            assert close(gradients(report)[f"{i}.{key}"], jnp.linalg.norm(g))


def test_parameters_stand_in_the_order_of_the_calls_with_biases_marked():
    names = [row["name"] for row in record(loss, mlp(1), X, Y)["parameters"]]
    assert names == ["0.w", "0.b (bias)", "1.w", "1.b (bias)"]


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_jit_and_remat_within_the_loss_are_looked_into(wrap):
    params = mlp(4)
    plain, wrapped = record(loss, params, X, Y), record(lambda p, x, y: wrap(loss)(p, x, y), params, X, Y)
    assert [row["name"] for row in plain["layers"]] == [row["name"] for row in wrapped["layers"]]
    for row, other in zip(plain["layers"][1:], wrapped["layers"][1:], strict=True):
        assert close(row["gradient"], other["gradient"]) and close(row["rms"], other["rms"])


def test_a_function_of_one_input_mapped_over_the_batch_has_the_batch_s_statistics():
    params = [{"w": layer["w"].T, "b": layer["b"]} for layer in mlp(4)]

    def one(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(layer["w"] @ x + layer["b"])
        return params[-1]["w"] @ x + params[-1]["b"]

    mapped = record(lambda p, x, y: cross_entropy(jax.vmap(one, (None, 0))(p, x), y), params, X, Y)
    plain = record(lambda p, x, y: cross_entropy(network(p, x, jnp.tanh), y), mlp(4), X, Y)
    for row, other in zip(plain["layers"][1:], mapped["layers"][1:], strict=True):
        for key in {"rms", "deviation", "gradient", "inputs", "dead"} & set(row):
            assert other[key] == pytest.approx(row[key], rel=1e-4), key


def recurrent(gain, size=16):
    keys = jax.random.split(KEY, 3)
    return {
        "w": jax.random.normal(keys[0], (3, size)) * 3**-0.5,
        "u": jax.random.orthogonal(keys[1], size) * gain,
        "head": jax.random.normal(keys[2], (size, 10)) * size**-0.5,
    }


def over_time(params, x, y):
    def turn(h, x):
        h = jnp.tanh(x @ params["w"] + h @ params["u"])
        return h, h

    _, states = jax.lax.scan(turn, jnp.zeros((x.shape[0], params["u"].shape[0])), jnp.swapaxes(x, 0, 1))
    return cross_entropy(states[-1] @ params["head"], y)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_the_gradient_over_time_is_that_of_an_unrolled_loop(wrap):
    params, x, y = recurrent(0.9), jax.random.normal(KEY, (5, 7, 3)), jnp.arange(5)

    def each(params, x, y):  # every state is used: the gradient at it comes from the loss and from later states
        def turn(h, x):
            h = jnp.tanh(x @ params["w"] + h @ params["u"])
            return h, (h @ params["head"]).sum(0)

        _, out = jax.lax.scan(wrap(turn), jnp.zeros((5, 16)), jnp.swapaxes(x, 0, 1))
        return cross_entropy(out, jnp.arange(7))

    def unrolled(taps):
        h, out = jnp.zeros((5, 16)), []
        for t in range(7):
            h = jnp.tanh(x[:, t] @ params["w"] + h @ params["u"]) + taps[t]
            out.append((h @ params["head"]).sum(0))
        return cross_entropy(jnp.stack(out), jnp.arange(7))

    wanted = jax.grad(unrolled)([jnp.zeros((5, 16))] * 7)
    report = record(each, params, x, y)
    [series] = report["time"]
    assert series["gradient"] == pytest.approx([float(jnp.linalg.norm(g)) for g in wanted], rel=1e-4)
    agrees_with_jax(report, each, params, x, y)


@pytest.mark.parametrize("backwards", [False, True])
def test_nnx_lstm_over_time_is_an_unrolled_loop_of_its_cell(backwards):
    cell = nnx.LSTMCell(3, 8, rngs=nnx.Rngs(0))
    model, x = nnx.RNN(cell, reverse=backwards, keep_order=True), jax.random.normal(KEY, (4, 9, 3))
    report = record(lambda m, x: (m(x)[:, 0 if backwards else -1] ** 2).sum(), model, x)

    def unrolled(taps):
        carry = cell.initialize_carry((4, 3), nnx.Rngs(0))
        for t in range(9):
            carry, _ = cell(carry, x[:, 8 - t if backwards else t])
            carry = jax.tree.map(jnp.add, carry, taps[t])
        return (carry[1] ** 2).sum()

    wanted = jax.grad(unrolled)([(jnp.zeros((4, 8)),) * 2] * 9)
    wanted = [float(jnp.sqrt(sum((part**2).sum() for part in parts))) for parts in wanted]
    [series] = report["time"]
    assert series["name"] == "cell" and series["gradient"] == pytest.approx(wanted, rel=1e-4)


def test_a_loop_over_layers_gives_a_row_for_each_layer():
    layers = mlp(7)
    first, *inner, last = layers
    stacked = {"first": first, "inner": jax.tree.map(lambda *x: jnp.stack(x), *inner), "last": last}

    def scanned(p, x, y):
        h = jax.nn.relu(x @ p["first"]["w"] + p["first"]["b"])
        h, _ = jax.lax.scan(lambda h, q: (jax.nn.relu(h @ q["w"] + q["b"]), None), h, p["inner"])
        return cross_entropy(h @ p["last"]["w"] + p["last"]["b"], y)

    def sliced(p, x, y):
        h = jax.nn.relu(x @ p["first"]["w"] + p["first"]["b"])
        for i in range(6):
            h = jax.nn.relu(h @ p["inner"]["w"][i] + p["inner"]["b"][i])
        return cross_entropy(h @ p["last"]["w"] + p["last"]["b"], y)

    plain = rows(record(loss, layers, X, Y), "linear")
    for one in (scanned, sliced):
        report = record(one, stacked, X, Y)
        found = rows(report, "linear")
        assert [row["name"] for row in found][1:3] == (["inner.0", "inner.1"]) and report["time"] == []
        assert [row["gradient"] for row in found] == pytest.approx([row["gradient"] for row in plain], rel=1e-4)
        assert [row["rms"] for row in found] == pytest.approx([row["rms"] for row in plain], rel=1e-5)


class Convolutional(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.batch = nnx.BatchNorm(6, rngs=rngs)
        self.inner = nnx.Conv(6, 6, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.head = nnx.Linear(6, 10, rngs=rngs)

    def __call__(self, x):
        h = nnx.relu(self.batch(self.conv(x)))
        h = h + nnx.relu(self.norm(self.inner(h)))
        return self.head(h.mean((1, 2)))


def test_nnx_convolutions_and_norms_are_named_and_the_model_is_left_alone():
    model, x = Convolutional(nnx.Rngs(0)), jax.random.normal(KEY, (8, 6, 6, 1))
    before = jax.tree.map(np.asarray, nnx.state(model))
    report = record(lambda m, x, y: cross_entropy(m(x), y), model, x, jnp.arange(8))
    after = jax.tree.map(np.asarray, nnx.state(model))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    seen = [(row["kind"], row["name"], row["function"]) for row in report["layers"]]
    assert seen == [
        ("input", "input", ""),
        ("conv", "conv", ""),
        ("norm", "batch", ""),
        ("activation", "conv", "relu"),
        ("conv", "inner", ""),
        ("norm", "norm", ""),
        ("activation", "inner", "relu"),
        ("block", "inner", ""),
        ("linear", "head", ""),
    ]
    assert report["mode"] == "train"
    value, wanted = nnx.value_and_grad(lambda m: cross_entropy(m(x), jnp.arange(8)))(model)
    assert close(report["loss"], value)
    for path, g in nnx.to_flat_state(wanted):
        found = gradients(report)[".".join(map(str, path))]
        assert found == pytest.approx(float(jnp.linalg.norm(g[...])), rel=1e-3, abs=1e-6)
    normal = Convolutional(nnx.Rngs(0))
    h = normal.batch(normal.conv(x))
    assert rows(report, "norm")[0]["rms"] == pytest.approx(float(jnp.sqrt(jnp.mean(h**2))), rel=1e-5)


def test_linen_is_read_by_its_parameters():
    class Small(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.LayerNorm()(linen.Dense(16)(x)))
            return linen.Dense(10)(x)

    model = Small()
    params = model.init(KEY, X)["params"]
    one = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)  # noqa: E731
    report = record(one, params, X, Y)
    seen = [(row["kind"], row["name"]) for row in report["layers"][1:]]
    assert seen == [("linear", "Dense_0"), ("norm", "LayerNorm_0"), ("activation", "Dense_0"), ("linear", "Dense_1")]
    agrees_with_jax(report, one, params, X, Y)


def test_an_own_derivative_rule_is_kept():
    @jax.custom_vjp
    def straight(x):
        return jnp.sign(x)

    straight.defvjp(lambda x: (jnp.sign(x), None), lambda _, g: (g,))
    one = lambda p, x, y: cross_entropy(network(p, x, straight), y)  # noqa: E731
    report = record(one, mlp(3), X, Y)
    agrees_with_jax(report, one, mlp(3), X, Y)
    assert gradients(report)["0.w"] > 0


def test_control_flow_that_is_not_seen_is_noted():
    one = lambda p, x, y: jax.lax.cond(y[0] == 0, loss, lambda *a: 0.0, p, x, y)  # noqa: E731
    report = record(one, mlp(2), X, Y)
    assert report["notes"] == ["What happens in a cond was not seen."]
    agrees_with_jax(report, one, mlp(2), X, Y)


def test_a_report_keeps_to_its_schema(tmp_path):
    file = tmp_path / "report.json"
    params = mlp(3)
    record(lambda p, x, y: jnp.log(-jnp.abs(loss(p, x, y))), params, X, Y, path=file)
    text = file.read_text()
    report = json.loads(text)
    assert "NaN" not in text and report["loss"] == "nan"
    schema = json.loads((ROOT / "docs" / "assets" / "recorders" / "report.schema.json").read_text())
    assert set(report) <= set(schema["properties"])
    for part in ("layers", "parameters", "time"):
        known = schema["properties"][part]["items"]["properties"]
        assert all(set(row) <= set(known) for row in report[part])
    pytest.importorskip("jsonschema").validate(report, schema)


# What is said of networks whose state is known


def said(loss, params, *batch, step=None):
    return diagnose(json.loads(json.dumps(record(loss, params, *batch, step=step))))


@pytest.mark.parametrize("depth", [6, 12])
def test_a_healthy_network_is_not_accused(depth):
    assert said(loss, mlp(depth), X, Y, step=0)["kind"] == "nothing_found"


def test_a_deep_sigmoid_network_vanishes():
    answer = said(lambda p, x, y: cross_entropy(network(p, x, jax.nn.sigmoid), y), mlp(12, gain=1.0), X, Y)
    assert answer["kind"] == "vanishing" and answer["layers"][0] == "0"


def test_large_weights_explode():
    answer = said(lambda p, x, y: cross_entropy(network(p, x, jnp.tanh), y), mlp(16, gain=20.0), X, Y)
    assert "exploding" in [answer["kind"], *(item["kind"] for item in answer["also"])]


def test_a_dead_layer_is_named():
    params = mlp(8)
    params[4]["b"] = params[4]["b"] - 100
    answer = said(loss, params, X, Y)
    assert (answer["kind"], answer["layers"]) == ("dead_layer", ["4"])


def test_what_is_cut_off_is_not_connected():
    def cut(params, x, y):
        h = jax.lax.stop_gradient(jax.nn.relu(x @ params[0]["w"] + params[0]["b"]))
        return cross_entropy(network(params[1:], h), y)

    answer = said(cut, mlp(4), X, Y)
    assert (answer["kind"], answer["layers"]) == ("not_connected", ["0.w", "0.b (bias)"])
    assert "detach" in answer["why"]
    assert gradients(record(cut, mlp(4), X, Y))["0.w"] is None


def test_whole_numbers_pass_no_gradient():
    def chosen(params, x, y):
        h = jax.nn.one_hot(jnp.argmax(x @ params[0]["w"] + params[0]["b"], -1), 64)
        return cross_entropy(network(params[1:], h), y)

    answer = said(chosen, mlp(4), X, Y)
    assert answer["kind"] == "not_connected" and "argmax" in answer["why"]


def test_parameters_that_are_not_used_are_told_from_those_cut_off():
    params = {"used": mlp(6), "spare": {"w": jnp.ones((3, 3))}}
    answer = said(lambda p, x, y: loss(p["used"], x, y), params, X, Y)
    assert (answer["kind"], answer["layers"]) == ("unused", ["spare.w"])


def test_sign_has_slope_zero():
    def binary(params, x, y):
        h = jnp.sign(x @ params[0]["w"] + params[0]["b"])
        return cross_entropy(network(params[1:], h), y)

    answer = said(binary, mlp(4), X, Y)
    assert (answer["kind"], answer["layers"]) == ("zero_slope", ["0"])


def test_nan_behind_where_is_found_going_back():
    def root(params, x, y):
        h = x @ params[0]["w"] + params[0]["b"]
        h = jnp.where(h > 0, jnp.sqrt(h), 0.0)
        return cross_entropy(network(params[1:], h), y)

    answer = said(root, mlp(4), X, Y)
    assert (answer["kind"], answer["layers"]) == ("nonfinite_gradient", ["0"])
    assert "sqrt" in answer["why"]


def test_a_logarithm_of_zero_is_found_going_forward():
    def log(params, x, y):
        h = jnp.log(jax.nn.relu(x @ params[0]["w"] + params[0]["b"]))
        return cross_entropy(network(params[1:], h), y)

    answer = said(log, mlp(4), X, Y)
    assert (answer["kind"], answer["layers"]) == ("nonfinite_signal", ["0"]) and "log" in answer["why"]


def test_data_that_are_not_finite_are_named():
    assert said(loss, mlp(4), X.at[0, 0].set(jnp.nan), Y)["kind"] == "nonfinite_input"


def test_a_recurrent_network_vanishes_over_time():
    x, y = jax.random.normal(KEY, (10, 60, 3)), jnp.arange(10)
    assert said(over_time, recurrent(0.5), x, y)["kind"] == "vanishing_in_time"
    assert said(over_time, recurrent(1.0), x[:, :8], y)["kind"] == "nothing_found"


def test_a_large_head_is_named():
    answer = said(loss, mlp(6, head=400.0), X, Y, step=0)
    assert (answer["kind"], answer["layers"]) == ("output_scale", ["6"])


def test_a_softmax_over_one_output_is_constant():
    def single(params, x, y):
        return ((jax.nn.softmax(network(params, x)[:, :1]) - (y % 2)[:, None]) ** 2).mean()

    assert said(single, mlp(4), X, Y)["kind"] == "constant_output"


def test_a_softmax_before_the_loss_is_taken_twice():
    answer = said(lambda p, x, y: cross_entropy(jax.nn.softmax(network(p, x)), y), mlp(6), X, Y)
    assert answer["kind"] == "softmax_twice"


def test_gradients_far_below_the_root_of_the_smallest_number_are_seen():
    report = record(lambda p, x, y: loss(p, x, y) * 1e-28, mlp(6), X, Y)
    wanted = record(loss, mlp(6), X, Y)
    for row, other in zip(report["layers"][1:], wanted["layers"][1:], strict=True):
        assert row["gradient"] == pytest.approx(other["gradient"] * 1e-28, rel=1e-3)
