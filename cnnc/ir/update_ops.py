"""The gradient ops that optimizers are made of: one step of one parameter each.

All tensors have the parameter's shape unless the text says otherwise; rates and corrections are scalars.
"""

from __future__ import annotations

from cnnc.ir.grad_op import grad_op

UPDATE_OPS = (
    grad_op(
        "SGDUpdate",
        "g ← g + decay·p; p ← p - rate·g.",
        "p g rate",
        {"next_p": "p"},
        weight_decay=float,
    ),
    grad_op(
        "MomentumUpdate",
        "g ← g + decay·p; v ← momentum·v + g; p ← p - rate·v or, for Nesterov, "
        "p ← p - rate·(g + momentum·v).",
        "p g v rate",
        {"next_p": "p", "next_v": "v"},
        momentum=float,
        nesterov=int,
        weight_decay=float,
    ),
    grad_op(
        "AdamUpdate",
        "m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; p ← p - rate·(m/c₁)/(√(v/c₂) + ε), where c₁ = 1-β₁ᵗ and "
        "c₂ = 1-β₂ᵗ. weight_decay adds decay·p to g (Adam), decoupled_decay takes rate·decay·p from p "
        "(AdamW).",
        "p g m v rate c1 c2",
        {"next_p": "p", "next_m": "m", "next_v": "v"},
        beta1=float,
        beta2=float,
        epsilon=float,
        weight_decay=float,
        decoupled_decay=float,
    ),
    grad_op(
        "NAdamUpdate",
        "m and v as AdamUpdate's; π ← π·μₜ; p ← p - rate·((1-μₜ)/(1-π)·g + μₜ₊₁/(1-π·μₜ₊₁)·m)/(√(v/c₂) + ε). "
        "π, the product of all μ, is a scalar.",
        "p g m v product rate c2 mu next_mu",
        {"next_p": "p", "next_m": "m", "next_v": "v", "next_product": "product"},
        beta1=float,
        beta2=float,
        epsilon=float,
        weight_decay=float,
    ),
    grad_op(
        "LambUpdate",
        "m and v as AdamUpdate's; r = (m/c₁)/(√(v/c₂) + ε) + decay·p; p ← p - rate·φ·r, where φ is |p|/|r|, "
        "or 1 where one of them is 0 or adapt is.",
        "p g m v rate c1 c2",
        {"next_p": "p", "next_m": "m", "next_v": "v"},
        beta1=float,
        beta2=float,
        epsilon=float,
        decoupled_decay=float,
        adapt=int,
    ),
    grad_op(
        "LionUpdate",
        "p ← p - rate·(sign(β₁m + (1-β₁)g) + decay·p); m ← β₂m + (1-β₂)g.",
        "p g m rate",
        {"next_p": "p", "next_m": "m"},
        beta1=float,
        beta2=float,
        decoupled_decay=float,
    ),
    grad_op(
        "RMSpropUpdate",
        "g ← g + decay·p; v ← ρv + (1-ρ)g²; d = g/(√v + ε); with a buffer b ← momentum·b + d; "
        "p ← p - rate·b or, without it, p ← p - rate·d.",
        "p g v rate b?",
        {"next_p": "p", "next_v": "v", "next_b": "b"},
        rho=float,
        momentum=float,
        epsilon=float,
        weight_decay=float,
    ),
    grad_op(
        "CenteredRMSpropUpdate",
        "As RMSpropUpdate, with m ← ρm + (1-ρ)g and v - m², an estimate of the variance, in place of v.",
        "p g v m rate b?",
        {"next_p": "p", "next_v": "v", "next_m": "m", "next_b": "b"},
        rho=float,
        momentum=float,
        epsilon=float,
        weight_decay=float,
    ),
    grad_op(
        "AdagradUpdate",
        "g ← g + decay·p; v ← v + g²; p ← p - rate·g/(√v + ε).",
        "p g v rate",
        {"next_p": "p", "next_v": "v"},
        epsilon=float,
        weight_decay=float,
    ),
    grad_op(
        "AdadeltaUpdate",
        "g ← g + decay·p; v ← ρv + (1-ρ)g²; d = g·√(u + ε)/√(v + ε); u ← ρu + (1-ρ)d²; p ← p - rate·d.",
        "p g v u rate",
        {"next_p": "p", "next_v": "v", "next_u": "u"},
        rho=float,
        epsilon=float,
        weight_decay=float,
    ),
    grad_op(
        "AdafactorUpdate",
        "v ← v + share·(g² - v), where v is of p's shape; or, where columns c are given, v [.., R, 1] moves "
        "to the means of g² over the last axis, c [.., 1, C] to those over the one before, and v·c/mean(v) "
        "stands for the whole. d = g/√v; p ← p·(1 - rate·decay) - max(minimum, rms(p))·relative·d / "
        "max(1, rms(d)/clip).",
        "p g v rate share relative c?",
        {"next_p": "p", "next_v": "v", "next_c": "c"},
        epsilon=float,
        minimum=float,
        clip_threshold=float,
        decoupled_decay=float,
    ),
)
