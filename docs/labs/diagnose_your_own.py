# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # Diagnose your own network
#
# **Goal:** you write a report of one training step, have it diagnosed, and cure the network by what the diagnosis says; then you do
# the same with a network of yours. **Time:** 30 minutes. **You need:** the lab
# [Backpropagation by hand](backpropagation_by_hand.py).
#
# [Download this lab as a notebook](diagnose_your_own.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`,
# run the cell, and it says whether you are right.
#
# ## A report
#
# The shortest report is a list: for each layer its name, the length of its weights and the length of their gradient, in one step of
# training. Here is a network of twelve layers in plain NumPy, and its report over a batch of 64 inputs.

# %%
import json

import numpy as np

from vgp_kernels import diagnose

CURVES = {  # a function, and its slope from what it puts out
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda h: h * (1 - h)),
    "tanh": (np.tanh, lambda h: 1 - h**2),
    "relu": (lambda z: np.maximum(z, 0), lambda h: h > 0),
}


def report(activation, scale, depth=12, width=128, batch=64):
    """One step of a network whose weights have the variance scale² over the number of inputs."""
    generator = np.random.default_rng(0)
    curve, slope = CURVES[activation]
    weights = [scale * generator.standard_normal((width, width)) / np.sqrt(width) for _ in range(depth)]
    signals = [generator.standard_normal((batch, width))]
    for W in weights:
        signals.append(curve(signals[-1] @ W.T))
    gradient, rows = generator.standard_normal((batch, width)) / batch, []
    for number in reversed(range(depth)):
        delta = gradient * slope(signals[number + 1])
        lengths = {"weight": np.linalg.norm(weights[number]), "gradient": np.linalg.norm(delta.T @ signals[number])}
        rows.insert(0, {"name": f"layer {number + 1}"} | {name: float(length) for name, length in lengths.items()})
        gradient = delta @ weights[number]
    return rows


sick = report("sigmoid", scale=1.0)
print(json.dumps(sick[:2], indent=2))

# %% [markdown]
# ## The diagnosis


# %%
def show(answer):
    print(f"{answer['title']} ({answer['verdict']}, {answer['certainty']})")
    for line in answer["evidence"]:
        print(f"    {line['label']}: {line['value']}")
    print("Why:   ", answer["why"])
    print("Change:", answer["change"])


show(diagnose(sick))

# %% [markdown]
# It names what it has seen, how sure it is, and *one* change. It cannot see more than you have written down.
#
# **Your turn.** Change the activation or the weights until the slope is gone. Put the two here.

# %%
answer = None  # such as ("sigmoid", 2.0)

if answer is not None:
    found = diagnose(report(*answer))
    assert found["verdict"] != "sick", f"Not {answer}: {found['title']}."
    print(f"Right: {found['title']}.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# `answer = ("tanh", 1.0)`, Xavier's weights, or `("relu", 2**0.5)`, He's.
#
# </details>
#
# ## What a list does not show

# %%
show(diagnose(report("relu", scale=0.4)))

# %% [markdown]
# The weights of this ReLU network are far too small. But in such a network the gradients of all layers become small *together*,
# and so
# they look level. Only the signal shows it. A good diagnosis says that it cannot be told, or asks for more, and does not guess. The
# [recorders](../diagnose/check.md) for PyTorch, Keras and JAX write down the signal too, and what is dead or saturated.
#
# ## Your own network
#
# In PyTorch put [record_torch.py](../assets/recorders/record_torch.py) beside your code, and record one step:
#
# ```python
# from record_torch import record
#
# with record(model, "report.json", step=0):
#     loss = criterion(model(x), y)
#     loss.backward()
# ```
#
# Then read the file here, and show what is said of it:
#
# ```python
# show(diagnose(json.load(open("report.json"))))
# ```
#
# ## Exercises
#
# **1.** Multiply all gradients of the sick report by a million. Does the diagnosis change? Why is that good?
#
# <details><summary>Solution</summary>
#
# It does not: only ratios between layers count. A loss that is added up instead of averaged, or scaled for half precision, has the
# same illness.
#
# </details>
#
# **2.** Record a network of two layers only, `report("sigmoid", 1.0, depth=2)`. What is said, and why?
#
# <details><summary>Solution</summary>
#
# That it cannot be told. A factor per layer needs layers to compare; two numbers make no line.
#
# </details>
#
# Next: [One source, two targets](one_source_two_targets.py)
