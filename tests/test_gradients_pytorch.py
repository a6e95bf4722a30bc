"""Values and gradients of the table against PyTorch, element by element."""

import numpy as np
import pytest
from cases import CASES, Case, Input
from oracle import DOUBLE, assert_close, differentiate, measure, run
from reference import evaluator

from cnnc.ir import GRAD_OPS

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install 'cnnc[oracle]'")
from torch_functions import FUNCTIONS  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("row", [row for row in CASES if row.op in FUNCTIONS and not row.graph], ids=str)
def test_gradients_are_pytorchs(row: Case) -> None:
    model = evaluator(differentiate(row, DOUBLE))
    attributes = {
        key: float(np.float32(value)) if isinstance(value, float) and row.op not in GRAD_OPS else value
        for key, value in row.attributes.items()
    }
    # The ReferenceEvaluator has the 1/6 of HardSwish in float32, Range, and the weights of a cubic.
    single = row.op in ("HardSwish", "Range") or (row.op == "Resize" and row.attributes["mode"] == "cubic")
    tolerance = 1e-6 if single else 1e-12
    for sizes in row.batches:
        sample = measure(row, sizes)
        values = run(model, sample.feeds)
        inputs = {f"x{i}": torch.tensor(x) for i, x in enumerate(sample.inputs)}
        for name in sample.directions:
            inputs[name].requires_grad_()
        given = iter(inputs.values())
        operands = [next(given) if isinstance(o, Input) else o for o in row.operands]
        found = FUNCTIONS[row.op](*operands, **attributes)
        ys = [found] if isinstance(found, torch.Tensor) else list(found)
        for i, y in enumerate(ys):
            assert_close(values[f"y{i}"], y.detach().numpy(), tolerance, f"{row}: output {i}")
        used = ys[: row.projected]
        torch.autograd.backward(used, [torch.tensor(sample.feeds[f"v{i}"]) for i in range(len(used))])
        for name in sample.directions:
            assert_close(
                values[f"gradient/{name}"], inputs[name].grad.numpy(), 10 * tolerance, f"{row}: {name}"
            )


def test_most_operators_have_a_pytorch_function() -> None:
    assert {
        row.op for row in CASES if not row.graph and any(i.differentiated for i in row.inputs)
    } - FUNCTIONS.keys() == {"Cast", "CastLike"}
