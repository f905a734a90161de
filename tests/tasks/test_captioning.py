from types import SimpleNamespace

import torch
from PIL import Image

from epochal.data import Batch
from epochal.tasks import Captioning
from helpers.training import train

OPTIONS = {"model": torch.nn.Identity(), "optimizer": None, "scheduler": None, "total_steps": 1}


def test_one_caption_is_generated_for_each_image_and_each_of_its_own_is_a_reference():
    rows = SimpleNamespace(image=torch.tensor([3, 3, 7, 3]))
    data = SimpleNamespace(
        rows=lambda split: (rows, 4),
        references=lambda split: ["a", "b", "c", "d"],
        lengths=lambda split: None,
        eval_batch_size=2,
    )
    task = Captioning(**OPTIONS)
    task.trainer = SimpleNamespace(datamodule=data, num_test_batches=[2])
    numbers = task.rows_to_generate("test")
    assert numbers.tolist() == [0, 2]
    assert task.references("test", numbers) == [["a", "b", "d"], ["c"]]
    task.trainer.num_test_batches = [1]  # trainer.limit_test_batches=1
    assert task.rows_to_generate("test").tolist() == [0]


def test_images_have_no_source_tokens():
    assert Captioning(**OPTIONS).source_tokens(Batch(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3), 0)) == 0


def test_a_run_writes_captions_and_attention(home):
    job = train(
        *("model=captioner", "dataset=digit_captions", "dataset.source=digits", "dataset.length=2"),
        *("dataset.train_size=64", "dataset.validation=12", "dataset.test=12", "dataset.batch_size=8"),
        *("duration=2steps", "logger=none"),
    )
    assert {"test/exact", "test/bleu", "test/perplexity"} <= set(job.task.measured)
    assert (job.run.pictures / "test_captions.txt").read_text().count("caption ") == 12
    for name in ("test_captions.png", "test_attention.png", "captions_000002.png"):
        assert min(Image.open(job.run.pictures / name).size) > 100
