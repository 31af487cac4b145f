"""The evidence page in a real browser, opened from disk: loads, draws, plays, seeks, toggles, no errors."""

from __future__ import annotations

import shutil

import pytest
from make_data import benchmark

from evqa.cli import main
from evqa.report import write_report
from evqa.types import Prediction

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --autoplay-policy=no-user-gesture-required"
).split()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def _is_problem(message):
    # The tests read pixels back, which Chromium remarks upon; the page itself never does.
    return message.type in ("error", "warning") and "willReadFrequently" not in message.text


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.problems = []
    page.on("console", lambda m: page.problems.append(m.text) if _is_problem(m) else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(f"failed: {request.url}"))
    yield page
    page.close()
    assert page.problems == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for task in ("gen", "mcq"):
        assert main(["demo", "--out", str(folder / task), "--task", task]) == 0
    return {task: (folder / task / "report" / "index.html").as_uri() for task in ("gen", "mcq")}


def first(page):
    page.locator("#entries > li").first.scroll_into_view_if_needed()
    page.wait_for_selector("#entries > li:first-child .timeline")
    return page.locator("#entries > li").first


def painted(page):
    """How many overlay pixels of the first entry are blue-ish (reference) and orange-ish (prediction)."""
    return page.evaluate(
        """() => { const c = document.querySelector('.stage canvas');
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
    import json

    import evqa
    from evqa import masks

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
        """() => { const c = document.querySelector('.stage canvas');
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
    first(page)
    page.get_by_role("button", name="oracle").click()
    page.wait_for_selector("#entries > li:first-child .chips")
    expect(page.locator("#entries > li").first.locator(".chips")).to_contain_text("answer right")
    assert page.get_by_role("button", name="oracle").get_attribute("aria-pressed") == "true"


def test_every_entry_builds_when_it_scrolls_into_view(page, demo):
    page.goto(demo["gen"])
    first(page)
    items = page.locator("#entries > li")
    for i in range(items.count()):
        items.nth(i).scroll_into_view_if_needed()
        page.wait_for_selector(f"#entries > li:nth-child({i + 1}) .timeline")
    assert items.count() == 48


def test_choices(page, demo):
    page.goto(demo["mcq"])
    entry = first(page)
    assert entry.locator(".regions figure").count() == 4
    page.wait_for_function(
        "() => [...document.querySelectorAll('#entries > li:first-child .regions img')].every(i => i.naturalWidth)"
    )
    assert entry.locator(".regions .right").count() == 1
    assert entry.locator(".regions .chosen").count() == 1


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


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_phone_and_dark(browser, demo, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(demo["gen"])
    first(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(v) for v in background[4:-1].split(",")) > 380
    assert light == (scheme == "light")
    page.close()
