"""Values and gradients of the table against PyTorch, element by element."""

import pytest
from cases import CASES, Input
from oracle import DOUBLE, assert_close, differentiate, measure, run
from reference import evaluator

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install 'cnnc[oracle]'")
from torch_functions import FUNCTIONS  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("row", [row for row in CASES if row.op in FUNCTIONS and not row.graph], ids=str)
def test_gradients_are_pytorchs(row):
    model = evaluator(differentiate(row, DOUBLE))
    for sizes in row.batches:
        sample = measure(row, sizes)
        values = run(model, sample.feeds)
        inputs = {f"x{i}": torch.tensor(x) for i, x in enumerate(sample.inputs)}
        for name in sample.directions:
            inputs[name].requires_grad_()
        given = iter(inputs.values())
        operands = [next(given) if isinstance(o, Input) else o for o in row.operands]
        y = FUNCTIONS[row.op](*operands, **row.attributes)
        assert_close(values["y0"], y.detach().numpy(), 1e-12, f"{row}: forward")
        y.backward(torch.tensor(sample.feeds["v0"]))
        for name in sample.directions:
            assert_close(values[f"gradient/{name}"], inputs[name].grad.numpy(), 1e-11, f"{row}: {name}")


def test_most_operators_have_a_pytorch_function():
    assert {
        row.op for row in CASES if row.inputs and any(i.differentiated for i in row.inputs)
    } - FUNCTIONS.keys() == {
        "Cast",
        "DropoutMask",
    }
