"""Warm start: a network begins with the weights of another run (`init_from`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.compose import choices, option_file
from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import expanded, relative
from epochal.core.multirun import typed_alone
from epochal.core.specs import Outputs, class_count, from_plain
from epochal.data.tokenizers import KINDS, HuggingFace
from epochal.models.common.lora import add_lora, merged
from epochal.models.common.old_names import current_names
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.run_folder import Run, runs_folder

# prefixes of the names of a network's output layers, where its class has no `head_parameters`
HEADS = ("head.", "auxiliary.")
TRAINED = "policy"  # of several networks in `init_from` the one that is trained
POSITIONS = {"position.weight"}  # embeddings of positions: a network with a shorter context takes the first of them
NAMED = 4  # weights in a message


class Parent(NamedTuple):
    """The run that another one begins with, and the checkpoint of its best weights."""

    run: Run
    checkpoint: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """Its normalisation or tokenizer, which its weights expect."""
        return self.checkpoint["epochal"]["data"]


def parent_of(config: DictConfig) -> Parent | None:
    """The run that `init_from` names; None without.

    Of several networks (`init_from={policy: run, reward: run}`) it is that of the policy, the one that is trained.

    Raises:
        ConfigError: If there is no such run, its checkpoint is damaged, or it learned from another kind of data.
    """
    if named_runs(config.init_from).get(TRAINED) is None:
        return None
    return parent_in(find_run(config), config)


def parent_in(run: Run, config: DictConfig) -> Parent:
    """A run and the checkpoint of its best weights, of which this config's network is to begin or be a copy.

    Raises:
        ConfigError: If its checkpoint is damaged, or it learned from another kind of data.
    """
    checkpoint = read_checkpoint(run.best if run.best.exists() else run.last)
    reads, yields = type(from_plain(checkpoint["epochal"]["specs"][0])), target_class(config.dataset._target_).yields
    if reads is not yields:
        raise ConfigError(
            f"init_from={relative(run.folder)} learned from {reads.__name__.lower()}, but dataset={config.dataset.name} yields "
            f"{yields.__name__.lower()}."
        )
    return Parent(run, checkpoint)


def named_runs(init_from: Any) -> dict[str, Any]:
    """The runs that `init_from` names, by the name of the network that each is for."""
    if init_from is None:
        return {}
    if isinstance(init_from, Mapping | DictConfig):
        return {str(name): run for name, run in init_from.items() if run is not None}
    return {TRAINED: init_from}


def find_run(config: DictConfig, name: str | None = None) -> Run:
    """The run that `init_from` names: by its folder, or by the task that it learned.

    Of a task it is the newest finished run in this run's folder with the same model and seed on the same data set, or on the
    one that stands behind an @: `language_modeling@sst2_half`.

    Args:
        config: Of this run.
        name: One of those in `init_from`; None: that of the network that is trained.

    Raises:
        ConfigError: If there is none.
    """
    name = str(named_runs(config.init_from)[TRAINED] if name is None else name)
    if not is_task(name):
        if not Path(name).exists() and (near := did_you_mean(name.partition("@")[0], choices().get("task", []))):
            raise ConfigError(f"init_from={name} is neither the folder of a run nor a task.{near}")
        run = Run.open(name)
        run.config()
        return run
    parent = runs_folder(config)
    task, _, dataset = name.partition("@")
    wanted = (task, config.model.name, dataset or config.dataset.name, config.seed)
    for file in sorted(parent.glob(f"*_s{config.seed}*/summary.json"), reverse=True):
        summary = Run(file.parent).summary()
        found = tuple(summary.get(key) for key in ("task", "model", "dataset", "seed"))
        run = Run(file.parent)
        if found == wanted and summary.get("status") == "finished" and run.config().model == config.model:
            return run
    if dataset and dataset not in (known := choices().get("dataset", [])):
        raise ConfigError(
            f"init_from={name}: there is no run on dataset={dataset} in {parent}, nor such a dataset."
            f"{did_you_mean(dataset, known)}"
        )
    raise ConfigError(
        f"init_from={name}: there is no finished run of it with this model={config.model.name}, "
        f"dataset={wanted[2]} and seed={config.seed} in {parent}. Train it first with task={task}, or give a run's folder."
    )


def is_task(name: str) -> bool:
    """Whether `init_from` names a task instead of a folder."""
    return option_file("task", name.partition("@")[0]) is not None and not Path(name).is_dir()


def load_matching_weights(model: nn.Module, parent: Parent, config: DictConfig, outputs: Outputs) -> str:
    """Loads another run's weights into a network and returns a sentence about it.

    The head is kept where task, class names and their order agree. Otherwise what depends on them stays as initialised.

    Args:
        outputs: What the network must return.

    Raises:
        ConfigError: If the two are not the same network up to their heads, naming what does not fit.
    """
    own, heads = model.state_dict(), head_prefixes(model)
    state = _weights(parent, model)
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    wrong = [
        _misfit(k, own.get(k), state.get(k)) for k in {**own, **state} if k not in fitting and not k.startswith(heads)
    ]
    if wrong:
        more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
        raise ConfigError(
            f"init_from={relative(parent.run.folder)} holds weights of model={parent.checkpoint['epochal']['config']['model']['name']} that do not "
            f"fit this model={config.model.name}: {', '.join(wrong[:NAMED])}{more}."
        )
    why, others = _other_head(parent, config, outputs)
    shared = tuple(getattr(model, "kept_parameters", ()))
    kept = {k: v for k, v in fitting.items() if not k.startswith(heads) or k.startswith(shared) or not others(v)}
    if not next(model.parameters()).is_meta:
        model.load_state_dict(kept, strict=False)
    fresh = ", ".join(dict.fromkeys(key.rpartition(".")[0] or key for key in own if key not in kept))
    end = f"; {fresh} begins afresh{why}." if fresh else ", the head's too: task and classes are the same."
    return f"Weights: those of {relative(parent.run.folder)}{end}"


def _weights(parent: Parent, model: nn.Module) -> dict[str, Tensor]:
    """The parent's weights under today's names, of learned positions as many as the network has.

    Raises:
        ConfigError: If the network has more positions.
    """
    prefix, own = "model.", model.state_dict()
    named = current_names(parent.checkpoint["state_dict"], model, prefix=prefix)
    state = merged({k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)})
    for name in POSITIONS & own.keys() & state.keys():
        if (length := len(state[name])) < len(own[name]):
            raise ConfigError(
                f"init_from={relative(parent.run.folder)} reads {length:,} tokens at once, and its learned positions cannot be "
                f"extended: model.context_length={length}, and no longer texts (dataset.context_length or dataset.max_length)."
            )
        state[name] = state[name][: len(own[name])]
    return state


def adapt(model: nn.Module, config: DictConfig) -> None:
    """Adds what `finetune` asks for to a network, which then trains that and its head.

    Raises:
        ConfigError: If the network has no such layers, or a value is out of range.
    """
    lora = OmegaConf.select(config, "finetune.lora")  # older runs have no such key
    if lora is None or lora.rank is None:
        return
    try:
        add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, trained=head_prefixes(model))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def head_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of a network's output layers."""
    return tuple(getattr(model, "head_parameters", HEADS))


def _other_head(parent: Parent, config: DictConfig, outputs: Outputs) -> tuple[str, Callable[[Tensor], bool]]:
    """Why the head must begin afresh, for the end of a sentence, and which of its tensors; none where all agrees."""
    known, classes = parent.checkpoint["epochal"], class_count(outputs)
    if known["config"]["task"]["name"] != config.task.name and not _same_tokens(known, config):
        return ", as the task is another", lambda tensor: True
    if classes is None or outputs == from_plain(known["specs"][1]):
        return "", lambda tensor: False
    return ", as the classes are others", lambda tensor: tensor.ndim > 0 and len(tensor) == classes


def check_tokenizer(config: DictConfig, state: Mapping[str, Any] | None, overrides: Sequence[str]) -> None:
    """Raises ConfigError if a tokenizer was typed, or how large one is to be learned, and the texts are read with another: that
    of the weights to begin with.

    Args:
        state: What the data takes over from the other run or the published weights.
        overrides: As typed.
    """
    if not state or "tokenizer" not in state:
        return
    source = "init_from" if config.init_from is not None else "model.pretrained"
    weights = f"{source}={config.init_from or config.model.pretrained}"
    if sizes := sorted(typed_alone(overrides) & {"dataset.vocab_size", "dataset.min_count"}):
        raise ConfigError(f"{sizes[0]} is not read here: texts are read with the tokenizer of {weights}; leave it out.")
    if not any(override.partition("=")[0].lstrip("+") == "dataset.tokenizer" for override in overrides):
        return
    asked = str(config.dataset.tokenizer)
    if asked in KINDS:
        instead = ("word", "bpe")  # where words have no spaces
        same = asked == state["tokenizer"] or (asked, state["tokenizer"]) == instead
    elif same := state["tokenizer"] == HuggingFace.kind:
        known = HuggingFace(state["vocabulary"])
        same = HuggingFace.open(expanded(asked)).with_size(len(known)).vocabulary == known.vocabulary
    if not same:
        raise ConfigError(
            f"dataset.tokenizer={asked}: texts are read with the tokenizer of {weights} ({state['tokenizer']}), as its weights need it; leave dataset.tokenizer out."
        )


def _same_tokens(known: dict[str, Any], config: DictConfig) -> bool:
    """Whether both tasks have the network predict the next token: then the head is no part of the task."""
    theirs = OmegaConf.create({"task": {"_target_": known["config"]["task"]["_target_"]}})
    try:
        check_targets(theirs, (*ALLOWED, *(config.get("allow") or ())))  # nothing of a stranger's is imported
    except ConfigError:
        return False
    return all(getattr(target_class(each.task._target_), "head", None) == "next_token" for each in (theirs, config))


def _misfit(name: str, here: Tensor | None, there: Tensor | None) -> str:
    if there is None:
        return f"{name} is missing there"
    if here is None:
        return f"{name} is missing here"
    return f"{name} is {tuple(there.shape)} there, {tuple(here.shape)} here"
