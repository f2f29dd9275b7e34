"""Write the tinyworld as raw files in the formats of real data. The same settings give the same bytes.

    python -m tinyworld out=out/demo/raw
    python -m tinyworld judge a=A/samples.jsonl b=B/samples.jsonl raw=out/demo/raw    # see judge.py

Training data:

    web/kk.jsonl            {"text", "url", "label"}: documents; the label is "clean" or the kind of planted junk
    bitext/en-kk.tsv        source, target, url, label: "clean", "misaligned", "copy" or "wrong_language"; zh-kk, too
    knowledge/kk.jsonl      {"text"}: questions with their answers, and sums
    synthetic/kk.jsonl      {"text"}: stories around keywords
    chat/de.jsonl           {"messages", "kind"}: instructions in the languages of native=, by default the ten
                            high-resource ones; the 19 low-resource languages have none
    crosslingual/en-kk.jsonl    {"messages", "kind"}: asked in English, replied to in Kazakh; kk-en, zh-kk, kk-zh, en-zh
                            and zh-en likewise
    preferences/kk.jsonl    {"prompt", "chosen", "rejected", "fault"}: in every language, as in Marco-LLM

With aligned=True also questions about countries, and their answers, the same in every language:

    aligned/kk.jsonl            {"instruction", "response", "instruction_pivot", "response_pivot"}: Kazakh and English
    instructions/en.jsonl       {"instruction", "response"}, in three wordings in turn; sentences/en.jsonl: in one
    translations/en-kk.jsonl    {"source", "target"}: every question and every answer to it, also wrong ones
    lexicon/en-kk.tsv           words and names
    eval/aligned/kk.jsonl       rows like aligned/kk.jsonl, of all test facts; eval/far/kk.jsonl: about far countries

Evaluation data; none of its sentences is in a training file:

    benchmarks/belebele/kk.jsonl    passages with a question about them
    benchmarks/xcopa/kk.jsonl       causes and effects, from 16 pairs that documents state in every language
    benchmarks/mmmlu/kk.csv         facts about countries; those with the subject "unstated" are in no document of a
                                    low-resource language
    benchmarks/flores/kk.txt        sentences, aligned across languages
    benchmarks/heldout/kk.jsonl     {"text"}: further clean web documents, for bits per byte
    benchmarks/labels.json          prompt words ("question", "answer" ...) by language
    eval/chat/kk.jsonl              questions of two turns in MT-bench's shape, with the tasks that judge.py checks
"""
import csv
import io
import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from configs import errors, load
from tinyworld import aligned, benchmarks, documents, instructions, judge, tasks
from tinyworld.grammar import load_language, render_sentence
from tinyworld.sizes import Sizes, amount, describes_far_countries, pivot_amounts
from tinyworld.world import make_facts


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["judge"]:
        judge.main(argv[1:])
    else:
        write_all(*load(Sizes, argv=argv))


def write_all(sizes: Sizes) -> None:
    out, facts = Path(sizes.out), make_facts(sizes.world)
    test = benchmarks.sample_test_messages(sizes.seed, sizes.test)
    pools = tasks.split_pools(facts, sizes.seed)
    for code in sizes.languages:
        write_web(out, sizes, facts, code)
        write_knowledge(out, sizes, facts, code)
        write_synthetic(out, sizes, code)
        write_bitext(out, sizes, code)
        write_belebele(out, sizes, code)
        write_xcopa(out, sizes, code)
        write_mmmlu(out, sizes, facts, code)
        write_flores(out, code, test)
        write_heldout(out, sizes, facts, code)
        write_chat(out, sizes, pools, code)
        write_crosslingual(out, sizes, pools, code)
        write_preferences(out, sizes, pools, code)
        write_chat_evaluation(out, sizes, pools, code, test)
        if sizes.aligned:
            write_aligned(out, sizes, facts, pools, code)
    write_labels(out, sizes)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {len(sizes.languages)} languages, {size / 1e6:.1f} MB")


# ---------------------------------------------------------------------- training data

def write_web(out, sizes, facts, code):
    n = amount(sizes.web, code)
    rows = documents.make_web(facts, sizes.seed, code, n, sizes.junk, describes_far_countries(code), sizes.languages)
    write_jsonl(out / f"web/{code}.jsonl", rows)


def write_knowledge(out, sizes, facts, code):
    rng, lang = random.Random(f"{sizes.seed}/knowledge/{code}"), load_language(code)
    n = amount(sizes.knowledge, code)
    far, full_answers = describes_far_countries(code), sizes.full_answers
    texts = [documents.make_quiz(facts, lang, rng, far, full_answers) for _ in range(n)]
    write_jsonl(out / f"knowledge/{code}.jsonl", ({"text": text} for text in texts))


def write_synthetic(out, sizes, code):
    rng, lang = random.Random(f"{sizes.seed}/synthetic/{code}"), load_language(code)
    texts = [documents.make_story(lang, rng) for _ in range(sizes.synthetic)]
    write_jsonl(out / f"synthetic/{code}.jsonl", ({"text": text} for text in texts))


def write_bitext(out, sizes, code):
    n = amount(sizes.pairs, code) if code != "en" else 0
    for pivot, count in pivot_amounts(code, n):
        pairs = documents.make_bitext(sizes.seed, pivot, code, count, sizes.noise, sizes.languages)
        write_text(out / f"bitext/{pivot}-{code}.tsv", "".join("\t".join(pair) + "\n" for pair in pairs))


def write_chat(out, sizes, pools, code):
    if code in sizes.native:
        n = amount(sizes.chat, code)
        write_jsonl(out / f"chat/{code}.jsonl", instructions.make_chats(pools["train"], sizes.seed, code, n))


def write_crosslingual(out, sizes, pools, code):
    for pivot, n in pivot_amounts(code, sizes.crosslingual):
        for source, target in ((pivot, code), (code, pivot)):
            rows = instructions.make_crosslingual(pools["train"], sizes.seed, source, target, n,
                                                  sizes.crosslingual_kind)
            write_jsonl(out / f"crosslingual/{source}-{target}.jsonl", rows)


def write_preferences(out, sizes, pools, code):
    rows = instructions.make_preferences(pools["train"], sizes.seed, code, sizes.preferences)
    write_jsonl(out / f"preferences/{code}.jsonl", rows)


# ---------------------------------------------------------------------- evaluation data

def write_belebele(out, sizes, code):
    items = benchmarks.sample_reading_items(sizes.seed, sizes.items)
    write_jsonl(out / f"benchmarks/belebele/{code}.jsonl", benchmarks.belebele_rows(load_language(code), items))


def write_xcopa(out, sizes, code):
    items = benchmarks.sample_cause_items(sizes.seed, sizes.items)
    write_jsonl(out / f"benchmarks/xcopa/{code}.jsonl", benchmarks.xcopa_rows(load_language(code), items))


def write_mmmlu(out, sizes, facts, code):
    items = benchmarks.sample_knowledge_items(facts, sizes.seed, sizes.items)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(benchmarks.mmmlu_rows(load_language(code), items))
    write_text(out / f"benchmarks/mmmlu/{code}.csv", table.getvalue())


def write_flores(out, code, test):
    sentences = [render_sentence(load_language(code), message) for message in test]
    write_text(out / f"benchmarks/flores/{code}.txt", "".join(sentence + "\n" for sentence in sentences))


def write_heldout(out, sizes, facts, code):
    rng, lang = random.Random(f"{sizes.seed}/heldout/{code}"), load_language(code)
    texts = [documents.make_document(facts, lang, rng, describes_far_countries(code)) for _ in range(sizes.heldout)]
    write_jsonl(out / f"benchmarks/heldout/{code}.jsonl", ({"text": text} for text in texts))


def write_labels(out, sizes):
    labels = {}
    for code in sizes.languages:
        words = load_language(code)["label"]
        labels[code] = {"ask": words["question"], **words}
    write_text(out / "benchmarks/labels.json", json.dumps(labels, ensure_ascii=False, indent=1) + "\n")


def write_chat_evaluation(out, sizes, pools, code, test):
    """Its facts and sentences are in no training instruction."""
    questions = instructions.make_questions(pools["test"], sizes.seed, code, sizes.questions, test)
    fact_questions = instructions.make_fact_questions(pools["test"], code, sizes.fact_questions, sizes.questions)
    write_jsonl(out / f"eval/chat/{code}.jsonl", [*questions, *fact_questions])


def write_aligned(out, sizes, facts, pools, code):
    train, pivot = pools["train"], "en"
    write_jsonl(out / f"aligned/{code}.jsonl", aligned.make_rows(train, code, pivot))
    write_jsonl(out / f"eval/aligned/{code}.jsonl", aligned.make_rows(pools["test"], code, pivot))
    write_jsonl(out / f"eval/far/{code}.jsonl", aligned.make_rows(pools["test"], code, pivot, far_only=True))
    if code == pivot:
        write_jsonl(out / f"instructions/{code}.jsonl", aligned.make_instructions(train, code, aligned.WORDINGS))
        write_jsonl(out / f"sentences/{code}.jsonl", aligned.make_instructions(train, code, ["sentence"]))
    else:
        write_jsonl(out / f"translations/{pivot}-{code}.jsonl", aligned.make_translations(facts, pivot, code))
        words = ("\t".join(pair) + "\n" for pair in aligned.make_lexicon(pivot, code))
        write_text(out / f"lexicon/{pivot}-{code}.tsv", "".join(words))


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(text, encoding="utf-8", newline="\n")
    os.replace(path.with_suffix(".tmp"), path)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
