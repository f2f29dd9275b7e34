"""Steps of a recipe: each runs once, with one set of settings, and its time is kept."""
import ast
import json
import os
import subprocess
import sys
import time

import pytest

from evaluation.programs import ROOT, run_once, run_step, seconds_of


def test_a_step_runs_once(tmp_path):
    log = tmp_path / "steps/one.log"
    run_step(str(tmp_path), "one", "-c print('ran')", {})
    assert log.read_text() == "ran\n"
    log.write_text("kept")
    run_step(str(tmp_path), "one", "-c print('ran')", {})
    assert log.read_text() == "kept"


def test_other_settings_are_refused(tmp_path):
    run_step(str(tmp_path), "one", "-c 1", {"seed": 0})
    with pytest.raises(ValueError, match="has the step 'one' with other settings .*set out= to another one"):
        run_step(str(tmp_path), "one", "-c 1", {"seed": 1})


def test_languages_are_a_setting(tmp_path, monkeypatch):
    """Else a second start with others would mix runs of both."""
    run_step(str(tmp_path), "one", "-c 1", {})
    monkeypatch.setenv("LANGUAGES", "en kk")
    with pytest.raises(ValueError, match="has the step 'one' with other settings"):
        run_step(str(tmp_path), "one", "-c 1", {})


def test_a_relative_out_elsewhere_is_refused(tmp_path, monkeypatch):
    """Its stamps would lie there, and what the steps write in the repository."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="out=mine is relative, and steps run in .*; start there"):
        run_step("mine", "one", "-c 1", {})
    run_step(str(tmp_path / "mine"), "one", "-c 1", {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_work_of_a_recipe_is_a_step_too(tmp_path):
    done = []
    for _ in range(2):
        run_once(str(tmp_path), "raw", {"seed": 0, "languages": ("en",)}, lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ValueError, match="has the step 'raw' with other settings"):
        run_once(str(tmp_path), "raw", {"seed": 0, "languages": ("en", "it")}, lambda: done.append(2))
    with pytest.raises(ZeroDivisionError):
        run_once(str(tmp_path), "other", {}, lambda: 1 / 0)
    run_once(str(tmp_path), "other", {"seed": 1}, lambda: done.append(3))  # what failed is not done
    assert done == [1, 3]


def test_a_failed_step_is_named_with_its_output_and_runs_again(tmp_path):
    with pytest.raises(ValueError, match="(?s)two failed; everything it printed is in .*two.log.*SyntaxError"):
        run_step(str(tmp_path), "two", "-c )", {})
    run_step(str(tmp_path), "two", "-c 1", {})
    with pytest.raises(ValueError, match="(?s)world failed.*languages: .*'xx'"):
        run_step(str(tmp_path), "world", "-m tinyworld", {"out": tmp_path / "raw", "languages": ["xx"]})


def test_the_time_of_earlier_starts_is_added(tmp_path):
    run_step(str(tmp_path), "one", "-c 1", {})
    stamp = tmp_path / "steps/one.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"seconds": 100.0}))
    begin = time.time()
    os.utime(stamp, (begin - 9, begin - 9))
    assert 100 <= seconds_of(str(tmp_path), begin) < 110
    os.utime(stamp, (begin + 1, begin + 1))  # a step of this start is in the time since begin
    assert seconds_of(str(tmp_path), begin) < 10


@pytest.mark.parametrize("content", [b"", b'{"settings": ["-c", "1"], "sec', b"null", b"[]", b"\xff", b"\0" * 99,
                                     b'{"settings": 1}', b'{"settings": 1, "seconds": null}'])
def test_a_torn_stamp_is_named(tmp_path, content):
    """By its file and a remedy; the work does not begin, as its settings may be others than those of the step."""
    (tmp_path / "steps").mkdir()
    stamp = tmp_path / "steps/one.json"
    stamp.write_bytes(content)
    for read in (lambda: run_once(str(tmp_path), "one", {"seed": 0}, lambda: 1 / 0),
                 lambda: seconds_of(str(tmp_path), time.time() + 60)):
        with pytest.raises(ValueError, match=f"{stamp} is torn: .*remove one.json"):
            read()
    stamp.unlink()
    run_once(str(tmp_path), "one", {"seed": 0})
    assert json.loads(stamp.read_text())["settings"] == {"seed": 0}


def test_a_stamp_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    stamp, synced = tmp_path / "steps/one.json", []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((stamp.exists(), os.fstat(fd).st_size)))
    run_once(str(tmp_path), "one", {})
    assert synced == [(False, stamp.stat().st_size)]


# ---------------------------------------------------------------------- how programs end

MAIN = '\nif __name__ == "__main__":\n'
PROGRAMS = [path.relative_to(ROOT) for pattern in ("*.py", "recipes/*.py", "tinyworld/*.py")
            for path in sorted(ROOT.glob(pattern)) if MAIN in path.read_text()]


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_an_error_of_the_operating_system_is_one_line(path):
    """A full disk, a read-only folder, a file where a folder should be: no traceback."""
    block = ast.parse((ROOT / path).read_text().partition(MAIN)[2].replace("\n    ", "\n").removeprefix("    "))
    caught = {name.id for node in ast.walk(block) if isinstance(node, ast.ExceptHandler) and node.type
              for name in ast.walk(node.type) if isinstance(name, ast.Name)}
    assert "OSError" in caught or "ValueError" not in caught


def test_the_line_names_the_path(tmp_path):
    (tmp_path / "file").touch()
    words = ["-m", "tinyworld", "configs/tiny/world.py", f"out={tmp_path}/file/raw"]
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1 and len(run.stderr.splitlines()) == 1
    assert f"{tmp_path}/file/raw" in run.stderr and "set out= to a folder" in run.stderr
