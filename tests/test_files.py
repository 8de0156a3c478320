"""Files: whole or not at all, safe names, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import string
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from conftest import one_sentence
from hypothesis import given
from hypothesis import strategies as st

from digitcnn import files
from digitcnn.files import DigitcnnError


def python(code: str, *arguments: str, **options) -> subprocess.Popen:
    """Start a Python process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(files.__file__).parent.parent, **options,
    )  # fmt: skip


# Whole or not at all


@pytest.mark.parametrize("content", ["text ü\n", b"\x00\xff", "", b"x" * 300_000])
def test_what_is_written_can_be_read(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file.txt"
    files.write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_file_can_be_read_by_everybody(tmp_path):
    files.write_whole(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


class Failing:
    """Stands in for a function of `os`; fails as a broken disk does."""

    def __init__(self, code: int):
        self.code = code

    def __call__(self, *_, **__):
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("step", ["os.fsync", "os.replace", "os.chmod", "tempfile.mkstemp"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_failed_step_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, step, code, faults
):
    path = tmp_path / "file"
    files.write_whole(path, "old")
    with faults.one("write failing (full, read-only, broken disk)"):
        with monkeypatch.context() as patch, pytest.raises(DigitcnnError) as caught:
            patch.setattr(step, Failing(code))
            files.write_whole(path, "new")
        assert os.strerror(code) in one_sentence(caught.value)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]


def test_ctrl_c_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, "old")

    def pressed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", pressed)
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path):
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "taken", tmp_path / "file" / "below"):
        with pytest.raises(DigitcnnError) as caught:
            files.write_whole(path, "new")
        one_sentence(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]


@contextlib.contextmanager
def ordinary_user():
    """Not root, who may write anywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_read_only_folder_is_one_sentence(monkeypatch, faults):
    import filelock  # noqa: F401  that other user may not be able to read Python's own folder

    with tempfile.TemporaryDirectory() as folder, faults.one("read-only folder"):
        root = Path(folder)
        (root / "file").write_text("old")
        root.chmod(0o555)
        monkeypatch.setenv("DIGITCNN_ROOT", folder)
        try:
            for use in (
                lambda: files.write_whole(root / "file", "new"),
                lambda: files.write_whole(root / "below" / "file", "new"),
                lambda: files.lock("run").__enter__(),
            ):
                with ordinary_user(), pytest.raises(DigitcnnError) as caught:
                    use()
                assert "writable" in one_sentence(caught.value)
            assert os.listdir(root) == ["file"] and (root / "file").read_text() == "old"
        finally:
            root.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="needs setrlimit")
def test_a_full_disk_leaves_the_old_file(tmp_path, faults):
    path = tmp_path / "file"
    files.write_whole(path, "old")
    code = """
        import resource, signal, sys
        from pathlib import Path
        from digitcnn import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: an error, no signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write_whole(Path(sys.argv[1]), b"x" * 100_000)
        except files.DigitcnnError as error:
            print(error)
    """
    with faults.one("write failing (full, read-only, broken disk)"):
        output, errors = python(code, str(path)).communicate(timeout=60)
        assert "Cannot write" in output and not errors
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]


def test_the_new_file_is_flushed_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            f"os.{name}", lambda *a, name=name, real=real: order.append(name) or real(*a)
        )
    files.write_whole(tmp_path / "file", "new")
    assert order == ["fsync", "replace"]


def test_leftovers_of_one_file_are_removed_alone(tmp_path):
    kept = ["file", ".file.txt", "file.part", ".other.abc.part"]
    for name in [*kept, ".file.abc.part", ".file.x1.part"]:
        (tmp_path / name).write_text("")
    files.remove_leftovers(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    files.remove_leftovers(tmp_path / "no folder" / "file")


# JSON


def test_json_is_read_as_it_was_written(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"ü": True}}
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'{"a": 1}}', b"[" * 100_000]
)
def test_damaged_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DigitcnnError) as caught:
        files.read_json(path)
    assert "x.json" in one_sentence(caught.value)


def test_missing_json_is_one_sentence(tmp_path):
    with pytest.raises(DigitcnnError, match="missing") as caught:
        files.read_json(tmp_path / "x.json")
    one_sentence(caught.value)


# Names and environment variables


@pytest.mark.parametrize("name", ["mnist", "svhn-exp-batch-64", "a", "mnist-exp-learning-0.05"])
def test_plain_names_are_accepted(name):
    assert files.checked_name(name, "run name") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../mnist", "a/../b", "a..b", "/etc/passwd", "a/b", "a\\b", "C:\\x", "-rf",
     ".hidden", "a b", "a\n", "a\x00", "a\x1b[31m", "$(reboot)", "`id`", "a;b", "a|b", "a&b",
     "a>b", "a*b", "a?b", "a'b", 'a"b', "~", "%2e%2e", "Mnist", "ünist", "a" * 81, None, 3],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(DigitcnnError) as caught:
        files.checked_name(name, "run name")
    one_sentence(caught.value)


@given(st.text(max_size=90))
def test_no_name_leaves_its_folder(name):
    try:
        files.checked_name(name, "run name")
    except DigitcnnError:
        return
    assert set(name) <= set(string.ascii_lowercase + string.digits + ".-")
    assert Path("folder", name).resolve().parent == Path("folder").resolve()


def test_profiles(monkeypatch):
    for value, expected in {"": "full", "full": "full", "quick": "quick"}.items():
        monkeypatch.setenv("DIGITCNN_PROFILE", value)
        assert files.profile() == expected
    monkeypatch.delenv("DIGITCNN_PROFILE")
    assert files.profile() == "full"


@pytest.mark.parametrize("value", ["Quick", "fast", "quick ", "quick\x1b[2J", "../quick"])
def test_a_wrong_profile_is_one_sentence(monkeypatch, value):
    monkeypatch.setenv("DIGITCNN_PROFILE", value)
    with pytest.raises(DigitcnnError, match="full, quick") as caught:
        files.results_root()
    one_sentence(caught.value)


def test_profiles_have_trees_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    paths = {}
    for name in files.PROFILES:
        monkeypatch.setenv("DIGITCNN_PROFILE", name)
        paths[name] = {files.cache_path("x"), files.model_path("x")}
    assert not paths["full"] & paths["quick"]
    assert all(path.is_relative_to(tmp_path / "_quick") for path in paths["quick"])
    assert not any(path.is_relative_to(tmp_path / "_quick") for path in paths["full"])


@pytest.mark.parametrize("variable", ["DIGITCNN_ROOT", "DIGITCNN_DATA", "DIGITCNN_CHECKPOINTS"])
@pytest.mark.parametrize("value", ["/tmp/\x1b[31m", "a\nb", "~no-such-user-here/data", "x" * 300])
def test_a_wrong_folder_is_one_sentence(monkeypatch, variable, value):
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(DigitcnnError, match=variable) as caught:
        {"DIGITCNN_ROOT": files.project_root, "DIGITCNN_DATA": files.data_root,
         "DIGITCNN_CHECKPOINTS": files.checkpoints_root}[variable]()  # fmt: skip
    one_sentence(caught.value)


def test_a_loop_of_links_is_shown_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    (tmp_path / "cache").symlink_to(tmp_path / "cache")
    path = files.cache_path("runs", "mnist.json")
    assert files.shown(path) == str(path) and not files.has(path)


def test_unfinished_training_lies_in_the_cache_or_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
    for profile, folder in {"full": "cache/local", "quick": "_quick/cache/local"}.items():
        monkeypatch.setenv("DIGITCNN_PROFILE", profile)
        assert files.checkpoints_root() == tmp_path.resolve() / folder / "checkpoints"
    monkeypatch.setenv("DIGITCNN_CHECKPOINTS", str(tmp_path / "fast"))
    assert files.checkpoints_root() == tmp_path.resolve() / "fast" / "quick"
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")  # whose runs have the same names
    assert files.checkpoints_root() == tmp_path.resolve() / "fast"


def test_the_data_folder_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.delenv("DIGITCNN_DATA", raising=False)
    assert files.data_root() == tmp_path.resolve() / "data"
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path / "elsewhere"))
    assert files.data_root() == tmp_path.resolve() / "elsewhere"


def test_fingerprints_differ_and_do_not_depend_on_order():
    assert files.fingerprint({"a": 1, "b": 2}) == files.fingerprint({"b": 2, "a": 1})
    different = [files.fingerprint(x) for x in (1, "1", [1], None, {"a": 1}, {"a": 2}, 1.5)]
    assert len(set(different)) == len(different)
    assert files.fingerprint("digitcnn") == "fab1781d80bf6de1"


# Locks


HOLDER = """
    import sys
    from digitcnn import files
    with files.lock("run"):
        print("held", flush=True)
        sys.stdin.read()
    print("released", flush=True)
"""


@pytest.fixture
def holder(sandbox):
    """A process that holds the lock ``run`` until its input is closed."""
    with python(HOLDER, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n", process.stderr.read()
        yield process
        process.kill()


def test_a_lock_excludes_a_second_process(holder, monkeypatch):
    said = []

    def say(line: str) -> None:
        said.append(line)
        holder.stdin.close()  # it lets go only now that somebody waits

    monkeypatch.setattr(files, "say", say)
    with files.lock("run"):
        assert holder.wait() == 0 and holder.stdout.read() == "released\n"
    assert len(said) == 1 and "another process is working on it" in said[0]


def test_locks_of_different_names_do_not_wait(holder):
    with files.lock("other"):
        assert holder.poll() is None


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_lock_dies_with_its_owner(holder, faults):
    with faults.one("lock owner killed"):
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with files.lock("run"):
            pass


def test_a_lock_that_cannot_be_made_is_one_sentence(sandbox):
    (sandbox / "_quick").write_text("no folder")
    with pytest.raises(DigitcnnError, match="Cannot lock") as caught, files.lock("run"):
        pass
    one_sentence(caught.value)


def test_progress_is_never_in_a_captured_stream(capsys, monkeypatch):
    files.say("line")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "__stderr__", None)
    files.say("line")  # a process without a terminal
