"""Theory at random over all that Network, Transformer and Recurrent take: numbers, infinities that mean something, or a sentence.

`python tests/fuzz_theory.py 60` goes on for 60 seconds. A failure prints the description that makes it again.
"""

import math
import os
import sys
import time
import warnings

import numpy as np

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, Recurrent, Transformer, mean_field
from vgp_kernels.activations import activation
from vgp_kernels.network import NORMALISATIONS, RESIDUALS
from vgp_kernels.theory.criticality import (
    critical_points,
    critical_weight_variance,
    half_stable_points,
    variance_preserving_weight_variance,
)
from vgp_kernels.theory.finite_width import death_probability, fourth_moment, log_normal, log_norms
from vgp_kernels.theory.gates import forget_factor, half_life, scalar_factor, singular_value_bound
from vgp_kernels.theory.number_formats import NUMBER_FORMATS, horizon, lost_update
from vgp_kernels.theory.spectra import predict_spectrum, second_moments
from vgp_kernels.theory.transformers import transformer_theory
from vgp_kernels.transformer.network import NORMS

NAMES = [*ACTIVATIONS, "leaky_relu(0)", "leaky_relu(0.3)", "leaky_relu(1000)", "elu(0)", "elu(0.5)", "elu(1000)"]
Z = np.array([-2.0, -0.5, 0.5, 2.0])
SLOW = 60.0  # seconds for one description: three times 2,000 pairs of 10 ms, the most that theory integrates


def main(seconds: float, seed: int = 0) -> int:
    """Try descriptions for so long; returns how many were tried. Raises AssertionError at the first that fails."""
    generator, end, tried = np.random.default_rng(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        case = CASES[tried % len(CASES)]
        described = case(generator)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                CHECKS[case](described)
        except Exception as error:
            raise AssertionError(f"{described}: {type(error).__name__}: {error}") from error
        took = time.process_time() - started
        assert took < SLOW, f"{described} took {took:.1f} s"
        tried += 1
    return tried


def some(generator: np.random.Generator, *values):
    return values[generator.integers(len(values))]


def magnitude(generator: np.random.Generator, exponent: float, usual: float = 1.0) -> float:
    """A positive number: a usual one, one of any size up to 10^±exponent, or an end of that range."""
    kind = generator.integers(8)
    if kind == 0:
        return 10.0 ** (exponent * some(generator, -1, 1))
    if kind < 3:
        return float(10 ** generator.uniform(-exponent, exponent))
    return float(usual * 2 ** generator.uniform(-3, 3)) if kind < 7 else usual


def count(generator: np.random.Generator, largest: int) -> int:
    return max(1, int(largest ** generator.random()))


def a_network(generator: np.random.Generator) -> dict:
    """What describes a Network, perhaps one that is refused."""
    given: dict = {
        "depth": count(generator, some(generator, 30, 1000, 100_000)),
        "width": count(generator, 10_000),
        "activation": some(generator, *NAMES),
    }
    if generator.random() < 0.3:
        given["initialiser"] = some(generator, *INITIALISERS)
    else:
        given["weight_variance"] = magnitude(generator, 30)
    if generator.random() < 0.5:
        given["bias_variance"] = magnitude(generator, 30, 0.1)
    if generator.random() < 0.3:
        given["input_rms"] = magnitude(generator, 15)
    if generator.random() < 0.2:
        given["input_width"] = count(generator, 10_000)
    if generator.random() < 0.7:
        given["batch_size"] = some(generator, 2, 3, 4, count(generator, 65_536))
        given["input_correlation"] = some(generator, 0.0, 1.0, -1e-9, 1 - 1e-12, float(generator.uniform(-1, 1)))
    if generator.random() < 0.5:
        given["normalisation"] = some(generator, *NORMALISATIONS)
        given["norm_position"] = some(generator, "pre", "post")
    if generator.random() < 0.5:
        given["residual"] = some(generator, *RESIDUALS)
        given["residual_scale"] = some(generator, 0.0, magnitude(generator, 15))
    return given


def a_transformer(generator: np.random.Generator) -> dict:
    """What describes a Transformer."""
    heads = count(generator, 16)
    return {
        "blocks": count(generator, 100),
        "width": heads * count(generator, 100),
        "heads": heads,
        "tokens": count(generator, some(generator, 64, 4096)),
        "ffn_multiple": some(generator, 0, 1, 4),
        "activation": some(generator, *NAMES),
        "norm": some(generator, *NORMS),
        "skip": some(generator, True, False),
        "branch_scale": some(generator, 1.0, magnitude(generator, 30)),
        "weight_variance": magnitude(generator, 30),
        "query_variance": magnitude(generator, 30),
        "second_variance": magnitude(generator, 30),
        "scaled_scores": some(generator, True, False),
        "token_correlation": some(generator, 0.0, 1.0, 1 - 1e-12, float(generator.random())),
    }


def a_recurrent(generator: np.random.Generator) -> dict:
    """What describes a Recurrent."""
    return {
        "steps": count(generator, 1000),
        "width": count(generator, 1000),
        "cell": some(generator, "lstm", "gru", *NAMES),
        "weight_variance": magnitude(generator, 30),
        "input_variance": some(generator, 0.0, magnitude(generator, 30)),
        "bias_variance": some(generator, 0.0, magnitude(generator, 30)),
        "initial_rms": some(generator, 0.0, magnitude(generator, 15)),
    }


def a_number(generator: np.random.Generator) -> dict:
    """Arguments of the functions of single numbers."""
    return {
        "name": some(generator, *NAMES),
        "q": magnitude(generator, 30),
        "format": some(generator, *NUMBER_FORMATS),
        "ratio": some(generator, float(generator.random()), 1 - magnitude(generator, 3, 1e-3) / 1001),
        "rate": magnitude(generator, 30, 0.1),
        "bias": float(generator.uniform(-1000, 1000)),
    }


def refused(action, *values):
    """What the action returns; None if it raises ValueError, whose sentence must say something."""
    try:
        return action(*values)
    except ValueError as error:
        assert len(str(error).split()) > 5 and "domain" not in str(error), f"no sentence: {error}"
        return None


def sound(value, what: str, *allowed: float) -> None:
    """All entries are finite or among the allowed ones."""
    entries = np.atleast_1d(np.asarray(value, dtype=float))
    good = np.isfinite(entries) | np.isin(entries, [x for x in allowed if not math.isnan(x)])
    if any(math.isnan(x) for x in allowed):
        good |= np.isnan(entries)
    assert good.all(), f"{what} is {entries[~good][0]}"


def check_network(given: dict) -> None:
    network = refused(lambda: Network(**given))
    if network is None:
        return
    inf, loss = math.inf, "shared" if network.depth % 2 else "independent"
    theory = refused(mean_field, network, loss)
    if theory is None:
        return
    sound(theory.q_star, "q_star", inf)
    assert theory.q_star >= 0 and (0 < theory.q_star < inf or theory.remark), "q_star without a remark"
    sound(theory.chi_1, "chi_1", inf)
    assert theory.chi_1 < inf or "no finite expectation" in theory.remark, "chi_1 without a remark"
    sound(theory.chi_q, "chi_q", *([math.nan] if "each block" in theory.remark else []))
    sound(theory.rate, "rate", *([inf] if theory.chi_1 == inf else [-inf] if theory.chi_1 == 0 else []))
    assert (theory.phase == "ordered") == (theory.rate < -4e-10) and (theory.phase == "chaotic") == (
        theory.rate > 4e-10
    )
    sound(theory.xi_gradient, "xi_gradient", inf, -inf)
    sound(theory.xi_q, "xi_q", inf, *([math.nan] if math.isnan(theory.chi_q) else []))
    sound(theory.log_variance, "log_variance")
    sound(theory.log_signal, "log_signal")
    limits = [inf, -inf] if "no finite" in theory.remark else [-inf] if "no gradient" in theory.remark else []
    for name in ("log_gradient", "log_weight_gradient", "rate_at_depth"):
        sound(getattr(theory, name), name, *limits, *([-inf] if network.residual_scale == 0 else []))
    sound(refused(lambda: [x for point in theory.fixed_points() for x in point]) or 0.0, "fixed_points")
    if network.batch_size > 1:
        flow = refused(lambda: theory.correlation)
        assert flow is None or np.all(np.abs(flow) <= 1 + 1e-9), "correlation beyond 1"
        gradients = refused(lambda: theory.gradient_correlation)
        # a batch norm takes away what all inputs share, which is all that a straight line hands down from one read-out
        none = network.normalisation == "batch" and np.ptp(activation(network.activation).slope(Z)) == 0
        assert gradients is None or limits or none or np.all(np.isfinite(gradients)), "gradients"
    star = refused(lambda: theory.c_star)
    assert star is None or -1 - 1e-9 <= star <= 1, f"c_star {star}"
    sound(refused(lambda: theory.xi_c) or 0.0, "xi_c", inf, -inf)
    spectrum = refused(predict_spectrum, network) if network.depth < 200 else None
    for action in (log_norms, log_normal, fourth_moment, death_probability, second_moments):
        refused(action, network)
    if spectrum is not None:
        sound([spectrum.mean, spectrum.variance, spectrum.largest], "spectrum", inf)


def check_transformer(given: dict) -> None:
    network = refused(lambda: Transformer(**given))
    theory = None if network is None else refused(transformer_theory, network)
    if theory is not None:
        sound(theory.log_signal, "log_signal")
        sound(theory.log_gradient, "log_gradient", -math.inf)
        sound(theory.log_second_gradient, "log_second_gradient", -math.inf)
        sound(theory.log_residual, "log_residual", -math.inf)


def check_recurrent(given: dict) -> None:
    network = refused(lambda: Recurrent(**given))
    if network is None:
        return
    bound = refused(singular_value_bound, network)
    sound(bound or 0.0, "bound")
    unrolled = refused(lambda: network.unrolled)
    theory = None if unrolled is None else refused(mean_field, unrolled)
    if theory is not None:
        sound(theory.log_gradient, "log_gradient")
    sound(forget_factor(network.initial_rms, network.bias_variance), "forget_factor")
    sound(half_life(scalar_factor(network.weight_variance)), "half_life", math.inf)


def check_number(given: dict) -> None:
    name, q = given["name"], given["q"]
    sound(refused(critical_weight_variance, name, q) or 0.0, "critical_weight_variance")
    sound(refused(variance_preserving_weight_variance, name, q) or 0.0, "variance_preserving_weight_variance")
    for point in [*(refused(critical_points, name, q) or []), *half_stable_points(name)]:
        sound(point, "critical point")
    refused(horizon, given["format"], given["ratio"])
    refused(lost_update, given["format"], given["ratio"], given["rate"])
    sound(forget_factor(given["bias"], q), "forget_factor")


CHECKS = {
    a_network: check_network,
    a_transformer: check_transformer,
    a_recurrent: check_recurrent,
    a_number: check_number,
}
CASES = [a_network, a_network, a_network, a_transformer, a_recurrent, a_number]

if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4))
    done = main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, seed)
    print(f"{done} descriptions from seed {seed}: theory is sound in all of them")
