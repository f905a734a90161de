"""What `transformers` calls the parts of GPT, BERT and LLaMA, for reading (`huggingface`) and writing (`huggingface_save`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from epochal.models.bert import BERT
from epochal.models.gpt import GPT
from epochal.models.llama import LLaMA

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
)
CLASSES = {"gpt": GPT, "bert": BERT, "llama": LLaMA}


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


def is_transposed(name: str, family: Family) -> bool:
    return family.transposed and name.startswith("blocks.") and name.endswith(".weight") and ".norm" not in name


def plain_name(name: str, family: Family) -> str:
    """A tensor's name without the prefix of the body, and that of today for a norm's in the first files of BERT."""
    name = name.removeprefix(family.prefix)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
