"""What training did: abilities by language before and after, translation, conversations, the paper's numbers, speed.

    python report.py demo run=out/demo    # report.md, report.html and their pictures in out/demo

Reads run/results.jsonl (eval.py, tinyworld judge) and run/<checkpoint>/log.jsonl (train.py). A gain compares the last
checkpoint with the first.
"""
from dataclasses import dataclass, field
from pathlib import Path

from configs import language_table
from evaluation.results import format_table
from reports import demo_tables as tables
from reports.demo_figures import draw_figures
from reports.figures import DARK, LIGHT
from reports.gains import (
    BLEU,
    CHANCE,
    CHRF,
    DOCUMENTS,
    LANGUAGES,
    SENTENCES,
    groups_of,
    measured,
    read_checkpoints,
)
from reports.page import Number, Picture, to_html, to_markdown
from reports.scores import read_jsonl

ALTS = {"abilities": "every ability by language, before and after",
        "curves": "held-out loss over tokens",
        "gains": "gains by language beside the paper's",
        "translation": "translation between all pairs, before and after"}


@dataclass(frozen=True)
class Demo:
    run: str                             # folder with results.jsonl; the report is written into it
    checkpoints: list = field(default_factory=lambda: ["base", "stage1", "stage2"])  # in training order
    aligned: str = "dpo"                 # the checkpoint after SFT and DPO: a third value at a glance, part of no gain
    chance: dict = field(default_factory=lambda: dict(CHANCE))  # multiple-choice tasks: accuracy by chance in %
    heldout_source: str = "web-{lang}"   # name of a language's held-out source in the training logs
    max_rise: float = 0.01               # English and Chinese count as kept up to this rise of their bits per byte


def write_report(c: Demo) -> None:
    """Write report.md, report.html and the pictures; print the abilities at a glance."""
    aligned = [c.aligned] if has_benchmarks(c) else []  # it may have been judged in conversations only
    all_scores = read_checkpoints(c.run, c.checkpoints + aligned, c.chance)
    scores = {name: by for name, by in all_scores.items() if name != c.aligned}
    pictures, notes = draw_pictures(c, scores)
    glance, kept = tables.glance_rows(c, all_scores), tables.retention(c, scores)
    blocks = report_blocks(c, scores, pictures, glance, notes)
    folder = Path(c.run)
    for picture in pictures.values():
        (folder / f"{picture.name}.png").write_bytes(picture.light)
    (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(to_html(blocks), encoding="utf-8")
    print(format_table(glance, terminal=True), "", *kept, *notes, f"wrote {folder / 'report.html'} and report.md",
          sep="\n", flush=True)


def has_benchmarks(c):
    file = Path(c.run) / "results.jsonl"
    rows = read_jsonl(file, ("checkpoint", "task", "metric")) if file.is_file() else []
    return any((row["checkpoint"], row["task"], row["metric"]) == (c.aligned, *DOCUMENTS) for row in rows)


def draw_pictures(c, scores):
    """({name: Picture}, notes for the reader). Without matplotlib there are none, and a note says so."""
    light = draw_figures(c, scores, LIGHT)
    if light is None:
        return {}, ["No figures: they need a package: pip install matplotlib"]
    dark = draw_figures(c, scores, DARK)
    return {name: Picture(name, ALTS[name], png, dark[name]) for name, png in light.items()}, []


def report_blocks(c, scores, pictures, glance, notes):
    """The report as blocks of page.py."""
    def show(*names):
        return [pictures[name] for name in names if name in pictures]

    first, *_, last = scores
    low = groups_of(scores).get("low-resource")
    blocks = [
        "# What continual pretraining did",
        "**Toy scale**: a tiny model, and texts about a small invented world in real languages. Absolute scores say "
        "nothing about Qwen2 or Marco-LLM; only directions and orders can be compared with theirs.",
        f"Checkpoints found: {', '.join(scores)}; requested: {', '.join(c.checkpoints)}. {coverage(c, scores)}",
        "## At a glance", f"Means over the {'low-resource ' if low else ''}languages, from {first} to {last}.",
        key_numbers(scores, low), *show("abilities"), glance,
        " ".join(tables.retention(c, scores)), *notes]
    judged = tables.judge_rows(c.run)
    if judged:
        blocks += ["## Conversations", "Answers after instruction tuning and preference training, checked against what "
                   "is true in the invented world; in brackets the 95 % interval.", judged]
    chance = ", ".join(f"{task} {c.chance[task]:g} %" for task in tables.choice_tasks(c, scores))
    blocks += [
        "## Languages",
        "Bits per byte of held-out documents: lower is better. A gain compares the last checkpoint with the first; "
        f"positive is better. Then accuracy in %, {'/'.join(scores)}; chance: {chance or 'not measured'}. ± is the "
        "standard error of the gain as if languages and checkpoints were independent; they share items, so it is "
        "rough.",
        tables.language_rows(c, scores), *show("curves")]
    if CHRF in scores[first]:
        rows = [row for metric in (CHRF, BLEU) for row in scores[first].get(metric, {}).values()]
        signatures = sorted({row["signature"] for row in rows})
        blocks += ["## Translation", "Means over pairs.", tables.translation_rows(scores),
                   f"Signatures: `{'`, `'.join(signatures)}`.", *show("translation")]
    return [*blocks, *paper_blocks(c, scores), *show("gains"), "## Speed and cost",
            "From the training logs, without validation and saving.", tables.cost_rows(c, scores)]


def paper_blocks(c, scores):
    """Ours beside the paper's gains, order of gains and benchmarks, in the languages that were measured."""
    blocks = [
        "## Beside the paper",
        "Tables 6 and 7, Qwen2 to Marco. Gains in bits per byte are percentages of the base, the others points.",
        tables.group_rows(c, scores),
        "Does the least served language gain most? +1: in exactly that order, 0: no order; the paper's by 100 - score. "
        "The score before is part of the gain, which alone raises this, and bytes differ by script: read both of ours.",
        tables.order_rows(scores)]
    benchmarks = tables.benchmark_rows(c, scores)
    if len(benchmarks) > 1:
        blocks += ["Rows of Table 5, and the directions of Table 12 that we also ran; ours are other tests of the same "
                   "kind.", benchmarks]
    return blocks


def key_numbers(scores, langs):
    """The cards at the top: every ability in these languages, or in all if there are none."""
    cards = []
    for ability in tables.ABILITIES:
        text = tables.change(ability, tables.ability_scores(scores, ability, langs or LANGUAGES))
        if text:
            before, after = text.split(" → ")
            cards.append(Number(f"{ability.name}, {ability.unit}", before, after))
    return tuple(cards)


def coverage(c, scores):
    """A sentence that names the languages and tasks that were not measured."""
    missing = [language_table.NAMES[lang] for lang in LANGUAGES if lang not in measured(scores, DOCUMENTS)]
    text = f"Languages: {len(LANGUAGES) - len(missing)} of Marco-LLM's {len(LANGUAGES)}"
    text += f", without {', '.join(missing)}." if missing else "."
    tasks = [task for task in c.chance if task not in tables.choice_tasks(c, scores)]
    if not measured(scores, SENTENCES):
        tasks.append("flores")
    if CHRF not in next(iter(scores.values())):
        tasks.append("translation")
    return text + (f" Not measured: {', '.join(tasks)}." if tasks else "")
