"""Rounding and underflow, against NumPy's float16, float32 and float64, and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgp_kernels.theory.number_formats import NUMBER_FORMATS, horizon, horizon_by_logarithm, lost_update

TYPES = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}
FORMATS = list(NUMBER_FORMATS.values())


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=500, deadline=None)
@pytest.mark.parametrize("name", TYPES)
def test_rounding_is_that_of_numpy(name, x):
    with np.errstate(over="ignore"):
        expected = float(TYPES[name](x))
    assert NUMBER_FORMATS[name].round(x) == expected


@given(st.floats(-1e39, 1e39), st.integers(-160, 10))
@settings(max_examples=500, deadline=None)
def test_bfloat16_is_the_nearest_fraction_with_ties_to_even(mantissa, exponent):
    x = math.ldexp(math.frexp(mantissa)[0], exponent)
    quantum = Fraction(2) ** max(math.frexp(x)[1] - 8, -133)
    assert NUMBER_FORMATS["bf16"].round(x) == float(round(Fraction(x) / quantum) * quantum)
    # 16 bits in front of a float32 are the same number, cut off
    bits = np.float32(NUMBER_FORMATS["bf16"].round(x)).view(np.uint32)
    assert bits & 0xFFFF == 0


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_limits_are_those_of_the_standard(form):
    assert form.round(form.largest) == form.largest and form.round(form.smallest_subnormal) == form.smallest_subnormal
    assert form.round(form.smallest_subnormal / 2) == 0.0  # a tie, to even
    assert form.round(1 + form.unit_roundoff) == 1.0
    assert form.round(form.smallest_subnormal, flush=True) == 0.0
    assert form.round(form.smallest_normal, flush=True) == form.smallest_normal
    if form.name in TYPES:
        info = np.finfo(TYPES[form.name])
        assert (form.largest, form.smallest_normal, form.smallest_subnormal) == (
            float(info.max),
            float(info.smallest_normal),
            float(info.smallest_subnormal),
        )
    if form.name != "fp64":
        assert form.round(form.largest * 1.5) == math.inf


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.236, 0.25, 0.49, 0.5, 0.6, 0.95])
def test_horizon_is_where_numpy_arithmetic_ends(name, ratio):
    kind = TYPES[name]
    x, factor, step = kind(1), kind(ratio), 0
    while True:
        step += 1
        after = kind(x * factor)
        if after in (0, x):
            break
        x = after
    found = horizon(name, ratio)
    assert (found.depth, found.stall) == ((step, None) if after == 0 else (None, step))


@pytest.mark.parametrize(
    "name, gradual, flushed", [("fp16", 13, 8), ("bf16", 67, 64), ("fp32", 75, 64), ("fp64", 538, 512)]
)
def test_a_quarter_to_the_n(name, gradual, flushed):
    assert horizon(name, 0.25).depth == gradual == horizon_by_logarithm(name, 0.25)
    assert horizon(name, 0.25, flush=True).depth == flushed
    assert horizon(name, 0.25).subnormal == flushed


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_ratios_above_one_half_stall_unless_flushed(form):
    for ratio in (0.51, 0.7, 0.97):
        gradual, flushed = horizon(form.name, ratio), horizon(form.name, ratio, flush=True)
        assert gradual.depth is None and gradual.stall is not None
        assert flushed.stall is None and flushed.depth == flushed.subnormal == gradual.subnormal
    assert horizon(form.name, 0.5).stall is None


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("learning_rate, weight", [(1.0, 1.0), (0.03, 0.7), (10.0, 0.02)])
def test_update_is_lost_where_numpy_loses_it(name, learning_rate, weight):
    kind, ratio, n = TYPES[name], 0.3, 0
    w = kind(weight)
    while w - kind(learning_rate * ratio**n) != w:
        n += 1
    assert lost_update(name, ratio, learning_rate, weight) == n
    # an update below half the distance to the next number: between |w| 2^-p-1 and |w| 2^-p
    size, unit = learning_rate * ratio**n / weight, NUMBER_FORMATS[name].unit_roundoff
    assert size <= unit and size > 0.3 * unit / 2 * 0.99


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown number format 'fp8'; known: fp16, bf16"):
        horizon("fp8", 0.5)
    with pytest.raises(ValueError, match=r"above 0 and below 1, not 1\.5"):
        horizon("fp32", 1.5)
