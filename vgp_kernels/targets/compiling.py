"""Compiling for a GPU so that the bits are the CPU's.

Products and sums are not contracted (NVVM's fma=0: they come out as mul.rn and add.rn, which the assembler leaves alone);
division and square root round as IEEE 754 says (div.rn, sqrt.rn) and subnormals are kept (no .ftz), which are the defaults
without fastmath. tests/plain/test_plain_cuda.py reads this off the PTX and the machine code. All functions are marked as
convergent: what holds a barrier for all lanes of a block must not be moved into a branch that some take, and LLVM knows that
of the barrier only.
"""

import importlib.util
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

# numba-cuda 0.30 calls np.row_stack, which NumPy 2.5 no longer has
INSTALLED = importlib.util.find_spec("numba_cuda") is not None and hasattr(np, "row_stack")
if INSTALLED:
    from numba import cuda

ONE_AT_A_TIME = threading.RLock()  # what is patched is patched for all threads, and each GPU compiles in its own


@contextmanager
def compiling(capability: tuple[int, int] | None = None) -> Iterator[None]:
    """Compile without contraction; given a compute capability, for a GPU that need not be here.

    numba-cuda has a switch for neither: it passes no `fma` on to NVVM, and asks the driver which device it compiles for
    whenever one device function calls another.
    """
    from numba.cuda import dispatcher
    from numba.cuda.cudadrv import nvvm

    def strict(modules: Any, **options: Any) -> bytes:
        modules = [modules] if isinstance(modules, str) else modules
        return compile_ir([all_convergent(text) for text in modules], fma=False, **options)

    with ONE_AT_A_TIME, ExitStack() as patches:
        compile_ir = nvvm.compile_ir
        patches.enter_context(mock.patch.object(nvvm, "compile_ir", strict))
        if capability is not None:
            device = SimpleNamespace(compute_capability=capability)
            patches.enter_context(mock.patch.object(dispatcher, "get_current_device", lambda: device))
        yield


def all_convergent(text: str) -> str:
    """LLVM's code with all functions that it defines marked as convergent."""
    marked, count = re.subn(r"^define .*\)", r"\g<0> convergent", text, flags=re.M)
    if count != text.count("\ndefine ") + text.startswith("define "):
        raise RuntimeError(
            "not every function could be marked as convergent: numba-cuda writes definitions in another way"
        )
    return marked


def ptx(kernel: Callable, signature: Any, capability: tuple[int, int] = (9, 0)) -> str:
    """The PTX of a kernel for a compute capability, as the CUDA target compiles it; needs no GPU."""
    with compiling(capability):
        text, _ = cuda.compile(kernel, signature, device=False, abi="numba", cc=capability)
    return text
