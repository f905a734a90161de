"""What networks that write answer to a prompt, and which prompts and settings are refused."""

from __future__ import annotations

import pytest

from epochal.core.errors import ConfigError


@pytest.fixture
def text_run(trained, copied):
    return f"run={copied('run', 'text')}"


def test_a_prompt_is_gone_on_from_with_the_settings_that_were_asked_for(text_run, command):
    def written(*settings: str) -> str:
        outcome = command("evaluate", text_run, "prompt=the quick", *settings)
        assert outcome.status == 0, outcome.error
        return outcome.out

    assert written("samples=3").count("the quick") == 3
    assert written("beam_size=3").count("the quick") == 1
    coldest = written("temperature=0", "sample_length=9")
    assert coldest == written("top_k=1", "sample_length=9") == written("top_p=1e-9", "sample_length=9")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (['prompt="ßthe⚔"'], ["The vocabulary lacks these characters of the prompt: 'ß' '⚔'"]),
        (["prompt=Größe, [the"], ["The vocabulary lacks these characters of the prompt: 'G' 'ö' 'ß'"]),
        (["prompt="], ["The prompt is empty"]),
        (["prompt='the quick brown fox'"], ["The prompt has 19 tokens, but 16 are the most that the model reads."]),
        (["temperature=-1"], ["temperature=-1 must be a number of at least 0"]),
        (["temperature=hot"], ["temperature=hot must be a number"]),
        (["top_p=2"], ["top_p=2 must be a number of at least 0 and at most 1"]),
        (["top_p=0"], ["top_p=0 would leave no token to sample"]),
        (["top_k=0"], ["top_k=0 must be a whole number of at least 1"]),
        (["samples=0"], ["task.samples=0 must be above zero"]),
        (["beam_size=2", "top_k=3"], ["beam_size=2 draws nothing; leave top_k out"]),
        (["beam_size=0"], ["beam_size=0 must be a whole number from 1 to 1,000."]),
    ],
)
def test_prompts_and_settings_that_cannot_be_followed_are_refused(text_run, refuse, arguments, says):
    refuse("evaluate", text_run, *arguments, says=says)


def test_a_network_that_writes_nothing_takes_no_prompt(trained, copied, refuse):
    run = f"run={copied('run')}"
    refuse("evaluate", run, "prompt=seven", says=["prompt goes with a language model or a translation"])


def test_in_python_one_text_is_a_string_whatever_the_options(text_run):
    import epochal

    loaded = epochal.load(text_run.removeprefix("run="))
    for options in ({}, {"temperature": 0}, {"beam_size": 1}, {"beam_size": 2}):
        assert isinstance(loaded.generate("the", **options), str), options
    assert len(loaded.generate("the", samples=3)) == 3
    with pytest.raises(ConfigError, match="samples is not read with temperature=0"):
        loaded.generate("the", samples=3, temperature=0)
