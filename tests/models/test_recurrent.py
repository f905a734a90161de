import pytest
import torch
from torch import nn

from epochal.facts import Classes, Images, Tokens
from epochal.models import RNN

CELLS = ("rnn", "lstm", "gru")
TWO = Classes(("no", "yes"))


def language_model(cell="lstm", **config):
    torch.manual_seed(0)
    text = Tokens(vocab_size=11, length=16)
    return RNN.for_data(text, text, **{"cell": cell, "hidden_size": 16, "embed_dim": 8, "num_layers": 2, **config})


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_classifies_images_and_text(cell, bidirectional):
    config = {"cell": cell, "bidirectional": bidirectional, "hidden_size": 8, "embed_dim": 4}
    assert RNN.for_data(Images(3, 8, 5), TWO, **config)(torch.randn(4, 3, 8, 5)).shape == (4, 2)
    assert RNN.for_data(Tokens(11, 6), TWO, **config)(torch.randint(11, (4, 6))).shape == (4, 2)


def test_an_image_is_read_row_by_row():
    images = torch.arange(24.0).view(1, 2, 3, 4)
    steps = RNN(in_features=8, num_classes=2)._steps(images)
    assert torch.equal(steps[0, 1], torch.cat((images[0, 0, 1], images[0, 1, 1])))


def test_or_pixel_by_pixel():
    images = torch.arange(24.0).view(1, 2, 3, 4)
    steps = RNN.for_data(Images(2, 3, 4), TWO, scan="pixels")._steps(images)
    assert steps.shape == (1, 12, 2)
    assert torch.equal(steps[0, 5], images[0, :, 1, 1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_states_gradient_is_the_change_of_the_loss_with_it(cell, num_layers):
    torch.manual_seed(0)
    model = RNN(in_features=3, num_classes=2, cell=cell, hidden_size=4, num_layers=num_layers).double()
    images, labels = torch.randn(1, 1, 5, 3).double(), torch.tensor([1])

    def loss(logits):
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    found = model.state_gradients(images, loss)
    assert found.shape == (5,)
    assert all(parameter.grad is None for parameter in model.parameters())  # the training's are left alone
    steps = images[:, 0]
    for t in range(5):  # the state after step t is moved a little, one number at a time
        _, state = model.recurrent(steps[:, : t + 1])
        parts = [part.clone() for part in (state if isinstance(state, tuple) else (state,))]

        def read_on(t=t, parts=parts):
            now = tuple(parts) if len(parts) > 1 else parts[0]
            hidden = parts[0][-1] if t == 4 else model.recurrent(steps[:, t + 1 :], now)[0][:, -1]
            return loss(model.head(hidden)).item()

        slopes = []
        for part in parts:
            for index in range(part.numel()):
                ends = []
                for move in (1e-6, -2e-6):
                    part.view(-1)[index] += move
                    ends.append(read_on())
                part.view(-1)[index] += 1e-6
                slopes.append((ends[0] - ends[1]) / 2e-6)
        torch.testing.assert_close(found[t].item(), torch.tensor(slopes).double().norm().item(), rtol=1e-4, atol=1e-8)


def test_only_a_classifier_in_one_direction_shows_its_state_gradients():
    for model in (language_model(), RNN(in_features=3, num_classes=2, bidirectional=True)):
        assert not model.shows_state_gradients
        with pytest.raises(ValueError, match="reads from beginning to end"):
            model.state_gradients(torch.zeros(1, 1, 2, 3), lambda logits: logits.sum())


@pytest.mark.parametrize("cell", CELLS)
def test_a_language_model_does_not_see_the_future(cell):
    model, tokens = language_model(cell), torch.randint(11, (2, 9))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before, after = model(tokens), model(changed)
    assert before.shape == (2, 9, 11)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_step_of_the_input_reaches_the_class(cell, bidirectional):
    model = RNN(in_features=3, num_classes=2, cell=cell, hidden_size=8, bidirectional=bidirectional)
    images = torch.randn(2, 1, 6, 3, requires_grad=True)
    model(images).sum().backward()
    assert images.grad.abs().sum(dim=(0, 1, 3)).gt(0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_gets_a_gradient(cell, bidirectional):
    model = RNN(in_features=3, num_classes=2, cell=cell, hidden_size=8, num_layers=2, bidirectional=bidirectional)
    model(torch.randn(4, 1, 6, 3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_generating_with_a_carried_state_is_the_same_as_reading_all_again(cell):
    model, prompt = language_model(cell), torch.randint(11, (3, 4))
    text = prompt
    for _ in range(12):
        text = torch.cat((text, model(text)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(model.generate(prompt, length=12, temperature=0), text)


def test_one_seed_writes_one_text():
    model, prompt = language_model(), torch.zeros(2, 1, dtype=torch.int64)
    texts = [model.generate(prompt, length=20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_generating_leaves_the_model_in_training():
    model = language_model(dropout=0.5)
    model.generate(torch.zeros(1, 1, dtype=torch.int64), length=1)
    assert model.training and model.recurrent.training


def test_recurrent_weights_start_orthogonal_and_the_forget_gate_open():
    recurrent = language_model().recurrent
    for gate in recurrent.weight_hh_l0.split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), atol=1e-5, rtol=0)
    bias = (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).view(4, 16)
    assert bias[1].eq(1).all() and not bias[[0, 2, 3]].any()


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_follows_the_equations_of_the_docstring(cell):
    torch.manual_seed(0)
    model = RNN(in_features=3, num_classes=2, cell=cell, hidden_size=4)
    for bias in (model.recurrent.bias_ih_l0, model.recurrent.bias_hh_l0):
        nn.init.zeros_(bias)
    x, h, c = torch.randn(1, 1, 3), torch.randn(1, 1, 4), torch.randn(1, 1, 4)
    w = [part @ x[0, 0] for part in model.recurrent.weight_ih_l0.split(4)]
    u = [part @ h[0, 0] for part in model.recurrent.weight_hh_l0.split(4)]
    if cell == "rnn":
        expected = torch.tanh(w[0] + u[0])
    elif cell == "lstm":
        i, f, o = (torch.sigmoid(w[k] + u[k]) for k in (0, 1, 3))
        expected = o * torch.tanh(f * c[0, 0] + i * torch.tanh(w[2] + u[2]))
    else:
        r, z = torch.sigmoid(w[0] + u[0]), torch.sigmoid(w[1] + u[1])
        expected = (1 - z) * torch.tanh(w[2] + r * u[2]) + z * h[0, 0]
    states, _ = model.recurrent(x, (h, c) if cell == "lstm" else h)
    torch.testing.assert_close(states[0, 0], expected)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cell": "elman"}, "cell=elman is no choice. There are: rnn lstm gru"),
        ({"cell": "gru", "activation": "relu"}, "activation=relu is no choice. There are: tanh"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"vocab_size": 5}, "either in_features .* or vocab_size"),
        ({"num_classes": None}, "needs vocab_size"),
        ({"in_features": None, "vocab_size": 5, "num_classes": None, "bidirectional": True}, "bidirectional=true"),
    ],
)
def test_an_impossible_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        RNN(**{"in_features": 3, "num_classes": 2, **wrong})


def test_a_classifier_cannot_generate():
    with pytest.raises(ValueError, match="Only a language model"):
        RNN(in_features=3, num_classes=2).generate(torch.zeros(1, 1, dtype=torch.int64), length=1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"prompt": torch.zeros(1, 0, dtype=torch.int64)}, "at least one token"),
        ({"length": -1}, "length=-1"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0}, "top_k=0"),
    ],
)
def test_an_impossible_wish_for_text_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        language_model().generate(**{"prompt": torch.zeros(1, 1, dtype=torch.int64), "length": 2, **wrong})
