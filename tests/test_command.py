"""`vgp`, or `python -m vgp_kernels`: what it prints, and how it refuses."""

import json
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from vgp_kernels import ACTIVATIONS, Network, mean_field, propagate
from vgp_kernels.__main__ import main


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command in this process: exit code, output, errors."""

    def run(text):
        monkeypatch.setattr(sys, "argv", ["vgp_kernels", *text.split()])
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def rows(output):
    """Layer, predicted, measured and standard error of each row of the table."""
    found = re.findall(r"^ *(\d+) +(-?[\d.]+) +(-?[\d.]+) ± ([\d.]+)$", output, re.M)
    return [(int(layer), *map(float, numbers)) for layer, *numbers in found]


def test_prints_theory_beside_measurement(command):
    code, output, errors = command("--depth 50 --activation sigmoid --initialiser xavier --trials 200 --seed 3")
    assert (code, errors) == (0, "")
    network = Network(50, 256, "sigmoid", "xavier")
    flow, theory = propagate(network, 200, 3), mean_field(network)
    printed = rows(output)
    assert printed[0][0] == 0 and printed[-1][0] == 50 and len(printed) == 9
    for layer, predicted, measured, error in printed:
        sample = flow.log_gradient[:, layer] / math.log(10)
        assert abs(predicted - theory.log_gradient[layer] / math.log(10)) <= 5.1e-4  # three decimals
        assert abs(measured - sample.mean()) <= 5.1e-4 and abs(error - sample.std() / math.sqrt(200)) <= 6e-4
    assert "the gradient vanishes: x0.2361 per layer" in output and "q* = 0.264687" in output


@pytest.mark.parametrize(
    "options, sentence",
    [
        ("--activation tanh --initialiser he", "explodes: x1.051 per layer, it doubles in 13.8 layers"),
        ("--activation relu --initialiser he", "neither vanishes nor explodes"),
        ("--activation tanh --weight-variance 0.5 --bias-variance 0.1", "vanishes"),
    ],
)
def test_says_in_words_what_the_rate_means(command, options, sentence):
    code, output, errors = command(f"{options} --depth 6 --width 20 --trials 20")
    assert (code, errors) == (0, "") and sentence in output


@pytest.mark.parametrize("options", ["--depth 1 --width 1", "--depth 3 --trials 1", "--weight-variance 1e30"])
def test_odd_networks_are_printed_too(command, options):
    code, output, errors = command(f"--activation tanh --weight-variance 1 --width 5 --trials 9 {options}")
    assert (code, errors) == (0, "") and rows(output) and not re.search("nan|inf", output)


def test_networks_that_pass_no_gradient_are_counted_apart(command):
    code, output, errors = command("--activation relu --initialiser he --width 2 --depth 3 --trials 400")
    zero = np.isneginf(propagate(Network(3, 2, "relu", "he"), 400).log_gradient[:, 0]).sum()
    assert (code, errors) == (0, "") and 0 < zero < 400
    assert re.search(rf"^ *0 .* ± \d\.\d+   it is 0 in {zero} of 400$", output, re.M)
    code, output, errors = command("--activation relu --initialiser he --width 1 --depth 200 --trials 20")
    assert (code, errors) == (0, "") and "it is 0 in 20 of 20" in output and not re.search("nan|inf", output)


@pytest.mark.parametrize(
    "options, words",
    [
        ("", ("initialiser", "weight_variance", "xavier")),
        ("--initialiser xavier --activation relU", ("'relU'", "relu")),
        ("--initialiser glorot", ("'glorot'", "xavier")),
        ("--initialiser xavier --weight-variance 3", ("one of the two",)),
        ("--weight-variance nan", ("weight_variance", "nan")),
        ("--weight-variance -1", ("weight_variance", "-1")),
        ("--initialiser xavier --depth 0", ("depth", "0")),
        ("--initialiser xavier --trials 0", ("trials", "0")),
        ("--initialiser xavier --seed -1", ("seed", "-1")),
        ("--depth ten", ("--depth", "'ten'")),
        ("--colour red", ("--colour",)),
    ],
)
def test_bad_input_is_exit_code_2_and_a_message_that_names_it(command, options, words):
    code, output, errors = command(options)
    assert (code, output) == (2, "")
    assert all(word in errors for word in words) and "Traceback" not in errors


VGP = str(Path(sys.executable).with_name("vgp"))
MODULE = (sys.executable, "-m", "vgp_kernels")


def test_ctrl_c_is_one_line(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vgp_kernels.__main__.propagate", interrupted)
    assert command("--initialiser xavier") == (130, "", "stopped by Ctrl-C\n")


@pytest.mark.parametrize("options", [["--help"], ["--initialiser", "xavier", "--depth", "3", "--trials", "5"]])
def test_a_reader_that_leaves_early_is_no_error_to_write_about(options):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([VGP, *options], stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert done.stderr == "" and done.returncode in (0, 141)  # 0: argparse itself looks away, where nothing is buffered


@pytest.mark.parametrize("start", [(VGP,), MODULE], ids=["console script", "module"])
def test_help_describes_each_option_and_version_is_the_project_s(start):
    shown = {
        option: subprocess.run([*start, option], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
        for option in ("--help", "--version")
    }
    assert [(done.returncode, done.stderr) for done in shown.values()] == [(0, "")] * 2
    usage, _, options = shown["--help"].stdout.partition("options:\n")
    described = dict(re.findall(r"^  (?:-\w, )?(--[\w-]+)(?: [A-Z_]+)?\s{2,}(\w.*)$", options, re.M))
    assert described.keys() == set(re.findall(r"\[(--[\w-]+)", usage)) | {"--help"} and len(described) == 10
    assert all(name in described["--activation"] for name in ACTIVATIONS)
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert shown["--version"].stdout == f"{project['name']} {project['version']}\n"


def test_runs_as_a_module():
    done = subprocess.run(MODULE, capture_output=True, text=True)
    assert done.returncode == 2 and "initialiser" in done.stderr


def test_diagnose_says_what_ails_the_network_of_a_file(command, tmp_path):
    file = tmp_path / "gradients.json"
    file.write_text(
        json.dumps([{"name": f"layer <{i}>", "weight": 1.0, "gradient": 0.3 ** (9 - i)} for i in range(10)])
    )
    code, output, errors = command(f"diagnose {file}")
    assert (code, errors) == (0, "") and "vanishes from layer to layer" in output and "layer <3>" in output
    assert json.loads(command(f"diagnose --json {file}")[1])["kind"] == "vanishing"


@pytest.mark.parametrize(
    "content, sentence", [(None, "cannot be read: No such file"), ("{", "is not JSON"), ("{}", "not a report")]
)
def test_diagnose_refuses_with_a_sentence(command, tmp_path, content, sentence):
    file = tmp_path / "report.json"
    if content is not None:
        file.write_text(content)
    code, output, errors = command(f"diagnose {file}")
    assert (code, output) == (2, "") and sentence in errors and errors.count("\n") == 1
