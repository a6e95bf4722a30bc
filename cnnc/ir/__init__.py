"""Typed ONNX graphs: the builder that makes them, the gradient ops, and the checks after every pass."""

from cnnc.ir.builder import Builder, Operand, Ops
from cnnc.ir.grad_op import GradOp
from cnnc.ir.grad_ops import GRAD_OPS
from cnnc.ir.network import Adapter, Network, Parameter
from cnnc.ir.standard import BuildError
from cnnc.ir.types import Dim, TensorType, agree, dims_of, is_static, sizes_of, type_of

__all__ = [
    "GRAD_OPS",
    "Adapter",
    "BuildError",
    "Builder",
    "Dim",
    "GradOp",
    "Network",
    "Operand",
    "Ops",
    "Parameter",
    "TensorType",
    "agree",
    "dims_of",
    "is_static",
    "sizes_of",
    "type_of",
]
