"""The index of the search: the pages' plain text, the questions they answer, synonyms. Its worker: docs/javascripts/search.js."""

import html
import json
import re
import tomllib
from pathlib import Path

WORDS = Path(__file__).with_name("search.toml")
WORKER = "javascripts/search.js"
THEMES_WORKER = re.compile(r'"search": "([^"]*?)assets/javascripts/workers/search\.\w+\.min\.js"')


def words() -> dict:
    """Synonyms, the questions of each page, and what comes last."""
    return tomllib.loads(WORDS.read_text())


def plain(text: str) -> str:
    """The text of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).replace("¶", " ").split())


def index(collected: dict) -> dict:
    """What the worker reads, from what MkDocs has collected.

    Raises ValueError if a question belongs to a page that is not there.
    """
    known = words()
    docs = [
        {"location": doc["location"], "title": plain(doc["title"]), "text": plain(doc["text"])}
        for doc in collected["docs"]
    ]
    asked = known["asked"]
    if astray := asked.keys() - {doc["location"] for doc in docs}:
        raise ValueError(f"{WORDS.name} has questions for pages that are not there: {', '.join(sorted(astray))}")
    docs = [doc | ({"asked": asked[doc["location"]]} if doc["location"] in asked else {}) for doc in docs]
    return {"synonyms": known["synonyms"], "asides": known["asides"], "docs": docs}


def write(site: Path) -> None:
    """The index for the worker; of the theme's own only what it needs to start is left, since every page fetches that."""
    folder = site / "search"
    collected = json.loads((folder / "search_index.json").read_text())
    (folder / "pages.json").write_text(json.dumps(index(collected), ensure_ascii=False, separators=(",", ":")))
    (folder / "search_index.json").write_text(json.dumps({"config": collected["config"], "docs": []}))


def page(output: str) -> str:
    """A page that starts our worker in place of the theme's.

    Raises ValueError where the theme has changed how it names its worker.
    """
    output, replaced = THEMES_WORKER.subn(rf'"search": "\1{WORKER}"', output)
    if replaced != 1:
        raise ValueError("the theme does not name its search worker as it did: see scripts/site/searching.py")
    return output
