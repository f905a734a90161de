"""Wrong input ends in one plain sentence and exit status 2, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from conftest import ROOT
from epochal.config.allowlist import ALLOWED, check_targets
from epochal.core.errors import ConfigError
from epochal.data.cache import cache_root
from helpers.samples import image_folder, image_npz, text_file, text_parquet

IMAGES = ("dataset=images", "dataset.batch_size=2", "duration=2steps")
TEXT = ("model=gpt", "dataset=text", "duration=2steps")

# a "billion laughs": ten times ten times ten ... values, in half a kilobyte
LAUGHS = "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
WRONG_CHOICES = {
    "an unknown model": (["model=resent"], ["model=resent is no model.", "Did you mean resnet?", "lenet"]),
    "an unknown data set": (["dataset=digts"], ["dataset=digts is no dataset.", "Did you mean digits?", "mnist"]),
    "an unknown key": (["optimizer.lrr=1"], ["no key optimizer.lrr.", "Did you mean optimizer.lr?", "weight_decay"]),
    "an unknown group": (["optimzer.lr=1"], ["no key optimzer.lr.", "Did you mean optimizer.lr?"]),
    "an unknown key at the top": (["durations=1epoch"], ["no key durations.", "Did you mean duration?"]),
    "another model's key": (["model.depth=8"], ["no key model.depth in this choice of model", "model=resnet"]),
    "another task's key": (
        ["task.sample_length=9"],
        ["no key task.sample_length", "task=language_modeling or ", "would have it"],
    ),
    "an unknown key of the task that is chosen": (
        ["task.label_smothing=0.1"],
        ["task.label_smothing", "label_smoothing?"],
    ),
    "a key that nothing reads": (["+nonsense=3"], ["There is no key nonsense: nothing reads it."]),
    "a callback that is misspelt": (
        ["+callbacks.early_stoping=3"],
        ["callbacks.early_stoping. Did you mean early_stopping?"],
    ),
    "a logger's name as its key": (["logger.name=csv"], ["no key logger.name. Did you mean logger=csv?"]),
    "an argument of Lightning's that is set otherwise": (["+trainer.max_epochs=3"], ["give duration=5epochs"]),
    "an added key of the optimiser": (["+optimizer.momentum=3"], ["optimizer=adamw takes no momentum."]),
    "no folder of configs": (["--config-dir", "nowhere"], ["no folder nowhere of configs"]),
    "another config": (["--config-name=mine"], ["--config-name is no option here", "--config-dir"]),
    "an added key of the data": (["+dataset.flipp=true"], ["no key dataset.flipp.", "Did you mean flip?"]),
    "an added key of the model": (["+model.foo=1"], ["There is no key model.foo."]),
    "an added key of the trainer": (["+trainer.foo=1"], ["There is no key trainer.foo."]),
    "a number as a model": (["model=5"], ["model=5 is no model.", "lenet"]),
    "no model": (["model=null"], ["model=null is no model.", "lenet"]),
    "a model that reads something else": (["model=gpt"], ["reads tokens", "digits yields images", "lenet", "resnet"]),
    "a task that the pair cannot do": (
        ["task=language_modeling"],
        ["task=language_modeling does not fit model=lenet on dataset=digits", "classification, or auto"],
    ),
    "a depth that is not 6n+2": (["model=resnet", "model.depth=21"], ["depth=21 is not 6n + 2", "20 and 26"]),
    "an option that is none": (["model.activation=sigmoid"], ["activation=sigmoid is no choice", "relu tanh"]),
    "a VGG of another depth": (["model=vgg", "model.depth=12"], ["depth=12 was not published", "11 13 16 19"]),
    "a variant that was not published": (
        ["model=efficientnet", "model.variant=b9"],
        ["variant=b9 is no choice", "b0 b1 b2 b3 b4 b5 b6 b7"],
    ),
    "a patch that does not divide the image": (
        ["model=vit", "dataset.image_size=32", "model.patch_size=5"],
        ["patch_size=5 does not divide 32x32", "1, 2, 4, 8, 16, 32 do"],
    ),
    "no beams": (
        ["model=seq2seq", "dataset=reverse", "task=translation", "task.beam_size=0"],
        ["beam_size=0 must be a whole number from 1 to 1,000."],
    ),
    "a network that reads one thing for two": (
        ["model=gpt", "dataset=multi30k"],
        [
            "but dataset=multi30k teaches translation",
            "seq2seq, seq2seq_attention, transformer",
        ],
    ),
    "one language twice": (["model=seq2seq", "dataset=multi30k", "dataset.target=de"], ["are both de"]),
    "an attention that is none": (
        ["model=seq2seq", "dataset=reverse", "model.attention=sum"],
        ["attention=sum is no choice", "none additive dot"],
    ),
    "a sequence of no length": (["model=lstm", "dataset=copy", "dataset.length=0"], ["dataset.length=0 must be"]),
    "own words fed to a network that cannot": (
        ["model=transformer", "dataset=reverse", "task=translation", "task.teacher_forcing=0.5"],
        ["teacher_forcing=0.5", "seq2seq"],
    ),
    "a branch that is none": (["model=googlenet", "model.branches=[2x2]"], ["2x2", "1x1 3x3 5x5 pool"]),
    "a width of nothing": (["model=vgg", "model.width=0", "dataset.image_size=32"], ["width=0 must be above 0"]),
    "a shift that is no list": (["task=classification", "task.shifts=2"], ["shifts=2 must be a list of numbers"]),
    "a shift backwards": (["task=classification", "task.shifts=[1,-2]"], ["shifts=[1, -2] must be a list"]),
    "noise of nothing": (["task=classification", "task.noises=[0]"], ["noises=[0] must be a list"]),
    "noise without end": (["task=classification", "task.noises=[inf]"], ["noises=[inf] must be a list"]),
    "labels smoothed away": (
        ["task=classification", "task.label_smoothing=5"],
        ["task=classification: label_smoothing=5 must be a number of at least 0 and below 1."],
    ),
    "labels smoothed beyond a half": (
        ["model=gan", "task=adversarial", "task.label_smoothing=0.6"],
        ["task=adversarial: label_smoothing=0.6 must be a number of at least 0 and at most 0.5."],
    ),
    "two batches a step of a GAN": (
        ["model=gan", "trainer.accumulate_grad_batches=2"],
        ["trainer.accumulate_grad_batches does not go with a GAN, which steps two optimisers a batch."],
    ),
    "nothing hidden": (
        ["model=vit", "task=masked_patch", "task.mask_ratio=0"],
        ["mask_ratio=0 must be between 0 and 1"],
    ),
    "pretrained weights of a network that has none": (["+model.pretrained=true"], ["torchvision has no weights"]),
    "a tokenizer that is none": (
        [*TEXT, "dataset.path=/", "dataset.tokenizer=word"],
        ["dataset.tokenizer=word is no tokenizer", "character byte bpe"],
    ),
    "a word for a number": (["dataset.batch_size=abc"], ["dataset.batch_size=abc is not a number."]),
    "a number for yes or no": (["dataset.flip=3"], ["dataset.flip=3 must be true or false."]),
    "a fraction of an image": (["dataset.batch_size=2.5"], ["dataset.batch_size=2.5 must be a whole number."]),
    "a fraction of a pixel": (["dataset.image_size=2.5"], ["dataset.image_size=2.5 must be a whole number."]),
    "nothing for a number": (["dataset.batch_size=null"], ["dataset.batch_size must have a value."]),
    "no seed": (["seed=null"], ["seed must have a value."]),
    "no validation": (["dataset.validation=null"], ["dataset.validation must have a value."]),
    "a value taken away": (["~optimizer.lr"], ["optimizer.lr must have a value."]),
    "a duration that is none": (["duration=soon"], ["duration=soon is no duration", "5epochs"]),
    "a duration without end": (["duration=999999999999999epochs"], ["would never end; 1e+12 is the most"]),
    "a rate that is infinite": (["optimizer.lr=inf"], ["optimizer.lr=inf is no finite number"]),
    "a bound that is no number": (
        ["trainer.gradient_clip_val=nan"],
        ["trainer.gradient_clip_val=nan is no finite number"],
    ),
    "a duration of nothing": (["duration=0steps"], ["duration=0steps is no duration"]),
    "a word that is no argument": (["lenet"], ["The argument lenet is no key=value.", "Did you mean model=lenet?"]),
    "an unreadable argument": (["model.hidden=[1"], ["The argument model.hidden=[1 cannot be read"]),
    "a reference to nowhere": (["output_dir=${nowhere}"], ["Interpolation key 'nowhere' not found"]),
    "a batch of none": (["dataset.batch_size=0"], ["dataset.batch_size=0 must be above zero."]),
    "a negative batch": (["dataset.batch_size=-4"], ["dataset.batch_size=-4 must be above zero."]),
    "an image of no size": (["dataset.image_size=0"], ["dataset.image_size=0 must be above zero."]),
    "a negative crop": (["dataset.crop_padding=-1"], ["dataset.crop_padding=-1 must be zero or more."]),
    "a window of no tokens": ([*TEXT, "dataset.context_length=0"], ["dataset.context_length=0 must be above zero."]),
    "a layer of no width": (["model=mlp", "model.hidden=[8,0]"], ["hidden[1]=0", "at least 1"]),
    "a learning rate of zero": (["optimizer.lr=0"], ["optimizer.lr=0 must be above zero."]),
    "one beta for two": (["optimizer.betas=3"], ["optimizer=adamw"]),
    "a negative warm-up": (["scheduler.warmup=-1"], ["scheduler=one_cycle", "-1"]),
    "a negative warm-up in steps": (
        ["scheduler=cosine", "scheduler.warmup=-3"],
        ["scheduler=cosine: warmup=-3 must be a number of at least 0 and finite."],
    ),
    "a rate that ends below zero": (["scheduler=cosine", "scheduler.final=-3"], ["final=-3 must be", "at most 1."]),
    "a cycle from below zero": (["scheduler.initial=-1"], ["initial=-1 must be above 0 and at most 1."]),
    "a rate that changes its sign": (
        ["scheduler=multistep", "scheduler.gamma=-1"],
        ["scheduler=multistep: gamma=-1 must be above 0 and finite."],
    ),
    "a momentum that grows": (["optimizer=sgd", "optimizer.momentum=5"], ["momentum=5 must be", "below 1."]),
    "a precision that is none": (["trainer.precision=99"], ["trainer=default", "99"]),
    "an average that forgets all": (["callbacks.ema=3"], ["callbacks.ema=3 must be between 0 and 1"]),
    "validation of 0": (["dataset.validation=0"], ["dataset.validation=0 must be a fraction between 0 and 1"]),
    "validation of 0.0": (["dataset.validation=0.0"], ["dataset.validation=0.0 must be a fraction between 0 and 1"]),
    "validation of 1.0": (["dataset.validation=1.0"], ["dataset.validation=1.0 must be a fraction between 0 and 1"]),
    "a test part of 1.5": (["dataset.test=1.5"], ["dataset.test=1.5 must be a fraction between 0 and 1"]),
    "validation on more than all": (["dataset.validation=1438"], ["dataset.validation=1438", "of 1,437 rows"]),
    "more to learn from than there is": (["dataset.train_size=5000"], ["dataset.train_size=5000", "of 1,294 rows"]),
    "a batch larger than the set": (
        ["dataset.batch_size=5000"],
        ["dataset.batch_size=5000 is larger than the 1,294 training rows of dataset=digits."],
    ),
    "no path": (["dataset=images"], ["dataset=images needs dataset.path="]),
    "a path that does not exist": (
        ["dataset=images", "dataset.path=/no/such"],
        ["dataset.path=/no/such does not exist"],
    ),
    "outputs in a file": ([f"output_dir={__file__}/x"], ["output_dir=", f"{__file__} is a file."]),
    "no outputs": (["output_dir=null"], ["output_dir must have a value."]),
    "no run to resume": (["resume=/no/such"], ["There is no run folder /no/such."]),
    "a file to resume": ([f"resume={__file__}"], [f"{__file__} is a file; a run is given by its folder"]),
    "a file to begin with": ([f"init_from={__file__}"], [f"{__file__} is a file; a run is given by its folder"]),
    "a number to resume": (["resume=5"], ["There is no run folder 5."]),
    "a folder to resume that is no run's": (["resume=/etc"], ["/etc is not a run folder: it has no config.yaml."]),
}


SEEDS = "must be a whole number from 0 to 4294967295"
SIZES = {
    "seed=4294967296": [SEEDS],
    "seed=1e3": [SEEDS],
    "seed=-1": [SEEDS],
    "dataset.split_seed=-1": [SEEDS],
    "dataset.split_seed=1e20": [SEEDS],
    "threads=100000": ["at most 1024"],
    "dataset.eval_batch_size=1000000000000": ["at most 2147483647"],
    "model.hidden=[100000000000]": ["parameters", "this machine has"],
    "model.hidden=[4000000000000000000]": ["too large"],
    "model.hidden=[10000000000000000000]": ["too large"],
    "trainer.val_check_interval=0": ["must be above zero"],
    "+trainer.limit_train_batches=0": ["must be above zero"],
    "trainer.limit_val_batches=-1": ["must be zero or more"],
    "+trainer.fast_dev_run=true": ["give trainer=debug"],
    "trainer.fast_dev_run=true": ["give trainer=debug"],
    "+trainer.overfit_batches=1": ["give trainer=overfit"],
    "trainer.max_epochs=5": ["give duration=5epochs"],
}


@pytest.mark.parametrize("argument", SIZES)
def test_wrong_seeds_sizes_and_limits(refuse, argument):
    refuse(
        "train",
        "model=mlp",
        argument,
        "logger=none",
        says=(argument.lstrip("+").split("=")[0].split(".")[0], *SIZES[argument]),
    )


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("logger.wandb.project=a/b", "none of / "),
        ("logger.wandb.project=", "1 to 128 characters"),
        ("logger.wandb.tags=sweep", "tags=sweep must be a list"),
        ("logger.wandb.tags=['']", "1 to 64 characters"),
        (f"logger.wandb.tags=[{70 * 'a'}]", "1 to 64 characters"),
        (f"logger.wandb.group={129 * 'a'}", "1 to 128 characters"),
    ],
)
@pytest.mark.parametrize("many", [[], ["-m", "seed=1,2"]])
def test_settings_that_wandb_refuses(refuse, argument, says, many):
    refuse("train", "model=mlp", *many, argument, says=(says,), lines=2 if many else 1)


def test_a_mode_that_wandb_does_not_have(refuse, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "off")
    refuse("train", "model=mlp", says=("WANDB_MODE=off is no mode of W&B", "offline", "logger=none"))


@pytest.mark.parametrize(("name", "value"), [("PROJECT", "a/b"), ("RUN_ID", "a/b")])
def test_variables_that_wandb_refuses(refuse, monkeypatch, name, value):
    monkeypatch.setenv(f"WANDB_{name}", value)
    refuse("train", "model=mlp", says=("W&B refuses one of the environment's variables WANDB_...:",))


@pytest.mark.parametrize("variable", ["RANK=x", "SLURM_PROCID=-1", "WORLD_SIZE=", "LOCAL_RANK=1.5"])
def test_ranks_that_are_no_numbers(refuse, monkeypatch, variable):
    monkeypatch.setenv(*variable.split("="))
    refuse("train", "model=mlp", "logger=none", says=(f"{variable} must be a number; unset it.",))


@pytest.mark.parametrize("script", ["train", "evaluate", "compare"])
def test_a_folder_that_was_deleted(refuse, home, script):
    home.rmdir()
    refuse(script, says=("The current folder was deleted; change to one that is there.",))


def test_outputs_with_too_long_a_name(refuse):
    refuse(
        "train", "model=mlp", "logger=none", f"output_dir={300 * 'x'}", says=("cannot be written (File name too long)",)
    )


def test_a_cache_of_nobody(refuse, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", "~nobody-of-this-name/cache")
    refuse("train", "model=mlp", "logger=none", says=("home folder of a user who is not there",))


def test_no_home_folder(monkeypatch):
    def nobody(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("EPOCHAL_CACHE", "")
    monkeypatch.setattr("platformdirs.user_cache_path", nobody)
    with pytest.raises(ConfigError, match="no home folder for the cache; set HOME, or EPOCHAL_CACHE"):
        cache_root()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("logger.project=x", ["Did you mean logger.wandb.project?"]),
        ("logger=[wandb,cvs]", ["logger=cvs is no logger.", "Did you mean csv?"]),
        ("+logger.wandb.projct=x", ["no key logger.wandb.projct. Did you mean project?"]),
        ("+logger.mine=3", ["no key logger.mine.", "logger.mine._target_=package.Class"]),
    ],
)
def test_wrong_loggers(refuse, argument, says):
    refuse("train", argument, says=says)


@pytest.mark.parametrize(
    "line, says",
    [
        ("model=plain model.shortcut=B", "model.shortcut is not read with model.residual=false; it goes with"),
        ("model=cnn model.pool=none model.pool_size=3", "model.pool_size is not read with model.pool=none: leave one"),
        ("model=vit model.patch_size=2 model.input=small", "goes with model.patch_size=null."),
        ("model=rnn model.embed_dim=64", "model.embed_dim is not read here, as the data are no tokens or frames"),
        ("model=rnn model.scan=rows dataset=python_stdlib", "model.scan is not read here, as the data are no images"),
        ("model=llama model.positions=learned model.rope_base=500.0 dataset=python_stdlib", "model.positions=rotary."),
        ("model=gan task.gradient_penalty=1.0", "goes with task.objective=wasserstein_gp."),
        ("model=gpt dataset=python_stdlib task.beam_size=3 task.samples=4", "goes with task.beam_size=1."),
        ("model=gpt dataset=python_stdlib task.temperature=0 task.top_k=4", "task.top_k is not read with task.temp"),
        ("model=gpt dataset=python_stdlib dataset.vocab_size=500", "dataset.tokenizer=byte; it goes with dataset.tok"),
        (
            "model=gpt dataset=python_stdlib dataset.validation=0.1",
            "is not read by dataset=python_stdlib: leave it out",
        ),
        ("model=lstm dataset=sst2 dataset.tokenizer=bpe dataset.min_count=3", "it goes with dataset.tokenizer=word."),
        ("model=transformer dataset=reverse task.beam_size=1 task.length_penalty=0", "leave one of the two out."),
    ],
)
def test_options_that_would_not_be_read(refuse, line, says):
    refuse("train", *line.split(), "logger=none", says=[says])


LORA = "model=bert dataset=sst2 init_from=x finetune"


@pytest.mark.parametrize(
    "line, says",
    [
        (f"{LORA}=lora", "finetune=lora is no choice; LoRA is finetune.lora.rank=8"),
        (f"{LORA}.lora=8", "finetune.lora=8 is no choice"),
        (f"{LORA}.lora.rank=0", "finetune.lora.rank=0 must be a whole number, 1 or more."),
        (f"{LORA}.lora.rank=2.5", "finetune.lora.rank=2.5 must be a whole number"),
        (f"{LORA}.lora.rank=2 finetune.lora.alpha=0", "finetune.lora.alpha=0 must be a number above 0"),
        (f"{LORA}.lora.rank=2 finetune.lora.targets=qkv", "finetune.lora.targets=qkv must be a list of names"),
        (f"{LORA}.lora.rank=2 finetune.lora.targets=null", "finetune.lora.targets=null must be a list of names"),
        ("model=gan init_from=x finetune.lora.rank=2", "finetune.lora does not go with a GAN"),
        ("model=gpt dataset=python_stdlib init_from=langauge_modeling", "Did you mean language_modeling?"),
        (
            "model=gpt dataset=python_stdlib init_from=language_modeling@sst3",
            "nor such a dataset. Did you mean sst2?",
        ),
        ("model=gpt dataset=text dataset.path=nofile.txt", "dataset.path=nofile.txt does not exist."),
        ("model=gpt dataset=text dataset.path=", "dataset.path= has no value; give one, or leave it out."),
        ("init_from={polciy: x}", "init_from.polciy is no network of this task. Did you mean policy?"),
        (
            "model=transformer dataset=reverse task.beam_size=100000",
            "beam_size=100000 must be a whole number from 1 to",
        ),
    ],
)
def test_weights_to_begin_with_and_paths(refuse, line, says):
    arguments = [line] if line.startswith("init_from={") else line.split()
    refuse("train", *arguments, "logger=none", says=[says])


def test_a_whole_number_may_be_typed_with_an_exponent(command, home):
    outcome = command("train", "model=mlp", "dataset.batch_size=1e2", "duration=1steps", "logger=none")
    assert outcome.status == 0, outcome.error
    (file,) = (home / "outputs").rglob("config.yaml")
    assert OmegaConf.load(file).dataset.batch_size == 100


def test_in_a_grid_an_option_is_for_the_choices_that_read_it(command, home):
    grid = "-m model=plain,resnet model.depth=8 model.shortcut=B optimizer.momentum=0.8 duration=1steps logger=none"
    outcome = command("train", *grid.split())
    assert outcome.status == 0, outcome.error
    configs = [OmegaConf.load(file) for file in (home / "outputs").rglob("config.yaml")]
    assert sorted((c.model.name, c.model.depth, c.optimizer.momentum) for c in configs) == [
        ("plain", 8, 0.8),
        ("resnet", 8, 0.8),
    ]


@pytest.mark.parametrize("arguments, says", WRONG_CHOICES.values(), ids=WRONG_CHOICES)
def test_wrong_choice(refuse, arguments, says):
    refuse("train", *arguments, "logger=none", says=says)


def test_all_conflicts_are_told_at_once(refuse):
    wrong = {
        "model.depth=21": "depth=21 is not 6n + 2",
        "dataset.batch_size=-1": "dataset.batch_size=-1 must be above zero.",
        "dataset.validation=1.0": "dataset.validation=1.0 must be a fraction",
        "duration=soon": "duration=soon is no duration",
        "optimizer.lr=0": "optimizer.lr=0 must be above zero.",
        "scheduler.warmup=7.5": "scheduler=one_cycle",
        f"output_dir={__file__}/x": "is a file",
    }
    refuse("train", "model=resnet", *wrong, says=wrong.values(), lines=len(wrong))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write to")
@pytest.mark.parametrize("many", [[], ["-m"]])
def test_unwritable_outputs(refuse, many):
    refuse(
        "train",
        *many,
        "output_dir=/proc/epochal",
        "logger=none",
        says=("/proc/epochal", "cannot be written", "output_dir="),
    )


# -- data -----------------------------------------------------------------------------------------------------------


def test_missing_data_folder_offline_names_where_to_put_it(refuse, tmp_path, monkeypatch):
    offline = ("not on this machine and the Hub cannot be reached", "train.parquet", "dataset=digits")
    refuse("train", *IMAGES, "dataset.path=nobody/flowers", says=(*offline, "$EPOCHAL_DATA/flowers"))
    refuse("train", *TEXT, "dataset.path=nobody/poems", says=(*offline, "$EPOCHAL_DATA/poems"))
    (tmp_path / "copies").mkdir()
    monkeypatch.setenv("EPOCHAL_DATA", str(tmp_path / "copies"))
    refuse("train", *IMAGES, "dataset.path=nobody/flowers", says=(*offline, f"{tmp_path / 'copies'}/flowers"))


def test_epochal_data_that_is_no_folder(refuse, monkeypatch):
    monkeypatch.setenv("EPOCHAL_DATA", "/no/such")
    refuse("train", *IMAGES, "dataset.path=nobody/flowers", says=("EPOCHAL_DATA=/no/such is no folder",))


def test_empty_data_folder(refuse, home):
    (home / "photos" / "cat").mkdir(parents=True)
    refuse("train", *IMAGES, "dataset.path=photos", says=(f"The folder {home / 'photos'} is empty", "dataset=images"))


def test_folder_without_classes(refuse, home):
    (image_folder(home / "photos") / "cat").rename(home / "flat")
    refuse(
        "train", *IMAGES, "dataset.path=flat", says=("flat has no column", "labels", "a folder in it for each class")
    )


@pytest.mark.parametrize(
    "option, says",
    [
        ("image_column=picture", ["image_column=picture is no column of photos.", "It has: image, label."]),
        ("label_column=lable", ["label_column=lable is no column of photos.", "Did you mean label?"]),
        ("image_column=label", ["The column label of photos holds no images", "dataset.image_column"]),
    ],
)
def test_wrong_image_column(refuse, photos, option, says):
    refuse("train", *IMAGES, "dataset.path=photos", f"dataset.{option}", says=says)


def test_wrong_text_column(refuse, home):
    path = f"dataset.path={text_parquet(home / 'text.parquet')}"
    refuse("train", *TEXT, path, "dataset.column=txt", says=("dataset.column=txt is no column", "Did you mean text?"))
    refuse("train", *TEXT, path, "dataset.column=n", says=("The column n", "holds no text", "dataset.column"))
    refuse("train", *IMAGES, path, says=("no column that looks like the images", "text, n", "dataset.image_column"))


@pytest.mark.parametrize("damage", [lambda old: b"no image", lambda old: old[: len(old) // 2], lambda old: b""])
def test_corrupted_image(refuse, home, damage):
    image_folder(home / "photos", side=32)
    file = home / "photos" / "dog" / "3.png"
    file.write_bytes(damage(file.read_bytes()))
    refuse(
        "train",
        *IMAGES,
        "dataset.path=photos",
        says=("Image 13 of photos, split train", str(file), "cannot be decoded"),
    )


def test_images_of_several_sizes(refuse, photos):
    image_folder(photos / "more", side=6)
    for name in ("cat", "dog"):
        (photos / "more" / name / "0.png").rename(photos / name / "small.png")
    shutil.rmtree(photos / "more")
    refuse("train", *IMAGES, "dataset.path=photos", says=("2 different sizes", "dataset.image_size="))


@pytest.mark.parametrize(
    "model, says",
    [
        (["model=resnet"], ["model=resnet", "at least 4x4 pixels, not 2x2"]),
        (["model=cnn", "model.filters=[4,4]"], ["model=cnn", "leaves nothing of an image of 1x1 pixels"]),
        (["model=gan"], ["model=gan", "at least", "2x2"]),
        (["model=alexnet"], ["model=alexnet", "not 2x2: dataset.image_size=32"]),
        (["model=vgg"], ["model=vgg", "not 2x2: dataset.image_size=32"]),
        (["model=googlenet"], ["model=googlenet", "not 2x2: dataset.image_size=32"]),
        (["model=efficientnet"], ["model=efficientnet", "not 2x2: dataset.image_size=32"]),
    ],
)
def test_image_smaller_than_the_network_can_take(refuse, home, model, says):
    image_folder(home / "photos", side=2)
    refuse("train", *IMAGES, "dataset.path=photos", *model, says=says)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"no archive", ["no .npz file of arrays"]),
        ({"images": np.zeros((9, 8, 8), np.uint8)}, ["no array named labels", "it has: images"]),
        ({"images": np.zeros((9, 8, 8)), "labels": np.zeros(9, int)}, ["images must be uint8"]),
        ({"images": np.zeros((9, 8, 8), np.uint8), "labels": np.zeros(8, int)}, ["one label each"]),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0, -1])}, ["counted from 0"]),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0, 1]), "names": np.array(["zero"])},
            ["names 1 classes, but its labels go up to 1"],
        ),
    ],
)
def test_wrong_npz(refuse, home, content, says):
    if isinstance(content, bytes):
        (home / "set.npz").write_bytes(content)
    else:
        np.savez(home / "set.npz", **content)
    refuse("train", *IMAGES, "dataset.path=set.npz", says=("set.npz", *says))


def test_truncated_npz(refuse, home):
    file = image_npz(home / "set.npz")
    file.write_bytes(file.read_bytes()[:1000])
    refuse("train", *IMAGES, "dataset.path=set.npz", says=("set.npz is no .npz file of arrays, or it is damaged",))


@pytest.mark.parametrize("name, content", [("empty.txt", ""), ("blank.txt", " \n\n \n")])
def test_empty_text_file(refuse, home, name, content):
    (home / name).write_text(content)
    refuse("train", *TEXT, f"dataset.path={name}", says=("is empty: there is nothing to learn from",))


def test_text_shorter_than_a_window(refuse, home):
    text_file(home / "text.txt")
    says = ("too few for one window of dataset.context_length=100000",)
    refuse("train", *TEXT, "dataset.path=text.txt", "dataset.context_length=100000", says=says)


def test_damaged_parquet(refuse, home):
    (home / "set.parquet").write_bytes(b"PAR1 and nothing more")
    refuse("train", *TEXT, "dataset.path=set.parquet", says=("set.parquet cannot be read as a data set",))


def test_picture_as_text(refuse, photos):
    picture = photos / "cat" / "0.png"
    refuse("train", *TEXT, f"dataset.path={picture}", says=f"{picture} cannot be read as text: it is a binary file")


Usage = namedtuple("Usage", "total used free")


def test_not_enough_disk_for_the_cache(refuse, photos, monkeypatch):
    monkeypatch.setattr("epochal.data.cache.shutil.disk_usage", lambda path: Usage(1000, 999, 1))
    says = ("Not enough disk for the cache", "0 MB are free", "EPOCHAL_CACHE")
    refuse("train", "logger=none", says=says)
    refuse("train", *IMAGES, "dataset.path=photos", says=says)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system does not reserve disk")
def test_disk_that_fills_up_while_the_cache_is_written(refuse, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    refuse("train", "logger=none", says=("Not enough disk for the cache", "EPOCHAL_CACHE"))


@pytest.mark.parametrize("cache", [f"{__file__}/x", "/proc/epochal"])
def test_unwritable_cache(refuse, monkeypatch, cache):
    monkeypatch.setenv("EPOCHAL_CACHE", cache)
    refuse("train", "logger=none", says=(f"The cache folder {cache} cannot be written", "EPOCHAL_CACHE"))


# -- run folders and checkpoints ------------------------------------------------------------------------------------


def test_resuming_a_finished_run(refuse, copied):
    copied("run", status="finished")
    refuse("train", "resume=run", says=("run is finished: there is nothing to resume",))


def test_resuming_with_another_config(refuse, copied):
    copied("run")
    refuse("train", "resume=run", "seed=3", says=("goes on with that run as it was", "leave out seed=3"))


@pytest.mark.parametrize(
    "config, says",
    [
        (None, "it has no config.yaml"),
        ("", "its config.yaml has no model"),
        ("- a list", "its config.yaml has no model"),
        ("model: 1\ndataset: 2\n", "its config.yaml has no model"),
        ("model: {name: lenet}\ndataset: {name: digits}\n", "its config.yaml has no task"),
        ("model: [\n", "config.yaml cannot be read"),
        (LAUGHS, "config.yaml is refused: with its aliases written out it has more than 100,000 values"),
        ("model: &a {name: [*a]}\n", "config.yaml is refused"),
        ("model: " + "[" * 10_000, "config.yaml is refused"),
    ],
)
@pytest.mark.parametrize("script, option", [("train", "resume"), ("evaluate", "run")])
def test_folder_that_is_no_run(refuse, copied, script, option, config, says):
    file = copied("run") / "config.yaml"
    file.unlink() if config is None else file.write_text(config)
    refuse(script, f"{option}=run", says=(says,))


def flipped(old: bytes) -> bytes:
    """One bit of a weight is another: the file is still a checkpoint to torch."""
    content = torch.load(io.BytesIO(old), weights_only=True)
    place = old.index(content["state_dict"]["model.layers.1.weight"].numpy().tobytes())
    return old[:place] + bytes([old[place] ^ 64]) + old[place + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda old: b"no checkpoint", lambda old: b"", lambda old: old[: len(old) // 2], flipped]
)
@pytest.mark.parametrize("script, option, name", [("train", "resume", "last"), ("evaluate", "run", "best")])
def test_corrupt_checkpoint(refuse, copied, script, option, name, damage):
    file = copied("run") / "checkpoints" / f"{name}.ckpt"
    content = damage(file.read_bytes())
    file.unlink()  # best and last may be one file
    file.write_bytes(content)
    refuse(script, f"{option}=run", says=(f"{file} is no checkpoint of Epochal, or it is damaged.",))


def rewrite(file: Path, **changes: Any) -> None:
    content = torch.load(file, weights_only=True)
    content["epochal"] |= changes
    file.unlink()
    torch.save(content, file)


def test_checkpoint_of_something_else(refuse, copied):
    file = copied("run") / "checkpoints" / "best.ckpt"
    rewrite(file, facts=[{"kind": "Sounds"}, {"kind": "Classes"}])
    refuse("evaluate", "run=run", says=(f"{file}", "cannot be read"))
    torch.save({"weights": 1}, file)
    refuse("evaluate", "run=run", says=(f"{file} is no checkpoint of Epochal",))


def test_weights_of_another_architecture(refuse, copied):
    run = copied("run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["hidden"] = [16]
    rewrite(run / "checkpoints" / "best.ckpt", config=config)
    refuse("evaluate", "run=run", says=("weights do not fit the model", "size mismatch"))


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], ["There is no run in outputs yet"]),
        (["run=/no/such"], ["There is no run folder /no/such."]),
        (["run=/etc"], ["/etc is not a run folder: it has no config.yaml."]),
        (["checkpoint=/no/such"], ["There is no checkpoint /no/such."]),
        (["checkpoint=/etc"], ["/etc is a folder, not a checkpoint", "run=/etc"]),
        (["dataset=digts"], ["dataset=digts is no dataset.", "Did you mean digits?"]),
        (["model=lenet"], ["no key model."]),
        (["dataset.image_size=8"], ["dataset.image_size goes with dataset=<other data>"]),
    ],
)
def test_wrong_choice_for_evaluate(refuse, arguments, says):
    refuse("evaluate", *arguments, says=says)


def test_evaluating_on_data_that_does_not_fit(refuse, copied, photos, home):
    copied("images")
    copied("text", kind="text")
    images, text = (
        ("dataset=images", f"dataset.path={photos}"),
        ("dataset=text", f"dataset.path={text_file(home / 't.txt')}"),
    )
    refuse("evaluate", "run=images", *text, says=("trained on images, but dataset=text yields tokens",))
    refuse("evaluate", "run=text", *images, says=("trained on tokens, but dataset=images yields images",))
    refuse(
        "evaluate",
        "run=images",
        *images,
        says=("reads grey images of 8x8", "dataset=images yields colour images of 8x8"),
    )
    fewer = ("dataset=images", f"dataset.path={image_npz(home / 'three.npz')}")
    refuse("evaluate", "run=images", *fewer, says=("tells 10 classes apart, but dataset=images has 3",))
    refuse("evaluate", "run=images", *fewer, "dataset.test=0", says=("dataset.test=0 must be",))
    refuse("evaluate", "run=images", "prompt=hello", says=("prompt goes with a language model",))
    refuse("evaluate", "run=text", 'prompt="§"', says=("The vocabulary lacks these characters of the prompt",))


def test_evaluation_that_cannot_be_written(command, copied):
    run = copied("run")
    (run / "evaluation").write_text("a file where a folder should be")
    outcome = command("evaluate", "run=run")
    assert outcome.status == 2 and "Traceback" not in outcome.error
    assert f"{run / 'evaluation' / 'digits'} cannot be written" in outcome.error
    assert (run / "evaluation").is_file()


# -- nothing of somebody else's run is executed ---------------------------------------------------------------------

REFUSED = [
    "os.system",
    "builtins.eval",
    "torch.load",
    "logging.os.system",
    "epochal.training.run_folder.os.system",
    "epochal.data.cache.shutil.rmtree",
    "epochal.tasks.base.torch.load",
    "epochal.config.validate.resolve",
    "epochal.data.sources.open_splits",
    "epochal.models.ResNet.load_state_dict",
    "epochal.optim.adamw.__globals__",
    "pytorch_lightning.trainer.trainer.os.system",
    "pytorch_lightning.trainer.trainer.Trainer.fit",
    "pytorch_lightning.Callback",
]


@pytest.mark.parametrize("target", [*REFUSED, None, 5, ["os.system"]])
@pytest.mark.parametrize("place", ["model", "requested", "dataset"])
def test_class_outside_the_allowed_packages_is_refused_by_name(target, place):
    config = {"model": {"_target_": "epochal.models.LeNet.for_data"}, "dataset": {"transforms": []}, "requested": {}}
    check_targets(OmegaConf.create(config))
    config[place] = {"deep": [{"inside": {"_target_": target}}]}
    with pytest.raises(ConfigError, match=re.escape(f"wants to make {target}, which is refused")):
        check_targets(OmegaConf.create(config))


@pytest.mark.parametrize(
    "hidden", ["${oc.create:{name: adamw, lr: 0.1, _target_: timeit.timeit, setup: 'x'}}", "${oc.env:HOME}", "${seed}"]
)
def test_interpolations_in_a_runs_config_are_refused(refuse, copied, hidden):
    run = copied("run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["logger"]["group"] = hidden
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rewrite(run / "checkpoints" / "best.ckpt", config=config)
    for script, option in (("train", "resume=run"), ("evaluate", "run=run")):
        refuse(script, option, says=("which no run writes",))


@pytest.mark.parametrize("target", ["logging.os.system", "epochal.training.run_folder.os.system"])
def test_run_that_wants_to_make_such_a_class(refuse, copied, target):
    run = copied("run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["_target_"] = target
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rewrite(run / "checkpoints" / "best.ckpt", config=config)
    says = (f"The run's config wants to make {target}, which is refused", "epochal.models", "allow=[package]")
    refuse("train", "resume=run", says=says)
    refuse("evaluate", "run=run", says=says)


def test_every_class_of_the_shipped_configs_is_allowed():
    for file in ROOT.glob("conf/*/*.yaml"):
        config = yaml.safe_load(file.read_text()) or {}
        config.pop("hydra", None)  # no part of a run's config; Hydra makes its plugins by rules of its own
        check_targets(OmegaConf.create(json.loads(json.dumps(config).replace("${", "{"))))


def test_a_package_of_ones_own_can_be_allowed():
    config = OmegaConf.create({"model": {"_target_": "fractions.Fraction"}})
    check_targets(config, (*ALLOWED, "fractions"))
    with pytest.raises(ConfigError, match=r"fractions\.math\.sqrt, which is refused"):
        check_targets(OmegaConf.create({"model": {"_target_": "fractions.math.sqrt"}}), (*ALLOWED, "fractions"))


def test_class_of_an_allowed_package_in_the_wrong_place(refuse, copied):
    run = copied("run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["_target_"] = "pytorch_lightning.Trainer"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rewrite(run / "checkpoints" / "best.ckpt", config=config)
    refuse("train", "resume=run", says=("model._target_=pytorch_lightning.Trainer is no model.",))
    refuse("evaluate", "run=run", says=("model._target_=pytorch_lightning.Trainer is no model.",))


def test_resume_auto_does_not_trust_what_a_config_says_was_asked_for(refuse, copied, home):
    """`requested` makes a config count as the same run; what would be made is still looked at."""
    run = copied("run")
    target = home / "outputs" / "runs" / "2000-01-01_00-00-00_mlp_digits_s1"
    target.parent.mkdir(parents=True)
    run.rename(target)
    config = yaml.safe_load((target / "config.yaml").read_text())
    config["requested"]["model"] = dict(config["model"])
    config["model"]["_target_"] = "epochal.training.run_folder.os.system"
    (target / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ("model=mlp", "model.hidden=[8]", "dataset=digits", "duration=2steps", "logger=none")
    refuse(
        "train",
        *arguments,
        "resume=auto",
        says=("wants to make epochal.training.run_folder.os.system, which is refused",),
    )


class Trap:
    """Unpickled without care, it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch sprung",)


@pytest.mark.parametrize("write", [torch.save, lambda content, file: Path(file).write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_does_not_run(refuse, copied, home, write):
    run = copied("run")
    for name in ("best", "last"):
        file = run / "checkpoints" / f"{name}.ckpt"
        content = {**torch.load(file, weights_only=True), "state_dict": Trap()}
        file.unlink()
        write(content, file)
    refuse("evaluate", "run=run", says=("best.ckpt is no checkpoint of Epochal",))
    refuse("train", "resume=run", says=("last.ckpt is no checkpoint of Epochal",))
    assert not (home / "sprung").exists()


# -- parallel texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("german", "english", "options", "says"),
    [
        ("a b\n\nc\n", "a\nb\nc\n", (), ("Line 2 of", "train.de is empty", "leave it out in both")),
        ("a\nb\nc\n", "a\nb\n", (), ("train.de has 3 lines, but train.en has 2",)),
        ("a\nb\n", "a\nb\n", ("dataset.source=dd",), ("dataset.source=dd is no language", "It has: de, en")),
    ],
)
def test_parallel_texts_that_are_none(refuse, home, german, english, options, says):
    folder = home / "texts"
    folder.mkdir()
    (folder / "train.de").write_text(german)
    (folder / "train.en").write_text(english)
    pair = () if options else ("dataset.source=de",)
    refuse(
        "train", "model=seq2seq", "dataset=pairs", "dataset.path=texts", "dataset.target=en", *pair, *options, says=says
    )


# -- several jobs, and a real process -------------------------------------------------------------------------------


def test_a_bug_in_one_of_many_jobs_shows_where_it_is(command, monkeypatch):
    monkeypatch.setattr("epochal.training.build.build", lambda *_, **__: {}["bug"])
    outcome = command("train", "-m", "seed=1,2")
    assert outcome.status == 1
    assert outcome.error.count("Traceback") == 2 and "2 of 2 runs failed" in outcome.error


def test_a_real_process_ends_with_status_2(home):
    for arguments, words in (
        (["model=resent"], "Did you mean resnet?"),
        (["model=resnet", "model.depth=21"], "6n + 2"),
    ):
        ended = subprocess.run(
            [sys.executable, ROOT / "train.py", *arguments], cwd=home, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 2
        assert words in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
        assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "arguments", "says"),
    [
        ("optuna", ("sweep=lr", "model=cnn"), "A search needs Optuna: pip install 'epochal[sweep]'."),
        (
            "torchvision.models",
            (
                "model=resnet",
                "model.depth=18",
                "model.input=imagenet",
                "model.pretrained=true",
                "dataset.image_size=64",
            ),
            "needs torchvision: pip install 'epochal[pretrained]'",
        ),
        ("timm", ("model=timm",), "pip install 'epochal[timm]'"),
        ("tensorboard", ("model=mlp", "logger=tensorboard"), "pip install 'epochal[tensorboard]'"),
    ],
)
def test_a_missing_extra_is_named(refuse, monkeypatch, package, arguments, says):
    import pytorch_lightning  # noqa: F401  # which imports torchvision by itself if it is installed

    monkeypatch.setitem(sys.modules, package, None)
    refuse("train", *arguments, says=(says,))
