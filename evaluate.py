"""Tests a run's best weights and shows what they get right and wrong.   python evaluate.py --help"""

import sys

try:
    from epochal.cli import evaluate as main
except ModuleNotFoundError as error:
    if error.name != "epochal":
        raise
    print(
        "epochal is not installed in this Python; in a checkout: make train, then source .venv/bin/activate",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

if __name__ == "__main__":
    main()
