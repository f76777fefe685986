"""``python -m bitcc.cli``."""

from bitcc.cli import main

main()
