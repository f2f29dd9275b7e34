"""Margin scores for the sentence pairs of a source that names the vectors of both sides (corpus/similarity.py)."""
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from corpus import files, similarity
from corpus.read import Document


def score_pairs(c, source: dict, path: str, documents: Iterable[Document]) -> Iterator[Document]:
    """Set more["score"] of every pair; at the end write all pairs to ranked/NAME.tsv, the best first."""
    scores, ranked = load_margins(c, source, path), []
    is_tmx = files.format_of(path) == ".tmx"
    for n, doc in enumerate(documents, 1):
        row = n if is_tmx else doc.line  # a row of vectors belongs to a unit of a .tmx, else to a line
        if row > len(scores):
            raise ValueError(f"{path}, line {doc.line}: {source['vectors']} have {len(scores)} rows; embed this file")
        doc.more["score"] = float(scores[row - 1])
        ranked.append((doc.more["score"], doc.text, doc.more.get("target") or ""))
        yield doc
    file = ranked_file(c, source)
    file.parent.mkdir(parents=True, exist_ok=True)
    similarity.write_ranked(file, *zip(*ranked)) if ranked else file.write_text("")


def ranked_file(c, source: dict) -> Path:
    return Path(c.out) / "ranked" / f"{source['name']}.tsv"


def load_margins(c, source: dict, path: str) -> np.ndarray:
    """The margin score of each line's pair."""
    try:
        x, y = (np.load(Path(c.raw) / p, mmap_mode="r", allow_pickle=False) for p in source["vectors"].split("|"))
        if files.format_of(path) != ".tmx":
            lines = sum(1 for _ in files.read_lines(path.split("|")[0]))
            if len(x) > lines:
                raise ValueError(f"{len(x)} rows for the {lines} lines of {path}; embed this file")
        return similarity.margin_scores(*(similarity.align_languages(x, y) if source.get("align") else (x, y)))
    except (ValueError, EOFError) as e:
        raise ValueError(f"source {source['name']}: vectors {source['vectors']}: {e}") from None
