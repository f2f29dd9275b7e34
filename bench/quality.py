"""What the cascade does to text whose truth is known: the tinyworld's planted junk, and good text of other people.

    make quality                                                # on the tinyworld as `make demo` makes it
    python -m bench.quality tokens=out/demo/tokens raw=out/demo/raw [good=FOLDER]
    python -m tinyworld out=out/pairs pairs=2000 noise=0.15
    python -m bench.quality pairs=out/pairs model=out/demo/stage2

good: a folder with ntrex128/*.txt, udhr2/*.txt and sib200-flores/*/*.tsv, the files as they are published. It is
cleaned as a crawl would be (script, language, heuristics with configs/thresholds.py), its sentences grouped into
documents of nine.
"""
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.pair_similarity import measure_similarity
from configs import language_table, load, thresholds
from corpus import bitext, clean, read

NTREX = dict(arb="ar", deu="de", eng="en", jpn="ja", kaz="kk", nep="ne", zho="zh")
FLORES = dict(arb="ar", ben="bn", deu="de", eng="en", spa="es", fra="fr", ind="id", jpn="ja", kaz="kk", kor="ko",
              npi="ne", por="pt", tha="th", tur="tr", zho="zh")
UDHR = dict(arb="ar", ben="bn", cmn="zh", deu="de", eng="en", fra="fr", ind="id", jpn="ja", kaz="kk", kor="ko",
            nep="ne", por="pt", rus="ru", spa="es", tha="th", tur="tr")
CONFUSABLE = [["id", "ms"]]
DOCUMENT = 9  # sentences


@dataclass(frozen=True)
class Quality:
    raw: str = "out/demo/raw"        # the tinyworld's files, with their labels
    tokens: str = "out/demo/tokens"  # what prepare.py made of them
    good: str | None = None          # folder of good text; None: only the tinyworld
    pairs: str | None = None         # instead: the tinyworld's files with many pairs, whose similarity is scored
    model: str | None = None         # by this checkpoint


def main(argv: list[str] | None = None):
    c, = load(Quality, argv=argv)
    if c.pairs:
        measure_similarity(c.pairs, c.model)
        return
    identify = clean.load_langid(set(language_table.NAMES))
    if identify is None:
        raise ValueError("bench.quality needs a package: pip install py3langid")
    web, pairs = count_planted(c)
    print_recall(web, "web documents")
    print_near_duplicates(web)
    by_language = precision(web)
    worst = min(by_language, key=by_language.get)
    print(f"precision: {sum(by_language.values()) / len(by_language):.1%} of what was dropped was planted junk (mean "
          f"of {len(by_language)} languages; least: {worst} {by_language[worst]:.1%})")
    print_recall(pairs, "sentence pairs")
    print_confusion(c, identify)
    if c.good:
        measure_survival(c, identify)
        measure_good_pairs(c, identify)


# ---------------------------------------------------------------------- planted junk

def read_jsonl(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def count_planted(c) -> tuple[dict, dict]:
    """{(language, label): Counter of reasons}, "" for kept, of web documents; and the same of sentence pairs."""
    web, pairs = defaultdict(Counter), defaultdict(Counter)
    for name, row in json.loads((Path(c.tokens) / "account.json").read_text()).items():
        if row["category"] in ("knowledge", "synthetic"):
            continue
        reasons = {r["line"]: r["reason"] for r in read_jsonl(Path(c.tokens) / f"dropped/{name}.jsonl")}
        if row["target"]:
            path = Path(c.raw) / f"bitext/{row['language']}-{row['target']}.tsv"
            labels = [line.split("\t")[3] for line in path.read_text(encoding="utf-8").split("\n") if line]
        else:
            labels = [r["label"] for r in read_jsonl(Path(c.raw) / f"web/{row['language']}.jsonl")]
        counts, language = (pairs, row["target"]) if row["target"] else (web, row["language"])
        for i, label in enumerate(labels, 1):
            counts[language, label][reasons.get(i, "")] += 1
    return web, pairs


def print_recall(counts: dict, title: str):
    """Of every label: the fraction dropped, in all languages and in the worst one, and the most frequent reasons.

    The worst language is that with the least junk dropped, or with the most clean text dropped.
    """
    print(f"\n{title:18}{'n':>7} {'dropped':>8}  worst language, most frequent reasons")
    for label in sorted({label for _, label in counts}):
        total, dropped = Counter(), {}
        for (language, kind), reasons in counts.items():
            if kind == label:
                total += reasons
                dropped[language] = 1 - reasons[""] / sum(reasons.values())
        worst = (max if label == "clean" else min)(dropped, key=dropped.get)
        frequent = Counter({reason: n for reason, n in total.items() if reason}).most_common(3)
        why = ", ".join(f"{reason} {n}" for reason, n in frequent)
        n = sum(total.values())
        print(f"{label:18}{n:7,} {1 - total[''] / n:8.1%}  {worst} {dropped[worst]:.0%}: {why}")


def print_near_duplicates(web: dict):
    copies = sum(sum(reasons.values()) for (_, label), reasons in web.items() if label == "duplicate_near")
    dropped = sum(reasons["duplicate: near"] for (_, label), reasons in web.items()
                  if label in ("clean", "duplicate_near"))
    print(f"near-duplicates: {copies} copies planted, {dropped} documents dropped (of a document and its copies the "
          "longest is kept)")


def precision(counts: dict) -> dict[str, float]:
    """{language: fraction of the dropped documents that is planted junk}.

    Near-duplicates are left out: of a clean document and its planted copy one is dropped, whichever is shorter.
    """
    out = {}
    for language in {language for language, _ in counts}:
        good = bad = 0
        for (code, label), reasons in counts.items():
            for reason, n in reasons.items():
                if code != language or not reason:
                    continue
                if label == "clean":
                    good += n if not reason.startswith("duplicate") else 0
                else:
                    bad += n if not reason.startswith("duplicate: near") else 0
        out[language] = bad / max(1, bad + good)
    return out


def print_confusion(c, identify):
    """Indonesian and Malay documents, identified as themselves and as the other."""
    parts = []
    for code, other in (("id", "ms"), ("ms", "id")):
        found = Counter(identify(row["text"]) for row in read_jsonl(Path(c.raw) / f"web/{code}.jsonl")
                        if row["label"] == "clean")
        parts.append(f"{code} identified as {code} {found[code]}, as {other} {found[other]}")
    print("\nIndonesian and Malay documents: " + "; ".join(parts))


# ---------------------------------------------------------------------- good text

def read_published(c) -> dict[tuple[str, str], list[str]]:
    """{(set, language): sentences} of good text; NTREX and FLORES have one order in all languages."""
    texts = {}
    for path in sorted(Path(c.good).glob("ntrex128/newstest*.txt")):
        texts["ntrex128", NTREX[path.name.split(".")[1][:3]]] = path.read_text(encoding="utf-8").splitlines()
    for path in sorted(Path(c.good).glob("sib200-flores/*/*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        texts[f"flores-{path.stem}", FLORES[path.parent.name[:3]]] = [line.split("\t")[2] for line in lines]
    for path in sorted(Path(c.good).glob("udhr2/*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts["udhr2", UDHR[path.stem[:3]]] = [line for line in lines if line.strip()]
    return texts


def good_documents(c) -> Iterator[tuple[str, str, list[str]]]:
    """(language, set, sentences) of every document."""
    for (name, code), lines in read_published(c).items():
        for i in range(0, max(1, len(lines) - DOCUMENT // 2), DOCUMENT):
            yield code, name, lines[i:i + DOCUMENT]


def measure_survival(c, identify):
    """Print by language which fraction of good documents the cascade keeps and why it drops the others; and of how
    many single sentences the language is identified correctly.
    """
    kept, total, lost, sentences, confused = Counter(), Counter(), Counter(), Counter(), Counter()
    for code, name, lines in good_documents(c):
        reason = drop_reason(lines, code, identify)
        kept[code] += reason is None
        total[code] += 1
        if reason is not None:
            lost[code, f"{name} {reason}"] += 1
        for line in lines:
            if len(line) >= 20:
                sentences[code] += 1
                found = identify(line)
                if found != code:
                    confused[code, found] += 1
    correct = 1 - confused.total() / sentences.total()
    print(f"\ngood text: {total.total():,} documents, {kept.total() / total.total():.1%} kept; "
          f"language identification: {correct:.2%} of {sentences.total():,} sentences correct")
    for code in sorted(total):
        wrong = Counter({found: n for (k, found), n in confused.items() if k == code})
        why = ", ".join(f"{reason} {n}" for (k, reason), n in lost.items() if k == code)
        others = ", ".join(f"{found} {n}" for found, n in wrong.most_common(2))
        correct = 1 - wrong.total() / sentences[code]
        lost_to = f" ({why})" if why else ""
        print(f"  {code}: {kept[code] / total[code]:6.1%} of {total[code]:3} documents kept{lost_to}; "
              f"language {correct:.1%} of {sentences[code]:5,}{f' (else {others})' if others else ''}")


def drop_reason(lines: list[str], code: str, identify) -> str | None:
    """Why the cascade for web documents drops a document, or None."""
    doc = read.Document("\n".join(lines))
    confusable = {other for group in CONFUSABLE if code in group for other in group}
    steps = [clean.repair,
             partial(clean.filter_script, pattern=clean.script_pattern(clean.SCRIPTS[code]), name=code),
             partial(clean.filter_language, identify=identify, wanted={code} | confusable),
             partial(clean.filter_heuristics, bounds=thresholds.GENERAL | thresholds.ROWS.get(code, {}))]
    for step in steps:
        reason = step(doc)
        if reason is not None:
            return reason
    return None


def measure_good_pairs(c, identify):
    """Print which fraction of the published translations of NTREX and FLORES the rules for pairs keep, by language."""
    texts, kept, total, lost = read_published(c), Counter(), Counter(), Counter()
    for (name, code), lines in texts.items():
        if name == "udhr2" or code == "en":
            continue
        for x, y in zip(texts[name, "en"], lines, strict=True):
            pair = read.Document(x, more={"target": y})
            reason = bitext.filter_pair(pair, max_ratio=4.0, source="en", target=code, identify=identify,
                                        alike=CONFUSABLE)
            kept[code] += reason is None
            total[code] += 1
            if reason is not None:
                lost[reason] += 1
    rate = {code: kept[code] / total[code] for code in total}
    least = ", ".join(f"{code} {rate[code]:.1%}" for code in sorted(rate, key=rate.get)[:3])
    print(f"good pairs with English: {sum(kept.values()) / sum(total.values()):.1%} of {sum(total.values()):,} kept; "
          f"least: {least}; lost to " + ", ".join(f"{reason} {n}" for reason, n in lost.most_common(3)))


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
