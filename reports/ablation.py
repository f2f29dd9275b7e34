"""What one change does: checkpoints NAME-<baseline> and NAME-<variant> of several runs, side by side.

    python report.py ablation baseline=unfiltered variant=filtered runs='["out/figure7/seed0", "out/figure7/seed1"]'

By model, task, metric and group of languages: both means, their difference and its standard error over the runs.
"""
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from configs import language_table
from evaluation.results import format_table
from reports.scores import read_jsonl


@dataclass(frozen=True)
class Ablation:
    runs: list      # folders with results.jsonl, one per seed
    baseline: str   # checkpoints NAME-<baseline> ...
    variant: str    # ... are compared with checkpoints NAME-<variant>

    def __post_init__(self):
        if len(self.runs) < 2:
            raise ValueError(f"runs must name two or more folders, got {self.runs}; "
                             """set runs='["out/seed0", "out/seed1"]'""")


def print_ablation(c: Ablation) -> None:
    """Print the table. A score that only the variant has, such as a win rate against the baseline, is shown alone."""
    rows = [["model", "task", "metric", "languages", c.baseline, c.variant, "difference", "each run"]]
    n = len(c.runs)
    for place, scores in read_means(c.runs).items():
        baseline, variant = scores.get(c.baseline, {}), scores.get(c.variant, {})
        if len(variant) < n or 0 < len(baseline) < n:
            continue
        after = [variant[i] for i in range(n)]
        if not baseline:
            rows.append([*place, "", f"{fmean(after):.3f} ± {standard_error(after):.3f}", "",
                         " ".join(f"{x:.2f}" for x in after)])
            continue
        before = [baseline[i] for i in range(n)]
        differences = [b - a for a, b in zip(before, after)]
        rows.append([*place, f"{fmean(before):.3f}", f"{fmean(after):.3f}",
                     f"{fmean(differences):+.3f} ± {standard_error(differences):.3f}",
                     " ".join(f"{x:+.2f}" for x in differences)])
    if len(rows) == 1:
        raise ValueError(f"no result of both a checkpoint NAME-{c.baseline} and NAME-{c.variant} in every one of "
                         f"{', '.join(c.runs)}")
    print(format_table(rows, terminal=True), flush=True)


def read_means(runs):
    """{(model, task, metric, group): {kind: {index of the run: mean over the group's languages}}}."""
    scores = {}
    for i, run in enumerate(runs):
        for row in read_jsonl(Path(run) / "results.jsonl", ("checkpoint", "task", "metric", "lang", "score")):
            model, _, kind = row["checkpoint"].rpartition("-")
            group = group_of(row["lang"])
            if group:
                by_kind = scores.setdefault((model, row["task"], row["metric"], group), {})
                by_kind.setdefault(kind, {}).setdefault(i, []).append(row["score"])
    return {place: {kind: {i: fmean(values) for i, values in by_run.items()} for kind, by_run in by_kind.items()}
            for place, by_kind in scores.items()}


def group_of(lang):
    """The mixture category of a language, "pairs" for a translation pair, None for a mean."""
    if lang in language_table.NAMES:
        return language_table.group(lang)
    return "pairs" if "-" in lang else None


def standard_error(values):
    return stdev(values) / len(values) ** 0.5
