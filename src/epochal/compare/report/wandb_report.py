"""A W&B report with the same plots as the page. Tests build it; it has not been saved to a W&B server yet."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from epochal.compare.comparison import Comparison, Plot
from epochal.core.errors import ConfigError, EpochalError


def publish(comparison: Comparison, console: Console) -> None:
    """Saves the report in the project that the runs were logged to, and prints its address.

    Raises:
        ConfigError: If the package is missing, or the runs were not all logged to one project.
        EpochalError: If W&B refuses it, for lack of a login or a network for instance.
    """
    try:
        made = report(comparison)
        made.save()
    except EpochalError:
        raise
    except Exception as error:  # W&B's client raises many types; the user can only read the message
        raise EpochalError(
            f"W&B took no report ({type(error).__name__}: {' '.join(str(error).split())}); wandb login, and the network, "
            "are needed, and runs kept offline must have been sent: wandb sync <run>/wandb/offline-run-*."
        ) from error
    console.print(f"report  {made.url}", soft_wrap=True)


def report(comparison: Comparison) -> Any:
    """The `wandb_workspaces.reports.v2.Report`, not saved yet; W&B needs a login for it if the runs name no entity.

    Raises:
        ConfigError: If the package is missing, or the runs were not all logged to one project.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        from wandb_workspaces import expr
    except ModuleNotFoundError as error:
        raise ConfigError("--publish needs W&B's package for reports: pip install 'epochal[publish]'.") from error

    logged = [record for record in comparison.drawn if record.summary.get("wandb_id")]
    if not logged:
        raise ConfigError(
            "None of these runs was logged to W&B; train with logger=wandb, the default, to publish them."
        )
    places = {(record.value("logger.entity"), record.value("logger.project")) for record in logged}
    if len(places) > 1:
        projects = " ".join(sorted(str(project) for _, project in places))
        raise ConfigError(f"These runs are in several W&B projects ({projects}); a report shows those of one.")
    entity, project = places.pop()
    place: dict[str, Any] = {"project": str(project), **({"entity": str(entity)} if entity else {})}
    runs = wr.Runset(
        **place,
        name=comparison.title[:80],
        filters=[expr.Metric("Name").isin([record.name for record in logged])],
        groupby=[f"config.{key}" for key in comparison.keys],
    )
    panels = [_panel(wr, plot) for plot in comparison.plots if plot.kind != "profile"]
    blocks: list[Any] = [
        wr.MarkdownBlock(_summary(comparison)),
        wr.PanelGrid(runsets=[runs], panels=[*panels, wr.RunComparer()]),
    ]
    return wr.Report(**place, title=comparison.title, description=comparison.footnote, blocks=blocks)


def _panel(wr: Any, plot: Plot) -> Any:
    """The W&B panel that is most like the plot."""
    group = [wr.Config(key) for key in plot.group]
    if plot.kind == "curves":
        return wr.LinePlot(
            title=plot.title,
            x="step",  # the only axis that W&B has
            y=[_metric(plot.y)],
            groupby=group[0] if group else None,
            groupby_rangefunc="stddev" if group else None,
        )
    if plot.kind == "points":
        x = wr.SummaryMetric(plot.x) if "/" in plot.x else wr.Config(plot.x)
        return wr.ScatterPlot(title=plot.title, x=x, y=wr.SummaryMetric(_metric(plot.y)))
    first = wr.Config(plot.x) if plot.x else group[0] if group else None
    return wr.BarPlot(title=plot.title, metrics=[wr.SummaryMetric(_metric(plot.y))], groupby=first, orientation="v")


def _metric(name: str) -> str:
    """The name that the runs logged: errors are computed from accuracies when runs are compared, and W&B has none."""
    return name.removesuffix("/error") + "/accuracy" if name.endswith("/error") else name


def _summary(comparison: Comparison) -> str:
    """Verdict, source and footnote as Markdown."""
    lines = []
    if comparison.verdict is not None:
        lines.append(f"**{comparison.verdict.verdict}.** {comparison.verdict.sentence}")
        lines += [f"- {tested.says}: {tested.verdict}. {tested.sentence}" for tested in comparison.verdict.tests]
    if comparison.source:
        lines.append(f"Source: {comparison.source}.")
    if any(plot.y.endswith("/error") for plot in comparison.plots):
        lines.append("Plots of errors show the accuracy here: 1 - error.")
    return "\n\n".join([*lines, comparison.footnote])
