"""Machine code of kernels on disk: a file for each kernel, signature and processor, looked at before it is believed.

Numba's own cache knows the file of a function and nothing that it imports, and fails where a file is damaged or cannot
be written. Here code counts for as long as no source changes that its module reaches; where nothing can be read or
written, kernels are compiled for this process alone, and one warning says so.
"""

import hashlib
import inspect
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import njit
from numba.core import caching, compiler, serialize
from numba.misc.appdirs import AppDirs

from vgp_kernels.targets import sources

config: Any = numba.config  # its fields are made when it is imported


def cached(signature: Any = None, **options: Any) -> Callable:
    """`njit` for a signature, or for each in a list, with the machine code kept on disk.

    What a function closes over is part of its name there.
    """

    def decorate(function: Callable) -> Any:
        if lacking := compiler_missing():
            raise RuntimeError(lacking)
        kernel = njit(**options)(function)
        kernel._cache = KernelCache(function)
        if signature is not None:
            for one in signature if isinstance(signature, list) else [signature]:
                kernel.compile(one)
            kernel.disable_compile()
        return kernel

    return decorate


def named(*distinction: object):
    """Give a function that a factory makes a name of its own.

    In machine code from Numba's cache, functions are told apart by their names and by a number that counts the functions
    of the process that compiled them: two activations compiled first in two processes would be taken for one another.
    """

    def decorate(function):
        function.__qualname__ = "_".join(map(str, (function.__name__, *distinction)))
        return function

    return decorate


def compiler_missing() -> str:
    """Why nothing can be compiled here, in a sentence; empty if it can."""
    return "the kernels exist as machine code only: unset NUMBA_DISABLE_JIT" if config.DISABLE_JIT else ""


class KernelCache(caching._Cache):
    """The machine code of one function; each file is a line that says what it was made from, and the code."""

    def __init__(self, function: Callable):
        self.file = Path(inspect.getfile(function))
        module = function.__module__
        root, top = self.file.parents[module.count(".")], module.partition(".")[0]
        self.places = {**sources.KERNELS, top: root}
        self.name = f"{self.file.stem}.{function.__qualname__.replace('<locals>.', '')}"
        self.closed_over = [plain(cell.cell_contents, function) for cell in function.__closure__ or ()]

    @property
    def cache_path(self) -> str:
        return str(next(self.folders()))

    def folders(self) -> Iterator[Path]:
        """Where the code may lie, as with Numba: where NUMBA_CACHE_DIR says, or else beside the source or at the user's."""
        own = f"{self.file.parent.name}_{hashlib.sha256(str(self.file.parent).encode()).hexdigest()[:16]}"
        if config.CACHE_DIR:
            yield Path(config.CACHE_DIR) / own
        else:
            yield self.file.parent / "__pycache__"
            yield Path(AppDirs(appname="numba", appauthor=False).user_cache_dir) / own

    def file_name(self, signature: Any, target_context: Any) -> str:
        """The kernel's name, with a digest of all that the code depends on besides the sources."""
        made_by = sys.version, numba.__version__, llvmlite.__version__, target_context.codegen().magic_tuple()
        key = repr((str(signature), self.closed_over, made_by))
        return f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.nbc"

    def load_overload(self, signature, target_context):
        target_context.refresh()
        for folder in self.folders():
            path = folder / self.file_name(signature, target_context)
            try:
                content = path.read_bytes()
                head, _, code = content.partition(b"\n")
                made_from = json.loads(head)
                if hashlib.sha256(code).hexdigest() != made_from["code"]:
                    raise ValueError("its end is missing, or its bytes have changed")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                warnings.warn(f"{path} cannot be used, so the kernel is compiled again: {error}", stacklevel=2)
                continue
            if self.is_current(made_from):
                return compiler.CompileResult._rebuild(target_context, *pickle.loads(code))
        return None

    def save_overload(self, signature, compiled):
        code = serialize.dumps(compiled._reduce())
        target_context = compiled.target_context
        failures = []
        for folder in self.folders():
            path = folder / self.file_name(signature, target_context)
            try:
                made_from = {"code": hashlib.sha256(code).hexdigest(), **self.made_from()}
                write(path, json.dumps(made_from).encode() + b"\n" + code)
                return
            except OSError as error:
                failures.append(f"{path}: {error.strerror or error}")
        warn_once("machine code cannot be kept, so each process compiles it again; " + "; ".join(failures))

    def made_from(self) -> dict:
        """The digest of the sources, and of each file's bytes: as long as these are the same, that need not be made again."""
        found = sources.files(self.file, self.places)
        here = {os.path.relpath(path, self.file.parent): bytes_of(path) for path in found}
        return {"sources": sources.digest(self.file, places=self.places), "files": here}

    def is_current(self, made_from: dict) -> bool:
        try:
            if all(bytes_of(self.file.parent / path) == known for path, known in made_from["files"].items()):
                return True
        except OSError:
            pass
        return sources.digest(self.file, places=self.places) == made_from["sources"]

    def enable(self):
        pass

    def disable(self):
        pass

    def flush(self):
        pass


def plain(value: Any, function: Callable) -> str:
    """What a function closes over, as text that is the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    inner = getattr(value, "py_func", None)
    if inner is not None and inner.__module__ == function.__module__ and not inner.__closure__:
        return inner.__qualname__
    raise TypeError(f"a kernel on disk cannot close over {value!r}: take it from the module, or give its name")


def bytes_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file at once or not at all: who reads it meanwhile, or after a crash, finds the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


said: set[str] = set()


def warn_once(message: str) -> None:
    """One warning for a process: what is wrong with one file is wrong with all."""
    if not said:
        said.add(message)
        warnings.warn(message, stacklevel=2)
