"""What README.md and docs/ say is true: commands compose, links lead somewhere, code that is named exists, the example runs."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import test_configs
import training
from conftest import ROOT
from training import CONF

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PACKAGE = ROOT / "src" / "epochal"
EXAMPLE = re.findall(  # a path in bold, then a block of code
    r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```$",
    (ROOT / "docs" / "adding-an-architecture.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def commands() -> list[str]:
    """Every command of ours that a page tells a person to type, without its comment."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
        found += [line.strip() for line in lines if re.match(r"\s*(python|torchrun\b.*) (train|evaluate)\.py\b", line)]
    return sorted({re.sub(r"\s+#.*", "", line) for line in found})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of conf/, and the two files of docs/adding-an-architecture.md where the page says."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(CONF, folder / "conf")
    for path, content in EXAMPLE:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


@pytest.fixture
def with_example(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports and composes as if the page's two files stood beside the others."""
    import epochal.models

    models = [*epochal.models.__path__, str(repository / "src" / "epochal" / "models")]
    monkeypatch.setattr(epochal.models, "__path__", models)
    monkeypatch.setattr(training, "CONF", repository / "conf")
    monkeypatch.delitem(sys.modules, "epochal.models.mixer", raising=False)


def test_the_example_is_one_module_and_one_config() -> None:
    assert [path for path, _ in EXAMPLE] == ["src/epochal/models/mixer.py", "conf/model/mixer.yaml"]
    assert not (ROOT / EXAMPLE[0][0]).exists(), "the page says that it is not in the package"


def test_the_example_is_covered_by_the_discovered_tests(with_example: None, tmp_path: Path) -> None:
    test_configs.test_every_parameter_of_every_model_learns("mixer", tmp_path)
    test_configs.test_every_choice_composes("model", "mixer")


def test_the_example_trains(with_example: None, home: Path) -> None:
    job = training.train("model=mixer", "duration=2steps", "logger=none", "trainer=cpu")
    assert job.run.summary()["status"] == "finished"


@pytest.mark.parametrize("command", commands())
def test_every_command_composes(command: str, with_example: None) -> None:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from epochal.cli import compose
    from epochal.errors import ConfigError
    from epochal.validate import validate

    _, script, rest = re.split(r"\b(train|evaluate)\.py", command)
    words = shlex.split(re.sub(r"<\w+>", "some", rest))
    overrides = [word for word in words if "=" in word]
    assert not set(words) - {*overrides, "-m", "--help", "--cfg", "job"}
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), max_batch_size=None)[0]
    for job in (jobs[0], jobs[-1])[: len(jobs)]:  # of a sweep the first and the last: composing takes 0.1 s
        config = compose(list(job), script, training.CONF)
        if script == "train":
            try:
                validate(config)
            except ConfigError as error:  # a page may tell of a GPU that this machine has not
                assert all("wants a GPU" in line for line in str(error).splitlines()), error


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
    for target in (one or other for one, other in targets):
        if not target.startswith(("https://", "http://", "#")):
            assert (page.parent / target.partition("#")[0]).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_a_page_names_is_where_it_says(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text())
    named = re.findall(r"`([A-Za-z_.]+)` in `([\w/]+\.py)`", text)
    if page.name == "one-batch.md":
        assert len(named) > 40
    for name, file in named:
        source = (PACKAGE / file).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(class|def) {part}\b", source, re.MULTILINE), f"{name} is not in {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    later = {path for path, _ in EXAMPLE} | {"tests/models/test_mixer.py"}
    for file in set(re.findall(r"`((?:src|conf|tests|docs|benchmarks)/[\w/.-]+\.\w+)`", page.read_text())) - later:
        assert (ROOT / file).is_file(), file
