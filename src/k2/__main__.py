"""``python -m k2``: the same as ``k2``."""

from k2.cli import main

main()
