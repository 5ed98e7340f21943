"""scripts/build.py, with one small experiment in a folder of its own; and the ledger."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import build
import experiment
import ledger
import pytest

ROOT = Path(__file__).resolve().parent.parent

EXPERIMENT = '''"""How one number doubles."""

from dataclasses import dataclass

from experiment import Claim
from style import new_figure, theory_style


@dataclass(frozen=True)
class Parameters:
    start: float = 1.5
    seed: int = 0


PARAMETERS = Parameters()
TOLERANCE = None


def compute(p):
    return {"values": [p.start, 2 * p.start], "name": "doubling"}


def figure(result):
    drawing, axes = new_figure()
    axes.plot(result["values"], **theory_style("relu"))
    return drawing


def caption(result):
    return "Two values."


def alt(result):
    return f"The second value, {result['values'][1]}, is twice the first."


def table(result):
    return [["Value"], *([str(value)] for value in result["values"])]


def data(result):
    return [["value"], *([value] for value in result["values"])]


def numbers(result):
    return {"second": result["values"][1]}


CLAIMS = [
    Claim("doubles", "The second value is twice the first.", "note 1.1", lambda r: "3", lambda r: str(r["values"][1]),
          "holds", lambda r: r["values"][1] == 3, "index.md")
]
'''


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Project:
    """A folder with one experiment, `doubling`, in which build.py works as in the project's own."""

    def __init__(self, folder: Path, monkeypatch, capsys):
        self.module = folder / "scripts" / "experiments" / "doubling.py"
        self.module.parent.mkdir(parents=True)
        self.module.write_text(EXPERIMENT)
        self.results = folder / "docs" / "results"
        self.capsys = capsys
        monkeypatch.setattr(experiment, "ROOT", folder)
        monkeypatch.setattr(experiment, "EXPERIMENTS", self.module.parent)
        monkeypatch.setattr(experiment, "RESULTS", self.results)
        monkeypatch.setattr(build.os, "cpu_count", lambda: 1)  # in this process, which knows the folder
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.syspath_prepend(folder / "scripts")

    def build(self, *arguments: str) -> Done:
        """What `python scripts/build.py ARGUMENTS` does: experiments are imported afresh."""
        mine = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "experiments"}
        importlib.invalidate_caches()
        try:
            code = build.main(list(arguments))
        except SystemExit as stop:
            code = stop.code
        except KeyboardInterrupt:
            code = 130
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
                del sys.modules[name]
            sys.modules.update(mine)
        return Done(code, *self.capsys.readouterr())

    def change(self, old: str, new: str) -> None:
        text = self.module.read_text()
        assert old in text
        self.module.write_text(text.replace(old, new))

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of every file under docs/results."""
        return {
            path.relative_to(self.results).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in self.results.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def project(tmp_path, monkeypatch, capsys) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


@pytest.fixture
def built(project) -> Project:
    done = project.build()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_build_computes_draws_and_writes_the_tables(built):
    assert set(built.files()) == {
        *(f"doubling/{file}" for file in ("result.json", *experiment.DRAWN)),
        *("claims.md", "claims.csv", "claims.json", "verdicts.md", "experiments.md", "figures.md", "activations.md"),
    }
    document = json.loads((built.results / "doubling" / "result.json").read_text())
    assert document["parameters"] == {"start": 1.5, "seed": 0}
    assert document["result"]["values"] == [1.5, 3.0]


def test_a_second_build_touches_no_result(built):
    before = built.files()
    assert "up to date" in built.build().stdout
    after = built.files()
    assert {name: after[name] for name in after if "/" in name} == {
        name: before[name] for name in before if "/" in name
    }


def test_list_names_state_and_subject_and_writes_nothing(project):
    assert project.build("--list").stdout.split(maxsplit=4)[:4] == ["doubling", "missing", "to", "draw"]
    assert not project.results.exists()
    project.build()
    assert project.build("--list").stdout == f"{'doubling':24} {'fresh':8} {'drawn':8} How one number doubles.\n"
    project.change("2 * p.start", "p.start + p.start")
    assert project.build("--list").stdout.split()[1] == "stale"


def test_a_comment_or_a_caption_makes_no_result_stale(built):
    built.change("Two values.", "A pair.")
    built.change("    start: float", "    # the first\n    start: float")
    assert built.build("--list").stdout.split()[1] == "fresh"
    done = built.build()
    assert "drawn" in done.stdout and "computed" not in done.stdout
    assert "A pair." in (built.results / "doubling" / "figure.md").read_text()


def test_draw_computes_nothing(built):
    result = built.results / "doubling" / "result.json"
    result.write_text(result.read_text().replace("3.0", "4.0").replace("1.5, 4", "2.0, 4"))
    before = result.read_bytes()
    done = built.build("--draw")
    assert done.returncode == 1 and "doubles" in done.stderr  # 4 is not 3: the claim is no longer borne out
    assert "4.0" in (built.results / "doubling" / "data.csv").read_text()
    assert result.read_bytes() == before


def test_force_computes_again(built):
    (built.results / "doubling" / "data.csv").unlink()
    assert "computed, drawn" in built.build("--force").stdout
    assert (built.results / "doubling" / "data.csv").exists()


@pytest.mark.parametrize(
    "old, new",
    [
        ('    return {"values"', "    raise RuntimeError('out of luck')\n    return {\"values\""),
        ("    return drawing", "    raise RuntimeError('out of luck')"),
        ("2 * p.start]", "float('nan')]"),
    ],
    ids=["in compute", "in figure", "a result that is no number"],
)
def test_a_failing_experiment_leaves_the_last_good_files(built, old, new):
    before = {name: file for name, file in built.files().items() if "/" in name}
    built.change(old, new)
    built.change("start: float = 1.5", "start: float = 1.25")
    done = built.build()
    assert done.returncode == 1 and "failed: doubling" in done.stdout
    assert "out of luck" in done.stderr or "nan" in done.stderr
    assert {name: file for name, file in built.files().items() if "/" in name} == before


def test_the_command_itself_exits_with_the_code_of_its_outcome():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build.py", "--only", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "unknown experiment 'nothing'" in done.stderr


def test_an_interruption_leaves_the_last_good_files(built):
    before = built.files()
    built.change('    return {"values"', '    raise KeyboardInterrupt\n    return {"values"')
    assert built.build().returncode != 0
    assert built.files() == before


def test_one_failing_experiment_does_not_stop_the_others(project):
    (project.module.parent / "broken.py").write_text(
        EXPERIMENT.replace("def compute(p):", "def compute(p):\n    1 / 0")
    )
    done = project.build()
    assert done.returncode == 1 and "failed: broken" in done.stdout and "ZeroDivisionError" in done.stderr
    assert (project.results / "doubling" / "figure.svg").exists()


def test_an_experiment_that_lacks_a_name_is_told_so(project):
    project.change("def alt(result)", "def other(result)")
    done = project.build()
    assert done.returncode == 1 and "doubling.py lacks alt" in done.stderr


def test_check_passes_on_what_was_built_and_writes_nothing(built):
    before = built.files()
    done = built.build("--check")
    assert done.returncode == 0 and "as committed" in done.stdout
    assert built.files() == before


def test_check_names_a_changed_number(built):
    result = built.results / "doubling" / "result.json"
    result.write_text(result.read_text().replace("3.0", "3.0000000000000004"))
    before = built.files()
    done = built.build("--check")
    assert done.returncode == 1
    assert "doubling: result.values[1]: committed 3.0000000000000004, computed 3.0" in done.stderr
    assert built.files() == before


def test_check_names_changed_parameters_and_sources(built):
    built.change("seed: int = 0", "seed: int = 1")
    done = built.build("--check")
    assert done.returncode == 1
    assert "doubling: parameters.seed: committed 0, computed 1" in done.stderr and "doubling: sources" in done.stderr


def test_check_without_a_result_says_how_to_get_one(project):
    done = project.build("--check")
    assert done.returncode == 1 and "build.py --only doubling" in done.stderr


def test_unknown_experiment_is_wrong_usage(project):
    done = project.build("--only", "tripling")
    assert done.returncode == 2 and "unknown experiment 'tripling'; known: doubling" in done.stderr


def test_only_leaves_the_others_alone(built):
    other = built.module.with_name("halving.py")
    other.write_text(EXPERIMENT.replace('"doubles"', '"halves"'))
    assert built.build("--only", "doubling").returncode == 0
    assert not (built.results / "halving").exists()
    assert built.build("--only", "halving", "--only", "halving").stdout.count("computed, drawn") == 1


# Comparing


def found(committed, computed, tolerance=None) -> list[str]:
    return list(experiment.differences(committed, computed, tolerance))


def test_without_a_tolerance_the_last_bit_counts():
    assert found({"x": 0.1 + 0.2}, {"x": 0.3}) == ["result.x: committed 0.30000000000000004, computed 0.3"]
    assert found([1.0], [1]) and found([True], [1]) and found([0.0], [-0.0])


def test_a_tolerance_is_relative_or_a_pair_or_by_field():
    assert found([1.0], [1.0 + 1e-9], 1e-8) == [] and found([1.0], [1.0 + 1e-7], 1e-8)
    assert found([0.0], [1e-9], 1e-8) and found([0.0], [1e-9], [1e-8, 1e-8]) == []
    near = ({"x": 1.0, "y": 1.0}, {"x": 1.0 + 1e-9, "y": 1.0 + 1e-9})
    assert found(*near, {"x": 1e-8}) == ["result.y: committed 1.0, computed 1.000000001"]


def test_missing_fields_and_other_lengths_are_named():
    assert found({"a": 1, "b": 2}, {"a": 1, "c": 2}) == [
        "result.b is only in the committed file",
        "result.c is only in the computed file",
    ]
    assert found([1, 2], [1]) == ["result has 2 entries in the committed file and 1 in the computed one"]


# The ledger


def test_two_claims_of_one_name_are_refused(project):
    project.module.with_name("again.py").write_text(EXPERIMENT)
    assert "two claims have the same key: doubles" in project.build().stderr


def test_a_claim_on_a_sentence_that_the_note_lacks_is_refused(project):
    project.change('"note 1.1"', '"note 9.9"')
    assert "unknown source 'note 9.9'; known: note 1.1" in project.build().stderr


def test_a_claim_that_no_longer_holds_fails_the_build_and_is_named(project):
    project.change('r["values"][1] == 3', 'r["values"][1] == 4')
    done = project.build()
    assert done.returncode == 1 and "no longer bear out: doubles" in done.stderr


def test_the_ledger_says_what_is_claimed_and_what_is_not_yet_measured(built):
    rows = json.loads((built.results / "claims.json").read_text())
    assert [row["key"] for row in rows if row["key"]] == ["doubles"]
    assert {row["verdict"] for row in rows if not row["key"]} == {"not yet measured"}
    assert len(rows) == len(ledger.NOTE)
    lines = (built.results / "claims.csv").read_text().splitlines()
    assert lines[0].split(",") == ledger.FIELDS and len(lines) == len(rows) + 1
    assert '<a id="claim-doubles"></a>' in (built.results / "claims.md").read_text()


def test_the_ledger_counts_its_verdicts(built):
    lines = (built.results / "verdicts.md").read_text().splitlines()[2:]
    counted = {line.split(" | ")[0].strip("| "): int(line.split(" | ")[1]) for line in lines}
    (verdict,) = {row["verdict"] for row in json.loads((built.results / "claims.json").read_text()) if row["key"]}
    assert sum(counted.values()) == len(ledger.NOTE)
    assert counted[f"{ledger.SYMBOLS[verdict]} {verdict}"] == 1
    assert counted["○ not yet measured"] == len(ledger.NOTE) - 1


def test_exponents_and_indices_are_typeset():
    assert ledger.typeset("10^-3.5 and 10^(-2 ± 1).") == "10<sup>−3.5</sup> and 10<sup>−2 ± 1</sup>."
    assert ledger.typeset("∂y_L/∂y_{L−1}") == "∂y<sub>L</sub>/∂y<sub>L−1</sub>"
