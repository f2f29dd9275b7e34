"""BayLing 2 (arXiv 2411.16300): do cross-lingual instructions help languages without native ones?

    python recipes/bayling.py [seed=1] [out=out/bayling]    # data, training, evaluation, table
    torchrun ... train.py configs/bayling/llama2_7b.py      # published sizes, data of recipes/bayling_data.py

The shipped base, after the demo's stage I, is fine-tuned in five ways. Every model sees the same instructions in the
pivots, English and Chinese, and the same pretraining text; all but the first see as many tokens of other instructions:

    without      none
    translation  translation requests only
    into         ... and questions in a pivot, to be answered in the other language
    mixed        ... and questions in the other language, to be answered in a pivot
    native       instructions in every language: the upper bound

The tinyworld's exact judge scores answers to unseen questions, including in languages without native instructions.
OUT holds a folder for each model, results.jsonl with all scores, and outcome.json. A rerun skips finished steps.
"""
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import errors, language_table, load
from evaluation import outcomes
from evaluation.programs import run_once, run_step, seconds_of
from evaluation.results import format_table, read_rows
from hf.weights import open_weights

CROSSLINGUAL = ("translation", "into", "mixed")  # tinyworld's crosslingual_kind
MODELS = {"without": "bayling_without", **dict.fromkeys(CROSSLINGUAL, "bayling_with"), "native": "bayling_native"}
METHOD = "into"                                  # what the demo uses; chosen before these runs


@dataclass(frozen=True)
class BayLing:
    out: str = "out/bayling"
    base: str = "tinyworld/base"  # Hugging Face folder that stage I starts from
    tokens: int = 1_200_000       # to fine-tune each model on; `without` gets half
    seed: int = 0                 # of the documents, the instructions and the order of training

    def __post_init__(self):
        if self.tokens < 2 or self.seed < 0:
            raise ValueError(f"BayLing: tokens must be 2 or more and seed not negative, got {self.tokens}, {self.seed}")


def main(argv: list[str] | None = None) -> None:
    begin, (c,) = time.time(), load(BayLing, argv=argv)
    open_weights(c.base)  # fail now, not after the data is made
    run_once(c.out, "base", {"path": c.base, "weights": outcomes.hash_base(c.base)})
    for kind in CROSSLINGUAL:
        run_step(c.out, f"world-{kind}", "-m tinyworld configs/tiny/world.py", dict(
            out=f"{c.out}/raw-{kind}", seed=c.seed, crosslingual_kind=kind))
        run_step(c.out, f"chats-{kind}", "prepare.py configs/tiny/chats.py", dict(
            raw=f"{c.out}/raw-{kind}", out=f"{c.out}/chats-{kind}"))
    raw = f"{c.out}/raw-{METHOD}"
    run_step(c.out, "tokens", "prepare.py configs/tiny/data.py", dict(raw=raw, out=f"{c.out}/tokens"))
    run_step(c.out, "stage1", "train.py configs/tiny/stage1.py", dict(
        init=c.base, data=f"{c.out}/tokens", out=f"{c.out}/stage1", seed=10 * c.seed + 1, resume=True))
    evaluate(c, "stage1", raw)
    for name, config in MODELS.items():
        kind = name if name in CROSSLINGUAL else METHOD
        run_step(c.out, name, f"train.py configs/ablations/{config}.py", dict(
            init=f"{c.out}/stage1", data=[f"{c.out}/chats-{kind}", f"{c.out}/tokens"], out=f"{c.out}/{name}",
            tokens=c.tokens // 2 if name == "without" else c.tokens, seed=10 * c.seed + 3, resume=True))
        evaluate(c, name, raw)
        run_step(c.out, f"answers-{name}", "eval.py configs/tiny/chat_eval.py", dict(
            model=f"{c.out}/{name}", data=raw, out=f"{c.out}/answers/{name}", threads=1))
        run_step(c.out, f"judge-{name}", "-m tinyworld judge", dict(
            a=f"{c.out}/answers/{name}/samples.jsonl", raw=raw, out=f"{c.out}/results.jsonl"))
    report(c, seconds_of(c.out, begin))


def evaluate(c, name, raw):
    """Bits per byte, and chrF++ of translations between languages that no instruction pairs."""
    run_step(c.out, f"eval-{name}", "eval.py configs/ablations/bayling_eval.py", dict(
        model=f"{c.out}/{name}", checkpoint=name, data=f"{raw}/benchmarks", out=f"{c.out}/results.jsonl", threads=1))


# ---------------------------------------------------------------------- the table

def report(c, seconds: float) -> None:
    """Print the table of results.jsonl, in percent, chrF++ and bits per byte, and write OUT/outcome.json."""
    rows = {name: summarize(c.out, name) for name in ("stage1", *MODELS)}
    cells = [[*rows["stage1"]]]
    cells += [["-" if x is None else x if isinstance(x, str) else f"{x:.2f}" for x in row.values()]
              for row in rows.values()]
    print(format_table(cells, terminal=True))
    metric = "answer score, low"
    outcomes.save(outcomes.Outcome(
        system="bayling", title="BayLing 2", paper="2411.16300",
        claim="cross-lingual instructions from two pivots raise the answers in languages that have no instructions of "
              "their own, and English keeps what it had",
        metric="exact judge's score of answers in low-resource languages without instructions, of 100", seed=c.seed,
        method=rows[METHOD][metric], controls={name: rows[name][metric] for name in MODELS if name != METHOD},
        english_metric="answer score", english_before=rows["without"]["answer score, en"],
        english_after=rows[METHOD]["answer score, en"], right_language=rows[METHOD]["right language, low"],
        tokens=c.tokens, control_tokens=c.tokens // 2, base=outcomes.hash_base(c.base), seconds=seconds,
        details=list(rows.values())), c.out)


def summarize(out, name) -> dict:
    """The scores of one model by group of languages: low-resource, other high-resource, English and Chinese."""
    scores = {(row["metric"], row["lang"]): row["score"] for row in read_rows(
        Path(out) / "results.jsonl", ("checkpoint", "metric", "lang", "score")) if row["checkpoint"] == name}
    languages = [lang for metric, lang in scores if metric == "bits_per_byte"]
    groups: dict[str, list] = {"low": [], "high": [], "en": [], "zh": []}
    for lang in languages:
        groups[language_table.group(lang)].append(lang)
    row: dict = {"model": name}
    for title, metric, scale in (("answer score", "answer_score", 100), ("right language", "right_language", 100),
                                 ("facts", "stated_facts", 100), ("bits per byte", "bits_per_byte", 1)):
        for group, members in groups.items():
            values = [scale * scores[metric, lang] for lang in members if (metric, lang) in scores]
            row[f"{title}, {group}"] = fmean(values) if values else None
    row["xx-yy chrF++"] = fmean(x for (metric, pair), x in scores.items() if metric == "chrf++" and "-" in pair)
    return row


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
