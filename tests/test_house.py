"""The rules of the house: short files, short functions, and a docstring for everything public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from places import ROOT

PACKAGE = ROOT / "streamrec_lite"
TESTS = ROOT / "tests"
MODULES = sorted(PACKAGE.rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
MAX_LINES, MAX_TEST_LINES, MAX_FUNCTION_LINES, MAX_ENTRIES = 300, 400, 60, 14
MIN_PARAMETERS_WITH_ARGS = 4  # a public function with so many parameters describes each of them


class Public(NamedTuple):
    """A public function, method or class of a module."""

    where: str  # module:line name
    node: Definition
    is_method: bool


def public_definitions(path: Path) -> Iterator[Public]:
    """Public functions and classes of a module, and the public methods of these classes."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield Public(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node, False)
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, Definition) and not inner.name.startswith("_"):
                    where = f"{path.relative_to(ROOT)}:{inner.lineno} {node.name}.{inner.name}"
                    yield Public(where, inner, True)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool) -> list[str]:
    """The names of all parameters but ``self`` and ``cls``."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    names += [arg.arg for arg in (args.vararg, args.kwarg) if arg]
    return names[1:] if is_method and names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize(
    ("folder", "limit"), [(PACKAGE, MAX_LINES), (TESTS, MAX_TEST_LINES)], ids=["package", "tests"]
)
def test_files_are_short(folder, limit):
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in folder.rglob("*.py")}
    assert not {path: count for path, count in lines.items() if count > limit}


def code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring, which may describe many parameters."""
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {code_lines(node)} lines"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and code_lines(node) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_the_package_has_few_entries():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MAX_ENTRIES, entries


def test_modules_have_docstrings():
    missing = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not missing, "\n".join(missing)


def test_everything_public_has_a_docstring():
    missing = [
        public.where
        for path in MODULES
        for public in public_definitions(path)
        if not ast.get_docstring(public.node)
    ]
    assert not missing, "\n".join(missing)


def test_functions_of_many_parameters_describe_each():
    """An Args section with a line ``name:`` for every parameter, in functions and methods alike."""
    missing = []
    for path in MODULES:
        for where, node, is_method in public_definitions(path):
            if isinstance(node, ast.ClassDef) or is_command(node):
                continue
            names = parameters(node, is_method)
            if len(names) < MIN_PARAMETERS_WITH_ARGS:
                continue
            _, _, described = (ast.get_docstring(node) or "").partition("Args:\n")
            lines = [line.strip() for line in described.splitlines()]
            undescribed = [name for name in names if not any(describes(line, name) for line in lines)]
            if undescribed:
                missing.append(f"{where}: {', '.join(undescribed)}")
    assert not missing, "\n".join(missing)


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a command of typer, which describes each parameter by its option's help."""
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def describes(line: str, name: str) -> bool:
    """Whether a line of an Args section begins with ``name:`` or with names among which it is, ``a, b:``."""
    head, colon, _ = line.partition(":")
    return bool(colon) and name in [word.strip(" *`") for word in head.split(",")]
