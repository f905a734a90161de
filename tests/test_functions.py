"""Functions stay short: at most 60 lines and 15 branches, or the docstring says `Long because ...`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from conftest import ROOT

LINES, BRANCHES = 60, 15
BRANCH = (ast.If, ast.For, ast.While, ast.AsyncFor, ast.ExceptHandler, ast.IfExp)


def branches(function: ast.AST) -> int:
    """if, for, while, except, and each further operand of `and` and `or` and condition of a comprehension."""
    count = 0
    for node in ast.walk(function):
        count += isinstance(node, BRANCH)
        count += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        count += len(node.ifs) if isinstance(node, ast.comprehension) else 0
    return count


def too_long(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines, count = (node.end_lineno or 0) - node.lineno + 1, branches(node)
            reason = "Long because" in (ast.get_docstring(node) or "")
            if (lines > LINES or count > BRANCHES) and not reason:
                yield f"{node.name}: {lines} lines, {count} branches"


def test_no_function_is_too_long():
    files = sorted((ROOT / "src").rglob("*.py"))
    found = [f"{file.relative_to(ROOT)} {line}" for file in files for line in too_long(file.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("    x = 1\n" * 59, False),
        ("    x = 1\n" * 60, True),
        ("    if x: pass\n" * 15, False),
        ("    if x: pass\n" * 16, True),
        ("    return " + " or ".join("x" * 17) + "\n", True),
        ('    """Long because a table is written out."""\n' + "    x = 1\n" * 60, False),
    ],
)
def test_what_is_too_long_is_found(body, found):
    assert bool(list(too_long(f"def f(x):\n{body}"))) == found
