"""Good text in a language -> its row of configs/thresholds.py, and its model for the perplexity filter."""
import glob
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import load, thresholds
from corpus import clean, measure, perplexity, read


@dataclass(frozen=True)
class Reference:
    language: str
    text: str                    # pattern of files of good text in the language
    out: str | None = None       # of `perplexity`: the file of the model
    unit: str = "file"           # what one document is in a .txt file
    keep: float = 0.995          # fraction of these documents that each bound must let pass


def calibrate_bounds(argv: list[str]):
    """Print the bounds of a language: the general ones, widened until its reference text passes.

    Bounds are never narrowed: what a sample of good text lacks is not bad for that reason.
    """
    c, = load(Reference, argv=argv)
    measured = [measure.measures(text) for text in reference_texts(c)]
    if len(measured) < 10:
        raise ValueError(f"{c.text}: {len(measured)} documents; at least ten are needed to calibrate")
    row = {}
    for name, (low, high) in thresholds.GENERAL.items():
        least, most = np.quantile([m[name] for m in measured], [1 - c.keep, c.keep])
        bounds = min(low, math.floor(least * 100) / 100), max(high, math.ceil(most * 100) / 100)
        if bounds != (low, high):
            row[name] = bounds
    characters = sum(m["chars"] for m in measured)
    print(f"{c.language!r}: {row},  # of {len(measured)} documents, {characters:,} characters")


def train_perplexity(argv: list[str]):
    """Write a perplexity model of good text, with the bound that nearly all of its held-out tenth stays below."""
    c, = load(Reference, argv=argv)
    if not c.out:
        raise ValueError("perplexity: out= names the file to write, for example kk.npz")
    try:
        model = perplexity.train(reference_texts(c), c.keep)
    except ValueError as e:
        raise ValueError(f"{c.text}: {e}") from None
    perplexity.save(c.out, model)
    print(f"{c.out}: {model['total']:,} characters; "
          f"documents above {model['most']:.2f} bits per character will be dropped")


def reference_texts(c: Reference) -> Iterator[str]:
    """The texts of the reference files, repaired as prepare.py does."""
    for path in sorted(glob.glob(c.text, recursive=True)):
        for doc in read.read_documents(path, c.unit) if Path(path).is_file() else ():
            if doc.reason is None:
                clean.repair(doc)
                if doc.text:
                    yield doc.text
