"""Digest the code that a training imports, which decides a run together with its settings.

Modules are found by following imports, so that none is missed when files move. What cannot change a number is left out:
comments, docstrings, the messages of errors and warnings, help texts, and the file in which a statement stands.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def fingerprint(roots: Iterable[str]) -> str:
    """Return a digest of all statements of the modules that `roots` import, also lazily, from their own packages."""
    digests = sorted(digest for name in modules(roots) for digest in _statements(_source(name), name.partition(".")[0]))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def modules(roots: Iterable[str]) -> set[str]:
    """Return `roots` (names of modules) and the modules of their packages that they import, directly or indirectly."""
    waiting = list(roots)
    packages = {name.partition(".")[0] for name in waiting}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and name.partition(".")[0] in packages and _file(name) is not None:
            found.add(name)
            waiting += _imports(_source(name))
    return found


@cache
def _file(name: str) -> Path | None:
    """Return the file of a module, without importing it; None if there is no module of this name."""
    top, *inner = name.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not inner:
        return Path(spec.origin)
    place = Path(spec.origin).parent.joinpath(*inner)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


@cache
def _source(name: str) -> str:
    file = _file(name)
    assert file is not None
    return file.read_text(encoding="utf-8")


@cache
def _imports(source: str) -> list[str]:
    """Return the names that a source imports; of `from package import name` both, since `name` may be a module."""
    names: list[str] = []
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return names


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _executed(node)


@cache
def _statements(source: str, package: str) -> list[str]:
    """Return a digest of each statement of a module, except imports from its own package."""
    tree = _WithoutText().visit(ast.parse(ast.unparse(ast.parse(source))))
    kept = [node for node in tree.body if not _is_own_import(node, package)]
    return [hashlib.sha256(ast.dump(node).encode()).hexdigest() for node in kept]


def _is_own_import(node: ast.stmt, package: str) -> bool:
    if not isinstance(node, ast.ImportFrom) or any(each.asname for each in node.names):
        return False
    return (node.module or "").partition(".")[0] == package


class _WithoutText(ast.NodeTransformer):
    """Empty texts that only people read."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name.endswith("Error") or name == "warn":
            node.args = [_Silent().visit(argument) for argument in node.args]
        for keyword in node.keywords:
            if keyword.arg == "description":
                keyword.value = _Silent().visit(keyword.value)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return super().generic_visit(node)


class _Silent(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")
