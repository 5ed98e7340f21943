"""The recorder for PyTorch against PyTorch's own gradients, and the diagnosis against networks whose state is known.

PyTorch is not among the requirements: `make torch` adds it.
"""

import json
import runpy
from pathlib import Path

import pytest

from vgp_kernels.diagnosis import diagnose
from vgp_kernels.diagnosis.kinds import KINDS

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

import diagnosis_cures as cures  # noqa: E402
import diagnosis_networks as networks  # noqa: E402
from record_torch import record  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAVED = json.loads((DOCS / "assets" / "diagnosis.json").read_text())


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def rows(report, kind):
    return {row["name"]: row for row in report["layers"] if row["kind"] == kind}


def test_signal_and_gradient_are_those_that_pytorch_keeps():
    model = networks.mlp(5, 32, nn.ReLU)
    x, y = torch.randn(16, 20), torch.randint(10, (16,))
    with record(model, step=3) as recorder:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
    report = recorder.report
    outputs, h = {}, x
    for name, layer in model.named_children():
        h = layer(h)
        h.retain_grad()
        outputs[name] = h
    F.cross_entropy(h, y).backward()
    linear, relu = rows(report, "linear"), rows(report, "activation")
    assert [row["name"] for row in report["layers"] if row["kind"] == "linear"] == ["0", "2", "4", "6", "8", "10"]
    for name, row in {**linear, **relu}.items():
        h = outputs[name]
        assert row["gradient"] == pytest.approx(h.grad.norm().item(), rel=1e-5)
        assert row["rms"] == pytest.approx(h.square().mean().sqrt().item(), rel=1e-5)
        deviation = (h - h.mean(0)).square().mean().sqrt() / h.square().mean().sqrt()
        assert row["deviation"] == pytest.approx(deviation.item(), rel=1e-4)
    assert relu["1"]["zeros"] == pytest.approx((outputs["1"] == 0).float().mean().item(), rel=1e-6)
    assert relu["9"]["dead"] == pytest.approx((outputs["9"] == 0).all(0).float().mean().item(), rel=1e-6)
    assert report["loss"] == pytest.approx(loss.item(), rel=1e-6) and (report["classes"], report["step"]) == (10, 3)
    for row in report["parameters"]:
        # two backward passes have gone by since then: the same gradient twice
        assert 2 * row["gradient"] == pytest.approx(model.get_parameter(row["name"]).grad.norm().item(), rel=1e-5)


def test_nothing_of_the_pass_changes_and_nothing_is_left_behind():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(4, 8)
    model(x).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with record(model):
        model(x).sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_gradient_over_time_is_that_of_an_unrolled_loop(kind, batch_first):
    cell = kind(3, 8, batch_first=batch_first)
    x = torch.randn(5, 5, 3)
    whole, _ = cell(x)
    with record(cell) as recorder:
        y, _ = cell(x)
        y.select(1 if batch_first else 0, -1).square().sum().backward()
    assert torch.allclose(y, whole, atol=1e-6)
    states, state = [], None
    for t in range(5):
        out, state = cell(x.narrow(1 if batch_first else 0, t, 1), state)
        state = state if isinstance(state, tuple) else (state,)
        for part in state:
            part.retain_grad()
        states.append(state)
        state = state if len(state) > 1 else state[0]
    out.square().sum().backward()
    [row] = recorder.report["time"]
    for t, parts in enumerate(states[:-1]):  # the last output is where the loss takes it, not where the state does
        wanted = sum(part.grad.square().sum() for part in parts) ** 0.5
        assert row["gradient"][t] == pytest.approx(wanted.item(), rel=1e-4)


def test_shared_layers_frozen_ones_and_layers_called_twice():
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(8, 2).requires_grad_(False))
    with record(model) as recorder:
        model(torch.randn(4, 8)).sum().backward()
    linear = [row["name"] for row in recorder.report["layers"] if row["kind"] == "linear"]
    assert linear == ["0", "0", "3"]
    assert [row["trainable"] for row in recorder.report["parameters"]] == [True, True, False, False]


def test_checkpoints_half_precision_and_functions_without_a_module():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.weight = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 2))

        def forward(self, x):
            return torch.tanh(F.relu(self.first(x)) @ self.weight)

    model = Plain()
    with record(model) as recorder, torch.autocast("cpu", torch.bfloat16):
        loss = torch.utils.checkpoint.checkpoint(model, torch.randn(4, 8), use_reentrant=False).float().sum()
        loss.backward()
    kinds = [(row["kind"], row["function"]) for row in recorder.report["layers"]]
    assert kinds[1:] == [("linear", ""), ("activation", "relu"), ("linear", ""), ("activation", "tanh")]


def test_a_compiled_network_is_recorded_without_its_compilation():
    model = torch.compile(networks.mlp(3, 16, nn.ReLU))
    with record(model) as recorder:
        model(torch.randn(4, 20)).sum().backward()
    assert len(rows(recorder.report, "linear")) == 4
    assert any("compiled" in note for note in recorder.report["notes"])


def test_an_error_in_the_pass_is_the_reader_s_own(tmp_path):
    model = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shape"), record(model, tmp_path / "report.json"):
        model(torch.randn(2, 5))
    assert not (tmp_path / "report.json").exists() and not model._forward_hooks


def test_a_report_keeps_to_its_schema(tmp_path):
    schema = json.loads((DOCS / "assets" / "recorders" / "report.schema.json").read_text())
    jsonschema = pytest.importorskip("jsonschema")
    file = tmp_path / "report.json"
    model, loss = networks.bad_root(0)
    with record(model, file):
        loss().backward()
    report = json.loads(file.read_text())  # NaN is text: any reader of JSON reads it
    assert "NaN" not in file.read_text().replace('"nan"', "").replace('"inf"', "")
    jsonschema.validate(report, schema)


def test_the_snippet_names_what_has_no_gradient(tmp_path):
    snippet = runpy.run_path(str(DOCS / "assets" / "recorders" / "snippet_torch.py"))
    model, loss = networks.detached(0)
    loss().backward()
    snippet["gradient_check"](model, tmp_path / "gradients.json")
    answer = diagnose((tmp_path / "gradients.json").read_text())
    assert answer["kind"] == "not_connected" and answer["layers"][0] == "below.0.weight"
    assert len((DOCS / "assets" / "recorders" / "snippet_torch.py").read_text().splitlines()) <= 25


def test_no_healthy_network_is_accused_no_sick_one_cleared_and_nine_of_ten_kinds_are_named():
    found = networks.everything(seeds=(0,))
    sick = [row for row in found if row["true"] != "healthy"]
    healthy = [row for row in found if row["true"] == "healthy"]
    assert len(sick) >= 40 and len(healthy) >= 20
    assert [row for row in healthy if row["outcome"] == "accused"] == []
    assert [row for row in sick if row["outcome"] == "cleared"] == []
    assert sum(row["outcome"] == "right" for row in sick) >= 0.9 * len(sick)
    assert {row["where"] for row in found if row["true"] == "dead_layer"} == {"7"}  # of model[6], which has the biases
    assert [row for row in found if row["layer"] is False] == [] and sum(row["layer"] is True for row in sick) >= 40
    assert sum(row["change"] for row in sick) >= 0.9 * len(sick) and all(row["change"] for row in healthy)
    kept = {(row["network"], row["size"]): scores(row) for row in SAVED["networks"] if row["seed"] == 0}
    assert kept == {(row["network"], row["size"]): scores(row) for row in found}


def scores(row):
    return [row[key] for key in ("true", "said", "layer", "change")]


def test_a_wrong_layer_is_counted_as_wrong():
    assert networks.layer_is_right(["0", "2"], ["2", "0"]) and networks.layer_is_right({"0", "2"}, ["2"])
    for true, named in (
        (["0", "2"], ["0"]),
        (["0"], ["0", "2"]),
        ({"0", "2"}, ["4"]),
        ({"0", "2"}, ["0", "2"]),
        (["0"], []),
    ):
        assert not networks.layer_is_right(true, named)


ONE_OF_EACH_KIND = {case[0]: case for case in reversed(cures.treated())}.values()


@pytest.mark.parametrize("case", ONE_OF_EACH_KIND, ids=lambda case: case[3].__name__)
def test_the_change_helps_where_the_file_says_so(case):
    row = cures.compare(case, 0)
    [saved] = [one for one in SAVED["trained"] if (one["network"], one["seed"]) == (case[1], 0)]
    assert (row["true"], row["change"], cures.helps(row)) == (saved["true"], saved["change"], cures.helps(saved))
    assert (row["as_it_is"] == "NaN") == (saved["as_it_is"] == "NaN")


def test_a_change_that_does_not_help_says_when():
    """And all that is trained has been trained with at least three seeds, as the page's tables say."""
    helped = {}
    for row in SAVED["trained"]:
        helped.setdefault((row["network"], row["true"]), []).append(cures.helps(row))
    assert all(len(seeds) >= 3 for seeds in helped.values())
    assert {network for network, _ in helped} == {case[1] for case in cures.treated()}
    failed = {kind for (_, kind), seeds in helped.items() if sum(seeds) * 2 < len(seeds)}
    assert failed == {kind for _, kind in helped if " may " in KINDS[kind]["change"]}
    assert SAVED["training"]["steps"] == cures.STEPS and SAVED["training"]["seeds"] == list(cures.SEEDS)
    assert (DOCS / "assets" / "diagnosis_cures.txt").read_text() == cures.table(SAVED["trained"])
    assert (DOCS / "assets" / "diagnosis_table.txt").read_text() == networks.table(SAVED["networks"])
