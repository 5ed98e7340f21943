"""Transformers as a block of threads runs them: the CPU's bits, whichever lane is first, and the machine code."""

import functools

import pytest
from benchmark_cuda import ARCHITECTURES
from gpu_code import assert_nothing_spills, assert_same_bits, frames_of, simulated, strictly_assembled

from vgp_kernels import Transformer, propagate
from vgp_kernels.targets import blocks, compiling
from vgp_kernels.targets import gpu as target
from vgp_kernels.transformer import cuda as transformers

QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient", "log_matrix_gradient", "log_residual")

RUN = """
from vgp_kernels.transformer import cuda as transformers

def run(network, trials, seed, lanes):
    transformers.LANES = lanes
    return transformers.run(network, trials, seed, False)
"""


def job(blocks, width, trials=1, seed=3, lanes=64, **options):
    return Transformer(blocks, width, **({"tokens": 3, "ffn_multiple": 1} | options)), trials, seed, lanes


JOBS = {  # network, trials, seed, lanes
    "more networks than blocks": job(2, 4, trials=3, heads=2, norm="pre", activation="gelu", seed=2**63 + 5, lanes=32),
    "normals that matrices share": job(3, 3, tokens=2, norm="pre", activation="tanh", token_correlation=0.3),
    "more entries than lanes": job(1, 35, tokens=5, heads=5, ffn_multiple=2, norm="post", activation="silu"),
    "more tokens than lanes": job(1, 4, tokens=67, norm="pre", lanes=32),
    "post, two blocks": job(2, 6, heads=3, tokens=4, norm="post", query_variance=4.0),
    "deepnorm": job(3, 4, ffn_multiple=3, norm="deepnorm"),
    "no norm": job(2, 4, heads=2, norm="none", activation="elu", scaled_scores=False, branch_scale=0.5),
    "attention only": job(3, 4, heads=4, tokens=5, norm="none", skip=False, ffn_multiple=0),
    "one token": job(2, 4, tokens=1),
    "equal tokens": job(2, 8, heads=2, tokens=5, token_correlation=1.0),
    "width one": job(2, 1, tokens=4, norm="none"),
}


@pytest.fixture(scope="module", params=["forwards", "backwards"])
def found(request, toolkit, tmp_path_factory):
    rooms = ("numerics.frames", "numerics.matrices", "transformer.kernels", "transformer.cuda")
    return simulated(rooms, RUN, JOBS, request.param, tmp_path_factory.mktemp("simulated"))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_lanes_give_the_bits_of_the_cpu(title, found):
    network, trials, seed, _ = JOBS[title]
    assert_same_bits(propagate(network, trials, seed), dict(zip(QUANTITIES, found[title], strict=True)))


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):
    if lacking := target.missing():
        pytest.skip(lacking)
    network, trials, seed, lanes = JOBS[title]
    monkeypatch.setattr(transformers, "LANES", lanes)
    monkeypatch.setattr(blocks, "RESIDENT", (2, 2048))
    flow = propagate(network, trials, seed, target="cuda")
    assert_same_bits(propagate(network, trials, seed), {name: getattr(flow, name) for name in QUANTITIES})


# The compiler

LOOPS = (
    "transpose",
    "combine",
    "draw_normals",
    "kernels7softmax",
    "back_through_softmax",
    "subtract",
    "activate_with",
)


@functools.cache
def kernel_ptx(name, capability):
    return compiling.ptx(transformers.transformer_kernel(name), transformers.signature(), capability)


@pytest.mark.parametrize(("name", "architecture"), [*zip(("tanh", "gelu", "relu"), ARCHITECTURES, strict=True)])
def test_the_kernel_compiles_to_strict_code_without_spills(name, architecture, toolkit):
    ptx = kernel_ptx(name, (int(architecture[3:-1]), int(architecture[-1])))
    strictly_assembled(ptx, architecture)
    frames = frames_of(ptx, architecture)
    assert_nothing_spills(frames, "run_transformers", LOOPS)
    assert max(stack for stack, _, _ in frames.values()) < 1024  # arguments of functions
