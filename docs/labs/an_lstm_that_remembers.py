# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # An LSTM that remembers
#
# **Goal:** you measure how long the gradient of an LSTM lasts, and open its forget gates until it remembers. **Time:** 30 minutes.
# **You need:** the lab [Watch a gradient vanish](watch_a_gradient_vanish.py); what an LSTM is.
#
# [Download this lab as a notebook](an_lstm_that_remembers.ipynb). Cells with `answer = None` are yours: put your answer in place of
# `None`, run the cell, and it says whether you are right.
#
# ## Out of the box
#
# A sequence of a hundred steps, 128 units, half as many inputs, and the weights that PyTorch gives an LSTM. The loss reads the last
# state alone. How much of its gradient arrives at step 0?

# %%
import matplotlib.pyplot as plt
import numpy as np

from vgp_kernels import Recurrent, propagate


def gradient(steps=100, cell="lstm", **options):
    """log₁₀ of the length of the gradient at the cell of each step, with 0 at the last; mean of forty networks."""
    network = Recurrent(steps, 128, cell, "pytorch", input_width=64, **options)
    decades = propagate(network, trials=40).log_cell_gradient.mean(axis=0) / np.log(10)
    return decades - decades[-1]


print(f"at step 0 the gradient is 10^{gradient()[0]:.1f} of that at step 100")

# %% [markdown]
# An LSTM has a way through time without any weight matrix: cell × forget gate × forget gate × … But a gate that is half open
# lets half
# of the gradient through, at every step.
#
# ## Open the gate
#
# The gate is the sigmoid of a number, and that number has a bias. A larger bias opens the gate.

# %%
biases = (0, 1, 3, 5)
found = {bias: gradient(forget_bias=bias) for bias in biases}
figure, axes = plt.subplots(figsize=(6, 3.5))
for bias, decades in found.items():
    axes.plot(decades, label=f"forget bias {bias}")
axes.set(xlabel="step (100: last)", ylabel="log₁₀ of the gradient's length")
axes.legend()
plt.show()

# %% [markdown]
# With a bias of 5 the gradient even grows: what nothing takes away adds up, along the other ways through the gates.
#
# **Your turn.** Look at the straight way alone. Which bias opens the gate so far that half of the gradient is left after 100
# steps? The
# gate is 1 / (1 + exp(−bias)).

# %%
answer = None

if answer is not None:
    gate = 1 / (1 + np.exp(-answer))
    assert abs(gate**100 - 0.5) < 0.02, f"Not {answer}: that gate leaves {gate**100:.3f} after 100 steps."
    print(f"Right: the gate is {gate:.5f}, and leaves {gate**100:.3f} after 100 steps.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# The gate has to be 0.5 ** (1 / 100), and the bias is the number whose sigmoid that is: `gate = 0.5 ** 0.01` and
# `answer = np.log(gate / (1 - gate))`, about 5. The rule of thumb: the logarithm of the number of steps.
#
# </details>
#
# ## Different units for different times
#
# One bias for all units is one length of memory. *Chrono* initialisation gives each unit its own, for all lengths up to a longest.

# %%
print(f"chrono, for up to 100 steps: 10^{gradient(longest_memory=100)[0]:.2f} at step 0")

# %% [markdown]
# ## Exercises
#
# **1.** And a GRU? Take `cell="gru"`; it has no cell beside its state, so read `log_gradient` instead of `log_cell_gradient`.
#
# <details><summary>Solution</summary>
#
# Out of the box it forgets as fast. With large biases it remembers too, though less than the LSTM with the same bias. Its gradient
# does not grow, because its state is an average of old and new.
#
# </details>
#
# **2.** Why is `forget_bias` added to *one* of PyTorch's two bias vectors only, and what happens if you put 1 into both?
#
# <details><summary>Solution</summary>
#
# The two vectors are added. With 1 in both the bias is 2.
#
# </details>
#
# Next: [Diagnose your own network](diagnose_your_own.py)
