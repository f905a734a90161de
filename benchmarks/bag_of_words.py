"""What a bag of words and word vectors without a network reach on the sentences of `experiment=pretrain_finetune`.

    python benchmarks/bag_of_words.py

Both are a logistic regression on the same labelled training sentences as the experiment's runs, with as many words as are in
them (bag) or in all training sentences (vectors). The bag counts each word. The vectors are learned from all training
sentences without their labels: positive pointwise mutual information of words within a few words of each other, of which the
largest singular vectors are kept (Levy and Goldberg 2014), and a sentence is the mean of its words. How much the weights are held
down is chosen on validation, as the runs choose their checkpoint. The decomposition's random start has a fixed seed: there is
one number for each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DATASETS, LABELS = ("swapped_words", "sst2"), (100, 1000, 10_000)
SIZE, WINDOW = 100, 5  # of the vectors; words on either side
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1)  # of the mean loss, half the squared norm of the weights times this


def data(name: str, labels: int | None):
    """The data set with this many labelled training sentences, whole words as tokens."""
    from hydra.utils import instantiate

    from epochal.config.compose import compose

    overrides = [
        f"dataset={name}",
        "task=classification",
        "model=bert",
        "dataset.tokenizer=word",
        "dataset.batch_size=32",
    ]
    made = instantiate(compose([*overrides, f"dataset.train_size={'null' if labels is None else labels}"]).dataset)
    made.learns = "classes"
    made.prepare()
    return made


def sentences(dataset, split: str, tokenizer) -> tuple[list[Tensor], Tensor]:
    """Ids of the words of each sentence, and the labels (N,)."""
    labels = dataset._rows[split].labels
    return [
        torch.from_numpy(tokenizer.encode(dataset._texts[split].text(n))).long() for n in range(len(labels))
    ], labels


def counts(texts: list[Tensor], words: int) -> Tensor:
    """How often each word is in each sentence, (N, words), sparse."""
    rows = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(text) for text in texts]))
    places = torch.stack([rows, torch.cat(texts)])
    return torch.sparse_coo_tensor(places, torch.ones(places.shape[1]), (len(texts), words)).coalesce()


def vectors(texts: list[Tensor], words: int) -> Tensor:
    """A vector for each word, (words, SIZE), from which words stand near each other."""
    pairs = [
        torch.stack([text[:-off], text[off:]]) for text in texts for off in range(1, WINDOW + 1) if len(text) > off
    ]
    near = torch.cat(pairs, dim=1)
    near = torch.cat([near, near.flip(0)], dim=1)
    together = torch.sparse_coo_tensor(near, torch.ones(near.shape[1]), (words, words)).coalesce()
    single, (left, right) = together.sum(1).to_dense(), together.indices()
    mutual = (together.values() * single.sum() / (single[left] * single[right])).log().clamp(min=0)
    table = torch.sparse_coo_tensor(together.indices(), mutual, (words, words)).coalesce()
    torch.manual_seed(0)  # the decomposition begins with a random matrix
    left_vectors, sizes, _ = torch.svd_lowrank(table, SIZE, niter=4)
    return left_vectors * sizes.sqrt()


def fitted(inputs: Tensor, labels: Tensor, decay: float) -> nn.Linear:
    """The logistic regression of labels in {0, 1}, to its minimum."""
    model = nn.Linear(inputs.shape[1], 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.mm(inputs, model.weight.T)[:, 0] + model.bias
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        loss = loss + 0.5 * decay * model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@torch.no_grad()
def error(model: nn.Linear, inputs: Tensor, labels: Tensor) -> float:
    """The fraction of wrong answers."""
    logits = torch.mm(inputs, model.weight.T)[:, 0] + model.bias
    return float(((logits > 0) != (labels == 1)).float().mean())


def test_error(inputs: dict[str, Tensor], labels: dict[str, Tensor]) -> float:
    """On test, of the regression that is best on validation."""
    models = [fitted(inputs["train"], labels["train"], decay) for decay in DECAYS]
    best = min(models, key=lambda model: error(model, inputs["val"], labels["val"]))
    return error(best, inputs["test"], labels["test"])


def main() -> None:
    splits = ("train", "val", "test")
    for name in DATASETS:
        everything = data(name, None)
        tokenizer = everything.tokenizer
        words = vectors(sentences(everything, "train", tokenizer)[0], len(tokenizer))
        for number in LABELS:
            dataset = data(name, number)
            found = {split: sentences(dataset, split, tokenizer) for split in splits}
            labels = {split: found[split][1] for split in splits}
            bags = {split: counts(found[split][0], len(tokenizer)) for split in splits}
            lengths = {split: bags[split].sum(1).to_dense().clamp(min=1)[:, None] for split in splits}
            means = {split: torch.sparse.mm(bags[split], words) / lengths[split] for split in splits}
            center, scale = means["train"].mean(0), means["train"].std()
            means = {split: (means[split] - center) / scale for split in splits}
            bag, vector = test_error(bags, labels), test_error(means, labels)
            print(
                f"{name:14} {number:6,} labels: test error {bag:.4f} bag of words, {vector:.4f} word vectors",
                flush=True,
            )


if __name__ == "__main__":
    main()
