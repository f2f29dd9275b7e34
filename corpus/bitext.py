"""Sentence pairs -> training text: readers, hard rules, and the eleven translation templates of Marco-LLM's Table 13 (own words).
A pair is a Document whose text is the source sentence and whose more["target"] is its translation.
"""
import hashlib
import json
import unicodedata
from bisect import bisect_left
from collections import Counter
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import regex

from corpus.clean import DENSE, LETTERS, SCRIPTS, byte_size, script_pattern
from corpus.files import read_lines
from corpus.read import Document, read_documents

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
# the same in other languages, and what those call the languages, for half of the texts that begin with a sentence in one of them
OWN_TEMPLATES = {"zh": {
    "A": "{src}短语：{x}\n{tgt}短语：{y}", "B": "{src}文本：{x}\n{tgt}文本：{y}",
    "C": "请把文本从{src}翻译成{tgt}。\n{src}文本：{x}\n{tgt}文本：{y}", "D": "请翻译词语，从{src}到{tgt}。\n{src}词语：{x}\n{tgt}词语：{y}",
    "E": "请把短语由{src}转换为{tgt}。\n{src}短语：{x}\n{tgt}短语：{y}", "F": "用{tgt}表达{src}句子“{x}”：{y}",
    "G": "给出句子“{x}”从{src}到{tgt}的译文：{y}", "H": "把短语“{x}”改成{tgt}，译出的短语是：{y}",
    "I": "请把句子“{x}”改成{tgt}，译文是：{y}", "J": "把短语“{x}”变成{tgt}：{y}", "K": "{src}句子“{x}”用{tgt}说就是“{y}”。"}}
OWN_NAMES = {"zh": {word[:2]: word[2:] for word in (
    "en英语 zh中文 ar阿拉伯语 de德语 es西班牙语 fr法语 ko韩语 ja日语 pt葡萄牙语 tr土耳其语 bn孟加拉语 he希伯来语 id印尼语 it意大利语 ms马来语 "
    "nl荷兰语 pl波兰语 ru俄语 th泰语 uk乌克兰语 ur乌尔都语 vi越南语 cs捷克语 el希腊语 hu匈牙利语 kk哈萨克语 ro罗马尼亚语 az阿塞拜疆语 ne尼泊尔语").split()}}

# how long sentences are beside English ones, in characters and in UTF-8 bytes: 15 languages as in FLORES, others (one decimal)
# as in the tinyworld, times 1.09, by which FLORES exceeds it in the median where both are known
LENGTH = {row[:2]: tuple(map(float, row[2:].split())) for row in (
    "en 1 1,zh .33 .92,ar .90 1.63,de 1.16 1.18,es 1.19 1.21,fr 1.19 1.23,ko .50 1.19,ja .44 1.27,pt 1.08 1.11,tr 1.03 1.12,"
    "bn .97 2.60,id 1.09 1.09,th .95 2.72,kk 1.04 1.91,ne .96 2.58,he .8 1.4,it 1.1 1.1,ms 1.2 1.2,nl 1.1 1.1,pl 1 1,ru .9 1.7,"
    "uk .9 1.7,ur 1.0 1.8,vi 1.1 1.4,cs .9 1.0,el 1.2 2.2,hu 1.0 1.1,ro 1.0 1.1,az 1.0 1.1").split(",")}
SCRIPT = {code: script_pattern(scripts) for code, scripts in SCRIPTS.items()}
WORD, ONE = regex.compile(f"[{DENSE}]|[^\\s{DENSE}]+"), regex.compile(f"[{DENSE}]")  # a dense character counts as a word
ADDRESS = regex.compile(r"(?:https?://|www\.)[!-~--[\"'()<>]]+|(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+", regex.V1 | regex.A)
# UTF-8 read as Latin-1 or Windows-1252: what C2 to F4 become, then what 80 to BF become, twice; the frequent Ã©, Â° and â€ once
LOW = "[\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]"
BROKEN = regex.compile(rf"(?:[Â-ß]{LOW}|[à-ï]{LOW}{{2}}|[ð-ô]{LOW}{{3}}){{2,}}|[ÃÂ][\x80-\xbf€ƒ†‡ˆ‰Š‹Œ]|â€|[\0-\x08\x7f-\x9f]|"
                       r"[\ufffd\ud800-\udfff]|\\u[\da-fA-F]{4}|\\x[\da-fA-F]{2}|%[C-F][\dA-F]%[89AB]|"
                       r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[\da-fA-F]{1,6});")
REPEATED = regex.compile(rf"(?<![\p{{L}}\p{{M}}])({LETTERS.pattern})(?:[^\p{{L}}\p{{M}}]{{1,3}}\1(?![\p{{L}}\p{{M}}])){{2,}}|"
                         rf"([{DENSE}]{{2,20}}?)\2{{3}}", regex.I)
UNITS = {unit: power for units, power in (("万 萬 만", 4), ("亿 億 억", 8), ("兆 조", 12), ("लाख লাখ লক্ষ لاکھ แสน", 5),
                                         ("करोड কোটি کروڑ", 7)) for unit in units.split()}  # powers of ten, but not of a thousand
NUMBER = regex.compile(r"(?<!\d)(\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|\d\d?(?:,\d\d)+,\d{3}(?!\d)|"  # 1 500 000; 15,00,000
                       r"\d+(?:[.,٫٬'’]\d{3}(?!\d))*(?:[.,٫]\d\d?(?!\d|[.,:/-]\d))?)"  # 1,500,000; 1.5
                       rf"\s*({'|'.join(UNITS)})?")
SPACE = regex.compile(r"[^\S\u00a0\u202f\u3000]+")  # those three are part of the spelling
MONTH = regex.compile(r"\d{1,2}\s*[月월]|\btháng \d{1,2}", regex.I)  # June is 6月 or tháng 6


def pairs(path, source=None, target=None):
    """Yield pair Documents of "a.en|a.kk" (Moses), .tmx, .tsv (source, target[, score]) or .jsonl ("text", "target"; `renamed`).
    source, target: codes of the two languages to take from a file that can hold more."""
    if "|" in str(path):
        yield from moses(*str(path).split("|"))
    elif [s for s in Path(path).suffixes if s not in (".gz", ".xz", ".zst")][-1:] == [".tmx"]:
        yield from tmx(str(path), primary(source), primary(target))
    else:
        for doc in read_documents(path):
            columns = doc.more.pop("columns", None)
            if columns is not None:
                doc.more["target"], doc.url = [*columns, *[None, ""][len(columns):]][:2]
                if regex.fullmatch(r"\s*-?\d+(\.\d+)?(e-?\d+)?\s*", doc.url):
                    doc.more["score"], doc.url = float(doc.url), ""
            elif not isinstance(doc.more.get("target"), str) and (doc.reason or "no text").startswith("no text"):
                renamed(doc, primary(source), primary(target))
            if doc.reason is None and not isinstance(doc.more.get("target"), str):
                doc.reason = "no pair: the row has no target sentence"
            yield doc


def primary(code):
    """"en-US" and "EN_us" are "en"."""
    return code and regex.split("[-_]", code)[0].lower()


def renamed(doc, source, target):
    """Fill a pair from a row with "src" and "tgt", "source" and "target", or {"translation": {"en": ..., "kk": ...}}."""
    row = doc.more if doc.reason is None else json.loads(doc.text)
    row = row if isinstance(row, dict) else {}
    both = {primary(k): v for k, v in row["translation"].items()} if isinstance(row.get("translation"), dict) else {}
    for a, b, found in (("src", "tgt", row), ("source", "target", row), (source, target, both)):
        if isinstance(found.get(a), str) and isinstance(found.get(b), str):
            doc.text, doc.more, doc.reason = found[a], row | {"target": found[b]}, None
            return


def moses(source, target):
    theirs, number, problem = read_lines(target), 0, None
    for number, offset, x, problem in read_lines(source):
        _, _, y, other = next(theirs, (0, 0, None, "the target file is shorter"))
        yield Document(x or "", file=source, line=number, offset=offset, reason=problem or other, more={"target": y})
    if next(theirs, None) and not (problem or "").startswith("unreadable"):
        raise ValueError(f"{target} has more lines than {source}; Moses files must be aligned: line {number + 1} has no partner")


def tmx(path, source, target):
    """The first segments of two languages, in any order, of each unit of a translation memory, UTF-8, without formatting codes.
    It is read as a stream; what has been read is let go."""
    if not source or not target:
        raise ValueError(f"{path}: a .tmx holds many languages; say which two to take (source= and target=)")
    parser, opened = ElementTree.XMLPullParser(("start", "end")), []
    found, language, unit = {}, None, {}  # unit: the place of the one we are in
    for number, offset, text, problem in read_lines(path):
        place = {"file": path, "line": number, "offset": offset}
        if "<!ENTITY" in (text or "") and not opened:
            raise ValueError(f"{path}, line {number}: entities can stand for any amount of text; take them out of the DOCTYPE")
        try:
            parser.feed(f"{text or ''}\n")
            for event, e in parser.read_events():
                if event == "start":
                    opened.append(e)
                    unit, found = (place, {}) if e.tag == "tu" else (unit, found)
                    if e.tag == "tuv":
                        language = primary(e.get("{http://www.w3.org/XML/1998/namespace}lang") or e.get("lang"))
                    continue
                opened.pop()
                if e.tag in ("bpt", "ept", "it", "ph", "ut"):
                    e.text, e[:] = None, []
                elif e.tag == "seg":
                    found.setdefault(language, "".join(e.itertext()))
                elif e.tag == "tu":
                    lacking = " and ".join(code for code in (source, target) if code not in found)
                    yield Document(found.get(source, ""), **unit, more={"target": found.get(target)},
                                   reason=f"no pair: the unit has no segment in {lacking}" if lacking else None)
                    unit = {}
                if opened and not unit:
                    opened[-1].clear()
        except ElementTree.ParseError as e:
            yield Document("", **place, reason=f"unreadable from here on: not XML: {e}")
            return
        if problem:
            yield Document("", **place, reason=problem)
    if opened:
        yield Document("", **place, reason=f"unreadable from here on: the file ends within <{opened[-1].tag}>")


def two_sides(doc):
    """Drop what is no pair at all: the only rule that is left when nothing is to be filtered."""
    doc.text, doc.more["target"] = (" ".join(side.split()) for side in (doc.text, doc.more["target"]))
    return None if doc.text and doc.more["target"] else "pair: a side is empty"


def rules(doc, most_ratio, source=None, target=None, least_words=1, most_chars=1024, least_score=None, identify=None, alike=()):
    """Hard rules, the cheap ones first: what breaks one is hardly a sentence and its translation. source, target: language codes;
    without them neither scripts nor languages are looked at. identify: text -> code; alike: groups of codes that it may confuse.
    least_score: of the row's score, where the file has them (similarity.py)."""
    x, y = (SPACE.sub(" ", unicodedata.normalize("NFC", side)).strip() for side in (doc.text, doc.more["target"]))
    p, q = (ADDRESS.sub(" ", side).translate(str.maketrans("（）［］【】｛｝", "()[][]{}")) for side in (x, y))
    a, b = ("".join(LETTERS.findall(side)) for side in (p, q))
    score, known = doc.more.get("score"), [(side, part, code) for side, part, code in ((x, a, source), (y, b, target)) if code]
    checks = (
        ("a side is empty", lambda: not x or not y),
        ("too long", lambda: max(len(x), len(y)) > most_chars),
        ("broken or escaped characters", lambda: BROKEN.search(x) or BROKEN.search(y)),
        ("a copy", lambda: x.casefold() == y.casefold() or a.casefold() == b.casefold()),
        ("too few words", lambda: min(len(WORD.findall(side)) for side in (x, y)) < least_words),
        ("lengths do not match", lambda: ratio(x, y, source, target) > most_ratio),
        ("an address on one side only", lambda: len(ADDRESS.findall(x)) != len(ADDRESS.findall(y))),
        ("few letters", lambda: any(2 * byte_size(part) < byte_size("".join(side.split())) for side, part in ((p, a), (q, b)))),
        ("numbers do not match", lambda: numbers_differ(p, q)),
        ("a word of more than 40 characters", lambda: max(map(len, WORD.findall(f"{p} {q}")), default=0) > 40),
        ("words repeated on one side", lambda: bool(REPEATED.search(p)) != bool(REPEATED.search(q))),
        ("brackets left open", lambda: any(p.count(i) - p.count(j) != q.count(i) - q.count(j) for i, j in ("()", "[]", "{}"))),
        ("script of another language", lambda: any(2 * byte_size("".join(SCRIPT[code].findall(part))) < byte_size(part)
                                                   for _, part, code in known if code in SCRIPT)),
        ("score too low", lambda: least_score is not None and not (isinstance(score, (int, float)) and score >= least_score)),
        ("another language", lambda: identify and any(identify(side) not in {code}.union(*(g for g in alike if code in g))
                                                      for side, part, code in known if len(part) >= 20)))  # less says little
    reason = next((why for why, broken in checks if broken()), None)
    if reason:
        return f"pair: {reason}"
    doc.text, doc.more["target"] = x, y
    return None


def ratio(x, y, source, target):
    """How many times longer one side is than it should be beside the other, 1 or more; in bytes when a side is dense."""
    dense = any(4 * len(ONE.findall(side)) > len(side) for side in (x, y))
    a, b = (LENGTH[code][dense] if {source, target} <= set(LENGTH) else 1 for code in (source, target))
    a, b = ((byte_size if dense else len)(side) / usual for side, usual in ((x, a), (y, b)))
    return max(a, b) / min(a, b)


def numbers_differ(x, y):
    """Whether two sides name different numbers; one up to ten may be a word on the other side. Compared are significant digits
    and the power of ten modulo three: 2.8bn is 28亿, but 10 is not 100."""
    found = []
    for side in (x, y):
        values, joined = [], -1
        for m in NUMBER.finditer(MONTH.sub(" ", side)):
            whole, *decimals = regex.split(r"[.,٫](?=\d\d?$)", m[1])
            value = Decimal(".".join([regex.sub(r"\D", "", whole), *decimals])).scaleb(UNITS.get(m[2], 0))
            values.append(values.pop() + value if m.start() == joined else value)  # 1億2,500万 is one number
            joined = m.end() if m[2] else -1
        found.append(Counter((v.digits, v.exponent % 3) for v in (value.normalize().as_tuple() for value in values if value)))
    x, y = found[0] - found[1], found[1] - found[0]
    return bool(x and y) or not all(key == ((1,), 1) or len(key[0]) == 1 and key[1] == 0 for key in x | y)


def one_to_one():
    """A step that keeps the first pair of each source and of each target sentence; case and white space do not matter. It holds
    8 bytes of hash for a sentence, sorted; only the latest, a ninth of them, are in a set, which takes ten times as much."""
    table, fresh = memoryview(np.empty(0, np.uint64)), set()

    def step(doc):
        nonlocal table, fresh
        sides = (f"{i}{' '.join(side.casefold().split())}" for i, side in enumerate((doc.text, doc.more["target"])))
        keys = [int.from_bytes(hashlib.blake2b(side.encode(), digest_size=8).digest(), "little") for side in sides]
        seen = [key in fresh or key in table[(i := bisect_left(table, key)):i + 1] for key in keys]
        if any(seen):
            return "pair: a duplicate" if all(seen) else f"pair: {'source' if seen[0] else 'target'} is in another pair"
        fresh.update(keys)
        if len(fresh) > max(1 << 16, len(table) >> 3):
            table, fresh = memoryview(np.sort(np.concatenate([table, np.fromiter(fresh, np.uint64)]))), set()
        return None
    return step


def render(doc, src, tgt, codes=(None, None)):
    """Fill one template, in one direction; which is decided by the pair itself, so the text never depends on order or workers.
    src, tgt: English names of the two languages; codes: their codes, for half of the texts to be worded as in OWN_TEMPLATES."""
    x, y, (a, b) = doc.text, doc.more["target"], codes
    h = hashlib.blake2b(f"{src}\t{tgt}\t{x}\t{y}".encode(), digest_size=8).digest()
    if h[0] & 1:
        src, tgt, x, y, a, b = tgt, src, y, x, b, a
    templates = TEMPLATES
    if h[2] & 1 and {a, b} <= set(OWN_NAMES.get(a, ())):
        src, tgt, templates = OWN_NAMES[a][a], OWN_NAMES[a][b], OWN_TEMPLATES[a]
    doc.text = list(templates.values())[h[1] % len(templates)].format(src=src, tgt=tgt, x=x, y=y)
