"""The road from a language model to one that answers as people like: each run begins with those before it."""

from __future__ import annotations

import io
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from epochal.core.errors import ConfigError
from epochal.training.networks import fingerprint_of
from epochal.training.run_folder import Run
from helpers.training import composed, in_new_process, train, train_until_killed

SIZES = ("model=gpt", "model.depth=1", "model.embed_dim=8", "model.num_heads=2", "logger=none", "trainer=cpu")
DATA = ("dataset.max_length=24", "dataset.batch_size=4", "log_every=1", "dataset.tokenizer=byte")
TASK = ("task.sample_length=6", "task.samples=2")
STEPS = ("duration=6steps", "trainer.val_check_interval=3", "callbacks.checkpoint_every=1")


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files, and the runs of a language model that was tuned on answers, and of a reward model."""
    folder = tmp_path_factory.mktemp("road")
    chats = [{"prompt": f"q{n}", "completion": "yes" if n % 2 else "no"} for n in range(30)]
    pairs = [{"prompt": f"q{n}", "chosen": "yes" * (1 + n % 2), "rejected": "no"} for n in range(30)]
    made: dict[str, Any] = {
        "folder": folder,
        "chats": write(folder / "chats.jsonl", chats),
        "pairs": write(folder / "pairs.jsonl", pairs),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        (folder / "text.txt").write_text("q1 yes q2 no. " * 60)
        made["pretrained"] = train(
            *(
                *SIZES,
                "dataset=text",
                f"dataset.path={folder / 'text.txt'}",
                "dataset.context_length=32",
                "duration=2steps",
            ),
            *("task=language_modeling", "task.sample_length=4", f"output_dir={folder}"),
        ).run.folder
        made["tuned"] = train(*tuning(made), f"init_from={made['pretrained']}", f"output_dir={folder}").run.folder
        made["reward"] = train(*rewarding(made), f"init_from={made['tuned']}", f"output_dir={folder}").run.folder
    return made


def tuning(road: dict[str, Any], task: str = "supervised_finetuning") -> tuple[str, ...]:
    return (*SIZES, *DATA, f"task={task}", *TASK, *STEPS, "dataset=conversations", f"dataset.path={road['chats']}")


def rewarding(road: dict[str, Any]) -> tuple[str, ...]:
    return (*SIZES, *DATA, *STEPS, "dataset=preferences", f"dataset.path={road['pairs']}", "task=reward_modeling")


def reinforcing(road: dict[str, Any], algorithm: str, *more: str) -> tuple[str, ...]:
    runs = f"init_from={{policy: {road['tuned']}, reward: {road['reward']}}}"
    return (*tuning(road, "rlhf"), f"task.algorithm={algorithm}", "task.group=2", runs, *more)


def preferring(road: dict[str, Any], *more: str) -> tuple[str, ...]:
    data = ("dataset=preferences", f"dataset.path={road['pairs']}", "task=dpo")
    return (*SIZES, *DATA, *TASK, *STEPS, *data, f"init_from={road['tuned']}", *more)


def weights(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


class Stopper(pl.Callback):
    """Ends a run as Ctrl-C does, at the beginning of a step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 4:
            raise KeyboardInterrupt


def stopped(*overrides: str) -> Path:
    """The folder of a run that was stopped in its fifth step."""
    from epochal.training.build import build

    with (
        pytest.raises(KeyboardInterrupt),
        build(composed(*overrides), overrides=list(overrides), console=Console(file=io.StringIO())) as job,
    ):
        job.trainer.callbacks.append(Stopper())
        folder = job.run.folder
        job.fit()
    return folder


def test_a_tuned_model_begins_with_all_weights_of_the_pretrained_one(road, home):
    from epochal.training.build import build

    printed = io.StringIO()
    overrides = (*tuning(road), f"init_from={road['pretrained']}")
    with build(composed(*overrides), console=Console(file=printed)) as job:
        state = job.task.model.state_dict()
        for name, tensor in weights(road["pretrained"], "best").items():
            own = state[name.removeprefix("model.")]
            assert torch.equal(own, tensor[: len(own)]), name
        job.run.release()
    assert "the head's too" in " ".join(printed.getvalue().split())


def test_the_reward_model_draws_its_calibration(road):
    assert list((road["reward"] / "pictures").glob("*calibration*.png"))
    metrics = Run(road["reward"]).summary()["metrics"]
    assert {"test/accuracy", "test/margin", "test/loss"} <= metrics.keys()


STEPS_OF_THE_ROAD = {
    "supervised_finetuning": lambda road: (*tuning(road), f"init_from={road['pretrained']}"),
    "reward_modeling": lambda road: (*rewarding(road), f"init_from={road['tuned']}"),
    "dpo": preferring,
    **{name: lambda road, name=name: reinforcing(road, name) for name in ("grpo", "ppo")},
    "dpo of its own answers": lambda road: reinforcing(road, "dpo"),
}


@pytest.mark.parametrize(
    "step", [pytest.param(name, marks=[] if name == "grpo" else pytest.mark.slow) for name in STEPS_OF_THE_ROAD]
)
def test_a_killed_step_of_the_road_goes_on_to_the_same_bits(road, step, home):
    overrides = STEPS_OF_THE_ROAD[step](road)
    whole = train(*overrides, f"output_dir={home / 'whole'}")
    killed = (*overrides, f"output_dir={home / 'killed'}", "resume=auto")
    assert in_new_process(train_until_killed, killed, 4, "on_train_batch_end") == -signal.SIGKILL
    (folder,) = (home / "killed" / "runs").iterdir()
    assert (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < whole.trainer.global_step
    )
    train(*killed)
    for name in ("last", "best"):
        one, other = weights(whole.run.folder, name), weights(folder, name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    for text in whole.run.pictures.glob("*.txt"):
        assert text.read_text() == (folder / "pictures" / text.name).read_text(), text.name


@pytest.mark.parametrize("kind", [pytest.param("grpo", marks=pytest.mark.slow), "ppo", "dpo"])
def test_a_run_beside_frozen_networks_records_them_and_resumes_to_the_same_bits(road, kind, home, command):
    overrides = preferring(road) if kind == "dpo" else reinforcing(road, kind)
    whole = train(*overrides, f"output_dir={home / 'whole'}")
    needs = ("reference",) if kind == "dpo" else ("reference", "reward")
    records = whole.run.summary()["networks"]
    assert tuple(records) == needs
    assert records["reference"] == {
        "run": str(road["tuned"]),
        "fingerprint": fingerprint_of(weights(road["tuned"], "best")),
    }
    checkpoint = torch.load(whole.run.last, weights_only=True)
    assert checkpoint["epochal"]["networks"] == records
    trained = {name.split(".")[0] for name in checkpoint["state_dict"]}
    assert trained == ({"model", "value"} if kind == "ppo" else {"model"})
    assert whole.run.summary()["parameters"] == sum(p.numel() for p in whole.task.model.parameters())
    rows = (whole.run.folder / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    first = dict(zip(columns, rows[1].split(",")))
    if kind == "dpo":
        assert float(first["train/loss"]) == pytest.approx(0.6931472, abs=1e-6)
    else:
        assert float(first["train/kl"]) == 0
        assert kind == "ppo" or float(first["train/clip_fraction"]) == 0
        names = ("reward", "kl", "entropy", "length", "clip_fraction", "unended", "distinct_2", "policy_loss")
        assert {f"train/{name}" for name in names} <= set(columns)
    assert list(whole.run.pictures.parent.rglob("*answers*.txt"))

    folder = stopped(*overrides, f"output_dir={home / 'stopped'}")
    outcome = command("train", f"resume={folder}")
    assert outcome.status == 0, outcome.error
    ours, theirs = weights(folder), weights(whole.run.folder)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert Run(folder).summary()["metrics"]["test/loss"] == whole.run.summary()["metrics"]["test/loss"]


def test_a_frozen_network_that_changed_or_is_gone_is_noticed(road, home, refuse):
    tuned = home / "tuned"
    shutil.copytree(road["tuned"], tuned)
    folder = stopped(*preferring({**road, "tuned": tuned}), f"output_dir={home / 'stopped'}")
    again = shutil.copytree(folder, home / "again")  # this process holds the lock of the first
    tuned.rename(home / "moved")
    refuse("train", f"resume={folder}", says=("This run needs its reference", "which is gone"))
    shutil.copytree(road["pretrained"], tuned)
    refuse("train", f"resume={again}", says=("was the network of", "whose weights changed since"))


def test_a_policy_answers_a_prompt_where_its_reward_model_is_gone(road, home, command):
    reward = home / "reward"
    shutil.copytree(road["reward"], reward)
    run = train(*reinforcing({**road, "reward": reward}, "ppo"), f"output_dir={home / 'runs'}").run
    outcome = command("evaluate", f"run={run.folder}")
    assert outcome.status == 0, outcome.error
    assert json.loads((run.folder / "evaluation" / "conversations" / "metrics.json").read_text())["test/loss"] == (
        pytest.approx(run.summary()["metrics"]["test/loss"])
    )
    shutil.rmtree(reward)
    outcome = command("evaluate", f"run={run.folder}", "prompt=q1")
    assert outcome.status == 0, outcome.error
    assert "answer" in outcome.out


def bad(road: dict[str, Any]) -> dict[str, tuple[tuple[str, ...], str]]:
    tuned, reward = road["tuned"], road["reward"]
    alone = tuning(road, "rlhf")
    return {
        "no run": (alone, "task=rlhf has no policy to begin with; give init_from={policy: <run>, reward: <run>}"),
        "no reward": ((*alone, f"init_from={tuned}"), "task=rlhf has no reward to begin with"),
        "a typo": (
            (*alone, f"init_from={{policy: {tuned}, rewards: {reward}}}"),
            "init_from.rewards is no network of task=rlhf. Did you mean reward?",
        ),
        "a reward for fine-tuning": (
            (*tuning(road), f"init_from={{policy: {tuned}, reward: {reward}}}"),
            "init_from.reward is no network of task=supervised_finetuning",
        ),
        "no scores": (
            (*alone, f"init_from={{policy: {tuned}, reward: {tuned}}}"),
            "learned supervised_finetuning; a reward model is a run of task=reward_modeling",
        ),
        "another network": (
            (*preferring(road), "model.embed_dim=16"),
            "do not fit this model=gpt",
        ),
        "no leash": ((*preferring(road), "task.beta=0"), "task=dpo: beta=0 must be above 0"),
        "a prompt that fills the context": (
            (*reinforcing(road, "grpo"), "task.sample_length=20"),
            "fills the context of 24 of the policy",
        ),
        "accumulated": (
            (*reinforcing(road, "grpo"), "trainer.accumulate_grad_batches=2"),
            "does not go with task=rlhf",
        ),
    }


@pytest.mark.parametrize(
    "what",
    [
        "no run",
        "no reward",
        "a typo",
        "a reward for fine-tuning",
        "no scores",
        "another network",
        "no leash",
        "accumulated",
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(road, what, home, refuse):
    overrides, sentence = bad(road)[what]
    refuse("train", *overrides, says=(sentence,))


def test_a_prompt_that_leaves_no_room_is_refused(road, home, command):
    overrides, sentence = bad(road)["a prompt that fills the context"]
    outcome = command("train", *overrides)
    assert outcome.status == 2 and sentence in outcome.error


def test_networks_of_another_vocabulary_are_refused(road, home):
    data = ("dataset.tokenizer=character", f"output_dir={home}")
    other = train(*rewarding(road), *data).run.folder
    with pytest.raises(ConfigError, match="has another vocabulary than the policy"):
        train(*reinforcing({**road, "reward": other}, "grpo"))


@pytest.fixture(scope="module")
def judge(road: dict[str, Any]) -> Path:
    """A classifier that takes texts with y for positive, with a vocabulary of its own."""
    rows = [f"q{n} {'yes' if n % 2 else 'no'},{'positive' if n % 2 else 'negative'}" for n in range(120)]
    file = road["folder"] / "labelled.csv"
    file.write_text("\n".join(["text,label", *rows]))
    sizes = (
        "model=transformer_encoder",
        "model.embed_dim=16",
        "model.num_heads=2",
        "model.depth=1",
        "optimizer.lr=0.01",
    )
    data = ("dataset=sentences", f"dataset.path={file}", "dataset.batch_size=32", "logger=none", "trainer=cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(road["folder"] / "cache"))
        return train(*sizes, *data, "duration=20epochs", f"output_dir={road['folder']}").run.folder


def test_a_judge_reads_the_answers_of_the_test(road, judge, home):
    job = train(*tuning(road), f"init_from={road['pretrained']}", f"task.judge={judge}")
    found = job.run.summary()
    assert {"test/judged", "test/judged_distinct_2", "test/judged_length"} <= found["metrics"].keys()
    assert "test/judged_kl" not in found["metrics"]  # nothing to diverge from
    assert found["judge"]["run"] == str(judge) and len(found["judge"]["fingerprint"]) == 64
    texts = ["q1 yes", "q2 no", "q3 yes"]
    import epochal

    loaded = epochal.load(judge)
    expected = loaded.predict(texts).probabilities[:, loaded.specs[1].names.index("positive")]
    assert torch.allclose(job.task._judge(texts), torch.tensor(expected), atol=1e-6)
    assert job.task._judge(["", *texts]).round().tolist() == [0, 1, 0, 1]
    with pytest.raises(ConfigError, match="Example 2 has no word"):
        loaded.predict(["q1", ""])
    job.task.samples = job.task.data.rows("test")[1]  # all of them, as it judges, since there are fewer than 256
    said = job.task._texts(job.task._sampled(*job.task.prompts("test")))
    share = (job.task._judge(said) > 0.5).float().mean().item()
    assert found["metrics"]["test/judged"] == pytest.approx(share)


def test_beside_a_reference_the_divergence_of_judged_answers_is_told(road, judge, home):
    metrics = train(*preferring(road), f"task.judge={judge}").run.summary()["metrics"]
    assert metrics["test/judged_kl"] > 0
    still = train(*preferring(road), f"task.judge={judge}", "optimizer.lr=1e-12").run.summary()["metrics"]
    assert still["test/judged_kl"] == pytest.approx(0, abs=1e-6)


def test_a_policy_whose_judge_is_gone_answers(road, judge, home, command):
    copy = home / "judge"
    shutil.copytree(judge, copy)
    folder = train(*tuning(road), f"init_from={road['pretrained']}", f"task.judge={copy}").run.folder
    shutil.rmtree(copy)
    done = command("evaluate", f"run={folder}", "prompt=q1")
    assert done.status == 0 and "No answers are judged" in done.out + done.error
    assert command("evaluate", f"run={folder}", "prompt=q1", "temperature=0.5").status == 0
    import epochal

    loaded = epochal.load(folder)
    assert isinstance(loaded.generate("q1", temperature=0.5), str)
    assert isinstance(loaded.generate("q1", beam_size=2), str), "one text, without samples"


def test_a_prompt_that_leaves_no_room_for_a_judged_answer(road, judge, home, command):
    outcome = command("train", *preferring(road), f"task.judge={judge}", "task.sample_length=500")
    assert outcome.status == 2 and "A prompt of the test has" in outcome.error
    assert "for the judge, it fills the context of" in outcome.error


def test_minutes_are_measured_beside_frozen_networks(road, home):
    job = train(*(o for o in preferring(road) if not o.startswith("duration=")), "duration=0.02minutes")
    assert job.run.summary()["status"] == "finished" and job.run.summary()["steps"] >= 1


def test_a_run_whose_judge_changed_is_not_resumed(road, judge, home):
    copy = home / "judge"
    shutil.copytree(judge, copy)
    folder = stopped(*tuning(road), f"init_from={road['pretrained']}", f"task.judge={copy}")
    content = torch.load(copy / "checkpoints" / "best.ckpt", weights_only=True)
    next(iter(content["state_dict"].values())).add_(1)
    torch.save(content, copy / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match="The weights of task.judge=.* changed since the run began"):
        train(f"resume={folder}")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere", "task.judge=nowhere is no run's folder"),
        ("lstm", "no finished run of model=lstm that learned to classify"),
    ],
)
def test_what_is_no_judge_is_refused(road, given, says, home, refuse):
    refuse("train", *tuning(road), f"init_from={road['pretrained']}", f"task.judge={given}", says=(says,))


def test_a_run_that_classifies_nothing_is_no_judge(road, home, refuse):
    said = "must be a run that learned to classify texts, not language_modeling"
    refuse("train", *tuning(road), f"init_from={road['pretrained']}", f"task.judge={road['pretrained']}", says=(said,))


def test_a_run_begins_with_a_task_on_other_data(road, home):
    where = f"output_dir={road['folder']}"
    job = train(*tuning(road), "init_from=language_modeling@text", where, "duration=1steps", "seed=1", "task.samples=1")
    assert job.run.config().init_from == "language_modeling@text"
    runs = "init_from={policy: supervised_finetuning@conversations, reward: reward_modeling@preferences}"
    job = train(*tuning(road, "rlhf"), "task.group=2", runs, where, "duration=1steps")
    records = job.run.summary()["networks"]
    assert records["reward"]["run"] == str(road["reward"])
    with pytest.raises(
        ConfigError, match="no finished run of it with this model=gpt, dataset=sst2 and seed=1 in .* task=dpo"
    ):
        train(*tuning(road), "init_from=dpo@sst2", where)
