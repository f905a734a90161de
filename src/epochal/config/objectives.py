"""Which tasks a data set and a model have in common: a task says what it needs of both, and no list names the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from epochal.config.compose import choices, option_file
from epochal.config.instantiate import target_class


def common_tasks(data: Any, model: Any) -> list[str]:
    """The names of the tasks that a data set's class has targets for and a model's class a head, best first."""
    fitting = [task for task in tasks_of_model(model) if task in tasks_of_data(data)]
    return sorted(fitting, key=tasks_of_data(data).index)


def tasks_of_data(data: Any) -> list[str]:
    """The names of the tasks that a data set's class has targets for, in the order of its targets."""
    tasks = _tasks()
    return [name for target in data.targets for name, task in tasks.items() if task.target == target]


def tasks_of_model(model: Any) -> list[str]:
    """The names of the tasks that a model's class has a head for, in the order of its heads."""
    tasks = _tasks()
    if not hasattr(model, "heads"):  # of a class that was written for version 0.1
        return [name for name in getattr(model, "tasks", ()) if name in tasks]
    return [name for head in model.heads for name, task in tasks.items() if task.head == head]


def target_of(group: str, option: str) -> str:
    """The `_target_` in the YAML of a choice, or in the one that it is based on (plain on resnet)."""
    text = (option_file(group, option) or Path()).read_text("utf-8")
    if target := re.search(r"_target_: (\S+)", text):
        return target[1]
    base = re.search(r"^defaults:\s*\n\s*- (\w+)\s*$", text, re.MULTILINE)
    return target_of(group, base[1]) if base else ""


def _tasks() -> dict[str, Any]:
    """The classes of the tasks in `conf/`, by name."""
    return {name: target_class(target_of("task", name)) for name in choices().get("task", []) if name != "auto"}
