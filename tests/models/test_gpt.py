import pytest
import torch

from epochal.core.specs import Tokens
from epochal.models import GPT

VOCAB, CONTEXT = 13, 16


@pytest.fixture(scope="module")
def model():
    """Weights large enough that greedy text depends on every token before."""
    torch.manual_seed(0)
    gpt = GPT(vocab_size=VOCAB, context_length=CONTEXT, depth=2, num_heads=2, embed_dim=16, bias=True).double()
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return gpt


def uncached(model, text, length):
    for _ in range(length):
        text = torch.cat((text, model(text[:, -CONTEXT:])[:, -1:].argmax(-1)), dim=1)
    return text


PUBLISHED = {"gpt1": 116_534_784, "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080}
PUBLISHED |= {"gpt2-xl": 1_557_611_200}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        sizes = (
            {"vocab_size": 40478, "context_length": 512}
            if name == "gpt1"
            else {"vocab_size": 50257, "context_length": 1024}
        )
        gpt = GPT(**sizes, variant=name, bias=True)
    assert sum(p.numel() for p in gpt.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("start", [1, 5, CONTEXT - 1, CONTEXT, CONTEXT + 7])
@pytest.mark.parametrize("length", [1, 4, 40])
def test_generating_with_the_cache_is_the_same_as_without(model, start, length):
    prompt = torch.randint(VOCAB, (3, start), generator=torch.Generator().manual_seed(start))
    assert torch.equal(model.generate(prompt, length=length, temperature=0), uncached(model, prompt, length))


def test_while_the_context_lasts_each_token_is_read_once(model):
    read = []
    handle = model.embed.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    model.generate(torch.zeros(1, 5, dtype=torch.int64), length=8)
    handle.remove()
    assert read == [5, 1, 1, 1, 1, 1, 1, 1]


def test_it_does_not_see_the_future(model):
    tokens = torch.randint(VOCAB, (2, CONTEXT))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    assert before.shape == (2, CONTEXT, VOCAB)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_before_training_all_tokens_are_about_equally_likely():
    torch.manual_seed(0)
    text = Tokens(vocab_size=65, length=64)
    tokens = torch.randint(65, (2, 65))
    logits = GPT.for_data(text, text)(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item(), abs=0.1)


def test_what_writes_into_the_residual_stream_starts_smaller_with_depth():
    gpt = GPT(vocab_size=65, context_length=8, depth=8)
    assert gpt.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for layer in (gpt.blocks[0].mlp.fc2, gpt.blocks[7].attention.proj):
        assert layer.weight.std().item() == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("bias", [False, True])
def test_bias_is_one_switch_for_all_layers(bias):
    gpt = GPT(vocab_size=5, context_length=4, bias=bias)
    assert any(name.endswith("bias") for name, _ in gpt.named_parameters()) == bias


def test_the_smallest_nucleus_is_greedy(model):
    prompt = torch.zeros(2, 1, dtype=torch.int64)
    assert torch.equal(model.generate(prompt, length=9, top_p=1e-9), model.generate(prompt, length=9, temperature=0))


def test_top_k_of_one_is_greedy_and_one_seed_writes_one_text(model):
    prompt = torch.zeros(2, 1, dtype=torch.int64)
    assert torch.equal(model.generate(prompt, length=9, top_k=1), model.generate(prompt, length=9, temperature=0))
    texts = [model.generate(prompt, length=20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"top_k": 4, "top_p": 0.9}, {"stop": 3, "forbidden": [1, 2]}]
)
def test_a_stream_hands_over_the_tokens_that_generate_writes(model, options):
    prompt, length = torch.tensor([[5, 6], [7, 8]]), CONTEXT + 9
    seeds = (torch.Generator().manual_seed(3) for _ in range(2))
    text = model.generate(prompt, length=length, generator=next(seeds), **options)
    steps = list(model.stream(prompt, length=length, generator=next(seeds), **options))
    found = torch.stack([step.token for step in steps], dim=1)
    assert torch.equal(torch.cat((prompt, found), dim=1), text[:, : 2 + len(steps)])
    assert (text[:, 2 + len(steps) :] == 0).all()
    written = torch.stack([step.written for step in steps], dim=1)
    assert torch.equal(
        written, (found == options.get("stop", -1)).cumsum(1).roll(1, 1).index_fill(1, torch.tensor(0), 0) == 0
    )


def test_a_stream_reads_no_further_than_it_is_taken_and_leaves_the_model_in_training(model):
    read = []
    handle = model.embed.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    model.train()
    steps = model.stream(torch.zeros(1, 5, dtype=torch.int64), length=8)
    assert not read
    next(steps), next(steps)
    steps.close()
    handle.remove()
    assert read == [5, 1] and model.training
    with pytest.raises(ValueError, match="temperature=-1 must be at least 0"):
        model.stream(torch.zeros(1, 5, dtype=torch.int64), length=8, temperature=-1)


def test_generating_uses_no_dropout_and_leaves_the_model_in_training():
    gpt, prompt = GPT(vocab_size=5, context_length=32, dropout=0.5), torch.zeros(1, 1, dtype=torch.int64)
    texts = [gpt.generate(prompt, length=20, temperature=0) for _ in range(2)]
    assert torch.equal(*texts) and gpt.training and gpt.blocks[0].dropout.training


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_heads": 3}, "num_heads=3 does not divide embed_dim=128."),
        ({"depth": 0}, "depth=0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        GPT(**{"vocab_size": 5, "context_length": 4, **wrong})


def test_more_tokens_than_the_context_holds_are_refused(model):
    with pytest.raises(ValueError, match="17 tokens are more than context_length=16"):
        model(torch.zeros(1, CONTEXT + 1, dtype=torch.int64))
