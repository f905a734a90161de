"""Low-rank additions: they change nothing at first, alone are trained, and can be merged into the weights."""

from __future__ import annotations

import pytest
import torch

from epochal.models import GPT
from epochal.models.common.lora import add_lora, merged

TOKENS = torch.arange(6).expand(2, 6)


def network() -> GPT:
    torch.manual_seed(0)
    return GPT(vocab_size=9, context_length=8, depth=2, num_heads=2, embed_dim=8, head="classes", num_outputs=3).eval()


def adapted(rank: int = 2) -> GPT:
    return add_lora(network(), rank=rank, alpha=4.0, targets=("qkv", "fc1"), trained=("head.",))  # type: ignore[return-value]


def test_at_first_nothing_changes_and_only_the_additions_and_the_head_are_trained():
    plain, low = network(), adapted()
    torch.testing.assert_close(low(TOKENS), plain(TOKENS))
    trained = {name for name, p in low.named_parameters() if p.requires_grad}
    assert all(name.startswith("head.") or name.endswith((".up", ".down")) for name in trained)
    assert sum(name.endswith(".up") for name in trained) == 4  # two layers of each of two blocks
    low(TOKENS).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in low.parameters())


def test_merged_weights_are_those_of_the_plain_network_and_give_the_same():
    low, plain = adapted(rank=3), network()
    for parameter in low.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    state = merged(low.state_dict())
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(TOKENS), low(TOKENS))
    assert all(a is b for a, b in zip(merged(state).values(), state.values(), strict=True)), "a plain state stays"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 0}, "finetune.lora.rank"),
        ({"targets": ("qkv", "v_proj")}, "finetune.lora.targets has v_proj, which no linear layer"),
        ({"alpha": 0.0}, "finetune.lora.alpha"),
        ({"targets": ("query",)}, "It has: fc1 fc2 head proj qkv"),
    ],
)
def test_what_cannot_be_added_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        add_lora(network(), **{"rank": 2, "alpha": 4.0, "targets": ("qkv",), "trained": ("head.",), **options})
