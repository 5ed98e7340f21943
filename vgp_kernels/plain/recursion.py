"""One layer of one network, forward and back: the scalar algorithm, the same on every target.

A Gaussian or Haar matrix that is used once forward and once backward need not exist. Given h = h_{l-1} and the
pre-activations z_l = r + b with r = W h, only the part of W along h is known, so that

    Wᵀδ = h (r·δ)/|h|² + (I - hhᵀ/|h|²) u',    u' ~ N(0, (σ_w²/n)|δ|² I)

has the exact joint law of all activations and gradients. The gradient that reaches a layer is thus g = τu + ah with
scalars τ and a, and all about it follows from eight sums over the layer's units: unit i draws e, u ~ N(0, 1) and has
z = se, h = φ(z), d = φ′(z), p = du, r = dh. Haar weights differ in two points: z is a fixed length times the direction of
e, and u' has a fixed length.

The numbers of a layer are multiples of 2^k, where k is the layer's binary exponent: near 0, or far away, where φ is
linear on either side to the last bit of float32, a signal can shrink or grow without end.
"""

import math

from numba import njit

from vgp_kernels.activations import value_and_slope
from vgp_kernels.numerics.arithmetic import LN2, ONE, STRICT, binary_exponent, f64, fma, log64, power_of_two
from vgp_kernels.numerics.randomness import BIASES, WEIGHTS, two_pairs, u32

# The sums over the units of a layer, by their rows
HH, PP, PR, RR, HU, EP, ER, UU = range(8)
SUMS = 8

# Between these powers of two, s² is left alone: z² and its sums are then normal float32, and φ is linear outside.
SMALLEST, LARGEST = -56, 56

ROUNDING = 2.0**-22  # relative error of what is left of a sum of float32 squares when another is subtracted


@njit(inline="always", **STRICT)
def add_unit(name, e, u, z, present, hh, pp, pr, rr, hu, ep, er, uu):
    """The eight sums with one more unit; `present` is 1, or 0 for a unit that does not exist."""
    h, d = value_and_slope(name, z)
    h, d, u = present * h, present * d, present * u
    p, r = d * u, d * h
    return (
        fma(h, h, hh), fma(p, p, pp), fma(p, r, pr), fma(r, r, rr),
        fma(h, u, hu), fma(e, p, ep), fma(e, r, er), fma(u, u, uu),
    )  # fmt: skip


@njit(inline="always", **STRICT)
def add_pair(
    name, separate_bias, pair, present, scale, bias_scale, trial, layer, seed_low, seed_high, hh, pp, pr, rr, hu, ep, er, uu
):  # fmt: skip
    """The eight sums with two more units of a layer, drawn here: z = s e + s_b b; `present` is 0 if the second is none."""
    e0, u0, e1, u1 = two_pairs(u32(pair), trial, layer, WEIGHTS, seed_low, seed_high)
    z0, z1 = scale * e0, scale * e1
    if separate_bias:
        bias0, bias1, _, _ = two_pairs(u32(pair), trial, layer, BIASES, seed_low, seed_high)
        z0, z1 = fma(bias_scale, bias0, z0), fma(bias_scale, bias1, z1)
    hh, pp, pr, rr, hu, ep, er, uu = add_unit(name, e0, u0, z0, ONE, hh, pp, pr, rr, hu, ep, er, uu)
    return add_unit(name, e1, u1, z1, present, hh, pp, pr, rr, hu, ep, er, uu)


@njit(inline="always", **STRICT)
def add_input_pair(pair, present, trial, seed_low, seed_high, along, square):
    """(Σu, Σu²) in float64 with two more units of the input, a constant vector: its direction does not matter."""
    _, u0, _, u1 = two_pairs(u32(pair), trial, u32(0), WEIGHTS, seed_low, seed_high)
    u1 = present * u1
    return along + (f64(u0) + f64(u1)), square + (f64(u0) * f64(u0) + f64(u1) * f64(u1))


@njit(inline="always", **STRICT)
def add_squared_pair(pair, present, trial, layer, seed_low, seed_high, total):
    """Σe² with two more units: the length of the vector whose direction Haar weights give to z."""
    e0, _, e1, _ = two_pairs(u32(pair), trial, layer, WEIGHTS, seed_low, seed_high)
    e1 *= present
    return fma(e1, e1, fma(e0, e0, total))


@njit(inline="always", **STRICT)
def haar_scale(hh, variance, bias_variance, norm, below, above):
    """(s, s_b) of z = s e + s_b b for Haar weights and an e of this norm: |W h|/|e| and σ_b in units of 2^above."""
    signal = math.sqrt(variance * hh) * power_of_two(below - above)
    return signal / norm, math.sqrt(bias_variance) * power_of_two(-above)


@njit(inline="always", **STRICT)
def log_norm(square, k):
    """ln |x| for |x|² in units of 4^k."""
    return 0.5 * log64(square) + LN2 * k


@njit(inline="always", **STRICT)
def preactivation_variance(hh, fan_in, weight_variance, bias_variance, k, shrinks, grows):
    """(s², share, k): s² = σ_w²|h|²/n + σ_b² in units of 4^k, the share of it that is not bias, and the new exponent k.

    `shrinks` and `grows` say whether the activation allows its exponent to move near 0 and far away.
    """
    from_weights = weight_variance * hh / fan_in
    variance = from_weights + bias_variance * power_of_two(-2 * k)
    some = variance > 0.0
    share = from_weights / variance
    below, above = (binary_exponent(variance) - SMALLEST) >> 1, (binary_exponent(variance) - LARGEST) >> 1
    shift = (below if shrinks and some and below < 0 else 0) + (above if grows and above > 0 else 0)
    return variance * power_of_two(-2 * shift), (share if some else 1.0), k + shift


@njit(inline="always", **STRICT)
def across(hh, hu, uu):
    """|u - h(h·u)/|h|²|²: what of u is not along h.

    With one unit that is not 0, u is along h, and the difference nothing but the rounding of float32.
    """
    rest = uu - hu * hu / hh
    rest = rest if rest > ROUNDING * uu else 0.0
    return uu if hh == 0.0 else rest


@njit(inline="always", **STRICT)
def back_through_activation(tau, a, pp, pr, rr, ep, er):
    """(|δ|², e·δ/|δ|) for δ = φ′(z) ⊙ (τu + ah) = τp + ar: |δ|² is what is along r, and what is not."""
    along = tau * pr + a * rr
    square = along * along / rr + tau * tau * across(rr, pr, pp)
    square = tau * tau * pp if rr == 0.0 else square
    e_delta = (tau * ep + a * er) * (1.0 / math.sqrt(square))
    return square, (e_delta if square > 0.0 else 0.0)


@njit(inline="always", **STRICT)
def along_weights(e_delta, scale, share, noise, shift):
    """(W h)·δ for a δ of norm 1, in units of 2^shift: W h is the share of z = se that is not bias, given z.

    `noise` ~ N(0, 1) stands for what z does not tell of it, and means nothing where there is no bias.
    """
    return (share * scale * e_delta + math.sqrt(share * (1.0 - share)) * scale * noise) * power_of_two(shift)


@njit(inline="always", **STRICT)
def back_through_gaussian(r_delta, weight_scale, hh, hu, uu, fan_in):
    """(τ, a, |g|²) of g = Wᵀδ for a δ of norm 1: `r_delta` is (W h)·δ, `weight_scale` is σ_w/√n."""
    some = hh > 0.0
    along = r_delta / hh
    along = along if some else 0.0
    u_along = weight_scale * hu / hh
    a = along - u_along if some else 0.0
    u_across = weight_scale * weight_scale * across(hh, hu, uu)
    all_along = fan_in == 1 and some
    return (
        (0.0 if all_along else weight_scale),
        (along if all_along else a),
        along * along * hh + (0.0 if all_along else u_across),
    )


@njit(inline="always", **STRICT)
def back_through_orthogonal(y_delta, gain, hh, hu, uu, fan_in):
    """(τ, a, |g|²) of g = Wᵀδ for a δ of norm 1: `y_delta` is (W h)·δ/|W h|, `gain` is σ_w."""
    u_across = 0.0 if fan_in == 1 else across(hh, hu, uu)
    # with one unit u is always along h, with two by chance once in 3,000 layers: so is then g
    all_along = u_across == 0.0
    rest = 1.0 - y_delta * y_delta
    tau = 0.0 if all_along else gain * math.sqrt((rest if rest > 0.0 else 0.0) / u_across)
    along = ((gain if y_delta >= 0.0 else -gain) if all_along else gain * y_delta) / math.sqrt(hh)
    a = along - (0.0 if all_along else tau * hu / hh)
    blind = hh == 0.0
    return (gain / math.sqrt(uu) if blind else tau), (0.0 if blind else a), gain * gain
