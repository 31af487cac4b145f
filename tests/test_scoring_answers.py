"""Answers: which option is meant, and is it right."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evqa.scoring import answer_correct, match_candidate
from evqa.scoring.answers import LETTERS, match_letter

OPTIONS = ["a dog", "a cat", "two dogs", "nothing"]


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("[b]", 1), ("B.", 1), ("B:", 1), ("**B**", 1), ("Option B", 1), ("Answer: B", 1),
        ("The answer is (B).", 1), ("the correct answer is: b", 1), ("B. a cat", 1), ("B: a cat", 1), ("(B) A CAT!", 1),
        ("a cat", 1), ("A  Cat.", 1), ('"a cat"', 1), ("B\u200b", 1), ("Ｂ", 1),
        ("B. the cat on the left", 1),  # a remark that is no option
        ("B: a dog", None),  # letter and text contradict each other
        ("A, B", None), ("A or B", None), ("A. a dog B. a cat", None), ("A man walks", None), ("dogs", None),
        ("E", None), ("", None), ("   ", None), (None, None), (["B"], None), ({"B": 1}, None), ("...", None),
    ],
)  # fmt: skip
def test_match_candidate(said, index):
    assert match_candidate(said, OPTIONS) == index


def test_letters_and_texts_that_look_alike():
    # A capital letter is a label even where an option is spelled so; a lower-case one only where none is.
    assert match_candidate("A", ["B", "A"]) == 0
    assert match_candidate("b", ["b", "a"]) == 0
    assert match_candidate("F", ["x", "F"]) == 1  # not a label of two options
    assert match_candidate("2", ["1", "2", "3"]) == 1
    assert match_candidate(2.0, ["1", "2", "3"]) == 1
    assert match_candidate("yes", ["Yes", "yes"]) == 1  # exact spelling first
    assert match_candidate("YES", ["Yes", "yes"]) is None  # could be either
    assert match_candidate("red", ["red", "blue", "red"]) == 0  # equal options are one answer


def test_more_than_six_options():
    options = [f"option number {i}" for i in range(9)]
    assert match_candidate("I", options) == 8
    assert answer_correct("H", "option number 7", options)
    assert not answer_correct("H", "option number 7", options, "evqa-v1")  # the original knows A-F


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8), st.data())
@settings(max_examples=200, derandomize=True)
def test_the_capital_letter_always_means_its_option(options, data):
    index = data.draw(st.integers(0, len(options) - 1))
    assert match_candidate(LETTERS[index], options) == index
    assert answer_correct(LETTERS[index], options[index], options)


@given(st.text(max_size=30), st.lists(st.text(max_size=8), max_size=6))
@settings(max_examples=300, derandomize=True)
def test_never_raises_and_stays_in_range(said, options):
    index = match_candidate(said, options)
    assert index is None or 0 <= index < len(options)
    assert isinstance(answer_correct(said, "x", options), bool)
    assert isinstance(answer_correct(said, "x", options, "evqa-v1"), bool)


def test_match_letter_needs_a_letter_among_the_options():
    assert [match_letter(text, 4) for text in ("A", "d.", "E", "AB", None)] == [0, 3, None, None, None]


def test_v1_is_as_strict_about_letters_as_the_original():
    for said in ("b", "B.", "(B)", "Answer: B", "A CAT"):
        assert answer_correct(said, "a cat", OPTIONS)
        assert not answer_correct(said, "a cat", OPTIONS, "evqa-v1")
    assert answer_correct(" B ", "a cat", OPTIONS, "evqa-v1")
    assert answer_correct(" a cat ", "a cat", OPTIONS, "evqa-v1")
    assert answer_correct(2, "2", ["1", "2"], "evqa-v1")
    assert not answer_correct(2.0, "2", ["1", "2"], "evqa-v1")
    assert not answer_correct("A", "x", ("x", "y"), "evqa-v1")  # a tuple is no list to the original
    assert not answer_correct("A", "x", "['x', 'y'", "evqa-v1")  # nor is a broken literal


def test_open_ended():
    assert answer_correct("A Dog.", "a dog", None)
    assert not answer_correct(None, "None", None)


def test_unknown_protocol():
    with pytest.raises(ValueError, match="known: strict, evqa-v1"):
        answer_correct("A", "a", ["a"], "lenient")


def test_golden_answers(shared):
    for case in json.loads((shared / "golden" / "qa.json").read_text())["cases"]:
        parsed = (case["prediction"] or {}).get("parsed_response") or {}
        said = None if case["missing"] else parsed.get("answer")
        got = answer_correct(said, case["gt_answer"], case["candidates_csv"], "evqa-v1")
        assert got == case["evqa_correct"], case["id"]
