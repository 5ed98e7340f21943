"""The WebAssembly target: the CPU's own functions, compiled for a reader's browser with Numba and llvmlite alone.

    python -m vgp_kernels.wasm kernels.wasm

`module()` gives the bytes, the same on every machine. What a page calls is in ENTRIES; pointers are offsets into the
memory that the page supplies, and `propagate` takes one network at a time.

WebAssembly has no fused multiply-add, so that one is made of plain operations here, correctly rounded: Boldo &
Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd".
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
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.core.errors import TypingError
from numba.extending import overload

from vgp_kernels import cpu
from vgp_kernels.activations import ACTIVATIONS, DENSITY_AT_0, INLINED, ROOT_HALF, value_and_slope
from vgp_kernels.arithmetic import (
    STRICT,
    ZERO,
    bits_from_double,
    double_from_bits,
    exp_of_minus_square,
    f32,
    f64,
)
from vgp_kernels.recursion import SUMS

TRIPLE = "wasm32-unknown-unknown"
FEATURES = "+bulk-memory,+bulk-memory-opt,+mutable-globals,+nontrapping-fptoint,+sign-ext"
# What a page supplies. The stack grows down from __stack_pointer; memory below the caller's first buffer is the module's.
SUPPLIED = {"__linear_memory", "__stack_pointer"}
# Before Numba is imported: it must neither optimise for this machine nor call Intel's library of vector functions.
ENVIRONMENT = {"NUMBA_OPT": "0", "NUMBA_DISABLE_INTEL_SVML": "1", "NUMBA_DEBUGINFO": "0"}


# The fused multiply-add

u64 = np.uint64
MAGNITUDE = u64(0x7FFFFFFFFFFFFFFF)
BELOW_FLOAT32, HALFWAY = (
    u64(0x1FFFFFFF),
    u64(0x10000000),
)  # of a float64: the bits that float32 lacks, and half of its last
SMALLEST_NORMAL = u64((1023 - 126) << 52)  # of float32, as a float64
SPLITTER = f64(2**27 + 1)


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


@njit(inline="never", **STRICT)
def fma32_hard(product, c):
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
def fma64(a, b, c):
    """a·b + c in float64, rounded once, for 2^-900 < |a·b| < 2^900 or a·b = 0, and |c| as far from the ends."""
    product, product_error = two_product(a, b)
    low, low_error = two_sum(c, product_error)
    high, high_error = two_sum(product, low)
    return high + sum_rounded_to_odd(low_error, high_error)


# Activations by number

NAMES = tuple(ACTIVATIONS)
SHRINKS = np.array([phi.vanishes_at_zero for phi in ACTIVATIONS.values()])
GROWS = np.array([not phi.is_bounded for phi in ACTIVATIONS.values()])


def numbered(kernels):
    """(number, z) → kernels[number](z), as one function."""
    kernel, *others = kernels
    if not others:
        return njit(**STRICT)(lambda number, z: kernel(z))
    rest = numbered(others)

    @njit(**STRICT)
    def choose(number, z):
        return kernel(z) if number == 0 else rest(number - 1, z)

    return choose


@overload(value_and_slope, jit_options=INLINED)
def resolve_by_number(name, z):
    """`value_and_slope` for a number instead of a literal name: one compiled function serves all activations."""
    if not isinstance(name, types.Integer):
        raise TypingError("the activation must be a literal name or a number")
    choose = numbered([phi.kernel for phi in ACTIVATIONS.values()])
    return lambda name, z: choose(name, z)


# Entries

NODES, WEIGHTS = (array[5:].copy() for array in np.polynomial.legendre.leggauss(10))  # by symmetry, one half
EDGE = 9.0  # the normal density beyond is below 2e-18


@njit(**STRICT)
def sum_layer(activation, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums):
    separate_bias = bias_scale[0] != ZERO
    cpu.add_up_layer(
        activation, separate_bias, width, scale, bias_scale, seed_low, seed_high, first_trial, layer, partial, sums
    )


def propagate(
    activation, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms, orthogonal,
    seed_low, seed_high, trial, out, room, integers, singles,
):  # fmt: skip
    """One network, forward and back: what `vgp_kernels.propagate` gives for this trial, to the bit.

    `out`: ln RMS h (depth + 1), ln |∂E/∂h| (depth + 1) and ln |∂E/∂W| (depth), one after the other. Room to work in:
    11(depth + 1) + 5 float64, depth + 1 int64, 10 float32.
    """
    layers = depth + 1
    results = carray(out, (2 * layers + depth, 1))
    sums = carray(room, (layers, SUMS, 1))
    flat = carray(room, (11 * layers + 5, 1))
    exponents, single = carray(integers, (layers, 1)), carray(singles, (SUMS + 2, 1))
    single[:] = ZERO  # no bias of its own, unless take_block finds one
    cpu.take_block(
        sum_layer, activation, depth, width, input_width, weight_variance, first_weight_variance, bias_variance, input_rms,
        orthogonal != 0, SHRINKS[activation], GROWS[activation], seed_low, seed_high, trial, 1,
        results[:layers], results[layers : 2 * layers], results[2 * layers :],
        sums, (flat[8 * layers : 9 * layers], flat[9 * layers : 10 * layers], flat[10 * layers : 11 * layers]),
        exponents, single, flat[11 * layers :],
    )  # fmt: skip


def moments(activation, root, out):
    """E φ², E φ′² and E φφ′Z at √q Z, Z ~ N(0, 1), for root = √q: composite Gauss-Legendre quadrature.

    The panels are at most 1 long, shrink towards 0 like 1/√q, and meet at the kinks, which are 0 and ±1.
    """
    sums = carray(out, 3)
    mean_square, mean_slope, growth = 0.0, 0.0, 0.0
    for positive in range(2):
        side = 1.0 if positive else -1.0
        start, mark = 0.0, 0.5 / max(root, 1e-3)
        while start < EDGE:
            while mark <= start:
                mark *= 2.0
            end = min(min(mark, start + 1.0), EDGE)
            middle, half = 0.5 * (start + end), 0.5 * (end - start)
            for node in range(2 * NODES.size):
                z = side * (middle + half * (NODES[node // 2] if node % 2 else -NODES[node // 2]))
                value, slope = value_and_slope(activation, f32(root * z))
                weight = half * WEIGHTS[node // 2] * f64(DENSITY_AT_0 * exp_of_minus_square(ROOT_HALF * f32(z)))
                mean_square += weight * f64(value) * f64(value)
                mean_slope += weight * f64(slope) * f64(slope)
                growth += weight * f64(value) * f64(slope) * z
            start = end
    sums[0], sums[1], sums[2] = mean_square, mean_slope, growth


def value_and_slope_at(activation, z, out):
    """φ(z) and φ′(z)."""
    both = carray(out, 2)
    both[0], both[1] = value_and_slope(activation, f32(z))


LONG, WORD, DOUBLE = types.int64, types.uint32, types.float64
DOUBLES, LONGS, SINGLES = (types.CPointer(kind) for kind in (DOUBLE, LONG, types.float32))
INT = types.int32

ENTRIES = {
    "propagate": (propagate, types.void(
        INT, INT, INT, INT, DOUBLE, DOUBLE, DOUBLE, DOUBLE, INT, WORD, WORD, WORD, DOUBLES, DOUBLES, LONGS, SINGLES)),
    "moments": (moments, types.void(INT, DOUBLE, DOUBLES)),
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
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu="generic", features=FEATURES, opt=3, reloc="static", codemodel="default"
    )
    single, double = types.float32, types.float64
    emulations = {"fma32": (fma32, single(single, single, single)), "fma64": (fma64, double(double, double, double))}
    whole = llvm.parse_assembly("")
    whole.triple, whole.data_layout = TRIPLE, str(machine.target_data)
    for name, (function, signature) in (entries | emulations).items():
        whole.link_in(translated(name, function, signature, machine))
    for value in [*whole.functions, *whole.global_variables]:
        if not value.is_declaration and value.name not in entries:
            value.linkage = "internal"
    for name in emulations:
        whole.get_function(name).add_function_attribute("alwaysinline")
    for function in whole.functions:
        if fma32_hard.__name__ in function.name:
            function.add_function_attribute("noinline")  # rare
    whole.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(whole, passes)
    return with_exports(machine.emit_object(whole), list(entries))


def translated(name, function, signature, machine):
    """The LLVM module of one C function, for WebAssembly, with fused multiply-adds by name."""
    compiled_here = cfunc(signature, **STRICT)(function if not hasattr(function, "py_func") else function.py_func)
    text = compiled_here.inspect_llvm().replace(compiled_here.native_name, name)
    text = re.sub(r"(?m)^target (datalayout|triple) = .*\n", "", text)
    text = re.sub(r"(?m)^\s*call void @NRT_(inc|dec)ref\(.*\n", "", text)  # views own nothing
    text = re.sub(r"\bnoinline\b", "nounwind", text)  # Numba keeps what a C function calls apart
    text = re.sub(r"@llvm\.fma\.f(32|64)\(", r"@fma\1(", text)
    text = text.replace("@sqrtf(", "@llvm.sqrt.f32(").replace("@sqrt(", "@llvm.sqrt.f64(")  # instructions, not calls
    translation = llvm.parse_assembly(text)
    translation.triple, translation.data_layout = TRIPLE, str(machine.target_data)
    return translation


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


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(compiled(ENTRIES))
