"""The search: layouts of whole steps and of stages, groups one by one, the batch in parts, the settings.

It is greedy, and stops when its time is over: with what it has by then. Contestants take turns, so that what
else the machine does slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from cnnc.bundle import Bundle
from cnnc.errors import CnncError, UnsupportedError
from cnnc.ir.update_ops import UPDATE_OPS
from cnnc.layout.step import fixed_step, laned_step, planned_step
from cnnc.runtime.providers import cpu_threads
from cnnc.runtime.tuned import Conditions, TunedStep, cache_folder, cached
from cnnc.tuner.candidates import LAYOUTS, Candidate, Group, groups_of
from cnnc.tuner.contestant import Array, Contestant, Refused, check, feeds_of, moved

SETTINGS: tuple[dict[str, str], ...] = (
    {"graph_optimization_level": "extended"},
    {"session.intra_op.allow_spinning": "0"},
)
"""ONNX Runtime's settings that are tried on the fastest step, beside its defaults."""
CHUNKS = (1, 2, 4, 8, 16)
SMALLEST_CHUNK = 16
"""Examples of a chunk at least."""
FOR_PARTS = 0.3
"""Of the time that whole layouts leave, what single groups may not take."""
TURNS = 6
GAIN = 0.99
"""A contestant must take less than this share of the fastest one's time, twice, to take its place."""
AS_CHUNKS, AS_LANES = 1.0, 1.03
"""The same for the batch in parts: chunks take less memory in any case, lanes lose less on a busy machine."""
BEHIND = 1.5
"""A layout with which everything takes this many times the fastest step's time is not tried for a part."""
HOPELESS = (1.5, 1.2, 1.1, 1.05)
"""A contestant that takes this many times the other's time after a turn, two, … is not raced any further."""
_UPDATES = {op.name for op in UPDATE_OPS}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """A tuned step, and whether it was in the cache already."""

    step: TunedStep
    from_cache: bool


def tune(
    bundle: Bundle,
    batch: int,
    *,
    threads: int | None = None,
    exact: bool = False,
    seconds: float = 60.0,
    fresh: bool = False,
    say: Say = lambda words: None,
) -> Tuning:
    """The fastest step found for batches of `batch` examples within `seconds`, from the cache if it is there.

    `exact` allows only what differs from the portable step by the order of sums; `fresh` ignores the cache
    (and writes it anew). `say` hears of progress. Raises BundleError for a bundle that can't be read, OSError
    where the cache can't be written.
    """
    fixed = bundle.manifest.input.shape[0]
    if bundle.manifest.machine is not None or fixed not in (batch, str(fixed)):
        raise UnsupportedError(
            f"the step of this bundle is for batches of {fixed} alone, and tuned already."
            if bundle.manifest.machine
            else f"the network takes batches of {fixed} alone, not of {batch}.",
            where=str(bundle.path),
        )
    conditions = Conditions.of(bundle, batch, threads or cpu_threads(), exact)
    if not fresh and (known := cached(conditions)) is not None:
        return Tuning(known, True)
    cache_folder().mkdir(parents=True, exist_ok=True)  # what can't be kept is not worth the search
    search = _Search(bundle, conditions, time.monotonic() + seconds, say)
    record, graphs = search.run()
    return Tuning(record.write(cache_folder() / conditions.key, *graphs, replace=fresh), False)


@dataclass(frozen=True)
class _Cut:
    """How the batch is cut: the graph of the step, or those of a lane and of the join, and into what."""

    graphs: tuple[ir.Graph, ...]
    chunks: int = 1
    lanes: int = 1

    @property
    def words(self) -> str:
        """The same for people."""
        chunks = f"{self.chunks} chunks" if self.chunks > 1 else ""
        lanes = f"{self.lanes} lanes" if self.lanes > 1 else ""
        return " of ".join(words for words in (lanes, chunks) if words)


@dataclass
class _Search:
    bundle: Bundle
    conditions: Conditions
    end: float
    say: Say
    dropped: list[str] = field(default_factory=list)
    tried: int = 0
    known: set[tuple[str, ...]] = field(default_factory=set)
    latest: float = float("inf")

    def run(self) -> tuple[TunedStep, tuple[bytes, ...]]:
        begun = time.monotonic()
        batch = self.conditions.batch
        self.feeds = feeds_of(self.bundle, batch)
        self.trial = moved(self.feeds, self.bundle)
        whole = self.cut = _Cut((fixed_step(self.bundle, batch),))
        groups = self._groups()
        plain = Candidate(groups, tuple(group.plain for group in groups))
        self.right: dict[str, Array] | None = None
        try:
            portable = self._load(plain, self._graphs(plain), {})
        except Refused as refused:
            raise UnsupportedError(f"the portable step can't be timed: {refused}.") from refused
        portable.run(3)
        best, fastest = plain, portable
        self.say(f"portable: {portable.quick:.2f} ms a step")
        best, fastest = self._in_layouts(best, fastest)
        end = self.end
        self.end -= FOR_PARTS * (end - time.monotonic())
        best, fastest = self._by_group(best, fastest)
        self.end = end
        options: dict[str, str] = {}
        best, fastest = self._in_parts(best, fastest, 1, options)
        for setting in SETTINGS:
            _, winner = self._challenge(best, fastest, best, {**options, **setting}, f"{setting}")
            if winner is not fastest:
                fastest, options = winner, {**options, **setting}
        if not self._beats(fastest, portable):
            best, options, fastest, self.cut = plain, {}, portable, whole
        single, one = self.cut, fastest
        for lanes in _divisors(self.conditions.threads):
            _, fastest = self._in_parts(best, fastest, lanes, options)
        record = TunedStep(
            path=cache_folder(),
            conditions=self.conditions,
            plan=best.plan,
            choices=best.choices,
            options=options,
            chunks=single.chunks,
            lanes=self.cut.lanes,
            lane_chunks=self.cut.chunks if self.cut is not single else 1,
            portable_ms=portable.median,
            step_ms=fastest.median,
            seconds=time.monotonic() - begun,
            tried=self.tried,
            dropped=tuple(self.dropped),
        )
        return record, one.graphs if fastest is one else one.graphs + fastest.graphs

    def _in_layouts(self, best: Candidate, fastest: Contestant) -> tuple[Candidate, Contestant]:
        """Everything in one layout; then, in others that were not far behind, all maps of one size."""
        groups, times = best.groups, {}
        for layout in LAYOUTS:
            uniform = Candidate(groups, tuple(group.in_layout(layout) for group in groups))
            if uniform.plan:
                best, fastest = self._change(best, fastest, uniform, f"everything in {layout}")
                times[layout] = self.latest
        sizes = dict.fromkeys(group.size for group in groups)
        for layout in sorted(times, key=times.__getitem__):
            for size in sizes if len(sizes) > 1 and times[layout] < BEHIND * fastest.quick else ():
                words = f"maps of {'×'.join(map(str, size))} in {layout}"
                best, fastest = self._change(best, fastest, best.moved(size, layout), words)
        return best, fastest

    def _by_group(self, best: Candidate, fastest: Contestant) -> tuple[Candidate, Contestant]:
        """Group by group, those with most work first: other forms of its layout, other layouts, the rest."""
        for distance in range(3):
            for index, group in enumerate(best.groups):
                for variant in group.variants:
                    if group.distance(best.variants[index], variant) == distance:
                        words = f"{group.label}: {variant.name}"
                        best, fastest = self._change(best, fastest, best.changed(index, variant), words)
        return best, fastest

    def _change(
        self, best: Candidate, fastest: Contestant, other: Candidate, words: str
    ) -> tuple[Candidate, Contestant]:
        """A challenge with other variants, unless just these have had theirs."""
        names = tuple(variant.name for variant in other.variants)
        if names in self.known:
            return best, fastest
        self.known.add(names)
        return self._challenge(best, fastest, other, {}, words)

    def _in_parts(
        self,
        best: Candidate,
        fastest: Contestant,
        lanes: int,
        options: Mapping[str, str],
    ) -> tuple[Candidate, Contestant]:
        """The batch in chunks where that is no slower (it takes less memory in any case), or in lanes."""
        batch, kept = self.conditions.batch, self.cut
        chosen = {group.name: variant.name for group, variant in zip(best.groups, best.variants, strict=True)}
        for chunks in CHUNKS if lanes > 1 else CHUNKS[1:]:
            if batch % (lanes * chunks) or batch // (lanes * chunks) < SMALLEST_CHUNK:
                break
            try:
                graphs = (
                    laned_step(self.bundle, batch, lanes, chunks)
                    if lanes > 1
                    else (fixed_step(self.bundle, batch, chunks),)
                )
            except CnncError:
                break
            self.cut = _Cut(graphs, chunks, lanes)
            groups = self._groups()
            other = Candidate(groups, tuple(group.called(chosen.get(group.name, "")) for group in groups))
            words = f"the batch in {self.cut.words}"
            gain = AS_LANES if lanes > kept.lanes else AS_CHUNKS
            found, winner = self._challenge(best, fastest, other, options, words, gain)
            if winner is not fastest:
                best, fastest, kept = found, winner, self.cut
        self.cut = kept
        return best, fastest

    def _groups(self) -> tuple[Group, ...]:
        return groups_of(self.cut.graphs[0], exact=self.conditions.exact)

    def _beats(self, fastest: Contestant, portable: Contestant) -> bool:
        """Whether what was found is faster than the portable step in a longer race; both are timed anew."""
        portable.times.clear()
        fastest.times.clear()
        for _ in range(5):
            portable.run(2)
            fastest.run(2)
        return fastest is not portable and fastest.quick <= portable.quick

    def _challenge(
        self,
        best: Candidate,
        fastest: Contestant,
        other: Candidate,
        options: Mapping[str, str],
        words: str,
        gain: float = GAIN,
    ) -> tuple[Candidate, Contestant]:
        """The faster of two, once they have raced; the first where time is over or the other is refused."""
        self.latest = float("inf")
        if time.monotonic() > self.end:
            return best, fastest
        try:
            graphs = self._graphs(other)
            if graphs == fastest.graphs and not options:
                return best, fastest
            challenger = self._load(other, graphs, options)
        except Refused as refused:
            self.dropped.append(f"{words}: {refused}")
            self.say(f"dropped {words}: {refused}")
            return best, fastest
        wins = _race(challenger, fastest, gain) and _race(challenger, fastest, gain)
        self.latest = challenger.quick
        self.say(f"{'*' if wins else ' '} {challenger.quick:8.2f} ms, {fastest.quick:8.2f} before: {words}")
        return (other, challenger) if wins else (best, fastest)

    def _graphs(self, candidate: Candidate, watched: Sequence[str] = ()) -> tuple[bytes, ...]:
        *lane, last = self.cut.graphs
        exact = self.conditions.exact
        try:
            if not lane:
                return (planned_step(last, candidate.plan, candidate.choices, watched=watched, exact=exact),)
            return (
                planned_step(lane[0], candidate.plan, candidate.choices, exact=exact),
                planned_step(last, {}, watched=watched, exact=exact),
            )
        except Exception as error:  # one that can't even be built is no reason to end the search
            raise Refused(str(error) or type(error).__name__) from error

    def _load(
        self, candidate: Candidate, graphs: tuple[bytes, ...], options: Mapping[str, str]
    ) -> Contestant:
        """Check a candidate once, with its gradients as outputs, and load it as it will run."""
        self.tried += 1
        watched = _gradients(self.cut.graphs[-1])

        def loaded(graphs: tuple[bytes, ...], feeds: Mapping[str, Array]) -> Contestant:
            return Contestant.load(
                graphs, self.bundle, feeds, self.conditions.threads, options, self.cut.lanes
            )

        found = loaded(self._graphs(candidate, watched), self.trial).results(watched)
        if self.right is None:
            self.right = {name: value.copy() for name, value in found.items()}
        check(found, self.right, self.trial)
        return loaded(graphs, self.feeds)


def _race(challenger: Contestant, fastest: Contestant, gain: float) -> bool:
    """Whether the challenger is faster, in turns; given up early where it is far behind."""
    challenger.times.clear()
    fastest.times.clear()
    for turn in range(TURNS):
        challenger.run(2)
        fastest.run(2)
        if challenger.quick > HOPELESS[min(turn, len(HOPELESS) - 1)] * fastest.quick:
            break
    return challenger.quick < gain * fastest.quick


def _gradients(step: ir.Graph) -> list[str]:
    """The gradients that the updates of a step read."""
    names = [
        str(node.inputs[1].name) for node in step if node.op_type in _UPDATES and node.inputs[1] is not None
    ]
    return list(dict.fromkeys(names))


def _divisors(threads: int) -> list[int]:
    """How many lanes are tried: one for each thread, and half as many of two threads each."""
    return [lanes for lanes in (threads, threads // 2) if lanes > 1 and threads % lanes == 0]
