"""
Small mistakes that somebody could make in a module: each a syntax tree with one thing changed.

The texts of messages are left alone, and so are annotations and docstrings: no behaviour is theirs.
"""

import ast
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass

#: Where in a tree something stands: by which fields, and by which place in a list, one comes there.
Path = tuple[tuple[str, int | None], ...]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
#: `/` joins paths here, and would only become a type error.
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
#: Whose arguments are told to people.
_TOLD = ("disk_errors", "warn", "_warn", "_mapping")


@dataclass(frozen=True)
class Mutant:
    """
    One mistake.

    Attributes:
        number: its place among those of its module, from 1.
        line: where.
        what: what was changed.
        name: the function that it is in, or what the statement outside of all functions defines.
        is_inside: it changes nothing but the body of this function.
        tree: the module with the mistake.
    """

    number: int
    line: int
    what: str
    name: str
    is_inside: bool
    path: Path
    new: ast.AST

    def tree(self, source: str) -> ast.Module:
        """The module with the mistake in it."""
        tree = ast.parse(source)
        *way, (last, index) = self.path
        parent: ast.AST = tree
        for field, place in way:
            found = getattr(parent, field)
            parent = found if place is None else found[place]
        new = ast.copy_location(deepcopy(self.new), self.new)
        if index is None:
            setattr(parent, last, new)
        else:
            getattr(parent, last)[index] = new
        return ast.fix_missing_locations(tree)


def mutants(source: str) -> list[Mutant]:
    """Every mistake of the kinds known here, in the order of the lines."""
    found: list[Mutant] = []
    for path, node, scope in _nodes(ast.parse(source)):
        for what, new in _variants(node, path):
            ast.copy_location(new, node)
            name, is_inside = scope
            place = (len(found) + 1, getattr(node, "lineno", 1), what, name, is_inside)
            found.append(Mutant(*place, path, new))
    return found


def _nodes(tree: ast.Module) -> Iterator[tuple[Path, ast.AST, tuple[str, bool]]]:
    """Every node that a mistake can be in, how one comes there, and in which function it is."""

    def below(node: ast.AST, path: Path, scope: tuple[str, bool]) -> Iterator:
        for field, value in ast.iter_fields(node):
            if _is_told(node, field):
                continue
            inner = _scope(node, field, scope)
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST) and not _is_docstring(node, field, index, child):
                    here = (*path, (field, index))
                    is_named = isinstance(node, ast.Module | ast.ClassDef)
                    own = _own(child, inner) if is_named else inner
                    yield here, child, own
                    yield from below(child, here, own)

    yield from below(tree, (), ("", False))


def _scope(node: ast.AST, field: str, scope: tuple[str, bool]) -> tuple[str, bool]:
    """The name of the outermost function around a field of a node, and whether it is its body."""
    name, is_inside = scope
    if is_inside:
        return scope
    if isinstance(node, ast.FunctionDef):
        return name, field == "body"
    if isinstance(node, ast.ClassDef) and field == "body":
        return name, False
    return scope


def _own(statement: ast.AST, scope: tuple[str, bool]) -> tuple[str, bool]:
    """The same for a statement of a module or of a class, which gives a name to something."""
    around, is_inside = scope
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return f"{around}.{name}".removeprefix("."), False
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return around or name, False
        case ast.Assign(targets=[ast.Tuple(elts=parts)]):
            return around or _called(parts), False
        case ast.Expr(value=ast.Call(args=args, keywords=keywords)):
            return around or _called([*args, *keywords]), is_inside
    return around, is_inside


def _called(parts: Iterable[ast.AST]) -> str:
    """The names in parts of a statement, each after a space."""
    found = [each.id for part in parts for each in ast.walk(part) if isinstance(each, ast.Name)]
    return " ".join(found)


def _is_told(node: ast.AST, field: str) -> bool:
    """Whether what is in this field is no behaviour: annotations, and texts for people."""
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.Subscript(value=ast.Name(id="Mapping" | "Sequence" | "Callable" | "Literal")):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if field == "args":
            return name in _TOLD or name.endswith(("Error", "Denied", "Full", "Exceeded"))
    return field in ("annotation", "returns", "cause", "ctx", "type_comment")


def _is_docstring(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> bool:
    if field != "body" or index != 0 or isinstance(parent, ast.If):
        return False
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _variants(node: ast.AST, path: Path) -> Iterator[tuple[str, ast.AST]]:
    """What one could have written in the place of a node."""
    match node:
        case ast.Call():
            yield from _fewer_arguments(node)
        case ast.stmt():
            yield from _other_statements(node)
        case ast.ExceptHandler(type=ast.expr()):
            yield from _other_handlers(node)
        case ast.expr():
            for new in _other_expressions(node):
                yield _told(node, new), new
    if path[-1][0] in ("test", "ifs") and isinstance(node, ast.Name | ast.Call | ast.Attribute):
        yield _told(node, new := ast.UnaryOp(ast.Not(), deepcopy(node))), new


def _other_expressions(node: ast.expr) -> Iterator[ast.expr]:
    """Another operator, or another value."""
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                for other in _COMPARISONS[type(op)]:
                    new = deepcopy(node)
                    new.ops[place] = other()
                    yield new
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield ast.BoolOp(other, deepcopy(node.values))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield deepcopy(node.operand)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield ast.BinOp(deepcopy(node.left), _ARITHMETIC[type(node.op)](), deepcopy(node.right))
        case ast.Constant():
            for value in _other_values(node.value):
                yield ast.Constant(value)


def _other_values(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str) and " " not in value:
        yield value + "x"
    elif isinstance(value, bytes):
        yield value + b"x"


def _fewer_arguments(call: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    if not _is_told(call, "args") and len(call.args) > 1:  # without its only one none would do
        new = deepcopy(call)
        new.args.pop()
        yield _told(call, new), new
    for place in range(len(call.keywords)):
        new = deepcopy(call)
        del new.keywords[place]
        yield _told(call, new), new


def _other_operators(statement: ast.AugAssign) -> Iterator[tuple[str, ast.AST]]:
    if type(statement.op) in _ARITHMETIC:
        new = deepcopy(statement)
        new.op = _ARITHMETIC[type(statement.op)]()
        yield _told(statement, new), new


def _other_statements(statement: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Without it, or with another outcome."""
    match statement:
        case ast.AugAssign():
            yield f"without: {_line(statement)}", ast.Pass()
            yield from _other_operators(statement)
        case ast.Expr(value=ast.Call()) | ast.Delete():
            yield f"without: {_line(statement)}", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield f"without: {_line(statement)}", ast.Pass()
        case ast.Raise():
            yield f"without: {_line(statement)}", ast.Pass()
            if isinstance(statement.exc, ast.Call):
                other = ast.parse("raise RuntimeError('another')").body[0]
                yield f"another error than: {_line(statement)}", other
        case ast.Return(value=ast.expr()) if not _is_like_none(statement.value):
            yield f"None in the place of: {_line(statement)}", ast.Return(ast.Constant(None))
        case ast.Break():
            yield "continue in the place of break", ast.Continue()
        case ast.Continue():
            yield "break in the place of continue", ast.Break()
        case ast.With() if all(item.optional_vars is None for item in statement.items):
            bare = ast.If(ast.Constant(value=True), deepcopy(statement.body), [])
            yield f"without: {_line(statement)}", bare


def _other_handlers(handler: ast.ExceptHandler) -> Iterator[tuple[str, ast.AST]]:
    """One that takes nothing, or one kind of error less."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    for kind in kinds:
        new = deepcopy(handler)
        others = [deepcopy(other) for other in kinds if other is not kind]
        new.type = ast.Tuple(others, ast.Load())
        yield f"without: except {ast.unparse(kind)}", new


def _is_like_none(value: ast.expr | None) -> bool:
    """Whether nobody tells it from None: the types do, and these are checked."""
    return isinstance(value, ast.Constant) and not value.value


def _told(old: ast.AST, new: ast.AST) -> str:
    return f"{_line(old)} → {_line(new)}"


def _line(node: ast.AST) -> str:
    first, *others = ast.unparse(node).splitlines()
    return first[:100] + " …" * bool(others)
