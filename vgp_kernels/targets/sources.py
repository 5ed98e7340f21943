"""Which sources does this need? What a module, or some names in it, reaches by its imports, and a digest of what that says.

A digest is taken of the syntax: neither a comment nor a docstring nor the breaking of lines changes it. Imports count
wherever they stand, in functions as well; what does not lie in one of the places (NumPy, the standard library) does not.
A form of import that is not known here is an error, never a gap.
"""

import ast
import functools
import hashlib
import symtable
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vgp_kernels.targets.families import FAMILIES

PACKAGE = Path(__file__).parents[1]
Places = Mapping[str, Path]  # the folder in which a module of this name, or a package, lies
KERNELS: Places = {PACKAGE.name: PACKAGE.parent}
# What keeps machine code and asks what it depends on has no say in what is computed.
KEEPING = {PACKAGE / "targets" / "cache.py", PACKAGE / "targets" / "sources.py"}
REGISTRY = PACKAGE / "activations.py"  # of its entries, those count that are named: see `form_with`
# These hand a job on to the family of a network, which whoever has such a network has imported, or to a GPU, which gives the
# same bits: what they import inside functions does not count, but the kernels of the families that are described do.
HANDING_ON = {PACKAGE / "propagate.py", PACKAGE / "targets" / "families.py"}


def digest(file: Path, names: Iterable[str] | None = None, places: Places = KERNELS) -> str:
    """The digest of all that a module needs, or that these names in it need.

    With names, of modules outside this package those statements count on which the names depend. Modules of the package
    count whole, as compiled functions find one another by more than their names, but for activations that nobody names.

    Raises ValueError, with file and line, for an import that is unknown or leads nowhere.
    """
    forms, found = [], needed(file, names, places)
    texts = {path: path.read_text() for path in found}
    said = None if names is None else words_of(found, texts)
    for path, wanted in sorted(found.items()):
        place = max(
            (p for p in places.values() if path.is_relative_to(p)), key=lambda p: len(p.parts), default=path.parent
        )
        form = form_of(wanted, texts[path]) if said is None or path != REGISTRY else form_with(said, texts[path])
        forms.append([path.relative_to(place).as_posix(), form])
    return hashlib.sha256(repr(forms).encode()).hexdigest()[:16]


def files(file: Path, places: Places = KERNELS) -> list[Path]:
    """The module and all that it reaches."""
    return sorted(needed(file, None, places))


def needed(file: Path, names: Iterable[str] | None, places: Places) -> dict[Path, frozenset[str] | None]:
    """The names that are needed of each file, None standing for all of it."""
    by_name, found = names is not None, dict[Path, frozenset[str] | None]()
    todo: list[tuple[Path, frozenset[str] | None]] = [(file, None if names is None else frozenset(names))]
    while todo or (todo := [(path, None) for path in handed_on(found)]):
        path, wanted = todo.pop()
        known = found.get(path, frozenset())
        if known is None or (path in found and wanted is not None and wanted <= known):
            continue
        wanted = found[path] = None if wanted is None else wanted | known
        if wanted is None:
            nodes = importing_nodes(path.read_text(), path not in HANDING_ON)
        else:
            nodes = list(executed(needed_for(wanted, path.read_text()), True))
        for target, name in imports(path, nodes, places):
            if target in KEEPING:
                continue
            whole = not by_name or target.is_relative_to(PACKAGE)
            todo.append((target, None if whole or name is None else frozenset([name])))
    return found


def handed_on(found: Iterable[Path]) -> list[Path]:
    """The kernels to which `propagate`, if it is among the files, hands networks that are described in them."""
    found = set(found)
    if PACKAGE / "propagate.py" not in found:
        return []
    described = [
        family for family in FAMILIES.values() if module_at(PACKAGE.joinpath(*family.description.split("."))) in found
    ]
    return [path for family in described if (path := PACKAGE / family.name / "kernels.py") not in found]


# Imports


def imports(file: Path, nodes: list[ast.AST], places: Places) -> Iterator[tuple[Path, str | None]]:
    """(module, name) of everything that the nodes import from the places; without a name it is the module itself."""
    for node in nodes:
        try:
            match node:
                case _ if imports_by_call(node):
                    raise ValueError("imports a module whose name is known only when it runs")
                case ast.Import():
                    for alias in node.names:
                        yield from packages_and_module(alias.name, places)
                case ast.ImportFrom():
                    if base := source_of(node, file, places):
                        yield from (origin(base, alias.name, places) for alias in node.names)
        except ValueError as error:
            raise ValueError(f"{file}, line {node.lineno}: {error}") from None  # type: ignore[attr-defined]


@functools.cache
def importing_nodes(text: str, within_functions: bool) -> list[ast.AST]:
    """The nodes of a module that `imports` looks at."""
    nodes = executed(syntax(text).body, within_functions)
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) or imports_by_call(node)]


def imports_by_call(node: ast.AST) -> bool:
    """Does this name a function that imports what it is told to?"""
    names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else {called(node)}
    return not names.isdisjoint({"import_module", "__import__", "spec_from_file_location", "run_module", "run_path"})


def called(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def executed(nodes: Iterable[ast.AST], within_functions: bool) -> Iterator[ast.AST]:
    """The nodes and all that is in them, without what is for type checkers only."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from executed(node.orelse, within_functions)
        elif within_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from executed(ast.iter_child_nodes(node), within_functions)


def packages_and_module(name: str, places: Places) -> Iterator[tuple[Path, None]]:
    """What `import a.b.c` reaches: it makes the packages on the way known as well."""
    first, *rest = name.split(".")
    if first in places:
        path = places[first]
        for part in (first, *rest):
            path /= part
            if (file := module_at(path)) is not None:
                yield file, None
            elif not path.is_dir():
                raise ValueError(f"there is no {name}")


def source_of(node: ast.ImportFrom, file: Path, places: Places) -> Path | None:
    """The path of the module, without its ending, from which names are imported; None if it is in none of the places."""
    parts = node.module.split(".") if node.module else []
    if node.level:
        return file.parents[node.level - 1].joinpath(*parts)
    return places[parts[0]].joinpath(*parts) if parts[0] in places else None


def origin(base: Path, name: str, places: Places) -> tuple[Path, str | None]:
    """The module in which `from base import name` finds the name; a package that only collects names is looked through."""
    if name == "*":
        raise ValueError("imports names without saying which (*)")
    if (file := module_at(base)) is None or file.name != "__init__.py":
        body, collecting = list[ast.stmt](), file is None
    else:
        body = syntax(file.read_text()).body
        collecting = all(map(collects, body))
    for node in [node for node in body if isinstance(node, ast.ImportFrom) and collecting]:
        for alias in node.names:
            if (alias.asname or alias.name) == name and file and (further := source_of(node, file, places)):
                return origin(further, alias.name, places)
    if (submodule := module_at(base / name)) is not None:
        return submodule, None
    if file is None or (collecting and not any(name in bound_names(node) for node in body)):
        raise ValueError(f"there is no {name!r} in {base}")
    return file, name


def collects(statement: ast.stmt) -> bool:
    """Is this what a package that only collects names consists of: a docstring, imports, __all__?"""
    return (
        isinstance(statement, ast.Import | ast.ImportFrom)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (isinstance(statement, ast.Assign) and bound_names(statement) == {"__all__"})
    )


def module_at(path: Path) -> Path | None:
    """The file of the module or package with this path."""
    return next((file for file in (path / "__init__.py", path.parent / f"{path.name}.py") if file.is_file()), None)


# Statements


@functools.cache
def needed_for(wanted: frozenset[str], text: str) -> list[ast.stmt]:
    """The statements at the top of a module on which the wanted names depend; those that bind no name are always among them."""
    body = syntax(text).body
    body = body[1:] if body and collects(body[0]) and isinstance(body[0], ast.Expr) else body
    while True:
        kept = [statement for statement in body if not bound_names(statement) or bound_names(statement) & wanted]
        used = frozenset().union(*map(names_used, kept))
        if used <= wanted:
            return [only(statement, wanted) for statement in kept]
        wanted |= used


def only(statement: ast.stmt, wanted: frozenset[str]) -> ast.stmt:
    """The statement; of an import, what is wanted."""
    if not isinstance(statement, ast.ImportFrom):
        return statement
    names = [alias for alias in statement.names if (alias.asname or alias.name) in wanted | {"*"}]
    return ast.copy_location(ast.ImportFrom(statement.module, names, statement.level), statement)


def bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a value to."""
    match statement:
        case ast.FunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        case ast.Assign() | ast.AnnAssign():
            names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            return {name.id for name in names if isinstance(name.ctx, ast.Store)}
        case _:
            return set()


@functools.cache
def names_used(statement: ast.stmt) -> frozenset[str]:
    """The names of the module that a statement at its top uses; a function's own variables do not count."""
    tables, used = [symtable.symtable(ast.unparse(statement), "statement", "exec")], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        outside = {symbol for symbol in table.get_symbols() if symbol.is_global() or table.get_type() == "module"}
        used |= {symbol.get_name() for symbol in outside if symbol.is_referenced()}
    return frozenset(used)


# Activations


def words_of(found: Mapping[Path, frozenset[str] | None], texts: Mapping[Path, str]) -> frozenset[str] | None:
    """The strings in all that was found, names of activations among them; None where some of it asks for all activations."""
    words = frozenset[str]()
    for path in found.keys() - {REGISTRY}:
        asks, strings = words_in(found[path], texts[path])
        if asks:
            return None
        words |= strings
    return words


@functools.cache
def words_in(wanted: frozenset[str] | None, text: str) -> tuple[bool, frozenset[str]]:
    """Whether the statements use ACTIVATIONS, and their strings."""
    nodes = list(executed(syntax(text).body if wanted is None else needed_for(wanted, text), True))
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    asks = any("ACTIVATIONS" in (called(node), node.name if isinstance(node, ast.alias) else "") for node in nodes)
    return asks, frozenset(c for c in constants if isinstance(c, str))


class Trimmed(ast.NodeTransformer):
    """Takes away the entries of a registry of activations whose names were not said."""

    def __init__(self, said: frozenset[str]):
        self.said, self.removed = said, list[ast.expr]()

    def visit_Tuple(self, node: ast.Tuple) -> ast.Tuple:
        for entry in [entry for entry in node.elts if self.is_unsaid(entry)]:
            self.removed.append(entry)
            node.elts.remove(entry)
        return node

    def is_unsaid(self, entry: ast.expr) -> bool:
        if not (isinstance(entry, ast.Call) and called(entry.func) == "Activation" and entry.args):
            return False
        name = entry.args[0]
        return isinstance(name, ast.Constant) and name.value not in self.said


@functools.cache
def form_with(said: frozenset[str], text: str) -> str:
    """The normal form of the registry without the entries whose names were not said, and without what only these use."""
    tree, trimmed = ast.parse(text), Trimmed(said)
    body: list[ast.stmt] = trimmed.visit(tree).body
    theirs = frozenset().union(*(names_used(ast.Expr(entry)) for entry in trimmed.removed))
    while True:
        used = [names_used(statement) for statement in body]
        unused = [
            statement
            for i, statement in enumerate(body)
            if (names := bound_names(statement))
            and names <= theirs
            and not any(names & u for u in used[:i] + used[i + 1 :])
        ]
        if not unused:
            everything = frozenset().union(*used)
            return repr(normal_form([only(statement, everything) for statement in body]))
        theirs = theirs.union(*map(names_used, unused))
        body = [statement for statement in body if statement not in unused]


# Normal form


@functools.cache
def syntax(text: str) -> ast.Module:
    return ast.parse(text)


@functools.cache
def form_of(wanted: frozenset[str] | None, text: str) -> str:
    """The normal form of a module, or of those of its statements on which the wanted names depend."""
    return repr(normal_form(syntax(text) if wanted is None else needed_for(wanted, text)))


def normal_form(node) -> object:
    """A syntax tree as nested lists, without positions, docstrings and comments, and the same on every Python.

    `ast.dump` will not do: which empty fields it prints differs between Python 3.11, 3.12 and 3.13.
    """
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            fields["body"] = node.body[1:]
        return [type(node).__name__, *([field, normal_form(v)] for field, v in fields.items() if v not in (None, []))]
    return [normal_form(item) for item in node] if isinstance(node, list) else repr(node)
