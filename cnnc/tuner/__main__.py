"""``python -m cnnc.tuner BUNDLE BATCH``: tune, and print the record; how training calls the tuner."""

from __future__ import annotations

import argparse
import json
import sys

from cnnc.bundle import Bundle
from cnnc.errors import CnncError
from cnnc.tuner import tune


def main() -> int:
    """Tune; 1 with a line on standard error where that fails."""
    parser = argparse.ArgumentParser("python -m cnnc.tuner")
    parser.add_argument("bundle")
    parser.add_argument("batch", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--exact", action="store_true")
    given = parser.parse_args()
    try:
        found = tune(
            Bundle.open(given.bundle),
            given.batch,
            threads=given.threads,
            exact=given.exact,
            seconds=given.seconds,
        )
    except (CnncError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(found.step.summary(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
