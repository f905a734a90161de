"""Trains one model on one data set, then tests it once; or a whole grid of them.   python train.py --help"""

from epochal.cli import train as main

if __name__ == "__main__":
    main()
