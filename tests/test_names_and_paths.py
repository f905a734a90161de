"""Names and paths with blanks, brackets, quotes and other scripts in them arrive as they were typed, and print as they are."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import ROOT
from epochal.cli import quoted
from epochal.core.format import say, verbatim
from epochal.data.sources import locate
from helpers.samples import image_folder, image_npz, image_parquet, pixels, text_file

AWKWARD = [
    "사진",
    "O'Brien",
    "a=b",
    "x (1)",
    "[2024]",
    "a, b",
    'say "hi"',
    "2024",
    "007",
    "1e3",
    "true",
    "{x}",
    "a\\",
    "#1",
    "$x:y",
]
IMAGES = ("model=mlp", "dataset=images", "dataset.batch_size=2", "duration=2steps", "logger=none")


@pytest.mark.parametrize(
    "key", ["dataset.path", "output_dir", "resume", "init_from", "run", "checkpoint", "++output_dir"]
)
@pytest.mark.parametrize("text", AWKWARD)
def test_a_path_arrives_as_it_was_typed(key, text):
    assert OverridesParser.create().parse_override(quoted(f"{key}={text}")).value() == text


@pytest.mark.parametrize("typed", ["~/x y", '"~/x y"', "'~/x y'"])
def test_the_home_folder_stands_for_a_tilde(typed, monkeypatch):
    monkeypatch.setenv("HOME", "/some/where")
    assert OverridesParser.create().parse_override(quoted(f"output_dir={typed}")).value() == "/some/where/x y"


@pytest.mark.parametrize(
    "argument", ["output_dir=null", "output_dir=", "resume=auto", "run=latest", "init_from=masked_patch", "run=a/b-1.c"]
)
def test_plain_values_stay(argument):
    assert quoted(argument) == argument


def test_commas_of_a_grid_are_between_paths_unless_there_is_such_a_file(home):
    assert quoted("dataset.path=a b,c", many=True) == 'dataset.path="a b",c'
    assert quoted("dataset.path=choice(a,b)", many=True) == "dataset.path=choice(a,b)"
    (home / "a b,c").mkdir()
    assert quoted("dataset.path=a b,c", many=True) == 'dataset.path="a b,c"'


def test_no_such_user(refuse):
    refuse("train", "output_dir=~nobody-of-this-name/x", says=("home folder of a user who is not there",))
    refuse("train", "--config-dir", "~nobody-of-this-name", says=("home folder of a user who is not there",))


def test_a_run_in_awkward_folders_is_found_again_from_anywhere(command, home, monkeypatch):
    image_folder(home / "O'Brien 사진, (1)", classes=("[red]cat", "[bold]dog"))
    out = "[red] a=b [2024]"
    done = command("train", *IMAGES, "dataset.path=O'Brien 사진, (1)", f"output_dir={out}")
    assert done.status == 0, done.error
    run = next((home / out / "runs").iterdir())
    assert f"run={out}" in done.out
    pasted = shlex.split(done.out.strip().splitlines()[-1])
    assert pasted[-1] == f"run={out}/runs/{run.name}"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["dataset"]["path"] == str(home / "O'Brien 사진, (1)")
    assert config["output_dir"] == str(home / out)
    (home / "else where").mkdir()
    monkeypatch.chdir(home / "else where")
    tested = command("evaluate", f"run=../{out}/runs/{run.name}")
    assert tested.status == 0, tested.error
    assert "[red]cat" in tested.out and "[bold]dog" in tested.out


@pytest.mark.parametrize("folder", ["[2024] a=b, O'Brien", "x*y?", "~/사진", "{a}$b"])
def test_runs_in_awkward_folders_are_compared(command, copied, home, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(home))
    place = home / folder.removeprefix("~/")
    (place / "runs").mkdir(parents=True)
    copied("run", status="finished").rename(place / "runs" / "lenet")
    to = f"to={folder} report"
    for arguments in (
        [f"output_dir={folder}"],
        [f"{folder}/runs", to],
        [f"{folder}/runs/*net", to],
        [f"{folder}/runs/lenet", to],
    ):
        done = command("compare", *arguments)
        assert done.status == 0 and "1 run" in done.out, (arguments, done.error)
        written = place / "comparisons" if arguments[0].startswith("output_dir") else home / f"{place.name} report"
        assert next(written.rglob("report.html"), None), written
        assert not (home / "~").exists()


AWKWARD_FOLDERS = ["[2024]", "a*b", "what?", "x=1, 'y' \"z\"", "{a,b}", "사진 (1)", "$x", "#1"]


@pytest.mark.parametrize("name", AWKWARD_FOLDERS)
@pytest.mark.parametrize("kind", ["folder", "list", "parquet", "file", "csv", "texts", "pairs", "captions", "npz"])
def test_signs_in_a_path_are_no_pattern(home, name, kind):
    from epochal.data import CaptionData, ImageData, PairData, SentenceData, TextData

    folder = home / name / "set"
    path, data = folder, ImageData
    options = {"batch_size": 2}
    if kind in ("folder", "captions"):
        image_folder(folder / "photos")
    if kind == "list":
        for number, file in enumerate(sorted(image_folder(home / "all").rglob("*.png"))):
            (folder / "train").mkdir(parents=True, exist_ok=True)
            file.rename(folder / "train" / f"{number}.png")
        lines = [json.dumps({"file_name": f"{number}.png", "label": number % 2}) for number in range(20)]
        (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))
    elif kind in ("parquet", "file"):
        folder.mkdir(parents=True)
        file = image_parquet(folder / "train-00000.parquet", pixels(20, 4, 4), [0, 1] * 10)
        path = file if kind == "file" else folder
    elif kind == "npz":
        folder.mkdir(parents=True)
        path = image_npz(folder / "a.npz")
    elif kind == "csv":
        data = SentenceData
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            (folder / f"{split}.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 20)
    elif kind == "texts":
        data, options = TextData, {"batch_size": 2, "context_length": 4}
        folder.mkdir(parents=True)
        text_file(folder / "a.txt"), text_file(folder / "b.txt")
    elif kind == "pairs":
        data, options = PairData, {"batch_size": 2, "source": "de", "target": "en", "vocab_size": 300}
        folder.mkdir(parents=True)
        for language in ("de", "en"):
            (folder / f"train.{language}").write_text("ein Hund\n" * 40)
    elif kind == "captions":
        data = CaptionData
        lines = [f"{file.relative_to(folder)},a cat" for file in sorted(folder.rglob("*.png"))]
        (folder / "captions.csv").write_text("\n".join(lines))
    made = data(name="x", path=str(path), **options)
    made.prepare()
    assert made.sizes()["train"] >= 2


def test_resume_auto_finds_a_run_that_kept_a_relative_path(command, photos, home):
    arguments = (*IMAGES, "dataset.path=photos", "resume=auto")
    assert command("train", *arguments).status == 0
    file = next(home.glob("outputs/runs/*/config.yaml"))
    file.write_text(file.read_text().replace(str(home / "photos"), "photos"))
    assert "Finished before" in command("train", *arguments).out


def test_a_path_here_comes_before_a_copy_of_that_name(home, monkeypatch):
    for place in ("copies", "mine"):
        image_folder(home / place / "photos")
        text_file(home / place / "book.txt")
    monkeypatch.setenv("EPOCHAL_DATA", str(home / "copies"))
    text_file(home / "book.txt")
    assert locate("images", "mine/photos").local == home / "mine" / "photos"
    assert locate("text", "book.txt").local == home / "book.txt"
    assert locate("images", "somebody/photos").local == home / "copies" / "photos"


@pytest.mark.parametrize("text", ["[/INST]", "[red]곰", ":cat:", "a\\", "[bold]x[/]", "[link=x]", "[1]"])
def test_a_name_prints_as_it_is(text, capsys):
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_row(verbatim(text))
    for shown in (verbatim(text, (text, "bold")), table, Panel("", title=verbatim(text))):
        Console(width=60).print(shown)
        assert text in capsys.readouterr().out


COMMANDS = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J back\x08 over\rwritten \x7f"


def test_control_characters_of_a_strangers_run_do_not_reach_the_terminal(command, copied, capsys):
    from rich.console import Console

    from epochal.training.console import show_texts

    run = copied("run", kind="text")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = config["dataset"]["name"] = COMMANDS
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["epochal"]["config"] = config
    (run / "checkpoints" / "best.ckpt").unlink()
    torch.save(content, run / "checkpoints" / "best.ckpt")
    shown = [command("evaluate", "run=run"), command("evaluate", "run=run", "dataset=digits")]
    say(f"{COMMANDS} is wrong.")
    show_texts(Console(), {COMMANDS: f"{COMMANDS}\n\tand more"})
    shown += [capsys.readouterr()]
    for outcome in shown:
        error = outcome.err if hasattr(outcome, "err") else outcome.error
        assert not set(outcome.out + error) & set("\x1b\x07\x08\r\x7f\x9b"), repr(outcome)
        assert "\ufffd[31mred\ufffd[0m" in outcome.out + error


@pytest.mark.parametrize("variables", ["RANK=1", "SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_JOB_ID=5", "LOCAL_RANK=2"])
def test_one_device_trains_whatever_rank_a_launcher_gave_it(command, home, monkeypatch, variables):
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as on import with these variables
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    done = command("train", "model=mlp", "duration=2steps", "logger=none")
    assert done.status == 0 and next(home.glob("outputs/runs/*/summary.json")), done.error


def test_torchrun_with_one_device(refuse, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    refuse("train", "model=mlp", says=("torchrun started 4 processes", "trainer=ddp trainer.devices=4"))


@pytest.mark.parametrize(
    "line",
    [
        "train.py model=mlp duration=60steps log_every=1 logger=none",
        pytest.param(
            "train.py -m model=mlp model.hidden=[8] seed=1,2 duration=2steps logger=none", marks=pytest.mark.slow
        ),
        "train.py --help",
        "compare.py --help",
        "evaluate.py --cfg job",
    ],
)
def test_a_command_goes_on_when_the_reader_of_its_output_has_ended(line, home):
    line = f"{sys.executable} {ROOT}/{line} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, timeout=120)
    summaries = [json.loads(file.read_text()) for file in home.glob("outputs/runs/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["finished"] * len(summaries)
    assert len(summaries) == (2 if " -m " in line else "duration" in line)
    assert done.stdout.strip() == "0"
    assert done.stderr.splitlines() == ["Nobody reads the output any more; the command goes on without it."]


def test_paths_of_several_networks_are_read_as_they_stand() -> None:
    typed = quoted("init_from={policy: my runs/a,b=1, reward: other}")
    assert OverridesParser.create().parse_override(typed).value() == {"policy": "my runs/a,b=1", "reward": "other"}
    assert quoted("init_from={policy: a},{policy: b}", many=True) == "init_from={policy: a},{policy: b}"
