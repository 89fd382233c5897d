"""``python -m macrorec`` is ``macrorec``."""

from macrorec.cli import main

if __name__ == "__main__":
    main()
