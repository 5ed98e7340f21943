# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # A norm that explodes
#
# **Goal:** you see batch normalisation end a vanishing gradient and make another one explode, find the factor by hand, and tame it
# with skips. **Time:** 30 minutes. **You need:** the lab [Watch a gradient vanish](watch_a_gradient_vanish.py); mean and variance.
#
# [Download this lab as a notebook](a_norm_that_explodes.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`, run the cell, and it says whether you are right.
#
# ## It helps
#
# Batch normalisation subtracts from each unit its mean over the batch, and divides by its standard deviation. Here are deep networks
# without it and with it. Each factor is per layer, measured over layers 10 to 40, in the mean of fifty networks.

# %%
import matplotlib.pyplot as plt
import numpy as np

from vgp_kernels import Network, propagate


def gradient(**options):
    """log₁₀ of the length of the gradient at each layer, with 0 at the top; mean of fifty networks."""
    return propagate(Network(50, 256, **options), trials=50).log_gradient.mean(axis=0) / np.log(10)


def factor(decades):
    return 10 ** ((decades[10] - decades[40]) / 30)


BATCH = {"normalisation": "batch", "batch_size": 32, "input_correlation": 0.0}
found = {
    "sigmoid, Xavier": gradient(activation="sigmoid", initialiser="xavier"),
    "sigmoid, Xavier, batch norm": gradient(activation="sigmoid", initialiser="xavier", **BATCH),
    "ReLU, He": gradient(activation="relu", initialiser="he"),
    "ReLU, He, batch norm": gradient(activation="relu", initialiser="he", **BATCH),
}
for name, decades in found.items():
    print(f"{name:30} {factor(decades):.3f} per layer, 10^{decades[0]:.1f} in all")

# %% [markdown]
# In the sigmoid network the norm ends the vanishing. In the ReLU network, which had been healthy, the gradient now *grows* on its way
# down.
#
# ## Why?
#
# Before ReLU each unit has the mean 0 and the variance 1 over the batch. After ReLU it has a smaller variance, and the next norm
# divides by it. So it divides the gradient as well. Compute it with a large sample of normal numbers:

# %%
z = np.random.default_rng(0).standard_normal(1_000_000)
h = np.maximum(z, 0)
print(f"mean squared slope, of 0 and 1: {np.mean(z > 0):.4f}")
print(f"variance after ReLU:       {h.var():.4f}")

# %% [markdown]
# **Your turn.** The squared gradient is multiplied by the mean squared slope, and divided by the variance. By which factor does the
# *length* grow in each layer, for large batches?

# %%
answer = None

if answer is not None:
    exact = np.sqrt(np.pi / (np.pi - 1))
    assert abs(answer - exact) < 0.005, (
        f"Not {answer}. Divide the first number by the second; then from squares to lengths."
    )
    print(f"Right: exactly it is √(π/(π − 1)) = {exact:.4f}. With 32 inputs a batch it is a little more.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# `answer = np.sqrt(np.mean(z > 0) / h.var())`
#
# </details>
#
# The weights do not appear in it. If they are a hundred times as large, the norm divides by a hundred times as much.
#
# ## Skips tame it
#
# In a residual network the norm stands in a branch, and the skip leads round it.

# %%
found["ReLU, He, batch norm, skips"] = gradient(activation="relu", initialiser="he", residual="preactivation", **BATCH)
figure, axes = plt.subplots(figsize=(6, 3.5))
for name, decades in found.items():
    axes.plot(decades, label=name)
axes.set(xlabel="layer (0: input)", ylabel="log₁₀ of the gradient's length", ylim=(-12, 8))
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# With skips the line bends: each block adds to a sum that is already large, so its share becomes smaller and smaller.
#
# ## Exercises
#
# **1.** How does the factor depend on the size of the batch? Measure it for 4, 8, 16, 64 and 128 inputs.
#
# <details><summary>Solution</summary>
#
# ```python
# for size in (4, 8, 16, 64, 128):
#     print(size, factor(gradient(activation="relu", initialiser="he", **BATCH | {"batch_size": size})))
# ```
#
# It falls as batches grow. In small batches the standard deviation of a unit is sometimes very small by chance, and
# dividing by
# it makes the gradient large.
#
# </details>
#
# **2.** Replace batch norm by layer norm, `"layer"`, before ReLU and after it (`norm_position="post"`). Which of the two
# explodes, and why?
#
# <details><summary>Solution</summary>
#
# The one after ReLU. There the units have a mean above 0, which the norm takes away; what is left is smaller, and is divided by less.
#
# </details>
#
# Next: [An LSTM that remembers](an_lstm_that_remembers.py)
