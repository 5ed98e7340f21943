"""Random matrices in full, and their products, for networks that use a weight more than once.

Sums run in one fixed order over whole rows, which vectorises without reordering anything: the same bits everywhere.
"""

import functools
import math

import numpy as np
from numba import njit, types

from vgp_kernels.arithmetic import STRICT, f32, fma
from vgp_kernels.cpu import SOURCES
from vgp_kernels.lanes import WAYS, columns_of_lane, compile_once, flat, mine, row, rows_of_warp, shared, together
from vgp_kernels.randomness import normal_pair, two_pairs, u32, words

u64 = np.uint64


class Maker:
    """Makes the random numbers of one trial: float32 arrays, keyed by purpose and part under the seed."""

    def __init__(self, trial: int, seed: int) -> None:
        self.key = u32(trial), u32(seed & 0xFFFFFFFF), u32(seed >> 32)

    def normals(self, shape: tuple[int, ...], purpose: np.uint32, part: int = 0) -> np.ndarray:
        """Independent N(0, 1)."""
        out = np.empty(math.prod(shape), np.float32)
        fill_function()(out, False, u32(part), purpose, *self.key)
        return out.reshape(shape)

    def uniforms(self, shape: tuple[int, ...], purpose: np.uint32, part: int = 0) -> np.ndarray:
        """Independent numbers, uniform in (-1, 1)."""
        out = np.empty(math.prod(shape), np.float32)
        fill_function()(out, True, u32(part), purpose, *self.key)
        return out.reshape(shape)

    def haar(self, n: int, part: int, purpose: np.uint32) -> np.ndarray:
        """An orthogonal matrix from the Haar measure."""
        out = np.empty((n, n), np.float32)
        haar_function()(self.normals((n * (n + 1) // 2,), purpose, part), out)
        return out


@functools.cache
def fill_function(sources: str = SOURCES):
    """The kernel that fills a vector with random numbers."""

    @njit(
        types.void(
            types.float32[::1], types.boolean, types.uint32, types.uint32, types.uint32, types.uint32, types.uint32
        ),
        cache=True,
        nogil=True,
        **STRICT,
    )
    def fill(out, uniform, part, purpose, trial, seed_low, seed_high):
        sources  # noqa: B018  # in the cache's key
        rest = np.empty(4, np.float32)
        for block in range((out.size + 3) // 4):
            w0, w1, w2, w3 = words(u32(block), trial, part, purpose, seed_low, seed_high)
            whole = 4 * block + 4 <= out.size
            four = out[4 * block : 4 * block + 4] if whole else rest
            if uniform:
                four[0], four[1] = from_word(w0), from_word(w1)
                four[2], four[3] = from_word(w2), from_word(w3)
            else:
                four[0], four[1] = normal_pair(w0, w1)
                four[2], four[3] = normal_pair(w2, w3)
            if not whole:
                out[4 * block :] = rest[: out.size - 4 * block]

    return fill


@njit(inline="always", **STRICT)
def from_word(word):
    """Uniform in (-1, 1)."""
    return fma(f32(np.int32(word)), f32(2.0**-31), f32(2.0**-32))


@functools.cache
def haar_function(sources: str = SOURCES):
    """The kernel that makes an orthogonal matrix as a product of reflections in random directions (Stewart 1980)."""

    @njit(types.void(types.float32[::1], types.float32[:, ::1]), cache=True, nogil=True, **STRICT)
    def haar(gaussian, out):
        sources  # noqa: B018  # in the cache's key
        n = len(out)
        product, sums, sign = np.eye(n), np.empty(n), np.empty(n)
        start = 0
        for first in range(n):
            x = gaussian[start : start + n - first].astype(np.float64)
            start += n - first
            square = sum_of_squares(x)
            sign[first] = 1.0 if x[0] > 0.0 else -1.0
            beyond = x[0] + sign[first] * math.sqrt(square)
            half = 0.5 * (square - x[0] * x[0] + beyond * beyond)
            x[0] = beyond
            # P ← (I - x xᵀ/half) P on the rows from `first` on
            sums[:] = 0.0
            add_rows(product[first:], x, sums)
            for i in range(x.size):
                factor = -x[i] / half
                for j in range(n):
                    product[first + i, j] = fma(factor, sums[j], product[first + i, j])
        for i in range(n):
            for j in range(n):
                out[i, j] = -sign[i] * product[i, j]

    return haar


@njit(**STRICT)
def add_rows(rows, factors, out):
    """out += Aᵀ v for the rows of A and a vector v."""
    whole = len(rows) // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        for j in range(out.size):
            low = fma(b, rows[k + 1, j], fma(a, rows[k, j], out[j]))
            out[j] = fma(d, rows[k + 3, j], fma(c, rows[k + 2, j], low))
    for k in range(whole, len(rows)):
        for j in range(out.size):
            out[j] = fma(factors[k], rows[k, j], out[j])


@njit(**STRICT)
def product(a, b):
    """A B."""
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    multiply(a, b, out)
    return out


@njit(**STRICT)
def multiply(a, b, out):
    """out ← A B: every entry is one chain of fused multiply-adds, in the order of A's columns."""
    compile_once()
    if shared():
        multiply_entries(a, b, out)
    else:
        multiply_rows(a, b, out)
    together()


@njit(**STRICT)
def multiply_rows(a, b, out):
    """Four rows of A and of B at a time, so that a row read from memory is used four times."""
    m, n, columns = a.shape[0], a.shape[1], b.shape[1]
    for i in range(0, m // 4 * 4, 4):
        o0, o1, o2, o3 = row(out, i), row(out, i + 1), row(out, i + 2), row(out, i + 3)
        for j in range(columns):
            o0[j] = o1[j] = o2[j] = o3[j] = 0.0
        for k in range(0, n // 4 * 4, 4):
            b0, b1, b2, b3 = row(b, k), row(b, k + 1), row(b, k + 2), row(b, k + 3)
            a00, a01, a02, a03 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            a10, a11, a12, a13 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            a20, a21, a22, a23 = a[i + 2, k], a[i + 2, k + 1], a[i + 2, k + 2], a[i + 2, k + 3]
            a30, a31, a32, a33 = a[i + 3, k], a[i + 3, k + 1], a[i + 3, k + 2], a[i + 3, k + 3]
            for j in range(columns):
                x0, x1, x2, x3 = b0[j], b1[j], b2[j], b3[j]
                o0[j] = fma(a03, x3, fma(a02, x2, fma(a01, x1, fma(a00, x0, o0[j]))))
                o1[j] = fma(a13, x3, fma(a12, x2, fma(a11, x1, fma(a10, x0, o1[j]))))
                o2[j] = fma(a23, x3, fma(a22, x2, fma(a21, x1, fma(a20, x0, o2[j]))))
                o3[j] = fma(a33, x3, fma(a32, x2, fma(a31, x1, fma(a30, x0, o3[j]))))
        for k in range(n // 4 * 4, n):
            for r in range(i, i + 4):
                for j in range(columns):
                    out[r, j] = fma(a[r, k], b[k, j], out[r, j])
    for i in range(m // 4 * 4, m):
        o0 = row(out, i)
        for j in range(columns):
            o0[j] = 0.0
        for k in range(0, n // 4 * 4, 4):
            b0, b1, b2, b3 = row(b, k), row(b, k + 1), row(b, k + 2), row(b, k + 3)
            a00, a01, a02, a03 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            for j in range(columns):
                o0[j] = fma(a03, b3[j], fma(a02, b2[j], fma(a01, b1[j], fma(a00, b0[j], o0[j]))))
        for k in range(n // 4 * 4, n):
            for j in range(columns):
                o0[j] = fma(a[i, k], b[k, j], o0[j])


@njit(**STRICT)
def multiply_entries(a, b, out):
    """A lane takes four rows of A and two columns of B at a time, a warp neighbouring columns, and the warps of a block the rows.

    The last row and column stand in for those that are not there. Indices are unsigned: others are compared with 0 first.
    """
    m, n, columns, entries = a.shape[0], u64(a.shape[1]), u64(b.shape[1]), flat(b)
    tiles, pairs = (m + 3) // 4, (b.shape[1] + 1) // 2
    for entry in mine((pairs + WAYS - 1) // WAYS * tiles * WAYS):
        warp = entry // WAYS
        i, j = warp % tiles * 4, warp // tiles * WAYS + entry % WAYS
        if j < pairs:
            i1, i2, i3 = min(i + 1, m - 1), min(i + 2, m - 1), min(i + 3, m - 1)
            after = min(j + pairs, b.shape[1] - 1)
            a0, a1, a2, a3 = row(a, i), row(a, i1), row(a, i2), row(a, i3)
            c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = a.dtype.type(0.0)
            k, one, other = u64(0), u64(j), u64(after)
            while k < n:
                x, y = entries[one], entries[other]
                c00, c01 = fma(a0[k], x, c00), fma(a0[k], y, c01)
                c10, c11 = fma(a1[k], x, c10), fma(a1[k], y, c11)
                c20, c21 = fma(a2[k], x, c20), fma(a2[k], y, c21)
                c30, c31 = fma(a3[k], x, c30), fma(a3[k], y, c31)
                k, one, other = k + u64(1), one + columns, other + columns
            out[i, j], out[i, after] = c00, c01
            out[i1, j], out[i1, after] = c10, c11
            out[i2, j], out[i2, after] = c20, c21
            out[i3, j], out[i3, after] = c30, c31


@njit(**STRICT)
def draw_normals(out, scale, start, purpose, trial, seed_low, seed_high):
    """out ← scale times the normals start, start + 1, … of part 0 of this purpose; see `Maker.normals`."""
    compile_once()
    whole, last = (start + 3) // 4, (start + out.size) // 4
    for block in mine(max(last - whole, 0)):
        x0, x1, x2, x3 = two_pairs(u32(whole + block), trial, u32(0), purpose, seed_low, seed_high)
        at = 4 * (whole + block) - start
        out[at], out[at + 1], out[at + 2], out[at + 3] = scale * x0, scale * x1, scale * x2, scale * x3
    for block in (whole - 1, last):
        at = 4 * block - start
        if at < 0 < at + 4 or at < out.size < at + 4:  # only a part of the four
            for i, x in enumerate(two_pairs(u32(block), trial, u32(0), purpose, seed_low, seed_high)):
                if 0 <= at + i < out.size:
                    out[at + i] = scale * x
    together()


@njit(**STRICT)
def transposed(a):
    """Aᵀ, row by row in memory."""
    out = np.empty((a.shape[1], a.shape[0]), a.dtype)
    transpose(a, out)
    return out


@njit(**STRICT)
def transpose(a, out):
    """out ← Aᵀ."""
    compile_once()
    together()
    for i in rows_of_warp(a.shape[0]):
        for j in columns_of_lane(a.shape[1]):
            out[j, i] = a[i, j]
    together()


@njit(**STRICT)
def sum_of_squares(x):
    """Σ x², in float64."""
    total = 0.0
    for value in x.flat:
        total = fma(np.float64(value), np.float64(value), total)
    return total
