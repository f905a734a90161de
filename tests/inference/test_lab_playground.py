"""The lab's playground: what it draws and starts, what it refuses, and that being watched changes nothing of a training."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.inference.lab import playground
from epochal.training.callbacks.watch import FOLDER
from epochal.training.checkpoint_io import read_checkpoint
from helpers.labs import Client, served_lab
from helpers.training import train

EVIL = "<img src=x onerror=alert(1)>"
CLICKED = [[n / 4 - 3, n % 5 - 2, n % 2] for n in range(20)]
NETWORK = {"hidden": [4, 3], "activation": "tanh", "learning_rate": 0.01, "weight_decay": 0, "steps": 100}
SMALL = (
    "model=mlp",
    "dataset=points",
    "model.hidden=[6,4]",
    "duration=60steps",
    "logger=none",
    "trainer.precision=32-true",
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Client]:
    with served_lab(tmp_path / "outputs") as client:
        yield client


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands and environments of trainings, which are not really started."""
    found: list[Any] = []

    class Process:
        pid = 1

        def __init__(self, command: list[str], env: dict[str, str], **options: Any) -> None:
            found.append((command, env))

        def poll(self) -> None:
            return None

    monkeypatch.setattr("subprocess.Popen", Process)
    return found


def test_the_points_are_those_of_the_training(lab):
    found = lab.post("/api/playground/points", {"kind": "blobs", "classes": 3, "noise": 0.2})
    assert len(found["train"]) == 300 and len(found["val"]) == 200 and found["classes"] == 3
    assert {label for *_, label in found["train"]} == {0, 1, 2}
    assert all(abs(x) <= 6 and abs(y) <= 6 for x, y, _ in found["train"])


def test_a_training_is_started_by_the_line_that_is_shown(lab, launched):
    found = lab.post("/api/playground/start", {"kind": "xor", "classes": 7, "noise": 0.2, **NETWORK})
    ((command, environment),) = launched
    assert "dataset.kind=xor" in command and "dataset.classes=2" in command and "model.hidden=[4,3]" in command
    assert "model=mlp dataset=points dataset.kind=xor" in found["line"] and FOLDER not in found["line"]
    folder = Path(environment[FOLDER])
    assert folder.is_dir() and folder.is_relative_to(lab.lab.runs.output_dir / ".lab")
    lab.post(f"/api/playground/{found['number']}/controls", {"learning_rate": 0.1, "weight_decay": 1})
    assert json.loads((folder / "controls.json").read_text()) == {
        "learning_rate": 0.1,
        "weight_decay": 1,
        "stop": False,
    }


def test_own_points_become_a_file_of_the_servers_folder(lab, launched):
    lab.post("/api/playground/start", {"kind": "own", "points": CLICKED, "path": "/etc/passwd", **NETWORK})
    ((command, environment),) = launched
    file = Path(environment[FOLDER]) / "points.csv"
    assert f'dataset.path="{file}"' in command and "dataset.batch_size=12" in command
    lines = file.read_text().split()
    assert lines[:2] == ["x,y,class", "-3.0,-2.0,0"] and len(lines) == 21


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"kind": EVIL}, "kind has 28 characters"),
        ({"kind": "moons"}, "kind must be one of"),
        ({"kind": "blobs", "classes": 9}, "classes must be a number from 2 to 8"),
        ({"noise": -1}, "noise must be a number"),
        ({"kind": "own", "points": CLICKED[:9]}, "Put 10 to 2,000 points"),
        ({"kind": "own", "points": CLICKED * 200}, "Put 10 to 2,000 points"),
        ({"kind": "own", "points": [[1, 2]] * 20}, "x, y and class"),
        ({"kind": "own", "points": [[1, 2, 0]] * 20}, "two classes"),
        ({"kind": "own", "points": [*CLICKED, [7, 0, 0]]}, "x must be a number from -6 to 6"),
        ({"kind": "own", "points": [*CLICKED, [EVIL, 0, 0]]}, "x must be a number"),
        ({"kind": "own", "points": [*CLICKED, [0, 0, 0.5]]}, "class must be a whole number"),
        ({"hidden": [4] * 7}, "at most 6"),
        ({"hidden": [10**9]}, "width must be a number from 1 to 64"),
        ({"hidden": "4,4"}, "list"),
        ({"activation": "os.system"}, "activation must be one of relu, tanh, sigmoid"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"steps": 10**9}, "steps"),
    ],
)
def test_what_is_no_training_is_a_sentence(lab, launched, changed, says):
    assert says in lab.refused(
        "/api/playground/start", {"kind": "spiral", "classes": 2, "noise": 0.1, **NETWORK, **changed}
    )
    assert not launched


def test_controls_are_of_a_training_that_this_server_started(lab):
    assert "no such training" in lab.refused("/api/playground/3/controls", {"learning_rate": 0.1, "weight_decay": 0})
    assert lab.ask("GET", "/api/playground/0")[0] == 400
    for path in ("/api/playground/start", "/api/playground/points", "/api/playground/0/controls"):
        assert lab.ask("POST", path, {}, token=False)[0] == 403


def test_being_watched_changes_nothing_of_a_training(tmp_path, monkeypatch):
    def weights(name: str) -> dict[str, torch.Tensor]:
        return read_checkpoint(train(*SMALL, f"output_dir={tmp_path / name}").run.last)["state_dict"]

    alone = weights("alone")
    folder = tmp_path / "frames"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    watched = weights("watched")
    assert all(torch.equal(alone[name], watched[name]) for name in alone)
    frame = json.loads((folder / "frame.json").read_text())
    assert frame["step"] == 60 and frame["curve"][0][0] == 0 and frame["curve"][-1][0] == 60
    plane = base64.b64decode(frame["plane"])
    assert len(plane) == 2 * 48 * 48 and all(
        254 <= a + b <= 256 for a, b in zip(plane[:2304], plane[2304:], strict=True)
    )
    assert [layer["count"] for layer in frame["layers"]] == [6, 4]
    assert len(base64.b64decode(frame["layers"][0]["maps"])) == 6 * 24 * 24


def test_settings_are_turned_while_it_trains(tmp_path, monkeypatch):
    (tmp_path / "controls.json").write_text('{"learning_rate": 0.123, "weight_decay": 0.5, "stop": false}')
    monkeypatch.setenv(FOLDER, str(tmp_path))
    job = train(*SMALL, "scheduler=constant", f"output_dir={tmp_path / 'outputs'}")
    matrices, biases = job.trainer.optimizers[0].param_groups
    assert matrices["lr"] == biases["lr"] == 0.123 and (matrices["weight_decay"], biases["weight_decay"]) == (0.5, 0)
    assert json.loads((tmp_path / "frame.json").read_text())["learning_rate"] == 0.123


def test_old_frames_are_removed_but_not_points(lab, monkeypatch):
    monkeypatch.setattr(playground, "KEPT", 1)
    first = playground.new_folder(lab.lab.runs)
    (first / "points.csv").write_text("")
    second = playground.new_folder(lab.lab.runs)
    time.sleep(0.01)
    third = playground.new_folder(lab.lab.runs)
    fourth = playground.new_folder(lab.lab.runs)
    assert first.exists() and not second.exists() and third.exists() and fourth.exists()


def test_points_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="kind must be a text"):
        playground.made({"kind": 3})
