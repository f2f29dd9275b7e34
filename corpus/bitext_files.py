"""Files of sentence pairs -> Documents whose text is the source sentence and whose more["target"] is its translation.

    a.en|a.kk       Moses: two files, line i of one translates line i of the other
    .tsv            source and target columns, found by content or by a header (corpus/bitext_tsv.py)
    .jsonl          {"text", "target"}, {"src", "tgt"}, {"source", "target"} or {"translation": {"en": ..., "kk": ...}}
    .parquet        the same fields as columns
    .tmx            translation memory

Each but parquet may be compressed (.gz, .bz2, .xz, .zst). A row that is no pair comes with `reason` set.
"""
import json
from xml.etree import ElementTree

import regex

from corpus import files
from corpus.bitext_tsv import read_tsv
from corpus.files import read_lines
from corpus.read import Document
from corpus.rows import read_rows

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
FORMATS = (".tsv", ".jsonl", ".json", ".parquet", ".tmx")
FORMATTING = ("bpt", "ept", "it", "ph", "ut")  # TMX elements that hold codes of the original file, not text


def read_pairs(path, source=None, target=None, start=0, end=None):
    """Yield the pairs of a file. source, target: codes of the two languages to take from a file that may hold more.

    start, end: only the pairs that begin in these bytes of a plain .jsonl or .tsv file.
    """
    codes = primary_subtag(source), primary_subtag(target)
    suffix = files.format_of(path)
    if "|" in str(path):
        yield from read_moses(*str(path).split("|"))
    elif suffix == ".tmx":
        yield from read_tmx(str(path), *codes)
    elif suffix == ".tsv":
        yield from read_tsv(path, *codes, start, end)
    elif suffix in (".jsonl", ".json", ".parquet"):
        for doc, row in read_rows(path, start, end):
            doc.file = str(path)
            if doc.reason is None:
                fill_pair(doc, row, *codes)
            yield doc
    else:
        raise ValueError(f"{path}: unknown format {suffix!r} of sentence pairs; expected .tsv, .jsonl, .json, "
                         ".parquet, .tmx, or two aligned files a.en|a.kk")


def primary_subtag(code):
    """"en" of "en-US" and of "EN_us"; None of None."""
    return code and regex.split("[-_]", code)[0].lower()


def fill_pair(doc, row, source, target):
    """Fill a pair from a row; a row without two sentences gets a reason."""
    translation = row.get("translation")
    by_language = {}
    if isinstance(translation, dict):
        by_language = {primary_subtag(code): text for code, text in translation.items()}
    shapes = (("text", "target", row), ("src", "tgt", row), ("source", "target", row), (source, target, by_language),
              (source, target, row))
    for a, b, fields in shapes:
        if isinstance(fields.get(a), str) and isinstance(fields.get(b), str):
            doc.text, doc.url = fields[a], str(row.get("url") or "")
            doc.more = {k: v for k, v in row.items() if k not in ("text", "url")} | {"target": fields[b]}
            return
    doc.text = json.dumps(row, ensure_ascii=False, default=str)
    fields = ", ".join(sorted(map(str, row))[:12]) or "none"
    doc.reason = f"no pair: its fields are {fields}; needed are text and target, src and tgt, source and target, or " \
                 f"translation with {source} and {target}"


def read_moses(source, target):
    """Yield the pairs of two aligned files; ValueError when one has more lines than the other.

    A missing line in the middle pairs everything behind it wrongly, and shows only at the end.
    """
    source_lines, target_lines = read_lines(source), read_lines(target)
    number, problem, target_problem = 0, None, None
    for number, offset, x, problem in source_lines:
        pair = next(target_lines, None)
        if pair is None and not is_cut(problem) and not is_cut(target_problem):
            total = number + sum(1 for _ in source_lines)
            raise ValueError(f"{source} has {total} lines, {target} has {number - 1}; Moses files must be aligned: a "
                             "line is missing somewhere in the second")
        if pair is not None:
            _, _, y, target_problem = pair
        else:
            y = None
        yield Document(x or "", file=source, line=number, offset=offset, reason=problem or target_problem,
                       more={"target": y})
    if next(target_lines, None) and not is_cut(problem):
        total = number + 1 + sum(1 for _ in target_lines)
        raise ValueError(f"{target} has {total} lines, {source} has {number}; Moses files must be aligned: a line is "
                         "missing somewhere in the second")


def is_cut(problem):
    """Whether a file ends there because it is damaged."""
    return (problem or "").startswith("unreadable")


def read_tmx(path, source, target):
    """Yield a pair for each unit of a translation memory: the first segment in each of two languages, in any order.

    Formatting codes are left out. The file is parsed as a stream, and elements are freed once they have been read.
    """
    if not source or not target:
        raise ValueError(f"{path}: a .tmx file may hold many languages; set the two to read with source= and target=")
    parser, open_elements = ElementTree.XMLPullParser(("start", "end")), []
    segments, language, unit_place = {}, None, {}  # of the unit that is being read; unit_place is empty outside of one
    for number, offset, text, problem in read_lines(path):
        place = {"file": path, "line": number, "offset": offset}
        if not open_elements and regex.search("<!(ENTITY|ATTLIST)", text or ""):
            raise ValueError(f"{path}, line {number}: entities and default attributes can expand to any amount of "
                             "text; remove them from the DOCTYPE")
        if unit_place and offset - unit_place["offset"] > files.MAX_LINE:
            yield Document("", **unit_place, reason=f"unreadable from here on: a unit longer than "
                                                    f"{files.MAX_LINE >> 20} MiB")
            return
        try:
            parser.feed(f"{text or ''}\n")
            for event, element in parser.read_events():
                if event == "start":
                    open_elements.append(element)
                    if element.tag == "tu":
                        unit_place, segments = place, {}
                    elif element.tag == "tuv":
                        language = primary_subtag(element.get(XML_LANG) or element.get("lang"))
                    continue
                open_elements.pop()
                if element.tag in FORMATTING:
                    element.text, element[:] = None, []
                elif element.tag == "seg":
                    segments.setdefault(language, "".join(element.itertext()))
                elif element.tag == "tu":
                    yield pair_from_segments(segments, source, target, unit_place)
                    unit_place = {}
                if open_elements and not unit_place:
                    open_elements[-1].clear()
        except ElementTree.ParseError as e:
            yield Document("", **place, reason=f"unreadable from here on: not XML: {e}")
            return
        if problem:
            yield Document("", **place, reason=problem)
    if open_elements:
        yield Document("", **place, reason=f"unreadable from here on: the file ends within <{open_elements[-1].tag}>")


def pair_from_segments(segments, source, target, place):
    missing = [code for code in (source, target) if code not in segments]
    reason = f"no pair: the unit has no segment in {' and '.join(missing)}" if missing else None
    return Document(segments.get(source, ""), **place, more={"target": segments.get(target)}, reason=reason)
