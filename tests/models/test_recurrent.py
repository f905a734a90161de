import pytest
import torch
from torch import nn

from epochal.core.specs import Classes, Frames, Images, Numbers, Series, StepLabels, Tokens
from epochal.models import RNN

CELLS = ("rnn", "lstm", "gru")
KINDS = [*((cell, "tanh") for cell in CELLS), ("rnn", "relu"), ("rnn", "sigmoid")]  # cell and activation
TWO = Classes(("no", "yes"))
LENGTHS = torch.tensor([4, 7, 1, 6])
READ = {  # what is read, and a batch of it
    "images": (Images(3, 7, 5), torch.randn(4, 3, 7, 5)),
    "tokens": (Tokens(11, 7), torch.randint(11, (4, 7))),
    "series": (Series(7, 2), torch.randn(4, 7, 2)),
    "videos": (Frames(7, 1, 8, 8), torch.randn(4, 7, 1, 8, 8)),
}


def language_model(cell="lstm", **config):
    torch.manual_seed(0)
    text = Tokens(vocab_size=11, length=16)
    return RNN.for_data(text, text, **{"cell": cell, "hidden_size": 16, "embed_dim": 8, "num_layers": 2, **config})


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("outputs, shape", [(TWO, (4, 2)), (Numbers(3), (4, 3)), (StepLabels(("a", "b")), (4, 7, 2))])
def test_whatever_is_read_is_classified_measured_or_labelled_step_by_step(kind, outputs, shape, cell, bidirectional):
    inputs, batch = READ[kind]
    config = {"cell": cell, "bidirectional": bidirectional, "hidden_size": 8, "embed_dim": 4}
    assert RNN.for_data(inputs, outputs, **config)(batch).shape == shape


def compare_with_rows_alone(model, batch):
    """Answers to rows that noise fills up to one length, and to the same rows one by one."""
    together = model(batch, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(batch[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row, :length] if model.each_step else together[row], alone)


@pytest.mark.parametrize("outputs", [TWO, StepLabels(("a", "b"))])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell, activation", KINDS)
def test_padding_never_changes_an_answer(cell, activation, bidirectional, outputs):
    torch.manual_seed(0)
    config = {"cell": cell, "activation": activation, "bidirectional": bidirectional}
    inputs, batch = READ["tokens"]
    compare_with_rows_alone(RNN.for_data(inputs, outputs, **config, hidden_size=8, num_layers=2), batch)


@pytest.mark.parametrize("kind", ["series", "videos"])
def test_padding_never_changes_the_output_for_series_and_videos(kind):
    inputs, batch = READ[kind]
    compare_with_rows_alone(RNN.for_data(inputs, Numbers(1), hidden_size=8, embed_dim=4), batch)


def test_an_image_is_read_row_by_row():
    images = torch.arange(24.0).view(1, 2, 3, 4)
    steps = RNN(in_features=8, num_classes=2)._steps(images)
    assert torch.equal(steps[0, 1], torch.cat((images[0, 0, 1], images[0, 1, 1])))


def test_an_image_is_read_pixel_by_pixel():
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


@pytest.mark.parametrize("outputs", [Numbers(2), StepLabels(("a", "b"))])
@pytest.mark.parametrize("kind", ["tokens", "series"])
def test_padding_does_not_change_a_states_gradient(kind, outputs):
    torch.manual_seed(0)
    inputs, batch = READ[kind]
    model = RNN.for_data(inputs, outputs, cell="lstm", hidden_size=4, num_layers=2)
    asked = torch.arange(7) < LENGTHS[:, None]  # (B, T)

    def loss(answers):
        return (answers[asked] if model.each_step else answers).square().sum()

    found = model.state_gradients(batch, loss, LENGTHS)
    sums, rows = torch.zeros(7), torch.zeros(7)
    for row, length in enumerate(LENGTHS.tolist()):
        sums[:length] += model.state_gradients(batch[row : row + 1, :length], lambda answers: answers.square().sum())
        rows[:length] += 1
    torch.testing.assert_close(found, sums / rows)


def test_a_state_matters_for_its_own_step_and_later_ones_alone():
    model = RNN.for_data(Series(7, 2), StepLabels(("a", "b")), hidden_size=4)
    found = model.state_gradients(torch.randn(3, 7, 2), lambda logits: logits[:, 4].sum())
    assert found[:5].gt(0).all() and not found[5:].any()


def test_a_bidirectional_network_has_no_state_gradients():
    model = RNN(in_features=3, num_classes=2, bidirectional=True)
    assert not model.shows_state_gradients and language_model().shows_state_gradients
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
@pytest.mark.parametrize("cell, activation", KINDS)
def test_every_parameter_gets_a_gradient(cell, activation, bidirectional):
    config = {"cell": cell, "activation": activation, "bidirectional": bidirectional}
    model = RNN(in_features=3, num_classes=2, hidden_size=8, num_layers=2, **config)
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


def test_the_smallest_nucleus_is_greedy():
    model, prompt = language_model(), torch.zeros(2, 1, dtype=torch.int64)
    texts = [model.generate(prompt, length=9, **way) for way in ({"top_p": 1e-9}, {"temperature": 0})]
    assert torch.equal(*texts)


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


def equations(cell, activation, layer, steps):
    """States (T, H) of one layer, as the docstring has them, biases included; weights as torch orders them."""
    weights = {name.split("_l0")[0]: weight for name, weight in layer.items()}
    h = c = torch.zeros(weights["weight_hh"].shape[1], dtype=steps.dtype)
    states = []
    for x in steps:
        w = (weights["weight_ih"] @ x + weights["bias_ih"]).split(len(h))
        u = (weights["weight_hh"] @ h + weights["bias_hh"]).split(len(h))
        if cell == "rnn":
            h = getattr(torch, activation)(w[0] + u[0])
        elif cell == "lstm":
            i, f, o = (torch.sigmoid(w[k] + u[k]) for k in (0, 1, 3))
            c = f * c + i * torch.tanh(w[2] + u[2])
            h = o * torch.tanh(c)
        else:
            r, z = torch.sigmoid(w[0] + u[0]), torch.sigmoid(w[1] + u[1])
            h = (1 - z) * torch.tanh(w[2] + r * u[2]) + z * h
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("cell, activation", KINDS)
def test_states_follow_the_equations_of_the_docstring(cell, activation):
    torch.manual_seed(0)
    config = {"cell": cell, "activation": activation, "hidden_size": 4, "num_layers": 3}
    recurrent = RNN(in_features=3, num_classes=2, **config).recurrent
    for parameter in recurrent.parameters():
        nn.init.normal_(parameter, std=0.5)
    steps, inner = torch.randn(2, 6, 3), getattr(recurrent, "tanh", recurrent)
    for states, x in zip(recurrent(steps)[0], steps, strict=True):
        for k in range(3):
            x = equations(
                cell, activation, {n[:-1] + "0": p for n, p in inner.named_parameters() if n[-1] == str(k)}, x
            )
        torch.testing.assert_close(states, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell, activation", KINDS)
def test_bidirectional_states_follow_the_equations_too(cell, activation):
    torch.manual_seed(0)
    config = {"cell": cell, "activation": activation, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
    recurrent = RNN(in_features=3, num_classes=2, **config).recurrent
    for parameter in recurrent.parameters():
        nn.init.normal_(parameter, std=0.5)
    steps = torch.randn(2, 6, 3)
    for states, x in zip(recurrent(steps), steps, strict=True):
        for pair in zip(recurrent.forwards, recurrent.backwards, strict=True):
            there, back = (dict(getattr(layer, "tanh", layer).named_parameters()) for layer in pair)
            parts = equations(cell, activation, there, x), equations(cell, activation, back, x.flip(0)).flip(0)
            x = torch.cat(parts, dim=1)
        torch.testing.assert_close(states, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_layers_are_those_of_torch(cell):
    ours = RNN(in_features=3, num_classes=2, cell=cell, hidden_size=4, num_layers=2, bidirectional=True).recurrent
    torchs = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell](3, 4, 2, batch_first=True, bidirectional=True)
    weights = {}
    for name, weight in ours.named_parameters():
        way, layer, rest = name.split(".")
        weights[rest[:-1] + layer + ("_reverse" if way == "backwards" else "")] = weight.detach()
    torchs.load_state_dict(weights)
    steps = torch.randn(2, 6, 3)
    packed = nn.utils.rnn.pack_padded_sequence(steps, torch.tensor([6, 4]), batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(torchs(packed)[0], batch_first=True)
    found = ours(steps, torch.tensor([6, 4]))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :4], expected[1, :4])


def test_a_sigmoid_network_continues_from_a_state():
    recurrent = RNN(in_features=3, num_classes=2, activation="sigmoid", hidden_size=4, num_layers=2).recurrent
    steps = torch.randn(2, 6, 3)
    states, last = recurrent(steps)
    _, middle = recurrent(steps[:, :4])
    rest, end = recurrent(steps[:, 4:], middle)
    torch.testing.assert_close(rest, states[:, 4:])
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cell": "elman"}, "cell=elman is no choice. There are: rnn lstm gru"),
        ({"cell": "gru", "activation": "relu"}, "activation=relu is no choice. There are: tanh"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"cell": "lstm", "activation": "sigmoid"}, "activation=sigmoid is no choice. There are: tanh"),
        ({"vocab_size": 5}, "either in_features .* vocab_size .* or frame_shape"),
        ({"in_features": None, "frame_shape": (1, 3, 8)}, "Videos of 3x8 pixels are too small"),
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
        ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"top_p": 1.1}, "top_p=1.1 must be above 0"),
    ],
)
def test_an_impossible_argument_of_generate_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        language_model().generate(**{"prompt": torch.zeros(1, 1, dtype=torch.int64), "length": 2, **wrong})
