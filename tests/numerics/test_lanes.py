"""What lanes do on a GPU, done here: the code made for a GPU, with its registers, barrier and shuffle as functions in Python.

The lanes of a block are threads that take turns, forwards or backwards. Mistakes made in `lanes` must fail these checks.
"""

import ctypes
import inspect
import threading
import types

import numpy as np
import pytest
from llvmlite import binding, ir
from numba import njit
from numba.core import cgutils
from numba.core.registry import cpu_target
from turns import Lanes

from vgp_kernels.numerics import lanes as real
from vgp_kernels.numerics.arithmetic import STRICT

SOURCE = inspect.getsource(real)
BLOCKS = (32, 64, 128)  # lanes: a warp is 32 of them

# The GPU, as NVIDIA's PTX ISA describes it

here = threading.local()  # the lane that a thread is, and its block


def barrier():
    here.barriers += 1
    here.wait("barrier", here.barriers)


def shuffle(members, mode, value, operand, bounds):
    """shfl.sync: the value of another lane of the warp, or the lane's own where there is none within bounds."""
    values = here.block.shuffle(here.lane, ("shuffle", mode, operand), value)
    lane, segment = here.lane % 32, bounds >> 8 & 31
    first, bound = lane & segment, lane & segment | bounds & 31 & ~segment
    source = [first | operand & ~segment, lane - operand, lane + operand, lane ^ operand][mode]  # idx, up, down, bfly
    source = source if (source >= bound if mode == 1 else source <= bound) else lane
    assert members >> lane & members >> source & 1, "a lane that is no member"
    return values[source]


def of_a_lane(function):
    """The same, for compiled code to call: an error ends the lane's block, once the compiled code has come to its end."""

    def guarded(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            here.block.broken = here.block.broken or repr(error)
            return 0

    return guarded


def kind(count, result=ctypes.c_int32):
    return ctypes.CFUNCTYPE(result, *[ctypes.c_uint32] * count)


REGISTERS = {
    "tid.x": lambda: here.lane,
    "ntid.x": lambda: len(here.block.where),
    "laneid": lambda: here.lane % 32,
}
FUNCTIONS = {f"nvvm.read.ptx.sreg.{name}": kind(0)(read) for name, read in REGISTERS.items()} | {
    "nvvm.barrier0": kind(0, None)(of_a_lane(barrier)),
    "nvvm.shfl.sync.i32": kind(5)(of_a_lane(shuffle)),
}
for name, function in FUNCTIONS.items():
    binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)


def function_in_python(module, kind, name):
    """Instead of an instruction of the GPU: a call of the function with its name."""
    result = kind.return_type
    if not isinstance(result, ir.LiteralStructType):
        return cgutils.get_or_insert_function(module, kind, name.removeprefix("llvm."))
    value = cgutils.get_or_insert_function(module, ir.FunctionType(real.I32, kind.args), name.removeprefix("llvm."))
    both = cgutils.get_or_insert_function(
        module, kind, f"{value.name}.p"
    )  # with whether there was a lane within bounds
    if both.is_declaration:
        both.linkage = "internal"
        builder = ir.IRBuilder(both.append_basic_block())
        builder.ret(builder.insert_value(result(ir.Undefined), builder.call(value, both.args), 0))
    return both


def gpu(source=SOURCE):
    """The module with this source, as if all code were made for a GPU."""
    module = types.ModuleType("lanes_of_a_gpu")
    exec(compile(source, "lanes.py", "exec"), vars(module))
    module.on_gpu = lambda context: True
    module.cgutils = types.SimpleNamespace(**vars(cgutils) | {"get_or_insert_function": function_in_python})
    cpu_target.target_context.cached_internal_func.clear()  # takes functions with the same code for the same functions
    return module


def by_lanes(count, backwards, function, *arguments):
    """function(lane, *arguments) in every lane of a block."""
    block, failures = Lanes(count, backwards), []

    def work(lane):
        here.block, here.lane, here.barriers = block, lane, 0
        here.wait = lambda *where: block.wait(lane, where)
        block.begin(lane)
        try:
            function(lane, *arguments)
        except Exception as error:
            failures.append(error)
        finally:
            block.end(lane)

    block.run([threading.Thread(target=work, args=(lane,)) for lane in range(count)])
    if failures:
        raise failures[0]
    assert not block.broken, block.broken


compiled = njit(nogil=True, **STRICT)

# The checks, each with what `lanes` says of itself written in NumPy


def check_dealing(lanes, backwards):
    lane_of_block, lane_of_warp, shared = lanes.lane, lanes.lane_of_warp, lanes.shared
    mine, rows_of_warp, columns_of_lane = lanes.mine, lanes.rows_of_warp, lanes.columns_of_lane

    @compiled
    def deal(lane, n, numbers, taken):
        numbers[0, lane], numbers[1, lane], numbers[2, lane] = lane_of_block(), lane_of_warp(), shared()
        for i in mine(n):
            taken[0, lane, i] += 1
        for i in rows_of_warp(n):
            taken[1, lane, i] += 1
        for i in columns_of_lane(n):
            taken[2, lane, i] += 1

    for count in BLOCKS:
        for n in (0, 1, 31, 64, 165):
            numbers, taken = np.zeros((3, count), int), np.zeros((3, count, n + 256), int)
            by_lanes(count, backwards, deal, n, numbers, taken)
            lane, i = np.arange(count)[:, None], np.arange(n + 256)
            assert (numbers == [lane[:, 0], lane[:, 0] % 32, np.ones(count)]).all()
            assert (taken[0] == ((i % count == lane) & (i < n))).all()
            assert (taken[1] == ((i % (count // 32) == lane // 32) & (i < n))).all()
            assert (taken[2] == ((i % 32 == lane % 32) & (i < n))).all()


def check_barrier(lanes, backwards):
    mine, together = lanes.mine, lanes.together

    @compiled
    def reverse(lane, x, y):
        n = len(x)
        for i in mine(n):
            x[i] += 1
        together()
        for i in mine(n):
            y[i] = x[n - 1 - i]
        together()
        for i in mine(n):
            x[i] = 0

    for count in BLOCKS:
        x, y = np.arange(100), np.zeros(100, int)
        by_lanes(count, backwards, reverse, x, y)
        assert (x == 0).all() and (y == np.arange(100, 0, -1)).all()


def check_put(lanes, backwards):
    mine, put = lanes.mine, lanes.put

    @compiled
    def around(lane, x, before):
        before[lane] = x[5]
        put(x, 5, 7)
        for i in mine(len(x)):
            x[i] += 1

    for count in BLOCKS:
        x, before = np.arange(100), np.zeros(count, int)
        by_lanes(count, backwards, around, x, before)
        assert (before == 5).all() and (x == np.where(np.arange(100) == 5, 7, np.arange(100)) + 1).all()


def halves_to_halves(values):
    """The sum along the last axis."""
    while values.shape[-1] > 1:
        low, high = np.split(values, 2, axis=-1)
        values = low + high
    return values[..., 0]


def sum_in_32_ways(terms):
    partial = np.zeros(32)
    for row in terms.reshape(-1, 32):
        partial = partial + row
    return halves_to_halves(partial)


def numbers(generator, count):
    """Whose sums show their order: of all magnitudes, of both signs."""
    return generator.standard_normal(count) * 2.0 ** generator.integers(-20, 20, count)


def check_sums(lanes, backwards):
    sum_over_warp, sum_of_entries, sum_of_products = lanes.sum_over_warp, lanes.sum_of_entries, lanes.sum_of_products

    @compiled
    def sums(lane, values, x, y, entries, found):
        found[0, lane] = sum_over_warp(values[lane])
        found[1, lane] = sum_of_entries(x, entries)
        found[2, lane] = sum_of_products(x, y, entries)

    generator = np.random.default_rng(1)
    for count, entries in zip(BLOCKS, (0, 32, 160), strict=True):
        values, y, found = numbers(generator, count), numbers(generator, entries), np.zeros((3, count))
        x = numbers(generator, entries).astype(np.float32)
        by_lanes(count, backwards, sums, values, x, y, entries, found)
        of_warps = halves_to_halves(values.reshape(-1, 32)).repeat(32)
        whole = [np.full(count, sum_in_32_ways(terms)) for terms in (np.float64(x), np.float64(x) * y)]
        assert found.tobytes() == np.array([of_warps, *whole]).tobytes()


def check_most(lanes, backwards):
    most_over_warp = lanes.most_over_warp

    @compiled
    def most(lane, values, found):
        found[lane] = most_over_warp(values[lane])

    generator = np.random.default_rng(2)
    for count in BLOCKS:
        values, found = generator.integers(0, 2**62, count), np.zeros(count, int)
        by_lanes(count, backwards, most, values, found)
        assert (found == values.reshape(-1, 32).max(1).repeat(32)).all()


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("check", [check_dealing, check_barrier, check_put, check_sums, check_most])
def test_lanes_of_a_gpu_do_what_is_said_of_them(check, backwards):
    check(gpu(), backwards)


def test_the_cpu_sums_in_the_same_order():
    sum_of_entries, sum_of_products = real.sum_of_entries, real.sum_of_products
    sums = compiled(lambda x, y, entries: (sum_of_entries(x, entries), sum_of_products(x, y, entries)))
    generator = np.random.default_rng(3)
    for entries in (0, 32, 160):
        x, y = numbers(generator, entries).astype(np.float32), numbers(generator, entries)
        assert sums(x, y, entries) == (sum_in_32_ways(np.float64(x)), sum_in_32_ways(np.float64(x) * y))


SHUFFLE = "I32(-1), I32(3), half, I32(distance), I32(31)"  # members, mode, value, operand, bounds
COLUMNS = '(builder, "laneid"), I64), I64(WAYS))'
PUT = "    together()\n    array[index] = value\n    together()\n"
MISTAKES = {  # title: check, what the source says, what it says with the mistake
    "number in the block for number in the warp": (check_dealing, 'number(0, "laneid")', 'number(0, "tid.x")'),
    "number in the warp for number in the block": (check_dealing, 'number(0, "tid.x")', 'number(0, "laneid")'),
    "entries from the number in the warp on": (check_dealing, '("tid.x", "ntid.x")', '("laneid", "ntid.x")'),
    "rows for warps of 16 lanes": (check_dealing, "I64(5)", "I64(4)"),
    "columns for warps of 16 lanes": (check_dealing, COLUMNS, COLUMNS.replace("WAYS", "WAYS // 2")),
    "columns from the number in the block on": (check_dealing, COLUMNS, COLUMNS.replace("laneid", "tid.x")),
    "the first entry of lane 0 for all": (check_dealing, "for value in (first, count)", "for value in (I64(0), count)"),
    "entries one after another": (check_dealing, "numbers.step = stop, step", "numbers.step = stop, I64(1)"),
    "an entry past the last": (check_dealing, "builder.add(stop, builder.sub(step, I64(1)))", "builder.add(stop, step)"),
    "no entry of the last round": (check_dealing, "builder.add(stop, builder.sub(step, I64(1)))", "stop"),
    "lanes that think they are alone": (check_dealing, "IntType(1)(on_gpu(context))", "IntType(1)(0)"),
    "no barrier": (check_barrier, "statement(gpu=call_barrier)", "statement()"),
    "no barrier before": (check_put, PUT, PUT.removeprefix("    together()\n")),
    "no barrier after": (check_put, PUT, PUT.removesuffix("    together()\n")),
    "stored by none": (check_put, PUT, PUT.replace("array[index] = value", "pass")),
    "stored beside": (check_put, PUT, PUT.replace("index", "index + 1")),
    "stored where each lane is": (check_put, PUT, PUT.replace("index", "lane()")),
    "shuffle to one lane": (check_sums, SHUFFLE, SHUFFLE.replace("I32(3)", "I32(0)")),
    "shuffle up": (check_sums, SHUFFLE, "I32(-1), I32(1), half, I32(distance), I32(0)"),
    "shuffle down": (check_sums, SHUFFLE, SHUFFLE.replace("I32(3)", "I32(2)")),
    "shuffle among 16 lanes": (check_sums, SHUFFLE, SHUFFLE.replace("I32(31)", "I32(31 + (16 << 8))")),
    "16 members": (check_sums, SHUFFLE, SHUFFLE.replace("I32(-1)", "I32(0xFFFF)")),
    "half a warp": (check_sums, "distance = WAYS // 2", "distance = WAYS // 4"),
    "neighbours first": (check_sums, "value, exchanged(builder, value, distance)", "value, exchanged(builder, value, 16 // distance)"),
    "the halves of a value on each other": (check_sums, "builder.zext(high, I64), I64(32)", "builder.zext(high, I64), I64(0)"),
    "difference for sum": (check_sums, "other: builder.fadd(one, other)", "other: builder.fsub(one, other)"),
    "maximum for sum": (
        check_sums, "other: builder.fadd(one, other)", 'other: builder.select(builder.fcmp_ordered(">", one, other), one, other)'),
    "sixteen ways": (check_sums, "WAYS = 32", "WAYS = 16"),
    "products from the number in the block on": (
        check_sums, "range(lane_of_warp(), entries, WAYS):\n        at", "range(lane(), entries, WAYS):\n        at"),
    "entries of a sum from the number in the block on": (
        check_sums, "range(lane_of_warp(), entries, WAYS):\n        total", "range(lane(), entries, WAYS):\n        total"),
    "products that stay with their lane": (check_sums, "f64(y[at])\n    return sum_over_warp(total)", "f64(y[at])\n    return total"),
    "minimum for maximum": (check_most, 'icmp_unsigned(">"', 'icmp_unsigned("<"'),
    "sum for maximum": (
        check_most, 'builder.select(builder.icmp_unsigned(">", one, other), one, other)', "builder.add(one, other)"),
    "the upper half of a value": (check_most, "builder.zext(low, I64)", "I64(0)"),
}  # fmt: skip


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_fails_a_check(title):
    check, right, wrong = MISTAKES[title]
    assert SOURCE.count(right) == 1
    mistaken = gpu(SOURCE.replace(right, wrong))
    with pytest.raises(AssertionError):
        for backwards in (False, True):
            check(mistaken, backwards)
