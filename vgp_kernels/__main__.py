"""`python -m vgp_kernels`: theory beside measurement for one network."""

import argparse
import math
import sys

import numpy as np

from vgp_kernels import Network, mean_field, propagate


def main() -> int:
    """Print the table; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m vgp_kernels", description=__doc__)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--activation", default="sigmoid")
    parser.add_argument("--initialiser")
    parser.add_argument("--weight-variance", type=float)
    parser.add_argument("--bias-variance", type=float, default=0.0)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        network = Network(
            options.depth,
            options.width,
            options.activation,
            options.initialiser,
            options.weight_variance,
            options.bias_variance,
        )
        flow = propagate(network, options.trials, options.seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    theory = mean_field(network)
    decades = flow.log_gradient / math.log(10)
    print(f"layer   log10 of the gradient norm: predicted   measured, mean of {flow.trials} networks")
    for layer in sorted({round(x) for x in np.linspace(0, network.depth, 9)}):
        print(f"{layer:5d}   {theory.log_gradient[layer] / math.log(10):37.3f}   {measurement(decades[:, layer])}")
    print(f"q* = {theory.q_star:.6g}, chi_1 = {theory.chi_1:.6g}; {verdict(theory.rate)}")
    if theory.remark:
        print(theory.remark)
    return 0


def measurement(decades: np.ndarray) -> str:
    """Mean and standard error over the networks that pass a gradient, and how many do not."""
    alive = decades[np.isfinite(decades)]
    dead = len(decades) - len(alive)
    remark = f"   it is 0 in {dead} of {len(decades)}" if dead else ""
    if not len(alive):
        return remark.lstrip()
    return f"{alive.mean():8.3f} ± {alive.std() / math.sqrt(len(alive)):.3f}{remark}"


def verdict(rate: float) -> str:
    """What the rate per layer means, in words."""
    if abs(rate) < 1e-9:
        return "the gradient norm neither vanishes nor explodes exponentially"
    word, halves = ("vanishes", "halves") if rate < 0 else ("explodes", "doubles")
    return f"the gradient {word}: x{math.exp(rate):.4g} per layer, it {halves} in {math.log(2) / abs(rate):.3g} layers"


if __name__ == "__main__":
    sys.exit(main())
