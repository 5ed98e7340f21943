"""One input through layers without norms and skips: a network per thread, or per few threads that share its chunks of units.

Each network adds up its units in the CPU's order: CHUNK pairs in float32, the chunks one after another in float64.
"""

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from vgp_kernels.activations import activation
from vgp_kernels.network import Network
from vgp_kernels.numerics.arithmetic import ONE, STRICT, ZERO, f32, f64, log64
from vgp_kernels.numerics.randomness import BIASES, normal_pair, u32, words
from vgp_kernels.plain.kernels import CHUNK
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
from vgp_kernels.targets.cache import named
from vgp_kernels.targets.compiling import INSTALLED, compiling
from vgp_kernels.targets.pool import share

if INSTALLED:
    from numba import cuda

THREADS = 128  # of a block
MOST_WORKERS = 4  # threads that share one network: a block then has 32 networks, one per lane of a warp
MOST_BLOCKS = 65_535  # in y
FULL = 2**18  # networks that fill the largest GPUs: 132 multiprocessors with room for 2,048 threads each


# The scalar algorithm, as device functions


@functools.cache
def chunk_function(name: str):
    """The eight sums over the chunk of unit pairs that begins with `start`."""

    @njit(**STRICT)
    @named(name)
    def sum_chunk(start, width, scale, bias_scale, trial, layer, seed_low, seed_high):
        pairs = (width + 1) // 2
        hh = pp = pr = rr = hu = ep = er = uu = ZERO
        for pair in range(start, min(start + CHUNK, pairs)):
            present = ONE if 2 * pair + 1 < width else ZERO
            hh, pp, pr, rr, hu, ep, er, uu = add_pair(
                name, bias_scale != ZERO, pair, present, scale, bias_scale, trial, layer, seed_low, seed_high,
                hh, pp, pr, rr, hu, ep, er, uu,
            )  # fmt: skip
        return hh, pp, pr, rr, hu, ep, er, uu

    return sum_chunk


@njit(**STRICT)
def squares_of_chunk(start, width, trial, layer, seed_low, seed_high):
    """Σe² over the chunk of unit pairs that begins with `start`."""
    total = ZERO
    for pair in range(start, min(start + CHUNK, (width + 1) // 2)):
        present = ONE if 2 * pair + 1 < width else ZERO
        total = add_squared_pair(pair, present, trial, layer, seed_low, seed_high, total)
    return total


@njit(**STRICT)
def input_sums(input_width, trial, seed_low, seed_high):
    """(Σu, Σu²) of the input."""
    along, square = 0.0, 0.0
    for pair in range((input_width + 1) // 2):
        present = ONE if 2 * pair + 1 < input_width else ZERO
        along, square = add_input_pair(pair, present, trial, seed_low, seed_high, along, square)
    return along, square


@njit(**STRICT)
def step_forward(hh, fan_in, variance, bias_variance, k, shrinks, grows):
    """(s, share, k) of the layer above; see preactivation_variance."""
    square, share, k = preactivation_variance(hh, fan_in, variance, bias_variance, k, shrinks, grows)
    return math.sqrt(square), share, k


@njit(**STRICT)
def step_forward_orthogonal(hh, norm, variance, bias_variance, below, above):
    """(s, s_b) of the layer above, for Haar weights; see haar_scale."""
    scale, of_bias = haar_scale(hh, variance, bias_variance, norm, below, above)
    return scale, f32(of_bias)


@njit(**STRICT)
def bias_noise(bias_variance, trial, layer, seed_low, seed_high):
    """What z does not tell of W h, in standard deviations."""
    if not bias_variance > 0.0:
        return f64(ZERO)
    word0, word1, _, _ = words(u32(0), trial, layer, BIASES, seed_low, seed_high)
    noise, _ = normal_pair(word0, word1)
    return f64(noise)


@njit(**STRICT)
def step_back(
    orthogonal, fan_in, variance, pp, pr, rr, ep, er, norm, scale, share, k_here, hh, hu, uu, k_under, noise, tau, a, log_scale
):  # fmt: skip
    """(τ, a, ln|δ| so far, ln |∂E/∂h|, ln |∂E/∂W|) one layer further down."""
    square, e_delta = back_through_activation(tau, a, pp, pr, rr, ep, er)
    log_scale += 0.5 * log64(square)
    log_weight_gradient = log_scale + log_norm(hh, k_under)
    if orthogonal:
        tau, a, square = back_through_orthogonal(e_delta / norm, math.sqrt(variance), hh, hu, uu, fan_in)
    else:
        r_delta = along_weights(e_delta, scale, share, noise, k_here - k_under)
        tau, a, square = back_through_gaussian(r_delta, math.sqrt(variance / fan_in), hh, hu, uu, fan_in)
    return tau, a, log_scale, log_scale + 0.5 * log64(square), log_weight_gradient


@njit(**STRICT)
def log_rms(square, k, units):
    return log_norm(square / units, k)


# Kernels

WORD, LONG, DOUBLE, FLAG = types.uint32, types.int64, types.float64, types.boolean
ROOM = DOUBLE[:, :, ::1], DOUBLE[:, :, ::1], LONG[:, ::1]  # sums, of_layers, exponents: (layer, row, network)
INPUT = types.void(LONG, LONG, LONG, DOUBLE, FLAG, WORD, WORD, WORD, *ROOM)
FORWARD = types.void(
    LONG, LONG, LONG, DOUBLE, DOUBLE, DOUBLE, FLAG, FLAG, FLAG, WORD, WORD, WORD, *ROOM
)  # fmt: skip
BACK = types.void(
    LONG, LONG, LONG, DOUBLE, DOUBLE, DOUBLE, FLAG, WORD, WORD, WORD, LONG, LONG, *ROOM,
    DOUBLE[::1, :], DOUBLE[::1, :], DOUBLE[::1, :],
)  # fmt: skip
SCALE, SHARE, NORM = range(3)  # rows of of_layers


def run_input(
    depth, width, input_width, input_rms, orthogonal, seed_low, seed_high, first_trial, sums, of_layers, exponents
):  # fmt: skip
    """What depends on no layer below: the sums of the input, and |e| of Haar weights. A thread takes a network x in layers y."""
    network = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    trial = u32(first_trial + u32(network))
    if cuda.blockIdx.y == 0:
        along, square = input_sums(input_width, trial, seed_low, seed_high)
        for row in range(SUMS):
            sums[0, row, network] = 0.0
        sums[0, HH, network] = input_width * input_rms * input_rms
        sums[0, HU, network] = input_rms * along
        sums[0, UU, network] = square
        exponents[0, network] = 0
    if orthogonal:
        for layer in range(1 + cuda.blockIdx.y, depth + 1, cuda.gridDim.y):
            square = 0.0
            for start in range(0, (width + 1) // 2, CHUNK):
                square += f64(squares_of_chunk(start, width, trial, u32(layer), seed_low, seed_high))
            of_layers[layer, NORM, network] = math.sqrt(square)


def forward_kernel(name: str):
    """The way forward of a block of networks, lane x, whose chunks of units are shared by the threads y."""
    sum_chunk = chunk_function(name)

    def run_forward(
        depth, width, input_width, weight_variance, first_weight_variance, bias_variance, orthogonal, shrinks, grows,
        seed_low, seed_high, first_trial, sums, of_layers, exponents,
    ):  # fmt: skip
        lane, worker, workers = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        network = cuda.blockIdx.x * cuda.blockDim.x + lane
        trial = u32(first_trial + u32(network))
        scales = cuda.shared.array((2, THREADS), types.float32)  # s, and that of separate biases
        pairs = (width + 1) // 2
        for layer in range(1, depth + 1):
            fan_in = input_width if layer == 1 else width
            variance = first_weight_variance if layer == 1 else weight_variance
            if worker == 0:
                hh, below = sums[layer - 1, HH, network], exponents[layer - 1, network]
                scale, share, above = step_forward(hh, fan_in, variance, bias_variance, below, shrinks, grows)
                exponents[layer, network] = above
                of_layers[layer, SHARE, network] = share
                bias_scale = ZERO
                if orthogonal:
                    norm = of_layers[layer, NORM, network]
                    scale, bias_scale = step_forward_orthogonal(hh, norm, variance, bias_variance, below, above)
                of_layers[layer, SCALE, network] = scale
                scales[0, lane], scales[1, lane] = f32(scale), bias_scale
                for row in range(SUMS):
                    sums[layer, row, network] = 0.0
            cuda.syncthreads()
            for first in range(0, pairs, CHUNK * workers):
                start = first + CHUNK * worker
                hh, pp, pr, rr, hu, ep, er, uu = sum_chunk(
                    start, width, scales[0, lane], scales[1, lane], trial, u32(layer), seed_low, seed_high
                )
                for turn in range(workers):  # chunk after chunk, as on the CPU
                    if worker == turn and start < pairs:
                        sums[layer, HH, network] += f64(hh)
                        sums[layer, PP, network] += f64(pp)
                        sums[layer, PR, network] += f64(pr)
                        sums[layer, RR, network] += f64(rr)
                        sums[layer, HU, network] += f64(hu)
                        sums[layer, EP, network] += f64(ep)
                        sums[layer, ER, network] += f64(er)
                        sums[layer, UU, network] += f64(uu)
                    cuda.syncthreads()

    return run_forward


def run_back(
    depth, width, input_width, weight_variance, first_weight_variance, bias_variance, orthogonal, seed_low, seed_high,
    first_trial, at, count, sums, of_layers, exponents, log_signal, log_gradient, log_weight_gradient,
):  # fmt: skip
    """The way back of one network per thread, from the sums of its layers; results go to the rows from `at` on."""
    network = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if network >= count:
        return
    trial, result = u32(first_trial + u32(network)), at + network
    for layer in range(depth + 1):
        units = input_width if layer == 0 else width
        log_signal[result, layer] = log_rms(sums[layer, HH, network], exponents[layer, network], units)
    tau, a, log_scale = 1.0 / math.sqrt(sums[depth, UU, network]), 0.0, 0.0
    log_gradient[result, depth] = 0.0
    for layer in range(depth, 0, -1):
        fan_in = input_width if layer == 1 else width
        variance = first_weight_variance if layer == 1 else weight_variance
        noise = bias_noise(bias_variance, trial, u32(layer), seed_low, seed_high)
        tau, a, log_scale, gradient, weight_gradient = step_back(
            orthogonal, fan_in, variance,
            sums[layer, PP, network], sums[layer, PR, network], sums[layer, RR, network],
            sums[layer, EP, network], sums[layer, ER, network],
            of_layers[layer, NORM, network], of_layers[layer, SCALE, network], of_layers[layer, SHARE, network],
            exponents[layer, network],
            sums[layer - 1, HH, network], sums[layer - 1, HU, network], sums[layer - 1, UU, network],
            exponents[layer - 1, network], noise, tau, a, log_scale,
        )  # fmt: skip
        log_gradient[result, layer - 1] = gradient
        log_weight_gradient[result, layer - 1] = weight_gradient


# Compiling


@functools.cache
def kernels(name: str, capability: tuple[int, int]):
    """The kernels of this activation, in their order, for the GPUs of this compute capability."""
    with compiling():
        return tuple(cuda.jit(signature)(kernel) for kernel, signature in sources(name))


def sources(name: str) -> list[tuple[Callable, Any]]:
    """The kernels of this activation with their signatures."""
    return [(run_input, INPUT), (forward_kernel(name), FORWARD), (run_back, BACK)]


# Running


class Results(NamedTuple):
    """ln RMS h, ln |∂E/∂h| and ln |∂E/∂W|, each (networks, layers) in Fortran's order: networks lie side by side."""

    log_signal: Any
    log_gradient: Any
    log_weight_gradient: Any

    @classmethod
    def empty(cls, make: Callable, networks: int, depth: int) -> "Results":
        return cls(*(make((networks, layers), np.float64, order="F") for layers in (depth + 1, depth + 1, depth)))


class Room:
    """What a portion of networks needs on a GPU, and the stream in which it is computed."""

    def __init__(self, networks: int, depth: int, results: Results | None):
        self.stream = cuda.stream()
        self.sums = cuda.device_array((depth + 1, SUMS, networks), np.float64)
        self.of_layers = cuda.device_array((depth + 1, NORM + 1, networks), np.float64)
        self.exponents = cuda.device_array((depth + 1, networks), np.int64)
        self.results = results or Results.empty(cuda.device_array, networks, depth)


def bytes_per_network(depth: int) -> int:
    """Of a Room."""
    return 8 * ((depth + 1) * (SUMS + NORM + 2) + 3 * depth + 2)


def workers_for(trials: int, width: int) -> int:
    """How many threads share a network: 1 where the networks fill a GPU by themselves, else up to one for each chunk."""
    chunks, workers = math.ceil(width / (2 * CHUNK)), 1
    while workers < min(chunks, MOST_WORKERS) and trials * workers < FULL:
        workers *= 2
    return workers


def cost(network: Network) -> float:
    """Nanoseconds that a CPU's core takes for a network, about."""
    return 1.0 * network.depth * network.width


def run(network: Network, trials: int, seed: int, on_device: bool, progress: bool = False) -> Results:
    """The results of all trials: computed by all GPUs, into NumPy arrays; or by the current GPU, and kept there.

    The networks pass through the GPUs in portions that fit into their memory.
    """
    depth = network.depth
    devices = [cuda.gpus.current or cuda.gpus[0]] if on_device else list(cuda.gpus)
    results = Results.empty(cuda.device_array if on_device else np.empty, trials, depth)
    workers = workers_for(math.ceil(trials / len(devices)), network.width)
    lanes = THREADS // workers
    portion = lanes * min(
        math.ceil(trials / len(devices) / lanes),
        FULL // lanes,
        *(blocks_that_fit(device, lanes, depth) for device in devices),
    )
    idle = iter(devices)

    def work(starts: Iterator[int], watch: np.ndarray) -> None:
        device = next(idle)
        with device:
            kernel = launcher(network, seed, device.compute_capability, (lanes, workers))
            rooms = [Room(portion, depth, results if on_device else None) for _ in range(2 if portion < trials else 1)]
            before = None
            for turn, first in enumerate(starts):
                room, count = rooms[turn % len(rooms)], min(portion, trials - first)
                kernel(room, first, count, first if on_device else 0)
                # what the other room holds comes back while this one is computed
                if before is not None:
                    collect(*before)
                before = room, first, count
            if before is not None:
                collect(*before)

    def collect(room: Room, first: int, count: int) -> None:
        parts = [] if on_device else [part.copy_to_host(stream=room.stream) for part in room.results]
        room.stream.synchronize()
        for result, part in zip(results, parts, strict=not on_device):
            result[first : first + count] = part[:count]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grid size")  # Numba's, of jobs that do not fill a GPU
        share(range(0, trials, portion), len(devices), work, progress)
    return results


def blocks_that_fit(device: Any, lanes: int, depth: int) -> int:
    """How many blocks of networks fit into a Room, of which there are two, that leave a fifth of the free memory."""
    with device:
        free = cuda.current_context().get_memory_info().free
    blocks = 0.4 * free / (lanes * bytes_per_network(depth))
    if blocks < 1:
        raise MemoryError(
            f"{lanes} networks of depth {depth} need {lanes * bytes_per_network(depth):,} bytes twice, and the GPU has "
            f"{free:,} free; take target='cpu'"
        )
    return int(min(blocks, FULL))


def launcher(network: Network, seed: int, capability: tuple[int, int], block: tuple[int, int]) -> Callable:
    """(room, first trial, how many, row of the results) -> starts the kernels."""
    phi = activation(network.activation)
    orthogonal = network.law == "orthogonal"
    start, forward, back = kernels(network.activation, capability)
    seeds = u32(seed & 0xFFFFFFFF), u32(seed >> 32)
    sizes = network.depth, network.width, network.fan_in
    variances = network.weight_variance, network.first_weight_variance, network.bias_variance

    def launch(room: Room, first: int, count: int, at: int) -> None:
        trial, memory = u32(first), (room.sums, room.of_layers, room.exponents)
        blocks = math.ceil(count / block[0])
        layers = min(network.depth, MOST_BLOCKS) if orthogonal else 1
        start[(blocks, layers), block[0], room.stream](*sizes, network.input_rms, orthogonal, *seeds, trial, *memory)
        forward[blocks, block, room.stream](
            *sizes, *variances, orthogonal, phi.vanishes_at_zero, not phi.is_bounded, *seeds, trial, *memory
        )
        back[math.ceil(count / THREADS), THREADS, room.stream](
            *sizes, *variances, orthogonal, *seeds, trial, at, count, *memory, *room.results
        )

    return launch
