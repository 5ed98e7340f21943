"""Activations: definitions against their derivatives, kernels against definitions."""

import mpmath
import numpy as np
import pytest
from numba import njit

from vgp_kernels import ACTIVATIONS, activation
from vgp_kernels.numerics.arithmetic import MAKING_ARRAYS

NAMES = [*ACTIVATIONS, "leaky_relu(0.2)", "elu(0.5)"]
POINTS = np.concatenate([np.linspace(-12, 12, 200_001), np.logspace(-30, 2, 20_001), -np.logspace(-30, 2, 20_001)])
POINTS = POINTS.astype(np.float32)
EXACT = {  # the textbook's formula, in fifty digits
    "linear": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "centred_sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)) - mpmath.mpf(1) / 2,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else z * mpmath.mpf(0.01),
    "leaky_relu(0.2)": lambda z: z if z > 0 else z * mpmath.mpf(0.2),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "elu(0.5)": lambda z: z if z > 0 else mpmath.expm1(z) / 2,
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * mpmath.expm1(z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "mish": lambda z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
    "hard_tanh": lambda z: max(mpmath.mpf(-1), min(z, mpmath.mpf(1))),
}


@pytest.fixture(scope="module", params=NAMES)
def phi(request):
    return activation(request.param)


def compiled(kernel, points):
    @njit(**MAKING_ARRAYS)
    def over(points):
        result = np.empty((2, points.size), np.float32)
        for i in range(points.size):
            result[0, i], result[1, i] = kernel(points[i])
        return result

    return over(points)


def test_value_is_the_textbook_formula(phi):
    with mpmath.workdps(50):
        for z in np.linspace(-20, 20, 401):
            exact = float(EXACT[phi.name](mpmath.mpf(z)))
            assert phi.value(np.array([z]))[0] == pytest.approx(exact, rel=1e-12, abs=1e-15), z


def test_slope_is_the_derivative_of_value(phi):
    with mpmath.workdps(50):
        for z in np.linspace(-15.013, 15.017, 201):  # no kink among them
            exact = float(mpmath.diff(EXACT[phi.name], mpmath.mpf(z)))
            assert phi.slope(np.array([z]))[0] == pytest.approx(exact, rel=1e-10, abs=1e-14), z


def test_kernel_is_the_definition_rounded_to_float32(phi):
    exact = phi.value(POINTS.astype(float)), phi.slope(POINTS.astype(float))
    for computed, wanted in zip(compiled(phi.kernel, POINTS), exact, strict=True):
        # four units in the last place, or of 1 where φ or φ′ is a difference of larger terms
        assert np.all(np.abs(computed - wanted) <= 4 * 2.0**-24 * np.maximum(2 * np.abs(wanted), 1))


@pytest.mark.parametrize(
    "name, value_ulps, slope_ulps",  # the measured maxima, rounded up
    [("sigmoid", 2.3, 4.1), ("tanh", 2, 4.1), ("erf", 1.5, None), ("elu", 1, 1), ("selu", 2, 2), ("softplus", 2, 3)],
)
def test_kernels_without_cancellation_keep_their_relative_precision(name, value_ulps, slope_ulps):
    phi = activation(name)
    points = POINTS[np.abs(POINTS) < 40]
    exact = phi.value(points.astype(float)), phi.slope(points.astype(float))
    for computed, wanted, most in zip(compiled(phi.kernel, points), exact, (value_ulps, slope_ulps), strict=True):
        spacing = np.spacing(np.abs(wanted).astype(np.float32)).astype(float)
        assert most is None or np.max(np.abs(computed - wanted) / spacing) <= most


def test_kernel_survives_the_largest_arguments(phi):
    z = np.float32([-1e30, 1e30, -1e19, 1e19])
    value, slope = compiled(phi.kernel, z)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(slope))
    assert np.allclose(value, phi.value(z.astype(float)), rtol=1e-6) and np.allclose(slope, phi.slope(z.astype(float)))


def test_kinks_are_where_the_slope_jumps(phi):
    for kink in phi.kinks:
        left, right = phi.slope(np.array([kink - 1e-12, kink + 1e-12]))
        assert abs(left - right) > 0.01 * max(abs(left), abs(right))
    grid = np.setdiff1d(np.round(np.linspace(-4, 4, 801), 2), phi.kinks)
    jumps = np.abs(phi.slope(grid + 1e-9) - phi.slope(grid - 1e-9))
    assert jumps.max() < 1e-6


@pytest.mark.parametrize("name", ["relU", "", "leaky_relu(-1)", "leaky_relu(x)", "elu(1e9)", "leaky_relu(1..2)"])
def test_unknown_name_is_refused_with_the_known_ones_or_the_range(name):
    with pytest.raises(ValueError, match=r"known: elu, |from 0 to 1000|centred_sigmoid"):
        activation(name)


def test_name_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError, match="must be a name, not 3"):
        activation(3)
