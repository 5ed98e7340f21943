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
from playwright import sync_api
from scipy import special

from vgp_kernels import ACTIVATIONS, Network, mean_field, propagate
from vgp_kernels.theory.number_formats import NUMBER_FORMATS, horizon


def program(name, *commands):
    """The path of a browser of the system, without which a test is skipped, or fails where browsers are required."""
    path = next(filter(None, map(shutil.which, commands)), None)
    if path is None:
        tell = pytest.fail if os.environ.get("VGP_REQUIRE_BROWSER") == "1" else pytest.skip
        tell(f"no {name} to try the instruments in; get it with: apt-get install {commands[0]}")
    return path


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
def browser(request):
    path = program("Chromium", "chromium", "chromium-browser", "google-chrome")
    chromium = request.getfixturevalue("playwright").chromium.launch(executable_path=path, args=["--no-sandbox"])
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
    if instrument.get_attribute("data-state") is None:
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
    try:
        return float(text.replace("∞", "inf")) if text else math.nan
    except ValueError:
        return text


def check_curve(instrument, network):
    """The table of "Will mine vanish?" against mean_field and propagate."""
    theory = mean_field(network).log_gradient / math.log(10)
    trials = 4 if network.batch_size > 1 else 32
    flow = propagate(network, trials, seed=0).log_gradient / math.log(10)
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
    "normalisation": "layer",
    "residual": "preactivation",
}


def network_of(address):
    """The network that a link to the calculator means."""
    query = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    initialiser, norm, skips = (
        query.get("initialiser", "xavier"), query.get("normalisation", "none"), query.get("residual", "none")
    )  # fmt: skip
    return Network(
        int(query.get("depth", 50)),
        int(query.get("width", 256)),
        query.get("activation", "sigmoid"),
        None if initialiser == "custom" else initialiser,
        float(query["weight_variance"]) if initialiser == "custom" else None,
        float(query.get("bias_variance", 0)),
        batch_size=16 if norm == "batch" else 1,
        normalisation=None if norm == "none" else norm,
        residual=None if skips == "none" else skips,
        residual_scale=float(query.get("residual_scale", 1)),
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


@pytest.mark.parametrize(
    "query", ["", "activation=tanh&initialiser=he&depth=80", "activation=relu&initialiser=xavier&width=64"]
)
def test_what_helps_is_tried_in_place_by_a_click_or_a_key_and_is_healthy(page, demo, query):
    page.goto(demo[0] + "demo/?" + query)
    links = ready(page, "will-mine-vanish").locator("a.try")
    before, count = network_of(page.url), links.count()
    assert count >= 3
    for i in range(count):
        page.goto(demo[0] + "demo/?" + query)
        instrument = ready(page, "will-mine-vanish")
        link = instrument.locator("a.try").nth(i)
        promised = number(link.locator("xpath=..").inner_text().partition(": ")[2].partition(" of the")[0])
        link.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("old => location.search !== old", arg="?" + query if query else "")
        ready(page, "will-mine-vanish")
        network = network_of(page.url)
        assert (network.depth, network.width) == (before.depth, before.width) and network != before
        check_curve(instrument, network)
        assert math.exp(mean_field(network).log_gradient[0]) == pytest.approx(
            promised, rel=0.06
        )  # two digits are written
        assert "Healthy" in instrument.locator(".verdict").inner_text()


NORMS_AND_SKIPS = [
    "activation=tanh&normalisation=rms&bias_variance=0.2&depth=30",
    "activation=relu&normalisation=batch&depth=12&width=40&initialiser=he",
    "activation=gelu&normalisation=layer&residual=preactivation&residual_scale=0.5&depth=40&width=64",
    "activation=relu&residual=preactivation&residual_scale=0.125&initialiser=orthogonal&depth=64&width=32",
]


@pytest.mark.parametrize("query", NORMS_AND_SKIPS)
def test_the_calculator_knows_norms_and_skips(page, demo, query):
    page.goto(demo[0] + "demo/?" + query)
    instrument = ready(page, "will-mine-vanish")
    network = network_of(page.url)
    check_curve(instrument, network)
    code = instrument.locator("details.code code").text_content()
    names = {}
    exec(code.replace("\npropagate(", "\nflow = propagate("), names)  # what the page tells to run in Python
    assert names["network"] == network
    assert len(names["flow"]) == int(instrument.get_attribute("data-networks"))


def test_biases_and_skips_exclude_each_other(page, demo):
    page.goto(demo[0] + "demo/")
    instrument = ready(page, "will-mine-vanish")
    scale, bias = (instrument.locator(f'[name="{name}"]') for name in ("residual_scale", "bias_variance"))
    assert scale.is_disabled() and bias.is_enabled()
    move(page, instrument, "bias_variance", 0.3)
    move(page, instrument, "residual", "preactivation")
    assert scale.is_enabled() and bias.is_disabled()
    check_curve(instrument, Network(50, 256, "sigmoid", "xavier", residual="preactivation"))


def test_instruments_measure_what_propagate_measures(page, demo):
    page.goto(demo[0] + "demo/")
    residual = Network(150, 64, "relu", weight_variance=1.5, residual="preactivation")
    batch = Network(20, 64, "relu", weight_variance=2.5, normalisation="batch", batch_size=8)
    for name, moves, row, network, trials in (
        ("residual-scale", {"blocks": math.log10(150), "weight_variance": 1.5}, "with skips, ", residual, 8),
        ("batch-norm-depth", {"depth": 20, "batch": "8", "weight_variance": 2.5}, "batch normalisation, ", batch, 4),
    ):
        for control, value in moves.items():
            move(page, ready(page, name), control, value)
        found = rows(ready(page, name))
        median = np.median(propagate(network, trials, seed=0).log_gradient[:, 0]) / math.log(10)
        predicted = mean_field(network).log_gradient[0] / math.log(10)
        assert found[row + "measured median"][1] == pytest.approx(median, abs=6e-4)  # three decimals are written
        assert found[row + "predicted"][1] == pytest.approx(predicted, abs=6e-4)


def test_chain_multiplies_pythons_weights_and_slopes(page, demo):
    page.goto(demo[0] + "demo/")
    weights, points = [1.0, 1.0, 2.0, 1.0, 1.0, 0.5], [0.0, 1.5, 0.0, 0.0, -1.0, 0.0]
    for i, (weight, z) in enumerate(zip(weights, points, strict=True), start=1):
        if weight != 1.0:
            move(page, ready(page, "chain"), f"w{i}", math.log10(weight))
        if z != 0.0:
            move(page, ready(page, "chain"), f"z{i}", z)
    for name in ("tanh", "gelu"):
        found = rows(move(page, ready(page, "chain"), "activation", name))
        factors = np.array(weights) * ACTIVATIONS[name].slope(np.array(points))
        for i in range(6):  # three digits are written, and the weight's slider has steps
            assert found[str(i + 1)][3] == pytest.approx(np.prod(factors[i:]), rel=0.02)


def test_forget_gate_forgets_as_the_sigmoid_says(page, demo):
    page.goto(demo[0] + "demo/")
    move(page, ready(page, "forget-gate"), "steps", math.log10(200))
    found = rows(move(page, ready(page, "forget-gate"), "bias", 2.5))
    for bias, (gate, half_life, left) in found.items():
        assert gate == pytest.approx(special.expit(float(bias)), rel=6e-4)
        assert half_life == pytest.approx(-math.log(2) / special.log_expit(float(bias)), rel=6e-3)
        assert left == pytest.approx(200 * special.log_expit(float(bias)) / math.log(10), abs=6e-3)


def test_number_formats_are_stepped_as_in_python(page, demo):
    page.goto(demo[0] + "demo/")
    move(page, ready(page, "number-formats"), "start", 0)
    for factor in (0.07, 0.25, 0.5, 0.58, 0.9):
        found = rows(move(page, ready(page, "number-formats"), "factor", factor))
        for name in NUMBER_FORMATS:
            assert found[name][2] == (horizon(name, factor).depth or "stalls")


def test_every_control_of_every_instrument_changes_its_numbers(page, demo):
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        instrument = ready(page, name)
        for control in instrument.locator("input, select").all():
            if control.is_disabled():
                continue
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


@pytest.fixture
def finger(browser):
    """A page on a telephone: a touch screen, no mouse."""
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    yield context.new_page()
    context.close()


def touch(page, path):
    """A finger goes down, along the path, and up: as the system reports it, below the page's events."""
    session = page.context.new_cdp_session(page)
    for i, (x, y) in enumerate(path):
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize(("name", "control"), [("phase-diagram", "bias_variance"), ("chain", "w2")])
def test_a_finger_drags_in_the_figure_and_does_not_scroll(finger, demo, name, control):
    finger.goto(demo[0] + "demo/")
    instrument = ready(finger, name)
    slider = instrument.locator(f'[name="{control}"]')
    instrument.locator("svg").scroll_into_view_if_needed()
    before, scrolled, box = slider.input_value(), finger.evaluate("scrollY"), instrument.locator("svg").bounding_box()
    at = [(box["x"] + box["width"] * 0.28, box["y"] + box["height"] * y) for y in (0.55, 0.5, 0.45, 0.3, 0.2)]
    touch(finger, at)
    ready(finger, name)
    assert slider.input_value() != before
    assert finger.evaluate("scrollY") == scrolled


def test_a_finger_moves_a_slider(finger, demo):
    finger.goto(demo[0] + "demo/")
    instrument = ready(finger, "will-mine-vanish")
    slider = instrument.locator('[name="depth"]')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    finger.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    ready(finger, "will-mine-vanish")
    assert 130 < int(slider.input_value()) < 170
    sync_api.expect(instrument.get_by_role("status")).to_contain_text(f"{slider.input_value()} layers")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_that_the_reader_does_not_move(browser, demo, motion):
    context = browser.new_context(reduced_motion=motion)
    page = context.new_page()
    page.goto(demo[0] + "demo/")
    for name in instruments.names():
        move(page, ready(page, name), ready(page, name).locator("input").first.get_attribute("name"), 1)
    running = "document.getAnimations().filter(a => a.effect.target?.closest('.instrument')).length"
    durations = page.locator(".instrument, .instrument *").evaluate_all(
        "all => Math.max(...all.map(e => parseFloat(getComputedStyle(e).transitionDuration)))"
    )
    assert page.evaluate(running) == 0
    assert durations == 0 if motion == "reduce" else durations <= 0.25  # the theme's links and code buttons
    context.close()


def test_width_shows_the_median_of_propagate(page, demo):
    page.goto(demo[0] + "demo/")
    for depth in (30, 12):
        found = rows(move(page, ready(page, "width"), "depth", depth))
        logs = propagate(Network(depth, 16, "relu", "he"), 400, seed=0).log_gradient[:, 0] / math.log(10)
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


def test_the_first_state_stays_where_workers_fail(page, demo):
    page.add_init_script(
        "window.Worker = class { postMessage() { queueMicrotask(() => this.onmessage({ data: { error: 'none' } })); } }"
    )
    page.goto(demo[0] + "demo/")
    instrument = page.locator('[data-instrument="will-mine-vanish"]')
    instrument.scroll_into_view_if_needed()
    sync_api.expect(instrument).to_have_attribute("data-state", "failed")
    assert instrument.locator("fieldset").evaluate("e => e.disabled")
    check_curve(instrument, Network(50, 256, "sigmoid", "xavier"))


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
    sizes = {file.name: len(gzip.compress(file.read_bytes(), 9)) for file in files}
    of_doctor = sum(size for name, size in sizes.items() if name.startswith("doctor"))  # fetched on its own page alone
    of_cells = sizes.pop("cell.js") + sizes.pop("cell.worker.js")  # on pages with a cell alone
    of_search = sizes.pop("search.js")  # in place of a worker of 12 kB of the theme, and its index on every page
    assert (
        sum(sizes.values()) - of_doctor <= 60_000 and of_doctor <= 40_000 and of_search <= 6_000 and of_cells <= 4_000
    )


def test_an_unknown_instrument_fails_the_build():
    with pytest.raises(ValueError, match=r"unknown instrument 'chian'; known: batch-norm-depth, chain"):
        instruments.page('<div class="instrument" data-instrument="chian"></div>')
