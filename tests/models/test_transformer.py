import pytest
import torch

from epochal.config.compose import compose
from epochal.core.specs import BEGIN, END, PAD, Tokens
from epochal.models import Transformer

VOCAB, LENGTHS = 13, torch.tensor([6, 2, 4])
TINY = {"depth": 2, "embed_dim": 16, "num_heads": 2, "feedforward_dim": 24, "dropout": 0.0}
ATTENTIONS = ["source", "target", "cross"]


def tiny(**config):
    """Weights large enough that what is written depends on every token before."""
    torch.manual_seed(0)
    words = Tokens(vocab_size=VOCAB, length=8)
    model = Transformer.for_data(words, words, **TINY, **config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.4 if parameter.dim() > 1 else 0.05)
    return model


def tokens(rows, columns, seed=0):
    return torch.randint(END + 1, VOCAB, (rows, columns), generator=torch.Generator().manual_seed(seed))


def source():
    return tokens(3, 6).masked_fill(torch.arange(6) >= LENGTHS[:, None], PAD)


def target():
    return torch.cat((torch.full((3, 1), BEGIN), tokens(3, 4, seed=1)), dim=1)


@pytest.mark.parametrize("variant, millions", [("base", 65), ("big", 213)])
def test_it_has_the_published_number_of_parameters(variant, millions):
    with torch.device("meta"):
        model = Transformer(source_vocab_size=37_000, target_vocab_size=37_000, variant=variant)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("without", ["none", *ATTENTIONS])
def test_padding_changes_nothing(pre_norm, without):
    model = tiny(pre_norm=pre_norm, without=without)
    together = model(source(), target(), LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = model(source()[row : row + 1, :length], target()[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("without", ["none", *ATTENTIONS])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_decoding_step_by_step_is_the_same_as_all_at_once(pre_norm, without, lengths):
    model = tiny(pre_norm=pre_norm, without=without)
    state, text = model.encode(source(), lengths), tokens(3, 12, seed=3)
    for step in range(12):
        logits, state = model.decode(text[:, step], state)
        again = model(source(), text[:, : step + 1], lengths)[:, -1]
        torch.testing.assert_close(logits, again, rtol=0, atol=1e-4)
        assert torch.equal(logits.argmax(-1), again.argmax(-1))


def test_it_learns_to_reverse_a_text_and_decodes_the_same_with_and_without_cached_keys():
    torch.manual_seed(0)
    model = Transformer(
        source_vocab_size=VOCAB, target_vocab_size=VOCAB, pre_norm=True, **{**TINY, "depth": 1, "embed_dim": 32}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(100):
        text = tokens(64, 5, seed=step)
        ends = [torch.full((64, 1), token) for token in (BEGIN, END)]
        answer = torch.cat((ends[0], text.flip(1), ends[1]), dim=1)
        logits = model(text, answer[:, :-1])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), answer[:, 1:].flatten()).backward()
        optimizer.step()
    text = tokens(20, 5, seed=1000)
    written = model.generate(text, max_length=6)
    assert (written == torch.cat((text.flip(1), torch.full((20, 1), END)), dim=1)).all(dim=1).float().mean() > 0.8
    uncached = torch.full((20, 1), BEGIN)
    for _ in range(6):
        uncached = torch.cat((uncached, model(text, uncached)[:, -1:].argmax(-1)), dim=1)
    real = (written == END).cumsum(dim=1) - (written == END).int() == 0
    assert torch.equal(written[real], uncached[:, 1:][real])


def test_it_does_not_see_the_future():
    model, changed = tiny(), target()
    changed[:, 3] = END + 1 + (changed[:, 3] - END) % (VOCAB - END - 1)
    before, after = model(source(), target()), model(source(), changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_without_attention_within_the_target_a_step_depends_on_no_token_but_the_last():
    changed = target()
    changed[:, 1] = END + 1 + (changed[:, 1] - END) % (VOCAB - END - 1)

    def matters(model):
        return not torch.allclose(model(source(), target())[:, 2:], model(source(), changed)[:, 2:])

    assert matters(tiny()) and not matters(tiny(without="target"))


def test_without_attention_between_them_it_does_not_see_the_source():
    model, other = tiny(without="cross"), tokens(3, 6, seed=5)
    assert torch.equal(model(source(), target()), model(other, target()))
    assert not torch.allclose(tiny()(source(), target()), tiny()(other, target()))
    assert model.attention(source(), target()) is None


def test_without_attention_within_the_source_its_steps_are_read_alone():
    def read(model, text):
        return model.encode(text)["layers"][0]["source_value"][:, :, 0]

    changed = source()
    changed[:, 1] = END + 1 + (changed[:, 1] - END) % (VOCAB - END - 1)
    alone = tiny(without="source")
    assert torch.equal(read(alone, source()), read(alone, changed))
    assert not torch.allclose(read(tiny(), source()), read(tiny(), changed))


def test_attention_weights_sum_to_one_over_the_real_source_tokens():
    weights = tiny().attention(source(), target(), LENGTHS)
    assert weights.shape == (3, 5, 6)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 5))
    assert (weights[1, :, 2:] == 0).all() and (weights[1, :, :2] > 0).all()


def test_attention_uses_no_dropout_and_leaves_the_model_in_training():
    words = Tokens(vocab_size=VOCAB, length=8)
    model = Transformer.for_data(words, words, **{**TINY, "dropout": 0.5})
    assert torch.equal(model.attention(source(), target()), model.attention(source(), target())) and model.training


def test_tied_there_is_one_matrix_of_tokens_and_else_three():
    def matrices(model):
        return [name for name, parameter in model.named_parameters() if VOCAB in parameter.shape]

    assert matrices(tiny(tie=True)) == ["embed.weight"]
    assert matrices(tiny(tie=False)) == ["embed.weight", "source_embed.weight", "output.weight"]


def test_untied_it_reads_one_vocabulary_and_writes_another():
    model = Transformer.for_data(Tokens(VOCAB, 8), Tokens(5, 8), tie=False, **TINY)
    assert model(source(), torch.full((3, 2), BEGIN), LENGTHS).shape == (3, 2, 5)


@pytest.mark.parametrize("without", ATTENTIONS)
@pytest.mark.parametrize("tie", [False, True])
def test_what_an_attention_leaves_behind_still_learns_all_of_its_weights(without, tie):
    words = Tokens(vocab_size=VOCAB, length=8)
    model = Transformer.for_data(words, words, **TINY, tie=tie, without=without)
    model(source(), target(), LENGTHS).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_before_training_it_is_about_as_good_as_guessing():
    torch.manual_seed(0)
    words = Tokens(vocab_size=1000, length=8)
    model = Transformer.for_data(words, words, variant="small")
    text = torch.randint(1000, (8, 9))
    loss = torch.nn.functional.cross_entropy(model(text, text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(1000.0).log().item(), abs=1.0)


def test_a_text_longer_than_any_in_the_data_can_be_read_and_written():
    model = tiny()
    assert model(tokens(1, 300), tokens(1, 200)).isfinite().all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_heads": 3}, "num_heads=3 does not divide embed_dim=512"),
        ({"depth": 0}, "depth=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"variant": "huge"}, "variant=huge is no choice. There are: small base big"),
        ({"without": "all"}, "without=all is no choice. There are: none source target cross"),
        ({"source_vocab_size": 9}, "tie=true needs one vocabulary .* 9 and 5 tokens; take model.tie=false"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{"source_vocab_size": 5, "target_vocab_size": 5, **wrong})


@pytest.mark.parametrize("budget", ["smoke", "cpu", "paper"])
def test_the_networks_of_three_attentions_have_as_many_parameters(budget):
    config = compose(["experiment=three_attentions", f"budget={budget}"]).budgets[budget]
    sizes = {name: config[name] for name in ("variant", "depth", "embed_dim", "num_heads", "feedforward_dim")}

    def count(without):
        along = config.along.get(f"model.without={without}", [])
        chosen = {key.removeprefix("model."): int(value) for key, value in (o.split("=") for o in along)}
        words = Tokens(vocab_size=VOCAB, length=8)
        with torch.device("meta"):
            model = Transformer.for_data(words, words, **{**sizes, **chosen}, without=without)
        return sum(parameter.numel() for parameter in model.parameters())

    assert [count(without) / count("none") for without in ATTENTIONS] == pytest.approx([1] * 3, abs=0.002)
