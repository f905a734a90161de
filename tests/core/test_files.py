"""Files are written atomically, and paths shown as short as they can be typed."""

from __future__ import annotations

import os

import pytest

from epochal.core import files
from epochal.core.errors import ConfigError


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
