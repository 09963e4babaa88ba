"""`python -m sidecard.cli`."""

from sidecard.cli import main

main()
