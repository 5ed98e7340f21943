"""Training against PyTorch: the same initial weights, the same batches, the first ten steps.

PyTorch is not among the requirements: without it these tests are skipped by name.
"""

import importlib.util

import numpy as np
import pytest

from vgp_kernels import Network, initial_weights, train, weight_gradients
from vgp_kernels.classifier.learning import example_order

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install torch==2.13.0"
)

EXAMPLES, FEATURES, CLASSES, BATCH, WIDTH, DEPTH, STEPS = 320, 16, 10, 32, 32, 6, 10
ARCHITECTURES = [
    {},
    {"normalisation": "batch"},
    {"normalisation": "layer"},
    {"normalisation": "layer", "norm_position": "post"},
    {"normalisation": "rms"},
    {"residual": "preactivation", "residual_scale": 0.4},
    {"residual": "postactivation", "normalisation": "batch", "residual_scale": 0.4},
    {"residual": "two_weights", "normalisation": "layer", "norm_position": "post"},
]
OPTIMISERS = {"sgd": 0.1, "momentum": 0.02, "adam": 0.003}


def digits():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((EXAMPLES, FEATURES)).astype(np.float32)
    labels = (inputs @ generator.standard_normal((FEATURES, CLASSES))).argmax(axis=1)
    labels[:CLASSES] = range(CLASSES)
    return inputs, labels


def norm_of(kind):
    from torch import nn

    if kind == "batch":
        return nn.BatchNorm1d(WIDTH, eps=1e-5, affine=False)
    if kind == "layer":
        return nn.LayerNorm(WIDTH, eps=1e-5, elementwise_affine=False)
    return nn.RMSNorm(WIDTH, eps=1e-5, elementwise_affine=False)


def torch_classifier(network, weights):
    """The same network as a torch module, with its own copies of the weights."""
    import torch
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.linears = nn.ModuleList()
            for matrix, bias in zip(weights.matrices, weights.biases, strict=True):
                linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
                linear.weight.data = torch.tensor(matrix)
                if bias is not None:
                    linear.bias.data = torch.tensor(bias)
                self.linears.append(linear)
            kind = network.normalisation
            self.norms = nn.ModuleList([norm_of(kind) if kind else nn.Identity() for _ in range(network.depth)])

        def forward(self, x):
            layers = iter(self.linears)
            phi = {"tanh": torch.tanh, "gelu": nn.functional.gelu, "relu": torch.relu}[network.activation]
            if network.residual:
                x = next(layers)(x)
            for norm in self.norms:
                before = norm if network.norm_position == "pre" else nn.Identity()
                after = norm if network.norm_position == "post" else nn.Identity()
                if network.residual is None:
                    x = after(phi(before(next(layers)(x))))
                    continue
                if network.residual == "preactivation":
                    branch = next(layers)(phi(before(x)))
                elif network.residual == "postactivation":
                    branch = phi(before(next(layers)(x)))
                else:
                    first, second = next(layers), next(layers)
                    branch = second(phi(first(before(x))))
                x = after(x + network.residual_scale * branch)
            return next(layers)(x)

    return Classifier()


def torch_steps(module, optimiser, rate, inputs, labels, seed):
    import torch

    inputs, labels = torch.tensor(inputs), torch.tensor(labels)
    choose = {
        "sgd": lambda p: torch.optim.SGD(p, lr=rate),
        "momentum": lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=rate),
    }
    steps = choose[optimiser](module.parameters())
    order = torch.tensor(example_order(EXAMPLES, 0, seed=seed))
    losses = []
    for step in range(STEPS):
        batch = order[step * BATCH : (step + 1) * BATCH]
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(inputs[batch]), labels[batch])
        loss.backward()
        steps.step()
        losses.append(loss.item())
    return losses


def network_of(activation, options):
    batch = {"batch_size": 2} if options.get("normalisation") == "batch" else {}
    bias_variance = 0.0 if options.get("residual") == "preactivation" else 0.1
    return Network(DEPTH, WIDTH, activation, "he", bias_variance=bias_variance, **options, **batch)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_the_first_ten_steps_are_those_of_pytorch(options, optimiser):
    network, (inputs, labels) = network_of("gelu", options), digits()
    module = torch_classifier(network, initial_weights(network, FEATURES, CLASSES, seed=4))
    rate = OPTIMISERS[optimiser]
    losses = torch_steps(module, optimiser, rate, inputs, labels, seed=4)
    done = train(network, inputs, labels, optimiser=optimiser, learning_rate=rate, epochs=1, batch_size=BATCH, seed=4)
    # two float32 programs that round differently: after ten steps they part by no more than this
    assert done.batch_loss[0] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] != pytest.approx(losses[0], rel=1e-2)
    module.eval()
    import torch

    with torch.no_grad():
        evaluated = torch.nn.functional.cross_entropy(module(torch.tensor(inputs)), torch.tensor(labels)).item()
    # With the running statistics of batch normalisation. They lag behind the bias before a norm, whose gradient is 0 but
    # for round-off: Adam makes whole steps of that noise, in PyTorch as here, and the two take different ones.
    lags = network.normalisation == "batch" and optimiser == "adam"
    assert done.train_loss[0, -1] == pytest.approx(evaluated, rel=2e-3 if lags else 1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_gradients_are_those_of_autograd(options, activation):
    import torch

    network, (inputs, labels) = network_of(activation, options), digits()
    inputs, labels = inputs[:BATCH], labels[:BATCH]
    weights = initial_weights(network, FEATURES, CLASSES, seed=1)
    module = torch_classifier(network, weights).double()
    loss = torch.nn.functional.cross_entropy(module(torch.tensor(inputs).double()), torch.tensor(labels))
    loss.backward()
    found = weight_gradients(network, weights, inputs, labels)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    for linear, gradient in zip(module.linears, found.gradients.matrices, strict=True):
        exact = linear.weight.grad.numpy()
        # float32 round-off of six layers against float64
        assert np.linalg.norm(gradient - exact) < 1e-5 * np.linalg.norm(exact) + 1e-9
