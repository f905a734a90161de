import itertools
import math

import pytest
import torch
from torch import nn

from epochal.core.specs import BEGIN, END, PAD
from epochal.models import GPT
from epochal.models.common.beam_search import generate
from epochal.models.common.sampling import without


class Toy(nn.Module):
    """Reads a row of numbers, writes with a GRU; its state has every shape that a state may have."""

    def __init__(self, vocab_size=6, seed=9, end=0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.cell = nn.Embedding(vocab_size, 8), nn.GRUCell(8, 8)
        self.head = nn.Linear(8, vocab_size)
        self.read = nn.Linear(1, 8)
        nn.init.normal_(self.embed.weight, std=2.0)
        nn.init.normal_(self.head.weight)
        nn.init.constant_(self.head.bias[END : END + 1], end)
        self.modes = []

    def encode(self, source, lengths=None):
        self.modes.append((self.training, torch.is_grad_enabled()))
        kept = torch.arange(source.shape[1]) < (source.shape[1] if lengths is None else lengths[:, None])
        hidden = self.read((source.float() * kept).sum(1, keepdim=True)).sin()
        return {"layers": [hidden, (hidden,)], "written": 0, "deep": {"twice": 2 * hidden}}

    def decode(self, tokens, state):
        hidden = self.cell(self.embed(tokens), state["layers"][0])
        assert torch.equal(state["layers"][1][0], state["layers"][0])
        torch.testing.assert_close(state["deep"]["twice"], 2 * state["layers"][0])
        state = {"layers": [hidden, (hidden,)], "written": state["written"] + 1, "deep": {"twice": 2 * hidden}}
        return self.head(hidden), state


def log_probability(model, row, text):
    state, token, total = model.encode(row[None]), torch.tensor([BEGIN]), 0.0
    for following in text:
        logits, state = model.decode(token, state)
        total += logits.log_softmax(-1)[0, following].item()
        token = torch.tensor([following])
    return total


def all_texts(model, max_length):
    """Every sequence that ends within max_length tokens."""
    others = [token for token in range(model.head.out_features) if token not in (PAD, BEGIN, END)]
    for length in range(max_length):
        for beginning in itertools.product(others, repeat=length):
            yield [*beginning, END]


def listed(texts):
    return [[token for token in row if token != PAD] for row in texts.tolist()]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_a_beam_that_is_wide_enough_finds_what_exhaustive_search_finds(seed, length_penalty):
    model = Toy(seed=seed)
    source = torch.randint(5, (3, 4))
    expected = []
    for row in source:
        penalised = {
            tuple(text): log_probability(model, row, text) / ((5 + len(text)) / 6) ** length_penalty
            for text in all_texts(model, 5)
        }
        expected.append(list(max(penalised, key=penalised.get)))
    found = generate(model, source, max_length=5, beam_size=300, length_penalty=length_penalty)
    assert listed(found) == expected


@torch.no_grad()
def test_one_beam_is_greedy():
    model, source = Toy(), torch.randint(5, (8, 4))
    expected = []
    for row in source:
        state, token, text = model.encode(row[None]), BEGIN, []
        while len(text) < 12 and token != END:
            logits, state = model.decode(torch.tensor([token]), state)
            logits[:, [PAD, BEGIN]] = -math.inf
            token = logits.argmax().item()
            text.append(token)
        expected.append(text)
    assert len({len(text) for text in expected}) > 1, "the rows are to end at unlike steps"
    for length_penalty in (0.0, 1.0):
        found = generate(model, source, max_length=12, length_penalty=length_penalty)
        assert listed(found) == expected


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_each_row_of_a_batch_is_searched_alone(beam_size, length_penalty):
    model, source = Toy(), torch.randint(5, (8, 4))
    lengths = torch.tensor([4, 1, 2, 3, 4, 4, 2, 1])
    options = {"max_length": 12, "beam_size": beam_size, "length_penalty": length_penalty}
    alone = [
        listed(generate(model, row[None, :length], **options))[0] for row, length in zip(source, lengths, strict=True)
    ]
    assert len({len(text) for text in alone}) > 1, "the rows are to end at unlike steps"
    assert listed(generate(model, source, lengths, **options)) == alone


@torch.no_grad()
def test_a_wider_beam_finds_more_likely_texts():
    def likelihoods(beam_size):
        texts = listed(generate(model, source, max_length=20, beam_size=beam_size))
        assert all(text[-1] == END for text in texts)
        return [log_probability(model, row, text) for row, text in zip(source, texts, strict=True)]

    model, source = Toy(), torch.randint(5, (8, 4))
    narrow, wide = likelihoods(1), likelihoods(8)
    assert sum(wide) > sum(narrow) + 0.1


def test_a_length_penalty_makes_texts_longer():
    model, source = Toy(), torch.randint(5, (8, 4))
    written = [
        (generate(model, source, max_length=12, beam_size=6, length_penalty=penalty) != PAD).sum().item()
        for penalty in (0.0, 1.0, 3.0)
    ]
    assert written[0] < written[1] < written[2]


def test_begin_and_padding_are_never_generated_even_where_they_are_most_likely():
    model = Toy()
    with torch.no_grad():
        model.head.bias[[PAD, BEGIN]] = 50.0
    for beam_size in (1, 4):
        for text in generate(model, torch.randint(5, (4, 3)), max_length=6, beam_size=beam_size).tolist():
            words = text[: text.index(END)] if END in text else text
            assert BEGIN not in text and PAD not in words
            assert not any(text[len(words) + 1 :])


@pytest.mark.parametrize("beam_size", [1, 4])
def test_what_does_not_end_is_cut_off(beam_size):
    model = Toy(end=-math.inf)
    texts = generate(model, torch.randint(5, (2, 3)), max_length=6, beam_size=beam_size)
    assert texts.shape == (2, 6) and not texts.eq(END).any() and texts.ne(PAD).all()


def test_it_generates_in_evaluation_mode_without_gradients_and_leaves_the_model_as_it_was():
    model = Toy()
    generate(model, torch.zeros(1, 2), max_length=2)
    assert model.training
    generate(model.eval(), torch.zeros(1, 2), max_length=2)
    assert not model.training
    assert model.modes == [(False, False)] * 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"beam_size": 0}, r"beam_size=0 must be a whole number of at least 1."),
        ({"beam_size": 1.5}, "beam_size=1.5 must be a whole number"),
        ({"max_length": 0}, "max_length=0"),
        ({"length_penalty": -1.0}, "length_penalty=-1.0 must be a number of at least 0"),
        ({"lengths": torch.tensor([3, 3, 3])}, r"one per row, of shape \(2,\), not \(3,\)"),
        ({"lengths": torch.tensor([0, 3])}, "from 1 to 3"),
        ({"lengths": torch.tensor([1, 4])}, "from 1 to 3"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        generate(Toy(), torch.zeros(2, 3), **{"max_length": 4, **wrong})


def every_continuation(model, prompt, length, stop):
    """(log-probability, text) of each text of a language model: as long as that, or up to the id that ends it."""
    found = []
    for text in itertools.product(range(1, 6), repeat=length):
        end = text.index(stop) + 1 if stop in text else length
        if any(text[end:][i] != 1 for i in range(length - end)):
            continue  # of those that differ only behind their end, one
        row = torch.tensor([[*prompt, *text[:end]]])
        scores = without(model(row)[0], [0]).log_softmax(-1)
        place = torch.arange(len(prompt) - 1, row.shape[1] - 1)
        found.append((scores[place, row[0, len(prompt) :]].sum().item(), list(text[:end])))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("stop", [None, 4])
def test_the_most_probable_continuation_of_a_prompt_is_found(stop):
    torch.manual_seed(3)
    model = GPT(vocab_size=6, context_length=6, depth=1, num_heads=1, embed_dim=8, tie=False)
    torch.nn.init.normal_(model.head.weight)
    prompts = torch.tensor([[1, 2, 3], [5, 5, 2]])
    wide = model.most_probable(prompts, length=3, beam_size=125, stop=stop, forbidden=[0])
    for prompt, row in zip(prompts.tolist(), wide.tolist()):
        texts = every_continuation(model, prompt, 3, stop)
        # a text that ended goes before those that were cut off
        best = next((text for _, text in texts if stop in text), texts[0][1])
        assert row == prompt + best + [PAD] * (3 - len(best))
    greedy = model.generate(prompts, length=3, temperature=0, stop=stop, forbidden=[0])
    assert torch.equal(model.most_probable(prompts, length=3, beam_size=1, stop=stop, forbidden=[0]), greedy)
    assert model.most_probable(prompts, length=0, beam_size=2).tolist() == prompts.tolist()


def test_a_continuation_may_be_longer_than_the_context():
    torch.manual_seed(3)
    model = GPT(vocab_size=6, context_length=4, depth=1, num_heads=1, embed_dim=8)
    prompt = torch.tensor([[1, 2, 3]])
    found = model.most_probable(prompt, length=6, beam_size=3)
    assert found.shape == (1, 9)
    with pytest.raises(ValueError, match="beam_size"):
        model.most_probable(prompt, length=6, beam_size=0)
