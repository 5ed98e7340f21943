"""The deck: its Markdown, and how it becomes slides."""

import re

import pytest
import slides
from test_first_course import prose, sentences
from test_pages import DOCS

DECK = re.split(r"^---$", (DOCS / slides.PAGE).read_text(), flags=re.M)[3:-1]  # without front matter, head and way on


@pytest.mark.parametrize("slide", DECK, ids=lambda slide: slide.strip().partition("\n")[0].removeprefix("## "))
def test_a_slide_has_one_title_one_picture_and_few_words(slide):
    assert len(re.findall(r"^## ", slide, re.M)) == 1 and slide.lstrip().startswith("## ")
    assert len(re.findall(r"^--8<-- \"results/[\w/]+\.md\"$", slide, re.M)) <= 1
    assert len(re.findall(r"\w[\w’'-]*", prose(slide))) <= 45
    assert [" ".join(words) for words in sentences(slide) if len(words) > 20] == []


def test_most_slides_show_a_picture_and_many_ask():
    assert sum("--8<--" in slide for slide in DECK) >= 10
    assert sum("**Ask:**" in slide for slide in DECK) >= 6


def test_what_is_between_rules_becomes_slides():
    html = slides.page('<p>head</p><hr /><h2 id="a">A</h2><hr><h2 id="b">B</h2><hr /><p>on</p>')
    assert re.findall(r'<section class="slide" aria-labelledby="(\w)"><h2 id="\1">', html) == ["a", "b"]
    assert html.startswith(
        '<div class="screen"><p>head</p></div><div class="deck" role="region" aria-label="Slides" tabindex="0">'
    )
    assert html.endswith('</div><div class="screen"><p>on</p></div>')


def test_a_slide_without_a_title_is_refused():
    with pytest.raises(ValueError, match=r"no title; begin it with `## `: '<p>words</p>'"):
        slides.page("head<hr><p>words</p><hr>on")
