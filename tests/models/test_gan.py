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


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image_shape": (1, 7, 28)}, "at least 8x8 pixels, not 7x28"),
        ({"noise_dim": 0}, "noise_dim=0"),
        ({"width": -2}, "width=-2"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        GAN(**{"image_shape": (1, 8, 8), **wrong})
