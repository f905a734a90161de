"""Checkpoint files: written whole or not at all, read without executing anything in them."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from epochal.core.errors import ConfigError
from epochal.models.common.lora import ADDED, merged
from epochal.models.common.old_names import current_names
from epochal.tasks import Task


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, syncs, then renames: a kill leaves the old checkpoint or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        part = Path(path).with_name(f".{Path(path).name}.part")
        try:
            with part.open("wb") as stream:  # Lightning's own way is a copy in memory and another in $TMPDIR
                try:
                    torch.save(checkpoint, stream)
                except RuntimeError as error:  # torch's, about positions in the file, after the disk's or after Ctrl-C
                    if error.__context__ is None or isinstance(error.__context__, RuntimeError):
                        raise
                    raise error.__context__ from None
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The tensors and plain containers in a checkpoint file; no code in it is executed.

    Raises:
        ConfigError: If the file is missing, damaged, or no checkpoint of Epochal.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not notice a flipped bit in a weight
                raise ValueError("a checksum is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
        ours = content["epochal"]
        if "facts" in ours:  # of version 0.1
            ours["specs"] = ours.pop("facts")
        if not {"state_dict", "global_step"} <= set(content) or not {"config", "data", "specs"} <= set(ours):
            raise ValueError("not ours")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no checkpoint {path}.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder, not a checkpoint; a run's folder is given as run={path}.") from error
    except Exception as error:  # whatever zip, the unpickler and torch make of other bytes, the file is at fault
        raise ConfigError(f"{path} is no checkpoint of Epochal, or it is damaged.") from error
    return content


def load_weights(task: Task, checkpoint: dict[str, Any]) -> None:
    """Loads a checkpoint's weights into the task's network.

    Raises:
        ConfigError: If they are the weights of another architecture.
    """
    state = current_names(checkpoint["state_dict"], task.model, prefix="model.")
    if not any(ADDED in name for name in task.state_dict()):
        state = merged(state)  # of a run that trained low-rank additions
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(f"The checkpoint's weights do not fit the model: {first}") from error
