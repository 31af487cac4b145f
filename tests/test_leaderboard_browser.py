"""The leaderboard's page in a real browser, opened from disk."""

from __future__ import annotations

import pytest
from browsing import LOW_CONTRAST, NAMELESS, browser, expect, needs_browser, page, watched
from make_data import benchmark

from evqa.engine import describe_data
from evqa.leaderboard import baseline_results, write_board
from evqa.leaderboard.checking import result_of
from evqa.types import Prediction

__all__ = ["browser", "page"]  # fixtures
pytestmark = needs_browser

HOSTILE = "<img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    rows = benchmark(8)
    results = []
    for name, right in (
        ("Good", 7),
        (HOSTILE, 4),
        ("A name that is long enough to be broken into several lines, twice", 2),
    ):
        for task in ("gen", "mcq"):
            said = {
                r["entry_id"]: Prediction(
                    r["entry_id"], answer=r["answer"] if i < right else "no", segments=r["segments"], masks=r["masks"][: right],
                    temporal_choice="B", spatial_choice="ABCD"[i % 3],
                ) for i, r in enumerate(rows)
            }  # fmt: skip
            manifest = {
                "format": 1, "system": name, "task": task, "authors": "Some Body", "url": "https://example.org/paper",
                "benchmark": {"name": "x", "config": task, "split": "test", **describe_data(rows)},
            }  # fmt: skip
            results.append(result_of(manifest, said, rows, bootstrap=30)[0])
    baselines = [one for task in ("gen", "mcq") for one in baseline_results(rows, task, bootstrap=30)]
    folder = tmp_path_factory.mktemp("board") / "page"
    return write_board(results, folder, baselines=baselines, title="Systems").as_uri()


def systems(page):
    return page.locator("button.name").all_inner_texts()


def test_order_protocols_and_details(page, board):
    page.goto(board)
    long = "A name that is long enough to be broken into several lines, twice"
    assert systems(page) == ["oracle", "Good", HOSTILE, long, "chance"]
    assert page.evaluate("window.hacked") is None
    expect(page.get_by_role("status")).to_contain_text("protocol strict 1.0")
    row = page.get_by_role("row").filter(has_text="Good")
    expect(row).to_contain_text("87.5")
    expect(row.locator("td").first).to_have_text("1")
    expect(page.get_by_role("row").filter(has_text="the floor").locator("td").first).to_have_text("")
    page.get_by_role("columnheader", name="accuracy").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="accuracy")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("columnheader", name="accuracy").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="accuracy")).to_have_attribute("aria-sort", "ascending")
    values = page.locator("tbody td:nth-child(6)").all_inner_texts()
    numbers = [float(text.split()[0]) for text in values]
    assert numbers == sorted(numbers)
    page.get_by_role("button", name="mcq · evqa-v1").click()
    expect(page.get_by_role("status")).to_contain_text("Task mcq, protocol evqa-v1")
    name = page.get_by_role("button", name="Good")
    name.press("Enter")
    expect(page.get_by_role("button", name="Good")).to_have_attribute("aria-expanded", "true")
    expect(page.locator("tr.details")).to_contain_text("sha256:")
    expect(page.locator("tr.details a")).to_have_attribute("href", "https://example.org/paper")
    expect(page.get_by_role("button", name="Good")).to_be_focused()  # the keyboard stays where it was
    page.keyboard.press("Enter")
    expect(page.locator("tr.details")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_phone_dark_and_screen_reader(browser, board, width, scheme):
    page = watched(browser, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(board)
    page.get_by_role("button", name="Good").click()
    expect(page.locator("tr.details")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate(NAMELESS) == []
    assert page.problems == []
    page.close()
