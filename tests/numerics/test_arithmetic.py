"""Elementary functions, against mpmath and extended precision, over their whole range."""

import math

import mpmath
import numpy as np
import pytest
from numba import njit
from scipy import special

from vgp_kernels.numerics import arithmetic
from vgp_kernels.numerics.arithmetic import MAKING_ARRAYS

LONG = np.longdouble
DENSE = 1_000_001


def array_form(scalar, outputs):
    """The scalar kernel as a function from an array to `outputs` rows."""

    @njit(**MAKING_ARRAYS)
    def one(x):
        result = np.empty((1, x.size), x.dtype)
        for i in range(x.size):
            result[0, i] = scalar(x[i])
        return result

    @njit(**MAKING_ARRAYS)
    def two(x):
        result = np.empty((2, x.size), x.dtype)
        for i in range(x.size):
            result[0, i], result[1, i] = scalar(x[i])
        return result

    return one if outputs == 1 else two


def float32_range(low, high):
    """Points that are dense in value and in exponent between low and high, as float32."""
    largest = max(abs(low), abs(high))
    steps = np.logspace(-30, math.log10(largest), DENSE)
    points = np.concatenate([np.linspace(low, high, DENSE), steps, -steps]).astype(np.float32)
    return points[(points >= np.float32(low)) & (points <= np.float32(high)) & (points != 0)]


def ulps(computed, exact):
    """Largest error in units in the last place of the exact value."""
    spacing = np.spacing(np.abs(exact).astype(computed.dtype)).astype(LONG)
    return float(np.max(np.abs(computed.astype(LONG) - exact) / spacing))


# name, kernel, its outputs (exact function each), range, measured maximum of each in ulp (rounded up)
FLOAT32 = [
    ("exp, expm1", arithmetic.exp_and_expm1, (np.exp, np.expm1), (-87.0, 0.0), (1.0, 0.9)),
    ("log", arithmetic.log, (np.log,), (1.2e-38, 3.4e38), (1.0,)),
    ("log1p", arithmetic.log1p, (np.log1p,), (0.0, 1.0), (1.5,)),
    ("sin, cos", arithmetic.sin_and_cos, (np.sin, np.cos), (-math.pi / 4, math.pi / 4), (0.8, 1.3)),
    ("exp(-x²)", arithmetic.exp_of_minus_square, (lambda x: np.exp(-x * x),), (-9.3, 9.3), (1.6,)),
    ("erf", arithmetic.erf_and_erfc, (lambda x: special.erf(x.astype(float)).astype(LONG), None), (0.0, 10.0), (1.5,)),
]


@pytest.mark.parametrize(
    "kernel, exact, interval, measured", [row[1:] for row in FLOAT32], ids=[row[0] for row in FLOAT32]
)
def test_float32_function_is_within_two_ulp_and_within_its_measured_maximum(kernel, exact, interval, measured):
    points = float32_range(*interval)
    results = array_form(kernel, len(exact))(points)
    for computed, function, most in zip(results, exact, measured, strict=False):
        error = ulps(computed, function(points.astype(LONG)))
        assert error <= most <= 2


def test_log_is_right_at_every_power_of_two():
    powers = np.float32(2.0) ** np.arange(-126, 128, dtype=np.float32)
    assert ulps(array_form(arithmetic.log, 1)(powers)[0], np.arange(-126, 128) * np.log(LONG(2))) <= 1


def test_log64_is_within_two_ulp_over_the_whole_range():
    points = np.concatenate([np.linspace(0.3, 3, DENSE), np.logspace(-307, 308, DENSE)])
    assert ulps(array_form(arithmetic.log64, 1)(points)[0], np.log(points.astype(LONG))) <= 1.3


def test_log64_of_zero_and_infinity():
    assert list(array_form(arithmetic.log64, 1)(np.array([0.0, np.inf, 1.0]))[0]) == [-np.inf, np.inf, 0.0]


def test_functions_end_where_they_say():
    exp, expm1 = array_form(arithmetic.exp_and_expm1, 2)(np.float32([-87.5, -1e30, 0.0, -0.0]))
    assert list(exp) == [0, 0, 1, 1] and list(expm1) == [-1, -1, 0, 0]
    erf, erfc = array_form(arithmetic.erf_and_erfc, 2)(np.float32([4.01, 1e30, 0.0]))
    assert list(erf) == [1, 1, 0] and list(erfc) == [0, 0, 1]


def test_complementary_error_function_is_exact_to_float32_of_one():
    points = np.linspace(0, 6, DENSE).astype(np.float32)
    erfc = array_form(arithmetic.erf_and_erfc, 2)(points)[1]
    assert np.abs(erfc - special.erfc(points.astype(float))).max() < 1e-7  # 2 ulp of 1


def test_fma_rounds_once():
    # (1 + 2⁻¹²)² = 1 + 2⁻¹¹ + 2⁻²⁴: the last term is lost if the product is rounded
    x = np.float32(1 + 2**-12)

    @njit(**MAKING_ARRAYS)
    def fused(a, b, c):
        return arithmetic.fma(a, b, c)

    assert fused(x, x, np.float32(-1 - 2**-11)) == np.float32(2**-24)
    assert x * x - np.float32(1 + 2**-11) == 0


@pytest.mark.parametrize("exponent", [-5000, -1022, -1, 0, 7, 1023, 5000])
def test_power_of_two_is_exact_and_held_in_range(exponent):
    @njit(**MAKING_ARRAYS)
    def power(k):
        return arithmetic.power_of_two(k)

    assert power(exponent) == 2.0 ** min(max(exponent, -1022), 1023)


def fitted(function, low, high, count):
    with mpmath.workdps(40):
        values, error = mpmath.chebyfit(function, [low, high], count, error=True, asc=True)
        return [float(value) for value in reversed(values)], float(error)


def log_tail(f):
    return (mpmath.log(1 + f) - f + f * f / 2) / f**3 if abs(f) > 1e-9 else mpmath.mpf(1) / 3 - f / 4


def exp_tail(r):
    return (mpmath.exp(r) - 1 - r) / r**2 if abs(r) > 1e-10 else mpmath.mpf(1) / 2 + r / 6


def sin_tail(t):
    x = mpmath.sqrt(t)
    return (mpmath.sin(x) - x) / x**3 if x > 1e-8 else -mpmath.mpf(1) / 6


def cos_tail(t):
    return (mpmath.cos(mpmath.sqrt(t)) - 1 + t / 2) / t**2 if t > 1e-12 else mpmath.mpf(1) / 24


def erf_tail(a):
    limit = 2 / mpmath.sqrt(mpmath.pi)
    return (-mpmath.log(mpmath.erfc(a)) / a - limit) / a if a > 1e-9 else 2 / mpmath.pi


@pytest.mark.parametrize(
    "committed, function, low, high",
    [
        (arithmetic.EXP, exp_tail, -math.log(2) / 2, math.log(2) / 2),
        (arithmetic.LOG, log_tail, math.sqrt(0.5) - 1, math.sqrt(2) - 1),
        (arithmetic.LOG1P, lambda w: mpmath.log1p(w) / w if w > 1e-12 else 1 - w / 2, 0, 1),
        (arithmetic.SIN, sin_tail, 0, math.pi**2 / 16),
        (arithmetic.COS, cos_tail, 0, math.pi**2 / 16),
        (arithmetic.ERF, erf_tail, 0, 4),
    ],
    ids="exp log log1p sin cos erf".split(),
)
def test_polynomial_is_the_chebyshev_fit_that_it_is_said_to_be(committed, function, low, high):
    exact, error = fitted(function, low, high, len(committed))
    assert error < 4e-8  # less than an ulp of float32 once it is multiplied by what stands before it
    points = np.linspace(low, high, 2001)
    assert np.allclose(np.polyval(np.float64(committed), points), np.polyval(exact, points), rtol=0, atol=5e-8)


def test_exp64_is_exp():
    points = np.concatenate([[0.0], -(10 ** np.random.default_rng(0).uniform(-9, 2.84, 300))])
    with mpmath.workdps(30):
        exact = [float(mpmath.exp(mpmath.mpf(float(x)))) for x in points]
    assert array_form(arithmetic.exp64, 1)(points)[0] == pytest.approx(exact, rel=3e-16)  # a unit in the last place
    assert np.all(array_form(arithmetic.exp64, 1)(np.array([-701.0, -np.inf])) == 0)
