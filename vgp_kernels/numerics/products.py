"""Products of float32 matrices, each entry summed in one fixed order: the same bits on every processor.

A BLAS chooses its order of summation by processor and version, and training amplifies the last bit until two machines
disagree. Here c_ij = Σ_k a_ik b_kj is one chain of fused multiply-adds, k = 0, 1, …, whatever the width of the registers:
they hold neighbouring columns j, whose chains do not touch.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from vgp_kernels.numerics.arithmetic import STRICT, ZERO, fma
from vgp_kernels.numerics.lanes import (
    I32,
    address,
    columns_of_lane,
    compile_once,
    float_matrix,
    floats,
    mine,
    on_gpu,
    prefer_wide_vectors,
    rows_of_warp,
    together,
)

u64 = np.uint64
LANES = 16  # float32 columns of a tile
# Enough independent chains to hide the latency of a multiply-add, few enough to stay in the registers
ROWS = 8 if llvm.get_host_cpu_features().get("avx512f") else 4


def tile_product(rows: int, whole: bool):
    """The product for a tile of `rows` × LANES entries of C, whose partial sums stay in registers.

    Its arguments are addresses, steps in bytes, the number of terms and that of columns. A `whole` tile has LANES columns;
    of another one, the columns that B and C do not have are neither read nor written.
    """
    signature = types.void(*[types.int64] * 9)

    @intrinsic
    def multiply_tile(typing_context, a, a_row, a_step, b, b_step, c, c_row, terms, columns):
        def generate(context, builder, _, arguments):
            a, a_row, a_step, b, b_step, c, c_row, terms, columns = arguments
            scalar, integer = ir.FloatType(), ir.IntType(64)
            vector, flags = ir.VectorType(scalar, LANES), ir.VectorType(ir.IntType(1), LANES)
            pointer, alignment, zeros = vector.as_pointer(), I32(4), ir.Constant(vector, [0.0] * LANES)

            def function(name, result, *parameters):
                return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)

            fused = function(f"llvm.fma.v{LANES}f32", vector, vector, vector, vector)
            undefined = ir.Constant(vector, ir.Undefined)
            everywhere = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
            if not whole:
                kinds = f"v{LANES}f32.p0v{LANES}f32"
                read = function(f"llvm.masked.load.{kinds}", vector, pointer, I32, flags, vector)
                write = function(f"llvm.masked.store.{kinds}", ir.VoidType(), vector, pointer, I32, flags)
                numbers = ir.VectorType(I32, LANES)
                count = builder.insert_element(numbers(ir.Undefined), builder.trunc(columns, I32), I32(0))
                count = builder.shuffle_vector(count, numbers(ir.Undefined), everywhere)
                present = builder.icmp_signed("<", ir.Constant(numbers, [*range(LANES)]), count)

            def at(address, step, count, kind):
                moved = builder.add(address, builder.mul(step, count))
                return builder.inttoptr(moved, kind.as_pointer())

            def load(place):
                return builder.load(place, align=4) if whole else builder.call(read, [place, alignment, present, zeros])

            def store(value, place):
                if whole:
                    builder.store(value, place, align=4)
                else:
                    builder.call(write, [value, place, alignment, present])

            sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(rows)]
            for total in sums:
                builder.store(zeros, total)
            with cgutils.for_range(builder, terms) as loop:
                row_of_b = load(at(b, b_step, loop.index, vector))
                column_of_a = builder.add(a, builder.mul(a_step, loop.index))
                for row, total in enumerate(sums):
                    entry = builder.load(at(column_of_a, a_row, integer(row), scalar), align=4)
                    lane = builder.insert_element(undefined, entry, I32(0))
                    spread = builder.shuffle_vector(lane, undefined, everywhere)
                    builder.store(builder.call(fused, [spread, row_of_b, builder.load(total)]), total)
            for row, total in enumerate(sums):
                store(builder.load(total), at(c, c_row, integer(row), vector))
            return context.get_dummy_value()

        return signature, generate

    return multiply_tile


tall_tile, flat_tile = tile_product(ROWS, True), tile_product(1, True)
tall_rest, flat_rest = tile_product(ROWS, False), tile_product(1, False)


@njit(nogil=True, **STRICT)
def multiply_in_vectors(room, x, x_row, x_step, y, z, rows, terms, columns):
    compile_once()
    prefer_wide_vectors()
    a, a_row, a_step, step = room + 4 * x, 4 * x_row, 4 * x_step, 4 * columns  # in bytes
    whole, tiled = columns - columns % LANES, rows - rows % ROWS
    for j in range(0, whole, LANES):
        b, c = room + 4 * (y + j), room + 4 * (z + j)
        for i in range(0, tiled, ROWS):
            tall_tile(a + i * a_row, a_row, a_step, b, step, c + i * step, step, terms, LANES)
        for i in range(tiled, rows):
            flat_tile(a + i * a_row, a_row, a_step, b, step, c + i * step, step, terms, LANES)
    if whole < columns:
        b, c, rest = room + 4 * (y + whole), room + 4 * (z + whole), columns - whole
        for i in range(0, tiled, ROWS):
            tall_rest(a + i * a_row, a_row, a_step, b, step, c + i * step, step, terms, rest)
        for i in range(tiled, rows):
            flat_rest(a + i * a_row, a_row, a_step, b, step, c + i * step, step, terms, rest)


@njit(**STRICT)
def add_products(entry, four, totals):
    return (
        fma(entry, four[0], totals[0]), fma(entry, four[1], totals[1]),
        fma(entry, four[2], totals[2]), fma(entry, four[3], totals[3]),
    )  # fmt: skip


@njit(**STRICT)
def multiply_in_lanes(room, x, x_row, x_step, y, z, rows, terms, columns):
    """Each thread of a block takes tiles of 4 × 4 entries.

    The rows of a tile are `down` apart and its columns `across`, so that neighbours read neighbouring columns. Where Z ends,
    tiles repeat its last row or column.
    """
    a, b, c = floats(room, x, rows * terms), floats(room, y, terms * columns), floats(room, z, rows * columns)
    last_row, last_column = rows - 1, columns - 1
    down, across = last_row // 4 + 1, last_column // 4 + 1
    for tile in mine(down * across):
        i0, j0 = tile // across, tile % across
        i1, i2, i3 = min(i0 + down, last_row), min(i0 + 2 * down, last_row), min(i0 + 3 * down, last_row)
        j1, j2, j3 = min(j0 + across, last_column), min(j0 + 2 * across, last_column), min(j0 + 3 * across, last_column)
        # without a sign, an index needs no look at what it means below 0
        a0, a1, a2, a3 = u64(i0 * x_row), u64(i1 * x_row), u64(i2 * x_row), u64(i3 * x_row)
        b0, b1, b2, b3 = u64(j0), u64(j1), u64(j2), u64(j3)
        a_step, b_step, end = u64(x_step), u64(columns), u64(terms * columns)
        row0 = row1 = row2 = row3 = (ZERO, ZERO, ZERO, ZERO)
        while b0 < end:
            four = b[b0], b[b1], b[b2], b[b3]
            row0 = add_products(a[a0], four, row0)
            row1 = add_products(a[a1], four, row1)
            row2 = add_products(a[a2], four, row2)
            row3 = add_products(a[a3], four, row3)
            a0, a1, a2, a3 = a0 + a_step, a1 + a_step, a2 + a_step, a3 + a_step
            b0, b1, b2, b3 = b0 + b_step, b1 + b_step, b2 + b_step, b3 + b_step
        store_row(c, i0 * columns, j0, j1, j2, j3, row0)
        store_row(c, i1 * columns, j0, j1, j2, j3, row1)
        store_row(c, i2 * columns, j0, j1, j2, j3, row2)
        store_row(c, i3 * columns, j0, j1, j2, j3, row3)
    together()


@njit(**STRICT)
def store_row(c, start, j0, j1, j2, j3, four):
    c[start + j0], c[start + j1], c[start + j2], c[start + j3] = four


@intrinsic
def multiply(typing_context, room, x, x_row, x_step, y, z, rows, terms, columns):
    """Z = X Y. `room` is an address, `y` and `z` say where in it these matrices begin.

    Entry (i, k) of X is at x + i x_row + k x_step.
    """

    def generate(context, builder, signature, arguments):
        function = in_lanes if on_gpu(context) else in_vectors
        return context.compile_internal(builder, function, signature, arguments)

    return types.none(*[types.int64] * 9), generate


def in_vectors(room, x, x_row, x_step, y, z, rows, terms, columns):
    multiply_in_vectors(room, x, x_row, x_step, y, z, rows, terms, columns)


def in_lanes(room, x, x_row, x_step, y, z, rows, terms, columns):
    multiply_in_lanes(room, x, x_row, x_step, y, z, rows, terms, columns)


@njit(nogil=True, **STRICT)
def times_matrix(room, x, y, z, rows, terms, columns):
    """Z = X Y."""
    compile_once()
    multiply(room, x, terms, 1, y, z, rows, terms, columns)


@njit(nogil=True, **STRICT)
def turned_times_matrix(room, x, y, z, rows, terms, columns):
    """Z = Xᵀ Y."""
    compile_once()
    multiply(room, x, 1, rows, y, z, rows, terms, columns)


@njit(nogil=True, **STRICT)
def turn(room, x, y, rows, columns):
    """Y = Xᵀ."""
    compile_once()
    given, turned = float_matrix(room, x, rows, columns), float_matrix(room, y, columns, rows)
    for i in rows_of_warp(rows):
        for j in columns_of_lane(columns):
            turned[j, i] = given[i, j]
    together()


@njit(nogil=True, **STRICT)
def multiply_in(room, rows, terms, columns):
    times_matrix(address(room), 0, rows * terms, rows * terms + terms * columns, rows, terms, columns)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A B in float32."""
    (rows, terms), columns = a.shape, b.shape[1]
    room = np.concatenate([a.ravel(), b.ravel(), np.empty(rows * columns, np.float32)], dtype=np.float32)
    multiply_in(room, rows, terms, columns)
    return room[rows * terms + terms * columns :].reshape(rows, columns)
