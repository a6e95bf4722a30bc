"""The command line: options, calls and printing, nothing else. `main` is the program ``cnnc``."""

from cnnc.cli.app import main

__all__ = ["main"]
