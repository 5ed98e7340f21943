"""Records the signal and the gradient of one training step, layer by layer, for JAX. Put this file beside your code.

    from record_jax import record

    record(loss, params, x, y, path="report.json", step=0)  # loss(params, x, y), a number; params of Linen or your own
    record(loss, model, x, y, path="report.json", step=0)  # loss(model, x, y), with a model of Flax NNX

The report holds numbers and names, none of your data or weights. Needs JAX and NumPy alone. The loss is traced and computed
once, forward and back (a second time with every operation, if something is not finite); parameters and model do not change.
Not seen: what happens in `cond`, `while_loop` and functions with an own derivative rule, other than named activations.
"""

import functools
import itertools
import json
import math
import operator
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jax.interpreters import partial_eval

ACTIVATIONS = "relu relu6 leaky_relu elu selu celu gelu silu mish sin tanh sigmoid softplus squareplus".split()
ACTIVATIONS = dict(zip(ACTIVATIONS, ACTIVATIONS, strict=True))
ACTIVATIONS |= {"logistic": "sigmoid", "swish": "silu", "hard_tanh": "hardtanh", "hard_sigmoid": "hardsigmoid"}
ACTIVATIONS |= {
    "hard_silu": "hardswish",
    "hard_swish": "hardswish",
    "log_sigmoid": "logsigmoid",
    "soft_sign": "softsign",
}
WATCHED = {"sign", "round", "floor", "ceil", "argmax", "argmin", "detach", "softmax", "softmax_of_one"}
CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}  # what they call is looked into
SAME = "reshape transpose convert_element_type broadcast_in_dim squeeze expand_dims copy copy_p slice dynamic_slice"
SAME = {*SAME.split(), "reduce_precision", "sharding_constraint", "pvary"}  # the same numbers, or some of them
ADDED = {"add", "mul", "add_any"}


def inexact(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def floating(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def union(bits):
    return functools.reduce(operator.or_, bits, 0)


class Value(NamedTuple):
    """A value on its way through the network, and what is known of it."""

    x: Any
    source: tuple | None = None  # the parameter that it is, and the index in it
    data: bool = False  # depends on the batch
    needs: int = 0  # a bit for each parameter and output that it depends on, so that a gradient passes
    maker: dict | None = None  # the row of the output that it is
    layer: tuple = (-1, "")  # the last weighted layer before it
    unit: int | None = None  # the axis of the units, if not the last
    mark: tuple | None = None  # a part of a function that is written out: a softmax, a norm, GELU


@jax.custom_vjp
def tap(x, seen):
    """x; the gradient with respect to `seen` is (norm of ∂E/∂x, how many of its numbers are not finite)."""
    return x


tap.defvjp(lambda x, seen: (x, seen), lambda seen, g: (g, jnp.stack([norm(g), nonfinite(g)]).astype(seen.dtype)))


def norm(x):
    """|x| without under- or overflow of the squares."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(x), initial=0.0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.where(scale == largest, scale * jnp.sqrt(jnp.sum((x / scale) ** 2)), largest)


def nonfinite(x):
    return jnp.sum(~jnp.isfinite(x))


def statistics(row, x):
    """What the report says of an output; the first axis is the batch, the last one the units."""
    x = np.asarray(x).astype(np.float64)
    found = {"nonfinite": np.sum(~np.isfinite(x))}
    if x.size == 0:
        return found
    found |= {"rms": np.sqrt(np.mean(x**2)), "mean": x.mean()}
    if x.ndim > 1 and x.shape[0] > 1:
        found["deviation"] = np.sqrt(x.var(0).mean()) / found["rms"]
    if row["kind"] != "activation":
        return found
    function, off = row["function"], x == 0
    found["zeros"] = off.mean()
    if x.ndim > 1:
        found["dead"] = off.all(axis=tuple(range(x.ndim - 1))).mean()
    if function == "relu":
        found["slope"] = 1 - found["zeros"]
    elif function == "sigmoid":
        found |= {"slope": np.mean((x * (1 - x)) ** 2), "saturated": np.mean(np.abs(x - 0.5) > 0.49)}
    elif function == "tanh":
        found |= {"slope": np.mean((1 - x**2) ** 2), "saturated": np.mean(np.abs(x) > 0.98)}
    elif function in ("hardtanh", "hardsigmoid", "relu6"):
        found["saturated"] = np.mean((x == x.max()) | (x == x.min()))
    return found


class Pass:
    """The loss, computed equation by equation; each output of a layer goes through a tap."""

    def __init__(self, owners, batch, everything, taps=None):
        self.owners, self.batch, self.everything, self.taps = owners, batch, everything, taps
        self.rows, self.slots, self.used, self.notes, self.classes, self.formats = [], [], {}, [], None, set()
        self.bit, self.calls, self.trained, self.timed = len(owners), 0, (1 << len(owners)) - 1, False

    def run(self, jaxpr, consts, values, watch=frozenset()):
        """The values of the outputs; those of the variables in `watch` are the state of a loop."""
        known = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))

        def read(atom):
            if isinstance(atom, Literal):
                return Value(atom.val, mark=("zero",) if np.ndim(atom.val) == 0 and atom.val == 0 else None)
            return known[atom]

        states = {v for equation in jaxpr.eqns for v in equation.outvars} & set(watch)
        waiting = set(states)
        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            outputs, opened = self.compute(equation, values, watch)
            known.update(zip(equation.outvars, outputs, strict=True))
            last = waiting and waiting <= set(equation.outvars)
            waiting -= set(equation.outvars)
            if last and not (opened and states <= set(equation.outvars)):
                for v in states:  # what comes after the last of them is computed from them
                    state = self.add("", "carry", "", known[v])
                    known[v] = known[v]._replace(x=state.x, needs=state.needs)
        return [read(atom) for atom in jaxpr.outvars]

    def compute(self, equation, values, watch):
        """The outputs of an equation, and whether what it calls was looked into."""
        primitive, parameters = equation.primitive, equation.params
        inner = parameters.get("jaxpr", parameters.get("call_jaxpr"))
        name = parameters.get("name", "") if primitive.name in CALLS else ""
        if primitive.name == "custom_jvp_call":  # its name is that of the one function within
            within = getattr(inner, "jaxpr", inner).eqns
            name = within[0].params.get("name", "") if len(within) == 1 else ""
        if primitive.name == "scan":
            return self.scan(parameters, values), False
        if primitive.name in CALLS and name not in ACTIVATIONS:
            consts = [Value(c, data=not self.batch) for c in getattr(inner, "consts", ())]
            inner = getattr(inner, "jaxpr", inner)
            pairs = (
                zip(inner.outvars, equation.outvars, strict=True) if watch and watch <= set(equation.outvars) else ()
            )
            within = {a for a, b in pairs if b in watch and not isinstance(a, Literal)}
            return self.run(inner, consts, values, within), True
        bind = primitive.get_bind_params(parameters)
        functions, bind = bind if isinstance(bind, tuple) else ((), bind)  # the former before JAX 0.9 or so
        results = primitive.bind(*functions, *(v.x for v in values), **bind)
        results = list(results) if primitive.multiple_results else [results]
        if primitive.name in ("cond", "while") and any(v.needs & self.trained for v in values):
            self.notes.append(f"What happens in a {primitive.name} was not seen.")
        function = name or primitive.name
        for v in values:
            if v.source is not None and function not in SAME:
                self.used.setdefault(v.source[0], (len(self.used), function))
            if v.maker is not None and function not in SAME and len(v.maker["into"]) < 3:
                v.maker["into"].append(function)
        data = any(v.data for v in values)
        sourced = [v for v in values if v.source is not None]
        known = Value(
            None,
            source=max(sourced, key=lambda v: jnp.size(v.x)).source if sourced and not data else None,
            data=data,
            needs=0 if function == "stop_gradient" else union(v.needs for v in values),
            layer=max(v.layer for v in values) if values else (-1, ""),
        )
        outputs = [known._replace(x=x) if inexact(x) else known._replace(x=x, needs=0, source=None) for x in results]
        if len(outputs) == 1:
            outputs = [self.recognise(function, parameters, values, outputs[0])]
        return outputs, False

    def recognise(self, function, parameters, values, out):
        """The output, through a tap if it is one of a layer."""
        first, shape = values[0] if values else out, jnp.shape(out.x)
        name = out.layer[1] or "(the network)"
        depends = any(v.needs & self.trained for v in values)
        sources = [v for v in values if v.source is not None]
        marks = [v.mark[0] if v.mark else "" for v in values]
        if function in SAME or (function == "stop_gradient" and first.mark):
            same = out._replace(maker=first.maker, mark=first.mark)
            if function == "slice" and first.source and shape and shape[0] == 1 < first.x.shape[0]:
                at = first.source
                same = same._replace(source=(at[0], f"{at[1]}.{parameters['start_indices'][0]}"))
            return same
        if function in ("argmax", "argmin", "stop_gradient") and depends:
            self.rows.append(empty(name, "operation", "detach" if function == "stop_gradient" else function))
            return out
        if not floating(out.x):
            return out
        if first.unit is not None and shape == jnp.shape(first.x):
            out = out._replace(unit=first.unit)
        if function == "dot_general" and len(sources) == 1:
            (contracted, _), (batched, _) = parameters["dimension_numbers"]
            free = first.x.ndim - len(contracted) - len(batched)
            unit = len(batched) if first is sources[0] and free == 1 else None
            return self.weighted(sources[0], "linear", out._replace(unit=unit))
        if function == "conv_general_dilated" and values[1].source is not None:
            return self.weighted(values[1], "conv", out._replace(unit=parameters["dimension_numbers"].out_spec[1]))
        if function == "gather" and first.source is not None and values[1].x.size > values[1].x.shape[-1]:
            return self.weighted(first, "embedding", out)
        if function in ADDED and len(values) == 2:
            for v, other in (values, values[::-1]):
                row = v.maker
                if (
                    row
                    and other.source
                    and shape == jnp.shape(v.x)
                    and row["kind"] in ("linear", "conv", "embedding", "norm")
                ):
                    if row["kind"] == "norm":
                        row["name"] = self.owner(other)
                    elif function == "mul":
                        continue
                    return self.see(row, out)  # with its bias, or its scale
                if row and row["kept"] and function != "mul" and len(shape) > 1 and other.needs & row["bit"]:
                    if other.layer > v.layer and other.data and shape == jnp.shape(v.x) == jnp.shape(other.x):
                        return self.add(other.layer[1].rpartition(".")[0] or other.layer[1], "block", "", out)
        zero = function == "max" and "zero" in marks and "reduced" not in marks
        out = self.marked(function, parameters, values, marks, out)
        if type(out.mark) is dict:
            return self.add(**out.mark, output=out)
        if depends and (zero or function in ACTIVATIONS) and not (out.mark and out.mark[0] == "gate"):
            return self.add(name, "activation", "relu" if zero else ACTIVATIONS[function], out)
        if depends and function in WATCHED:
            return self.add(name, "operation", function, out)
        if depends and self.everything:
            seen = self.add(name, "operation", function, out, kept=False)
            return seen._replace(source=out.source, mark=out.mark)
        return out

    def marked(self, function, parameters, values, marks, out):
        """The output with the mark of a function that is written out; a finished one's mark is the row that it gets."""
        mark, name = None, out.layer[1] or "(the network)"
        held = next((v.mark for v in values if v.mark), ("",))
        if function == "reduce_max" and len(parameters["axes"]) == 1:
            mark = ("max", values[0].x.shape[parameters["axes"][0]], values[0].maker)
        elif function in ("max", "select_n", "stop_gradient") and "max" in marks:
            mark = values[marks.index("max")].mark
        elif function == "sub" and marks[1] == "max":
            mark = ("shifted", *values[1].mark[1:])
        elif function == "exp" and held[0] == "shifted":
            mark = ("exp", *held[1:])
        elif function == "reduce_sum":
            mark = ("sum", *held[1:]) if held[0] == "exp" else ("reduced",)
        elif function == "abs" and held[0] == "sum":
            mark = held
        elif function == "log" and held[0] == "sum":
            self.classes = held[1]
            if held[2] is not None and held[2]["function"] == "softmax":
                held[2]["into"] = ["cross_entropy"]
            if held[1] == 1:
                mark = {"name": name, "kind": "operation", "function": "softmax_of_one"}
        elif function == "div" and marks == ["exp", "sum"]:
            one = "softmax_of_one" if held[1] == 1 else "softmax"
            mark = {"name": name, "kind": "operation", "function": one}
        elif function in ("rsqrt", "sqrt") and jnp.ndim(out.x):
            mark = (function,)
        elif (function == "mul" and "rsqrt" in marks) or (function == "div" and marks[1] == "sqrt"):
            one = marks.index("rsqrt" if function == "mul" else "sqrt")
            other, scale = values[1 - one], values[one].mark
            if other.source is not None:
                mark = ("rsqrt", self.owner(other))
            elif other.data and marks[1 - one] in ("", "reduced"):
                mark = {"name": scale[1] if len(scale) > 1 else name, "kind": "norm", "function": ""}
        elif function == "integer_pow" and parameters["y"] == 3:
            mark = ("cube",)
        elif function in ("erf", "erfc") or (function == "tanh" and held[0] == "cube"):
            mark = ("gate",)
        elif function == "mul" and "gate" in marks and all(jnp.ndim(v.x) for v in values):
            mark = {"name": name, "kind": "activation", "function": "gelu"}
        elif function in ("add", "sub", "mul", "div", "neg", "square", "max"):
            varying = [mark for v, mark in zip(values, marks, strict=True) if jnp.ndim(v.x)]
            if held[0] in ("cube", "gate") or (held[0] == "reduced" and all(mark == "reduced" for mark in varying)):
                mark = held
        return out._replace(mark=mark)

    def scan(self, parameters, values):
        """A loop: over time, or over layers if each turn has its own part of a parameter."""
        consts, carries = parameters["num_consts"], parameters["num_carry"]
        body, start, others = parameters["jaxpr"], values[consts : consts + carries], values[consts + carries :]
        loop, again = empty("", "loop", ""), 1 << self.bit
        self.bit += 1
        depth = any(v.source is not None for v in others)
        loop |= {"depth": depth, "rows": [], "slot": len(self.slots), "slots": [], "backwards": parameters["reverse"]}
        loop["length"], ends = parameters["length"], []
        outside = self.rows, self.slots, self.taps, self.timed
        self.timed = self.timed or not depth

        def turn(carry, each):
            loop["rows"], loop["slots"] = [], []
            self.rows, self.slots, self.taps = loop["rows"], loop["slots"], each[1]
            inside = [v._replace(maker=None, mark=None) for v in values]
            for i, x in enumerate((*carry, *each[0])):
                v = inside[consts + i]._replace(x=x, unit=None)
                if i < carries:
                    v = v._replace(source=None, data=True, needs=v.needs | again)
                inside[consts + i] = v
            states = (v for v in body.jaxpr.outvars[:carries] if not isinstance(v, Literal))
            watch = {v for v in states if v.aval.shape and floating(v.aval)}
            ends[:] = self.run(body.jaxpr, [Value(c) for c in body.consts], inside, watch)
            return [v.x for v in ends[:carries]], ([v.x for v in ends[carries:]], measured(loop["rows"]))

        xs = [v.x for v in others], None if self.taps is None else self.taps[loop["slot"]]
        carry, (ys, found) = jax.lax.scan(
            turn, [v.x for v in start], xs, length=parameters["length"], reverse=parameters["reverse"]
        )
        self.rows, self.slots, self.taps, self.timed = outside
        fill(loop["rows"], found)
        self.rows.append(loop)
        self.slots.append(loop)
        every = union(v.needs for v in ends[:carries])
        return [
            Value(x, data=True, needs=(v.needs | (every if v.needs & again else 0)) & ~again, layer=v.layer)
            for x, v in zip((*carry, *ys), ends, strict=True)
        ]

    def owner(self, value):
        index, within = value.source
        return self.owners[index] + within

    def weighted(self, weight, kind, out):
        self.classes, self.calls = None, self.calls + 1
        self.formats.add(str(out.x.dtype))
        name = self.owner(weight)
        return self.add(name, kind, "", out._replace(layer=(self.calls, name)))

    def add(self, name, kind, function, output, kept=True):
        self.rows.append(empty(name, kind, function, kept))
        return self.see(self.rows[-1], output)

    def see(self, row, v):
        row |= {"bit": 1 << self.bit, "into": [], "shape": list(jnp.shape(v.x))}
        x = jax.lax.stop_gradient(v.x)
        if self.timed or not row["kept"] or row["kind"] == "carry":
            row["stats"] = {"nonfinite": nonfinite(x)}
        else:
            row["stats"] = {"x": x if v.unit is None else jnp.moveaxis(x, v.unit, -1)}
        batch = 1 if v.unit == 0 else 0
        row["inputs"] = row["shape"][batch] if len(row["shape"]) > 1 else 1
        self.bit += 1
        x = v.x
        if row["kind"] != "input":
            row["slot"] = len(self.slots)
            self.slots.append(None)
            if self.taps is not None:
                x = tap(x, self.taps[row["slot"]])
        return v._replace(x=x, source=None, data=True, needs=v.needs | row["bit"], maker=row, mark=None)


def empty(name, kind, function, kept=True):
    return {
        "name": name,
        "kind": kind,
        "function": function,
        "kept": kept,
        "into": [],
        "stats": {},
        "slot": None,
        "bit": 0,
    }


def measured(rows):
    return [measured(row["rows"]) if row["kind"] == "loop" else row["stats"] for row in rows]


def fill(rows, found):
    for row, numbers in zip(rows, found, strict=True):
        if row["kind"] == "loop":
            fill(row["rows"], numbers)
        else:
            row["stats"] = numbers


def zeros(slots, turns=()):
    """For each tap two numbers, in a loop for each turn."""
    return [
        jnp.zeros((*turns, 2)) if slot is None else zeros(slot["slots"], (*turns, slot["length"])) for slot in slots
    ]


def listed(rows, found, gradients, reached, time, index=(), suffix="", looped=False):
    """The rows of the report, those of loops over layers turn by turn; what loops over time hold goes to `time`."""
    for row, numbers in zip(rows, found, strict=True):
        if row["kind"] == "loop":
            inner = (row["rows"], numbers, gradients[row["slot"]], reached, time)
            if row["depth"] and not looped:
                for i in range(row["length"])[:: -1 if row["backwards"] else 1]:
                    yield from listed(*inner, (*index, i), f"{suffix}.{i}")
                continue
            states = [r for r in row["rows"] if r["kind"] == "carry" and r["bit"] & reached]
            norms = [np.asarray(inner[2][r["slot"]])[index][..., 0] for r in states]
            norms = [np.sqrt(np.sum(n.astype(float) ** 2, axis=tuple(range(n.ndim - 1)))) for n in norms]
            if norms:
                names = [r["name"].split(".") for r in row["rows"] if r["kind"] in ("linear", "conv")]
                name = common(names) + suffix or "loop"
                series = np.sqrt(sum(n**2 for n in norms))[:: -1 if row["backwards"] else 1]
                time.append({"name": name, "gradient": [number(n) for n in series]})
            yield from listed(*inner, (*index, slice(None)), suffix, True)
            continue
        plain = {key: row[key] for key in ("name", "kind", "function", "shape", "inputs") if key in row}
        plain |= {"name": row["name"] + suffix, "into": ", ".join(row["into"])}
        numbers = {key: np.asarray(value)[index] for key, value in numbers.items()}
        if "x" in numbers:
            with np.errstate(all="ignore"):
                numbers = statistics(row, numbers["x"])
        if row["slot"] is not None and row["bit"] & reached:
            seen = np.asarray(gradients[row["slot"]])[index]
            numbers |= {"gradient": seen[..., 0], "gradient_nonfinite": seen[..., 1]}
        if looped:
            numbers = {key: np.sum(value) for key, value in numbers.items() if "nonfinite" in key}
        bad = any(numbers.get(key, 0) > 0 for key in ("nonfinite", "gradient_nonfinite"))
        if row["kind"] == "carry" or ((looped or not row["kept"]) and not bad and row["function"] not in WATCHED):
            continue
        if not row["kept"]:
            numbers.pop("gradient", None)
        yield plain | {key: number(value) for key, value in numbers.items()}


def number(value):
    """A number for JSON, which has none that is not finite."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def common(names):
    """What the names begin with, all of them."""
    parts = itertools.takewhile(lambda part: len(set(part)) == 1, zip(*names, strict=False))
    return ".".join(part[0] for part in parts)


def size(x):
    return number(np.linalg.norm(np.asarray(x).astype(np.float64)))


def named(paths, leaves):
    """The names of the parameters and those of their layers: a layer is what holds one matrix."""
    parts = [[str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path] for path in paths]
    parts = [p[:-1] if len(p) > 1 and p[-1] in ("value", "raw_value") else p for p in parts]
    sizes = [(tuple(p[:-1]), np.ndim(leaf)) for p, leaf in zip(parts, leaves, strict=True)]
    largest = {parent: max(n for p, n in sizes if p == parent) for parent, _ in set(sizes)}
    alone = [largest[parent] < 2 or sizes.count((parent, largest[parent])) == 1 for parent, _ in sizes]
    owners = [".".join(p[:-1] if one and len(p) > 1 else p) for p, one in zip(parts, alone, strict=True)]
    return [".".join(p) for p in parts], owners


def record(loss, params, *batch, path=None, step=None):
    """The report of one forward and backward pass of loss(params, *batch), a scalar (or a tuple that begins with it).

    `params` is a pytree, or a module of Flax NNX, whose other state is kept as it is. A file is written if a path is given.
    What `loss` raises is not caught; a loss that is no scalar raises TypeError, as from jax.grad.
    """
    nnx = sys.modules.get("flax.nnx")
    state, merge, mode = None, lambda params, state: params, None
    if nnx is not None and isinstance(params, nnx.Module):
        modules = [module for _, module in nnx.iter_modules(params)]
        still = any(getattr(m, a, None) is True for m in modules for a in ("deterministic", "use_running_average"))
        mode = "eval" if still else "train"
        graph, params, state = nnx.split(params, nnx.Param, ...)
        merge = functools.partial(nnx.merge, graph)
    everything, tree = jax.tree_util.tree_flatten_with_path((params, state, batch))
    leaves = [leaf for _, leaf in everything]
    arrays = [
        i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray | np.generic | int | float | complex)
    ]
    trained = [i for i in arrays if everything[i][0][0].idx == 0 and inexact(leaves[i])]
    fixed = [i for i in arrays if i not in set(trained)]
    names, owners = named([everything[i][0][1:] for i in trained], [leaves[i] for i in trained])

    def scalar(weights, others):
        filled = list(leaves)
        for i, x in zip(trained + fixed, (*weights, *others), strict=True):
            filled[i] = x
        params, state, batch = tree.unflatten(filled)
        result = loss(merge(params, state), *batch)
        return result[0] if isinstance(result, tuple) else result

    weights, others = [leaves[i] for i in trained], [leaves[i] for i in fixed]
    closed = jax.make_jaxpr(scalar)(weights, others)
    consts = closed.consts
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    of_batch = [everything[i][0][0].idx == 2 for i in fixed]

    def compute(weights, taps, others, consts, everything):
        seen = Pass(owners, any(of_batch), everything, taps)
        values = [Value(x, source=(i, ""), needs=1 << i) for i, x in enumerate(weights)]
        for x, data in zip(others, of_batch, strict=True):
            value = Value(x, data=data)
            values.append(seen.add("input", "input", "", value) if data and floating(x) and jnp.ndim(x) else value)
        [out] = seen.run(jaxpr, [Value(c, data=not any(of_batch)) for c in consts], values)
        compute.seen, compute.reached = seen, out.needs
        return out.x, measured(seen.rows)

    def run(everything):
        every = functools.partial(compute, everything=everything)
        jax.eval_shape(every, weights, None, others, consts)
        taps = zeros(compute.seen.slots)
        return jax.jit(jax.value_and_grad(every, argnums=(0, 1), has_aux=True))(weights, taps, others, consts)

    (value, found), (gradients, taps) = run(False)
    if not all(np.isfinite(np.asarray(x, np.float64)).all() for x in (value, *gradients)):
        (value, found), (gradients, taps) = run(True)  # with each operation, to find where it begins
    seen, reached = compute.seen, compute.reached
    calls, time = {}, []
    layers = list(listed(seen.rows, found, taps, reached, time))
    for row in layers:
        calls.setdefault((row["name"], row["kind"]), []).append(row)
    for (name, kind), rows in calls.items():
        if kind in ("linear", "conv") and len(rows) >= 8:  # one layer, called again and again: a loop over time
            time.append({"name": name, "gradient": [row.get("gradient") for row in rows]})
            layers = [row for row in layers if (row["name"], row["kind"]) != (name, kind)]
    parameters = []
    for i in sorted(range(len(names)), key=lambda i: seen.used.get(i, (math.inf, ""))[0]):  # in the order of the calls
        x, low = leaves[trained[i]], names[i].lower()
        bias = np.ndim(x) < 2 and seen.used.get(i, (0, ""))[1] == "add" and "bias" not in low and "beta" not in low
        parameters.append(
            {
                "name": names[i] + " (bias)" * bias,
                "shape": list(np.shape(x)),
                "dtype": str(jnp.result_type(x)),
                "trainable": True,
                "weight": size(x),
                "gradient": size(gradients[i]) if reached >> i & 1 else None,
            }
        )
    report = {"version": 1, "framework": f"JAX {jax.__version__}", "step": step, "mode": mode, "loss": number(value)}
    formats = seen.formats & {"float16", "bfloat16"} if any(row["dtype"] == "float32" for row in parameters) else ()
    report |= {
        "classes": seen.classes,
        "autocast": "".join(sorted(formats)[:1]),
        "scale": None,
        "notes": sorted(set(seen.notes)),
    }
    report |= {"layers": layers, "parameters": parameters, "time": time}
    if mode is None:
        del report["mode"]
    if path is not None:
        with open(path, "w") as file:
            json.dump(report, file, indent=1)
    return report
