"""Weights & Biases."""

from __future__ import annotations

import netrc
import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from epochal.config.compose import plain
from epochal.core.errors import ConfigError
from epochal.core.format import say
from epochal.tasks.artifacts import Artifacts
from epochal.training.loggers.base import ArtifactLogger
from epochal.training.run_folder import VOLATILE, Run

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
LONGEST, TAG = 128, 64  # characters that W&B accepts for a project or a group, and for a tag
FORBIDDEN = "/\\#?%:"  # in the name of a project


class Wandb(ArtifactLogger):
    """Lightning's WandbLogger, opened after the first step, so that this need not wait the second that opening takes.

    Args:
        run: Its folder holds what is not sent.
        config: Of the run; all of it goes into the W&B run's record.
        resuming: Whether an earlier W&B run is continued.
        project, entity, tags: As W&B has them.
        group: None groups runs that differ in their seed alone.
    """

    name, version = "wandb", None

    def __init__(
        self,
        *,
        run: Run,
        config: DictConfig,
        resuming: bool,
        project: str,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
    ) -> None:
        super().__init__()
        self.run, self.config, self.resuming = run, config, resuming
        self.wandb_id = run.summary().get("wandb_id") or secrets.token_hex(4)  # of a resumed run the same one
        self.project, self.entity, self.tags = project, entity, [str(tag) for tag in tags]
        self.group = group or group_of(config, run.overrides())
        self._logger: WandbLogger | None = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Raises ConfigError for what W&B itself would refuse only after the first step."""
        check_settings(options.get("project"), options.get("group"), options.get("tags", ()))
        if {name for name in os.environ if name.startswith("WANDB_")} - {"WANDB_MODE", "WANDB_API_KEY", "WANDB_SILENT"}:
            check_environment()

    def open_run(self) -> None:
        self.open()

    def open(self) -> WandbLogger:
        """The logger itself, with its W&B run as `experiment`."""
        if self._logger is None:
            os.environ.setdefault("WANDB_SILENT", "true")
            import wandb

            mode = wandb_mode()
            try:
                experiment = self._init(mode)
            except wandb.Error as error:
                if mode != "online":
                    raise
                say(f"W&B cannot be reached ({error}); this run is logged into its own folder.")
                experiment = self._init("offline")
            experiment.define_metric("step")
            experiment.define_metric("*", step_metric="step")
            self._logger = WandbLogger(experiment=experiment)
        return self._logger

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.open().log_metrics({**metrics, "step": step or 0}, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's record has the whole config from its start."""

    def log_artifacts(self, artifacts: Artifacts, step: int, *, final: bool) -> None:
        logger = self.open()
        for name, picture in artifacts.pictures.items():
            panel, _, rest = name.partition("_")
            key = f"explain/{rest}" if panel == "explain" else f"pictures/{name}"  # a panel of their own
            logger.log_image(key=key, images=[picture], step=step)
        for name, text in artifacts.texts.items():
            logger.log_text(key=f"texts/{name}", columns=["step", "text"], data=[[str(step), text]], step=step)

    def close(self, *, failed: bool) -> None:
        """Ends the W&B run; otherwise the next job of a multirun would continue it."""
        if self._logger is not None:
            self._logger.experiment.finish(exit_code=int(failed))
            self._logger = None

    def _init(self, mode: str) -> Any:
        import wandb

        model, dataset = self.config.model.name, self.config.dataset.name
        return wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.run.folder.name,
            group=self.group,
            tags=[t for t in (model, dataset, self.config.task.name, self.config.experiment, self.config.budget) if t]
            + self.tags,
            job_type="sweep" if self.config.get("sweep") else "train",
            id=self.wandb_id,
            resume="allow" if self.resuming else None,
            dir=self.run.folder,
            mode=mode,  # type: ignore[arg-type]
            config=plain(self.config),  # in the init record, where `wandb leet` can filter by it
            settings=wandb.Settings(console="off", init_timeout=30),
        )


def check_settings(project: Any, group: Any, tags: Any, environment: Any = os.environ) -> None:
    """Raises ConfigError for a mode, project, group or tag that W&B does not take."""
    mode = environment.get("WANDB_MODE")
    if mode and mode not in MODES:
        raise ConfigError(
            f"WANDB_MODE={mode} is no mode of W&B. There are: {' '.join(MODES)}; logger=none turns it off."
        )
    if not project or len(str(project)) > LONGEST or set(str(project)) & set(FORBIDDEN):
        raise ConfigError(
            f"logger.wandb.project={project} must have 1 to {LONGEST} characters and none of {' '.join(FORBIDDEN)}"
        )
    if group is not None and not 0 < len(str(group)) <= LONGEST:
        raise ConfigError(f"logger.wandb.group={group} must have 1 to {LONGEST} characters, or be null.")
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise ConfigError(f"logger.wandb.tags={tags} must be a list: [{tags}].")
    if wrong := [tag for tag in tags if not 0 < len(str(tag)) <= TAG]:
        raise ConfigError(f"logger.wandb.tags: the tag {str(wrong[0])!r} must have 1 to {TAG} characters.")


def check_environment() -> None:
    """Raises ConfigError where W&B refuses what it reads from the environment, such as WANDB_PROJECT."""
    import wandb

    try:
        wandb.Settings().update_from_env_vars(dict(os.environ))
    except (wandb.Error, ValueError) as error:
        reason = str(error).splitlines()[-1 if isinstance(error, ValueError) else 0].strip()
        raise ConfigError(f"W&B refuses one of the environment's variables WANDB_...: {reason}") from error


def wandb_id(loggers: Iterable[Logger]) -> str | None:
    """The id of the W&B run, None if no logger is W&B's."""
    return next((logger.wandb_id for logger in loggers if isinstance(logger, Wandb)), None)


def group_of(config: DictConfig, overrides: Sequence[str]) -> str:
    """The W&B group of a run, shared by runs that differ in their seed only.

    runs/lenet-mnist optimizer.lr=0.1
    """
    alike = {"model", "dataset", "trainer", "callbacks", "logger", "hydra", "seed", "experiment", "budget", *VOLATILE}
    words = [(override.lstrip("+~").partition("=")[0], override) for override in overrides]
    others = sorted(word for key, word in words if key not in alike and key.split(".")[0] not in ("hydra", "logger"))
    name = f"{config.experiment or 'runs'}/{config.model.name}-{config.dataset.name}"
    return " ".join([name, *others])[:128]  # the longest that W&B accepts


def wandb_mode(environment: Any = os.environ) -> str:
    """`WANDB_MODE` if it is set; else online if there is a key and the server answers, else offline.

    W&B itself asks for a login where there is no key, and fails after 26 seconds where there is no network.
    """
    if mode := environment.get("WANDB_MODE"):
        return mode
    url = urlparse(environment.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not environment.get("WANDB_API_KEY") and not _has_netrc_key(url.hostname or "", environment.get("NETRC")):
        return "offline"
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return "online"  # only the proxy can tell
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), timeout=3
        ).close()
    except OSError:
        return "offline"
    return "online"


def _has_netrc_key(host: str, file: str | None) -> bool:
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
