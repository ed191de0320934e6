"""The command lists what is in a file, and says in one line what is wrong with it."""

import io
import subprocess
import sys

import equinox as eqx
import jax
import pytest

import graftax as gx
from graftax.cli import main


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    model = gx.Chain(up=eqx.nn.Linear(2, 3, key=jax.random.key(0)), act=jax.nn.relu)
    gx.save(path, model)
    return str(path)


def test_paths_lists_every_node_or_those_that_match(file, capsys):
    assert main(["paths", file]) == 0
    printed = capsys.readouterr().out
    assert "up.weight: f32[3,2]" in printed and "9 parameters, 36 bytes" in printed
    assert main(["paths", file, "bias", ".act"]) == 0
    printed = capsys.readouterr().out
    assert "up.bias" in printed and "act" in printed and "up.weight" not in printed


def test_a_saved_state_is_no_hindrance(tmp_path, capsys):
    norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
    gx.save(tmp_path / "m", *eqx.nn.make_with_state(gx.Chain)(norm=norm))
    assert main(["paths", str(tmp_path / "m"), "norm"]) == 0
    assert "norm: BatchNorm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(["upp"], "Did you mean 'up'"), (["up["], "never closed")],
)
def test_what_matches_nothing_or_is_malformed_is_said(file, capsys, patterns, message):
    assert main(["paths", file, *patterns]) == 2
    assert message in capsys.readouterr().err


def test_letters_that_a_terminal_lacks_are_no_hindrance(tmp_path, monkeypatch):
    gx.save(tmp_path / "m", gx.Chain(größe=jax.nn.relu))
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["paths", str(tmp_path / "m")]) == 0
    out.seek(0)
    assert r"gr\xf6\xdfe: " in out.read()


def test_a_missing_file_is_said_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "graftax.cli", "paths", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("graftax: There is no file") and "Traceback" not in done.stderr
