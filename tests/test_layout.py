"""The shape of the project: line budgets, imports, and README's paths. Raising a number here is a decision."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# lines of each file, and which of ours it imports
FILES = {
    "train": (665, "model data dpo plan checkpoint tokenizer configs"), "dpo": (160, "data"), "plan": (200, "model"), "model": (480, "kernels checkpoint configs"),
    "checkpoint": (360, "tokenizer"), "generate": (320, "model prefill tokenizer configs"), "data": (380, ""),
    "tokenizer": (370, "vocabulary"), "vocabulary": (260, ""),
    "eval": (480, "model generate scoring documents metrics tokenizer configs"), "documents": (230, "rows"), "rows": (140, ""),
    "metrics": (230, ""), "scoring": (150, "prefill"), "prefill": (110, "model"), "compare": (280, "configs tables"),
    "judge": (300, "configs corpus tables compare ask figures"), "ask": (130, "corpus tables tokenizer model generate"),
    "report": (370, "configs tables figures datacard"), "tables": (270, "configs"), "figures": (120, "configs tables"),
    "prepare": (540, "corpus shards tokenizer configs"), "shards": (210, "corpus tokenizer"), "datacard": (130, "configs"), "quality": (220, "corpus configs recipes"),
    "configs/__init__": (80, ""), "corpus/*": (265, "corpus"), "kernels/*": (450, "kernels"), "recipes/*": (230, None),
    "tinyworld/*": (300, "tinyworld configs")}
BUDGET = {f"{name}.py": lines for name, (lines, _) in FILES.items()}
IMPORTS = {name.split("/")[0]: set(ours.split()) for name, (_, ours) in FILES.items() if ours is not None}
OURS = {name.split("/")[0] for name in FILES}


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
