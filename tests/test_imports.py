"""The floors of the house: a module imports only from floors below its own, or from its own room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FLOORS = (  # from the ground up; rooms of one floor do not know each other
    ("core",),
    ("config", "data", "models", "plots", "optim"),
    ("tasks", "compare"),
    ("training",),
    ("experiments", "inference"),
    ("cli",),
    ("__main__", ""),  # "": the package's own __init__.py, what a notebook sees
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_TORCH = ("core", "compare", "config")
TORCH = {"torch", "pytorch_lightning", "torchvision", "torchmetrics"}


def imports(source: str, package: str = "epochal") -> Iterator[str]:
    """Every module that the source imports, also inside of functions, for type checkers alone, or by its own dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """`training` of `epochal.training.build.build`; "" of the package itself."""
    first = module.split(".")[1] if "." in module else ""
    return first if first in FLOOR else ""


def upward(source: str, module: str) -> list[str]:
    """The imports of a module's source that point up, or into another room of the same floor."""
    own, found = room(module), []
    for imported in imports(source, module.rpartition(".")[0]):
        if not imported.startswith("epochal.") or (other := room(imported)) == own:
            continue
        if FLOOR[other] >= FLOOR[own]:
            found.append(f"{module} imports {imported}")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted((SRC / "epochal").rglob("*.py")):
        yield ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"), file


def test_every_import_points_down() -> None:
    wrong = [line for module, file in modules() for line in upward(file.read_text(encoding="utf-8"), module)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("epochal.core.files", "from epochal.training.resume import resumed"),
        ("epochal.models.gpt", "    from epochal.data import Batch"),
        ("epochal.training.build", "from epochal.experiments import grid"),
        ("epochal.data.text", "from epochal import models"),
        ("epochal.tasks.base", "from ..compare import records"),
        ("epochal.core.format", "if TYPE_CHECKING:\n    from epochal.compare.groups import Spread"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, line: str) -> None:
    source = line if not line.startswith(" ") else f"def f():\n{line}"
    assert upward(source, module)


def test_every_entry_of_the_package_has_a_floor() -> None:
    entries = {
        path.stem for path in (SRC / "epochal").iterdir() if path.name not in ("__pycache__", "__init__.py", "py.typed")
    }
    assert entries <= set(FLOOR), entries - set(FLOOR)
    assert len([entry for entry in entries if not entry.startswith("__")]) <= 12


def test_no_circle_of_modules() -> None:
    """Imports at the top of a file, those that run when it is loaded, lead nowhere back."""
    files = dict(modules())
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        found = set()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {name for name in imports(ast.unparse(node)) if name.startswith("epochal")}
        graph[module] = {n if n in files else n.rpartition(".")[0] for n in found} & set(files)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_rooms_without_torch_load_none(name: str) -> None:
    files = [module for module, _ in modules() if room(module) == name]
    code = f"import importlib, sys\nfor m in {files}: importlib.import_module(m)\nsys.exit(' '.join({TORCH} & set(sys.modules)) or None)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
