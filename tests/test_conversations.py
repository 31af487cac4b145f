"""Rows as training conversations: what is asked, what is said, and which object each ``<|seg|>`` is."""

from __future__ import annotations

import json

import pytest
from mixture_rows import chat_row, instruct_row, segmentation_row

from evqa.errors import DataError
from evqa.parsing import parse_generation
from evqa.prompts import GROUNDED, grounded_reply
from evqa.scoring.answers import LETTERS
from evqa.training.conversations import SEG_TOKEN, converse, noun_phrase
from evqa.training.frames import generator
from evqa.training.templates import _NEEDED, DEFAULT, load_templates


def first():
    return 0.0


def texts(talk):
    return [" ".join(part.get("text", f"<{part['type']}>") for part in message["content"]) for message in talk.messages]


# ------------------------------------------------------------------------------------------ evidence
def test_evidence_asks_for_what_the_row_can_prove_and_says_it(tmp_path):
    row = instruct_row(tmp_path, 0)
    ask, reply = texts(converse(row, first))
    options = "(A) a ball\n(B) a box\n(C) a cat"
    asked = GROUNDED.render("gen", question="What moves?", options=options, duration="3.0 seconds")
    assert ask == f"<video> {asked}"  # word for word what the benchmark asks
    assert reply == grounded_reply("B", row["segments"])
    assert texts(converse({**row, "duration": None}, first))[0].startswith(
        "<video> The video is of unknown length long"
    )
    assert reply == "Answer: B. Temporal Evidence: [[0.5, 1.2], [2.0, 3.0]]. Spatial Evidence: <|seg|>."

    talk = converse({**row, "segments": []}, first)
    assert texts(talk)[1] == "Answer: B. Spatial Evidence: <|seg|>."
    assert "segments in seconds" not in texts(talk)[0]
    nothing_seen = [{**item, "masks": []} for item in row["objects"]]
    talk = converse({**row, "objects": nothing_seen}, first)
    assert texts(talk)[1] == "Answer: B. Temporal Evidence: [[0.5, 1.2], [2.0, 3.0]]."
    assert "mask" not in texts(talk)[0]
    assert talk.targets == ()
    talk = converse({**row, "objects": nothing_seen, "segments": []}, first)
    assert texts(talk)[1] == "Answer: B."


def test_each_object_or_all_together(tmp_path):
    row = instruct_row(tmp_path, 0)
    assert converse(row, first).targets == ((0, 1),)
    talk = converse(row, first, style="per_object")
    assert talk.targets == ((0,), (1,))
    assert texts(talk)[1].endswith("Spatial Evidence: the left box <|seg|>, the right box <|seg|>.")
    # An object without masks has no token: its target would be nothing.
    row["objects"][0]["masks"] = []
    talk = converse(row, first, style="per_object")
    assert talk.targets == ((1,),)
    assert texts(talk)[1].count(SEG_TOKEN) == 1
    row["objects"][0] = {**row["objects"][1], "expression": None}
    assert "object 1 <|seg|>, the right box <|seg|>" in texts(converse(row, first, style="per_object"))[1]


def test_a_benchmark_row_has_one_mask_that_is_united_already(tmp_path):
    row = instruct_row(tmp_path, 0)
    masks = row["objects"][0]["masks"]
    del row["objects"]
    assert converse({**row, "masks": masks}, first, style="per_object").targets == ((),)
    assert converse({**row, "masks": None}, first).targets == ()


def test_shuffled_options_keep_the_answer(tmp_path):
    row = instruct_row(tmp_path, 0)
    seen = set()
    for number in range(60):
        talk = converse(row, generator("options", number).random, shuffle_options=True)
        ask, reply = texts(talk)
        letter = reply[len("Answer: ")]
        assert f"({letter}) a box" in ask
        assert all(text in ask for text in row["candidates"])
        seen.add(letter)
    assert seen == {"A", "B", "C"}


def test_the_option_said_before_its_letter(tmp_path):
    row = instruct_row(tmp_path, 0)
    for number in range(20):
        talk = converse(row, generator("options", number).random, shuffle_options=True, say_option=True)
        ask, reply = texts(talk)
        letter = reply.partition("Answer: ")[2][0]
        assert f"({letter}) a box" in ask
        segments = row["segments"]
        assert reply == grounded_reply(letter, segments, words="a box")
        listed = [line[4:] for line in ask.splitlines() if line.startswith("(")]
        parsed = parse_generation(reply, listed)
        assert (parsed.status, parsed.answer, parsed.segments) == ("ok", letter, [[0.5, 1.2], [2.0, 3.0]])


def test_what_is_seen_comes_before_the_answer_and_is_not_taken_for_it(tmp_path):
    why = "Seen: the box [[0.1, 0.4], [5.0, 6.0]], the tree [[7.0, 9.0]]."
    row = {**instruct_row(tmp_path, 0), "metadata": json.dumps({"rationale": why})}
    reply = texts(converse(row, first, say_option=True, say_rationale=True))[1]
    assert reply == grounded_reply("B", row["segments"], words="a box", rationale=why)
    assert reply.startswith(f"{why} The evidence shows a box. Answer: B.")
    parsed = parse_generation(reply, row["candidates"])
    assert (parsed.status, parsed.answer, parsed.segments) == ("ok", "B", [[0.5, 1.2], [2.0, 3.0]])
    assert "Seen" not in texts(converse(row, first, say_option=True))[1]
    plain = {**row, "metadata": None}
    assert "Seen" not in texts(converse(plain, first, say_option=True, say_rationale=True))[1]
    for broken, why in (("{", "no JSON"), ("[1]", "list, not an object"), (3, "no JSON")):
        with pytest.raises(DataError, match=why):
            converse({**row, "metadata": broken}, first, say_rationale=True)


def test_what_reads_model_output_reads_our_replies(tmp_path):
    row = instruct_row(tmp_path, 0)
    for style in ("merged", "per_object"):
        reply = texts(converse(row, first, style=style))[1]
        parsed = parse_generation(reply, row["candidates"])
        assert (parsed.status, parsed.answer) == ("ok", "B")
        assert parsed.segments == [[0.5, 1.2], [2.0, 3.0]]


@pytest.mark.parametrize("index", [None, 3, -1])
def test_an_answer_that_is_no_option_is_refused(tmp_path, index):
    with pytest.raises(DataError, match="none of the 3 options.*ask_7"):
        converse(instruct_row(tmp_path, 7, answer_index=index), first)


def test_more_options_than_letters_are_refused(tmp_path):
    many = [str(i) for i in range(len(LETTERS) + 1)]
    with pytest.raises(DataError, match="27 options"):
        converse(instruct_row(tmp_path, 0, candidates=many), first)


# -------------------------------------------------------------------------------------- segmentation
@pytest.mark.parametrize(
    ("kind", "text", "answer", "asked", "said"),
    [
        ("query", "A man in Red.", None, "Segment the man in Red in this video.", "It is <|seg|>."),
        ("sentence", "Which car is fastest?", None, "Which car is fastest? Reply with", "It is <|seg|>."),
        ("question", "Who wins the race", "the tall one", "Who wins the race? Answer", "the tall one <|seg|>."),
        (
            "explanatory",
            "the winner",
            "It ends first.",
            "the winner in this video and explain",
            "It is <|seg|>. It ends",
        ),
        ("description", "It is red.", None, "described here: It is red.", "It is <|seg|>."),
    ],
)
def test_each_kind_of_expression(tmp_path, kind, text, answer, asked, said):
    row = segmentation_row(tmp_path, 0, kind=kind, expression=text, answer=answer)
    talk = converse(row, first)
    ask, reply = texts(talk)
    assert asked in ask
    assert reply.startswith(said)
    assert talk.targets == ((0, 1),)
    talk = converse(row, first, style="per_object")
    assert texts(talk)[1].count(SEG_TOKEN) == 2
    assert "<|seg|> and <|seg|>" in texts(talk)[1]
    assert talk.targets == ((0,), (1,))


def test_every_wording_of_every_list_keeps_what_it_needs():
    for situation, needed in _NEEDED.items():
        wordings = DEFAULT.words[situation]
        assert len(set(wordings)) == len(wordings)
        for number in range(len(wordings)):
            said = DEFAULT.render(
                situation, number / len(wordings), phrase="PHRASE", text="TEXT", clip="CLIP", answer="ANSWER", seg="SEG"
            )
            assert all(name.upper() in said for name in needed), (situation, said)
            assert "{" not in said


def test_what_cannot_be_learnt_is_refused(tmp_path):
    for change, message in [
        ({"objects": None}, "no object with masks"),
        ({"objects": []}, "no object with masks"),
        ({"objects": [{"object_id": "1", "masks": None}]}, "no object with masks"),
        ({"kind": "question"}, "needs an answer"),
        ({"kind": "poem"}, "unknown kind"),
        ({"expression": "the <|seg|> one"}, "control token"),
        ({"expression": "<|im_end|>"}, "control token"),
        ({"expression": "  "}, "text is needed"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            converse(segmentation_row(tmp_path, 5, **change), first)
        assert caught.value.entry == "clip/5"


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The cat", "cat"), ("an apple.", "apple"), ("Anna's dog", "anna's dog"), ("USB stick", "USB stick"),
        ("theatre seat", "theatre seat"), ("a", "a"),
    ],
)  # fmt: skip
def test_noun_phrase(text, phrase):
    assert noun_phrase(text) == phrase


# -------------------------------------------------------------------------------------- conversation
def test_markers_stay_where_they_stand():
    row = chat_row(0, "Compare <image> with <image>, please.", image_names=["a", "b"])
    talk = converse(row, first)
    assert [part["type"] for part in talk.messages[0]["content"]] == ["text", "image", "text", "image", "text"]
    assert talk.data_type == "image"
    assert talk.targets == ()


def test_media_without_a_marker_come_first():
    talk = converse(chat_row(0, "What happens?", video_names=["v.mp4"]), first)
    assert [part["type"] for part in talk.messages[0]["content"]] == ["video", "text"]
    assert talk.data_type == "video"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (chat_row(1, "<image> and <image>", image_names=["a"]), "2 <image> markers, the row 1"),
        (chat_row(1, "<video> hello"), "1 <video> markers, the row 0"),
        (chat_row(1, "<|seg|>"), "control token"),
        (chat_row(1, messages=[{"role": "user", "content": "Hi"}]), "end with a reply"),
        (chat_row(1, " "), "empty turn"),
        ({"entry_id": "chat/1", "colour": "red"}, "none of evqa's records"),
    ],
)
def test_bad_conversations_are_refused(row, message):
    with pytest.raises(DataError, match=message) as caught:
        converse(row, first)
    assert caught.value.entry == "chat/1"


# ----------------------------------------------------------------------------------------- templates
def test_templates_from_a_file_change_the_hash_and_nothing_else(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('name: mine\nversion: "2"\nquery: ["Where is the {phrase}? {{}}"]\n')
    mine = load_templates(path)
    row = segmentation_row(tmp_path / "frames", 0)
    assert texts(converse(row, first, templates=mine))[0] == "<video> Where is the box number 0? {}"
    assert texts(converse(row, first, templates=mine))[1] == texts(converse(row, first))[1]
    assert mine.describe()["sha256"] != DEFAULT.describe()["sha256"]
    assert load_templates(None) is DEFAULT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nversion: 1\npoem: [a]", "unknown list 'poem'"),
        ("name: x\nversion: 1\nquery: []", "at least one wording"),
        ("name: x\nversion: 1\nquery: ['{phrase} {colour}']", "nothing fills"),
        ("name: x\nversion: 1\nmasks: ['Here.']", "leaves out"),
        ("name: x\nversion: 1\nmasks: ['{seg']", "doubled"),
        ("- a", "has a name"),
        ("name: [", "cannot be read"),
    ],
)
def test_bad_templates_are_refused(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_templates(tmp_path / "bad.yaml")
    assert caught.value.file == str(tmp_path / "bad.yaml")
