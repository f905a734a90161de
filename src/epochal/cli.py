"""The commands: `epochal train`, `evaluate`, `compare`, `export`, `leaderboard`, `chat`, `serve` and `lab`, and the scripts train.py,
evaluate.py and compare.py.

What the user did wrong ends in one sentence and exit status 2; bugs of ours keep their traceback. One of many runs (`-m`,
experiments, sweeps) returns an `Outcome` instead of raising, so that the others go on.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import epochal
from epochal.config.compose import conf_folder, use_folders
from epochal.config.messages import explain
from epochal.config.schema import check_values
from epochal.config.validate import check_effect
from epochal.core.errors import ConfigError, EpochalError, did_you_mean
from epochal.core.files import expanded
from epochal.core.format import print_anything, say
from epochal.core.program import command_line
from epochal.experiments.launchers import check_alone
from epochal.experiments.outcome import one_of_many

HELP = """\
Trains, evaluates and compares every milestone architecture of a deep-learning course, from LeNet-5 to ChatGPT.

    epochal train                                  LeNet-5 on real digits, in seconds, with no network and no account
    epochal train model=resnet dataset=cifar10     another model, other data
    epochal evaluate                               what the newest run gets right and wrong
    epochal compare                                all runs: table, figures, an HTML report
    epochal leaderboard                            language models, by bits per byte and by tasks
    epochal export to=onnx                         the newest run for other programs, with a model card
    epochal chat                                   talk with a language model in the terminal
    epochal serve                                  a language model for programs that talk to OpenAI's API
    epochal lab                                    a page to start runs, watch networks learn, and try them

    --help after any of these tells more; epochal --version
"""
MANY = ("-m", "--multirun")
CONFIG_DIR = ("--config-dir", "-cd")
TEXTS = ("prompt", "system", "name")  # keys whose value is a text
LISTS = ("shots", "images", "lm_eval", "label_words")  # keys whose value may be several, which need no brackets
# keys whose value is a path; one that Hydra reads as it stands needs no quotes (2024, true and null are no strings to it)
PATHS = (
    "output_dir",
    "dataset.path",
    "resume",
    "init_from",
    "task.features",
    "features",
    "task.judge",
    "run",
    "checkpoint",
    "path",
)
PLAIN_PATH = re.compile(r"(?!(true|false|null|nan|inf)$)(\.{0,2}/|[A-Za-z])[\w./@%+-]*", re.ASCII | re.IGNORECASE)
NETWORKS = re.compile(
    r"\{\s*\w+:[^{}]*\}(\s*,\s*\{\s*\w+:[^{}]*\})*"
)  # {policy: <path>, reward: <path>}, perhaps several
SWEEP = re.compile(r"(choice|glob|shuffle|sort|tag)\(.*\)$")
GROUPS = ("model", "dataset", "task", "optimizer", "scheduler")  # whose choice decides which options there are
RANKS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "JSM_NAMESPACE_RANK",
)  # Lightning reads them
FLAGS = (  # Hydra's
    *(
        "--help",
        "-h",
        "--hydra-help",
        "--cfg",
        "-c",
        "--resolve",
        "--package",
        "-p",
        "--info",
        "-i",
        "--run",
        "-r",
        *MANY,
    ),
    *("--shell-completion", "-sc", "--experimental-rerun", "--version"),
)
REFUSED = ("--config-name", "-cn", "--config-path", "-cp")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command: `epochal <command> <arguments>`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        command.__name__: command for command in (train, evaluate, compare, export, leaderboard, chat, serve, lab)
    }
    name = given[0] if given else "--help"
    print_anything()
    if name in ("-h", "--help"):
        print(HELP, end="")
    elif name == "--version":
        print(epochal.__version__)
    elif name in commands:
        commands[name](given[1:])
    else:
        say(f"{name} is no command of epochal.{did_you_mean(name, commands)} There are: {' '.join(commands)}")
        sys.exit(2)


def train(arguments: Sequence[str] | None = None) -> None:
    """Trains one model on one data set, then tests it once; or a whole grid of them."""
    _end("train", train_run, arguments)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Tests a run's best weights and shows what they get right and wrong."""
    _end("evaluate", evaluate_run, arguments)


def compare(arguments: Sequence[str] | None = None) -> None:
    """Compares runs: table, figures, verdict, an HTML report."""
    from epochal.compare.command import main

    try:
        check_process()
        folders, others = split_folders(sys.argv[1:] if arguments is None else arguments)
        use_folders(folders)
    except EpochalError as error:
        say(str(error))
        sys.exit(error.exit_status)
    main(others)


def export(arguments: Sequence[str] | None = None) -> None:
    """Writes a run's best weights as a folder that other programs open."""
    _end("export", export_run, arguments)


def leaderboard(arguments: Sequence[str] | None = None) -> None:
    """A table of language models."""
    from epochal.compare.leaderboard import main

    main(sys.argv[1:] if arguments is None else arguments)


def chat(arguments: Sequence[str] | None = None) -> None:
    """Talks with a language model in the terminal."""
    _end("chat", chat_run, arguments)


def serve(arguments: Sequence[str] | None = None) -> None:
    """Serves a language model on this machine."""
    _end("serve", serve_run, arguments)


def lab(arguments: Sequence[str] | None = None) -> None:
    """Serves the lab on this machine."""
    _end("lab", lab_run, arguments)


def train_run(config: DictConfig) -> tuple[Any, bool]:
    """One run, and whether it had finished before."""
    from epochal.experiments.sweeps import pruning
    from epochal.training.build import build  # torch and Lightning load only when a run really starts
    from epochal.training.resume import finished_before

    if run := finished_before(config):  # resume=auto, and nothing is left to do
        return run, True
    with build(config, overrides=given(), callbacks=pruning(config)) as job:
        job.fit()
        job.test()
        job.report()
    return job.run, False


def evaluate_run(config: DictConfig) -> dict[str, float]:
    """The metrics of a run, tested again."""
    from epochal.inference.evaluate import evaluate  # torch and Lightning load only when a run really starts

    return evaluate(config, overrides=given())


def export_run(config: DictConfig) -> None:
    """The run as a folder for other programs."""
    from epochal.inference.export import export  # torch and Lightning load only here

    export(config)


def chat_run(config: DictConfig) -> None:
    """A conversation with the run."""
    from epochal.inference.chat import chat  # torch and Lightning load only here

    chat(config)


def serve_run(config: DictConfig) -> None:
    """The run behind an address of this machine."""
    from epochal.inference.server import serve  # torch, Lightning and aiohttp load only here

    serve(config)


def lab_run(config: DictConfig) -> None:
    """The page of all runs."""
    from epochal.inference.lab.server import lab  # torch, Lightning and aiohttp load only here

    lab(config)


def run(name: str, function: Callable[[DictConfig], Any], arguments: Sequence[str]) -> list[Any]:
    """Composes the config of a command and calls a function with it, once or for each run of a grid.

    Args:
        name: Of the config: train, evaluate, export, chat, serve or lab.
        function: Called with the composed config.
        arguments: As on the command line.

    Returns:
        What the function returned; of a grid nothing, see `experiments.outcome.ended`.

    Raises:
        EpochalError: What the user did wrong, or why a run failed.
    """
    import hydra

    results: list[Any] = []
    failures: list[Exception] = []

    @functools.wraps(function)
    def job(config: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return one_of_many(function, config, given())
        try:
            check_values(config, given(), name)
            if name == "train":
                check_effect(config, given())
            check_alone(HydraConfig.get().runtime.choices["hydra/launcher"])
            results.append(function(config))
        except Exception as error:  # kept, not raised: Hydra would print its own lines
            failures.append(error)

    print_anything()
    check_process()
    OmegaConf.register_new_resolver("command", command_line, replace=True)  # of the help texts
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print and exit on
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # classes of the user's own, also for the console command
    arguments = prepared(arguments, name)
    command = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=name)(job)
    try:
        with _arguments(arguments):
            command()
        if failures and isinstance(failures[0], OmegaConfBaseException):  # such as an interpolation that leads nowhere
            raise failures[0]
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:  # what jobs raise is in failures
        raise ConfigError(explain(error, arguments, name)) from error
    if failures:
        raise failures[0]
    return results


def check_process() -> None:
    """Raises ConfigError for a process that nothing can run in: its folder was deleted, or a rank of it is no number."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("The current folder was deleted; change to one that is there.") from error
    for name in RANKS:
        if (value := os.environ.get(name)) is not None and not value.isdecimal():
            raise ConfigError(f"The environment variable {name}={value} must be a number; unset it.")


def _end(name: str, function: Callable[[DictConfig], Any], arguments: Sequence[str] | None) -> None:
    """Runs a command; whatever the user did wrong becomes a sentence and an exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if "--version" in given:
        print(epochal.__version__)
        return
    try:
        run(name, function, given)
    except KeyboardInterrupt as stop:
        say(_ended("Stopped.", stop, name))
        sys.exit(130)
    except SystemExit as end:
        if end.code is None:  # Lightning's, after a SIGTERM
            say(_ended("Ended by SIGTERM.", end, name))
            sys.exit(143)
        raise
    except EpochalError as error:
        say(str(error))
        sys.exit(error.exit_status)


def _ended(how: str, end: BaseException, name: str) -> str:
    """How a command ended, and how a training goes on; one without a checkpoint has said itself that it begins anew."""
    goes_on = name == "train" and not getattr(end, "begins_anew", False)
    return f"{how} The same line typed again with resume=auto goes on." if goes_on else how


@contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads them from sys.argv."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def prepared(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments as Hydra takes them: flags first, prompts and paths quoted, the user's own folders of configs apart.

    A key of the task is added where the task is still to be chosen (`task: auto` has no keys).

    Raises:
        ConfigError: For a flag that this command does not have, or a folder that is not there.
    """
    folders, others = split_folders(arguments)
    use_folders(folders)
    _check_arguments(others, name)
    flags = [argument for argument in others if argument in MANY]
    many = bool(flags) or any(argument.startswith(("experiment=", "sweep=")) for argument in others)
    overrides = [quoted(argument, many=many) for argument in others if argument not in MANY]
    if name == "train" and not any(override.startswith("task=") for override in overrides):
        overrides = [f"++{override}" if override.startswith("task.") else override for override in overrides]
    return [*flags, *(_for_each_run(overrides) if many else overrides)]


def _check_arguments(arguments: Sequence[str], name: str) -> None:
    """Raises ConfigError for a flag that this command does not have, and for a path that is empty."""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in MANY and name != "train":
            raise ConfigError(f"{command_line(name)} looks at one run at a time; leave out {key}.")
        if key in REFUSED:
            raise ConfigError(f"{key} is no option here; your own configs are added by --config-dir <folder>.")
        if key.startswith("-") and (key not in FLAGS or (equals and key in MANY)):
            raise ConfigError(f"{key} is no option.{did_you_mean(key, FLAGS)} {command_line(name)} --help lists all.")
        if equals and not value and key.lstrip("+") in PATHS:
            raise ConfigError(f"{key}= has no value; give one, or leave it out.")


def _for_each_run(overrides: Sequence[str]) -> list[str]:
    """The overrides of a grid, with the options of its models, data sets and so on as choices of one.

    Hydra composes what all runs share before it composes the runs, and there a `model.depth=8` would meet the default model, not
    those of `model=plain,resnet`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException:
        return list(overrides)  # Hydra says so
    several = {override.key_or_group for override in parsed if override.is_sweep_override()}
    if not several & {*GROUPS} or any(override.key_or_group == "experiment" for override in parsed):
        return list(overrides)
    found = []
    for text, override in zip(overrides, parsed):
        key, _, value = text.partition("=")
        option = override.key_or_group.split(".")[0] in GROUPS and "." in override.key_or_group
        one = option and value and not override.is_sweep_override() and not override.is_delete()
        found.append(f"{key}=choice({value})" if one else text)
    return found


def split_folders(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders of the user's own configs that `--config-dir` and `hydra.searchpath` name, and the other arguments.

    Raises:
        ConfigError: If there is no such folder.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folders, others = list[str](), list[str]()
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in CONFIG_DIR:
            folders.append(value if equals else next(rest, ""))
        elif key == "hydra.searchpath":
            listed = OverridesParser.create().parse_override(argument).value()
            folders += [str(path) for path in (listed if isinstance(listed, list) else [listed])]
        else:
            others.append(argument)
    return [absolute(folder) for folder in folders], others


def absolute(folder: str) -> str:
    """`file:///home/me/conf` for a folder of configs; `pkg://package.conf` stays.

    Raises:
        ConfigError: If there is no such folder.
    """
    schema, separator, place = folder.rpartition("://")
    if separator and schema != "file":
        return folder
    path = expanded(place).absolute()
    if not path.is_dir():
        raise ConfigError(f"There is no folder {place} of configs, which --config-dir or hydra.searchpath names.")
    return f"file://{path}"


def quoted(argument: str, *, many: bool = False) -> str:
    """A text or a path in quotes, its home folder in place of `~`: blanks, commas, brackets are text, not Hydra's grammar.

    Args:
        argument: As typed.
        many: With `-m` a comma separates the paths of several runs, unless there is a file or folder with it in its name.
    """
    key, _, text = argument.partition("=")
    if text in ("", "null"):
        return argument
    if key == "init_from" and NETWORKS.fullmatch(text) and not os.path.exists(text):
        return f"{key}={re.sub(r'[{]([^{}]*)[}]', lambda found: _quoted_networks(found[1]), text)}"
    if key.lstrip("+") in PATHS:
        return f"{key}={_quoted_path(text, many)}"
    if key in LISTS and "," in text and text[0] not in "['\"":
        return f"{key}=[{text}]"
    return f"{key}={_in_quotes(text)}" if key in TEXTS and not _has_quotes(text) else argument


def _quoted_path(text: str, many: bool) -> str:
    if _has_quotes(text) and not os.path.exists(text):  # quotes for Hydra
        text = text[1:-1].replace("\\" + text[0], text[0])
    elif many and not os.path.exists(text):
        if SWEEP.match(text):
            return text
        if "," in text:
            return ",".join(_quoted_path(part.strip(), many=False) for part in text.split(","))
    path = str(expanded(text)) if text.startswith("~") else text
    return path if PLAIN_PATH.fullmatch(path) else _in_quotes(path)


def _quoted_networks(text: str) -> str:
    """`policy: my run, reward: other` as a mapping in Hydra's grammar."""
    named = (part.partition(":") for part in re.split(r",(?=\s*\w+\s*:)", text))
    return f"{{{', '.join(f'{name.strip()}: {_quoted_path(path.strip(), many=False)}' for name, _, path in named)}}}"


def _has_quotes(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _in_quotes(text: str) -> str:
    """The text as a string of Hydra's grammar."""
    text = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return f'"{text}"'


def given() -> list[str]:
    """The overrides of the job that Hydra runs, as they were typed: `experiment=${model.name}` is not resolved."""
    from hydra.core.hydra_config import HydraConfig

    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(override) for override in overrides]
