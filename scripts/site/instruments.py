"""The instruments: the kernels as WebAssembly for the page, and each instrument's first state as plain HTML and SVG."""

import base64
import functools
import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import experiment
import style
from py_mini_racer import MiniRacer

from vgp_kernels import ACTIVATIONS, INITIALISERS, wasm

SCRIPTS = experiment.ROOT / "docs" / "javascripts"
DATA = SCRIPTS / "kernels.data.js"
TAG = re.compile(r'<div class="instrument" data-instrument="(?P<name>[\w-]+)"></div>')
COMPILED_FROM = "arithmetic randomness activations recursion cpu wasm".split()


def names() -> list[str]:
    """Every instrument there is."""
    return sorted(path.stem for path in (SCRIPTS / "instruments").glob("*.js"))


def sources() -> str:
    """A digest of all that the WebAssembly module is made from."""
    files = [(experiment.KERNELS / f"{name}.py").read_bytes() for name in COMPILED_FROM]
    return hashlib.sha256(b"".join(files) + (version("numba") + version("llvmlite")).encode()).hexdigest()


def write_data() -> None:
    """Write what the scripts need to know from Python; compiles only if what the module is made from has changed."""
    digest = sources()
    saved = DATA.read_text() if DATA.exists() else ""
    if f'"sources": "{digest}"' in saved:
        module = json.loads(saved.removeprefix("var VGP_DATA = "))["wasm"]
    else:
        module = base64.b64encode(wasm.module()).decode()
    content = f"var VGP_DATA = {json.dumps(data(module, digest), ensure_ascii=False, indent=0)}\n"
    if content != saved:
        experiment.write(DATA, content)


def data(module: str, digest: str) -> dict:
    """Activations in the order of their numbers, initialisers, and the module in base 64: a page from a file cannot fetch."""
    return {
        "sources": digest,
        "activations": [
            {
                "name": phi.name,
                "label": phi.label,
                "light": style.colour(phi.name),
                "dark": style.dark(style.colour(phi.name)),
                "vanishesAtZero": phi.vanishes_at_zero,
                "isBounded": phi.is_bounded,
            }
            for phi in ACTIVATIONS.values()
        ],
        # σ_w² of square layers: a constant and a multiple of the width
        "initialisers": [
            {
                "name": rule.name,
                "label": rule.label,
                "law": rule.law,
                "constant": 2 * rule.variance(1, 1) - rule.variance(2, 2),
                "perUnit": rule.variance(2, 2) - rule.variance(1, 1),
            }
            for rule in INITIALISERS.values()
        ],
        "wasm": module,
    }


@functools.cache
def engine() -> MiniRacer:
    """V8 with the instruments loaded, for their first states."""
    # where an event loop runs already, as Playwright's does, V8 would share it and end with it
    with ThreadPoolExecutor(1) as elsewhere:
        v8 = elsewhere.submit(MiniRacer).result()
    for file in [DATA, SCRIPTS / "kernels.js", SCRIPTS / "instruments.js", *(SCRIPTS / "instruments").glob("*.js")]:
        v8.eval(file.read_text() + "\n;0")
    module = base64.b64decode(json.loads(DATA.read_text().removeprefix("var VGP_DATA = "))["wasm"])
    v8.eval(f"var kernels = vgpKernels(new Uint8Array({list(module)}), VGP_DATA.activations); 0")
    return v8


@functools.cache
def first_state(name: str) -> str:
    """The instrument as HTML, its controls off, its figure and numbers computed."""
    if name not in names():
        raise ValueError(f"unknown instrument {name!r}; known: {', '.join(names())}")
    return str(engine().eval(f"vgpInstruments.html({json.dumps(name)}, kernels)"))


def page(html: str) -> str:
    """The page with each instrument's tag filled."""
    return TAG.sub(lambda tag: tag[0].removesuffix("</div>") + first_state(tag["name"]) + "</div>", html)
