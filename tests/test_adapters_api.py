"""Models behind a network: what is sent, what is read, what is retried, what is final, and that no key leaks."""

from __future__ import annotations

import base64
import email.utils
import io
import json
import threading
import time

import api_helpers
import pytest
from api_helpers import GOOD, KEY, chat, go
from PIL import Image
from scripted_server import ScriptedServer, sleeping

from evqa.adapters import load_adapter
from evqa.adapters._api import Budget, Prices, redacted, retry_after, without_secrets
from evqa.engine import run
from evqa.errors import AdapterError, DataError, SetupError
from evqa.prompts import load_prompts

rows, keys = api_helpers.rows, api_helpers.keys


# --------------------------------------------------------------------------------------------- what is sent
def test_frames_come_with_their_times_and_keep_their_shape(rows, tmp_path):
    with ScriptedServer(lambda *_: chat(GOOD)) as server:
        log = go(server.url, rows[:1], tmp_path, frames="uniform:4", max_side=32).log
    _, path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 4096, 0.0)
    content = body["messages"][0]["content"]
    assert [part["text"] for part in content[:-1:2]] == ["0.0 s:", "0.7 s:", "1.2 s:", "1.8 s:"]
    image = Image.open(io.BytesIO(base64.b64decode(content[1]["image_url"]["url"].split(",")[1])))
    assert image.size == (32, 24)  # 64 x 48, halved, not squashed
    text = content[-1]["text"]
    assert "2.0 seconds long" in text
    assert "question 0" in text
    assert "(A) one\n(B) two" in text
    got = log.predictions()["e000"]
    assert (got.answer, got.segments, got.referring_expressions) == ("B", [[0.5, 1.0]], ["the box"])
    assert (got.raw_text, got.usage) == (GOOD, {"input_tokens": 100, "output_tokens": 10})
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == f"Bearer {KEY}"


def test_reasoning_models_take_other_parameters(rows, tmp_path):
    with ScriptedServer(lambda *_: chat(GOOD)) as server:
        go(server.url, rows[:1], tmp_path, name="openai:gpt-5-mini", structured=True)
    body = server.requests[0][2]
    assert body["max_completion_tokens"] == 4096
    assert not {"max_tokens", "temperature"} & set(body)
    assert body["response_format"]["json_schema"]["schema"]["required"] == [
        "answer",
        "segments",
        "referring_expressions",
    ]


def test_multi_turn_keeps_the_conversation(rows, tmp_path):
    replies = iter(["B", "The evidence: [[0:00, 0:01]]", '["the box", "the ball"]'])
    with ScriptedServer(lambda *_: chat(next(replies))) as server:
        got = go(server.url, rows[:1], tmp_path, mode="multi").log.predictions()["e000"]
    assert (got.answer, got.segments, got.referring_expressions) == ("B", [[0.0, 1.0]], ["the box", "the ball"])
    roles = [[m["role"] for m in body["messages"]] for _, _, body, _ in server.requests]
    assert roles == [["user"], ["user", "assistant", "user"], ["user", "assistant", "user", "assistant", "user"]]
    assert server.requests[2][2]["messages"][1]["content"] == "B"
    assert got.usage == {"input_tokens": 300, "output_tokens": 30}


def test_multi_turn_stops_where_there_is_no_answer_and_keeps_what_came_before(rows, tmp_path):
    replies = iter(["A man walks.", "B", "nowhere", "the box"])
    with ScriptedServer(lambda *_: chat(next(replies))):
        pass
    with ScriptedServer(lambda *_: chat(next(replies))) as server:
        records = go(server.url, rows[:2], tmp_path, mode="multi").log.predictions()
    assert records["e000"].status == "parse_failed"
    assert (records["e001"].answer, records["e001"].segments) == ("B", [])
    assert records["e001"].referring_expressions == ["the box"]
    assert "segments" in records["e001"].detail


def test_mcq_asks_three_questions_with_labelled_images(rows, tmp_path):
    replies = iter(["A", "(C)", "Image D", "E", "E", "E"])
    with ScriptedServer(lambda *_: chat(next(replies))) as server:
        records = go(server.url, rows[:2], tmp_path, task="mcq").log.predictions()
    got = records["e000"]
    assert (got.answer, got.temporal_choice, got.spatial_choice) == ("A", "C", "D")
    spatial = server.requests[2][2]["messages"][0]["content"]
    labels = [part["text"] for part in spatial if part["type"] == "text" and part["text"].startswith("Image")]
    assert labels == ["Image A:", "Image B:", "Image C:", "Image D:"]
    assert "(B) " in server.requests[1][2]["messages"][0]["content"][-1]["text"]
    assert records["e001"].failed  # E is no option in any of the three


def test_the_request_can_be_shown_without_sending_it(rows, capsys):
    adapter = load_adapter("openai:m", base_url="http://127.0.0.1:9/v1")
    shown = json.dumps(adapter.show_request(adapter.prepare(rows[0], "gen"), "gen"))
    assert "question 0" in shown
    assert KEY not in shown
    assert len(shown) < 5000
    held = load_adapter("openai:m", base_url="http://127.0.0.1:9/v1", structured=True)
    assert held.show_request(held.prepare(rows[0], "gen"), "gen")["response_format"]["type"] == "json_schema"
    large = load_adapter("gemini", base_url="http://127.0.0.1:9", inline_limit=10)  # nothing is uploaded for a look
    shown = large.show_request(large.prepare(rows[0], "gen"), "gen")
    assert "response_json_schema" in shown["config"]


# --------------------------------------------------------------------------------- what can come back
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (chat(None), "empty_output"), (chat(""), "empty_output"), (chat("I cannot watch videos."), "refused"),
        (chat(None, refusal="I can't help with that."), "refused"), (chat(None, "content_filter"), "refused"),
        (chat('{"answer": "B'), "truncated"), (chat(GOOD, "length"), "truncated"), (chat("A man walks."), "parse_failed"),
        (chat(42), "parse_failed"), ((200, {}, {"choices": []}), "transient_error"), ((200, {}, {"error": "busy"}), "transient_error"),
        ((200, {}, b'{"choices": [{"mess'), "transient_error"), ((200, {"Content-Type": "text/html"}, b"<html>gateway</html>"), "transient_error"),
        ((500, {}, {"error": {"message": "boom"}}), "transient_error"), ((503, {}, b""), "transient_error"),
        ((400, {}, {"error": {"message": "flagged", "code": "content_policy_violation"}}), "refused"),
        ((400, {}, {"error": {"message": "too many images"}}), "adapter_error"), ((413, {}, b""), "adapter_error"),
        (("cut", {}, b""), "transient_error"),
    ],
)  # fmt: skip
def test_every_reply_has_a_name(rows, tmp_path, reply, status):
    with ScriptedServer(lambda *_: reply) as server:
        got = go(server.url, rows[:1], tmp_path, retries=1).log.predictions()["e000"]
    assert (got.status, got.answer) == (status, None)
    assert got.detail, got
    assert KEY not in json.dumps(got.to_json())


def test_a_cut_reply_is_asked_for_once_more_with_twice_as_much(rows, tmp_path):
    with ScriptedServer(lambda *_: chat(GOOD, "length" if len(server.requests) == 1 else "stop")) as server:
        got = go(server.url, rows[:1], tmp_path, max_tokens=50).log.predictions()["e000"]
    assert [body["max_tokens"] for _, _, body, _ in server.requests] == [50, 100]
    assert got.answer == "B"
    assert got.usage == {"input_tokens": 200, "output_tokens": 20}  # both are paid for


def test_a_retry_goes_on_where_it_failed_and_every_reply_is_paid_for_once(rows, tmp_path):
    """Three questions; the second is answered at the third try. Five requests, three replies, all in the record."""
    script = iter([chat("A"), (500, {}, {}), ("cut", {}, b""), chat("C"), chat("Image D")])
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 10000.0, output: 0}\n")
    with ScriptedServer(lambda *_: next(script)) as server:
        got = go(server.url, rows[:1], tmp_path / "a", task="mcq", prices=str(prices)).log.predictions()["e000"]
    assert (got.answer, got.temporal_choice, got.spatial_choice) == ("A", "C", "D")
    assert len(server.requests) == 5
    assert got.usage["cost"] == pytest.approx(3.0)
    script = iter([chat("A"), *[(500, {}, {})] * 3])
    with ScriptedServer(lambda *_: next(script)) as server:
        run_ = go(server.url, rows[:1], tmp_path / "b", task="mcq", prices=str(prices))
    lost = run_.log.predictions()["e000"]
    assert (lost.status, lost.usage["cost"]) == ("transient_error", pytest.approx(1.0))
    script = iter([chat("A"), chat("C"), chat("Image D")])
    with ScriptedServer(lambda *_: next(script)) as server:
        adapter = load_adapter("openai:m", base_url=f"{server.url}/v1", prices=str(prices))
        log = run_.log
        assert log.spent() == pytest.approx(1.0)
        again = run(adapter, rows[:1], tmp_path / "c", task="mcq", retry_failed=True, progress=False)
    assert again.log.spent() == pytest.approx(3.0)


def test_slow_servers_time_out(rows, tmp_path):
    with ScriptedServer(sleeping(3.0, chat(GOOD))) as server:
        got = go(server.url, rows[:1], tmp_path, timeout=0.3, retries=0).log.predictions()["e000"]
    assert got.status == "transient_error"
    assert "timed out" in got.detail.lower()


def test_pauses_that_servers_ask_for_are_kept(rows, tmp_path):
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    script = iter(
        [
            (429, {"Retry-After": "7"}, {}),
            (429, {"Retry-After": date}, {}),
            (429, {"retry-after-ms": "250"}, {}),
            chat(GOOD),
        ]
    )
    pauses = []
    with ScriptedServer(lambda *_: next(script)) as server:
        got = go(server.url, rows[:1], tmp_path, retries=3, pauses=pauses).log.predictions()["e000"]
    assert got.answer == "B"
    assert pauses[0] == 7
    assert 35 < pauses[1] <= 40
    assert pauses[2] == 0.25


@pytest.mark.parametrize(
    "reply",
    [
        (401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}."}}), (403, {}, {}), (404, {}, {"error": {"message": "no model"}}),
        (429, {}, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    ],
)  # fmt: skip
def test_what_no_entry_can_survive_stops_the_run(rows, tmp_path, reply):
    with ScriptedServer(lambda *_: reply) as server, pytest.raises(SetupError) as caught:
        go(server.url, rows, tmp_path, concurrency=3)
    assert len(server.requests) <= 3
    assert KEY not in str(caught.value)
    assert KEY not in "".join(p.read_text() for p in tmp_path.rglob("*.json*"))


def test_no_key_at_all(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SetupError, match="OPENAI_API_KEY is not set"):
        load_adapter("openai")
    assert load_adapter("openai:m", base_url="http://127.0.0.1:9/v1").settings()["server"] == "http://127.0.0.1:9/v1"
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(SetupError, match="GEMINI_API_KEY"):
        load_adapter("gemini")


# --------------------------------------------------------------------------------------- many at once
def test_requests_run_at_the_same_time_and_each_is_recorded_once(rows, tmp_path):
    many = [{**rows[i % 6], "entry_id": f"r{i}"} for i in range(40)]
    met = threading.Event()

    def answer(*_):
        if server.at_once >= 4:
            met.set()
        met.wait(20)  # nobody is answered until four have come
        return chat(GOOD)

    with ScriptedServer(answer) as server:
        result = go(server.url, many, tmp_path, concurrency=8, timeout=60.0)
    assert result.done == 40
    assert len(server.requests) == 40
    assert met.is_set()
    assert server.most_at_once <= 8
    assert sorted(result.log.predictions()) == sorted(r["entry_id"] for r in many)


def test_a_cap_on_spend(rows, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 1000.0, output: 10000.0}\n")  # 0.1 + 0.1 a request
    adapter = load_adapter("openai:m", base_url="http://127.0.0.1:9/v1", prices=str(prices))
    many = [{**rows[i % 6], "entry_id": f"r{i}"} for i in range(30)]
    with ScriptedServer(lambda *_: chat(GOOD)) as server:
        options = {"base_url": f"{server.url}/v1", "prices": str(prices), "concurrency": 2}
        adapter = load_adapter("openai:m", **options)
        first = run(adapter, many, tmp_path / "run", progress=False, max_cost=1.0)
        assert first.out_of_money
        assert 5 <= first.done <= 7
        assert first.cost == pytest.approx(0.2 * first.done)
        assert len(server.requests) == first.done  # everything that was paid for is recorded
        again = run(load_adapter("openai:m", **options), many, tmp_path / "run", progress=False, max_cost=1.0)
        assert again.done <= 2  # what was spent before counts
    with (
        pytest.raises(SetupError, match="tokens"),
        ScriptedServer(lambda *_: (200, {}, {**chat(GOOD)[2], "usage": None})) as server,
    ):
        go(server.url, rows[:1], tmp_path / "untold", prices=str(prices))  # a cap that nobody could keep
    prices.write_text("m: {input: -1.0, output: .nan}\n")
    with pytest.raises(AdapterError, match="price table"):
        load_adapter("openai:m", base_url="http://x/v1", prices=str(prices))
    with pytest.raises(AdapterError, match="price table"):
        load_adapter("openai:m", base_url="http://x/v1", prices=str(tmp_path / "none.yaml"))


def test_budget_keeps_the_pace():
    now = [0.0]
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    budget = Budget(60, 6000, clock=lambda: now[0], sleep=sleep)
    for _ in range(90):
        budget.take(50)
    assert now[0] == pytest.approx(30, abs=1.1)  # a minute's requests at once, then one a second
    tokens = Budget(None, 6000, clock=lambda: now[0], sleep=sleep)
    start = now[0]
    for _ in range(4):
        tokens.take(3000)
        tokens.settle(3000, 6000)  # it used twice what was guessed
    assert now[0] - start > 90
    assert Budget().take(10**9) is None


def test_budget_holds_over_threads():
    budget = Budget(6000, None)
    start = time.monotonic()
    threads = [threading.Thread(target=lambda: [budget.take(1) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget._level["requests"] <= 6000 - 40 + 6000 / 60 * (time.monotonic() - start) + 1


def test_small_things(tmp_path):
    assert retry_after({"Retry-After": "3"}) == 3
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None
    assert redacted(f"bad key {KEY}") == "bad key ***"
    assert redacted("http://me:pw@host/v1") == "http://***@host/v1"
    assert redacted("token abc", "abc") == "token ***"
    assert without_secrets("https://me:pw@host:8000/v1?api-key=abc") == "https://host:8000/v1"
    assert Prices(None).cost("m", {}) is None


def test_prompt_files(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text('name: mine\nversion: "2"\ngen: "{question} {{x}} {options}"\n')
    prompts = load_prompts(path)
    assert prompts.render("gen", question="q{", options="o", duration="d") == "q{ {x} o"
    assert prompts.describe()["name"] == "mine"
    assert prompts.describe()["sha256"] != load_prompts(None).describe()["sha256"]
    for text, message in (
        ("gen: x", "a name"), ('name: a\nversion: 1\nfoo: "x"', "unknown steps"), ("name: [", "cannot be read"),
        ('name: a\nversion: 1\ngen: "{colour}"', "nothing fills"), ('name: a\nversion: 1\ngen: "{"', "doubled"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            load_prompts(path)
