"""The cleaned files of a source -> one file of kept documents and one of dropped ones, without duplicates."""
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from corpus import bitext, dedup, jobs, translation_templates
from corpus.account import reject
from corpus.read import Document
from corpus.sources import dropped_file, find_parts, is_web, kept_file, work_folder


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
    dropped = sum((Counter(part["dropped"]) for part in parts), Counter())
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
                if reason is not None:
                    reject(aside, dropped, row, reason)
                    continue
                kept, size = kept + 1, size + len(row["text"].encode())
                kept_rows.write(json.dumps(row, ensure_ascii=False) + "\n")
    fields = {name: sum((Counter(part[name]) for part in parts), Counter())
              for name in ("ignored_fields", "unread_fields")}
    skipped = sum((Counter(part["skipped"]) for part in parts), Counter())
    read = sum(part["read"] for part in parts)
    jobs.write_stamp(stamp, inputs, outputs, records=read + skipped.total(), skipped=dict(sorted(skipped.items())),
                     read=read, kept=kept, bytes=size, dropped=dict(sorted(dropped.items())),
                     damaged=[place for part in parts for place in part["damaged"]],
                     **{name: dict(sorted(counts.items())) for name, counts in fields.items() if counts})


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
