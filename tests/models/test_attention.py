"""Attention and the Transformer's layers, beside torch's own."""

import pytest
import torch
from torch import nn

from epochal.models.common.attention import (
    Decoder,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    MultiHeadAttention,
    add_positions,
    padding_mask,
)

BATCH, SOURCE, TARGET, EMBED_DIM, HEADS, WIDE = 3, 7, 5, 16, 4, 24
LENGTHS = torch.tensor([SOURCE, 2, 4])
SIZES = {"embed_dim": EMBED_DIM, "num_heads": HEADS, "feedforward_dim": WIDE, "dropout": 0.0}


def steps(count, seed=0):
    return torch.randn(BATCH, count, EMBED_DIM, generator=torch.Generator().manual_seed(seed))


def shake(module):
    """Biases and norms begin at zero and one, where a mistake would not show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module.eval()


def copy(ours, theirs):
    theirs.load_state_dict(ours.state_dict())


def copy_attention(ours, theirs):
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
    copy(ours.proj, theirs.out_proj)


def copy_feedforward(ours, theirs):
    copy(ours.fc1, theirs.linear1)
    copy(ours.fc2, theirs.linear2)


def their_arguments(pre_norm):
    rest = {"dropout": 0.0, "activation": "relu", "norm_first": pre_norm, "batch_first": True}
    return {"d_model": EMBED_DIM, "nhead": HEADS, "dim_feedforward": WIDE, **rest}


def padded(count, lengths):
    return None if lengths is None else torch.arange(count) >= lengths[:, None]


def future(count):
    return torch.ones(count, count, dtype=torch.bool).triu(1)


def assert_same_where_real(ours, theirs, lengths):
    real = torch.ones(ours.shape[:2], dtype=torch.bool) if lengths is None else ~padded(ours.shape[1], lengths)
    torch.testing.assert_close(ours[real], theirs[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("over", ["itself", "itself, causal", "a source"])
def test_attention_is_that_of_torch(lengths, over):
    ours = shake(MultiHeadAttention(embed_dim=EMBED_DIM, num_heads=HEADS))
    theirs = nn.MultiheadAttention(EMBED_DIM, HEADS, batch_first=True).eval()
    copy_attention(ours, theirs)
    source, causal = steps(SOURCE), over == "itself, causal"
    x = steps(TARGET, seed=2) if over == "a source" else source
    expected, expected_weights = theirs(
        x,
        source,
        source,
        key_padding_mask=padded(SOURCE, lengths),
        attn_mask=future(SOURCE) if causal else None,
        average_attn_weights=False,
    )
    asked = source if over == "a source" else None
    mask = padding_mask(lengths, SOURCE)
    questions = None if over == "a source" else lengths
    assert_same_where_real(ours(x, asked, mask=mask, causal=causal), expected, questions)
    weights = ours.weights(x, asked, mask=mask, causal=causal)
    assert_same_where_real(weights.transpose(1, 2), expected_weights.transpose(1, 2), questions)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_an_encoder_layer_is_that_of_torch(pre_norm, causal, lengths):
    ours = shake(EncoderLayer(**SIZES, pre_norm=pre_norm))
    theirs = nn.TransformerEncoderLayer(**their_arguments(pre_norm)).train()  # not its fast path, which is another code
    copy_attention(ours.attention, theirs.self_attn)
    copy_feedforward(ours.feedforward, theirs)
    copy(ours.attention_residual.norm, theirs.norm1)
    copy(ours.feedforward_residual.norm, theirs.norm2)
    x = steps(SOURCE)
    expected = theirs(
        x,
        src_mask=future(SOURCE) if causal else None,
        src_key_padding_mask=padded(SOURCE, lengths),
        is_causal=causal,
    )
    assert_same_where_real(ours(x, padding_mask(lengths, SOURCE), causal), expected, lengths)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_decoder_layer_is_that_of_torch(pre_norm, lengths):
    ours = shake(DecoderLayer(**SIZES, pre_norm=pre_norm))
    theirs = nn.TransformerDecoderLayer(**their_arguments(pre_norm)).eval()
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy_feedforward(ours.feedforward, theirs)
    for number, residual in enumerate((ours.self_residual, ours.cross_residual, ours.feedforward_residual), 1):
        copy(residual.norm, getattr(theirs, f"norm{number}"))
    x, source = steps(TARGET, seed=2), steps(SOURCE)
    expected = theirs(x, source, tgt_mask=future(TARGET), memory_key_padding_mask=padded(SOURCE, lengths))
    assert_same_where_real(ours(x, source, padding_mask(lengths, SOURCE)), expected, None)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("cross_attention", [True, False])
def test_a_decoder_gives_the_same_step_by_step_as_all_at_once(pre_norm, self_attention, cross_attention):
    attentions = {"self_attention": self_attention, "cross_attention": cross_attention}
    decoder = shake(Decoder(depth=2, **SIZES, pre_norm=pre_norm, **attentions))
    x, source, mask = steps(TARGET, seed=2), steps(SOURCE), padding_mask(LENGTHS, SOURCE)
    states, outputs = decoder.initial_state(source), []
    for step in x.split(1, dim=1):
        outputs.append(decoder.step(step, states, mask))
    torch.testing.assert_close(torch.cat(outputs, dim=1), decoder(x, source, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_weights_of_a_decoder_are_those_its_last_layer_works_with(pre_norm, monkeypatch):
    decoder = shake(Decoder(depth=2, **SIZES, pre_norm=pre_norm))
    x, source, mask = steps(TARGET, seed=2), steps(SOURCE), padding_mask(LENGTHS, SOURCE)
    last = decoder.layers[-1].cross_attention
    questions = []
    last.register_forward_pre_hook(lambda module, inputs: questions.append(inputs[0]))
    decoder(x, source, mask)
    weights = decoder.weights(x, source, mask)
    torch.testing.assert_close(weights, last.weights(questions[0], source, mask=mask).mean(dim=1))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(BATCH, TARGET))
    assert (weights[1, :, 2:] == 0).all(), "padding gets no weight"


def test_sublayers_that_are_left_out_leave_no_weights():
    names = {name.split(".")[0] for name, _ in EncoderLayer(**SIZES, attention=False).named_parameters()}
    assert names == {"feedforward", "feedforward_residual"}
    bare = DecoderLayer(**SIZES, self_attention=False, cross_attention=False)
    assert {name.split(".")[0] for name, _ in bare.named_parameters()} == names


def test_dropout_is_on_what_the_sublayers_add_and_nowhere_else():
    layer = DecoderLayer(**{**SIZES, "dropout": 0.5}).train()
    dropped = [name for name, module in layer.named_modules() if isinstance(module, nn.Dropout)]
    assert dropped == ["self_residual.dropout", "cross_residual.dropout", "feedforward_residual.dropout"]
    feedforward, x = FeedForward(embed_dim=EMBED_DIM, feedforward_dim=WIDE).train(), steps(TARGET)
    assert torch.equal(feedforward(x), feedforward(x))


def test_positions_are_the_sinusoids_of_the_paper():
    waves = add_positions(torch.zeros(1, 50, 6))[0]
    for position in (0, 1, 49):
        for pair in range(3):
            angle = torch.tensor(position / 10_000 ** (2 * pair / 6))
            expected = torch.stack((angle.sin(), angle.cos()))
            torch.testing.assert_close(waves[position, 2 * pair : 2 * pair + 2], expected, rtol=0, atol=1e-5)


def test_positions_of_a_later_part_are_those_of_the_whole():
    torch.testing.assert_close(
        add_positions(torch.zeros(1, 3, 5), start=7), add_positions(torch.zeros(1, 10, 5))[:, 7:]
    )


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="num_heads=3 does not divide embed_dim=16"):
        MultiHeadAttention(embed_dim=16, num_heads=3)
