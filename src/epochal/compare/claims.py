"""Reads and checks the claim of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epochal.core.errors import ConfigError, did_you_mean


def load_claim(experiment: str, budget: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """The claim of an experiment, resolved, or None; and the budget, that of the config if none is given.

    Raises:
        ConfigError: If the experiment or budget does not exist, or its claim is wrong.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from epochal.config.compose import compose

    known = experiments()
    if experiment not in known:
        listed = f" There are: {' '.join(known)}" if known else " There are none."
        raise ConfigError(f"experiment={experiment} is no experiment.{did_you_mean(experiment, known)}{listed}")
    try:
        config = compose([f"experiment={experiment}"])
        budgets = [str(name) for name in config.get("budgets") or {}]
        if budget is not None and budget not in budgets:
            listed = f" There are: {' '.join(budgets)}" if budgets else " It has none."
            raise ConfigError(
                f"budget={budget} is no budget of experiment={experiment}.{did_you_mean(budget, budgets)}{listed}"
            )
        if budget is not None:
            config = compose([f"experiment={experiment}", f"budget={budget}"])
        claim: Any = config.get("claim")
        if claim is None:
            return None, budget
        claim = OmegaConf.to_container(claim, resolve=True) if OmegaConf.is_config(claim) else claim
        chosen = None if config.budget is None else str(config.budget)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"experiment={experiment} cannot be read: {' '.join(str(error).split())}") from error
    check_claim(experiment, claim)
    return claim, chosen


def named_keys(claim: Mapping[str, Any]) -> set[str]:
    """The config keys by which a claim's plots and tests tell runs apart, among names of metrics and costs."""
    sides = [
        entry.get(side) for entry in claim.get("tests") or () for side in ("more", "not_more", "than", "predicted")
    ]
    wheres = [entry.get("where") for entry in claim["plots"]]
    keys = {key for side in (*sides, *wheres) if isinstance(side, Mapping) for key in side}
    for entry in claim["plots"]:
        groups = entry.get("group") or []
        keys.update([groups] if isinstance(groups, str) else groups, [entry["x"]] if entry.get("x") else [])
    return keys


def check_claim(experiment: str, claim: Any) -> None:
    """Checks an experiment's claim before hours are spent on its runs.

    Raises:
        ConfigError: With the first mistake.
    """
    check = _Check(experiment, claim)
    check.keys("it", claim, ("sentence", "plots"), ("source", "setting", "references", "needs", "tests"))
    for what, entry in check.entries("plots"):
        drawn = ("profile",) if isinstance(entry, dict) and "profile" in entry else ("x", "y")
        check.keys(what, entry, drawn, ("group", "where", "fit"))
        check.require(entry.get("fit") in (None, "power"), f"{what} has fit: {entry.get('fit')}; it can be power.")
        check.values(f"where of {what}", entry.get("where") or {})
    for what, entry in check.entries("references"):
        check.keys(what, entry, ("label", "x", "y", "points"), ("where",))
        check.values(f"where of {what}", entry.get("where") or {})
        pairs = isinstance(entry["points"], list) and all(isinstance(p, list) and len(p) == 2 for p in entry["points"])
        check.require(pairs, f"{what} has points that are no pairs such as [20, 0.0875].")
    for what, entry in check.entries("needs"):
        check.keys(what, entry, ("y",), ("below", "above"))
        bounds = [entry[key] for key in ("below", "above") if key in entry]
        check.require(len(bounds) == 1 and _number(bounds[0]), f"{what} needs one of below and above, a number.")
    for what, entry in check.entries("tests"):
        check.test(what, entry)


@dataclass(frozen=True)
class _Check:
    """The checks of a claim's entries; each raises ConfigError with what is wrong."""

    experiment: str
    claim: Any

    def require(self, right: bool, problem: str) -> None:
        if not right:
            raise ConfigError(f"The claim of experiment={self.experiment} is wrong: {problem}")

    def entries(self, name: str) -> Iterable[tuple[str, Any]]:
        listed = self.claim.get(name) or []
        self.require(isinstance(listed, list), f"{name} is no list.")
        return ((f"{name}, number {number},", entry) for number, entry in enumerate(listed, start=1))

    def keys(self, what: str, entry: Any, needed: Sequence[str], others: Sequence[str] = ()) -> None:
        known = [*needed, *others]
        self.require(isinstance(entry, dict), f"{what} has no keys; it needs {' '.join(needed)}.")
        for key in entry:
            self.require(key in known, f"{what} has {key}.{did_you_mean(str(key), known)} There are: {' '.join(known)}")
        for key in needed:
            self.require(entry.get(key) is not None, f"{what} has no {key}.")

    def values(self, what: str, entry: Any) -> None:
        plain = isinstance(entry, dict) and all(isinstance(v, str | int | float | list | None) for v in entry.values())
        self.require(plain, f"{what} is no mapping of keys to values, such as {{model.depth: 8}}.")

    def test(self, what: str, entry: Any) -> None:
        if isinstance(entry, dict) and "predicted" in entry:
            self.keys(what, entry, ("says", "y", "predicted", "by", "margin"))
            self.values(f"predicted of {what}", entry["predicted"])
            ratio = _number(entry["margin"]) and entry["margin"] > 1
            self.require(ratio, f"{what} has a margin that is no ratio above 1 such as 1.05.")
            return
        self.keys(what, entry, ("says", "y", "than"), ("more", "not_more", "margin", "scale", "failed"))
        self.require(("more" in entry) != ("not_more" in entry), f"{what} needs one of more and not_more.")
        for side in ("more", "not_more", "than"):
            if side in entry and not (side == "than" and _number(entry[side])):
                self.values(f"{side} of {what}", entry[side])
        self.require(_number(margin := entry.get("margin", 0)), f"{what} has a margin that is no number.")
        self.require(entry.get("scale") in (None, "log"), f"{what} has scale: {entry.get('scale')}; it can be log.")
        ratio = "scale" not in entry or "margin" not in entry or margin > 0
        self.require(ratio, f"{what} has scale: log, whose margin is a ratio above 0 such as 1.5.")
        self.require(
            entry.get("failed") in (None, "worst"), f"{what} has failed: {entry.get('failed')}; it can be worst."
        )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def experiments() -> list[str]:
    """The names in conf/experiment."""
    from epochal.config.compose import choices

    return choices().get("experiment", [])
