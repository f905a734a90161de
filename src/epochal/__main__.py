"""python -m epochal"""

from epochal.cli import main

if __name__ == "__main__":
    main()
