"""Filters of web documents: each takes a Document and answers True, or (False, reason).

What is looked at is what Marco-LLM names: URL, language, document length, punctuation, special symbols, repetition.
Thresholds are the caller's (configs hold them, per language); no filter knows a default language.
"""
import ipaddress
import re
import unicodedata

import regex

from corpus import measure

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff]")
BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")


def repair(doc):
    """Unicode NFC, Unix newlines, no control characters, no space around lines, at most one blank line in a row."""
    text = unicodedata.normalize("NFC", BREAKS.sub("\n", doc.text))
    text = "\n".join(line.strip() for line in CONTROL.sub("", text).split("\n"))
    doc.text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return True


def url(doc, words):
    """Drop pages whose address holds a word of the block list."""
    bad = next((w for w in words if w in doc.url.lower()), None)
    return True if bad is None else (False, f"url: {bad}")


def heuristics(doc, bounds):
    """Drop what lies outside the bounds of some measure: {measure: (least, most)}, measures as in corpus/measure.py."""
    found = measure.measures(doc.text)
    for name, (least, most) in bounds.items():
        if not least <= found[name] <= most:
            return False, f"{name}: too {'low' if found[name] < least else 'high'}"
    return True


EMAIL = regex.compile(r"[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+")
NUMBERS = regex.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


def mask(doc):
    """Write example addresses over e-mail and public IPv4 addresses (192.0.2.1 is reserved for examples, RFC 5737)."""
    def public(match):
        try:
            return "192.0.2.1" if ipaddress.ip_address(match[0]).is_global else match[0]
        except ValueError:
            return match[0]
    if "@" in doc.text:
        doc.text = EMAIL.sub("name@example.org", doc.text)
    doc.text = NUMBERS.sub(public, doc.text)
    return True


def language(doc, identify, wanted):
    """identify: text -> code; wanted: the codes that may come back (kept apart only as far as the identifier can)."""
    got = identify(doc.text)
    return True if got in wanted else (False, f"language: {got}")


def identifier(codes):
    """py3langid restricted to some languages, as a function text -> code; None when the package is absent.

    Codes that it does not know are left out: documents in them cannot be told by it.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    model.set_languages([c for c in codes if c in model.nb_classes])
    return lambda text: model.classify(text)[0]
