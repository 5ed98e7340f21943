"""The instruments: the kernels as WebAssembly for the page, and each instrument's first state as plain HTML and SVG."""

import base64
import functools
import gzip
import hashlib
import json
import logging
import re
import sys
from importlib.metadata import version
from pathlib import Path

import experiment
import style
import v8
from py_mini_racer import MiniRacer

from vgp_kernels import ACTIVATIONS, INITIALISERS, wasm
from vgp_kernels.activations import Activation
from vgp_kernels.theory.moments import batch_moments

log = logging.getLogger("mkdocs.hooks.site")
SCRIPTS = experiment.ROOT / "docs" / "javascripts"
DATA = SCRIPTS / "kernels.data.js"
TAG = re.compile(r'<div class="instrument" data-instrument="(?P<name>[\w-]+)"></div>')
BATCH_SIZES = (8, 16, 32)  # for which a page has the theory of batch normalisation


def names() -> list[str]:
    """Every instrument there is."""
    return sorted(path.stem for path in (SCRIPTS / "instruments").glob("*.js"))


def sources() -> str:
    """A digest of all that the data come from, Python too: from another's bytecode Numba compiles other code."""
    compiler = sys.version_info[:2], version("numba"), version("llvmlite")
    made_by = experiment.digest(Path(__file__), ["data"]), compiler
    return hashlib.sha256(repr(made_by).encode()).hexdigest()


def write_data() -> None:
    """Write what the scripts need to know from Python, if any of it may have changed."""
    digest = sources()
    try:
        current = read_data()["sources"] == digest
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
        current = False
    if not current:
        log.info(
            "The kernels are compiled for browsers, which takes half a minute or more; next time only if they have changed"
        )
        experiment.write(DATA, f"var VGP_DATA = {json.dumps(data(digest), ensure_ascii=False, indent=0)}\n")


def read_data() -> dict:
    """What the scripts know."""
    return json.loads(DATA.read_text().removeprefix("var VGP_DATA = "))


def module() -> bytes:
    """The kernels as WebAssembly, as a page gets them."""
    return gzip.decompress(base64.b64decode(read_data()["wasm"]))


def data(digest: str) -> dict:
    """Activations in the order of their numbers, initialisers, and the module: a page from a file cannot fetch it."""
    module = wasm.module()
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
                "batches": {size: batches(phi, size) for size in BATCH_SIZES},
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
        "wasm": base64.b64encode(gzip.compress(module, 9, mtime=0)).decode(),
        "fused": [[list(old), list(new)] for old, new in wasm.fused(module)],
    }


def batches(phi: Activation, size: int) -> dict:
    """What theory needs to know of φ after batch normalisation: see `vgp_kernels.theory.moments.BatchMoments`."""
    here = batch_moments(phi, size)
    found = {
        "logSquare": here.log_value,
        "correlation": here.correlation,
        "mean": here.mean,
        "centredTrace": here.centred_trace,
        "commonTrace": here.common_trace,
    }
    return {name: float(f"{value:.9g}") for name, value in found.items()}  # a page needs no more, and pays by the digit


@functools.cache
def engine() -> MiniRacer:
    """V8 with the instruments loaded, for their first states."""
    engine = v8.start()
    for file in [
        DATA,
        SCRIPTS / "kernels.js",
        SCRIPTS / "instruments.js",
        *sorted((SCRIPTS / "instruments").glob("*.js")),
    ]:
        engine.eval(file.read_text() + "\n;0")
    engine.eval(f"var kernels = vgpKernels({{ ...VGP_DATA, bytes: new Uint8Array({list(module())}) }}); 0")
    return engine


@functools.cache
def first_state(name: str) -> str:
    """The instrument as HTML, its controls off, its figure and numbers computed."""
    if name not in names():
        raise ValueError(f"unknown instrument {name!r}; known: {', '.join(names())}")
    return str(engine().eval(f"vgpInstruments.html({json.dumps(name)}, kernels)"))


def page(html: str) -> str:
    """The page with each instrument's tag filled."""
    return TAG.sub(lambda tag: tag[0].removesuffix("</div>") + first_state(tag["name"]) + "</div>", html)
