"""The demo, step by step: the shipped base learns eight more languages on a laptop and answers questions in them.

    make demo                                  # ten languages
    LANGUAGES=all make demo                    # all 29
    python recipes/demo.py                     # what make demo runs, in the environment you have

Every step is a command of this repository that you could type yourself. This file only runs them in order, shows one
line of progress for each, and keeps their output in out/demo/logs/.
"""
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import demo_languages, errors, language_table
from evaluation import outcomes
from evaluation.results import read_rows
from hf.weights import open_weights

OUT = Path("out/demo")
PYTHON = [sys.executable]
# two data-parallel processes: faster than one with two threads
TRAIN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
EVAL = [*TRAIN[:-1], "eval.py"]
BASE = "tinyworld/base"


def steps() -> list[tuple[str, list[str]]]:
    """(title, command) of every step, in order."""
    found = [
        ("write the small world's documents, translations and benchmarks",
         [*PYTHON, "-m", "tinyworld", "configs/tiny/world.py"]),
        ("clean, deduplicate, tokenize", [*PYTHON, "prepare.py", "configs/tiny/data.py"]),
        ("continual pretraining, stage I (Table 2's mixture, English-Chinese pairs)",
         [*TRAIN, "configs/tiny/stage1.py"]),
        ("continual pretraining, stage II (Table 3's mixture, the same pairs)", [*TRAIN, "configs/tiny/stage2.py"]),
        ("render chats and preference pairs", [*PYTHON, "prepare.py", "configs/tiny/chats.py"]),
        ("supervised fine-tuning", [*TRAIN, "configs/tiny/sft.py"]),
        ("preference alignment (DPO)", [*TRAIN, "configs/tiny/dpo.py"]),
    ]
    for name, model in (("base", BASE), ("stage2", f"{OUT}/stage2"), ("dpo", f"{OUT}/dpo")):
        command = [*EVAL, "configs/tiny/eval.py", f"model={model}", f"checkpoint={name}"]
        found.append((f"benchmarks of {name}", command))
    for name in ("sft", "dpo"):
        command = [*EVAL, "configs/tiny/chat_eval.py", f"model={OUT}/{name}", f"out={OUT}/answers/{name}"]
        found.append((f"conversations with {name}", command))
    judge = [*PYTHON, "-m", "tinyworld", "judge", f"raw={OUT}/raw", f"out={OUT}/results.jsonl"]
    samples = f"{OUT}/answers/{{}}/samples.jsonl"
    return found + [
        ("judge the answers of sft", [*judge, f"a={samples.format('sft')}"]),
        ("judge dpo against sft", [*judge, f"a={samples.format('dpo')}", f"b={samples.format('sft')}"]),
        ("data card", [*PYTHON, "report.py", "datacard", f"data={OUT}/tokens"]),
        ("report", [*PYTHON, "report.py", "demo", f"run={OUT}"]),
        ("ask the base", [*PYTHON, "generate.py", "configs/tiny/ask.py", f"model={BASE}", "chat=False"]),
        ("ask the aligned model", [*PYTHON, "generate.py", "configs/tiny/ask.py", f"model={OUT}/dpo"])]


def run(title: str, command: list[str], number: int, total: int) -> str:
    """Run a command and return what it printed; a terminal shows its last line meanwhile. SystemExit if it fails."""
    log = OUT / "logs" / f"{number:02}.txt"
    begin, output = time.time(), []
    print(f"[{number}/{total}] {title}", end="" if sys.stdout.isatty() else "\n", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    with open(log, "w", encoding="utf-8", buffering=1) as f:
        f.write(" ".join(command) + "\n")
        for line in process.stdout:
            f.write(line)
            output.append(line)
            if sys.stdout.isatty():
                width = shutil.get_terminal_size().columns
                shown = f"[{number}/{total}] {title}: {line.strip()}"[:width - 1]
                print(f"\r{shown:{width - 1}}", end="", flush=True)
    spent = f"{time.time() - begin:.0f} s"
    if process.wait():
        print(f"\n{''.join(output[-20:])}\n{title} failed; its full output is in {log}")
        raise SystemExit(process.returncode)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r{f'[{number}/{total}] {title}: {spent}':{width - 1}}")
    else:
        print(f"        {spent}")
    return "".join(output)


def save_outcome(run: Path, seed: int, seconds: float, base: str = BASE) -> None:
    """RUN/outcome.json, both stages as a row of `report.py systems`: stated facts in the low-resource languages, before
    and after. Nothing without low-resource languages.

    run: a folder with the results.jsonl of base and stage2, and of dpo's answers where there are any.
    """
    rows = list(read_rows(run / "results.jsonl", ("checkpoint", "task", "lang", "metric", "score")))
    scores = {(r["checkpoint"], r["task"], r["metric"], r["lang"]): r["score"] for r in rows}
    low = [code for code in language_table.LOW if ("base", "mmmlu_stated", "acc", code) in scores]
    if not low:
        return
    facts = {name: 100 * fmean(scores[name, "mmmlu_stated", "acc", code] for code in low)
             for name in ("base", "stage2")}
    answered = [r["score"] for r in rows if (r["checkpoint"], r["metric"], r.get("group"), r["lang"])
                == ("dpo", "right_language", "low", "mean")]
    tokens = sum(runpy.run_path(f"configs/tiny/{name}.py")["tokens"] for name in ("stage1", "stage2"))
    outcomes.save(outcomes.Outcome(
        system="marco", title="Marco-LLM", paper="2412.04003", seed=seed,
        claim="Two stages of continual pretraining teach low-resource languages, and English keeps what it had.",
        metric="facts stated in its texts, low-resource languages, %", method=facts["stage2"],
        controls={"base": facts["base"]}, english_metric="bits per byte (less is better)",
        english_before=scores["base", "heldout", "bits_per_byte", "en"],
        english_after=scores["stage2", "heldout", "bits_per_byte", "en"],
        right_language=100 * answered[-1] if answered else None, tokens=tokens, control_tokens=0,
        base=outcomes.hash_base(base), seconds=seconds), run)


def check_start(base: str = BASE) -> None:
    """ValueError, before anything is removed or made, for an unknown language or a base that cannot be read."""
    demo_languages.chosen()
    if not Path(base, "config.json").exists():
        raise ValueError(f"{base} is missing; it comes with the repository, or make base trains it (two hours)")
    rows, vocabulary = open_weights(base)["model.embed_tokens.weight"].shape[0], tokenizer.load(base).vocab_size
    if rows < vocabulary:
        raise ValueError(f"{base}: its tokenizer has {vocabulary} tokens, its embedding {rows} rows; they belong to "
                         "different models: git checkout tinyworld/base")


def main() -> None:
    os.chdir(Path(__file__).parent.parent)
    check_start()
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "logs").mkdir(parents=True)
    begin, todo = time.time(), steps()
    answers = {title: run(title, command, n, len(todo)) for n, (title, command) in enumerate(todo, 1)}
    print(f"\n{answers['report'].strip()}")
    for title in ("ask the base", "ask the aligned model"):
        print(f"\n{title}:\n{answers[title].strip()}")
    save_outcome(OUT, 0, time.time() - begin)
    print(f"\n{time.time() - begin:.0f} s; report: {OUT}/report.html and report.md; logs: {OUT}/logs")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
