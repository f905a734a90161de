"""Weights of GPT, BERT and LLaMA from the Hugging Face Hub or a folder, and back into a folder that `transformers` opens.

A folder holds config.json and model.safetensors, or several files with model.safetensors.index.json. The tensors are the same
under other names; GPT-2's matrices are stored transposed, and of BERT and Llama query, key and value apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.hub import hub_is_reachable
from epochal.core.specs import ReservedIds
from epochal.models.bert import BERT
from epochal.models.common.attention import FEEDFORWARDS
from epochal.models.common.causal import CausalTransformer
from epochal.models.gpt import GPT
from epochal.models.llama import LLaMA

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
)
CLASSES = {"gpt": GPT, "bert": BERT, "llama": LLaMA}
# buffers of older files, and heads; whether a head is ours is asked by name
IGNORED = re.compile(
    r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq|position_ids|token_type_ids)$"
    r"|^(lm_head|cls|score|classifier|multiple_choice_head|pooler)\."
)
SAMPLE = 3  # names in a message
# our arguments that are whole numbers above zero, and others that are numbers
SIZES = ("vocab_size", "context_length", "depth", "num_heads", "num_kv_heads", "embed_dim", "feedforward_dim")
NUMBERS = ("eps", "dropout", "rope_base")


@dataclass(frozen=True)
class Family:
    """How `transformers` names the parts of one architecture, by our names."""

    ours: str  # of CLASSES
    prefix: str  # of everything but the heads; absent where a network without a head was saved
    top: dict[str, str]
    block: str  # prefix of a block's parts, with its number
    parts: Mapping[str, tuple[str, ...]]
    heads: dict[str, tuple[str, dict[str, str]]]  # name of the head -> class, and modules
    transposed: bool = False  # the matrices of the blocks


_GPT_PARTS = {"norm1": ("ln_1",), "attention.qkv": ("attn.c_attn",), "attention.proj": ("attn.c_proj",)}
_GPT_PARTS |= {"norm2": ("ln_2",), "mlp.fc1": ("mlp.c_fc",), "mlp.fc2": ("mlp.c_proj",)}
_BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_LLAMA_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_MASKED = {"head.transform": "cls.predictions.transform.dense", "head.norm": "cls.predictions.transform.LayerNorm"}
_MASKED |= {"head": "cls.predictions"}
FAMILIES = {  # by model_type
    "gpt2": Family(
        "gpt",
        "transformer.",
        {"embed": "wte", "position": "wpe", "norm": "ln_f"},
        "h.{}.",
        _GPT_PARTS,
        {
            "next_token": ("GPT2LMHeadModel", {"head": "lm_head"}),
            "classes": ("GPT2ForSequenceClassification", {"head": "score"}),
            "scalar": ("GPT2ForSequenceClassification", {"head": "score"}),
            "step_classes": ("GPT2ForTokenClassification", {"head": "classifier"}),
        },
        transposed=True,
    ),
    "openai-gpt": Family(
        "gpt",
        "transformer.",
        {"embed": "tokens_embed", "position": "positions_embed"},
        "h.{}.",
        _GPT_PARTS,
        {
            "next_token": ("OpenAIGPTLMHeadModel", {"head": "lm_head"}),
            "classes": ("OpenAIGPTForSequenceClassification", {"head": "score"}),
            "scalar": ("OpenAIGPTForSequenceClassification", {"head": "score"}),
        },
        transposed=True,
    ),
    "bert": Family(
        "bert",
        "bert.",
        {
            "embed": "embeddings.word_embeddings",
            "position": "embeddings.position_embeddings",
            "segment": "embeddings.token_type_embeddings",
            "norm": "embeddings.LayerNorm",
            "pooler": "pooler.dense",
        },
        "encoder.layer.{}.",
        {
            "attention.qkv": _BERT_QKV,
            "attention.proj": ("attention.output.dense",),
            "norm1": ("attention.output.LayerNorm",),
            "mlp.fc1": ("intermediate.dense",),
            "mlp.fc2": ("output.dense",),
            "norm2": ("output.LayerNorm",),
        },
        {
            "masked_token": ("BertForMaskedLM", _MASKED),
            "next_sentence": ("BertForPreTraining", {**_MASKED, "head.next_sentence": "cls.seq_relationship"}),
            "classes": ("BertForSequenceClassification", {"head": "classifier"}),
            "scalar": ("BertForSequenceClassification", {"head": "classifier"}),
            "numbers": ("BertForSequenceClassification", {"head": "classifier"}),
            "step_classes": ("BertForTokenClassification", {"head": "classifier"}),
        },
    ),
    "llama": Family(
        "llama",
        "model.",
        {"embed": "embed_tokens", "norm": "norm"},
        "layers.{}.",
        {
            "norm1": ("input_layernorm",),
            "attention.qkv": _LLAMA_QKV,
            "attention.proj": ("self_attn.o_proj",),
            "norm2": ("post_attention_layernorm",),
            "mlp.gate": ("mlp.gate_proj",),
            "mlp.fc1": ("mlp.up_proj",),
            "mlp.fc2": ("mlp.down_proj",),
        },
        {
            "next_token": ("LlamaForCausalLM", {"head": "lm_head"}),
            "classes": ("LlamaForSequenceClassification", {"head": "score"}),
            "scalar": ("LlamaForSequenceClassification", {"head": "score"}),
            "step_classes": ("LlamaForTokenClassification", {"head": "score"}),
        },
    ),
}


# ---- from transformers to ours ----


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
    if folder.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
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
    theirs = _json(folder / CONFIG)
    kind, classes = str(theirs.get("model_type")), theirs.get("architectures") or []
    if kind not in FAMILIES:
        raise ConfigError(
            f"{folder} holds {' '.join(classes) or 'a network'} (model_type {kind}); ours are {' '.join(FAMILIES)}."
        )
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
    held = {_plain(name, family): (file, name) for name, file in _names(folder).items()}
    state, missing, used = {}, [], set()
    files: dict[Path, Any] = {}
    for name in own:
        theirs = [_plain(their, family) for their in their_names(name, family, head)]
        if not theirs or any(their not in held for their in theirs):
            missing.append(name)
            continue
        used.update(theirs)
        parts = [_tensor(*held[their], files) for their in theirs]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        state[name] = tensor.t().contiguous() if _is_transposed(name, family) else tensor
    if rest := [name for name in held if name not in used and not IGNORED.search(name)]:
        raise ConfigError(f"{folder} holds weights that a {config['name']} has no place for: {_some(rest)}.")
    return state, missing


def their_names(name: str, family: Family, head: str) -> list[str]:
    """What `transformers` calls our tensor: three names where it keeps query, key and value apart; none: it has none."""
    module, _, part = name.rpartition(".")
    if inside := re.fullmatch(r"blocks\.(\d+)\.(.+)", module):
        prefix = family.prefix + family.block.format(inside[1])
        return [f"{prefix}{their}.{part}" for their in family.parts.get(inside[2], ())]
    if module in family.top:
        return [f"{family.prefix}{family.top[module]}.{part}"]
    modules = family.heads[head][1] if head in family.heads else {}
    return [f"{modules[module]}.{part}"] if module in modules else []


def _is_transposed(name: str, family: Family) -> bool:
    return family.transposed and name.startswith("blocks.") and name.endswith(".weight") and ".norm" not in name


def _plain(name: str, family: Family) -> str:
    """A tensor's name without the prefix of the body, and that of today for a norm's in the first files of BERT."""
    name = name.removeprefix(family.prefix)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


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


# ---- from ours to transformers ----


def save(
    model: nn.Module, folder: str | Path, *, ids: ReservedIds | None = None, labels: Sequence[str] | None = None
) -> None:
    """Writes config.json and model.safetensors, which the `AutoModel` classes of `transformers` open.

    Args:
        model: A `GPT`, `BERT` or `LLaMA`.
        folder: Is made if it is not there.
        ids: The reserved ids of its tokenizer.
        labels: Names of the classes, if its head has classes.

    Raises:
        ConfigError: If `transformers` has no such network.
    """
    from safetensors.torch import save_file

    kind, config = _their_config(model)
    family, head = FAMILIES[kind], _head_of(model)
    if head not in family.heads:
        raise ConfigError(f"transformers has no {kind} with a head for {head}.")
    config |= {"model_type": kind, "architectures": [family.heads[head][0]], **_ids(ids)}
    if head in ("classes", "step_classes", "scalar", "numbers"):
        count: Any = model.head.out_features  # type: ignore[union-attr]
        names = list(labels) if labels is not None else [f"LABEL_{i}" for i in range(count)]
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        if head in ("scalar", "numbers"):
            config["problem_type"] = "regression"
    state: dict[str, Tensor] = {}
    for name, tensor in {**model.state_dict(), **_zero_biases(model, family)}.items():
        theirs = their_names(name, family, head)
        tensor = (tensor.t() if _is_transposed(name, family) else tensor).detach().cpu()
        parts = _split(model, tensor) if len(theirs) > 1 else (tensor,)
        state |= {their: part.contiguous().clone() for their, part in zip(theirs, parts, strict=True)}
    config["torch_dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def save_tokenizer(
    text: str, folder: str | Path, *, ids: ReservedIds, context_length: int | None = None, segments: bool = False
) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which `AutoTokenizer` opens.

    Args:
        text: Of tokenizer.json, in the format of the library `tokenizers`.
        folder: Of the network's files.
        ids: The reserved ids, whose tokens get their roles.
        context_length: Most tokens that the network reads at once.
        segments: Whether it reads which text of a pair each token is of.
    """
    from tokenizers import Tokenizer

    names = {"pad": "pad", "unknown": "unk", "begin": "bos", "end": "eos", "mask": "mask"}
    tokens = Tokenizer.from_str(text)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for ours, theirs in names.items():
        if (number := getattr(ids, ours)) is not None:
            config[f"{theirs}_token"] = tokens.id_to_token(number)
    if context_length is not None:
        config["model_max_length"] = context_length
    config["model_input_names"] = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    Path(folder, TOKENIZER_FILES[0]).write_text(text, encoding="utf-8")
    Path(folder, TOKENIZER_FILES[1]).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _head_of(model: Any) -> str:
    return "next_sentence" if getattr(model.head, "next_sentence", None) is not None else model.head_name


def _ids(ids: ReservedIds | None) -> dict[str, Any]:
    ids = ids or ReservedIds()
    return {"pad_token_id": ids.pad, "bos_token_id": ids.begin, "eos_token_id": ids.end}


def _their_config(model: Any) -> tuple[str, dict[str, Any]]:
    """The model_type that a network is to `transformers`, and its config.

    Raises:
        ConfigError: If it has none.
    """
    if not isinstance(model, BERT | CausalTransformer):
        raise ConfigError(f"transformers has no {type(model).__name__}; to=huggingface is for gpt, bert and llama.")
    block: Any = model.blocks[0]
    feedforward = next(
        name
        for name, (activation, gated) in FEEDFORWARDS.items()
        if activation is block.mlp.activation and gated == (block.mlp.gate is not None)
    )
    if isinstance(model, BERT):
        return "bert", _their_bert(model, feedforward)
    rms, rotary = isinstance(block.norm1, nn.RMSNorm), model.rotary is not None
    if rms and rotary and feedforward == "swiglu" and block.pre_norm:
        return "llama", _their_llama(model)
    if rms or rotary or feedforward == "swiglu" or block.attention.num_kv_heads != block.attention.num_heads:
        form = f"norm={'rms' if rms else 'layer'}, positions={'rotary' if rotary else 'learned'}"
        form += f", feedforward={feedforward}, num_kv_heads={block.attention.num_kv_heads}, pre_norm={block.pre_norm}"
        raise ConfigError(f"transformers has no network with {form}: only GPT's parts together, or LLaMA's.")
    return ("gpt2" if block.pre_norm else "openai-gpt"), _their_gpt(model, feedforward)


def _their_bert(model: Any, feedforward: str) -> dict[str, Any]:
    return {
        **_their_sizes(model),
        "tie_word_embeddings": True,
        "type_vocab_size": 2,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new"}[feedforward],
        "layer_norm_eps": model.norm.eps,
        "hidden_dropout_prob": model.dropout.p,
        "attention_probs_dropout_prob": model.dropout.p,
    }


def _their_llama(model: Any) -> dict[str, Any]:
    block, bias = model.blocks[0], model.blocks[0].mlp.fc1.bias is not None
    return {
        **_their_sizes(model),
        "tie_word_embeddings": model.head is None,
        "num_key_value_heads": block.attention.num_kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": block.norm1.eps,
        "rope_theta": model.rotary.base,
        "attention_bias": bias,
        "mlp_bias": bias,
        "attention_dropout": model.dropout.p,
    }


def _their_sizes(model: Any) -> dict[str, Any]:
    """As BERT and Llama name them."""
    block = model.blocks[0]
    return {
        "vocab_size": model.embed.num_embeddings,
        "hidden_size": model.embed.embedding_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attention.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "max_position_embeddings": model.context_length,
    }


def _their_gpt(model: Any, feedforward: str) -> dict[str, Any]:
    block, width = model.blocks[0], model.embed.embedding_dim
    wide = block.mlp.fc1.out_features
    config = {
        "vocab_size": model.embed.num_embeddings,
        "tie_word_embeddings": model.head is None,
        "n_positions": model.context_length,
        "n_embd": width,
        "n_layer": len(model.blocks),
        "n_head": block.attention.num_heads,
        "layer_norm_epsilon": block.norm1.eps,
        **{name: model.dropout.p for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")},
    }
    if block.pre_norm:
        activation = {"gelu": "gelu", "gelu_tanh": "gelu_new"}[feedforward]
        return {**config, "activation_function": activation, "n_inner": wide}
    if feedforward == "gelu" or wide != 4 * width:
        raise ConfigError("transformers has GPT-1 only with feedforward=gelu_tanh and feedforward_dim=4 * embed_dim.")
    return {**config, "afn": "gelu"}  # by which it means the approximation


def _zero_biases(model: Any, family: Family) -> dict[str, Tensor]:
    """The biases that a GPT has to `transformers`, where ours has none."""
    if family.ours != "gpt":
        return {}
    own, zeros = model.state_dict(), {}
    for name, tensor in own.items():
        bias = name.removesuffix("weight") + "bias"
        if name.startswith(("blocks.", "norm.")) and name.endswith(".weight") and bias not in own:
            zeros[bias] = tensor.new_zeros(len(tensor))
    return zeros


def _split(model: Any, tensor: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value."""
    attention = model.blocks[0].attention
    keys = attention.num_kv_heads * (attention.embed_dim // attention.num_heads)
    return tensor.split((attention.embed_dim, keys, keys))
