"""What a module needs is what it reaches by its imports; and machine code on disk counts as long as that has not changed."""

import errno
import importlib
import os
import shutil
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest

from vgp_kernels.plain import kernels as cpu
from vgp_kernels.targets import cache, sources
from vgp_kernels.targets.families import FAMILIES

HOUSE = {
    "house/__init__.py": "from house.rooms.kitchen import cook\n__all__ = ['cook']\n",
    "house/rooms/__init__.py": "",
    "house/rooms/kitchen.py": '''
        """Where meals are made."""
        from ..cellar import stores
        from .tables import LEGS  # four
        def cook(n):
            """A meal."""
            return n * stores.WINE + LEGS
        ''',
    "house/rooms/tables.py": "LEGS = 4\n",
    "house/rooms/garden.py": "FLOWERS = 7\n",
    "house/cellar/stores.py": "import numpy\nWINE = 3\n",
    "house/guest.py": "from house import cook\n",
}


@pytest.fixture
def house(tmp_path) -> Path:
    for name, text in HOUSE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return tmp_path


def digest(house: Path, file="house/rooms/kitchen.py", names=None) -> str:
    return sources.digest(house / file, names, {"house": house})


def change(house: Path, file: str, old: str, new: str) -> None:
    text = (house / file).read_text()
    assert old in text
    (house / file).write_text(text.replace(old, new))


def test_a_module_reaches_what_it_imports_through_folders(house):
    reached = [path.relative_to(house).as_posix() for path in sources.files(house / "house/guest.py", {"house": house})]
    assert reached == [
        *("house/cellar/stores.py", "house/guest.py", "house/rooms/kitchen.py", "house/rooms/tables.py"),
    ]


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("house/rooms/kitchen.py", "# four", "# as most have"),
        ("house/rooms/kitchen.py", "A meal.", "A good meal."),
        ("house/rooms/kitchen.py", '"""Where meals are made."""', "# no docstring\n\n"),
        ("house/rooms/kitchen.py", "n * stores.WINE + LEGS", "(n * stores.WINE\n        + LEGS)"),
        ("house/cellar/stores.py", "WINE", "# red\nWINE"),
        ("house/rooms/garden.py", "7", "8"),
        ("house/__init__.py", "cook", "cook, LEGS"),
    ],
)
def test_comments_docstrings_line_breaks_and_what_is_not_reached_change_no_digest(house, file, old, new):
    before = digest(house)
    change(house, file, old, new)
    assert digest(house) == before


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("house/rooms/kitchen.py", "+ LEGS", "- LEGS"),
        ("house/rooms/tables.py", "4", "3"),
        ("house/cellar/stores.py", "WINE = 3", "WINE = 3.0"),
    ],
)
@pytest.mark.parametrize("of", ["house/rooms/kitchen.py", "house/guest.py"])
def test_a_changed_constant_in_a_subfolder_changes_the_digest(house, of, file, old, new):
    before = digest(house, of)
    change(house, file, old, new)
    assert digest(house, of) != before


@pytest.mark.parametrize(
    "statement",
    [
        "def f():\n    from house.rooms import garden",
        "def f():\n    import house.rooms.garden",
        "if True:\n    from ..rooms.garden import FLOWERS",
        "class A:\n    from house.rooms.garden import FLOWERS",
    ],
)
def test_imports_count_wherever_they_stand(house, statement):
    change(house, "house/rooms/tables.py", "LEGS = 4\n", f"LEGS = 4\n{statement}\n")
    before = digest(house)
    change(house, "house/rooms/garden.py", "7", "8")
    assert digest(house) != before


def test_what_is_for_type_checkers_only_does_not_count(house):
    more = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.rooms.garden import FLOWERS\n"
    change(house, "house/rooms/tables.py", "LEGS = 4\n", f"LEGS = 4\n{more}")
    before = digest(house)
    change(house, "house/rooms/garden.py", "7", "8")
    assert digest(house) == before


def test_a_package_that_does_something_of_its_own_counts_whole(house):
    (house / "house/cellar/__init__.py").write_text("from house.rooms import garden\nCOLD = 4\n")
    change(house, "house/rooms/tables.py", "LEGS = 4\n", "LEGS = 4\nfrom house.cellar import COLD\n")
    before = digest(house)
    change(house, "house/rooms/garden.py", "7", "8")
    assert digest(house) != before


@pytest.mark.parametrize(
    "statement",
    [
        "from house.rooms.garden import *",
        "import importlib; module = importlib.import_module('house.rooms.' + 'garden')",
        "from importlib import import_module; module = import_module('house.rooms.garden')",
        "module = __import__('house.rooms.garden')",
        "from importlib import import_module as load; module = load('house.rooms.garden')",
        "import runpy; module = runpy.run_path('garden.py')",
        "from house.rooms import attic",
        "from . import attic",
        "from .attic import DUST",
        "import house.attic",
    ],
)
def test_an_import_that_is_not_understood_is_an_error_that_names_file_and_line(house, statement):
    change(house, "house/rooms/tables.py", "LEGS = 4\n", f"LEGS = 4\n{statement}\n")
    with pytest.raises(ValueError, match=r"house/rooms/tables\.py, line 2: "):
        digest(house)


def test_with_names_only_the_statements_on_which_they_depend_count(house):
    change(
        house, "house/guest.py", "from house import cook\n", "from house import cook\nA = 1\nB = A + 1\nC = cook(B)\n"
    )
    b, c = digest(house, "house/guest.py", ["B"]), digest(house, "house/guest.py", ["C"])
    change(house, "house/rooms/tables.py", "4", "3")
    assert digest(house, "house/guest.py", ["B"]) == b and digest(house, "house/guest.py", ["C"]) != c
    change(house, "house/guest.py", "A = 1", "A = 2")
    assert digest(house, "house/guest.py", ["B"]) != b


def test_every_module_of_the_package_has_a_digest_of_its_own():
    modules = sorted(sources.PACKAGE.rglob("*.py"))
    assert len({sources.digest(module) for module in modules}) == len(modules)


def test_kernels_of_one_family_do_not_depend_on_another():
    names = [name for name in FAMILIES if name != "classifier"] + ["theory"]
    for name in names:
        reached = {path.parent.name for file in (sources.PACKAGE / name).glob("*.py") for path in sources.files(file)}
        assert name == "theory" or name in reached
        assert name == "theory" or not reached & {*names} - {name}, name


def test_who_hands_networks_on_needs_the_kernels_of_those_that_are_described(tmp_path):
    file, kernels = tmp_path / "a.py", {}
    for said in ("Network, propagate", "Network, mean_field", "Recurrent, propagate", "Transformer, propagate"):
        file.write_text(f"from vgp_kernels import {said}\n")
        found = sources.files(file)
        kernels[said] = {path.parent.name for path in found if path.name == "kernels.py"}
    assert kernels["Network, propagate"] == {"plain", "batch"} and not kernels["Network, mean_field"]
    assert kernels["Recurrent, propagate"] == {"plain", "batch", "recurrent"}
    assert "transformer" in kernels["Transformer, propagate"] and "recurrent" not in kernels["Transformer, propagate"]


def test_what_keeps_machine_code_does_not_count():
    reached = sources.files(sources.PACKAGE / "train.py")
    assert sources.PACKAGE / "classifier" / "kernels.py" in reached and not sources.KEEPING & set(reached)


def test_kernels_are_kept_on_disk_by_this_package_and_not_by_numba():
    """Numba's own cache does not see what a function imports."""
    assert [path.name for path in sources.PACKAGE.rglob("*.py") if "cache=True" in path.read_text()] == []


# Activations

NEW = """
PERIOD = f32(2.0)


@njit(inline="always", **STRICT)
def sine_kernel(z):
    return helped(PERIOD * z), ONE


@njit
def helped(z):
    return sin(z)


"""
ENTRY = 'Activation("sine", "sine", "s", np.sin, np.cos, sine_kernel),\n        Activation(\n            "mish",'


def registry() -> tuple[str, str]:
    """The registry as it is, and with an activation more, which has a function, a helper, a constant and an import."""
    text = sources.REGISTRY.read_text()
    more = text.replace("def sigmoid_slope(z):", NEW.lstrip() + "def sigmoid_slope(z):")
    more = more.replace('Activation(\n            "mish",', ENTRY).replace(
        "    quotient,\n", "    quotient,\n    sin,\n"
    )
    assert more.count("sine") == text.count("sine") + 4 and "    sin,\n" in more
    return text, more


def test_an_activation_that_is_added_changes_the_form_only_for_those_who_name_it():
    text, more = registry()
    for said in [{"tanh"}, {"relu", "mish"}, {"elu(0.5)"}]:
        assert sources.form_with(frozenset(said), more) == sources.form_with(frozenset(said), text)
    assert sources.form_with(frozenset({"sine"}), more) != sources.form_with(frozenset({"sine"}), text)
    assert sources.form_of(None, more) != sources.form_of(None, text)


@pytest.mark.parametrize(
    "old, new, whose",
    [
        ("f32(4.0) * e * r * r", "f32(3.0) * e * r * r", {"tanh"}),
        ("np.tanh(np.logaddexp(0, z)),", "np.tanh(np.logaddexp(1, z)),", {"mish"}),
        ("SELU_SCALE, SELU_ALPHA = 1.05", "SELU_SCALE, SELU_ALPHA = 1.06", {"selu"}),
        ("LEAK = 0.01", "LEAK = 0.02", {"tanh", "mish", "selu"}),  # made by a function, and so counted by all
        ("kernel = activation(name.literal_value)", 'kernel = activation("tanh")', {"tanh", "mish", "selu"}),
    ],
)
def test_a_change_of_an_activation_concerns_those_who_name_it(old, new, whose):
    text = sources.REGISTRY.read_text()
    assert old in text
    for name in ("tanh", "mish", "selu"):
        said = frozenset({name})
        changed = sources.form_with(said, text.replace(old, new)) != sources.form_with(said, text)
        assert changed == (name in whose), name


def test_kernels_count_the_activations_that_they_name_themselves(house, monkeypatch):
    """An LSTM has tanh and the sigmoid without anybody naming them."""
    words = sources.words_in(None, (sources.PACKAGE / "recurrent" / "kernels.py").read_text())
    assert not words[0] and {"tanh", "sigmoid"} <= words[1]
    assert sources.words_in(frozenset({"f"}), "from a import ACTIVATIONS\ndef f():\n    return list(ACTIVATIONS)")[0]
    assert not sources.words_in(frozenset({"g"}), "from a import ACTIVATIONS\ndef g():\n    return 'tanh'")[0]


# Machine code on disk

KERNEL = """
    import functools
    from numba import njit, types
    from vgp_kernels.targets.cache import cached
    from house.cellar.stores import WINE

    @njit
    def twice(x):
        return 2 * x

    @functools.cache
    def kernel(name):
        inner = njit(twice.py_func)

        @cached(types.int64(types.int64))
        def glasses(n):
            return inner(n) * WINE + len(name)

        return glasses
    """


class Bar:
    """A package with one kernel, whose machine code lies where it would for a user whose home is here."""

    def __init__(self, house: Path, monkeypatch):
        self.house, self.home, self.monkeypatch = house, house / "home", monkeypatch
        self.pycache = house / "house/rooms/__pycache__"
        (house / "house/rooms/bar.py").write_text(textwrap.dedent(KERNEL))
        monkeypatch.setattr(cache.config, "CACHE_DIR", "")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.home / ".cache"))

    def run(self) -> list[str]:
        """The warnings, and last what the kernel gives and whether it was found on disk: as in a new process."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
            del sys.modules[name]
        cache.said.clear()
        importlib.invalidate_caches()
        with self.monkeypatch.context() as patch, warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            patch.syspath_prepend(self.house)
            kernel = importlib.import_module("house.rooms.bar").kernel("one")
            outcome = f"{kernel(5)} {sum(kernel._cache_hits.values())}"
        return [*(str(warning.message) for warning in found), outcome]

    def files(self) -> list[Path]:
        return sorted(self.pycache.glob("*.nbc"))


@pytest.fixture
def bar(house, monkeypatch) -> Bar:
    return Bar(house, monkeypatch)


def test_machine_code_is_found_again_until_a_source_that_it_reaches_changes(bar):
    assert bar.run() == ["33 0"] and len(bar.files()) == 1
    assert bar.run() == ["33 1"]
    change(bar.house, "house/rooms/bar.py", "@njit\n", "# a comment moves all lines\n\n@njit\n")
    change(bar.house, "house/rooms/garden.py", "7", "8")
    change(bar.house, "house/cellar/stores.py", "WINE = 3", "WINE = 3  # red")
    assert bar.run() == ["33 1"]
    change(bar.house, "house/cellar/stores.py", "WINE = 3", "WINE = 4")
    assert bar.run() == ["43 0"] and bar.run() == ["43 1"] and len(bar.files()) == 1


def test_machine_code_that_was_copied_with_its_sources_is_not_taken_for_code_of_changed_ones(bar, tmp_path_factory):
    bar.run()
    copy = tmp_path_factory.mktemp("copy") / "all"
    shutil.copytree(bar.house, copy)
    change(copy, "house/cellar/stores.py", "WINE = 3", "WINE = 4")
    bar.house = copy
    assert bar.run() == ["43 0"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "flipped", "of Numba's own", "a folder"])
def test_a_damaged_file_is_named_in_one_warning_and_made_again(bar, damage):
    bar.run()
    (file,) = bar.files()
    content = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "empty": b"",
                "garbage": os.urandom(1000),
                "flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
                "of Numba's own": b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x8c\x060.68.1\x94.",
            }[damage]
        )
    warning, outcome = bar.run()
    assert warning.startswith(f"{file} cannot be used") and outcome == "33 0"
    if damage != "a folder":
        assert bar.run() == ["33 1"]


def test_where_the_sources_cannot_be_written_machine_code_lies_in_the_users_cache(bar):
    bar.pycache.write_text("a file where a folder should be")
    assert bar.run() == ["33 0"] and bar.run() == ["33 1"]
    assert len(list(bar.home.rglob("*.nbc"))) == 1


def test_machine_code_in_a_folder_that_can_only_be_read_is_used(bar, monkeypatch):
    """As of a package that another user installed and warmed up."""
    bar.run()
    bar.home.write_text("no folder either")
    refuse(monkeypatch, errno.EROFS)
    assert bar.run() == ["33 1"]


def refuse(monkeypatch, number: int) -> None:
    """From now on a file can be made, but nothing written into it."""

    def write(path, content):
        path.touch()
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", write)


def test_where_nothing_can_be_written_one_warning_names_the_files_and_the_kernel_runs(bar):
    bar.pycache.write_text("")
    bar.home.write_text("")
    warning, outcome = bar.run()
    assert warning.startswith("machine code cannot be kept") and outcome == "33 0"
    assert str(bar.pycache) in warning and str(bar.home) in warning


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_leaves_one_warning_and_no_file(bar, monkeypatch, number):
    refuse(monkeypatch, number)
    warning, outcome = bar.run()
    assert os.strerror(number) in warning and ".nbc" in warning and outcome == "33 0"
    assert [path.name for path in bar.pycache.iterdir()] == []


def test_a_kernel_may_not_close_over_what_has_no_name(bar):
    change(bar.house, "house/rooms/bar.py", "inner = njit(twice.py_func)", "inner = (lambda f: f)(name.encode())")
    with pytest.raises(TypeError, match="cannot close over b'one'"):
        bar.run()


def test_without_numbas_compiler_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(cache.config, "DISABLE_JIT", 1)
    with pytest.raises(RuntimeError, match="the kernels exist as machine code only: unset NUMBA_DISABLE_JIT"):
        cache.cached()(cpu.run)


def test_whether_machine_code_is_current_is_known_in_milliseconds():
    """Comparing bytes is enough where nothing has changed; 50 ms on a quiet machine would already be felt."""
    kernel = cache.KernelCache(cpu.run)
    made_from = kernel.made_from()
    begin = time.process_time()
    assert kernel.is_current(made_from)
    assert time.process_time() - begin < 0.05
