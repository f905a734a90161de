"""What the user types to run a command: `python train.py ...` in a checkout, `epochal train ...` elsewhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

SCRIPTS = ("train.py", "evaluate.py", "compare.py")


def typed(key: str, path: object) -> str:
    """`run=outputs/runs/x` to be pasted into a shell: in quotes if there are blanks, brackets or the like in the path."""
    return shlex.quote(f"{key}={path}")


def command_line(command: str, arguments: str = "") -> str:
    """A line that can be typed as this process was started.

    Args:
        command: train, evaluate, compare, export, leaderboard, chat, serve or lab; the last five have no script of their own.
        arguments: What follows.
    """
    script = Path(sys.argv[0]).name in SCRIPTS and f"{command}.py" in SCRIPTS
    return f"{f'python {command}.py' if script else f'epochal {command}'} {arguments}".rstrip()
