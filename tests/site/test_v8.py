"""The JavaScript engines of the build: they start anywhere, and end with Python."""

import subprocess
import sys
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "scripts" / "site"
START = """
import functools, sys, threading, v8
engine = functools.cache(lambda number: v8.start())  # as the build keeps them
print(engine(0).eval("6 * 7"), engine(1).eval("6 * 7"), flush=True)
another = threading.Thread(target=lambda: print(engine(2).eval("6 * 7"), flush=True))
another.start()
another.join()
"""


@pytest.mark.parametrize(
    "end, code, last_word",
    [("", 0, ""), ("sys.exit(3)", 3, ""), ("raise KeyboardInterrupt", -2, "KeyboardInterrupt")],
    ids=["at the end", "by sys.exit", "by Ctrl-C"],
)
def test_python_ends_by_itself_and_without_a_word_while_engines_run(end, code, last_word):
    done = subprocess.run(
        [sys.executable, "-c", START + end], cwd=SITE, capture_output=True, text=True, timeout=60
    )  # without closing, Python 3.13 waits for ever, others print a TypeError
    assert (done.returncode, done.stdout) == (code, "42 42\n42\n"), done.stderr
    assert "Exception ignored" not in done.stderr and done.stderr.strip().endswith(last_word)
    assert bool(done.stderr) == bool(last_word)
