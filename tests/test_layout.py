"""The shape of the project: line budgets, imports, and README's paths. Raising a number here is a decision."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# lines of each file, and which of ours it imports
FILES = {
    "train": (665, "model data dpo plan checkpoint tokenizer configs"), "dpo": (160, "data"), "plan": (210, "model"),
    "model": (480, "kernels checkpoint configs"), "kernels/*": (450, "kernels"), "checkpoint": (360, "tokenizer"),
    "generate": (320, "model prefill tokenizer configs"), "prefill": (110, "model"), "data": (380, ""),
    "tokenizer": (375, "vocabulary"), "vocabulary": (260, ""),
    "prepare": (545, "corpus shards tokenizer configs"), "shards": (210, "corpus tokenizer"), "corpus/*": (265, "corpus"),
    "quality": (220, "corpus configs recipes"),
    "eval": (480, "model generate evaluation tokenizer configs"),
    "evaluation/*": (230, "evaluation reports corpus prefill tokenizer model generate"),
    "judge": (300, "configs corpus compare evaluation reports"), "compare": (280, "configs reports"),
    "report": (370, "configs reports"), "reports/*": (270, "configs reports"),
    "configs/__init__": (80, ""), "recipes/*": (230, None), "tinyworld/*": (300, "tinyworld configs")}
BUDGET = {f"{name}.py": lines for name, (lines, _) in FILES.items()}
IMPORTS = {name.split("/")[0]: set(ours.split()) for name, (_, ours) in FILES.items() if ours is not None}
OURS = {name.split("/")[0] for name in FILES}


@pytest.mark.parametrize("pattern", BUDGET)
def test_line_budget(pattern):
    for path in ROOT.glob(pattern):
        n = len(path.read_text().splitlines())
        assert n <= BUDGET[pattern], f"{path.name} has {n} lines, its budget is {BUDGET[pattern]}"


def test_no_long_line():
    for path in (p for part in ("", "corpus", "kernels", "evaluation", "reports", "recipes") for p in (ROOT / part).glob("*.py")):
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
