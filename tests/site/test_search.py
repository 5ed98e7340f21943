"""How the search ranks, in V8, over a small index: spelling, endings, slips, synonyms, what is hostile or empty."""

import json
import re
from pathlib import Path

import pytest
import searching
import v8
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPT = (Path(__file__).resolve().parents[2] / "docs" / searching.WORKER).read_text()
INDEX = {
    "synonyms": [["batch normalisation", "batch norm", "BatchNorm1d"], ["he", "kaiming", "kaiming_normal_"]],
    "asides": ["reference/"],
    "docs": [
        {"location": "init/", "title": "Initialisation", "text": "He draws weights at random.", "asked": ["first weights"]},
        {"location": "norm/", "title": "Batch normalisation", "text": "It divides by the spread of a batch."},
        {"location": "norm/#small", "title": "Small batches", "text": "Few examples: a noisy spread & no <b>help</b>."},
        {"location": "quarter/", "title": "(0.25)ⁿ", "text": "The sigmoid's slope σ′ is at most a quarter."},
        {"location": "loss/", "title": "Loss", "text": "Training stalls.", "asked": ["why does my network not learn"]},
        {"location": "reference/api/", "title": "API", "text": "Initialisation, batch, loss, slope, train."},
        {"location": "reference/api/#train", "title": "train", "text": "train(network, batch)"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def search():
    engine = v8.start()
    engine.eval(SCRIPT)
    engine.eval(f"globalThis.search = vgpSearch({json.dumps(INDEX)})")
    return lambda text: json.loads(engine.eval(f"JSON.stringify(search({json.dumps(text)}).items)"))


def first(items):
    return items[0][0]["location"] if items else None


@pytest.mark.parametrize(
    "text, location",
    [
        ("initialization", "init/"),
        ("INITIALIZING", "init/"),
        ("initalisation", "init/"),
        ("initialsiation", "init/"),
        ("initi", "init/"),
        ("kaiming_normal_", "init/"),
        ("kaiming", "init/"),
        ("first weights", "init/"),
        ("batchnorm1d", "norm/"),
        ("batch norm", "norm/"),
        ("batch normalization", "norm/"),
        ("noisy", "norm/#small"),
        ("0.25^n", "quarter/"),
        ("(0.25)^n", "quarter/"),
        ("σ'", "quarter/"),
        ("network doesn't learn", "loss/"),
        ("how does my network learn not", "loss/"),
        ("train", "reference/api/#train"),
        ("training", "loss/"),
        ("batch", "norm/"),
        ("slope", "quarter/"),
    ],
)
def test_the_right_place_comes_first(search, text, location):
    assert first(search(text)) == location


@pytest.mark.parametrize("text", ["", " ", "^", "*", "+-:~", '"', "\\", "zzzz qqqq", "\0", "🐌", "<script>"])
def test_what_finds_nothing_is_no_error(search, text):
    assert search(text) == []


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_no_input_is_an_error(search, text):
    for page in search(text):
        assert {"location", "title", "text", "terms", "score"} == page[0].keys()


def test_only_marks_are_markup(search):
    (page,) = search("noisy help")
    shown = page[0]["text"]
    assert "&amp;" in shown and "&lt;b&gt;<mark data-md-highlight>help</mark>&lt;/b&gt;" in shown
    assert re.findall(r"<(?!/?mark\b)", shown) == []


def test_what_of_the_words_was_not_found_is_told(search):
    ((place, *_), *_) = search("sigmoid zzzz")
    assert place["terms"] == {"sigmoid": True, "zzzz": False}


def test_reference_pages_answer_last_even_where_they_say_it_more_often(search):
    assert [page[0]["location"].split("#")[0] for page in search("initialisation batch loss slope")][
        -1
    ] == "reference/api/"


def test_the_best_page_has_the_highest_score_which_return_leads_to(search):
    scores = [place["score"] for page in search("batch") for place in page]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)


def test_questions_of_a_page_that_is_not_there_stop_the_build():
    with pytest.raises(ValueError, match=r"pages that are not there: .*learn/chain/"):
        searching.index({"docs": []})


def test_a_theme_that_names_its_worker_otherwise_stops_the_build():
    with pytest.raises(ValueError, match=r"searching\.py"):
        searching.page('{"search": "assets/find.js"}')
    page = '{"search": "../assets/javascripts/workers/search.0a1b.min.js"}'
    assert searching.page(page) == '{"search": "../javascripts/search.js"}'


def test_text_of_html_is_its_words():
    assert searching.plain("<p>A &lt;b&gt; &amp; <code>c</code>¶</p>\n<p>d</p>") == "A <b> & c d"
