"""Tests a run's best weights and shows what they get right and wrong.   python evaluate.py --help"""

from epochal.cli import evaluate as main

if __name__ == "__main__":
    main()
