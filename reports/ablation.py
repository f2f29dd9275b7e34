"""What one change does: checkpoints <baseline> and <variant>, or NAME-<baseline> and NAME-<variant>, of several runs.

    python report.py ablation baseline=unfiltered variant=filtered runs='["out/claims/seed0", "out/claims/seed1"]'
    python report.py ablation saved=out/claims/ablation-filtered.json    # what save= stored

By model, task, metric and group of languages: both means, their difference and its standard error over the runs.
"""
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from configs import language_table
from evaluation.results import format_table
from reports.scores import are_numbers, check_runs, check_saved, read_json, read_jsonl, write_json


@dataclass(frozen=True)
class Ablation:
    runs: list | None = None      # folders with results.jsonl, one per seed
    baseline: str | None = None   # checkpoints <baseline> or NAME-<baseline> ...
    variant: str | None = None    # ... are compared with <variant> or NAME-<variant>
    save: str | None = None       # a JSON file for the scores of every run
    saved: str | None = None      # instead of all of these: such a file, to print again

    def __post_init__(self):
        if self.saved is not None:
            if self.runs or self.baseline or self.variant or self.save:
                raise ValueError("saved= stands alone: it names a file that save= wrote; set nothing else")
            return
        if not self.baseline or not self.variant:
            raise ValueError("set baseline=, variant= and runs=, or saved=")
        check_runs(self.runs)


def print_ablation(c: Ablation) -> None:
    """Print the table. A score that only the variant has, such as a win rate against the baseline, is shown alone."""
    found = read_saved(c.saved) if c.saved is not None else {
        "baseline": c.baseline, "variant": c.variant, "scores": paired_scores(c.runs, c.baseline, c.variant)}
    print(format_table(table_rows(**found), terminal=True), flush=True)
    if c.save:
        write_json(c.save, found)


def read_saved(path):
    """What save= wrote; ValueError names the file and the row that is damaged."""
    found = read_json(path)
    names = [found.get(key) for key in ("baseline", "variant")] if isinstance(found, dict) else []
    if not names or not all(isinstance(name, str) for name in names) or len(found) != 3:
        raise ValueError(f"{path}: not what report.py ablation saves; write it again from its runs")
    check_saved(path, found.get("scores"), is_score)
    return found


def is_score(row) -> bool:
    """Whether a row of a saved file is one of paired_scores."""
    place, before, after = (row.get(key) for key in ("place", "baseline", "variant"))
    return (isinstance(place, list) and len(place) == 4 and all(isinstance(word, str) for word in place)
            and are_numbers(after) and (before == [] or (are_numbers(before) and len(before) == len(after))))


def paired_scores(runs, baseline, variant):
    """[{"place": [model, task, metric, group], "baseline": scores of the runs, [] if it has none, "variant": scores}].
    """
    rows, n = [], len(runs)
    for place, scores in read_means(runs).items():
        before, after = scores.get(baseline, {}), scores.get(variant, {})
        if len(after) == n and len(before) in (0, n):
            rows.append({"place": list(place), "baseline": [round(before[i], 6) for i in sorted(before)],
                         "variant": [round(after[i], 6) for i in range(n)]})
    if not rows:
        raise ValueError(f"no result of both a checkpoint NAME-{baseline} and NAME-{variant} in every one of "
                         f"{', '.join(runs)}")
    return rows


def table_rows(baseline, variant, scores):
    rows = [["model", "task", "metric", "languages", baseline, variant, "difference", "each run"]]
    for row in scores:
        before, after = row["baseline"], row["variant"]
        if not before:
            rows.append([*row["place"], "", f"{fmean(after):.3f} ± {standard_error(after):.3f}", "",
                         " ".join(f"{x:.2f}" for x in after)])
            continue
        differences = [b - a for a, b in zip(before, after)]
        rows.append([*row["place"], f"{fmean(before):.3f}", f"{fmean(after):.3f}",
                     f"{fmean(differences):+.3f} ± {standard_error(differences):.3f}",
                     " ".join(f"{x:+.2f}" for x in differences)])
    return rows


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
    """The mixture category of a language: "low". Of a pair with English, that of the other language: "into en: low",
    "out of en: low". Of another pair, "pairs". None for a mean.
    """
    if lang in language_table.NAMES:
        return language_table.group(lang)
    source, _, target = lang.partition("-")
    if not target:
        return None
    if "en" not in (source, target):
        return "pairs"
    direction, other = ("into", source) if target == "en" else ("out of", target)
    return f"{direction} en: {language_table.group(other)}"


def standard_error(values):
    return stdev(values) / len(values) ** 0.5
