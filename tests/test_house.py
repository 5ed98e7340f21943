"""How the package is built: its imports go down, and what the page says of adding to it works as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "how-it-is-built.md"
SOFTSIGN = """
import numpy as np
from vgp_kernels import Network, activation, mean_field, propagate

network = Network(6, 400, "softsign", weight_variance=1.5, bias_variance=0.1)
generator, measured = np.random.default_rng(0), []
for _ in range(40):
    h, slopes, weights = generator.standard_normal(400), [], []
    for _ in range(6):
        weights.append(generator.standard_normal((400, 400)) * np.sqrt(1.5 / 400))
        z = weights[-1] @ h + generator.standard_normal(400) * np.sqrt(0.1)
        h, slope = z / (1 + abs(z)), 1 / (1 + abs(z)) ** 2
        slopes.append(slope)
    g = generator.standard_normal(400)
    g /= np.linalg.norm(g)
    for w, slope in zip(weights[::-1], slopes[::-1]):
        g = w.T @ (slope * g)
    measured.append(np.log(np.linalg.norm(g)))
flow = propagate(network, 200)
error = np.hypot(np.std(measured) / 40**0.5, flow.log_gradient[:, 0].std() / 200**0.5)
print((flow.log_gradient[:, 0].mean() - np.mean(measured)) / error, mean_field(network).log_gradient[0] - np.mean(measured))
"""


def test_every_import_goes_down():
    up = {pair: files for pair, files in house.arrows().items() if house.ROWS_OF[pair[0]] >= house.ROWS_OF[pair[1]]}
    assert not up
    assert {house.place(file) for file in house.files()} == house.ROWS_OF.keys()


def test_neither_does_theory_import_kernels_nor_the_other_way_round():
    from_theory = [pair for pair in house.arrows() if "theory" in pair]
    assert {below for above, below in from_theory if above == "theory"} <= {
        "recurrent",
        "transformer",
        "what describes a network",
    }
    assert {above for above, below in from_theory if below == "theory"} == {"the front door"}
    for file in (house.PACKAGE / "theory").glob("*.py"):
        assert not re.search(r"(recurrent|transformer)(\.kernels|\.cuda| import (kernels|cuda))", file.read_text())


def blocks():
    """{title: code} of the page's recipes."""
    return dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE.read_text(), re.M | re.S))


@pytest.fixture
def copy(tmp_path):
    """The project without its results, to be changed."""
    for name in ("vgp_kernels", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs" / "results").mkdir(parents=True)
    return tmp_path


def run(copy, *arguments):
    environment = os.environ | {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(copy / "cache")}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_recipe_for_an_activation_works(copy):
    file = copy / "vgp_kernels" / "activations.py"
    text, code = file.read_text(), blocks()
    kernel, entry = code["before def from_scipy"], code["in ACTIVATIONS, before the entry of tanh"]
    for place, added in (("def from_scipy", f"{kernel}\n\n"), ('        Activation("tanh"', f"{entry.rstrip()},\n")):
        assert text.count(place) == 1
        text = text.replace(place, added + place)
    file.write_text(text)
    sampled, predicted = map(float, run(copy, "-c", SOFTSIGN).split())
    assert abs(sampled) < 4 and abs(predicted) < 0.05


def test_the_recipe_for_an_experiment_works(copy):
    title = "scripts/experiments/two_depths.py"
    for other in (copy / "scripts" / "experiments").glob("*.py"):
        other.unlink()
    (copy / title).write_text(blocks()[title])
    assert "all is well" in run(copy, "scripts/build.py", "--only", "two_depths")
    made = {path.name for path in (copy / "docs" / "results" / "two_depths").iterdir()}
    assert {"result.json", "figure.md", "figure.svg", "table.md", "data.csv"} <= made
    assert "as committed" in run(copy, "scripts/build.py", "--check", "--only", "two_depths")
