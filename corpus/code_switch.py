"""Code-switching: words of a text replaced by their translations, as data augmentation.

Only words of the lexicon change. Digits, code, control tokens, addresses and, as a capital inside a sentence shows,
names stay. Words are not inflected: the lexicon's form is inserted as it is.
"""
import random
from collections import Counter
from pathlib import Path

import regex

from configs.language_table import LANGUAGES

# scripts written without spaces between words; a replacement would need a segmenter
WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
# what stays as it is: fenced and inline code, control tokens and tags, addresses; and words
TOKEN = regex.compile(r"(?s)```.*?```|`[^`\n]*`|<[^<>\s]*>|\[/?[A-Z]+\]|https?://\S+"
                      r"|(?P<word>[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*)")
SENTENCE_START = regex.compile(r"(?:^|[.!?:;。！？\n])[^\p{L}]*$")


def separates_words(code: str) -> bool:
    """Whether a language is written with spaces between words; languages outside the table are taken to be."""
    return code not in LANGUAGES or not set(WITHOUT_SPACES) & set(regex.split(r"\W+", LANGUAGES[code].script))


def read_lexicon(path: str | Path) -> tuple[dict[str, str], Counter]:
    """({word: translation}, what was left out, by reason) of a file with lines "word<TAB>translation"."""
    found: dict[str, set] = {}
    skipped: Counter = Counter()
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        sides = [side.strip() for side in line.split("\t")]
        if not line.strip():
            continue
        if len(sides) != 2 or not all(sides):
            skipped["not a word and its translation"] += 1
        elif not all((match := TOKEN.fullmatch(side)) and match["word"] for side in sides):
            skipped["not one word"] += 1
        else:
            found.setdefault(sides[0], set()).add(sides[1])
    lexicon = {word: targets.pop() for word, targets in found.items() if len(targets) == 1}
    if len(found) > len(lexicon):
        skipped["ambiguous"] = len(found) - len(lexicon)
    return lexicon, skipped


def switch_words(text: str, lexicon: dict[str, str], probability: float, rng: random.Random) -> str:
    """Replace each word of the lexicon with this probability: 0 changes nothing, 1 all of them."""
    def replace(match):
        word = match["word"]
        if word is None:
            return match[0]
        opens = SENTENCE_START.search(text[max(0, match.start() - 20):match.start()]) is not None
        key = word if word in lexicon or not opens else word[:1].lower() + word[1:]
        if key not in lexicon or rng.random() >= probability:
            return word
        return lexicon[key] if key == word else lexicon[key][:1].upper() + lexicon[key][1:]

    return TOKEN.sub(replace, text)
