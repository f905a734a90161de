"""Weights in the format of the Hugging Face Hub, without `transformers`; beside it: tests/parity."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from epochal.core.errors import ConfigError
from epochal.core.specs import ReservedIds
from epochal.models import BERT, GPT, LeNet, LLaMA
from epochal.models.pretrained import huggingface
from epochal.models.pretrained.huggingface import load, load_pretrained
from epochal.models.pretrained.huggingface_names import CLASSES
from epochal.models.pretrained.huggingface_save import save

SMALL = {"vocab_size": 11, "context_length": 8, "depth": 2, "num_heads": 4, "embed_dim": 16}
MODELS = {
    "gpt2": lambda **o: GPT(**SMALL, bias=True, feedforward="gelu_tanh", **o),
    "gpt1": lambda **o: GPT(**SMALL, bias=True, feedforward="gelu_tanh", pre_norm=False, **o),
    "bert": lambda **o: BERT(**SMALL, **o),
    "llama": lambda **o: LLaMA(**SMALL, num_kv_heads=2, **o),
}


def shaken(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a small Llama."""
    save(shaken(MODELS["llama"]()), tmp_path, ids=ReservedIds(pad=0, begin=2, end=3))
    return tmp_path


def change(folder, change_config=None, change_weights=None):
    file = folder / "config.json"
    config, weights = json.loads(file.read_text()), load_file(folder / "model.safetensors")
    if change_config:
        change_config(config)
        file.write_text(json.dumps(config))
    if change_weights:
        change_weights(weights)
        save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("options", [{}, {"head": "step_classes", "num_outputs": 3}, {"head": "scalar"}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_is_loaded_again(name, options, tmp_path):
    if name == "gpt1" and options.get("head") == "step_classes":
        pytest.skip("transformers has no such network")
    model = shaken(MODELS[name](**options)).eval()
    save(model, tmp_path)
    config, state = load(tmp_path)
    again = CLASSES[config.pop("name")](**config).eval()
    again.load_state_dict(state)
    tokens = torch.randint(11, (2, 8))
    assert torch.equal(model(tokens), again(tokens))


def test_reserved_ids_and_classes_are_in_the_config(tmp_path):
    labels = ["bad", "good"]
    save(MODELS["bert"](head="classes", num_outputs=2), tmp_path, ids=ReservedIds(pad=0, end=3), labels=labels)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["pad_token_id"], config["eos_token_id"], config["bos_token_id"]) == (0, 3, None)
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}


@pytest.mark.parametrize("labels, kept", [(("bad", "good"), True), (("no", "yes"), False), ((), False)])
def test_a_head_is_kept_only_for_the_same_classes(labels, kept, tmp_path):
    source = shaken(MODELS["bert"](head="classes", num_outputs=2))
    save(source, tmp_path, labels=["bad", "good"])
    target = MODELS["bert"](head="classes", num_outputs=2)
    sentence = load_pretrained(target, tmp_path, labels=labels)
    assert torch.equal(target.head.weight, source.head.weight) == kept == ("as initialised" not in sentence)
    assert torch.equal(target.pooler.weight, source.pooler.weight)


def test_a_body_goes_into_a_network_with_another_head_and_a_shorter_context(tmp_path):
    source = shaken(MODELS["gpt2"]())
    save(source, tmp_path)
    sizes = {**SMALL, "context_length": 5, "bias": True}
    target = GPT(**sizes, head="classes", num_outputs=2)
    assert load_pretrained(target, tmp_path) == f"Weights: {tmp_path}; head as initialised."
    assert torch.equal(target.position.weight, source.position.weight[:5])
    assert torch.equal(target.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


def test_old_names_are_read(tmp_path):
    """The first files of BERT call a norm's tensors gamma and beta; those of GPT-2 have no prefix, and masks as buffers."""
    bert, gpt = shaken(MODELS["bert"]()), shaken(MODELS["gpt2"]())
    for model, name, rename in (
        (
            bert,
            "bert",
            lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        ),
        (gpt, "gpt", lambda n: n.removeprefix("transformer.")),
    ):
        save(model, tmp_path / name)
        weights = {rename(key): tensor for key, tensor in load_file(tmp_path / name / "model.safetensors").items()}
        weights |= (
            {"h.0.attn.bias": torch.ones(1)} if name == "gpt" else {"cls.predictions.decoder.bias": torch.ones(1)}
        )
        save_file(weights, tmp_path / name / "model.safetensors")
        _, state = load(tmp_path / name)
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in state.items())


def test_several_files_are_read_through_their_index(folder):
    _, whole = load(folder)
    weights = sorted(load_file(folder / "model.safetensors").items())
    parts = {
        "model-00001-of-00002.safetensors": dict(weights[::2]),
        "model-00002-of-00002.safetensors": dict(weights[1::2]),
    }
    for file, part in parts.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _, state = load(folder)
    assert all(torch.equal(state[name], whole[name]) for name in whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no model-00002-of-00002\.safetensors"):
        load(folder)


def test_a_damaged_file_is_named(folder):
    file = folder / "model.safetensors"
    for size in (0, 5, 100, file.stat().st_size - 3):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ConfigError, match=r"model\.safetensors is damaged or cut short"):
            load(folder)
    file.unlink()
    with pytest.raises(ConfigError, match=r"has no model\.safetensors; ours are weights in the format safetensors"):
        load(folder)


WRONG = {
    "another architecture": (
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        r"MistralForCausalLM \(model_type mistral\); ours are gpt2 openai-gpt bert llama",
    ),
    "no model type": ({"model_type": None}, "model_type None"),
    "scaled positions": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type=llama3"),
    "heads of another width": ({"head_dim": 8}, "head_dim=8"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act=gelu"),
    "another vocabulary": (
        {"vocab_size": 12},
        r"embed\.weight is of shape \(11, 16\), but config\.json says \(12, 16\)",
    ),
    "more blocks": ({"num_hidden_layers": 3}, r"lacks weights of a llama: blocks\.2\.norm1\.weight.* and 4 more"),
    "fewer blocks": ({"num_hidden_layers": 1}, r"has no place for: layers\.1\."),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_that_does_not_fit_is_refused(case, folder):
    values, message = WRONG[case]
    change(folder, lambda config: config.update(values))
    with pytest.raises(ConfigError, match=message):
        load(folder)


def test_sizes_that_are_not_said_and_a_config_that_is_none_are_refused(folder):
    change(folder, lambda config: config.pop("hidden_size"))
    with pytest.raises(ConfigError, match=r"config\.json does not say hidden_size"):
        load(folder)
    for text in ("[1]", "{", ""):
        (folder / "config.json").write_text(text)
        with pytest.raises(ConfigError, match="is no JSON"):
            load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        load(folder)


def test_missing_and_unknown_weights_are_named(folder):
    change(folder, None, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ConfigError, match=r"lacks weights of a llama: blocks\.1\.mlp\.fc1\.weight\."):
        load(folder)
    with pytest.raises(ConfigError, match=r"lacks weights of this network: blocks\.1\.mlp\.fc1\.weight\."):
        load_pretrained(MODELS["llama"](), folder)
    change(folder, None, lambda weights: weights.update({"model.layers.1.adapter.weight": torch.ones(1)}))
    with pytest.raises(ConfigError, match=r"has no place for: layers\.1\.adapter\.weight"):
        load(folder)


def test_a_network_that_is_not_the_weights_is_refused(folder):
    with pytest.raises(ConfigError, match="is a llama; choose model=llama"):
        load_pretrained(MODELS["gpt2"](), folder)
    with pytest.raises(ConfigError, match=r"embed\.weight is \(11, 16\) there and \(12, 16\) here"):
        load_pretrained(LLaMA(**{**SMALL, "vocab_size": 12}, num_kv_heads=2), folder)


@pytest.mark.parametrize("source", ["openai-community/gpt2", "gpt2"])
def test_a_repository_of_the_hub_without_a_network_is_one_sentence(source, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface, "hub_is_reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{source} is no folder here and not in the Hub's cache") as error:
        load(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["no/such/folder", "/nowhere", "a file"])
def test_what_is_neither_a_folder_nor_a_repository_is_refused(source, tmp_path):
    if source == "a file":
        source = tmp_path / "model.safetensors"
        source.write_bytes(b"")
    with pytest.raises(ConfigError, match="neither a folder with config.json and model.safetensors nor the id"):
        load(source)


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: LeNet(in_channels=1, num_classes=2), "no LeNet; to=huggingface is for gpt, bert and llama"),
        (lambda: GPT(**SMALL, norm="rms"), "no network with norm=rms, positions=learned"),
        (lambda: LLaMA(**SMALL, positions="learned", num_kv_heads=4), "no network with norm=rms, positions=learned"),
        (lambda: GPT(**SMALL, num_kv_heads=2), "num_kv_heads=2"),
        (lambda: GPT(**SMALL, pre_norm=False), "GPT-1 only with feedforward=gelu_tanh"),
        (lambda: GPT(**SMALL, head="numbers", num_outputs=2), "no gpt2 with a head for numbers"),
    ],
)
def test_what_transformers_has_not_is_not_exported(model, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        save(model(), tmp_path)
