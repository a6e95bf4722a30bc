"""``cnnc doctor``: what may keep cnnc from working here."""

from __future__ import annotations

from dataclasses import asdict

import typer

from cnnc.cli.options import Debug, Json
from cnnc.cli.output import counted, print_json

SIGNS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Look at Python, packages, execution providers, processors and disk, and say what to mend.

    The exit status is 1 where there is a problem.
    """
    from cnnc import __version__
    from cnnc.doctor import examine

    findings = examine()
    problems = sum(finding.level == "problem" for finding in findings)
    if json:
        print_json({"cnnc": __version__, "findings": [asdict(finding) for finding in findings]})
    else:
        typer.echo(f"cnnc {__version__}")
        for finding in findings:
            typer.echo(
                f"{SIGNS[finding.level]}{finding.what}" + (f". {finding.hint}" if finding.hint else "")
            )
        typer.echo(counted(problems, "problem") if problems else "no problems")
    if problems:
        raise typer.Exit(1)
