"""tests/crashes.py and tests/mutate.py do what they say: crash points are hit, mutants differ in one place."""
import ast
import difflib
import subprocess
import sys

import mutate
import pytest
from crashes import TRACEBACK, Steps, members, start, wait, wait_for

WRITER = """
import os, sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir()
(out / "a.tmp").write_text("x" * 100)
os.replace(out / "a.tmp", out / "a")
if len(sys.argv) > 2:
    raise {"line": SystemExit("no room"), "traceback": KeyError("x")}[sys.argv[2]]
"""


@pytest.fixture
def writer(tmp_path):
    (tmp_path / "writer.py").write_text(WRITER)
    return tmp_path / "writer.py"


def test_every_change_is_a_crash_point(tmp_path, writer):
    """mkdir, open, write, replace: before the first, before the second, within the third, before the fourth."""
    steps = Steps(tmp_path / "out")
    assert wait(start(writer, [str(tmp_path / "out")], tmp_path / "log", steps)) == 0 and steps.count == 4
    left = []
    for n in range(1, 6):
        out = tmp_path / f"out-{n}"
        status = wait(start(writer, [str(out)], tmp_path / "log", Steps(out, n)))
        assert status == (-9 if n < 5 else 0)
        left.append({p.name: p.stat().st_size for p in out.iterdir()} if out.exists() else None)
    assert left == [None, {}, {"a.tmp": 50}, {"a.tmp": 100}, {"a": 100}]


def test_what_the_shell_would_see(tmp_path, writer):
    log = tmp_path / "log"
    assert wait(start(writer, [str(tmp_path / "a"), "line"], log)) == 1 and log.read_text() == "no room\n"
    assert wait(start(writer, [str(tmp_path / "b"), "traceback"], log)) == TRACEBACK and "KeyError" in log.read_text()


def test_a_child_that_does_not_end_is_killed(tmp_path):
    (tmp_path / "waits.py").write_text("import os, time\nos.fork()\ntime.sleep(99)\n")
    pid = start(tmp_path / "waits.py", [], tmp_path / "log")
    assert wait(pid, 0.5) is None and wait_for(lambda: not members(pid), 20)  # the grandchild dies a little later


@pytest.mark.parametrize("name", mutate.TESTS)
def test_mutants_differ_in_one_place(root, name):
    source = (root / name).read_text()
    mutants = mutate.find_mutants(source)
    assert len(mutants) > 20 and len({mutant for _, mutant in mutants}) == len(mutants)
    for line, mutant in mutants:
        assert ast.dump(ast.parse(mutant)) != ast.dump(ast.parse(source)), f"line {line} says the same"
        matcher = difflib.SequenceMatcher(None, source.splitlines(), mutant.splitlines(), False)
        (_, begin, end, *_), = [change for change in matcher.get_opcodes() if change[0] != "equal"]
        assert begin < line + 12 and end >= line


def test_tests_of_mutants_exist(root):
    for tests in mutate.TESTS.values():
        assert all((root / path).exists() for path, _ in tests)


@pytest.mark.slow
def test_a_minute_of_torture(root):
    """A sample of the crash points; all rows: python tests/torture.py"""
    rows = "R2,R8,R9,R10,R13,R14,R15,R19,R24,R25"
    command = [sys.executable, str(root / "tests/torture.py"), "minutes=0.7", f"only={rows}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 failed") == 10
