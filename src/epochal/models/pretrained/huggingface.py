"""Weights of GPT, BERT and LLaMA from the Hugging Face Hub, or from a folder such as `transformers` writes.

A folder holds config.json and model.safetensors, or several files with model.safetensors.index.json. The tensors are the same
under other names; GPT-2's matrices are stored transposed, and of BERT and Llama query, key and value apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.hub import hub_is_reachable
from epochal.models.pretrained.huggingface_names import (
    CLASSES,
    CONFIG,
    FAMILIES,
    INDEX,
    TOKENIZER_FILES,
    WEIGHTS,
    is_transposed,
    plain_name,
    their_names,
)

# buffers of older files, and heads; whether a head is ours is asked by name
IGNORED = re.compile(
    r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq|position_ids|token_type_ids)$"
    r"|^(lm_head|cls|score|classifier|multiple_choice_head|pooler)\."
)
SAMPLE = 3  # names in a message
# our arguments that are whole numbers above zero, and others that are numbers
SIZES = ("vocab_size", "context_length", "depth", "num_heads", "num_kv_heads", "embed_dim", "feedforward_dim")
NUMBERS = ("eps", "dropout", "rope_base")


def load(source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network that a folder or a repository of the Hub holds: its arguments, and its weights under our names.

    Args:
        source: A folder, or the id of a repository such as "openai-community/gpt2", which is downloaded into the Hub's cache.

    Returns:
        The arguments, with the model's "name" (gpt, bert, llama): `CLASSES[config.pop("name")](**config)` takes the weights.
        Those of a network without a head have the usual one, whose weights are missing unless they are tied.

    Raises:
        ConfigError: If it is no such folder, cannot be downloaded, holds another architecture, or files are damaged or lack
            weights.
    """
    folder = fetch(source)
    config, bare = read_config(folder)
    with torch.device("meta"):
        model = CLASSES[config["name"]](**{name: value for name, value in config.items() if name != "name"})
    state, missing = _read(folder, model.state_dict(), config)
    missing = [name for name in missing if not (bare and name.startswith("head."))]
    if missing:
        raise ConfigError(f"{folder} lacks weights of a {config['name']}: {_some(missing)}.")
    for name, tensor in model.state_dict().items():
        if name in state and state[name].shape != tensor.shape:
            raise ConfigError(
                f"{folder}: {name} is of shape {tuple(state[name].shape)}, but config.json says {tuple(tensor.shape)}."
            )
    return config, state


def load_pretrained(model: nn.Module, source: str | Path, *, labels: Sequence[str] = ()) -> str:
    """Loads weights into one of our networks; returns a sentence that says which.

    A head for something else than the weights' own, or for other classes, and a pooler that they lack, keep their
    initialisation. Where the weights have more learned positions than the network, the first are taken.

    Args:
        model: A `GPT`, `BERT` or `LLaMA` of the weights' sizes, as `read_config` gives them.
        source: As of `load`.
        labels: Names of the classes of the network's head, if it has classes.

    Raises:
        ConfigError: As `load`, or if the network has another architecture, vocabulary or size, naming what does not fit.
    """
    folder = fetch(source)
    config, _ = read_config(folder)
    if not isinstance(model, CLASSES[config["name"]]):
        raise ConfigError(f"model.pretrained={source} is a {config['name']}; choose model={config['name']}.")
    own = model.state_dict()
    state, missing = _read(folder, own, config)
    head = model.head_name
    same = head == config.get("head", head) and (
        "num_outputs" not in config or list(labels) == _labels(_json(folder / CONFIG))
    )
    if not same:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    if wrong := [name for name in missing if not name.startswith(("head.", "pooler."))]:
        raise ConfigError(f"model.pretrained={source} lacks weights of this network: {_some(wrong)}.")
    if "position.weight" in state:
        state["position.weight"] = state["position.weight"][: len(own["position.weight"])]
    if wrong := [
        f"{name} is {tuple(tensor.shape)} there and {tuple(own[name].shape)} here"
        for name, tensor in state.items()
        if tensor.shape != own[name].shape
    ]:
        raise ConfigError(
            f"model.pretrained={source} does not fit: {_some(wrong)}. Take its own tokenizer, context and sizes."
        )
    model.load_state_dict(state, strict=False)
    fresh = sorted({name.split(".")[0] for name in own if name not in state})
    return f"Weights: {source}" + (f"; {' and '.join(fresh)} as initialised" if fresh else "") + "."


def fetch(source: str | Path) -> Path:
    """The folder with a network's files, downloaded if it is the id of a repository of the Hub.

    Raises:
        ConfigError: If there is no such folder or repository, or the Hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise ConfigError(
            f"{source} is neither a folder with {CONFIG} and {WEIGHTS} nor the id of a repository of the Hub."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES]
    reachable = hub_is_reachable()
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns, local_files_only=not reachable))
    except (LocalEntryNotFoundError, OSError, HFValidationError) as error:
        if reachable and isinstance(error, HfHubHTTPError | HFValidationError):
            raise ConfigError(f"The Hub has no {source} for you: {str(error).splitlines()[0]}") from error
        raise ConfigError(
            f"{source} is no folder here and not in the Hub's cache, and the Hub cannot be reached: give a folder that "
            f"holds {CONFIG} and {WEIGHTS}, or try again with a network."
        ) from error


def read_config(source: str | Path) -> tuple[dict[str, Any], bool]:
    """The arguments of our network with its "name", and whether the weights are those of a body without a head.

    Raises:
        ConfigError: If there is no config.json, or it describes a network that ours cannot be.
    """
    folder = fetch(source)
    theirs = _described(folder, source)
    kind, classes = theirs["model_type"], theirs.get("architectures") or []
    try:
        config, wrong = {"gpt2": _gpt2, "openai-gpt": _gpt1, "bert": _bert, "llama": _llama}[kind](theirs)
    except KeyError as error:
        raise ConfigError(f"{folder / CONFIG} does not say {error.args[0]}.") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(f"{folder / CONFIG} has a value of another kind than it should be: {error}.") from error
    _check_values(folder, config)
    if "quantization_config" in theirs:
        wrong.append("quantization_config")
    if wrong:
        raise ConfigError(f"{folder} holds a {kind} of a form that ours has not: {', '.join(wrong)}.")
    heads = FAMILIES[kind].heads
    head = next((name for name, (made_by, _) in heads.items() if made_by in classes), None)
    if head == "next_sentence":
        config |= {"head": "masked_token", "next_sentence": True}
    elif head is not None:
        config["head"] = head
    if head in ("classes", "step_classes"):
        count = len(_labels(theirs))
        config |= {"head": "scalar"} if head == "classes" and count == 1 else {"num_outputs": count}
    return {"name": FAMILIES[kind].ours, **config}, head is None


def _described(folder: Path, source: str | Path) -> dict[str, Any]:
    """The config.json of a folder; raises ConfigError if there is none, or it is of a network that is none of ours."""
    if (folder / "config.yaml").is_file() and not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is the folder of a run; a run begins with its weights by init_from={source}.")
    theirs = _json(folder / CONFIG)
    if "specs" in theirs:  # of `epochal export to=safetensors`
        raise ConfigError(
            f"{folder} is an export of Epochal's own; weights to begin with are written by to=huggingface."
        )
    if (kind := str(theirs.get("model_type"))) not in FAMILIES:
        raise ConfigError(
            f"{folder} holds {' '.join(theirs.get('architectures') or []) or 'a network'} (model_type {kind}); ours are {' '.join(FAMILIES)}."
        )
    return theirs


def _check_values(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ConfigError if a size is no whole number above zero, or a number is none."""
    for name, value in config.items():
        whole = name in SIZES
        number = whole or name in NUMBERS
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        if number and (not right or isinstance(value, bool) or value < whole):
            what = "a whole number above zero" if whole else "a number"
            raise ConfigError(f"{folder / CONFIG} gives {value!r} for what is {name} here; it must be {what}.")


def _labels(theirs: Mapping[str, Any]) -> list[str]:
    """The names of the classes of a config.json.

    Raises:
        ConfigError: If they are not names by number.
    """
    try:
        names = theirs.get("id2label") or {str(i): f"LABEL_{i}" for i in range(theirs.get("num_labels", 2))}
        return [names[key] for key in sorted(names, key=int)]
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{CONFIG} has no names of classes by number in id2label or num_labels: {error}.") from error


def _wrong(theirs: Mapping[str, Any], required: Mapping[str, Iterable[Any]]) -> list[str]:
    """What is not as it must be, where it is said."""
    return [
        f"{name}={theirs[name]}" for name, right in required.items() if name in theirs and theirs[name] not in right
    ]


_GELU = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _gpt2(theirs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    required = {
        "activation_function": _GELU,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }
    config = _gpt(theirs) | {"feedforward": _GELU.get(theirs.get("activation_function", "gelu_new"))}
    config |= {"feedforward_dim": theirs.get("n_inner") or 4 * theirs["n_embd"], "pre_norm": True}
    return config, _wrong(theirs, {**required, "add_cross_attention": (False,)})


def _gpt1(theirs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    config = _gpt(theirs) | {"feedforward": "gelu_tanh", "pre_norm": False}  # which it calls gelu
    return config, _wrong(theirs, {"afn": ("gelu",)})


def _gpt(theirs: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": theirs["vocab_size"],
        "context_length": theirs["n_positions"],
        "depth": theirs["n_layer"],
        "num_heads": theirs["n_head"],
        "embed_dim": theirs["n_embd"],
        "eps": theirs.get("layer_norm_epsilon", 1e-5),
        **{"norm": "layer", "positions": "learned", "num_kv_heads": theirs["n_head"], "bias": True},
        "tie": theirs.get("tie_word_embeddings", True),
        "dropout": theirs.get("resid_pdrop", 0.1),
    }


def _bert(theirs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    config = {
        "vocab_size": theirs["vocab_size"],
        "context_length": theirs["max_position_embeddings"],
        "depth": theirs["num_hidden_layers"],
        "num_heads": theirs["num_attention_heads"],
        "embed_dim": theirs["hidden_size"],
        "feedforward_dim": theirs["intermediate_size"],
        "feedforward": _GELU.get(theirs.get("hidden_act", "gelu")),
        "eps": theirs.get("layer_norm_eps", 1e-12),
        "dropout": theirs.get("hidden_dropout_prob", 0.1),
    }
    required = {"hidden_act": _GELU, "type_vocab_size": (2,), "position_embedding_type": ("absolute",)}
    required |= {"tie_word_embeddings": (True,), "is_decoder": (False,), "add_cross_attention": (False,)}
    return config, _wrong(theirs, required)


def _llama(theirs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    rope = {**(theirs.get("rope_scaling") or {}), **(theirs.get("rope_parameters") or {})}
    heads = theirs["num_attention_heads"]
    config = {
        "vocab_size": theirs["vocab_size"],
        "context_length": theirs["max_position_embeddings"],
        "depth": theirs["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": theirs.get("num_key_value_heads") or heads,
        "embed_dim": theirs["hidden_size"],
        "feedforward_dim": theirs["intermediate_size"],
        "eps": theirs.get("rms_norm_eps", 1e-6),
        "rope_base": rope.get("rope_theta") or theirs.get("rope_theta", 10_000.0),
        **{"norm": "rms", "positions": "rotary", "feedforward": "swiglu"},
        "bias": theirs.get("attention_bias", False),
        "tie": theirs.get("tie_word_embeddings", False),
        "dropout": theirs.get("attention_dropout", 0.0),
    }
    wrong = _wrong(theirs, {"hidden_act": ("silu",), "head_dim": (None, theirs["hidden_size"] // heads)})
    wrong += _wrong(theirs, {"mlp_bias": (config["bias"],)})
    wrong += _wrong({**theirs, **rope}, {"partial_rotary_factor": (None, 1)})
    kinds = {rope[key] for key in ("rope_type", "type") if key in rope} - {"default"}
    if kinds or rope.get("factor", 1) != 1:
        wrong.append(f"rope_type={' '.join(map(str, kinds)) or 'scaled'}")
    return config, wrong


def _read(folder: Path, own: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Those of our tensors that the files hold, and the names of the others.

    Raises:
        ConfigError: If a file is damaged, or there are weights that our network has no place for.
    """
    family = FAMILIES[_json(folder / CONFIG)["model_type"]]
    head = "next_sentence" if config.get("next_sentence") else config.get("head") or next(iter(family.heads))
    held = {plain_name(name, family): (file, name) for name, file in _names(folder).items()}
    state, missing, used = {}, [], set()
    files: dict[Path, Any] = {}
    for name in own:
        theirs = [plain_name(their, family) for their in their_names(name, family, head)]
        if not theirs or any(their not in held for their in theirs):
            missing.append(name)
            continue
        used.update(theirs)
        parts = [_tensor(*held[their], files) for their in theirs]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        state[name] = tensor.t().contiguous() if is_transposed(name, family) else tensor
    if rest := [name for name in held if name not in used and not IGNORED.search(name)]:
        raise ConfigError(f"{folder} holds weights that a {config['name']} has no place for: {_some(rest)}.")
    return state, missing


def _names(folder: Path) -> dict[str, Path]:
    """The file of each tensor.

    Raises:
        ConfigError: If there is none, or one is missing or damaged.
    """
    if (folder / INDEX).is_file():
        named = _json(folder / INDEX).get("weight_map", {})
        if not isinstance(named, dict) or not all(
            isinstance(file, str) and Path(file).name == file for file in named.values()
        ):
            raise ConfigError(f"{folder / INDEX} must name a file of the folder for each tensor in its weight_map.")
        files = sorted({folder / file for file in named.values()})
    else:
        files = [folder / WEIGHTS]
    if absent := [file.name for file in files if not file.is_file()]:
        raise ConfigError(f"{folder} has no {_some(absent)}; ours are weights in the format safetensors.")
    return {name: file for file in files for name in _open(file).keys()}  # noqa: SIM118


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} is damaged or cut short ({error}): copy or download it again.") from error


def _tensor(file: Path, name: str, files: dict[Path, Any]) -> Tensor:
    if file not in files:
        files[file] = _open(file)
    tensor: Tensor = files[file].get_tensor(name)
    if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise ConfigError(f"{file} holds {name} as {tensor.dtype}: quantised weights cannot be read.")
    if not tensor.isfinite().all():
        raise ConfigError(f"{file} holds values of {name} that are not finite: copy or download it again.")
    return tensor


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file.parent} has no {file.name}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} is no JSON object.")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SAMPLE:,} more" if len(names) > SAMPLE else ""
    return ", ".join(names[:SAMPLE]) + more
