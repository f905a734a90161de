"""Before it learns, a network knows nothing: its first loss is the logarithm of the number of its choices."""

import math

import pytest
import torch
import torch.nn.functional as F

from epochal.core.specs import Classes, Frames, Images, Series, StepLabels, Tokens
from epochal.models import (
    BERT,
    CNN,
    GAN,
    GPT,
    MLP,
    RNN,
    VGG,
    AlexNet,
    Captioner,
    EfficientNet,
    GoogLeNet,
    LeNet,
    LLaMA,
    ResNet,
    Seq2Seq,
    Transformer,
    TransformerEncoder,
    ViT,
)

VOCABULARY = 50
CLASSES, STEPS = Classes(tuple("0123456789")), StepLabels(tuple("0123456789"))
TINY, SMALL, LARGE, TEXT = Images(3, 16, 16), Images(3, 32, 32), Images(3, 64, 64), Tokens(VOCABULARY, 16)
VIDEOS, SERIES = Frames(length=6, channels=1, height=8, width=8), Series(length=16, channels=2)
TIGHT, DEFAULT = 0.05, 0.2  # above or below: heads that start near zero; torch's nn.Linear, logits of variance 1/3
PUBLISHED = 0.8  # the Transformer's matrix of embeddings, as its output: logits of variance 1, so at least ln(V) + 1/2

MODELS = {  # inputs, outputs, how far the loss may be from ln(classes), the model, its config
    "mlp": (SMALL, CLASSES, DEFAULT, MLP, {}),
    "logistic regression": (Images(1, 8, 8), CLASSES, DEFAULT, MLP, {"hidden": []}),
    "cnn": (SMALL, CLASSES, DEFAULT, CNN, {}),
    "lenet": (SMALL, CLASSES, DEFAULT, LeNet, {}),
    "alexnet": (SMALL, CLASSES, TIGHT, AlexNet, {}),
    "alexnet with local response norm": (SMALL, CLASSES, TIGHT, AlexNet, {"norm": "local_response"}),
    "alexnet for imagenet": (LARGE, CLASSES, TIGHT, AlexNet, {"input": "imagenet", "width": 0.25}),
    "vgg": (SMALL, CLASSES, 0.6, VGG, {"depth": 11}),
    "vgg with batch norm": (SMALL, CLASSES, DEFAULT, VGG, {"depth": 11, "batch_norm": True}),
    "vgg for imagenet": (LARGE, CLASSES, TIGHT, VGG, {"depth": 11, "input": "imagenet", "width": 0.25}),
    "googlenet and its auxiliary heads": (SMALL, CLASSES, DEFAULT, GoogLeNet, {"width": 0.5}),
    "resnet 20": (SMALL, CLASSES, TIGHT, ResNet, {}),
    "plain 20": (SMALL, CLASSES, TIGHT, ResNet, {"residual": False}),
    "resnet 56": (SMALL, CLASSES, TIGHT, ResNet, {"depth": 56}),
    "resnet 18": (TINY, CLASSES, TIGHT, ResNet, {"depth": 18}),
    "resnet 50": (TINY, CLASSES, DEFAULT, ResNet, {"depth": 50}),
    "efficientnet": (TINY, CLASSES, TIGHT, EfficientNet, {}),
    "vit": (SMALL, CLASSES, DEFAULT, ViT, {"variant": "Mini", "patch_size": 4}),
    "vit, mean of patches": (SMALL, CLASSES, DEFAULT, ViT, {"variant": "Mini", "patch_size": 4, "pool": "mean"}),
    **{cell: (SMALL, CLASSES, DEFAULT, RNN, {"cell": cell}) for cell in ("rnn", "lstm", "gru")},
    "bidirectional lstm": (TEXT, CLASSES, DEFAULT, RNN, {"cell": "lstm", "bidirectional": True}),
    "gru on steps": (TEXT, STEPS, DEFAULT, RNN, {"cell": "gru"}),
    "lstm on videos": (VIDEOS, STEPS, DEFAULT, RNN, {"cell": "lstm"}),
    "lstm language model": (TEXT, TEXT, DEFAULT, RNN, {"cell": "lstm"}),
    "encoder on images": (SMALL, CLASSES, TIGHT, TransformerEncoder, {}),
    "encoder, last step": (SERIES, CLASSES, TIGHT, TransformerEncoder, {"pool": "last"}),
    "encoder, pre-norm": (TEXT, CLASSES, TIGHT, TransformerEncoder, {"pre_norm": True}),
    "encoder on steps": (TEXT, STEPS, TIGHT, TransformerEncoder, {}),
    "encoder on videos": (VIDEOS, STEPS, TIGHT, TransformerEncoder, {}),
    "gpt": (TEXT, TEXT, DEFAULT, GPT, {}),
    "gpt, post-norm": (TEXT, TEXT, PUBLISHED, GPT, {"pre_norm": False}),
    "gpt on classes": (TEXT, CLASSES, DEFAULT, GPT, {"head": "classes"}),
    "llama": (TEXT, TEXT, DEFAULT, LLaMA, {}),
    "llama on steps": (TEXT, STEPS, DEFAULT, LLaMA, {"head": "step_classes"}),
    "bert": (TEXT, TEXT, DEFAULT, BERT, {}),
    "bert on classes": (TEXT, CLASSES, TIGHT, BERT, {"head": "classes"}),
    "bert on steps": (TEXT, STEPS, DEFAULT, BERT, {"head": "step_classes"}),
    **{
        f"seq2seq, attention {kind}": (TEXT, TEXT, DEFAULT, Seq2Seq, {"attention": kind})
        for kind in ("none", "additive", "dot")
    },
    "transformer": (TEXT, TEXT, PUBLISHED, Transformer, {"variant": "small"}),
    "transformer, not tied": (TEXT, TEXT, PUBLISHED, Transformer, {"variant": "small", "tie": False}),
    "captioner": (Images(1, 16, 16), TEXT, DEFAULT, Captioner, {}),
    "captioner, transformer": (Images(1, 16, 16), TEXT, 0.25, Captioner, {"decoder": "transformer"}),
}


def noise(spec: Images | Tokens | Series | Frames, count: int) -> torch.Tensor:
    """Random inputs of mean 0 and variance 1, or random tokens."""
    if isinstance(spec, Tokens):
        return torch.randint(4, spec.vocab_size, (count, spec.length))
    return torch.randn(
        count, *(getattr(spec, name) for name in ("length", "channels", "height", "width") if hasattr(spec, name))
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_first_loss_of_every_head_is_that_of_guessing(name):
    inputs, outputs, tolerance, model, config = MODELS[name]
    torch.manual_seed(0)
    network = model.for_data(inputs, outputs, **config).train()
    x = noise(inputs, 32)
    with torch.no_grad():
        heads = network(x, noise(outputs, 32)) if model in (Seq2Seq, Transformer, Captioner) else network(x)
    heads = heads if isinstance(heads, tuple) else (heads,)
    assert len(heads) == (3 if model is GoogLeNet else 1)
    for logits in heads:
        targets = torch.randint(logits.shape[-1], logits.shape[:-1])
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten()).item()
        assert loss == pytest.approx(math.log(logits.shape[-1]), abs=tolerance)


def test_a_discriminator_begins_undecided():
    torch.manual_seed(0)
    gan = GAN.for_data(Images(1, 28, 28), Images(1, 28, 28)).train()
    with torch.no_grad():
        for images in (torch.randn(64, 1, 28, 28), gan(gan.sample_noise(64))):
            loss = F.binary_cross_entropy_with_logits(gan.discriminator(images), torch.ones(64))
            assert loss.item() == pytest.approx(math.log(2), abs=DEFAULT)


def test_every_model_is_tried():
    from epochal import models

    tried = {model.__name__ for *_, model, _ in MODELS.values()} | {"GAN"}
    assert tried == set(models.__all__) - {"Timm"}, "timm's networks keep timm's initialisation"
