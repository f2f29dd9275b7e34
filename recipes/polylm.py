"""PolyLM's curriculum (arXiv 2307.06018): a last stage with more non-English, cleaner and more parallel text.

    python recipes/polylm.py configs/polylm/tiny.py [seed=1] [out=out/polylm]    # data, training, evaluation, table
    python recipes/polylm.py configs/polylm/tiny.py curve=True                   # also the shares 30, 45, 60, 75 %
    python recipes/polylm.py configs/polylm/full.py estimate=True                # what the published setting needs

Two runs of train.py on equal tokens from one model: `stages` with two mixtures, and the control, the first mixture
throughout. Each is measured by bits per byte of held-out text and chrF++ of translations from and into English. OUT
holds a folder for each run, eval/ and outcome.json. A rerun skips finished parts.

PolyLM trains from scratch on 640 B tokens, the last 97 B in the second stage; non-English text grows from 30 to 60 %.
Its optimizer settings for the second stage are not published: here one learning-rate schedule spans both.
"""
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import errors, language_table, load
from corpus import clean
from evaluation import outcomes
from evaluation.programs import run_step, seconds_of


@dataclass(frozen=True)
class PolyLM:
    out: str
    model: str                    # Hugging Face folder that both runs start from
    languages: list               # codes, English first
    tokens: int                   # of each run
    first: dict                   # mixture of the first stage and of the control; category "en" is English text
    second: dict                  # mixture of the second stage
    second_tokens: float = 0.15   # share of the tokens in the second stage (97 of 640 B)
    ramp: str = "step"            # or linear (training/stages.py)
    data: str | None = None       # folder of token shards of the first stage; None: the tinyworld's, made in OUT
    better: str | None = None     # ... of the better sources, read in both stages; the second stage reads only these
    tests: str | None = None      # folder with heldout/LANG.jsonl ("text") and flores/LANG.txt
    crawl: dict = field(default_factory=dict)    # settings of tinyworld for the noisy documents of the first stage
    library: dict = field(default_factory=dict)  # ... for the better ones, the sentence pairs and the tests
    train: dict = field(default_factory=dict)    # further settings of train.py
    sentences: int = 24           # translated for each pair of languages
    curve: bool = False           # also second stages with other shares of non-English text
    curve_shares: list = field(default_factory=lambda: [0.3, 0.45, 0.6, 0.75])
    curve_tokens: int | None = None  # of each run of the curve; None: as many as the other runs
    estimate: bool = False        # only print what the run needs on so many GPUs
    gpus: int = 64
    seed: int = 0                 # of the documents and of the training order

    def __post_init__(self):
        problems = []
        if self.languages[:1] != ["en"] or not set(self.languages) <= set(language_table.LANGUAGES):
            problems.append(f"languages must be codes of configs/language_table.py, en first, got {self.languages}")
        if not 0 < self.second_tokens < 1:
            problems.append(f"second_tokens must be between 0 and 1, got {self.second_tokens}")
        if not 0 < share_of_others(self.first) < share_of_others(self.second) <= 1:
            problems.append("second must have a larger share of non-English text than first, got "
                            f"{share_of_others(self.second):.0%} after {share_of_others(self.first):.0%}")
        if not len({self.data is None, self.better is None, self.tests is None}) == 1:
            problems.append("data, better and tests belong together: set all three, or none for the tinyworld")
        if problems:
            raise ValueError("PolyLM: " + "; ".join(problems))


def share_of_others(mixture: dict) -> float:
    """The share of non-English text; sentence pairs count as non-English, as in the paper."""
    total = sum(mixture.values())
    return 1 - sum(share for name, share in mixture.items() if name.split("/")[0] == "en") / total if total else 0.0


def mixture_at(first: dict, second: dict, share: float) -> dict:
    """The mixture with this share of non-English text, on the line through two mixtures."""
    a, b = ({name: m.get(name, 0) / sum(m.values()) for name in first | second} for m in (first, second))
    t = (share - share_of_others(first)) / (share_of_others(second) - share_of_others(first))
    mixture = {name: round(a[name] + t * (b[name] - a[name]), 6) for name in a}
    if min(mixture.values()) < 0:
        raise ValueError(f"no mixture of {share:.0%} non-English text is on the line from first to second: "
                         f"{min(mixture, key=mixture.__getitem__)} would be negative")
    return mixture


def make_stages(c, share: float | None, tokens: int) -> list[dict]:
    """The stages of a run of this many tokens; share: non-English text in the second stage, None: no second stage."""
    if share is None:
        return [dict(tokens=tokens, mixture=c.first)]
    late = round(tokens * c.second_tokens)
    return [dict(tokens=tokens - late, mixture=c.first),
            dict(tokens=late, mixture=mixture_at(c.first, c.second, share), data=folders(c)[1])]


def folders(c) -> tuple[str, str, str]:
    """(first-stage shards, better shards, tests)."""
    own = tuple(f"{c.out}/{name}" for name in ("tokens-crawl", "tokens-library", "library/benchmarks"))
    return (c.data, c.better, c.tests) if c.data else own


def main(argv=None):
    begin, (c,) = time.time(), load(PolyLM, argv=argv)
    share = share_of_others(c.second)
    runs = {"control": (None, c.tokens), "curriculum": (share, c.tokens)}
    if c.curve:
        runs |= {f"curve-{100 * s:.0f}": (s, c.curve_tokens or c.tokens) for s in c.curve_shares}
    if c.estimate:
        train(c, "estimate", *runs["curriculum"], estimate=True, gpus=c.gpus)
        print(Path(c.out, "steps", "estimate.log").read_text(), end="")
        return
    if not c.data:
        build_tinyworld(c)
    for name, (second, tokens) in runs.items():
        train(c, name, second, tokens)
    evaluate(c, "base", c.model)
    for name in runs:
        evaluate(c, name, f"{c.out}/{name}")
    report(c, runs, begin)


# ---------------------------------------------------------------------- data, training, evaluation

def build_tinyworld(c):
    """OUT/tokens-crawl: documents with junk, not cleaned. OUT/tokens-library: others, cleaned, and sentence pairs."""
    names = {code: language_table.NAMES[code] for code in c.languages}
    for n, (kind, sizes) in enumerate((("crawl", c.crawl), ("library", c.library))):
        run_step(c.out, f"world-{kind}", "-m tinyworld", dict(
            out=f"{c.out}/{kind}", native=[], languages=c.languages, seed=2 * c.seed + n, crosslingual=0,
            preferences=0, questions=0, **sizes))
        sources = [dict(name=f"{kind}-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k,
                        **{"clean": True} if kind == "crawl" else {}) for k in c.languages]
        if kind == "library":
            sources += [dict(name=f"pairs-en-{k}", path=f"bitext/en-{k}.tsv", category="parallel", language="en",
                             target=k) for k in c.languages[1:]]
        run_step(c.out, f"tokens-{kind}", "prepare.py", dict(
            raw=f"{c.out}/{kind}", out=f"{c.out}/tokens-{kind}", sources=sources, language_names=names,
            tokenizer=c.model, workers=1, thresholds={"*": {"chars": (20, 10 ** 6)}}, near_dedup=False,
            valid_fraction=0.0))


def train(c, name, share, tokens, **more):
    """One run of train.py into OUT/NAME."""
    crawl, better, _ = folders(c)
    run_step(c.out, name, "train.py", dict(
        out=f"{c.out}/{name}", init=c.model, data=[crawl, better], stages=make_stages(c, share, tokens),
        ramp="step" if share is None else c.ramp, seed=c.seed, resume=True, **c.train, **more))


def evaluate(c, name, model):
    """OUT/eval/NAME: bits per byte of held-out text, and translations from and into English."""
    prompt = "Translate the text from {src} to {tgt}.\n{src} text: {x}\n{tgt} text:"
    pairs = [pair for k in c.languages[1:] for pair in (f"en-{k}", f"{k}-en")]
    tasks = [dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl"),
             dict(name="translation", kind="translate", path="flores/{lang}.txt", limit=c.sentences,
                  max_new_tokens=48, prompt=prompt, pairs=pairs)]
    run_step(c.out, f"eval-{name}", "eval.py", dict(
        model=model, data=folders(c)[2], out=f"{c.out}/eval/{name}", checkpoint=name, languages=c.languages,
        tasks=tasks, threads=1))


# ---------------------------------------------------------------------- the table

def read_scores(c, name) -> dict:
    """{(metric, language or pair): score} of one model."""
    rows = map(json.loads, Path(c.out, "eval", name, "results.jsonl").read_text().splitlines())
    return {(row["metric"], row["lang"]): row["score"] for row in rows}


def summarize(c, name) -> dict:
    """Bits per byte by group of languages, chrF++ into and from the low-resource ones, answers in the right language.
    """
    scores, groups = read_scores(c, name), {}
    for code in c.languages:
        groups.setdefault(language_table.group(code), []).append(code)
    low = groups.get("low") or c.languages[1:]
    row: dict = {"run": name}
    row |= {group: mean(scores["bits_per_byte", k] for k in codes) for group, codes in groups.items()}
    row["en->low"] = mean(scores["chrf++", f"en-{k}"] for k in low)
    row["low->en"] = mean(scores["chrf++", f"{k}-en"] for k in low)
    identify = clean.load_langid(c.languages)
    samples = map(json.loads, Path(c.out, "eval", name, "samples.jsonl").read_text().splitlines())
    asked = [(row["lang"].split("-")[1], row["response"]) for row in samples if row["task"] == "translation"]
    row["right language"] = identify and 100 * mean(bool(x.strip()) and identify(x) == k for k, x in asked)
    return row


def report(c, runs, begin):
    """Print the table and write OUT/outcome.json."""
    rows = {name: summarize(c, name) for name in ("base", *runs)}
    columns = list(rows["base"])
    print("bits per byte of each group (lower is better), chrF++ into and from the low-resource languages")
    for cells in (columns, *(row.values() for row in rows.values())):
        print("  ".join(f"{'-' if x is None else x if isinstance(x, str) else format(x, '.3f'):>14}" for x in cells))
    base, control, ours = (rows[name] for name in ("base", "control", "curriculum"))
    gain = 100 * (1 - ours["low"] / control["low"])
    english = 100 * (ours["en"] / control["en"] - 1)
    print(f"low-resource bits per byte {gain:.1f} % below the control's; English {english:+.1f} %")
    outcomes.save(outcomes.Outcome(
        system="polylm", title="PolyLM", paper="2307.06018",
        claim="at equal tokens, a last stage with more non-English, cleaner and parallel text lowers the low-resource "
              "loss below one stage's, and English stays within 2 % of the model before",
        metric="bits per byte saved in the low-resource languages since the base, %", seed=c.seed,
        method=100 * (1 - ours["low"] / base["low"]), controls={"one stage": 100 * (1 - control["low"] / base["low"])},
        english_metric="bits per byte of English (lower is better)", english_before=base["en"],
        english_after=ours["en"], right_language=ours["right language"], tokens=c.tokens, control_tokens=c.tokens,
        base=outcomes.hash_base(c.model), seconds=seconds_of(c.out, begin), details=list(rows.values())), c.out)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
