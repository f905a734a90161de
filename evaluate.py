"""Tests a run's best weights and shows what they get right and wrong.   python evaluate.py --help"""

from pathlib import Path

from omegaconf import DictConfig

from epochal.cli import application


@application("evaluate", Path(__file__).parent / "conf")
def main(config: DictConfig) -> None:
    from epochal.inference.evaluate import evaluate  # torch and Lightning load only when a run really starts

    evaluate(config)


if __name__ == "__main__":
    main()
