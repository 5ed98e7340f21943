# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # Rescue a network that does not learn
#
# **Goal:** you train a deep sigmoid network that does not learn, find out why, and rescue it in five ways. **Time:** 45 minutes.
# **You need:** what a gradient, a layer and a learning rate are; a little Python.
#
# [Download this lab as a notebook](rescue_a_network.ipynb). Cells with `answer = None` are yours: put your answer in place of `None`,
# run the cell, and it says whether you are right. The first training compiles its kernel, which may take half a minute.
#
# ## The data
#
# The 1,797 handwritten digits of scikit-learn, 8 × 8 pixels each. A network has to say which of the ten digits it sees; whoever
# always gives the same answer is right one time in ten.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from vgp_kernels import Network, train

inputs, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
inputs, labels = (inputs - inputs.mean())[order] / inputs.std(), labels[order]

# %% [markdown]
# ## The patient
#
# Ten layers of 64 sigmoid units, with Xavier's weights and plain gradient descent. We train three networks, each with its own random
# weights, for twenty epochs. One epoch shows every digit once.

# %%
results = {}


def attempt(name, learning_rate, optimiser="sgd", **network):
    """Train three networks of ten layers, and say how many digits each of them gets right."""
    results[name] = train(
        Network(10, 64, **network),
        inputs,
        labels,
        learning_rate=learning_rate,
        optimiser=optimiser,
        epochs=20,
        batch_size=64,
        trials=3,
    )
    right = results[name].train_accuracy[:, -1]
    print(f"{name:32} {'  '.join(f'{100 * share:3.0f} %' for share in right)}")


attempt("sigmoid, Xavier", 0.5, activation="sigmoid", initialiser="xavier")

# %% [markdown]
# It guesses. Is the learning rate too small? Try others in this cell.

# %%
attempt("sigmoid, Xavier, larger rate", 2.0, activation="sigmoid", initialiser="xavier")

# %% [markdown]
# ## Why?
#
# `weight_gradient` holds the length of the gradient of each layer's weights, at the beginning of each epoch. Look at the first epoch.

# %%
gradient = results["sigmoid, Xavier"].weight_gradient[0, 0]
for layer, length in enumerate(gradient, 1):
    print(f"layer {layer:2}  {length:.1e}  {'#' * int(28 + 4 * np.log10(length))}")

# %% [markdown]
# **Your turn.** By which factor is the gradient of layer 1 smaller than that of layer 10? (`gradient[0]` is that of layer 1.)

# %%
answer = None

if answer is not None:
    assert abs(answer / (gradient[0] / gradient[9]) - 1) < 0.05, (
        f"Not {answer}. Divide the two numbers: a small one is asked for."
    )
    print("Right. One learning rate has to serve both.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# `answer = gradient[0] / gradient[9]`
#
# </details>
#
# ## Five rescues
#
# Each of them changes one or two parts of the layer, so that its factor comes near 1. The rates are those that a search over a
# few values
# gave for the [page on consequences](../learn/consequences.md).

# %%
attempt("1. ReLU, He", 0.05, activation="relu", initialiser="he")
attempt("2. tanh, Xavier", 0.05, activation="tanh", initialiser="xavier")
attempt("3. sigmoid − ½, larger weights", 0.2, activation="centred_sigmoid", weight_variance=16.0)
attempt("4. batch norm", 0.5, activation="sigmoid", initialiser="xavier", normalisation="batch", batch_size=2)
attempt("5. skips", 0.05, activation="sigmoid", initialiser="xavier", residual="postactivation")

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for name, result in results.items():
    axes.plot(100 * result.train_accuracy.mean(axis=0), label=name)
axes.set(xlabel="epoch", ylabel="digits that are right, in per cent")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## And Adam?
#
# Adam divides the step of each weight by the size of its gradient, so a small gradient need not mean a small step.

# %%
attempt("Adam", 0.01, "adam", activation="sigmoid", initialiser="xavier")

# %% [markdown]
# **Your turn.** Is a factor near 1 before training all that counts? Find a network of ten layers whose first gradient is *more than a
# tenth* of its last, and which still gets fewer than half of the digits after twenty epochs. Put the keywords of your network
# here, and the
# learning rate.

# %%
answer = None  # such as {"learning_rate": 0.05, "activation": "relu", "initialiser": "he"}

if answer is not None:
    attempt("yours", **answer)
    first_over_last = results["yours"].weight_gradient[:, 0, 0] / results["yours"].weight_gradient[:, 0, 9]
    right = results["yours"].train_accuracy[:, -1]
    assert first_over_last.min() > 0.1, f"Not this one: its first gradient is {first_over_last.min():.1e} of the last."
    assert right.max() < 0.5, f"Not this one: it learns, up to {100 * right.max():.0f} %."
    print("Right: the gradient is level, and it hardly learns.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ReLU or tanh with weights that are too small, `initialiser="standard"`, at the rate 0.05: the signal shrinks on the way up as
# the gradient does on
# the way down, so all layers have equally small gradients. Or simply a learning rate that is far too small:
# `answer = {"learning_rate": 0.0001, "activation": "relu", "initialiser": "he"}`.
#
# </details>
#
# ## Exercises
#
# **1.** Repeat the five rescues with thirty layers instead of ten. Which of them still learn?
#
# <details><summary>Solution</summary>
#
# Change the 10 in `attempt` and run its cells again. A factor that is near 1, but not quite, counts three times as often now.
# What you
# see depends on the rates too; [the page on consequences](../learn/consequences.md) has a table of thirty-layer networks.
#
# </details>
#
# **2.** How far has each layer moved? Draw `results[name].movement[0, -1]`, the distance from the initial weights over their
# length, for
# the patient and for one rescue.
#
# <details><summary>Solution</summary>
#
# In the patient only the top layers have moved; in a rescued network all have.
#
# </details>
#
# Next: [The edge of chaos](edge_of_chaos.py)
