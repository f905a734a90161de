"""An array is made once, and appears whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epochal.core.errors import ConfigError
from epochal.data import cache

FORK = multiprocessing.get_context("fork")


def make(folder: Path) -> dict[str, Any]:
    cache.create_array(folder / "numbers.npy", (1000,), np.int64)[:] = np.arange(1000)
    return {"shape": [1000]}


def in_another_process(function: Any, *arguments: Any) -> Any:
    process = FORK.Process(target=function, args=arguments)
    process.start()
    return process


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def test_what_was_made_is_read_back_and_not_made_again():
    calls = []

    def counted(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return make(folder)

    folders = [cache.cached("set", {"size": 1}, counted) for _ in range(3)]
    assert len(calls) == 1 and len(set(folders)) == 1
    assert folders[0].parent == Path(os.environ["EPOCHAL_CACHE"])
    assert cache.read_array(folders[0] / "numbers.npy").tolist() == list(range(1000))
    assert cache.read_meta(folders[0])["shape"] == [1000]


def test_another_key_or_name_is_another_folder():
    folders = {
        cache.cached("set", {"size": 1}, make),
        cache.cached("set", {"size": 2}, make),
        cache.cached("other", {"size": 1}, make),
    }
    assert len(folders) == 3


def test_the_fingerprint_depends_on_the_content():
    def other(folder: Path) -> dict[str, Any]:
        meta = make(folder)
        np.save(folder / "numbers.npy", np.arange(1000)[::-1])
        return meta

    prints = [
        cache.read_meta(cache.cached(name, {}, maker))["fingerprint"]
        for name, maker in (("a", make), ("b", make), ("c", other))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_two_processes_at_once_make_it_once(tmp_path):
    def slow(folder: Path) -> dict[str, Any]:
        with (tmp_path / "calls").open("a") as stream:
            stream.write("made\n")
        time.sleep(0.3)
        return make(folder)

    def work() -> None:
        folder = cache.cached("set", {}, slow)
        assert cache.read_array(folder / "numbers.npy")[-1] == 999

    processes = [in_another_process(work) for _ in range(3)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "made\n"
    assert len(visible(tmp_path / "cache")) == 1


def test_a_killed_maker_leaves_nothing_that_is_read(tmp_path):
    def killed(folder: Path) -> dict[str, Any]:
        make(folder)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    process = in_another_process(cache.cached, "set", {}, killed)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    (left,) = visible(tmp_path / "cache")
    assert left.startswith(".building-")
    folder = cache.cached("set", {}, make)  # clears it away
    assert visible(tmp_path / "cache") == [folder.name]
    assert cache.read_array(folder / "numbers.npy")[-1] == 999


@pytest.mark.parametrize("error", [ConfigError("wrong"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failed_maker_leaves_nothing(tmp_path, error):
    def failing(folder: Path) -> dict[str, Any]:
        make(folder)
        raise error

    with pytest.raises(type(error)):
        cache.cached("set", {}, failing)
    assert visible(tmp_path / "cache") == []
    assert visible(cache.cached("set", {}, make)) == ["meta.json", "numbers.npy"]


def test_too_small_a_disk_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"Not enough disk .* MB are needed"):
        cache.cached("set", {}, lambda folder: {"array": cache.create_array(folder / "a.npy", (1 << 50,), np.int64)})
    assert visible(tmp_path / "cache") == []


def test_disk_space_for_an_array_is_reserved_when_it_is_created(tmp_path):
    cache.create_array(tmp_path / "a.npy", (1 << 20,), np.uint8)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1 << 20


def test_an_array_is_not_changed_on_disk_by_its_reader():
    folder = cache.cached("set", {}, make)
    cache.read_array(folder / "numbers.npy")[0] = 7
    assert cache.read_array(folder / "numbers.npy")[0] == 0


def test_the_platform_has_a_folder_where_none_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("EPOCHAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root().name == "epochal" and tmp_path in cache.cache_root().parents
