"""The live page reads no more than needed, serves only what it shows, and answers only its own machine."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from conftest import ROOT
from epochal.compare.comparison import Comparison
from epochal.compare.report import live, page
from epochal.compare.request import Request
from epochal.core.errors import ConfigError
from helpers.run_folders import run_folder
from helpers.web import served_app


class Runs:
    """A folder of runs that counts how often it was read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reads, self.comparison = folder, 0, None

    def __call__(self) -> Comparison:
        self.reads += 1
        known = self.comparison.records if self.comparison else ()
        self.comparison = Request(paths=(str(self.folder),)).compare(known)
        return self.comparison


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Runs:
    monkeypatch.setattr(page, "_bundle", lambda: "window.vegaEmbed = () => {};")
    run = run_folder(tmp_path / "runs", "run", metrics={"val/loss": 0.5})
    Image.new("RGB", (8, 8)).save(run / "pictures" / "predictions_000040.png")
    (run / "secret.txt").write_text("not for the page")
    return Runs(tmp_path / "runs")


@pytest.fixture
def server(runs, monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(live, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(live, "MAX_LOAD", 1e9)
    with served_app(lambda: live.application(live.LiveData(runs))) as port:
        yield port


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_the_page_its_data_and_its_pictures_are_served(server, runs):
    status, text = get(server, "/")
    assert status == 200
    assert b'"live":true' in text
    data = json.loads(get(server, "/data.json")[1])
    (entry,) = data["shown"]
    status, content = get(server, f"/{entry['src']}")
    assert (status, content[:4]) == (200, b"\x89PNG")
    (runs.folder / "run" / "pictures" / "predictions_000040.png").unlink()
    assert get(server, f"/{entry['src']}") == (404, b"There is nothing here.")


def test_there_is_an_update_only_when_a_run_has_written(server, runs):
    version = json.loads(get(server, "/data.json")[1])["version"]
    assert get(server, f"/data.json?known={version}") == (204, b"")
    with (runs.folder / "run" / "metrics.csv").open("a") as stream:
        stream.write("60,6.0,3840,3.0,0.25\n")
    status, update = get(server, f"/data.json?known={version}")
    assert status == 200
    assert json.loads(update)["runs"][0]["curves"][0]["val/loss"][-1] == 0.25


def test_an_update_holds_only_what_has_changed_since_the_version_that_was_known(server, runs):
    for number in range(20):
        run_folder(runs.folder, f"run-{number}", metrics={"val/loss": 1.0 + number})
    whole = json.loads(get(server, "/data.json")[1])
    with (runs.folder / "run-7" / "metrics.csv").open("a") as stream:
        stream.write("60,6.0,3840,3.0,0.25\n")
    text = get(server, f"/data.json?known={whole['version']}")[1]
    update = json.loads(text)
    assert [run["name"] for run in update["runs"]] == ["run-7"]
    assert {"plots", "order", "common", "columns"}.isdisjoint(update) and update["shown"] == {}
    assert len(text) < len(json.dumps(whole)) / 10

    Image.new("RGB", (8, 8)).save(runs.folder / "run-3" / "pictures" / "predictions_000040.png")
    run_folder(runs.folder, "best", metrics={"val/loss": 0.1})
    later = json.loads(get(server, f"/data.json?known={update['version']}")[1])
    assert [run["name"] for run in later["runs"]] == ["best"]
    assert later["order"][0] == "best" and set(later["shown"]) == {"run-3", "best"}
    both = json.loads(get(server, f"/data.json?known={whole['version']}")[1])
    assert {run["name"] for run in both["runs"]} == {"run-7", "best"}


def test_a_version_of_another_server_gets_everything(server):
    whole = json.loads(get(server, "/data.json")[1])
    for known in ("0123abcd-1", "", "x", f"{whole['version']}x"):
        assert json.loads(get(server, f"/data.json?known={known}")[1])["runs"] == whole["runs"]


def test_reading_takes_a_small_fraction_of_the_time_however_often_the_page_polls(runs):
    data = live.LiveData(runs)
    for _ in range(20):
        data.data()
    assert runs.reads == 1


@pytest.mark.parametrize(
    "path",
    [
        "/run/secret.txt",
        "/../runs/run/secret.txt",
        "/shown/../run/secret.txt",
        "/shown/",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
    ],
)
def test_nothing_but_what_the_page_shows_is_served(server, path):
    status, content = get(server, path)
    assert status == 404
    assert b"not for the page" not in content


@pytest.mark.parametrize("path", ["http://[", "//[", "http://[::1", "//[x]/"])
def test_what_is_no_address_is_answered_without_a_traceback(server, path, capsys):
    assert get(server, path)[0] in (400, 404)
    assert "Traceback" not in capsys.readouterr().err


def test_a_name_that_was_rebound_to_this_machine_is_refused(server):
    assert get(server, "/data.json", host="evil.example")[0] == 403
    assert get(server, "/data.json", host="localhost")[0] == 200


def test_a_port_in_use_and_a_number_that_is_none_end_in_a_sentence(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port={port} of 127.0.0.1 cannot be opened .*port=0 for a free one"):
            live.serve(runs, port, Console())
    with pytest.raises(ConfigError, match="port=70000 must be a whole number from 0 to 65535"):
        live.serve(runs, 70000, Console())
    assert runs.reads == 0


def test_deleted_folders_are_reported_and_do_not_stop_the_server(server, runs):
    runs.folder.rename(runs.folder.with_name("elsewhere"))
    status, sentence = get(server, "/data.json")
    assert status == 503
    assert b"There is nothing at" in sentence
    runs.folder.with_name("elsewhere").rename(runs.folder)
    assert get(server, "/data.json")[0] == 200


def test_ctrl_c_ends_it(runs):
    def hear_interrupts() -> None:  # which a shell has told its background jobs to ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    line = [sys.executable, str(ROOT / "compare.py"), str(runs.folder), "--live", "port=0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, preexec_fn=hear_interrupts) as process:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert b'"live":true' in urllib.request.urlopen(address[0]).read()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "Ended.\n" and process.wait(20) == 0
