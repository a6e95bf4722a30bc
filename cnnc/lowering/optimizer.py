"""Bodies of the optimizer updates. Tensors have the parameter's shape; rates and corrections are scalars."""

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
    next_m, next_v = _moments(op, _decayed(op, p, g), m, v)
    # √(v/c₂) + ε = (√v + ε·√c₂) / √c₂: the scalars are joined first, so that tensors see fewer passes.
    root = op.Sqrt(c2)
    step = op.Div(op.Mul(rate, root), c1)
    move = op.Div(op.Mul(next_m, step), _scaled_root(op, next_v, root))
    return op.Sub(_shrunk(op, p, rate), move), next_m, next_v


@body("NAdamUpdate")
def nadam(
    op: Call,
    p: Value,
    g: Value,
    m: Value,
    v: Value,
    product: Value,
    rate: Value,
    c2: Value,
    mu: Value,
    next_mu: Value,
) -> tuple[Value, Value, Value, Value]:
    """Dozat, 2016, with the momentum schedule that PyTorch has; the scalars are joined as in Adam."""
    g = _decayed(op, p, g)
    next_m, next_v = _moments(op, g, m, v)
    next_product = op.Mul(product, mu)
    root = op.Sqrt(c2)
    scale = op.Mul(rate, root)
    now = op.Div(op.Mul(scale, op.Sub(1.0, mu)), op.Sub(1.0, next_product))
    ahead = op.Div(op.Mul(scale, next_mu), op.Sub(1.0, op.Mul(next_product, next_mu)))
    direction = op.Add(op.Mul(g, now), op.Mul(next_m, ahead))
    return op.Sub(p, op.Div(direction, _scaled_root(op, next_v, root))), next_m, next_v, next_product


@body("LambUpdate")
def lamb(
    op: Call, p: Value, g: Value, m: Value, v: Value, rate: Value, c1: Value, c2: Value
) -> tuple[Value, Value, Value]:
    """You et al., 2020, algorithm 2, with φ the identity."""
    next_m, next_v = _moments(op, g, m, v)
    root = op.Sqrt(c2)
    direction = op.Div(op.Mul(next_m, op.Div(root, c1)), _scaled_root(op, next_v, root))
    if decay := op.attr("decoupled_decay"):
        direction = op.Add(direction, op.Mul(p, decay))
    if op.attr("adapt"):
        ours, theirs = (op.Sqrt(op.ReduceSum(op.Mul(x, x), keepdims=0)) for x in (p, direction))
        usable = op.And(op.Greater(ours, 0.0), op.Greater(theirs, 0.0))
        rate = op.Mul(rate, op.Where(usable, op.Div(ours, theirs), 1.0))
    return op.Sub(p, op.Mul(direction, rate)), next_m, next_v


@body("LionUpdate")
def lion(op: Call, p: Value, g: Value, m: Value, rate: Value) -> tuple[Value, Value]:
    """Chen et al., 2023, algorithm 2."""
    sign = op.Sign(_average(op, m, g, op.attr("beta1")))
    return op.Sub(_shrunk(op, p, rate), op.Mul(sign, rate)), _average(op, m, g, op.attr("beta2"))


@body("RMSpropUpdate")
def rmsprop(op: Call, p: Value, g: Value, v: Value, rate: Value, b: Value | None = None) -> tuple[Value, ...]:
    """Tieleman and Hinton, 2012; ε outside of the root and momentum after it, as PyTorch."""
    g = _decayed(op, p, g)
    next_v = _average(op, v, op.Mul(g, g), op.attr("rho"))
    after, *buffer = _rmsprop(op, p, g, next_v, rate, b)
    return after, next_v, *buffer


@body("CenteredRMSpropUpdate")
def centered_rmsprop(
    op: Call, p: Value, g: Value, v: Value, m: Value, rate: Value, b: Value | None = None
) -> tuple[Value, ...]:
    """Graves, 2013, equations 38 to 42, ε as above. Rounding can take v - m² below 0: it is cut there."""
    g, rho = _decayed(op, p, g), op.attr("rho")
    next_v, next_m = _average(op, v, op.Mul(g, g), rho), _average(op, m, g, rho)
    variance = op.Max(op.Sub(next_v, op.Mul(next_m, next_m)), 0.0)
    after, *buffer = _rmsprop(op, p, g, variance, rate, b)
    return after, next_v, next_m, *buffer


@body("AdagradUpdate")
def adagrad(op: Call, p: Value, g: Value, v: Value, rate: Value) -> tuple[Value, Value]:
    """Duchi et al., 2011."""
    g = _decayed(op, p, g)
    next_v = op.Add(v, op.Mul(g, g))
    return op.Sub(p, op.Mul(op.Div(g, op.Add(op.Sqrt(next_v), op.attr("epsilon"))), rate)), next_v


@body("AdadeltaUpdate")
def adadelta(op: Call, p: Value, g: Value, v: Value, u: Value, rate: Value) -> tuple[Value, Value, Value]:
    """Zeiler, 2012, algorithm 1."""
    g, rho, epsilon = _decayed(op, p, g), op.attr("rho"), op.attr("epsilon")
    next_v = _average(op, v, op.Mul(g, g), rho)
    ratio = op.Div(op.Sqrt(op.Add(u, epsilon)), op.Sqrt(op.Add(next_v, epsilon)))
    move = op.Mul(g, ratio)
    return op.Sub(p, op.Mul(move, rate)), next_v, _average(op, u, op.Mul(move, move), rho)


@body("AdafactorUpdate")
def adafactor(
    op: Call,
    p: Value,
    g: Value,
    v: Value,
    rate: Value,
    share: Value,
    relative: Value,
    c: Value | None = None,
) -> tuple[Value, ...]:
    """Shazeer and Stern, 2018, algorithm 5, as in PyTorch: ε bounds v from below, and is not added to g²."""
    squares, epsilon = op.Mul(g, g), op.attr("epsilon")
    if c is None:
        next_v = estimate = _moved(op, v, squares, share)
        averages = [next_v]
    else:
        next_v = _moved(op, v, op.ReduceMean(squares, [-1], keepdims=1), share)
        next_c = _moved(op, c, op.ReduceMean(squares, [-2], keepdims=1), share)
        whole = op.Max(op.ReduceMean(next_v, [-2], keepdims=1), epsilon)
        estimate = op.Mul(op.Div(next_v, whole), next_c)
        averages = [next_v, next_c]
    direction = op.Div(g, op.Sqrt(op.Max(estimate, epsilon**2)))
    size = op.Mul(op.Max(_rms(op, p), op.attr("minimum")), relative)
    step = op.Div(size, op.Max(op.Div(_rms(op, direction), op.attr("clip_threshold")), 1.0))
    return op.Sub(_shrunk(op, p, rate), op.Mul(direction, step)), *averages


def _rmsprop(op: Call, p: Value, g: Value, square: Value, rate: Value, b: Value | None) -> tuple[Value, ...]:
    """The next parameter, and the next buffer where there is one."""
    direction = op.Div(g, op.Add(op.Sqrt(square), op.attr("epsilon")))
    if b is None:
        return (op.Sub(p, op.Mul(direction, rate)),)
    next_b = op.Add(op.Mul(b, op.attr("momentum")), direction)
    return op.Sub(p, op.Mul(next_b, rate)), next_b


def _moments(op: Call, g: Value, m: Value, v: Value) -> tuple[Value, Value]:
    """The moving averages of the gradient and of its square."""
    return _average(op, m, g, op.attr("beta1")), _average(op, v, op.Mul(g, g), op.attr("beta2"))


def _average(op: Call, average: Value, new: Value, beta: float) -> Value:
    """β·average + (1-β)·new."""
    return op.Add(op.Mul(average, beta), op.Mul(new, 1.0 - beta))


def _moved(op: Call, average: Value, new: Value, share: Value) -> Value:
    """average + share·(new - average)."""
    return op.Add(average, op.Mul(op.Sub(new, average), share))


def _scaled_root(op: Call, v: Value, root: Value) -> Value:
    """√v + ε·root."""
    return op.Add(op.Sqrt(v), op.Mul(root, op.attr("epsilon")))


def _rms(op: Call, x: Value) -> Value:
    """The root of the mean square of all elements, a scalar."""
    return op.Sqrt(op.ReduceMean(op.Mul(x, x), keepdims=0))


def _shrunk(op: Call, p: Value, rate: Value) -> Value:
    """The parameter after decoupled weight decay: p·(1 - rate·decay)."""
    decay = op.attr("decoupled_decay")
    return op.Mul(p, op.Sub(1.0, op.Mul(rate, decay))) if decay else p


def _decayed(op: Call, p: Value, g: Value) -> Value:
    """The gradient of the loss plus decay/2·|p|²."""
    decay = op.attr("weight_decay")
    return op.Add(g, op.Mul(p, decay)) if decay else g
