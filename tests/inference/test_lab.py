"""The lab's server, its list of runs, and the trainings that it starts: what it answers, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epochal.core.errors import ConfigError
from epochal.inference.lab import server
from epochal.inference.lab.networks import Networks
from epochal.inference.lab.runs import checked
from helpers.labs import Client, id_of, served_lab
from helpers.run_folders import run_folder
from helpers.training import train

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    run_folder(folder / "runs", "old", metrics={"test/accuracy": 0.75}, config={"task.name": "classification"})
    run_folder(folder / "runs", "broke", status="failed", error=EVIL, metrics={"val/loss": 9.0})
    run_folder(folder / "mine", "of a claim", status="running", config={"experiment": "mine"})
    return folder


@pytest.fixture
def lab(outputs: Path) -> Iterator[Client]:
    with served_lab(outputs) as client:
        yield client


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:80", "127.0.0.1.example.org:80", "example.org:127.0.0.1", "[::1]:80"]
)
def test_a_request_by_another_name_of_this_machine_is_refused(lab, host):
    status, data, _ = lab.ask("GET", "/api/runs", Host=host)
    assert status == 403 and "only on its own machine" in data["error"]


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/runs"), ("POST", "/api/start")])
def test_what_another_page_sends_is_refused(lab, origin, method, path):
    status, data, _ = lab.ask(method, path, {"line": "model=mlp"} if method == "POST" else None, Origin=origin)
    assert status == 403 and "Another page" in data["error"]


def test_its_own_page_is_answered(lab):
    assert lab.ask("GET", "/api/runs", Origin=f"http://127.0.0.1:{lab.port}")[0] == 200
    assert lab.ask("GET", "/api/runs", Host=f"localhost:{lab.port}")[0] == 200


@pytest.mark.parametrize("given", [{}, {"X_Lab_Token": "wrong"}, {"X_Lab_Token": "ü".encode().decode("latin-1")}])
def test_without_the_token_nothing_is_started_or_stopped(lab, given):
    for path in ("/api/start", "/api/runs/x/stop", "/api/runs/x/resume", "/api/write/x/next", "/nothing"):
        status, data, _ = lab.ask("POST", path, {}, token=False, **given)
        assert status == 403 and "terminal shows" in data["error"]
    status, _, _ = lab.ask("GET", "/api/runs", token=False, Connection="Upgrade", Upgrade="websocket")
    assert status == 403


@pytest.mark.parametrize(
    "path", ["/page/../server.py", "/page/%2e%2e%2fserver.py", "/page/server.py", "/etc/passwd", "/page/"]
)
def test_no_file_but_those_of_the_page_is_served(lab, path):
    status, data, _ = lab.ask("GET", path)
    assert status == 404 and data == {"error": "There is nothing here."}


@pytest.mark.parametrize("run", ["../../runs/old", "%2e%2e%2fruns%2fold", "old", "0" * 12, EVIL.replace(" ", "%20")])
def test_a_run_is_named_by_an_id_alone(lab, run):
    assert lab.ask("GET", f"/api/runs/{run}")[0] in (400, 404)
    assert lab.ask("POST", f"/api/runs/{run}/stop", {})[0] in (400, 404)


def test_a_request_of_fifty_megabytes_is_refused(lab):
    status, data, _ = lab.ask("POST", "/api/start", b"x" * 50_000_000)
    assert status == 413 and "10 MB" in data["error"]
    assert lab.get("/api/runs")["runs"]  # it is still there


@pytest.mark.parametrize("sent", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff", b"3", b'{"line": 3}', b"{}"])
def test_what_is_no_request_is_a_sentence(lab, sent):
    status, data, _ = lab.ask("POST", "/api/start", sent)
    assert status == 400 and data["error"].endswith(".") and len(data["error"]) < 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config-dir=/tmp"], "is no override"),
        (["model"], "is no override"),
        (["hydra.run.dir=/"], "hydra cannot be given"),
        (["+hydra/launcher=x"], "hydra cannot be given"),
        (["output_dir=/"], "output_dir cannot be given"),
        (["++allow=[os]"], "allow cannot be given"),
        (["resume=/x"], "resume cannot be given"),
        (["seed=1"] * 101, "at most 100 arguments"),
        (["a=" + "x" * 5000], "4,000 characters"),
    ],
)
def test_arguments_that_lead_out_of_the_outputs_folder_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        checked(arguments)


def test_overrides_and_multirun_are_arguments():
    given = ["-m", "model=mlp,cnn", "+model.dropout=0.1", "seed=1"]
    assert checked(given) == given


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_allows_its_own_files_alone(lab):
    status, text, headers = lab.ask("GET", "/", token=False)
    assert status == 200 and b"<script type=" in text and b"<style" not in text
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"


def test_every_file_that_the_page_names_is_served(lab):
    named = set(re.findall(r'"(page/[\w.]+)"', server.files()["lab.html"]))
    for name, text in server.files().items():
        if name.endswith(".js"):
            named |= {f"page/{file}" for file in re.findall(r'from "\./([\w.]+)"', text)}
            assert "innerHTML" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", ""), name
    assert len(named) > 5
    for name in named:
        assert lab.ask("GET", f"/{name}", token=False)[0] == 200, name


def test_runs_are_listed_the_newest_first_with_their_results(lab, outputs):
    os.utime(outputs / "runs" / "old" / "config.yaml", (1, 1))
    runs = {run["name"]: run for run in lab.get("/api/runs")["runs"]}
    assert set(runs) == {"old", "broke", "of a claim"}
    assert runs["old"]["result"] == "test accuracy 75.00 %" and runs["old"]["rooms"] == []
    assert runs["broke"]["error"] == EVIL and runs["broke"]["status"] == "failed"
    assert runs["of a claim"]["experiment"] == "mine"
    assert runs["old"]["id"] == id_of(outputs / "runs" / "old")


def test_a_run_has_curves_and_a_deleted_one_is_a_sentence(lab, outputs):
    name = id_of(outputs / "runs" / "old")
    (curve,) = [curve for curve in lab.get(f"/api/runs/{name}")["curves"] if "test/accuracy" in curve]
    assert len(curve["step"]) == len(curve["test/accuracy"]) == 5
    shutil.rmtree(outputs / "runs" / "old")
    status, data, _ = lab.ask("GET", f"/api/runs/{name}")
    assert status == 400 and "no longer there" in data["error"]


def test_a_run_shows_its_newest_pictures_and_no_other_file(lab, outputs):
    folder, run = outputs / "runs" / "old" / "pictures", id_of(outputs / "runs" / "old")
    folder.mkdir(exist_ok=True)
    for name in ("samples_000100", "samples_000200", "curve_loss", "test_confusion_matrix"):
        (folder / f"{name}.png").write_bytes(name.encode())
    (folder / "samples_000200.txt").write_text("text")
    found = lab.get(f"/api/runs/{run}")["pictures"]
    assert [(each["name"], each["step"]) for each in found] == [("confusion_matrix", None), ("samples", 200)]
    named = {"name=confusion_matrix&step=": b"test_confusion_matrix", "name=samples&step=200": b"samples_000200"}
    for query, content in named.items():
        status, body, headers = lab.ask("GET", f"/api/runs/{run}/picture?{query}", token=False)
        assert (status, body, headers["Content-Type"]) == (200, content, "image/png")
    for wrong in (
        "name=samples&step=100",
        "name=samples",
        "name=../config.yaml",
        "name=curve_loss",
        "",
        "name=samples&step=x",
    ):
        assert lab.ask("GET", f"/api/runs/{run}/picture?{wrong}", token=False)[0] == 404


def test_a_lab_without_runs_is_empty(tmp_path):
    with served_lab(tmp_path / "nowhere") as lab:
        assert lab.get("/api/runs")["runs"] == []
        status, data, _ = lab.ask("GET", "/report/")
        assert status == 400 and "nowhere" in data["error"]


def test_the_comparison_of_all_runs_is_there(lab):
    status, text, headers = lab.ask("GET", "/report/", token=False)
    assert status == 200 and b'id="data"' in text and headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    version = json.loads(re.search(rb'<script type="application/json" id="data">(.*?)</script>', text)[1])["version"]
    assert lab.ask("GET", f"/report/data.json?known={version}")[0] == 204
    assert lab.ask("GET", "/report/shown/../../secret")[0] == 404


def test_the_form_offers_what_there_is(lab):
    choices = lab.get("/api/choices")
    assert (
        "resnet" in choices["model"]
        and "cifar10" in choices["dataset"]
        and "depth_degradation" in choices["experiment"]
    )


# -- trainings --------------------------------------------------------------------------------------------------------


def ended(lab: Client, number: int, seconds: float = 120) -> dict[str, Any]:
    """A started training, once its process has ended."""
    until = time.monotonic() + seconds
    while (state := lab.get(f"/api/started/{number}"))["status"] is None:
        assert time.monotonic() < until, state
        time.sleep(0.1)
    return state


def test_a_wrong_line_ends_in_the_sentence_of_the_command_line(lab):
    number = lab.post("/api/start", {"line": "model=resnett dataset=digits"})["number"]
    state = ended(lab, number)
    assert state["status"] == 2 and "Did you mean resnet?" in state["said"] and "\x1b" not in state["said"]
    assert state["line"] == "epochal train model=resnett dataset=digits"
    assert "not closed" in lab.refused("/api/start", {"line": "model='x"})
    assert "started no such training" in lab.ask("GET", "/api/started/9")[1]["error"]


def test_nobody_can_stop_or_resume_what_is_not_there_for_it(lab, outputs):
    assert "is not being trained" in lab.refused(f"/api/runs/{id_of(outputs / 'runs' / 'broke')}/stop")
    assert "has finished" in lab.refused(f"/api/runs/{id_of(outputs / 'runs' / 'old')}/resume")


@pytest.mark.slow
def test_a_run_is_started_stopped_and_resumed(tmp_path):
    line = "model=mlp dataset=digits duration=100000steps logger=none log_every=10 callbacks.checkpoint_every=50"
    with served_lab(tmp_path / "outputs") as lab:
        number = lab.post("/api/start", {"line": line})["number"]
        until = time.monotonic() + 120
        while not ((runs := lab.get("/api/runs")["runs"]) and runs[0]["progress"] > 0):
            assert time.monotonic() < until, lab.get(f"/api/started/{number}")
            time.sleep(0.2)
        (run,) = runs
        assert run["status"] == "running" and lab.get(f"/api/started/{number}")["runs"] == [run["id"]]
        assert "is being trained" in lab.refused(f"/api/runs/{run['id']}/resume")
        lab.post(f"/api/runs/{run['id']}/stop")
        assert ended(lab, number)["status"] == 143
        time.sleep(1.1)  # older than a list may be
        assert lab.get(f"/api/runs/{run['id']}")["status"] == "stopped"
        again = lab.post(f"/api/runs/{run['id']}/resume")["number"]
        until = time.monotonic() + 120
        while lab.get(f"/api/runs/{run['id']}")["status"] != "running":
            assert time.monotonic() < until, lab.get(f"/api/started/{again}")
            time.sleep(0.2)
        lab.post(f"/api/runs/{run['id']}/stop")
        assert ended(lab, again)["status"] == 143
        assert len(lab.get("/api/runs")["runs"]) == 1


# -- networks ---------------------------------------------------------------------------------------------------------


class Fake:
    """Stands for a LoadedRun of a size."""

    def __init__(self, folder: Path) -> None:
        import torch

        self.folder, self.model = folder, torch.nn.Linear(250, 1, bias=False)  # 1,000 bytes


@pytest.mark.parametrize(("room", "opened"), [(2500, ["a", "b", "c"]), (1500, ["a", "b", "a", "c"])])
def test_networks_stay_open_within_the_memory_that_they_may_take(tmp_path, room, opened):
    import asyncio

    found: list[str] = []

    def open_folder(folder: Path) -> Any:
        found.append(folder.name)
        return Fake(folder)

    networks = Networks(lambda run: tmp_path / run, open_folder, most_bytes=room)
    for name in ("a", "b", "a", "c"):
        assert asyncio.run(networks.use(name, lambda run: run.folder.name)) == name
    networks.close()
    assert found == opened


def test_a_network_is_opened_anew_when_its_checkpoint_has_changed(tmp_path):
    import asyncio

    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    networks = Networks(lambda run: tmp_path / run, Fake)  # type: ignore[arg-type]
    first = asyncio.run(networks.use("run", lambda run: run))
    assert asyncio.run(networks.use("run", lambda run: run)) is first
    os.utime(file, (5, 5))
    assert asyncio.run(networks.use("run", lambda run: run)) is not first
    networks.close()


def test_a_checkpoint_of_a_stranger_is_refused_and_runs_nothing(tmp_path, home):
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    folder = train("model=mlp", "duration=1steps", "logger=none", "model.hidden=[4]").run.folder
    for file in (folder / "checkpoints").glob("*.ckpt"):
        file.write_bytes(pickle.dumps(Bomb()))
    with served_lab(home / "outputs") as lab:
        status, data, _ = lab.ask("POST", f"/api/write/{id_of(folder)}/next", {"text": "x"})
    assert status == 400 and "checkpoint" in data["error"] and not (tmp_path / "harm").exists()


def test_the_command_refuses_what_is_no_port(refuse):
    refuse("lab", "port=70000", says=["port=70000 must be a whole number from 0 to 65535"])
    refuse("lab", "prot=1", says=["Did you mean port?"])
