"""V8, the JavaScript engine, for what a page's scripts compute when the site is built."""

import atexit
from concurrent.futures import ThreadPoolExecutor

from py_mini_racer import MiniRacer, init_mini_racer


def start() -> MiniRacer:
    """A new engine, closed when Python ends.

    Its event loop is its own: where one runs already, as Playwright's does, it would share that and end with it. The loop
    runs in a daemon thread, which Python stops before it collects the engine: waiting for the loop then takes for ever.
    """
    # Here and not in the thread: on processors with memory protection keys V8 is open to the thread that loads it and to
    # those started from there, and a second engine elsewhere is a segmentation fault.
    init_mini_racer(ignore_duplicate_init=True)
    with ThreadPoolExecutor(1) as elsewhere:
        engine = elsewhere.submit(MiniRacer).result()
    atexit.register(engine.close)
    return engine
