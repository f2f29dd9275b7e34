"""The steps for web documents: each takes a Document and returns None (keep) or the reason to drop it.

They look at what Marco-LLM names: URL, language, document length, punctuation, special symbols, repetition; perplexity
is in corpus/perplexity.py. Thresholds come from the caller, per language; no filter has a default language.
"""
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Container, Iterable

import regex

from configs import language_table
from corpus import measure
from corpus.read import Document

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff]")
BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
DENSE = r"\p{Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Thai}"  # scripts of long characters: one says much
SCRIPTS = {code: language_table.LANGUAGES[code].script for code in language_table.MARCO}
LETTERS = regex.compile(r"[\p{L}\p{M}]+")
# each part of an address is in one script with spaces between words, so that neighboring text is not taken along
SCRIPTS_OF_ADDRESSES = ("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Armenian", "Georgian", "Devanagari",
                        "Bengali",
                        "Tamil", "Telugu")
LOCAL = "|".join(rf"[\p{{{script}}}\p{{M}}\p{{N}}._%+-]{{1,64}}" for script in SCRIPTS_OF_ADDRESSES)
DOMAIN = "|".join(rf"[\p{{{script}}}\p{{M}}\p{{N}}-]{{1,63}}" for script in SCRIPTS_OF_ADDRESSES)
EMAIL = regex.compile(rf"(?:{LOCAL})@(?:{DOMAIN})(?:\.(?:{DOMAIN}))+")
IPV4 = regex.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


def repair(doc: Document, fix: Callable[[str], str] | None = None):
    """Unicode NFC, Unix newlines, no control characters, no spaces behind lines, at most one blank line in a row.

    Spaces in front of a line stay: they are the indentation of code, lists and poems.
    fix: applied to the text before, for example ftfy.fix_text, which repairs UTF-8 that was decoded as Latin-1.
    """
    text = fix(doc.text) if fix else doc.text
    text = unicodedata.normalize("NFC", BREAKS.sub("\n", text))
    text = "\n".join(line.rstrip() for line in CONTROL.sub("", text).split("\n"))
    doc.text = re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def filter_url(doc: Document, words: Iterable[str]) -> str | None:
    """Drop pages whose address contains a blocked word."""
    for word in words:
        if word in doc.url.lower():
            return f"url: {word}"
    return None


def script_pattern(scripts: str) -> regex.Pattern:
    """A pattern of what is written in some Unicode scripts, named as in SCRIPTS."""
    try:
        return regex.compile("[" + "".join(rf"\p{{{name}}}" for name in scripts.split()) + r"\p{M}]+")
    except regex.error as e:
        raise ValueError(f"scripts: {scripts!r} are not Unicode scripts ({e}); "
                         "Latin, Cyrillic, Arabic ... are") from None


def check_scripts(scripts: object) -> str | None:
    """What is wrong with a value of the setting scripts, or None."""
    if not isinstance(scripts, str) or not scripts.split():
        return f"scripts: {scripts!r} names no Unicode script; 'Han Latin' names two"
    try:
        script_pattern(scripts)
    except ValueError as e:
        return str(e)
    return None


def byte_size(text: str) -> int:
    """UTF-8 bytes: a Chinese character says as much as three Latin ones."""
    return len(text.encode())


def filter_script(doc: Document, pattern: regex.Pattern, name: str) -> str | None:
    """Drop what is mostly written in another script: this costs a hundredth of a language identifier."""
    letters = "".join(LETTERS.findall(doc.text))
    own = "".join(pattern.findall(letters))
    return None if 2 * byte_size(own) >= byte_size(letters) else f"script: not {name}"


def filter_heuristics(doc: Document, bounds: dict[str, tuple]) -> str | None:
    """Drop what is outside the bounds {measure: (min, max)} of some measure of corpus/measure.py."""
    measured = measure.measures(doc.text)
    for name, (low, high) in bounds.items():
        if not low <= measured[name] <= high:
            return f"{name}: too {'low' if measured[name] < low else 'high'}"
    return None


def mask(doc: Document):
    """Replace e-mail and public IPv4 addresses by examples (192.0.2.1 is reserved for them, RFC 5737)."""
    if "@" in doc.text:
        doc.text = EMAIL.sub("name@example.org", doc.text)
    doc.text = IPV4.sub(lambda match: "192.0.2.1" if is_public(match[0]) else match[0], doc.text)


def is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def filter_language(doc: Document, identify: Callable[[str], str], wanted: Container[str]) -> str | None:
    """Drop what is in another language. wanted: the codes to accept, those that the identifier may confuse included."""
    code = identify(doc.text)
    return None if code in wanted else f"language: {code}"


def known_languages(langid: bool | str) -> set[str] | None:
    """The codes that the identifier of the setting langid can return; None when its package is absent."""
    if isinstance(langid, str):
        labels = [label.removeprefix("__label__") for label in load_fasttext_model(langid).labels]
        return {LABELS.get(label, label) for label in labels}
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None  # `load_langid` reports it
    return set(LanguageIdentifier.from_model_file(MODEL_FILE).nb_classes)


def suggest_codes(code: str, known: set[str]) -> str:
    """The codes of an identifier that may be meant by another one."""
    similar = sorted(k for k in known if k[:2] == code[:2])
    return f"similar codes: {', '.join(similar[:8])}" if similar else f"it knows {', '.join(sorted(known)[:120])}"


def load_langid(codes: Iterable[str]) -> Callable[[str], str] | None:
    """py3langid restricted to some languages, as a function text -> code; None when the package is absent.

    Codes that it does not know are left out: it cannot identify documents in them.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    model.set_languages([c for c in codes if c in model.nb_classes])
    return lambda text: model.classify(text)[0]


# the labels of FLORES-200, which models such as GlotLID use; other labels are used as they are
LABELS = {row.flores: code for code, row in language_table.LANGUAGES.items()} | {"cmn_Hani": "zh", "zho_Hant": "zh"}


def load_fasttext_model(path: str):
    try:
        import fasttext
    except ImportError:
        raise ValueError(f"langid={path!r} needs a package: pip install fasttext") from None
    try:
        return fasttext.load_model(str(path))
    except ValueError as e:
        raise ValueError(f"langid: {path} is no fastText model ({e})") from None


def load_fasttext(path: str) -> Callable[[str], str]:
    """A fastText model (GlotLID, lid.176) as a function text -> code."""
    model = load_fasttext_model(path).f  # its own predict() fails with numpy 2

    def identify(text):
        labels = model.predict(" ".join(text.split()) + "\n", 1, 0.0, "strict")
        label = labels[0][1].removeprefix("__label__") if labels else "unknown"
        return LABELS.get(label, label)
    return identify
