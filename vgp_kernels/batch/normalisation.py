"""Batch, layer and RMS normalisation with unit gain, no shift and ε = 0, forward and back.

With ε = 0 the output does not depend on the scale of the input. A unit that is constant over the batch, or an input that
is constant over its units, is normalised to 0 and passes no gradient: the limit of any ε > 0 that such units have.
"""

import math

from numba import njit

from vgp_kernels.numerics.arithmetic import STRICT
from vgp_kernels.numerics.frames import ROUNDING, align, copy, dot, fill, scale, sum_of
from vgp_kernels.numerics.lanes import compile_once, mine, prefer_wide_vectors, put, row

NONE, BATCH, BATCH_INFERENCE, LAYER, RMS = range(5)


@njit(**STRICT)
def normalise(kind, x, exponents, batch_size, n, normalised, inverse, scales, rest):
    """x ← N(x); keeps x̂ = N(x), 1/σ and the exponents that σ is in for the way back."""
    if kind == BATCH or kind == BATCH_INFERENCE:
        normalise_units(x, exponents, batch_size, n, inverse, scales, rest)
    else:
        normalise_inputs(kind == LAYER, x, exponents, batch_size, n, inverse, scales)
    for b in range(batch_size):
        put(exponents, b, 0)
        copy(row(normalised, b), row(x, b), n)


@njit(**STRICT)
def normalise_inputs(centred, x, exponents, batch_size, n, inverse, scales):
    """x_b ← (x_b - m)/σ, m and σ² the mean and variance over the units; or x_b/σ, σ² the mean square."""
    compile_once()
    for b in range(batch_size):
        before = dot(row(x, b), row(x, b), n)
        for _ in range(2 if centred else 0):  # the second time for what rounding left of the mean
            mean = sum_of(row(x, b), n) / n
            for unit in mine(n):
                x[b, unit] -= mean
        square = dot(row(x, b), row(x, b), n)
        sigma = math.sqrt(square / n) if square > ROUNDING * ROUNDING * before else 0.0
        put(inverse, b, 1.0 / sigma if sigma > 0.0 else 0.0)
        put(scales, b, exponents[b])
        for unit in mine(n):
            x[b, unit] = x[b, unit] / sigma if sigma > 0.0 else 0.0


@njit(**STRICT)
def normalise_units(x, exponents, batch_size, n, inverse, scales, rest):
    """x_·i ← (x_·i - m_i)/σ_i, with the mean and variance over the batch."""
    prefer_wide_vectors()
    compile_once()
    common = align(x, exponents, batch_size, n)
    mean_square, sums = 0.0, row(rest, 0)
    for b in range(batch_size):
        put(scales, b, common)
        mean_square += dot(row(x, b), row(x, b), n)
    smallest = ROUNDING * ROUNDING * mean_square / (batch_size * n)
    for _ in range(2):  # the second time for what rounding left of the mean
        fill(sums, 0.0, n)
        for b in range(batch_size):
            for i in mine(n):
                sums[i] += x[b, i]
        for b in range(batch_size):
            for i in mine(n):
                x[b, i] -= sums[i] / batch_size
    fill(sums, 0.0, n)
    for b in range(batch_size):
        for i in mine(n):
            sums[i] += x[b, i] * x[b, i]
    for i in mine(n):
        variance = sums[i] / batch_size
        sums[i] = math.sqrt(variance) if variance > smallest else math.inf
        inverse[i] = 1.0 / sums[i]
    for b in range(batch_size):
        for i in mine(n):
            x[b, i] /= sums[i]


@njit(**STRICT)
def normalise_back(kind, g, exponents, batch_size, n, normalised, inverse, scales, rest):
    """g ← Jᵀg, where J is the Jacobian of N: of what it projects, below 2^-40 of g is rounding and counts as 0."""
    if kind == BATCH or kind == BATCH_INFERENCE:
        align(g, exponents, batch_size, n)
        if kind == BATCH:
            project_units(g, batch_size, n, normalised, rest)
        for b in range(batch_size):
            for i in mine(n):
                g[b, i] *= inverse[i]
    else:
        project_inputs(kind == LAYER, g, batch_size, n, normalised, inverse)
    for b in range(batch_size):
        put(exponents, b, exponents[b] - scales[b])


@njit(**STRICT)
def project_inputs(centred, g, batch_size, n, normalised, inverse):
    """g_b ← (g_b - mean(g_b) - x̂_b mean(g_b ⊙ x̂_b))/σ_b; the first mean is that of layer normalisation only."""
    compile_once()
    for b in range(batch_size):
        before = dot(row(g, b), row(g, b), n)
        mean = sum_of(row(g, b), n) / n if centred else 0.0
        along = dot(row(g, b), row(normalised, b), n) / n
        for unit in mine(n):
            g[b, unit] -= mean + along * normalised[b, unit]
        left = dot(row(g, b), row(g, b), n)
        factor = inverse[b] if left > ROUNDING * ROUNDING * before else 0.0
        scale(row(g, b), factor, n)


@njit(**STRICT)
def project_units(g, batch_size, n, normalised, rest):
    """g_·i ← g_·i - mean(g_·i) - x̂_·i mean(g_·i ⊙ x̂_·i), the means over the batch."""
    prefer_wide_vectors()
    compile_once()
    means, along, before, left = row(rest, 0), row(rest, 1), row(rest, 2), row(rest, 3)
    for i in mine(n):
        means[i], along[i], before[i], left[i] = 0.0, 0.0, 0.0, 0.0
    for b in range(batch_size):
        for i in mine(n):
            means[i] += g[b, i]
            along[i] += g[b, i] * normalised[b, i]
            before[i] += g[b, i] * g[b, i]
    for i in mine(n):
        means[i] /= batch_size
        along[i] /= batch_size
    for b in range(batch_size):
        for i in mine(n):
            g[b, i] -= means[i] + along[i] * normalised[b, i]
            left[i] += g[b, i] * g[b, i]
    for b in range(batch_size):
        for i in mine(n):
            g[b, i] = g[b, i] if left[i] > ROUNDING * ROUNDING * before[i] else 0.0
