"""The operators of the table as PyTorch writes them: an oracle that shares nothing with ours.

``FUNCTIONS[op](*inputs, **attributes)`` takes and returns tensors; attributes are ONNX's. Only for tests
marked ``oracle``.
"""

from torch_functions import elementwise, indexing, losses, normalization, products, resampling, shape, windows

FUNCTIONS = {
    **elementwise.FUNCTIONS,
    **shape.FUNCTIONS,
    **indexing.FUNCTIONS,
    **products.FUNCTIONS,
    **windows.FUNCTIONS,
    **normalization.FUNCTIONS,
    **losses.FUNCTIONS,
    **resampling.FUNCTIONS,
}
