"""The chat command: history, commands, what a terminal shows, and one answer to standard input."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from epochal.core.errors import ConfigError
from epochal.data.chat_template import render
from epochal.data.tokenizers import Bytes
from epochal.inference.chat import Conversation, Screen, given_settings, talk
from epochal.inference.writing import Settings, Writer
from helpers.training import train
from helpers.writers import Scripted, scripted


def conversation(*texts: str, length: int = 50, **options) -> Conversation:
    return Conversation(scripted(*texts, **options), Settings(length=length), seed=1)


def read_last(chat: Conversation) -> list[int]:
    return chat.writer.model.prompts[-1]


def rendered(*said: str, system: str = "") -> list[int]:
    """The ids of what user and assistant said in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
    head = [{"role": "system", "content": system}] if system else []
    return render([*head, *messages], Bytes(), generation_prompt=True)[0].tolist()


def talked(chat: Conversation, *lines: str | BaseException) -> str:
    """What the terminal shows when these lines are typed."""
    console, rest = Console(file=io.StringIO(), width=60), iter(lines)

    def read(prompt: str) -> str:
        line = next(rest, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    talk(chat, "gpt on bytes", console, read)
    return console.file.getvalue()


def on_one_line(text: str) -> str:
    """Without the ends of its lines."""
    return " ".join(text.split())


def test_an_answer_sees_all_that_was_said():
    chat = conversation("I am.")
    assert "".join(chat.answer("Who?")) == "I am."
    list(chat.answer("And?"))
    assert read_last(chat) == rendered("Who?", "I am.", "And?")


def test_regenerate_asks_again_without_the_last_answer():
    chat = conversation("no")
    list(chat.answer("a")), list(chat.answer("b")), list(chat.again())
    assert read_last(chat) == rendered("a", "no", "b")
    assert [message["content"] for message in chat.messages] == ["a", "no", "b", "no"]


def test_another_answer_has_other_random_numbers_and_one_seed_writes_one_conversation(monkeypatch):
    seeds = []

    def write(self, prompt, settings):
        seeds.append(settings.seed)
        yield from ()

    monkeypatch.setattr(Writer, "write", write)
    for seed in (1, 1, None):
        chat = conversation("x")
        chat.seed = seed
        list(chat.answer("a")), list(chat.again())
    assert seeds[:2] == seeds[2:4] and seeds[0] != seeds[1] and seeds[4:] == [None, None]


def test_an_answer_that_was_ended_is_part_of_the_conversation():
    chat = conversation("abcdef")
    pieces = chat.answer("go")
    next(pieces), next(pieces)
    pieces.close()
    list(chat.answer("on"))
    assert read_last(chat) == rendered("go", "ab", "on")


def test_an_empty_answer_is_forgotten_with_its_question():
    chat = conversation("")
    assert "wrote nothing" in talked(chat, "go", "on")
    assert read_last(chat) == rendered("on") and chat.messages == []


def test_the_first_turns_are_left_out_where_the_context_is_full():
    chat = conversation("answer", context_length=60)
    shown = talked(chat, *(f"question {number}" for number in range(6)))
    told = "The first turns are left out from now on: the network reads 60 tokens."
    assert on_one_line(shown).count(told) == 1
    assert read_last(chat) == rendered("question 4", "answer", "question 5") and len(read_last(chat)) <= 45


def test_a_message_that_fills_the_context_is_refused_and_the_conversation_goes_on():
    chat = conversation("yes", context_length=40)
    shown = talked(chat, "short", "long " * 9, "short")
    assert "leaves no room for an answer: the model reads at most 40 at once" in on_one_line(shown)
    assert read_last(chat) == rendered("short", "yes", "short")


def test_the_system_speaks_first_once_it_is_set():
    chat = conversation("ok")
    talked(chat, "hi", "/system be kind", "hi")
    assert read_last(chat) == rendered("hi", "ok", "hi", system="be kind")
    talked(chat, "/clear", "/system", "hi")
    assert read_last(chat) == rendered("hi")


def test_commands_say_what_they_did_or_what_is_wrong():
    chat = conversation("ok")
    lines = ("/temperature 0", "/temperature hot", "/temperature -1", "/regenerat", "/regenerate", "/help")
    shown = talked(chat, *lines)
    assert chat.settings.temperature == 0
    assert "Temperature 0 from now on." in shown
    assert "/temperature hot must be a number of at least 0" in shown
    assert "/temperature -1 must be a number of at least 0" in shown
    assert "/regenerat is no command. Did you mean /regenerate?" in shown
    assert "There is no message yet to answer again." in shown
    assert "Ctrl-C" in shown and not chat.writer.model.prompts


def test_ctrl_c_ends_an_answer_and_not_the_conversation(monkeypatch, request):
    chat, step, presses = conversation("abcdef"), Scripted.next_logits, [2]

    def pressed(self, text, state):
        if [state] == presses:
            presses.clear()
            signal.raise_signal(signal.SIGINT)
        return step(self, text, state)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(Scripted, "next_logits", pressed)
    shown = talked(chat, "go", "on", KeyboardInterrupt(), EOFError())
    assert "abc ...\n" in shown and "abcdef\n" in shown and "Ctrl-D ends the conversation." in shown
    assert read_last(chat) == rendered("go", "abc", "on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_network_that_has_not_learned_to_answer_goes_on_with_the_text():
    chat = conversation("quick", converses=False, length=5)
    shown = talked(chat, "the ", "brown")
    assert "has not learned to answer: it goes on with what you type" in on_one_line(shown)
    assert bytes(token - 8 for token in read_last(chat)) == b"the quick\nbrown"
    assert "/system goes with a network that was trained on conversations" in on_one_line(
        talked(chat, "/system be kind")
    )


def test_a_text_that_ended_is_not_gone_on_with_unless_its_end_is_drawn_again():
    chat = conversation("quick", converses=False, length=5)
    list(chat.answer("the "))
    chat.settings = Settings(length=50)  # long enough for END
    list(chat.answer("brown")), list(chat.again())
    assert bytes(token - 8 for token in read_last(chat)) == b"the quick\nbrown"
    list(chat.answer("new"))
    assert bytes(token - 8 for token in read_last(chat)) == b"new"


def test_what_the_network_writes_does_not_command_the_terminal():
    assert "\x1b" not in talked(conversation("\x1b[2J"), "hi").replace("\x1b[K", "")


class Terminal(io.StringIO):
    """Keeps the lines that a terminal would show."""

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.column = [[]], 0  # one entry for each column

    def write(self, text: str) -> int:
        for sequence in text.replace("\x1b[K", "\x1b"):
            line = self.lines[-1]
            if sequence == "\n":
                self.lines.append([])
                self.column = 0
            elif sequence == "\b":
                self.column -= 1
            elif sequence == "\x1b":
                del line[self.column :]
            else:
                wide = sequence >= "\u1100"
                line[self.column : self.column + 1 + wide] = [sequence, ""][: 1 + wide]
                self.column += 1 + wide
        return len(text)

    def shown(self) -> list[str]:
        return ["".join(line) for line in self.lines]


@pytest.mark.parametrize(
    "text, width, lines",
    [
        ("the quick brown fox", 11, ["the quick ", "brown fox"]),
        ("the quick brown", 10, ["the quick", "brown"]),
        ("abcdefghijkl mn", 6, ["abcde", "fghij", "kl mn"]),
        ("漢字 漢字漢字", 10, ["漢字 ", "漢字漢字"]),
        ("a\n\nb c", 10, ["a", "", "b c"]),
        ("\tx", 9, ["    x"]),
    ],
)
@pytest.mark.parametrize("size", [1, 4])
def test_words_are_not_torn_apart_at_the_edge(text: str, width: int, lines: Sequence[str], size: int):
    terminal = Terminal()
    screen = Screen(terminal, width)
    for start in range(0, len(text), size):
        screen.write(text[start : start + size])
    assert terminal.shown() == lines


@pytest.fixture
def text_run(trained, copied):
    return f"run={copied('run', 'text')}"


@pytest.fixture
def given(monkeypatch):
    """Puts bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_prompt_on_standard_input_gets_one_answer(text_run, given, command):
    outcomes = []
    for _ in range(2):
        given(b"the quick\n")
        outcomes.append(command("chat", text_run, "seed=3", "max_tokens=7"))
    assert outcomes[0].status == 0, outcomes[0].error
    assert outcomes[0].out == outcomes[1].out and len(outcomes[0].out) == 8
    assert outcomes[0].error == "This network has not learned to answer: it goes on with what it is given.\n"


@pytest.mark.parametrize(
    "content, arguments, says",
    [
        (b"", [], "Standard input is empty"),
        (b"the\xff", [], "Standard input is no UTF-8 (byte 4)"),
        ("the ß".encode(), [], "The vocabulary lacks these characters of the prompt: 'ß'"),
        (b"the quick brown fox", [], "The prompt has 19 tokens, but 16 are the most that the model reads."),
        (b"the", ["temperature=-1"], "temperature=-1 must be a number of at least 0"),
        (b"the", ["device=gpu"], "device=gpu is not here; give auto, cpu"),
        (b"the", ["system=be kind, you"], "system goes with a network that was trained on conversations; run was not"),
        (b"the", ["temperatur=1"], "There is no key temperatur. Did you mean temperature?"),
    ],
)
def test_what_cannot_be_answered_ends_in_a_sentence(text_run, given, refuse, content, arguments, says):
    given(content)
    refuse("chat", text_run, *arguments, says=[says])


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("temperature", "hot", "temperature=hot must be a number"),
        ("top_p", 0, "top_p=0 must be above 0"),
        ("top_p", 1.5, "top_p=1.5 must be above 0 and at most 1"),
        ("top_k", 0, "top_k=0 must be a whole number of at least 1"),
        ("max_tokens", 0, "max_tokens=0 must be a whole number of at least 1"),
        ("max_tokens", 1_000_000, "max_tokens=1000000 must be at most 100,000"),
        ("seed", -1, "seed=-1 must be a whole number"),
    ],
)
def test_a_setting_out_of_range_is_refused(name, value, says):
    settings = dict.fromkeys(("temperature", "top_k", "top_p", "max_tokens", "seed"))
    with pytest.raises(ConfigError, match=says):
        given_settings(OmegaConf.create({**settings, name: value}))


def test_a_network_that_writes_nothing_is_refused(trained, copied, given, refuse):
    given(b"seven")
    run = f"run={copied('run')}"
    says = ["Only a language model writes text; run learned classification on digits"]
    refuse("chat", run, says=says)
    refuse("serve", run, says=says)


def test_a_run_on_conversations_is_one_that_answers(home, given, command):
    rows = [
        f'{{"messages": [{{"role": "user", "content": "{n}?"}}, {{"role": "assistant", "content": "{n}!"}}]}}'
        for n in range(40)
    ]
    (home / "said.jsonl").write_text("\n".join(rows))
    small = ("model=gpt", "model.depth=1", "model.embed_dim=8", "model.num_heads=2")
    data = ("dataset=conversations", "dataset.path=said.jsonl", "dataset.tokenizer=byte", "dataset.batch_size=4")
    job = train(*small, *data, "task=supervised_finetuning", "duration=2steps", "logger=none")
    given(b"1?\n")
    outcome = command("chat", f"run={job.run.folder}", "system=be kind", "max_tokens=5", "seed=1")
    assert outcome.status == 0 and outcome.error == "", outcome.error
