"""The built site, as a reader's browser sees it: built once, strictly, and served gzipped under a sub-path."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import searching
import v8
import yaml
from axe_playwright_python.base import AXE_SCRIPT
from matplotlib.image import imread
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --no-first-run".split()
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
KIB = 1024


def address_of(source: Path) -> str:
    """Where a page of docs/ is on the site, from its top: "" for the home page."""
    path = source.relative_to(DOCS).with_suffix("").as_posix()
    return re.sub(r"(^|/)index$", r"\1", path).rstrip("/") + "/" * (path != "index")


SOURCES = [path for path in DOCS.rglob("*.md") if "results" not in path.parts] + list((DOCS / "labs").glob("*.py"))
ADDRESSES = sorted(map(address_of, SOURCES))


class Handler(SimpleHTTPRequestHandler):
    """Files under /sub/, compressed as a web host does it."""

    def do_GET(self):
        path = Path(self.directory) / unquote(urlsplit(self.path).path).removeprefix("/sub/")
        path = path / "index.html" if path.is_dir() else path
        if not self.path.startswith("/sub/") or not path.is_file():
            return self.send_error(404)
        body, kind = path.read_bytes(), self.guess_type(path)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if not kind.startswith(("font/", "image/png")) and path.suffix != ".whl":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing: the tests say what fails."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/sub/"
        server.shutdown()


@pytest.fixture(scope="session")
def site(server) -> tuple[Path, str]:
    """The folder and the address of the site; a warning would fail the build."""
    build(*server)
    return server


def build(folder: Path, address: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"SITE_URL": address, "NO_MKDOCS_2_WARNING": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


# What needs no browser: the files


class Reader(HTMLParser):
    """What a page links to, where it can be linked to, and its text outside code and formulas."""

    SILENT = ("script", "style", "code", "pre", "mjx-container", "svg")

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.text, self.silent, self.formulas = [], set(), "", [], 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.formulas += tag == "mjx-container"
        if tag in self.SILENT:
            self.silent.append(tag)

    def handle_endtag(self, tag):
        if self.silent and self.silent[-1] == tag:
            self.silent.pop()

    def handle_data(self, data):
        self.text += "" if self.silent else data


@pytest.fixture(scope="session")
def pages(site) -> dict[str, Reader]:
    folder, _ = site
    return {path.relative_to(folder).as_posix(): Reader(path) for path in sorted(folder.rglob("*.html"))}


def broken_links(pages: dict[str, Reader], folder: Path, address: str) -> list[str]:
    """Links of the pages that lead to no file or to no anchor of the site; those to other hosts are not followed."""
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target, _, anchor = urljoin(address + name.removesuffix("index.html"), link).partition("#")
            if not target.startswith(("http:", "https:")) or urlsplit(target).netloc != urlsplit(address).netloc:
                continue
            file = folder / unquote(urlsplit(target).path).removeprefix("/sub/")
            file = file / "index.html" if file.is_dir() else file
            anchors = (
                pages[file.relative_to(folder).as_posix()].anchors if file.suffix == ".html" and file.exists() else ()
            )
            if not target.startswith(address) or not file.is_file() or (anchor and unquote(anchor) not in anchors):
                broken.append(f"{name}: {link}")
    return broken


def test_every_link_image_and_download_leads_somewhere(site, pages):
    assert len(pages) == len(ADDRESSES) + 1  # and 404.html
    assert broken_links(pages, *site) == []


def test_the_link_checker_finds_a_broken_link_and_a_broken_anchor(site, pages):
    folder, address = site
    home = pages["index.html"]
    links, home.links = home.links, ["nowhere/", "#nowhere", "/outside/", "reference/notation/#nowhere"]
    try:
        assert len(broken_links({**pages, "index.html": home}, folder, address)) == 4
    finally:
        home.links = links


def test_every_formula_is_typeset(pages):
    raw = {name: re.findall(r"\\[(\[].*|\$\S[^$]*\$|\\[a-zA-Z]+\{.*", page.text)[:3] for name, page in pages.items()}
    assert {name: found for name, found in raw.items() if found} == {}
    assert pages["reference/notation/index.html"].formulas > 10


def test_another_build_is_the_same_to_the_last_byte(site, tmp_path):
    folder, address = site
    build(tmp_path, address, LAB_CACHE="false")
    one, other = (
        {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (folder, tmp_path)
    )
    assert len(one) > 100 and one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_what_to_cite_names_the_address_and_the_version(site):
    folder, address = site
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((folder / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format demands
    assert (cited["url"], cited["version"]) == (address, version)
    page = (folder / "teach" / "figures" / "index.html").read_text()
    assert address in page and f"Version {version}" in page and "SITE_URL" not in page


def test_the_lab_of_two_targets_shows_code_for_a_gpu(toolkit, site):
    folder, _ = site
    assert "fma.rn.f32" in (folder / "labs" / "one_source_two_targets" / "index.html").read_text()


@pytest.fixture(scope="session")
def bare_jupyter(tmp_path_factory):
    """The programs of an environment that can run notebooks and has nothing of what ours import."""
    folder = tmp_path_factory.mktemp("jupyter")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "ipykernel", "nbclient"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tell = pytest.fail if os.environ.get("VGP_REQUIRE_INDEX") == "1" else pytest.skip
        tell(f"no package index within reach to install Jupyter from: {done.stderr[-300:]}")
    return folder / "bin"


@pytest.mark.parametrize("lab", sorted((DOCS / "labs").glob("*.py")), ids=lambda lab: lab.stem)
def test_a_downloaded_lab_runs_in_a_bare_jupyter(bare_jupyter, site, lab, tmp_path):
    """It installs the kernels from the site that it comes from, and the rest from the index."""
    folder, _ = site
    notebook = shutil.copy(folder / "labs" / f"{lab.stem}.ipynb", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [bare_jupyter / "jupyter", "execute", "--inplace", notebook],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(Path(notebook).read_text())["cells"]
    assert cells[1]["source"] and "pip" in "".join(cells[1]["source"])
    assert sum(bool(cell.get("outputs")) for cell in cells) >= 3


def test_search_finds_what_people_ask_in_their_words(site):
    folder, _ = site
    engine = v8.start()
    engine.eval((DOCS / searching.WORKER).read_text())
    engine.eval(f"globalThis.search = vgpSearch({(folder / 'search' / 'pages.json').read_text()})")
    missed, aside = [], searching.words()["asides"]
    lines = (ROOT / "tests" / "site" / "queries.txt").read_text().splitlines()[1:]
    for line in lines:
        query, _, pages = line.partition(" | ")
        found = engine.eval(f"search({json.dumps(query)}).items.map(page => page[0].location.split('#')[0]).join()")
        order = [page.startswith(tuple(aside)) for page in found.split(",")]
        assert order == sorted(order), f"{query}: reference before an answer"
        if not {page + "/" for page in pages.split(", ")} & set(found.split(",")[:3]):
            missed.append(line)
    assert len(lines) >= 100 and len(missed) <= 0.05 * len(lines), missed


# What needs one


@pytest.fixture(scope="session")
def browser(site, request):
    if CHROMIUM is None:
        tell = pytest.fail if os.environ.get("VGP_REQUIRE_BROWSER") == "1" else pytest.skip
        tell("no Chromium to test the site with; get it with: apt-get install chromium")
    browser = request.getfixturevalue("playwright").chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


class Visit:
    """A page loaded afresh, with all that a reader's browser says and fetches while loading it."""

    def __init__(self, browser: Browser, url: str, scheme: str):
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: dict[str, int] = {}
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._count)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.goto(url, wait_until="networkidle")

    def _count(self, response):
        self.requests[response.url] = int(response.headers.get("content-length", 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def violations(self) -> list[str]:
        context = {"exclude": [["mjx-math"], ["mjx-assistive-mml"]]}  # thousands of glyphs, of the colour of the text
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE_SCRIPT)
        found = self.page.evaluate("async task => (await axe.run(...task)).violations", [context, WCAG])
        return [f"{v['id']}: {node['html'][:200]} ({node['failureSummary']})" for v in found for node in v["nodes"][:3]]

    def sideways(self) -> list[str]:
        """What sticks out of the window if the page scrolls sideways, and pictures that do in any case."""
        return self.page.evaluate(
            """() => {
                const scrolls = document.documentElement.scrollWidth > innerWidth;
                const parts = document.querySelectorAll(scrolls ? '.md-content *' : '.md-content img');
                return [...parts].filter(e => e.getBoundingClientRect().right > innerWidth)
                    .map(e => e.outerHTML.slice(0, 150));
            }"""
        )


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address or "home")
def test_page_is_light_quiet_accessible_and_fits(browser, site, address):
    _, root = site
    with Visit(browser, root + address, "light") as visit:
        own = (root, f"blob:{root.removesuffix('sub/')}")  # the instruments' worker is a blob
        assert [url for url in visit.requests if not url.startswith(own)] == []
        heaviest = sorted(visit.requests.items(), key=lambda item: -item[1])[:5]
        weight = sum(visit.requests.values()) / KIB
        assert weight <= (235 if visit.page.query_selector("[data-instrument]") else 145), heaviest
        visit.page.add_style_tag(content="*, ::before, ::after { transition: none !important }")
        for width, schemes in [(1280, ["light", "dark"]), (390, ["dark", "light"])]:
            visit.page.set_viewport_size({"width": width, "height": 900})
            for scheme in schemes:
                visit.page.emulate_media(color_scheme=scheme)
                assert visit.violations() == [], f"{scheme}, {width} px"
            assert visit.sideways() == [], f"{width} px"
        assert visit.complaints == []


def brightness(page: Page, file: Path) -> float:
    """Of the first figure as painted: 0 black, 1 white."""
    page.locator(".md-content figure img").first.screenshot(path=file)
    return float(imread(file)[..., :3].mean())


def test_figures_follow_the_system_and_the_reader_s_own_choice(browser, site, tmp_path):
    _, root = site
    for system, other in [("light", "dark"), ("dark", "light")]:
        with Visit(browser, root, system) as visit:
            seen = {system: brightness(visit.page, tmp_path / "figure.png")}
            visit.page.evaluate(
                f"document.querySelector('input[data-md-color-media=\"(prefers-color-scheme: {other})\"]').click()"
            )
            visit.page.wait_for_timeout(300)
            seen[other] = brightness(visit.page, tmp_path / "figure.png")
            assert seen["light"] > 0.8 and seen["dark"] < 0.3, (system, seen)


def test_a_symbol_says_what_it_means_where_a_page_first_uses_it(browser, site):
    _, root = site
    with Visit(browser, root + "learn/predict-the-rate/", "light") as visit:
        symbol = visit.page.locator("abbr", has=visit.page.locator("mjx-container")).filter(has_text="σw2")
        tooltip = visit.page.get_by_role("tooltip")
        for show, hide in ((symbol.hover, lambda: visit.page.mouse.move(0, 0)), (symbol.focus, symbol.blur)):
            show()
            tooltip.wait_for()
            assert tooltip.inner_text() == "variance of a weight times the number of inputs"
            hide()
            tooltip.wait_for(state="detached")


def test_the_summary_prints_on_one_sheet_of_a4(browser, site):
    _, root = site
    with Visit(browser, root + "teach/summary/", "dark") as visit:
        printed = visit.page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
        width, height = map(float, re.search(rb"/MediaBox\s*\[0 0 (\S+) (\S+?)\]", printed).groups())
        assert (width, height) == pytest.approx((595.3, 841.9), abs=1)  # A4 in points: 210 × 297 mm


def test_slides_go_on_by_keys_and_print_one_to_a_sheet(browser, site):
    _, root = site
    with Visit(browser, root + "teach/slides/", "dark") as visit:
        page, slides = (
            visit.page,
            (DOCS / "teach" / "slides.md").read_text().count("\n---\n") - 2,
        )  # front matter, last rule
        assert page.locator(".slide").count() == slides >= 10
        page.locator(".deck").focus()
        for key, shown in [("ArrowDown", 1), ("ArrowDown", 2), ("PageDown", 3), ("ArrowUp", 2)]:
            page.keyboard.press(key)
            page.wait_for_function(
                "shown => Math.abs(document.querySelectorAll('.slide')[shown].getBoundingClientRect().top"
                " - document.querySelector('.deck').getBoundingClientRect().top) < 2",
                arg=shown,
            )
            page.wait_for_timeout(300)  # Chromium drops a key while it still scrolls
        cut = "[...document.querySelectorAll('.slide')].filter(s => s.scrollHeight > s.clientHeight).map(s => s.innerText)"
        assert page.evaluate(cut) == []
        printed = page.pdf(prefer_css_page_size=True)
        sizes = re.findall(rb"/MediaBox\s*\[0 0 (\S+) (\S+?)\]", printed)
        assert len(sizes) == slides == len(re.findall(rb"/Type\s*/Page\b", printed))
        assert [tuple(map(float, size)) for size in sizes] == [
            pytest.approx((907.1, 510.2), abs=1)
        ] * slides  # 320 × 180 mm
        loaded = "[...document.querySelectorAll('.slide img.wide')].every(i => i.complete && i.naturalWidth > 0)"
        assert page.evaluate(loaded), "a picture is missing on paper"
        page.emulate_media(media="print")
        assert page.evaluate(cut) == []
        assert page.evaluate("getComputedStyle(document.querySelector('.slide img')).colorScheme") == "light"


def test_slides_need_no_script(browser, site):
    _, root = site
    page = browser.new_page(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page.goto(root + "teach/slides/")
    assert page.locator(".deck > .slide").count() >= 10
    assert [button for button in page.locator(".scripted").all() if button.is_visible()] == []
    page.close()


def test_search_fetches_its_index_with_the_first_letter_and_finds_what_readers_ask(browser, site):
    _, root = site
    with Visit(browser, root + "learn/chain/", "light") as visit:
        field, index = visit.page.locator(".md-search__input"), f"{root}search/pages.json"
        field.click()
        visit.page.wait_for_timeout(300)
        assert index not in visit.requests
        field.press_sequentially("dying ReLU", delay=20)
        result = visit.page.locator(".md-search-result__item").first
        result.wait_for()
        assert "dying relu" in result.inner_text().lower() and visit.requests[index] <= 90 * KIB
        field.press("Enter")
        visit.page.wait_for_url(f"{root}fix/relu/**")
        assert visit.complaints == []


def test_a_search_without_its_index_says_so(browser, site):
    _, root = site
    with Visit(browser, root, "light") as visit:
        visit.context.route("**/search/pages.json", lambda route: route.fulfill(status=503))
        visit.page.locator(".md-search__input").press_sequentially("relu")
        visit.page.get_by_text("Its index could not be read (503)").wait_for()


def test_instant_navigation_keeps_figures_and_formulas(browser, site):
    _, root = site
    with Visit(browser, root, "light") as visit:
        visit.page.evaluate("window.never_reloaded = true")
        for address in [a for a in ADDRESSES if a.startswith("reference/")]:
            visit.page.evaluate("a => [...document.links].find(l => l.href === a).click()", root + address)
            visit.page.wait_for_url(root + address)
            visit.page.wait_for_function(
                "u => document.querySelector('link[rel=canonical]').href === u", arg=root + address
            )
        assert visit.page.evaluate("window.never_reloaded") is True
        assert visit.complaints == []


def test_the_ledger_is_filtered_by_verdict_and_by_words_from_the_keyboard(browser, site):
    _, root = site
    with Visit(browser, root, "light") as visit:
        visit.page.evaluate("a => [...document.links].find(l => l.href === a).click()", root + "verify/ledger/")
        form = visit.page.locator("#ledger-filter")
        form.wait_for()  # after instant navigation
        rows = "[...document.querySelectorAll('tbody tr:has(> td:nth-child(5))')].filter(row => row.checkVisibility())"
        everything = visit.page.evaluate(f"{rows}.length")
        assert form.locator("output").inner_text() == f"{everything} of {everything} sentences"
        form.locator("[value='✓']").focus()
        visit.page.keyboard.press("Space")
        left = visit.page.evaluate(f"{rows}.map(row => row.lastElementChild.innerText[0])")
        assert 0 < len(left) < everything and "✓" not in left
        form.locator("[type=search]").focus()
        visit.page.keyboard.type("SELU variance")
        found = visit.page.evaluate(f"{rows}.map(row => row.innerText.toLowerCase())")
        assert 0 < len(found) < len(left) and all("selu" in text and "variance" in text for text in found)
        assert form.locator("output").inner_text() == f"{len(found)} of {everything} sentences"
        headings = visit.page.evaluate("[...document.querySelectorAll('h2')].filter(h => h.checkVisibility()).length")
        visit.page.keyboard.press("Control+a")
        visit.page.keyboard.press("Delete")
        assert (
            visit.page.evaluate("[...document.querySelectorAll('h2')].filter(h => h.checkVisibility()).length")
            > headings
        )
        assert visit.complaints == []
