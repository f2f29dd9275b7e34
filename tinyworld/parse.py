"""Text back to the lexicon's keys: the reverse of grammar.py, by rule.

A text is split into tokens: words if the script has spaces, single characters in Chinese, Japanese and Thai, and
numbers. Some tokens are fillers, words of the lexicon that fill slots; the others belong to patterns. Together they
identify the language and the pattern.
"""
import unicodedata
from functools import cache

from configs import language_table
from tinyworld.grammar import CLASSES, PATTERN_TABLES, SLOT, SWITCH, load_language, proof_sheet

UNSPACED = ("zh", "ja", "th")


def char_kind(char: str) -> str | None:
    """Return "N" for a digit, "L" for a letter or mark, "C" for a character that is a token, None for anything else."""
    category = unicodedata.category(char)[0]
    if category not in "LM":
        return "N" if category == "N" else None
    code = ord(char)
    return "C" if 0x0E00 <= code < 0x0E80 or 0x3040 <= code < 0xA000 else "L"  # Thai; kana and Han


def tokenize(text: str, code: str) -> list[str]:
    """Split a text into lower-case tokens; İ and I are lowered as Turkish and Azerbaijani do it in these languages."""
    if code in ("tr", "az"):
        text = text.replace("İ", "i").replace("I", "ı")
    tokens: list[str] = []
    last = None
    for char in unicodedata.normalize("NFC", text.casefold()):
        kind = char_kind(char)
        if kind and kind == last and kind != "C":
            tokens[-1] += char
        elif kind:
            tokens.append(char)
        last = kind
    return tokens


# ---------------------------------------------------------------------- the words of a language

@cache
def build_lexicon(code: str) -> dict[tuple[str, ...], set[tuple[str, str]]]:
    """Map the tokens of every form to its meanings, {(class, key)}.

    Forms occur also with the letters that a pattern attaches to their slot.
    """
    lang = load_language(code)
    affixes = find_affixes(lang)
    lexicon: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for name in CLASSES:
        for key, forms in lang[name].items():
            for text in filter(None, forms.values()):
                for prefix, suffix in affixes[name]:
                    form = tuple(tokenize(prefix + text + suffix, code))
                    lexicon.setdefault(form, set()).add((name, key))
    for form, meanings in lexicon.items():
        # a form that fits several keys of a class is no evidence: "ist es" begins four kinds of German weather
        names = [name for name, _ in meanings]
        lexicon[form] = {(name, key) for name, key in meanings if names.count(name) == 1}
    return {form: meanings for form, meanings in lexicon.items() if meanings}


def find_affixes(lang):
    """{class: {(letters right before, letters right after its slots)}} in all patterns; ("", "") is always one."""
    affixes = {name: {("", "")} for name in (*CLASSES, "number")}
    if lang["code"] in UNSPACED:
        return affixes
    for pattern in expand_gender(lang):
        for slot in SLOT.finditer(pattern):
            start, end = slot.span()
            while start > 0 and char_kind(pattern[start - 1]) == "L":
                start -= 1
            while end < len(pattern) and char_kind(pattern[end]) == "L":
                end += 1
            affixes[slot[1].rstrip("2")].add((pattern[start:slot.start()], pattern[slot.end():end]))
    return affixes


def expand_gender(lang):
    """Yield every pattern of a language, for a man and for a woman where they differ."""
    for table in PATTERN_TABLES:
        for pattern in lang[table].values():
            yield from {SWITCH.sub(r"\1", pattern), SWITCH.sub(r"\2", pattern)}


@cache
def build_vocabulary(code: str) -> set[str]:
    """Collect all tokens that the tinyworld's texts in a language can contain."""
    tokens = {token for form in build_lexicon(code) for token in form}
    for pattern in expand_gender(load_language(code)):
        tokens.update(tokenize(SLOT.sub(" ", pattern), code))
    return tokens


# ---------------------------------------------------------------------- what a text says

def parse_text(text: str, code: str) -> tuple[dict[str, set], set[str]]:
    """Return (fillers, others): {class: keys} of what a text mentions, longest forms first, and its other tokens."""
    tokens, lexicon = tokenize(text, code), build_lexicon(code)
    longest = max(map(len, lexicon))
    fillers: dict[str, set] = {}
    others: set[str] = set()
    i = 0
    while i < len(tokens):
        n = min(longest, len(tokens) - i)
        while n > 0 and tuple(tokens[i:i + n]) not in lexicon:
            n -= 1
        if n:
            for name, key in lexicon[tuple(tokens[i:i + n])]:
                fillers.setdefault(name, set()).add(key)
        elif tokens[i].isdecimal():
            fillers.setdefault("number", set()).add(int(tokens[i]))
        else:
            others.add(tokens[i])
        i += n or 1
    return fillers, others


def language_share(text: str, code: str) -> float:
    """Return the share of a text's letters in words of a language: 1 if it has digits only, 0 if it has no tokens."""
    tokens = tokenize(text, code)
    words = [token for token in tokens if not token.isdecimal()]
    known = sum(len(word) for word in words if word in build_vocabulary(code))
    return known / sum(map(len, words)) if words else float(bool(tokens))


def is_in_language(text: str, code: str) -> bool:
    """Whether at least half of a text's letters are in words of a language, and no other language has more of them.

    Text that two languages spell alike ("Martin", "Saya tidak tahu.") is in both.
    """
    share = language_share(text, code)
    return share >= 0.5 and all(language_share(text, other) <= share for other in language_table.MARCO)


# ---------------------------------------------------------------------- which pattern it was rendered from

@cache
def pattern_parts(code: str) -> list[tuple[str, set]]:
    """Return [(pattern name, its parts)] for every pattern filled once with a woman and once with a man."""
    return [(name, text_parts(text, code)) for name, text in proof_sheet(code) if name.split(".")[0] in PATTERN_TABLES]


def text_parts(text, code):
    """The classes that a text mentions, as 1-tuples, and its other tokens."""
    fillers, others = parse_text(text, code)
    return {(name,) for name in fillers} | others


def closest_patterns(text: str, code: str) -> set[str]:
    """Return the names of the patterns most similar to a text, by Dice's coefficient of their parts; none at 0."""
    parts = text_parts(text, code)
    scores = [(2 * len(parts & others) / (len(parts) + len(others)), name) for name, others in pattern_parts(code)]
    best = max(score for score, _ in scores)
    return {name for score, name in scores if score == best > 0}
