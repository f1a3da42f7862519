"""`python -m lensmith.cli`: the command line of this very interpreter."""

from lensmith.cli.app import main

main()
