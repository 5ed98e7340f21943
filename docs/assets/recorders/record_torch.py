"""Records the signal and the gradient of one training step, layer by layer, for PyTorch. Put this file beside your code.

    from record_torch import record

    with record(model, "report.json", step=0):
        loss = criterion(model(x), y)
        loss.backward()

The report holds numbers and names, none of your data or weights. Needs PyTorch alone. Record before clipping and before the
optimiser's step; gradients should be zero beforehand.
"""

import functools
import json
import math

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

WEIGHTED = {"linear": "linear", "conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "embedding": "embedding"}
WEIGHTED |= {"conv_transpose1d": "conv", "conv_transpose2d": "conv", "conv_transpose3d": "conv"}
PRODUCTS = {
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "addmm",
    "einsum",
}  # linear, if one factor is a parameter
ACTIVATIONS = {
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "sin",
    "threshold",
}
ACTIVATIONS |= {
    "tanh",
    "tanh_",
    "sigmoid",
    "sigmoid_",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "logsigmoid",
    "softsign",
}
NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"}
WATCHED = {"sign", "round", "floor", "ceil", "trunc", "heaviside", "detach", "argmax", "softmax"}
ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}
LOSSES = {"cross_entropy", "nll_loss"}
SAMPLE = 2**17  # about so many numbers of an output are what its statistics are taken from, of 16 inputs at least


def unseen(method):
    """What the recorder computes is not recorded."""

    @functools.wraps(method)
    def quietly(*args):
        with torch._C.DisableTorchFunction():
            return method(*args)

    return quietly


class record(TorchFunctionMode):
    """Around one forward and backward pass; the report is in `.report` afterwards, and in the file if a path is given."""

    def __init__(self, model, path=None, *, step=None, scale=None):
        super().__init__()
        self.model, self.path = model, path
        self.report = {"version": 1, "framework": f"PyTorch {torch.__version__}", "step": step, "scale": scale}
        self.rows, self.series, self.notes, self.where, self.handles, self.swapped = [], [], [], [], [], []
        self.made_by = WeakIdKeyDictionary()
        self.owner = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}
        self.names = {module: name for name, module in model.named_modules()}
        self.last_weighted, self.backward, self.entered, self.stance = "", False, False, None

    def __enter__(self):
        if self.entered:  # again, for what a checkpoint computes during the backward pass
            return super().__enter__()
        self.entered = True
        if any(type(module).__name__ == "OptimizedModule" for module in self.names):
            self.stance = torch.compiler.set_stance("force_eager")
            self.notes.append("The network is compiled; it was recorded without, which computes the same.")
        if any(p.grad is not None and torch.any(p.grad != 0) for p in self.model.parameters()):
            self.notes.append("There were gradients before the pass: they are in the sums. Call zero_grad() first.")
        for module, name in self.names.items():
            self.handles.append(module.register_forward_pre_hook(functools.partial(self.enter_module, name)))
            self.handles.append(
                module.register_forward_hook(functools.partial(self.leave_module, name), always_call=True)
            )
            if type(module) in (nn.RNN, nn.LSTM, nn.GRU):
                module.forward = functools.partial(self.unrolled, module, module.forward)
                self.swapped.append(module)
        return super().__enter__()

    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        if self.backward == "running":
            return
        for handle in self.handles:
            handle.remove()
        for module in self.swapped:
            del module.forward
        if self.stance is not None:
            torch.compiler.set_stance("default")
        self.finish()
        if self.path is not None and kind is None:
            with open(self.path, "w") as file:
                json.dump(self.report, file, indent=1)

    # While the network runs

    @unseen
    def enter_module(self, name, module, inputs):
        if not self.where and not self.backward:
            for x in inputs:
                if torch.is_tensor(x) and x.is_floating_point():
                    row = {"name": "input", "kind": "input", "function": "", "kept": True}
                    self.measure(row, x.detach())
                    self.rows.append(row)
                    self.made_by[x] = row
        self.where.append(name)

    @unseen
    def leave_module(self, name, module, inputs, output):
        if self.where:
            self.where.pop()
        composed = next(module.children(), None) is not None and name
        if composed and torch.is_tensor(output) and not self.backward:
            before = self.made_by.get(output)
            wraps = before is not None and before["kept"] and before["kind"] != "norm"
            if not wraps or (before["kind"] == "activation" and type(module) is not nn.Sequential):
                self.add(name, "block", "", output)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "backward":
            return self.go_back(function, args, kwargs)
        output = function(*args, **kwargs)
        if not self.backward:
            self.see(name, args, kwargs, output)
        return output

    def go_back(self, function, args, kwargs):
        loss = args[0]
        if torch.is_tensor(loss) and loss.numel() == 1:
            self.report["loss"] = loss.detach()
        self.backward = True
        return function(*args, **kwargs)

    @unseen
    def see(self, name, args, kwargs, output):
        tensors = [x for x in (*args, *kwargs.values()) if torch.is_tensor(x)]
        for x in tensors:
            if (row := self.made_by.get(x)) is not None and len(row["into"]) < 3:
                row["into"].append(name)
        if name in LOSSES and tensors:
            self.report["classes"] = tensors[0].shape[1] if tensors[0].ndim > 1 else None
        if not torch.is_tensor(output):
            return
        here = self.where[-1] if self.where else ""
        if name in WATCHED and name in ("detach", "argmax"):
            if tensors and tensors[0].requires_grad and self.where:
                self.rows.append({"name": here, "kind": "operation", "function": name, "kept": True, "into": []})
            return
        if not output.is_floating_point() or id(output) in self.owner:
            return
        owner = next((self.owner[id(x)] for x in tensors if id(x) in self.owner), None)
        if name in WEIGHTED or (name in PRODUCTS and owner is not None):
            kind = WEIGHTED.get(name, "linear")
            self.last_weighted = kind
            self.add(here if owner is None else owner, kind, "", output)
        elif name in ACTIVATIONS:
            self.add(here if self.where else "the loss", "activation", name.rstrip("_"), output)
        elif name in NORMS or name in ATTENTION:
            self.add(here, "norm" if name in NORMS else "attention", "", output)
        elif name in WATCHED and self.where:
            one = name == "softmax" and output.shape[kwargs.get("dim", args[1] if len(args) > 1 else -1) or -1] == 1
            self.add(here, "operation", "softmax_of_one" if one else name, output)
        elif name in WATCHED:
            one = name == "softmax" and output.shape[-1] == 1
            self.add("the loss", "operation", "softmax_of_one" if one else name, output)
        elif output.requires_grad and not any(output is x for x in tensors) and output._base is None:
            self.add(f"{here or 'the loss'}", "operation", name, output, kept=False)

    def add(self, name, kind, function, output, kept=True):
        row = {"name": name or "(the network)", "kind": kind, "function": function, "kept": kept, "into": []}
        x = output.detach()
        if kept:
            self.measure(row, x)
        else:
            row["nonfinite"] = nonfinite(x)
        self.rows.append(row)
        self.made_by[output] = row
        if output.requires_grad:
            output.register_hook(functools.partial(self.gradient, row))

    def measure(self, row, x):
        row.setdefault("into", [])
        row["shape"], row["nonfinite"] = list(x.shape), nonfinite(x)
        if x.numel() == 0:
            return
        if x.numel() > SAMPLE and x.ndim > 1:
            x = x[: max(16, x.shape[0] * SAMPLE // x.numel())]
        row["inputs"] = x.shape[0] if x.ndim > 1 else 1
        whole = x
        if x.numel() > SAMPLE and x.ndim > 3:
            x = x[..., :: math.ceil(x.numel() / SAMPLE)]  # of an image's columns some
        x = x.float()
        square = x.square()
        row["rms"], row["mean"] = square.mean().sqrt(), x.mean()
        if x.ndim > 1 and x.shape[0] > 1:
            row["deviation"] = x.var(0, correction=0).mean().sqrt() / row["rms"]
        if row["kind"] != "activation":
            return
        off = x == 0
        row["zeros"] = off.float().mean()
        unit = 1 if self.last_weighted == "conv" and x.ndim > 2 else x.ndim - 1
        if x.ndim > 1:
            row["dead"] = (whole == 0).all(dim=[d for d in range(x.ndim) if d != unit]).float().mean()
        function = row["function"]
        if function == "relu":
            row["slope"] = 1 - row["zeros"]
        elif function == "sigmoid":
            row["slope"], row["saturated"] = (x * (1 - x)).square().mean(), ((x - 0.5).abs() > 0.49).float().mean()
        elif function == "tanh":
            row["slope"], row["saturated"] = (1 - square).square().mean(), (x.abs() > 0.98).float().mean()
        elif function in ("hardtanh", "hardsigmoid", "relu6"):
            row["saturated"] = ((x == x.max()) | (x == x.min())).float().mean()

    @unseen
    def gradient(self, row, g):
        if row["kept"]:
            norm = torch.linalg.vector_norm(g.float())
            row["gradient"] = norm if "gradient" not in row else torch.hypot(row["gradient"], norm)
            if math.isfinite(norm.item()):
                row.setdefault("gradient_nonfinite", 0)
                return
        row["gradient_nonfinite"] = nonfinite(g)

    def unrolled(self, module, forward, x, state=None):
        """The recurrent module, one time step a call, so that the whole of ∂E/∂h_t is seen; the numbers are the same."""
        if not torch.is_tensor(x) or module.bidirectional or x.ndim != 3:
            self.notes.append(
                f"{self.names[module]}: packed or in both directions; its gradient over time was not seen."
            )
            return forward(x, state)
        along = 1 if module.batch_first else 0
        outputs, states = [], []
        for t in range(x.shape[along]):
            y, state = forward(x.narrow(along, t, 1), state)
            parts = state if isinstance(state, tuple) else (state,)
            norms = {}
            for part in (y, *parts):
                if part.requires_grad:
                    part.register_hook(functools.partial(self.gradient_at, norms, part is y))
            outputs.append(y)
            states.append(norms)
        self.series.append((f"{self.names[module]}", states))
        return torch.cat(outputs, along), state

    @unseen
    def gradient_at(self, norms, is_output, g):
        norm, key = torch.linalg.vector_norm(g.detach().float()), "y" if is_output else "h"
        norms[key] = torch.hypot(norms[key], norm) if key in norms else norm

    # Afterwards

    def finish(self):
        calls, layers = {}, []
        for row in self.rows:
            if not row.pop("kept") and not (number(row.get("nonfinite")) or number(row.get("gradient_nonfinite"))):
                continue
            calls.setdefault((row["name"], row["kind"], row["function"]), []).append(row)
            layers.append({key: plain(value) for key, value in row.items()})
        for (name, kind, _), rows in calls.items():
            if kind in ("linear", "conv") and len(rows) >= 8:  # one layer, called again and again: a loop over time
                self.series.append((name, [{"y": row["gradient"]} if "gradient" in row else {} for row in rows]))
                layers = [row for row in layers if row["name"] != name or row["kind"] != kind]
        time = [
            {"name": name, "gradient": [number(math.hypot(*(float(n) for n in norms.values()))) for norms in states]}
            for name, states in self.series
        ]
        parameters = [
            {
                "name": name,
                "shape": list(p.shape),
                "dtype": str(p.dtype).removeprefix("torch."),
                "trainable": p.requires_grad,
                "weight": number(torch.linalg.vector_norm(p.detach().float())),
                "gradient": None if p.grad is None else number(torch.linalg.vector_norm(dense(p.grad).float())),
            }
            for name, p in self.model.named_parameters()
        ]
        device = next((p.device.type for p in self.model.parameters()), "cpu")
        autocast = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
        self.report |= {
            "loss": number(self.report.get("loss")),
            "mode": "train" if self.model.training else "eval",
            "autocast": autocast.removeprefix("torch."),
            "layers": layers,
            "parameters": parameters,
            "time": time,
            "notes": self.notes,
        }
        self.rows, self.series = [], []


def dense(gradient):
    return gradient.to_dense() if gradient.is_sparse else gradient


def nonfinite(x):
    """How many numbers are not finite; they are counted only where the sum is not, one pass for most outputs."""
    if math.isfinite(x.sum(dtype=torch.float64 if x.dtype == torch.float64 else torch.float32).item()):
        return 0
    return (~torch.isfinite(x)).sum()


def number(value):
    """A number for JSON, which has none that is not finite."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else str(value)


def plain(value):
    if isinstance(value, list):
        return ", ".join(value) if value and isinstance(value[0], str) else value or ""
    return number(value) if torch.is_tensor(value) else value
