"""Files are written atomically, and paths shown as short as they can be typed."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from epochal.core import files
from epochal.core.errors import ConfigError
from epochal.core.files import Lock, one_at_a_time


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A file that three tries find open in a reader, as Windows has it."""
    path, tries, replace = tmp_path / "a", [], os.replace

    def refuse(part, whole):
        tries.append(part)
        if len(tries) <= 3:
            raise PermissionError
        replace(part, whole)

    path.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    return path


def test_on_windows_a_file_that_is_being_read_is_written_a_moment_later(held, monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)
    files.write_atomically(held, "new")
    assert held.read_text() == "new"
    assert list(held.parent.iterdir()) == [held]


def test_elsewhere_or_for_longer_it_is_an_error_and_nothing_is_left_behind(held, monkeypatch):
    with pytest.raises(PermissionError):
        files.write_atomically(held, "new")
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    with pytest.raises(PermissionError):
        files.write_atomically(held, "new")
    assert list(held.parent.iterdir()) == [held]


def test_a_path_below_the_working_directory_is_shown_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert files.relative(tmp_path / "here" / "a" / "b") == os.path.join("a", "b")
    assert files.relative(tmp_path / "there") == str(tmp_path / "there")


def test_the_home_of_an_unknown_user_is_an_error_in_one_sentence():
    with pytest.raises(ConfigError, match="~nosuch/x is in the home folder of a user who is not there"):
        files.expanded("~nosuch/x")


HOLD = """
import sys, time
from pathlib import Path
from epochal.core.files import Lock

lock = Lock(Path(sys.argv[1]))
assert lock.acquire() is (sys.argv[2] == "free")
"""


def test_a_lock_keeps_other_processes_out_and_does_not_survive_its_process(tmp_path):
    path = tmp_path / "x.lock"
    script = HOLD + "print('held', flush=True)\ntime.sleep(20)"
    with subprocess.Popen([sys.executable, "-c", script, path, "free"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        lock = Lock(path)
        assert not lock.acquire() and lock.holder() == (str(holder.pid), socket.gethostname())
        holder.kill()
    assert lock.acquire() and lock.holder()[0] == str(os.getpid())
    subprocess.run([sys.executable, "-c", HOLD, path, "held"], check=True)
    lock.release()
    subprocess.run([sys.executable, "-c", HOLD, path, "free"], check=True)


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    assert Lock(tmp_path / "x.lock").acquire()


def test_only_one_is_in_a_place_for_one_at_a_time(tmp_path):
    inside, most = [], []

    def enter(number):
        with one_at_a_time(tmp_path / ".lock"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))
    assert max(most) == 1 and len(most) == 40 and not list(tmp_path.iterdir())
