"""Normals keyed by what they are for: (unit pair, trial, layer, purpose) under a seed, so that any order gives the same bits.

Threefry4x32: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". Its authors find twelve
rounds sufficient for every test they know; twenty are their default. The number of rounds is a parameter here, so that
the twenty-round form can be checked against the paper's known answers.
"""

import math

import numpy as np
from numba import njit

from vgp_kernels.numerics.arithmetic import STRICT, bits_from_float, f32, float_from_bits, fma, log, sin_and_cos

u32 = np.uint32
ROUNDS = 12
PARITY = u32(0x1BD11BDA)
# Purposes. Weights that are kept as frames have two: their images forward, and what is new going back. Those of a
# layer's second weight are one more.
WEIGHTS, BIASES, INPUTS, LOSS, FORWARD, BACKWARD = u32(0), u32(1), u32(2), u32(3), u32(4), u32(6)

ANGLE_PER_STEP = f32(math.pi / 2 / 2**32)


@njit(inline="always", **STRICT)
def rotate(x, by):
    return u32(u32(x << u32(by)) | u32(x >> u32(32 - by)))


@njit(inline="always", **STRICT)
def mix(x0, x1, x2, x3, r0, r1, r2, r3, r4, r5, r6, r7):
    """Four rounds of Threefry4x32 with the rotations given."""
    x0 = u32(x0 + x1)
    x1 = u32(rotate(x1, r0) ^ x0)
    x2 = u32(x2 + x3)
    x3 = u32(rotate(x3, r1) ^ x2)
    x0 = u32(x0 + x3)
    x3 = u32(rotate(x3, r2) ^ x0)
    x2 = u32(x2 + x1)
    x1 = u32(rotate(x1, r3) ^ x2)
    x0 = u32(x0 + x1)
    x1 = u32(rotate(x1, r4) ^ x0)
    x2 = u32(x2 + x3)
    x3 = u32(rotate(x3, r5) ^ x2)
    x0 = u32(x0 + x3)
    x3 = u32(rotate(x3, r6) ^ x0)
    x2 = u32(x2 + x1)
    x1 = u32(rotate(x1, r7) ^ x2)
    return x0, x1, x2, x3


@njit(inline="always", **STRICT)
def threefry(c0, c1, c2, c3, k0, k1, k2, k3, rounds):
    """Four random words for the counter (c0, c1, c2, c3) under the key (k0, k1, k2, k3); rounds is a multiple of four."""
    k4 = u32(PARITY ^ k0 ^ k1 ^ k2 ^ k3)
    x0, x1, x2, x3 = u32(c0 + k0), u32(c1 + k1), u32(c2 + k2), u32(c3 + k3)
    for group in range(rounds // 4):
        if group % 2 == 0:
            x0, x1, x2, x3 = mix(x0, x1, x2, x3, 10, 26, 11, 21, 13, 27, 23, 5)
        else:
            x0, x1, x2, x3 = mix(x0, x1, x2, x3, 6, 20, 17, 11, 25, 10, 18, 20)
        k0, k1, k2, k3, k4 = k1, k2, k3, k4, k0
        x0, x1, x2, x3 = u32(x0 + k0), u32(x1 + k1), u32(x2 + k2), u32(x3 + k3 + u32(group + 1))
    return x0, x1, x2, x3


@njit(inline="always", **STRICT)
def words(unit_pair, trial, layer, purpose, seed_low, seed_high):
    """Four random 32-bit words."""
    return threefry(unit_pair, trial, layer, purpose, seed_low, seed_high, u32(0), u32(0), ROUNDS)


@njit(inline="always", **STRICT)
def of_column(purpose, column):
    """The purpose of a column, for what has several: one for each input of a batch."""
    return u32(purpose + u32(u32(column) << u32(3)))


@njit(inline="always", **STRICT)
def normal_pair(radius_word, angle_word):
    """Two independent N(0, 1) from two words, by Box and Muller; none is 0, none is larger than 6.66."""
    # -2 ln u, u = (k + ½)/2³¹ for k = 0 … 2³¹ - 1
    u = fma(f32(np.int32(radius_word >> u32(1))), f32(2.0**-31), f32(2.0**-32))
    # where u rounds to 1, its predecessor
    radius = f32(math.sqrt(max(f32(-2.0) * log(u), f32(2.0**-23))))
    # an angle in [-π/4, π/4), but not 0, from the word's value, and which of the four quarters from its last two bits
    sine, cosine = sin_and_cos(f32(np.int32(angle_word | u32(1))) * ANGLE_PER_STEP)
    swapped = u32(angle_word & u32(1)) != u32(0)
    sign = u32(u32(angle_word & u32(2)) << u32(30))
    first = bits_from_float(sine if swapped else cosine)
    second = bits_from_float(cosine if swapped else sine)
    return radius * float_from_bits(u32(first ^ sign)), radius * float_from_bits(u32(second ^ sign))


@njit(forceinline=True, **STRICT)
def two_pairs(unit_pair, trial, layer, purpose, seed_low, seed_high):
    """Four independent N(0, 1), two for each unit of a pair: the words' normals. Compiled once, inlined by LLVM."""
    w0, w1, w2, w3 = words(unit_pair, trial, layer, purpose, seed_low, seed_high)
    first, second = normal_pair(w0, w1)
    third, fourth = normal_pair(w2, w3)
    return first, second, third, fourth


@njit(forceinline=True, **STRICT)
def four_uniforms(block, trial, layer, purpose, seed_low, seed_high):
    """Four independent numbers, uniform in (-1, 1)."""
    w0, w1, w2, w3 = words(block, trial, layer, purpose, seed_low, seed_high)
    return from_word(w0), from_word(w1), from_word(w2), from_word(w3)


@njit(inline="always", **STRICT)
def from_word(word):
    """Uniform in (-1, 1)."""
    return fma(f32(np.int32(word)), f32(2.0**-31), f32(2.0**-32))
