"""Compares runs: table, figures, verdict, an HTML report.   python compare.py --help"""

from epochal.cli import compare as main

if __name__ == "__main__":
    main()
