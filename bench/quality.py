"""What the cascade does to text whose truth is known: the tinyworld's planted junk, and good text of other people.

    make quality                                                   # on the tinyworld as `make demo` makes it
    python quality.py tokens=out/demo/tokens raw=out/demo/raw [good=FOLDER]
    python -m tinyworld out=out/pairs pairs=2000 noise=0.15 && python quality.py pairs=out/pairs model=out/demo/stage2

good: a folder with ntrex128/*.txt, udhr2/*.txt and sib200-flores/*/*.tsv, the files as they are published. It is cleaned as a
crawl would be (heuristics with configs/thresholds.py, script, language), sentences grouped into documents of nine.
"""
import json
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from configs import load, thresholds
from configs import language_table
from corpus import bitext, clean, read, similarity
from recipes import embed_sentences

NTREX = dict(arb="ar", deu="de", eng="en", jpn="ja", kaz="kk", nep="ne", zho="zh")
FLORES = dict(arb="ar", ben="bn", deu="de", eng="en", spa="es", fra="fr", ind="id", jpn="ja", kaz="kk", kor="ko", npi="ne",
              por="pt", tha="th", tur="tr", zho="zh")
UDHR = dict(arb="ar", ben="bn", cmn="zh", deu="de", eng="en", fra="fr", ind="id", jpn="ja", kaz="kk", kor="ko", nep="ne",
            por="pt", rus="ru", spa="es", tha="th", tur="tr")


@dataclass(frozen=True)
class Quality:
    raw: str = "out/demo/raw"        # the tinyworld's files, with their labels
    tokens: str = "out/demo/tokens"  # what prepare.py made of them
    good: str | None = None          # folder of good text; None: only the tinyworld
    pairs: str | None = None         # instead: the tinyworld's files with many pairs, whose similarity is scored
    model: str | None = None         # by this checkpoint


def jsonl(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def planted(c):
    """{(language, label): Counter of reasons}, "" for kept, of web documents; and the same of sentence pairs."""
    web, pairs = defaultdict(Counter), defaultdict(Counter)
    for name, row in json.loads((Path(c.tokens) / "account.json").read_text()).items():
        if row["category"] in ("knowledge", "synthetic"):
            continue
        reasons = {r["line"]: r["reason"] for r in jsonl(Path(c.tokens) / f"dropped/{name}.jsonl")}
        if row["target"]:
            path = Path(c.raw) / f"bitext/{row['language']}-{row['target']}.tsv"
            labels = [line.split("\t")[3] for line in path.read_text(encoding="utf-8").split("\n") if line]
        else:
            labels = [r["label"] for r in jsonl(Path(c.raw) / f"web/{row['language']}.jsonl")]
        for i, label in enumerate(labels, 1):
            (pairs if row["target"] else web)[row["target"] or row["language"], label][reasons.get(i, "")] += 1
    return web, pairs


def table(found, title):
    """Recall of every label, over all languages, its worst language, what caught it; and what clean text was lost to."""
    print(f"\n{title:18}{'n':>7} {'dropped':>8}  worst language, what dropped them")
    for label in sorted({label for _, label in found}):
        all_, by = Counter(), {}
        for (code, kind), reasons in found.items():
            if kind == label:
                all_ += reasons
                by[code] = 1 - reasons[""] / sum(reasons.values())
        worst = (max if label == "clean" else min)(by, key=by.get)
        why = ", ".join(f"{r} {n}" for r, n in Counter({k: v for k, v in all_.items() if k}).most_common(3))
        print(f"{label:18}{sum(all_.values()):7,} {1 - all_[''] / sum(all_.values()):8.1%}  {worst} {by[worst]:.0%}: {why}")


def precision(found):
    """Of what was dropped, the share that was planted junk, by language; a clean document beside its planted copy is a pair of
    which one goes, so near-duplicates are left out."""
    out = {}
    for code in {code for code, _ in found}:
        good = sum(n for r, n in found[code, "clean"].items() if r and not r.startswith("duplicate"))
        bad = sum(n for (k, label), reasons in found.items() if k == code and label != "clean"
                  for r, n in reasons.items() if r and not r.startswith("duplicate: near"))
        out[code] = bad / max(1, bad + good)
    return out


def published(c):
    """{(set, language): sentences} of good text; those of NTREX and of FLORES stand in the same order in every language."""
    found = {}
    for path in sorted(Path(c.good).glob("ntrex128/newstest*.txt")):
        found["ntrex128", NTREX[path.name.split(".")[1][:3]]] = path.read_text(encoding="utf-8").splitlines()
    for path in sorted(Path(c.good).glob("sib200-flores/*/*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        found[f"flores-{path.stem}", FLORES[path.parent.name[:3]]] = [line.split("\t")[2] for line in lines]
    for path in sorted(Path(c.good).glob("udhr2/*.txt")):
        found["udhr2", UDHR[path.stem[:3]]] = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return found


def survival(c, identify, n=9):
    """Share of good documents that the cascade keeps, why the others went, by language; and how single sentences are told."""
    kept, total, lost, sentences, confused = Counter(), Counter(), Counter(), Counter(), Counter()
    cut = ((code, source, lines[i:i + n]) for (source, code), lines in published(c).items()
           for i in range(0, max(1, len(lines) - n // 2), n))
    for code, source, lines in cut:
        bounds = thresholds.GENERAL | thresholds.ROWS.get(code, {})
        doc = read.Document("\n".join(lines))
        steps = [clean.repair, partial(clean.filter_script, pattern=clean.script_pattern(clean.SCRIPTS[code]), name=code),
                 partial(clean.filter_language, identify=identify, wanted={"id", "ms"} if code == "id" else {code}),
                 partial(clean.filter_heuristics, bounds=bounds), clean.mask]
        reason = next((r for r in (step(doc) for step in steps) if r is not None), None)
        kept[code] += reason is None
        total[code] += 1
        if reason is not None:
            lost[code, source, reason] += 1
        for line in lines:
            if len(line) >= 20:
                sentences[code] += 1
                got = identify(line)
                if got != code:
                    confused[code, got] += 1
    print(f"\ngood text: {sum(total.values()):,} documents, {sum(kept.values()) / sum(total.values()):.1%} kept; "
          f"of {sum(sentences.values()):,} sentences the language of "
          f"{1 - sum(confused.values()) / sum(sentences.values()):.2%} was told")
    for code in sorted(total):
        wrong = {got: n for (k, got), n in confused.items() if k == code}
        told = 1 - sum(wrong.values()) / sentences[code]
        why = ", ".join(f"{source} {reason} {n}" for (k, source, reason), n in lost.items() if k == code)
        most = ", ".join(f"{got} {n}" for got, n in Counter(wrong).most_common(2))
        print(f"  {code}: {kept[code] / total[code]:6.1%} of {total[code]:3} documents kept{f' ({why})' if why else ''}; "
              f"language {told:.1%} of {sentences[code]:5,}{f' (else {most})' if most else ''}")


def good_pairs(c, identify):
    """Share of the published translations of NTREX and FLORES that the rules for pairs keep, by language."""
    texts, kept, total, lost = published(c), Counter(), Counter(), Counter()
    for (source, code), lines in texts.items():
        for x, y in zip(texts[source, "en"], lines, strict=True) if source != "udhr2" and code != "en" else ():
            pair = read.Document(x, more={"target": y})
            reason = bitext.filter_pair(pair, max_ratio=4.0, source="en", target=code, identify=identify, alike=[["id", "ms"]])
            kept[code] += reason is None
            total[code] += 1
            if reason is not None:
                lost[reason] += 1
    rate = {code: kept[code] / total[code] for code in total}
    print(f"good pairs with English: {sum(kept.values()) / sum(total.values()):.1%} of {sum(total.values()):,} kept; least: "
          + ", ".join(f"{code} {rate[code]:.1%}" for code in sorted(rate, key=rate.get)[:3])
          + "; lost to " + ", ".join(f"{why} {n}" for why, n in lost.most_common(3)))


def similarities(c):
    """How well the margin of a checkpoint's vectors tells misaligned pairs from good ones, by language."""
    found = {}
    for path in sorted(Path(c.pairs).glob("bitext/en-*.tsv")):
        columns = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line)
        rows = list(dict.fromkeys((x, y, label) for x, y, _, label in columns if label in ("clean", "misaligned")))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "pairs.tsv").write_text("".join(f"{x}\t{y}\n" for x, y, _ in rows), encoding="utf-8")
            for i in (0, 1):
                embed_sentences.main([f"model={c.model}", f"text={folder}/pairs.tsv", f"column={i}", f"out={folder}/{i}.npy"])
            x, y = (np.load(f"{folder}/{column}.npy") for column in (0, 1))
        good = [label == "clean" for *_, label in rows]
        code = path.stem.split("-")[1]
        found[code] = [similarity.auc(similarity.margin_scores(*sides), good) for sides in ((x, y), similarity.align_languages(x, y))]
        print(f"  en-{code}: {len(rows)} pairs, {good.count(False)} misaligned: AUC {found[code][0]:.3f}, "
              f"aligned {found[code][1]:.3f}", flush=True)
    plain, best = (sum(v[i] for v in found.values()) / len(found) for i in (0, 1))
    print(f"margin's AUC on planted misalignments, mean of {len(found)} languages: {plain:.3f}, aligned {best:.3f}")


def main(argv=None):
    c, = load(Quality, argv=argv)
    if c.pairs:
        return similarities(c)
    identify = clean.load_langid(set(language_table.NAMES))
    if identify is None:
        raise ValueError("quality.py needs a package: pip install py3langid")
    web, pairs = planted(c)
    table(web, "web documents")
    copies = sum(sum(reasons.values()) for (_, label), reasons in web.items() if label == "duplicate_near")
    gone = sum(reasons["duplicate: near"] for (_, label), reasons in web.items() if label in ("clean", "duplicate_near"))
    print(f"near-duplicates: {copies} copies planted, {gone} documents gone (of a document and its copies the longest stays)")
    by = precision(web)
    print(f"precision: {sum(by.values()) / len(by):.1%} of what was dropped was planted junk (mean of {len(by)} languages; "
          f"least: {min(by, key=by.get)} {min(by.values()):.1%})")
    table(pairs, "sentence pairs")
    close = [[0, 0], [0, 0]]  # Indonesian and Malay documents, told as themselves and as the other
    for i, (code, other) in enumerate((("id", "ms"), ("ms", "id"))):
        for row in jsonl(Path(c.raw) / f"web/{code}.jsonl"):
            if row["label"] == "clean":
                got = identify(row["text"])
                close[i][0] += got == code
                close[i][1] += got == other
    print("\nIndonesian and Malay documents: " + "; ".join(
        f"{code} told as {code} {a}, as {other} {b}" for (a, b), (code, other) in zip(close, (("id", "ms"), ("ms", "id")))))
    if c.good:
        survival(c, identify)
        good_pairs(c, identify)


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
