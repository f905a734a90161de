"""Few-shot classification: prompts of examples, the most probable answer, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN
from epochal.data import SentenceData
from epochal.data.tokenizers import Characters, HuggingFace, Words, to_huggingface
from epochal.inference import few_shot as module
from epochal.inference.few_shot import Prompts, accuracy, beginning, few_shot, shots_of

CPU = torch.device("cpu")


class Copies(nn.Module):
    """Whatever token stands in the text so far is likely to come again."""

    def __init__(self, vocab_size: int, context_length: int | None = None) -> None:
        super().__init__()
        self.vocab_size, self.context_length = vocab_size, context_length

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        return nn.functional.one_hot(tokens, self.vocab_size).cumsum(1).clamp(max=1) * 3.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> SentenceData:
    """Texts that hold the name of their class."""
    file = tmp_path_factory.mktemp("texts") / "reviews.csv"
    lines = [f"this film {number} is {word},{word}" for number in range(60) for word in ("good", "bad")]
    file.write_text("sentence,label\n" + "\n".join(lines))
    made = SentenceData(name="reviews", path=str(file), batch_size=4, min_count=1)
    made.learns = "classes"
    made.prepare()
    return made


def test_a_prompt_has_examples_with_their_answers_and_begins_as_texts_do():
    letters = Characters.learn(["abcdyn\n"])
    prompts = Prompts.of(letters, ["y", "n"], beginning(letters, running=False))
    ids = prompts.written([("ab", 1), ("c", 0)], "d")
    assert ids[0] == BEGIN
    assert letters.decode(ids) == "ab\nn\n\nc\ny\n\nd\n"
    with pytest.raises(ConfigError, match="lacks these characters of the classes: 'x'"):
        Prompts.of(letters, ["x", "n"])


def test_a_prompt_begins_as_the_texts_that_the_network_learned_from():
    """Windows of running text have no BEGIN; a vocabulary with ids of its own comes with weights that know theirs."""
    letters = Characters.learn(["abcdyn\n"])
    assert beginning(letters, running=False) == [BEGIN]
    assert beginning(letters, running=True) == letters.encode("\n").tolist()
    assert beginning(Characters.learn(["abc"]), running=True) == [BEGIN], "which has no new line"
    assert beginning(Characters("\nabc", reserved=0), running=False) == [0]
    own = HuggingFace(to_huggingface(letters))
    assert beginning(own, running=True) == [own.ids.begin]


def test_the_answer_that_is_the_most_probable_as_a_whole_is_taken():
    class Fixed(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            torch.manual_seed(0)
            return torch.randn(9).expand(*tokens.shape, 9) + nn.functional.one_hot(tokens, 9)  # by the token before

    prompts, answers = [[1, 2], [3], [4, 5, 6]], [[7], [8, 1]]
    scores = torch.zeros(3, 2)
    for i, prompt in enumerate(prompts):
        for j, answer in enumerate(answers):
            row = torch.tensor([[*prompt, *answer]])
            logs = Fixed()(row).log_softmax(-1)[0]
            scores[i, j] = sum(logs[len(prompt) - 1 + k, token] for k, token in enumerate(answer))
    labels = scores.argmax(1).tolist()
    assert accuracy(Fixed(), prompts, answers, labels, CPU) == 1
    assert accuracy(Fixed(), prompts, answers, [1 - label for label in labels], CPU) == 0


def test_a_model_that_repeats_words_tells_the_classes_without_examples(data: SentenceData, monkeypatch: Any):
    model = Copies(len(data.tokenizer))
    metrics, artifacts = few_shot(model, data, [0, 1, 2], None, CPU)
    assert metrics["test/shots_0/accuracy"] == 1
    assert set(metrics) == {f"test/shots_{which}/accuracy" for which in ("0", "1", "2", "2_permuted")}
    assert [row[0] for row in artifacts.table] == ["examples", "0", "1", "2"]
    assert artifacts.table[2][2] == "", "one label has no other order"
    assert artifacts.profiles["few_shot"].positions == [0, 1, 2]
    monkeypatch.setattr(module, "QUESTIONS", 3)
    assert few_shot(model, data, [0], ["bad", "good"], CPU)[1].table[1][-1] == "3"


def test_examples_are_training_texts_of_all_classes_and_permuting_keeps_their_labels(data: SentenceData):
    for row in range(5):
        examples = module._examples(data, row, 4, permuted=False)
        assert sorted(label for _, label in examples) == [0, 0, 1, 1]
        assert all(data.classes.names[label] in text for text, label in examples)
        permuted = module._examples(data, row, 4, permuted=True)
        assert [text for text, _ in permuted] == [text for text, _ in examples]
        assert sorted(label for _, label in permuted) == [0, 0, 1, 1]
    assert any(
        module._examples(data, row, 4, permuted=True) != module._examples(data, row, 4, permuted=False)
        for row in range(5)
    )


def test_no_example_is_the_question_and_none_stands_twice_while_there_are_others(data: SentenceData, monkeypatch: Any):
    for row in range(12):
        texts = [text for text, _ in module._examples(data, row, 6, permuted=False)]
        assert len({*texts}) == 6 and data.text("test", row) not in texts
    monkeypatch.setattr(data, "text", lambda split, row: "the same")
    with pytest.raises(ConfigError, match="no training text of the class .* but the question itself"):
        module._examples(data, 0, 2, permuted=False)


def test_prompts_longer_than_the_model_reads_say_what_would_fit(data: SentenceData):
    with pytest.raises(ConfigError, match=r"shots=4 makes a prompt of \d+ tokens.* 16 at once; shots=0 would fit"):
        few_shot(Copies(len(data.tokenizer), context_length=16), data, [0, 4], None, CPU)
    with pytest.raises(ConfigError, match="label_words has good for two classes"):
        few_shot(Copies(len(data.tokenizer)), data, [0], ["good", "good"], CPU)
    with pytest.raises(ConfigError, match="label_words has 3 words for the 2 classes"):
        few_shot(Copies(len(data.tokenizer)), data, [0], ["a", "b", "c"], CPU)


@pytest.mark.parametrize("shots", [[0, -1], "many", [1.5], [True], []])
def test_wrong_numbers_of_examples_are_refused(shots: Any):
    with pytest.raises(ConfigError, match="must be whole numbers of zero or more"):
        shots_of(OmegaConf.create({"shots": shots}))


def test_class_words_that_the_vocabulary_cannot_tell_apart():
    words = Words.learn(["a good film", "a bad film"], vocab_size=100, min_count=1)
    with pytest.raises(ConfigError, match="does not know awful, which stands for a class; choose others"):
        Prompts.of(words, ["good", "awful"])
    with pytest.raises(ConfigError, match="Good and good are the same tokens in the vocabulary"):
        Prompts.of(words, ["Good", "good"])
    assert len(Prompts.of(words, ["good", "bad"]).answers) == 2
