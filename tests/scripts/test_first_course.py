"""The first course in docs/learn/, which a second-language student with school calculus reads: its language, symbols and shape."""

import re
from itertools import pairwise
from statistics import median

import drawing
import experiment
import ledger
import pytest
import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_pages import DOCS, QUOTED, outside_code, page_name

FOUND = re.findall(
    r"learn/[\w-]+\.md", (DOCS.parent / "mkdocs.yml").read_text().partition("- Learn:")[2].partition("- Deeper:")[0]
)
COURSE = [DOCS / name for name in FOUND]

# What a symbol is called beside it where a page first uses it. No page needs another symbol, nor one of these with another meaning.
SYMBOLS = {
    "E": "loss",
    "w": "weight",
    "x": "input|number",
    "y": "output|number",
    "z": "gets|goes into",
    "g": "gradient",
    "n": "units",
    "s": "typical size",
    r"\sigma": "sigmoid",
    r"\sigma'": "slope",
    r"\partial": "round|gradient",
    "e": "",  # that of school
}
# Words that have no place before Deeper: each can be said in others, or explained there.
HARD = r"decades?|Jacobian|singular value|eigenvalue|Lyapunov|mean[- ]field|asymptot\w*|fan-in|isometry|pre-?activations?|𝔼|χ|κ"


def prose(text: str) -> str:
    """A page's own sentences: without tables, the heads of boxes, HTML, addresses and what "Deeper" lists; a formula is one word."""
    text = outside_code(text).partition("\n## Deeper")[0]
    text = re.sub(r"\$\$.+?\$\$|\$[^$\n]+?\$", "X", text, flags=re.DOTALL)
    text = re.sub(r"^(?:#.*|\|.*|(?:!!!|\?\?\?).*|\{.*\}|.*· You need:.*)$", "", text, flags=re.MULTILINE)
    text = re.sub(r"<!--.*?-->|<[^>]*>", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"(?<=\d)\.(?=\d)|[*_]", "", text)


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence; an item of a list ends one."""
    text = re.sub(r"\n\s*\n|\n\s*(?:-|\d\.) ", ". ", prose(text))
    found = [re.findall(r"\w[\w’'%-]*", part) for part in re.split(r"[.?!:]+[\")”]*\s", text)]
    return [words for words in found if len(words) > 1]


def test_the_course_comes_before_deeper_and_has_its_pages_in_this_order():
    assert len(COURSE) >= 8 and all(page.exists() for page in COURSE)
    for page, after in pairwise(COURSE):
        assert page.read_text().rstrip().endswith(f"({after.name})")


@pytest.mark.parametrize("page", COURSE, ids=page_name)
def test_sentences_are_short(page):
    lengths = [len(words) for words in sentences(page.read_text())]
    assert median(lengths) <= 18
    assert [" ".join(words) for words in sentences(page.read_text()) if len(words) > 40] == []


def test_a_long_sentence_is_found():
    text = (
        "# Title\n\nShort one. "
        + "word " * 41
        + "end. Another $x + y = z$ with 0.5<!-- a.b --> [link of words](x.md#y).\n- item"
    )
    assert [len(words) for words in sentences(text)] == [2, 42, 7]


def undefined(text: str) -> list[str]:
    """Symbols of the page that are met before their name is, and symbols that a first course does not have."""
    text, wrong, met = outside_code(text), [], set()
    for formula in re.finditer(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", text, re.DOTALL):
        tex = re.sub(
            r"\\(?:begin|end|text|operatorname)\{[^}]*\}|\\(?!sigma|partial)[a-zA-Z]+", " ", formula[1] or formula[2]
        )
        start = text.rfind("\n\n", 0, formula.start())
        said = text[max(start, 0) : text.find("\n\n", formula.end())]
        for symbol in re.findall(r"\\sigma'?|\\partial|[a-zA-Z]", tex):
            if symbol not in met and not re.search(rf"\b(?:{SYMBOLS.get(symbol, 'no name')})\b", said):
                wrong.append(symbol)
            met.add(symbol)
    return wrong


@pytest.mark.parametrize("page", COURSE, ids=page_name)
def test_no_symbol_comes_before_its_name(page):
    assert undefined(page.read_text()) == []


def test_a_symbol_without_a_name_is_found():
    assert undefined("The loss $E$ of a weight $w$.\n\nHere $E = w^2$.") == []
    assert undefined("Take $E$.\n\nThe loss $E$ and $\\chi_q$, $\\sigma'$.") == ["E", "q", "\\sigma'"]


@pytest.mark.parametrize("page", COURSE, ids=page_name)
def test_no_word_needs_a_second_course(page):
    assert re.findall(HARD, prose(page.read_text()), re.IGNORECASE) == []


@pytest.mark.parametrize("page", COURSE, ids=page_name)
def test_level_and_reading_time_are_stated_and_true(page):
    text = page.read_text()
    minutes = int(
        re.search(r"^# .*\n\n\*\*First course\*\* · (\d+) minutes · You need: .+\n\{ \.level \}$", text, re.M)[1]
    )
    words = len(re.findall(r"\w[\w’'-]*", prose(text)))
    assert words / 200 <= minutes <= words / 100, f"{words} words"  # a slow and a very slow reader


@pytest.mark.parametrize("page", COURSE, ids=page_name)
def test_page_has_a_picture_a_box_questions_and_a_way_deeper(page):
    text = page.read_text()
    assert re.search(r"^--8<-- \"results/drawings/\w+\.md\"", text, re.M) or "\n| " in text, (
        "needs a drawing or a table"
    )
    assert text.count('!!! abstract "Remember this"') == 1
    assert re.search(r"^## Deeper\n\n- \[.+\]\(\S+\.md\)", text, re.M)


@pytest.mark.parametrize("page", sorted((DOCS / "learn").glob("*.md")), ids=page_name)
def test_page_asks_questions_and_explains_each_wrong_answer(page):
    quiz = page.read_text().partition("\n## Ask yourself\n")[2].partition("\n## ")[0]
    questions = re.split(r"^\*\*\d\. ", quiz, flags=re.M)[1:]
    assert 3 <= len(questions) <= 5
    for question in questions:
        choices, answer = (
            set(re.findall(r"^- ([A-D])\. ", question, re.M)),
            question.partition('??? success "Answer"')[2],
        )
        (right,) = re.findall(r"\*\*([A-D])\.?\*\*", answer)
        assert len(choices) >= 2 and right in choices
        assert [wrong for wrong in choices - {right} if not re.search(rf"\b{wrong}\b", answer)] == []


def test_every_sentence_of_the_note_is_answered():
    words = " ".join(
        " ".join(QUOTED.sub(lambda quote: quote["written"] or "", page.read_text()) for page in COURSE).split()
    )
    missing = [number for number, said in ledger.NOTE.items() if f'**"{ledger.typeset(said)}"**' not in words]
    assert missing == []


def test_remember_boxes_link_to_a_verdict():
    rows = {row["key"] for row in ledger.rows()}
    for page in COURSE:
        box = page.read_text().partition('"Remember this"')[2].partition("\n\n")[0]
        keys = re.findall(r"/verify/ledger\.md#claim-([\w-]+)", box)
        assert keys and set(keys) <= rows, page_name(page)


# Drawings


DRAWINGS = drawing.names()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_stands_on_a_page_and_says_what_is_seen(name):
    assert any(f'"results/drawings/{name}.md"' in page.read_text() for page in DOCS.rglob("*.md")), (
        f"no page shows {name}"
    )
    alt = drawing.alt_text(drawing.load(name))
    assert 80 <= len(alt) <= 400 and not re.search(r'[$\]\n"]', alt)
    assert not re.match(r"(?i)(a |the )?(figure|plot|graph|chart|image|picture|drawing)\b", alt)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_has_a_version_for_phones_and_readable_type_in_both(name):
    for phone, inches in drawing.WIDTHS.items():
        figure = drawing.figure(drawing.load(name), phone)
        assert figure.get_figwidth() == inches and figure.get_figheight() < 6
        FigureCanvasAgg(figure).draw()
        small = [
            text.get_text()
            for text in figure.findobj(match=lambda part: hasattr(part, "get_fontsize"))
            if text.get_text() and text.get_fontsize() < 8
        ]
        assert small == []
        box = figure.bbox
        outside = [
            text.get_text()
            for text in figure.findobj(match=lambda part: hasattr(part, "get_fontsize"))
            if text.get_visible() and text.get_text() and not contains(box, text.get_window_extent())
        ]
        assert outside == [], "phone" if phone else "wide"


def contains(outer, inner) -> bool:
    return (
        inner.x0 >= outer.x0 - 1 and inner.y0 >= outer.y0 - 1 and inner.x1 <= outer.x1 + 1 and inner.y1 <= outer.y1 + 1
    )


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_the_same_each_time_and_has_colours_for_the_dark_page(name):
    module = drawing.load(name)
    first, second = (style.svg(drawing.figure(module, phone=True)) for _ in range(2))
    assert first == second and "prefers-color-scheme:dark" in first


def test_a_drawing_is_made_again_when_its_result_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "names", lambda: ["first_gradients"])
    monkeypatch.setattr(drawing, "folder", lambda: tmp_path)
    drawing.draw_missing()
    file = tmp_path / "first_gradients.svg"
    file.write_text("changed by hand")
    drawing.draw_missing()
    assert file.read_text() == "changed by hand"  # nothing that it is made from has changed
    monkeypatch.setattr(experiment, "digest_of", lambda path: "another result")
    drawing.draw_missing()
    assert "<svg" in file.read_text()
