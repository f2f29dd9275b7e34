"""LDP (arXiv 2306.11372): examples in high-resource languages prompt a model to translate a language without data.

    python recipes/ldp.py configs/ldp/tiny.py [seed=1] [out=out/ldp]     # data, training, translations, table
    python recipes/ldp.py configs/ldp/tasks.py                           # also tasks in X (step 4)
    python recipes/ldp.py configs/ldp/full.py [estimate=40]              # a model and FLORES files of your own

1. X -> English: the prompt shows sentences in k other languages, each with the model's own English translation. They
   demonstrate the task; no example is in X.
2. Sentences of X translated this way become X-English pairs (back-translation). Outputs that are empty, cut off,
   repeated or in another language are dropped and counted.
3. English -> X: examples come from these pairs, since examples in other languages do not show the target language.
   OUT/sft.jsonl has the pairs as chats for prepare.py.
4. Tasks in X (questions=, shots=): examples of the task, translated from English as in step 3 (recipes/ldp_tasks.py).

Controls: no examples, k true pairs of X (supervised), k examples of one language. Measured: chrF++, exact matches, the
answers' language, copies, for every k of sweep and several orders of the same examples (raised by its reviewers).
OUT/ids.json has the numbers of all sentences, OUT/answers.jsonl every prompt and answer. A base that has never seen
few-shot prompts ignores the examples: `episodes` first trains it on some in the high-resource languages, without X.
The shipped base has seen a few hundred sentence pairs of X: the toy shows the prompt's effect, not that X needs none.
"""
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import errors, language_table, load
from corpus import clean
from evaluation import icl, outcomes
from evaluation.programs import run_once, run_step, seconds_of
from recipes import ldp_tasks
from recipes.pipeline import write_rows

TEMPLATE = "Translate the text from {src} to English.\n{src} text: {x}\nEnglish text:"  # one of bitext's


@dataclass(frozen=True)
class LDP:
    out: str
    model: str                    # Hugging Face folder
    high: list                    # languages of the examples
    low: list                     # languages to translate
    texts: str | None = None      # files of aligned sentences, with {lang} (FLORES-200 dev); None: the tinyworld's
    questions: str | None = None  # a task in X: a .jsonl of {"instruction", "response"} of {lang}, also below OUT/raw
    shots: str | None = None      # ... and rows for examples, the same in English
    n_questions: int = 64         # of questions and of shots; fewer if the files have fewer
    n_shots: int = 120
    k: int = 4                    # examples in a prompt
    sweep: list = field(default_factory=lambda: [1, 2, 4, 8])
    orders: int = 3               # orders of the same k examples
    n_test: int = 32              # sentences of each language that are translated and scored
    n_mono: int = 32              # ... of each low-resource language that are translated for step 2
    n_pool: int = 24              # ... of each language that examples are taken from
    synthetic: bool = True        # the English of the examples is the model's own; False: the file's
    max_ratio: float = 3.0        # of the lengths in characters of a back-translated pair, in either direction
    max_new: int = 48             # tokens of an answer
    max_length: int = 512         # tokens of a prompt; the oldest examples are dropped to fit
    batch: int = 32
    episodes: dict = field(default_factory=dict)  # {"tokens", "mixture", settings of train.py}; {}: no training
    world: dict = field(default_factory=dict)     # settings of tinyworld
    estimate: int | None = None   # tokens of a sentence: print what the translations need, and stop
    seed: int = 0

    def __post_init__(self):
        problems = []
        codes = ["en", *self.high, *self.low]
        if set(codes) - set(language_table.LANGUAGES) or len(set(codes)) < len(codes) or not self.low:
            problems.append(f"high and low must be different codes of configs/language_table.py without en, got "
                            f"{self.high} and {self.low}")
        if self.k not in self.sweep or min(self.sweep) < 1:
            problems.append(f"sweep must hold counts from 1 and k={self.k}, got {self.sweep}")
        if max(self.sweep) > len(self.high):
            problems.append(f"{max(self.sweep)} examples need as many languages in high, which has {len(self.high)}")
        if self.n_pool < max(self.sweep):
            problems.append(f"n_pool={self.n_pool} is less than the {max(self.sweep)} examples of one language")
        positive = "orders", "n_test", "n_mono", "n_questions", "n_shots", "max_new", "batch"
        problems += [f"{name} must be at least 1, got {getattr(self, name)}" for name in positive
                     if getattr(self, name) < 1]
        if bool(self.questions) != bool(self.shots):
            problems.append("set both questions= and shots=, or neither")
        if self.texts and self.episodes:
            problems.append("episodes are made of the tinyworld's pairs; set only one of texts= and episodes=")
        if problems:
            raise ValueError("LDP: " + "; ".join(problems))


# ---------------------------------------------------------------------- texts

def read_texts(c) -> dict:
    """{language: its sentences}, aligned."""
    pattern = c.texts or f"{c.out}/raw/benchmarks/flores/{{lang}}.txt"
    texts = {k: Path(pattern.format(lang=k)).read_text(encoding="utf-8").splitlines() for k in ("en", *c.high, *c.low)}
    sizes = {code: len(lines) for code, lines in texts.items()}
    if len(set(sizes.values())) > 1 or min(sizes.values()) < c.n_test + c.n_mono + c.n_pool:
        raise ValueError(f"{pattern}: the files must have equally many lines, at least n_test + n_mono + n_pool = "
                         f"{c.n_test + c.n_mono + c.n_pool}; they have {sizes}")
    return texts


def choose_ids(c, texts) -> dict:
    """Disjoint random numbers of usable lines: the test, the monolingual sentences, the examples; in OUT/ids.json."""
    needed, lines = c.n_test + c.n_mono + c.n_pool, list(zip(*texts.values()))
    usable = [i for i, line in enumerate(lines) if all(map(icl.fits_a_list, line))]
    if len(usable) < len(lines):
        print(f"{len(lines) - len(usable)} of {len(lines)} lines left out: blank or with {icl.SEPARATOR!r} somewhere")
    if len(usable) < needed:
        raise ValueError(f"texts: {len(usable)} usable lines, {needed} are needed (n_test + n_mono + n_pool)")
    ids = random.Random(f"{c.seed} ids").sample(usable, needed)
    chosen = {"test": ids[:c.n_test], "mono": ids[c.n_test:c.n_test + c.n_mono], "pool": ids[c.n_test + c.n_mono:]}
    Path(c.out, "ids.json").write_text(json.dumps(chosen))
    return chosen


def train_on_episodes(c) -> str:
    """The folder of the model after few-shot prompts in the high-resource languages, pairs and text of the others."""
    if not c.texts:
        run_step(c.out, "world", "-m tinyworld", dict(
            out=f"{c.out}/raw", seed=c.seed, languages=["en", *c.high, *c.low], native=[], crosslingual=0,
            preferences=0, questions=0, **c.world))
    if not c.episodes:
        return c.model
    settings = dict(c.episodes)
    raw, count = Path(c.out, "raw"), settings.pop("count")
    run_once(c.out, "episodes", {"count": count, "high": c.high, "shots": c.shots, "seed": c.seed},
             lambda: ldp_tasks.write_episodes(c, count))
    sources = [dict(name="episodes", path="episodes.jsonl", category="episodes", language="en", clean=True)]
    names = {code: language_table.LANGUAGES[code].name for code in ("en", *c.low)}
    sources += [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k)
                for k in names]
    sources += [dict(name=f"pairs-{k}", path=f"bitext/en-{k}.tsv", category="parallel", language="en", target=k)
                for k in c.low]
    run_step(c.out, "tokens", "prepare.py", dict(
        raw=raw, out=f"{c.out}/tokens", sources=sources, language_names=names, tokenizer=c.model, workers=1,
        near_dedup=False, valid_fraction=0.0, thresholds={"*": {"chars": (20, 10 ** 6)}}))
    run_step(c.out, "train", "train.py", dict(
        out=f"{c.out}/model", init=c.model, data=f"{c.out}/tokens", seed=c.seed, resume=True, **settings))
    return f"{c.out}/model"


# ---------------------------------------------------------------------- the method and its controls

def make_pools(c, translator, texts, ids) -> dict:
    """{language: [(x, English), ...]} of the high-resource languages; the English is the model's own if synthetic."""
    pools = {}
    for code in c.high:
        xs, english = ([texts[k][i] for i in ids["pool"]] for k in (code, "en"))
        if c.synthetic:
            name = language_table.LANGUAGES[code].name
            english = translator.answer("exemplars", code, ids["pool"], [TEMPLATE.format(src=name, x=x) for x in xs])
        pools[code] = [(x, y) for x, y in zip(xs, english) if y and icl.SEPARATOR not in x + y]
    return pools


def translate_all(c, translator, texts, ids, identify) -> tuple[dict, list]:
    """({(condition, direction, language): (sentences, answers, references)}, [counts of step 2; tasks' results])."""
    pools, out, counts, sft, pairs = make_pools(c, translator, texts, ids), {}, [], [], {}
    for code in c.low:
        answers, pairs[code], row = translate_language(c, translator, texts, ids, pools, code, identify)
        counts.append(row)
        out |= {(*key, code): value for key, value in answers.items()}
        ask = f"Translate into {language_table.LANGUAGES[code].name}: "
        sft += [{"messages": [{"role": "user", "content": ask + english}, {"role": "assistant", "content": x}]}
                for english, x in pairs[code]]
    if c.questions:
        counts += ldp_tasks.answer_questions(c, translator, pairs, identify)
    write_rows(Path(c.out, "sft.jsonl"), sft)
    write_rows(Path(c.out, "answers.jsonl"), translator.rows)
    return out, counts


def translate_language(c, translator, texts, ids, pools, code, identify):
    """({(condition, direction): (sentences, answers, references)}, back-translated pairs (English, x), counts)."""
    x, english = ([texts[k][i] for i in ids["test"]] for k in (code, "en"))
    sides, out = {"low->en": (x, english), "en->low": (english, x)}, {}

    def run(condition, arrow, choose):
        sources, wanted = sides[arrow]
        answers = translator.by_examples(f"{arrow} {condition}", code, ids["test"], sources, choose)
        out[condition, arrow] = sources, answers, wanted

    def diverse(pools, k, order=0):
        def choose(n, x):
            examples = icl.diverse_examples(pools, code, k, f"{c.seed} {n}", x)
            return random.Random(order).sample(examples, k) if order else examples
        return choose

    def from_list(pairs, k):
        return lambda n, x: icl.same_examples(pairs, k, f"{c.seed} {n}", x)

    true_pairs = [(texts[code][i], texts["en"][i]) for i in ids["pool"]]
    run("zero-shot", "low->en", lambda n, x: [])
    run("one language", "low->en", lambda n, x: from_list(pools[c.high[n % len(c.high)]], c.k)(n, x))
    for k in c.sweep:
        run(f"supervised k={k}", "low->en", from_list(true_pairs, k))
        run(f"LDP k={k}", "low->en", diverse(pools, k))
    for order in range(1, c.orders):
        run(f"LDP k={c.k} order {order}", "low->en", diverse(pools, c.k, order))
    # step 2: sentences of X become pairs; step 3: English -> X
    mono = [texts[code][i] for i in ids["mono"]]
    back = translator.by_examples("back-translation", code, ids["mono"], mono, diverse(pools, c.k))
    kept, dropped = icl.filter_pairs(list(zip(back, mono)), identify, c.max_ratio)
    run("zero-shot", "en->low", lambda n, x: [])
    run("diverse", "en->low", diverse({k: [(b, a) for a, b in pairs] for k, pairs in pools.items()}, c.k))
    run(f"supervised k={c.k}", "en->low", from_list([(b, a) for a, b in true_pairs], c.k))
    if len(kept) > c.k:
        run(f"back-translated k={c.k}", "en->low", from_list(kept, c.k))
    return out, kept, {"back-translated": code, "of": len(mono), "kept": len(kept), "dropped": str(dict(dropped))}


def main(argv=None):
    c, = load(LDP, argv=argv)
    if c.estimate:
        print(ldp_tasks.describe_translations(c))
        return
    out = Path(c.out)
    out.mkdir(parents=True, exist_ok=True)
    folder = train_on_episodes(c)
    begin, texts, identify = time.time(), read_texts(c), clean.load_langid(["en", *c.high, *c.low])
    translator = icl.Translator(folder, c.max_new, c.max_length, c.batch)
    answers, counts = translate_all(c, translator, texts, choose_ids(c, texts), identify)
    rows = icl.score_directions(answers, c.low, identify)
    for row in ({k: k for k in rows[0]}, *rows):
        print("  ".join(f"{'-' if x is None else x if isinstance(x, str) else format(x, '.1f'):>22}"
                        for x in row.values()))
    print(*counts, sep="\n")
    english = [ldp_tasks.measure_english(c, name, model) for name, model in (("before", c.model), ("after", folder))]
    chrf = {row["condition"]: row["chrf++"] for row in rows if row["direction"] == "low->en"}
    outcomes.save(outcomes.Outcome(
        system="ldp", title="LDP", paper="2306.11372",
        claim="examples in other languages, translated by the model itself, make it translate a language without data "
              "into English about as well as true examples in that language, and far better than none",
        metric=f"chrF++ of {' '.join(c.low)} into English", seed=c.seed, method=chrf[f"LDP k={c.k}"],
        controls={"zero-shot": chrf["zero-shot"], "supervised": chrf[f"supervised k={c.k}"],
                  "one language": chrf["one language"]},
        english_metric="bits per byte of English (lower is better)", english_before=english[0],
        english_after=english[1], tokens=c.episodes.get("tokens", 0), control_tokens=c.episodes.get("tokens", 0),
        base=outcomes.hash_base(c.model), details=[*rows, *counts],
        right_language=next(row["right language"] for row in rows if row["condition"] == f"LDP k={c.k}"),
        seconds=seconds_of(c.out, begin)), out)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
