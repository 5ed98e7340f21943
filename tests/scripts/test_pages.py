"""The pages in docs/: their numbers, claims, figures and shape, read from the Markdown."""

import math
import re
from dataclasses import replace
from pathlib import Path

import experiment
import ledger
import pytest
import style

from vgp_kernels import ACTIVATIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "results" not in page.parts)
NAMES = experiment.names()
QUOTABLE = experiment.quotable()
LAST = {"reference/bibliography.md"}  # pages that need not say what comes next


def page_name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def outside_code(text: str) -> str:
    """The page's own words: without its front matter, code and what is included."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|^--8<--.*$", "", text, flags=re.MULTILINE)


# Numbers


QUOTED = re.compile(r"(?P<written>[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?)?<!--\s*(?P<name>\w+)\.(?P<key>\w+)\s*-->")


def wrong_quotes(text: str) -> list[str]:
    """What is wrong with the numbers that the text quotes from results, and the right ones."""
    return [complaint for quote in QUOTED.finditer(text) if (complaint := wrong(**quote.groupdict()))]


def wrong(written: str | None, name: str, key: str) -> str:
    if name not in QUOTABLE:
        return f"no result {name!r}; known: {', '.join(QUOTABLE)}"
    numbers = QUOTABLE[name]
    if key not in numbers:
        return f"{name} has no number {key!r}; known: {', '.join(numbers)}"
    if written is None:
        return f"no number stands before <!-- {name}.{key} -->; it is {numbers[key]}"
    plain = written.replace("−", "-").replace(",", "")
    mantissa, _, exponent = plain.partition("e")
    kind = f".{len(mantissa.partition('.')[2])}{'e' if exponent else 'f'}"
    if float(plain) == float(f"{numbers[key]:{kind}}"):
        return ""
    return f"{written} <!-- {name}.{key} --> should be {numbers[key]:{kind}} (it is {numbers[key]})"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_each_quoted_number_is_that_of_the_result(page):
    assert wrong_quotes(page.read_text()) == []


def test_a_wrong_number_is_found_and_the_right_one_named():
    name, key, value = next(
        (name, key, value)
        for name in NAMES
        for key, value in QUOTABLE[name].items()
        if isinstance(value, float) and 0.01 < abs(value) < 1000
    )
    mark = f"<!-- {name}.{key} -->"
    assert wrong_quotes(f"it is {value:.3f}{mark} or {value:.1f}{mark} or {value:.2e}{mark}".replace("-0", "−0")) == []
    (complaint,) = wrong_quotes(f"it is {value + 0.002:.3f}{mark}")
    assert f"should be {value:.3f}" in complaint
    assert len(wrong_quotes(f"**{value:.3f}**{mark} 1<!-- {name}.nothing --> 1<!-- nothing.at_all -->")) == 3


# Sums that stand in formulas


SUM = re.compile(r"(?:[\d.+\-*/()^{}\s=]|\\(?:[td]?frac|sqrt|cdot|ln|log_\{10\}|pi|approx)(?![a-z]))+")


def value(tex: str) -> float:
    """What a formula of numbers alone comes to."""
    text = re.sub(r"\\[td]?frac(?:\{([^{}]*)\}\{([^{}]*)\}|(\d)(\d))", r"((\1\3)/(\2\4))", tex)
    text = text.replace(r"\log_{10}", r"\lg").translate(str.maketrans("{}", "()"))
    text = re.sub(r"\\(sqrt|ln|lg)\s*([\d.]+)", r"\\\1(\2)", text)
    text = (
        re.sub(r"(?<=[\d)])\s*(?=[\\(])(?!\\cdot)", "*", text)
        .replace(r"\cdot", "*")
        .replace("^", "**")
        .replace("\\", "")
    )
    return eval(text, {"sqrt": math.sqrt, "ln": math.log, "lg": math.log10, "pi": math.pi})


def wrong_sums(text: str) -> list[str]:
    """Formulas of numbers alone whose sides differ: by more than rounding, or by 2 % where the right side is a rounded sum."""
    wrong = []
    for formula in re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text):
        sides = re.split(r"=|\\approx", formula)
        if len(sides) > 1 and SUM.fullmatch(formula):
            for left, right in zip(map(str.strip, sides), map(str.strip, sides[1:]), strict=False):
                number = re.fullmatch(r"-?\d+(?:\.(\d+))?", right)
                exact = r"\approx" not in formula and not number
                slack = 0.5 * 10 ** -len(number[1] or "") if number else abs(value(right)) * (1e-12 if exact else 0.02)
                if not math.isclose(value(left), value(right), rel_tol=1e-12, abs_tol=slack):
                    wrong.append(f"{formula}: {left} is {value(left)}, {right} is {value(right)}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_sums_come_out(page):
    assert wrong_sums(page.read_text()) == []


def test_a_wrong_sum_is_found():
    right = (
        r"$1.2^{10} \approx 6$, $(0.25)^{50} = 2^{-100}$, $15\ln2/(-\ln 0.141) = 5.3$, $\tfrac12\cdot\frac{1}{4} = 1/8$"
    )
    assert wrong_sums(right) == []
    assert len(wrong_sums(r"$1.2^{10} \approx 7$, $0.236^4 \approx 1/300$, $\sqrt2 \cdot 2 = 2.82$, $2^3 = 9$")) == 4


# Claims


CLAIMS = [(name, claim) for name in NAMES for claim in experiment.load(name).CLAIMS]


@pytest.mark.parametrize("name, claim", CLAIMS, ids=[claim.key for _, claim in CLAIMS])
def test_a_claim_holds_and_stands_on_its_page(name, claim):
    assert claim.holds(experiment.result(name)), f"the result of {name} no longer bears out: {claim.sentence}"
    page = DOCS / claim.page
    assert page.exists(), f"claim {claim.key!r} names the page {claim.page}, which is not there"
    words = " ".join(QUOTED.sub(lambda quote: quote["written"] or "", page.read_text()).split())
    assert claim.sentence in words, f"{claim.page} lacks, word for word: {claim.sentence}"


def test_every_sentence_of_the_note_is_in_the_ledger_once_or_more():
    sources = [row["source"] for row in ledger.rows()]
    assert {f"note {number}" for number in ledger.NOTE} <= set(sources)


# The shape of a page


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_page_has_a_description_a_title_and_a_way_on(page):
    text = page.read_text()
    assert re.match(r"---\n(?:.*\n)*?description: \S.{30,200}\n(?:.*\n)*?---\n", text), (
        "needs a description, 30 to 200 letters"
    )
    assert len(re.findall(r"^# ", outside_code(text), re.MULTILINE)) == 1, "needs one title"
    if page_name(page) not in LAST:
        assert re.search(r"^Next: \[[^\]]+\]\(\S+\)", text, re.MULTILINE), "needs a last line `Next: [title](page.md)`"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_page_is_short(page):
    """Without its questions, whose answers are folded."""
    text = re.sub(r"\n## Ask yourself\n.*?(?=\n## )", "", outside_code(page.read_text()), flags=re.DOTALL)
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", text, re.DOTALL)
    assert len(formulas) <= 70
    prose = re.sub(r"\$\$.+?\$\$|\$[^$\n]+\$|<[^>]*>|^\[\^.*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"\w[\w’'-]*", prose)) <= 1500


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_each_exercise_has_a_solution(page):
    part = page.read_text().partition("\n## Exercises\n")[2].partition("\n## ")[0]
    exercises = len(re.findall(r"^\d+\. ", part, re.M))
    solutions = len(re.findall(r'^ *\?\?\? success "Solution"$', part, re.M))
    together = len(re.findall(r"^    \d+\. ", part, re.M))  # one block with the same numbers
    assert exercises == (together or solutions)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_footnote_is_defined_and_used(page):
    text = outside_code(page.read_text())
    defined = re.findall(r"^\[\^([^\]]+)\]:", text, re.MULTILINE)
    used = re.findall(r"\[\^([^\]]+)\](?!:)", text)
    assert len(defined) == len(set(defined)) and set(defined) == set(used)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_no_citation_is_left_unchecked(page):
    assert "not checked" not in page.read_text()


# Results and figures


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_result_is_that_of_the_present_code(name):
    assert experiment.state(name) == "fresh", f"compute it again: python scripts/build.py --only {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_shown_on_a_page(name):
    shown = [page for page in PAGES if f'"results/{name}/figure.md"' in page.read_text()]
    assert shown, f"no page includes results/{name}/figure.md"
    assert f"results/{name}/figure.pdf" in experiment.gallery(), f"{name} is missing among the figures for teaching"


def test_a_figure_can_be_had_for_slides_and_print_with_the_same_bytes_each_time():
    result = experiment.result("plateau")
    first, second = (experiment.load("plateau").figure(result) for _ in range(2))
    for kind, start in (("pdf", b"%PDF-"), ("png", b"\x89PNG")):
        assert style.printed(first, kind).startswith(start)
        assert style.printed(first, kind) == style.printed(second, kind)


@pytest.mark.parametrize("name", NAMES)
def test_alt_text_states_a_finding(name):
    alt = experiment.load(name).alt(experiment.result(name))
    assert re.search(r"\d|more|less|fall|rise|grow|shrink|same|equal|none|never|above|below|faster|slower", alt)
    assert not re.match(r"(?i)(a |the )?(figure|plot|graph|chart|image|picture)\b", alt), (
        "say what is found, not what it is"
    )
    assert 40 <= len(alt) <= 600 and not re.search(r'[$\]\n"]', alt)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_uses_the_activations_colours_and_no_others(name):
    figure = experiment.load(name).figure(experiment.result(name))
    known = {colour for colour, _, _ in style.LOOKS.values()} | {
        style.INK,
        style.MUTED,
        style.GRID,
        *style.PAGES.values(),
    }
    known |= {"#000000", *(colour for count in range(2, 13) for colour in style.ramp(count))}
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", light(style.svg(figure)))) <= known


def light(svg: str) -> str:
    """The SVG without the rules for the dark page."""
    return re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL)


def test_every_activation_has_its_own_look():
    assert set(ACTIVATIONS) <= set(style.LOOKS)
    assert len(set(style.LOOKS.values())) == len(style.LOOKS)


def test_every_colour_stands_out_on_both_pages():
    colours = {colour for colour, _, _ in style.LOOKS.values()} | {style.INK, style.MUTED, *style.ramp(9)}
    faint = [c for c in colours if style.contrast(c, style.PAGES["light"]) < 3]
    faint += [c for c in colours if style.contrast(style.dark(c), style.PAGES["dark"]) < 3]
    assert faint == []  # WCAG 2.2, 1.4.11: graphical objects need 3 to 1


def test_the_contrast_ratio_is_that_of_wcag():
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert style.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the darkest grey that passes, WebAIM


def test_the_readme_s_picture_is_the_present_figure():
    drawn = experiment.draw("depth_decay", experiment.saved("depth_decay"))["figure.svg"]
    assert (DOCS / "assets" / "hero.svg").read_bytes() == drawn, "draw it again: python scripts/build.py --draw"


def test_an_unknown_verdict_raises():
    claim = CLAIMS[0][1]
    with pytest.raises(ValueError, match=r"unknown verdict 'true'.*known: holds"):
        replace(claim, verdict="true")
