"""The cascade beside datatrove on the same documents, one core: heuristics and MinHash signature, in process CPU time.

    pip install datatrove spacy kiwipiepy pythainlp jieba pyvi indic-nlp-library "xxhash<4"    # its word splitters: about 1 GB
    python tests/bench_cascade.py [good=FOLDER]       # ntrex128/ and sib200-flores/ as published; ru and vi are the tinyworld's

Theirs are the Gopher repetition, Gopher quality and FineWeb filters and MinHash 14 x 8; ours all those measures in one pass, and
the same signature. Both run on every document, whatever a filter says of it.
"""
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from corpus import measure  # noqa: E402

FILES = {"de": "ntrex128/*deu.txt", "ar": "ntrex128/*arb.txt", "zh": "ntrex128/*zho-CN.txt", "tr": "sib200-flores/tur_Latn/*.tsv",
         "ko": "sib200-flores/kor_Hang/*.tsv", "bn": "sib200-flores/ben_Beng/*.tsv", "th": "sib200-flores/tha_Thai/*.tsv"}
TROVE = {"de": "deu_Latn", "ru": "rus_Cyrl", "vi": "vie_Latn", "ar": "arb_Arab", "tr": "tur_Latn", "zh": "cmn_Hani", "ko": "kor_Hang",
         "bn": "ben_Beng", "th": "tha_Thai"}


def documents(good, code, n=24, most=40):
    """At most `most` documents of n sentences; without a folder of good text the tinyworld's."""
    if good and code in FILES:
        lines = [line.split("\t")[-1] for p in sorted(Path(good).glob(FILES[code])) for line in p.read_text("utf-8").splitlines()]
    else:
        from tinyworld import __main__ as tinyworld
        with tempfile.TemporaryDirectory() as folder:
            tinyworld.main([f"out={folder}", f"languages=['en', 'zh', '{code}']", "junk=0", "items=8", "test=8"])
            rows = Path(folder, f"web/{code}.jsonl").read_text("utf-8").splitlines()
        lines = [line for row in rows for line in json.loads(row)["text"].split("\n")]
    return ["\n".join(lines[i:i + n]) for i in range(0, len(lines) - n, n)][:most]


def theirs(code):
    """A function text -> None that does what datatrove does for a document of a language."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.hashing import HashConfig
    label = TROVE[code]
    filters = [GopherRepetitionFilter(language=label), GopherQualityFilter(language=label), FineWebQualityFilter(language=label)]
    signer = MinhashDedupSignature("/dev/null/unused", MinhashConfig(hash_config=HashConfig(precision=64)), language=label)

    def work(text):
        for f in filters:
            f.filter(Document(text=text, id="0"))
        signer.get_signature(signer.get_shingles(text))
    return work


def ours(text):
    measure.measures(text)
    dedup.signature(text)


def best(work, texts, rounds):
    took = []
    for _ in range(rounds):
        begin = time.process_time()
        for text in texts:
            work(text)
        took.append(time.process_time() - begin)
    return min(took)


def rows(good, rounds=2):
    """[{"name", "ours", "peer", "ratio"}], MB of text a second, for every language whose text is there."""
    out = []
    for code in TROVE:
        texts = documents(good, code)
        if not texts:
            continue
        work, size = theirs(code), sum(len(text.encode()) for text in texts) / 1e6
        work(texts[0])  # loads its word splitter
        peer = best(work, texts, 1)
        mine = best(ours, texts, rounds)
        out.append({"name": f"cascade_{code}", "ours": size / mine, "peer": size / min(peer, best(work, texts, rounds - 1)),
                    "documents": len(texts)})
        out[-1]["ratio"] = out[-1]["ours"] / out[-1]["peer"]
        print(f"{code}: {len(texts)} documents, {size:.2f} MB; ours {out[-1]['ours']:.2f} MB/s, datatrove {out[-1]['peer']:.2f} MB/s, "
              f"{out[-1]['ratio']:.1f}x", flush=True)
    return out


if __name__ == "__main__":
    rows(sys.argv[1].removeprefix("good=") if sys.argv[1:] else None)
