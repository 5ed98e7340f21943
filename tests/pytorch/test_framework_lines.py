"""The lines of PyTorch, Keras and JAX that the calculator prints, run as printed: they draw the weights that the page means.

None of the three is among the requirements: what is not installed is skipped by name.
"""

import html
import os
import re

import instruments
import numpy as np
import pytest

from vgp_kernels import critical_point

FAN_IN, FAN_OUT = 400, 1200


@pytest.fixture(scope="module")
def lines():
    """{framework: what its line says}, from the page's first state, a network that vanishes."""
    instruments.write_data()
    text = html.unescape(instruments.first_state("will-mine-vanish"))
    return dict(re.findall(r"(PyTorch|Keras|JAX) +(\S.*?\))(?=[\n<])", text))


def torch_weights(line):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    torch.manual_seed(0)
    layer = torch.nn.Linear(FAN_IN, FAN_OUT)
    exec(line, {"torch": torch, "layer": layer})
    return layer.weight.detach().numpy()


def keras_weights(line):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras jax")
    keras.utils.set_random_seed(0)
    return np.asarray(eval(line, {"keras": keras})((FAN_IN, FAN_OUT)))


def jax_weights(line):
    jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
    return np.asarray(eval(line, {"jax": jax})(jax.random.key(0), (FAN_IN, FAN_OUT)))


@pytest.mark.parametrize(
    ("framework", "draw"), [("PyTorch", torch_weights), ("Keras", keras_weights), ("JAX", jax_weights)]
)
def test_the_printed_line_draws_normal_weights_of_the_variance_that_holds_the_centred_sigmoid(lines, framework, draw):
    weights = draw(lines[framework]).astype(float)
    variance, _ = critical_point("centred_sigmoid", 0.0)
    # 480,000 draws: standard errors of 0.2 % and 0.007; the line gives four digits. Truncated normals have a kurtosis of 2.4.
    assert weights.var() * FAN_IN == pytest.approx(variance, rel=0.01)
    assert (weights**4).mean() / weights.var() ** 2 == pytest.approx(3.0, abs=0.04)
