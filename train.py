"""Trains one model on one data set, then tests it once; or a whole grid of them.   python train.py --help"""

import sys

try:
    from epochal.cli import train as main
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
