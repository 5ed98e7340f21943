"""V8, the JavaScript engine, for what a page's scripts compute when the site is built."""

from concurrent.futures import ThreadPoolExecutor

from py_mini_racer import MiniRacer


def start() -> MiniRacer:
    """A new engine with an event loop of its own; where one runs already, as Playwright's does, it would share that and end with it."""
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(MiniRacer).result()
