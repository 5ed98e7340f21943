"""Elementary functions in plain IEEE 754 arithmetic: the same bits on every target, and loops that vectorise.

A library's exp or log differs from machine to machine in its last bit, and no compiler vectorises a call to it. These are
made of additions, products, divisions, square roots and fused multiply-adds written out, which IEEE 754 defines to the
last bit. All are float32 in, float32 out, but for `log64`; the polynomials are Chebyshev fits, whose interval and function
stand beside them (tests/numerics/test_arithmetic.py derives them again and measures the errors over the whole range).
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

f32, f64 = np.float32, np.float64

# What every kernel is compiled with: no licence to reorder or contract, division as IEEE defines it. And no memory of its
# own: a kernel that makes an array does not compile. All arrays are the caller's and live as long as the call, whatever
# addresses and views of them go about, and no reference to them is counted, which took a fifth of the time of small networks.
STRICT: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "_nrt": False}
# The same for what is no kernel: it makes arrays, and neither takes addresses nor uncounted views.
MAKING_ARRAYS = STRICT | {"_nrt": True}


@intrinsic
def fma(typing_context, a, b, c):
    """a·b + c, rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return a(a, a, a), generate


@intrinsic
def polynomial(typing_context, x, coefficients):
    """Horner's rule with fused multiply-adds; the highest power comes first."""

    def generate(context, builder, signature, arguments):
        point, constants = arguments
        total, *rest = cgutils.unpack_tuple(builder, constants)
        for constant in rest:
            total = builder.fma(total, point, constant)
        return total

    return x(x, coefficients), generate


def reinterpretation(source, target, llvm_target):
    """The same bits, read as another type."""

    @intrinsic
    def reinterpret(typing_context, x):
        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], llvm_target)

        return target(source), generate

    return reinterpret


float_from_bits = reinterpretation(types.uint32, types.float32, ir.FloatType())
bits_from_float = reinterpretation(types.float32, types.uint32, ir.IntType(32))
double_from_bits = reinterpretation(types.uint64, types.float64, ir.DoubleType())
bits_from_double = reinterpretation(types.float64, types.uint64, ir.IntType(64))


def coefficients(dtype, *values):
    return tuple(dtype(value) for value in values)


# (e^r - 1 - r)/r² for |r| ≤ ln2/2
EXP = coefficients(
    f32,
    0.00019890980911441147,
    0.0013933641603216529,
    0.00833331048488617,
    0.04166646674275398,
    0.1666666716337204,
    0.5,
)
# (ln(1+f) - f + f²/2)/f³ for √½ - 1 ≤ f ≤ √2 - 1
LOG = coefficients(
    f32, 0.06971611827611923, -0.11479733884334564, 0.11685419827699661, -0.12425687164068222, 0.14249058067798615,
    -0.1666780263185501, 0.20000715553760529, -0.2499999701976776, 0.3333333134651184,
)  # fmt: skip
# ln(1+w)/w for 0 ≤ w ≤ 1
LOG1P = coefficients(
    f32, 0.001986696617677808, -0.013187826611101627, 0.04100657254457474, -0.08188040554523468, 0.12377995997667313,
    -0.16087622940540314, 0.19885820150375366, -0.24986496567726135, 0.33332496881484985, -0.4999997913837433, 1.0,
)  # fmt: skip
# (sin x - x)/x³ and (cos x - 1 + x²/2)/x⁴ in powers of x², for |x| ≤ π/4
SIN = coefficients(f32, -0.00019587890710681677, 0.008332747966051102, -0.166666641831398)
COS = coefficients(f32, 2.454794230288826e-05, -0.001388830249197781, 0.0416666641831398)
# (-ln erfc(a)/a - 2/√π)/a for 0 ≤ a ≤ 4, and 2/√π in two parts
ERF = coefficients(
    f32, -1.1084298279229188e-07, 2.7368646442482714e-06, -3.0156290449667722e-05, 0.000194215084775351,
    -0.0007876430172473192, 0.0018475758843123913, -0.0002806969569064677, -0.019109996035695076, 0.1027706041932106,
    0.6366198062896729,
)  # fmt: skip
TWO_OVER_ROOT_PI_HIGH, TWO_OVER_ROOT_PI_LOW = f32(1.128379225730896), f32(-5.863538342219759e-08)
# (atanh(s)/s - 1)·2/s² in powers of s², for |s| ≤ (√2-1)/(√2+1)
LOG64 = coefficients(
    f64, 0.13086626147840102, 0.13268773138656886, 0.15386239702814658, 0.18181795640132906, 0.22222222391713917,
    0.28571428570803614, 0.4000000000000088, 0.6666666666666666,
)  # fmt: skip
# (e^r - 1 - r)/r² for |r| ≤ ln2/2: Taylor's series, its next term below 2⁻⁵⁷
EXP64 = coefficients(f64, *(1 / math.factorial(n) for n in range(13, 1, -1)))

ZERO, HALF, ONE, TWO = f32(0.0), f32(0.5), f32(1.0), f32(2.0)
LOG2E = f32(1.4426950408889634)
LN2 = math.log(2.0)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)  # ln2 in two parts; the first has 9 trailing zero bits
LN2_64_HIGH, LN2_64_LOW = f64(6.93147180369123816490e-01), f64(1.90821492927058770002e-10)
SQRT_HALF_BITS = np.uint32(0x3F3504F3)
SQRT_HALF_BITS_64 = np.uint64(0x3FE6A09E667F3BCD)
SMALLEST_EXPONENT = f32(-87.0)  # e^-87 is the last power above float32's normal range


@njit(inline="always", **STRICT)
def exp_and_expm1(x):
    """(eˣ, eˣ - 1) for x ≤ 0; eˣ counts as 0 below x = -87."""
    bounded = max(x, SMALLEST_EXPONENT)
    k = np.int32(fma(bounded, LOG2E, -HALF))
    r = fma(f32(-k), LN2_HIGH, bounded)
    r = fma(f32(-k), LN2_LOW, r)
    expm1_r = fma(polynomial(r, EXP) * r, r, r)
    power = float_from_bits(np.uint32((k + np.int32(127)) << np.int32(23)))
    inside = x >= SMALLEST_EXPONENT
    return (fma(power, expm1_r, power) if inside else ZERO), (fma(power, expm1_r, power - ONE) if inside else -ONE)


@njit(inline="always", **STRICT)
def quotient(x, divisor, reciprocal):
    """x/divisor, given the rounded reciprocal of the divisor: a division for the price of three multiplications."""
    estimate = x * reciprocal
    return fma(fma(-divisor, estimate, x), reciprocal, estimate)


@njit(inline="always", **STRICT)
def log(x):
    """ln x for normal x > 0."""
    shifted = np.uint32(bits_from_float(x) - SQRT_HALF_BITS)
    exponent = f32(np.int32(shifted) >> np.int32(23))
    f = float_from_bits(np.uint32(np.uint32(shifted & np.uint32(0x007FFFFF)) + SQRT_HALF_BITS)) - ONE
    log_mantissa = fma(f * f, fma(polynomial(f, LOG), f, -HALF), f)
    return fma(exponent, LN2_HIGH, fma(exponent, LN2_LOW, log_mantissa))


@njit(inline="always", **STRICT)
def log1p(w):
    """ln(1 + w) for 0 ≤ w ≤ 1."""
    return w * polynomial(w, LOG1P)


@njit(inline="always", **STRICT)
def sin_and_cos(x):
    """(sin x, cos x) for |x| ≤ π/4."""
    square = x * x
    sine = fma(polynomial(square, SIN) * square, x, x)
    cosine = fma(polynomial(square, COS) * square, square, fma(-HALF, square, ONE))
    return sine, cosine


@njit(inline="always", **STRICT)
def exp_of_minus_square(x):
    """e^(-x²), the rounding of x² undone."""
    bounded = min(abs(x), f32(10.0))  # e^-100 is 0 here
    square = bounded * bounded
    lost = fma(bounded, bounded, -square)
    power, _ = exp_and_expm1(-square)
    return fma(-lost, power, power)


@njit(inline="always", **STRICT)
def erf_and_erfc(a):
    """(erf a, erfc a) for a ≥ 0; erfc counts as 0, with an absolute error below 1.6e-8, beyond a = 4."""
    bounded = min(a, f32(4.0))
    above = polynomial(bounded, ERF)
    ratio = fma(bounded, above, TWO_OVER_ROOT_PI_HIGH)
    exponent = bounded * ratio
    # what the last two roundings lost: near 0, erf a is as exact as its exponent
    lost_of_ratio = fma(bounded, above, TWO_OVER_ROOT_PI_HIGH - ratio) + TWO_OVER_ROOT_PI_LOW
    lost = fma(bounded, lost_of_ratio, fma(bounded, ratio, -exponent))
    power, expm1 = exp_and_expm1(-exponent)
    inside = a <= f32(4.0)
    return (fma(lost, power, -expm1) if inside else ONE), (fma(-lost, power, power) if inside else ZERO)


@njit(inline="always", **STRICT)
def log64(x):
    """ln x in float64 for x = 0 (-∞), normal x > 0 and ∞."""
    shifted = np.uint64(bits_from_double(x) - SQRT_HALF_BITS_64)
    exponent = f64(np.int64(shifted) >> np.int64(52))
    mantissa = double_from_bits(np.uint64(np.uint64(shifted & np.uint64(0xFFFFFFFFFFFFF)) + SQRT_HALF_BITS_64))
    f = mantissa - 1.0
    s = f / (2.0 + f)
    square = s * s
    # ln(1+f) = 2s + s·R = f - s(f - R)
    log_mantissa = f - s * (f - square * polynomial(square, LOG64))
    finite = fma(exponent, LN2_64_HIGH, fma(exponent, LN2_64_LOW, log_mantissa))
    return -math.inf if x == 0.0 else (x if x == math.inf else finite)


@njit(inline="always", **STRICT)
def power_of_two(exponent):
    """2^exponent in float64 for an integer; held within the normal range."""
    held = np.int64(exponent)
    held = held if held > np.int64(-1022) else np.int64(-1022)  # min and max of integers keep a loop from vectorising
    held = held if held < np.int64(1023) else np.int64(1023)
    return double_from_bits(np.uint64((held + np.int64(1023)) << np.int64(52)))


@njit(inline="always", **STRICT)
def binary_exponent(x):
    """⌊log₂ x⌋ for normal x > 0 (float64)."""
    return np.int64(bits_from_double(x) >> np.uint64(52)) - np.int64(1023)


@njit(inline="always", **STRICT)
def exp64(x):
    """eˣ in float64 for x ≤ 0; it counts as 0 below x = -700."""
    bounded = max(x, -700.0)
    k = np.int64(fma(bounded, 1.4426950408889634, -0.5))
    r = fma(f64(-k), LN2_64_LOW, fma(f64(-k), LN2_64_HIGH, bounded))
    power = double_from_bits(np.uint64((k + np.int64(1023)) << np.int64(52)))
    return fma(power, fma(polynomial(r, EXP64) * r, r, r), power) if x >= -700.0 else 0.0
