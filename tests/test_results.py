"""RESULTS.md says what the stored results say: its tables are made here again from results/ and compared."""
import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest

from reports import systems

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "RESULTS.md").read_text(encoding="utf-8")


def read(name):
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def cells_of(heading, first):
    """{first cell of a row: its other cells} of the table whose header begins with `first`, below the heading."""
    part = TEXT.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = part[part.index(f"| {first} |".replace("  ", " ")):].split("\n\n", 1)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def mean_and_error(values, digits, sign="+"):
    error = stdev(values) / math.sqrt(len(values))
    mean = round(fmean(values), digits)
    mark = sign if mean else ""  # 0 has no sign
    return f"{abs(mean) if not mean else mean:{mark}.{digits}f} ± {error:.{digits}f}"


def test_the_systems():
    outcomes = systems.read_outcomes(ROOT / "results/systems")
    written = cells_of("The systems on the shipped base", "system")
    for runs in outcomes.values():
        name, *row = systems.summary_row(runs)
        assert written[name] == row
    assert len(written) == len(outcomes) == 9


def test_the_demo_of_the_readme():
    """Its table has the same numbers here and there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    written = cells_of("The demo", "base → stage II → after SFT and DPO")
    lines = readme[readme.index("    base → stage2 → dpo"):].split("\n\n")[0].splitlines()[1:]
    for line in lines:
        name, *numbers = re.split(r"  +", line.strip())
        here = [cell for cell in written[name] if cell]
        assert numbers == here, name
    assert len(lines) == len(written) - 1  # bits per byte are in RESULTS.md only


# row of the table: (claim in claims.json, decimals of each column); columns: English, Chinese, other high, low
CLAIMS = {"bits per byte of documents saved": ("bits per byte saved, documents", (3, 3, 2, 2)),
          "... of lists of unrelated sentences": ("bits per byte saved, parallel sentences", (2, 2, 2, 2)),
          "facts that their documents state, points": ("mmmlu_stated, points", (1, 1, 0, 0)),
          "facts that only other languages' documents state, points": ("mmmlu_unstated, points", (1, 1, 0, 1)),
          "cause and effect, points": ("xcopa, points", (1, 1, 0, 0)),
          "translation into English, chrF++": ("chrF++ xx to en", (1, 1, 0, 1)),
          "translation out of English, chrF++": ("chrF++ en to xx", (1, 0, 0, 0)),
          "reading, points (chance 25 %)": ("belebele, points", (0, 1, 1, 1))}
GROUPS = ("English", "Chinese", "other high-resource", "low-resource")


@pytest.mark.parametrize("row", CLAIMS)
def test_the_claims(row):
    claim, decimals = CLAIMS[row]
    stored = {r["group"]: r["values"] for r in read("claims.json") if r["claim"] == claim}
    written = cells_of("Marco-LLM's claims", "claim")[row]
    for group, digits, cell in zip(GROUPS, decimals, written[:4], strict=True):
        values = stored.get(group)
        if values is None or not any(values):  # English with English; nothing changes in any run
            assert cell in ("", "0")
            continue
        signed = row.startswith(("bits", "..."))
        assert cell == mean_and_error(values, digits, sign="" if signed else "+"), group


# ---------------------------------------------------------------------- ablations

COLUMNS = [("heldout", "bits_per_byte", "en", 1, 3), ("heldout", "bits_per_byte", "zh", 1, 3),
           ("heldout", "bits_per_byte", "low", 1, 2), ("mmmlu_stated", "acc", "low", 100, 0),
           ("translation", "chrf++", "into en: low", 1, 0), ("translation", "chrf++", "out of en: low", 1, 0),
           ("translation", "chrf++", "out of en: zh", 1, 0)]
VARIANTS = {"one stage, the mean of both mixtures": "one_stage", "half of what is replayed": "half_replay",
            "nothing replayed": "no_replay", "a third of the learning rate": "low_lr",
            "three times the learning rate": "high_lr",
            "two stages merged with the base, half and half": "merged", "the same, filtered": "filtered"}


def ablation_cells(variant):
    """(the control's cells, the variant's with its difference) in the columns of the table."""
    stored = {tuple(row["place"][1:]): row for row in read(f"ablations/{variant}.json")["scores"]}
    control, changed = [], []
    for *place, scale, digits in COLUMNS:
        before, after = ([scale * x for x in stored[tuple(place)][side]] for side in ("baseline", "variant"))
        differences = [b - a for a, b in zip(before, after, strict=True)]
        control.append(f"{fmean(before):.{digits}f}")
        changed.append(f"{fmean(after):.{digits}f} ({mean_and_error(differences, digits)})")
    return control, changed


@pytest.mark.parametrize("row", VARIANTS)
def test_the_ablations(row):
    written = cells_of("Marco-LLM's ablations", "")
    control, changed = ablation_cells(VARIANTS[row])
    assert written[row] == changed
    assert written["two stages" if row != "the same, filtered" else UNFILTERED] == control


UNFILTERED = "unfiltered pairs, four in ten corrupted, five times their share"
