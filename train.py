"""Trains one model on one data set, then tests it once.   python train.py --help"""

from pathlib import Path

from omegaconf import DictConfig

from epochal.cli import application, given


@application("train", Path(__file__).parent / "conf")
def main(config: DictConfig) -> None:
    from epochal.build import build  # torch and Lightning load only when a run really starts

    with build(config, overrides=given()) as job:
        job.fit()
        job.test()
        job.report()


if __name__ == "__main__":
    main()
