"""From a forward model to the files that `cnnc.ort_training.api` trains."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnc.errors import BundleError, CnncError, ModelError, UnsupportedError, UsageError, os_errors_as
from cnnc.runtime.files import write_whole

if TYPE_CHECKING:
    import onnx


class LossType(Enum):
    """The losses, each a mean over all elements or examples.

    ``CrossEntropyLoss`` takes logits [N, classes] and int64 labels [N], the input ``labels``; the others take
    a ``target`` of the output's shape.
    """

    MSELoss = 1
    CrossEntropyLoss = 2
    BCEWithLogitsLoss = 3
    L1Loss = 4


class OptimType(Enum):
    """The optimizers: AdamW (β 0.9 and 0.999, ε 1e-6, no weight decay) and SGD without momentum."""

    AdamW = 1
    SGD = 2


def generate_artifacts(
    model: onnx.ModelProto | str | os.PathLike[str],
    requires_grad: Sequence[str] | None = None,
    frozen_params: Sequence[str] | None = None,
    loss: LossType | None = None,
    optimizer: OptimType | None = None,
    artifact_directory: str | bytes | os.PathLike[Any] | None = None,
    prefix: str = "",
    ort_format: bool = False,
    custom_op_library: str | bytes | os.PathLike[Any] | None = None,
    additional_output_names: Sequence[str] | None = None,
    nominal_checkpoint: bool = False,
    loss_input_names: Sequence[str] | None = None,
) -> None:
    """Write training_model.onnx, eval_model.onnx, checkpoint and, with `optimizer`, optimizer_model.onnx.

    `model` is a forward model or its path; `requires_grad` names the parameters to train and `frozen_params`
    those that only go into the checkpoint. The files go to `artifact_directory` (created where it is
    missing; None is the working directory), each name behind `prefix`. `additional_output_names` may name
    the output that the loss reads, `loss_input_names` says which output that is.

    All or none of the files are new afterwards, except where writing itself fails. Raises UsageError for
    arguments that don't fit the model, UnsupportedError for what cnnc can't train or does not offer
    (`ort_format`, `custom_op_library`, `nominal_checkpoint`, onnxblock objects, no loss), ModelError for a
    model that can't be read, BundleError where a file can't be written.
    """
    _check_offered(loss, optimizer, ort_format, custom_op_library, nominal_checkpoint)
    assert loss is not None
    for option, names in (
        ("requires_grad", requires_grad),
        ("frozen_params", frozen_params),
        ("additional_output_names", additional_output_names),
        ("loss_input_names", loss_input_names),
    ):
        if isinstance(names, str):
            raise UsageError(f"{option} takes a list of names, not the text {names!r}.")
    if both := sorted(set(requires_grad or ()) & set(frozen_params or ())):
        raise UsageError(f"both requires_grad and frozen_params name {', '.join(both[:5])}.")
    from cnnc.ort_training.generation import Request, generate

    request = Request(
        tuple(requires_grad or ()),
        tuple(frozen_params or ()),
        loss.name,
        None if optimizer is None else optimizer.name,
        tuple(additional_output_names or ()),
        tuple(loss_input_names or ()),
    )
    if isinstance(model, str | os.PathLike):
        files = generate(os.fspath(model), request)
    else:
        with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
            path = _saved(model, Path(folder))
            try:
                files = generate(path, request)
            except CnncError as error:
                error.where = error.where.replace(path, "the model")
                raise
    _write(Path.cwd() if artifact_directory is None else Path(os.fsdecode(artifact_directory)), prefix, files)


def _check_offered(loss: object, optimizer: object, ort_format: bool, library: object, nominal: bool) -> None:
    """Raise for what onnxruntime-training has and this does not."""
    if loss is None:
        raise UnsupportedError(
            "without a loss the model's own output would have to be one, which cnnc does not train.",
            hint="Leave the loss out of the model, and name it: loss=LossType.…",
        )
    for option, value, kind in (("loss", loss, LossType), ("optimizer", optimizer, OptimType)):
        if value is not None and not isinstance(value, kind):
            raise UnsupportedError(
                f"{option} can't be {value!r}: neither names nor blocks of onnxblock are taken.",
                hint=f"Take one of {', '.join(f'{kind.__name__}.{each.name}' for each in kind)}.",
            )
    for option, wish, hint in (
        ("ort_format", ort_format, "ONNX Runtime loads the .onnx files as they are."),
        ("custom_op_library", library, "Models of standard operators can be trained."),
        ("nominal_checkpoint", nominal, "Deploy the complete checkpoint."),
    ):
        if wish:
            raise UnsupportedError(f"{option} is not offered.", hint=hint)


def _saved(model: onnx.ModelProto, folder: Path) -> str:
    import onnx

    if not isinstance(model, onnx.ModelProto):
        raise UsageError(f"model is a {type(model).__name__}: give an onnx.ModelProto, or the path of one.")
    path = folder / f"{Path(model.graph.name).name or 'model'}.onnx"
    try:
        path.write_bytes(model.SerializeToString())
    except ValueError as error:  # protobuf: more than 2 GiB
        raise ModelError(f"the model can't be written: {error}.", hint="Give its path.") from error
    return os.fspath(path)


def _write(folder: Path, prefix: str, files: dict[str, bytes]) -> None:
    with os_errors_as(
        BundleError, "the artifacts can't be written", where=folder, hint="Choose another artifact_directory."
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / f"{prefix}{name}", data)
