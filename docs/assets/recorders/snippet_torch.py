import json

import torch


def gradient_check(model, path="gradients.json"):
    """After loss.backward(): the norms of all parameters and of their gradients, in the order of the network's definition."""

    def norm(tensor):
        value = torch.linalg.vector_norm(tensor.detach().float()).item()
        return value if abs(value) < float("inf") else str(value)  # JSON has no NaN

    rows = [
        {
            "name": name,
            "shape": list(p.shape),
            "trainable": p.requires_grad,
            "weight": norm(p),
            "gradient": None if p.grad is None else norm(p.grad),
        }
        for name, p in model.named_parameters()
    ]
    with open(path, "w") as file:
        json.dump({"version": 1, "parameters": rows}, file, indent=1)
    return rows
