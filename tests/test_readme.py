"""README.md is true: commands name files and settings that exist, line counts hold, the blocks marked cpu run."""
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eval as evaluate
import generate
import prepare
import report
import train
from evaluation import compare, judge
from model import Export, ModelConfig
from recipes import extend_vocabulary, pipeline, plug

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CPU = "<!-- cpu -->"  # stands before a block that the slow test runs word for word
SETTINGS = {"train.py": (train.Train, ModelConfig, train.Estimate), "prepare.py": (prepare.Prepare,),
            "model.py export": (Export,),
            "generate.py": (generate.Sample, generate.Decoding), "eval.py": (evaluate.Eval,),
            "eval.py compare": (compare.Compare,), "eval.py judge": (judge.Judge,),
            "recipes/extend_vocabulary.py": (extend_vocabulary.Extend,),
            "recipes/plug.py": (plug.Plug, pipeline.Pipeline)}
SETTINGS |= {f"report.py {name}": (schema,) for name, (schema, _) in report.REPORTS.items()}


def commands() -> list[str]:
    """The lines of README's code blocks, without comments; `for m in ...; do ...; done` is what it repeats."""
    lines = [line[4:].split("  #")[0].strip() for line in README.splitlines() if line.startswith("    ")]
    return [re.sub(r"^for .*; do (.*); done$", r"\1", line) for line in lines if line]


def python_commands() -> list[str]:
    return [c for c in commands() if re.match(r"(python|torchrun) ", c)]


def test_readme_is_short():
    assert len(README.split()) <= 1600


def test_there_are_commands_of_every_program():
    assert {"train.py", "prepare.py", "eval.py", "generate.py", "report.py", "model.py"} <= {
        word for c in python_commands() for word in c.split() if word.endswith(".py")}


@pytest.mark.parametrize("command", python_commands())
def test_commands_name_what_exists(command):
    words = shlex.split(command)
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    program, words = words[at], words[at + 1:]
    assert (ROOT / program).is_file()
    if words and f"{program} {words[0]}" in SETTINGS:
        program, words = f"{program} {words[0]}", words[1:]
    known = {f.name for schema in SETTINGS[program] for f in dataclasses.fields(schema)}
    for word in words:
        if word.endswith(".py"):
            assert (ROOT / word).is_file(), word
        elif "=" in word:
            assert word.split("=")[0] in known, f"{program} has no setting {word.split('=')[0]}"


def test_line_counts_of_the_map():
    """Within a tenth: "    train.py       390  one loop ..."."""
    counts = re.findall(r"^    ([\w/]+(?:\.py|/))\s+([\d,]+)  ", README, re.M)
    assert len(counts) >= 14
    for name, stated in counts:
        files = [ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py")
        lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in files)
        close = abs(lines - int(stated.replace(",", ""))) <= 0.1 * lines + 5
        assert close, f"{name} has {lines} lines, README says {stated}"


def cpu_blocks() -> list[str]:
    """The code blocks marked cpu."""
    blocks = []
    for part in README.split(CPU)[1:]:
        block = re.match(r"\s*\n((?:    .*\n|\n)+)", part)
        assert block, f"no code block follows a {CPU}"
        blocks.append(re.sub(r"^    ", "", block[1], flags=re.M))
    return blocks


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(cpu_blocks())))
def test_the_blocks_marked_cpu_run(number, tmp_path):
    """In a copy of the repository with a folder own/ of two languages; `python` is this one."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    raw = tmp_path / "raw"
    subprocess.run([sys.executable, "-m", "tinyworld", f"out={raw}", "seed=5", "languages=['en', 'kk']",
                    "web={'en': 800, 'low': 800}", "pairs=200", "items=8", "test=32"], cwd=tmp_path, check=True,
                   stdout=subprocess.DEVNULL)
    for code in ("en", "kk"):
        for source, target in ((f"web/{code}.jsonl", f"text/{code}/web.jsonl"),
                               (f"benchmarks/flores/{code}.txt", f"test/{code}.txt")):
            (tmp_path / "own" / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(raw / source, tmp_path / "own" / target)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (bin_folder / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", cpu_blocks()[number]], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
