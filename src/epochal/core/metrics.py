"""Every metric and cost: its label, unit, direction, and how its values are written.

Names are those of `metrics.csv` and `summary.json`: `<split>/<metric>`, such as `test/accuracy`; with a condition between
the two where the data was changed first, `test/noise_0.3/accuracy`; other data or a task in place of the split for what
evaluate.py found since, `sst2/shots_4/accuracy`; or without a split for the axes of learning curves and for what a run
costs, such as `seconds`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Direction = Literal["max", "min"]
# how a value is written: 1.234, 96.05 %, 61.7 k, 1,234, or 3 h 20 min
Form = Literal["number", "percent", "short", "whole", "duration"]

SPLITS = {"train": "training", "val": "validation", "test": "test"}
COSTS = (
    "parameters",
    "flops",
    "examples_per_second",
    "seconds",
    "peak_memory_mb",
    "flops_at_mean_length",
    "steps",
    "epochs",
)
MEASURED_COSTS = ("seconds", "examples_per_second", "peak_memory_mb")  # differ between runs of one config

# unknown metrics, such as those a user logs, that are taken to be better when larger
LARGER = re.compile(
    r"accuracy|bleu|chrf|exact|whole|solved|f1|precision|recall|score|auc|per_second"
    r"|(^|_)(r2|iou|dice|psnr|ssim|kappa|mcc)(_|$)",
    re.IGNORECASE,
)
SHOTS = re.compile(r"\bshots (\d+)")  # the examples in a prompt


@dataclass(frozen=True)
class Metric:
    """A metric, cost or axis.

    Attributes:
        name: Without its split: accuracy.
        label: In words.
        direction: "max" if larger values are better, "min" if smaller ones are, None if neither is.
        form: How a value is written.
        unit: Named beside the label, in the axis titles of figures; "" for none.
    """

    name: str
    label: str
    direction: Direction | None = None
    form: Form = "number"
    unit: str = ""

    @property
    def percent(self) -> bool:
        """Whether it is a fraction, shown in percent."""
        return self.form == "percent"

    @property
    def larger_is_better(self) -> bool:
        return self.direction == "max"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "loss", "min"),
        Metric("accuracy", "accuracy", "max", "percent"),
        Metric("error", "error", "min", "percent"),  # 1 - accuracy
        Metric("top5_accuracy", "top-5 accuracy", "max", "percent"),
        Metric("acc", "accuracy", "max", "percent"),  # the names of lm-evaluation-harness
        Metric("acc_norm", "accuracy by bytes", "max", "percent"),  # likelihoods by the length of the answers
        Metric("exact_match", "exact matches", "max", "percent"),
        Metric("exact", "exact matches", "max", "percent"),
        Metric("whole", "whole sequences right", "max", "percent"),
        Metric("solved", "solved", "max", "percent"),
        Metric("mae", "mean absolute error", "min"),
        Metric("explained", "explained variance", "max"),  # a fraction, but it may be far below zero
        Metric("perplexity", "perplexity", "min"),
        Metric("bits_per_character", "bits per character", "min"),
        Metric("bits_per_byte", "bits per byte", "min"),
        Metric("bleu", "BLEU", "max"),
        Metric("bleu_short", "BLEU of short sources", "max"),
        Metric("bleu_long", "BLEU of long sources", "max"),
        Metric("bleu_kept", "BLEU of long / short sources", "max"),
        Metric("chrf", "chrF", "max"),
        Metric("generator_loss", "generator loss", "min"),
        Metric("discriminator_loss", "discriminator loss", "min"),
        Metric("d_real", "D(real)"),
        Metric("d_fake", "D(fake)"),
        Metric("wasserstein_distance", "Wasserstein distance (estimate)"),
        Metric("gradient_penalty", "gradient penalty", "min"),
        Metric("fid", "FID", "min"),
        Metric("fid_floor", "FID of other real images"),
        Metric("kid", "KID", "min"),
        Metric("sample_precision", "precision of the samples", "max", "percent"),
        Metric("sample_recall", "recall of the samples", "max", "percent"),
        Metric("modes_covered", "classes covered", "max", "whole"),
        Metric("margin", "margin of scores", "max"),
        Metric("chosen_reward", "implicit reward of the chosen answer"),
        Metric("rejected_reward", "implicit reward of the rejected answer"),
        Metric("reward", "reward", "max"),
        Metric("objective", "reward less the leash", "max"),
        Metric("kl", "KL divergence from the reference", None, "number", "nats a sequence"),
        Metric("entropy", "entropy", None, "number", "nats a token"),
        Metric("length", "length of answers", None, "number", "tokens"),
        Metric("clip_fraction", "clipped tokens", None, "percent"),
        Metric("unended", "answers without end", None, "percent"),
        Metric("distinct_2", "distinct pairs of tokens", None, "percent"),
        Metric("judged", "answers that the judge likes", "max", "percent"),
        Metric("judged_distinct_2", "distinct pairs of tokens in judged answers", None, "percent"),
        Metric("judged_length", "length of judged answers", None, "number", "tokens"),
        Metric("judged_kl", "KL divergence of judged answers", None, "number", "nats an answer"),
        Metric("policy_loss", "policy loss"),
        Metric("value_loss", "value loss", "min"),
        Metric("gradient_norm", "gradient norm"),
        Metric("generator_gradient_norm", "gradient norm of the generator"),
        Metric("discriminator_gradient_norm", "gradient norm of the discriminator"),
        Metric("gradient_decades_lost", "gradient decades lost (at most 8)", "min"),  # from the last step to the first
        Metric("gradient_decades_lost_midway", "gradient decades lost over the middle half (at most 8)", "min"),
        Metric("learning_rate", "learning rate"),
        Metric("examples_per_second", "examples/s", "max", "short"),
        Metric("tokens_per_second", "tokens/s", "max", "short"),
        Metric("parameters", "parameters", "min", "short"),
        Metric("flops", "FLOPs", "min", "short", "one example"),
        Metric("flops_at_mean_length", "FLOPs at mean length", "min", "short", "one example"),
        Metric("training_flops", "training FLOPs", None, "short"),
        Metric("seconds", "time", "min", "duration", "s"),
        Metric("peak_memory_mb", "peak memory", "min", "whole", "MB"),
        Metric("steps", "steps", "min", "whole"),
        Metric("epochs", "epochs", "min"),
        Metric("step", "step", None, "whole"),
        Metric("epoch", "epoch"),
        Metric("examples", "examples", None, "whole"),
    )
}


def find(name: str) -> Metric:
    """The metric of a name, with or without its split.

    An unknown one, which a user logs, is a plain number; whether larger is better is guessed from its name.
    """
    metric = name.rpartition("/")[2]
    if metric in METRICS:
        return METRICS[metric]
    return Metric(metric, metric.replace("_", " "), "max" if LARGER.search(metric) else "min")


def direction(name: str) -> Direction | None:
    """ "max" for `val/accuracy`, "min" for `val/loss`, None for `train/learning_rate`."""
    return find(name).direction


def metric_label(name: str, *, short: bool = False) -> str:
    """`validation accuracy`, `test error at noise 0.3`, `sst2 accuracy at 4 shots`; short: `val accuracy`, as in the head
    of a column."""
    split, slash, rest = name.partition("/")
    condition = rest.rpartition("/")[0].replace("_", " ").replace("/", ", ")
    condition = SHOTS.sub(lambda found: f"{found[1]} shot" + "s" * (found[1] != "1"), condition)
    words = [split if short else SPLITS.get(split, split)] if slash else []
    return " ".join([*words, find(name).label, *(["at", condition] if condition else [])])
