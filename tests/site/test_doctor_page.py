"""The diagnosis on its page, from a file without a server: examples, hostile names, large files, nothing sent."""

import json
import re
import shutil
from pathlib import Path

import pytest
import rules

from vgp_kernels.diagnosis import diagnose

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "diagnose" / "check.md").read_text()
EXAMPLES = json.loads(
    "{" + (DOCS / "javascripts" / "doctor.examples.js").read_text().partition("{")[2].rpartition("}")[0] + "}"
)


@pytest.fixture(scope="module")
def doctor(playwright, tmp_path_factory):
    """The page's part with its scripts, and all that the browser asks for or complains of."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("doctor")
    for name in ("doctor.js", "doctor.examples.js"):
        shutil.copy(DOCS / "javascripts" / name, folder)
    (folder / "doctor.rules.js").write_text(rules.script())
    part = re.search(r'<div id="doctor".*?\n</div>\n', PAGE, re.DOTALL)[0]
    scripts = "".join(f'<script src="doctor.{name}js"></script>' for name in ("rules.", "examples.", ""))
    (folder / "page.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Doctor</title><main>{part}</main>{scripts}'
        '<script>vgpDoctor.start(document.querySelector("#doctor"))</script></html>'
    )
    chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    page = chromium.new_page()
    page.seen = []
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or page.seen.append(request.url))
    page.goto((folder / "page.html").as_uri())
    yield page
    assert page.seen == []  # no request, no error, nothing that a name of a layer would have run
    chromium.close()


def title(page):
    return page.locator(".diagnosis [role=status]").inner_text()


@pytest.mark.parametrize("name", re.findall(r'data-example="(\w+)"', PAGE))
def test_an_example_is_diagnosed_by_a_key_as_on_a_terminal(doctor, name):
    doctor.locator(f"button[data-example={name}]").focus()
    doctor.keyboard.press("Enter")
    answer = diagnose(EXAMPLES[name])
    assert title(doctor).endswith(answer["title"])
    assert answer["why"] in doctor.locator(".diagnosis").inner_text()
    named = doctor.locator(".diagnosis svg").first.locator("circle title").all_text_contents()
    assert named[0].startswith(answer["rows"][0]["name"] + ": ")


def test_what_is_predicted_is_told_from_what_is_measured(doctor):
    """A dashed line with its name and no points, along the measured one; none where nothing can be predicted."""
    doctor.locator("button[data-example=sigmoid]").click()
    picture = doctor.locator(".diagnosis svg").first
    dashes = picture.locator("polyline").evaluate_all(
        "lines => lines.map(line => line.getAttribute('stroke-dasharray'))"
    )
    assert len(dashes) == len(set(dashes)) == 3 and dashes[0] is None
    assert picture.locator("text.predicted").all_text_contents() == ["predicted"]
    rows = diagnose(EXAMPLES["sigmoid"])["rows"]
    assert picture.locator("circle").count() == 2 * len(rows)
    measured, _, predicted = (
        [tuple(map(float, point.split(","))) for point in line.split()]
        for line in picture.locator("polyline").evaluate_all("lines => lines.map(line => line.getAttribute('points'))")
    )
    heights = dict(measured)
    assert len(predicted) == sum(row["predicted"] is not None for row in rows) > 10
    assert all(abs(heights[x] - y) < 20 for x, y in predicted)  # of 280: a decade is about 25
    assert "no measurement" in doctor.locator(".diagnosis").inner_text()
    doctor.locator("button[data-example=unet]").click()
    assert doctor.locator("text.predicted").count() == 0
    assert "no measurement" not in doctor.locator(".diagnosis").inner_text()


def test_names_are_text_and_never_html(doctor):
    name = "<img src=x onerror=console.log(1)>"
    rows = [{"name": f"{name}{i}", "weight": 1, "gradient": 0.2 ** (9 - i)} for i in range(10)]
    doctor.fill("#doctor-text", json.dumps(rows))
    assert name in doctor.locator(".diagnosis").inner_text()
    assert doctor.locator(".diagnosis img").count() == 0


def test_what_is_no_report_gets_a_sentence(doctor):
    doctor.fill("#doctor-text", "{{{")
    assert "not JSON" in doctor.locator(".diagnosis").inner_text()
    doctor.fill("#doctor-text", "")
    assert doctor.locator(".diagnosis").inner_text() == ""


def test_a_file_of_200000_rows_is_read(doctor, tmp_path):
    file = tmp_path / "large.json"
    file.write_text(json.dumps([{"name": f"b.{i}", "weight": 1.0, "gradient": 0.5} for i in range(200_000)]))
    doctor.set_input_files("#doctor-file", file)
    doctor.wait_for_function("document.querySelector('.diagnosis').innerText.includes('No slope')")
    assert doctor.locator(".diagnosis circle").count() <= 600
