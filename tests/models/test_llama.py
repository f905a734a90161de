import pytest
import torch
from omegaconf import OmegaConf

from epochal.compare.design import Design
from epochal.config.compose import compose
from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model
from epochal.core.specs import Tokens
from epochal.models import LLaMA

PUBLISHED = {"7b": 6_738_415_616, "13b": 13_015_864_320, "2-70b": 68_976_648_192, "3-8b": 8_030_261_248}


@pytest.mark.parametrize("variant, count", PUBLISHED.items())
def test_it_has_the_published_number_of_parameters(variant, count):
    vocab_size = 128_256 if variant == "3-8b" else 32_000
    with torch.device("meta"):
        llama = LLaMA(vocab_size=vocab_size, context_length=4096, variant=variant)
    assert sum(p.numel() for p in llama.parameters()) == count


def test_what_is_given_stands_instead_of_the_variants_and_takes_its_widths_along():
    def made(**options):
        with torch.device("meta"):
            return LLaMA(vocab_size=9, context_length=8, variant="2-70b", depth=1, **options)

    assert made().blocks[0].mlp.fc1.out_features == 28_672
    assert made(embed_dim=512).blocks[0].mlp.fc1.out_features == 1368
    assert made(feedforward="gelu").blocks[0].mlp.fc1.out_features == 4 * 8192
    assert made().blocks[0].attention.num_kv_heads == 8
    assert made(num_heads=4).blocks[0].attention.num_kv_heads == 4
    assert made(num_heads=4, num_kv_heads=2).blocks[0].attention.num_kv_heads == 2


def test_it_has_no_biases_and_only_rms_norms():
    llama = LLaMA(vocab_size=9, context_length=8)
    assert not any(name.endswith("bias") for name, _ in llama.named_parameters())
    norms = [
        type(module).__name__ for name, module in llama.named_modules() if name.rpartition(".")[2].startswith("norm")
    ]
    assert set(norms) == {"RMSNorm"} and len(norms) == 2 * len(llama.blocks) + 1


def test_a_checkpoint_of_a_short_context_fits_a_longer_one():
    short, long = (LLaMA(vocab_size=9, context_length=length).eval() for length in (8, 32))
    long.load_state_dict(short.state_dict())
    tokens = torch.randint(9, (2, 8))
    assert torch.equal(short(tokens), long(tokens))


@pytest.mark.parametrize("budget", ["smoke", "cpu", "paper"])
def test_the_networks_of_llama_parts_have_as_many_parameters(budget):
    config = finalize(compose(["experiment=llama_parts", f"budget={budget}"]))
    tokens = Tokens(vocab_size=264, length=config.dataset.context_length)

    def count(point):
        with torch.device("meta"):
            model = make_model(OmegaConf.merge(config, OmegaConf.from_dotlist(list(point))), tokens, tokens)
        return sum(parameter.numel() for parameter in model.parameters())

    counts = [count(point) for point in Design("llama_parts", budget).points]
    assert len(counts) == 8
    assert [n / counts[0] for n in counts] == pytest.approx([1] * 8, abs=0.003)
