"""The opset and IR version of every graph cnnc writes: the one place where they stand.

Opset 18, because ONNX Runtime's CUDA provider matches an open-ended kernel by its exact version, so a
newer opset silently moves nodes to the CPU. IR version 10 is the first with ``metadata_props`` on nodes,
where a gradient node keeps its provenance.
"""

OPSET = 18
IR_VERSION = 10

GRAD_DOMAIN = "cnnc.grad"
"""Domain of the gradient ops: model-local functions whose bodies are standard ONNX."""
GRAD_VERSION = 1
