import pytest
import torch
import torch.nn.functional as F

from epochal.core.specs import BEGIN, END, PAD, Tokens
from epochal.models import Seq2Seq

LENGTHS = torch.tensor([6, 2, 4, 1])
FORMS = [
    {"attention": "none"},
    {"attention": "none", "reverse_source": True},
    {"attention": "additive"},
    {"attention": "additive", "bidirectional": True},
    {"attention": "dot", "cell": "gru", "num_layers": 2},
    {"attention": "dot", "reverse_source": True},
    {"attention": "none", "bidirectional": True, "cell": "rnn", "num_layers": 2},
]


def seq2seq(**config):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "embed_dim": 8}
    return Seq2Seq.for_data(Tokens(12, 6), Tokens(11, 8), **{**sizes, **config}).eval()


def sentences():
    torch.manual_seed(1)
    source = torch.randint(4, 12, (4, 6)).masked_fill(torch.arange(6) >= LENGTHS[:, None], PAD)
    target = torch.randint(4, 11, (4, 5))
    target[:, 0] = BEGIN
    return source, target


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_padding_changes_nothing(form):
    model, (source, target) = seq2seq(**form), sentences()
    logits, weights = model(source, target, LENGTHS), model.attention(source, target, LENGTHS)
    texts = model.generate(source, LENGTHS, max_length=7, beam_size=3)
    assert logits.shape == (4, 5, 11)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, its_target = source[row : row + 1, :length], target[row : row + 1]
        torch.testing.assert_close(logits[row], model(alone, its_target)[0])
        if weights is not None:
            torch.testing.assert_close(weights[row, :, :length], model.attention(alone, its_target)[0])
            assert not weights[row, :, length:].any()
        text = model.generate(alone, max_length=7, beam_size=3)[0]
        assert torch.equal(texts[row, : len(text)], text) and not texts[row, len(text) :].any()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_parameter_gets_a_gradient(form):
    model, (source, target) = seq2seq(**form), sentences()
    model(source, target, LENGTHS).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_token_by_token_it_finds_what_it_finds_for_the_whole_target_at_once(form):
    model, (source, target) = seq2seq(**form), sentences()
    state, logits = model.encode(source, LENGTHS), []
    for tokens in target.unbind(1):
        found, state = model.decode(tokens, state)
        logits.append(found)
    torch.testing.assert_close(torch.stack(logits, 1), model(source, target, LENGTHS))


def test_the_source_is_read_backwards_where_that_is_asked_for():
    source = torch.tensor([[4, 5, 6, PAD], [7, 8, 9, 10]])
    backwards = torch.tensor([[6, 5, 4, PAD], [10, 9, 8, 7]])
    lengths, target = torch.tensor([3, 4]), torch.tensor([[BEGIN, 5], [BEGIN, 6]])
    model = seq2seq(reverse_source=True, attention="dot")
    logits, weights = model(source, target, lengths), model.attention(source, target, lengths)
    model.reverse_source = False
    torch.testing.assert_close(logits, model(backwards, target, lengths))
    unturned = model.attention(backwards, target, lengths)
    torch.testing.assert_close(weights[0, :, :3], unturned[0, :, :3].flip(-1))  # told in the order of the source
    torch.testing.assert_close(weights[1], unturned[1].flip(-1))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_attention_the_last_states_are_all_that_the_decoder_gets(bidirectional):
    model, (source, _) = seq2seq(num_layers=2, bidirectional=bidirectional), sentences()
    state = model.encode(source[:1])
    assert set(state) == {"recurrent"} and [part.shape for part in state["recurrent"]] == [(1, 2, 16)] * 2
    states, (_, c) = model.encoder(model.embed(source[:1]))
    ends = (states[:, -1, :8], states[:, 0, 8:]) if bidirectional else (states[:, -1],)  # of each direction
    torch.testing.assert_close(state["recurrent"][0][:, 1], torch.cat(ends, -1))
    torch.testing.assert_close(state["recurrent"][1][:, 1].flatten(), c.unflatten(0, (2, -1))[1].flatten())


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_attention_follows_its_equations(attention):
    model, (source, target) = seq2seq(attention=attention), sentences()
    layer, weights = model.decoder.attention, model.attention(source[:1], target[:1])
    memory, last = model.encoder(model.embed(source[:1]))
    states, _ = model.decoder.recurrent(model.decoder.embed(target[:1]), last)
    logits = []
    for t, q in enumerate(states[0]):
        if attention == "additive":
            scores = [layer.score(torch.tanh(layer.query(q) + layer.key(m))) for m in memory[0]]
        else:
            scores = [(q @ m)[None] for m in memory[0]]
        alignment = torch.cat(scores).softmax(0)
        torch.testing.assert_close(weights[0, t], alignment)
        context = sum(weight * m for weight, m in zip(alignment, memory[0], strict=True))
        logits.append(model.decoder.head(torch.tanh(layer.proj(torch.cat((context, q))))))
    torch.testing.assert_close(model(source[:1], target[:1])[0], torch.stack(logits))


def test_without_attention_there_are_no_weights():
    assert seq2seq().attention(*sentences()) is None


def test_attention_uses_no_dropout_and_leaves_the_model_in_training():
    model, (source, target) = seq2seq(attention="dot", dropout=0.5).train(), sentences()
    first, second = (model.attention(source, target, LENGTHS) for _ in range(2))
    assert torch.equal(first, second) and model.training
    torch.testing.assert_close(first.sum(-1), torch.ones(4, 5))


@pytest.mark.parametrize("attention", ["none", "additive"])
def test_without_teacher_forcing_each_step_reads_its_own_prediction(attention):
    model, (source, target) = seq2seq(attention=attention), sentences()
    logits = model(source, target, LENGTHS, teacher_forcing=0.0)
    guesses = logits.argmax(-1)
    assert not torch.equal(guesses[:, :-1], target[:, 1:])
    read = torch.cat((target[:, :1], guesses[:, :-1]), 1)
    torch.testing.assert_close(logits, model(source, read, LENGTHS))


def test_teacher_forcing_is_the_probability_of_a_true_token():
    model, source = seq2seq(), torch.randint(4, 12, (400, 3))
    target = torch.randint(4, 11, (400, 2))
    forced, free = model(source, target)[:, 1], model(source, target, teacher_forcing=0.0)[:, 1]
    mixed = model(source, target, teacher_forcing=0.8)[:, 1]
    true = torch.isclose(mixed, forced, atol=1e-5).all(1)
    assert (true | torch.isclose(mixed, free, atol=1e-5).all(1)).all()
    assert 0.7 < true.float().mean() < 0.9
    torch.testing.assert_close(model(source, target, teacher_forcing=1.0)[:, 1], forced)


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_with_attention_it_learns_to_copy(attention):
    torch.manual_seed(0)
    model = seq2seq(attention=attention, hidden_size=32, embed_dim=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def draw(count):
        words = torch.randint(4, 11, (count, 5))
        edge = torch.ones(count, 1, dtype=torch.int64)
        return words, torch.cat((BEGIN * edge, words), 1), torch.cat((words, END * edge), 1)

    for _ in range(150):
        source, target, wanted = draw(32)
        optimizer.zero_grad()
        F.cross_entropy(model(source, target).flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
    source, _, wanted = draw(64)
    found = F.pad(model.generate(source, max_length=6), (0, 6))[:, :6]
    assert (found == wanted).all(1).float().mean() > 0.8
    diagonal = model.attention(source, torch.cat((torch.full((64, 1), BEGIN), source), 1)).diagonal(dim1=1, dim2=2)
    assert diagonal.mean() > 0.4, "each word is to be looked at where it is copied"


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cell": "elman"}, "cell=elman is no choice. There are: rnn lstm gru"),
        ({"attention": "soft"}, "attention=soft is no choice. There are: none additive dot"),
        ({"bidirectional": True, "hidden_size": 15}, "hidden_size=15 must be even"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        seq2seq(**wrong)


@pytest.mark.parametrize("teacher_forcing", [-0.1, 1.1])
def test_teacher_forcing_is_a_probability(teacher_forcing):
    with pytest.raises(
        ValueError, match=f"teacher_forcing={teacher_forcing} must be a number of at least 0 and at most 1"
    ):
        seq2seq()(*sentences(), teacher_forcing=teacher_forcing)
