"""Coverage-guided fuzzing of a reader: ``python scripts/fuzz.py tar --seconds 60`` (extra ``[fuzz]``).

atheris changes sound files of the kind and keeps what reaches new code. It stops at the first input that
makes the reader raise anything but a `CnncError`, hang for more than 10 seconds, or take more than 2 GB of
memory; that input stays in the current folder as ``crash-…``, ``timeout-…`` or ``oom-…``. Without a name it
lists the names.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HANG_SECONDS, MEMORY_MB = 10, 2048


def main() -> None:
    """Fuzz one target for a bounded time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    import atheris

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    with atheris.instrument_imports(include=["cnnc", "PIL", "tarfile", "zipfile", "gzip", "json"]):
        import fuzz_targets

    temporary = Path(tempfile.mkdtemp(prefix="fuzz-"))
    targets = fuzz_targets.with_bundle(temporary)
    if options.target not in targets:
        parser.exit(2, f"targets: {', '.join(targets)}\n")
    target = targets[options.target]
    corpus = temporary / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    path = target.prepare(temporary / "files")

    def once(data: bytes) -> None:
        target.attempt(path, data)

    limits = [f"-max_total_time={options.seconds}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MB}"]
    largest = max(map(len, target.seeds))
    atheris.Setup([sys.argv[0], *limits, f"-max_len={2 * largest + 100}", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
