"""Headless Chromium for tests: fixtures to import, and the way every test watches its page for errors."""

from __future__ import annotations

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=30_000)  # a machine that runs other things too may draw a frame a second

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

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


def watched(browser, *, foreign=False, **settings):
    """A new page whose console errors, exceptions and failed requests are kept in ``page.problems``.

    ``foreign``: the page is drawn by somebody else's code, whose warnings and background requests are its own affair.
    """
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **settings})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    if foreign:
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        return page
    page.on("console", lambda m: page.problems.append(m.text) if _is_problem(m) else None)
    # A clip that is let go of while it loads is no failure.
    page.on("requestfailed", lambda r: page.problems.append(f"failed: {r.url}") if r.resource_type != "media" else None)
    return page


@pytest.fixture
def page(browser):
    page = watched(browser)
    yield page
    page.close()
    assert page.problems == []


#: Texts whose contrast with what is behind them is under 4.5 (WCAG 2.1, 1.4.3), as "text: ratio".
LOW_CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((s, w, i) => { const v = c[i] / 255;
    return s + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const behind = (node) => { const layers = []; for (let n = node; n; n = n.parentElement) layers.push(parse(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((base, layer) => over(layer, base), [255, 255, 255, 1]); };
  const bad = [];
  for (const node of document.querySelectorAll('h1, h2, h3, p, th, td, small, button, label, a, span, li, figcaption, b, summary')) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!own || !node.checkVisibility({ contentVisibilityAuto: true, opacityProperty: true }) || node.closest('.stage, .skip, svg')) continue;
    const back = behind(node), front = over(parse(getComputedStyle(node).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5 && !(+getComputedStyle(node).opacity < 1)) bad.push(node.textContent.trim().slice(0, 30) + ': ' + ratio.toFixed(2));
  }
  return bad;
}"""

#: Controls without a name that a screen reader could say, and pictures without a text.
NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, select, [role=slider], [role=img], [role=region], img')]
  .filter((n) => !(n.textContent.trim() || n.getAttribute('aria-label') || n.getAttribute('alt') || n.getAttribute('aria-labelledby')
    || n.closest('label')?.textContent.trim()) || (n.matches('select') && !n.closest('label') && !n.getAttribute('aria-label')))
  .map((n) => n.outerHTML.slice(0, 100))"""
