"""The kernels as WebAssembly, run by V8: the same bits as on the CPU, for every activation and option."""

import json
import os
import subprocess
import sys
from fractions import Fraction

import instruments
import numpy as np
import pytest
from numba import njit

from vgp_kernels import ACTIVATIONS, Network, critical_point, mean_field, propagate, wasm
from vgp_kernels.activations import activation
from vgp_kernels.numerics.arithmetic import STRICT, fma
from vgp_kernels.theory.moments import moments

OPTIONS = {
    "gaussian": {"initialiser": "xavier"},
    "bias": {"weight_variance": 1.7, "bias_variance": 0.05},
    "input_width": {"weight_variance": 0.9, "input_width": 33},
    "orthogonal": {"initialiser": "orthogonal", "weight_variance": 1.3},
    "orthogonal_bias": {"initialiser": "orthogonal", "bias_variance": 0.1},
    "tiny_signal": {"weight_variance": 0.01, "input_rms": 1e-9},
    "huge_signal": {"weight_variance": 300.0, "input_rms": 1e3},
    "layer_norm": {"weight_variance": 1.7, "bias_variance": 0.1, "normalisation": "layer"},
    "rms_norm_after": {"weight_variance": 1.7, "normalisation": "rms", "norm_position": "post"},
    "skip": {"weight_variance": 1.7, "residual": "preactivation", "residual_scale": 0.3},
    "skip_and_norm": {"weight_variance": 1.7, "residual": "preactivation", "normalisation": "layer"},
    "two_weights": {
        "initialiser": "orthogonal",
        "residual": "two_weights",
        "bias_variance": 0.2,
        "normalisation": "rms",
    },
    "skip_outside": {"weight_variance": 1.7, "residual": "postactivation", "residual_scale": 1e-3},
    "batch_norm": {"weight_variance": 1.7, "batch_size": 5, "input_correlation": 0.3, "normalisation": "batch"},
    "batch": {"initialiser": "orthogonal", "batch_size": 3, "input_correlation": 1.0},
}


@pytest.fixture(scope="module")
def v8():
    instruments.write_data()
    engine = instruments.engine()
    engine.eval(
        """
        var hex = (flow) => Object.values(flow).map((networks) => networks.map((one) =>
          Array.from(new BigUint64Array(one.buffer), (x) => x.toString(16).padStart(16, "0")).join("")).join("")); 0
        """
    )
    engine.eval(f"var bytes = new Uint8Array({list(instruments.module())}); 0")
    engine.eval("var emulated = vgpKernels({ ...VGP_DATA, bytes, fused: [] }), fused = kernels; 0")
    return engine


def call(v8, function, options):
    return json.loads(str(v8.eval(f"JSON.stringify(kernels.{function}({json.dumps(options)}))")))


def asked(network, **more):
    return {
        "activation": network.activation, "depth": network.depth, "width": network.width,
        "weightVariance": network.weight_variance, "biasVariance": network.bias_variance,
        "batchSize": network.batch_size, "inputCorrelation": network.input_correlation,
        "normalisation": network.normalisation, "normPosition": network.norm_position,
        "residual": network.residual, "residualScale": network.residual_scale,
    } | more  # fmt: skip


def measured_in_v8(v8, network, first, trials, seed, kernels="kernels"):
    options = asked(
        network, inputWidth=network.fan_in, firstWeightVariance=network.first_weight_variance,
        inputRms=network.input_rms, orthogonal=network.law == "orthogonal", seed=seed, first=first, trials=trials,
    )  # fmt: skip
    words = json.loads(str(v8.eval(f"JSON.stringify(hex({kernels}.propagate({json.dumps(options)})))")))
    return [np.frombuffer(bytes.fromhex(text), ">f8").astype(float).reshape(trials, -1) for text in words]


@pytest.mark.parametrize("kernels", ["fused", "emulated"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_browser_and_cpu_agree_to_the_last_bit(v8, name, option, kernels):
    if kernels == "fused" and not v8.eval("fused.isFused"):
        pytest.skip("this machine has no fused multiply-add, or V8 does not use it")
    network = Network(9, 77, name, **OPTIONS[option])
    flow = propagate(network, 5, seed=2**33 + 5)
    found = measured_in_v8(v8, network, 2, 3, 2**33 + 5, kernels)
    for ours, theirs in zip((flow.log_signal, flow.log_gradient, flow.log_weight_gradient), found, strict=True):
        assert ours[2:].tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("depth", "width"), [(1, 1), (3, 2), (2, 129), (40, 300), (300, 5)])
def test_any_size_agrees_to_the_last_bit(v8, depth, width):
    network = Network(depth, width, "gelu", weight_variance=2.0, bias_variance=0.01)
    found = measured_in_v8(v8, network, 0, 4, 7)
    assert propagate(network, 4, seed=7).log_gradient.tobytes() == found[1].tobytes()


NOT_ROUNDED_ONCE = {
    "another f32": ("fd8502", "fd8602"),  # relaxed_nmadd: c - a·b
    "another f64": ("fd8702", "fd8802"),
    "no such instruction": ("fd8502", "fdff7f"),
}


@pytest.mark.parametrize(("instruction", "other"), NOT_ROUNDED_ONCE.values(), ids=NOT_ROUNDED_ONCE)
def test_a_multiply_add_that_is_not_rounded_once_is_not_used(v8, instruction, other):
    changed = [
        [list(old), list(bytes.fromhex(new.hex().replace(instruction, other)))]
        for old, new in wasm.fused(instruments.module())
    ]
    v8.eval(f"var wary = vgpKernels({{ ...VGP_DATA, bytes, fused: {changed} }}); 0")
    network = Network(9, 77, "gelu", weight_variance=2.0, bias_variance=0.01)
    assert v8.eval("wary.isFused") is False
    assert (
        propagate(network, 4, seed=7).log_gradient.tobytes()
        == measured_in_v8(v8, network, 0, 4, 7, "wary")[1].tobytes()
    )


def test_every_call_of_the_emulated_multiply_add_is_replaced():
    module = instruments.module()
    for old, new in wasm.fused(module):
        assert len(old) == len(new)
        assert module.count(old) > 50


def test_another_seed_gives_other_bits(v8):
    network = Network(9, 77, "tanh", "xavier")
    assert propagate(network, 3, seed=1).log_gradient.tobytes() != measured_in_v8(v8, network, 0, 3, 2)[1].tobytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_predictions_are_those_of_mean_field(v8, name, bias):
    network = Network(60, 100, name, weight_variance=1.37, bias_variance=bias)
    theory = mean_field(network)
    compare_curves(theory, call(v8, "meanField", asked(network)))
    found = call(v8, "settled", asked(network))
    assert found["chi1"] == pytest.approx(theory.chi_1, rel=1e-6)
    if 0 < theory.q_star < np.inf:
        assert found["qStar"] == pytest.approx(theory.q_star, rel=1e-5)


FAMILIES = {
    "layer_norm": {"normalisation": "layer", "bias_variance": 0.1},
    "rms_norm": {"normalisation": "rms"},
    "batch_norm": {"normalisation": "batch", "batch_size": 16, "bias_variance": 0.1},
    "skip": {"residual": "preactivation", "residual_scale": 0.3},
    "skip_and_layer_norm": {"residual": "preactivation", "normalisation": "layer"},
    "skip_and_batch_norm": {
        "residual": "preactivation",
        "residual_scale": 0.5,
        "normalisation": "batch",
        "batch_size": 8,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "gelu", "hard_tanh"])
def test_predictions_with_norms_and_skips_are_those_of_mean_field(v8, name, family):
    network = Network(60, 100, name, weight_variance=1.37, **FAMILIES[family])
    compare_curves(mean_field(network), call(v8, "meanField", asked(network)))


def compare_curves(theory, found):
    # float32 values of φ: 6e-8 each, and 60 layers
    for ours, theirs in (("log_gradient", "logGradient"), ("log_signal", "logSignal"), ("log_variance", "logVariance")):
        assert np.array(found[theirs]) == pytest.approx(getattr(theory, ours), rel=1e-6, abs=2e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("log_q", [-20.0, -2.0, 0.0, 1.7, 5.0, 15.0])
def test_moments_agree_to_a_millionth(v8, name, log_q):
    phi, root = activation(name), float(np.exp(log_q / 2))
    found = json.loads(str(v8.eval(f"JSON.stringify(kernels.moments({json.dumps(name)}, {log_q}))")))
    theory = moments(phi, log_q)
    assert found["logValue"] == pytest.approx(theory.log_value, abs=1e-6)
    assert found["slope"] == pytest.approx(theory.slope, rel=1e-6)
    # what is even in z cancels, up to the float32 of φφ′, before the sum is divided by √q
    assert found["growth"] == pytest.approx(theory.growth, rel=1e-5, abs=1e-7 / root)


@pytest.mark.parametrize(
    ("name", "bias"), [("tanh", 0.0), ("tanh", 0.2), ("sigmoid", 0.0), ("relu", 0.0), ("erf", 0.1)]
)
def test_critical_points_are_those_of_mean_field(v8, name, bias):
    weight_variance, q = critical_point(name, bias)
    found = call(v8, "criticalPoint", {"activation": name, "biasVariance": bias})
    assert found["weightVariance"] == pytest.approx(weight_variance, rel=1e-5)
    assert found["q"] == pytest.approx(q, rel=1e-4, abs=1e-12)


# The fused multiply-add, against the processor's and against rational arithmetic


@njit(**STRICT)
def fused32(a, b, c, ours, processors):
    for i in range(a.size):
        ours[i], processors[i] = wasm.fma32(a[i], b[i], c[i]), fma(a[i], b[i], c[i])


@njit(**STRICT)
def fused64(a, b, c, ours, processors):
    for i in range(a.size):
        ours[i], processors[i] = wasm.fma64_emulated(a[i], b[i], c[i]), fma(a[i], b[i], c[i])


def triples(dtype, halfway):
    """Random triples, and triples whose exact sum lies at, or next to, the middle between two numbers."""
    generator = np.random.default_rng(1)
    bits = np.finfo(dtype).nmant
    scale = 2.0 ** generator.integers(-30, 30, (3, 200_000))
    if not halfway:
        return tuple((generator.normal(size=(3, 200_000)) * scale).astype(dtype))
    # a·b is half a unit in the last place of c, or, since (1 + ε)(1 - ε) = 1 - ε², a speck more or less than that
    c = 1 + generator.integers(0, 2**bits, 200_000) / 2.0**bits
    epsilon = generator.integers(0, 4, 200_000) * 2.0**-bits
    a = generator.choice([-1.0, 1.0], 200_000) * 2.0 ** -(bits + 1) * (1 + epsilon)
    b = 1 + generator.choice([-1.0, 1.0], 200_000) * epsilon
    return a.astype(dtype), b.astype(dtype), c.astype(dtype)


@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize(("dtype", "run"), [(np.float32, fused32), (np.float64, fused64)], ids=["float32", "float64"])
def test_emulated_multiply_add_is_the_processors(dtype, run, halfway):
    a, b, c = triples(dtype, halfway)
    ours, processors = np.empty_like(a), np.empty_like(a)
    run(a, b, c, ours, processors)
    assert ours.tobytes() == processors.tobytes()
    rounded_twice = (a.astype(float) * b + c).astype(dtype) if halfway else a * b + c
    assert (rounded_twice != ours).mean() > 0.01  # the question is not empty


@pytest.mark.parametrize("exponent", range(-152, -120))
def test_results_below_the_normal_range_are_rounded_once(exponent):
    generator = np.random.default_rng(exponent + 1000)
    a = (generator.normal(size=2000)).astype(np.float32)
    b = (generator.normal(size=2000) * 2.0**exponent).astype(np.float32)
    c = (generator.normal(size=2000) * 2.0**exponent).astype(np.float32)
    ours, processors = np.empty_like(a), np.empty_like(a)
    fused32(a, b, c, ours, processors)
    assert ours.tobytes() == processors.tobytes()


def test_emulated_float64_multiply_add_is_the_nearest_number():
    a, b, c = (x[:300] for x in triples(np.float64, False))
    ours, _ = np.empty(300), None
    fused64(a, b, c, ours, np.empty(300))
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    assert ours.tolist() == [float(number) for number in exact]  # Fraction to float is correctly rounded


# The module


def test_the_module_is_the_same_bytes_again():
    instruments.write_data()
    assert wasm.module() == instruments.module()


def test_a_kernel_that_needs_what_a_page_lacks_is_refused_by_name():
    source = (
        "import math\nfrom numba import types\nfrom vgp_kernels import wasm\n"
        "def angle(x, out):\n    out[0] = math.atan(x) + math.erfc(x)\n"
        "wasm.compiled({'angle': (angle, types.void(types.float64, types.CPointer(types.float64)))})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], env=os.environ | wasm.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "kernels need what a page cannot supply: atan, erfc" in done.stderr
