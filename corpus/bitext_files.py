"""Files of sentence pairs -> Documents whose text is the source sentence and whose more["target"] is its translation.

    a.en|a.kk       Moses: two files, line i of one translates line i of the other
    .tsv            source, target[, score or address]
    .jsonl          {"text", "target"}, {"src", "tgt"}, {"source", "target"} or {"translation": {"en": ..., "kk": ...}}
    .tmx            translation memory, UTF-8

Each may be compressed (.gz, .bz2, .xz, .zst). A row that is no pair comes with `reason` set.
"""
import json
from xml.etree import ElementTree

import regex

from corpus import files
from corpus.files import read_lines
from corpus.read import Document, read_documents

NUMBER = regex.compile(r"\s*-?\d+(\.\d+)?(e-?\d+)?\s*")
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
FORMATTING = ("bpt", "ept", "it", "ph", "ut")  # TMX elements that hold codes of the original file, not text


def read_pairs(path, source=None, target=None):
    """Yield the pairs of a file. source, target: codes of the two languages to take from a file that may hold more."""
    if "|" in str(path):
        yield from read_moses(*str(path).split("|"))
    elif files.format_of(path) == ".tmx":
        yield from read_tmx(str(path), primary_subtag(source), primary_subtag(target))
    else:
        for doc in read_documents(path):
            if "columns" in doc.more:
                pair_from_columns(doc, doc.more.pop("columns"))
            elif not isinstance(doc.more.get("target"), str) and (doc.reason or "no text").startswith("no text"):
                pair_from_fields(doc, primary_subtag(source), primary_subtag(target))
            if doc.reason is None and not isinstance(doc.more.get("target"), str):
                doc.reason = "no pair: the row has no target sentence"
            yield doc


def primary_subtag(code):
    """"en" of "en-US" and of "EN_us"; None of None."""
    return code and regex.split("[-_]", code)[0].lower()


def pair_from_columns(doc, columns):
    """Fill a pair from the columns behind the source sentence: the target, then a score or an address."""
    doc.more["target"] = columns[0] if columns else None
    doc.url = columns[1] if len(columns) > 1 else ""
    if NUMBER.fullmatch(doc.url):
        doc.more["score"], doc.url = float(doc.url), ""


def pair_from_fields(doc, source, target):
    """Fill a pair from a JSON row whose sentences are not in "text" and "target"."""
    row = doc.more if doc.reason is None else json.loads(doc.text)
    if not isinstance(row, dict):
        return
    translation = row.get("translation")
    by_language = {}
    if isinstance(translation, dict):
        by_language = {primary_subtag(code): text for code, text in translation.items()}
    for a, b, fields in (("src", "tgt", row), ("source", "target", row), (source, target, by_language)):
        if isinstance(fields.get(a), str) and isinstance(fields.get(b), str):
            doc.text, doc.more, doc.reason = fields[a], row | {"target": fields[b]}, None
            return


def read_moses(source, target):
    """Yield the pairs of two aligned files; ValueError when the target file is longer."""
    target_lines, number, problem = read_lines(target), 0, None
    for number, offset, x, problem in read_lines(source):
        _, _, y, target_problem = next(target_lines, (0, 0, None, "the target file is shorter"))
        yield Document(x or "", file=source, line=number, offset=offset, reason=problem or target_problem,
                       more={"target": y})
    if next(target_lines, None) and not (problem or "").startswith("unreadable"):
        raise ValueError(f"{target} has more lines than {source}; Moses files must be aligned: line {number + 1} has "
                         "no partner")


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
        if "<!ENTITY" in (text or "") and not open_elements:
            raise ValueError(f"{path}, line {number}: entities can expand to any amount of text; remove them from the "
                             "DOCTYPE")
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
