"""The families of networks, each a folder with the same contract; to add one is to add a folder and a row here.

    network    a class that describes such networks, a frozen dataclass with `family`, the folder's name,
               and flow_of(network, seed, arrays), which gives what was measured its names
    kernels    run(network, trials, seed, threads, progress, **options): the arrays of all trials, computed by the CPU
    cuda       run(network, trials, seed, on_device, progress, **options): the same arrays, to the bit, computed by GPUs,
               and cost(network): about how many nanoseconds a core of a CPU takes for one of them

The description of the first two stands at the top of the package; what `train` is asked for is a `Task` and has its seed in it.
"""

import importlib
import os
from typing import Any, NamedTuple

PACKAGE = __name__.partition(".")[0]
TARGETS = ("cpu", "cuda", "auto")


class Family(NamedTuple):
    """Where what the contract asks for lies; imported when it is asked for."""

    name: str
    description: str
    """The module with the class."""

    @property
    def flow_of(self) -> Any:
        return importlib.import_module(f"{PACKAGE}.{self.description}").flow_of

    @property
    def kernels(self) -> Any:
        return importlib.import_module(f"{PACKAGE}.{self.name}.kernels")

    @property
    def cuda(self) -> Any:
        return importlib.import_module(f"{PACKAGE}.{self.name}.cuda")


FAMILIES = {
    family.name: family
    for family in (
        Family("plain", "network"),
        Family("batch", "network"),
        Family("recurrent", "recurrent.network"),
        Family("transformer", "transformer.network"),
        Family("classifier", "classifier.learning"),
    )
}


def family_of(job: object) -> Family:
    """The family of a network, or of a task of `train`; TypeError if it is none."""
    if not isinstance(name := getattr(job, "family", None), str):
        raise TypeError(f"network must be a Network, not {job!r}; for example Network(50, 256, 'tanh', 'xavier')")
    return FAMILIES[name]


def takes_gpu(job: object, trials: int, target: str | None) -> bool:
    """Whether the target, or the default if it is None, means a GPU for so many networks, or for a task of `train`.

    Raises TypeError or ValueError for a target that is none, and RuntimeError if target "cuda" cannot run here.
    """
    given = os.environ.get("VGP_TARGET", "cpu") if target is None else target
    if not isinstance(given, str):
        raise TypeError(f"target must be a name, not {given!r}; known: {', '.join(sorted(TARGETS))}")
    if given not in TARGETS:
        raise ValueError(f"unknown target {given!r}; known: {', '.join(sorted(TARGETS))}")
    if given == "cpu":
        return False
    from vgp_kernels.targets import gpu  # it takes half a second

    lacking = gpu.missing()
    if given == "auto":
        return lacking is None and trials * family_of(job).cuda.cost(job) >= gpu.GAIN
    if lacking is not None:
        raise RuntimeError(f"target 'cuda' cannot run here: {lacking}; or take target='cpu'")
    return True
