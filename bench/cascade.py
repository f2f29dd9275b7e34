"""The cascade beside datatrove on the same documents, one core: heuristics and MinHash signature, in process CPU time.

    pip install datatrove spacy kiwipiepy pythainlp jieba pyvi indic-nlp-library "xxhash<4"  # 1 GB
    python -m bench.cascade [good=FOLDER]    # ntrex128/ and sib200-flores/ as published; ru and vi are the tinyworld's

Theirs are the Gopher repetition, Gopher quality and FineWeb filters and MinHash 14 x 8; ours all those measures in one
pass, and the same signature. Both process every document, whatever a filter says of it.
"""
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corpus import dedup, measure

FILES = {"de": "ntrex128/*deu.txt", "ar": "ntrex128/*arb.txt", "zh": "ntrex128/*zho-CN.txt",
         "tr": "sib200-flores/tur_Latn/*.tsv", "ko": "sib200-flores/kor_Hang/*.tsv",
         "bn": "sib200-flores/ben_Beng/*.tsv", "th": "sib200-flores/tha_Thai/*.tsv"}
DATATROVE = {"de": "deu_Latn", "ru": "rus_Cyrl", "vi": "vie_Latn", "ar": "arb_Arab", "tr": "tur_Latn", "zh": "cmn_Hani",
             "ko": "kor_Hang", "bn": "ben_Beng", "th": "tha_Thai"}


def read_documents(good: str | None, code: str, sentences: int = 24, limit: int = 40) -> list[str]:
    """At most `limit` documents of a language; the tinyworld's where there is no folder of good text."""
    if good and code in FILES:
        lines = [line.split("\t")[-1] for path in sorted(Path(good).glob(FILES[code]))
                 for line in path.read_text("utf-8").splitlines()]
    else:
        from tinyworld import __main__ as tinyworld
        with tempfile.TemporaryDirectory() as folder:
            tinyworld.main([f"out={folder}", f"languages=['en', 'zh', '{code}']", "junk=0", "items=8", "test=8"])
            rows = Path(folder, f"web/{code}.jsonl").read_text("utf-8").splitlines()
        lines = [line for row in rows for line in json.loads(row)["text"].split("\n")]
    return ["\n".join(lines[i:i + sentences]) for i in range(0, len(lines) - sentences, sentences)][:limit]


def datatrove_work(code: str) -> Callable[[str], None]:
    """A function text -> None that does what datatrove does for a document of a language."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.hashing import HashConfig
    label = DATATROVE[code]
    filters = [GopherRepetitionFilter(language=label), GopherQualityFilter(language=label),
               FineWebQualityFilter(language=label)]
    config = MinhashConfig(hash_config=HashConfig(precision=64))
    signer = MinhashDedupSignature("/dev/null/unused", config, language=label)

    def work(text):
        for f in filters:
            f.filter(Document(text=text, id="0"))
        signer.get_signature(signer.get_shingles(text))
    return work


def our_work(text: str):
    measure.measures(text)
    dedup.signature(text)


def best_time(work: Callable[[str], None], texts: list[str], rounds: int) -> float:
    """CPU seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        for text in texts:
            work(text)
        times.append(time.process_time() - begin)
    return min(times)


def measure_languages(good: str | None, rounds: int = 2) -> list[dict]:
    """[{"name", "ours", "peer", "ratio", "documents"}], MB of text per second, for every language that has text."""
    out = []
    for code in DATATROVE:
        texts = read_documents(good, code)
        if not texts:
            continue
        work, size = datatrove_work(code), sum(len(text.encode()) for text in texts) / 1e6
        work(texts[0])  # loads its word splitter
        peer = best_time(work, texts, 1)
        ours = best_time(our_work, texts, rounds)
        peer = min(peer, best_time(work, texts, rounds - 1))
        row = {"name": f"cascade_{code}", "ours": size / ours, "peer": size / peer, "documents": len(texts),
               "ratio": peer / ours}
        out.append(row)
        print(f"{code}: {len(texts)} documents, {size:.2f} MB; ours {row['ours']:.2f} MB/s, "
              f"datatrove {row['peer']:.2f} MB/s, {row['ratio']:.1f}x", flush=True)
    return out


if __name__ == "__main__":
    measure_languages(sys.argv[1].removeprefix("good=") if sys.argv[1:] else None)
