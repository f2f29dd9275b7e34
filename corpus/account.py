"""What became of every document: account.json, rejects.jsonl, samples.jsonl and the table at the end of a run."""
import json
import os
from collections import Counter
from pathlib import Path
from typing import TextIO

from corpus.sources import dropped_file, has_chats, is_web, refused_file

PLACE = ("file", "offset", "line", "reason")
SAMPLES = 5  # of each source and reason in samples.jsonl
FIELDS = ("records", "skipped", "read", "kept", "bytes", "dropped", "damaged", "file_bytes", "unread_bytes",
          "text_bytes", "control_tokens_as_text", "ignored_fields", "unread_fields")


def reject(file: TextIO, dropped: Counter, row: dict, reason: str):
    """Count a dropped row and write it aside."""
    dropped[reason] += 1
    file.write(json.dumps(row | {"reason": reason}, default=str) + "\n")  # escaped: it may hold what UTF-8 cannot


def write_account(c, accounts: list[dict], sizes: list[dict] | None = None):
    """Write account.json, rejects.jsonl and samples.jsonl; no document may be missing.

    accounts: of each source the FIELDS; its text_bytes, in UTF-8: read = kept + dropped + edited, which the steps took
    out of kept texts (below 0: added to them); unread_bytes: of damaged plain files. sizes: once the shards are
    written, of each source {split: (tokens, bytes, documents)}. ValueError for damaged files and sources of which
    nothing is left.
    """
    for source, account in zip(c.sources, accounts):
        dropped = sum(account["dropped"].values())
        assert account["read"] == account["kept"] + dropped, f"{source['name']}: documents lost"
        skipped = sum(account["skipped"].values())
        assert account["records"] == account["read"] + skipped, f"{source['name']}: records lost"
        text = account["text_bytes"]
        assert text["read"] == text["kept"] + text["dropped"] + text["edited"], f"{source['name']}: bytes lost"
    write_totals(c, accounts, sizes)
    write_rejects(c)
    damaged = [place for account in accounts for place in account["damaged"]]
    if damaged and not c.keep_going:
        raise ValueError(f"{len(damaged)} damaged files: {'; '.join(damaged[:5])}; replace them, or keep what could be "
                         "read with keep_going=True")
    empty = [f"{source['name']} ({account['read']} read, dropped: {account['dropped'] or 'none'})"
             for source, account in zip(c.sources, accounts) if not account["kept"]]
    if empty:
        raise ValueError(f"nothing left of source {', '.join(empty)}; what was dropped, and why, is in {c.out}/dropped")


def finish_account(c, accounts: list[dict], written: list[dict]):
    """Write the account with the tokens of the shards, and print the table. written: the stamps of the shards."""
    for source, account, result in zip(c.sources, accounts, written):
        if has_chats(source):  # the template refused some
            account["kept"] -= sum(result["dropped"].values())
            account["dropped"] |= result["dropped"]
            account["text_bytes"]["kept"] -= result["refused_bytes"]
            account["text_bytes"]["dropped"] += result["refused_bytes"]
            account["control_tokens_as_text"] = result["forged"]
    sizes = [result["sizes"] for result in written]
    write_account(c, accounts, sizes)
    print_table(c, accounts, written)


def write_totals(c, accounts, sizes):
    """account.json: {source: counts and labels}, with the tokens of each split once they are known."""
    rows = {}
    for i, (source, account) in enumerate(zip(c.sources, accounts)):
        row = {k: account[k] for k in FIELDS if k in account}
        row |= {k: source.get(k) for k in ("category", "language", "target", "licence")}
        if sizes:
            row["tokens"] = {split: tokens for split, (tokens, _, _) in sizes[i].items()}
        rows[source["name"]] = row
    out = Path(c.out)
    (out / "account.tmp").write_text(json.dumps(rows, indent=1))
    os.replace(out / "account.tmp", out / "account.json")


def write_rejects(c):
    """rejects.jsonl: place and reason of every dropped document; samples.jsonl: a few of each reason, with text."""
    out = Path(c.out)
    with (open(out / "rejects.jsonl", "w", encoding="utf-8") as rejects,
          open(out / "samples.jsonl", "w", encoding="utf-8") as samples):
        for source in c.sources:
            seen = Counter()
            for line in read_dropped(c, source):
                row = json.loads(line)
                place = {"source": source["name"]} | {k: v for k, v in row.items() if k in PLACE}
                rejects.write(json.dumps(place, ensure_ascii=False) + "\n")
                seen[row["reason"]] += 1
                if seen[row["reason"]] <= SAMPLES:
                    texts = {k: v[:2000] for k, v in row.items() if k in ("text", "target") and isinstance(v, str)}
                    samples.write(json.dumps(place | texts) + "\n")  # escaped: it may hold what UTF-8 cannot


def read_dropped(c, source):
    """The lines of everything dropped of a source."""
    for path in (dropped_file(c, source), refused_file(c, source)):
        if path.exists():
            with open(path, encoding="utf-8") as f:
                yield from f


def print_table(c, accounts: list[dict], written: list[dict]):
    """One line per language (documents, tokens, reasons), and the total. Tokens per byte are those of what is learned:
    of chats the answers, as the bytes of their shards are.
    """
    groups: dict = {}
    for source, account, result in zip(c.sources, accounts, written):
        key = source["language"] if is_web(source) else source["category"]
        total, reasons = groups.setdefault(key, (Counter(), Counter()))
        total.update(read=account["read"], kept=account["kept"], learned=result["learned"])
        for tokens, size, _ in result["sizes"].values():
            total.update(tokens=tokens, bytes=size)
        for reason, n in account["dropped"].items():
            reasons[reason.split(":")[0]] += n
    print(f"{'':12} {'in':>8} {'kept':>8} {'tokens':>10} {'tokens/byte':>11}  dropped")
    for key, (total, reasons) in groups.items():
        why = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
        fertility = total["learned"] / max(1, total["bytes"])
        print(f"{key:12} {total['read']:8,} {total['kept']:8,} {total['tokens']:10,} {fertility:11.3f}  {why}")
    for source, account in zip(c.sources, accounts):
        if has_chats(source) and account.get("control_tokens_as_text"):
            print(f"note: {source['name']}: {account['control_tokens_as_text']} chats contain control "
                  "tokens as text; the shards keep them as plain text")
        if account.get("ignored_fields"):
            counts = ", ".join(f"{name} {n:,}" for name, n in account["ignored_fields"].items())
            print(f"note: {source['name']}: fields removed by ignore_fields: {counts}")
    read, kept = (sum(account[k] for account in accounts) for k in ("read", "kept"))
    print(f"{c.out}: {read:,} documents in = {kept:,} kept + {read - kept:,} dropped (see {c.out}/dropped)")
