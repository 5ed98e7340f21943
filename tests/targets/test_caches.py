"""What the site keeps between builds is made again where it is not whole, and what cannot work is said in a line."""

import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import experiment
import hooks
import instruments
import notebooks
import pytest
from mkdocs.exceptions import Abort

from vgp_kernels.targets import cache

PAGE = json.dumps({"content": "<p>", "toc_tokens": [], "title": None})


@pytest.fixture
def lab(tmp_path) -> Path:
    path = tmp_path / "lab.py"
    path.write_text("from vgp_kernels import activation\n")
    return path


@pytest.mark.parametrize("left", [b"", PAGE.encode()[:20], bytes(range(200, 240)), b"[]", b"3", b'{"content": ""}'])
def test_a_lab_page_that_is_not_whole_is_made_again(tmp_path, lab, left):
    folder = notebooks.cache(tmp_path / "cache", [lab])
    (folder / "whole.json").write_text(PAGE)
    (folder / "half.json").write_bytes(left)
    assert notebooks.cache(tmp_path / "cache", [lab]) == folder
    assert [path.name for path in folder.iterdir()] == ["whole.json"]


def test_labs_are_kept_until_code_that_they_reach_changes(tmp_path, lab):
    folder = notebooks.cache(tmp_path / "cache", [lab])
    lab.write_text(lab.read_text() + "# a comment\n")
    assert notebooks.cache(tmp_path / "cache", [lab]) == folder
    lab.write_text("from vgp_kernels import propagate\n")
    assert notebooks.cache(tmp_path / "cache", [lab]) != folder and not folder.exists()


def test_labs_run_without_a_cache_where_none_can_be_kept(tmp_path, monkeypatch, caplog):
    (tmp_path / ".cache").write_text("a file where a folder should be")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    labs = {"cache": True, "include": ["labs/*.py"]}
    with caplog.at_level("INFO"):
        hooks.on_config(SimpleNamespace(plugins={"mkdocs-jupyter": SimpleNamespace(config=labs)}, strict=True))
    assert not labs["cache"] and "cache_dir" not in labs and ".cache" in caplog.text


@pytest.mark.parametrize("left", [None, "", "var VGP_DATA = {", 'var VGP_DATA = {"sources": "other"}', "[1]", "\0" * 9])
def test_the_instruments_data_are_made_again_unless_they_are_whole_and_current(tmp_path, monkeypatch, left):
    made = []
    monkeypatch.setattr(instruments, "DATA", tmp_path / "kernels.data.js")
    monkeypatch.setattr(instruments, "data", lambda digest: made.append(digest) or {"sources": digest})
    if left is not None:
        instruments.DATA.write_text(left)
    instruments.write_data()
    instruments.write_data()
    assert len(made) == 1 and instruments.read_data() == {"sources": instruments.sources()}


@pytest.mark.parametrize("name, of_another", [("version_info", (3, 99)), ("version", "another")])
def test_the_instruments_data_are_made_again_by_another_python_and_another_compiler(monkeypatch, name, of_another):
    before = instruments.sources()
    assert instruments.sources() == before
    if name == "version":
        monkeypatch.setattr(instruments, "version", lambda package: of_another)
    else:
        monkeypatch.setattr(instruments.sys, "version_info", of_another)
    assert instruments.sources() != before


# The hooks


@pytest.fixture
def quiet(monkeypatch):
    """The hooks, with nothing to draw or compile."""
    monkeypatch.setattr(hooks.build, "draw_missing", lambda: [])
    monkeypatch.setattr(hooks.instruments, "write_data", lambda: None)
    monkeypatch.setattr(hooks.notebooks, "cache", lambda folder, labs: folder)
    monkeypatch.setattr(hooks, "first_build", [])
    return monkeypatch


def config(strict=True, address=("127.0.0.1", 0)) -> SimpleNamespace:
    plugins = {"mkdocs-jupyter": SimpleNamespace(config={"include": [], "cache": True})}
    return SimpleNamespace(plugins=plugins, strict=strict, dev_addr=SimpleNamespace(host=address[0], port=address[1]))


def test_a_strict_build_does_not_let_stale_results_out(quiet):
    quiet.setattr(hooks.build, "draw_missing", lambda: ["quarter", "width"])
    hooks.on_startup("build", False)
    with pytest.raises(Abort, match="the results of quarter, width are stale: run `make results`"):
        hooks.on_config(config())


@pytest.mark.parametrize("command, strict", [("serve", True), ("build", False)])
def test_stale_results_are_shown_with_one_warning_that_names_them(quiet, caplog, command, strict):
    quiet.setattr(hooks.build, "draw_missing", lambda: ["quarter"])
    hooks.on_startup(command, False)
    if command == "serve":  # before MkDocs counts warnings, which end a strict build
        assert "the result of quarter is stale: run `make results`" in caplog.text
    hooks.on_config(config(strict))
    hooks.on_config(config(strict))
    assert caplog.text.count("make results") == 1


def test_a_result_that_cannot_be_used_ends_the_build_in_one_line(quiet):
    def fail():
        raise experiment.Failed("no result")

    quiet.setattr(hooks.build, "draw_missing", fail)
    with pytest.raises(Abort, match=r"^no result$"):
        hooks.on_startup("build", False)


def test_a_taken_port_is_named_before_anything_is_built(quiet):
    with socket.create_server(("127.0.0.1", 0)) as server:
        hooks.on_startup("serve", False)
        with pytest.raises(Abort, match=f"127.0.0.1:{server.getsockname()[1]} .*choose another port"):
            hooks.on_config(config(address=server.getsockname()))
        hooks.on_config(config(address=server.getsockname()))  # a later build: the port is the site's own


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_the_site_is_one_line(number):
    with pytest.raises(Abort, match=f"the site cannot be written: site/index.html: {os.strerror(number)}"):
        hooks.on_build_error(OSError(number, os.strerror(number), "site/index.html"))
    assert hooks.on_build_error(ValueError("something else")) is None


def test_a_full_disk_is_one_line():
    """The kernel's own refusal: /dev/full takes nothing."""
    with pytest.raises(OSError) as refusal, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"page")
    with pytest.raises(Abort, match="No space left"):
        hooks.on_build_error(refusal.value)


def test_without_numbas_compiler_the_site_is_not_begun(quiet):
    quiet.setattr(cache.config, "DISABLE_JIT", 1)
    with pytest.raises(Abort, match="unset NUMBA_DISABLE_JIT"):
        hooks.on_startup("serve", False)


def test_a_page_does_not_show_into_which_pieces_a_cell_s_output_fell():
    def page(*pieces):
        outputs = "".join(
            '<div class="jp-OutputArea-child">\n<div class="jp-OutputPrompt jp-OutputArea-prompt"></div>\n'
            '<div class="jp-RenderedText jp-OutputArea-output" data-mime-type="text/plain" tabindex="0">\n'
            f"<pre>{piece}</pre>\n</div>\n</div>\n"
            for piece in pieces
        )
        return f'<div class="jupyter-wrapper">{outputs}</div>'

    assert notebooks.slim(page("one\n", "two\n", "three\n")) == notebooks.slim(page("one\ntwo\nthree\n"))
