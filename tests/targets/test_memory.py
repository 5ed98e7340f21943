"""Kernels work in their callers' memory: none frees, reads or writes what is not lent to it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit
from numba.core.errors import LoweringError, TypingError

from vgp_kernels import Network
from vgp_kernels.classifier.weights import initial_weights, weight_gradients
from vgp_kernels.numerics.arithmetic import STRICT
from vgp_kernels.numerics.lanes import address, flat, floats, part, row
from vgp_kernels.numerics.products import multiply_in
from vgp_kernels.train import train

# Ten and three classes and widths that no register divides: tiles that are not whole
CASES = [
    Network(3, 50, "tanh", "he"),
    Network(2, 19, "relu", "he", batch_size=2, normalisation="batch"),
    Network(2, 33, "gelu", "xavier", normalisation="layer", residual="preactivation"),
    Network(2, 7, "sigmoid", "xavier", residual="two_weights", normalisation="rms"),
    Network(2, 30, "elu", "orthogonal"),
]


def digest_of_all(threads: int = 1) -> bytes:
    """Everything that kernels with addresses compute, for all cases."""
    inputs = np.random.default_rng(0).standard_normal((96, 30)).astype(np.float32)
    parts = []
    for classes, network in zip((10, 3, 10, 17, 5), CASES, strict=True):
        labels = np.arange(96) % classes
        for optimiser in ("sgd", "adam"):
            run = train(
                network, inputs, labels, learning_rate=0.05, epochs=2, batch_size=31, optimiser=optimiser, trials=8,
                threads=threads, test_inputs=inputs[:5], test_labels=labels[:5],
            )  # fmt: skip
            parts += [run.batch_loss, run.train_loss, run.test_loss, run.weight_gradient, run.movement, run.parameters]
        found = weight_gradients(network, initial_weights(network, 30, classes), inputs[:31], labels[:31])
        parts += [found.gradient, found.signal, *found.gradients.matrices, *filter_none(found.gradients.biases)]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in parts)


def filter_none(arrays):
    return [array for array in arrays if array is not None]


@pytest.fixture(scope="module")
def expected() -> bytes:
    return digest_of_all()


@pytest.mark.parametrize(
    "setting",
    [{"MALLOC_ARENA_MAX": "1"}, {"MALLOC_PERTURB_": "165"}, {"MALLOC_ARENA_MAX": "1", "MALLOC_PERTURB_": "90"}],
)
def test_freed_memory_is_not_read_whatever_the_allocator_does_with_it(expected, setting):
    there = "import sys; sys.path[:0] = ['tests', 'tests/targets']; import test_memory"
    code = f"{there}; sys.stdout.buffer.write(test_memory.digest_of_all(16))"
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | setting, capture_output=True, timeout=900)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == expected


@pytest.mark.parametrize("threads", [2, 16, 64])
def test_results_do_not_depend_on_the_number_of_threads(expected, threads):
    assert digest_of_all(threads) == expected


def test_callers_side_by_side_do_not_disturb_each_other(expected):
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: digest_of_all(2), range(4))) == {expected}


def test_wrong_labels_are_refused_before_anything_reads_them():
    inputs = np.ones((16, 3), np.float32)
    for labels in (np.full(16, 999_999), np.full(16, -1)):
        with pytest.raises(ValueError, match="labels"):
            weight_gradients(CASES[0], initial_weights(CASES[0], 3, 10), inputs, labels)
        with pytest.raises(ValueError, match="labels"):
            train(
                CASES[0], inputs, np.arange(16) % 2, learning_rate=0.1, epochs=1, batch_size=4, test_inputs=inputs,
                test_labels=labels,
            )  # fmt: skip


def test_many_classes_are_as_right_as_few():
    # arrays so large that the allocator gives freed ones back to the system at once, where to read them is a fault
    classes, network = 300_001, Network(1, 7, "linear", "he")
    inputs = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)
    labels = np.array([0, 7, 150_000, 300_000])
    weights = initial_weights(network, 5, classes)
    found = weight_gradients(network, weights, inputs, labels)
    first, last = (matrix.astype(float) for matrix in weights.matrices)
    hidden = inputs @ first.T
    logits = hidden @ last.T
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(share[range(4), labels]).mean(), rel=1e-4)
    delta = (share - (labels[:, None] == np.arange(classes))) / 4
    for (left, right), result in zip(
        ((delta, hidden), (delta @ last, inputs)), found.gradients.matrices[::-1], strict=True
    ):
        rounding = 1e-2 * np.abs(left).T @ np.abs(right)  # float32 sums of 300,001 terms, one after another
        assert (np.abs(result - left.T @ right) <= rounding).all()


def test_products_write_their_own_entries_only_and_are_exact_for_whole_numbers():
    generator, around = np.random.default_rng(1), 64
    for rows, terms, columns in [(r, k, c) for r in (1, 3, 8, 13) for k in (1, 5) for c in (*range(1, 36), 48, 63)]:
        a, b = (generator.integers(-9, 10, shape).astype(np.float32) for shape in ((rows, terms), (terms, columns)))
        # what lies behind A B in memory is read by no product: it would make NaN of it
        room = np.concatenate([a.ravel(), b.ravel(), np.full(rows * columns + around, np.nan)], dtype=np.float32)
        multiply_in(room, rows, terms, columns)
        start = a.size + b.size
        np.testing.assert_array_equal(room[start:-around].reshape(rows, columns), a @ b)
        np.testing.assert_array_equal(room[:start], np.concatenate([a.ravel(), b.ravel()]))
        assert np.isnan(room[-around:]).all()


UNCOUNTED = {
    "address": lambda x: floats(address(x), 0, 4)[0],
    "row": lambda x: row(x.reshape(2, 4), 0)[0],
    "flat": lambda x: flat(x.reshape(2, 4))[0],
    "part": lambda x: part(x, 0, (4,))[0],
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_an_address_or_uncounted_view_cannot_outlive_its_array(name):
    view = njit(UNCOUNTED[name])

    def make_and_view():
        array = np.zeros(8, np.float32)
        return view(array)

    with pytest.raises(LoweringError, match="make no arrays"):
        njit(UNCOUNTED[name])(np.ones(8, np.float32))
    with pytest.raises((LoweringError, TypingError)):
        njit(make_and_view)()
    with pytest.raises(TypingError, match="zeros"):  # what may take addresses can make no arrays
        njit(**STRICT)(make_and_view)()
    assert njit(**STRICT)(UNCOUNTED[name])(np.ones(8, np.float32)) == 1.0
