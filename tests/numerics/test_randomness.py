"""The generator: the known answers of its paper, and the law of its normals."""

import math

import numpy as np
import pytest
from numba import njit
from scipy import stats

from vgp_kernels.numerics import randomness
from vgp_kernels.numerics.arithmetic import MAKING_ARRAYS

ZEROS, ONES = [0] * 4, [0xFFFFFFFF] * 4
PI_COUNTER = [
    0x243F6A88,
    0x85A308D3,
    0x13198A2E,
    0x03707344,
]  # the digits of π, as in the paper's file of known answers
PI_KEY = [0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89]
KNOWN = [  # Random123's kat_vectors, threefry4x32 with 20 rounds
    (ZEROS, ZEROS, [0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8]),
    (ONES, ONES, [0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732]),
    (PI_COUNTER, PI_KEY, [0x59CD1DBB, 0xB8879579, 0x86B5D00C, 0xAC8B6D84]),
]
PAIRS = 1 << 20


@njit(**MAKING_ARRAYS)
def threefry(c, k, rounds):
    return randomness.threefry(c[0], c[1], c[2], c[3], k[0], k[1], k[2], k[3], rounds)


@njit(**MAKING_ARRAYS)
def normals(first_pair, pairs, trial, layer, purpose, seed_low):
    """(4, pairs): the normals of consecutive unit pairs."""
    result = np.empty((4, pairs), np.float32)
    for i in range(pairs):
        w0, w1, w2, w3 = randomness.words(
            np.uint32(first_pair + i),
            np.uint32(trial),
            np.uint32(layer),
            np.uint32(purpose),
            np.uint32(seed_low),
            np.uint32(0),
        )
        result[0, i], result[1, i] = randomness.normal_pair(w0, w1)
        result[2, i], result[3, i] = randomness.normal_pair(w2, w3)
    return result


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_twenty_rounds_give_the_known_answers(counter, key, answer):
    words = tuple(np.uint32(word) for word in counter), tuple(np.uint32(word) for word in key)
    assert list(threefry(*words, 20)) == answer


def test_each_bit_of_counter_and_key_changes_half_of_the_output():
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**32, (64, 8), dtype=np.uint32)
    for word in range(8):
        for bit in range(32):
            other = base.copy()
            other[:, word] ^= np.uint32(1 << bit)
            flips = [
                bin(int(x) ^ int(y)).count("1")
                for a, b in zip(base, other, strict=True)
                for x, y in zip(
                    threefry(tuple(a[:4]), tuple(a[4:]), 12), threefry(tuple(b[:4]), tuple(b[4:]), 12), strict=True
                )
            ]
            # 64·128 fair bits: mean 0.5, standard error 0.0055; 5 of them
            assert abs(sum(flips) / (64 * 128) - 0.5) < 0.028, (word, bit)


def test_moments_are_those_of_the_normal_law():
    sample = normals(0, PAIRS, 3, 5, 0, 7).astype(np.float64).ravel()
    for order in range(1, 9):
        exact = 0.0 if order % 2 else math.prod(range(1, order, 2))
        variance = math.prod(range(1, 2 * order, 2)) - exact**2
        assert abs(np.mean(sample**order) - exact) < 5 * math.sqrt(variance / sample.size), order


@pytest.mark.parametrize("row", range(4))
def test_distribution_is_normal(row):
    assert stats.kstest(normals(0, PAIRS, 0, 1, 0, 0)[row], "norm").pvalue > 1e-4


def test_a_law_that_is_not_normal_is_noticed():
    sample = normals(0, PAIRS, 0, 1, 0, 0)[0]
    assert stats.kstest(1.01 * sample, "norm").pvalue < 1e-4


def test_neighbouring_counters_are_uncorrelated():
    base = normals(0, PAIRS, 10, 20, 0, 30)
    neighbours = {
        "unit": normals(1, PAIRS, 10, 20, 0, 30),
        "trial": normals(0, PAIRS, 11, 20, 0, 30),
        "layer": normals(0, PAIRS, 10, 21, 0, 30),
        "purpose": normals(0, PAIRS, 10, 20, 1, 30),
        "seed": normals(0, PAIRS, 10, 20, 0, 31),
    }
    limit = 5 / math.sqrt(PAIRS)
    for name, other in neighbours.items():
        for a in base:
            for b in other:
                assert abs(np.mean(a * b)) < limit, name
                assert abs(np.mean((a**2 - 1) * (b**2 - 1))) / 2 < limit, name


def test_the_four_normals_of_a_counter_are_independent():
    sample = normals(0, PAIRS, 1, 2, 0, 3).astype(np.float64)
    limit = 5 / math.sqrt(PAIRS)
    for features in (sample, (sample**2 - 1) / math.sqrt(2), np.sign(sample)):
        gram = features @ features.T / PAIRS
        assert np.abs(gram - np.diag(np.diag(gram))).max() < limit


@njit(**MAKING_ARRAYS)
def pairs_of(radius_words, angle_words):
    result = np.empty((2, radius_words.size), np.float32)
    for i in range(radius_words.size):
        result[0, i], result[1, i] = randomness.normal_pair(radius_words[i], angle_words[i])
    return result


def test_no_normal_is_zero_or_infinite():
    # directions are divided by the length of their normals, which at width 1 is a single one
    ends = [
        base + step for base in (0, 2**30, 2**31, 3 * 2**30, 2**32 - 300) for step in range(300) if base + step < 2**32
    ]
    words = np.array(ends, np.uint32)
    radius_words, angle_words = (grid.ravel() for grid in np.meshgrid(words, words))
    normals = np.abs(pairs_of(radius_words, angle_words))
    assert 1e-14 < normals.min() and normals.max() < 6.67
