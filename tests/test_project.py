"""The project's own files: lock, workflow, style, types."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
    ],
    ids=" ".join,
)
def test_style_and_types(command):
    done = run(sys.executable, "-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_passes_actionlint():
    done = run(
        str(Path(sys.executable).with_name("actionlint")), "-color", *map(str, (ROOT / ".github").rglob("*.yml"))
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lock_has_a_hash_for_each_requirement_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    requirements = [part for part in re.split(r"\n(?=\S)", text) if part.strip() and not part.startswith("#")]
    assert len(requirements) > 50
    assert [part for part in requirements if "==" not in part or "--hash=sha256:" not in part] == []


def test_the_python_that_deploys_and_the_oldest_are_among_those_that_are_tried():
    tried = re.search(r"^for version in ([\d. ]+); do$", (ROOT / ".ci" / "run").read_text(), re.M)[1].split()
    deploys = re.search(r'python-version: "([\d.]+)"', (ROOT / ".github" / "workflows" / "site.yml").read_text())[1]
    oldest = re.search(r'requires-python = ">=(\d+\.\d+)', (ROOT / "pyproject.toml").read_text())[1]
    assert {deploys, oldest} <= set(tried)


def test_one_numpy_for_all_pythons_is_one_that_numba_cuda_can_work_with():
    versions = re.findall(r"^numpy==(\d+)\.(\d+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert versions and all((int(major), int(minor)) < (2, 5) for major, minor in versions)  # 2.5 has no row_stack


def test_every_file_the_readme_names_exists():
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(([^):]+)\)", text) + re.findall(r"^    ([a-z_]+/[\w./]*)", text, re.M)
    named += re.findall(r"`((?:vgp_kernels|scripts|docs|tests)/[\w./]*)`", text)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_generated_figure_or_vendored_library_is_committed():
    files = run("git", "ls-files").stdout.split()
    if not files:
        pytest.skip("not a git checkout: what is committed cannot be listed")
    assert [name for name in files if re.search(r"(figure\.svg|\.woff2?|\.min\.js|MathJax)", name)] == []
