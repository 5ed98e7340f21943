# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # Watch a gradient vanish
#
# **Goal:** you draw a thousand deep sigmoid networks, look at the gradient at each layer, lay the theory over it, and then try the
# cures. **Time:** 20 minutes. **You need:** what a gradient is, a little Python.
#
# [Download this lab as a notebook](watch_a_gradient_vanish.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`, run the cell, and it says whether you are right.

# %%
import matplotlib.pyplot as plt
import numpy as np

from vgp_kernels import Network, mean_field, propagate

network = Network(depth=50, width=256, activation="sigmoid", initialiser="xavier")
flow = propagate(network, trials=1000, seed=0)
flow.log_gradient.shape

# %% [markdown]
# One row per network, one column per layer: the natural logarithm of $|\partial E/\partial h_l|$, with norm 1 at the top.
# The theory of infinitely wide networks predicts the factor per layer, $\sqrt{\chi_1}$.

# %%
theory = mean_field(network)
layers = np.arange(network.depth + 1)
figure, axes = plt.subplots(figsize=(6, 3.5))
axes.plot(layers, theory.log_gradient / np.log(10), label="predicted")
axes.plot(
    layers, flow.log_gradient.mean(axis=0) / np.log(10), "o", markersize=3, label="measured, mean of 1000 networks"
)
axes.set(xlabel="layer", ylabel="log₁₀ of the gradient's norm")
axes.legend()
plt.show()

# %%
measured = np.exp((flow.log_gradient[:, 0] - flow.log_gradient[:, 40]).mean() / 40)
print(f"factor per layer: predicted {np.exp(theory.rate):.4f}, measured {measured:.4f}")

# %% [markdown]
# Not 0.25 per layer: the slope of the sigmoid is at most a quarter, but the weights multiply too.
#
# ## Change one word

# %%
for activation, initialiser in [("sigmoid", "he"), ("tanh", "xavier"), ("relu", "xavier"), ("relu", "he")]:
    gradient = propagate(Network(50, 256, activation, initialiser), trials=200).log_gradient
    print(f"{activation:8} {initialiser:8} gradient at the input: 10^{np.median(gradient[:, 0]) / np.log(10):.1f}")

# %% [markdown]
# ## Exercises
#
# **1.** Leaky ReLU has a small slope below zero, here 0.2. Which `weight_variance` keeps the gradient of such a network steady?
# Guess first, then measure.

# %%
answer = None

if answer is not None:
    kept = propagate(Network(50, 256, "leaky_relu(0.2)", weight_variance=answer), trials=200).log_gradient[:, 0]
    decades = np.median(kept) / np.log(10)
    other = "larger" if decades < 0 else "smaller"
    assert abs(decades) < 1, f"Not {answer}: fifty layers multiply the gradient by 10^{decades:.1f}. Try a {other} one."
    print(f"Right: fifty layers multiply the gradient by 10^{decades:.1f}.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# Half of the units have the slope 1, the others 0.2. The mean of the squared slopes is (1 + 0.04)/2 = 0.52, and the weights have to
# make up for it: `answer = 1 / 0.52`, about 1.92.
#
# </details>
#
# **2.** A sigmoid network with `initialiser="normal"` and width 256 does something that "sigmoid vanishes" does not foresee. Measure
# it, as above. What is it, and why?
#
# <details><summary>Solution</summary>
#
# Its gradient *grows* on the way down. The weights are drawn from N(0, 1), so their variance times the number of inputs is 256
# instead of 1. That makes many slopes small, but it stretches the gradient by more than they shrink it.
#
# </details>
#
# **3.** Go to depth 100,000. Why is the result finite, although $0.236^{100000}$ is far below the smallest float?
#
# <details><summary>Solution</summary>
#
# The kernels bring the gradient back to size 1 at each layer, and add up the logarithms of what they divided by. `log_gradient` is a
# logarithm, and a number such as −140,000 is no trouble for a float.
#
# </details>
#
# Next: [Rescue a network that does not learn](rescue_a_network.py)
