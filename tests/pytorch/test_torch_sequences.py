"""LSTM, GRU and transformer blocks against PyTorch's autograd, with the same weights.

PyTorch is no dependency: `pip install torch==2.13.0` (on a machine without a GPU, from PyTorch's CPU index) runs these.
"""

import math

import numpy as np
import pytest

from vgp_kernels import Recurrent, Transformer, propagate
from vgp_kernels.recurrent import kernels as recurrent
from vgp_kernels.transformer import kernels as attention

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")


def tensor(array, grad=False):
    return torch.tensor(np.asarray(array, np.float64), requires_grad=grad)


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("initialiser", ["lecun", "orthogonal", "pytorch"])
def test_recurrent_gradients_are_those_of_autograd(cell, initialiser):
    options = {"forget_bias": 1.5} if cell in ("lstm", "gru") else {}
    network = Recurrent(20, 24, cell, initialiser, input_width=10, initial_rms=0.5, **options)
    flow, trial = propagate(network, 2, 9), 1
    drawn = recurrent.draw(network, trial, 9)
    kind = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}.get(cell, torch.nn.RNNCell)
    module = kind(10, 24, **({} if cell in ("lstm", "gru") else {"nonlinearity": cell})).double()
    with torch.no_grad():
        for name, value in zip(("weight_hh", "weight_ih", "bias_hh", "bias_ih"), drawn[:4], strict=True):
            getattr(module, name).copy_(tensor(value))
    h, c = tensor(drawn.state, True), torch.zeros(24, dtype=torch.float64)
    states = [h]
    for x in tensor(drawn.inputs):
        if cell == "lstm":
            h, c = module(x, (h, c))
        else:
            h = module(x, h)
        h.retain_grad()
        states.append(h)
    (h * tensor(drawn.loss)).sum().backward()
    # float32 against float64: 6e-8 an operation, over 20 steps
    found = [float(h.grad.norm()) for h in states]
    assert np.exp(flow.log_gradient[trial]) == pytest.approx(found, rel=5e-5)
    assert math.exp(flow.log_total_weight_gradient[trial]) == pytest.approx(
        float(module.weight_hh.grad.norm()), rel=5e-5
    )


def test_pytorch_initialiser_has_the_range_and_the_two_biases_of_pytorch():
    module = torch.nn.LSTM(50, 64)
    drawn = recurrent.draw(Recurrent(1, 64, "lstm", "pytorch", input_width=50), 0, 0)
    for name, ours in zip(("weight_hh_l0", "weight_ih_l0", "bias_hh_l0", "bias_ih_l0"), drawn[:4], strict=True):
        theirs = getattr(module, name).detach().numpy()
        assert theirs.shape == ours.shape
        for values in (ours, theirs):
            assert 0.95 / 8 < np.abs(values).max() <= 1 / 8
            assert values.var() == pytest.approx(1 / (3 * 64), rel=0.2)  # 256 biases: 4 standard errors of a uniform


@pytest.mark.parametrize("norm", ["pre", "post", "deepnorm", "none"])
@pytest.mark.parametrize("heads", [1, 4])
def test_transformer_gradients_are_those_of_autograd(norm, heads):
    network = Transformer(3, 16, heads, tokens=7, ffn_multiple=2, activation="gelu", norm=norm)
    flow, trial = propagate(network, 2, 5), 1
    drawn = attention.draw(network, trial, 5)
    x = tensor(drawn.tokens, True)
    matrices = [[tensor(w, True) for w in weights] for weights in zip(*drawn[2:], strict=True)]
    skip = (2 * 3) ** 0.25 if norm == "deepnorm" else 1.0

    def normalise(x, wanted):
        return torch.nn.functional.layer_norm(x, (16,)) if wanted else x

    def split(x):
        return x.reshape(7, heads, 16 // heads).transpose(0, 1)

    path = [x]
    for query, key, value, output, first, second in matrices:
        u = normalise(x, norm == "pre")
        mixed = torch.nn.functional.scaled_dot_product_attention(split(u @ query), split(u @ key), split(u @ value))
        x = normalise(skip * x + mixed.transpose(0, 1).reshape(7, 16) @ output, norm in ("post", "deepnorm"))
        u = normalise(x, norm == "pre")
        x = normalise(skip * x + torch.nn.functional.gelu(u @ first) @ second, norm in ("post", "deepnorm"))
        x.retain_grad()
        path.append(x)
    (normalise(x, norm == "pre") * tensor(drawn.loss)).sum().backward()
    # φ and φ′ are float32: 1e-7, amplified by a few layers
    assert np.exp(flow.log_gradient[trial]) == pytest.approx([float(x.grad.norm()) for x in path], rel=5e-6)
    for layer, weights in enumerate(matrices):
        found = [float(w.grad.norm()) for w in weights]
        assert np.exp(flow.log_matrix_gradient[trial, layer]) == pytest.approx(found, rel=5e-6)
