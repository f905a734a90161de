"""The chat command: a conversation in the terminal with a language model, or one answer to what comes on standard input."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any

from omegaconf import DictConfig
from rich.console import Console

from epochal.core.checks import check_number, check_positive, check_whole
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import relative
from epochal.core.format import cell_width, printable, say, verbatim
from epochal.core.seeds import mix
from epochal.data.chat_template import Message
from epochal.inference.load import SavedRun
from epochal.inference.writing import DEFAULT_ANSWER, MOST_TOKENS, ContextFullError, Settings, Writer, opened_writer

COMMANDS = {  # what follows them, and what they do
    "/system": ("<text>", "the system's message from now on; alone: none"),
    "/temperature": ("<number>", "0 takes the likeliest token, more varies more"),
    "/regenerate": ("", "another answer to the last message"),
    "/clear": ("", "a new conversation"),
    "/help": ("", "these lines"),
}
KEYS = {"Ctrl-C": "ends an answer", "Ctrl-D": "ends the conversation"}
GOES_ON = "This network has not learned to answer: it goes on with what you type."
FREE = 4  # one part in so many of the context is kept free for an answer


@dataclass
class Conversation:
    """What was said so far, and how the network goes on.

    Attributes:
        writer: The network.
        settings: How to draw; `length` is the most of an answer, where the context does not end before.
        system: The system's message, or empty.
        seed: Of all answers; None: others each time.
        messages: The user's and the assistant's in turn, without those that no longer fit into the context.
        left_out: Whether there are such.
    """

    writer: Writer
    settings: Settings
    system: str = ""
    seed: int | None = None
    messages: list[Message] = field(default_factory=list)
    left_out: bool = False
    _asked: str = ""  # last
    _answers: int = 0  # so far, for seeds
    _ended: bool = False  # whether a text that is gone on with has come to its end

    def answer(self, message: str) -> Generator[str]:
        """The answer in pieces; where it is closed before its end, what came so far is the answer.

        Raises:
            ContextFullError: If the message alone leaves no room for an answer.
            ValueError: If the network cannot read it.
        """
        self._asked = message
        prompt = self._prompt(message)
        room = self.writer.room(prompt) if self.writer.converses else None
        length = self.settings.length if room is None else min(room, self.settings.length)
        seed = None if self.seed is None else mix(self.seed, self._answers)
        self._answers += 1
        written, self._ended = "", False
        try:
            with closing(self.writer.write(prompt, replace(self.settings, length=length, seed=seed))) as pieces:
                for piece in pieces:
                    written += piece.text
                    self._ended = piece.finish == "stop"
                    yield piece.text
        finally:
            if written.strip():  # an empty message is none
                self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": written}]

    def again(self) -> Generator[str]:
        """Another answer to the last message, in place of the one that was given.

        Raises:
            ValueError: If there was no message yet.
        """
        if not self._asked:
            raise ValueError("There is no message yet to answer again.")
        if self.messages and self.messages[-2]["content"] == self._asked:
            del self.messages[-2:]
        self._ended = False  # with the answer that is taken back
        return self.answer(self._asked)

    def clear(self) -> None:
        """Begins a new conversation with the same settings."""
        self.messages, self.left_out, self._asked, self._ended = [], False, "", False

    def _prompt(self, message: str) -> list[int]:
        """Ids of what is read: all that was said, but for the first turns where not all fits."""
        if not self.writer.converses:
            return self._text(message)
        kept, context = list(self.messages), self.writer.context
        system = [{"role": "system", "content": self.system}] if self.system else []
        free = 1 if context is None else min(self.settings.length, context // FREE)
        while True:
            with suppress(*((ContextFullError,) if kept else ())):
                prompt = self.writer.conversation_prompt([*system, *kept, {"role": "user", "content": message}])
                room = self.writer.room(prompt)
                if not kept or room is None or room >= free:
                    break
            self.left_out = True
            del kept[:2]
        self.messages = kept
        return prompt

    def _text(self, message: str) -> list[int]:
        """Ids of the end of the text so far: each message begins a line of its own, and an answer goes on with it."""
        if self._ended:
            self.messages = []
        said = [message["content"] for message in self.messages]
        lines = ["".join(said[start : start + 2]) for start in range(0, len(said), 2)]
        return self.writer.text_prompt("\n".join([*lines, message]), cut=bool(lines))


class Screen:
    """Writes text to a terminal as it comes; a word that reaches the right edge is taken to the next line.

    Args:
        file: The terminal.
        width: Its columns. The last one stays empty: a cursor behind it cannot be moved back in the same way everywhere.
    """

    def __init__(self, file: IO[str], width: int) -> None:
        self.file, self.width = file, max(width - 1, 1)
        self.column, self.word = 0, ""

    def write(self, text: str) -> None:
        """Writes at once."""
        for letter in printable(text).expandtabs(4):
            self._put(letter)
        self.file.flush()

    def _put(self, letter: str) -> None:
        size = cell_width(letter)
        if letter == "\n" or (letter == " " and self.column == self.width):
            self._break("")
        elif self.column + size > self.width:
            moved = self.word if cell_width(self.word) < self.column else ""  # else it fills the line
            self.file.write("\b" * cell_width(moved) + "\x1b[K" if moved else "")
            self._break(moved)
            self._put(letter)
        else:
            self.file.write(letter)
            self.column += size
            self.word = "" if letter == " " else self.word + letter

    def _break(self, word: str) -> None:
        self.file.write(f"\n{word}")
        self.column, self.word = cell_width(word), word


def chat(config: DictConfig, console: Console | None = None) -> None:
    """Talks in the terminal, or answers what comes on standard input where that is no terminal.

    Args:
        config: As composed from `conf/chat.yaml`.
        console: Where to print.

    Raises:
        ConfigError: If there is no such run or it holds no language model, a setting is out of range, or what comes on
            standard input cannot be answered.
    """
    settings = given_settings(config)
    prompt = None if sys.stdin is not None and sys.stdin.isatty() else standard_input()
    saved, writer = opened_writer(config)
    if config.system and not writer.converses:
        raise ConfigError(f"system goes with a network that was trained on conversations; {saved.folder.name} was not.")
    conversation = Conversation(
        writer,
        completed(settings, saved, writer),
        system="" if config.system is None else str(config.system),
        seed=config.seed,
    )
    if config.checkpoint is None and config.run == "latest":
        say(f"The newest finished run is {relative(saved.folder)}.")
    if prompt is None:
        talk(conversation, f"{saved.config.model.name} on {saved.config.dataset.name}", console or Console())
        return
    try:
        for number, piece in enumerate(conversation.answer(prompt)):
            if number == 0 and not writer.converses:
                say(GOES_ON.replace("you type", "it is given"))
            print(printable(piece), end="", flush=True)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print()


def given_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that the command names.

    Raises:
        ConfigError: If one is out of range.
    """
    given = {key: config[key] for key in ("temperature", "top_k", "top_p", "max_tokens") if config[key] is not None}
    try:
        if "temperature" in given:
            check_number("temperature", given["temperature"], 0)
        if "top_p" in given:
            check_positive("top_p", given["top_p"], most=1)
        for name in ("top_k", "max_tokens"):
            if name in given:
                check_whole(name, given[name], 1)
        if config.seed is not None:
            check_whole("seed", config.seed, 0)
        if given.get("max_tokens", 0) > MOST_TOKENS:
            raise ValueError(f"max_tokens={given['max_tokens']} must be at most {MOST_TOKENS:,}.")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return given


def completed(given: dict[str, Any], saved: SavedRun, writer: Writer) -> Settings:
    """The settings that were given, and for the others those with which the run wrote its samples."""
    own = saved.config.task
    found = {name: given.get(name, own.get(name)) for name in ("temperature", "top_k", "top_p")}
    if found["temperature"] is None:
        found["temperature"] = 1.0
    length = writer.context if writer.converses else own.get("sample_length")
    return Settings(length=given.get("max_tokens", length or DEFAULT_ANSWER), **found)


def standard_input() -> str:
    """All of it, without a newline at its end.

    Raises:
        ConfigError: If it is empty, or no UTF-8.
    """
    read = b"" if sys.stdin is None else sys.stdin.buffer.read()
    try:
        text = read.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigError(f"Standard input is no UTF-8 (byte {error.start + 1:,}); write it as UTF-8.") from error
    if not text:
        raise ConfigError("Standard input is empty: give a prompt on it, or start the command in a terminal.")
    return text


def talk(conversation: Conversation, name: str, console: Console, read: Callable[[str], str] | None = None) -> None:
    """Reads lines and answers them until the input ends.

    Args:
        conversation: Is gone on with.
        name: Of the network, for the first line.
        console: The terminal.
        read: Shows a prompt and returns a line; None: from the terminal, with its history at the arrow keys.
    """
    read = read or terminal_input()
    note(console, f"{name}, temperature {conversation.settings.temperature:g}. /help lists the commands.")
    if not conversation.writer.converses:
        note(console, GOES_ON)
    while True:
        try:
            if (line := read("> ")).strip():
                reply(conversation, line, console)
                console.print()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            note(console, "Ctrl-D ends the conversation.")
        except ValueError as error:
            note(console, f"{error}\n")


def reply(conversation: Conversation, line: str, console: Console) -> None:
    """Does what a line says: obeys a command, or prints an answer.

    Raises:
        ValueError: If there is no such command, its argument is wrong, or the network cannot read the line.
    """
    command, _, argument = line.strip().partition(" ")
    if not command.startswith("/"):
        show(conversation, conversation.answer(line), console)
    elif command == "/regenerate":
        show(conversation, conversation.again(), console)
    else:
        note(console, obey(conversation, command, argument.strip()))


def obey(conversation: Conversation, command: str, argument: str) -> str:
    """Follows a command that writes no answer; returns what to say about it.

    Raises:
        ValueError: If there is no such command, or its argument is wrong.
    """
    if command == "/help":
        lines = {f"{name} {argument}": told for name, (argument, told) in COMMANDS.items()} | KEYS
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {told}" for name, told in lines.items())
    if command == "/clear":
        conversation.clear()
        return "A new conversation."
    if command == "/temperature":
        try:
            value = float(argument)
            check_number("temperature", value, 0)
        except ValueError as error:
            raise ValueError(
                f"/temperature {argument} must be a number of at least 0, e.g. /temperature 0.7"
            ) from error
        conversation.settings = replace(conversation.settings, temperature=value)
        return f"Temperature {value:g} from now on."
    if command == "/system":
        if not conversation.writer.converses:
            raise ValueError("/system goes with a network that was trained on conversations.")
        conversation.system = argument
        return "The system's message is set." if argument else "There is no message of the system now."
    raise ValueError(f"{command} is no command.{did_you_mean(command, COMMANDS)} There are: {' '.join(COMMANDS)}")


def show(conversation: Conversation, pieces: Generator[str], console: Console) -> None:
    """Prints an answer as it comes, and what should be known of it. Ctrl-C ends it.

    Raises:
        ValueError: If the network cannot read what it is to answer.
    """
    known, screen, written = conversation.left_out, Screen(console.file, console.width), ""
    with closing(pieces), ctrl_c() as pressed:
        for piece in pieces:
            written += piece
            screen.write(piece)
            if pressed:
                screen.write(" ...")
                break
    if screen.column:
        screen.write("\n")
    if not written.strip():
        note(console, "The network wrote nothing.")
    if conversation.left_out and not known:
        note(
            console,
            f"The first turns are left out from now on: the network reads {conversation.writer.context:,} tokens.",
        )


@contextmanager
def ctrl_c() -> Iterator[list[bool]]:
    """A list that is no longer empty once Ctrl-C was pressed, so that nothing is torn apart; a second one raises at once."""
    pressed: list[bool] = []

    def press(*_: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def note(console: Console, text: str) -> None:
    """Prints a line of ours, which is not the network's."""
    console.print(verbatim(text), style="dim", highlight=False)


def terminal_input() -> Callable[[str], str]:
    """`input` with a coloured prompt, and where there is readline with lines that can be edited."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() then uses it

        return lambda prompt: input(f"\001\x1b[1;36m\002{prompt}\001\x1b[0m\002")
    return input
