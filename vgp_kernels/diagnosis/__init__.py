"""From a report of signal and gradient to a diagnosis: `diagnose` for notebooks, `python -m vgp_kernels diagnose FILE` beside it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from vgp_kernels.diagnosis.rules import decide, unreadable

__all__ = ["diagnose"]

LARGEST = 50_000_000  # bytes of a file: above, it is no report


def diagnose(report: Any) -> dict:
    """The diagnosis of a report: of JSON text, or of what that holds (a dictionary, or the list of the first snippet).

    A dictionary: `kind` and `title` (what it is), `verdict` ("sick", "note": odd, perhaps by design, "unknown": cannot be told,
    "healthy": nothing found), `layers` and `where`, `evidence` (labels and numbers), `certainty` ("certain", "likely",
    "possible") and `why`, `change`, `code` (for the framework that the report names, else for PyTorch), `next`, `page`; `also`,
    what else was seen, in the same form; `remarks`, about the reading. Never raises for what a report holds: one that cannot be
    read has the kind "unreadable" and says why.
    """
    if isinstance(report, str | bytes):
        try:
            report = json.loads(report)
        except RecursionError:
            return unreadable("This is nested too deeply to be a report.")
        except (ValueError, UnicodeDecodeError):
            return unreadable("This is not JSON: is it the whole file?")
    return decide(report)


def read_file(path: str) -> dict:
    """The diagnosis of a file; OSError if it cannot be read."""
    if path != "-" and os.path.getsize(path) > LARGEST:
        return unreadable("The file has more than 50 megabytes: this is no report.")
    return diagnose(sys.stdin.read() if path == "-" else Path(path).read_bytes())


def as_text(answer: dict) -> str:
    """The diagnosis for a terminal."""
    lines = [answer["title"]]
    if answer["where"]:
        lines.append(f"  where      {answer['where']}")
    lines.append(f"  why        {answer['why']} ({answer['certainty']})")
    lines += [f"  evidence   {item['label']}{': ' * bool(item['value'])}{item['value']}" for item in answer["evidence"]]
    lines.append(f"  change     {answer['change']}")
    lines += [f"             | {line}" for line in answer["code"].splitlines()]
    lines.append(f"  then       {answer['next']}")
    lines.append(f"  page       {answer['page']}")
    lines += [f"also seen: {item['title']}: {item['where'] or item['why']}" for item in answer["also"]]
    lines += [f"note: {remark}" for remark in answer["remarks"]]
    return "\n".join(lines)
