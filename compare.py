"""Compares runs: table, figures, verdict, an HTML report.   python compare.py --help"""

from epochal.compare.command import main

if __name__ == "__main__":
    main()
