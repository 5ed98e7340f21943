"""Weight laws by name, in the fan-in convention: W_ij has variance σ_w²/fan_in."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Initialiser:
    """A rule from the sizes of a layer to its weight variance."""

    name: str
    label: str
    law: str  # "gaussian": independent N(0, σ_w²/fan_in) entries; "orthogonal": σ_w times a Haar matrix
    variance: Callable[[int, int], float]  # (fan_in, fan_out) -> σ_w²


INITIALISERS: dict[str, Initialiser] = {
    initialiser.name: initialiser
    for initialiser in (
        # The variance of U(-1/√fan_in, 1/√fan_in), PyTorch's default for nn.Linear and Glorot & Bengio's "standard"
        Initialiser("standard", "standard (1/3)", "gaussian", lambda fan_in, fan_out: 1 / 3),
        Initialiser("xavier", "Xavier", "gaussian", lambda fan_in, fan_out: 2 * fan_in / (fan_in + fan_out)),
        Initialiser("he", "He", "gaussian", lambda fan_in, fan_out: 2.0),
        Initialiser("lecun", "LeCun", "gaussian", lambda fan_in, fan_out: 1.0),
        Initialiser("normal", "N(0, 1)", "gaussian", lambda fan_in, fan_out: float(fan_in)),
        Initialiser("orthogonal", "orthogonal", "orthogonal", lambda fan_in, fan_out: 1.0),
    )
}
