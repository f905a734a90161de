import pytest
import torch

from epochal.core.specs import Classes, Frames, Images, Numbers, Series, StepLabels, Tokens
from epochal.models import TransformerEncoder

STEPS, LENGTHS = 6, torch.tensor([6, 2, 4])
NAMES = ("a", "b", "c")
TINY = {"depth": 2, "embed_dim": 16, "num_heads": 2, "feedforward_dim": 24, "dropout": 0.0}
KINDS = {
    "tokens": (Tokens(vocab_size=9, length=STEPS), torch.randint(1, 9, (3, STEPS))),
    "series": (Series(length=STEPS, channels=2), torch.randn(3, STEPS, 2)),
    "videos": (Frames(length=STEPS, channels=1, height=8, width=8), torch.randn(3, STEPS, 1, 8, 8)),
    "images": (Images(channels=1, height=STEPS, width=8), torch.randn(3, 1, STEPS, 8)),
}


def make(kind, outputs=Classes(NAMES), **config):  # noqa: B008
    torch.manual_seed(0)
    return TransformerEncoder.for_data(KINDS[kind][0], outputs, **{**TINY, **config}).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_once_or_at_each_step_whatever_it_reads(kind):
    inputs = KINDS[kind][1]
    assert make(kind)(inputs).shape == (3, 3)
    assert make(kind, Numbers(2))(inputs).shape == (3, 2)
    assert make(kind, StepLabels(NAMES))(inputs).shape == (3, STEPS, 3)


@pytest.mark.parametrize("kind", ["tokens", "series", "videos"])
@pytest.mark.parametrize("outputs", [Classes(NAMES), StepLabels(NAMES)])
@pytest.mark.parametrize("config", [{}, {"pre_norm": True}, {"causal": True}, {"pool": "last"}])
def test_padding_changes_nothing(kind, outputs, config):
    model, inputs = make(kind, outputs, **config), KINDS[kind][1]
    together = model(inputs, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = model(inputs[row : row + 1, :length])[0]
        same = together[row, :length] if isinstance(outputs, StepLabels) else together[row]
        torch.testing.assert_close(same, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_step_depends_on_no_later_one_and_otherwise_on_all(causal):
    model, before = make("series", StepLabels(NAMES), causal=causal), KINDS["series"][1]
    after = before.clone()
    after[:, 3] += 1
    assert torch.allclose(model(before)[:, :3], model(after)[:, :3], atol=1e-6) == causal


def test_the_order_of_the_steps_matters():
    tokens = KINDS["tokens"][1]
    assert not torch.allclose(make("tokens")(tokens), make("tokens")(tokens.flip(1)), atol=1e-3)


def test_an_image_is_read_by_rows_or_by_pixels():
    seen = []
    for scan in ("rows", "pixels"):
        model = make("images", scan=scan)
        model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
        model(KINDS["images"][1])
    assert seen == [STEPS, STEPS * 8]


@pytest.mark.parametrize("config", [{}, {"causal": True, "pool": "last"}])
def test_state_gradients_are_the_change_of_the_loss_by_each_step(config):
    model, inputs = make("series", **config).double(), KINDS["series"][1].double()
    norms = model.state_gradients(inputs, lambda logits: logits[:, 0].sum(), LENGTHS)
    assert norms.shape == (STEPS,)
    assert norms[0] > 0 and norms[5] > 0
    short = model.state_gradients(inputs[1:2], lambda logits: logits[:, 0].sum(), LENGTHS[1:2])
    assert (short[:2] > 0).all() and (short[2:] == 0).all(), "padding does not matter"
    steps = model._steps(inputs)
    moved = steps.clone()
    moved[0, 3, 0] += 1e-6
    loss = [model._answer(x, LENGTHS)[0, 0] for x in (steps, moved)]
    one = model.state_gradients(inputs[:1], lambda logits: logits[:, 0].sum())[3]
    assert abs((loss[1] - loss[0]) / 1e-6) <= one


def test_a_network_that_labels_each_step_has_no_state_gradients():
    model = make("series", StepLabels(NAMES))
    assert not model.shows_state_gradients
    with pytest.raises(ValueError, match="one answer for a whole sequence"):
        model.state_gradients(KINDS["series"][1], torch.sum)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_heads": 3}, "num_heads=3 does not divide embed_dim=128"),
        ({"depth": 0}, "depth=0"),
        ({"pool": "max"}, "pool=max is no choice. There are: mean last"),
        ({"scan": "columns"}, "scan=columns is no choice"),
        ({"in_features": 3}, "Give one of in_features"),
        ({"vocab_size": None}, "Give one of in_features"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(**{"vocab_size": 5, "out_features": 2, **wrong})
