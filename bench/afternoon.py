"""What an afternoon of continued training did to a published checkpoint: one table, and the figures as data.

    python -m bench.afternoon run=out/own/stage1 results='["out/own/results.jsonl"]' base=SmolLM2-135M-Instruct \\
        out=results/afternoon.json

results: files of eval.py, of the base and of every model made from it. The table prints each score beside the base's;
the file holds every row, what was trained and on how much text, and the machine's speed.
"""
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import load

SETTINGS = ("tokens", "seq_len", "batch_size", "lr", "lr_schedule", "warmup_ratio", "min_lr_ratio", "dtype", "mixture")


@dataclass(frozen=True)
class Afternoon:
    run: str             # run folder of the training
    results: list        # files of eval.py
    base: str            # name of the untrained model in them
    out: str             # the JSON file
    name: str | None = None  # of the published checkpoint; None: base
    note: str = ""       # kept in the file: where the text comes from, what was held out and how


def main(argv=None):
    c, = load(Afternoon, argv=argv)
    rows = [json.loads(line) for file in c.results for line in read(file).splitlines()]
    scores = {(r["task"], r["lang"], r["metric"]): {} for r in rows if r["metric"] in ("bits_per_byte", "chrf++")}
    for r in rows:
        if r["metric"] in ("bits_per_byte", "chrf++"):
            scores[r["task"], r["lang"], r["metric"]][r["checkpoint"]] = r
    if not any(c.base in models for models in scores.values()):
        names = sorted({r["checkpoint"] for r in rows})
        raise ValueError(f"base={c.base} is in none of {c.results}; they have {names}")
    outcome = {"model": c.name or c.base, "note": c.note, "training": training_facts(Path(c.run)), "scores": [
        {"task": task, "language": lang, "metric": metric} | {model: {"score": r["score"], "low": r["low"],
                                                                      "high": r["high"], "n": r["n"]}
                                                              for model, r in models.items()}
        for (task, lang, metric), models in sorted(scores.items())]}
    Path(c.out).parent.mkdir(parents=True, exist_ok=True)
    Path(c.out).write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(outcome, c.base))


def read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise ValueError(f"{path}: {e.strerror}; set results= to what eval.py wrote") from None


def training_facts(run):
    """Settings, tokens trained, loss, speed and memory, from run.json, log.jsonl and the account beside the shards."""
    settings = json.loads(read(run / "run.json"))["settings"]
    steps = [row for row in map(json.loads, read(run / "log.jsonl").splitlines()) if "loss" in row]
    data = settings["data"] if isinstance(settings["data"], list) else [settings["data"]]
    text = {}
    for folder in data:
        if (account := Path(folder, "account.json")).exists():
            text |= {name: {"documents": source["kept"], "bytes": source["bytes"], "tokens": source["tokens"]["train"]}
                     for name, source in json.loads(account.read_text()).items()}
    return {"settings": {name: settings[name] for name in SETTINGS}, "trained_tokens": steps[-1]["tokens"],
            "last_loss": steps[-1]["loss"], "last_lr": steps[-1]["lr"],
            "peak_memory_gb": max(r["memory_gb"] for r in steps),
            "tokens_per_s": {"median": statistics.median(r["tokens_per_s"] for r in steps),
                             "best": max(r["tokens_per_s"] for r in steps)}, "text": text}


def table(outcome, base):
    """Markdown: a line for each score, a column for each model."""
    models = [base] + sorted({k for row in outcome["scores"] for k, v in row.items() if isinstance(v, dict)} - {base})
    lines = ["| | " + " | ".join(models) + " |", "|---" * (len(models) + 1) + "|"]
    for row in outcome["scores"]:
        cells = [f"{row[m]['score']:.3f}" if m in row else "" for m in models]
        lines.append(f"| {row['metric']} {row['language']} | " + " | ".join(cells) + " |")
    t = outcome["training"]
    return "\n".join([*lines, f"{t['trained_tokens']:,} tokens trained, {t['tokens_per_s']['median']:.0f} a second"])


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
