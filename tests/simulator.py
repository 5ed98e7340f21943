"""Numba's CUDA simulator, with the lanes of a block one after another, and code written for several lanes run as Python.

It is imported in a process of its own, with NUMBA_ENABLE_CUDASIM=1, before numba-cuda. The simulator's own threads run as
the operating system likes, and poll. Here lane after lane goes from one barrier to the next, forwards or backwards (`turns`):
what a lane must not yet have read, or must have read before, shows as a wrong bit in one of the two orders. Lanes that do
not all come to the same barriers are an error. Memory holds NaN until it is written to.
"""

import importlib
import math
import sys
import threading
import types

import numba
import numpy as np
from numba import cuda, njit
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.cudadrv.devices import FakeCUDAContext, FakeCUDADevice
from turns import Lanes

BACKWARDS = False


def place(thread):
    """Where a lane waits: known by how often it has waited, and by the calls that led here."""
    calls, frame = [], sys._getframe(2)
    while frame and frame.f_code.co_name not in ("run", "target"):
        calls.append((frame.f_code.co_name, frame.f_lineno))
        frame = frame.f_back
    thread.barriers = getattr(thread, "barriers", 0) + 1
    return thread.barriers, *calls


def syncthreads(thread):
    thread._manager.lanes.wait(thread.thread_id, place(thread))


def run_block(manager, grid_point, *arguments):
    """One block of the grid."""
    points = [*np.ndindex(*manager._block_dim)]
    lanes = manager.lanes = Lanes(len(points), BACKWARDS)

    def target():
        lane = threading.current_thread().thread_id
        lanes.begin(lane)
        try:
            manager._f(*arguments)
        except Exception as error:
            lanes.broken = lanes.broken or f"{type(error).__name__}: {error}"
            raise
        finally:
            lanes.end(lane)

    threads = [simulator.BlockThread(target, manager, grid_point, point, False) for point in points]
    lanes.run(threads)
    failures = [thread.exception for thread in threads if thread.exception]
    if failures:
        raise next((failure[0] for failure in failures if str(failure[0]) != lanes.broken), failures[0][0])


simulator.BlockThread.syncthreads = syncthreads
simulator.BlockManager.run = run_block
FakeCUDADevice.MULTIPROCESSOR_COUNT = FakeCUDAContext.MULTIPROCESSOR_COUNT = 1
empty = cuda.device_array


def device_array(*shape_and_type):
    array = empty(*shape_and_type)
    array._ary.reshape(-1).view(np.uint8).fill(255)
    return array


cuda.device_array = device_array


# vgp_kernels.numerics.lanes, in Python


def this():
    return threading.current_thread()


def lane():
    return this().threadIdx.x


def mine(n):
    return range(lane(), int(n), this()._manager._block_dim[0])


def rows_of_warp(n):
    return range(lane() // 32, int(n), this()._manager._block_dim[0] // 32)


def columns_of_lane(n):
    return range(lane() % 32, int(n), 32)


REACHED, OMITTED = set(), None  # barriers: the module and the line of a call of `together`


def together():
    caller = sys._getframe(1)
    barrier = caller.f_globals["__name__"], caller.f_lineno
    REACHED.add(barrier)
    if barrier != OMITTED:
        syncthreads(this())


KNOWN = {}  # what each lane puts


def put(array, index, value):
    KNOWN[lane()] = index, np.float64(value).tobytes()
    together()
    if KNOWN[lane()] != KNOWN[0]:
        raise RuntimeError(f"lanes put different values or put them elsewhere: {value}, and lane 0 {KNOWN[0]}")
    array[index] = value
    together()


def halved(values):
    """Halves added to halves."""
    while len(values) > 1:
        values = values[: len(values) // 2] + values[len(values) // 2 :]
    return values[0]


def in_ways(terms):
    partial = np.zeros(32)
    for start in range(0, len(terms), 32):
        partial = partial + terms[start : start + 32]
    return halved(partial)


def over_warp(combine):
    def combined(value):
        thread = this()
        return combine(np.array(thread._manager.lanes.shuffle(thread.thread_id, place(thread), value)))

    return combined


def double(x, entries):
    return np.asarray(x)[: int(entries)].astype(np.float64)


def part_of(array, start, *shape):
    size = math.prod(map(int, shape))  # of memory that is only measured there is none
    return (array.reshape(-1)[int(start) : int(start) + size] if array.size else np.empty(size, array.dtype)).reshape(
        *shape
    )


SIMULATED = types.ModuleType("vgp_kernels.numerics.lanes")
for name, value in {
    "WAYS": 32, "lane": lane, "mine": mine, "together": together, "put": put, "shared": lambda: True, "on_gpu": None, "I32": None,
    "lane_of_warp": lambda: lane() % 32,
    "prefer_wide_vectors": lambda: None, "compile_once": lambda: None, "row": lambda array, index: array[index],
    "part": lambda array, start, shape: part_of(array, start, *shape), "address": lambda array: array,
    **dict.fromkeys(("floats", "float_matrix", "doubles", "double_matrix", "integers"), part_of),
    "flat": lambda array: array.reshape(-1), "rows_of_warp": rows_of_warp, "columns_of_lane": columns_of_lane,
    "sum_over_warp": over_warp(halved), "most_over_warp": over_warp(max),
    "sum_of_products": lambda x, y, entries: in_ways(double(x, entries) * double(y, entries)),
    "sum_of_entries": lambda x, entries: in_ways(double(x, entries)),
}.items():  # fmt: skip
    setattr(SIMULATED, name, value)


def compiled(intrinsic, arity):
    """The scalar function, for Python to call."""
    parameters = ", ".join("abcdef"[:arity])
    return njit(error_model="numpy")(eval(f"lambda {parameters}: intrinsic({parameters})", {"intrinsic": intrinsic}))


def interpret(*rooms):
    """Read these modules again, so that their functions run as Python, lane by lane; they call compiled scalar functions."""
    from vgp_kernels import activations
    from vgp_kernels.numerics import arithmetic
    from vgp_kernels.targets import cache

    value_and_slope, functions = activations.value_and_slope, {}

    def of(name, z):
        if name not in functions:
            functions[name] = njit(error_model="numpy")(lambda z: value_and_slope(name, z))
        return functions[name](z)

    activations.value_and_slope = of
    for name, arity in (("fma", 3), ("bits_from_double", 1), ("double_from_bits", 1), ("bits_from_float", 1)):
        setattr(arithmetic, name, compiled(getattr(arithmetic, name), arity))
    real = numba.njit, cache.cached
    numba.njit = lambda *types, **options: types[0] if types and callable(types[0]) else lambda f: f
    cache.cached = lambda *types, **options: lambda f: f
    sys.modules["vgp_kernels.numerics.lanes"] = SIMULATED
    try:
        for room in rooms:
            importlib.reload(importlib.import_module(f"vgp_kernels.{room}"))
    finally:
        numba.njit, cache.cached = real
