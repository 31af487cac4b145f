"""The evidence page in a real browser, opened from disk: loads, draws, plays, seeks, toggles, no errors."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
from browsing import LOW_CONTRAST, NAMELESS, browser, expect, needs_browser, page, watched
from make_data import benchmark
from PIL import Image

import evqa
from evqa import masks
from evqa.cli import main
from evqa.report import write_report
from evqa.types import Prediction

__all__ = ["browser", "page"]  # fixtures
pytestmark = needs_browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for task in ("gen", "mcq"):
        assert main(["demo", "--out", str(folder / task), "--task", task]) == 0
    return {task: (folder / task / "report" / "index.html").as_uri() for task in ("gen", "mcq")}


def built(page, number):
    """An entry of the list, counted from 1, scrolled to and filled."""
    item = page.locator(f"#entries > li:nth-child({number})")
    item.scroll_into_view_if_needed()
    expect(item.locator(".timeline").first).to_be_visible()
    return item


def first(page):
    return built(page, 1)


def painted(page):
    """How many overlay pixels of the first entry are blue-ish (reference) and orange-ish (prediction)."""
    return page.evaluate(
        """() => { const c = document.querySelector('.stage .overlay');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let blue = 0, orange = 0;
        for (let i = 0; i < d.length; i += 4) if (d[i + 3]) { if (d[i + 2] > d[i]) blue++; else orange++; }
        return [blue, orange]; }"""
    )


def test_scores_are_shown_with_intervals(page, demo):
    page.goto(demo["gen"])
    text = page.locator("#scores").inner_text()
    for word in ("strict", "evqa-v1", "accuracy", "EBA@0.5", "chance", "oracle", "100.0", "[100.0, 100.0]"):
        assert word in text
    assert "floor and ceiling" in page.title()


def test_plays_pauses_and_seeks(page, demo):
    page.goto(demo["gen"])
    entry = first(page)
    assert page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
    entry.locator(".play").click()
    page.wait_for_function("() => !document.querySelector('.stage video').paused")
    start = page.evaluate("document.querySelector('.stage video').currentTime")
    page.wait_for_function(f"() => document.querySelector('.stage video').currentTime !== {start}")
    expect(entry.locator(".play")).to_have_text("Pause")
    entry.locator(".play").click()
    page.wait_for_function("() => document.querySelector('.stage video').paused")
    box = entry.locator(".timeline .lane").first.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 4)
    duration = page.evaluate("document.querySelector('.stage video').duration")
    page.wait_for_function("() => !document.querySelector('.stage video').seeking")
    assert page.evaluate("document.querySelector('.stage video').currentTime") == pytest.approx(
        0.75 * duration, abs=0.2
    )
    expect(entry.locator(".time")).to_contain_text(f"{0.75 * duration:.1f} s")


def test_keyboard_moves_by_one_frame(page, demo):
    page.goto(demo["gen"])
    line = first(page).locator(".timeline")
    line.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert float(line.get_attribute("aria-valuenow")) == pytest.approx(2 / 6, abs=0.01)
    page.keyboard.press("End")
    assert float(line.get_attribute("aria-valuenow")) == pytest.approx(
        float(line.get_attribute("aria-valuemax")), abs=0.01
    )


def test_masks_are_the_right_pixels_and_can_be_toggled(page, demo):
    page.goto(demo["gen"])
    entry = first(page)
    row = evqa.load_dataset("st_evidence", "sample", split="test[:1]")[0]
    line = entry.locator(".timeline")
    line.focus()
    page.keyboard.press("Home")
    frame = row["masks"][len(row["masks"]) // 2]["frame"]
    for _ in range(frame):
        page.keyboard.press("ArrowRight")
    entry.locator("input[data-layer=said]").uncheck()
    drawn = page.evaluate(
        """() => { const c = document.querySelector('.stage .overlay');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const out = [];
        for (let i = 0; i < d.length / 4; i++) if (d[4 * i + 3]) out.push(i); return JSON.stringify([c.width, c.height, out]); }"""
    )
    width, height, pixels = json.loads(drawn)
    truth = next(m for m in row["masks"] if m["frame"] == frame)
    assert [height, width] == truth["rle"]["size"]
    want = masks.decode(truth["rle"]).ravel().nonzero()[0].tolist()
    assert pixels == want  # the browser's own decoder agrees with ours to the pixel
    entry.locator("input[data-layer=truth]").uncheck()
    assert painted(page) == [0, 0]
    entry.locator("input[data-layer=said]").check()
    blue, orange = painted(page)
    assert orange > 1000
    assert blue == 0


def test_switching_the_run_changes_answers_and_masks(page, demo):
    page.goto(demo["gen"])
    entry = first(page)
    expect(entry.locator(".runs tr.current")).to_contain_text("chance")
    expect(entry.locator(".chips")).to_contain_text("chance: not backed at 0.5")
    page.locator("#controls").get_by_role("button", name="oracle").click()
    expect(entry.locator(".runs tr.current")).to_contain_text("✓ right")
    expect(entry.locator(".chips")).to_contain_text("oracle: backed by evidence at 0.5")
    expect(page.locator("#controls").get_by_role("button", name="oracle")).to_have_attribute("aria-pressed", "true")
    entry.locator(".runs").get_by_role("button", name="chance").click()  # the table of an entry switches too
    expect(entry.locator(".runs tr.current")).to_contain_text("chance")
    expect(page).to_have_url(demo["gen"] + "#run=chance")


def test_every_entry_is_filled_when_it_is_looked_at_and_emptied_later(page, demo):
    page.goto(demo["gen"])
    for number in range(1, 49):
        built(page, number)
    assert page.locator("#entries > li").count() == 48
    expect(page.locator("#entries > li:nth-child(1) .waiting")).to_have_count(1)  # far away again
    expect(page.locator("#entries > li:nth-child(1)")).to_contain_text("Which vehicle comes into view first?")
    assert page.locator("video[src]").count() < 25


def test_a_clip_is_loaded_only_when_its_entry_is_looked_at(page, demo):
    page.goto(demo["gen"])
    second = page.locator("#entries > li:nth-child(2)")
    page.mouse.move(600, 450)
    first(page)
    expect(page.locator("#entries > li:nth-child(1) video[src]")).to_have_count(1)
    expect(second.locator("video")).to_have_attribute("poster", "posters/00001.jpg")
    assert page.locator("#entries > li:nth-child(4) video[src]").count() == 0
    size = page.evaluate(
        """async () => { const i = new Image(); i.src = 'posters/00001.jpg'; await i.decode(); return [i.naturalWidth, i.naturalHeight]; }"""
    )
    assert size == [320, 180]


def test_choices(page, demo):
    page.goto(demo["mcq"])
    entry = first(page)
    assert entry.locator(".regions figure").count() == 4
    page.wait_for_function(
        "() => [...document.querySelectorAll('#entries > li:first-child .regions img')].every(i => i.naturalWidth)"
    )
    assert entry.locator(".regions .right").count() == 1
    assert entry.locator(".regions .chosen").count() == 1
    assert page.locator("#side").count() == 0  # no masks to lay side by side
    expect(page.locator("#shows [data-show=low-jf]")).to_have_count(0)
    expect(entry.locator(".runs")).to_contain_text("region")


def test_no_clip_hostile_text_and_failures(page, tmp_path):
    rows = benchmark(4)
    rows[0]["question"] = '<img src=x onerror="window.hacked = 1">'
    predictions = {
        "e000": Prediction(
            "e000", answer="<b>B</b>", masks=rows[0]["masks"], raw_text="</script><script>window.hacked = 1</script>"
        ),
        "e001": Prediction.failure("e001", "refused", "I cannot"),
        "e002": Prediction(
            "e002",
            answer="C",
            segments=[[0, 99]],
            masks=[{"frame": 500, "time": None, "rle": rows[0]["masks"][0]["rle"]}],
        ),
    }
    for row in rows:
        row["fps"] = row["duration"] = row["height"] = row["width"] = None
    path = write_report({"odd": predictions}, rows, tmp_path / "page", task="gen", bootstrap=0)
    page.goto(path.as_uri())
    entry = first(page)
    expect(entry.locator("h3")).to_contain_text("<img")
    assert page.evaluate("window.hacked") is None
    assert painted(page)[0] > 0  # masks on black
    entry.locator(".play").click()
    page.wait_for_function("() => Number(document.querySelector('.timeline').getAttribute('aria-valuenow')) > 0")
    # Not inner_text(): an entry that is off screen is not laid out, and has no inner text until it is.
    expect(page.locator("#entries > li").nth(1)).to_contain_text("refused")
    page.locator("#entries > li").nth(3).scroll_into_view_if_needed()
    expect(page.locator("#entries > li").nth(3)).to_contain_text("missing")


def three_runs(count=6):
    rows = benchmark(count)
    runs = {}
    for n, name in enumerate(["alpha", "beta", "a run with a rather long name"]):
        runs[name] = {
            r["entry_id"]: Prediction(
                r["entry_id"], answer="ABCD"[(i + n) % 4], segments=[[0.1 * n, 0.9]], masks=r["masks"][n:],
                usage={"confidence": (i % 5) / 4},
            ) for i, r in enumerate(rows)
        }  # fmt: skip
    return rows, runs


def test_three_runs_side_by_side(page, tmp_path, demo):
    clip = evqa.load_dataset("st_evidence", "sample", split="test[:1]")[0]["video"]
    rows, runs = three_runs()
    for row in rows:
        row["video"] = clip
    path = write_report(runs, rows, tmp_path / "page", task="gen", bootstrap=0)
    page.goto(path.as_uri())
    entry = first(page)
    assert entry.locator(".stage").count() == 1
    assert entry.locator(".timeline .lane:not(.thin)").count() == 4  # the reference and every run
    page.locator("#side").click()
    expect(page.locator("#entries > li:nth-child(1) .stage")).to_have_count(3)
    expect(entry.locator(".stage .name")).to_have_text(list(runs))
    assert entry.locator("video").count() == 1
    page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
    for layer in ("truth", "said"):
        entry.locator(f"input[data-layer={layer}]").uncheck()
    for _ in range(3):  # the copies show the video's picture, frame by frame
        page.keyboard.press(".")
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        shots = []
        for n in range(3):
            at = entry.locator(".stage").nth(n).bounding_box()
            below = {"x": at["x"] + 4, "y": at["y"] + 60, "width": at["width"] - 8, "height": at["height"] - 70}
            shots.append(np.asarray(Image.open(io.BytesIO(page.screenshot(clip=below))).convert("RGB"), dtype=int))
        assert shots[0].mean() > 60
        assert all(np.abs(shot - shots[0]).mean() < 12 for shot in shots[1:])
    for layer in ("truth", "said"):
        entry.locator(f"input[data-layer={layer}]").check()
    entry.locator(".timeline").press("Home")
    for _ in range(4):  # the first frame on which all three have a mask
        entry.locator(".timeline").press("ArrowRight")
    masked = page.evaluate(
        """() => [...document.querySelectorAll('#entries > li:first-child .overlay')].map(c => { const d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })"""
    )
    assert min(masked) > 0
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    over = "nodes => nodes.map(n => n.getBoundingClientRect()).filter(b => b.right > 390 || b.width < 60).length"
    assert page.locator("#controls .seg, .field select, .field input, .stage").evaluate_all(over) == 0
    page.set_viewport_size({"width": 1200, "height": 900})
    page.keyboard.press("s")
    expect(page.locator("#entries > li:nth-child(1) .stage")).to_have_count(1)


def test_large_masks_and_texts_are_thinned_and_said(page, tmp_path, monkeypatch):
    monkeypatch.setattr("evqa.report.entries.MASK_BUDGET", 60)
    monkeypatch.setattr("evqa.report.entries.TEXT_BUDGET", 10)
    rows = benchmark(1)
    said = Prediction("e000", answer="A", masks=rows[0]["masks"], raw_text="x" * 30)
    path = write_report({"a": {"e000": said}}, rows, tmp_path / "page", task="gen", bootstrap=0)
    page.goto(path.as_uri())
    entry = first(page)
    expect(entry).to_contain_text("The run's masks are large: the page keeps one of")
    expect(entry.locator("pre")).to_contain_text("and 20 more characters")
    assert painted(page)[0] > 0  # a kept mask stands for the frames after it


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "light"), (1200, "dark")])
def test_phone_dark_and_screen_reader(browser, demo, width, scheme):
    for task in ("gen", "mcq"):
        page = watched(browser, viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.goto(demo[task])
        entry = first(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(v) for v in background[4:-1].split(",")) > 380
        assert light == (scheme == "light")
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        expect(entry.get_by_role("article")).to_have_accessible_name("Which vehicle comes into view first?")
        expect(page.get_by_role("status")).to_have_text("48 entries")
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        assert page.problems == []
        page.close()
