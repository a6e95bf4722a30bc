"""Bodies of the optimizer updates. All tensors have the parameter's shape; rates are scalars."""

from __future__ import annotations

from cnnc.lowering.body import Call, Value, body


@body("SGDUpdate")
def sgd(op: Call, p: Value, g: Value, rate: Value) -> Value:
    """One product and one difference, two more with decay."""
    return op.Sub(p, op.Mul(_decayed(op, p, g), rate))


@body("MomentumUpdate")
def momentum(op: Call, p: Value, g: Value, v: Value, rate: Value) -> tuple[Value, Value]:
    """As PyTorch's SGD with dampening 0 (Sutskever et al., 2013, for Nesterov's form)."""
    g, mu = _decayed(op, p, g), op.attr("momentum")
    next_v = op.Add(op.Mul(v, mu), g)
    step = op.Add(g, op.Mul(next_v, mu)) if op.attr("nesterov") else next_v
    return op.Sub(p, op.Mul(step, rate)), next_v


@body("AdamUpdate")
def adam(
    op: Call, p: Value, g: Value, m: Value, v: Value, rate: Value, c1: Value, c2: Value
) -> tuple[Value, Value, Value]:
    """Kingma and Ba, 2015, algorithm 1; decoupled decay as Loshchilov and Hutter, 2019."""
    beta1, beta2 = op.attr("beta1"), op.attr("beta2")
    decoupled = op.attr("decoupled_decay")
    g = _decayed(op, p, g)
    next_m = op.Add(op.Mul(m, beta1), op.Mul(g, 1.0 - beta1))
    next_v = op.Add(op.Mul(v, beta2), op.Mul(op.Mul(g, g), 1.0 - beta2))
    # √(v/c₂) + ε = (√v + ε·√c₂) / √c₂: the scalars are joined first, so that tensors see fewer passes.
    root = op.Sqrt(c2)
    step = op.Div(op.Mul(rate, root), c1)
    move = op.Div(op.Mul(next_m, step), op.Add(op.Sqrt(next_v), op.Mul(root, op.attr("epsilon"))))
    if decoupled:
        p = op.Mul(p, op.Sub(1.0, op.Mul(rate, decoupled)))
    return op.Sub(p, move), next_m, next_v


def _decayed(op: Call, p: Value, g: Value) -> Value:
    """The gradient of the loss plus decay/2·|p|²."""
    decay = op.attr("weight_decay")
    return op.Add(g, op.Mul(p, decay)) if decay else g
