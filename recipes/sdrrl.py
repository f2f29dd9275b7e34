"""SDRRL (arXiv 2402.12204): a model learns languages from its own rich-language answers, and so keeps the rich one.

    python recipes/sdrrl.py configs/sdrrl/tiny.py         # transfer set, training, control, evaluation, the table
    python recipes/sdrrl.py configs/sdrrl/full.py estimate=100_000_000  # memory and days, without a GPU

The teacher, the model itself, answers every prompt in the rich language; recipes/transfer_set.py makes chats from the
questions, answers and their translations. The control is the usual translate-then-tune: translations of the questions
and of the answers that came with them, for as many tokens.

    prompts, test  JSON lines {"instruction", "response"} in the rich language; test also, row by row, in the targets
    translations   JSON lines {"source", "target"}, a file for each target, of the prompts and of the teacher's answers,
                   which a first run leaves in OUT/answers/teacher.jsonl; or translator=, a chat model
    lexicon        lines "word<TAB>translation", for code-switching
    parallel       lines "sentence<TAB>translation"

It writes OUT/chats/NAME/mul.jsonl and account.json, which counts what was left out by reason, OUT/answers,
the models OUT/sdrrl and OUT/control, and last OUT/outcome.json.
"""
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import errors, load
from corpus import clean, code_switch
from evaluation import outcomes, results
from evaluation.programs import seconds_of
from recipes import pipeline, transfer_set
from recipes.pipeline import Pipeline, locate, write_rows
from recipes.transfer_set import Transfer


@dataclass(frozen=True)
class Sdrrl:
    prompts: str                  # a file, with {lang}: the code of the rich language; below OUT/raw or as it is
    test: str                     # test rows in all languages: {"instruction"} with "check", "response" or "answer"
    translations: str | None = None  # a file for each target
    translator: str | None = None    # or the folder of a chat model
    teacher: str | None = None    # folder; None: the model that training starts from
    chats: str | None = None      # rich-language chats to tune init on first; None: it is a chat model already
    chat_epochs: float = 4.0
    lexicon: str | None = None    # a file for each target; None: no code-switching
    parallel: str | None = None   # a file for each target
    epochs: float = 3.0           # of the transfer set

    def __post_init__(self):
        if bool(self.translations) == bool(self.translator):
            raise ValueError("Sdrrl: set translations= or translator=, one of the two")


# ---------------------------------------------------------------------- data

def make_teacher(c: Sdrrl, x: Transfer, p: Pipeline, start: str) -> tuple[str, str]:
    """(the model that training starts from, the teacher), after SFT in the rich language if the settings ask for it."""
    if c.chats:
        rows = results.read_rows(locate(p, c.chats, x.rich), ("instruction", "response"))
        chats = [transfer_set.chat(x, row["instruction"], row["response"], x.rich) for row in rows]
        write_rows(Path(p.out) / f"chats/start/{x.rich}.jsonl", chats)
        pipeline.prepare_chats(p, ["start"], "start-shards")
        tokens = pipeline.count_tokens(p, "start", c.chat_epochs, "start-shards")
        start = pipeline.tune(p, start, "start", "start", tokens, "start-shards")
    teacher = c.teacher or start
    if outcomes.hash_base(teacher) != outcomes.hash_base(start):
        print(f"warning: the teacher {teacher} is not the model that training starts from, {start}: this is "
              "distillation, but not self-distillation")
    return start, teacher


def read_prompts(c, x, p, counts):
    """The rows of prompts= whose questions the evaluation does not ask."""
    asked = {row["instruction"].strip() for row in results.read_rows(locate(p, c.test, x.rich), ("instruction",))}
    rows = list(results.read_rows(locate(p, c.prompts, x.rich), ("instruction", "response")))
    kept = [row for row in rows if row["instruction"].strip() not in asked]
    counts["prompts"] = len(rows)
    if len(kept) < len(rows):
        counts["dropped, prompt: the evaluation asks it"] = len(rows) - len(kept)
    return kept


def answer_prompts(x, p, teacher, prompts, counts):
    """[(question, the teacher's answer)] of the answers that pass the filters; the others are counted."""
    identify = clean.load_langid({x.rich, *x.targets})
    if identify is None:
        print("note: the language of the teacher's answers is not checked: pip install py3langid")
    replies = pipeline.answer(p, teacher, [transfer_set.prompt(x, row["instruction"], x.rich) for row in prompts])
    dialogs, samples = [], []
    for row, reply in zip(prompts, replies):
        reason = transfer_set.check_answer(reply, identify, x.rich)
        samples.append({"instruction": row["instruction"], "answer": reply["text"], "dropped": reason})
        if reason:
            counts[f"dropped, answer: {reason}"] += 1
        else:
            dialogs.append((row["instruction"], reply["text"]))
    write_rows(Path(p.out) / "answers/teacher.jsonl", samples)
    if not dialogs:
        raise ValueError(f"no answer of {teacher} passes the filters: {dict(counts)}; they are in "
                         f"{p.out}/answers/teacher.jsonl")
    return dialogs


def make_translators(c, x, p, texts):
    """{target: function of a text in the rich language}."""
    if c.translations:
        return {T: transfer_set.file_translator(locate(p, c.translations, T)) for T in x.targets}
    texts, translators = sorted(set(texts)), {}
    for T in x.targets:
        replies = pipeline.answer(p, c.translator, [transfer_set.translation_request(x, text, T) for text in texts])
        translators[T] = transfer_set.reply_translator(dict(zip(texts, replies)))
    return translators


def read_lexicons(c, x, p, counts):
    """{target: lexicon} of the targets written with spaces."""
    lexicons = {}
    for T in x.targets if c.lexicon else ():
        if not all(map(code_switch.separates_words, (x.rich, T))):
            print(f"note: {x.rich} or {T} has no spaces between words: no code-switching between the two")
            counts[f"not switched, {T}: no spaces between words"] = 1
            continue
        lexicons[T], skipped = code_switch.read_lexicon(locate(p, c.lexicon, T))
        counts.update({f"dropped, lexicon of {T}: {reason}": n for reason, n in skipped.items()})
    return lexicons


def read_sentences(c, x, p, counts):
    """{target: [(sentence, translation)]} without sentences of the evaluation."""
    sentences = {}
    for T in x.targets if c.parallel and x.n_parallel + x.n_complete else ():
        asked = {row["instruction"].strip() for lang in (x.rich, T)
                 for row in results.read_rows(locate(p, c.test, lang), ("instruction",))}
        sentences[T], dropped = transfer_set.read_pairs(locate(p, c.parallel, T), asked)
        counts.update({f"dropped, sentence of {T}: {reason}": n for reason, n in dropped.items()})
    return sentences


def build_sets(c: Sdrrl, x: Transfer, p: Pipeline, teacher: str) -> dict:
    """Write the transfer set and the control's chats; returns the counts of both, which account.json gets."""
    counts = Counter()
    prompts = read_prompts(c, x, p, counts)
    dialogs, gold = answer_prompts(x, p, teacher, prompts, counts), [(r["instruction"], r["response"]) for r in prompts]
    translators = make_translators(c, x, p, [text for dialog in dialogs + gold for text in dialog])
    rows, made = transfer_set.build_transfer(x, dialogs, translators, read_lexicons(c, x, p, counts),
                                             read_sentences(c, x, p, counts), p.seed)
    control, of_control = transfer_set.build_transfer(replace(x, pairs=["TT"]), gold, translators, {}, {}, p.seed)
    account = {"sdrrl": dict(counts + made), "control": dict(of_control)}
    for name, some in (("sdrrl", rows), ("control", control)):
        if not some:
            raise ValueError(f"{name}: no chat is left: {account[name]}")
        write_rows(Path(p.out) / f"chats/{name}/mul.jsonl", some)
        print(f"{name}: {len(some)} chats; " + ", ".join(f"{kind} {n}" for kind, n in account[name].items()))
    Path(p.out, "chats/account.json").write_text(json.dumps(account, indent=1, ensure_ascii=False), encoding="utf-8")
    return account


# ---------------------------------------------------------------------- evaluation

def ask(c: Sdrrl, x: Transfer, p: Pipeline, name: str, model: str) -> tuple[dict, list[str]]:
    """(scores on the test, answers in the rich language). scores: {language: means of "correct", "language", "cut",
    "tokens"}, and of a target also "understood": accuracy when asked in it for an answer in the rich language."""
    def replies(lang):  # to the rows, in this language
        return pipeline.answer(p, model, [transfer_set.prompt(x, row["instruction"], lang) for row in rows])

    scores, own, first = {}, [], []
    for lang in (x.rich, *x.targets):
        rows = list(results.read_rows(locate(p, c.test, lang), ("instruction",)))
        answers, first = replies(lang), first or rows
        marked = [{"cut": reply["cut"], "tokens": reply["tokens"]} | pipeline.score_answer(row, reply["text"], lang)
                  for row, reply in zip(rows, answers)]
        if lang != x.rich and len(rows) == len(first):  # the same questions
            for mark, row, reply in zip(marked, first, replies(x.rich)):
                mark["understood"] = pipeline.score_answer(row, reply["text"], x.rich)["correct"]
        scores[lang] = {key: sum(mark[key] for mark in marked) / len(marked) for key in marked[0]}
        write_rows(Path(p.out) / f"answers/{name}/{lang}.jsonl",
                   [{"instruction": row["instruction"], "answer": reply["text"]} | mark
                    for row, reply, mark in zip(rows, answers, marked)])
        own = own or [reply["text"] for reply in answers]
    return scores, own


def measure(c: Sdrrl, x: Transfer, p: Pipeline, models: dict) -> dict[str, dict]:
    """{name: {"scores", "own": mean log-probability of a token of the teacher's own answers in the rich language, "same
    wording": share of answers identical to the teacher's}}."""
    rows, found, own = list(results.read_rows(locate(p, c.test, x.rich), ("instruction",))), {}, []
    for name, model in models.items():  # the teacher comes first
        scores, answers = ask(c, x, p, name, model)
        own = own or answers
        found[name] = {"scores": scores, "same wording": sum(map(str.__eq__, answers, own)) / len(own)}
    chats = [transfer_set.chat(x, row["instruction"], answer, x.rich)["messages"] for row, answer in zip(rows, own)
             if answer]
    for name, model in models.items():
        found[name]["own"] = pipeline.loglikelihood(model, chats)
    return found


def main(argv=None):
    begin, (c, x, p) = time.time(), load(Sdrrl, Transfer, Pipeline, argv=argv)
    if p.estimate:
        pipeline.print_estimate(p)
        return
    start = pipeline.prepare_start(p)
    pipeline.prepare_tokenizer(p)
    start, teacher = make_teacher(c, x, p, start)
    build_sets(c, x, p, teacher)
    pipeline.prepare_chats(p, ["sdrrl", "control"])
    tokens = pipeline.count_tokens(p, "sdrrl", c.epochs)
    models = {"teacher": teacher} | {name: pipeline.tune(p, start, name, name, tokens) for name in ("sdrrl", "control")}
    found = measure(c, x, p, models)
    print_table(found)
    save_outcome(c, x, p, found, tokens, seconds_of(p.out, begin))


def detail_rows(found) -> list[dict]:
    """A row for each model, with shares of its answers by language."""
    return [{"model": name, "own answers, nats": result["own"], "same wording": result["same wording"]}
            | {f"{label} {lang}": score[label] for label in ("correct", "language", "understood")
               for lang, score in result["scores"].items() if label in score} for name, result in found.items()]


def print_table(found):
    rows = detail_rows(found)
    table = [["", list(rows[0])[1], *(f"{key} %" for key in list(rows[0])[2:])]]
    table += [[name, f"{own:.3f}", *(f"{100 * x:.1f}" for x in shares)]
              for name, own, *shares in (row.values() for row in rows)]
    print(results.format_table(table, terminal=True))


def save_outcome(c, x, p, found, tokens, seconds):
    english, english_rows = pipeline.english_fields(p, f"{p.out}/sdrrl", f"{p.out}/control")
    total = tokens + p.adapt.get("tokens", 0)
    outcome = outcomes.Outcome(
        system="sdrrl", title="SDRRL", paper="2402.12204", seed=p.seed, base=outcomes.hash_base(p.init),
        claim="Tuned on its own answers and their translations a model keeps its rich language better than tuned on "
              "translations of given answers, for as many tokens",
        metric="log-probability of a token of the teacher's own English answers, nats", method=found["sdrrl"]["own"],
        controls={"translate-then-tune": found["control"]["own"]},
        right_language=100 * fmean(found["sdrrl"]["scores"][T]["language"] for T in x.targets), tokens=total,
        control_tokens=total, seconds=seconds, details=detail_rows(found) + english_rows, **english)
    print(f"English, {outcome.english_metric}: {outcome.english_before} before, {outcome.english_after} after")
    print(f"saved {outcomes.save(outcome, p.out)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
