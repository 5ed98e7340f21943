# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # Backpropagation by hand
#
# **Goal:** you write the way back through a deep network yourself, in thirty lines of NumPy, and watch a gradient vanish in it.
# **Time:** 40 minutes. **You need:** the chain rule, a matrix times a vector, a little Python.
#
# [Download this lab as a notebook](backpropagation_by_hand.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`, run the cell, and it says whether you are right.
#
# ## The way forward
#
# A layer multiplies the signal from below by its weights, and bends each number with the sigmoid. We keep the signals of all
# layers, because the way back needs them.

# %%
import matplotlib.pyplot as plt
import numpy as np

from vgp_kernels import Network, mean_field, propagate


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(weights, x):
    """The signals of all layers: first the input, last the output."""
    signals = [x]
    for W in weights:
        signals.append(sigmoid(W @ signals[-1]))
    return signals


def error(output, target):
    return np.sum((output - target) ** 2) / 2


# %% [markdown]
# ## The way back
#
# How does the error change if one number inside the network changes a little? At the output the answer is easy: the error is
# ½ (output − target)², so its derivative is output − target. From there we go down, one layer at a time.
#
# - Through the sigmoid: times its slope. The slope of the sigmoid is σ(1 − σ), and σ is the signal that we have kept.
# - To the weights: a weight multiplies one signal, so its derivative is that signal times what came from above.
# - Through the weights, to the layer below: every signal has gone to all units above, so the derivatives add up. That is a product
#   with the transposed matrix.


# %%
def backward(weights, signals, target):
    """The derivatives of the error: by the signals of all layers, and by all weights."""
    by_signals, by_weights = [signals[-1] - target], []
    for W, below, here in zip(reversed(weights), reversed(signals[:-1]), reversed(signals[1:]), strict=True):
        delta = by_signals[0] * here * (1 - here)  # through the sigmoid
        by_weights.insert(0, np.outer(delta, below))  # to the weights
        by_signals.insert(0, W.T @ delta)  # to the layer below
    return by_signals, by_weights


# %% [markdown]
# ## Is it right?
#
# There is a test that needs no theory. Move one weight a little, and look how much the error moves. Where the two numbers agree, the
# way back is right.

# %%
generator = np.random.default_rng(0)


def network(depth, width, scale=1.0):
    """Random weights whose variance is scale² over the number of inputs."""
    return [scale * generator.standard_normal((width, width)) / np.sqrt(width) for _ in range(depth)]


weights, x, target = network(3, 5), generator.standard_normal(5), np.zeros(5)
_, by_weights = backward(weights, forward(weights, x), target)

step = 1e-6
errors = []
for sign in (1, -1):
    moved = [W.copy() for W in weights]
    moved[0][2, 3] += sign * step
    errors.append(error(forward(moved, x)[-1], target))
print("by moving the weight:", (errors[0] - errors[1]) / (2 * step))
print("by the way back:     ", by_weights[0][2, 3])
assert np.isclose((errors[0] - errors[1]) / (2 * step), by_weights[0][2, 3], rtol=1e-5)

# %% [markdown]
# ## Watch it vanish
#
# Now twenty layers of a hundred units. We draw the length of the gradient at each layer, with a logarithmic axis: each line upwards
# is ten times as much.

# %%
weights, x = network(20, 100), generator.standard_normal(100)
signals = forward(weights, x)
target = signals[-1] + generator.standard_normal(100)  # so that the gradient begins with random numbers
by_signals, by_weights = backward(weights, signals, target)
lengths = np.array([np.linalg.norm(gradient) for gradient in by_signals])

figure, axes = plt.subplots(figsize=(6, 3.5))
axes.semilogy(lengths, "o-", markersize=4)
axes.set(xlabel="layer (0: input)", ylabel="length of the gradient")
plt.show()

# %% [markdown]
# The points lie nearly on a straight line: each layer multiplies the gradient by about the same factor. Nothing has gone wrong in
# the code. The gradient at the input is simply that small:

# %%
print(f"at the top {lengths[20]:.2f}, at the input {lengths[0]:.1e}")

# %% [markdown]
# **Your turn.** By which factor does *one* layer multiply the length, on average? (Twenty factors, multiplied, lead from
# `lengths[20]` to `lengths[0]`. Use Python.)

# %%
answer = None

if answer is not None:
    hint = "Divide the two lengths, and take the twentieth root: ** (1 / 20)"
    assert abs(answer / (lengths[0] / lengths[20]) ** (1 / 20) - 1) < 0.02, f"Not {answer}. {hint}."
    print("Right.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# `answer = (lengths[0] / lengths[20]) ** (1 / 20)`
#
# </details>
#
# ## Where does the factor come from?
#
# It is often said that each layer multiplies by at most 0.25, because this is the largest slope of the sigmoid. Let us look at
# the two
# parts of a layer apart: the slopes, and the weights.

# %%
slopes = np.concatenate([h * (1 - h) for h in signals[1:]])
print(f"root mean square of the slopes: {np.sqrt(np.mean(slopes**2)):.3f}")
stretched = [
    np.linalg.norm(W.T @ g) / np.linalg.norm(g)
    for W, g in zip(weights, generator.standard_normal((20, 100)), strict=True)
]
print(f"the weights stretch a random vector by {np.mean(stretched):.3f}")

# %% [markdown]
# **Your turn.** With weights twice as large (`scale=2.0`), do you expect a factor above or below 0.25? Predict it from the two
# numbers above, then measure it: make the network, go forward and back, and put the measured factor here.

# %%
answer = None

if answer is not None:
    larger = network(20, 100, scale=2.0)
    there = forward(larger, x)
    back, _ = backward(larger, there, there[-1] + generator.standard_normal(100))
    measured = (np.linalg.norm(back[0]) / np.linalg.norm(back[20])) ** (1 / 20)
    assert abs(answer / measured - 1) < 0.1, (
        f"Not {answer}. Did you pass scale=2.0, and go back from a random gradient?"
    )
    print(f"Right: here it is {measured:.3f}. The slope alone does not decide.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# The weights now stretch by 2. The slopes become a little smaller, because the sigmoid is pushed further from its middle. So the
# factor is a little less than twice the old one, and above 0.25:
#
# ```python
# larger = network(20, 100, scale=2.0)
# there = forward(larger, x)
# back, _ = backward(larger, there, there[-1] + generator.standard_normal(100))
# answer = (np.linalg.norm(back[0]) / np.linalg.norm(back[20])) ** (1 / 20)
# ```
#
# </details>
#
# ## A thousand networks at once
#
# You have measured one network. Is it typical? The kernels of this site draw many networks like yours, and a theory of very
# wide networks predicts the factor.

# %%
same = Network(depth=20, width=100, activation="sigmoid", initialiser="xavier")
flow = propagate(same, trials=1000, seed=0)
factors = np.exp((flow.log_gradient[:, 0] - flow.log_gradient[:, 20]) / 20)
print(f"your network:           {(lengths[0] / lengths[20]) ** (1 / 20):.4f} per layer")
print(f"a thousand networks:    {factors.mean():.4f}, with a standard deviation of {factors.std():.4f}")
print(f"theory for wide layers: {np.exp(mean_field(same).rate):.4f}")

# %% [markdown]
# ## Exercises
#
# **1.** Replace the sigmoid by ReLU, `np.maximum(z, 0)`. Which two lines change? Which scale keeps the gradient?
#
# <details><summary>Solution</summary>
#
# The line in `sigmoid`, and the slope in `backward`: it is 1 where the signal is above 0, so `here * (1 - here)` becomes `(here
# > 0)`.
# Half of the units pass nothing, which halves the squared length. A variance of 2 over the number of inputs doubles it again:
# `scale=np.sqrt(2)`. Try it: the line is nearly level.
#
# </details>
#
# **2.** Draw the lengths of `by_weights` as well. Why is this line nearly parallel to the other one?
#
# <details><summary>Solution</summary>
#
# The gradient of the weights is what came from above times the signal from below. The signals of sigmoid layers are all near ½,
# so only
# what came from above changes from layer to layer.
#
# </details>
#
# Next: [Watch a gradient vanish](watch_a_gradient_vanish.py)
