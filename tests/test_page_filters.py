"""Finding entries on the evidence page: filters, order, search, links, keys, plots, and a page of 1,300 entries."""

from __future__ import annotations

import io
import json
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from browsing import browser, expect, needs_browser, page, watched
from make_data import benchmark
from PIL import Image

from evqa.report import write_report
from evqa.scoring import score
from evqa.types import Prediction

__all__ = ["browser", "page"]  # fixtures
pytestmark = needs_browser


def varied(rows):
    """A run of which some answers are right, some segments, some masks; two entries fail, one has no prediction."""
    said = {}
    for i, row in enumerate(rows):
        start, end = row["segments"][0]
        shift = [0.0, 0.2, 0.9][i % 3]
        said[row["entry_id"]] = Prediction(
            row["entry_id"], answer="ABCD"[(i if i % 2 else i + i // 4) % 4], segments=[[start + shift, end + shift]],
            masks=row["masks"][: [6, 4, 1, 0][i % 4]], usage={"confidence": (i % 10) / 10},
        )  # fmt: skip
    said["e001"] = Prediction.failure("e001", "refused", "it said no")
    said["e002"] = Prediction.failure("e002", "truncated", "cut off")
    del said["e003"]
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = benchmark(40)
    for i, row in enumerate(rows):
        row["metadata"] = json.dumps({"question_type": ["what", "when"][i % 2], "source": ["ego", "tv", "web"][i % 3]})
        row["duration"] = 2.0 + (i * 7) % 30
    rows[7]["question"] = "Where does the Heron land?"
    runs = {
        "first": varied(rows),
        "second": {r["entry_id"]: Prediction(r["entry_id"], answer=r["answer"]) for r in rows},
    }
    folder = tmp_path_factory.mktemp("filters") / "page"
    return (
        write_report(runs, rows, folder, task="gen", bootstrap=0).as_uri(),
        rows,
        score(runs["first"], rows, bootstrap=0),
    )


def shown(page):
    return page.evaluate("[...document.querySelectorAll('#entries > li')].map(li => li.dataset.id)")


def press(page, show):
    page.locator(f"#shows [data-show={show}]").click()
    expect(page.locator(f"#shows [data-show={show}]")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("theta", ["0.3", "0.5", "0.7"])
def test_verdicts_agree_with_the_scores(page, made, theta):
    address, _, scores = made
    page.goto(f"{address}#theta={theta}")
    entries = {e.entry_id: e.values for e in scores.entries}
    backed = {e for e, v in entries.items() if v[f"EBA@{theta}"]}
    right = {e for e, v in entries.items() if v["accuracy"]}
    evident = {e for e, v in entries.items() if v["mIoU"] >= float(theta) and v["J&F"] >= float(theta)}
    want = {
        "all": set(entries), "unproven": right - backed, "unanswered": evident - right, "proven": backed,
        "neither": set(entries) - right - evident, "wrong": set(entries) - right,
        "low-tiou": {e for e, v in entries.items() if v["mIoU"] < float(theta)},
        "low-jf": {e for e, v in entries.items() if v["J&F"] < float(theta)},
        "failed": {"e001", "e002", "e003"}, "problems": {"e001", "e002", "e003"}, "disagree": set(entries) - right,
    }  # fmt: skip
    assert all(want.values())  # each has something to find
    for show, expected in want.items():
        press(page, show)
        assert set(shown(page)) == expected
        expect(page.locator(f"#shows [data-show={show}] b")).to_have_text(str(len(expected)))
    expect(page.get_by_role("status")).to_have_text(f"{len(want['disagree'])} of 40 entries")


def test_order(page, made):
    address, rows, scores = made
    page.goto(address)
    values = {e.entry_id: e.values for e in scores.entries}
    ids = [row["entry_id"] for row in rows]
    assert shown(page) == ids
    for key, by in {
        "tiou": lambda e: values[e]["mIoU"], "jf-high": lambda e: -values[e]["J&F"],
        "long": lambda e: -rows[ids.index(e)]["duration"],
    }.items():  # fmt: skip
        page.locator("#field-sort").select_option(key)
        expect(page).to_have_url(f"{address}#sort={key}")
        assert shown(page) == sorted(ids, key=by)


def test_search_type_source_and_nothing(page, made):
    address, rows, _ = made
    page.goto(address)
    page.locator("#field-q").fill("heron WHERE")
    expect(page.get_by_role("status")).to_have_text("1 of 40 entries")
    assert shown(page) == ["e007"]
    page.locator("#field-q").fill("no such words")
    expect(page.locator("#nothing")).to_be_visible()
    page.locator("#clear").click()
    expect(page.get_by_role("status")).to_have_text("40 entries")
    expect(page.locator("#field-q")).to_have_value("")
    page.locator("#field-type").select_option("when")
    page.locator("#field-source").select_option("tv")
    want = [r["entry_id"] for i, r in enumerate(rows) if i % 2 == 1 and i % 3 == 1]
    expect(page.get_by_role("status")).to_have_text(f"{len(want)} of 40 entries")
    assert shown(page) == want


def test_address_holds_filters_and_entry(page, made):
    address, *_ = made
    page.goto(f"{address}#show=wrong&run=first&type=what&sort=tiou&q=question")
    expect(page.locator("#shows [data-show=wrong]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#field-q")).to_have_value("question")
    expect(page.locator("#entries-heading")).to_be_in_viewport()
    before = shown(page)
    press(page, "failed")
    again = page.url
    assert "show=failed" in again
    page.goto("about:blank")
    page.goto(again)
    assert shown(page) == ["e002"]
    # An entry by its address, in the long and in the short form, and where the filters hide it.
    for form in ("#entry=e030", "#e030", "#show=failed&entry=e030"):
        page.goto("about:blank")
        page.goto(address + form)
        item = page.locator("#entries > li[data-id=e030]")
        expect(item).to_have_class("current")
        expect(item).to_be_in_viewport()
        expect(item.locator(".timeline")).to_be_visible()
    assert len(before) > 1
    for junk in ("#entry=nobody", "#%E0%A4%A", "#show=nonsense&run=nobody&sort=x&theta=abc"):
        page.goto("about:blank")
        page.goto(address + junk)
        expect(page.get_by_role("status")).to_contain_text("40 entries")
    expect(page.locator("#shows [data-show=all]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#field-theta")).to_have_value("0.5")


def test_another_list_begins_at_its_top(page, made):
    address, *_ = made
    page.goto(address)
    page.locator("#entries > li").nth(30).scroll_into_view_if_needed()
    press(page, "wrong")
    expect(page.locator("#entries > li").first).to_be_in_viewport()
    for width in (1200, 850):  # the bar is higher where its controls wrap; the entry stands below it all the same
        page.set_viewport_size({"width": width, "height": 900})
        page.locator("#entries > li").first.click(position={"x": 5, "y": 5})
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.wait_for_function(
            """() => { const bar = document.querySelector('.bar').getBoundingClientRect();
            const item = document.querySelector('#entries > li.current').getBoundingClientRect();
            return item.top >= bar.bottom - 1 && item.top < bar.bottom + 40; }"""
        )


def test_missing_file_is_said(browser, made, tmp_path):
    from pathlib import Path
    from urllib.parse import urlparse

    folder = shutil.copytree(Path(urlparse(made[0]).path).parent, tmp_path / "page")
    (folder / "data" / "entries" / "00000.js").unlink()
    page = watched(browser)
    page.goto((folder / "index.html").as_uri() + "#entry=e000")
    expect(page.locator("#entries > li").first).to_contain_text("missing file: data/entries/00000.js")
    expect(page.locator("#entries > li").nth(1).locator(".timeline")).to_be_visible()
    page.close()


def test_link_of_an_entry_and_of_a_cell_of_the_matrix(page, made):
    address, _, scores = made
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address)
    item = page.locator("#entries > li").nth(2)
    item.scroll_into_view_if_needed()
    item.get_by_role("button", name="Copy the link to e002").click()
    expect(item.get_by_role("button", name="Copy the link to e002")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{address}#entry=e002"
    cell = page.locator("[data-plot=matrix] a").first
    unproven = [e.entry_id for e in scores.entries if e.values["accuracy"] and not e.values["EBA@0.5"]]
    expect(cell).to_have_accessible_name(f"first: answer right, evidence wrong: {len(unproven)} entries")
    cell.click()
    expect(page.locator("#shows [data-show=unproven]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#entries-heading")).to_be_in_viewport()
    assert shown(page) == unproven


def test_keys(page, made):
    address, *_ = made
    page.goto(address)
    current = page.locator("#entries > li.current")
    page.keyboard.press("j")
    expect(current).to_have_attribute("data-id", "e000")
    for _ in range(4):
        page.keyboard.press("j")
    expect(current).to_have_attribute("data-id", "e004")
    expect(current).to_be_in_viewport()
    page.keyboard.press("k")
    expect(current).to_have_attribute("data-id", "e003")
    line = current.locator(".timeline")
    expect(line).to_be_visible()
    before = float(line.get_attribute("aria-valuenow"))
    page.keyboard.press(".")
    assert float(line.get_attribute("aria-valuenow")) == pytest.approx(before + 1 / 6, abs=0.02)
    page.keyboard.press(",")
    assert float(line.get_attribute("aria-valuenow")) == pytest.approx(before, abs=0.02)
    page.keyboard.press("p")
    expect(current.locator(".play")).to_have_text("Pause")
    page.keyboard.press("p")
    expect(current.locator(".play")).to_have_text("Play")
    page.keyboard.press("]")
    expect(page.locator("#controls [data-run=second]")).to_have_attribute("aria-pressed", "true")
    expect(current).to_have_attribute("data-id", "e003")  # the reader stays where they were
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("j")  # not while the list of keys is open
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(current).to_have_attribute("data-id", "e003")
    page.keyboard.press("/")
    expect(page.locator("#field-q")).to_be_focused()
    page.keyboard.type("jk?")  # letters, not commands
    expect(page.locator("#field-q")).to_have_value("jk?")


def test_plots_tell_the_numbers_and_can_be_saved(page, made):
    address, _, scores = made
    page.goto(address)
    plots = page.locator("#plots figure")
    keys = plots.evaluate_all("figures => figures.map(f => f.dataset.plot)")
    assert keys == ["matrix", "hist-mIoU", "hist-JF", "length-mIoU", "length-JF", "reliability"]
    text = page.locator("[data-plot=hist-mIoU] svg").get_attribute("aria-label")
    assert f"first: mean {scores['mIoU']:.1f}" in text
    for kind in ("SVG", "PNG"):
        for key in keys:
            with page.expect_download() as saved:
                page.locator(f"[data-plot={key}]").get_by_role("button", name=kind).click()
            assert saved.value.suggested_filename == f"{key}.{kind.lower()}"
            data = saved.value.path().read_bytes()
            if kind == "SVG":
                root = ElementTree.fromstring(data)
                assert root.tag == "{http://www.w3.org/2000/svg}svg"
                assert b"var(--" not in data  # colours that mean something outside the page
            else:
                picture = Image.open(io.BytesIO(data))
                assert picture.size == (1020, 684)
                assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_calibration_error_is_the_textbooks(page, made):
    address, *_ = made
    page.goto(address)
    # Two bins: 0.25 with half right, 0.95 with three of four right.
    pairs = [[0.25, 1], [0.25, 0], [0.95, 1], [0.95, 1], [0.95, 1], [0.95, 0]]
    got = page.evaluate("pairs => evqaPlots.calibration(pairs)", pairs)
    assert got["ece"] == pytest.approx(2 / 6 * 0.25 + 4 / 6 * 0.2)
    assert [point["n"] for point in got["points"]] == [2, 4]


def test_no_confidence_no_reliability(page, tmp_path):
    rows = benchmark(4)
    said = {r["entry_id"]: Prediction(r["entry_id"], answer="A", usage={"confidence": "very"}) for r in rows}
    page.goto(write_report({"a": said}, rows, tmp_path / "page", task="gen", bootstrap=0).as_uri())
    expect(page.locator("[data-plot=matrix]")).to_be_visible()
    assert page.locator("[data-plot=reliability]").count() == 0
    assert page.locator("#field-sort option[value=confident]").count() == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    rows = benchmark(1300)
    runs = {name: varied(rows) for name in ("one", "two", "three")}
    return write_report(runs, rows, tmp_path_factory.mktemp("many") / "page", task="gen", bootstrap=0).as_uri()


def test_thirteen_hundred_entries(browser, many):
    page = watched(browser)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # the page's own work, on a busy machine too
    page.goto(many)
    expect(page.get_by_role("status")).to_have_text("1300 entries")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert 0.02 < metrics["TaskDuration"] < 2
    assert metrics["JSHeapUsedSize"] < 60e6
    assert page.locator("#entries .entry:not(.waiting)").count() < 30
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = page.locator("#entries > li").last
    last.scroll_into_view_if_needed()
    expect(last.locator(".timeline")).to_be_visible()
    page.goto(f"{many}#entry=e700")
    expect(page.locator("#entries > li[data-id=e700]")).to_be_in_viewport()
    expect(page.locator("#entries > li[data-id=e700] .timeline")).to_be_visible()
    assert page.locator("#entries .entry:not(.waiting)").count() < 60  # what is far away was let go of
    page.locator("#field-q").fill("question 1299")
    expect(page.get_by_role("status")).to_have_text("1 of 1300 entries")
    assert page.problems == []
    page.close()
