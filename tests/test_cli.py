"""What a person gets who asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

import epochal
from conftest import ROOT
from epochal.cli import quoted


@pytest.mark.parametrize("script", ["train", "evaluate"])
@pytest.mark.parametrize("flags", [("--help",), ("--cfg", "job")])
def test_help_and_config_come_without_heavy_imports(script, flags):
    code = (
        f"import sys, runpy; sys.argv = ['{script}.py', *{flags}]\n"
        f"try: runpy.run_path('{ROOT / script}.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'datasets', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = ["python train.py model=resnet dataset=cifar10", "lenet", "cosine"] if script == "train" else ["run="]
    assert all(word in done.stdout for word in words) or flags != ("--help",)


@pytest.mark.parametrize("script", ["train", "evaluate", "compare"])
def test_without_the_environment_a_sentence_names_it(script):
    bare = [sys.executable, "-I", "-S", str(ROOT / f"{script}.py")]  # no site-packages
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text", ["Größe läuft", "To be, or not [to] be {x}", 'say "hi"', "back\\", 'a\\"b', "it's", "a\nb", "x = 1", "\\"]
)
def test_a_prompt_arrives_as_it_was_typed(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(quoted(f"prompt={text}")).value() == text


@pytest.mark.parametrize("argument", ["prompt=", "prompt=null", "prompt='a b'", 'prompt="a, b"', "run=a/b"])
def test_what_is_quoted_or_no_prompt_is_left_alone(argument):
    assert quoted(argument) == argument


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("shots=0,1,4", "shots=[0,1,4]"),
        ("shots=4", "shots=4"),
        ("images=[0,5]", "images=[0,5]"),
        ("lm_eval=arc_easy,tasks/mine.yaml", "lm_eval=[arc_easy,tasks/mine.yaml]"),
        ("label_words='a, b'", "label_words='a, b'"),
    ],
)
def test_several_values_of_one_run_need_no_brackets(argument, read):
    """Which some shells take for patterns of files."""
    assert quoted(argument) == read


@pytest.mark.parametrize(
    "flag, says", [("--hlep", "--hlep is no option. Did you mean --help?"), ("-x", "-x is no option.")]
)
def test_a_flag_that_there_is_not(command, flag, says):
    outcome = command("train", "model=mlp", flag)
    assert outcome.status == 2 and says in outcome.error and len(outcome.error.splitlines()) == 1


def test_the_version_is_the_one_of_epochal(command):
    assert command("train", "--version").out.strip() == epochal.__version__
