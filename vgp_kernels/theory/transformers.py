"""What theory predicts of random transformers."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.theory.moments import moments, pair_moments
from vgp_kernels.transformer.network import Transformer


@dataclass(frozen=True, eq=False)
class TransformerTheory:
    """The prediction for one transformer; see `transformer_theory`."""

    network: Transformer
    log_signal: np.ndarray
    """(L + 1,): ln of the root mean square of x_l."""
    log_gradient: np.ndarray
    """(L + 1,): ½ ln E |∂E/∂x_l|², with |∂E/∂y| = 1."""
    log_second_gradient: np.ndarray
    """(L,): ½ ln E |∂E/∂W_2|² of each block; -inf without feed-forward branches."""
    log_residual: np.ndarray
    """(L + 1,): ½ ln of 1 - c, times (T - 1)/T: how far T tokens of correlation c are from being all the same."""


def transformer_theory(network: Transformer) -> TransformerTheory:
    """Mean-field theory of signals, token correlation and gradients, for infinite width.

    Two numbers go through the network: the variance p of an entry of a token, and its difference d from the covariance of the
    same entry in two tokens, which keeps its digits where tokens become equal. With c = 1 - d/p, attention that mixes with
    weights A makes of them S d + (p - d) and (S - C) d, where S = E Σ_j A_ij² and C = E Σ_j A_ij A_kj. Gradients go back by the
    transposed rules; their way through the scores, and the two directions that a normalisation takes from each token, are left out.
    """
    phi, tokens, log_alpha = activation(network.activation), network.tokens, 2 * math.log(network.branch_scale)
    log_skip = 2 * math.log(network.skip_scale) if network.skip_scale else -math.inf
    log_gain, pre, post = 2 * math.log(network.weight_gain), network.norm == "pre", network.norm in ("post", "deepnorm")
    log_weights, log_second = log_gain + math.log(network.weight_variance), log_gain + math.log(network.second_variance)
    log_scores = 2 * math.log(network.query_variance)
    if not network.scaled_scores:
        log_scores += math.log(network.width // network.heads)

    def summed(log_own: float, own: float, log_branch: float, branch: float) -> tuple[float, float]:
        """(ln of skip² eˣ + α² eʸ, the mean of what goes with either) for x = log_own and y = log_branch."""
        x, y = log_skip + log_own, log_alpha + log_branch
        top = max(x, y)
        if top == -math.inf:
            return top, 0.0
        first, second = math.exp(x - top), math.exp(y - top)
        return top + math.log(first + second), (first * own + second * branch) / (first + second)

    log_p, apart = 0.0, 1 - network.token_correlation  # ln p, and d/p
    signal, path = [(log_p, apart)], []
    for _ in range(network.blocks):
        for half in ("attention", "feed-forward")[: 2 if network.ffn_multiple else 1]:
            log_scale = log_p if pre else 0.0
            log_in = log_p - log_scale
            if half == "attention":
                log_variance = log_scores + 2 * log_in + (math.log(apart) if apart > 0 else -math.inf)
                own, shared = softmax_moments(math.exp(min(log_variance, HARDEST)), 1 - apart, tokens)
                left = own * apart + 1 - apart
                branch = 2 * log_weights + log_in + math.log(left), max(own - shared, 0.0) * apart / left
                back: tuple[float, ...] = own, shared
            else:
                log_q = log_weights + log_in
                here, pair = moments(phi, log_q), pair_moments(phi, log_q, apart)
                branch = log_second + here.log_value, pair.apart
                back = here.slope, pair.slopes, here.log_value, pair.apart
            log_p, apart = summed(log_p, apart, *branch)
            log_after = log_p if post else 0.0
            log_p -= log_after
            path.append((half, back, log_scale, log_after))
        signal.append((log_p, apart))

    # ln g per entry, and h/g, where h is between the same entries of two tokens
    log_entries = math.log(tokens * network.width)
    log_g, ratio = -log_entries - (log_p if pre else 0.0), 0.0
    gradient, second_gradient = [(log_g + log_entries) / 2], []
    for half, back, log_scale, log_after in reversed(path):
        log_g -= log_after
        if half == "attention":
            own, shared = back
            of_g = own + ratio * (tokens - 1) * shared
            of_h = (1 - own) / max(tokens - 1, 1) + ratio * (1 - shared)
            log_factor = 2 * log_weights
        else:
            of_g, pair_slope, log_value, lost = back
            of_h = pair_slope * ratio
            log_factor = log_weights + log_second
            both = max(1 + (tokens - 1) * ratio * (1 - lost), 0.0)
            log_square = log_entries + math.log(network.ffn_multiple * network.width) + log_alpha + log_g + log_value
            second_gradient.append((log_square + math.log(both)) / 2 if both else -math.inf)
        below = log_g + log_factor + math.log(of_g) - log_scale if of_g > 0 else -math.inf
        log_g, ratio = summed(log_g, ratio, below, of_h / of_g if of_g > 0 else 0.0)
        if half == "attention":
            gradient.append((log_g + log_entries) / 2)
    log_variances, apart_at = np.array(signal).T
    with np.errstate(divide="ignore"):
        residual = 0.5 * np.log(apart_at * (tokens - 1) / tokens)
    return TransformerTheory(
        network,
        0.5 * log_variances,
        np.array(gradient[::-1]),
        np.array(second_gradient[::-1]) if network.ffn_multiple else np.full(network.blocks, -math.inf),
        residual,
    )


HARDEST = 60.0  # ln of a variance of scores beyond which softmax is the largest one
DRAWS, MOST_DRAWN = 2000, 2**21


@functools.lru_cache(maxsize=1024)
def softmax_moments(variance: float, correlation: float, tokens: int) -> tuple[float, float]:
    """(E Σ_j A_ij², E Σ_j A_ij A_kj) for rows A_i, A_k = softmax of normal scores of this variance, correlated between rows.

    A mean over 2,000 fixed draws, and fewer of over a thousand tokens: there is no closed form.
    """
    draws = min(DRAWS, max(MOST_DRAWN // tokens, 1))
    one, other = np.random.default_rng(0).standard_normal((2, draws, tokens)) * math.sqrt(max(variance, 0.0))
    rows = []
    for scores in (one, correlation * one + math.sqrt(max(1 - correlation**2, 0.0)) * other):
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows.append(weights / weights.sum(axis=1, keepdims=True))
    return float((rows[0] ** 2).sum(axis=1).mean()), float((rows[0] * rows[1]).sum(axis=1).mean())
