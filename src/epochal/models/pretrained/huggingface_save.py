"""Writes GPT, BERT and LLaMA, and their tokenizers, into a folder that `transformers` opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.specs import ReservedIds
from epochal.models.bert import BERT
from epochal.models.common.attention import FEEDFORWARDS
from epochal.models.common.causal import CausalTransformer
from epochal.models.pretrained.huggingface_names import (
    CONFIG,
    FAMILIES,
    TOKENIZER_FILES,
    WEIGHTS,
    Family,
    is_transposed,
    their_names,
)


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
        tensor = (tensor.t() if is_transposed(name, family) else tensor).detach().cpu()
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
