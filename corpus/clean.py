"""Filters of web documents: each takes a Document and returns None (keep) or the reason to drop it.

What is looked at is what Marco-LLM names: URL, language, document length, punctuation, special symbols, repetition; perplexity
is in corpus/perplexity.py. Thresholds are the caller's (configs hold them, per language); no filter knows a default language.
"""
import ipaddress
import re
import unicodedata

import regex

from configs import language_table
from corpus import measure

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff]")
BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")


DENSE = r"\p{Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Thai}"  # scripts without spaces between words
SCRIPTS = {code: language_table.LANGUAGES[code].script for code in language_table.MARCO}
LETTERS = regex.compile(r"[\p{L}\p{M}]+")


def repair(doc, fix=None):
    """Unicode NFC, Unix newlines, no control characters, no space around lines, at most one blank line in a row.
    fix: what is done to the text before, for example ftfy.fix_text, which mends UTF-8 read as Latin-1."""
    text = fix(doc.text) if fix else doc.text
    text = unicodedata.normalize("NFC", BREAKS.sub("\n", text))
    text = "\n".join(line.strip() for line in CONTROL.sub("", text).split("\n"))
    doc.text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return None


def url(doc, words):
    """Drop pages whose address holds a word of the block list."""
    bad = next((w for w in words if w in doc.url.lower()), None)
    return None if bad is None else f"url: {bad}"


def written(scripts):
    """A pattern of what is written in some Unicode scripts, named as in SCRIPTS."""
    try:
        return regex.compile("[" + "".join(rf"\p{{{name}}}" for name in scripts.split()) + r"\p{M}]+")
    except regex.error as e:
        raise ValueError(f"scripts: {scripts!r} are no Unicode scripts ({e}); Latin, Cyrillic, Arabic ... are") from None


def size(text):
    """UTF-8 bytes: a Chinese character says as much as three Latin ones."""
    return len(text.encode())


def script(doc, pattern, name):
    """Drop what is mostly written in the letters of another script: a look at the letters costs a hundredth of an identifier."""
    letters = "".join(LETTERS.findall(doc.text))
    return None if 2 * size("".join(pattern.findall(letters))) >= size(letters) else f"script: not {name}"


def heuristics(doc, bounds):
    """Drop what lies outside the bounds of some measure: {measure: (least, most)}, measures as in corpus/measure.py."""
    found = measure.measures(doc.text)
    for name, (least, most) in bounds.items():
        if not least <= found[name] <= most:
            return f"{name}: too {'low' if found[name] < least else 'high'}"
    return None


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
    return None


def language(doc, identify, wanted):
    """identify: text -> code; wanted: the codes that may come back (kept apart only as far as the identifier can)."""
    got = identify(doc.text)
    return None if got in wanted else f"language: {got}"


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


# what models with FLORES-200's labels (GlotLID, say) call the languages of the table; other labels are used as they are
LABELS = {row.flores: code for code, row in language_table.LANGUAGES.items()} | {"cmn_Hani": "zh", "zho_Hant": "zh"}


def fasttext_identifier(path):
    """A fastText model (GlotLID, lid.176) as a function text -> code."""
    try:
        import fasttext
    except ImportError:
        raise ValueError(f"langid={path!r} needs a package: pip install fasttext") from None
    try:
        model = fasttext.load_model(str(path)).f  # its own predict() breaks with numpy 2
    except ValueError as e:
        raise ValueError(f"langid: {path} is no fastText model ({e})") from None

    def identify(text):
        found = model.predict(" ".join(text.split()) + "\n", 1, 0.0, "strict")
        label = found[0][1].removeprefix("__label__") if found else "unknown"
        return LABELS.get(label, label)
    return identify
