"""Filters of web documents: each takes a Document and answers True, or (False, reason).

The measures are the ones Marco-LLM names: URL, language, document length, punctuation, special symbols, repetition.
Thresholds are the caller's (configs hold them, per language); no filter knows a default language.
"""
import re
import unicodedata
from collections import Counter

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff]")
BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
STOPS = tuple(".!?…。！？؟۔।;:\"'”»)】」』")


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


def length(doc, least, most):
    """least, most: characters."""
    n = len(doc.text)
    return True if least <= n <= most else (False, "length: too short" if n < least else "length: too long")


def punctuation(doc, least):
    """Drop lists and menus: least is the share of lines that must end like a sentence (0 in languages without full stops)."""
    lines = [line for line in doc.text.split("\n") if line]
    share = sum(line.endswith(STOPS) for line in lines) / max(1, len(lines))
    return True if share >= least else (False, "punctuation: few lines end like a sentence")


def symbols(doc, most):
    """most: share of characters that are neither letters, marks, digits, spaces nor common punctuation."""
    odd = sum(1 for c in doc.text if unicodedata.category(c)[0] in "SC" and c != "\n" or c in "#*_=|\\/<>{}")
    return True if odd <= most * max(1, len(doc.text)) else (False, "symbols: too many")


def repetition(doc, most):
    """most: share of the characters that may stand in lines or sentences already seen in the document."""
    units = [u for u in re.split(r"(?<=[.!?。！？؟۔।])\s*|\n", doc.text) if u]
    extra = sum(len(u) * (n - 1) for u, n in Counter(units).items())
    return True if extra <= most * max(1, sum(map(len, units))) else (False, "repetition: lines said again and again")


def truncated(doc, wanted):
    """wanted: the text must end like a sentence (False for languages without full stops)."""
    return True if not wanted or doc.text.endswith(STOPS) else (False, "truncated: the text stops in mid-sentence")


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
