"""Random matrices in full, and their products, for networks that use a weight more than once.

Sums run in one fixed order over whole rows, which vectorises without reordering anything: the same bits everywhere.
Several lanes may share the work, see `lanes`; all that is written is then for all of them to read.
"""

import math

import numpy as np
from numba import njit

from vgp_kernels.numerics.arithmetic import ONE, STRICT, f32, f64, fma
from vgp_kernels.numerics.frames import dot
from vgp_kernels.numerics.lanes import (
    WAYS,
    columns_of_lane,
    compile_once,
    flat,
    mine,
    put,
    row,
    rows_of_warp,
    shared,
    together,
)
from vgp_kernels.numerics.randomness import four_uniforms, two_pairs, u32
from vgp_kernels.numerics.watch import stopped

u64 = np.uint64


@njit(forceinline=True, **STRICT)
def four(uniform, block, part, purpose, key):
    trial, seed_low, seed_high = key
    if uniform:
        return four_uniforms(block, trial, part, purpose, seed_low, seed_high)
    return two_pairs(block, trial, part, purpose, seed_low, seed_high)


@njit(**STRICT)
def fill_with(out, uniform, factor, part, purpose, key):
    """out ← factor times independent N(0, 1), or independent numbers that are uniform in (-1, 1)."""
    compile_once()
    whole, rest = out.size // 4, out.size % 4
    together()
    for block in mine(whole):
        a, b, c, d = four(uniform, u32(block), part, purpose, key)
        at = 4 * block
        out[at], out[at + 1], out[at + 2], out[at + 3] = factor * a, factor * b, factor * c, factor * d
    if rest > 0:
        a, b, c, _ = four(uniform, u32(whole), part, purpose, key)
        for i in mine(rest):
            out[4 * whole + i] = factor * (a if i == 0 else b if i == 1 else c)
    together()


@njit(**STRICT)
def fill_with_haar(out, factor, part, purpose, key, gaussian, product, vectors, watch):
    """out ← factor times an orthogonal matrix from the Haar measure, a product of reflections in random directions (Stewart 1980).

    Room are `gaussian`, n(n + 1)/2 float32, `product` and `vectors`, (n, n) and (3, n) float64.
    """
    n = len(out)
    fill_with(gaussian, False, ONE, part, purpose, key)
    x, sums, sign = row(vectors, 0), row(vectors, 1), row(vectors, 2)
    for i in rows_of_warp(n):
        for j in columns_of_lane(n):
            product[i, j] = 1.0 if i == j else 0.0
    start = 0
    for first in range(n):
        if stopped(watch):
            return
        size = n - first
        for i in mine(size):
            x[i] = f64(gaussian[start + i])
        for j in mine(n):
            sums[j] = 0.0
        start += size
        square = dot(x, x, size)
        head = x[0]
        side = 1.0 if head > 0.0 else -1.0
        beyond = head + side * math.sqrt(square)
        half = 0.5 * (square - head * head + beyond * beyond)
        put(x, 0, beyond)
        sign[first] = side
        # P ← (I - x xᵀ/half) P on the rows from `first` on
        add_rows(product[first:], x, sums)
        reflect(product[first:], x, half, sums)
    for i in rows_of_warp(n):
        for j in columns_of_lane(n):
            out[i, j] = factor * f32(-sign[i] * product[i, j])
    together()


@njit(**STRICT)
def reflect(rows, x, half, sums):
    """rows ← rows - x sumsᵀ/half."""
    compile_once()
    for i in rows_of_warp(len(rows)):
        scale = -x[i] / half
        for j in columns_of_lane(sums.size):
            rows[i, j] = fma(scale, sums[j], rows[i, j])
    together()


@njit(**STRICT)
def add_rows(rows, factors, out):
    """out += Aᵀ v for the rows of A and a vector v: every entry is one chain of fused multiply-adds, in the order of the rows."""
    compile_once()
    together()
    if shared():
        add_to_entries(rows, factors, out)
    else:
        add_whole_rows(rows, factors, out)
    together()


@njit(**STRICT)
def add_whole_rows(rows, factors, out):
    """Eight rows at a time."""
    whole = len(rows) // 8 * 8
    for k in range(0, whole, 8):
        a0, a1, a2, a3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        a4, a5, a6, a7 = factors[k + 4], factors[k + 5], factors[k + 6], factors[k + 7]
        for j in range(out.size):
            low = fma(a1, rows[k + 1, j], fma(a0, rows[k, j], out[j]))
            low = fma(a3, rows[k + 3, j], fma(a2, rows[k + 2, j], low))
            low = fma(a5, rows[k + 5, j], fma(a4, rows[k + 4, j], low))
            out[j] = fma(a7, rows[k + 7, j], fma(a6, rows[k + 6, j], low))
    for k in range(whole, len(rows)):
        for j in range(out.size):
            out[j] = fma(factors[k], rows[k, j], out[j])


@njit(**STRICT)
def add_to_entries(rows, factors, out):
    """A lane takes an entry, neighbouring lanes neighbouring columns. Indices are unsigned: others are compared with 0 first."""
    entries, columns, count = flat(rows), u64(out.size), u64(len(rows))
    for j in mine(out.size):
        total, k, at = out[j], u64(0), u64(j)
        while k < count:
            total = fma(factors[k], entries[at], total)
            k, at = k + u64(1), at + columns
        out[j] = total


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
    """out ← scale times the normals start, start + 1, … of part 0 of this purpose; as `fill_with` counts them."""
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
def transpose(a, out):
    """out ← Aᵀ."""
    compile_once()
    together()
    for i in rows_of_warp(a.shape[0]):
        for j in columns_of_lane(a.shape[1]):
            out[j, i] = a[i, j]
    together()
