"""The worker process: ``python -m cnnc.data.worker FD BYTES NUMBER < jobs > answers`` (see `cnnc.data.pool`).

Jobs and answers are lines of JSON; pixels go into the memory behind the file descriptor FD, which both sides
map. A worker ends as soon as its jobs' pipe is closed, which also happens when its parent dies in any way.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import Any

import numpy as np

from cnnc.data.images import Form
from cnnc.data.reading import decode_place, look
from cnnc.errors import DataError

PAGE = 4096
"""The memory begins with a page of int64: the example that each worker has in hand."""


def main() -> None:
    """Answer the jobs on standard input."""
    descriptor, size, number = map(int, sys.argv[1:4])
    memory = mmap.mmap(descriptor, size)
    jobs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    hand = np.frombuffer(memory, np.int64, PAGE // 8)
    answers = sys.stdout.buffer
    while True:
        job = json.loads(jobs.get())
        try:
            answer = {"bad": [], **TASKS[job["task"]](job, memory, hand[number : number + 1])}
        except Exception:  # a fault of cnnc: told by the parent, with all that is known of it
            answer = {"failed": traceback.format_exc()}
        answers.write(json.dumps({"job": job["job"], **answer}).encode() + b"\n")
        answers.flush()


def _receive(jobs: SimpleQueue[bytes]) -> None:
    """Take jobs as they come, so that the parent never waits to send one; leave with the last."""
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)


def _decode(job: dict[str, Any], memory: mmap.mmap, hand: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Decode a batch into its slot; the bad examples of it are named, and their pixels mean nothing."""
    form = Form(job["channels"], tuple(job["size"]), job["resize"], job["crop"])
    shape = (len(job["places"]), form.channels, *job["size"])
    slot = np.frombuffer(memory, np.uint8, int(np.prod(shape)), job["start"]).reshape(shape)
    bad = []
    for index, place in enumerate(job["places"]):
        hand[0] = index
        try:
            slot[index] = decode_place(place, form, job["decoder"], "")
        except DataError as error:
            bad.append([index, error.what, error.hint])
    return {"bad": bad}


def _look(job: dict[str, Any], memory: mmap.mmap, hand: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Read headers, or with `whole` decode all, and keep nothing but what they say."""
    found: list[Any] = []
    bad = []
    for index, place in enumerate(job["places"]):
        hand[0] = index
        try:
            found.append(look(place, "", job["whole"]))
        except DataError as error:
            found.append(None)
            bad.append([index, error.what, error.hint])
    return {"found": found, "bad": bad}


TASKS = {"decode": _decode, "look": _look}

if __name__ == "__main__":
    main()
