"""scripts/build.py, with one small experiment in a folder of its own; and the ledger."""

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import build
import experiment
import ledger
import pytest

ROOT = Path(__file__).resolve().parents[2]

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
        monkeypatch.setattr(experiment.style, "printed", lambda figure, kind: kind.encode())  # most of the time
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
        *(f"doubling/{file}" for file in ("result.json", experiment.NOTED, *experiment.DRAWN)),
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


def test_check_names_changed_parameters(built):
    built.change("seed: int = 0", "seed: int = 1")
    done = built.build("--check")
    assert done.returncode == 1
    assert "doubling: parameters.seed: committed 0, computed 1" in done.stderr


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


# What is stale, damaged or refused


def state(project: Project) -> str:
    return project.build("--list").stdout.split()[1]


def forget(project: Project) -> None:
    """As after cloning: what was drawn and noted is not there."""
    for path in (project.results / "doubling").iterdir():
        if path.name != "result.json":
            path.unlink()


def test_a_committed_result_without_a_note_is_fresh_unless_its_parameters_have_changed(built):
    forget(built)
    built.change("2 * p.start", "p.start + p.start")
    assert state(built) == "fresh"
    built.change("start: float = 1.5", "start: float = 1.25")
    assert state(built) == "stale"


def test_what_a_result_was_computed_by_is_noted_when_it_is_first_drawn(built):
    forget(built)
    assert "drawn" in built.build().stdout
    built.change("2 * p.start", "p.start + p.start")
    assert state(built) == "stale"
    assert built.build("--draw").returncode == 0
    assert state(built) == "stale"  # drawing computes nothing
    assert "computed" in built.build().stdout
    assert state(built) == "fresh"


def test_a_result_that_came_with_the_code_is_taken_as_it_is(built):
    """After a pull that brings both."""
    built.change("2 * p.start", "p.start + p.start")
    result = built.results / "doubling" / "result.json"
    result.write_text(result.read_text().replace('"x86_64"', '"aarch64"').replace('"python"', '"Python"'))
    assert state(built) == "fresh"


def test_code_that_compute_reaches_in_another_script_makes_a_result_stale_and_a_caption_there_does_not(project):
    other = project.module.with_name("halving.py")
    other.write_text(EXPERIMENT.replace('"doubles"', '"halves"') + "\n\ndef twice(x):\n    return 2 * x\n")
    project.change("from style", "from experiments.halving import twice\nfrom style")
    project.change("2 * p.start", "twice(p.start)")
    assert project.build().returncode == 0 and state(project) == "fresh"
    other.write_text(other.read_text().replace("Two values.", "A pair."))
    assert state(project) == "fresh"
    other.write_text(other.read_text().replace("2 * x", "x + x"))
    assert state(project) == "stale"


def test_drawings_are_stale_by_content_and_not_by_the_clock(built):
    for path in [built.module, *(built.results / "doubling").iterdir()]:
        os.utime(path, (1e9, 1e9) if path.suffix == ".svg" else None)
    assert "up to date" in built.build().stdout
    figure = built.results / "doubling" / "figure.svg"
    whole = figure.read_bytes()
    figure.write_bytes(whole[:100])
    os.utime(figure, (4e9, 4e9))
    assert "drawn" in built.build().stdout and figure.read_bytes() == whole
    built.change("Two values.", "A pair.")
    os.utime(built.module, (1e9, 1e9))
    built.build()
    assert "A pair." in (built.results / "doubling" / "figure.md").read_text()


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda content: content[:60], "is no JSON, or only a part of it"),
        (lambda content: b"", "is no JSON, or only a part of it"),
        (lambda content: os.urandom(99), "is no JSON, or only a part of it"),
        (lambda content: b"[1, 2]", "is of another version, it holds no fields"),
        (lambda content: b'{"result": {}}', "is of another version, it lacks about, parameters, made_with"),
        (None, "no result for 'doubling'"),
    ],
    ids=["truncated", "empty", "garbage", "a list", "of another version", "missing"],
)
def test_a_result_that_cannot_be_used_is_one_line_with_the_way_out_and_is_computed_again(built, damage, said):
    result = built.results / "doubling" / "result.json"
    whole = result.read_bytes()
    result.unlink() if damage is None else result.write_bytes(damage(whole))
    for option in ("--draw", "--check"):
        done = built.build(option)
        line, *more = done.stderr.splitlines()
        assert said in line and "run `python scripts/build.py --only doubling`" in line
        assert done.returncode == 1 and not [text for text in more if "Traceback" in text]
    with pytest.raises(experiment.Failed, match=r"--only doubling`$"):
        build.draw_missing()
    assert state(built) == ("missing" if damage is None else "damaged")
    assert "computed, drawn" in built.build().stdout
    assert result.read_bytes() == whole


def test_a_note_that_cannot_be_read_counts_as_none(built):
    note = built.results / "doubling" / experiment.NOTED
    for content in (b"", b"[]", os.urandom(50), note.read_bytes()[:40]):
        note.write_bytes(content)
        assert state(built) == "fresh"
        assert "drawn" in built.build().stdout


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_one_line_and_leaves_the_last_good_files(built, monkeypatch, number):
    before = built.files()

    def refuse(path, content):
        path.touch()
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    done = built.build("--force")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"docs/results/doubling/result.json cannot be written: {os.strerror(number)}" in done.stderr
    assert built.files() == before


def test_a_file_where_the_folder_should_be_is_one_line(project):
    project.results.parent.mkdir(parents=True)
    project.results.write_text("")
    done = project.build()
    assert done.returncode == 1 and "Traceback" not in done.stderr and "cannot be written" in done.stderr


def test_without_numbas_compiler_nothing_is_tried(built, monkeypatch):
    monkeypatch.setattr(build.cache.config, "DISABLE_JIT", 1)
    done = built.build("--force")
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "the kernels exist as machine code only: unset NUMBA_DISABLE_JIT"
    ]


def test_the_fingerprint_is_of_parameters_and_numbers_alone(built):
    document = experiment.saved("doubling")
    same, other = document | {"made_with": {}}, document | {"result": document["result"] | {"values": [1.5, 3.5]}}
    assert experiment.fingerprint(same) == experiment.fingerprint(document) != experiment.fingerprint(other)
    assert experiment.fingerprint(document) in (built.results / "experiments.md").read_text()


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
