"""What README.md and docs/ say is true: commands compose, links lead somewhere, code that is named exists, the example runs."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from epochal.compare.claims import load_claim
from epochal.compare.design import Design
from epochal.compare.request import Request
from epochal.config import compose as composing
from helpers import training
from helpers.one_step import check_every_parameter_learns
from helpers.training import CONF
from test_imports import FLOORS

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PACKAGE = ROOT / "src" / "epochal"
EXAMPLE = re.findall(  # a path in bold, then a block of code
    r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```$",
    (ROOT / "docs" / "adding-an-architecture.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
EXPERIMENT = re.findall(  # the user's own
    r"^\*\*`mine/(experiment/(\w+)\.yaml)`\*\*\n\n```yaml\n(.*?)^```$",
    (ROOT / "docs" / "experiments.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
EXPERIMENTS, SWEEPS, LAUNCHERS = (
    {file.stem for file in (CONF / group).glob("*.yaml")} for group in ("experiment", "sweep", "launcher")
)
PLUGINS = {"slurm": "hydra_submitit_launcher", "submitit_local": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}


def commands() -> list[str]:
    """Every command of ours that a page tells the user to type, without its comment."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
        start = r"\s*((python|torchrun\b.*) (train|evaluate|compare)\.py|(python -m )?epochal (train|evaluate|compare|export|leaderboard|chat|serve|lab))\b"
        found += [line.strip() for line in lines if re.match(start, line)]
    return sorted({re.sub(r"\s+#.*", "", line) for line in found})


@pytest.fixture
def with_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports and composes as if the two files of docs/adding-an-architecture.md stood beside the others."""
    import epochal.models

    for path, content in EXAMPLE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    models = [*epochal.models.__path__, str(tmp_path / "src" / "epochal" / "models")]
    monkeypatch.setattr(epochal.models, "__path__", models)
    monkeypatch.setattr(composing, "_own_folders", (f"file://{tmp_path / 'conf'}",))
    monkeypatch.delitem(sys.modules, "epochal.models.mixer", raising=False)


def test_the_example_is_one_module_and_one_config() -> None:
    assert [path for path, _ in EXAMPLE] == ["src/epochal/models/mixer.py", "conf/model/mixer.yaml"]
    assert not (ROOT / EXAMPLE[0][0]).exists(), "the page says that it is not in the package"


def test_the_example_is_covered_by_the_discovered_tests(with_example: None, tmp_path: Path) -> None:
    check_every_parameter_learns("mixer", tmp_path)
    assert training.composed("model=mixer").model.name == "mixer"


def test_the_example_trains(with_example: None, home: Path) -> None:
    job = training.train("model=mixer", "duration=2steps", "logger=none", "trainer=cpu")
    assert job.run.summary()["status"] == "finished"


def test_the_experiment_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [(path, name, content)] = EXPERIMENT
    assert not (CONF / path).exists(), "the page says that it is the user's own"
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(content)
    monkeypatch.setattr(composing, "_own_folders", (f"file://{tmp_path}",))
    claim, budget = load_claim(name, None)  # checks it
    assert claim is not None and budget is None
    design = Design(name, budget)
    assert design.tuning is not None and len(design.points) == 2
    for point in design.points:
        training.composed(f"experiment={name}", *point)


def words_of(command: str) -> tuple[str, list[str]]:
    """The command and its arguments; `<run>`, which the user fills in, is replaced by a word."""
    _, script, rest = re.split(
        r"\b(train|evaluate|compare|export|leaderboard|chat|serve|lab)(?:\.py)?\b", command, maxsplit=1
    )
    return script, shlex.split(re.sub(r"<\w+>", "some", rest))


@pytest.mark.parametrize("command", [c for c in commands() if words_of(c)[0] not in ("compare", "leaderboard")])
def test_every_command_composes(command: str, with_example: None) -> None:
    from epochal.config.compose import compose
    from epochal.config.validate import validate
    from epochal.core.errors import ConfigError

    script, words = words_of(command)
    if "--config-dir" in words:
        pytest.skip("needs a folder of the user's own; tests/config/test_own_configs.py tests these")
    overrides = [word for word in words if "=" in word]
    assert not set(words) - {*overrides, "-m", "--help", "--cfg", "job"}
    for launcher in PLUGINS.keys() & {word.removeprefix("launcher=") for word in words}:
        if importlib.util.find_spec(f"hydra_plugins.{PLUGINS[launcher]}") is None:
            pytest.skip(f"launcher={launcher} needs the extra 'cluster'")
    jobs = grid(script, overrides)
    for job in jobs[-1:]:  # of a grid one is enough
        config = compose(job, script)
        if script == "train":
            try:
                validate(config)
            except ConfigError as error:  # a GPU that this machine does not have, or a run that the user fills in
                excused = ("wants a GPU", "some is no run's folder") if "<" in command else ("wants a GPU",)
                assert all(any(said in line for said in excused) for line in str(error).splitlines()), error


def grid(script: str, overrides: list[str]) -> list[list[str]]:
    """The runs of a command: every combination of what is typed, and of what an experiment or a sweep varies.

    What a sweep draws out of an interval is left as it is.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    chosen = [word for word in overrides if word.partition("=")[0] in ("experiment", "budget", "sweep")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(script, overrides=chosen, return_hydra_config=True)
    params = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True) if chosen else {}
    assert isinstance(params, dict)
    parsed = OverridesParser.create().parse_overrides(
        [*(f"{key}={value}" for key, value in params.items()), *overrides]
    )
    typed = [override for override in parsed if not override.is_sweep_override() or override.is_discrete_sweep()]
    return [list(job) for job in BasicSweeper.split_arguments(typed, max_batch_size=None)[0]]


@pytest.mark.parametrize("command", [command for command in commands() if words_of(command)[0] == "compare"])
def test_every_comparison_is_one_that_can_be_asked_for(command: str) -> None:
    from epochal.compare.command import parse
    from epochal.config.compose import compose

    _, words = words_of(command)
    if words == ["--help"] or "<" in command or "--config-dir" in words:  # a folder of the user's own
        return
    request = parse(words).request
    if request.experiment is not None:
        budgets = compose([f"experiment={request.experiment}"]).budgets
        assert request.budget is None or request.budget in budgets


@pytest.mark.parametrize("command", [command for command in commands() if words_of(command)[0] == "leaderboard"])
def test_every_leaderboard_is_one_that_can_be_asked_for(command: str) -> None:
    from epochal.compare.leaderboard import parse

    parse([word for word in words_of(command)[1] if word != "--help"])


def test_pages_name_no_other_experiments_sweeps_and_launchers_than_there_are() -> None:
    known = {"experiment": EXPERIMENTS | {name for _, name, _ in EXPERIMENT}, "sweep": SWEEPS, "launcher": LAUNCHERS}
    for page in PAGES:
        for group, name in re.findall(r"(?<![\w.])(experiment|sweep|launcher)=(\w+)", page.read_text()):
            assert name in known[group], f"{page.name} names {group}={name}"


def test_every_claim_has_its_section() -> None:
    assert set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "claims.md").read_text(), re.MULTILINE)) == EXPERIMENTS


@pytest.mark.parametrize("record", sorted((ROOT / "docs" / "records").glob("*.csv")), ids=lambda path: path.stem)
def test_every_record_is_judged_as_its_section_says(record: Path, tmp_path: Path) -> None:
    name, _, budget = record.stem.rpartition("_")
    verdict = Request(paths=(str(record),), experiment=name, budget=budget, to=str(tmp_path)).compare().verdict
    section = re.split(r"^## ", (ROOT / "docs" / "claims.md").read_text(), flags=re.MULTILINE)
    [written] = [part.partition("<!-- end -->")[0] for part in section if part.startswith(f"{name}\n")]
    assert verdict is not None and f"**Verdict: {verdict.verdict}.**" in written
    for test in verdict.tests:
        [line] = [line for line in written.splitlines() if line.startswith(f"| {test.says} |")]
        assert line.endswith(f"| {test.verdict}: {test.why} |" if test.why else f"| {test.verdict} |")
        assert test.interval is None or test.interval_text(test.interval) in line


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 50
    known = {"train", "evaluate", "compare", "export", "leaderboard", "chat", "serve", "lab"}
    assert {words_of(command)[0] for command in commands()} == known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
    for target in (one or other for one, other in targets):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_a_page_names_is_where_it_says(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text())
    named = re.findall(r"`([A-Za-z_.]+)` in `([\w/]+\.py)`", text)
    if page.name == "one-batch.md":
        assert len(named) > 40
    for name, file in named:
        source = (PACKAGE / file if (PACKAGE / file).is_file() else ROOT / file).read_text()
        for part in name.split("."):
            found = re.search(rf"^\s*(class|def) {part}\b|^{part} = ", source, re.MULTILINE)
            assert found, f"{name} is not in {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    later = {path for path, _ in EXAMPLE} | {"tests/models/test_mixer.py"}
    text = page.read_text()
    for file in set(re.findall(r"`((?:src|conf|tests|docs|benchmarks)/[\w/.-]+\.\w+)`", text)) - later:
        assert (ROOT / file).is_file(), file
    rooms = "|".join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    for file in set(re.findall(rf"`((?:{rooms})/[\w/]+\.py)`", text)):  # of the package
        assert (PACKAGE / file).is_file(), file


def python_of_the_readme() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_lightning_lines_of_the_readme_train(home: Path) -> None:
    _, code = python_of_the_readme()
    lines, *loading = code.partition("tasks.Classification.load")  # of a checkpoint of one's own
    assert "<run>" in loading[1]
    named: dict[str, Any] = {}
    exec(lines.replace("max_epochs=5", "max_epochs=1, limit_train_batches=2, logger=False"), named)
    assert named["trainer"].global_step == 2


def test_the_notebook_api_of_the_readme_exists() -> None:
    import epochal
    from epochal.inference.notebook import LoadedRun

    code, _ = python_of_the_readme()
    compile(code, "README.md", "exec")
    used = re.findall(r"\b(epochal|run)\.(\w+)", re.sub(r"#.*|\"[^\"]*\"", "", code))
    assert len(used) > 5
    attributes = re.findall(r"self\.(\w+)", inspect.getsource(LoadedRun.__init__))
    for owner, name in used:
        assert hasattr(epochal if owner == "epochal" else LoadedRun, name) or name in attributes, f"{owner}.{name}"


def test_the_floors_of_contributing_are_those_of_the_package() -> None:
    (drawing,) = re.findall(r"^```text\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    floors = re.split(r"^  floor \d", drawing, flags=re.MULTILINE)[1:]
    assert len(floors) == len(FLOORS)
    for rooms, lines in zip(reversed(FLOORS), floors):
        named = {word.removesuffix(".py") for word in re.findall(r"[\w.]+(?:/|\.py)", lines.splitlines()[0])}
        assert {name.rstrip("/") for name in named} == {room or "__init__" for room in rooms}
