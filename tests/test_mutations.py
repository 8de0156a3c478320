"""Mutations of the real package: what was seen at work while a result was made decides its key."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import types
from pathlib import Path

import pytest
from finished import finish
from test_reach import clear

from digitcnn import reach, store

PACKAGE = Path(reach.__file__).parent
RESULTS = [
    ("inference.features", ("mnist", "mnist")),
    ("report.attributes.measurements", ("mnist", "test")),
    ("report.dataset.pixels", ("mnist",)),
]
Definition = tuple[str, str]  # module and name


def outside(where: str, name: str) -> bool:
    """Whether a definition counts by a token of the result, not as code."""
    return bool({where, where.split(".")[0], f"{where}.{name}"} & set(store.NOT_CODE))


def defined(where: str, name: str) -> Definition | None:
    """Where a global name of a module of this package is defined, if in this package."""
    module = reach.module(where)
    if name in module.definitions:
        return where, name
    origin = module.imports.get(name, "")
    return reach.resolve(origin) if origin.startswith(".") else None


def seen(function, *arguments) -> tuple[dict[types.CodeType, Definition], set[Definition]]:
    """The code of this package that ran, and the constants that it names."""
    codes: dict[types.CodeType, Definition] = {}
    constants: set[Definition] = set()

    def place(frame) -> Definition:
        module = frame.f_globals["__name__"].partition(".")[2]
        return module, frame.f_code.co_qualname.partition(".")[0]

    def note(frame, event, argument) -> None:
        if event != "call" or PACKAGE not in Path(frame.f_code.co_filename).parents:
            return
        above = frame
        while above:
            if PACKAGE in Path(above.f_code.co_filename).parents and outside(*place(above)):
                return
            above = above.f_back
        where, name = place(frame)
        if name in reach.module(where).definitions:  # else a module is being imported
            codes[frame.f_code] = where, name
            for each in frame.f_code.co_names:
                value = frame.f_globals.get(each, seen)
                if not callable(value) and not isinstance(value, types.ModuleType):
                    if at := defined(where, each):
                        constants.add(at)

    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return codes, {at for at in constants if at[1] and not outside(*at)}


@functools.cache
def text(where: str) -> str:
    path = PACKAGE.joinpath(*where.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


def with_a_statement(where: str, line: int) -> str:
    """The source of a module, with one statement more in the function that begins at a line."""
    tree = ast.parse(text(where))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if min([node.lineno, *(d.lineno for d in node.decorator_list)]) == line:
                node.body += ast.parse("mutated = 0").body
                return ast.unparse(tree)
    raise LookupError(f"no function at line {line} of {where}")


def otherwise(where: str) -> str:
    """The source of a module with other docstrings, a comment, and code that nothing reaches."""
    tree = ast.parse(text(where))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body[0].value.value = "Says something else."
    return f"{ast.unparse(tree)}\n# A comment.\ndef not_reached():\n    return 1\n"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), RESULTS, ids=[name for name, _ in RESULTS])
def test_each_function_and_constant_at_work_makes_the_result_stale(
    sandbox, monkeypatch, name, arguments
):
    """One at a time; a comment, a docstring, and what is not reached do not."""
    clear()
    finish("mnist")
    module, _, short = name.rpartition(".")
    stored = getattr(importlib.import_module(f"digitcnn.{module}"), short)
    codes, constants = seen(stored._function, *arguments)
    original = reach.module

    def changed(where: str, source: str) -> set[str]:
        """The definitions that a result made with that source in a module is another by."""
        mutant = reach.Module(where, source, original(where).folder)
        reach._definition.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(reach, "module", lambda n: mutant if n == where else original(n))
            now = reach.digests((stored.root,), without=store.NOT_CODE)
        return {each.partition("#")[0] for each in now if now[each] != first.get(each)}

    first = reach.digests((stored.root,), without=store.NOT_CODE)
    assert {at for at in codes.values() if at[1] == short} and len(codes) + len(constants) > 2
    for code, (where, definition) in codes.items():
        if not code.co_name.startswith("<"):  # within a function that is seen too
            found = changed(where, with_a_statement(where, code.co_firstlineno))
            assert found == {definition}, (where, code.co_qualname)
    for where, constant in constants:
        found = changed(where, f"{text(where)}\n{constant} = None\n")
        assert constant in found, (where, constant)
    for where in {where for where, _ in codes.values()}:
        assert not changed(where, otherwise(where))
    clear()
