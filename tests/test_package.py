"""The package as pip installs it: every module, config and data file is in the wheel, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import hatchling.build
import pytest

import epochal
from conftest import ROOT

SRC = ROOT / "src"
PACKAGES = sorted({file.parent for file in (SRC / "epochal").rglob("*.py")})
FACES = ("data", "models", "tasks", "training/loggers", "experiments/sweeps")  # their __init__.py offers something
HEAVY = {"torch", "pytorch_lightning", "hydra", "numpy", "wandb", "datasets", "optuna"}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Builds a "wheel" or an "sdist" of a source tree, as pip does, in this environment."""

    def make(kind: str, source: Path) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(source)
            return folder / getattr(hatchling.build, f"build_{kind}")(str(folder))

    return make


@pytest.fixture(scope="module")
def wheel(build: Callable[[str, Path], Path]) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", ROOT))


def names(wheel: zipfile.ZipFile) -> set[str]:
    """The files of a wheel, without its metadata."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def metadata(wheel: zipfile.ZipFile, file: str) -> str:
    return wheel.read(f"epochal-{epochal.__version__}.dist-info/{file}").decode()


def test_a_wheel_holds_the_modules_and_the_configs_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {str(file.relative_to(SRC).as_posix()) for file in SRC.rglob("*.*") if "__pycache__" not in file.parts}
    expected = {name for name in expected if ".egg-info" not in name and (SRC / name).is_file()}
    expected |= {f"epochal/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert names(wheel) == expected
    assert {Path(name).suffix for name in expected} == {
        ".py",
        ".yaml",
        ".html",
        ".css",
        ".svg",
        ".js",
        ".npz",
        ".typed",
        ".ttf",
        ".otf",
        ".txt",
    }


@pytest.mark.parametrize(
    "name",
    [
        "epochal/conf/train.yaml",
        "epochal/conf/experiment/depth_degradation.yaml",
        "epochal/py.typed",
        "epochal/compare/report/page.html",
        "epochal/compare/report/page.css",
        "epochal/compare/report/main.js",
        "epochal/data/digits.npz",
        "epochal/plots/typefaces/NotoSansCJKkr.otf",
        "epochal/plots/typefaces/LICENSE.txt",
        "hydra_plugins/epochal_sweepers/grid.py",
    ],
)
def test_what_a_run_reads_is_in_the_wheel(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.getinfo(name).file_size > 0 or name.endswith("py.typed")


def test_hydra_plugins_stays_a_namespace(wheel: zipfile.ZipFile) -> None:
    """An `__init__.py` there would hide the plugins of Hydra's launchers."""
    assert "hydra_plugins/__init__.py" not in wheel.namelist()


def test_a_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    assert "epochal = epochal.cli:main" in metadata(wheel, "entry_points.txt")
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_installed_version_is_that_of_the_project(wheel: zipfile.ZipFile) -> None:
    assert Path(str(wheel.filename)).name == f"epochal-{epochal.__version__}-py3-none-any.whl"


def test_changelog_and_citation_name_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert next(line for line in changelog.splitlines() if line.startswith("## ")).startswith(
        f"## [{epochal.__version__}]"
    )
    assert f"version: {epochal.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()


def test_an_sdist_builds_the_same_wheel(
    build: Callable[[str, Path], Path], wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    with tarfile.open(build("sdist", ROOT)) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("epochal-*")
    assert names(zipfile.ZipFile(build("wheel", source))) == names(wheel)
    assert (source / "tests" / "test_package.py").is_file()
    assert not (source / "outputs").exists()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_every_package_has_an_init(package: Path) -> None:
    assert (package / "__init__.py").is_file()


def test_packages_load_nothing_heavy_but_the_faces_of_data_models_and_tasks() -> None:
    light = [folder.relative_to(SRC).as_posix() for folder in PACKAGES]
    light = [name for name in light if not name.startswith(tuple(f"epochal/{face}" for face in FACES))]
    modules = [name.replace("/", ".") for name in light]
    code = (
        f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\n"
        f"sys.exit(' '.join({HEAVY} & set(sys.modules)) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
