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

from vgp_kernels.arithmetic import STRICT, ZERO, fma
from vgp_kernels.lanes import (
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


def tile_product(rows: int):
    """The product for a tile of `rows` × LANES entries of C, whose partial sums stay in registers.

    Its arguments are addresses, steps in bytes and the number of terms.
    """
    signature = types.void(*[types.int64] * 8)

    @intrinsic
    def multiply_tile(typing_context, a, a_row, a_step, b, b_step, c, c_row, terms):
        def generate(context, builder, _, arguments):
            a, a_row, a_step, b, b_step, c, c_row, terms = arguments
            scalar, integer = ir.FloatType(), ir.IntType(64)
            vector = ir.VectorType(scalar, LANES)
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
            )
            undefined = ir.Constant(vector, ir.Undefined)
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

            def at(address, step, count, kind):
                moved = builder.add(address, builder.mul(step, count))
                return builder.inttoptr(moved, kind.as_pointer())

            sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES)) for _ in range(rows)]
            for total in sums:
                builder.store(ir.Constant(vector, [0.0] * LANES), total)
            with cgutils.for_range(builder, terms) as loop:
                row_of_b = builder.load(at(b, b_step, loop.index, vector), align=4)
                column_of_a = builder.add(a, builder.mul(a_step, loop.index))
                for row, total in enumerate(sums):
                    entry = builder.load(at(column_of_a, a_row, ir.Constant(integer, row), scalar), align=4)
                    lane = builder.insert_element(undefined, entry, ir.Constant(ir.IntType(32), 0))
                    spread = builder.shuffle_vector(lane, undefined, everywhere)
                    builder.store(builder.call(fused, [spread, row_of_b, builder.load(total)]), total)
            for row, total in enumerate(sums):
                builder.store(builder.load(total), at(c, c_row, ir.Constant(integer, row), vector), align=4)
            return context.get_dummy_value()

        return signature, generate

    return multiply_tile


tall_tile, flat_tile = tile_product(ROWS), tile_product(1)


@njit(nogil=True, **STRICT)
def multiply_in_vectors(room, x, x_row, x_step, y, z, rows, terms, columns):
    compile_once()
    whole = columns - columns % LANES
    at_a, at_b, at_c, row = room + 4 * x, room + 4 * y, room + 4 * z, 4 * columns
    multiply_whole(at_a, 4 * x_row, 4 * x_step, at_b, row, at_c, row, rows, terms, whole)
    if whole < columns:
        b, c = float_matrix(room, y, terms, columns), float_matrix(room, z, rows, columns)
        last_b, last_c = np.zeros((terms, LANES), np.float32), np.empty((rows, LANES), np.float32)
        for k in range(terms):
            for j in range(columns - whole):
                last_b[k, j] = b[k, whole + j]
        at_b, at_c, row = address(last_b), address(last_c), 4 * LANES
        multiply_whole(at_a, 4 * x_row, 4 * x_step, at_b, row, at_c, row, rows, terms, LANES)
        for i in range(rows):
            for j in range(columns - whole):
                c[i, whole + j] = last_c[i, j]


@njit(nogil=True, **STRICT)
def multiply_whole(at_a, a_row, a_step, at_b, b_step, at_c, c_row, rows, terms, columns):
    """The first columns of C = A B, a multiple of LANES, from addresses and steps in bytes."""
    compile_once()
    prefer_wide_vectors()
    tiled = rows - rows % ROWS
    for j in range(0, columns, LANES):
        for i in range(0, tiled, ROWS):
            tall_tile(at_a + i * a_row, a_row, a_step, at_b + 4 * j, b_step, at_c + i * c_row + 4 * j, c_row, terms)
        for i in range(tiled, rows):
            flat_tile(at_a + i * a_row, a_row, a_step, at_b + 4 * j, b_step, at_c + i * c_row + 4 * j, c_row, terms)


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
