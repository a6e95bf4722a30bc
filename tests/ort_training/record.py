"""Write ``recorded.json``: what ``train.py`` gives under onnxruntime-training itself.

Run in an environment of its own, since the package replaces onnxruntime: Python 3.11, onnxruntime-training
1.19.2, onnx, numpy < 2 and a torch that it can import. It also records what LinearLRScheduler gives when its
two counts are exchanged, which 1.19.2 exchanges once more.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx.helper

HERE = Path(__file__).parent


def main() -> None:
    for package in (onnx, onnx.helper):
        vars(package)["IR_VERSION"] = 9  # the newest that this release reads
    import numpy as np
    import train
    from onnxruntime.training.api import CheckpointState, LinearLRScheduler, Module, Optimizer

    record: dict[str, Any] = {}
    for case in train.CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            record[case] = train.main(case, folder)
            if case == "cross_entropy_sgd":
                state = CheckpointState.load_checkpoint(folder / "checkpoint")
                module = Module(folder / "training_model.onnx", state)
                optimizer = Optimizer(folder / "optimizer_model.onnx", module)
                scheduler = LinearLRScheduler(optimizer, 8, 3, 0.1)
                rates = [optimizer.get_learning_rate()]
                for _ in range(10):
                    module(np.zeros((1, 1, 6, 6), np.float32), np.zeros(1, np.int64))
                    optimizer.step()
                    scheduler.step()
                    rates.append(optimizer.get_learning_rate())
    record["scheduler"] = {"warmup": 3, "total": 8, "rate": 0.1, "rates": rates}
    (HERE / "recorded.json").write_text(json.dumps(record, indent=None) + "\n")


if __name__ == "__main__":
    main()
