"""Keys, values and runs in a reader's words."""

from __future__ import annotations

from collections.abc import Sequence

from epochal.compare.records import Record, Value


def label(values: dict[str, Value]) -> str:
    """`resnet, depth 20` for {"model.name": "resnet", "model.depth": 20}."""
    words = [_words(key, value) for key, value in values.items() if value is not None]
    return ", ".join(words) or "all runs"


def run_label(record: Record, keys: Sequence[str]) -> str:
    """`resnet, depth 44, seed 3`, with the keys in which runs differ."""
    return label({key: record.value(key) for key in (*keys, "seed")})


def key_text(key: str) -> str:
    """`model` for model.name, `depth` for model.depth, `train error` for train/error."""
    parent, _, leaf = key.rpartition(".")
    return (parent.rpartition(".")[2] if leaf == "name" and parent else leaf).replace("_", " ").replace("/", " ")


def value_text(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):  # a claim's; records hold lists as texts
        return ", ".join(map(str, value))
    if isinstance(value, str) and value.startswith("["):
        return value.strip("[]").replace('"', "")
    return "" if value is None else f"{value:g}" if isinstance(value, float) else value


def _words(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return key_text(key) if value else f"not {key_text(key)}"
    return value_text(value) if key.endswith(".name") else f"{key_text(key)} {value_text(value)}"


PARTS = {"train": "training", "val": "validation", "test": "test"}


def title(name: str) -> str:
    """A metric or config key in a reader's words: training error, depth, learning rate."""
    part, _, rest = name.partition("/")
    if rest:
        return f"{PARTS.get(part, part)} {rest.replace('_', ' ')}"
    return {"flops": "FLOPs of one example", "peak_memory_mb": "peak memory (MB)"}.get(name, key_text(name))
