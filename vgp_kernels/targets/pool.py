"""The threads of a job, for networks of every family: they share its pieces, stop when told to, and say how far they are.

A kernel looks at its `watch` once a step (see `numerics.watch`): so a job ends within about a second of Ctrl-C, and no thread lives
on. A step of the largest sizes takes longer.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba.core import event

from vgp_kernels.numerics.watch import APART, DONE, STOP

LOOK = 0.1  # seconds between two looks at the threads
PATIENCE = 2.0  # seconds of silent compilation


def share(
    pieces: Sequence[Any],
    threads: int,
    work: Callable[[Iterator[Any], np.ndarray], None],
    progress: bool = False,
    steps: int = 1,
) -> None:
    """Call work(its pieces, its watch) on each thread; a thread takes the next piece when it is done with one.

    `steps` is how many times the kernel of a piece calls `halted`. What a thread raises stops the others, and so does what
    interrupts the wait for them; no thread is left when this returns or raises.
    """
    waiting = iter(pieces)  # the interpreter's lock keeps the threads apart
    watches = np.zeros((max(1, min(threads, len(pieces))), APART), np.int64)

    def pieces_of(watch: np.ndarray) -> Iterator[Any]:
        for done, piece in enumerate(waiting, 1):
            if watch[STOP]:
                return
            yield piece
            watch[DONE] = done * steps

    def run(watch: np.ndarray) -> None:
        try:
            work(pieces_of(watch), watch)
        except BaseException:
            watches[:, STOP] = 1
            raise

    with ThreadPoolExecutor(len(watches)) as pool, shown(progress) as show:
        try:
            running = [pool.submit(run, watch) for watch in watches]
            while wait(running, LOOK, FIRST_EXCEPTION).not_done and not watches[:, STOP].any():
                show(watches[:, DONE].sum() / (steps * len(pieces)))
            for thread in running:
                thread.result()
            show(1.0)
        finally:
            watches[:, STOP] = 1


@contextmanager
def shown(progress: bool) -> Iterator[Callable[[float], None]]:
    """A function that shows on stderr which part of the job is done: with tqdm if that is installed, else by a plain line."""
    if not progress:
        yield lambda part: None
        return
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        begin = time.monotonic()

        def write(part: float) -> None:
            line = f"\r{100 * min(part, 1.0):3.0f} % after {time.monotonic() - begin:.0f} s"
            print(line, end="", file=sys.stderr, flush=True)

        try:
            yield write
        finally:
            print(file=sys.stderr)
        return
    with tqdm(total=1.0, bar_format="{percentage:3.0f} %|{bar}| {elapsed}, {remaining} left") as bar:

        def show(part: float) -> None:
            bar.n = min(part, 1.0)
            bar.refresh()

        yield show


@contextmanager
def announced(progress: bool) -> Iterator[None]:
    """Say on stderr, after PATIENCE, that functions are being compiled: only if they are, and only to one who watches.

    That is who asked for progress or has a terminal. Logs, tests and notebooks, whose pages would keep it, stay silent, and so
    does all that comes from the cache.
    """
    if sys.stderr is None or not (progress or sys.stderr.isatty()):
        yield
        return
    announcement = Announcement()
    with event.install_listener("numba:compile", announcement):
        try:
            yield
        finally:
            announcement.cancel()


class Announcement(event.Listener):
    """What waits from the first compilation on."""

    def __init__(self) -> None:
        self.timer = threading.Timer(PATIENCE, self.say)
        self.timer.daemon = True

    def say(self) -> None:
        print(
            "vgp_kernels compiles the functions of such networks for this machine: once, for 10 to 30 seconds",
            file=sys.stderr,
            flush=True,
        )

    def on_start(self, event: event.Event) -> None:
        if self.timer.ident is None:
            self.timer.start()

    def on_end(self, event: event.Event) -> None:
        """Others may follow."""

    def cancel(self) -> None:
        self.timer.cancel()


def all_threads() -> int:
    """As many threads as this process may run at the same time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
