import pytest
import torch

from epochal.core.specs import Classes, Numbers, StepLabels, Tokens
from epochal.models import BERT

VOCAB, CONTEXT = 13, 9
TEXT = Tokens(VOCAB, CONTEXT)
SMALL = {"depth": 2, "num_heads": 2, "embed_dim": 16, "dropout": 0.0}
OUTPUTS = {
    "masked_token": (TEXT, (3, CONTEXT, VOCAB)),
    "classes": (Classes(("a", "b")), (3, 2)),
    "step_classes": (StepLabels(("a", "b")), (3, CONTEXT, 2)),
    "numbers": (Numbers(4), (3, 4)),
    "scalar": (TEXT, (3,)),
}


def made(**options):
    torch.manual_seed(0)
    model = BERT(**{"vocab_size": VOCAB, "context_length": CONTEXT, **SMALL, **options}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def tokens(rows=3, length=CONTEXT):
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant, encoder, masked", [("base", 109_482_240, 109_514_298), ("large", 335_141_888, None)])
def test_it_has_the_published_number_of_parameters(variant, encoder, masked):
    def count(**options):
        with torch.device("meta"):
            model = BERT(vocab_size=30_522, context_length=512, variant=variant, **options)
        return {
            name: sum(p.numel() for p in part.parameters()) for name, part in (("all", model), ("head", model.head))
        }

    counts = count(head="classes", num_outputs=2)
    assert counts["all"] - counts["head"] == encoder
    assert masked is None or count()["all"] == masked


@pytest.mark.parametrize("head", OUTPUTS)
def test_each_head_returns_its_shape(head):
    outputs, shape = OUTPUTS[head]
    model = BERT.for_data(TEXT, outputs, head=head, **SMALL)
    assert model(tokens(), torch.tensor([CONTEXT, 1, 2])).shape == shape
    assert (model.pooler is None) == (head in ("masked_token", "step_classes"))
    assert model.states(tokens()).shape == (3, CONTEXT, 16)


@pytest.mark.parametrize("head", OUTPUTS)
def test_padding_on_the_right_changes_nothing(head):
    model, text, lengths = made(head=head, num_outputs=2), tokens(), torch.tensor([CONTEXT, 1, 4])
    together = model(text, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, mine = model(text[row : row + 1, :length]), together[row : row + 1]
        torch.testing.assert_close(mine[:, :length] if mine.dim() == 3 else mine, alone)


def test_every_token_sees_every_other_one():
    model, text = made(), tokens()
    changed = text.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    assert (model(text) - model(changed)).abs().amax(dim=(0, 2)).min() > 1e-6


def test_segments_matter_and_are_the_first_where_none_are_given():
    model, text = made(), tokens()
    torch.testing.assert_close(model(text), model(text, None, torch.zeros_like(text)))
    assert not torch.allclose(model(text), model(text, None, (torch.arange(CONTEXT) > 4).long().expand_as(text)))


def test_logits_of_some_places_are_those_of_all():
    model, text = made(), tokens()
    places = torch.rand(text.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    torch.testing.assert_close(model(text, at=places), model(text)[places])
    assert model(text, at=torch.zeros_like(places)).shape == (0, VOCAB)


def test_the_next_sentence_is_a_second_output():
    words, follows = made(next_sentence=True)(tokens())
    assert words.shape == (3, CONTEXT, VOCAB) and follows.shape == (3, 2)


def test_every_parameter_learns():
    model = made(next_sentence=True).train()
    words, follows = model(tokens(), torch.tensor([CONTEXT, 5, 2]), torch.ones_like(tokens()).tril())
    (words.log_softmax(-1)[..., 0].sum() + follows.log_softmax(-1)[:, 0].sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_heads": 3}, "num_heads=3 does not divide embed_dim=16"),
        ({"variant": "xl"}, "variant=xl is no choice. There are: tiny mini small medium base large"),
        ({"head": "next_token"}, "head=next_token is no choice"),
        ({"head": "classes"}, "head=classes needs num_outputs"),
        ({"head": "classes", "num_outputs": 2, "next_sentence": True}, "goes with head=masked_token"),
        ({"dropout": 1}, "dropout=1"),
        ({"feedforward": "swiglu"}, "feedforward=swiglu is no choice"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        BERT(**{"vocab_size": 5, "context_length": 4, **SMALL, **wrong})


def test_more_tokens_than_the_context_holds_are_refused():
    with pytest.raises(ValueError, match="10 tokens are more than context_length=9"):
        made()(tokens(length=CONTEXT + 1))
