"""Whatever lies in conf/ is composed, built and stepped, with no test added for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochal.config.compose import conf_folder
from epochal.config.finalize import finalize
from epochal.config.instantiate import target_class
from epochal.training.factories import make_task
from helpers.one_step import check_every_parameter_learns
from helpers.training import CONF, composed

PACKAGES = {  # of the extra "cluster"
    "slurm": "hydra_submitit_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
}


def configs(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", configs("model"))
def test_every_parameter_of_every_model_learns(name: str, tmp_path: Path) -> None:
    check_every_parameter_learns(name, tmp_path)


@pytest.mark.parametrize(
    ("group", "name"), [(g.name, n) for g in sorted(CONF.iterdir()) if g.is_dir() for n in configs(g.name)]
)
def test_every_choice_composes(group: str, name: str) -> None:
    if group == "launcher" and name in PACKAGES:
        pytest.importorskip(f"hydra_plugins.{PACKAGES[name]}")
    config = composed(f"{group}={name}")
    chosen = config.get(group)  # a launcher chooses Hydra's, and leaves no key of its own
    assert chosen is None or isinstance(chosen, str) or chosen.get("name", name) == name


@pytest.mark.parametrize("name", configs("dataset"))
def test_every_dataset_config_fits_its_class(name: str) -> None:
    config = composed(f"dataset={name}")
    arguments = {k: v for k, v in config.dataset.items() if k != "_target_"}
    made = target_class(config.dataset._target_)(**arguments, seed=1)
    assert made.name == name


@pytest.mark.parametrize("optimizer", configs("optimizer"))
@pytest.mark.parametrize("scheduler", configs("scheduler"))
def test_every_optimizer_goes_with_every_scheduler(optimizer: str, scheduler: str) -> None:
    config = finalize(composed(f"optimizer={optimizer}", f"scheduler={scheduler}", "model=gpt", "dataset=shakespeare"))
    task = make_task(config, torch.nn.Linear(2, 2), total_steps=20)
    made = task.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == config.scheduler.interval
    rates = []
    for _ in range(20):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert max(rates) <= config.optimizer.lr * (1 + 1e-6)
    assert all(rate >= 0 for rate in rates)
    if scheduler != "constant":
        assert rates[-1] < 0.35 * config.optimizer.lr  # 1 / sqrt(10) after a warm-up of a tenth


def test_the_configs_of_the_repository_are_found() -> None:
    assert conf_folder() == CONF
