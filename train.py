"""Trains one model on one data set, then tests it once.   python train.py --help"""

from pathlib import Path

from omegaconf import DictConfig

from epochal.cli import application


@application("train", Path(__file__).parent / "conf")
def main(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from epochal.build import build  # torch and Lightning load only when a run really starts

    job = build(config, overrides=list(HydraConfig.get().overrides.task))
    job.fit()
    job.test()
    job.report()


if __name__ == "__main__":
    main()
