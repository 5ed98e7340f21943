"""Random transformers, and what is measured of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgp_kernels.activations import activation
from vgp_kernels.network import check_name, checked_count, checked_real

NORMS = {
    "pre": "x + α B(N(x)), and N at the very end",
    "post": "N(x + α B(x))",
    "deepnorm": "N((2L)^¼ x + B(x))",
    "none": "x + α B(x)",
}
MATRICES = ("query", "key", "value", "output", "first", "second")
LARGEST_WEIGHTS = 2**28  # entries in all


@dataclass(frozen=True)
class Transformer:
    """A random transformer: `blocks` of self-attention over `tokens` with `heads`, each followed by a feed-forward branch.

    Attention is softmax(Q Kᵀ/√d_k) V W_O with Q = x W_Q, K = x W_K, V = x W_V; with `scaled_scores=False` without the
    √d_k. The feed-forward branch is φ(x W_1) W_2 with `ffn_multiple` times `width` units inside; 0 leaves it out. There are
    no biases and no masks.

    `norm` says where layer normalisation stands: "pre" x + α B(N(x)) and once more at the end, "post" N(x + α B(x)),
    "deepnorm" N((2L)^¼ x + B(x)) with W_V, W_O, W_1 and W_2 times (8L)^-¼ (Wang et al. 2022), "none" nowhere. α is
    `branch_scale`. With skip=False the x of the sum is left out.

    The entries of W_Q and W_K are N(0, σ_q²/fan_in), those of W_2 N(0, σ_2²/fan_in), all others N(0, σ_w²/fan_in);
    `query_variance` is σ_q², `second_variance` σ_2² (2 undoes what ReLU takes away), `weight_variance` σ_w². The tokens have
    N(0, 1) entries, and any two of them the correlation `token_correlation`.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range, unknown or contradictory.
    """

    blocks: int
    width: int
    heads: int = 1
    tokens: int = 16
    ffn_multiple: int = 4
    activation: str = "relu"
    norm: str = "pre"
    skip: bool = True
    branch_scale: float = 1.0
    weight_variance: float = 1.0
    query_variance: float = 1.0
    second_variance: float = 2.0
    scaled_scores: bool = True
    token_correlation: float = 0.0
    family: ClassVar[str] = "transformer"

    def __post_init__(self) -> None:
        for name, like in (("blocks", "depth"), ("width", "width"), ("heads", "width"), ("tokens", "batch_size")):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), like))
        if self.ffn_multiple != 0:
            object.__setattr__(self, "ffn_multiple", checked_count("ffn_multiple", self.ffn_multiple, "width"))
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}; each head takes an equal part")
        activation(self.activation)
        check_name("norm", self.norm, NORMS)
        for name in ("skip", "scaled_scores"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("weight_variance", "query_variance", "second_variance", "branch_scale"):
            object.__setattr__(self, name, checked_real(name, getattr(self, name), "weight_variance"))
        object.__setattr__(
            self, "token_correlation", checked_real("token_correlation", self.token_correlation, "input_correlation")
        )
        if self.token_correlation < 0:
            raise ValueError(f"token_correlation must be from 0 to 1, not {self.token_correlation:g}")
        if self.norm == "deepnorm" and (not self.skip or self.branch_scale != 1):
            raise ValueError("norm 'deepnorm' sets the scale of the skip; leave skip and branch_scale as they are")
        if self.weights > LARGEST_WEIGHTS:
            raise ValueError(
                f"{self.weights} weights are too many: they are made in full here; take fewer blocks or a smaller width"
            )

    @property
    def weights(self) -> int:
        """The number of weights in all blocks."""
        return self.blocks * self.width**2 * (4 + 2 * self.ffn_multiple)

    @property
    def skip_scale(self) -> float:
        """What multiplies x in the sum: 1, 0 without skips, (2L)^¼ with "deepnorm"."""
        if self.norm == "deepnorm":
            return (2 * self.blocks) ** 0.25
        return 1.0 if self.skip else 0.0

    @property
    def weight_gain(self) -> float:
        """What multiplies W_V, W_O, W_1 and W_2: 1, (8L)^-¼ with "deepnorm"."""
        return (8 * self.blocks) ** -0.25 if self.norm == "deepnorm" else 1.0


@dataclass(frozen=True, eq=False)
class TransformerFlow:
    """What `propagate` measured of a transformer, block by block, in natural logarithms; -inf where a norm is exactly 0.

    Softmax's weights below e^-700 count as 0, and slopes below float32's range. Where tokens are the same but for rounding, large
    scores choose among them by it, and a gradient is right to its order of magnitude.

    x_l is the matrix of all tokens after block l = 0 … L. ∂E/∂y is a random direction of norm 1 at the output y, which is x_L,
    normalised once more with norm "pre".
    """

    network: Transformer
    seed: int
    log_signal: np.ndarray
    """(trials, L + 1): ln of the root mean square of x_l."""
    log_gradient: np.ndarray
    """(trials, L + 1): ln |∂E/∂x_l| (Frobenius norm)."""
    log_weight_gradient: np.ndarray
    """(trials, L): ln |∂E/∂W| of all matrices of a block together."""
    log_matrix_gradient: np.ndarray
    """(trials, L, 6): ln |∂E/∂W| for W_Q, W_K, W_V, W_O, W_1, W_2 in this order; -inf for what is not there."""
    log_residual: np.ndarray
    """(trials, L + 1): ln |x_l - m_l|/|x_l| for the mean token m_l: how far the tokens are from being all the same; -inf where
    they are the same, be it that all are 0. Below e^-36 there is little but float64's rounding."""

    @property
    def trials(self) -> int:
        """The number of independent transformers."""
        return len(self.log_signal)


def flow_of(network: Transformer, seed: int, arrays: Sequence[np.ndarray]) -> TransformerFlow:
    """The arrays of all trials with their names."""
    return TransformerFlow(network, seed, *arrays)
