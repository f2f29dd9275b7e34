"""Duplicates: exact ones, after case and white space are evened out. The first of them stays."""
import hashlib


class Exact:
    """A filter with a memory: 16 bytes for every document seen."""

    def __init__(self):
        self.seen = set()

    def __call__(self, doc):
        key = hashlib.blake2b(" ".join(doc.text.casefold().split()).encode(), digest_size=16).digest()
        if key in self.seen:
            return False, "duplicate: exact"
        self.seen.add(key)
        return True
