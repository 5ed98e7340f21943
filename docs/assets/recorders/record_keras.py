"""Records the signal and the gradient of one training step, layer by layer, for Keras 3. Put this file beside your code.

    from record_keras import record

    record(model, loss, x, y, "report.json", step=0)

It runs one batch forward and back as `fit` does (training=True) and changes nothing: no weight, no moving statistic, no seed.
The report holds numbers and names, none of your data or weights. Needs Keras 3, NumPy and the backend, JAX or PyTorch.
"""

import contextlib
import functools
import json
import math
import re

import keras
import numpy as np
from keras.src.backend import get_keras_mask, set_keras_mask  # Keras has no public name for them

KINDS = {  # of Keras's own layers and of classes derived from them
    "linear": re.compile(r"(Einsum)?Dense"),
    "conv": re.compile(r"(Depthwise|Separable)?Conv\dD(Transpose)?"),
    "embedding": re.compile(r"(Reversible)?Embedding"),
    "norm": re.compile(r"(Batch|Layer|Group|Unit|RMS)Normalization"),
    "attention": re.compile(r"\w*Attention"),
    "activation": re.compile(r"Activation|ReLU|LeakyReLU|PReLU|ELU|Softmax"),
    "block": re.compile(r"Add|Average|TimeDistributed"),
}
WEIGHTED = ("linear", "conv")
SPELLED = {"LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax", "stop_gradient": "detach"}
SPELLED |= {"swish": "silu", "hard_silu": "hardswish", "hard_swish": "hardswish", "hard_tanh": "hardtanh"}
SPELLED |= {"hard_sigmoid": "hardsigmoid", "log_sigmoid": "logsigmoid", "soft_shrink": "softshrink"}
SPELLED |= {"hard_shrink": "hardshrink"}
ACTIVATIONS = set(
    "relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign sin threshold tanh sigmoid".split()
)
ACTIVATIONS |= set("hardtanh hardsigmoid hardswish logsigmoid softshrink hardshrink".split())
WATCHED = set("sign round floor ceil trunc detach argmax softmax".split())
SINGULAR = set("sqrt rsqrt log log1p log2 exp divide true_divide reciprocal power norm normalize arccos arcsin".split())
SINGULAR |= {"logsumexp", "log_softmax"}  # recorded where they make NaN
CROSSENTROPIES = ("categoricalcrossentropy", "sparsecategoricalcrossentropy", "categoricalfocalcrossentropy")
SAMPLE = 2**17  # about so many numbers of an output are what its statistics are taken from, of 16 inputs at least


def record(model, loss, x, y, path=None, *, step=None):
    """One forward and backward pass on a batch; returns the report, a dictionary, and writes it if a path is given.

    `loss` is what `compile` takes: a loss, a function of (y, prediction) or a name. It is averaged if it is not one number;
    the model's own losses (regularisers) are added. An error in the pass is raised as it is, and no file is written.
    Seen are layers, nodes of functional models and functions called as `keras.ops.relu`; not seen are operators between
    tensors (x + y) in code of one's own. A layer of one's own that calls no other layer is one row, a block.
    """
    backend = keras.backend.backend()
    if backend not in PASSES:
        raise NotImplementedError(
            f"The recorder does not know Keras's backend {backend!r}; it knows {', '.join(PASSES)}. Set KERAS_BACKEND to "
            "one of them, or take the short snippet, which needs the gradients of the weights alone."
        )
    x, y = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))
    if not model.built:
        model(x, training=False)
    recorder = Recorder(model, loss)
    seen, gradients, of_weights = PASSES[backend](recorder, x, y)
    report = recorder.report(seen, gradients, of_weights, step)
    if path is not None:
        with open(path, "w") as file:
            json.dump(report, file, indent=1)
    return report


class Recorder:
    """Runs the model with every layer's output h replaced by h + 0, so that the gradient of that 0 is ∂E/∂h."""

    def __init__(self, model, loss):
        self.model, self.loss = model, keras.losses.get(loss)
        self.variables, self.state = model.trainable_variables, model.non_trainable_variables
        name = getattr(self.loss, "__name__", type(self.loss).__name__)
        self.crossentropy = name.replace("_", "").lower() in CROSSENTROPIES
        self.from_logits = bool(getattr(self.loss, "from_logits", False))
        self.scale = None
        if getattr(model, "optimizer", None) is not None:
            self.scale = float(keras.ops.convert_to_numpy(model.optimizer.scale_loss(keras.ops.ones(()))))

    def run(self, weights, state, x, y, zero, may_see=lambda h: True):
        """E (scaled as the optimiser scales it) and what was seen: {"loss", "outputs", "masks", "out_of_range"}.

        `zero(i, h)` gives the zeros that are added to the i-th output h, or None for none. `rows` and `series` say what it is.
        """
        self.rows, self.series, self.notes, self.made_by, self.stack = [], [], [], {}, []
        self.cells, self.zeros_of = {}, {}
        self.outputs, self.masks, self.quiet, self.unit, self.autocast = [], [], False, -1, ""
        self.zero, self.may_see, self.classes = zero, may_see, None
        mapping = [*zip(self.variables, weights, strict=True), *zip(self.state, state, strict=True)]
        for part in keras.tree.flatten(x):
            if floating(part):
                self.rows.append(self.row("input", "input", "", len(self.outputs)))
                self.outputs.append(part)
                self.zero(len(self.outputs) - 1, part)
        with contextlib.ExitStack() as patches:
            patches.enter_context(keras.StatelessScope(state_mapping=mapping, collect_losses=True))
            self.patch(patches)
            prediction = self.model(x, training=True)
            own = self.model.losses
            top = self.made_by.get(id(prediction))
            if top is not None:
                name = getattr(self.loss, "name", None) or getattr(self.loss, "__name__", "loss")
                top[0]["into"].append("cross_entropy" if self.crossentropy and self.from_logits else name)
            loss = keras.ops.mean(self.loss(y, prediction))
            if own:
                self.note("The regularisers of the model are part of the loss.")
            loss = sum((keras.ops.cast(keras.ops.sum(part), loss.dtype) for part in own), loss)
        out_of_range = None
        if self.crossentropy and keras.ops.is_tensor(prediction):
            self.classes = prediction.shape[-1] if prediction.ndim > 1 else None
            if not self.from_logits:
                out_of_range = keras.ops.any(prediction < 0) | keras.ops.any(prediction > 1.001)
        total = loss if self.scale is None else loss * self.scale
        return total, {"loss": loss, "outputs": self.outputs, "masks": self.masks, "out_of_range": out_of_range}

    # While the network runs

    def patch(self, patches):
        self.call_layer, self.call_operation = keras.Layer.__call__, keras.Operation.__call__
        replace(patches, keras.Layer, "__call__", lambda layer, *args, **kwargs: self.layer(layer, args, kwargs))
        replace(patches, keras.Operation, "__call__", lambda node, *args, **kwargs: self.node(node, args, kwargs))
        for module in (keras.ops, keras.activations):
            for name, function in list(vars(module).items()):
                if spelled(name) in ACTIVATIONS | WATCHED | SINGULAR and callable(function):
                    replace(patches, module, name, functools.partial(self.function, spelled(name), function))

    def layer(self, layer, args, kwargs):
        """A layer is called: its kind, what stands within it, and its output."""
        if id(layer) in self.zeros_of:
            return self.cell(layer, args, kwargs)
        if id(layer) in self.cells:
            return self.time_step(layer, args, kwargs)
        if self.quiet:
            return self.call_layer(layer, *args, **kwargs)
        kind, above = kind_of(layer), self.stack[-1] if self.stack else None
        self.takes(type(layer).__name__, args, kwargs)
        if above is not None:
            above["composed"] = True
            if above["kind"] in WEIGHTED and getattr(above["layer"], "activation", None) is layer:
                args = (self.before_activation(above, args[0]), *args[1:])
        here = {"layer": layer, "kind": kind, "name": layer.path or layer.name, "composed": False, "done": False}
        if layer.compute_dtype != layer.variable_dtype and "float16" in layer.compute_dtype:
            self.autocast = layer.compute_dtype
        self.stack.append(here)
        with contextlib.ExitStack() as patches:
            patches.callback(self.stack.pop)
            if getattr(layer, "_remat_mode", None) is not None:
                replace(patches, layer, "_remat_mode", None)  # the same numbers, and they can be seen
            recurrent = isinstance(layer, keras.layers.RNN)
            if recurrent:
                self.over_time(patches, here)
            function = vars(layer).get("activation")
            if callable(function) and not isinstance(function, keras.Layer) and not recurrent and kind != "activation":
                name = spelled(getattr(function, "__name__", ""))
                if name != "linear":
                    within = functools.partial(self.activation, here, name, function)
                    replace(patches, layer, "activation", within)
            output = self.call_layer(layer, *args, **kwargs)
        if here["done"] or (not self.stack and here["composed"]):
            return output
        parts = output if isinstance(output, tuple | list) and len(output) else [output]
        first = self.layer_output(here, parts[0], kwargs)
        return first if parts[0] is output else type(output)([first, *parts[1:]])

    def layer_output(self, here, output, kwargs):
        layer, kind, name = here["layer"], here["kind"], here["name"]
        if not keras.ops.is_tensor(output):
            return output
        if kind == "activation":
            return self.add(name, *self.named(layer_function(layer), output), output)
        if kind in WEIGHTED:
            self.unit = unit_axis(layer)
        if kind == "embedding" and kwargs.get("reverse"):
            kind = "linear"  # the output layer that shares the embedding's weights
        if kind or not here["composed"]:
            # a layer of one's own that has a matrix is seen as a whole
            own = any(len(w.shape) > 1 for w in layer.trainable_weights)
            return self.add(name, kind or ("block" if own else "operation"), "", output, kept=bool(kind or own))
        before, _ = self.made_by.get(id(output), (None, None))
        wraps = before is not None and before["kept"] and before["kind"] != "norm"
        if not wraps or (before["kind"] == "activation" and not isinstance(layer, keras.Sequential)):
            return self.add(name, "block", "", output)
        return output

    def activation(self, here, name, function, *args, **kwargs):
        """The activation that a layer brings along: what goes in is the layer's linear output."""
        if self.quiet:
            return function(*args, **kwargs)
        if here["kind"] in WEIGHTED:
            args = (self.before_activation(here, args[0]), *args[1:])
        return self.function(name, function, *args, **kwargs)

    def before_activation(self, here, x):
        here["done"] = True
        self.unit = unit_axis(here["layer"])
        return self.add(here["name"], here["kind"], "", x)

    def function(self, name, function, *args, **kwargs):
        """A function from keras.ops or keras.activations, called by a layer or by the loss."""
        if self.quiet:
            return function(*args, **kwargs)
        self.takes(name, args, kwargs)
        with self.silence():
            output = function(*args, **kwargs)
        if not keras.ops.is_tensor(output) or (name == "detach" and not self.stack):
            return output
        kind, name = self.named(name, output)
        where = self.stack[-1]["name"] if self.stack else "the loss"
        return self.add(where, kind, name, output, kept=name not in SINGULAR)

    def node(self, node, args, kwargs):
        """A node of a functional model that is no layer: an addition, an operation from keras.ops."""
        if self.quiet or isinstance(node, keras.Layer):
            return self.call_operation(node, *args, **kwargs)
        name = spelled(re.sub(r"(?<!^)(?=[A-Z])", "_", type(node).__name__).lower())
        self.takes(name, args, kwargs)
        output = self.call_operation(node, *args, **kwargs)
        if not keras.ops.is_tensor(output):
            return output
        if name in ACTIVATIONS | WATCHED:
            return self.add(node.name, *self.named(name, output), output)
        block = name == "add" and len(args) > 1 and all(getattr(a, "shape", 0) == output.shape for a in args[:2])
        return self.add(node.name, "block" if block else "operation", "" if block else name, output, kept=block)

    def named(self, name, output):
        if name == "softmax" and output.shape[-1] == 1:
            return "operation", "softmax_of_one"
        return "operation" if name in WATCHED | SINGULAR else "activation", name

    def takes(self, name, args, kwargs):
        for x in keras.tree.flatten((args, kwargs)):
            row, _ = self.made_by.get(id(x), (None, None))
            if row is not None and len(row["into"]) < 3:
                row["into"].append(name)

    def row(self, name, kind, function, at, kept=True):
        """`at` is the number of the output; a row that is not kept is written only if it is not finite."""
        row = {"name": name, "kind": kind, "function": function, "into": []}
        return row | {"at": at, "kept": kept, "unit": self.unit}

    def add(self, name, kind, function, output, kept=True):
        """Writes the row down and gives the output in which the gradient can be seen."""
        if not floating(output):
            if function in WATCHED:
                self.rows.append(self.row(name, kind, function, None))
            return output
        if not self.may_see(output):
            self.note(f"{name}: within a loop or a rematerialised part; not seen.")
            return output
        row = self.row(name, kind, function, len(self.outputs), kept)
        self.rows.append(row)
        output = self.plus_zero(output)
        self.made_by[id(output)] = (row, output)
        return output

    def plus_zero(self, h):
        self.outputs.append(h)
        zero = self.zero(len(self.outputs) - 1, h)
        if zero is None:
            return h
        mask, h = get_keras_mask(h), h + zero
        if mask is not None:
            set_keras_mask(h, mask)
        return h

    def over_time(self, patches, here):
        """Zeros for each state at each time step, as further columns of the input that the cell takes off again."""
        layer, name = here["layer"], here["name"]
        cells = getattr(layer.cell, "cells", [layer.cell])
        sizes = [sum(keras.tree.flatten(getattr(cell, "state_size", 0))) for cell in cells]
        loop, known = layer.inner_loop, all(isinstance(cell, keras.Layer) for cell in cells)

        def with_zeros(sequences, initial_state, mask, training=False):
            if not known or getattr(sequences, "ndim", 0) != 3 or not self.may_see(sequences):
                self.note(f"{name}: its gradient over time was not seen.")
                return loop(sequences, initial_state, mask, training)
            at, columns = len(self.outputs), 0
            self.outputs.append(keras.ops.zeros((*sequences.shape[:2], sum(sizes)), sequences.dtype))
            zero = self.zero(at, self.outputs[at])
            zero = self.outputs[at] if zero is None else zero
            for cell, size in zip(cells, sizes, strict=True):
                called = name if len(cells) == 1 else f"{name}/{cell.name}"
                steps = {"name": called, "at": at, "columns": slice(columns, columns + size), "mask": None}
                self.series.append(steps | {"back": layer.go_backwards})
                columns += size
                if mask is not None:
                    self.series[-1]["mask"] = len(self.masks)
            if mask is not None:
                self.masks.append(keras.ops.any(keras.ops.cast(mask, "bool"), axis=0))
            self.cells[id(layer.cell)] = (cells, sizes)
            try:
                return loop(keras.ops.concatenate([sequences, zero], axis=-1), initial_state, mask, training)
            finally:
                del self.cells[id(layer.cell)]

        patches.enter_context(self.silence())
        replace(patches, layer, "inner_loop", with_zeros)
        if hasattr(layer, "use_cudnn"):
            replace(patches, layer, "use_cudnn", False)

    def time_step(self, layer, args, kwargs):
        """The cell of a recurrent layer is called, or several that are stacked."""
        cells, sizes = self.cells[id(layer)]
        x, at = args[0][..., : -sum(sizes)], args[0].shape[-1] - sum(sizes)
        for cell, size in zip(cells, sizes, strict=True):
            self.zeros_of[id(cell)] = args[0][..., at : at + size]
            at += size
        if cells[0] is layer:
            return self.cell(layer, (x, *args[1:]), kwargs)
        return self.call_layer(layer, x, *args[1:], **kwargs)

    def cell(self, layer, args, kwargs):
        """The output of a cell is one of its states, so that a zero in the state is one in the output."""
        output, states = self.call_layer(layer, *args, **kwargs)
        zero, at, new = self.zeros_of.pop(id(layer)), 0, {}
        for state in keras.tree.flatten(states):
            new[id(state)] = state + keras.ops.cast(zero[..., at : at + state.shape[-1]], state.dtype)
            at += state.shape[-1]
        return keras.tree.map_structure(lambda part: new.get(id(part), part), (output, states))

    @contextlib.contextmanager
    def silence(self):
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def note(self, sentence):
        if sentence not in self.notes:
            self.notes.append(sentence)

    # Afterwards

    def report(self, seen, gradients, of_weights, step):
        seen = seen | {"outputs": [array(x) for x in seen["outputs"]]}
        gradients = [None if g is None else array(g) for g in gradients]
        norms = [None if g is None else norm(g) for g in gradients]
        calls, layers, time = {}, [], []
        for row in self.rows:
            at, kept, unit = row.pop("at"), row.pop("kept"), row.pop("unit")
            row["into"] = ", ".join(row["into"])
            if at is not None:
                measure(row, seen["outputs"][at], unit)
                if norms[at] is not None and row["kind"] != "input":
                    row["gradient"], row["gradient_nonfinite"] = norms[at], nonfinite(gradients[at])
                if not kept:
                    row = {key: row[key] for key in row if key not in ("rms", "mean", "deviation", "gradient")}
                    if not (row["nonfinite"] or row.get("gradient_nonfinite")):
                        continue
            calls.setdefault((row["name"], row["kind"], row["function"]), []).append((row, at))
            layers.append(row)
        for (name, kind, _), rows in calls.items():
            if kind in WEIGHTED and len(rows) >= 8:  # one layer, called again and again: a loop over time
                time.append({"name": name, "gradient": [number(norms[at]) for _, at in rows]})
                layers = [row for row in layers if row["name"] != name or row["kind"] != kind]
        for row in self.series:
            g = gradients[row["at"]]
            steps = range(seen["outputs"][row["at"]].shape[1])
            if row["mask"] is not None:
                used = keras.ops.convert_to_numpy(seen["masks"][row["mask"]])
                if not used.all():
                    self.note(f"{row['name']}: time steps that are masked in every input of the batch are left out.")
                steps = [t for t in steps if used[t]]
            over = [None if g is None else number(norm(g[:, t, row["columns"]])) for t in steps]
            time.append({"name": row["name"], "gradient": over[::-1] if row["back"] else over})
        if seen["out_of_range"] is not None and bool(keras.ops.convert_to_numpy(seen["out_of_range"])):
            self.note("The loss takes probabilities and the output has none: add a softmax, or from_logits=True.")
        if self.autocast == "float16" and self.scale in (None, 1.0):
            self.note("The loss was not scaled; with float16 compile() the model: its optimiser has the scale.")
        of_weights = [None if g is None else norm(array(g)) for g in of_weights]
        of_weights = {id(v): g for v, g in zip(self.variables, of_weights, strict=True)}
        parameters = [
            {
                "name": v.path,
                "shape": list(v.shape),
                "dtype": keras.backend.standardize_dtype(v.dtype),
                "trainable": id(v) in of_weights,
                "weight": number(norm(array(v.value))),
                "gradient": number(of_weights.get(id(v))),
            }
            for v in self.model.weights
        ]
        backend = keras.backend.backend()
        return {
            "version": 1,
            "framework": f"Keras {keras.__version__} on {backend} {__import__(backend).__version__}",
            "step": step,
            "scale": self.scale,
            "loss": number(array(seen["loss"])),
            "classes": self.classes,
            "mode": "train",
            "autocast": self.autocast,
            "layers": [{key: plain(value) for key, value in row.items()} for row in layers],
            "parameters": parameters,
            "time": time,
            "notes": self.notes,
        }


# The backends: (recorder, x, y) → what was seen, ∂E/∂h of each output, ∂E/∂W of each trainable variable; None: not connected


def by_jax(recorder, x, y):
    import jax

    def run(differentiated, state, x, y, zeros=True):
        weights, zero = differentiated
        levels = {getattr(leaf, "_trace", None) for leaf in jax.tree.leaves((differentiated, state, x, y))} | {None}
        zero_of = (lambda i, h: zero[i]) if zeros else (lambda i, h: None)
        return recorder.run(weights, state, x, y, zero_of, lambda h: getattr(h, "_trace", None) in levels)

    weights, state = ([v.value for v in variables] for variables in (recorder.variables, recorder.state))
    shapes = jax.eval_shape(lambda *args: run(*args, zeros=False)[1]["outputs"], (weights, []), state, x, y)
    zeros = [jax.numpy.zeros(shape.shape, shape.dtype) for shape in shapes]
    inputs = ((weights, zeros), state, x, y)
    traced = jax.jit(jax.value_and_grad(run, has_aux=True)).trace(*inputs)
    quick = {"xla_backend_optimization_level": 0}  # it runs once: what counts is the time to compile
    (_, seen), gradients = traced.lower().compile(compiler_options=quick)(*inputs)
    # JAX gives 0 for what is not connected: a 0 that depends on no number that went in
    graph = traced.jaxpr.jaxpr
    reached = set(graph.invars)
    for equation in graph.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    connected = [not hasattr(v, "val") and v in reached for v in graph.outvars]
    _, connected = jax.tree.unflatten(jax.tree.structure(traced.out_info), connected)
    of_weights, of_outputs = (
        [g if is_connected or np.any(array(g)) else None for g, is_connected in zip(*parts, strict=True)]
        for parts in zip(gradients, connected, strict=True)
    )
    return seen, of_outputs, of_weights


def by_torch(recorder, x, y):
    import torch

    zeros = []

    def zero(_, h):
        zeros.append(torch.zeros_like(h, requires_grad=True))
        return zeros[-1]

    buffers = [(b, b.clone()) for b in recorder.model.buffers()]  # of PyTorch modules within the model
    weights = [v.value if v.value.requires_grad else v.value.detach().requires_grad_() for v in recorder.variables]
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            total, seen = recorder.run(weights, [v.value for v in recorder.state], x, y, zero)
            gradients = [None] * len(zeros + weights)
            if total.requires_grad:
                gradients = torch.autograd.grad(total, zeros + weights, allow_unused=True)
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
    return seen, gradients[: len(zeros)], gradients[len(zeros) :]


PASSES = {"jax": by_jax, "torch": by_torch}


# Layers and their names


def kind_of(layer):
    for cls in type(layer).__mro__:
        for kind, name in KINDS.items():
            if cls.__module__.startswith("keras.") and name.fullmatch(cls.__name__):
                return kind
    return ""


def unit_axis(layer):
    return 1 if getattr(layer, "data_format", "") == "channels_first" else -1


def layer_function(layer):
    name = type(layer).__name__
    if name == "ReLU":
        return "relu6" if layer.max_value is not None else "leaky_relu" if layer.negative_slope else "relu"
    if hasattr(layer, "activation"):
        return spelled(getattr(layer.activation, "__name__", ""))
    return spelled(name)


def spelled(name):
    return SPELLED.get(name, name)


def replace(patches, owner, name, value):
    """Until `patches` closes."""
    own = name in vars(owner)
    patches.callback(*((setattr, owner, name, getattr(owner, name)) if own else (delattr, owner, name)))
    setattr(owner, name, value)


# Numbers


def floating(x):
    return keras.ops.is_tensor(x) and "float" in keras.backend.standardize_dtype(x.dtype)


def array(x):
    """The tensor as a NumPy array of float32 or float64."""
    exact = keras.backend.standardize_dtype(x.dtype) in ("float32", "float64")
    return np.asarray(keras.ops.convert_to_numpy(x if exact else keras.ops.cast(x, "float32")))


def norm(x):
    """The norm, in double precision: the square of 1e-30 is not 0."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))


def nonfinite(x):
    return int(np.size(x) - np.isfinite(x).sum())


def number(value):
    """A number for JSON, which has none that is not finite."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else str(value)


def plain(value):
    return value if isinstance(value, str | list | int) else number(value)


def measure(row, x, unit):
    """What is known of an output; `unit` is the axis of the channels, 1 or -1."""
    row["shape"], row["nonfinite"] = list(x.shape), nonfinite(x)
    if x.size == 0:
        return
    if x.size > SAMPLE and x.ndim > 1:
        x = x[: max(16, x.shape[0] * SAMPLE // x.size)]
    row["inputs"] = x.shape[0] if x.ndim > 1 else 1
    whole, unit = x, 1 if unit == 1 and x.ndim > 2 else x.ndim - 1
    if x.size > SAMPLE and x.ndim > 3:
        across = x.ndim - 2 if unit > 1 else x.ndim - 1  # of an image's columns some
        x = x.take(range(0, x.shape[across], math.ceil(x.size / SAMPLE)), axis=across)
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        square = np.square(x)
        row["rms"], row["mean"] = np.sqrt(square.mean()), x.mean()
        if x.ndim > 1 and x.shape[0] > 1:
            row["deviation"] = np.sqrt(x.var(0).mean()) / row["rms"]
        if row["kind"] != "activation":
            return
        row["zeros"], function = (x == 0).mean(), row["function"]
        if x.ndim > 1:
            row["dead"] = (whole == 0).all(axis=tuple(d for d in range(x.ndim) if d != unit)).mean()
        if function == "relu":
            row["slope"] = 1 - row["zeros"]
        elif function == "sigmoid":
            row["slope"], row["saturated"] = np.square(x * (1 - x)).mean(), (abs(x - 0.5) > 0.49).mean()
        elif function == "tanh":
            row["slope"], row["saturated"] = np.square(1 - square).mean(), (abs(x) > 0.98).mean()
        elif function in ("hardtanh", "hardsigmoid", "relu6"):
            row["saturated"] = ((x == x.max()) | (x == x.min())).mean()
