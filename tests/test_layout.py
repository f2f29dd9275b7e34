"""The shape of the project: line budgets, imports, and README's paths. Raising a number here is a decision."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUDGET = {"train.py": 610, "plan.py": 200, "model.py": 480, "checkpoint.py": 360, "generate.py": 320, "data.py": 320, "eval.py": 480, "prepare.py": 480,
          "tokenizer.py": 310, "vocabulary.py": 260, "report.py": 330,
          "configs/__init__.py": 80, "corpus/*.py": 250, "kernels/*.py": 450, "recipes/*.py": 230, "tinyworld/*.py": 300}
OURS = {"train", "plan", "model", "checkpoint", "generate", "data", "eval", "prepare", "tokenizer", "vocabulary", "report", "configs", "corpus", "kernels", "recipes", "tinyworld"}
IMPORTS = {"configs": set(), "tokenizer": {"vocabulary"}, "vocabulary": set(), "data": set(), "kernels": {"kernels"}, "corpus": {"corpus"},
           "prepare": {"corpus", "tokenizer", "configs"}, "checkpoint": {"tokenizer"}, "model": {"kernels", "checkpoint", "configs"},
           "train": {"model", "data", "checkpoint", "tokenizer", "plan", "configs"}, "plan": {"model"}, "generate": {"model", "tokenizer", "configs"},
           "eval": {"model", "generate", "tokenizer", "configs"}, "report": {"configs"}, "tinyworld": {"tinyworld", "configs"}}


@pytest.mark.parametrize("pattern", BUDGET)
def test_line_budget(pattern):
    for path in ROOT.glob(pattern):
        n = len(path.read_text().splitlines())
        assert n <= BUDGET[pattern], f"{path.name} has {n} lines, its budget is {BUDGET[pattern]}"


def test_no_long_line():
    for path in (p for part in ("", "corpus", "kernels", "recipes") for p in (ROOT / part).glob("*.py")):
        for i, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 130, f"{path.relative_to(ROOT)}, line {i}: {len(line)} columns, at most 130 please"


@pytest.mark.parametrize("part", IMPORTS)
def test_imports(part):
    files = [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else (ROOT / part).glob("*.py")
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            got = {n.split(".")[0] for n in names} & OURS
            allowed = IMPORTS[part] | ({"configs"} if part == "configs" else set())
            assert got <= allowed, f"{path.relative_to(ROOT)} imports {sorted(got - allowed)}"


def test_no_dumping_ground():
    assert not [p for p in ROOT.rglob("*.py") if p.stem in ("utils", "common", "helpers") and ".venv" not in p.parts]


def test_nothing_is_unpickled():
    for path in ROOT.glob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text and "torch.load(" not in text, path.name


def test_readme_paths_and_targets_exist():
    readme, make = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", readme)):
        assert re.search(rf"^{target}:", make, re.M), f"README says make {target}; the Makefile has no such target"
    for path in set(re.findall(r"\b(?:configs|kernels|tests|tinyworld|corpus)/[\w./-]+\.(?:py|sh|toml)", readme)):
        assert (ROOT / path).exists(), f"README names {path}, which does not exist"


def test_ci_runs_the_readme_command():
    assert "make test" in (ROOT / ".ci/run").read_text() and "make test" in (ROOT / "README.md").read_text()
