"""`python -m cupel`, which torchrun needs: the same as the command `cupel`."""

from cupel.cli.main import main

main()
