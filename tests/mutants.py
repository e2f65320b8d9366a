"""Sources with one deliberate error each: a comparison, a number, an argument, a statement … is another, or is gone."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
PAIRS = [("min", "max"), ("any", "all"), ("argmin", "argmax"), ("clamp_min", "clamp_max"), ("floor", "ceil")]
UNSEEN = {"device", "other", "strict", "encoding", "stacklevel"}
"""arguments that matter on another machine, or guard against what cannot be"""
NAMES = dict(PAIRS) | {b: a for a, b in PAIRS}


@dataclass(frozen=True)
class Mutant:
    """A file with one error in it."""

    path: Path
    lines: range
    """of the statement, without those inside it"""
    function: bool
    """whether it is in one; what is not runs when the file is imported"""
    compiled: bool
    source: str


def variants(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in place of a node; None where a statement is left out."""

    def changed(**fields: Any) -> ast.AST:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield changed(ops=[*ops[:i], OPERATORS[type(op)](), *ops[i + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield changed(op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield changed(value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield changed(value=value + 1 if isinstance(value, int) or not value else 2 * value)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            for i in (i for i, keyword in enumerate(keywords) if keyword.arg not in UNSEEN):
                yield changed(keywords=keywords[:i] + keywords[i + 1 :])
            if len(arguments) > 1:
                yield changed(args=arguments[:-1])
            if isinstance(function, ast.Attribute):
                moves = function.attr == "cpu" or (
                    function.attr == "to" and any("device" in ast.unparse(argument) for argument in arguments)
                )
                if not moves:  # between devices, which are one where there is no GPU
                    yield function.value
                if function.attr in NAMES:
                    yield changed(func=ast.Attribute(function.value, NAMES[function.attr], ast.Load()))
            elif isinstance(function, ast.Name):
                yield from arguments[:1]
                if function.id in NAMES:
                    yield changed(func=ast.Name(NAMES[function.id], ast.Load()))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield ast.UnaryOp(ast.Not(), test)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Break() | ast.Continue():
            yield None
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield None
        case ast.Return(value=ast.Call() as value):
            yield changed(value=ast.Constant(None))


def mutants(path: Path) -> Iterator[Mutant]:
    """Every error in a file that leaves it Python, but for those in texts, annotations and what is printed."""
    source = path.read_bytes()
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]

    def replaced(node: Any, new: ast.AST | None) -> str:
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        text = "pass" if new is None else ast.unparse(new)
        text += "\n" * (node.end_lineno - node.lineno - text.count("\n"))  # what follows stays where it was
        text = text if isinstance(node, ast.stmt) else f"({text})"
        return str(source[:start] + text.encode() + source[end:], "utf-8")

    def visit(node: ast.AST, lines: range, function: bool, compiled: bool) -> Iterator[Mutant]:
        within: list[Any] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            header = range(node.lineno, max(body[0].lineno, node.lineno + 1) if body else (node.end_lineno or 0) + 1)
            if isinstance(node, ast.Break | ast.Continue):  # which the interpreter may not count as lines
                header = range(lines.start, header.stop)
            lines = lines if compiled else header  # of what is compiled only the call is seen
        match node:
            case ast.FunctionDef(name="__repr__") | ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert():
                return
            case ast.Call(func=ast.Name(id="print")) | ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
                return
            case ast.FunctionDef() | ast.Lambda():
                marks = getattr(node, "decorator_list", [])
                if any(word in ast.unparse(mark) for mark in marks for word in ("njit", "parallel", "triton")):
                    compiled, lines = True, range(marks[0].lineno, (node.end_lineno or 0) + 1)
                yield from (m for default in node.args.defaults for m in visit(default, lines, function, compiled))
                within, function = node.body if isinstance(node.body, list) else [node.body], True
            case ast.ClassDef():
                within = node.body
            case ast.AnnAssign():
                within = [node.value] if node.value else []
            case ast.Raise():
                within = []
        target = node.test if isinstance(node, ast.If | ast.While | ast.IfExp) else node
        for new in variants(node):
            try:
                text = replaced(target, new)
                ast.parse(text)
            except SyntaxError:
                continue
            yield Mutant(path, lines, function, compiled, text)
        for child in within:
            yield from visit(child, lines, function, compiled)

    return visit(ast.parse(source), range(0), False, False)
