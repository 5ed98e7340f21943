"""The WebAssembly target: the CPU's own functions, compiled for a reader's browser with Numba and llvmlite alone.

    python -m vgp_kernels.wasm kernels.wasm

`module()` gives the bytes, the same on every machine. What a page calls is in ENTRIES; pointers are offsets into the
memory that the page supplies. Arrays that a kernel makes are laid one after another from where `room` points to, and are
gone with the next call; an error ends in a trap.

WebAssembly has no multiply-add that is sure to be rounded once, so that one is made of plain operations here: Boldo &
Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd". Relaxed SIMD has
one that may be rounded once or twice, as the machine likes. `fused(module)` tells a page how to put it in the place of
calls of ours; a page does so where it finds it rounded once, and has the same bits several times as fast.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from vgp_kernels.activations import ACTIVATIONS, DENSITY_AT_0, INLINED, ROOT_HALF, value_and_slope
from vgp_kernels.batch import kernels as batch
from vgp_kernels.numerics.arithmetic import (
    MAKING_ARRAYS,
    STRICT,
    ZERO,
    bits_from_double,
    bits_from_float,
    double_from_bits,
    exp_of_minus_square,
    f32,
    f64,
    float_from_bits,
)
from vgp_kernels.numerics.lanes import compile_once
from vgp_kernels.plain import kernels as cpu
from vgp_kernels.plain.recursion import SUMS

TRIPLE = "wasm32-unknown-unknown"
FEATURES = "+bulk-memory,+bulk-memory-opt,+mutable-globals,+nontrapping-fptoint,+sign-ext,+simd128"
# What a page supplies. The stack grows down from __stack_pointer; memory below the caller's first buffer is the module's.
SUPPLIED = {"__linear_memory", "__stack_pointer"}
# Loops become LANES wide without changing the order of a sum; calls in them, those of FOR_VECTORISER.
VECTORISER = (
    "-force-vector-width=4", "-force-vector-interleave=1", "-hints-allow-reordering=false", "-unroll-runtime=false"
)  # fmt: skip
WIDE = {"fma32": "vvv", "activation_by_number": "uv"}  # v: one value for each lane; u: one for all
EMULATED = ("fma32", "fma64_emulated")
FOR_VECTORISER = [*WIDE, *(f"{name}x4" for name in WIDE)]
# Before Numba is imported: it must neither optimise for this machine nor call Intel's library of vector functions.
ENVIRONMENT = {"NUMBA_OPT": "0", "NUMBA_DISABLE_INTEL_SVML": "1", "NUMBA_DEBUGINFO": "0"}

LANES = 4  # float32 lanes of WebAssembly's vectors


# The fused multiply-add

u64 = np.uint64
MAGNITUDE = u64(0x7FFFFFFFFFFFFFFF)
BELOW_FLOAT32, HALFWAY = (
    u64(0x1FFFFFFF),
    u64(0x10000000),
)  # of a float64: the bits that float32 lacks, and half of its last
SMALLEST_NORMAL = u64((1023 - 126) << 52)  # of float32, as a float64
SPLITTER = f64(2**27 + 1)
JUST_BELOW_1, JUST_ABOVE_1 = f64(1 - 2.0**-51), f64(1 + 2.0**-51)


@njit(inline="always", **STRICT)
def two_sum(a, b):
    """(s, e): s = a + b rounded, and a + b = s + e exactly."""
    total = a + b
    b_in_it = total - a
    return total, (a - (total - b_in_it)) + (b - b_in_it)


@njit(inline="always", **STRICT)
def two_product(a, b):
    """(p, e): p = a·b rounded, and a·b = p + e exactly, where nothing overflows or underflows."""
    product = a * b
    a_high = a * SPLITTER - (a * SPLITTER - a)
    b_high = b * SPLITTER - (b * SPLITTER - b)
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@njit(inline="always", **STRICT)
def sum_rounded_to_odd(a, b):
    """a + b in float64; if it is not exact, the one of its two neighbours whose last bit is 1."""
    total, error = two_sum(a, b)
    bits = bits_from_double(total)
    if error == 0.0 or not abs(total) < np.inf or bits & u64(1):
        return total
    # the rounded sum is even: the neighbour on the side of the exact one is odd
    return double_from_bits(u64(bits + u64(1) if (error > 0.0) == (total > 0.0) else bits - u64(1)))


@njit(**STRICT)
def fma32_hard(product, c):
    compile_once()
    return f32(sum_rounded_to_odd(product, c))


@njit(**STRICT)
def fma32(a, b, c):
    """a·b + c in float32, rounded once. The product is exact in float64, and so is the choice of the nearest float32
    unless the sum, rounded to float64, lies halfway between two of them or below float32's normal range."""
    product = f64(a) * f64(b)
    total = product + f64(c)
    bits = bits_from_double(total)
    if (bits & BELOW_FLOAT32) == HALFWAY or (bits & MAGNITUDE) < SMALLEST_NORMAL:
        return fma32_hard(product, f64(c))
    return f32(total)


@njit(**STRICT)
def fma64_hard(product, product_error, c):
    compile_once()
    low, low_error = two_sum(c, product_error)
    high, high_error = two_sum(product, low)
    return high + sum_rounded_to_odd(low_error, high_error)


@njit(**STRICT)
def fma64_emulated(a, b, c):
    """a·b + c in float64, rounded once, for 2^-900 < |a·b| < 2^900 or a·b = 0, and |c| as far from the ends."""
    product, product_error = two_product(a, b)
    total, error = two_sum(product, c)
    # a·b + c = total + rest exactly but for the rounding of the rest; where that does not matter, these two are equal
    rest = error + product_error
    nearest, other = total + rest * JUST_BELOW_1, total + rest * JUST_ABOVE_1
    return nearest if nearest == other else fma64_hard(product, product_error, c)


# Activations by number

SHRINKS = np.array([phi.vanishes_at_zero for phi in ACTIVATIONS.values()])
GROWS = np.array([not phi.is_bounded for phi in ACTIVATIONS.values()])


@njit(inline="always", **STRICT)
def packed(value, slope):
    return u64(u64(bits_from_float(value)) | u64(u64(bits_from_float(slope)) << u64(32)))


def numbered(kernels):
    """(number, z, out): out ← the packed value and slope of kernels[number] at LANES points, as one function."""
    if not kernels:
        return njit(**STRICT)(lambda number, z, out: None)
    kernel, *others = kernels
    rest = numbered(others)

    @njit(**STRICT)
    def choose(number, z, out):
        if number == 0:
            for lane in range(LANES):
                value, slope = kernel(z[lane])
                out[lane] = packed(value, slope)
        else:
            rest(number - 1, z, out)

    return choose


activations = numbered([phi.kernel for phi in ACTIVATIONS.values()])


def activation_in_lanes(number, z, out):
    activations(number, carray(z, LANES), carray(out, LANES))


@intrinsic
def activation_by_number(typing_context, number, z):
    """The packed value and slope of an activation: a call that loops are free to make for LANES points at once."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64), ir.FloatType()])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "activation_by_number"), arguments)

    return types.uint64(types.int64, types.float32), generate


@overload(value_and_slope, jit_options=INLINED)
def resolve_by_number(name, z):
    """`value_and_slope` for a number instead of a literal name: one compiled function serves all activations."""
    if not isinstance(name, types.Integer):
        raise TypingError("the activation must be a literal name or a number")

    def both(name, z):
        bits = activation_by_number(np.int64(name), z)
        return float_from_bits(np.uint32(bits)), float_from_bits(np.uint32(bits >> u64(32)))

    return both


# Entries

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
EDGE = 7.5  # the normal density beyond is below 3e-13


@intrinsic
def use_room(typing_context, start):
    """Lay the arrays that are made from now on one after another from here."""

    def generate(context, builder, signature, arguments):
        function_type = ir.FunctionType(ir.VoidType(), [arguments[0].type])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "use_room"), arguments)
        return context.get_dummy_value()

    return types.none(start), generate


@njit(**STRICT)
def sum_layer(activation, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums):
    if bias_scale[0] != ZERO:  # two loops, either of which vectorises
        cpu.add_up_layer(
            activation, True, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums
        )
    else:
        cpu.add_up_layer(
            activation, False, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums
        )


def propagate(
    activation, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms, orthogonal,
    seed_low, seed_high, first_trial, out, room,
):  # fmt: skip
    """LANES plain networks, forward and back: what `vgp_kernels.propagate` gives for these trials, to the bit.

    `out`: ln RMS h (depth + 1), ln |∂E/∂h| (depth + 1) and ln |∂E/∂W| (depth), one after the other, each of LANES numbers.
    """
    use_room(room)
    layers = depth + 1
    results = carray(out, (2 * layers + depth, LANES))
    single = np.empty((SUMS + 2, LANES), np.float32)
    single[:] = ZERO  # no bias of its own, unless take_block finds one
    cpu.take_block(
        sum_layer, activation, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms,
        orthogonal != 0, SHRINKS[activation], GROWS[activation], seed_low, seed_high, first_trial, LANES,
        results[:layers], results[layers : 2 * layers], results[2 * layers :], np.empty((layers, SUMS, LANES)),
        np.empty((3, layers, LANES)), np.empty((layers, LANES), np.int64), single, np.empty((5, LANES)), None,
    )  # fmt: skip


@njit(**STRICT)
def activate(activation, u, n, factors, slope):
    batch.apply_activation(activation, u, n, factors, slope)


def propagate_blocks(
    activation, depth, width, input_width, batch_size, first, second, residual, norm, norm_place, orthogonal, first_scale,
    scale, bias_scale, residual_scale, input_rms, input_correlation, seed_low, seed_high, trial, out, room,
):  # fmt: skip
    """One network with norms, skips or several inputs (`batch.Block`), to the bit.

    `out`: ln RMS h (depth + 1), ln |∂E/∂h| (depth + 1), the mean cosines of h (depth + 1) and of ∂E/∂h (depth + 1), and
    ln |∂E/∂W| (depth, or twice as many), one after the other.
    """
    use_room(room)
    layers, weights = np.int64(depth) + 1, np.int64(2 if first and second else 1)
    block = batch.Block(
        np.int64(activation), np.int64(depth), np.int64(width), np.int64(input_width), np.int64(batch_size),
        first != 0, second != 0, residual != 0, np.int64(norm), np.int64(norm_place), orthogonal != 0, first_scale, scale,
        bias_scale, residual_scale, input_rms, input_correlation, False, SHRINKS[activation], GROWS[activation],
    )  # fmt: skip
    curves, of_weights = carray(out, (4, 1, layers)), carray(out, (4 * layers + weights * depth,))[4 * layers :]
    batch.take_networks(
        activate, block, block.depth, seed_low, seed_high, trial, batch.room_of(batch.shapes(block, block.depth)),
        curves[0], curves[1], np.expand_dims(of_weights, 0), curves[2], curves[3], None,
    )  # fmt: skip


def moments(activation, root, out, room):
    """E φ², E φ′², E φφ′Z and E φ at √q Z, Z ~ N(0, 1), for root = √q: composite Gauss-Legendre quadrature.

    The panels are at most 1 long, shrink towards 0 like 1/√q, and meet at the kinks, which are 0 and ±1.
    """
    use_room(room)
    sums, terms = carray(out, 4), np.empty((4, NODES.size))
    sums[:] = 0.0
    for positive in range(2):
        side = 1.0 if positive else -1.0
        start, mark = 0.0, 0.5 / max(root, 1e-3)
        while start < EDGE:
            while mark <= start:
                mark *= 2.0
            end = min(min(mark, start + 1.0), EDGE)
            middle, half = 0.5 * (start + end), 0.5 * (end - start)
            for node in range(NODES.size):
                z = side * (middle + half * NODES[node])
                phi, phi_slope = value_and_slope(activation, f32(root * z))
                value, slope = f64(phi), f64(phi_slope)
                weight = half * WEIGHTS[node] * f64(DENSITY_AT_0 * exp_of_minus_square(ROOT_HALF * f32(z)))
                terms[0, node], terms[1, node] = weight * value * value, weight * slope * slope
                terms[2, node], terms[3, node] = weight * value * slope * z, weight * value
            for row in range(4):
                for node in range(NODES.size):
                    sums[row] += terms[row, node]
            start = end


def value_and_slope_at(activation, z, out):
    """φ(z) and φ′(z)."""
    both = carray(out, 2)
    both[0], both[1] = value_and_slope(activation, f32(z))


INT, WORD, DOUBLE, DOUBLES = types.int32, types.uint32, types.float64, types.CPointer(types.float64)

ENTRIES = {
    "propagate": (propagate, types.void(
        INT, INT, INT, INT, DOUBLE, DOUBLE, DOUBLE, DOUBLE, INT, WORD, WORD, WORD, DOUBLES, DOUBLES)),
    "propagate_blocks": (propagate_blocks, types.void(
        *[INT] * 11, *[DOUBLE] * 6, WORD, WORD, WORD, DOUBLES, DOUBLES)),
    "moments": (moments, types.void(INT, DOUBLE, DOUBLES, DOUBLES)),
    "value_and_slope": (value_and_slope_at, types.void(INT, DOUBLE, DOUBLES)),
}  # fmt: skip


# Compiling


def module() -> bytes:
    """The WebAssembly module, compiled in a process of its own, whose Numba is set up for it.

    Raises RuntimeError with the compiler's words, or with the symbols that a page cannot supply.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.wasm"
        # what is compiled without optimisation must not reach the CPU's cache
        environment = os.environ | ENVIRONMENT | {"NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-m", "vgp_kernels.wasm", str(path)]
        done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile to WebAssembly:\n{done.stderr}")
        return path.read_bytes()


def compiled(entries) -> bytes:
    """The module of these entries, {name: (function, signature)}; for a process set up as ENVIRONMENT says."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for name in ("use_room", "activation_by_number"):
        llvm.add_symbol(name, 1)  # Numba links what it compiles; nothing is run here
    for option in VECTORISER:
        llvm.set_option("", option)
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu="generic", features=FEATURES, opt=3, reloc="static", codemodel="default"
    )
    whole = llvm.parse_assembly("")
    whole.triple, whole.data_layout = TRIPLE, str(machine.target_data)

    def link(text):
        part = llvm.parse_assembly(text)
        part.triple, part.data_layout = whole.triple, whole.data_layout
        whole.link_in(part)

    single, double = types.float32, types.float64
    singles, longs = types.CPointer(single), types.CPointer(types.uint64)
    parts = entries | {
        "fma32": (fma32, single(single, single, single)),
        "fma64_emulated": (fma64_emulated, double(double, double, double)),
        "activation_in_lanes": (activation_in_lanes, types.void(types.int64, singles, longs)),
    }
    for text in [*(translated(name, *entry) for name, entry in parts.items()), SUPPORT, VECTORS]:
        link(text)
    ours = [value for value in [*whole.functions, *whole.global_variables] if not value.is_declaration]
    for value in ours:
        if value.name not in {*entries, *EMULATED, *FOR_VECTORISER} and not value.name.startswith("llvm."):
            value.linkage = "internal"
    for name in EMULATED:
        whole.get_function(name).add_function_attribute("noinline")
    whole.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(whole, passes)
    whole = llvm.parse_assembly(re.sub(r"(?m)^@llvm\.compiler\.used = .*\n", "", str(whole)))
    link(CALLED_AS_VECTORS)
    for name in {*EMULATED, *FOR_VECTORISER} - set(FUSED):
        whole.get_function(name).linkage = "internal"
    return with_exports(machine.emit_object(whole), [*entries, *FUSED, "one_fma32", "one_fma64"])


def translated(name, function, signature) -> str:
    """One C function in LLVM's language, fit for WebAssembly, with fused multiply-adds by name.

    The entries make their arrays themselves: of the room that a page gives, nothing is freed but all at once.
    """
    compiled_here = cfunc(signature, **MAKING_ARRAYS)(
        function if not hasattr(function, "py_func") else function.py_func
    )
    text = compiled_here.inspect_llvm().replace(compiled_here.native_name, name)
    text = re.sub(r"(?m)^target (datalayout|triple) = .*\n", "", text)
    text = re.sub(r"(?m)^\s*call void @NRT_(inc|dec)ref\(.*\n", "", text)  # nothing is freed but all at once
    text = re.sub(r"(?m)( call .*\)) #\d+$", r"\1", text)  # Numba keeps what a C function calls apart
    text = re.sub(r"@llvm\.fma\.f(32|64)\(", r"@fma\1(", text)
    for wide, arguments in WIDE.items():
        variant = f'"vector-function-abi-variant"="_ZGV_LLVM_N{LANES}{arguments}_{wide}({wide}x{LANES})"'
        text = re.sub(rf"( call \w+ @{wide}\(.*\))", rf"\1 {variant}", text)
    text = text.replace("@llvm.smul.with.overflow.i64(", "@product_of_sizes(")
    return text.replace("@sqrtf(", "@llvm.sqrt.f32(").replace("@sqrt(", "@llvm.sqrt.f64(")  # instructions, not calls


# What the vectoriser calls for LANES numbers at once. The scalar activation is one lane of it.
VECTORS = """
declare void @activation_in_lanes(i64, ptr, ptr)
declare float @fma32(float, float, float)
declare <4 x float> @fma32x4(<4 x float>, <4 x float>, <4 x float>) nounwind willreturn memory(none)
declare <2 x double> @fma64x2(<2 x double>, <2 x double>, <2 x double>) nounwind willreturn memory(none)
@llvm.compiler.used = appending global [1 x ptr] [ptr @fma32x4], section "llvm.metadata"

define double @fma64(double %a, double %b, double %c) alwaysinline nounwind willreturn memory(none) {
  %two_a = insertelement <2 x double> poison, double %a, i32 0
  %two_b = insertelement <2 x double> poison, double %b, i32 0
  %two_c = insertelement <2 x double> poison, double %c, i32 0
  %out = call <2 x double> @fma64x2(<2 x double> %two_a, <2 x double> %two_b, <2 x double> %two_c)
  %one = extractelement <2 x double> %out, i32 0
  ret double %one
}

define <4 x i64> @activation_by_numberx4(i64 %number, <4 x float> %z) noinline nounwind {
  %from = alloca <4 x float>
  %to = alloca <4 x i64>
  store <4 x float> %z, ptr %from
  call void @activation_in_lanes(i64 %number, ptr %from, ptr %to)
  %out = load <4 x i64>, ptr %to
  ret <4 x i64> %out
}

define i64 @activation_by_number(i64 %number, float %z) noinline nounwind willreturn memory(none) {
  %four = insertelement <4 x float> zeroinitializer, float %z, i32 0
  %out = call <4 x i64> @activation_by_numberx4(i64 %number, <4 x float> %four)
  %one = extractelement <4 x i64> %out, i32 0
  ret i64 %one
}
"""


def one_lane(kind: str, bits: str, lanes: int) -> str:
    """one_fma{bits}, for a page to see how the vectors' multiply-add is rounded."""
    vector = f"<{lanes} x {kind}>"
    operands = [f"  %wide_{x} = insertelement {vector} zeroinitializer, {kind} %{x}, i32 0" for x in "abc"]
    return "\n".join(
        [
            f"define {kind} @one_fma{bits}({kind} %a, {kind} %b, {kind} %c) nounwind {{",
            *operands,
            f"  %out = call {vector} @fma{bits}x{lanes}({vector} %wide_a, {vector} %wide_b, {vector} %wide_c)",
            f"  %one = extractelement {vector} %out, i32 0",
            f"  ret {kind} %one",
            "}",
        ]
    )


ONE_BY_ONE = "\n".join(
    f"""
  %a{i} = extractelement <4 x float> %a, i32 {i}
  %b{i} = extractelement <4 x float> %b, i32 {i}
  %c{i} = extractelement <4 x float> %c, i32 {i}
  %exact{i} = call float @fma32(float %a{i}, float %b{i}, float %c{i})
  %to{i} = insertelement <4 x float> {f"%to{i - 1}" if i else "poison"}, float %exact{i}, i32 {i}"""
    for i in range(LANES)
)

# Multiply-adds of vectors: `fma32` for four, one by one where one of them is hard; in float64, of the first lane alone.
# They are linked last: LLVM finds f32x4.demote_f64x2_zero only where its optimiser has not been, and they keep their shape.
CALLED_AS_VECTORS = f"""
declare float @fma32(float, float, float)
declare double @fma64_emulated(double, double, double)
declare <4 x float> @llvm.fabs.v4f32(<4 x float>)
declare i1 @llvm.vector.reduce.or.v4i1(<4 x i1>)
declare <16 x i8> @llvm.wasm.shuffle(<16 x i8>, <16 x i8>, {", ".join(["i32"] * 16)})

define <4 x float> @fma32x4(<4 x float> %a, <4 x float> %b, <4 x float> %c) nounwind {{
  %wide_a = fpext <4 x float> %a to <4 x double>
  %wide_b = fpext <4 x float> %b to <4 x double>
  %wide_c = fpext <4 x float> %c to <4 x double>
  %product = fmul <4 x double> %wide_a, %wide_b
  %total = fadd <4 x double> %product, %wide_c
  %left = shufflevector <4 x double> %total, <4 x double> poison, <2 x i32> <i32 0, i32 1>
  %right = shufflevector <4 x double> %total, <4 x double> poison, <2 x i32> <i32 2, i32 3>
  %left_two = fptrunc <2 x double> %left to <2 x float>
  %right_two = fptrunc <2 x double> %right to <2 x float>
  %left_four = shufflevector <2 x float> %left_two, <2 x float> zeroinitializer, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %right_four = shufflevector <2 x float> %right_two, <2 x float> zeroinitializer, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %left_bytes = bitcast <4 x float> %left_four to <16 x i8>
  %right_bytes = bitcast <4 x float> %right_four to <16 x i8>
  %bytes = call <16 x i8> @llvm.wasm.shuffle(<16 x i8> %left_bytes, <16 x i8> %right_bytes,
    {", ".join(f"i32 {i}" for i in (*range(8), *range(16, 24)))})
  %rounded = bitcast <16 x i8> %bytes to <4 x float>
  %bits = bitcast <4 x double> %total to <4 x i64>
  %low = trunc <4 x i64> %bits to <4 x i32>
  %below = and <4 x i32> %low, splat (i32 {BELOW_FLOAT32})
  %halfway = icmp eq <4 x i32> %below, splat (i32 {HALFWAY})
  %size = call <4 x float> @llvm.fabs.v4f32(<4 x float> %rounded)
  %tiny = fcmp ole <4 x float> %size, splat (float {SMALLEST_NORMAL:#x})
  %hard = or <4 x i1> %halfway, %tiny
  %any = call i1 @llvm.vector.reduce.or.v4i1(<4 x i1> %hard)
  br i1 %any, label %one_by_one, label %easy
easy:
  ret <4 x float> %rounded
one_by_one:
{ONE_BY_ONE}
  ret <4 x float> %to3
}}

define <2 x double> @fma64x2(<2 x double> %a, <2 x double> %b, <2 x double> %c) nounwind {{
  %one_a = extractelement <2 x double> %a, i32 0
  %one_b = extractelement <2 x double> %b, i32 0
  %one_c = extractelement <2 x double> %c, i32 0
  %exact = call double @fma64_emulated(double %one_a, double %one_b, double %one_c)
  %out = insertelement <2 x double> zeroinitializer, double %exact, i32 0
  ret <2 x double> %out
}}
{one_lane("float", "32", LANES)}
{one_lane("double", "64", 2)}
"""

# What Numba's arrays and errors need. An array is 32 bytes of head, whose fourth field is where its data are, and these.
SUPPORT = """
@heap = internal global i32 0
declare i32 @llvm.wasm.memory.size.i32(i32)
declare i32 @llvm.wasm.memory.grow.i32(i32, i32)
declare void @llvm.trap()

define void @use_room(ptr %start) {
  %address = ptrtoint ptr %start to i32
  store i32 %address, ptr @heap
  ret void
}

define nonnull ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) noinline {
  %start = load i32, ptr @heap
  %bytes = trunc i64 %size to i32
  %with_head = add i32 %bytes, 63
  %beyond = add i32 %start, %with_head
  %end = and i32 %beyond, -32
  store i32 %end, ptr @heap
  %there = call i32 @llvm.wasm.memory.size.i32(i32 0)
  %last = lshr i32 %end, 16
  %fits = icmp ult i32 %last, %there
  br i1 %fits, label %done, label %grow
grow:
  %missing = sub i32 %last, %there
  %more = add i32 %missing, 16
  %before = call i32 @llvm.wasm.memory.grow.i32(i32 0, i32 %more)
  %failed = icmp eq i32 %before, -1
  br i1 %failed, label %fail, label %done
fail:
  call void @llvm.trap()
  unreachable
done:
  %head = inttoptr i32 %start to ptr
  %data = getelementptr i8, ptr %head, i32 32
  %field = getelementptr { i64, ptr, ptr, ptr, i64 }, ptr %head, i32 0, i32 3
  store ptr %data, ptr %field
  ret ptr %head
}

define { i64, i1 } @product_of_sizes(i64 %a, i64 %b) {
  %ab = mul i64 %a, %b
  %pair = insertvalue { i64, i1 } zeroinitializer, i64 %ab, 0
  ret { i64, i1 } %pair
}

define void @numba_gil_ensure(ptr %state) noreturn {
  call void @llvm.trap()
  unreachable
}
"""


# LLVM's object file is a module but for its exports (WebAssembly core specification, 5.5; tool-conventions, Linking)

IMPORT, EXPORT, CUSTOM = 2, 7, 0


def with_exports(object_file: bytes, exported: list[str]) -> bytes:
    """The object file as a module: exports added, what only linkers read left out.

    Raises RuntimeError with the names of imports that a page cannot supply.
    """
    parts = list(sections(object_file))
    imported = [name for kind, body in parts if kind == IMPORT for name in imports(body)]
    if missing := sorted(set(imported) - SUPPLIED):
        raise RuntimeError(f"kernels need what a page cannot supply: {', '.join(missing)}")
    index = next(functions(body) for kind, body in parts if kind == CUSTOM and body.startswith(vector(b"linking")))
    entries = [vector(name.encode()) + b"\0" + unsigned(index[name]) for name in exported]
    parts = [part for part in parts if part[0] != CUSTOM]
    parts.append((EXPORT, unsigned(len(entries)) + b"".join(entries)))
    parts.sort(key=lambda part: ORDER.index(part[0]))
    return object_file[:8] + b"".join(bytes([kind]) + vector(body) for kind, body in parts)


ORDER = [1, IMPORT, 3, 4, 5, 13, 6, EXPORT, 8, 9, 12, 10, 11]  # the sections, as a module has them


def unsigned(number: int) -> bytes:
    """LEB128."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + unsigned(number >> 7)


def vector(content: bytes) -> bytes:
    """The content after its length."""
    return unsigned(len(content)) + content


class Reader:
    """Reads numbers and vectors from bytes, in order."""

    def __init__(self, content: bytes):
        self.content, self.position = content, 0

    def byte(self) -> int:
        self.position += 1
        return self.content[self.position - 1]

    def unsigned(self) -> int:
        low = self.byte()
        return low if low < 128 else low & 127 | self.unsigned() << 7

    def vector(self) -> bytes:
        start = self.unsigned() + self.position
        start, self.position = self.position, start
        return self.content[start : self.position]


def sections(file: bytes, start: int = 8) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each section of a module or object file, or of each subsection from `start` on."""
    reader = Reader(file[start:])
    while reader.position < len(reader.content):
        yield reader.byte(), reader.vector()


def imports(section: bytes) -> Iterator[str]:
    """The names in an import section."""
    reader = Reader(section)
    for _ in range(reader.unsigned()):
        reader.vector()  # "env"
        name, kind = reader.vector().decode(), reader.byte()
        if kind == 0:  # function: its type
            reader.unsigned()
        elif kind == 3:  # global: type, mutability
            reader.byte()
            reader.byte()
        else:  # table (1) or memory (2): limits
            if kind == 1:
                reader.byte()
            for _ in range(1 + (reader.unsigned() & 1)):
                reader.unsigned()
        yield name


def functions(linking: bytes) -> dict[str, int]:
    """{name: number} of the functions defined in an object file, from the symbol table in its linking section."""
    version_at = len(vector(b"linking"))
    if linking[version_at] != 2:
        raise RuntimeError(f"the object file's linking section has version {linking[version_at]}, not 2")
    reader = Reader(next(body for kind, body in sections(linking, version_at + 1) if kind == 8))
    found = {}
    for _ in range(reader.unsigned()):
        kind, flags = reader.byte(), reader.unsigned()
        undefined, named = flags & 0x10, flags & 0x40
        if kind == 1:  # data: name; segment, offset, size
            reader.vector()
            for _ in range(0 if undefined else 3):
                reader.unsigned()
        elif kind == 3:  # section
            reader.unsigned()
        else:  # function (0), global (2) or table: number, and its name unless the import gives it
            number = reader.unsigned()
            if named or not undefined:
                name = reader.vector().decode()
                if kind == 0 and not undefined:
                    found[name] = number
    return found


FUSED = {"fma32x4": "fd 85 02", "fma64x2": "fd 87 02"}  # relaxed_madd of f32x4 and f64x2, by what it takes the place of


def fused(module: bytes) -> list[tuple[bytes, bytes]]:
    """(old, new): what to replace wherever it stands, a call by an instruction and three that do nothing."""
    numbers = exports(next(content for kind, content in sections(module) if kind == EXPORT))
    call, nothing = b"\x10", b"\x01" * 3
    return [(call + padded(numbers[name]), bytes.fromhex(code) + nothing) for name, code in FUSED.items()]


def padded(number: int) -> bytes:
    """LEB128 of five bytes, as object files write the numbers of functions: so long a pattern is never there by chance."""
    return bytes(number >> shift & 127 | (128 if shift < 28 else 0) for shift in range(0, 35, 7))


def exports(section: bytes) -> dict[str, int]:
    """{name: number} of what an export section exports."""
    reader, found = Reader(section), {}
    for _ in range(reader.unsigned()):
        name, _kind = reader.vector().decode(), reader.byte()
        found[name] = reader.unsigned()
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(compiled(ENTRIES))
