"""Labels of config keys, values, metrics and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epochal.compare.records import Record, Value
from epochal.core.metrics import METRICS, find, metric_label


def label(values: Mapping[str, Value]) -> str:
    """`resnet, depth 20` for {"model.name": "resnet", "model.depth": 20}; a value that is None is told only if all are."""
    heads = column_heads(list(values))
    words = [_key_and_value(key, heads[key], value) for key, value in values.items() if value is not None]
    return ", ".join(words or [f"{heads[key]} –" for key in values]) or "all runs"


def run_label(record: Record, keys: Sequence[str]) -> str:
    """`resnet, depth 44, seed 3`, from the config keys in which runs differ."""
    return label({key: record.value(key) for key in (*keys, "seed")})


def key_text(name: str) -> str:
    """The short label, for heads of columns: `model` for model.name, `depth` for model.depth, `train error`."""
    if "/" in name or name in METRICS:
        return metric_label(name, short=True)
    parent, _, leaf = name.rpartition(".")
    return (parent.rpartition(".")[2] if leaf == "name" and parent else leaf).replace("_", " ")


def column_heads(names: Sequence[str]) -> dict[str, str]:
    """The short label of each name; where two would be the same, with the group that the key is in: `model size`."""
    heads = {name: key_text(name) for name in names}
    twins = [name for name in names if list(heads.values()).count(heads[name]) > 1 and "/" not in name]
    return heads | {name: name.replace("_", " ").replace(".", " ") for name in twins}


def title(name: str) -> str:
    """The label in full, for axes and headings: `training error`, `peak memory (MB)`, `depth`."""
    if "/" not in name and name not in METRICS:
        return key_text(name)
    unit = find(name).unit
    return metric_label(name) + (f" ({unit})" if unit else "")


def value_text(value: Value | list[Value]) -> str:
    """A config value in one line: `yes`, `1,000`, `0.001`, `1x1, pool`; "" for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):  # from a claim; records hold lists as text
        return ", ".join(map(str, value))
    if isinstance(value, str) and value.startswith("["):
        return value.strip("[]").replace('"', "")
    return "" if value is None else f"{value:g}" if isinstance(value, float) else " ".join(value.split())


def _key_and_value(key: str, head: str, value: Value) -> str:
    if isinstance(value, bool):
        return head if value else f"not {head}"
    return value_text(value) if key.endswith(".name") else f"{head} {value_text(value)}"
