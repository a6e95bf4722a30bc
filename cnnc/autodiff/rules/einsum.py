"""Einsum."""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir import Dim


@rule("Einsum")
def einsum(op: Context, dy: Value) -> Gradients:
    """The gradient of a factor is the Einsum of dy and the other factors, over that factor's letters.

    A letter that stands nowhere else was summed in the factor itself: the gradient is the same along it. One
    that stands twice in it took a diagonal: times an identity matrix, the gradient is zero beside that.
    """
    factors = op.present
    terms, result = _terms(op)
    gradients: list[Value | None] = []
    for i, (x, term) in enumerate(zip(factors, terms, strict=True)):
        if not op.needed[i]:
            gradients.append(None)
            continue
        term, diagonals = _apart(term, {*"".join(terms), *result})
        others = [dy, *factors[:i], *factors[i + 1 :], *(_identity(op, x, term, pair) for pair in diagonals)]
        letters = [result, *terms[:i], *terms[i + 1 :], *diagonals]
        sizes = _sizes(op, others, letters)
        kept = "".join(letter for letter in term if letter in sizes)
        equation = f"{','.join(letters)}->{kept}"
        dx = op.Einsum(*others, equation=equation, dims=[sizes[letter] for letter in kept])
        gradients.append(_spread(op, dx, kept, x, term))
    return gradients


def _apart(term: str, taken: set[str]) -> tuple[str, list[str]]:
    """A term with a new letter for each that it had before, and these pairs: ``iji`` → ``ija``, [``ia``]."""
    fresh = iter(letter for letter in ascii_letters if letter not in taken)
    apart, pairs = "", []
    for letter in term:
        if letter in apart:
            pairs.append(letter + next(fresh))
            letter = pairs[-1][1]
        apart += letter
    return apart, pairs


def _identity(op: Context, x: Value, term: str, pair: str) -> Value:
    """The identity matrix over the axes that a pair of letters names."""
    axis = term.index(pair[0])
    size = op.dims(x)[axis]
    if isinstance(size, int):
        return op.number(np.eye(size))
    length = op.Shape(x, start=axis, end=axis + 1)
    square = op.ConstantOfShape(op.Concat(length, length, axis=0), dims=[size, size])
    identity: Value = op.EyeLike(square, dtype=int(op.type(x).dtype))
    return identity


def _terms(op: Context) -> tuple[list[str], str]:
    """The letters of each factor's axes and of the output's, those of an ellipsis included."""
    equation = op.attr("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        right = "..." + "".join(sorted(c for c in set(left) - set(".,") if left.count(c) == 1))
    unnamed = max(
        len(op.dims(value)) - len(term.replace("...", ""))
        for value, term in zip(op.present, terms, strict=True)
    )
    fresh = "".join(letter for letter in ascii_letters if letter not in equation)[:unnamed]
    return [term.replace("...", fresh) for term in terms], right.replace("...", fresh)


def _sizes(op: Context, values: list[Value], terms: list[str]) -> dict[str, Dim]:
    """The size of each letter; 1 only where no value has it larger, for 1 broadcasts."""
    sizes: dict[str, Dim] = {}
    for value, term in zip(values, terms, strict=True):
        for letter, dim in zip(term, op.dims(value), strict=True):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = dim
    return sizes


def _spread(op: Context, dx: Value, kept: str, x: Value, term: str) -> Value:
    """dx along the axes that its factor has alone, or that broadcast."""
    missing = [axis for axis, letter in enumerate(term) if letter not in kept]
    if missing:
        dx = op.Unsqueeze(dx, missing)
    have, want = op.dims(dx), op.dims(x)
    if all(size != 1 or wish == 1 for size, wish in zip(have, want, strict=True)):
        return dx
    dims = [wish if size == 1 else size for size, wish in zip(have, want, strict=True)]
    spread: Value = op.Expand(dx, op.Shape(x), dims=dims)
    return spread
