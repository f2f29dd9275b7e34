"""Test the claims over several runs that differ only in their seed: mean, standard error, verdict.

    python report.py claims runs='["out/claims/seed0", "out/claims/seed1"]'    # claims.md and .json in out/claims
    python report.py claims saved=results/claims.json                          # the same table from such a file
"""
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from evaluation.results import format_table
from reports.gains import (
    CHANCE,
    CHRF,
    DOCUMENTS,
    GROUPS,
    KEPT,
    SENTENCES,
    gain,
    gain_order,
    groups_of,
    read_checkpoints,
    translation_directions,
)
from reports.scores import are_numbers, check_runs, check_saved, read_json, write_json


@dataclass(frozen=True)
class Claims:
    runs: list | None = None  # folders with results.jsonl, one per seed
    saved: str | None = None  # instead: a claims.json, to print again
    checkpoints: list = field(default_factory=lambda: ["base", "stage1", "stage2"])  # in training order
    chance: dict = field(default_factory=lambda: dict(CHANCE))  # multiple-choice tasks: accuracy by chance in %
    max_rise: float = 0.01    # English and Chinese count as kept up to this rise of their bits per byte

    def __post_init__(self):
        if (self.runs is None) == (self.saved is None):
            raise ValueError("""set one of the two, runs='["out/seed0", "out/seed1"]' or saved=results/claims.json""")
        if self.runs is not None:
            check_runs(self.runs)


def write_claims(c: Claims) -> None:
    """Write claims.md and claims.json beside the runs, and print the table; or print that of a claims.json."""
    if c.saved is not None:
        saved = read_json(c.saved)
        check_saved(c.saved, saved, is_claim)
        print(format_table(claim_rows(saved), terminal=True), flush=True)
        return
    assert c.runs is not None
    runs = [read_checkpoints(run, c.checkpoints, c.chance) for run in c.runs]
    metrics = (DOCUMENTS, SENTENCES, *((task, "acc") for task in c.chance))
    shapes = [(list(scores), translation_directions(scores), [groups_of(scores, metric) for metric in metrics])
              for scores in runs]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{', '.join(c.runs)} differ in checkpoints, languages or translation pairs; "
                         "finish them or set checkpoints=")
    values = claim_values(c, runs)
    rows = claim_rows(values)
    file = Path(c.runs[0]).parent / "claims.md"
    text = [f"# Claims over {len(runs)} runs",
            "**Toy scale.** Last checkpoint against first. A gain holds when it is more than 2 standard errors over "
            "the runs, a mild test with so few runs.",
            format_table(rows)]
    file.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    write_json(file.with_suffix(".json"), values)
    print(format_table(rows, terminal=True), f"wrote {file}", sep="\n", flush=True)


def claim_values(c, runs):
    """A row for each claim: its value in every run, and how it is judged. runs: the scores of each run."""
    rows = []
    limit = 100 * c.max_rise

    def add(claim, group, values, digits, at_most=None):
        values = [round(0 + value, 6) for value in values]  # 0 + -0.0 is 0.0
        rows.append({"claim": claim, "group": group, "values": values, "digits": digits, "at_most": at_most})

    for text, metric in (("documents", DOCUMENTS), ("parallel sentences", SENTENCES)):
        for group, langs in groups_of(runs[0], metric).items():
            add(f"bits per byte saved, {text}", group, [gain(scores, metric, langs)[0] for scores in runs], 3)
    for (direction, group), pairs in translation_directions(runs[0]).items():
        add(f"chrF++ {direction}", group, [gain(scores, CHRF, pairs)[0] for scores in runs], 2)
    for task in c.chance:
        for group, langs in groups_of(runs[0], (task, "acc")).items():
            add(f"{task}, points", group, [100 * gain(scores, (task, "acc"), langs)[0] for scores in runs], 1)
    for i, unit in enumerate(("in bits", "in %")):
        add("least served gains most", unit, [gain_order(scores)[i] for scores in runs], 2)
    for text, metric in (("documents", DOCUMENTS), ("parallel sentences", SENTENCES)):
        for group in KEPT:
            if group not in groups_of(runs[0], metric):
                continue
            rises = [-gain(scores, metric, GROUPS[group])[2] for scores in runs]
            add(f"bits per byte up at most {limit:g} %, {text}", group, rises, 1, at_most=limit)
    return rows


def is_claim(row) -> bool:
    """Whether a row of a claims.json is one of claim_values."""
    limit, digits = row.get("at_most", ""), row.get("digits")
    return (isinstance(row.get("claim"), str) and isinstance(row.get("group"), str) and are_numbers(row.get("values"))
            and type(digits) is int and 0 <= digits < 10 and (limit is None or are_numbers([limit], 1)))


def claim_rows(values):
    """The table of claims: a gain holds above 2 standard errors, a rise if its mean is at most the limit."""
    rows = [["claim", "group", "mean ± standard error", "each run", "holds"]]
    for row in values:
        mean, error = fmean(row["values"]), stdev(row["values"]) / math.sqrt(len(row["values"]))
        holds = mean > 2 * error if row["at_most"] is None else round(mean, 6) <= row["at_most"]
        mean_text, *each = (f"{x:+.{row['digits']}f}" for x in (mean, *row["values"]))
        rows.append([row["claim"], row["group"], f"{mean_text} ± {error:.{row['digits']}f}", " ".join(each),
                     "yes" if holds else "no"])
    return rows
