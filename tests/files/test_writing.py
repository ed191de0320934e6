"""A file is written whole or not at all, with the permissions of its place, and nothing is left behind."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_soak import torn_reads
from graftax.files import writing
from graftax.files.writing import write_tensors

ONE = {"a": np.arange(3, dtype=np.float32)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(file):
    return stat.S_IMODE(os.stat(file).st_mode)


# --- What is written ---


def test_any_reader_reads_what_was_written(file):
    arrays = {
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 2), np.float16),
        "byte": np.array([True, False, True]),
        "wide": np.arange(4.0),
        "half": np.ones((2, 3), ml_dtypes.bfloat16),
        "ü": np.arange(6, dtype=np.complex64),
    }
    write_tensors(file, arrays, {"format": "pt"})
    found = load_file(file)
    assert list(found) and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_the_file_is_the_one_that_safetensors_itself_writes(file, tmp_path):
    arrays = {"b": np.arange(5, dtype=np.int8), "a": np.arange(2.0), "c": np.ones(3, np.float32)}
    write_tensors(file, arrays, {"format": "pt"})
    save_file(arrays, tmp_path / "theirs", {"format": "pt"})
    assert file.read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.arange(9.0)[::2], np.arange(3, dtype=">i4")]
)
def test_however_an_array_lies_in_memory_its_numbers_are_written(file, array):
    write_tensors(file, {"a": array}, {})
    assert (load_file(file)["a"] == array).all()


def test_a_name_or_dtype_that_the_format_lacks_is_refused(file):
    for arrays, message in (
        ({"__metadata__": np.ones(1)}, "'__metadata__'"),
        ({"a": np.array(["text"])}, "'a' is <U4"),
        ({"\ud800": np.ones(1)}, "no text"),
    ):
        with pytest.raises(gx.UnsavableError, match=message):
            write_tensors(file, arrays, {})
    assert not os.listdir(file.parent)


def test_what_no_reader_would_take_for_honest_is_not_written(file):
    with pytest.raises(gx.UnsavableError, match="one array"):
        write_tensors(file, ONE, {"graftax": "[" * 1_100_000})
    assert not os.listdir(file.parent)


# --- Permissions ---


def test_a_new_file_has_the_permissions_that_open_gives(file, umask):
    gx.save(file, gx.Chain())
    assert mode(file) == 0o666 & ~umask


@pytest.mark.parametrize("before", [0o600, 0o640, 0o666])
def test_a_replaced_file_keeps_its_permissions(file, umask, before):
    gx.save(file, gx.Chain())
    os.chmod(file, before)
    gx.save(file, {"a": jnp.ones(3)})
    assert mode(file) == before
    assert list(gx.load(file)) == ["a"]


def test_what_is_still_being_written_is_for_no_more_eyes(file, monkeypatch):
    gx.save(file, gx.Chain())
    os.chmod(file, 0o600)
    seen = []
    honest = writing._bytes_of

    def watching(array):
        seen.extend(mode(part) for part in file.parent.glob(".graftax-*"))
        return honest(array)

    monkeypatch.setattr(writing, "_bytes_of", watching)
    gx.save(file, {"a": jnp.ones(3)})
    assert seen == [0o600]


def test_a_file_that_is_protected_against_writing_stays(file, monkeypatch):
    gx.save(file, gx.Chain())
    before = file.read_bytes()
    # Root may write everywhere, and so may those who test as root.
    monkeypatch.setattr(os, "access", lambda path, kind: kind != os.W_OK)
    with pytest.raises(PermissionError, match=r"model\.safetensors"):
        gx.save(file, {"a": jnp.ones(3)})
    assert file.read_bytes() == before


# --- What stands there already ---


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    link, real = tmp_path / "link", tmp_path / "real" / "model"
    link.symlink_to(real)
    for value in (1, 2):
        gx.save(link, [value])
        assert link.is_symlink() and gx.load(real) == [value]
        assert os.listdir(tmp_path / "real") == ["model"]


def test_links_in_a_circle_are_an_error_of_the_system(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError):
        gx.save(tmp_path / "a", gx.Chain())


def test_a_pipe_a_device_and_a_directory_are_never_replaced(tmp_path):
    pipe, directory, link = tmp_path / "pipe", tmp_path / "directory", tmp_path / "link"
    os.mkfifo(pipe)
    directory.mkdir()
    link.symlink_to(pipe)
    null = os.stat(os.devnull)
    for place, what in (
        (pipe, "a pipe"),
        (link, "a pipe"),
        (directory, "a directory"),
        (os.devnull, "a device"),
    ):
        with pytest.raises(OSError, match=what):
            gx.save(place, gx.Chain())
        with pytest.raises(OSError, match=what):
            gx.export_weights(place, {"a": jnp.ones(1)})
        # Nor waited for by a reader.
        with pytest.raises(FileNotFoundError, match=what):
            gx.load(place)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode) and directory.is_dir() and link.is_symlink()
    assert os.path.samestat(null, os.stat(os.devnull))
    assert sorted(os.listdir(tmp_path)) == ["directory", "link", "pipe"]


@pytest.mark.parametrize("name", ["m" * 250, "m" * 255, "ü" * 127])
def test_the_longest_names_work(tmp_path, name):
    gx.save(tmp_path / name, [1])
    gx.save(tmp_path / name, [2])
    assert gx.load(tmp_path / name) == [2] and os.listdir(tmp_path) == [name]


def test_a_directory_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no directory.*nowhere"):
        gx.save(tmp_path / "nowhere" / "model", gx.Chain())


# --- What the killed leave behind ---

WRITER = """
    import sys, time
    import graftax as gx, jax.numpy as jnp
    from graftax.files import writing

    def stuck(array):
        print("writing", flush=True)
        time.sleep(60)

    writing._bytes_of = stuck
    gx.save(sys.argv[1], {"a": jnp.ones(3)})
"""


def parts(directory):
    return [name for name in os.listdir(directory) if name.endswith(".part")]


def test_the_part_of_a_killed_save_is_taken_away_but_not_one_that_is_written(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "slow")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writing\n"
            (written,) = parts(tmp_path)
            gx.save(tmp_path / "other", gx.Chain())
            assert parts(tmp_path) == [written]
        finally:
            writer.send_signal(signal.SIGKILL)
    assert parts(tmp_path) == [written]
    gx.save(tmp_path / "other", gx.Chain())
    assert sorted(os.listdir(tmp_path)) == ["other"]


def test_the_part_that_another_thread_writes_stays(tmp_path, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    honest = writing._bytes_of

    def slow(array):
        if threading.current_thread() is not threading.main_thread():
            started.set()
            assert go_on.wait(30)
        return honest(array)

    monkeypatch.setattr(writing, "_bytes_of", slow)
    thread = threading.Thread(target=write_tensors, args=(tmp_path / "slow", ONE, {}))
    thread.start()
    assert started.wait(30)
    gx.save(tmp_path / "other", {"a": jnp.ones(3)})
    assert len(parts(tmp_path)) == 1
    go_on.set()
    thread.join()
    assert sorted(os.listdir(tmp_path)) == ["other", "slow"]
    assert (load_file(tmp_path / "slow")["a"] == ONE["a"]).all()


def test_a_part_taken_away_before_it_was_locked_is_made_anew(file, monkeypatch):
    honest, taken = writing._lock, []

    def late(handle, wait):
        if wait and not taken:
            taken.extend(file.parent.glob(".graftax-*"))
            taken[0].unlink()
        return honest(handle, wait)

    monkeypatch.setattr(writing, "_lock", late)
    gx.save(file, [1])
    assert taken and gx.load(file) == [1] and os.listdir(file.parent) == [file.name]


def test_files_of_others_are_not_taken_away(tmp_path):
    names = ["model.part", ".graftax-notes.part", ".graftax-1.part", ".other.part"]
    for name in names:
        (tmp_path / name).write_text("mine")
    pipe, link = (f".graftax-{letter * 32}.part" for letter in "ab")
    os.mkfifo(tmp_path / pipe)
    (tmp_path / link).symlink_to("model.part")
    gx.save(tmp_path / "model", gx.Chain())
    assert sorted(os.listdir(tmp_path)) == sorted([*names, pipe, link, "model"])


def test_any_file_can_be_replaced_whole(tmp_path):
    file = tmp_path / "config.json"
    file.write_text("old")
    with pytest.raises(KeyError), writing.replacement(file) as out:
        out.write(b"half")
        raise KeyError
    assert file.read_text() == "old"
    with writing.replacement(file) as out:
        out.write(b"new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["config.json"]


# --- Readers beside writers ---


def test_a_reader_beside_writers_sees_one_save_or_the_other(tmp_path):
    reads, torn = torn_reads(tmp_path, seconds=2.0)
    assert reads > 10 and torn == 0
