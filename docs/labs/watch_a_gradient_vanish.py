# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # Watch a gradient vanish
#
# How fast does a gradient vanish, and can you stop it by changing one word? In this lab you draw a thousand deep
# sigmoid networks, look at the gradient at each layer, lay the theory over it, and then try the cures.
#
# [Download this lab as a notebook](watch_a_gradient_vanish.ipynb)

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
figure, axes = plt.subplots(figsize=(7, 4))
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
# 1. Which `weight_variance` keeps the gradient of a leaky ReLU network steady? Guess first, then measure.
# 2. A sigmoid network with `initialiser="normal"` and width 256 does something that "sigmoid vanishes" does not
#    foresee. What, and why?
# 3. Go to depth 100,000. Why is the result finite, although $0.236^{100000}$ is far below the smallest float?
