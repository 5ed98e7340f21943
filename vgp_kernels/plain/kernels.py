"""The CPU target: blocks of networks side by side, one per vector lane, and blocks on threads.

Every network adds up its units in one fixed order, so neither the number of threads nor the split into blocks changes a
bit. Units are summed in float32 over CHUNK pairs and the chunks in float64; what happens once per layer is float64.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
from numba import njit, types

from vgp_kernels.activations import activation
from vgp_kernels.network import Network
from vgp_kernels.numerics.arithmetic import ONE, STRICT, ZERO, f32, log64
from vgp_kernels.numerics.lanes import prefer_wide_vectors
from vgp_kernels.numerics.randomness import BIASES, normal_pair, u32, words
from vgp_kernels.numerics.watch import WATCH, halted
from vgp_kernels.plain.recursion import (
    EP,
    ER,
    HH,
    HU,
    PP,
    PR,
    RR,
    SUMS,
    UU,
    add_input_pair,
    add_pair,
    add_squared_pair,
    along_weights,
    back_through_activation,
    back_through_gaussian,
    back_through_orthogonal,
    haar_scale,
    log_norm,
    preactivation_variance,
)
from vgp_kernels.targets.cache import cached, named
from vgp_kernels.targets.pool import announced, share

VECTOR = 16  # float32 lanes of the widest registers
MOST_LANES = 4 * VECTOR  # enough independent work to hide the latency of the arithmetic
DEEP = 16_384  # from here on blocks are one vector wide, so that the sums of all layers fit in memory
CHUNK = 64  # unit pairs


LAYER = types.void(
    types.int64, types.int64, types.float32[::1], types.float32[::1], types.uint32, types.uint32, types.uint32,
    types.uint32, types.float32[:, ::1], types.float64[:, ::1],
)  # fmt: skip

BLOCK = types.void(
    types.FunctionType(LAYER), types.int64, types.int64, types.int64, types.float64, types.float64, types.float64,
    types.float64, types.boolean, types.boolean, types.boolean, types.uint32, types.uint32, types.uint32, types.int64,
    types.float64[:, ::1], types.float64[:, ::1], types.float64[:, ::1], types.float64[:, :, ::1],
    types.float64[:, :, ::1], types.int64[:, ::1], types.float32[:, ::1], types.float64[:, ::1], WATCH,
)  # fmt: skip


@njit(inline="always", **STRICT)
def add_up_layer(
    name, separate_bias, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums
):  # fmt: skip
    """Draw one layer of a block of networks and add up its units; `name` is what `value_and_slope` takes."""
    lanes = scale.size
    pairs = (width + 1) // 2
    sums[:] = 0.0
    for start in range(0, pairs, CHUNK):
        partial[:] = ZERO
        for pair in range(start, min(start + CHUNK, pairs)):
            present = ONE if 2 * pair + 1 < width else ZERO
            for t in range(lanes):
                trial = u32(first_trial + u32(t))
                hh, pp, pr, rr, hu, ep, er, uu = add_pair(
                    name, separate_bias, pair, present, scale[t], bias_scale[t], trial, layer, seed_low, seed_high,
                    partial[HH, t], partial[PP, t], partial[PR, t], partial[RR, t],
                    partial[HU, t], partial[EP, t], partial[ER, t], partial[UU, t],
                )  # fmt: skip
                partial[HH, t], partial[PP, t], partial[PR, t], partial[RR, t] = hh, pp, pr, rr
                partial[HU, t], partial[EP, t], partial[ER, t], partial[UU, t] = hu, ep, er, uu
        for row in range(SUMS):
            for t in range(lanes):
                sums[row, t] += partial[row, t]


@functools.cache
def layer_function(name: str, separate_bias: bool):
    """The kernel of one layer for the activation of this name."""

    @cached(LAYER, nogil=True, **STRICT)
    @named(name, separate_bias)
    def sum_layer(activation, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums):
        prefer_wide_vectors()
        add_up_layer(
            name, separate_bias, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums
        )

    return sum_layer


@njit(**STRICT)
def step_back(
    orthogonal, fan_in, variance, here, under, norms, scales, shares, k_here, k_under, noise, of_e, tau, a, log_scale,
    log_gradient, log_weight_gradient,
):  # fmt: skip
    """From one layer to the one below. A function of its own: within a loop that counts down, LLVM runs it lane by lane."""
    prefer_wide_vectors()
    weight_scale, gain = math.sqrt(variance / fan_in), math.sqrt(variance)
    for t in range(tau.size):
        square, of_e[t] = back_through_activation(
            tau[t], a[t], here[PP, t], here[PR, t], here[RR, t], here[EP, t], here[ER, t]
        )
        # ln|δ_l|, and ln|∂E/∂W_l| = ln|δ_l| + ln|h_{l-1}|
        log_scale[t] += 0.5 * log64(square)
        log_weight_gradient[t] = log_scale[t] + log_norm(under[HH, t], k_under[t])
    if orthogonal:
        for t in range(tau.size):
            tau[t], a[t], of_e[t] = back_through_orthogonal(
                of_e[t] / norms[t], gain, under[HH, t], under[HU, t], under[UU, t], fan_in
            )
    else:
        for t in range(tau.size):
            r_delta = along_weights(of_e[t], scales[t], shares[t], noise[t], k_here[t] - k_under[t])
            tau[t], a[t], of_e[t] = back_through_gaussian(
                r_delta, weight_scale, under[HH, t], under[HU, t], under[UU, t], fan_in
            )
    for t in range(tau.size):
        log_gradient[t] = log_scale[t] + 0.5 * log64(of_e[t])


@njit(inline="always", **STRICT)
def take_block(
    sum_layer, activation, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms,
    orthogonal, shrinks, grows, seed_low, seed_high, first_trial, lanes, log_signal, log_gradient, log_weight_gradient,
    sums, of_layers, exponents, single, double, watch,
):  # fmt: skip
    """Take a block of networks, one per lane, forward and back; the five arguments before the last are room to work in.

    `activation` goes to sum_layer, where one function serves all activations; where each has its own it means nothing.
    """
    # `sums` of the layers, the input being layer 0; |e| of Haar weights; s of z = se, in units of 2^k; `exponents`: k
    norms, scales, shares = of_layers[0], of_layers[1], of_layers[2]
    partial, scale, bias_scale = single[:SUMS], single[SUMS], single[SUMS + 1]
    noise, of_e, log_scale, tau, a = double[0], double[1], double[2], double[3], double[4]
    exponents[0] = 0
    noise[:], log_scale[:], a[:] = 0.0, 0.0, 0.0

    sum_input(input_width, input_rms, seed_low, seed_high, first_trial, sums[0])
    for layer in range(1, depth + 1):
        if halted(watch):
            return
        fan_in = input_width if layer == 1 else width
        variance = first_weight_variance if layer == 1 else weight_variance
        below, above = exponents[layer - 1], exponents[layer]
        for t in range(lanes):
            square, shares[layer, t], above[t] = preactivation_variance(
                sums[layer - 1, HH, t], fan_in, variance, bias_variance, below[t], shrinks, grows
            )
            scales[layer, t] = math.sqrt(square)
        if orthogonal:
            sum_squares(width, seed_low, seed_high, first_trial, u32(layer), partial[0], norms[layer])
            for t in range(lanes):
                norms[layer, t] = math.sqrt(norms[layer, t])
                scales[layer, t], of_bias = haar_scale(
                    sums[layer - 1, HH, t], variance, bias_variance, norms[layer, t], below[t], above[t]
                )
                bias_scale[t] = f32(of_bias)
        for t in range(lanes):
            scale[t] = f32(scales[layer, t])
        sum_layer(
            activation, width, scale, bias_scale, seed_low, seed_high, first_trial, u32(layer), partial, sums[layer]
        )

    for layer in range(depth + 1):
        units = input_width if layer == 0 else width
        for t in range(lanes):
            log_signal[layer, t] = log_norm(sums[layer, HH, t] / units, exponents[layer, t])

    # g of norm 1 in a random direction
    for t in range(lanes):
        tau[t] = 1.0 / math.sqrt(sums[depth, UU, t])
        log_gradient[depth, t] = 0.0
    for layer in range(depth, 0, -1):
        if halted(watch):
            return
        fan_in = input_width if layer == 1 else width
        variance = first_weight_variance if layer == 1 else weight_variance
        if bias_variance > 0.0 and not orthogonal:
            for t in range(lanes):
                word0, word1, _, _ = words(u32(0), u32(first_trial + u32(t)), u32(layer), BIASES, seed_low, seed_high)
                noise[t], _ = normal_pair(word0, word1)
        step_back(
            orthogonal, fan_in, variance, sums[layer], sums[layer - 1], norms[layer], scales[layer], shares[layer],
            exponents[layer], exponents[layer - 1], noise, of_e, tau, a, log_scale, log_gradient[layer - 1],
            log_weight_gradient[layer - 1],
        )  # fmt: skip


@functools.cache
def block_function():
    """The kernel of a block of networks."""

    @cached(BLOCK, nogil=True, **STRICT)
    def run_block(
        sum_layer, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms,
        orthogonal, shrinks, grows, seed_low, seed_high, first_trial, lanes, log_signal, log_gradient, log_weight_gradient,
        sums, of_layers, exponents, single, double, watch,
    ):  # fmt: skip
        prefer_wide_vectors()
        take_block(
            sum_layer, 0, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms,
            orthogonal, shrinks, grows, seed_low, seed_high, first_trial, lanes, log_signal, log_gradient,
            log_weight_gradient, sums, of_layers, exponents, single, double, watch,
        )  # fmt: skip

    return run_block


@njit(**STRICT)
def sum_input(input_width, input_rms, seed_low, seed_high, first_trial, sums):
    """The sums of layer 0, a constant vector: the direction of the input does not matter."""
    sums[:] = 0.0
    sums[HH] = input_width * input_rms * input_rms
    for pair in range((input_width + 1) // 2):
        present = ONE if 2 * pair + 1 < input_width else ZERO
        for t in range(sums.shape[1]):
            trial = u32(first_trial + u32(t))
            sums[HU, t], sums[UU, t] = add_input_pair(
                pair, present, trial, seed_low, seed_high, sums[HU, t], sums[UU, t]
            )
    for t in range(sums.shape[1]):
        sums[HU, t] *= input_rms


@njit(**STRICT)
def sum_squares(width, seed_low, seed_high, first_trial, layer, partial, totals):
    """Σe² of a layer: the length of the vector whose direction Haar weights give to z."""
    pairs = (width + 1) // 2
    totals[:] = 0.0
    for start in range(0, pairs, CHUNK):
        partial[:] = ZERO
        for pair in range(start, min(start + CHUNK, pairs)):
            present = ONE if 2 * pair + 1 < width else ZERO
            for t in range(totals.size):
                trial = u32(first_trial + u32(t))
                partial[t] = add_squared_pair(pair, present, trial, layer, seed_low, seed_high, partial[t])
        for t in range(totals.size):
            totals[t] += partial[t]


def run(
    network: Network,
    trials: int,
    seed: int,
    threads: int,
    progress: bool,
) -> list[np.ndarray]:
    """ln RMS h, ln |∂E/∂h| and ln |∂E/∂W| of all trials, each (trials, layers)."""
    phi = activation(network.activation)
    orthogonal = network.law == "orthogonal"
    with announced(progress):
        sum_layer = layer_function(network.activation, orthogonal and network.bias_variance > 0)
        run_block = block_function()
    most = VECTOR if network.depth > DEEP else MOST_LANES
    lanes = min(most, VECTOR * math.ceil(trials / (threads * VECTOR)))
    seed_low, seed_high = u32(seed & 0xFFFFFFFF), u32(seed >> 32)

    layers = network.depth + 1
    outputs = [np.empty((trials, columns)) for columns in (layers, layers, network.depth)]

    def run_blocks(blocks: Iterator[int], watch: np.ndarray) -> None:
        results = [np.empty((output.shape[1], lanes)) for output in outputs]
        room = (
            np.empty((layers, SUMS, lanes)), np.empty((3, layers, lanes)), np.empty((layers, lanes), np.int64),
            np.empty((SUMS + 2, lanes), np.float32), np.empty((5, lanes)),
        )  # fmt: skip
        for first in blocks:
            run_block(
                sum_layer, network.depth, network.width, network.fan_in, network.weight_variance,
                network.first_weight_variance, network.bias_variance, network.input_rms, orthogonal,
                phi.vanishes_at_zero, not phi.is_bounded, seed_low, seed_high, u32(first), lanes, *results, *room, watch,
            )  # fmt: skip
            for output, result in zip(outputs, results, strict=True):
                output[first : first + lanes] = result.T[: trials - first]

    share(range(0, trials, lanes), threads, run_blocks, progress, 2 * network.depth)
    return outputs
