"""Change one line at a time of what saves, locks, prunes and handles signals, and see whether a test fails.

    python tests/mutate.py mutants=60 seed=0
    python tests/mutate.py files=training/checkpoint.py mutants=500

A mutant is a copy of the repository with one line changed: a comparison turned round, a condition negated, a call left
out, a number moved by one. The tests of its file are run on it in a fork of one process that has imported the libraries
already. The score is the share of mutants that some test caught; survivors are printed, to be judged by a person: some
change nothing that can be seen.
"""
import ast
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from configs import load  # noqa: E402

# file: (the tests that look at it, by pytest's -k of a file)
TESTS = {
    "training/checkpoint.py": [("tests/test_train.py", "checkpoint or resum or stopped or damaged or prun or saving or "
                                                       "unfinished or folder or second or same_run or started"),
                               ("tests/test_dpo.py", "reference or resum"), ("tests/test_checks.py", "disk or run"),
                               ("tests/test_adamw.py", "before_the_setting or another")],
    "training/run_folder.py": [("tests/test_checks.py", "folder or disk or run or room or new_rows or file"),
                               ("tests/test_train.py", "used_folder or second_job")],
    "training/distributed.py": [("tests/test_train.py", "micro or stopped or second or nohup or pipe or parent or "
                                                        "divide or process or finite or started or new_rows"),
                                ("tests/test_eval.py", "refuse or two_evals")],
    "corpus/jobs.py": [("tests/test_jobs.py", ""), ("tests/test_prepare.py", "again or same or worker or killed"),
                       ("tests/test_cascade.py", "disk or full or changed")],
}


@dataclass(frozen=True)
class Mutate:
    files: str = ",".join(TESTS)
    mutants: int = 60            # drawn at random from all that there are
    seed: int = 0
    slow: bool = False           # also the slow tests
    seconds: int = 180           # after which a mutant that hangs counts as caught

    def __post_init__(self):
        unknown = sorted({*self.files.split(",")} - {*TESTS})
        if unknown:
            raise ValueError(f"files: {', '.join(unknown)} is not one of {', '.join(TESTS)}")


# ---------------------------------------------------------------------- mutants

OPPOSITE = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}


def find_mutants(source):
    """[(line, the mutated source)] of a file: every change is of one node, and the rest of the text stays."""
    tree, out = ast.parse(source), []
    skipped = {id(n) for part in ast.walk(tree) if isinstance(part, ast.JoinedStr | ast.Raise) for n in ast.walk(part)
               if not isinstance(n, ast.Raise)}
    for node in ast.walk(tree):
        if id(node) in skipped:  # messages, and which error is raised
            continue
        out += [(node.lineno, replace(source, node, new)) for new in changes(node)]
    return out


def changes(node):
    """Texts that may stand in the place of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.unparse(ast.Compare(node.left, [OPPOSITE[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"bool({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "pass"
    elif isinstance(node, ast.Raise):
        yield "pass"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value not in (True, False):
        yield repr(node.value + 1)
    elif isinstance(node, ast.Constant) and node.value in (True, False) and isinstance(node.value, bool):
        yield repr(not node.value)
    elif isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield Part(node.test, f"not ({ast.unparse(node.test)})")
    elif isinstance(node, ast.Slice):
        yield ":"
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return None"


class Part:
    """A change of a node within the one that was looked at."""

    def __init__(self, node, text):
        self.node, self.text = node, text


def replace(source, node, new):
    if isinstance(new, Part):
        node, new = new.node, new.text
    lines = source.encode().splitlines(keepends=True)  # columns are in bytes
    begin = sum(map(len, lines[:node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[:node.end_lineno - 1])) + node.end_col_offset
    raw = source.encode()
    return (raw[:begin] + new.encode() + raw[end:]).decode()


# ---------------------------------------------------------------------- tests

def run_tests(copy, tests, slow, seconds):
    """Whether all tests pass in a fork whose working folder is the copy; None after too long a time."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setsid()
            os.chdir(copy)
            sys.path[:] = [str(copy), str(copy / "tests")] + [p for p in sys.path if Path(p).resolve() != ROOT]
            for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(ROOT))]:
                if ".venv" not in str(sys.modules[name].__file__):
                    del sys.modules[name]
            log = os.open(copy / "out.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            import pytest
            marks = ["-m", "slow or not slow"] if slow else []
            status = 0
            for path, words in tests:
                chosen = ["-k", words] if words else []
                status = status or pytest.main(["-x", "-q", "-p", "no:cacheprovider", *marks, *chosen,
                                                f"--rootdir={copy}", str(copy / path)])
        finally:
            os._exit(int(status))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main(argv=None):
    c, = load(Mutate, argv=argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch.distributed.checkpoint
    import torch.distributed.fsdp  # noqa: F401
    import transformers  # noqa: F401
    copy = Path(tempfile.mkdtemp(prefix="mutate-")) / "repository"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "out", ".venv", "__pycache__", ".*_cache"))
    todo = []
    for name in c.files.split(","):
        source = (ROOT / name).read_text()
        todo += [(name, line, source, mutant) for line, mutant in find_mutants(source)]
    for name in c.files.split(","):
        begin = time.monotonic()
        if not run_tests(copy, TESTS[name], c.slow, 10 * c.seconds):
            raise ValueError(f"{name}: its tests fail without any change: {(copy / 'out.txt').read_text()[-2000:]}")
        print(f"{name}: the tests take {time.monotonic() - begin:.0f} s", flush=True)
    drawn = random.Random(c.seed).sample(todo, min(c.mutants, len(todo)))
    print(f"{len(drawn)} of {len(todo)} mutants", flush=True)
    caught, survivors = 0, []
    for n, (name, line, source, mutant) in enumerate(sorted(drawn, key=lambda m: m[:2]), 1):
        (copy / name).write_text(mutant)
        passed = run_tests(copy, TESTS[name], c.slow, c.seconds)
        (copy / name).write_text(source)
        caught += passed is not True
        print(f"{n}/{len(drawn)} {name}:{line} {'survived' if passed else 'caught'}", flush=True)
        if passed:
            change = [x for x in difflib.unified_diff(source.splitlines(), mutant.splitlines(), lineterm="", n=0)
                      if x[:1] in "+-" and x[:3] not in ("+++", "---")]
            survivors.append(f"{name}:{line}\n    " + "\n    ".join(change))
    shutil.rmtree(copy.parent)
    print("".join(f"\nsurvived: {each}" for each in survivors))
    print(f"\n{caught} of {len(drawn)} mutants were caught ({100 * caught / max(1, len(drawn)):.0f} %), "
          f"{len(survivors)} survived; seed={c.seed}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
