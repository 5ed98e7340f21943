"""Every barrier is needed: without it, lanes that take turns, forwards or backwards, find other bits than with it.

All of them take minutes: `make barriers`. The other tests leave out those of the recurrent networks only.
"""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from gpu_code import simulated

import vgp_kernels
from vgp_kernels import Network, Recurrent, Transformer

PACKAGE = Path(vgp_kernels.__file__).parent

OMITTING = """
blocks.lanes_for = lambda entries, most: 64  # two warps

def noticed(job, right):
    try:
        return bits(*job) != right
    except Exception:  # lanes that wait at different places, or an index from memory that nobody wrote to
        return True

def run(job, barriers):
    simulator.REACHED.clear()
    right = bits(*job)
    for barrier in barriers & simulator.REACHED:
        simulator.OMITTED = barrier
        for simulator.BACKWARDS in (False, True):
            if barrier in barriers and noticed(job, right):
                barriers.remove(barrier)
    simulator.OMITTED, simulator.BACKWARDS = None, False
    return barriers
"""


def batch(width, name, depth=1, **options):
    law = {} if "initialiser" in options else {"weight_variance": 1.7}
    return (Network(depth, width, name, **(law | options)),)


def classifier(network, examples=5, **options):
    generator = np.random.default_rng(examples)
    inputs, labels = generator.standard_normal((examples, 3)), np.arange(examples) % 3
    return network, inputs, labels, {"learning_rate": 0.1, "epochs": 1, "batch_size": 4, "seed": 3} | options


FAMILIES = {  # modules with code for lanes, how a job is run, jobs
    "batch": (
        ("numerics.frames", "batch.normalisation", "batch.kernels", "batch.cuda"),
        """
from vgp_kernels.batch import cuda as batches

def bits(network):
    return [array.tobytes() for array in batches.run(network, 1, 3, False, False)]
""",
        [
            batch(3, "tanh", depth=2, batch_size=3, bias_variance=0.1, input_correlation=1.0),
            (Network(4, 3, "tanh", weight_variance=1e-30, batch_size=3, input_correlation=0.5),),
            batch(3, "tanh", depth=2, initialiser="orthogonal", batch_size=3, input_correlation=0.5, residual="two_weights"),
            batch(4, "relu", depth=2, normalisation="batch", batch_size=3),
            batch(4, "tanh", depth=2, normalisation="layer", norm_position="post", batch_size=2),
        ],
    ),
    "recurrent": (
        ("numerics.frames", "numerics.matrices", "recurrent.kernels", "recurrent.cuda"),
        """
from vgp_kernels.recurrent import cuda as recurrent

def bits(network):
    return [array.tobytes() for array in recurrent.run(network, 1, 3, False)]
""",
        [
            (Recurrent(3, 5, "gru", "orthogonal", bias_variance=0.1, initial_rms=0.7, longest_memory=9),),
            (Recurrent(3, 3, "lstm", "pytorch", initial_rms=0.7),),
            (Recurrent(3, 35, "tanh", "lecun", bias_variance=0.1, input_width=2, initial_rms=0.7),),
        ],
    ),
    "transformer": (
        ("numerics.frames", "numerics.matrices", "transformer.kernels", "transformer.cuda"),
        """
from vgp_kernels.transformer import cuda as transformers

transformers.LANES = 64

def bits(network):
    return [array.tobytes() for array in transformers.run(network, 1, 3, False)]
""",
        [
            (Transformer(4, 1, tokens=2, ffn_multiple=1, norm="none", token_correlation=1.0, weight_variance=1e30),),
            (Transformer(1, 4, tokens=3, ffn_multiple=1, heads=2, norm="pre", activation="gelu", token_correlation=0.3),),
            (Transformer(2, 2, tokens=3, ffn_multiple=1, norm="none", skip=False, activation="tanh", weight_variance=1e-30,
                         second_variance=1e-30),),
            (Transformer(2, 4, tokens=3, ffn_multiple=1, norm="post", branch_scale=1e15, weight_variance=1e20,
                         second_variance=1e20),),
            (Transformer(1, 17, tokens=2, ffn_multiple=1, norm="none", activation="silu"),),
        ],
    ),
    "classifier": (
        ("numerics.products", "classifier.kernels", "classifier.learning", "classifier.cuda"),
        """
import numpy as np
from vgp_kernels import train
from vgp_kernels.numerics import products

products.multiply = products.multiply_in_lanes

def bits(network, inputs, labels, options):
    found = vars(train(network, inputs, labels, target="cuda", **options))
    return [array.tobytes() for array in found.values() if isinstance(array, np.ndarray)]
""",
        [
            classifier(Network(1, 3, "tanh", "xavier", bias_variance=0.1)),
            classifier(Network(2, 3, "gelu", "orthogonal"), optimiser="adam"),
            classifier(Network(1, 4, "tanh", "he", normalisation="batch", batch_size=4)),
            classifier(Network(1, 3, "tanh", "he", residual="two_weights", normalisation="layer")),
            classifier(Network(1, 3, "tanh", "he", normalisation="layer"), optimiser="momentum"),
            classifier(Network(2, 3, "tanh", "he", residual="postactivation", norm_position="post", normalisation="rms")),
        ],
    ),
}  # fmt: skip


# Without one of these no bit changes in any job, as it has another barrier beside it: of the two, one is enough. They stay,
# so that a function may be called from anywhere.
NOT_NOTICED = {
    "numerics.frames.twin 1": "extend, which alone calls it, comes from a dot product or has stored a norm",
    "numerics.frames.extend 1": "of those who call it, one stores the rank, one draws the next vector, one takes log_norm_of_product",
    "numerics.frames.fill_normals 1": "between the last reading of what was there and this come dot products of extend, or copy_rows",
    "numerics.matrices.fill_with 1": "what is filled, if it held anything, was read before the end of fill_with_haar",
    "numerics.matrices.fill_with_haar 1": "the next matrix begins with fill_with, and all else with a transpose",
    "numerics.matrices.transpose 1": "what made the matrix has ended with a barrier",
    "batch.kernels.log_norm_of_product 1": "the factors were last read before the barriers of an earlier sum or of put",
    "batch.kernels.copy_rows 1": "the target was last read before the barrier of a dot product or of put",
    "batch.kernels.copy_rows 2": "a maximum over the warp comes next: its shuffle, too, joins the only warp",
    "recurrent.kernels.draw_into 1": "what comes next transposes the weights",
    "recurrent.kernels.add_scaled_outer 2": "the gradient is divided by its norm next, a dot product",
    "transformer.kernels.draw_ends 1": "the first weights are drawn next, which ends with a barrier",
    "transformer.kernels.into_window 2": "activate takes the same entries in the same lanes",
    "transformer.kernels.run_branch 1": "out_of_window takes the same entries in the same lanes as activate",
    "transformer.kernels.take_means 1": "a warp reads the means of its own rows only",
    "transformer.kernels.take_head 1": "a transpose comes next, which begins with a barrier",
    "transformer.kernels.back_through_softmax 1": "take_out_first comes next, which ends with a barrier",
    "transformer.kernels.back_through_feed_forward 1": "a transpose comes next, which ends with a barrier",
    "transformer.kernels.run_transformer 1": "the kernel ends here",
    "classifier.kernels.activate 1": "the weights are turned next, which ends with a barrier, before a product is taken",
    "classifier.kernels.cross_entropy 2": "the terms are next written to after another pass forward",
    "classifier.kernels.fill_orthogonal 3": "a batch is taken before the weights are read",
    "classifier.learning.sgd 1": "a batch is taken before the weights are read",
    "classifier.learning.heavy_ball 1": "a batch is taken before the weights are read",
    "classifier.learning.adam 1": "a batch is taken before the weights are read",
    "classifier.learning.take 1": "the weights are turned before the batch is read",
    "classifier.learning.forget 1": "a whole pass forward comes before the first result is stored",
}  # fmt: skip


def is_barrier(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "together"


def barriers_of(module):
    """{(name of the module, line): "module.function n"} of the n-th barrier of each of its functions."""
    found = {}
    for function in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))):
        if isinstance(function, ast.FunctionDef):
            lines = sorted(node.lineno for node in ast.walk(function) if is_barrier(node))
            found |= {
                (f"vgp_kernels.{module}", line): f"{module}.{function.name} {n}" for n, line in enumerate(lines, 1)
            }
    return found


def not_noticed(family, barriers, folder):
    """Those of the barriers without which all jobs of the family find the same bits."""
    modules, bits, jobs = FAMILIES[family]
    titled = {i: (job, barriers) for i, job in enumerate(jobs)}  # one set: what a job notices, the next ones skip
    return simulated(modules, bits + OMITTING, titled, "forwards", folder)[len(jobs) - 1]


def test_without_any_barrier_of_recurrent_networks_the_bits_are_others(toolkit, tmp_path):
    names = barriers_of("recurrent.kernels")
    left = {names[barrier] for barrier in not_noticed("recurrent", {*names}, tmp_path)}
    assert left == {name for name in NOT_NOTICED if name in names.values()}


@pytest.mark.skipif(os.environ.get("EVERY_BARRIER") != "1", reason="takes minutes: make barriers")
def test_without_any_barrier_the_bits_are_others(toolkit, tmp_path):
    names = {}
    for modules, *_ in FAMILIES.values():
        for module in modules:
            names |= barriers_of(module)
    left = {*names}
    for family in FAMILIES:
        left = not_noticed(family, left, tmp_path)
    assert {names[barrier] for barrier in left} == {*NOT_NOTICED}
