"""What the steps leave of each file of a source, and its files put together: one of kept documents, one of dropped."""
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from corpus import bitext, dedup, files, jobs, translation_templates, warc
from corpus.account import reject
from corpus.read import Document
from corpus.sources import dropped_file, find_parts, has_chats, is_web, kept_file, work_folder

# what documents of bitext, chats and pairs hold beside their text
RECORD = ("target", "messages", "chosen", "rejected", "tools")


def write_cleaned(c, source, documents: Iterable[Document], passed: Path, dropped: Path, keys: Path) -> dict:
    """Write the documents that passed, their keys for deduplication, and the dropped ones; returns the counts.

    sizes: UTF-8 bytes of the texts that were read, dropped, and taken away by the steps (less than 0: added).
    """
    reasons: Counter = Counter()
    skipped: Counter = Counter()
    sizes: Counter = Counter(read=0, dropped=0, edited=0)
    read_count, unread, damaged = 0, 0, []
    near = is_web(source) and c.near_dedup
    is_text = not (has_chats(source) or "target" in source)
    with (open(passed, "w", encoding="utf-8") as passed_rows, open(dropped, "w", encoding="utf-8") as dropped_rows,
          open(keys, "wb") as key_rows):
        for doc in documents:
            if doc.reason is not None and doc.reason.startswith(warc.SKIPPED):  # a record that is no document
                skipped[doc.reason.removeprefix(warc.SKIPPED)] += 1
                continue
            read_count += 1
            place = {"file": doc.file, "offset": doc.offset, "line": doc.line}
            size = byte_size(doc.original, doc.more.get("target"))
            sizes["read"] += size
            if doc.reason is not None:
                if doc.reason.startswith("unreadable"):
                    damaged.append(f"{doc.file}, line {doc.line}: {doc.reason}")
                    unread += bytes_behind(doc)
                sizes["dropped"] += size
                reject(dropped_rows, reasons, doc.more | place | {"text": doc.original}, doc.reason)
                continue
            record = {} if is_text else {k: doc.more[k] for k in RECORD if k in doc.more}
            sizes["edited"] += size - byte_size(doc.text, record.get("target"))
            passed_rows.write(json.dumps({"text": doc.text} | record | place, ensure_ascii=False) + "\n")
            key_rows.write(dedup.key_bytes(doc.text, record.get("target", ""), near))
    return {"read": read_count, "dropped": reasons, "skipped": skipped, "sizes": sizes, "unread": unread,
            "damaged": damaged}


def byte_size(*texts) -> int:
    """UTF-8 bytes of texts, None for one that is not there; lone surrogates, which UTF-8 lacks, count as three."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts if isinstance(text, str))


def bytes_behind(doc) -> int:
    """Bytes of a damaged plain file from the damage on; 0 where a file's own offsets are not known."""
    plain = "|" not in doc.file and Path(doc.file).suffix not in (*files.COMPRESSED, ".parquet")
    return max(0, os.stat(doc.file).st_size - doc.offset) if plain and doc.offset is not None else 0


def merge_source(c, source: dict, stamp: Path):
    """Write text/NAME.jsonl and dropped/NAME.jsonl of a source, its files in their order. The stamp holds its account.
    """
    file_stamps = [work_folder(c, source) / f"{name}.json" for name, *_ in find_parts(c, source)]
    parts = [json.loads(path.read_text()) for path in file_stamps]
    outputs = [kept_file(c, source), dropped_file(c, source)]
    inputs = jobs.fingerprint([part["outputs"] for part in parts], c.language_names, c.filter_bitext)
    if jobs.up_to_date(stamp, inputs, outputs):
        return
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    dropped = sum_counts(part["dropped"] for part in parts)
    sizes = sum_counts(part["sizes"] for part in parts)
    kept = size = 0
    with open(outputs[0], "w", encoding="utf-8") as kept_rows, open(outputs[1], "w", encoding="utf-8") as aside:
        unique = find_unique(c, source, file_stamps)
        for _, of_file in groupby(zip(file_stamps, parts), key=lambda pair: pair[0].name[:5]):  # the parts of a file
            passed = 0
            for path, part in of_file:
                with open(path.with_suffix(".dropped"), encoding="utf-8") as f:
                    shutil.copyfileobj(f, aside)
                passed += part["read"] - sum(part["dropped"].values())
            for row, reason in islice(unique, passed):
                before = row.pop("bytes")
                if reason is not None:
                    sizes["dropped"] += before
                    reject(aside, dropped, row, reason)
                    continue
                sizes["edited"] += before - len(row["text"].encode())
                kept, size = kept + 1, size + len(row["text"].encode())
                kept_rows.write(json.dumps(row, ensure_ascii=False) + "\n")
    fields = {name: sum_counts(part[name] for part in parts) for name in ("ignored_fields", "unread_fields")}
    skipped = sum_counts(part["skipped"] for part in parts)
    places = {path for _, part, *_ in find_parts(c, source) for path in part.split("|")}
    read = sum(part["read"] for part in parts)
    jobs.write_stamp(stamp, inputs, outputs, records=read + skipped.total(), skipped=dict(sorted(skipped.items())),
                     read=read, kept=kept, bytes=size, dropped=dict(sorted(dropped.items())),
                     file_bytes=sum(os.stat(path).st_size for path in places), text_bytes={**sizes, "kept": size},
                     unread_bytes=sum(part["unread"] for part in parts),
                     damaged=[place for part in parts for place in part["damaged"]],
                     **{name: dict(sorted(counts.items())) for name, counts in fields.items() if counts})


def sum_counts(counts: Iterable[dict]) -> Counter:
    total: Counter = Counter()
    for each in counts:
        total.update(each)  # adding Counters would leave out what is not above 0
    return total


def find_unique(c, source: dict, file_stamps: list[Path]) -> Iterator[tuple[dict, str | None]]:
    """Yield (row, None or the reason to drop it) of every document that passed the steps; pairs become training text.
    """
    key_file = work_folder(c, source) / "keys"
    with open(key_file, "wb") as keys:
        for path in file_stamps:
            with open(path.with_suffix(".keys"), "rb") as part:
                shutil.copyfileobj(part, keys)
    head, exact = dedup.find_duplicates(key_file, is_web(source) and c.near_dedup)
    key_file.unlink()
    copies, is_new_pair = np.bincount(head), bitext.one_to_one()
    for i, row in enumerate(read_rows(file_stamps)):
        target = row.pop("target", "")
        row["bytes"] = byte_size(row["text"], target)
        if head[i] != i:
            same = (exact[i] == exact[head[i]]).all()
            yield row, "duplicate: exact" if same else "duplicate: near"
        elif "target" in source:
            pair = Document(row["text"], more={"target": target})
            reason = is_new_pair(pair) if c.filter_bitext else None
            if reason is not None:
                yield row | {"target": target}, reason
                continue
            codes = source["language"], source["target"]
            names = [c.language_names[code] for code in codes]
            translation_templates.format_pair(pair, names[0], names[1], codes)
            yield row | {"text": pair.text}, None
        else:
            if copies[i] > 1:
                row["copies"] = int(copies[i])  # of the text, itself included
            yield row, None


def read_rows(file_stamps):
    for path in file_stamps:
        with open(path.with_suffix(".passed"), encoding="utf-8") as f:
            yield from map(json.loads, f)
