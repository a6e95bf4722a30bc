"""The command line: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import contestants, environments, fit, loop, networks, report
from benchmarks.driver import Plan, measure
from benchmarks.workers.protocol import TASKS
from cnnc.errors import CnncError
from cnnc.runtime.providers import cpu_threads


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when done, 1 when something could not be had, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        options.command(options)
    except (CnncError, environments.SetupError) as error:
        say(f"benchmarks: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser("python -m benchmarks", description="cnnc and its peers side by side.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, help_: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_, description=help_)
        made.set_defaults(command=function)
        place = environments.FOLDER
        made.add_argument(
            "--environments", type=Path, default=place, help="where the peers' environments lie"
        )
        return made

    setup_ = command("setup", setup, "Make an environment for each peer.")
    known = list(environments.ENVIRONMENTS)
    setup_.add_argument("peers", nargs="*", metavar="peer", help=f"all by default: {', '.join(known)}")

    rows = command("run", run, "Measure the rows and write a table.")
    rows.add_argument("--rows", nargs="+", type=networks.Row.parse, default=networks.ROWS, metavar="ROW",
                      help=f"network:batch; by default {' '.join(map(str, networks.ROWS))}")  # fmt: skip
    names = " ".join(contestant.name for contestant in contestants.CONTESTANTS)
    rows.add_argument("--contestants", nargs="+", type=contestants.parse, metavar="NAME",
                      default=contestants.CONTESTANTS, help=f"by default {names}")  # fmt: skip
    rows.add_argument("--task", choices=TASKS, default="train", help="what a step does")
    rows.add_argument("--rounds", type=int, default=25, help="turns of each; 0 checks the losses only")
    rows.add_argument("--steps", type=int, help="steps a turn, by default as many as suit the row")
    rows.add_argument("--warm-up", type=int, help="steps before those that count, likewise")
    rows.add_argument("--output", type=Path, default=environments.FOLDER / "results", help="for the tables")

    loops = command("loop", loop.command, "Measure what the training loop costs around the step.")
    loop.add_options(loops)
    fits = command("fit", fit.command, "Time `cnnc train` against a Keras script, from start to exit.")
    fit.add_options(fits)
    return top


def setup(options: argparse.Namespace) -> None:
    """Make the environments asked for."""
    for name in options.peers or environments.ENVIRONMENTS:
        say(f"making the environment of {name} in {options.environments}")
        environments.make(name, options.environments)


def run(options: argparse.Namespace) -> None:
    """Check and measure row by row; the tables so far are written after each."""
    threads = cpu_threads()
    plan = Plan(options.task, threads, options.rounds, options.steps, options.warm_up,
                options.environments, options.output / "logs")  # fmt: skip
    able = [contestant for contestant in options.contestants if options.task in contestant.tasks]
    tables = []
    for row in options.rows:
        load = os.getloadavg()[0]
        entries = measure(row, able, plan, say)
        if plan.rounds:
            tables.append(report.tabulate(row, options.task, entries, load))
            print(report.write(tables, threads, options.output))


def say(words: str) -> None:
    """Progress, beside the output."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
