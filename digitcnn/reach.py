"""Reach: which of this package's definitions a function depends on, and their digests.

From source text alone, so that nothing heavy is imported: starting at a few names, every function,
class, constant and table of this package that is named in a reached definition is reached too.
What counts of a definition is its syntax tree without docstrings, annotations and what it raises
(texts of errors); where it lies, and under which name it was imported, does not. A name of a
library counts as its full dotted name. A name that cannot be resolved counts its whole module.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
from pathlib import Path
from typing import Any

from . import files

_PACKAGE = Path(__file__).parent
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DROPPED = ("ctx", "kind", "type_comment", "type_params", "annotation", "returns")


class Module:
    """A module of this package as text: what each of its names stands for.

    Attributes:
        definitions: the statements at the top of the module that bind or change a name.
        imports: the dotted origin of each imported name; those of this package begin with a dot.
    """

    def __init__(self, name: str, text: str, folder: str):
        self.name, self.folder, self.tree = name, folder, ast.parse(text)
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, str] = {}
        self._collect(self.tree.body)

    def _collect(self, body: list[ast.stmt], whole: ast.stmt | None = None) -> None:
        """Note what statements bind; of one within an `if`, the whole of that counts."""
        for node in body:
            if isinstance(node, ast.If | ast.Try | ast.With):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.stmt) and n != node]
                self._collect(inner, whole or node)
            else:
                self.imports |= imported(node, self.folder)
                for name in _bound(node):
                    counts = self.definitions.setdefault(name, [])
                    if (whole or node) not in counts:
                        counts.append(whole or node)


def imported(node: ast.stmt, folder: str) -> dict[str, str]:
    """The dotted origin of each name that an import statement binds.

    Those of this package begin with a dot; `folder` is where the module lies in it, dotted.
    """
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: _within(
                alias.name if alias.asname else alias.name.split(".")[0]
            )
            for alias in node.names
        }
    if isinstance(node, ast.ImportFrom):
        if node.level:
            parts = folder.split(".") if folder else []
            parts = parts[: len(parts) - (node.level - 1)]
            origin = "." + ".".join([*parts, *filter(None, [node.module])])
        else:
            origin = _within(node.module or "")
        joint = "" if origin.endswith(".") else "."
        return {alias.asname or alias.name: origin + joint + alias.name for alias in node.names}
    return {}


def _within(origin: str) -> str:
    """An absolute dotted name as origin; a name of this package begins with a dot."""
    package, _, rest = origin.partition(".")
    return "." + rest if package == _PACKAGE.name else origin


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module binds or changes."""
    if isinstance(node, (*_FUNCTIONS[:2], ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Expr):  # TABLE.update(…), register(…) of a name
        target = node.value.func if isinstance(node.value, ast.Call) else None
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
            if isinstance(target, ast.Name):
                return {target.id}
        return set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(
            part.ctx, ast.Store | ast.Del
        ):
            while isinstance(part, ast.Attribute | ast.Subscript):
                part = part.value
            found |= {part.id} if isinstance(part, ast.Name) else set()
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store | ast.Del):
            found.add(part.id)
    return found


@functools.cache
def module(name: str) -> Module | None:
    """A module of this package by its dotted name within it; None if there is none."""
    path = _path(name)
    folder = name if path.name == "__init__.py" else name.rpartition(".")[0]
    if not path.is_file():
        return None
    try:
        return Module(name, path.read_text(encoding="utf-8-sig"), folder)
    except (SyntaxError, ValueError) as error:  # half typed; no UTF-8
        raise files.DigitcnnError(
            f"{_PACKAGE.name}/{path.relative_to(_PACKAGE)} is not valid Python "
            f"({str(error).split(' (')[0]}, line {getattr(error, 'lineno', None) or 1}): finish or "
            "undo the edit."
        ) from error


def _path(name: str) -> Path:
    path = _PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def read_now() -> None:
    """Read all modules of this package, so that later edits change no digest of this process."""
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).with_suffix("").as_posix().removesuffix("__init__")
        module(name.rstrip("/").replace("/", "."))


def resolve(origin: str) -> tuple[str, str] | None:
    """(module, name) of a dotted origin within this package, re-imports followed; name "" is the
    module itself, which is what counts too where the name cannot be found."""
    parts = origin.lstrip(".").split(".")
    for length in range(len(parts), 0, -1):
        found = module(".".join(parts[:length]))
        if found:
            name = ".".join(parts[:length])
            if length == len(parts):
                return name, ""
            wanted = parts[length]
            if wanted in found.definitions:
                return name, wanted
            if (again := found.imports.get(wanted, "")).startswith("."):
                return resolve(again)
            return name, ""
    return None


class _Tree:
    """The syntax tree of one definition as nested lists, and the definitions that it names.

    Written out here because `ast.dump` and `ast.unparse` differ between Python versions.
    """

    def __init__(self, module: Module):
        self.module = module
        self.references: list[tuple[str, str]] = []

    def refer(self, where: str, name: str) -> str:
        """Note a reference; what stands for it in the tree, which knows no places."""
        self.references.append((where, name))
        return name or f"module {where}"

    def plain(self, node: object, local: frozenset[str] = frozenset()) -> object:
        if isinstance(node, list):
            return [self.plain(item, local) for item in node]
        if not isinstance(node, ast.AST):
            return node if isinstance(node, str | int | bool | type(None)) else repr(node)
        if isinstance(node, ast.Raise):
            return ["Raise"]
        if isinstance(node, ast.Name | ast.Attribute) and (named := self._named(node, local)):
            return named
        if isinstance(node, ast.AnnAssign):
            if node.value is None:
                return ["Assign", self.plain(node.target, local)]
            node = ast.Assign(targets=[node.target], value=node.value)
        if isinstance(node, ast.Import | ast.ImportFrom):
            return ["Import"]  # counts where its names are used, as their origin
        fields = dict(ast.iter_fields(node))
        body = fields.get("body")
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                fields["body"] = body[1:]
        if isinstance(node, ast.ClassDef):
            return self._class(node, fields, local)
        inner = local | _locals(node) if isinstance(node, _SCOPES) else local
        outside = ("decorator_list", "args") if isinstance(node, _FUNCTIONS) else ()
        return [
            type(node).__name__,
            {
                field: self.plain(value, local if field in outside else inner)
                for field, value in fields.items()
                if value not in (None, []) and field not in _DROPPED
            },
        ]

    def _class(self, node: ast.ClassDef, fields: dict, local: frozenset[str]) -> object:
        """A class; its own names are known in its body, not in its methods."""
        own = local | {name for part in node.body for name in _bound(part)}
        body = [
            self.plain(part, local if isinstance(part, _FUNCTIONS) else own)
            for part in fields["body"]
        ]
        heads = {
            field: self.plain(fields[field], local)
            for field in ("bases", "keywords", "decorator_list")
            if fields[field]
        }
        return ["ClassDef", {"name": node.name, "body": body, **heads}]

    def _named(self, node: ast.Name | ast.Attribute, local: frozenset[str]) -> object:
        """A reference to what is not local: a definition of this package, a library's name."""
        chain: list[str] = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            chain.insert(0, base.attr)
            base = base.value
        if not isinstance(base, ast.Name) or base.id in local:
            return None
        if not chain and isinstance(base.ctx, ast.Store | ast.Del):
            return None
        own, name = self.module, base.id
        if name in own.definitions:
            return ["ref", self.refer(own.name, name), *chain]
        origin = _local_imports(own).get(name) or own.imports.get(name)
        if origin is None:
            if hasattr(builtins, name) or name in ("__file__", "__name__"):
                return ["builtin", name, *chain]
            return ["ref", self.refer(own.name, ""), *chain]
        if not origin.startswith("."):
            return ["library", ".".join([origin, *chain])]
        # As many of the attributes as lead through modules belong to the origin.
        while chain and (at := resolve(origin)) and at[1] == "":
            further = resolve(f"{origin}.{chain[0]}")
            origin = f"{origin}.{chain.pop(0)}"
            if further is None or further[1]:
                break
        where = resolve(origin)
        return ["ref", self.refer(*where) if where else origin, *chain]


@functools.cache
def _local_imports(module: Module) -> dict[str, str]:
    """Imports within functions, which bind the same names wherever they are used in the module."""
    found: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= imported(node, module.folder)
    return found


def _locals(scope: Any) -> frozenset[str]:
    """The names that a function or comprehension binds itself, not its inner functions'."""
    found: set[str] = set()
    away: set[str] = set()
    waiting: list[ast.AST] = []
    if isinstance(scope, _FUNCTIONS):
        own = scope.args
        named = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
        found |= {each.arg for each in named if each}
        waiting += scope.body if isinstance(scope.body, list) else [scope.body]
    else:
        waiting += [generator.target for generator in scope.generators]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*_FUNCTIONS[:2], ast.ClassDef)):
            found.add(node.name)
            continue
        if isinstance(node, ast.Global | ast.Nonlocal):
            away |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
        if isinstance(node, _SCOPES):  # what it binds is its own, but for `:=` in a comprehension
            given = {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
            found |= set() if isinstance(node, ast.Lambda) else given
        else:
            waiting += ast.iter_child_nodes(node)
    return frozenset(found - away)


@functools.cache
def _definition(where: str, name: str, keys: frozenset[str] | None) -> tuple[str, tuple]:
    """Digest of a definition as it stands, and the definitions that it names, as (module, name)."""
    found = module(where)
    assert found  # `resolve` or `digests` has found it
    tree = _Tree(found)
    nodes: list = found.definitions[name] if name else [found.tree]
    plain = [tree.plain(_chosen(node, keys)) for node in nodes]
    return files.fingerprint(plain), tuple(dict.fromkeys(tree.references))


def text_digest(name: str) -> str | None:
    """Digest of a module's text as it stands; None if there is none."""
    path = _path(name)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def module_digest(name: str) -> str | None:
    """Digest of a whole module of this package; None if there is none."""
    found = module(name)
    return None if found is None else _definition(name, "", None)[0]


def digests(
    roots: tuple[str, ...],
    entries: dict[str, frozenset[str]] | None = None,
    without: tuple[str, ...] = (),
) -> dict[str, str]:
    """The digest of each definition that is reached, by its name.

    Args:
        roots: where to start, as ``module.name``.
        entries: of these tables (by name), the entries that count; all others are left out.
        without: definitions, as ``module.name``, and whole modules that do not count.

    Of definitions with one name in two modules, the second that is reached has a number behind it.
    """
    entries = entries or {}
    reached: dict[tuple[str, str], tuple[str, tuple]] = {}
    waiting = []
    for root in reversed(roots):
        where, _, name = root.rpartition(".")
        if not (found := module(where)) or name not in found.definitions:
            raise LookupError(f"{root} is not defined in this package.")
        waiting.append((where, name))
    while waiting:
        at = waiting.pop()
        if at not in reached and at[0] not in without and ".".join(at) not in without:
            reached[at] = _definition(*at, entries.get(at[1]))
            waiting += reversed(reached[at][1])
    labels: dict[tuple[str, str], str] = {}
    for where, name in reached:
        number = 1 + sum(known == name for _, known in labels if name)
        labels[where, name] = (name or f"module {where}") + (f"#{number}" if number > 1 else "")
    several = {name for at, label in labels.items() if "#" in label for name in [at[1]]}
    result = {}
    for at, (digest, references) in reached.items():
        # Where a name alone does not say which definition is meant, its label does.
        unclear = [labels[to] for to in references if to[1] in several and to in labels]
        result[labels[at]] = (files.fingerprint(digest, unclear) if unclear else digest)[:12]
    return result


def _chosen(node: ast.AST, keys: frozenset[str] | None) -> ast.AST:
    """A table's definition with the chosen entries alone; any other as it is."""
    if keys is None or not isinstance(node, ast.Assign | ast.AnnAssign):
        return node
    table = node.value
    if not isinstance(table, ast.Dict):
        return node
    kept = [
        (key, value)
        for key, value in zip(table.keys, table.values, strict=True)
        if not isinstance(key, ast.Constant) or key.value in keys
    ]
    kept.sort(key=lambda pair: getattr(pair[0], "value", ""))
    chosen = ast.Dict(keys=[key for key, _ in kept], values=[value for _, value in kept])
    targets: list = node.targets if isinstance(node, ast.Assign) else [node.target]
    return ast.Assign(targets=targets, value=chosen)
