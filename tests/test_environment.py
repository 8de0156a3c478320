"""The lock files pin everything, name no host, and agree with each other; the set-up is safe."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import one_sentence

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
REQUIREMENT = re.compile(r"([a-z0-9][a-z0-9-]*)==([0-9][\w.]*)( ; [\w .<>=!'()-]+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(path: Path) -> list[list[str]]:
    """The requirements of a lock file, each as its parts: the requirement, then its hashes."""
    text = path.read_text("utf-8").replace("\\\n", "\n")
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(" "):
            found[-1].append(line.strip())
        elif line.strip():
            found.append([line.strip()])
    return found


def versions(path: Path) -> dict[str, set[str]]:
    """Locked versions by package."""
    locked: dict[str, set[str]] = {}
    for requirement, *_ in entries(path):
        name, version, _ = REQUIREMENT.fullmatch(requirement).groups()
        locked.setdefault(name, set()).add(version)
    return locked


def test_there_are_locks_to_check():
    assert {"report.txt", "full.txt"} <= {path.name for path in LOCKS}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_a_hash(path):
    assert entries(path)
    for requirement, *hashes in entries(path):
        assert REQUIREMENT.fullmatch(requirement), requirement
        assert hashes, requirement
        assert all(HASH.fullmatch(value) for value in hashes), requirement


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_host_no_path_and_no_local_version(path):
    text = path.read_text("utf-8")
    for forbidden in ("/", "@", "+", "index-url", "find-links", "trusted-host"):
        assert forbidden not in text, forbidden


def test_the_light_set_is_part_of_the_full_one():
    light = versions(ROOT / "requirements" / "report.txt")
    full = versions(ROOT / "requirements" / "full.txt")
    assert {package: full.get(package) for package in light} == light


def test_the_report_needs_no_machine_learning():
    assert len(versions(ROOT / "requirements" / "report.txt")) <= 5


def test_every_wanted_package_is_locked():
    for source in (ROOT / "requirements").glob("*.in"):
        lines = source.read_text("utf-8").splitlines()
        wanted = {re.split("==", line)[0] for line in lines if re.match("[a-z]", line)}
        assert wanted <= set(versions(source.with_suffix(".txt"))), source.name


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The set-up module, working in an empty folder with a stand-in for pip."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("ROOT", "VENV", "PYTHON", "LOG"):
        moved = tmp_path / getattr(module, name).relative_to(ROOT)
        monkeypatch.setattr(module, name, moved)
    monkeypatch.setattr(module, "lock_file", lambda name: tmp_path / f"{name}.txt")
    monkeypatch.setattr(module, "works", lambda code: module.PYTHON.exists())
    monkeypatch.setattr(module, "NEEDS", {"report": ("it", "soon", 0), "full": ("all", "soon", 0)})
    (tmp_path / "report.txt").write_text("typst==1 \\\n    --hash=sha256:0\n")
    (tmp_path / "full.txt").write_text("torch==2 \\\n    --hash=sha256:0\n")
    module.created, module.installed = [], []

    def create():
        module.created.append(1)
        (module.VENV / "bin").mkdir(parents=True, exist_ok=True)
        (module.VENV / "lib/python3/site-packages").mkdir(parents=True, exist_ok=True)
        (module.VENV / "pyvenv.cfg").touch()
        module.PYTHON.touch()

    def run_logged(command, total):
        time.sleep(0.1)
        module.installed.append(Path(command[-1]).stem)
        module.LOG.write_text("Installing collected packages: x\n")
        return 0

    monkeypatch.setattr(module, "create", create)
    monkeypatch.setattr(module, "run_logged", run_logged)
    return module


def test_a_second_start_does_nothing(environment):
    environment.ensure("report")
    environment.ensure("report")
    assert environment.installed == ["report"]


def test_the_full_set_holds_the_light_one(environment):
    environment.ensure("full")
    environment.ensure("report")
    assert environment.installed == ["full"]


def test_a_changed_lock_is_installed(environment, tmp_path):
    environment.ensure("full")
    (tmp_path / "full.txt").write_text("torch==3 \\\n    --hash=sha256:0\n")
    environment.ensure("full")
    assert environment.installed == ["full", "full"]


def test_an_interrupted_installation_starts_from_an_empty_environment(environment, monkeypatch):
    whole = environment.run_logged

    def killed(command, total):
        whole(command, total)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "run_logged", killed)
        with pytest.raises(KeyboardInterrupt):
            environment.ensure("report")
    environment.ensure("report")
    assert len(environment.created) == 2
    assert not environment.LOG.exists()


def test_a_failed_download_keeps_the_environment_and_is_one_sentence(environment, monkeypatch):
    environment.ensure("report")

    def offline(command, total):
        environment.LOG.write_text("ERROR: No matching distribution found for torch==2\n")
        return 1

    monkeypatch.setattr(environment, "run_logged", offline)
    with pytest.raises(environment.SetupError, match="network") as caught:
        environment.ensure("full")
    assert "\n" not in str(caught.value)
    environment.ensure("report")
    assert environment.installed == ["report"] and len(environment.created) == 1


def test_two_at_once_install_once(environment):
    threads = [threading.Thread(target=environment.ensure, args=["report"]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert environment.installed == ["report"]


def test_a_moved_project_gets_a_new_environment(environment):
    environment.ensure("report")
    environment.stamp("report").write_text("digest /somewhere/else\n")
    environment.ensure("report")
    assert len(environment.created) == 2


def test_an_old_python_is_refused_in_one_sentence(environment, monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 1))
    with pytest.raises(environment.SetupError, match=r"Python 3\.11 or newer is needed"):
        environment.ensure("report")


def test_an_unknown_set_is_refused():
    script = ROOT / "tools" / "environment.py"
    done = subprocess.run([sys.executable, script, "all"], capture_output=True, text=True)
    assert done.returncode == 2 and "report" in done.stderr and "Traceback" not in done.stderr


def test_two_renders_at_once_take_turns(environment, monkeypatch, capsys):
    """Both in their own process as far as the lock is concerned: it belongs to the open file."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setitem(sys.modules, "environment", environment)
    spec = importlib.util.spec_from_file_location("render", ROOT / "tools" / "report.py")
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    at_work, most = [], []

    def report():
        at_work.append(1)
        time.sleep(0.2)
        most.append(len(at_work))
        at_work.pop()

    monkeypatch.setattr(render, "report", report)
    monkeypatch.setattr(render, "tidy", lambda: most.append(len(at_work)))
    threads = [threading.Thread(target=render.main, args=[[]]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(most) == [0] * 6 + [1] * 3
    assert "another process is at work" in capsys.readouterr().out


def test_a_cpu_torch_that_is_there_keeps_cuda_out(environment, tmp_path):
    """Seen in pip itself: an installed 2.15.0+cpu satisfies the pin of 2.15.0, hash or not."""
    (tmp_path / "full.txt").write_text((ROOT / "requirements/full.txt").read_text("utf-8"))
    whole = set(versions(tmp_path / "full.txt"))
    environment.create()
    (environment.VENV / "lib/python3/site-packages" / "torch-2.15.0+cpu.dist-info").mkdir()
    environment.ensure("full")
    assert environment.installed == ["without-cuda"]
    left_out = whole - set(versions(environment.VENV / "without-cuda.txt"))
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "cuda-toolkit", "triton"} <= left_out
    assert all(re.match("nvidia-|cuda-|triton$", name) for name in left_out)


@pytest.mark.parametrize("name", ["report", "full"])
def test_windows_itself_is_told_of_wsl_in_one_sentence(environment, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as there, it cannot be imported
    with pytest.raises(environment.SetupError, match="wsl --install") as caught:
        environment.ensure(name)
    assert one_sentence(caught.value) and environment.installed == []


def test_an_intel_mac_gets_the_report_and_is_told_of_the_rest(environment, monkeypatch):
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    environment.ensure("report")
    with pytest.raises(environment.SetupError, match="Macs with Intel") as caught:
        environment.ensure("full")
    assert one_sentence(caught.value) and environment.installed == ["report"]
    monkeypatch.setattr(environment.platform, "machine", lambda: "arm64")
    environment.ensure("full")


def test_musl_is_named_before_anything_is_downloaded(environment, monkeypatch):
    soabi = "cpython-312-x86_64-linux-musl"
    monkeypatch.setattr(environment.sysconfig, "get_config_var", lambda name: soabi)
    with pytest.raises(environment.SetupError, match="musl") as caught:
        environment.ensure("report")
    assert one_sentence(caught.value) and environment.installed == []


def test_readme_names_the_locked_torch():
    full = versions(ROOT / "requirements" / "full.txt")
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("torch", "torchvision"):
        assert set(re.findall(rf"\b{name}==([\d.]+)", readme)) == full[name]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_no_encoding_of_the_terminal_stops_a_command(encoding):
    code = (
        "import sys; sys.path.insert(0, 'tools'); import environment; environment.any_encoding();"
        "print('José, 小龍 …'); print('José, 小龍 …', file=sys.stderr);"
        "import os, subprocess; subprocess.run([sys.executable, '-c', 'print(chr(0x2026))'])"
    )
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert done.stdout.startswith(b"Jos") and len(done.stdout.splitlines()) == 2
