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

from vgp_kernels.arithmetic import STRICT
from vgp_kernels.lanes import compile_once, prefer_wide_vectors

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
def multiply(a, b, c):
    """C = A B; A may be a transposed view."""
    compile_once()
    whole = c.shape[1] - c.shape[1] % LANES
    multiply_whole(a, b, c, whole)
    if whole < c.shape[1]:
        rest = c.shape[1] - whole
        last_b, last_c = np.zeros((b.shape[0], LANES), np.float32), np.empty((c.shape[0], LANES), np.float32)
        for k in range(b.shape[0]):
            for j in range(rest):
                last_b[k, j] = b[k, whole + j]
        multiply_whole(a, last_b, last_c, LANES)
        for i in range(c.shape[0]):
            for j in range(rest):
                c[i, whole + j] = last_c[i, j]


@njit(nogil=True, **STRICT)
def multiply_whole(a, b, c, columns):
    """The first columns of C = A B, a multiple of LANES."""
    compile_once()
    prefer_wide_vectors()
    rows, terms = c.shape[0], b.shape[0]
    at_a, at_b, at_c = a.ctypes.data, b.ctypes.data, c.ctypes.data
    a_row, a_step, b_step, c_row = a.strides[0], a.strides[1], b.strides[0], c.strides[0]
    tiled = rows - rows % ROWS
    for j in range(0, columns, LANES):
        for i in range(0, tiled, ROWS):
            tall_tile(at_a + i * a_row, a_row, a_step, at_b + 4 * j, b_step, at_c + i * c_row + 4 * j, c_row, terms)
        for i in range(tiled, rows):
            flat_tile(at_a + i * a_row, a_row, a_step, at_b + 4 * j, b_step, at_c + i * c_row + 4 * j, c_row, terms)


@njit(nogil=True, **STRICT)
def transpose(a, b):
    """B = Aᵀ."""
    compile_once()
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            b[j, i] = a[i, j]


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A B in float32."""
    c = np.empty((a.shape[0], b.shape[1]), np.float32)
    multiply(a, b, c)
    return c
