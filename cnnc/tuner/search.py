"""The search: layouts of whole steps and of stages, groups one by one, leaner forms, parts, settings.

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
from cnnc.tuner.contestant import GRADIENT, Array, Contestant, Refused, check, feeds_of, moved
from cnnc.tuner.cuts import Cut, chunks_for, lanes_for
from cnnc.tuner.race import race

SETTINGS: tuple[dict[str, str], ...] = (
    {"graph_optimization_level": "extended"},
    {"session.intra_op.allow_spinning": "0"},
)
"""ONNX Runtime's settings that are tried on the fastest step, beside its defaults."""
FOR_PARTS = 0.5
"""Of the time that the portable step leaves, what is kept at most for what comes after single groups."""
GAIN = 0.99
"""A contestant must take less than this share of the fastest one's time, twice, to take its place."""
AS_CHUNKS, AS_LANES, AS_LEANER = 1.0, 1.03, 1.03
"""The same for the batch in parts and for leaner forms: these and chunks take less memory in any case, lanes
lose less on a busy machine."""
BEHIND = 1.5
"""A layout with which everything takes this many times the fastest step's time is not tried for a part."""

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
    (and writes it anew). `say` hears of progress. Raises BundleError for a bundle that can't be read,
    UnsupportedError for one that is tuned already, takes another batch, or was built for a memory limit,
    OSError where the cache can't be written.
    """
    fixed = bundle.manifest.input.shape[0]
    if bundle.manifest.machine is not None or fixed not in (batch, str(fixed)):
        raise UnsupportedError(
            f"the step of this bundle is for batches of {fixed} alone, and tuned already."
            if bundle.manifest.machine
            else f"the network takes batches of {fixed} alone, not of {batch}.",
            where=str(bundle.path),
        )
    if bundle.manifest.memory is not None:
        raise UnsupportedError(
            "the step of this bundle was built to fit into a memory limit, which a tuned one would break.",
            where=str(bundle.path),
            hint="Tune a bundle that was built without --memory-limit.",
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
    cost: float = 0.0
    known: set[tuple[str, ...]] = field(default_factory=set)
    results: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)

    def run(self) -> tuple[TunedStep, tuple[bytes, ...]]:
        begun = time.monotonic()
        batch = self.conditions.batch
        self.trial = moved(feeds_of(self.bundle, batch), self.bundle)
        portable = self._portable(Cut.of(self.bundle, batch))
        self.leader = portable
        self.options: dict[str, str] = {}
        self.say(f"portable: {portable.contestant.quick:.2f} ms a step")
        cuts = {lanes: self._cuts(lanes) for lanes in (1, *lanes_for(self.conditions.threads))}
        end, left = self.end, 1 + sum(map(len, cuts.values())) + len(SETTINGS)
        self.end -= min(left * (time.monotonic() - begun), FOR_PARTS * (end - time.monotonic()))
        self._in_layouts()
        self._by_group()
        self.end = end
        leaner = self.leader.candidate.leaner()
        self._challenge(leaner, self.leader.cut, "the leaner of like forms", gain=AS_LEANER)
        self._in_parts(cuts.pop(1))
        self._with_settings()
        if not self._beats(portable):
            self.leader, self.options = portable, {}
        whole = self.leader
        for laned in cuts.values():
            self._in_parts(laned)
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
            watched = self._opened(cut, self._graphs(plain, cut, cut.gradients), {})
            right = {name: value.copy() for name, value in watched.results(cut.gradients).items()}
            self.gradients = {name: value for name, value in right.items() if name.startswith(GRADIENT)}
            self.results = {name: value for name, value in right.items() if name not in self.gradients}
            contestant = self._load(cut, self._graphs(plain, cut), {})
        except Refused as refused:
            raise UnsupportedError(f"the portable step can't be timed: {refused}.") from refused
        contestant.run(3)
        return _Leader(plain, cut, contestant)

    def _in_layouts(self) -> None:
        """Everything in one layout; then, in others that were not far behind, all maps of one size."""
        groups, times = self.leader.candidate.groups, {}
        for layout in LAYOUTS:
            uniform = Candidate.uniform(groups, layout)
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

    def _cuts(self, lanes: int) -> list[Cut]:
        """The ways to cut the batch for so many lanes; none where it can't go in parts."""
        batch = self.conditions.batch
        found = []
        for chunks in chunks_for(batch, lanes):
            if lanes * chunks > 1:
                try:
                    found.append(Cut.of(self.bundle, batch, chunks, lanes))
                except CnncError:
                    break
        return found

    def _in_parts(self, cuts: Sequence[Cut]) -> None:
        """The batch in chunks where that is no slower (it takes less memory in any case), or in lanes."""
        best = self.leader.candidate
        chosen = {group.name: variant.name for group, variant in zip(best.groups, best.variants, strict=True)}
        for cut in cuts:
            groups = cut.groups(self.conditions.exact)
            other = Candidate(groups, tuple(group.called(chosen.get(group.name, "")) for group in groups))
            gain = AS_LANES if cut.lanes > self.leader.cut.lanes else AS_CHUNKS
            self._challenge(other, cut, f"the batch in {cut.words}", self.options, gain)
        if (cut := self.leader.cut) in cuts:  # smaller parts may suit another layout
            for layout in LAYOUTS:
                uniform = Candidate.uniform(self.leader.candidate.groups, layout)
                words = f"everything in {layout}, the batch in {cut.words}"
                self._challenge(uniform, cut, words, self.options)

    def _with_settings(self) -> None:
        """ONNX Runtime's settings, one after the other, beside those that have won."""
        for setting in SETTINGS:
            options, before = {**self.options, **setting}, self.leader
            self._challenge(before.candidate, before.cut, f"{setting}", options)
            if self.leader is not before:
                self.options = options

    def _beats(self, portable: _Leader) -> bool:
        """Whether the leader is faster than the portable step, too, in a race of these two."""
        return self.leader is not portable and race(self.leader.contestant, portable.contestant, 1.0)

    def _challenge(
        self,
        other: Candidate,
        cut: Cut,
        words: str,
        options: Mapping[str, str] = MappingProxyType({}),
        gain: float = GAIN,
    ) -> float:
        """Race the leader, and take its place if faster: the time taken, in ms.

        It is infinite where there was no race: where time would be over before half of it, by what the last
        one took, or the step is refused or the leader's.
        """
        fastest, begun = self.leader.contestant, time.monotonic()
        if begun + self.cost / 2 > self.end:
            return float("inf")
        try:
            graphs = self._graphs(other, cut)
            if graphs == fastest.graphs and not options:
                return float("inf")
            challenger = self._load(cut, graphs, options)
            wins = race(challenger, fastest, gain) and race(challenger, fastest, gain)
            if wins:
                self._proven(other, cut, options)
        except Refused as refused:
            self.dropped.append(f"{words}: {refused}")
            self.say(f"dropped {words}: {refused}")
            return float("inf")
        self.say(f"{'*' if wins else ' '} {challenger.quick:8.2f} ms, {fastest.quick:8.2f} before: {words}")
        if wins:
            self.leader = _Leader(other, cut, challenger)
        self.cost = time.monotonic() - begun
        return challenger.quick

    def _graphs(self, candidate: Candidate, cut: Cut, watched: Sequence[str] = ()) -> tuple[bytes, ...]:
        try:
            return cut.planned(candidate, self.conditions.exact, watched)
        except Exception as error:  # one that can't even be built is no reason to end the search
            raise Refused(str(error) or type(error).__name__) from error

    def _load(self, cut: Cut, graphs: tuple[bytes, ...], options: Mapping[str, str]) -> Contestant:
        """Load a candidate as it will run, and check what it gives: the loss, the metrics, the next state."""
        self.tried += 1
        contestant = self._opened(cut, graphs, options)
        check(contestant.results(()), self.results, self.trial)
        return contestant

    def _proven(self, other: Candidate, cut: Cut, options: Mapping[str, str]) -> None:
        """Check each gradient, as an output of its own, before a candidate takes the lead."""
        watched = self._opened(cut, self._graphs(other, cut, cut.gradients), options)
        check(watched.results(cut.gradients), self.results | self.gradients, self.trial)

    def _opened(self, cut: Cut, graphs: tuple[bytes, ...], options: Mapping[str, str]) -> Contestant:
        return Contestant.load(graphs, self.bundle, self.trial, self.conditions.threads, options, cut.lanes)
