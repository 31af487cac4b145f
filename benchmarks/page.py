"""How fast the evidence page of a large run opens and scrolls: 1,300 entries, three runs, in headless Chromium.

    python benchmarks/page.py --out /tmp/page

The entries are those of the sample under new ids, so clips, masks and posters are real. Printed are the folder's size,
the time to the first paint and until the page can be used, the heap and the number of nodes, and how long the longest
task is while the page is scrolled past some 120 entries.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import evqa
from evqa.report import write_report
from evqa.report.page import page_size
from evqa.types import Prediction

FLAGS = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"]


def rows_and_runs(count: int, runs: int) -> tuple[list[dict], dict[str, dict[str, Prediction]]]:
    """``count`` entries and, for each run, predictions of which some are right, shifted, or sparse."""
    sample = list(evqa.load_dataset("st_evidence", "sample", split="test"))
    rows = [{**sample[i % len(sample)], "entry_id": f"entry_{i:04d}"} for i in range(count)]
    said: dict[str, dict[str, Prediction]] = {f"run {n}": {} for n in range(runs)}
    for i, row in enumerate(rows):
        for n, predictions in enumerate(said.values()):
            predictions[row["entry_id"]] = Prediction(
                row["entry_id"],
                answer="ABCD"[(i * (n + 1)) % 4],
                segments=[[s + 0.4 * ((i + n) % 5), e + 0.5] for s, e in row["segments"]],
                masks=row["masks"][:: 1 + (i + n) % 3],
                usage={"confidence": ((i * 7 + n) % 100) / 100},
            )
    return rows, said


def resident(browser) -> float:
    """Private resident memory of the tabs' processes, in MB; read from /proc, so 0 where there is none."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    total = 0.0
    for process in processes:
        status = Path(f"/proc/{process['id']}/status")
        if process["type"] == "renderer" and status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            total += int(line.split()[1]) / 1000
    return total


def measure(address: str) -> dict[str, float]:
    """Open the page in a fresh browser, scroll through it, and read its clocks and counters."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(
            "window.tasks = []; new PerformanceObserver(list => tasks.push(...list.getEntries()"
            ".map(e => [e.startTime, e.duration]))).observe({type: 'longtask', buffered: true});"
        )
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time of the page's main thread
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_function("document.querySelectorAll('#entries > li').length > 0")
        usable = time.perf_counter() - began

        def counters() -> dict[str, float]:
            page.evaluate("gc()")
            return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}

        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        opened, memory = counters(), resident(browser)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        page.evaluate("window.from = performance.now()")
        page.evaluate(
            """() => new Promise(done => { let y = document.getElementById('entries').offsetTop;
            const end = y + 60000, step = () => { y += 60; scrollTo(0, y);
            if (y < end) requestAnimationFrame(step); else done(); }; step(); })"""
        )
        frames = page.evaluate("performance.now() - window.from") / 1000
        slow = page.evaluate("tasks.filter(t => t[0] > window.from).map(t => t[1])")
        scrolled, later = counters(), resident(browser)
        browser.close()
    return {
        "first paint, s": paint,
        "loaded and built, s": loaded,
        "processor time of the main thread until then, s": opened["TaskDuration"],
        "usable, seen from outside, s": usable,
        "memory of the tab after opening, MB": memory,
        "heap after opening, MB": opened["JSHeapUsedSize"] / 1e6,
        "nodes after opening": opened["Nodes"],
        "1,000 frames of scrolling 60 pixels each, s": frames,
        # Of 1,000 frames, hence seconds are milliseconds a frame.
        "processor time of the main thread a frame, ms": scrolled["TaskDuration"] - opened["TaskDuration"],
        "longest task while scrolling, ms": max(slow, default=0.0),
        "tasks over 50 ms while scrolling": len(slow),
        "memory of the tab after scrolling, MB": later,
        "heap after scrolling, MB": scrolled["JSHeapUsedSize"] / 1e6,
        "nodes after scrolling": scrolled["Nodes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--entries", type=int, default=1300)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rows, runs = rows_and_runs(arguments.entries, arguments.runs)
    began = time.perf_counter()
    page = write_report(runs, rows, arguments.out, task="gen", title="Many entries", bootstrap=100)
    print(f"{'written in, s':48} {time.perf_counter() - began:10.1f}")
    for part, size in page_size(arguments.out).items():
        print(f"{part + ', kB an entry':48} {size / 1000 / arguments.entries:10.2f}")
    for name, value in measure(page.resolve().as_uri()).items():
        print(f"{name:48} {value:10.2f}")


if __name__ == "__main__":
    main()
