# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # The edge of chaos
#
# **Goal:** you find the weights at which the gradient of a deep tanh network neither vanishes nor explodes, by theory and by
# measuring, and see how deep a network can be on either side of them. **Time:** 40 minutes. **You need:** the lab
# [Watch a gradient vanish](watch_a_gradient_vanish.py); what a variance is.
#
# [Download this lab as a notebook](edge_of_chaos.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`, run
# the cell, and it says whether you are right.
#
# ## One knob
#
# `weight_variance` is the variance of a weight times the number of inputs of its layer. Xavier's weights have 1. We turn this
# knob, and
# keep small random biases, with a variance of 0.05. The theory of very wide networks predicts the factor by which a layer
# multiplies the
# gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np

from vgp_kernels import Network, critical_point, mean_field, propagate


def tanh_network(variance, depth=60):
    return Network(depth, 256, "tanh", weight_variance=variance, bias_variance=0.05)


variances = np.linspace(0.5, 4, 15)
predicted = [np.exp(mean_field(tanh_network(v)).rate) for v in variances]
measured = []
for v in variances:
    gradient = propagate(tanh_network(v), trials=100).log_gradient
    measured.append(
        np.exp((gradient[:, 10] - gradient[:, 50]).mean() / 40)
    )  # without the first and the last ten layers

figure, axes = plt.subplots(figsize=(5.4, 3.2))
axes.plot(variances, predicted, label="predicted for very wide layers")
axes.plot(variances, measured, "o", label="measured at width 256, mean of 100 networks")
axes.axhline(1, color="gray", linewidth=1)
axes.set(xlabel="weight variance times number of inputs", ylabel="factor per layer")
axes.legend()
plt.show()

# %% [markdown]
# On the left of the crossing the gradient vanishes, on the right it explodes. The crossing is called the *edge of chaos*: on its
# left two
# different inputs become the same on their way up, on its right two nearly equal inputs become different.
#
# **Your turn.** At which variance does the line cross 1? Read it off, then make it precise with `mean_field(...).chi_1`, which is the
# square of the factor at the fixed point. Three digits will do.

# %%
answer = None

if answer is not None:
    chi = mean_field(tanh_network(answer)).chi_1
    other = "larger" if chi < 1 else "smaller"
    assert abs(chi - 1) < 0.002, f"Not {answer}: there the squared factor is {chi:.4f}. Try a {other} one."
    print(f"Right: the squared factor there is {chi:.4f}.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# Halve an interval again and again, or let the kernels do it: `answer = critical_point("tanh", 0.05)[0]`.
#
# </details>
#
# ## What a layer makes of two inputs
#
# The gradient says what becomes of a *small* change on the way up, too. Here are two inputs that have nothing in common. Their
# correlation
# is 0 at the bottom, and 1 means that the network no longer tells them apart.

# %%
edge = critical_point("tanh", 0.05)[0]
figure, axes = plt.subplots(figsize=(5.4, 3.2))
for variance in (edge / 2, edge, 2 * edge):
    network = Network(
        60, 256, "tanh", weight_variance=variance, bias_variance=0.05, batch_size=2, input_correlation=0.0
    )
    axes.plot(mean_field(network).correlation, label=f"predicted, weight variance {variance:.2f}")
axes.set(xlabel="layer", ylabel="correlation of two inputs")
axes.legend()
plt.show()

# %% [markdown]
# Below the edge the two become nearly one, here within twenty layers: what comes after can hardly tell them apart. Above it they
# stay apart,
# and the
# gradient explodes. At the edge they come together slowly.
#
# ## How deep can it be?
#
# A factor of 0.9 halves the gradient in about seven layers. The *depth scale* is the number of layers in which it changes by the
# factor
# e, about 2.7.

# %%
for variance in (edge / 2, 0.9 * edge, edge, 1.1 * edge, 2 * edge):
    rate = mean_field(tanh_network(variance)).rate
    scale = f"changes e-fold in {1 / abs(rate):.0f} layers" if abs(rate) > 1e-3 else "keeps its length"
    print(f"weight variance {variance:.2f}: the gradient {scale}")

# %% [markdown]
# ## Exercises
#
# **1.** Take the biases away, `bias_variance=0.0`. Where is the edge now, and why do people call Xavier's weights right for tanh?
#
# <details><summary>Solution</summary>
#
# `critical_point("tanh", 0.0)` is 1, Xavier's variance. There the pre-activations become small with depth, where tanh is nearly
# a straight
# line with the slope 1.
#
# </details>
#
# **2.** Is there an edge for ReLU? Try `critical_point("relu", 0.0)`, and biases other than 0.
#
# <details><summary>Solution</summary>
#
# Without biases it is at 2, He's weights, for signals of any size. With biases there is none: at 2 the signal grows with each
# layer, and never
# comes to rest. The function says so.
#
# </details>
#
# Next: [A norm that explodes](a_norm_that_explodes.py)
