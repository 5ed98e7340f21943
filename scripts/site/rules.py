"""The rules of the diagnosis as JavaScript, translated from vgp_kernels/diagnosis so that there is one source of them.

Only the part of Python in which the rules are written is known here; anything else stops the build with its line. What a page needs
beside them (`py`, and the functions of plain.py) is in docs/javascripts/doctor.js.
"""

import ast
import json
from pathlib import Path

import experiment

FOLDER = experiment.ROOT / "vgp_kernels" / "diagnosis"
SCRIPT = experiment.ROOT / "docs" / "javascripts" / "doctor.rules.js"
BINARY = {ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%", ast.Pow: "**"}
COMPARE = {
    ast.Eq: "===",
    ast.Is: "===",
    ast.NotEq: "!==",
    ast.IsNot: "!==",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
CONSTANTS = {"nan": "NaN", "inf": "Infinity"}
MATHEMATICS = {"log", "log10", "exp", "sqrt"}  # alike in both, but for the last bit
BUILTINS = {"len", "range", "enumerate", "min", "max", "abs", "sorted"}
METHODS = {"get", "append", "join", "lower", "find"}


class NotTranslated(ValueError):
    """Python that the rules do not use."""


def write_script() -> None:
    """Write the script for the page, if it is not there as it should be."""
    text = script()
    if not SCRIPT.is_file() or SCRIPT.read_text() != text:
        experiment.write(SCRIPT, text)


def script() -> str:
    """The kinds and the rules as one function: `vgpRules(py)` gives {decide, unreadable}."""
    words = {name: ast.literal_eval(assigned(FOLDER / "kinds.py", name)) for name in ("KINDS", "CODE")}
    constants = "".join(f"const {name} = {json.dumps(value, ensure_ascii=False)};\n" for name, value in words.items())
    body = translate((FOLDER / "rules.py").read_text())
    return (
        "// Translated from vgp_kernels/diagnosis by scripts/site/rules.py: change it there.\n"
        f"function vgpRules(py) {{\n{constants}{body}\n"
        "return { decide, unreadable };\n}\n"
    )


def assigned(path: Path, name: str) -> ast.expr:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return node.value
    raise NotTranslated(f"{path.name} has no {name}")


def translate(source: str) -> str:
    """A module of functions and constants as JavaScript."""
    lines: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring(node):
            continue
        if isinstance(node, ast.FunctionDef):
            lines += function(node)
        elif isinstance(node, ast.Assign):
            lines.append(f"const {name_of(node.targets[0])} = {expression(node.value)};")
        else:
            refuse(node)
    return "\n".join(lines)


def refuse(node: ast.AST):
    raise NotTranslated(f"line {getattr(node, 'lineno', '?')}: {type(node).__name__} is not among what the rules use")


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else refuse(node)


def function(node: ast.FunctionDef) -> list[str]:
    arguments = node.args
    if arguments.defaults or arguments.vararg or arguments.kwarg or arguments.kwonlyargs or node.decorator_list:
        refuse(node)
    parameters = [argument.arg for argument in arguments.args]
    local = sorted(set(assigned_names(node)) - set(parameters))
    declared = [f"let {', '.join(local)};"] if local else []
    return [f"function {node.name}({', '.join(parameters)}) {{", *declared, *block(node.body), "}"]


def assigned_names(node: ast.AST):
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id


def block(nodes: list[ast.stmt]) -> list[str]:
    return [line for node in nodes if not is_docstring(node) for line in statement(node)]


def statement(node: ast.stmt) -> list[str]:
    match node:
        case ast.Return(value=value):
            return [f"return {expression(value)};" if value else "return null;"]
        case ast.Expr(value=value):
            return [f"{expression(value)};"]
        case ast.Assign(targets=[ast.Name() | ast.Subscript() as target], value=value):
            return [f"{expression(target)} = {expression(value)};"]
        case ast.If(test=test, body=body, orelse=orelse):
            rest = ["} else {", *block(orelse)] if orelse else []
            return [f"if ({truth(test)}) {{", *block(body), *rest, "}"]
        case ast.While(test=test, body=body, orelse=[]):
            return [f"while ({truth(test)}) {{", *block(body), "}"]
        case ast.For(target=target, iter=iterable, body=body, orelse=[]):
            names = [name_of(part) for part in target.elts] if isinstance(target, ast.Tuple) else [name_of(target)]
            bound = f"[{', '.join(names)}]" if isinstance(target, ast.Tuple) else names[0]
            return [f"for ({bound} of {expression(iterable)}) {{", *block(body), "}"]
        case ast.Break():
            return ["break;"]
        case ast.Continue():
            return ["continue;"]
    return refuse(node)


def truth(node: ast.expr) -> str:
    """A test; only what is true or false may be tested, as an empty list is true in JavaScript."""
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.Name():
            return expression(node)
        case ast.Subscript():
            return expression(node)
        case ast.Call(func=ast.Name(id=name)) if name not in BUILTINS:
            return expression(node)
    return refuse(node)


def expression(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=bool() | str() | int() | float() as value):
            return json.dumps(value, ensure_ascii=False)
        case ast.Name(id=name):
            return name
        case ast.List(elts=parts):
            return f"[{', '.join(map(expression, parts))}]"
        case ast.Dict(keys=[], values=[]):
            return "Object.create(null)"  # whose keys come from a report: "__proto__" is one like others
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return "({" + ", ".join(f"{literal(key)}: {expression(value)}" for key, value in pairs) + "})"
        case ast.JoinedStr(values=parts):
            return "(" + " + ".join(['""', *map(formatted, parts)]) + ")"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{expression(operand)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"!({truth(operand)})"
        case ast.BoolOp(op=operator, values=values):
            return "(" + (" && " if isinstance(operator, ast.And) else " || ").join(map(truth, values)) + ")"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return f"({expression(left)} + {expression(right)})"
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return f"Math.floor({expression(left)} / {expression(right)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in BINARY:
            return f"({expression(left)} {BINARY[type(operator)]} {expression(right)})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"({truth(test)} ? {expression(body)} : {expression(orelse)})"
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            sides = [left, *comparators]
            pairs = zip(sides[:-1], operators, sides[1:], strict=True)
            return "(" + " && ".join(comparison(*pair) for pair in pairs) + ")"
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=None)):
            ends = [expression(lower) if lower else "0", *([expression(upper)] if upper else [])]
            return f"py.slice({expression(value)}, {', '.join(ends)})"
        case ast.Subscript(value=value, slice=index):
            return f"{expression(value)}[{expression(index)}]"
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr=name), args=args) if name in MATHEMATICS:
            return f"Math.{name}({', '.join(map(expression, args))})"
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=args, keywords=[]) if name in METHODS:
            return f"py.{name}({', '.join(map(expression, [value, *args]))})"
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return f"{called(name)}({', '.join(map(expression, args))})"
    return refuse(node)


def called(name: str) -> str:
    """Python's own functions and those of plain.py are the page's `py`; the rules' are translated beside it."""
    plain = {
        node.name for node in ast.parse((FOLDER / "plain.py").read_text()).body if isinstance(node, ast.FunctionDef)
    }
    return f"py.{name}" if name in BUILTINS | plain else name


def literal(key: ast.expr | None) -> str:
    return (
        json.dumps(key.value)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
        else refuse(key or ast.Pass())
    )


def formatted(node: ast.expr) -> str:
    match node:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return expression(value)
    return expression(node)


def comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
    match operator:
        case ast.In():
            return f"py.has({expression(right)}, {expression(left)})"
        case ast.NotIn():
            return f"!py.has({expression(right)}, {expression(left)})"
    return f"{expression(left)} {COMPARE[type(operator)]} {expression(right)}"
