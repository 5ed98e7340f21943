"""Linear algebra on a few long rows, in one fixed order of operations: the same bits on every machine, which no BLAS promises.

A matrix here holds its vectors as rows: `vectors[b, :n]`. A frame is a set of orthonormal rows.

A warp has all of it to itself (`lanes`): entry i of a row is lane i mod WAYS's wherever rows are worked on, so that such
loops need no barrier between them, and what belongs to a whole row all lanes know.
"""

import math

import numpy as np
from numba import njit

from vgp_kernels.numerics.arithmetic import STRICT, bits_from_double, f64, power_of_two
from vgp_kernels.numerics.lanes import (
    WAYS,
    compile_once,
    mine,
    most_over_warp,
    prefer_wide_vectors,
    put,
    row,
    sum_of_entries,
    sum_of_products,
    together,
)
from vgp_kernels.numerics.randomness import normal_pair, u32, words

ROUNDING = 2.0**-40  # what is left of a vector below this part of it, after others are subtracted, is rounding
NO_EXPONENT = -(2**40)  # the binary exponent of 0
USUAL = 64  # rows whose largest entry is within 2^±64 are left as they are


@njit(inline="always", **STRICT)
def dot_by_warp(x, y, n):
    """x · y of the first n entries, in float64, by a warp for itself."""
    whole = n // WAYS * WAYS
    total = sum_of_products(x, y, whole)
    for i in range(whole, n):
        total += f64(x[i]) * f64(y[i])
    return total


@njit(inline="always", **STRICT)
def sum_by_warp(x, n):
    """Σ x of the first n entries, in float64, by a warp for itself."""
    whole = n // WAYS * WAYS
    total = sum_of_entries(x, whole)
    for i in range(whole, n):
        total += f64(x[i])
    return total


@njit(**STRICT)
def dot(x, y, n):
    """x · y of the first n entries, in float64."""
    compile_once()
    together()
    total = dot_by_warp(x, y, n)
    together()
    return total


@njit(**STRICT)
def sum_of(x, n):
    """Σ x of the first n entries, in float64."""
    compile_once()
    together()
    total = sum_by_warp(x, n)
    together()
    return total


@njit(**STRICT)
def fill(x, value, n):
    """x ← value, to the first n entries."""
    for i in mine(n):
        x[i] = value


@njit(**STRICT)
def copy(x, y, n):
    """x ← y, the first n entries."""
    for i in mine(n):
        x[i] = y[i]


@njit(**STRICT)
def scale(x, factor, n):
    """x ← factor · x, the first n entries."""
    prefer_wide_vectors()
    for i in mine(n):
        x[i] *= factor


@njit(**STRICT)
def add_multiple(x, factor, y, n):
    """x ← x + factor · y, the first n entries."""
    prefer_wide_vectors()
    compile_once()
    for i in mine(n):
        x[i] += factor * y[i]


@njit(**STRICT)
def combine(x, coefficients, frame, count, n):
    """x ← x + Σ_j coefficients_j frame_j."""
    prefer_wide_vectors()
    compile_once()
    j = 0
    while j + 4 <= count:
        a, b, c, d = coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3]
        for i in mine(n):
            x[i] = x[i] + a * frame[j, i] + b * frame[j + 1, i] + c * frame[j + 2, i] + d * frame[j + 3, i]
        j += 4
    while j < count:
        a = coefficients[j]
        for i in mine(n):
            x[i] += a * frame[j, i]
        j += 1


@njit(**STRICT)
def twin(vectors, b, n):
    """(a, ±1) for the first vector a < b with vector b = ± vector a to the last bit, or (-1, 0)."""
    compile_once()
    together()
    for a in range(b):
        if abs(vectors[a, 0]) == abs(vectors[b, 0]):
            for sign in (1.0, -1.0):
                differs = np.int64(0)
                for unit in mine(n):
                    if vectors[b, unit] != sign * vectors[a, unit]:
                        differs = np.int64(1)
                        break
                if most_over_warp(differs) == 0:
                    return a, sign
    return -1, 0.0


@njit(**STRICT)
def extend(frame, count, vectors, vector_count, n, coefficients, rest):
    """Make the frame of `count` rows span the vectors, too; returns its new size.

    coefficients[b, j] becomes frame_j · vector_b, so that vector_b = Σ_j coefficients[b, j] frame_j. Gram-Schmidt, done
    twice (Giraud, Langou & Rozložník 2005). Vectors that are equal or opposite get coefficients that are so to the last
    bit: such inputs then stay equal, where rounding would part them in a chaotic network.
    """
    compile_once()
    for b in range(vector_count):
        other, sign = twin(vectors, b, n)
        fill(row(coefficients, b), 0.0, coefficients.shape[1])
        if other >= 0:
            for j in mine(count):
                coefficients[b, j] = sign * coefficients[other, j]
            continue
        square = dot(row(vectors, b), row(vectors, b), n)
        left, vector, along = square, row(rest, 0), row(rest, 1)
        copy(vector, row(vectors, b), n)
        for _ in range(2 if count > 0 else 0):
            for j in range(count):
                along[j] = -dot(row(frame, j), vector, n)
            for j in mine(count):
                coefficients[b, j] -= along[j]
            combine(vector, along, frame, count, n)
            left = dot(vector, vector, n)
        if count < n and left > ROUNDING * ROUNDING * square:
            norm = math.sqrt(left)
            inverse = 1.0 / norm
            for unit in mine(n):
                frame[count, unit] = vector[unit] * inverse
            put(row(coefficients, b), count, norm)
            count += 1
    together()
    return count


@njit(**STRICT)
def fill_normals(out, n, trial, layer, purpose, seed_low, seed_high):
    """The first n entries become independent N(0, 1), and so do others up to a multiple of four."""
    prefer_wide_vectors()
    compile_once()
    quarter = (n + 3) // 4
    together()
    for i in mine(quarter):
        w0, w1, w2, w3 = words(u32(i), trial, layer, purpose, seed_low, seed_high)
        x0, x1 = normal_pair(w0, w1)
        x2, x3 = normal_pair(w2, w3)
        out[i], out[quarter + i], out[2 * quarter + i], out[3 * quarter + i] = f64(x0), f64(x1), f64(x2), f64(x3)
    together()


# Rows with binary exponents: row b stands for 2^exponents[b] · vectors[b]


@njit(**STRICT)
def largest_exponent(x, n):
    """⌊log₂⌋ of the largest of the first n entries, or NO_EXPONENT if all are 0."""
    prefer_wide_vectors()
    compile_once()
    bits = np.int64(0)  # WebAssembly has no vector comparison of unsigned integers
    for unit in mine(n):
        here = np.int64(bits_from_double(abs(x[unit])))
        if here > bits:
            bits = here
    bits = most_over_warp(bits)
    return (bits >> np.int64(52)) - 1023 if bits > 0 else NO_EXPONENT


@njit(**STRICT)
def shift(x, exponent, n):
    """x ← 2^exponent x, the first n entries."""
    if exponent != 0:
        scale(x, power_of_two(exponent), n)


@njit(**STRICT)
def keep_in_range(vectors, exponents, batch_size, n):
    """Move powers of two from the rows to their exponents where products of entries could leave the range of float64."""
    compile_once()
    for b in range(batch_size):
        exponent = largest_exponent(row(vectors, b), n)
        if exponent == NO_EXPONENT:
            put(exponents, b, 0)
        elif abs(exponent) > USUAL:
            shift(row(vectors, b), -exponent, n)
            put(exponents, b, exponents[b] + exponent)


@njit(**STRICT)
def align(vectors, exponents, batch_size, n):
    """Give all rows one exponent, which it returns."""
    compile_once()
    common = NO_EXPONENT
    for b in range(batch_size):
        exponent = largest_exponent(row(vectors, b), n)
        if exponent != NO_EXPONENT:
            common = max(common, exponent + exponents[b])
    common = 0 if common == NO_EXPONENT else common
    for b in range(batch_size):
        shift(row(vectors, b), exponents[b] - common, n)
        put(exponents, b, common)
    return common


@njit(**STRICT)
def add_rows(vectors, exponents, others, other_exponents, factor, batch_size, n):
    """vectors ← vectors + factor · others, row by row."""
    compile_once()
    for b in range(batch_size):
        here, there = largest_exponent(row(vectors, b), n), largest_exponent(row(others, b), n)
        if there == NO_EXPONENT or factor == 0.0:
            continue
        there += other_exponents[b]
        if here == NO_EXPONENT:
            common = there
        elif abs(here) <= USUAL and there - exponents[b] <= USUAL:
            common = exponents[b]
        else:
            common = max(here + exponents[b], there)
        shift(row(vectors, b), exponents[b] - common, n)
        add_multiple(row(vectors, b), factor * power_of_two(other_exponents[b] - common), row(others, b), n)
        put(exponents, b, common)


@njit(**STRICT)
def squared_norm(vectors, exponents, batch_size, n):
    """(s, k) with Σ_b |row b|² = s · 4^k."""
    compile_once()
    common = NO_EXPONENT
    for b in range(batch_size):
        if largest_exponent(row(vectors, b), n) != NO_EXPONENT:
            common = max(common, exponents[b])
    square = 0.0
    for b in range(batch_size):
        square += dot(row(vectors, b), row(vectors, b), n) * power_of_two(2 * (exponents[b] - common))
    return square, (common if square > 0.0 else 0)


@njit(**STRICT)
def mean_cosine(vectors, batch_size, n, rest):
    """The mean cosine between two rows, over all pairs of rows that are not 0; NaN if there is no such pair."""
    compile_once()
    if batch_size < 2:
        return math.nan
    direction = row(rest, 0)
    fill(direction, 0.0, n)
    present = 0
    for b in range(batch_size):
        square = dot(row(vectors, b), row(vectors, b), n)
        if square > 0.0:
            add_multiple(direction, 1.0 / math.sqrt(square), row(vectors, b), n)
            present += 1
    if present < 2:
        return math.nan
    # |Σ x̂_b|² = m + Σ_{a≠b} x̂_a·x̂_b
    return (dot(direction, direction, n) - present) / (present * (present - 1.0))
