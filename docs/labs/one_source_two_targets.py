# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [markdown]
# # One source, two targets
#
# **Goal:** you take one activation function, compile it for a processor and for a graphics card, and see why both give the same bits.
# No GPU is needed for that. **Time:** 30 minutes. **You need:** Python with functions and loops; no assembly language.
#
# [Download this lab as a notebook](one_source_two_targets.ipynb)
#
# ## The source
#
# An activation is one scalar function, written once: $z$ goes in, $\varphi(z)$ and the slope $\varphi'(z)$ come out.

# %%
import inspect
import re
from html import escape

import numpy as np
from IPython.display import HTML
from numba import njit, types

from vgp_kernels import Network, activation, propagate
from vgp_kernels.activations import value_and_slope
from vgp_kernels.numerics import frames, lanes
from vgp_kernels.numerics.arithmetic import exp_and_expm1, quotient
from vgp_kernels.targets import compiling
from vgp_kernels.targets import gpu as target

print(inspect.getsource(activation("tanh").kernel.py_func))

# %% [markdown]
# There is no call to a library's `tanh` or `exp` in it: `exp_and_expm1` and `quotient` are made of additions, products and
# fused multiply-adds too. So there is nothing that a target could do in its own way.
#
# ## For the processor
#
# Numba compiles the function with LLVM, and runs it over an array, several numbers at a time.


# %%
@njit(error_model="numpy")
def slopes(z, slope):
    for i in range(z.size):
        slope[i] = value_and_slope("tanh", z[i])[1]


z = np.linspace(-3, 3, 7, dtype=np.float32)
slope = np.empty_like(z)
slopes(z, slope)
for one, of_one in zip(z, slope, strict=True):
    print(f"z = {one:4.1f}   slope {of_one:.7f}   bits {of_one.view(np.uint32):08x}")

# %% [markdown]
# ## For the graphics card
#
# On a GPU the loop disappears: each thread takes one index. The rest is the same source. It becomes PTX, NVIDIA's portable
# assembly language, here for compute capability 9.0 (Hopper).

# %%
if target.INSTALLED:
    from numba import cuda

    def slopes_kernel(z, slope):
        i = cuda.grid(1)
        if i < z.size:
            slope[i] = value_and_slope("tanh", z[i])[1]

    array = types.Array(types.float32, 1, "C")
    ptx = compiling.ptx(slopes_kernel, types.void(array, array), capability=(9, 0))
else:
    ptx = ""
    print(f"Nothing is compiled for a graphics card here: {target.missing()}")

functions = exp_and_expm1, quotient, activation("tanh").kernel
source = "\n".join(inspect.getsource(function.py_func) for function in functions)
lines = [
    line.strip().expandtabs(16) for line in ptx.splitlines() if re.match(r"\s+(@|\w)", line) and ".param" not in line
]
columns = [
    f"<pre style='overflow:auto;max-height:36rem;font-size:smaller'><code>{escape(text)}</code></pre>"
    for text in filter(None, (source, "\n".join(lines)))
]
HTML(
    f"<div style='display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr))'>{''.join(columns)}</div>"
)

# %% [markdown]
# On the left what was written, on the right what the card runs: first the thread finds its number, then comes $e^{-2|z|}$ in
# ten `fma`, then the division, then the products. Count the arithmetic:

# %%
for word in ("add", "sub", "mul", "fma", "div", "rcp", "sqrt"):
    found = re.findall(rf"^\s+({word}\.[.a-z0-9]*f32)", ptx, re.M)
    if found:
        print(f"{len(found):3} {' and '.join(sorted(set(found)))}")

# %% [markdown]
# Each instruction carries `.rn`: round to the nearest number, as IEEE 754 says. That decides whether the bits agree:
#
# | What could differ | What is done about it |
# | :--- | :--- |
# | a product and a sum are fused, with one rounding less | not allowed (`fma=0`); `fma.rn` is where the source says `fma` |
# | division and square root by approximation | `div.rn` and `sqrt.rn`, the exact ones |
# | numbers below $10^{-38}$ are flushed to 0 | they are kept: nothing says `.ftz` |
# | sums in another order | each network adds up its units in the order of the processor |
# | `exp`, `log`, `erf` of another library | there is none |
#
# The tests read this off the PTX of the kernels, assemble it for three generations of cards, and run every kernel thread by
# thread in Numba's simulator, where they must give the processor's bits.
#
# ## Many threads for one network
#
# A network of one input without norms or skips keeps eight sums, so one thread can have a network to itself. All others keep
# long vectors, and so does training: there the threads of a block share a network. Two words in the source say how. `mine(n)`
# deals the entries $0 \dots n-1$ out to the threads, and `together()` lets all of them wait for the last one. On a processor the
# first
# is `range(n)` and the second is nothing:

# %%
print(inspect.getsource(frames.combine.py_func))
print(inspect.getsource(frames.dot.py_func))

# %% [markdown]
# A sum needs more: 32 partial sums, one for each thread of a warp, are added half to half. The processor keeps the same
# 32 sums in its vector registers and adds them in the same order, so the bits agree, and both are faster than one sum after
# another would be.

# %%
x, y = np.random.default_rng(0).standard_normal((2, 1000))
partial = sum(x[i : i + lanes.WAYS] * y[i : i + lanes.WAYS] for i in range(0, 992, lanes.WAYS))
while len(partial) > 1:
    partial = partial[: len(partial) // 2] + partial[len(partial) // 2 :]
total = partial[0]
for i in range(992, 1000):
    total += x[i] * y[i]
print(total == frames.dot(x, y, 1000), total - x @ y)

# %% [markdown]
# ## Run it
#
# On a machine with an NVIDIA card, `pip install '.[cuda]'` here, or `'.[cuda12]'` if the
# [driver](https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html) is older than 580, and add one
# word:

# %%
network = Network(depth=50, width=256, activation="tanh", initialiser="xavier")
try:
    flow = propagate(network, trials=1000, seed=0, target="cuda")
    print(flow.log_gradient[:, 0].mean())
except RuntimeError as error:
    print(error)

# %% [markdown]
# How fast that is stands [on a page of its own](../verify/performance.md#graphics-processors), once a card has been measured. One
# command does it: it compares the bits, measures, and writes a result file.
#
#     python scripts/benchmark_cuda.py
#
# With `output="device"` the results stay on the card, for CuPy, PyTorch or JAX to take over. With `target="auto"` the card is
# taken where there is one and the job is large enough to gain.
#
# ## Exercises
#
# **1.** Replace `"tanh"` by `"relu"`. Which instructions are left, and why is there no `fma`?
#
# <details><summary>Solution</summary>
#
# A comparison, `setp`, and a choice between 1 and 0, `selp`. The slope of ReLU is one of two numbers: nothing is multiplied and
# added.
#
# </details>
#
# **2.** Take the first result of `value_and_slope` instead of the second. Which part of the source does the compiler leave out in
# either case?
#
# <details><summary>Solution</summary>
#
# What only the other one needs. For the slope that is the way to $e^{-2|z|} - 1$, which takes more `fma`, and the sign; for the value
# it is the products that make the slope.
#
# </details>
#
# **3.** Compile for `capability=(7, 5)`, a card of 2018. Does the arithmetic differ?
#
# <details><summary>Solution</summary>
#
# No: the same instructions in the same order. This is why cards of different years give the same bits.
#
# </details>
