"""Question families: each takes the facts of a clip and makes question, candidates, answer, spans and evidence.

No answer is written down anywhere: a family finds it in the facts, and refuses a clip in which it would not be
unmistakable (two events too close together, two objects that qualify, an event across two phases).
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence

from facts import Facts, Span
from scenes import Ask

TYPES = ("what", "which", "when", "how_many", "before_after")

#: Two events closer than this (in frames) have no order that a viewer could be sure of.
CLEAR = 3

#: Wording of the phases that a reference cuts the clip into; "between" only where there is more than one occurrence.
PHASES = {
    "visits": {
        "before": "before {it} comes by",
        "while": "while {it} is in view",
        "between": "between two visits of {it}",
        "after": "after {it} has left for good",
    },
    "open": {
        "before": "before {it} first opens",
        "while": "while {it} is open",
        "between": "between two openings of {it}",
        "after": "after {it} has closed for good",
    },
    "hiding": {
        "before": "before {it} is hidden",
        "while": "while {it} is hidden",
        "between": "between two times that {it} is hidden",
        "after": "after {it} has come out again",
    },
}
ALWAYS = "during the whole clip"


class UnclearError(ValueError):
    """The facts do not settle a question beyond doubt; the scene has to be changed."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """A question before its options are drawn and shuffled."""

    question: str
    question_type: str
    candidates: list[str]
    answer: str
    spans: list[Span]
    evidence: list[str]
    numeric: bool = False


def draft(facts: Facts, ask: Ask, rng: random.Random) -> Draft:
    """Put one question to a clip."""
    family: Callable[..., Draft] = FAMILIES[ask.family]
    made = family(facts, rng=rng, **ask.words)
    if made.answer not in made.candidates or len(set(made.candidates)) != len(made.candidates):
        raise UnclearError(f"{facts.scene.video_id}: {made.question!r}: {made.answer!r} of {made.candidates}")
    if not made.spans or not made.evidence:
        raise UnclearError(f"{facts.scene.video_id}: {made.question!r} has no evidence")
    return made


# ------------------------------------------------------------------------------------------ order
def first_seen(facts: Facts, *, kind: str, choices: Sequence[str], asks: str, type: str, rng) -> Draft:
    """Who of a kind comes into view first."""
    order = _arrivals(facts, kind)
    name = order[0][1]
    return Draft(asks, type, _five(choices, name, rng), name, [facts.seen(name)[0]], [name])


def next_seen(facts: Facts, *, kind: str, choices: Sequence[str], who: str, after: str, rng) -> Draft:
    """Who of a kind comes into view right after another."""
    order = [name for _, name in _arrivals(facts, kind)]
    name = order[order.index(after) + 1]
    span = (facts.seen(after)[0][0], facts.entrance(name)[1])
    candidates = _five([choice for choice in choices if choice != after], name, rng)
    return Draft(f"{who} comes into view right after {after}?", "before_after", candidates, name, [span], [after, name])


def last_colour(facts: Facts, *, kind: str, choices: Sequence[str], rng) -> Draft:
    """The colour of the last of a kind to come into view."""
    name = _arrivals(facts, kind)[-1][1]
    colours = [facts.colour(choice) for choice in choices]
    question = f"What colour is the last {kind} to come into view?"
    return Draft(
        question, "what", _five(colours, facts.colour(name), rng), facts.colour(name), [facts.seen(name)[0]], [name]
    )


def first_event(facts: Facts, *, kind: str, verb: str, choices: Sequence[str], asks: str, rng) -> Draft:
    """Who does something first."""
    name, span = _in_order(facts, kind, verb)[0]
    return Draft(asks, "which", _five(choices, name, rng), name, [span], [name])


def event_before(
    facts: Facts, *, kind: str, verb: str, verbs: str, choices: Sequence[str], reference: str, rng
) -> Draft:
    """Who does something right before another does it."""
    events = _in_order(facts, kind, verb)
    at = [name for name, _ in events].index(reference)
    name, span = events[at - 1]
    question = f"Which {kind} {verbs} right before {reference}?"
    candidates = _five([choice for choice in choices if choice != reference], name, rng)
    return Draft(question, "before_after", candidates, name, [span, events[at][1]], [name, reference])


def visits_twice(facts: Facts, *, kind: str, choices: Sequence[str], rng) -> Draft:
    """Who of a kind comes back a second time."""
    name = _only(facts, [n for n in facts.names(kind) if len(facts.seen(n)) == 2])
    if any(len(facts.seen(n)) > 2 for n in facts.names(kind)):
        raise UnclearError(f"{facts.scene.video_id}: a {kind} comes more than twice")
    return Draft(f"Which {kind} comes by twice?", "which", _five(choices, name, rng), name, facts.seen(name), [name])


# ----------------------------------------------------------------------------------------- counts
def count_events(facts: Facts, *, kind: str, verb: str, rng, choices: Sequence[str] = ()) -> Draft:
    """How many of a kind do something, each of them once."""
    events = _in_order(facts, kind, verb)
    names = [name for name, _ in events]
    if len(set(names)) != len(names):
        raise UnclearError(f"{facts.scene.video_id}: a {kind} does it twice, so its count is ambiguous")
    return _count(f"How many {kind}s {verb}?", "how_many", [span for _, span in events], names)


def count_times(facts: Facts, *, subject: str, verb: str, rng) -> Draft:
    """How many times something does something."""
    spans = [span for _, span in facts.doing(verb, [subject])]
    _apart(facts, spans)
    return _count(f"How many times does {subject} {verb}?", "how_many", spans, [subject])


def count_before(facts: Facts, *, kind: str, verb: str, reference: str, rng) -> Draft:
    """How many of a kind do something before another comes into view."""
    arrival = facts.entrance(reference)
    events = _in_order(facts, kind, verb)
    if any(span[0] - CLEAR < arrival[0] < span[1] + CLEAR for _, span in events):
        raise UnclearError(f"{facts.scene.video_id}: {reference} comes into view in the middle of an event")
    earlier = [(name, span) for name, span in events if span[1] < arrival[0]]
    question = f"How many {kind}s {verb} before {reference} comes into view?"
    made = _count(question, "before_after", [span for _, span in earlier], [name for name, _ in earlier])
    return dataclasses.replace(made, spans=[*made.spans, arrival], evidence=[*made.evidence, reference])


# ----------------------------------------------------------------------------------- hiding, doing
def passes_behind(facts: Facts, *, kind: str, occluder: str, choices: Sequence[str], rng) -> Draft:
    """Who of a kind passes behind a given thing."""
    name = _only(facts, [n for n in facts.names(kind) if facts.behind(n, occluder)])
    question = f"Which {kind} passes behind {occluder}?"
    return Draft(question, "which", _five(choices, name, rng), name, facts.behind(name, occluder), [name])


def which_hides(facts: Facts, *, kind: str, choices: Sequence[str], rng) -> Draft:
    """Who of a kind is out of sight behind something for a while; it is seen to go there and to come back."""
    name, span, occluder = _hiding(facts, kind)
    around = [s for s in facts.behind(name, occluder) if s[0] <= span[0] and span[1] <= s[1]]
    return Draft(
        f"Which {kind} is completely hidden for a while?", "which", _five(choices, name, rng), name, around, [name]
    )


def hidden_behind(facts: Facts, *, kind: str, noun: str, choices: Sequence[str], rng) -> Draft:
    """What one of a kind is hidden behind."""
    name, span, occluder = _hiding(facts, kind)
    question = f"What is {noun} completely hidden behind for a while?"
    return Draft(question, "what", _five(choices, occluder, rng), occluder, [span], [occluder, name])


def who_does(facts: Facts, *, kind: str, verb: str, verbs: str, rng) -> Draft:
    """Who of a kind does something that only one of them does."""
    events = facts.doing(verb)
    name = _only(facts, sorted({who for who, _ in events}))
    seen = [(max(a, c), min(b, d)) for _, (a, b) in events for c, d in facts.seen(name) if max(a, c) <= min(b, d)]
    choices = [thing.name for thing in facts.scene.things if thing.kind == kind]
    return Draft(f"What {verbs}?", "what", _five(choices, name, rng), name, seen, [name])


def covers_at_end(facts: Facts, *, kind: str, covered: str, places: Sequence[str], rng) -> Draft:
    """Which of a row of look-alikes has something under it in the last frame; the moments in which it was moved."""
    last = facts.scene.frames - 1
    inside = [name for name in facts.names(covered) if facts.hidden(name) and facts.hidden(name)[-1][1] == last]
    item = _only(facts, inside)
    holder = facts.hider(item, (last, last))
    row = sorted(facts.names(kind), key=lambda name: facts.centre[name][last])
    answer = places[row.index(holder)]
    moves = [span for _, span in facts.doing("move", [holder])]
    question = f"Under which {kind} is something hidden at the end?"
    return Draft(question, "which", list(places), answer, moves, [holder, item])


# ----------------------------------------------------------------------------------------- phases
def when_seen(facts: Facts, *, subject: str, asks: str, reference: str, by: str, rng) -> Draft:
    """In which phase of a reference something is in view."""
    return _phase(facts, subject, facts.seen(subject), asks, reference, by)


def when_event(facts: Facts, *, subject: str, verb: str, asks: str, reference: str, by: str, rng) -> Draft:
    """In which phase of a reference something is in a state."""
    return _phase(facts, subject, [span for _, span in facts.doing(verb, [subject])], asks, reference, by)


def _phase(facts: Facts, subject: str, spans: list[Span], asks: str, reference: str, by: str) -> Draft:
    if by == "visits":
        marks = facts.seen(reference)
    elif by == "hiding":
        marks = [span for span in facts.hidden(reference) if span[1] - span[0] >= 5]
    else:
        marks = [span for _, span in facts.doing(by, [reference])]
    found = {_phase_of(facts, span, marks) for span in spans}
    if len(found) != 1:
        raise UnclearError(f"{facts.scene.video_id}: {asks!r} happens in several phases: {sorted(found)}")
    phrases = {key: text.format(it=reference) for key, text in PHASES[by].items()}
    if len(marks) < 2:
        del phrases["between"]
    return Draft(asks, "when", [*phrases.values(), ALWAYS], phrases[found.pop()], spans, [subject, reference])


def _phase_of(facts: Facts, span: Span, marks: list[Span]) -> str:
    """The phase that holds a span, at least one frame away from its ends."""
    if span[1] + 1 < marks[0][0]:
        return "before"
    if span[0] - 1 > marks[-1][1]:
        return "after"
    if any(first < span[0] and span[1] < last for first, last in marks):
        return "while"
    for (_, left), (right, _) in itertools.pairwise(marks):
        if left < span[0] - 1 and span[1] + 1 < right:
            return "between"
    raise UnclearError(f"{facts.scene.video_id}: {span} lies across the phases of {marks}")


# ---------------------------------------------------------------------------------------- helpers
def _arrivals(facts: Facts, kind: str) -> list[tuple[int, str]]:
    order = sorted((facts.seen(name)[0][0], name) for name in facts.names(kind))
    if any(b - a < CLEAR for (a, _), (b, _) in itertools.pairwise(order)):
        raise UnclearError(f"{facts.scene.video_id}: two {kind}s come into view at nearly the same time")
    return order


def _in_order(facts: Facts, kind: str, verb: str) -> list[tuple[str, Span]]:
    kinds = {thing.name: thing.kind for thing in facts.scene.things}
    events = [(name, span) for name, span in facts.doing(verb) if kinds[name] == kind]
    _apart(facts, [span for _, span in events])
    return events


def _apart(facts: Facts, spans: list[Span]) -> None:
    if any(b[0] - a[1] < CLEAR for a, b in itertools.pairwise(spans)):
        raise UnclearError(f"{facts.scene.video_id}: two events are too close together: {spans}")


def _hiding(facts: Facts, kind: str) -> tuple[str, Span, str]:
    found = [(n, span) for n in facts.names(kind) for span in facts.hidden(n) if span[1] - span[0] >= 5]
    if len(found) != 1:
        raise UnclearError(f"{facts.scene.video_id}: hidden {kind}s: {found}")
    (name, span) = found[0]
    return name, span, facts.hider(name, span)


def _only(facts: Facts, names: list[str]) -> str:
    if len(names) != 1:
        raise UnclearError(f"{facts.scene.video_id}: one object should qualify, not {names}")
    return names[0]


def _count(question: str, kind: str, spans: list[Span], names: list[str]) -> Draft:
    answer = len(spans)
    # The five numbers around the answer; which five is settled when the letter is.
    return Draft(question, kind, [str(answer)], str(answer), spans, names, numeric=True)


def _five(choices: Sequence[str], answer: str, rng: random.Random) -> list[str]:
    """At most five of the choices, the answer among them."""
    others = [choice for choice in choices if choice != answer]
    while len(others) > 4:
        others.pop(int(rng.random() * len(others)))
    return [answer, *others]


FAMILIES: dict[str, Callable[..., Draft]] = {
    family.__name__: family
    for family in (
        first_seen,
        next_seen,
        last_colour,
        first_event,
        event_before,
        visits_twice,
        count_events,
        count_times,
        count_before,
        passes_behind,
        which_hides,
        hidden_behind,
        who_does,
        covers_at_end,
        when_seen,
        when_event,
    )
}
