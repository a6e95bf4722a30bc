"""Layouts: the training step written anew for one batch size, with feature maps where they are cheapest.

Autodiff says what a gradient is, and lowering gives each its body: both see [N, C, H, W]. This pass stands
between them. It takes the step that autodiff left, and computes whole regions of it in other orders of the
axes, where convolutions are plain products, sums long rows, and transforms shared by all that need them.
"""

from cnnc.layout import blocked, border, columns, depthwise, followers, products, runs, winograd
from cnnc.layout.form import FOLLOWERS, FORMS, Form, Site
from cnnc.layout.order import LAYOUTS, Layout
from cnnc.layout.recover import recover_step
from cnnc.layout.relayout import Plan, fix_batch, is_map, legal_forms, relayout

__all__ = [
    "FOLLOWERS",
    "FORMS",
    "LAYOUTS",
    "Form",
    "Layout",
    "Plan",
    "Site",
    "blocked",
    "border",
    "columns",
    "depthwise",
    "fix_batch",
    "followers",
    "is_map",
    "legal_forms",
    "products",
    "recover_step",
    "relayout",
    "runs",
    "winograd",
]
