"""Sentence pairs -> training text: readers, hard rules, and the eleven translation templates of Marco-LLM's Table 13 (own words).

A pair is a Document whose text is the source sentence and whose more["target"] is its translation.
"""
import hashlib
import re
from pathlib import Path

from corpus.read import Document, documents, lines

# {src} and {tgt} are language names, {x} the sentence, {y} its translation
TEMPLATES = {
    "A": "{src} phrase: {x}\n{tgt} phrase: {y}",
    "B": "{src} text: {x}\n{tgt} text: {y}",
    "C": "Translate the text from {src} to {tgt}.\n{src} text: {x}\n{tgt} text: {y}",
    "D": "Translate the words from {src} to {tgt}.\n{src} words: {x}\n{tgt} words: {y}",
    "E": "Convert the phrase from {src} to {tgt}.\n{src} phrase: {x}\n{tgt} phrase: {y}",
    "F": "Render the {src} sentence \"{x}\" in {tgt}: {y}",
    "G": "Provide the translation of the sentence \"{x}\" from {src} to {tgt}: {y}",
    "H": "Change the phrase \"{x}\" to {tgt}, the translated phrase is: {y}",
    "I": "Please change the sentence \"{x}\" to {tgt}, and the resulting translation is: {y}",
    "J": "Change the phrase \"{x}\" to {tgt}, resulting in: {y}",
    "K": "The sentence \"{x}\" in {src} means \"{y}\" in {tgt}.",
}


def pairs(path):
    """Yield pair Documents. A .tsv holds source and target columns; .jsonl fields "text" and "target"; "a.en|a.kk" are Moses."""
    if "|" in str(path):
        yield from _moses(*str(path).split("|"))
        return
    for doc in documents(path):
        columns = doc.more.pop("columns", None)
        if columns is not None:
            doc.more["target"] = columns[0] if columns else None
            doc.url = columns[1] if len(columns) > 1 else ""
        if doc.reason is None and not isinstance(doc.more.get("target"), str):
            doc.reason = "no pair: the row has no target sentence"
        yield doc


def _moses(source, target):
    theirs = lines(target)
    for number, x, problem in lines(source):
        _, y, other = next(theirs, (0, None, "the target file is shorter"))
        yield Document(x or "", file=source, line=number, reason=problem or other, more={"target": y})
    if next(theirs, None):
        raise ValueError(f"{target} has more lines than {source}; Moses files must be aligned line by line")


def rules(doc, most_ratio):
    """One-to-one pairs only: both sides there, not copies, of like length (in UTF-8 bytes), with the same numbers."""
    x, y = doc.text.strip(), doc.more["target"].strip()
    if not x or not y:
        return False, "pair: a side is empty"
    if x.casefold() == y.casefold():
        return False, "pair: a copy"
    a, b = len(x.encode()), len(y.encode())
    if max(a, b) > most_ratio * min(a, b):
        return False, "pair: lengths do not match"
    a, b = (sorted(map(int, re.findall(r"\d{1,18}", side))) for side in (x, y))  # \d and int know every script's digits
    if a != b:
        return False, "pair: numbers do not match"
    doc.text, doc.more["target"] = x, y
    return True


def render(doc, src, tgt):
    """Fill one template, in one direction; which is decided by the pair itself, so the text never depends on order or workers.

    src, tgt: English names of the two languages.
    """
    x, y = doc.text, doc.more["target"]
    h = hashlib.blake2b(f"{src}\t{tgt}\t{x}\t{y}".encode(), digest_size=8).digest()
    if h[0] & 1:
        src, tgt, x, y = tgt, src, y, x
    template = list(TEMPLATES.values())[h[1] % len(TEMPLATES)]
    doc.text = template.format(src=src, tgt=tgt, x=x, y=y)
    return True
