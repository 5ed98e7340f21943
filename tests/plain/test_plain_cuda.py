"""The CUDA target without a GPU: its bits under Numba's simulator, its PTX and machine code, and what it says when it cannot run."""

import functools
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build
import numba
import numpy as np
import pytest
from benchmark_cuda import ARCHITECTURES, assembled, trained, verified
from gpu_code import assert_same_bits, assert_strict, strictly_assembled

from vgp_kernels import (
    ACTIVATIONS,
    Network,
    Recurrent,
    Transformer,
    Weights,
    initial_weights,
    propagate,
    train,
    weight_gradients,
)
from vgp_kernels.classifier import cuda as training
from vgp_kernels.numerics import lanes
from vgp_kernels.plain import cuda as plain
from vgp_kernels.targets import blocks, compiling, families
from vgp_kernels.targets import gpu as target
from vgp_kernels.targets.families import takes_gpu

QUANTITIES = ("log_signal", "log_gradient", "log_weight_gradient")
NAMES = [*sorted(ACTIVATIONS), "leaky_relu(0.3)"]
PLAIN = Network(3, 4, "tanh", "xavier")


# The simulator: kernels run as Python, thread by thread; the scalar functions they call are compiled for the CPU

SIMULATE = """
import pickle, sys
import numpy as np
from vgp_kernels import propagate
from vgp_kernels.plain import cuda as plain

# compiled here: while a block's many threads wait for a compiler, they keep it from working
word, single = np.uint32(0), np.float32(1)
plain.input_sums(1, word, word, word)
plain.squares_of_chunk(0, 1, word, word, word, word)
plain.step_forward(1.0, 1, 1.0, 1.0, 0, True, True)
plain.step_forward_orthogonal(1.0, 1.0, 1.0, 1.0, 0, 0)
plain.bias_noise(1.0, word, word, word, word)
plain.step_back(True, 1, *[1.0] * 9, 0, *[1.0] * 3, 0, *[1.0] * 4)
plain.log_rms(1.0, 0, 1)
for name in ("tanh", "relu", "gelu"):
    plain.chunk_function(name)(0, 1, single, single, word, word, word, word)

results = []
for network, trials, seed, full, output in pickle.load(open(sys.argv[1], "rb")):
    plain.FULL = full
    flow = propagate(network, trials, seed, target="cuda", output=output)
    results.append([getattr(flow, name) for name in ("log_signal", "log_gradient", "log_weight_gradient")])
    if output == "device":
        results[-1] = [array.copy_to_host() for array in results[-1]]
pickle.dump(results, open(sys.argv[2], "wb"))
"""

FULL = plain.FULL  # networks from which on none is shared, and the most that pass through at a time
JOBS = {  # network, trials, seed, FULL, output
    "one thread a network, ragged": (Network(3, 5, "tanh", "xavier", bias_variance=0.1), 129, 3, FULL, "host"),
    "one network": (Network(2, 2, "tanh", "xavier"), 1, 0, FULL, "host"),
    "two threads a network, an odd width": (
        Network(3, 131, "tanh", "he", bias_variance=0.1, input_width=3), 65, 4, FULL, "host"),
    "four threads a network, chunks left over": (Network(2, 700, "tanh", "xavier", input_rms=2.5), 33, 2**63 + 5, FULL, "host"),
    "several chunks for one thread": (Network(2, 300, "tanh", "xavier"), 130, 1, 128, "host"),
    "portions": (Network(2, 3, "tanh", "xavier"), 300, 6, 128, "host"),
    "results left on the device": (Network(2, 3, "tanh", "xavier"), 300, 6, 128, "device"),
    "dead networks": (Network(4, 2, "relu", "he"), 40, 7, FULL, "host"),
    "width one": (Network(4, 1, "relu", "he", bias_variance=0.1), 9, 8, FULL, "host"),
    "Haar with biases": (Network(3, 4, "gelu", "orthogonal", 0.8, 0.2, input_rms=0.3), 35, 9, FULL, "host"),
    "Haar without biases, shared": (Network(2, 259, "relu", "orthogonal"), 34, 10, FULL, "host"),
    "signals that leave float32's range": (Network(60, 3, "relu", weight_variance=1e-6), 5, 11, FULL, "host"),
    "signals that leave it upwards": (Network(40, 3, "relu", weight_variance=1e9, bias_variance=0.2), 5, 12, FULL, "host"),
}  # fmt: skip


@pytest.fixture(scope="module")
def simulated(toolkit, tmp_path_factory):
    """{title: the three arrays}, from a process whose numba-cuda simulates a GPU."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "jobs").write_bytes(pickle.dumps(list(JOBS.values())))
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", SIMULATE, str(folder / "jobs"), str(folder / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(JOBS, pickle.loads((folder / "results").read_bytes()), strict=True))


@pytest.mark.parametrize("title", JOBS)
def test_simulated_threads_give_the_bits_of_the_cpu(title, simulated):
    network, trials, seed, _, _ = JOBS[title]
    assert_same_bits(propagate(network, trials, seed), dict(zip(QUANTITIES, simulated[title], strict=True)))


@pytest.mark.parametrize("title", JOBS)
def test_a_gpu_gives_the_bits_of_the_cpu(title, monkeypatch, toolkit):
    if lacking := target.missing():
        pytest.skip(lacking)
    network, trials, seed, full, output = JOBS[title]
    monkeypatch.setattr(plain, "FULL", full)
    expected, flow = propagate(network, trials, seed), propagate(network, trials, seed, target="cuda", output=output)
    for name in QUANTITIES:
        found = getattr(flow, name)
        assert not hasattr(found, "__cuda_array_interface__") if output == "host" else found.__cuda_array_interface__
        host = found if output == "host" else found.copy_to_host()
        assert host.tobytes() == getattr(expected, name).tobytes()


def test_the_cases_reach_what_they_are_named_for(simulated):
    assert [plain.workers_for(trials, network.width) for network, trials, *_ in JOBS.values()] == [
        1, 1, 2, 4, 4, 1, 1, 1, 1, 1, 4, 1, 1
    ]  # fmt: skip
    assert np.isneginf(simulated["dead networks"][0]).any()
    assert np.nanmin(simulated["signals that leave float32's range"][0]) < np.log(1e-100)
    assert np.nanmax(simulated["signals that leave it upwards"][0]) > np.log(1e100)
    assert len({array[0].tobytes() for array in simulated.values()}) == len(JOBS) - 1  # portions, host and device


# The compiler


@functools.cache
def forward_ptx(name, capability=(7, 5)):
    return compiling.ptx(plain.forward_kernel(name), plain.FORWARD, capability)


def assert_lean(figures, registers):
    assert figures["registers"] <= registers
    assert {figures[name] for name in ("stack", "spill_stores", "spill_loads")} == {0}


@pytest.mark.parametrize("name", NAMES)
def test_the_way_forward_compiles_to_strict_code_without_spills(name, toolkit):
    for architecture in ARCHITECTURES:
        assert_lean(strictly_assembled(forward_ptx(name), architecture), 85)  # six blocks a multiprocessor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_kernels_compile_to_strict_code_without_spills(architecture, toolkit):
    major, minor = divmod(int(architecture.removeprefix("sm_")), 10)
    for kernel, signature in plain.sources("tanh"):
        ptx = compiling.ptx(kernel, signature, (major, minor))
        assert_lean(strictly_assembled(ptx, architecture), 128)  # four blocks a multiprocessor


def test_gpus_that_compile_side_by_side_get_the_code_they_get_alone(toolkit):
    targets = [(7, 5), (8, 0), (9, 0)] * 2
    start = threading.Barrier(len(targets))

    def compiled(capability):
        start.wait()
        return compiling.ptx(plain.run_back, plain.BACK, capability)

    with ThreadPoolExecutor(len(targets)) as pool:
        together = [*pool.map(compiled, targets)]
    assert [unnumbered(text) for text in together] == [
        unnumbered(compiling.ptx(plain.run_back, plain.BACK, capability)) for capability in targets
    ]


def unnumbered(ptx):
    """Without functions' names, which count the functions of the process."""
    return re.sub(r"_ZN\w+", "function", ptx)


def test_functions_that_are_not_marked_as_convergent_are_an_error():
    marked = compiling.all_convergent("define void @f(i32 %x) {\n}\ndefine i32 @g() {\n}\n")
    assert re.findall(r"define .*", marked) == ["define void @f(i32 %x) convergent {", "define i32 @g() convergent {"]
    with pytest.raises(RuntimeError, match="convergent"):
        compiling.all_convergent("define void @f(i32 %x) {\n}\ndefine void @g(\n  i32 %x) {\n}\n")


def test_code_for_an_unknown_target_is_an_error():
    class CUDARenamedContext:
        pass

    with pytest.raises(RuntimeError, match="CUDARenamedContext"):
        lanes.on_gpu(CUDARenamedContext())


def test_the_checks_notice_contraction(monkeypatch, toolkit):
    from numba.cuda.cudadrv import nvvm

    compile_ir = nvvm.compile_ir
    monkeypatch.setattr(nvvm, "compile_ir", lambda module, fma, **options: compile_ir(module, **options))
    ptx = compiling.ptx(plain.run_back, plain.BACK, (8, 0))
    with pytest.raises(AssertionError):
        assert_strict(ptx)
    assert assembled(ptx, "sm_80")[0] != assembled(ptx, "sm_80", contract=True)[0]


def test_the_command_verifies_every_family_activation_and_law():
    jobs = [network for network, *_ in verified()]
    plain_jobs = [network for network in jobs if isinstance(network, Network) and network.is_plain]
    assert {
        (name, law, biases) for name in ACTIVATIONS for law in ("gaussian", "orthogonal") for biases in (False, True)
    } <= {(network.activation, network.law, network.bias_variance > 0) for network in plain_jobs}
    assert {network.family for network in jobs} == {*families.FAMILIES} - {"classifier"}
    for family in ("batch", "transformer"):
        assert set(ACTIVATIONS) <= {network.activation for network in jobs if network.family == family}
    assert {*ACTIVATIONS, "lstm", "gru"} <= {network.cell for network in jobs if network.family == "recurrent"}
    assert set(ACTIVATIONS) <= {network.activation for network, _ in trained()}


class OnDevice:
    """An array that says it is on a GPU, and that NumPy cannot read."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape
        self.__cuda_array_interface__ = array.__array_interface__

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def copy_to_host(self):
        return self.array


def test_given_weights_and_inputs_may_lie_on_a_gpu(monkeypatch, toolkit):
    from numba import cuda

    monkeypatch.setattr(cuda, "as_cuda_array", lambda array: array)
    network, generator = Network(2, 3, "tanh", "xavier"), np.random.default_rng(0)
    weights, inputs, labels = initial_weights(network, 3, 2), generator.standard_normal((4, 3)), np.array([0, 1, 1, 0])
    moved = [tuple(map(OnDevice, weights.matrices)), tuple(map(OnDevice, weights.biases))]
    expected = weight_gradients(network, weights, inputs, labels)
    found = weight_gradients(network, Weights(*moved), OnDevice(inputs), OnDevice(labels))
    for one, other in zip(expected.gradients.matrices, found.gradients.matrices, strict=True):
        assert one.tobytes() == other.tobytes()


# What it says when it cannot run


@pytest.fixture
def no_gpu(toolkit):
    if target.missing() is None:
        pytest.skip("there is a GPU")


def test_without_a_gpu_the_target_says_what_is_missing(no_gpu):
    with pytest.raises(RuntimeError, match=r"target 'cuda' cannot run here: no NVIDIA .*; or take target='cpu'"):
        propagate(PLAIN, 1, target="cuda")


def test_results_for_a_gpu_are_not_computed_without_one(no_gpu, capsys):
    assert build.main(["--target", "cuda", "--check", "--only", "quarter"]) == 1
    assert "--target cuda cannot run here: no NVIDIA" in capsys.readouterr().err


# A process that cannot find it, as where it is not installed; and one whose NumPy lacks what it calls, as NumPy 2.5 does.
ABSENT = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba_cuda" else find(name, *rest)
"""
UNUSABLE = "import numba.np.arrayobj, numpy; del numpy.row_stack; numpy.__all__.remove('row_stack')"
without_numba_cuda = pytest.mark.parametrize("lacking", [ABSENT, UNUSABLE], ids=["not installed", "beside NumPy 2.5"])


@without_numba_cuda
def test_without_numba_cuda_the_target_says_how_to_get_it(lacking):
    script = f"""
{lacking}
from vgp_kernels import Network, propagate
from vgp_kernels.targets import gpu as cuda
network = Network(3, 4, "tanh", "xavier")
assert propagate(network, 1, target="auto").trials == 1
try:
    propagate(network, 1, target="cuda")
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in (
        "numba-cuda is not installed",
        "pip install 'numba-cuda[cu13]<0.31' 'numpy<2.5'",
        "'numba-cuda[cu12]<0.31'",
        "target='cpu'",
    ):
        assert words in done.stdout


@without_numba_cuda
def test_without_numba_cuda_the_lab_says_so_and_goes_on(lacking):
    lab = Path(__file__).resolve().parents[2] / "docs" / "labs" / "one_source_two_targets.py"
    script = f"{lacking}\nimport runpy; runpy.run_path({str(lab)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing is compiled for a graphics card here: numba-cuda is not installed" in done.stdout
    assert done.stdout.count("pip install 'numba-cuda[cu13]<0.31' 'numpy<2.5'") == 2  # where it is compiled, and run


# Every family


FOUND = {  # network: what its kernel has found, in the order of its outputs
    Network(2, 3, "tanh", "xavier", batch_size=2): (
        "log_signal", "log_gradient", "log_weight_gradient", "correlation", "gradient_correlation"),
    Recurrent(2, 3, "tanh", "xavier"): ("log_signal", "log_gradient", "log_weight_gradient", "", "", "log_total_weight_gradient"),
    Recurrent(2, 3, "lstm", "xavier"): (
        "log_signal", "log_gradient", "log_weight_gradient", "log_cell_gradient", "log_direct_gradient",
        "log_total_weight_gradient"),
    Transformer(2, 4): ("log_signal", "log_gradient", "log_weight_gradient", "log_matrix_gradient", "log_residual"),
}  # fmt: skip


@pytest.mark.parametrize("network", FOUND, ids=str)
def test_propagate_names_what_a_gpu_has_found(network, monkeypatch, toolkit):
    monkeypatch.setattr(target, "missing", lambda: None)
    monkeypatch.setattr(
        blocks, "run", lambda job, trials, *_: [np.full((trials, *shape), i) for i, shape in enumerate(job.outputs)]
    )
    expected, flow = propagate(network, 3), propagate(network, 3, target="cuda")
    for i, name in enumerate(FOUND[network]):
        if name:
            assert getattr(flow, name).shape == getattr(expected, name).shape
            assert (getattr(flow, name) == i).all()


@pytest.mark.parametrize("network", [*FOUND, Network(2, 3, "tanh", "orthogonal")], ids=str)
def test_kernels_take_what_they_are_given(network, monkeypatch, toolkit):
    """A GPU would say so otherwise: the types of what a kernel is started with are those of its signature."""
    jobs = []
    room = training if network.family == "plain" else families.family_of(network).cuda
    monkeypatch.setattr(
        blocks, "run", lambda job, trials, *_: jobs.append(job) or [np.zeros((trials, *s)) for s in job.outputs]
    )
    monkeypatch.setattr(target, "missing", lambda: None)
    if room is training:
        train(network, np.eye(3), [0, 1, 0], learning_rate=0.1, epochs=1, batch_size=2, target="cuda")
        signature = training.TRAIN
    else:
        propagate(network, 1, target="cuda")
        signature = room.signature()
    (job,) = jobs
    arrays = [np.empty((2, *shape)) for shape in job.outputs] + [
        np.empty((2, *shape), kind) for shape, kind in job.room
    ]
    given = [np.uint32(0), 0, *job.arguments, *arrays]
    assert [numba.typeof(value) for value in given] == [*signature.args]


def test_lanes_are_a_power_of_two():
    assert [blocks.lanes_for(entries, 256) for entries in (1, 32, 33, 65, 100, 128, 300, 10_000)] == [
        32, 32, 64, 128, 128, 128, 256, 256
    ]  # fmt: skip


# What is taken


def test_results_on_the_device_need_the_target():
    with pytest.raises(ValueError, match="output 'device' needs target='cuda'"):
        propagate(PLAIN, 1, output="device")
    with pytest.raises(ValueError, match="unknown output 'gpu'; known: device, host"):
        propagate(PLAIN, 1, output="gpu")


def test_auto_takes_a_gpu_where_it_gains(monkeypatch):
    large = math.ceil(target.GAIN / plain.cost(PLAIN))
    for lacking, expected in (("all", False), (None, True)):
        monkeypatch.setattr(target, "missing", lambda lacking=lacking: lacking)
        assert takes_gpu(PLAIN, large, "auto") is expected
        assert takes_gpu(PLAIN, 1, "auto") is False
        assert takes_gpu(PLAIN, large, "cpu") is False


def test_the_environment_names_the_default_target(monkeypatch):
    monkeypatch.setattr(target, "missing", lambda: None)
    monkeypatch.setenv("VGP_TARGET", "cuda")
    assert takes_gpu(PLAIN, 1, None) is True
    assert takes_gpu(Recurrent(2, 3, "tanh", "xavier"), 1, None) is True
    assert takes_gpu(PLAIN, 1, "cpu") is False
    monkeypatch.setenv("VGP_TARGET", "gpu")
    with pytest.raises(ValueError, match="unknown target 'gpu'"):
        takes_gpu(PLAIN, 1, None)
