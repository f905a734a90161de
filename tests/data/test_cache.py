"""An array is made once, and appears whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def zeroed(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size - 800)
        stream.write(bytes(800))


def a_folder_in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = {
    "array cut": ("numbers.npy", cut),
    "array empty": ("numbers.npy", emptied),
    "array gone": ("numbers.npy", Path.unlink),
    "array zeroed": ("numbers.npy", zeroed),
    "array a folder": ("numbers.npy", a_folder_in_its_place),
    "meta cut": ("meta.json", cut),
    "meta empty": ("meta.json", emptied),
    "meta gone": ("meta.json", Path.unlink),
    "meta another JSON": ("meta.json", lambda file: file.write_text("[]")),
    "meta of NUL": ("meta.json", lambda file: file.write_bytes(bytes(file.stat().st_size))),
}


@pytest.mark.parametrize("hashed_always", [0, cache.HASHED_ALWAYS])
@pytest.mark.parametrize("of_version_0_1", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_made_again_and_said(damage, of_version_0_1, hashed_always, monkeypatch, capfd):
    monkeypatch.setattr(cache, "HASHED_ALWAYS", hashed_always)
    folder = cache.cached("set", {}, make)
    before = cache.read_meta(folder)
    if of_version_0_1:
        (folder / "meta.json").write_text(json.dumps({k: v for k, v in before.items() if k != "files"}))
    name, hurt = DAMAGE[damage]
    time.sleep(0.01)  # the clock of a file system is coarse
    hurt(folder / name)
    assert cache.cached("set", {}, make) == folder
    assert capfd.readouterr().err == f"The cache folder {folder} is damaged; it is made again.\n"
    assert cache.read_array(folder / "numbers.npy").tolist() == list(range(1000))
    assert cache.read_meta(folder)["fingerprint"] == before["fingerprint"]


@pytest.mark.parametrize("place", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_lies_in_the_place_of_a_folder_is_replaced(place, capfd):
    folder = cache.cached("set", {}, make)
    shutil.rmtree(folder)
    place(folder)
    assert cache.read_array(cache.cached("set", {}, make) / "numbers.npy")[-1] == 999
    assert "damaged" in capfd.readouterr().err


def test_a_whole_folder_of_version_0_1_or_copied_is_read_and_not_made_again(capfd):
    folder = cache.cached("set", {}, make)
    meta = cache.read_meta(folder)
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "files"}))
    cache.cached("set", {}, pytest.fail)
    assert cache.read_meta(folder) == meta
    os.utime(folder / "numbers.npy", ns=(1, 1))
    cache.cached("set", {}, pytest.fail)
    assert cache.read_meta(folder)["files"]["numbers.npy"][1] == 1
    assert capfd.readouterr().err == ""


def test_a_large_array_that_was_not_changed_is_not_hashed(monkeypatch):
    monkeypatch.setattr(cache, "HASHED_ALWAYS", 0)
    cache.cached("set", {}, make)
    monkeypatch.setattr(cache, "_hash_arrays", pytest.fail)
    cache.cached("set", {}, make)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_parts_make_the_file_that_the_whole_would_make(tmp_path, dtype):
    parts = [np.arange(3), np.zeros(0, np.int64), np.arange(200)]
    assert cache.write_parts(tmp_path / "parts.npy", parts, dtype) == 203
    cache.create_array(tmp_path / "whole.npy", (203,), dtype)[:] = np.concatenate(parts)
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_what_is_computed_from_arrays_is_remembered_with_them(tmp_path):
    def make(folder):
        cache.create_array(folder / "x.npy", (3,), np.int64)[:] = 7
        return {}

    folder = cache.cached("set", {"a": 1}, make)
    fingerprint = cache.read_meta(folder)["fingerprint"]
    assert cache.remembered(folder, "mean", lambda: [0.1]) == [0.1]
    assert cache.remembered(folder, "mean", lambda: pytest.fail("computed again")) == [0.1]
    assert cache.remembered(folder, "std", lambda: [2]) == [2]
    assert cache.cached("set", {"a": 1}, lambda _: pytest.fail("made again")) == folder
    assert cache.read_meta(folder)["fingerprint"] == fingerprint


def test_pages_of_a_large_array_are_given_back(tmp_path, monkeypatch):
    cache.create_array(tmp_path / "x.npy", (100, 1000), np.uint8)[:] = np.arange(100)[:, None]
    assert not hasattr(cache.read_array(tmp_path / "x.npy"), "pages")
    monkeypatch.setattr(cache, "LARGE", 80_000)
    array = cache.read_array(tmp_path / "x.npy")
    read = []
    for rows in torch.arange(100).flip(0).split(4):
        assert torch.equal(cache.gather(array, rows)[:, 500], rows.to(torch.uint8))
        read.append(array.pages.read)
    assert read[:4] == [4000, 8000, 0, 4000]
