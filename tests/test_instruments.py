"""The instruments in a browser: their numbers are those of Python, and they work wherever a page may be."""

import gzip
import math
import os
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import demo_site
import instruments
import numpy as np
import pytest

from vgp_kernels import Network, mean_field, propagate

CHROMIUM = shutil.which("chromium")
REQUIRED = os.environ.get("VGP_REQUIRE_BROWSER") == "1"

if not CHROMIUM and not REQUIRED:
    pytest.skip("no Chromium on this machine: the instruments are not tried in a browser", allow_module_level=True)

sync_api = pytest.importorskip("playwright.sync_api") if not REQUIRED else __import__("playwright.sync_api").sync_api


@pytest.fixture(scope="module", autouse=True)
def data():
    """The kernels as WebAssembly, which a clean clone does not have yet."""
    instruments.write_data()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(address, folder) of a served site with every instrument."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "served").mkdir()
    server = demo_site.serve(folder / "served")
    site = demo_site.build_demo(folder, server.server_port)
    yield f"http://127.0.0.1:{server.server_port}{demo_site.SUB_PATH}", site
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page whose errors fail the test."""
    context = browser.new_context()
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield tab
    context.close()
    assert errors == []


def ready(page, name):
    """The instrument, once it is seen and all its numbers are there."""
    instrument = page.locator(f'[data-instrument="{name}"]')
    instrument.scroll_into_view_if_needed()
    page.wait_for_selector(f'[data-instrument="{name}"][data-state="ready"]', timeout=30_000)
    return instrument


def move(page, instrument, control, value):
    """Set a control as a reader would, and wait for the numbers."""
    element = instrument.locator(f'[name="{control}"]')
    if element.evaluate("e => e.tagName") == "SELECT":
        element.select_option(value)
    else:
        element.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", str(value))
        element.dispatch_event("change")
    return ready(page, instrument.get_attribute("data-instrument"))


def rows(instrument):
    cells = instrument.locator("details tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    return {row[0]: [number(cell) for cell in row[1:]] for row in cells}


def number(text):
    text = text.replace("−", "-").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    if "10" in text and "× 10" in text:
        mantissa, _, exponent = text.partition(" × 10")
        return float(mantissa) * 10 ** int(exponent)
    return float(text.replace("∞", "inf")) if text else math.nan


def check_curve(instrument, network):
    """The table of "Will mine vanish?" against mean_field and propagate."""
    theory = mean_field(network).log_gradient / math.log(10)
    flow = propagate(network, 32, seed=0).log_gradient / math.log(10)
    for layer, (predicted, *quantiles) in rows(instrument).items():
        assert predicted == pytest.approx(theory[int(layer)], abs=6e-4)  # three decimals are written
        expected = np.quantile(flow[:, int(layer)], [0.5, 0.1, 0.9])
        assert quantiles == pytest.approx(list(expected), abs=6e-4)


SETTINGS = {
    "activation": "gelu",
    "initialiser": "orthogonal",
    "depth": 23,
    "width": math.log10(65),
    "weight_variance": math.log10(2.5),
    "bias_variance": 0.17,
}


def network_of(address):
    """The network that a link to the calculator means."""
    query = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    initialiser = query.get("initialiser", "xavier")
    return Network(
        int(query.get("depth", 50)),
        int(query.get("width", 256)),
        query.get("activation", "sigmoid"),
        None if initialiser == "custom" else initialiser,
        float(query["weight_variance"]) if initialiser == "custom" else None,
        float(query.get("bias_variance", 0)),
    )


@pytest.mark.parametrize("control", SETTINGS)
def test_each_control_of_the_calculator_gives_pythons_numbers(page, demo, control):
    page.goto(demo[0] + "demo/")
    instrument = ready(page, "will-mine-vanish")
    before = network_of(page.url)
    check_curve(instrument, before)
    move(page, instrument, control, SETTINGS[control])
    assert network_of(page.url) != before
    check_curve(instrument, network_of(page.url))


def test_every_control_of_every_instrument_changes_its_numbers(page, demo):
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        instrument = ready(page, name)
        for control in instrument.locator("input, select").all():
            before = instrument.locator(".instrument-table").inner_html()
            if control.evaluate("e => e.tagName") == "SELECT":
                value = control.evaluate("e => [...e.options].findLast(o => !o.selected && o.value !== 'custom').value")
            else:
                value = control.evaluate("e => (Number(e.min) + 2 * Number(e.max)) / 3")
            move(page, instrument, control.get_attribute("name"), value)
            page.wait_for_function(
                "([name, before]) => document.querySelector(`[data-instrument=${name}] .instrument-table`).innerHTML !== before",
                arg=[name, before],
            )


def test_phase_diagram_says_what_mean_field_says(page, demo):
    page.goto(demo[0] + "demo/")
    instrument = ready(page, "phase-diagram")
    for weights, biases in ((1.5, 0.05), (3.0, 0.3)):
        move(page, instrument, "weight_variance", math.log10(weights))
        found = rows(move(page, instrument, "bias_variance", biases))
        shown = found["σ_w²"][0]
        theory = mean_field(Network(5, 100, "tanh", weight_variance=shown, bias_variance=biases))
        assert shown == pytest.approx(weights, rel=0.03)  # the slider's step
        assert found["q*"][0] == pytest.approx(theory.q_star, rel=1e-5)
        assert found["χ₁"][0] == pytest.approx(theory.chi_1, rel=1e-5)


def test_dragging_the_point_moves_the_sliders(page, demo):
    page.goto(demo[0] + "demo/")
    instrument = ready(page, "phase-diagram")
    before = instrument.locator('[name="weight_variance"]').input_value()
    figure = instrument.locator("svg")
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] * 0.4)
    page.mouse.up()
    ready(page, "phase-diagram")
    assert instrument.locator('[name="weight_variance"]').input_value() != before


def test_width_shows_the_median_of_propagate(page, demo):
    page.goto(demo[0] + "demo/")
    found = rows(ready(page, "width"))
    logs = propagate(Network(30, 16, "relu", "he"), 400, seed=0).log_gradient[:, 0] / math.log(10)
    alive = logs[np.isfinite(logs)]
    assert found["median, measured"][0] == pytest.approx(np.median(alive), abs=6e-5)
    rms = math.log10(np.sum(10 ** (2 * alive)) / len(logs)) / 2
    assert found["root mean square, measured"][0] == pytest.approx(rms, abs=6e-5)


def test_the_first_state_needs_no_script(browser, demo):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        instrument = page.locator(f'[data-instrument="{name}"]')
        assert instrument.locator("svg polyline, svg rect").count() > 0
        assert not instrument.locator("fieldset").is_visible()
    context.close()


def test_the_first_states_numbers_are_pythons(browser, demo):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(demo[0] + "demo/")
    check_curve(page.locator('[data-instrument="will-mine-vanish"]'), Network(50, 256, "sigmoid", "xavier"))
    context.close()


def test_coming_to_life_shifts_nothing(page, demo):
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach(e => window.shift += e.value))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        ready(page, name)
    page.wait_for_timeout(300)
    assert page.evaluate("window.shift") < 0.01


def test_a_link_carries_the_state(page, demo):
    page.goto(demo[0] + "demo/?activation=tanh&depth=31&weight_variance=1.4&initialiser=custom")
    instrument = ready(page, "will-mine-vanish")
    check_curve(instrument, Network(31, 256, "tanh", weight_variance=1.4))
    move(page, instrument, "depth", 12)
    assert "depth=12" in page.url and "activation=tanh" in page.url and "width=" not in page.url
    move(page, instrument, "initialiser", "orthogonal")
    page.goto(page.url)
    check_curve(ready(page, "will-mine-vanish"), Network(12, 256, "tanh", "orthogonal"))


def test_a_link_with_nonsense_is_held_to_the_controls(page, demo):
    page.goto(demo[0] + "demo/?activation=nobody&depth=1e9&width=33.4&bias_variance=x&initialiser=he")
    check_curve(ready(page, "will-mine-vanish"), Network(200, 33, "sigmoid", "he"))


def test_an_instrument_starts_when_it_comes_near_the_window_and_not_before(page, demo):
    page.goto(demo[0] + "demo/", wait_until="networkidle")
    last = page.locator("[data-instrument]").last
    assert last.get_attribute("data-state") is None
    ready(page, last.get_attribute("data-instrument"))


def test_instruments_start_after_instant_navigation(page, demo):
    page.goto(demo[0])
    page.evaluate("window.same = true")
    page.get_by_role("link", name="the instruments").click()
    check_curve(ready(page, "will-mine-vanish"), Network(50, 256, "sigmoid", "xavier"))
    assert page.evaluate("window.same") is True  # the page was not loaded again


def test_instruments_work_from_a_file(page, demo):
    page.goto((demo[1] / "demo" / "index.html").as_uri())
    check_curve(ready(page, "will-mine-vanish"), Network(50, 256, "sigmoid", "xavier"))


def test_the_page_asks_no_other_host(page, demo):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        ready(page, name)
    assert [url for url in asked if not url.startswith((demo[0], "blob:", "data:"))] == []


def test_a_page_without_instruments_loads_one_small_script(page, demo):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(demo[0])
    page.wait_for_timeout(300)
    ours = {
        "load.js",
        "kernels.js",
        "kernels.data.js",
        "instruments.js",
        *(f"{name}.js" for name in instruments.names()),
    }
    assert [Path(url).name for url in asked if Path(url).name in ours] == ["load.js"]


def test_the_keyboard_moves_a_slider_and_says_its_value(page, demo):
    page.goto(demo[0] + "demo/")
    instrument = ready(page, "will-mine-vanish")
    slider = instrument.get_by_label("Layers")
    slider.focus()
    page.keyboard.press("ArrowRight")
    ready(page, "will-mine-vanish")
    assert slider.get_attribute("aria-valuetext") == "51"
    sync_api.expect(instrument.get_by_role("status")).to_contain_text("51 layers")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser, demo, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        ready(page, name)
    found = Axe().run(page, context=".instrument")
    context.close()
    assert found.violations_count == 0, found.generate_report()
    assert page.is_closed()


def test_scripts_and_kernels_weigh_at_most_60_kilobytes(demo):
    files = sorted((demo[1] / "javascripts").rglob("*.js"))
    assert len(files) >= 4 + len(instruments.names())
    assert sum(len(gzip.compress(file.read_bytes(), 9)) for file in files) <= 60_000


def test_an_unknown_instrument_fails_the_build():
    with pytest.raises(ValueError, match=r"unknown instrument 'chian'; known: batch-norm-depth, chain"):
        instruments.page('<div class="instrument" data-instrument="chian"></div>')
