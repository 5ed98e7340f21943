"""The ruler: random networks with explicit weight matrices, in plain NumPy float64."""

import numpy as np

from vgp_kernels import Network, activation


def haar(generator: np.random.Generator, trials: int, n: int) -> np.ndarray:
    """Orthogonal matrices from the Haar measure: QR of Gaussian ones, with the signs of R's diagonal undone."""
    q, r = np.linalg.qr(generator.standard_normal((trials, n, n)))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]


def weights(network: Network, layer: int, trials: int, generator: np.random.Generator) -> np.ndarray:
    """W_l of each trial, of shape (trials, fan_out, fan_in)."""
    fan_in = network.fan_in if layer == 1 else network.width
    variance = network.first_weight_variance if layer == 1 else network.weight_variance
    if network.law == "orthogonal":
        return np.sqrt(variance) * haar(generator, trials, network.width)
    return np.sqrt(variance / fan_in) * generator.standard_normal((trials, network.width, fan_in))


def explicit_flow(network: Network, trials: int, seed: int, shared_weights: bool = True) -> dict[str, np.ndarray]:
    """Norms (not their logarithms) of signals, gradients and weight gradients, one row per trial.

    With `shared_weights=False` the backward pass gets weights of its own: a wrong sampler, for negative controls.
    """
    generator = np.random.default_rng(seed)
    phi = activation(network.activation)
    h = [np.full((trials, network.fan_in), network.input_rms)]
    matrices, slopes = [], []
    for layer in range(1, network.depth + 1):
        matrix = weights(network, layer, trials, generator)
        bias = np.sqrt(network.bias_variance) * generator.standard_normal((trials, network.width))
        z = np.einsum("tij,tj->ti", matrix, h[-1]) + bias
        h.append(phi.value(z))
        slopes.append(phi.slope(z))
        matrices.append(matrix)
    g = generator.standard_normal((trials, network.width))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    gradients, weight_gradients = [np.ones(trials)], []
    for layer in range(network.depth, 0, -1):
        delta = slopes[layer - 1] * g
        weight_gradients.append(np.linalg.norm(delta, axis=1) * np.linalg.norm(h[layer - 1], axis=1))
        matrix = matrices[layer - 1] if shared_weights else weights(network, layer, trials, generator)
        g = np.einsum("tij,ti->tj", matrix, delta)
        gradients.append(np.linalg.norm(g, axis=1))
    return {
        "signal": np.stack([np.sqrt(np.mean(layer**2, axis=1)) for layer in h], axis=1),
        "gradient": np.stack(gradients[::-1], axis=1),
        "weight_gradient": np.stack(weight_gradients[::-1], axis=1),
    }
