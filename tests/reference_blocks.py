"""The ruler for batches, norms and skips: explicit weight matrices and explicit Jacobians of norms, in plain NumPy.

Arrays are (trials, units, inputs): all trials at once, so networks must be small.
"""

import numpy as np

from vgp_kernels import Network, activation


def haar(generator: np.random.Generator, trials: int, n: int) -> np.ndarray:
    """Orthogonal matrices from the Haar measure: QR of Gaussian ones, with the signs of R's diagonal undone."""
    q, r = np.linalg.qr(generator.standard_normal((trials, n, n)))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]


def weights(network: Network, layer: int, slot: int, generator: np.random.Generator, trials: int) -> np.ndarray:
    """The matrices of a layer, of shape (trials, fan_out, fan_in)."""
    first = layer == 1 and slot == 0
    fan_in = network.fan_in if first else network.width
    variance = network.first_weight_variance if first else network.weight_variance
    if network.law == "orthogonal":
        return np.sqrt(variance) * haar(generator, trials, network.width)
    return np.sqrt(variance / fan_in) * generator.standard_normal((trials, network.width, fan_in))


def inputs(network: Network, generator: np.random.Generator, trials: int) -> np.ndarray:
    """Vectors of one length and one pairwise cosine, turned by a random rotation."""
    c, size, n = network.input_correlation, network.batch_size, network.fan_in
    gram = np.full((size, size), c) + (1 - c) * np.eye(size)
    values, vectors = np.linalg.eigh(gram)
    largest = np.argsort(values)[::-1][:n]
    root = (vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0))).T  # rootᵀ root = gram
    frames = haar(generator, trials, n)[:, :, : root.shape[0]]
    return np.sqrt(n) * network.input_rms * frames @ root


def norm_and_jacobian(kind: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N(x), and its Jacobian along the axis over which it normalises: (…, d, d), symmetric."""
    along = np.swapaxes(x, 1, 2) if kind in ("layer", "rms") else x  # the normalised axis is the last
    d = along.shape[-1]
    centred = along if kind == "rms" else along - along.mean(-1, keepdims=True)
    sigma = np.sqrt(np.mean(centred**2, -1, keepdims=True))
    unit = centred / sigma
    jacobian = np.eye(d) - unit[..., :, None] * unit[..., None, :] / d - (0 if kind == "rms" else 1 / d)
    if kind == "batch_inference":
        jacobian = np.broadcast_to(np.eye(d), jacobian.shape)
    jacobian = jacobian / sigma[..., None]
    return (np.swapaxes(unit, 1, 2) if kind in ("layer", "rms") else unit), jacobian


def back_through_norm(kind: str, jacobian: np.ndarray, g: np.ndarray) -> np.ndarray:
    along = np.swapaxes(g, 1, 2) if kind in ("layer", "rms") else g
    result = np.einsum("tadc,tac->tad", jacobian, along)
    return np.swapaxes(result, 1, 2) if kind in ("layer", "rms") else result


def mean_cosine(x: np.ndarray) -> np.ndarray:
    """(trials,): over pairs of inputs."""
    size = x.shape[2]
    if size == 1:
        return np.full(len(x), np.nan)
    with np.errstate(invalid="ignore"):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    gram = np.einsum("tia,tib->tab", unit, unit)
    first, second = np.triu_indices(size, 1)
    cosines = gram[:, first, second]
    present = ~np.isnan(cosines)
    count = present.sum(1)
    return np.where(count, np.where(present, cosines, 0).sum(1) / np.maximum(count, 1), np.nan)


def steps_of(network: Network) -> list[str]:
    """What a block does to its input, one word a step; the branch of a residual stands between "open" and "close"."""
    norm = ["norm"] if network.normalisation else []
    pre = norm if network.norm_position == "pre" else []
    branch = {
        None: ["weight", "bias", *pre, "phi"],
        "preactivation": [*pre, "phi", "weight"],
        "postactivation": ["weight", "bias", *pre, "phi"],
        "two_weights": [*pre, "weight", "bias", "phi", "weight"],
    }[network.residual]
    post = norm if network.norm_position == "post" else []
    return ["open", *branch, "close", *post] if network.residual else [*branch, *post]


def explicit_blocks(
    network: Network, trials: int, seed: int, loss_gradient: str = "independent", shared_weights: bool = True
) -> dict[str, np.ndarray]:
    """Norms (not their logarithms) of signals, gradients and weight gradients, and correlations: one row per trial.

    With `shared_weights=False` the backward pass gets weights of its own: a wrong sampler, for negative controls.
    """
    generator = np.random.default_rng(seed)
    phi, size, kind = activation(network.activation), network.batch_size, network.normalisation
    x = inputs(network, generator, trials)
    signal, correlation, tape = [rms(x)], [mean_cosine(x)], []
    for layer in range(1, network.depth + 1):
        slot = 0
        for step in steps_of(network):
            kept = None
            if step == "open":
                skipped = x
            elif step == "close":
                x = skipped + network.residual_scale * x
            elif step == "weight":
                kept = (weights(network, layer, slot, generator, trials), x, layer, slot)
                x, slot = kept[0] @ x, slot + 1
            elif step == "bias":
                x = x + np.sqrt(network.bias_variance) * generator.standard_normal((trials, network.width, 1))
            elif step == "norm":
                x, kept = norm_and_jacobian(kind, x)
            elif step == "phi":
                x, kept = phi.value(x), phi.slope(x)
            tape.append((step, kept))
        tape.append(("layer", None))
        signal.append(rms(x))
        correlation.append(mean_cosine(x))
    g = generator.standard_normal((trials, network.width, 1 if loss_gradient == "shared" else size))
    g = np.repeat(g, size // g.shape[2], axis=2)
    g /= frobenius(g)[:, None, None]
    gradients, cosines, weight_gradients = [], [], []
    for step, kept in reversed(tape):
        if step == "layer":
            gradients.append(frobenius(g))
            cosines.append(mean_cosine(g))
        elif step == "close":
            above, g = g, network.residual_scale * g
        elif step == "open":
            g = above + g
        elif step == "weight":
            matrix, here, layer, slot = kept
            weight_gradients.append(frobenius(g @ np.swapaxes(here, 1, 2)))
            matrix = matrix if shared_weights else weights(network, layer, slot, generator, trials)
            g = np.swapaxes(matrix, 1, 2) @ g
        elif step == "norm":
            g = back_through_norm(kind, kept, g)
        elif step == "phi":
            g = kept * g
    gradients.append(frobenius(g))
    cosines.append(mean_cosine(g))
    rows = {
        "signal": signal, "gradient": gradients[::-1], "weight_gradient": weight_gradients[::-1],
        "correlation": correlation, "gradient_correlation": cosines[::-1],
    }  # fmt: skip
    return {name: np.array(values).T for name, values in rows.items()}


def frobenius(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(x**2, (1, 2)))


def rms(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(x**2, (1, 2)))
