"""Model output -> answer, segments, expressions. The traps are those that real systems fell into."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evqa.parsing import parse_choice, parse_generation, parse_time
from evqa.types import STATUSES

OPTIONS = ["a dog", "a cat", "two dogs", "nothing", "the man in red"]


def gen(text, **options):
    return parse_generation(text, OPTIONS, **{"duration": 60.0, **options})


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "B", "segments": [[1.0, 2.5]], "referring_expressions": ["the cat"]}',
        '```json\n{"answer": "B", "segments": [[1.0, 2.5]], "referring_expressions": ["the cat"]}\n```',
        'Here you are:\n```\n{"answer": "(b)", "segments": [1.0, 2.5], "referring_expressions": "the cat"}\n```\nDone.',
        '[{"answer": "a cat", "segments": [{"start": "0:01", "end": "2.5s"}], "referring_expressions": ["the cat"]}]',
        "{'answer': 'B. a cat', 'segments': [(1, 2.5)], 'referring_expressions': ['the cat', 'the cat', ''],}",
        '<think>A? No, [[9, 10]].</think> {"Answer": ["B"], "Time Segments": "1.0 - 2.5", "expressions": [{"expression": "the cat"}]}',
        'I weigh {this} first. {"answer": "B", "time_segments": ["1.0-2.5"], "ref_expressions": ["the cat"]}',
        'Answer: B\nSegments: [[1.0, 2.5]]\nReferring expressions: ["the cat"]',
        '**Answer:** (B) a cat\n**Time segments:** 0:01 to 2.5 s\n**Expressions:** ["the cat"]',
        'The final answer is B.\nTemporal evidence: [0:01, 0:02.5]\nreferring expressions = ["the cat"]',
    ],
)
def test_one_thing_said_in_many_ways(text):
    got = gen(text)
    assert (got.status, got.answer, got.segments, got.expressions) == ("ok", "B", [[1.0, 2.5]], ["the cat"])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"), ("(b)", "B"), ("b.", "B"), ("B because the cat jumps", "B"), ("Answer: b.", "B"),
        ("The answer is a cat.", "B"), ("Option B is correct", "B"), ("So, B is the best answer", "B"), ("I choose C", "C"),
        (r"so $\boxed{D}$", "D"), ("<think>A?</think>\n<answer>B</answer>", "B"), ("<answer> (b) a cat </answer>", "B"), ("Answer: A. On second thought, final answer: E", "E"),
        ("First I thought the answer is A.\nThe answer is C.", "C"), ("the man in red", "E"), ("Answer: B, because of A", "B"),
        ("B\n\nThe cat is seen jumping.", "B"), ("Between A and B, the answer is B.", "B"),
    ],
)  # fmt: skip
def test_prose_answers(text, answer):
    assert gen(text).answer == answer


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (None, "empty_output"), ("", "empty_output"), ("  \n", "empty_output"), ("<think>hm</think>", "empty_output"),
        ('{"answer": "B", "segments": [[1.0, 2', "truncated"), ('```json\n{"answer": "', "truncated"),
        ("<think>Let me see, A", "truncated"),
        ("A man walks into the room and a dog barks.", "parse_failed"),  # the article is no answer
        ("ANSWER", "parse_failed"), ("The answer is unclear.", "parse_failed"), ("Answer: A or B", "parse_failed"),
        ("A. a dog B. a cat C. two dogs", "parse_failed"), ("F", "parse_failed"), ("{}", "parse_failed"),
        ("I'm sorry, I cannot watch videos.", "refused"), ("As an AI model I am unable to view this.", "refused"),
    ],
)  # fmt: skip
def test_named_failures(text, status):
    got = gen(text)
    assert (got.status, got.answer, got.segments) == (status, None, [])
    assert status in STATUSES
    assert got.as_prediction("e", text).failed


def test_segments_that_cannot_be_used_are_told():
    got = gen('{"answer": "B", "segments": [[9, 3], [1, 2], ["x", 2], [55, 90], [null, 1]]}')
    assert got.segments == [[1, 2], [55, 90]]
    assert len(got.problems) == 4
    assert any("ends before it starts" in p for p in got.problems)
    assert any("after the clip" in p for p in got.problems)
    assert gen('{"answer": "B", "segments": [1, 2, 3]}').problems == ["an odd number of times; the last one is dropped"]
    assert gen('{"answer": "B", "segments": null}').segments == []


def test_percent_needs_the_length():
    assert gen('{"answer": "B", "segments": [["10%", "50%"]]}').segments == [[6.0, 30.0]]
    assert gen('{"answer": "B", "segments": [["10%", "50%"]]}', duration=None).segments == []


def test_an_answer_outside_the_options_is_kept_and_told():
    got = gen('{"answer": "a giraffe", "segments": []}')
    assert (got.status, got.answer) == ("ok", "a giraffe")
    assert "none of the options" in got.problems[0]


def test_numbers_in_prose_are_not_segments():
    assert gen("Answer: B. There are [3] dogs and 2 to 4 cats.").segments == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3.0), (2.5, 2.5), ("2.5", 2.5), ("2.5s", 2.5), ("7 seconds", 7.0), ("1:05", 65.0), ("01:05.5", 65.5),
        ("1:02:03", 3723.0), ("1m 5s", 65.0), ("2 min 30 sec", 150.0), ("25%", 15.0),
        (-1, None), (float("nan"), None), (float("inf"), None), (True, None), ("1:75", None), ("soon", None), (None, None),
    ],
)  # fmt: skip
def test_times(value, seconds):
    assert parse_time(value, 60.0) == seconds


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"), ("(c)", "C"), ("The answer is D.", "D"), ('{"answer": "A"}', "A"), ("B. the second image", "B"),
        ("E", None), ("Answer: E", None), ("A picture of a dog", None), ("", None), ("The second one", None),
    ],
)  # fmt: skip
def test_choice_of_four(text, answer):
    assert parse_choice(text, 4).answer == answer


def test_choice_with_texts():
    assert parse_choice("a cat", 5, OPTIONS).answer == "B"
    assert parse_choice("E", 5, OPTIONS).answer == "E"
    assert parse_choice('{"answer": "A', 4).status == "truncated"


@given(st.text(max_size=200))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_any_text_is_read_or_named(text):
    for got in (gen(text), parse_choice(text, 4)):
        assert got.status in STATUSES
        assert (got.status == "ok") or got.answer is None
        assert all(0 <= s <= e for s, e in got.segments)


@given(
    st.sampled_from("ABCDE"),
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 99)), max_size=4),
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=10),
        max_size=3,
        unique=True,
    ),
)
@settings(max_examples=200, derandomize=True)
def test_json_round_trip(letter, spans, expressions):
    segments = [[start / 10, (start + length) / 10] for start, length in spans]
    text = json.dumps({"answer": letter, "segments": segments, "referring_expressions": expressions})
    got = gen(text, duration=None)
    assert (got.answer, got.segments, got.expressions) == (letter, segments, expressions)
