"""What a network writes about a prompt."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from epochal.core.errors import ConfigError
from epochal.inference.load import Rebuilt
from epochal.tasks import LanguageModeling, Translation


def answer(rebuilt: Rebuilt, prompt: str, console: Console) -> None:
    """Prints how a language model goes on from the prompt, or its translation.

    Raises:
        ConfigError: If the network writes no text of another, or cannot read the prompt.
    """
    task, trainer = rebuilt.task, rebuilt.trainer
    task.trainer, trainer.datamodule = trainer, rebuilt.data  # type: ignore[attr-defined]  # as a test would
    task.to(trainer.strategy.root_device).eval()
    try:
        if isinstance(task, LanguageModeling):
            texts, name = task.sample(prompt), "sample"
        elif isinstance(task, Translation):
            texts, name = [task.translate(prompt)], "translation"
        else:
            learned = rebuilt.config.task.name
            raise ConfigError(f"prompt goes with a language model or a translation; this run learned {learned}.")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for text in texts:
        console.print(Panel(Text(text), title=name, title_align="left", border_style="cyan"))
