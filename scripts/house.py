"""How `vgp_kernels` is built: which of its folders imports which, asked of the imports themselves."""

from pathlib import Path

from vgp_kernels.targets import sources

PACKAGE = sources.PACKAGE
# From the roof to the ground: what stands in a row imports from the rows below it, and from nothing else.
ROWS = (
    ("the front door",),
    ("theory", "diagnosis", "wasm"),
    ("plain", "batch", "recurrent", "transformer", "classifier"),
    ("targets", "what describes a network"),
    ("numerics",),
)
ROWS_OF = {name: row for row, names in enumerate(ROWS) for name in names}
AT_THE_TOP = {
    **dict.fromkeys(("__init__", "__main__", "propagate", "train"), "the front door"),
    **dict.fromkeys(("network", "activations", "initialisers"), "what describes a network"),
}


def files() -> list[Path]:
    """All modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def place(file: Path) -> str:
    """The folder of a module, or what those without a folder are together."""
    first = file.relative_to(PACKAGE).parts[0]
    return AT_THE_TOP[file.stem] if first == file.name and file.stem in AT_THE_TOP else first.removesuffix(".py")


def arrows() -> dict[tuple[str, str], list[str]]:
    """{(place, place that it imports from): the files in which it does}."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in files():
        nodes = sources.importing_nodes(file.read_text(), file not in sources.HANDING_ON)
        for target in {place(target) for target, _ in sources.imports(file, nodes, sources.KERNELS)} - {place(file)}:
            found.setdefault((place(file), target), []).append(file.relative_to(PACKAGE).as_posix())
    return found
