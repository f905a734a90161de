"""Trains one model on one data set, then tests it once; or a whole grid of them.   python train.py --help"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from epochal.cli import application, given


@application("train", Path(__file__).parent / "conf")
def main(config: DictConfig) -> tuple[Any, bool]:
    from epochal.experiments.sweeps import pruning
    from epochal.training.build import build  # torch and Lightning load only when a run really starts
    from epochal.training.resume import finished_before

    if run := finished_before(config):  # resume=auto, and nothing is left to do
        return run, True
    with build(config, overrides=given(), callbacks=pruning(config)) as job:
        job.fit()
        job.test()
        job.report()
    return job.run, False


if __name__ == "__main__":
    main()
