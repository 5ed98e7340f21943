"""What the targets do differently where threads share a network, so that the rest has one source.

On the CPU a thread has a network to itself. On a GPU the threads of a block, its lanes, share one: all run the same code
and know the same scalars, and the entries of vectors are dealt out to them. Three rules keep such code right:

    for i in mine(n): ...        what such a loop writes is read by the same lane only, in another such loop,
    together()                   or after this; it also stands between a read and the next write by another lane;
    put(array, index, value)     stores what all lanes know, for all of them to read.

Sums over units have one order on every target: WAYS partial sums side by side, as many as a warp has lanes.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.cpu import CPUContext
from numba.core.errors import LoweringError
from numba.core.targetconfig import ConfigStack
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from vgp_kernels.numerics.arithmetic import STRICT, f64

WAYS = 32
I32, I64 = ir.IntType(32), ir.IntType(64)


def on_gpu(context):
    """Whether code is made for a GPU; RuntimeError if that cannot be told."""
    if isinstance(context, CPUContext):
        return False
    if type(context).__name__ != "CUDATargetContext":  # without numba-cuda there is no such class
        raise RuntimeError(
            f"code for an unknown target: {type(context).__name__}; known: CPUContext, CUDATargetContext"
        )
    return True


def statement(cpu=None, gpu=None):
    """An intrinsic without arguments that makes code by one of these functions, or none."""

    def generate(context, builder, signature, arguments):
        if make := gpu if on_gpu(context) else cpu:
            make(builder)
        return context.get_dummy_value()

    return intrinsic(lambda typing_context: (types.none(), generate))


def from_register(builder, name):
    """A special register of the GPU."""
    return builder.call(
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), f"llvm.nvvm.read.ptx.sreg.{name}"), []
    )


def number(cpu, register):
    """An intrinsic that is a constant on the CPU and a special register of the GPU."""

    def generate(context, builder, signature, arguments):
        return builder.zext(from_register(builder, register), I64) if on_gpu(context) else I64(cpu)

    return intrinsic(lambda typing_context: (types.int64(), generate))


def call_barrier(builder):
    builder.call(
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.nvvm.barrier0"), []
    )


together = statement(gpu=call_barrier)
# Whether a network has several lanes: known to the compiler, which leaves out what is for the others
shared = intrinsic(
    lambda typing_context: (
        types.boolean(),
        lambda context, builder, signature, arguments: ir.IntType(1)(on_gpu(context)),
    )
)
lane, lane_of_warp = number(0, "tid.x"), number(0, "laneid")
# LLVM uses half of AVX-512's width unless told otherwise. llvmlite's own `add` knows no attributes with a value; the set
# it derives from takes any.
prefer_wide_vectors = statement(cpu=lambda builder: set.add(builder.function.attributes, '"prefer-vector-width"="512"'))
# The function stays one: LLVM would copy it into each of its callers and optimise every copy, for minutes
compile_once = statement(*[lambda builder: builder.function.attributes.add("noinline")] * 2)


def dealt(of_lane):
    """An intrinsic that gives range(first, n, step), with n its argument, and range(n) on the CPU.

    `of_lane` makes first and step, the latter a power of two: how many numbers these are is found without a division.
    """
    kind = types.range_iter64_type

    def generate(context, builder, signature, arguments):
        stop = context.cast(builder, arguments[0], signature.args[0], types.int64)
        first, step, count = I64(0), I64(1), stop
        if on_gpu(context):
            first, step = of_lane(builder)
            digits = builder.cttz(step, ir.IntType(1)(1))
            count = builder.ashr(builder.sub(builder.add(stop, builder.sub(step, I64(1))), first), digits)
        numbers = context.make_helper(builder, kind)
        numbers.iter, numbers.count = (cgutils.alloca_once_value(builder, value) for value in (first, count))
        numbers.stop, numbers.step = stop, step
        return numbers._getvalue()

    return intrinsic(lambda typing_context, n: (kind(n), generate))


def lane_and_lanes(builder):
    return [builder.zext(from_register(builder, name), I64) for name in ("tid.x", "ntid.x")]


# The entries 0 … n - 1 that this lane takes
mine = dealt(lane_and_lanes)
# The rows 0 … n - 1 of a matrix that the warp of this lane takes, and what this lane takes of the columns of such rows
rows_of_warp = dealt(lambda builder: [builder.lshr(value, I64(5)) for value in lane_and_lanes(builder)])
columns_of_lane = dealt(lambda builder: (builder.zext(from_register(builder, "laneid"), I64), I64(WAYS)))


@njit(forceinline=True, **STRICT)
def put(array, index, value):
    """array[index] ← value, which all lanes know."""
    together()
    array[index] = value
    together()


def uncounted(generate):
    """What makes an address or a view to which no reference is counted: only for code that makes no arrays of its own.

    Numba frees an array after the last use of its name, whatever addresses and views are left of it.
    """

    def checked(context, builder, signature, arguments):
        if not on_gpu(context) and ConfigStack.top_or_none().nrt:
            raise LoweringError(
                "addresses and uncounted views are for kernels that make no arrays: compile with **STRICT"
            )
        return generate(context, builder, signature, arguments)

    return checked


@intrinsic
def row(typing_context, array, index):
    """array[index] of a C-contiguous array, without counting a reference to it: that would cost more than many a loop."""
    view = array.copy(ndim=array.ndim - 1)

    def generate(context, builder, signature, arguments):
        whole = context.make_array(array)(context, builder, arguments[0])
        part = context.make_array(view)(context, builder)
        strides, shape = cgutils.unpack_tuple(builder, whole.strides), cgutils.unpack_tuple(builder, whole.shape)
        at = cgutils.pointer_add(builder, whole.data, builder.mul(arguments[1], strides[0]), whole.data.type)
        populate_array(part, at, shape[1:], strides[1:], whole.itemsize, None)
        return part._getvalue()

    return view(array, types.int64), uncounted(generate)


@intrinsic
def flat(typing_context, array):
    """All entries of a C-contiguous array, one after another, without counting a reference to it."""
    view = array.copy(ndim=1)

    def generate(context, builder, signature, arguments):
        whole = context.make_array(array)(context, builder, arguments[0])
        all_of_it = context.make_array(view)(context, builder)
        populate_array(all_of_it, whole.data, [whole.nitems], [whole.itemsize], whole.itemsize, None)
        return all_of_it._getvalue()

    return view(array), uncounted(generate)


@intrinsic
def part(typing_context, array, start, shape):
    """The entries of a vector from `start` on, as a C-contiguous array of this shape, without counting a reference to it."""
    view = array.copy(ndim=len(shape))

    def generate(context, builder, signature, arguments):
        whole = context.make_array(array)(context, builder, arguments[0])
        cut = context.make_array(view)(context, builder)
        lengths, strides = cgutils.unpack_tuple(builder, arguments[2]), [whole.itemsize]
        for length in lengths[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        at = builder.gep(whole.data, [arguments[1]])
        populate_array(cut, at, lengths, strides, whole.itemsize, None)
        return cut._getvalue()

    return view(array, types.int64, types.UniTuple(types.int64, len(shape))), uncounted(generate)


@intrinsic
def address(typing_context, array):
    """Where the array's memory begins."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, I64)

    return types.int64(array), uncounted(generate)


def in_memory(number, dimensions):
    """An intrinsic that is an array of such numbers in the memory at an address, from the number `start` on."""
    kind, words = types.Array(number, dimensions, "C"), [types.int64] * (2 + dimensions)

    def generate(context, builder, signature, arguments):
        base, start, *shape = arguments
        part, size = context.make_array(kind)(context, builder), I64(number.bitwidth // 8)
        data = builder.gep(builder.inttoptr(base, part.data.type), [start])
        strides = [size] if dimensions == 1 else [builder.mul(shape[1], size), size]
        populate_array(part, data, shape, strides, size, None)
        return part._getvalue()

    if dimensions == 1:
        return intrinsic(lambda typing_context, base, start, size: (kind(*words), generate))
    return intrinsic(lambda typing_context, base, start, rows, columns: (kind(*words), generate))


floats, float_matrix = in_memory(types.float32, 1), in_memory(types.float32, 2)
doubles, double_matrix = in_memory(types.float64, 1), in_memory(types.float64, 2)
integers = in_memory(types.int64, 1)


# Sums


def exchanged(builder, value, distance):
    """The value of the lane of the warp whose number differs in this bit; a 64-bit value travels in halves."""
    kind, struct = value.type, ir.LiteralStructType([I32, ir.IntType(1)])
    shuffle = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(struct, [I32] * 5), "llvm.nvvm.shfl.sync.i32"
    )
    bits = builder.bitcast(value, I64)
    halves = [builder.trunc(bits, I32), builder.trunc(builder.lshr(bits, I64(32)), I32)]
    low, high = (
        builder.extract_value(builder.call(shuffle, [I32(-1), I32(3), half, I32(distance), I32(31)]), 0)
        for half in halves
    )
    return builder.bitcast(builder.or_(builder.shl(builder.zext(high, I64), I64(32)), builder.zext(low, I64)), kind)


def over_warp(combine):
    """An intrinsic that combines a 64-bit value of all lanes of the warp; on the CPU, the value itself."""

    def generate(context, builder, signature, arguments):
        (value,) = arguments
        distance = WAYS // 2 if on_gpu(context) else 0
        while distance:
            value = combine(builder, value, exchanged(builder, value, distance))
            distance //= 2
        return value

    return intrinsic(lambda typing_context, value: (value(value), generate))


# halves are added to halves, as `sum_of` does on the CPU
sum_over_warp = over_warp(lambda builder, one, other: builder.fadd(one, other))
most_over_warp = over_warp(
    lambda builder, one, other: builder.select(builder.icmp_unsigned(">", one, other), one, other)
)


def products_of_lane(x, y, entries):
    total = 0.0
    for i in range(lane_of_warp(), entries, WAYS):
        at = np.uint64(i)  # an index with a sign could count from the end: so much slower
        total += f64(x[at]) * f64(y[at])
    return sum_over_warp(total)


def entries_of_lane(x, entries):
    total = 0.0
    for i in range(lane_of_warp(), entries, WAYS):
        total += f64(x[np.uint64(i)])
    return sum_over_warp(total)


def sum_in_ways(arity, of_lane):
    """The sum over the first entries of an array, a multiple of WAYS, or of the products of two.

    LLVM vectorises no sum without the licence to reorder it, so the vectors are spelt out: partial sum k takes every entry
    k + m · WAYS, and in the end halves are added to halves.
    """

    def generate(context, builder, signature, arguments):
        if on_gpu(context):
            return context.compile_internal(builder, of_lane, signature, arguments)
        *arrays, entries = arguments
        double = ir.VectorType(ir.DoubleType(), WAYS)
        views = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args, arrays, strict=False)
        ]
        total = cgutils.alloca_once_value(builder, double([0.0] * WAYS))
        with cgutils.for_range_slice(builder, I64(0), entries, I64(WAYS)) as (start, _):
            operands = []
            for view in views:
                at = builder.gep(view.data, [start])
                vector = ir.VectorType(at.type.pointee, WAYS)
                loaded = builder.load(
                    builder.bitcast(at, vector.as_pointer()), align=context.get_abi_sizeof(at.type.pointee)
                )
                operands.append(loaded if vector == double else builder.fpext(loaded, double))
            term = builder.fmul(*operands) if len(operands) == 2 else operands[0]
            builder.store(builder.fadd(builder.load(total), term), total)
        result, half = builder.load(total), WAYS // 2
        while half:
            low, high = (ir.Constant(ir.VectorType(I32, half), [*range(first, first + half)]) for first in (0, half))
            result = builder.fadd(
                builder.shuffle_vector(result, result, low), builder.shuffle_vector(result, result, high)
            )
            half //= 2
        return builder.extract_element(result, I32(0))

    if arity == 2:
        return intrinsic(lambda typing_context, x, y, entries: (types.float64(x, y, entries), generate))
    return intrinsic(lambda typing_context, x, entries: (types.float64(x, entries), generate))


sum_of_products, sum_of_entries = sum_in_ways(2, products_of_lane), sum_in_ways(1, entries_of_lane)
