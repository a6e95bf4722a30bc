"""The search: layouts of whole steps and of stages, groups one by one, the batch in parts, the settings.

It is greedy, and stops when its time is over: with what it has by then. Contestants take turns, so that what
else the machine does slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cnnc.bundle import Bundle
from cnnc.errors import CnncError, UnsupportedError
from cnnc.runtime.providers import cpu_threads
from cnnc.runtime.tuned import Conditions, TunedStep, cache_folder, cached
from cnnc.tuner.candidates import LAYOUTS, Candidate
from cnnc.tuner.contestant import Array, Contestant, Refused, check, feeds_of, moved
from cnnc.tuner.cuts import Cut, chunks_for, lanes_for

SETTINGS: tuple[dict[str, str], ...] = (
    {"graph_optimization_level": "extended"},
    {"session.intra_op.allow_spinning": "0"},
)
"""ONNX Runtime's settings that are tried on the fastest step, beside its defaults."""
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
class _Leader:
    """The fastest step so far: what it is, how its batch is cut, and it itself, loaded."""

    candidate: Candidate
    cut: Cut
    contestant: Contestant


@dataclass
class _Search:
    bundle: Bundle
    conditions: Conditions
    end: float
    say: Say
    dropped: list[str] = field(default_factory=list)
    tried: int = 0
    known: set[tuple[str, ...]] = field(default_factory=set)

    def run(self) -> tuple[TunedStep, tuple[bytes, ...]]:
        begun = time.monotonic()
        batch = self.conditions.batch
        self.feeds = feeds_of(self.bundle, batch)
        self.trial = moved(self.feeds, self.bundle)
        self.right: dict[str, Array] | None = None
        portable = self._portable(Cut.of(self.bundle, batch))
        self.leader = portable
        self.options: dict[str, str] = {}
        self.say(f"portable: {portable.contestant.quick:.2f} ms a step")
        self._in_layouts()
        end = self.end
        self.end -= FOR_PARTS * (end - time.monotonic())
        self._by_group()
        self.end = end
        self._in_parts(1)
        self._with_settings()
        if not self._beats(portable):
            self.leader, self.options = portable, {}
        whole = self.leader
        for lanes in lanes_for(self.conditions.threads):
            self._in_parts(lanes)
        fastest = self.leader
        record = TunedStep(
            path=cache_folder(),
            conditions=self.conditions,
            plan=whole.candidate.plan,
            choices=whole.candidate.choices,
            options=self.options,
            chunks=whole.cut.chunks,
            lanes=fastest.cut.lanes,
            lane_chunks=1 if fastest is whole else fastest.cut.chunks,
            portable_ms=portable.contestant.median,
            step_ms=fastest.contestant.median,
            seconds=time.monotonic() - begun,
            tried=self.tried,
            dropped=tuple(self.dropped),
        )
        in_lanes = () if fastest is whole else fastest.contestant.graphs
        return record, whole.contestant.graphs + in_lanes

    def _portable(self, cut: Cut) -> _Leader:
        groups = cut.groups(self.conditions.exact)
        plain = Candidate(groups, tuple(group.plain for group in groups))
        try:
            contestant = self._load(plain, cut, self._graphs(plain, cut), {})
        except Refused as refused:
            raise UnsupportedError(f"the portable step can't be timed: {refused}.") from refused
        contestant.run(3)
        return _Leader(plain, cut, contestant)

    def _in_layouts(self) -> None:
        """Everything in one layout; then, in others that were not far behind, all maps of one size."""
        groups, times = self.leader.candidate.groups, {}
        for layout in LAYOUTS:
            uniform = Candidate(groups, tuple(group.in_layout(layout) for group in groups))
            if uniform.plan:
                times[layout] = self._change(uniform, f"everything in {layout}")
        sizes = dict.fromkeys(group.size for group in groups)
        for layout in sorted(times, key=times.__getitem__):
            near = times[layout] < BEHIND * self.leader.contestant.quick
            for size in sizes if len(sizes) > 1 and near else ():
                words = f"maps of {'×'.join(map(str, size))} in {layout}"
                self._change(self.leader.candidate.moved(size, layout), words)

    def _by_group(self) -> None:
        """Group by group, those with most work first: other forms of its layout, other layouts, the rest."""
        for distance in range(3):
            for index, group in enumerate(self.leader.candidate.groups):
                for variant in group.variants:
                    if group.distance(self.leader.candidate.variants[index], variant) == distance:
                        other = self.leader.candidate.changed(index, variant)
                        self._change(other, f"{group.label}: {variant.name}")

    def _change(self, other: Candidate, words: str) -> float:
        """A challenge with other variants, unless just these have had theirs."""
        names = tuple(variant.name for variant in other.variants)
        if names in self.known:
            return float("inf")
        self.known.add(names)
        return self._challenge(other, self.leader.cut, words)

    def _in_parts(self, lanes: int) -> None:
        """The batch in chunks where that is no slower (it takes less memory in any case), or in lanes."""
        batch, best = self.conditions.batch, self.leader.candidate
        chosen = {group.name: variant.name for group, variant in zip(best.groups, best.variants, strict=True)}
        for chunks in chunks_for(batch, lanes):
            if lanes * chunks == 1:
                continue
            try:
                cut = Cut.of(self.bundle, batch, chunks, lanes)
            except CnncError:
                break
            groups = cut.groups(self.conditions.exact)
            other = Candidate(groups, tuple(group.called(chosen.get(group.name, "")) for group in groups))
            gain = AS_LANES if lanes > self.leader.cut.lanes else AS_CHUNKS
            self._challenge(other, cut, f"the batch in {cut.words}", self.options, gain)

    def _with_settings(self) -> None:
        """ONNX Runtime's settings, one after the other, beside those that have won."""
        for setting in SETTINGS:
            options, before = {**self.options, **setting}, self.leader
            self._challenge(before.candidate, before.cut, f"{setting}", options)
            if self.leader is not before:
                self.options = options

    def _beats(self, portable: _Leader) -> bool:
        """Whether the leader is faster than the portable step in a longer race; both are timed anew."""
        fastest, other = self.leader.contestant, portable.contestant
        other.times.clear()
        fastest.times.clear()
        for _ in range(5):
            other.run(2)
            fastest.run(2)
        return self.leader is not portable and fastest.quick <= other.quick

    def _challenge(
        self,
        other: Candidate,
        cut: Cut,
        words: str,
        options: Mapping[str, str] = MappingProxyType({}),
        gain: float = GAIN,
    ) -> float:
        """Race the leader, and take its place if faster: the time taken, in ms.

        It is infinite where there was no race: where time is over, or the step is refused or the leader's.
        """
        fastest = self.leader.contestant
        if time.monotonic() > self.end:
            return float("inf")
        try:
            graphs = self._graphs(other, cut)
            if graphs == fastest.graphs and not options:
                return float("inf")
            challenger = self._load(other, cut, graphs, options)
        except Refused as refused:
            self.dropped.append(f"{words}: {refused}")
            self.say(f"dropped {words}: {refused}")
            return float("inf")
        wins = _race(challenger, fastest, gain) and _race(challenger, fastest, gain)
        self.say(f"{'*' if wins else ' '} {challenger.quick:8.2f} ms, {fastest.quick:8.2f} before: {words}")
        if wins:
            self.leader = _Leader(other, cut, challenger)
        return challenger.quick

    def _graphs(self, candidate: Candidate, cut: Cut, watched: Sequence[str] = ()) -> tuple[bytes, ...]:
        try:
            return cut.planned(candidate, self.conditions.exact, watched)
        except Exception as error:  # one that can't even be built is no reason to end the search
            raise Refused(str(error) or type(error).__name__) from error

    def _load(
        self, candidate: Candidate, cut: Cut, graphs: tuple[bytes, ...], options: Mapping[str, str]
    ) -> Contestant:
        """Check a candidate once, with its gradients as outputs, and load it as it will run."""
        self.tried += 1
        watched = cut.gradients

        def loaded(graphs: tuple[bytes, ...], feeds: Mapping[str, Array]) -> Contestant:
            return Contestant.load(graphs, self.bundle, feeds, self.conditions.threads, options, cut.lanes)

        found = loaded(self._graphs(candidate, cut, watched), self.trial).results(watched)
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
