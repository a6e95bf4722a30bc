"""What can be chosen in a step: for groups of nodes alike, the forms of each layout and the bodies.

A group is a convolution with its gradients, or one other gradient op, together with all others of the same
operator, attributes and shapes: what is best for one is best for all, and a network of a hundred layers has
few groups. The choices of a group are *variants*; a candidate is a variant for each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import onnx_ir as ir

from cnnc.ir import dims_of
from cnnc.layout import FORMS, legal_forms
from cnnc.lowering import BODIES, legal_bodies
from cnnc.opset import GRAD_DOMAIN

CONVOLUTIONS = ("Conv", "ConvGradInput", "ConvGradWeight")
LAYOUTS = ("HWNC", "CHWN", "CNHW", "CBHWN")
"""The layouts that whole steps are tried in, by the beginning of their forms' names."""
PASSES = ("_back", "_weight", "_flipped")
"""How the names of a family's forms for gradients end."""


@dataclass(frozen=True)
class Variant:
    """One choice for a group: forms and bodies by the position of a node in each of its members."""

    name: str
    forms: tuple[str | None, ...]
    bodies: tuple[str | None, ...]

    @property
    def layout(self) -> str:
        """The layout that it begins with, empty for the plain one."""
        return next((form.partition(".")[0].partition("/")[0] for form in self.forms if form), "")


@dataclass(frozen=True)
class Group:
    """Nodes that are chosen for together: `members` are alike, each a tuple of nodes of the same roles."""

    name: str
    members: tuple[tuple[ir.Node, ...], ...]
    variants: tuple[Variant, ...]
    cost: int
    size: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Its first node's name, and how many are alike."""
        others = len(self.members) - 1
        return f"{self.name} and {others} alike" if others else self.name

    @cached_property
    def plain(self) -> Variant:
        """[N, C, H, W] and the portable bodies."""
        return self.variants[0]

    def called(self, name: str) -> Variant:
        """The variant of this name, even one that `merged` or `leaner` made; else the plain one."""
        forms = tuple(None if form == "portable" else form for form in name.split(" + "))
        variants = (*self.variants, *map(self.leaner, self.variants))
        known = [{variant.forms[i] for variant in variants} for i in range(len(self.plain.forms))]
        made = len(forms) == len(known) and all(f in k for f, k in zip(forms, known, strict=True))
        mixed = Variant(name, forms, self.plain.bodies) if made else self.plain
        return next((v for v in self.variants if v.name == name), mixed)

    def merged(self, current: Variant, other: Variant) -> Variant:
        """Of two variants of one layout the current one, with what makes `other` differ from the first."""
        first = self.in_layout(other.layout)
        if not other.layout or current.layout != other.layout or first in (current, other):
            return other
        forms = tuple(
            mine if theirs == usual else theirs
            for mine, theirs, usual in zip(current.forms, other.forms, first.forms, strict=True)
        )
        return replace(other, name=_label(forms), forms=forms)

    def leaner(self, current: Variant) -> Variant:
        """A variant with the forms that take less memory than its own for the same, where there are some."""
        forms = tuple(
            next((f.name for f in FORMS.get(node.op_type, {}).values() if f.leaner_than == name), name)
            for node, name in zip(self.members[0], current.forms, strict=True)
        )
        return replace(current, name=_label(forms), forms=forms) if forms != current.forms else current

    def distance(self, current: Variant, other: Variant) -> int:
        """How far apart two variants are: 0 wholly in one layout, 1 in the first way of another, 2 else."""
        if current.layout == other.layout and all(other.forms):
            return 0
        return 1 if other == self.in_layout(other.layout) else 2

    def in_layout(self, layout: str) -> Variant:
        """The first variant of a layout; the plain one where there is none."""
        return next((v for v in self.variants if v.layout == layout), self.plain)


@dataclass(frozen=True)
class Candidate:
    """A variant for each group, in the order of `groups`."""

    groups: tuple[Group, ...]
    variants: tuple[Variant, ...]

    @classmethod
    def uniform(cls, groups: tuple[Group, ...], layout: str) -> Candidate:
        """Every group in one layout, where it has forms of that."""
        return cls(groups, tuple(group.in_layout(layout) for group in groups))

    def leaner(self) -> Candidate:
        """The same with the leaner of two forms that differ in the memory they take."""
        pairs = zip(self.groups, self.variants, strict=True)
        return Candidate(self.groups, tuple(group.leaner(variant) for group, variant in pairs))

    def changed(self, index: int, variant: Variant) -> Candidate:
        """The same with another variant for one group, merged with its own (see `Group.merged`)."""
        merged = self.groups[index].merged(self.variants[index], variant)
        return Candidate(self.groups, (*self.variants[:index], merged, *self.variants[index + 1 :]))

    def moved(self, size: tuple[int, ...], layout: str) -> Candidate:
        """The same with every group whose maps are of this size in a layout, where it has forms of that."""
        variants = tuple(
            group.in_layout(layout)
            if group.size == size and group.in_layout(layout).layout == layout
            else variant
            for group, variant in zip(self.groups, self.variants, strict=True)
        )
        return Candidate(self.groups, variants)

    @property
    def plan(self) -> dict[str, str]:
        """Forms by node, as `cnnc.layout.planned_step` takes them."""
        return {str(node.name): form for node, form, _ in self._nodes() if form is not None}

    @property
    def choices(self) -> dict[str, str]:
        """Bodies by node, likewise."""
        return {
            str(node.name): body for node, form, body in self._nodes() if form is None and body is not None
        }

    def _nodes(self) -> Iterator[tuple[ir.Node, str | None, str | None]]:
        for group, variant in zip(self.groups, self.variants, strict=True):
            for member in group.members:
                yield from zip(member, variant.forms, variant.bodies, strict=True)


def groups_of(step: ir.Graph, *, exact: bool = False, local: bool = True) -> tuple[Group, ...]:
    """The groups of a step that have more than one variant, those with most work first.

    `exact` leaves out forms and bodies that round otherwise, not `local` those that need ONNX Runtime's own
    operators.
    """
    alike: dict[object, list[tuple[ir.Node, ...]]] = {}
    for member in _members(step):
        alike.setdefault(tuple(map(_signature, member)), []).append(member)
    groups = []
    for members in alike.values():
        variants = _variants(members[0], exact, local)
        if len(variants) > 1:
            cost = len(members) * max(map(_work, members[0]))
            size = _size(members[0][0])
            groups.append(Group(str(members[0][0].name), tuple(members), tuple(variants), cost, size))
    return tuple(sorted(groups, key=lambda group: -group.cost))


def _members(step: ir.Graph) -> Iterator[tuple[ir.Node, ...]]:
    """Each convolution with its gradients, then every other gradient op that has several bodies."""
    backward: dict[str, list[ir.Node]] = {}
    for node in step:
        if node.op_type in CONVOLUTIONS[1:]:
            backward.setdefault(node.metadata_props.get("cnnc.forward", str(node.name)), []).append(node)
    for node in step:
        if node.op_type == "Conv":
            yield (node, *backward.pop(str(node.name), ()))
        elif (
            node.domain == GRAD_DOMAIN and node.op_type not in CONVOLUTIONS and len(BODIES[node.op_type]) > 1
        ):
            yield (node,)
    for nodes in backward.values():
        yield tuple(nodes)


def _variants(member: Sequence[ir.Node], exact: bool, local: bool) -> list[Variant]:
    """The plain variant; for each layout its families of forms, then one form of another; other bodies.

    Forms of one family share what they make: alone, one of them may lose where all would win.
    """
    nothing = (None,) * len(member)
    variants = [Variant("portable", nothing, nothing)]
    legal = [
        [form for form in legal_forms(node, local=local, exact=exact) if not form.leaner_than]
        for node in member
    ]
    for layout in LAYOUTS:
        # Forms for a tiled layout first: they are legal only where that is what a pool behind wants.
        forms = [
            sorted((f.name for f in forms if f.name.startswith(layout)), key=lambda name: "/" not in name)
            for forms in legal
        ]
        if not any(forms):
            continue
        first = tuple(names[0] if names else None for names in forms)
        families = dict.fromkeys(_family(name) for names in forms for name in names)
        found = [first, *(tuple(_of_family(family, names) for names in forms) for family in families)]
        for i, names in enumerate(forms):
            found += [(*first[:i], name, *first[i + 1 :]) for name in (*names[1:], None) if name != first[i]]
        variants += [Variant(_label(names), names, nothing) for names in dict.fromkeys(found) if any(names)]
    for i, node in enumerate(member):
        if node.domain != GRAD_DOMAIN:
            continue
        for body in legal_bodies(node)[1:]:
            if body.exact or not exact:
                bodies = (*nothing[:i], body.name, *nothing[i + 1 :])
                variants.append(Variant(f"{node.op_type}:{body.name}", nothing, bodies))
    return variants


def _family(name: str) -> str:
    """What the forms for a convolution and its gradients share: ``winograd`` of ``HWNC.winograd_back``."""
    stem = name.partition(".")[2]
    return next((stem.removesuffix(end) for end in PASSES if stem.endswith(end)), stem)


def _of_family(family: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if _family(name) == family), names[0] if names else None)


def _label(names: Sequence[str | None]) -> str:
    return " + ".join(name or "portable" for name in names)


def _signature(node: ir.Node) -> object:
    """What two nodes have in common if one choice suits both."""
    attributes = tuple(sorted((name, str(attr.value)) for name, attr in node.attributes.items()))
    shapes = tuple(None if v is None else dims_of(v) for v in (*node.inputs, *node.outputs))
    readers = tuple(sorted({user.op_type for user, _ in node.outputs[0].uses()} & {"MaxPool"}))
    return node.op_type, attributes, shapes, readers


def _size(node: ir.Node) -> tuple[int, ...]:
    """Height and width of the maps that a node gives, or the gradient op gets."""
    value = node.inputs[0] if node.op_type in CONVOLUTIONS[1:] else node.outputs[0]
    assert value is not None
    return tuple(int(d) for d in dims_of(value)[2:] if isinstance(d, int))


def _work(node: ir.Node) -> int:
    """Multiply-adds of a convolution or its gradients; elements of anything else."""
    sizes = [
        prod(d for d in dims_of(v) if isinstance(d, int))
        for v in (*node.inputs, *node.outputs)
        if v is not None
    ]
    if node.op_type not in CONVOLUTIONS:
        return max(sizes)
    weight = node.inputs[{"Conv": 1, "ConvGradInput": 1, "ConvGradWeight": 2}[node.op_type]]
    output = node.outputs[0] if node.op_type == "Conv" else node.inputs[0]
    assert weight is not None
    assert output is not None
    return prod(int(d) for d in dims_of(weight)[1:]) * prod(int(d) for d in dims_of(output))
