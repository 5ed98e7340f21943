"""`vgp`, or `python -m vgp_kernels`: theory beside measurement for one network; `vgp diagnose FILE`: what ails a network."""

import argparse
import json
import math
import os
import sys
from importlib.metadata import version

import numpy as np

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, diagnosis, mean_field, propagate


def main() -> int:
    """Print the table; returns the exit code: 2 for bad input, as a shell has it for Ctrl-C and for a reader that left."""
    try:
        try:
            return diagnose_file(sys.argv[2:]) if sys.argv[1:2] == ["diagnose"] else show(parse())
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    except (
        BrokenPipeError
    ):  # `vgp … | head -1`: what Python still holds back goes nowhere, or it would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vgp",
        description="Theory beside measurement: the gradient norm of one fully connected network, layer by layer, "
        "relative to a norm of 1 at the top.",
        epilog="Give --initialiser or --weight-variance. Example: vgp --depth 50 --activation sigmoid --initialiser xavier. "
        "To find out what ails a network of your own: vgp diagnose --help",
    )
    option = parser.add_argument
    option("--depth", type=int, default=50, help="number of layers (default: %(default)s)")
    option("--width", type=int, default=256, help="units of each layer (default: %(default)s)")
    option("--activation", default="sigmoid", help=f"{', '.join(ACTIVATIONS)} (default: %(default)s)")
    option("--initialiser", help=f"the rule for the variance of the weights: {', '.join(INITIALISERS)}")
    option("--weight-variance", type=float, help="or the variance itself, of a weight times the number of inputs")
    option("--bias-variance", type=float, default=0.0, help="variance of a bias (default: %(default)s)")
    option("--trials", type=int, default=1000, help="how many random networks are measured (default: %(default)s)")
    option(
        "--seed", type=int, default=0, help="which random networks: the same seed, the same bits (default: %(default)s)"
    )
    option("--version", action="version", version=f"vgp-kernels {version('vgp-kernels')}")
    return parser.parse_args()


def diagnose_file(arguments: list[str]) -> int:
    """Print what ails the network of a report; returns 2 if the file cannot be read or is no report, else 0."""
    parser = argparse.ArgumentParser(
        prog="vgp diagnose", description="Say what ails a network, from a report of its signal and gradient by layer."
    )
    parser.add_argument("file", help="what the recorder or the snippet wrote; -: standard input")
    parser.add_argument("--json", action="store_true", help="print the whole diagnosis as JSON")
    options = parser.parse_args(arguments)
    try:
        answer = diagnosis.read_file(options.file)
    except OSError as error:
        print(f"{options.file} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if answer["error"]:
        print(f"{options.file}: {answer['error']}", file=sys.stderr)
        return 2
    text = json.dumps(answer, indent=1) if options.json else diagnosis.as_text(answer)
    print(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"))
    return 0


def show(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    try:
        network = Network(
            options.depth,
            options.width,
            options.activation,
            options.initialiser,
            options.weight_variance,
            options.bias_variance,
        )
        flow, theory = propagate(network, options.trials, options.seed), mean_field(network)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
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
