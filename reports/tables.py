"""Every score of a run as measured, in any languages: one table per task and metric, with the change.

    python report.py tables run=out/mine    # report.md beside out/mine/results.jsonl
"""
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from evaluation.results import format_table
from reports.scores import read_jsonl


@dataclass(frozen=True)
class Tables:
    run: str    # folder with results.jsonl; report.md is written into it


def write_tables(c: Tables) -> None:
    """Print the tables and write report.md. Of two rows for one score the later counts."""
    file = Path(c.run) / "results.jsonl"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run eval.py on the checkpoints with out={file}")
    scores: dict = {}  # {(task, metric): {lang: {checkpoint: score}}}
    for row in read_jsonl(file, ("checkpoint", "task", "metric", "lang", "score")):
        by_lang = scores.setdefault((row["task"], row["metric"]), {})
        by_lang.setdefault(row["lang"], {})[row["checkpoint"]] = row["score"]
    tables = [score_rows(name, by_lang) for name, by_lang in scores.items()]
    for table in tables:
        print(format_table(table, terminal=True), "", sep="\n", flush=True)
    (Path(c.run) / "report.md").write_text("".join(format_table(table) + "\n\n" for table in tables), encoding="utf-8")


def score_rows(name, by_lang):
    """One table: a row per language, their mean, and the change from the first checkpoint to the last."""
    checkpoints = list(dict.fromkeys(k for scores in by_lang.values() for k in scores))
    first, last = checkpoints[0], checkpoints[-1]
    means = {k: fmean(scores[k] for scores in by_lang.values() if k in scores) for k in checkpoints}
    rows = [[" ".join(name), *checkpoints, "change"]]
    for lang, scores in [*by_lang.items(), ("mean", means)]:
        change = f"{scores[last] / scores[first] - 1:+.1%}" if scores.get(first) and last in scores else ""
        rows.append([lang, *(f"{scores[k]:.3f}" if k in scores else "" for k in checkpoints), change])
    return rows
