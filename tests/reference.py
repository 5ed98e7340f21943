"""The ruler: random networks with explicit weight matrices, in plain NumPy, one matrix at a time."""

import numpy as np

from vgp_kernels import Network, activation


def haar(generator: np.random.Generator, n: int) -> np.ndarray:
    """An orthogonal matrix from the Haar measure: QR of a Gaussian one, with the signs of R's diagonal undone."""
    q, r = np.linalg.qr(generator.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def weights(network: Network, layer: int, generator: np.random.Generator) -> np.ndarray:
    """W_l, of shape (fan_out, fan_in)."""
    fan_in = network.fan_in if layer == 1 else network.width
    variance = network.first_weight_variance if layer == 1 else network.weight_variance
    if network.law == "orthogonal":
        return np.sqrt(variance) * haar(generator, network.width)
    return np.sqrt(variance / fan_in) * generator.standard_normal((network.width, fan_in))


def explicit_flow(network: Network, trials: int, seed: int, shared_weights: bool = True) -> dict[str, np.ndarray]:
    """Norms (not their logarithms) of signals, gradients and weight gradients, one row per trial.

    With `shared_weights=False` the backward pass gets weights of its own: a wrong sampler, for negative controls.
    """
    generator = np.random.default_rng(seed)
    phi = activation(network.activation)
    rows = {"signal": [], "gradient": [], "weight_gradient": []}
    for _ in range(trials):
        h = [np.full(network.fan_in, network.input_rms)]
        matrices, slopes = [], []
        for layer in range(1, network.depth + 1):
            matrix = weights(network, layer, generator)
            z = matrix @ h[-1] + np.sqrt(network.bias_variance) * generator.standard_normal(network.width)
            h.append(phi.value(z))
            slopes.append(phi.slope(z))
            matrices.append(matrix)
        g = generator.standard_normal(network.width)
        g /= np.linalg.norm(g)
        gradients, weight_gradients = [1.0], []
        for layer in range(network.depth, 0, -1):
            delta = slopes[layer - 1] * g
            weight_gradients.append(np.linalg.norm(delta) * np.linalg.norm(h[layer - 1]))
            matrix = matrices[layer - 1] if shared_weights else weights(network, layer, generator)
            g = matrix.T @ delta
            gradients.append(np.linalg.norm(g))
        rows["signal"].append([np.sqrt(np.mean(layer**2)) for layer in h])
        rows["gradient"].append(gradients[::-1])
        rows["weight_gradient"].append(weight_gradients[::-1])
    return {name: np.array(values) for name, values in rows.items()}
