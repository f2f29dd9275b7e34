"""What a text says: the words of any language back to the lexicon's keys. The reverse of grammar.py, without a model.

A text is cut into tokens: words where the script has spaces, single characters in Chinese, Japanese and Thai, and numbers.
Some are fillers of the lexicon, the others belong to patterns (read()); together they tell language and pattern.
"""
import unicodedata
from functools import lru_cache

from configs import language_table
from tinyworld.grammar import CLASSES, PATTERNS, SLOT, SWITCH, language, proof

UNSPACED = ("zh", "ja", "th")


def kind(ch):
    """"N" of a digit, "L" of a letter or a mark, "C" of a character that is a word, None of all else."""
    group = unicodedata.category(ch)[0]
    if group not in "LM":
        return "N" if group == "N" else None
    code = ord(ch)
    return "C" if 0x0E00 <= code < 0x0E80 or 0x3040 <= code < 0xA000 else "L"  # Thai; kana and Han


def tokens(text, code):
    """The words of a text in lower case; İ and I as Turkish and Azerbaijani have them."""
    if code in ("tr", "az"):
        text = text.replace("İ", "i").replace("I", "ı")
    out, last = [], None
    for ch in unicodedata.normalize("NFC", text.casefold()):
        now = kind(ch)
        if now and now == last != "C":
            out[-1] += ch
        elif now:
            out.append(ch)
        last = now
    return out


@lru_cache(maxsize=None)
def lexicon(code):
    """{tokens of a form: its (class, key)s}, also with the letters that a pattern has right before and after its slot."""
    lang, glued, out = language(code), {name: {("", "")} for name in CLASSES}, {}
    for pattern in patterns(lang):
        for m in SLOT.finditer(pattern) if code not in UNSPACED else ():
            before, after = pattern[:m.start()], pattern[m.end():]
            start = next((i for i in range(len(before), 0, -1) if kind(before[i - 1]) != "L"), 0)
            end = next((i for i, ch in enumerate(after) if kind(ch) != "L"), len(after))
            glued.setdefault(m[1].rstrip("2"), set()).add((before[start:], after[:end]))
    for name in CLASSES:
        for key, forms in lang[name].items():
            for text in forms.values():
                for before, after in glued[name] if text else ():
                    out.setdefault(tuple(tokens(before + text + after, code)), set()).add((name, key))
    for form, meant in out.items():  # "ist es" begins four kinds of German weather and tells none of them
        out[form] = {(name, key) for name, key in meant if sum(name == other for other, _ in meant) == 1}
    return {form: meant for form, meant in out.items() if meant}


def patterns(lang):
    """Every pattern of a language, for a man and for a woman."""
    for table in PATTERNS:
        for pattern in lang[table].values():
            yield from {SWITCH.sub(lambda m: m[side], pattern) for side in (1, 2)}


@lru_cache(maxsize=None)
def vocabulary(code):
    """All tokens that a language can say."""
    lang = language(code)
    said = {t for pattern in patterns(lang) for t in tokens(SLOT.sub(" ", pattern), code)}
    return said | {t for form in lexicon(code) for t in form}


def read(text, code):
    """(fillers, others): {class: keys} of what a text mentions, longest forms first, and the set of its other tokens."""
    words, known, fillers, others, i = tokens(text, code), lexicon(code), {}, set(), 0
    longest = max(map(len, known))
    while i < len(words):
        n = next((n for n in range(min(longest, len(words) - i), 0, -1) if tuple(words[i:i + n]) in known), 0)
        if n:
            meant = known[tuple(words[i:i + n])]
        elif words[i].isdecimal():
            meant = {("number", int(words[i]))}
        else:
            meant = others.add(words[i]) or ()
        for name, key in meant:
            fillers.setdefault(name, set()).add(key)
        i += n or 1
    return fillers, others


def share(text, code):
    """The share of a text's letters in words of a language; 1 where it has digits only, 0 where it has nothing."""
    words = tokens(text, code)
    letters = [w for w in words if not w.isdecimal()]
    known = sum(len(w) for w in letters if w in vocabulary(code))
    return known / sum(map(len, letters)) if letters else float(bool(words))


def speaks(text, code):
    """Whether a text is in a language: half of its letters are words of it, and no other language has more of them.

    What two languages spell alike ("Martin", "Saya tidak tahu.") is in both.
    """
    own = share(text, code)
    return own >= 0.5 and all(share(text, other) <= own for other in language_table.MARCO)


@lru_cache(maxsize=None)
def units(code):
    """[(pattern, what it consists of)]: of every pattern in use, the classes of its slots and its other tokens."""
    return [(name, consists(text, code)) for name, text in proof(code) if name.split(".")[0] in PATTERNS]


def consists(text, code):
    fillers, others = read(text, code)
    return {(name,) for name in fillers} | others


def closest(text, code):
    """The patterns that a text is most like, by F1 over units() (Dice's coefficient); none for a text without any."""
    found = consists(text, code)
    scores = [(2 * len(found & parts) / (len(found) + len(parts)), name) for name, parts in units(code)]
    best = max(score for score, _ in scores)
    return {name for score, name in scores if score == best > 0}
