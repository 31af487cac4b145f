"""Finding the members of a JSON file without parsing it: the same as parsing it, whatever the text and the chunks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evqa.corpora import json_index
from evqa.corpora.json_index import Span, index_elements, index_members, read_span
from evqa.errors import DataError

TEXT = st.text(st.sampled_from(list('ab"\\,:[]{} é\n\t/u')), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def write(folder, text):
    file = folder / "x.json"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("json")


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=4), st.sampled_from([1, 2, 3, 7, 1 << 23]), st.sampled_from([None, 1]))
def test_members_are_those_of_json_load(folder, value, chunk, indent):
    file = write(folder, json.dumps(value, indent=indent, ensure_ascii=bool(indent)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_index, "_CHUNK", chunk)
        spans = index_members(file)
    assert {key: read_span(file, span) for key, span in spans.items()} == value
    assert list(spans) == list(value)


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, max_size=4), st.sampled_from([1, 2, 3, 7, 1 << 23]), st.sampled_from([None, 1]))
def test_elements_are_those_of_json_load(folder, value, chunk, indent):
    file = write(folder, json.dumps(value, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_index, "_CHUNK", chunk)
        spans = index_elements(file)
    assert [read_span(file, Span(start, end)) for start, end in spans.tolist()] == value


def test_a_part_of_a_file(tmp_path):
    file = write(tmp_path, json.dumps({"a": [1, [2]], "b": {"c": 3, "d": {}}}))
    spans = index_members(file)
    assert index_elements(file, spans["a"]).shape == (2, 2)
    assert list(index_members(file, spans["b"])) == ["c", "d"]


def test_every_way_of_cutting_a_file_is_found(tmp_path):
    text = json.dumps({"a": [1, "x,]"], "b": {"c": None}})
    for end in range(len(text)):
        with pytest.raises(DataError) as error:
            index_members(write(tmp_path, text[:end]))
        assert error.value.file == str(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[1]", "an object is needed"),
        ("7", "an object is needed"),
        ('{"a": 1} {"b": 2}', "cut off"),
        ('{"a": 1}]', "cut off"),
        ('x{"a": 1}', "an object is needed"),
        ('{"a": 1,}', "not readable as JSON"),
        ('{"a": 1,,"b": 2}', "a comma too many"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": 1: 2}', "a colon too many"),
        ("{a: 1}", "not readable as JSON"),
        ("{1: 1}", "a member without a key"),
        ('{"a"}', "a member without a key"),
    ],
)
def test_what_is_no_object(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        index_members(write(tmp_path, text))


def test_a_damaged_member_is_found_when_it_is_read(tmp_path):
    file = write(tmp_path, '{"a": [1, 2}, "b": 3}')
    with pytest.raises(DataError):
        [read_span(file, span) for span in index_members(file).values()]
    with pytest.raises(DataError, match="there is no such file"):
        index_members(tmp_path / "nothing.json")


def test_an_index_is_small_beside_what_it_points_to(tmp_path):
    """The point of it: nothing is parsed, so memory does not grow with the masks."""
    import tracemalloc

    file = write(tmp_path, json.dumps({str(number): [number] * 2_000 for number in range(100)}))
    index_members(file)  # numpy's own first use
    tracemalloc.start()
    spans = index_members(file)
    small = tracemalloc.get_traced_memory()[0]
    value = json.loads(file.read_text())
    large = tracemalloc.get_traced_memory()[0] - small
    tracemalloc.stop()
    assert len(spans) == len(value) == 100
    assert small * 50 < large
