"""GPT, BERT and LLaMA beside those of the library `transformers`, in its own environment: make parity."""

from __future__ import annotations

import copy

import pytest
import torch

from epochal.core.specs import ReservedIds
from epochal.models.pretrained.huggingface import load, load_pretrained, read_config
from epochal.models.pretrained.huggingface_names import CLASSES
from epochal.models.pretrained.huggingface_save import save, save_tokenizer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCAB, CONTEXT, CLOSE = 37, 24, {"rtol": 0, "atol": 1e-6}
GPT = {"vocab_size": VOCAB, "n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4, "eos_token_id": None}
GPT |= {"bos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "pad_token_id": 0}
BERT = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "hidden_size": 32, "num_hidden_layers": 2}
BERT |= {"num_attention_heads": 4, "intermediate_size": 48, "hidden_dropout_prob": 0.0, "pad_token_id": 0}
BERT |= {"attention_probs_dropout_prob": 0.0}
LLAMA = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "hidden_size": 32, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "intermediate_size": 48, "eos_token_id": None, "bos_token_id": None}
LLAMA |= {"pad_token_id": 0}
THEIRS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "gpt2, exact gelu, untied": (
        "GPT2LMHeadModel",
        "GPT2Config",
        GPT | {"activation_function": "gelu", "tie_word_embeddings": False, "n_inner": 40},
    ),
    "gpt2 on classes": ("GPT2ForSequenceClassification", "GPT2Config", GPT | {"num_labels": 3}),
    "gpt2 on tokens": ("GPT2ForTokenClassification", "GPT2Config", GPT | {"num_labels": 3}),
    "gpt1": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT),
    "bert": ("BertForMaskedLM", "BertConfig", BERT),
    "bert, approximate gelu": ("BertForMaskedLM", "BertConfig", BERT | {"hidden_act": "gelu_new"}),
    "bert and the next sentence": ("BertForPreTraining", "BertConfig", BERT),
    "bert on classes": ("BertForSequenceClassification", "BertConfig", BERT | {"num_labels": 3}),
    "bert on tokens": ("BertForTokenClassification", "BertConfig", BERT | {"num_labels": 3}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA | {"num_key_value_heads": 4}),
    "llama, grouped queries": ("LlamaForCausalLM", "LlamaConfig", LLAMA | {"num_key_value_heads": 2}),
    "llama, one key head, tied, biases": (
        "LlamaForCausalLM",
        "LlamaConfig",
        LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama on classes": ("LlamaForSequenceClassification", "LlamaConfig", LLAMA | {"num_labels": 3}),
}


def made(case, **changes):
    """Their network, with weights large enough that every part of it shows in the logits, in float64."""
    network, config, options = THEIRS[case]
    torch.manual_seed(0)
    theirs = getattr(transformers, network)(getattr(transformers, config)(**options, **changes)).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return theirs


def exact_norms(theirs):
    """Their RMS norm computes in float32 whatever it is given; in float64 it is the same formula."""

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    for module in theirs.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = forward.__get__(module)
    return theirs


def converted(theirs, folder):
    theirs.save_pretrained(folder)
    config, state = load(folder)
    ours = CLASSES[config.pop("name")](**config).double().eval()
    ours.load_state_dict(state)
    return ours


def tokens_and_lengths(rows=3):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCAB, (rows, CONTEXT), generator=generator)
    lengths = torch.tensor([CONTEXT, 5, 11])
    return tokens.masked_fill(torch.arange(CONTEXT) >= lengths[:, None], 0), lengths


def their_logits(theirs, tokens, lengths, segments=None):
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    rest = {} if segments is None else {"token_type_ids": segments}
    out = theirs(input_ids=tokens, attention_mask=mask, **rest)
    return (out.prediction_logits, out.seq_relationship_logits) if hasattr(out, "prediction_logits") else (out.logits,)


def our_logits(ours, tokens, lengths, segments=None):
    out = ours(tokens, lengths) if segments is None else ours(tokens, lengths, segments)
    return out if isinstance(out, tuple) else (out,)


def real(logits, lengths):
    """Without the logits at padding, where there are logits of each token."""
    return logits[torch.arange(CONTEXT) < lengths[:, None]] if logits.dim() == 3 else logits


@pytest.mark.parametrize("case", THEIRS)
def test_logits_and_gradients_are_theirs(case, tmp_path):
    theirs = exact_norms(made(case))
    ours = converted(theirs, tmp_path)
    tokens, lengths = tokens_and_lengths()
    segments = (torch.arange(CONTEXT) > 3).long().expand_as(tokens) if "bert" in case else None
    expected, found = (
        make(net, tokens, lengths, segments) for make, net in ((their_logits, theirs), (our_logits, ours))
    )
    assert len(found) == len(expected)
    for each, other in zip(found, expected):
        torch.testing.assert_close(real(each, lengths), real(other, lengths), **CLOSE)
    for logits in (expected, found):
        sum(real(part, lengths).log_softmax(-1)[:, 1].sum() for part in logits).backward()
    gradients = copy.deepcopy(theirs)
    with torch.no_grad():
        for target, source in zip(gradients.parameters(), theirs.parameters()):
            target.copy_(torch.zeros_like(target) if source.grad is None else source.grad)
    gradients.save_pretrained(tmp_path / "gradients")
    _, state = load(tmp_path / "gradients")
    scale = max(gradient.abs().max().item() for gradient in state.values())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad / scale, state[name] / scale, msg=lambda m, n=name: f"{n}: {m}", **CLOSE
        )


WRITING = [case for case in THEIRS if THEIRS[case][0].endswith(("LMHeadModel", "CausalLM"))]


@pytest.mark.parametrize("case", WRITING)
def test_greedy_texts_are_theirs(case, tmp_path):
    theirs = made(case)
    ours = converted(theirs, tmp_path)
    prompt = torch.randint(1, VOCAB, (4, 5), generator=torch.Generator().manual_seed(2))
    length = CONTEXT - 5
    expected = theirs.generate(prompt, max_new_tokens=length, do_sample=False, attention_mask=torch.ones_like(prompt))
    assert torch.equal(ours.generate(prompt, length=length, temperature=0), expected)
    assert len(set(expected[:, 5:].flatten().tolist())) > 4, "a text of one token would show little"


@pytest.mark.parametrize("case", WRITING)
def test_texts_of_beam_search_are_theirs(case, tmp_path):
    theirs = made(case)
    ours = converted(theirs, tmp_path)
    prompt = torch.randint(1, VOCAB, (4, 5), generator=torch.Generator().manual_seed(2))
    length = CONTEXT - 5
    expected = theirs.generate(
        prompt, max_new_tokens=length, do_sample=False, num_beams=4, attention_mask=torch.ones_like(prompt)
    )
    assert torch.equal(ours.most_probable(prompt, length=length, beam_size=4), expected)
    assert not torch.equal(ours.generate(prompt, length=length, temperature=0), expected), "greedy search finds others"


@pytest.mark.parametrize("case", ["gpt2", "llama, grouped queries"])
def test_texts_up_to_an_end_token_and_without_forbidden_ones_are_theirs(case, tmp_path):
    theirs = made(case)
    ours = converted(theirs, tmp_path)
    prompt = torch.randint(1, VOCAB, (6, 4), generator=torch.Generator().manual_seed(2))
    free = ours.generate(prompt, length=20, temperature=0)
    stop, forbidden = int(free[0, 9]), [int(free[1, 5]), int(free[2, 6])]
    forbidden = [token for token in forbidden if token != stop]
    expected = theirs.generate(
        prompt,
        max_new_tokens=20,
        do_sample=False,
        attention_mask=torch.ones_like(prompt),
        eos_token_id=stop,
        suppress_tokens=forbidden,
        pad_token_id=0,
    )
    found = ours.generate(prompt, length=20, temperature=0, stop=stop, forbidden=forbidden)
    assert torch.equal(found[:, : expected.shape[1]], expected) and not found[:, expected.shape[1] :].any()


@pytest.mark.parametrize("case", THEIRS)
def test_what_is_exported_is_opened_with_the_same_logits(case, tmp_path):
    first = exact_norms(made(case))
    ours = converted(first, tmp_path / "theirs")
    save(ours, tmp_path / "ours", ids=ReservedIds(pad=0))
    theirs, report = type(first).from_pretrained(tmp_path / "ours", dtype=torch.float64, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, lengths = tokens_and_lengths()
    for each, other in zip(
        our_logits(ours, tokens, lengths), their_logits(exact_norms(theirs.eval()), tokens, lengths)
    ):
        torch.testing.assert_close(real(each, lengths), real(other, lengths), **CLOSE)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_gpt_without_biases_is_exported_with_zeros(pre_norm, tmp_path):
    torch.manual_seed(0)
    options = {"bias": False, "feedforward": "gelu_tanh", "pre_norm": pre_norm}
    ours = CLASSES["gpt"](vocab_size=VOCAB, context_length=CONTEXT, depth=2, embed_dim=32, **options).double().eval()
    save(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    tokens = torch.randint(VOCAB, (2, CONTEXT))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, **CLOSE)


@pytest.mark.parametrize("case", ["gpt2", "bert", "llama"])
def test_a_body_without_a_head_and_one_in_several_files_are_read(case, tmp_path):
    theirs = made(case)
    body = theirs.base_model
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    body.save_pretrained(tmp_path / "body")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    config, whole = load(tmp_path / "whole")
    _, parts = load(tmp_path / "parts")
    _, alone = load(tmp_path / "body")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert {name for name in whole if not name.startswith("head.")} == alone.keys() - {"pooler.weight", "pooler.bias"}
    ours = CLASSES[config.pop("name")](**{**config, "head": "scalar"})
    sentence = load_pretrained(ours, tmp_path / "body")
    assert "head" in sentence and torch.equal(ours.embed.weight, whole["embed.weight"].float())


def test_a_network_of_another_form_is_refused_by_name(tmp_path):
    transformers.MistralConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(Exception, match="model_type mistral"):
        read_config(tmp_path)


def test_a_tokenizer_is_opened_with_its_reserved_tokens(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>", "a", "cat"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    save(CLASSES["bert"](vocab_size=len(words), context_length=8), tmp_path)
    save_tokenizer(tokenizer.to_str(), tmp_path, ids=ReservedIds(*range(5)), context_length=8)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("a cat sat")["input_ids"] == [5, 6, 1]
    assert (theirs.pad_token_id, theirs.unk_token_id, theirs.mask_token_id, theirs.eos_token_id) == (0, 1, 4, 3)
    assert theirs.model_max_length == 8
