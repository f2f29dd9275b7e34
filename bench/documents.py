"""What the data cascade costs, and how many near-duplicates it finds."""
import os
import random
import time

import numpy as np

from bench.timing import best_seconds, row
from corpus import dedup, measure


def documents():
    """Quality measures, MinHash signatures and clusters. No peer is installed for these; see `cascade`."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=7)) for _ in range(20_000)]
    texts = [" ".join(rng.choices(words, k=300)) for _ in range(200)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    quality, minhash = best_seconds([lambda: [measure.measures(text) for text in texts],
                                     lambda: [dedup.signature(text) for text in texts]], 3)
    yield row("measures", "quality measures of documents of 300 words", megabytes / quality, unit="MB/s")
    yield row("minhash", "MinHash signatures of the same", megabytes / minhash, unit="MB/s")
    for similarity in (0.4, 0.7, 0.8, 0.9):
        texts = [text for _ in range(200) for text in similar_texts(rng, words, similarity)]
        exact = np.stack([dedup.exact_key(text) for text in texts])
        signatures = np.stack([dedup.signature(text) for text in texts])
        cluster = dedup.cluster(exact, signatures, np.array([len(text) for text in texts]))
        found = 100 * (cluster[::2] == cluster[1::2]).mean()
        yield row(f"near_duplicates_{similarity}", f"pairs found at a similarity of {similarity}", found, unit="%")
    yield cluster_row()


def cluster_row(n=1_000_000):
    """Clusters of n random signatures, an eighth of them copies."""
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 1 << 32, (n, 112), dtype=np.uint32)
    exact = rng.integers(0, 1 << 62, (n, 2), dtype=np.uint64)
    signatures[n // 2::4] = signatures[:n // 8]
    start = time.process_time()
    cluster = dedup.cluster(exact, signatures, np.ones(n, np.int64))
    spent, copies = time.process_time() - start, (cluster != np.arange(n)).mean()
    return row("clusters", f"clusters of a million signatures; {copies:.1%} are copies", spent)


def similar_texts(rng, words, similarity, n=300):
    """Two texts of n random words whose 5-word shingles have this Jaccard similarity."""
    changed = n - 4 - round(2 * (n - 4) * similarity / (1 + similarity))
    text = rng.choices(words, k=n)
    return " ".join(text), " ".join(text[:n - changed] + rng.choices(words, k=changed))


def cascade():
    """Heuristics and MinHash signature beside datatrove, in nine languages (bench/cascade.py).

    The environment variable GOOD may name a folder of published text.
    """
    try:
        from bench import cascade as beside_datatrove
        results = beside_datatrove.measure_languages(os.environ.get("GOOD"))
    except ImportError as e:
        print(f"cascade: not compared ({e}); bench/cascade.py says what to install")
        return
    for result in results:
        what = f"cascade, {result['documents']} documents in {result['name'][-2:]}"
        yield row(result["name"], what, result["ours"], result["peer"], unit="MB/s", of="datatrove")
