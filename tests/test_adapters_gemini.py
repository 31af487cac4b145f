"""Gemini: the clip along or uploaded, what comes back, and what is tried again."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import api_helpers
import pytest
from api_helpers import GOOD, KEY, candidates, go
from scripted_server import ScriptedServer

from evqa.errors import SetupError
from evqa.scoring import score

rows, keys = api_helpers.rows, api_helpers.keys


def test_gemini_sends_the_clip_along(rows, tmp_path):
    with ScriptedServer(lambda *_: candidates(GOOD, thought="Hm, A?")) as server:
        log = go(server.url, rows[:1], tmp_path, name="gemini", fps=2.0).log
    _, path, body, headers = server.requests[0]
    assert path.endswith("gemini-2.5-pro:generateContent")
    video, text = body["contents"][0]["parts"]
    assert video["videoMetadata"]["fps"] == 2.0
    assert base64.urlsafe_b64decode(video["inlineData"]["data"]) == Path(rows[0]["video"]["path"]).read_bytes()
    assert "2.0 seconds long" in text["text"]
    assert body["generationConfig"]["responseMimeType"] == "application/json"
    got = log.predictions()["e000"]
    assert (got.answer, got.raw_text) == ("B", GOOD)
    assert got.usage == {"input_tokens": 500, "output_tokens": 50}
    assert {k.lower(): v for k, v in headers.items()}["x-goog-api-key"] == KEY
    assert KEY not in json.dumps(log.manifest)


def test_gemini_uploads_large_clips_and_deletes_them(rows, tmp_path):
    state = iter(["PROCESSING", "ACTIVE"])

    def answer(method, path, body):
        if path.startswith("/upload") and isinstance(body, dict):
            return 200, {"X-Goog-Upload-URL": f"{server.url}/upload/put", "x-goog-upload-status": "active"}, {}
        if path.startswith("/upload"):
            file = {"name": "files/abc", "uri": "https://files/abc", "mimeType": "video/mp4", "state": next(state)}
            return 200, {"x-goog-upload-status": "final"}, {"file": file}
        if method == "GET":
            return (
                200,
                {},
                {"name": "files/abc", "uri": "https://files/abc", "mimeType": "video/mp4", "state": next(state)},
            )
        if method == "DELETE":
            return 200, {}, {}
        return candidates("B")

    with ScriptedServer(answer) as server:
        got = go(server.url, rows[:1], tmp_path, name="gemini", inline_limit=10).log.predictions()["e000"]
    assert got.status == "ok", got.detail
    asked = next(body for _, path, body, _ in server.requests if path.endswith("generateContent"))
    file = asked["contents"][0]["parts"][0]["fileData"]
    assert (file.get("fileUri") or file.get("file_uri")) == "https://files/abc", file
    assert server.requests[-1][0] == "DELETE"

    state = iter(["ACTIVE", "ACTIVE"])
    calls = iter([(500, {}, {"error": {"code": 500, "message": "x"}}), candidates("B")])

    def flaky(method, path, body):
        return next(calls) if path.endswith("generateContent") else answer(method, path, body)

    with ScriptedServer(flaky) as server:
        got = go(server.url, rows[:1], tmp_path / "again", name="gemini", inline_limit=10).log.predictions()["e000"]
    assert got.status == "ok", got.detail
    assert [method for method, *_ in server.requests].count("DELETE") == 2  # also after a failure


def test_a_failed_upload_is_tried_again(rows, tmp_path):
    script = iter([(503, {}, {"error": {"code": 503, "message": "x"}}), None])

    def answer(method, path, body):
        if path.startswith("/upload") and isinstance(body, dict):
            bad = next(script, None)
            return bad or (200, {"X-Goog-Upload-URL": f"{server.url}/upload/put", "x-goog-upload-status": "active"}, {})
        if path.startswith("/upload"):
            file = {"name": "files/abc", "uri": "https://files/abc", "mimeType": "video/mp4", "state": "ACTIVE"}
            return 200, {"x-goog-upload-status": "final"}, {"file": file}
        return (200, {}, {}) if method == "DELETE" else candidates("B")

    pauses = []
    with ScriptedServer(answer) as server:
        got = go(server.url, rows[:1], tmp_path, name="gemini", inline_limit=10, pauses=pauses).log.predictions()[
            "e000"
        ]
    assert got.status == "ok", got.detail
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (candidates(None), "empty_output"), (candidates(None, "SAFETY"), "refused"), (candidates('{"answer": "B', "MAX_TOKENS"), "truncated"),
        ((200, {}, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), "refused"), ((200, {}, {}), "transient_error"),
        ((200, {}, b'{"candidates": [{"con'), "transient_error"), ((500, {}, {"error": {"code": 500, "message": "x"}}), "transient_error"),
        ((400, {}, {"error": {"code": 400, "message": "bad video"}}), "adapter_error"), (("cut", {}, b""), "transient_error"),
    ],
)  # fmt: skip
def test_gemini_replies_have_names(rows, tmp_path, reply, status):
    with ScriptedServer(lambda *_: reply) as server:
        got = go(server.url, rows[:1], tmp_path, name="gemini", retries=0).log.predictions()["e000"]
    assert (got.status, got.answer) == (status, None), got.detail
    assert KEY not in json.dumps(got.to_json())


def test_gemini_pauses_and_final_errors(rows, tmp_path):
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13s"}]
    script = iter([(429, {}, {"error": {"code": 429, "message": "quota", "details": details}}), candidates(GOOD)])
    pauses = []
    with ScriptedServer(lambda *_: next(script)) as server:
        assert go(server.url, rows[:1], tmp_path / "a", name="gemini", pauses=pauses).failed == 0
    assert pauses == [13]
    reply = (
        400,
        {},
        {"error": {"code": 400, "message": "API key not valid", "details": [{"reason": "API_KEY_INVALID"}]}},
    )
    with ScriptedServer(lambda *_: reply) as server, pytest.raises(SetupError):
        go(server.url, rows, tmp_path / "b", name="gemini")


def test_gemini_mcq_scores(rows, tmp_path):
    def answer(method, path, body):
        text = body["contents"][0]["parts"][1]["text"]
        return candidates("B" if "time span" in text else "A")

    with ScriptedServer(answer) as server:
        log = go(server.url, rows, tmp_path, task="mcq", name="gemini", concurrency=3).log
    assert score(log.predictions(), rows)["temporal_accuracy"] == 100.0
