"""A counter-based random generator made of standard ONNX operators.

`uniform` is a pure function of (seed, step, stream, row, column): nothing is carried from one step to the
next, so a resumed run goes on bit for bit, and every runtime draws the same numbers. It has two stages.

*Words.* An index, the seed and the step become eight words of 7 bits each, by rounds of x ← x³ + key in the
field of 3329 elements, where cubing is a permutation (the construction of MiMC, Albrecht and others 2016,
https://eprint.iacr.org/2016/492, at the size of a statistical generator). Every row and every column of the
result has an index. Keys are affine in the seed and the step, with coefficients drawn from the stream.

*Product.* u(row, column) = Σₖ rowₖ·columnₖ·2^-(7+k) mod 1 over the eight words: one matrix product and two
cheap passes, where rounds for each element would cost ten times as much. Words are odd multiples of 1/2,
hence units modulo a power of two, so that uniform words make u uniform. The upper ten bits of u behave as if
drawn independently. The lower five don't, since fewer words reach them: they make probabilities exact, no
more.

No number needs more than 24 bits, so float32 holds all of them exactly, in whatever order a sum is taken.
Integers obey that bound too, because OpenVINO divides, takes remainders and sums them in float32. Factors of
the product have 7 bits: tensor cores that round factors to TF32 or bfloat16 leave them as they are.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from cnnc.ir import Ops

Value = ir.Value

BITS = 15
"""How many bits a number of `uniform` has."""

_PRIME = 3329  # 26·128 + 1: remainders by 128 are uniform but for one; 2 mod 3: cubing is a permutation
_ROUNDS = 3  # one round shows in the statistics, two don't any more
_LANES = 8
_WORD = 128
_BASE = 2048
_MODULI = np.array([2047, 2045, 2043])  # coprime, below the prime, product above 2^31


def uniform(op: Ops, seed: Value, step: Value, stream: int, rows: Value | int, columns: Value | int) -> Value:
    """Uniform numbers (j + 1/2) / 2^15, j an integer in [0, 2^15): float32 [rows, columns].

    `seed` and `step` are int64 scalars in [0, 2^31), `stream` is any integer. `rows` and `columns` are sizes,
    as int64 [1] where only the run knows them; their sum stays below 3329², 11 million, where words repeat.
    Fewer rows with as many columns are a prefix.
    """
    total = rows + columns if isinstance(rows, int) and isinstance(columns, int) else op.Add(rows, columns)
    words = _words(op, _keys(op, seed, step, stream), total)
    width = [columns] if isinstance(columns, int) else columns
    weights = np.exp2(-7.0 - np.arange(_LANES))[:, None]
    column_words = op.Mul(op.Slice(words, [0], width, [1]), weights)
    row_words = op.Slice(words, width, [np.iinfo(np.int32).max], [1])
    product = op.Gemm(row_words, column_words, transA=1)
    return op.Sub(product, op.Floor(product))


def _words(op: Ops, keys: list[Value], count: Value | int) -> Value:
    """The words of the indices from 0 to `count`: odd multiples of 1/2 in (-64, 64), float32 [8, count]."""
    start = op.builder.constant(0, ir.DataType.INT32)
    stop = count if isinstance(count, int) else op.Cast(op.Squeeze(count), to=start.dtype)
    index = op.Range(start, stop, 1)
    # The index has two digits in base 3329. The second joins one round later.
    first, second, *others = keys
    x = op.Mod(op.Add(first, op.Mod(index, _PRIME)), _PRIME)
    for key in (op.Add(second, op.Div(index, _PRIME)), *others):
        square = op.Mod(op.Mul(x, x), _PRIME)
        x = op.Mod(op.Add(op.Mul(square, x), key), _PRIME)
    return op.Sub(op.Cast(op.Mod(x, _WORD), to=ir.DataType.FLOAT), (_WORD - 1) / 2)


def _keys(op: Ops, seed: Value, step: Value, stream: int) -> list[Value]:
    """A key for each lane, int32 [8, 1], before the first round and in every round."""
    counters = op.Concat(op.Reshape(seed, [1, 1]), op.Reshape(step, [1, 1]), axis=0)
    counters = op.Cast(counters, to=ir.DataType.INT32)
    # Three remainders tell a counter. They are the same where a runtime divides in float32 and the quotient
    # is one too high, which makes `low` negative.
    high = op.Div(counters, _BASE)
    low = op.Sub(counters, op.Mul(high, _BASE))
    remainders = op.Mod(op.Add(low, op.Mul(high, _BASE % _MODULI)), _MODULI)
    count = (_ROUNDS + 1) * _LANES
    table = np.frombuffer(hashlib.shake_256(f"cnnc.random {stream}".encode()).digest(count * 7 * 4), "<u4")
    coefficients, constants = np.split((table % _PRIME).reshape(count, 7), [6], axis=1)
    terms = op.Mod(op.Mul(op.Reshape(remainders, [1, 6]), coefficients), _PRIME)
    keys = op.Mod(op.Add(op.ReduceSum(terms, [1]), constants), _PRIME)
    return op.split(keys, [_LANES] * (_ROUNDS + 1))
