import pytest
import torch
from torchvision.models import VisionTransformer, vit_b_16

from epochal.core.specs import Classes, Images
from epochal.models import ViT
from epochal.models.pretrained.torchvision import translate
from epochal.models.vit import VARIANTS, Block, attention_rollout
from helpers.parity import check_parity

SMALL = {"image_shape": (3, 8, 12), "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4}  # 2x3 patches
TEN = Classes(tuple("0123456789"))


def made(**config):
    torch.manual_seed(0)
    return ViT(**{**SMALL, **config}).eval()


@pytest.mark.parametrize("variant, millions", [("Ti", 5.72), ("S", 22.05), ("B", 86.57), ("L", 304.33)])
def test_it_has_the_published_number_of_parameters(variant, millions):
    with torch.device("meta"):
        vit = ViT(image_shape=(3, 224, 224), num_classes=1000, variant=variant)
    assert sum(p.numel() for p in vit.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_it_computes_what_torchvisions_does():
    theirs = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5
    )
    ours = made(image_shape=(3, 32, 32), patch_size=8, num_classes=5)
    check_parity(ours, theirs, image_shape=(3, 32, 32))


def test_every_weight_of_torchvisions_vit_b_16_has_its_place():
    with torch.device("meta"):
        theirs, ours = vit_b_16(), ViT(image_shape=(3, 224, 224), num_classes=1000, variant="B")
    assert ours.torchvision_name == "vit_b_16"
    found = {name: tensor.shape for name, tensor in translate(theirs.state_dict(), ours).items()}
    assert found == {name: tensor.shape for name, tensor in ours.state_dict().items()}


def test_torchvisions_positions_are_resized_to_another_grid():
    column = torch.arange(4.0)[None, None, :, None]
    theirs = column.expand(1, 4, 4, 16).reshape(1, 16, 16)  # what grows from left to right does so again
    state = {"positions": torch.cat((torch.full((1, 1, 16), 9.0), theirs), dim=1)}
    ours = made(num_classes=2).reshape_torchvision(state)
    assert ours["class_position"].shape == (1, 1, 16) and ours["class_position"].eq(9).all()
    grid = ours["positions"].unflatten(1, (2, 3))
    torch.testing.assert_close(grid[0, 0], grid[0, 1])
    assert (grid.diff(dim=2) > 0.5).all()


@pytest.mark.parametrize("change", [{"pool": "mean"}, {"positions": "sincos"}, {"depth": 3}, {"num_classes": None}])
def test_torchvision_has_the_published_form_alone(change):
    with torch.device("meta"):
        vit = ViT(**{"image_shape": (3, 224, 224), "num_classes": 10, "variant": "B", **change})
    assert vit.torchvision_name is None


@pytest.mark.parametrize("shape, grid", [((1, 28, 28), (7, 7)), ((3, 64, 32), (16, 8)), ((3, 224, 160), (14, 10))])
def test_small_images_have_smaller_patches(shape, grid):
    with torch.device("meta"):
        vit = ViT.for_data(Images(*shape), TEN)
        assert vit.grid == grid and vit(torch.zeros(2, *shape)).shape == (2, 10)


def test_patches_are_in_the_order_in_which_they_are_read():
    vit, image = made(), torch.randn(1, 3, 8, 12)
    patches = vit.patches(image)
    for number in range(6):
        top, left = 4 * (number // 3), 4 * (number % 3)
        torch.testing.assert_close(patches[0, number], image[0, :, top : top + 4, left : left + 4].flatten())
    embedded = torch.nn.functional.linear(patches, vit.embed.weight.flatten(1), vit.embed.bias)
    torch.testing.assert_close(vit.embed(image).flatten(2).transpose(1, 2), embedded)
    torch.testing.assert_close(vit.assemble(patches), image)


def test_the_next_patch_is_predicted_from_those_before_it_alone():
    vit, image = made(), torch.randn(1, 3, 8, 12)
    before = vit(image, causal=True)
    assert before.shape == (1, 6, 48)
    for number in range(6):
        patches = vit.patches(image).clone()
        patches[:, number] += 1
        after = vit(vit.assemble(patches), causal=True)
        same = [torch.allclose(before[0, i], after[0, i], atol=1e-6) for i in range(6)]
        assert same == [i <= number for i in range(6)]


def test_a_masked_patch_is_not_seen():
    vit, image = made(), torch.randn(1, 3, 8, 12)
    mask = torch.tensor([[False, True, False, False, True, False]])
    patches = vit.patches(image).clone()
    patches[mask] = 7
    torch.testing.assert_close(vit(image, mask=mask), vit(vit.assemble(patches), mask=mask))
    patches[:, 0] += 1
    assert not torch.allclose(vit(image, mask=mask), vit(vit.assemble(patches), mask=mask))


@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_pretraining_and_classification_share_all_parameters_but_their_heads(pool, positions):
    names = {}
    for count in (None, 3):
        states = made(num_classes=count, pool=pool, positions=positions).state_dict()
        names[count] = {name for name in states if not name.startswith(ViT.head_parameters)}
        assert len(names[count]) < len(states)
    assert names[None] == names[3]


def test_only_the_head_that_reads_it_has_a_class_token():
    assert made(num_classes=2).has_class_token and hasattr(made(num_classes=2), "class_token")
    for other in (made(num_classes=2, pool="mean"), made()):
        assert not other.has_class_token and not hasattr(other, "class_token")


def test_sincos_positions_are_all_different_and_not_learned():
    vit = made(positions="sincos")
    assert "positions" not in vit.state_dict()
    places = vit.positions[0]
    assert torch.pdist(places).min() > 0.1
    torch.testing.assert_close(places[0, 8:], places[3, 8:])  # of one column, so half of the numbers are the same
    torch.testing.assert_close(places[0, :8], places[2, :8])  # of one row


@pytest.mark.parametrize("causal", [False, True])
def test_attention_maps_are_the_weights_that_attention_takes(causal):
    attention, x = made().blocks[0].attention, torch.randn(2, 6, 16)
    maps, read = [], []
    attention.proj.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    attention(x, causal=causal, maps=maps)
    value = attention.qkv(x).chunk(3, dim=-1)[2].unflatten(-1, (2, 8)).transpose(1, 2)
    torch.testing.assert_close((maps[0] @ value).transpose(1, 2).flatten(2), read[0])


@pytest.mark.parametrize("pool, tokens", [("class", 7), ("mean", 6)])
def test_computing_attention_maps_changes_nothing(pool, tokens):
    vit, images = made(num_classes=3, pool=pool, dropout=0.5).train(), torch.randn(2, 3, 8, 12)
    maps = vit.attention_maps(images)
    assert [m.shape for m in maps] == [(2, 2, tokens, tokens)] * 2
    assert vit.training and vit.blocks[0].dropout.training
    torch.testing.assert_close(vit.attention_maps(images), maps)


def test_rollout_follows_what_is_read_through_all_blocks():
    # the class token attends to the second patch; in the block before, each token to the first
    first, last = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    first[..., 1] = 1
    last[..., 2] = 1
    # half of it stays with the class token, of which half came from the first patch; the second gave half of its half
    torch.testing.assert_close(attention_rollout([first, last], (1, 3)), torch.tensor([[[0.5, 0.25, 0.0]]]))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_rollout_sums_to_one_over_the_patches_and_a_class_token(pool):
    flow = made(num_classes=3, pool=pool).rollout(torch.randn(2, 3, 8, 12))
    assert flow.shape == (2, 2, 3) and (flow > 0).all()
    assert (flow.sum((1, 2)) < 0.999).all() if pool == "class" else torch.allclose(flow.sum((1, 2)), torch.ones(2))


def test_stochastic_depth_leaves_a_block_out_for_some_images_and_makes_up_for_it():
    torch.manual_seed(0)
    block = Block(embed_dim=16, num_heads=2, dropout=0.0, drop_path=0.25)
    kept = block._drop_path(torch.ones(4000, 2, 3))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert (kept[:, :1, :1] == kept).all()  # the whole image
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert block.eval()._drop_path(torch.ones(9, 2, 3)).eq(1).all()


def test_later_blocks_are_left_out_more_often():
    assert [block.drop_path for block in made(depth=3, stochastic_depth=0.2).blocks] == [0, 0.1, 0.2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_given_takes_the_place_of_the_variants(variant):
    with torch.device("meta"):
        vit = ViT(image_shape=(3, 32, 32), num_classes=2, variant=variant, patch_size=8, depth=1)
    assert len(vit.blocks) == 1
    assert vit.head.in_features == VARIANTS[variant]["embed_dim"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"variant": "H"}, "variant=H is no choice. There are: Mini Ti S B L"),
        ({"patch_size": 5}, "patch_size=5 does not divide 8x12 pixels; 1, 2, 4 do, or take dataset.image_size=5."),
        ({"image_shape": (1, 7, 9)}, "patch_size=4 does not divide 7x9 pixels; 1 does, or take dataset.image_size=4."),
        ({"image_shape": (3, 300, 300), "patch_size": None}, "1, 2, 3, 4, .*300 do, or take dataset.image_size=288."),
        ({"image_shape": (1, 4, 4)}, "one patch of the image, and none to predict it from"),
        ({"num_heads": 3}, "num_heads=3 does not divide embed_dim=16."),
        ({"embed_dim": 6, "positions": "sincos"}, "a multiple of 4, not 6"),
        ({"pool": "max"}, "pool=max is no choice. There are: class mean"),
        ({"positions": "none"}, "positions=none is no choice. There are: learned sincos"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"stochastic_depth": 1.0}, "stochastic_depth=1.0"),
        ({"depth": 0}, "depth=0"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(**wrong)
