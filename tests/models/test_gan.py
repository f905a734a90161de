import pytest
import torch
from torch import nn

from epochal.core.specs import Images
from epochal.models import GAN


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 9, 9), (3, 15, 15), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 30), (3, 33, 17)]
)
def test_generator_and_discriminator_take_images_of_any_shape(shape):
    gan = GAN.for_data(Images(*shape), Images(*shape), width=4)
    images = gan(gan.sample_noise(2))
    assert images.shape == (2, *shape)
    assert images.abs().max() <= 1
    assert gan.discriminator(images).shape == (2,)


def test_at_64_pixels_and_width_128_the_channels_are_the_papers():
    with torch.device("meta"):
        gan = GAN(image_shape=(3, 64, 64), width=128, noise_dim=100)
    channels = [module.in_channels for module in gan.generator.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert channels == [1024, 512, 256, 128]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 33, 17)])
def test_the_losses_give_every_parameter_a_gradient(shape):
    torch.manual_seed(0)
    gan = GAN(image_shape=shape, width=4)
    real, forged = torch.randn(4, *shape), gan(gan.sample_noise(4))
    (gan.discriminator(real).sum() - gan.discriminator(forged).square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in gan.parameters())


def test_weights_start_as_in_the_paper():
    torch.manual_seed(0)
    gan = GAN(image_shape=(1, 28, 28))
    for module in gan.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_the_first_layer_of_the_discriminator_and_the_last_of_the_generator_have_no_batch_norm():
    gan = GAN(image_shape=(3, 32, 32), width=4)
    assert isinstance(gan.discriminator.layers[1], nn.LeakyReLU)
    assert [type(layer) for layer in gan.generator.layers[-2:]] == [nn.ConvTranspose2d, nn.Tanh]


def test_one_seed_is_one_noise():
    gan = GAN(image_shape=(1, 8, 8), noise_dim=5, width=4)
    noises = [gan.sample_noise(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert noises[0].shape == (3, 5)
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])


def test_a_conditional_gan_draws_another_image_of_another_class_and_judges_it_by_class():
    torch.manual_seed(0)
    gan = GAN.for_data(Images(1, 8, 8), Images(1, 8, 8, classes=3), width=4, conditional=True)
    noise, labels = gan.sample_noise(1).repeat(3, 1), torch.arange(3)
    images = gan(noise, labels)
    assert images.shape == (3, 1, 8, 8)
    assert not torch.equal(images[0], images[1])
    discriminator = gan.discriminator.eval()
    features = discriminator.layers[:-1](images)
    projected = discriminator.layers[-1](features).squeeze(1) + (discriminator.embed.weight * features).sum(1)
    torch.testing.assert_close(discriminator(images, labels), projected)
    (discriminator(images, labels).sum() + gan(noise, labels).square().sum()).backward()
    assert all(p.grad is not None for p in gan.parameters())


def test_a_gan_without_classes_knows_none():
    gan = GAN.for_data(Images(1, 8, 8), Images(1, 8, 8, classes=3), width=4)
    assert gan.num_classes is None and gan.discriminator.embed is None
    with pytest.raises(ValueError, match="needs images with classes"):
        GAN.for_data(Images(1, 8, 8), Images(1, 8, 8), conditional=True)


def test_spectral_norm_makes_the_largest_singular_value_of_each_matrix_one():
    torch.manual_seed(0)
    gan = GAN(image_shape=(1, 16, 16), width=4, spectral_norm=True, discriminator_norm="none", num_classes=3)
    images, labels = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    for _ in range(30):  # a step of power iteration each
        gan.discriminator(images, labels)
    layers = [m for m in gan.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert not any("parametrizations" in name for name, _ in gan.generator.named_parameters())


@pytest.mark.parametrize("norm, kind", [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("none", nn.Identity)])
def test_the_norm_and_width_of_the_discriminator_are_its_own(norm, kind):
    gan = GAN(image_shape=(1, 16, 16), width=4, discriminator_width=6, discriminator_norm=norm)
    kinds = {type(m) for m in gan.discriminator.layers} & {nn.BatchNorm2d, nn.GroupNorm}
    assert kinds == ({kind} - {nn.Identity})
    convolutions = [m for m in gan.discriminator.layers if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [6, 12]
    assert [m.bias is not None for m in convolutions] == [True, norm == "none"], "a bias where no norm has one"
    if norm != "batch":  # each image by itself
        images = torch.rand(3, 1, 16, 16)
        torch.testing.assert_close(gan.discriminator(images)[:1], gan.discriminator(images[:1]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image_shape": (1, 7, 28)}, "at least 8x8 pixels, not 7x28"),
        ({"noise_dim": 0}, "noise_dim=0"),
        ({"width": -2}, "width=-2"),
        ({"discriminator_width": 0}, "discriminator_width=0"),
        ({"discriminator_norm": "group"}, "discriminator_norm=group is no choice. There are: batch layer none"),
        ({"spectral_norm": "yes"}, "spectral_norm=yes must be true or false"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        GAN(**{"image_shape": (1, 8, 8), **wrong})
