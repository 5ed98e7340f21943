"""The code on the pages of Diagnose, run as it stands there: what is printed below it is what it prints.

None of the frameworks is among the requirements: what is not installed is skipped by name.
"""

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "diagnose"
PRINTING = re.compile(r"^### ?(.*?)$|^## (.*?)$|^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.M | re.S)


def needs(package: str, how: str) -> None:
    """Skip where it is not installed; not imported, since Keras asks for its backend then."""
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed: {how}")


def printing(page: str):
    """(title, code, what it prints) of a page's sections."""
    title = ""
    for found in PRINTING.finditer((PAGES / page).read_text()):
        title = found[1] or found[2] or title
        if found[3]:
            yield pytest.param(found[3], found[4], id=title)


@pytest.mark.parametrize("code, printed", [*printing("by-construction.md"), *printing("recipes.md")])
def test_code_prints_what_the_page_says(code, printed):
    needs("torch", "pip install torch==2.13.0")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "page", "exec"), {"__name__": "page"})
    assert said.getvalue() == printed


def recipe(title: str, tab: str = "") -> str:
    """The code of a recipe that prints nothing by itself; of a tab its own."""
    text = (PAGES / "recipes.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    if tab:
        text = text.partition(f'=== "{tab}"')[2].partition("\n===")[0].replace("\n    ", "\n")
    return re.search(r"```python\n(.*?)\n```", text, re.S)[1]


def run(code: str, **environment: str) -> str:
    """What it prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lightning_logs_a_ratio_for_each_matrix():
    needs("torch", "pip install torch==2.13.0")
    needs("lightning", "pip install lightning")
    said = run(
        recipe("By layer in Lightning")
        + """
x = torch.randn(32, 8)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1]), batch_size=16)
net = Net()
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1e-9, **quiet)
trainer.fit(net, data)
for name, value in sorted(trainer.logged_metrics.items()):
    print(name, float(value) > 1e-3)  # before the clip to 1e-9
"""
    )
    assert said.split() == ["grad/layers.0.weight", "True", "grad/layers.2.weight", "True"]


def test_the_trainer_prints_a_ratio_for_each_matrix(tmp_path):
    needs("torch", "pip install torch==2.13.0")
    needs("transformers", "pip install transformers accelerate")
    code = (
        recipe("By layer in the Hugging Face Trainer")
        + f"""
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    def forward(self, x, labels):
        out = self.layers(x)
        return {{"loss": 1e6 * (out - labels).square().mean(), "logits": out}}

torch.manual_seed(0)
data = [{{"x": row, "labels": row[:1]}} for row in torch.randn(32, 8)]
for limit in (0.0, 1.0):
    quiet = dict(logging_steps=1, max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no")
    arguments = TrainingArguments({str(tmp_path)!r}, max_grad_norm=limit, **quiet)
    Trainer(Net(), arguments, train_dataset=data, callbacks=[GradientByLayer()]).train()
"""
    )
    lines = [line.split() for line in run(code).splitlines() if "layers." in line]
    assert [line[1] for line in lines] == 2 * ["layers.0.weight", "layers.2.weight"]
    ratios = [float(line[2]) for line in lines]
    assert min(ratios[:2]) > 1e3 and max(ratios[2:]) < 10  # as they are, and clipped to a norm of 1


@pytest.mark.parametrize("backend, tab", [("jax", "Keras with JAX"), ("torch", "Keras with PyTorch")])
def test_keras_gives_the_gradients_of_finite_differences(backend, tab):
    needs("keras", "pip install keras")
    needs(backend, f"pip install {backend}")
    said = run(
        recipe("By layer in Keras", tab)
        + """
import numpy as np
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
x, y = np.random.default_rng(0).standard_normal((64, 4)).astype("float32"), np.ones((64, 1), "float32")
found = gradient_by_layer(model, keras.losses.mean_squared_error, x, y)

h = 1e-3
for variable in model.trainable_variables:
    if len(variable.shape) < 2:
        continue
    w, gradient = np.array(variable.value.detach() if hasattr(variable.value, "detach") else variable.value), []
    for at in np.ndindex(w.shape):
        sides = []
        for sign in (1, -1):
            moved = w.astype("float32").copy()
            moved[at] += sign * h
            variable.assign(moved)
            sides.append(float(np.mean((np.asarray(model.predict_on_batch(x), "float64") - y) ** 2)))
        variable.assign(w)
        gradient.append((sides[0] - sides[1]) / (2 * h))
    print(found[variable.path] / (np.linalg.norm(gradient) / np.linalg.norm(w)))
""",
        KERAS_BACKEND=backend,
    )
    assert [float(line) for line in said.split()] == pytest.approx([1, 1], rel=2e-3)


def test_jax_gives_the_gradients_of_the_formula():
    needs("jax", "pip install jax")
    said = run(
        recipe("By layer in JAX")
        + """
w = jnp.arange(6.0).reshape(2, 3) + 1
x = jnp.array([1.0, -2.0, 3.0])
loss = lambda params, x: ((params["w"] @ x) ** 2).sum() / 2 + params["b"].sum()
found = gradient_by_layer(loss, {"b": jnp.ones(2), "w": w, "unused": w}, x)
exact = jnp.outer(w @ x, x)
print(found.keys() == {"['w']", "['unused']"}, found["['unused']"], found["['w']"] / (jnp.linalg.norm(exact) / jnp.linalg.norm(w)))
"""
    )
    right, unused, ratio = said.split()
    assert (right, float(unused)) == ("True", 0.0) and float(ratio) == pytest.approx(1, rel=1e-6)


GRADIENTS = {  # prints the norm of the gradient of each branch's first matrix, in the order of the blocks
    "PyTorch": """
torch.manual_seed(0)
x, y = torch.randn(64, 64), torch.randint(10, (64,))
nn.functional.cross_entropy(model(x), y).backward()
for part in model:
    if isinstance(part, Block):
        print(float(part.branch[1].weight.grad.norm()))
""",
    "Keras": """
import jax, jax.numpy as jnp
x, y = jax.random.normal(jax.random.key(0), (64, 64)), jnp.arange(64) % 10
start = [v.value for v in model.trainable_variables]
def loss(values):
    out, _ = model.stateless_call(values, [v.value for v in model.non_trainable_variables], x)
    return keras.losses.sparse_categorical_crossentropy(y, out, from_logits=True).mean()
found = jax.grad(loss)(start)
inner = [v.path for layer in model.layers if getattr(layer, "activation", None) == keras.activations.relu for v in [layer.kernel]]
for v, g in zip(model.trainable_variables, found):
    if v.path in inner:
        print(float(jnp.linalg.norm(g)))
""",
    "JAX (Flax)": """
import jax, jax.numpy as jnp
x, y = jax.random.normal(jax.random.key(0), (64, 64)), jnp.arange(64) % 10
def loss(model):
    return -jnp.take_along_axis(jax.nn.log_softmax(model(x)), y[:, None], 1).mean()
found = nnx.grad(loss)(model)
for i in range(1, 21):
    print(float(jnp.linalg.norm(found["layers"][i]["inner"]["kernel"][...])))
""",
}


@pytest.mark.parametrize("tab", GRADIENTS)
def test_a_block_with_norm_and_skip_passes_the_gradient_through_twenty(tab):
    for package in {"PyTorch": ["torch"], "Keras": ["keras", "jax"], "JAX (Flax)": ["jax", "flax"]}[tab]:
        needs(package, f"pip install {package}")
    text = (PAGES.parent / "fix" / "index.md").read_text().partition("### A block with norm and skip")[2]
    part = text.partition(f'=== "{tab}"')[2].partition("\n===")[0].replace("\n    ", "\n")
    code = re.search(r"```python\n(.*?)\n```", part, re.S)[1]
    gradients = [float(line) for line in run(code + GRADIENTS[tab], KERAS_BACKEND="jax").split()]
    assert len(gradients) == 20 and min(gradients) > max(gradients) / 10
    if tab == "PyTorch":  # what it is good for: without norm and skip
        bare = code.replace("x + self.branch", "self.branch").replace("nn.LayerNorm(width)", "nn.Identity()")
        gradients = [float(line) for line in run(bare + GRADIENTS[tab]).split()]
        assert min(gradients) < max(gradients) / 1e6
