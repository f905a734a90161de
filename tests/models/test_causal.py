"""What GPT and LLaMA have in common: decoder-only Transformers with one body, one cache and one way to generate."""

import itertools

import pytest
import torch

from epochal.core.specs import Classes, Numbers, StepLabels, Tokens
from epochal.models import GPT, RNN, LLaMA
from epochal.models.common.kv_cache import KVCache

VOCAB, CONTEXT = 13, 16
TEXT = Tokens(VOCAB, CONTEXT)
OUTPUTS = {
    "next_token": (TEXT, (3, CONTEXT, VOCAB)),
    "classes": (Classes(("a", "b")), (3, 2)),
    "step_classes": (StepLabels(("a", "b")), (3, CONTEXT, 2)),
    "numbers": (Numbers(4), (3, 4)),
    "scalar": (TEXT, (3,)),
}
SMALL = {"depth": 2, "num_heads": 4, "embed_dim": 16}
FORMS = {
    "gpt": (GPT, {"bias": True}),
    "gpt, post-norm": (GPT, {"pre_norm": False}),
    "gpt, grouped queries": (GPT, {"num_kv_heads": 1}),
    "gpt, rotary": (GPT, {"positions": "rotary"}),
    "llama": (LLaMA, {"num_kv_heads": 2}),
    "llama, tied": (LLaMA, {"tie": True, "num_kv_heads": 4}),
}


def made(form, **options):
    """Weights large enough that greedy text depends on every token before."""
    network, own = FORMS[form]
    torch.manual_seed(0)
    model = network(**{"vocab_size": VOCAB, "context_length": CONTEXT, **SMALL, **own, **options}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def prompts(rows, length, seed=1):
    return torch.randint(1, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head", OUTPUTS)
@pytest.mark.parametrize("network", [GPT, LLaMA])
def test_each_head_returns_its_shape(network, head):
    outputs, shape = OUTPUTS[head]
    model = network.for_data(TEXT, outputs, head=head, **SMALL)
    assert model(torch.zeros(3, CONTEXT, dtype=torch.int64), torch.tensor([CONTEXT, 1, 2])).shape == shape
    heads = [name for name, _ in model.named_parameters() if name.startswith("head.")]
    assert bool(heads) == (head != "next_token" or network is LLaMA)
    assert model.states(torch.zeros(3, 5, dtype=torch.int64)).shape == (3, 5, 16)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", ["classes", "scalar"])
def test_padding_on_the_right_changes_nothing(form, head):
    model = made(form, head=head, num_outputs=2)
    tokens, lengths = prompts(3, 9), torch.tensor([9, 1, 4])
    together = model(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[row : row + 1], model(tokens[row : row + 1, :length]))


@pytest.mark.parametrize("form", FORMS)
def test_it_does_not_see_the_future(form):
    model, tokens = made(form), prompts(2, CONTEXT)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amax(dim=(0, 2)).min() > 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start, length", [(1, 15), (5, 8), (CONTEXT - 1, 4), (CONTEXT + 3, 20)])
def test_generating_with_the_cache_is_the_same_as_without(form, start, length):
    model, text = made(form), prompts(3, start)
    expected = text
    for _ in range(length):
        expected = torch.cat((expected, model(expected[:, -CONTEXT:])[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(model.generate(text, length=length, temperature=0), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_read_in_parts_has_the_logits_of_the_whole(form):
    model, tokens = made(form), prompts(2, 12)
    caches = model.initial_state(12)
    parts = [model._head(model._read(part, caches)) for part in tokens.split((3, 1, 5, 3), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens))


MODELS = {**{form: lambda form=form: made(form) for form in FORMS}, "lstm": lambda: RNN(vocab_size=VOCAB, cell="lstm")}


@pytest.mark.parametrize("stop", [None, 5])
@pytest.mark.parametrize("model", MODELS)
def test_prompts_of_unlike_length_are_continued_as_each_alone(model, stop):
    model, lengths = MODELS[model](), torch.tensor([3, 7, 1, 7, 5])
    together = prompts(5, 7)
    texts, length = model.generate(together, length=12, lengths=lengths, temperature=0, stop=stop), 12
    ended = 0
    for row, count in enumerate(lengths.tolist()):
        alone = model.generate(together[row : row + 1, :count], length=length, temperature=0, stop=stop)[0]
        assert torch.equal(texts[row, : count + length], alone)
        assert not texts[row, count + length :].any(), "padding"
        ended += int((alone == 0).any())
    assert texts.shape == (5, 19)


def test_a_row_goes_on_with_padding_after_its_end():
    model, prompt = made("gpt"), prompts(4, 3)
    free = model.generate(prompt, length=20, temperature=0)
    stop = int(free[0, 8])
    texts = model.generate(prompt, length=20, temperature=0, stop=stop, pad=9)
    for text, other in zip(texts[:, 3:].tolist(), free[:, 3:].tolist()):
        end = other.index(stop) + 1 if stop in other else 20
        assert text == other[:end] + [9] * (20 - end)
    assert (texts[:, 3:] == stop).any(), "a row ended"


def test_an_end_token_in_the_prompt_ends_nothing():
    model = made("llama")
    prompt = torch.tensor([[4, 7, 2]])
    text = model.generate(prompt, length=5, temperature=0)
    unused = next(token for token in range(VOCAB) if token not in text[0, 3:])
    prompt[0, 1] = unused
    text = model.generate(prompt, length=5, temperature=0, forbidden=[unused], stop=unused)
    assert text[0, 3:].ne(unused).all() and text.shape == (1, 8)


def test_once_all_rows_have_ended_nothing_is_read():
    model, prompt = made("gpt"), prompts(2, 3)
    stop = int(model.generate(prompt[:1], length=1, temperature=0)[0, -1])
    calls = []
    model.embed.register_forward_hook(lambda module, inputs, output: calls.append(1))
    model.generate(prompt[:1].expand(2, -1), length=12, temperature=0, stop=stop)
    assert len(calls) == 1


@pytest.mark.parametrize("temperature", [0, 2.0])
def test_forbidden_tokens_are_never_drawn(temperature):
    model = made("gpt")
    options = {"length": 40, "temperature": temperature, "generator": torch.Generator().manual_seed(0)}
    common = [int(token) for token in model.generate(prompts(4, 3), **options)[:, 3:].flatten().unique()[:4]]
    text = model.generate(prompts(4, 3), **options, forbidden=common)
    assert not torch.isin(text[:, 3:], torch.tensor(common)).any()


@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_log_probabilities_are_those_of_the_tokens_that_were_drawn(temperature):
    model, kept, lengths = made("llama"), [], torch.tensor([4, 2, 3])
    text = model.generate(
        prompts(3, 4),
        length=6,
        lengths=lengths,
        temperature=temperature,
        top_k=3,
        forbidden=[2],
        stop=7,
        generator=torch.Generator().manual_seed(0),
        log_probabilities=kept,
    )
    (found,) = kept
    assert found.shape == text.shape
    logits = model(text) / (temperature or 1)
    logits[..., 2] = -torch.inf
    for row, length in enumerate(lengths.tolist()):
        new = text[row, length : length + 6].tolist()
        end = length + (new.index(7) + 1 if 7 in new else 6)
        places = torch.arange(length, end)
        expected = logits[row, places - 1].log_softmax(-1).gather(1, text[row, places, None])[:, 0]
        torch.testing.assert_close(found[row, places], expected.float())
        assert not found[row, :length].any() and not found[row, end:].any()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"forbidden": [VOCAB]}, r"ids from 0 to 12, not \[13\]"),
        ({"forbidden": range(VOCAB)}, "forbidden must be some of"),
        ({"lengths": torch.tensor([1, 2, 3])}, r"of shape \(2,\), not \(3,\)"),
        ({"lengths": torch.tensor([0, 3])}, "from 1 to 3"),
    ],
)
def test_an_impossible_argument_of_generate_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        made("gpt").generate(prompts(2, 3), length=4, **wrong)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
        ({"norm": "batch"}, "norm=batch is no choice. There are: layer rms"),
        ({"feedforward": "relu"}, "feedforward=relu is no choice"),
        ({"positions": "none"}, "positions=none is no choice"),
        ({"variant": "micro"}, "variant=micro is no choice. There are: nano"),
        ({"head": "masked_token"}, "head=masked_token is no choice"),
        ({"head": "classes"}, "head=classes needs num_outputs"),
        ({"embed_dim": 12, "positions": "rotary"}, "a head has 3 elements; take an even number"),
    ],
)
@pytest.mark.parametrize("network", [GPT, LLaMA])
def test_an_impossible_argument_is_named(network, wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**{"vocab_size": 5, "context_length": 4, **SMALL, **wrong})


def test_a_context_that_does_not_hold_the_texts_of_the_data_is_refused():
    with pytest.raises(ValueError, match="context_length=15 is shorter than the texts of the data, of up to 16 tokens"):
        GPT.for_data(TEXT, TEXT, context_length=CONTEXT - 1)
    assert GPT.for_data(TEXT, TEXT, context_length=99).context_length == 99


def test_only_a_language_model_generates():
    with pytest.raises(ValueError, match="this network's head is for classes"):
        made("gpt", head="classes", num_outputs=2).generate(prompts(1, 1), length=1)


def test_a_cache_grows_and_its_rows_can_be_chosen():
    cache, steps = KVCache(2), torch.randn(3, 2, 7, 4)
    for part in steps.split((1, 1, 3, 2), dim=2):
        key, value = cache.extend(part, -part)
    assert torch.equal(key, steps) and torch.equal(value, -steps)
    rows = torch.tensor([2, 0, 2, 2])
    chosen = cache.select(rows)
    more = torch.randn(4, 2, 1, 4)
    key, _ = chosen.extend(more, more)
    assert torch.equal(key, torch.cat((steps[rows], more), dim=2)) and cache.used == 7
    assert KVCache().select(rows).used == 0


def test_each_part_of_llama_is_one_flag_back_to_gpts():
    back = {
        "norm": "layer",
        "positions": "learned",
        "feedforward": "gelu",
        "num_kv_heads": 4,
        "bias": True,
        "tie": True,
    }
    sizes = {"vocab_size": VOCAB, "context_length": CONTEXT, **SMALL}

    def shapes(model):
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    gpt = shapes(GPT(**sizes, bias=True))
    assert shapes(LLaMA(**sizes, **back)) == gpt
    for part in back:
        assert shapes(LLaMA(**sizes, **{name: value for name, value in back.items() if name != part})) != gpt


def test_swiglu_has_about_as_many_parameters_as_gelu():
    sizes = {"vocab_size": VOCAB, "context_length": CONTEXT, "depth": 1, "num_heads": 4}
    for embed_dim in (128, 256, 512):
        counts = [
            sum(p.numel() for p in GPT(**sizes, embed_dim=embed_dim, feedforward=kind).blocks.parameters())
            for kind in ("gelu", "swiglu")
        ]
        assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_rotary_positions_are_those_between_tokens_alone():
    """Queries and keys that are shifted together have the same products."""
    from epochal.models.common.rope import RotaryPositions, rotate

    rotary = RotaryPositions(head_dim=8, context_length=40).double()
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(i, j):
        return (rotate(query, rotary(i, i + 1)) * rotate(key, rotary(j, j + 1))).sum()

    for i, j in itertools.product((0, 3, 9), repeat=2):
        torch.testing.assert_close(product(i, j), product(i + 30, j + 30), rtol=0, atol=1e-5)
    assert (product(3, 0) - product(9, 0)).abs() > 1e-3
