"""Write the tinyworld as raw files, in the shapes real data has. Same seed and sizes, same bytes.

    python -m tinyworld out=out/demo/raw
    python -m tinyworld judge a=A/samples.jsonl b=B/samples.jsonl raw=out/demo/raw    # see judge.py

    web/kk.jsonl          {"text", "url", "label"}: label says "clean" or which junk was planted
    bitext/en-kk.tsv      source, target, url, label: "clean", "misaligned", "copy" or "wrong_language"
    knowledge/kk.jsonl    questions with answers, and sums
    synthetic/kk.jsonl    stories around keywords
    benchmarks/flores/kk.txt and belebele/kk.jsonl: sentences and passages that no document holds, in the published shapes
    benchmarks/mmmlu/kk.csv: facts, "unstated" ones in no document of a low-resource language; xcopa/kk.jsonl: what follows
        from what, among 16 pairs that the documents of every language tell
    benchmarks/heldout/kk.jsonl: more web documents, clean
    benchmarks/labels.json: the words for "question", "answer" ... of each language, for the prompts
    chat/de.jsonl         {"messages", "kind"}: instructions in the ten high-resource languages (native=). The nineteen others,
        bn he id it ms nl pl ru th uk ur vi cs el hu kk ro az ne, have none
    crosslingual/en-kk.jsonl: the same asked in English, answered in Kazakh; kk-en, zh-kk, kk-zh, en-zh, zh-en likewise
    preferences/kk.jsonl  {"prompt", "chosen", "rejected", "fault"}: in every language, as Marco-LLM aligns in all of them
    eval/chat/kk.jsonl    questions of two turns in MT-bench's shape, with what judge.py needs to know
"""
import csv
import io
import json
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from configs import load
from configs import language_table
from tinyworld import chat, judge
from tinyworld import world as w
from tinyworld.grammar import CLASSES, language, render, word

JUNK = ("wrong_language", "boilerplate", "repetition", "symbols", "truncated", "duplicate_exact", "duplicate_near", "spam_url")


@dataclass(frozen=True)
class Sizes:
    out: str
    world: int = 0           # seed of the facts about countries; the shipped base knows world 0
    seed: int = 0            # of everything else: documents, pairs, instructions, tests
    languages: list = field(default_factory=lambda: list(language_table.MARCO))
    web: dict = field(default_factory=lambda: {"en": 5000, "zh": 4000, "high": 900, "low": 400})  # documents of a language, by group
    junk: float = 0.15       # share of planted junk in the web documents
    pairs: int | dict = 200  # of each language with English, or by group; half as many with Chinese
    noise: float = 0.1       # share of planted bad pairs
    knowledge: int | dict = 120  # documents of each language, or by group
    synthetic: int = 120
    items: int = 64          # of each benchmark and language
    test: int = 64           # sentences of the translation test
    heldout: int = 32        # web documents of each language kept for bits per byte
    native: list = field(default_factory=lambda: list(language_table.HIGH))  # languages with instructions of their own
    chat: dict = field(default_factory=lambda: {"en": 800, "zh": 600, "high": 120, "low": 120})  # of a native language, by group
    crosslingual: int = 80   # instructions of each language in each direction with English; half as many with Chinese
    crosslingual_kind: str = "mixed"  # translation: only translate; into: also questions in a pivot answered in the other language;
    #                                   mixed: also questions in the other language answered in a pivot
    preferences: int = 80    # pairs of each language
    questions: int = 24      # of the chat evaluation, in each language
    fact_questions: int = 0  # further ones, on facts that documents of every language state and no instruction asks


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["judge"]:
        return judge.main(argv[1:])
    c, = load(Sizes, argv=argv)
    for name in ("languages", "native"):
        if unknown := set(getattr(c, name)) - set(language_table.MARCO):
            raise ValueError(f"{name}: {sorted(unknown)} are not among the 29: {' '.join(language_table.MARCO)}")
    check_sizes(c)
    groups = {language_table.group(k) for k in c.languages}
    for name, needed in (("web", groups), ("chat", {language_table.group(k) for k in c.languages if k in c.native}), ("pairs", groups - {"en"}),
                         ("knowledge", groups)):
        if isinstance(given := getattr(c, name), dict) and (missing := needed - set(given)):
            raise ValueError(f"{name}: say how many for {sorted(missing)}, too, or take those languages out; got {given}")
    world, test = w.World(c.world), w.test_messages(c.seed, c.test)
    out = Path(c.out)
    for code in c.languages:
        lang, group = language(code), language_table.group(code)
        all_facts = group != "low"
        write(out / f"web/{code}.jsonl", jsonl(web(world, c, code, c.web[group], all_facts)))
        for kind, n, tell in (("knowledge", amount(c.knowledge, group), lambda r: quiz(world, lang, r, all_facts)),
                              ("synthetic", c.synthetic, lambda r: w.story(lang, r))):
            r = random.Random(f"{c.seed}/{kind}/{code}")
            write(out / f"{kind}/{code}.jsonl", jsonl({"text": tell(r)} for _ in range(n)))
        benchmarks(out / "benchmarks", world, c, code, test)
        r = random.Random(f"{c.seed}/heldout/{code}")
        more = [{"text": w.document(world, lang, r, all_facts)} for _ in range(c.heldout)]
        write(out / f"benchmarks/heldout/{code}.jsonl", jsonl(more))
        for pivot, n in pivots(code, amount(c.pairs, group) if code != "en" else 0):
            write(out / f"bitext/{pivot}-{code}.tsv", "".join("\t".join(row) + "\n" for row in bitext(c, pivot, code, n)))
    labels = {k: {"ask": language(k)["label"]["question"], **language(k)["label"]} for k in c.languages}
    write(out / "benchmarks/labels.json", json.dumps(labels, ensure_ascii=False, indent=1) + "\n")
    instructions(out, world, c, test)
    print(f"{out}: {len(c.languages)} languages, {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e6:.1f} MB")


BOUNDS = {"items": (2, 112), "test": (2, 200), "heldout": (1, 100_000), "synthetic": (0, 10 ** 7), "questions": (0, 10_000), "fact_questions": (0, 200),
          "crosslingual": (0, 10 ** 6), "preferences": (0, 10 ** 6), "junk": (0, 0.9), "noise": (0, 0.9)}


def check_sizes(c):
    """ValueError names every setting out of bounds; there are 56 stated facts, and half as many as items are asked of them."""
    problems = [f"{name} must be from {least} to {most}, got {getattr(c, name)}" for name, (least, most) in BOUNDS.items()
                if not least <= getattr(c, name) <= most]
    if c.crosslingual_kind not in chat.CROSSLINGUAL:
        problems.append(f"crosslingual_kind must be one of {', '.join(chat.CROSSLINGUAL)}, got {c.crosslingual_kind!r}")
    if problems:
        raise ValueError("; ".join(problems))


def amount(n, group):
    """A setting that is one number for all languages or {group: number}."""
    return n if isinstance(n, int) else n[group]


def pivots(code, n):
    """[(pivot, pairs with it)] of a language: n with English, half as many with Chinese; the two are paired once, under English."""
    return [(pivot, some) for pivot, some in (("en", n), ("zh", n // 2)) if code not in ("en", pivot)]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(text, encoding="utf-8", newline="\n")
    os.replace(path.with_suffix(".tmp"), path)


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def web(world, c, code, n, all_facts):
    """n web documents of a language, a share of them junk, each with its label."""
    r, lang, clean = random.Random(f"{c.seed}/web/{code}"), language(code), []
    for i in range(n):
        text = w.document(world, lang, r, all_facts)
        row = {"text": text, "url": f"https://{r.choice(w.KEYS['city'])}.example/{code}/{i}", "label": "clean"}
        if r.random() < c.junk and clean:
            row |= spoil(world, c, lang, r, r.choice(JUNK), text, clean)
        else:
            clean.append(text)
        yield row


def spoil(world, c, lang, r, kind, text, clean):
    """The changed fields of a junk document."""
    out = {"label": kind}
    if kind == "wrong_language":
        other = language(r.choice([k for k in c.languages if k != lang["code"]] or ["en"]))
        return out | {"text": w.document(world, other, r, False)}
    if kind == "boilerplate":
        return out | {"text": "\n".join(r.sample(lang["text"]["boilerplate"], 5))}
    if kind == "repetition":
        return out | {"text": "\n".join([text.split("\n")[-1]] * r.randrange(4, 8))}
    if kind == "symbols":
        return out | {"text": "".join(ch if r.random() < 0.6 else r.choice("#*|=_\\<>$") for ch in text)}
    if kind == "truncated":
        return out | {"text": text[:len(text) * r.randrange(50, 85) // 100].rstrip(".!?।。؟ ") }
    if kind == "duplicate_exact":
        return out | {"text": r.choice(clean)}
    if kind == "duplicate_near":
        return out | {"text": r.choice(clean) + "\n" + r.choice(lang["text"]["opening"])}
    spam = lang["joiner"].join(r.choice(lang["text"]["spam"]) for _ in range(4))
    return out | {"text": spam, "url": f"https://best-casino-{r.randrange(99)}.example/win"}


def bitext(c, a, b, n):
    """n pairs between two languages: sentences and, one in five, lexicon entries; some are spoilt."""
    r, x, y = random.Random(f"{c.seed}/bitext/{a}-{b}"), language(a), language(b)
    last = None
    for i in range(n):
        if r.random() < 0.2:
            name = r.choice(CLASSES)
            key = r.choice(w.KEYS[name])
            source, target = word(x, name, key), word(y, name, key)
        else:
            kind = r.random()
            if kind < 0.15:
                key, slots = w.cause_and_effect(r, r.choice(w.PAIRS))
                side = r.choice(("cause", "effect"))
                source, target = render(x, x[side][key], slots), render(y, y[side][key], slots)
            else:
                message = w.random_message(r)
                tell = w.ask if kind > 0.85 and message[0] in x["question"] else w.say
                source, target = tell(x, message), tell(y, message)
        label = "clean"
        if r.random() < c.noise:
            label = r.choice(("misaligned", "copy", "wrong_language"))
            other = language(r.choice([k for k in c.languages if k not in (a, b)] or ["en"]))
            wrong = w.say(other, w.random_message(r))
            source, target = {"misaligned": (source, last or wrong), "copy": (source, source), "wrong_language": (source, wrong)}[label]
        if label == "clean":
            last = target
        yield source, target, f"https://{a}-{b}.example/{i}", label


def quiz(world, lang, r, all_facts):
    """Questions on the world with their answers, and sums."""
    countries = w.KEYS["country"] if all_facts else w.NEAR
    rows = [w.arithmetic(lang, r) for _ in range(2)]
    for _ in range(3):
        f, country = r.choice(w.COUNTRY_FACTS), r.choice(countries)
        rows.append(w.exercise(lang, (f, world.facts[f, country])))
    r.shuffle(rows)
    return "\n".join(rows)


def instructions(out, world, c, test):
    """Chats, the star, preferences, and the chat evaluation, whose facts and sentences are in none of the others."""
    pools = chat.split(world, c.seed)
    for code in c.languages:
        if code in c.native:
            write(out / f"chat/{code}.jsonl", jsonl(chat.chats(pools["train"], c.seed, code, c.chat[language_table.group(code)])))
        write(out / f"preferences/{code}.jsonl", jsonl(chat.preferences(pools["train"], c.seed, code, c.preferences)))
        write(out / f"eval/chat/{code}.jsonl", jsonl([
            *chat.questions(pools["test"], c.seed, code, c.questions, test),
            *chat.fact_questions(pools["test"], code, c.fact_questions, first=c.questions)]))
        for hub, n in pivots(code, c.crosslingual):
            for a, b in ((hub, code), (code, hub)):
                rows = chat.crosslingual(pools["train"], c.seed, a, b, n, c.crosslingual_kind)
                write(out / f"crosslingual/{a}-{b}.jsonl", jsonl(rows))


def benchmarks(out, world, c, code, test):
    """The four held-out sets of one language, item i meaning the same in every language."""
    lang, rows = language(code), []
    for i, (told, asked, options, right) in enumerate(w.reading_items(c.seed, c.items)):
        rows.append({"link": f"https://tinyworld.example/{i}", "question_number": 1, "flores_passage": w.paragraph(lang, [w.say(lang, m) for m in told]),
                     "question": w.ask(lang, asked), **{f"mc_answer{j + 1}": w.say(lang, w.replaced(asked, o)) for j, o in enumerate(options)},
                     "correct_answer_num": str(right + 1), "dialect": code, "ds": "2026-11-21"})
    write(out / f"belebele/{code}.jsonl", jsonl(rows))
    rows = []
    for i, (key, slots, question, wrong, label) in enumerate(w.cause_items(c.seed, c.items)):
        given = "effect" if question == "cause" else "cause"
        pair = [render(lang, lang[question][k], slots) for k in ((key, wrong) if label == 0 else (wrong, key))]
        rows.append({"premise": render(lang, lang[given][key], slots), "choice1": pair[0], "choice2": pair[1],
                     "question": question, "label": label, "idx": i, "changed": False})
    write(out / f"xcopa/{code}.jsonl", jsonl(rows))
    table = io.StringIO()
    sheet = csv.writer(table, lineterminator="\n")
    sheet.writerow(["Question", "A", "B", "C", "D", "Answer", "Subject"])
    for message, options, right, subject in w.knowledge_items(world, c.seed, c.items):
        sheet.writerow([w.ask(lang, message), *(w.answer(lang, message, o) for o in options), "ABCD"[right], subject])
    write(out / f"mmmlu/{code}.csv", table.getvalue())
    write(out / f"flores/{code}.txt", "".join(w.say(lang, m) + "\n" for m in test))


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
