"""Checkpoints of version 0.1 have other parameter names."""

import pytest
import torch

from epochal.models import GPT, MLP, Captioner, ResNet, Seq2Seq, Transformer, TransformerEncoder, ViT
from epochal.models.common.old_names import current_names

TEXT = {"source_vocab_size": 7, "target_vocab_size": 7}
SMALL = {"depth": 1, "embed_dim": 8, "num_heads": 2}
CAPTIONER = {"in_channels": 1, "image_size": (16, 16), "vocab_size": 7, "embed_dim": 8, "num_heads": 2}
MODELS = {
    "gpt": lambda: GPT(vocab_size=7, context_length=4, **SMALL, bias=True),
    "vit": lambda: ViT(image_shape=(1, 8, 8), num_classes=2, patch_size=4, **SMALL),
    "transformer": lambda: Transformer(**TEXT, **SMALL, feedforward_dim=8),
    "transformer_encoder": lambda: TransformerEncoder(in_features=3, out_features=2, **SMALL),
    "seq2seq": lambda: Seq2Seq(**TEXT, attention="additive", hidden_size=8, embed_dim=8),
    "captioner, recurrent": lambda: Captioner(**CAPTIONER),
    "captioner, transformer": lambda: Captioner(**CAPTIONER, decoder="transformer"),
    "resnet": lambda: ResNet(in_channels=1, num_classes=2, depth=8),
}
OLD = {  # some names of version 0.1, and where those parameters are today
    "gpt": {
        "embed.weight": "embed.weight",
        "blocks.0.attention.query_key_value.weight": "blocks.0.attention.qkv.weight",
        "blocks.0.attention.out.bias": "blocks.0.attention.proj.bias",
        "blocks.0.widen.weight": "blocks.0.mlp.fc1.weight",
        "blocks.0.narrow.bias": "blocks.0.mlp.fc2.bias",
    },
    "vit": {
        "blocks.0.attention.query_key_value.bias": "blocks.0.attention.qkv.bias",
        "blocks.0.attention.out.weight": "blocks.0.attention.proj.weight",
        "blocks.0.widen.bias": "blocks.0.mlp.fc1.bias",
        "blocks.0.narrow.weight": "blocks.0.mlp.fc2.weight",
        "class_position": "class_position",
    },
    "transformer": {
        "encoder.layers.0.attention.query_key_value.weight": "encoder.layers.0.attention.qkv.weight",
        "encoder.layers.0.attention_bypass.norm.weight": "encoder.layers.0.attention_residual.norm.weight",
        "decoder.layers.0.self_attention.out.weight": "decoder.layers.0.self_attention.proj.weight",
        "decoder.layers.0.self_bypass.norm.bias": "decoder.layers.0.self_residual.norm.bias",
        "decoder.layers.0.cross_attention.query_key_value.bias": "decoder.layers.0.cross_attention.qkv.bias",
        "decoder.layers.0.cross_bypass.norm.weight": "decoder.layers.0.cross_residual.norm.weight",
        "decoder.layers.0.feedforward.widen.weight": "decoder.layers.0.feedforward.fc1.weight",
        "decoder.layers.0.feedforward.narrow.weight": "decoder.layers.0.feedforward.fc2.weight",
        "decoder.layers.0.feedforward_bypass.norm.weight": "decoder.layers.0.feedforward_residual.norm.weight",
    },
    "transformer_encoder": {
        "encoder.layers.0.attention.out.bias": "encoder.layers.0.attention.proj.bias",
        "encoder.layers.0.feedforward.widen.bias": "encoder.layers.0.feedforward.fc1.bias",
        "head.weight": "head.weight",
    },
    "seq2seq": {
        "decoder.attention.out.weight": "decoder.attention.proj.weight",
        "decoder.attention.query.bias": "decoder.attention.query.bias",
        "encoder.weight_hh_l0": "encoder.weight_hh_l0",
    },
    "captioner, recurrent": {
        "sight.0.weight": "image_encoder.0.weight",
        "writer.start.weight": "text_decoder.init_hidden.weight",
        "writer.cells.bias": "text_decoder.init_cell.bias",
        "writer.decoder.attention.out.weight": "text_decoder.decoder.attention.proj.weight",
        "writer.decoder.embed.weight": "text_decoder.decoder.embed.weight",
    },
    "captioner, transformer": {
        "sight.1.running_mean": "image_encoder.1.running_mean",
        "writer.embed.weight": "text_decoder.embed.weight",
        "writer.decoder.layers.0.self_attention.query_key_value.weight": (
            "text_decoder.decoder.layers.0.self_attention.qkv.weight"
        ),
        "writer.decoder.layers.0.feedforward.narrow.bias": "text_decoder.decoder.layers.0.feedforward.fc2.bias",
    },
    "resnet": {"blocks.0.conv1.weight": "blocks.0.conv1.weight", "stem.1.running_var": "stem.1.running_var"},
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_found_by_their_old_names(name):
    model, state = MODELS[name](), {}
    for old, new in OLD[name].items():
        state[old] = torch.randn_like(model.state_dict()[new])
    _, unexpected = model.load_state_dict(current_names(state, model), strict=False)
    assert not unexpected
    for old, new in OLD[name].items():
        assert torch.equal(model.state_dict()[new], state[old])


@pytest.mark.parametrize("name", MODELS)
def test_current_names_stay_as_they_are(name):
    model = MODELS[name]()
    state = model.state_dict()
    assert list(current_names(state, model)) == list(state)


def test_in_the_state_of_a_task_only_the_names_of_the_model_are_changed():
    model = MODELS["captioner, recurrent"]()
    state = {"model.sight.0.weight": torch.ones(1), "sight.0.weight": torch.ones(1), "step": torch.ones(1)}
    names = list(current_names(state, model, prefix="model."))
    assert names == ["model.image_encoder.0.weight", "sight.0.weight", "step"]


def test_a_model_that_renamed_nothing_needs_no_map():
    model = MLP(in_features=4, num_classes=2)
    assert current_names(model.state_dict(), model).keys() == model.state_dict().keys()
