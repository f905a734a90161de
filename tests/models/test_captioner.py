import pytest
import torch
import torch.nn.functional as F

from epochal.core.specs import BEGIN, END, Images, Tokens
from epochal.models import Captioner

DECODERS = [
    {"decoder": "recurrent"},
    {"decoder": "recurrent", "cell": "gru", "attention": "dot", "depth": 2},
    {"decoder": "transformer", "depth": 2},
]


STRIPS = Images(1, 16, 40)


def captioner(images=STRIPS, **config):
    torch.manual_seed(0)
    sizes = {"channels": 4, "embed_dim": 16}
    return Captioner.for_data(images, Tokens(9, 6), **{**sizes, **config}).eval()


def captioned(count=3):
    torch.manual_seed(1)
    target = torch.randint(4, 9, (count, 5))
    target[:, 0] = BEGIN
    return torch.randn(count, 1, 16, 40), target


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_token_by_token_it_finds_what_it_finds_for_the_whole_caption_at_once(decoder):
    model, (images, target) = captioner(**decoder), captioned()
    state, logits = model.encode(images), []
    for tokens in target.unbind(1):
        found, state = model.decode(tokens, state)
        logits.append(found)
    assert model(images, target).shape == (3, 5, 9)
    torch.testing.assert_close(torch.stack(logits, 1), model(images, target))


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_a_batch_is_captioned_like_its_images_alone(decoder):
    model, (images, _) = captioner(**decoder), captioned()
    texts = model.generate(images, max_length=6, beam_size=3)
    for image, text in zip(images, texts, strict=True):
        alone = model.generate(image[None], max_length=6, beam_size=3)[0]
        assert torch.equal(text[: len(alone)], alone) and not text[len(alone) :].any()


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_what_follows_in_the_caption_is_not_seen(decoder):
    model, (images, target) = captioner(**decoder), captioned()
    changed = target.clone()
    changed[:, 3] = 4 + (changed[:, 3] - 3) % 5
    before, after = model(images, target), model(images, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_every_parameter_gets_a_gradient(decoder):
    model, (images, target) = captioner(**decoder).train(), captioned()
    model(images, target).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_attention_weights_sum_to_one_over_the_image(decoder):
    model, (images, target) = captioner(**decoder, dropout=0.5).train(), captioned()
    model.image_encoder.eval()  # its batch norms would change in training mode
    weights = model.attention(images, target)
    assert weights.shape == (3, 5, 2, 5) and model.training
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(3, 5))
    assert torch.equal(weights, model.attention(images, target))


@pytest.mark.parametrize("decoder", ["recurrent", "transformer"])
def test_position_tells_equal_patches_apart(decoder):
    model, (_, target) = captioner(decoder=decoder), captioned(1)
    left, right = torch.zeros(2, 1, 1, 16, 40).unbind()
    left[..., 4:12, 12:20], right[..., 4:12, 20:28] = 30.0, 30.0
    torch.testing.assert_close(
        model.image_encoder(left).roll(1, dims=3), model.image_encoder(right)
    )  # a place further, the same
    assert not torch.allclose(model(left, target), model(right, target), atol=1e-3)


@pytest.mark.parametrize("images, grid", [(Images(1, 28, 140), (3, 17)), (Images(3, 64, 64), (8, 8))])
def test_the_grid_is_the_image_halved_three_times(images, grid):
    model = captioner(images)
    weights = model.attention(torch.zeros(1, images.channels, images.height, images.width), torch.full((1, 1), BEGIN))
    assert weights.shape == (1, 1, *grid)


@pytest.mark.parametrize("decoder", ["recurrent", "transformer"])
def test_it_learns_to_read_signs_from_left_to_right(decoder):
    model = captioner(Images(1, 8, 24), decoder=decoder, stages=2, embed_dim=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    signs = torch.stack([F.pad(torch.eye(6), (1, 1, 1, 1)), F.pad(torch.ones(2, 6), (1, 1, 3, 3)), torch.zeros(8, 8)])

    def draw(count):
        which = torch.randint(3, (count, 3))
        images = signs[which].transpose(1, 2).flatten(2)[:, None]  # (B, 1, 8, 24)
        edge = torch.ones(count, 1, dtype=torch.int64)
        return images, torch.cat((BEGIN * edge, 4 + which), 1), torch.cat((4 + which, END * edge), 1)

    for _ in range(100):
        images, target, wanted = draw(32)
        optimizer.zero_grad()
        F.cross_entropy(model(images, target).flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
    images, _, wanted = draw(64)
    found = F.pad(model.generate(images, max_length=4), (0, 4))[:, :4]
    assert (found == wanted).all(1).float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"decoder": "lstm"}, "decoder=lstm is no choice. There are: recurrent transformer"),
        ({"attention": "none"}, "attention=none is no choice. There are: additive dot"),
        ({"cell": "elman"}, "cell=elman is no choice"),
        ({"stages": 5}, "stages=5 halves images of 16x40 pixels to nothing; 4 are the most"),
        ({"decoder": "transformer", "num_heads": 3}, "num_heads=3 does not divide embed_dim=16"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        captioner(**wrong)
