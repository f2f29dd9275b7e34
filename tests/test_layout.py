"""The house rule: a program at the top, its pieces in the folder beside it, imports downwards only, and line budgets.

Raising a number or allowing an import here is a decision: say why in the commit.
"""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# what each part may import of ours; a folder may import itself
IMPORTS = {
    # the ground: they know nothing above them
    "configs": "",
    "kernels": "",
    "hf": "",
    "data": "",
    "tokenizer": "hf",
    "corpus": "tokenizer configs hf",
    "model": "kernels hf configs tokenizer",
    "generate": "model tokenizer configs hf",
    # the pieces of the programs
    "training": "data model tokenizer hf configs kernels",
    "evaluation": "generate model kernels tokenizer hf configs training",
    "reports": "evaluation configs",
    "tinyworld": "configs",
    # the programs
    "train": "training data model tokenizer hf configs",
    "prepare": "corpus tokenizer configs training",
    "eval": "evaluation generate model tokenizer configs training hf",
    "report": "reports configs",
    # nothing imports these
    "recipes": "configs kernels hf data tokenizer corpus model generate training evaluation tinyworld train prepare "
               "eval report reports",
    "bench": "configs kernels hf data tokenizer corpus model generate training evaluation tinyworld train prepare eval",
}
PROGRAMS = ("train", "model", "data", "prepare", "eval", "generate", "tokenizer", "report")
BUDGETS = {"configs/__init__": 80, "kernels/*": 450, "recipes/*": 250} | dict.fromkeys(PROGRAMS, 450) | dict.fromkeys(
    ("training/*", "hf/*", "corpus/*", "evaluation/*", "evaluation/*/*", "tinyworld/*", "bench/*"), 260)
BUDGETS["generate"] = 470  # texts that wait join a running batch
DATA_ONLY = ("reports/published.py",)  # the papers' tables


def files(part: str) -> list[Path]:
    return [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else sorted((ROOT / part).rglob("*.py"))


def test_eight_programs_and_their_folders():
    assert sorted(p.stem for p in ROOT.glob("*.py")) == sorted(PROGRAMS)
    folders = {p.parent.relative_to(ROOT).parts[0] for p in ROOT.glob("*/**/*.py") if ".venv" not in p.parts}
    assert folders - {"out"} == set(IMPORTS) - set(PROGRAMS) | {"tests"}


@pytest.mark.parametrize("pattern", [*BUDGETS, "reports/*"])
def test_line_budget(pattern):
    for path in ROOT.glob(f"{pattern}.py"):
        if str(path.relative_to(ROOT)) not in DATA_ONLY:
            lines, budget = len(path.read_text().splitlines()), BUDGETS.get(pattern, 260)
            assert lines <= budget, f"{path.relative_to(ROOT)} has {lines} lines, its budget is {budget}"


@pytest.mark.parametrize("part", IMPORTS)
def test_imports_run_downwards(part):
    for path in files(part):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported = {module.split(".")[0] for module in modules} & set(IMPORTS) - {part}
            forbidden = sorted(imported - set(IMPORTS[part].split()))
            allowed = IMPORTS[part] or "none of ours"
            assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}; {part} may import {allowed}"


def test_no_dumping_ground():
    names = ("utils", "common", "helpers", "misc")
    assert not [p for p in ROOT.rglob("*.py") if p.stem in names and ".venv" not in p.parts]


def test_nothing_is_unpickled():
    for part in IMPORTS:
        for path in files(part):
            text = path.read_text()
            assert "import pickle" not in text and "torch.load(" not in text, path.name


def test_paths_in_the_documents_exist():
    make = (ROOT / "Makefile").read_text()
    for name in ("README.md", "RESULTS.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for target in set(re.findall(r"\bmake ([a-z-]+)", text)):
            assert re.search(rf"^{target}:", make, re.M), f"{name} says make {target}; the Makefile has no such target"
        folders = "configs|kernels|tests|tinyworld|corpus|training|evaluation|reports|recipes|bench|hf"
        for path in set(re.findall(rf"\b(?:{folders})/[\w./-]+\.(?:py|sh|toml|md)", text)):
            assert (ROOT / path).exists(), f"{name} names {path}, which does not exist"


def test_ci_runs_the_readme_command():
    assert "make test" in (ROOT / ".ci/run").read_text() and "make test" in (ROOT / "README.md").read_text()
