"""The cascade against bad input, full disks and kills, and its options one by one, all through prepare.py's own command line."""
import gzip
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import prepare
import tokenizer
from corpus import perplexity, read
from data import open_sources
from test_prepare import jsonl, rows, sentence, shards, tree, write
from test_prepare import words as all_words

SYLLABLES = ["".join(pair) for pair in itertools.product("bdfgklmnprstv", "aeiou")]
RAN = 120  # seconds that a started process may take


def good(i, words=9):
    """The i-th of many texts that share next to nothing and pass every filter."""
    rng = random.Random(i)
    return " ".join(rng.choice(SYLLABLES) + rng.choice(SYLLABLES) for _ in range(words)).capitalize() + "."


def web(name="web", path="a.jsonl", **more):
    return dict(name=name, path=path, category="high", language="en") | more


@pytest.fixture(scope="module")
def token_model(tmp_path_factory):
    """A tokenizer trained once: the runs below need any."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(map(good, range(300)), 400, folder / "it")
    return str(folder / "it")


@pytest.fixture
def prepared(tmp_path, token_model):
    """A function that runs prepare.main over tmp_path/raw and gives the rows kept and dropped of its first source."""
    def run(*sources, **more):
        sources = list(sources or [web()])
        settings = dict(sources=sources, tokenizer=token_model, valid=0.0, workers=1) | more
        prepare.main(all_words(tmp_path / "raw", tmp_path / "out", **settings))
        return [rows(tmp_path / f"out/{kind}/{sources[0]['name']}.jsonl") for kind in ("text", "dropped")]
    return run


def adds_up(out):
    """The account against the files beside it, to the last reason; what it says of each source."""
    book, rejects = json.loads((out / "account.json").read_text()), rows(out / "rejects.jsonl")
    for name, b in book.items():
        assert b["read"] == b["kept"] + sum(b["dropped"].values()) and b["kept"] == len(rows(out / f"text/{name}.jsonl"))
        assert b["dropped"] == Counter(r["reason"] for r in rejects if r["source"] == name)
    samples = Counter((r["source"], r["reason"]) for r in rows(out / "samples.jsonl"))
    assert samples == {key: min(5, n) for key, n in Counter((r["source"], r["reason"]) for r in rejects).items()}
    return book


def command(root, *settings, limit=None, **more):
    """prepare.py as a process; limit: bytes that any file may grow to."""
    cap = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.run([sys.executable, str(root / "prepare.py"), *settings], capture_output=True, text=True, timeout=RAN,
                          preexec_fn=cap, **more)


def one_line_error(process, *parts):
    """It failed, in one line of plain words that holds the parts."""
    said = process.stderr.strip()
    assert process.returncode == 1 and "\n" not in said and "Traceback" not in said, said
    assert all(part in said for part in parts), said


# ---------------------------------------------------------------------- fourteen kinds of bad input

BAD_LINES = {  # what stands in line 500 of 1,000, and the reason it is dropped for
    "utf8": (b'{"text": "not \xff UTF-8 at all, but long enough."}', "not UTF-8 at byte 14"),
    "nul": (b"\x00" * 40, "not JSON"),
    "cut": (b'{"text": "The line stops h', "not JSON"),
    "array": (b'["text", "abc"]', "no text"),
    "number": (b"42", "no text"),
    "no-field": (b'{"content": "A sentence under another name."}', "no text"),
    "null-text": (b'{"text": null}', "no text"),
    "number-text": (b'{"text": 5}', "no text"),
    "empty": (b'{"text": ""}', "chars: too low"),
    "white": (b'{"text": " \\n\\u3000 "}', "chars: too low"),
    "long": (b'{"text": "' + b"x" * (5 << 20) + b'"}', "line longer than 4 MiB"),
    "surrogate": (b'{"text": "half \\ud800 of a pair in a long sentence."}', "lone surrogate"),
}


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory, token_model):
    """One run over a source of 1,000 lines for each corruption: (raw folder, out folder)."""
    base, monkeypatch = tmp_path_factory.mktemp("corrupted"), pytest.MonkeyPatch()
    lines = [json.dumps({"text": good(i), "id": 7}).encode() for i in range(1000)]  # and all have the same id
    for name, (bad, _) in BAD_LINES.items():
        write(base / f"raw/{name}.jsonl", b"\n".join([*lines[:499], bad, *lines[500:]]) + b"\n")
    odd = [json.dumps({"text": good(i).replace(" ", "\u2028", i == 3)}, ensure_ascii=False).encode() for i in range(1000)]
    write(base / "raw/windows.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(odd))
    sources = [web(name, f"{name}.jsonl") for name in (*BAD_LINES, "windows")]
    monkeypatch.setattr(read, "MAX_LINE", 4 << 20)  # the processes of the pool are forks and see it, too
    prepare.main(all_words(base / "raw", base / "out", sources=sources, tokenizer=token_model, valid=0.0, workers=2, near=False))
    monkeypatch.undo()
    return base / "raw", base / "out"


@pytest.mark.parametrize("name", BAD_LINES)
def test_one_bad_line_of_a_thousand(corrupted, name):
    """Named with file, byte and line; the 999 others are kept, in order, although they share an id."""
    raw, out = corrupted
    found, = (r for r in rows(out / "rejects.jsonl") if r["source"] == name)
    assert Path(found["file"]) == raw / f"{name}.jsonl" and found["line"] == 500 and found["reason"].startswith(BAD_LINES[name][1])
    assert (raw / f"{name}.jsonl").read_bytes()[found["offset"]:].startswith(BAD_LINES[name][0][:40])
    assert [r["text"] for r in rows(out / f"text/{name}.jsonl")] == [good(i) for i in range(1000) if i != 499]
    assert shards(out / name)[0]["documents"] == 999


def test_odd_but_good_lines(corrupted):
    """A byte order mark, Windows line ends and U+2028 within a text cost nothing; the last becomes a line break."""
    kept = [r["text"] for r in rows(corrupted[1] / "text/windows.jsonl")]
    assert kept == [good(i).replace(" ", "\n", i == 3) for i in range(1000)]


def test_the_account_of_corrupted_files(corrupted):
    book = adds_up(corrupted[1])
    assert {name: b["kept"] for name, b in book.items()} == {name: 999 for name in BAD_LINES} | {"windows": 1000}
    assert not any(b["damaged"] for b in book.values())


def packed(kind, lines):
    """(bytes of a damaged file, number of documents that can be read from it)."""
    if kind == "gz":
        whole = gzip.compress(lines)
        cut = whole[:len(whole) // 2]
        import zlib
        return cut, zlib.decompressobj(31).decompress(cut).count(b"\n")
    zstandard = pytest.importorskip("zstandard")
    packer = zstandard.ZstdCompressor()
    return packer.compress(lines[:lines.index(b"\n", len(lines) // 2) + 1]) + b"no frame of zstd", lines[:len(lines) // 2].count(b"\n") + 1


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_damaged_compression(tmp_path, root, token_model, kind):
    """Status 1 and the line of the file, until keep_going says that what could be read is enough."""
    lines = jsonl({"text": good(i)} for i in range(1000)).encode()
    damaged, there = packed(kind, lines)
    write(tmp_path / f"raw/a.jsonl.{kind}", damaged)
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web(path="a.*")], tokenizer=token_model, valid=0.0, workers=1)
    one_line_error(command(root, *settings), f"a.jsonl.{kind}, line {there + 1}: unreadable from here on", "keep_going=True")
    assert not list((tmp_path / "out").glob("*/index.json"))
    assert command(root, *settings, "keep_going=True").returncode == 0
    assert [r["text"] for r in rows(tmp_path / "out/text/web.jsonl")] == [good(i) for i in range(there)]
    reject, = rows(tmp_path / "out/rejects.jsonl")
    offset = len(b"\n".join(lines.split(b"\n")[:there])) + 1  # of what is compressed in the file
    assert (reject["line"], reject["offset"]) == (there + 1, offset)
    assert len(adds_up(tmp_path / "out")["web"]["damaged"]) == 1


def footer(path, parquet):
    path.write_bytes(path.read_bytes()[:-5])


def page(path, parquet):
    place = parquet.ParquetFile(path).metadata.row_group(4).column(0).data_page_offset  # of ten
    raw = bytearray(path.read_bytes())
    raw[place + 30:place + 300] = b"\x5a" * 270
    path.write_bytes(raw)


@pytest.mark.parametrize("spoil, least", [(footer, 0), (page, 400)])
def test_damaged_parquet(tmp_path, prepared, spoil, least):
    """Named; with keep_going another file of the source, and the row groups before the damage, are kept."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "raw/b.jsonl", jsonl({"text": good(i)} for i in range(2000, 2010)))
    table = pyarrow.table({"text": [good(i) for i in range(1000)]})
    parquet.write_table(table, tmp_path / "raw/a.parquet", row_group_size=100, compression="gzip", use_dictionary=False)
    spoil(tmp_path / "raw/a.parquet", parquet)
    with pytest.raises(ValueError, match="a.parquet"):
        prepared(web(path="[ab].*"))
    kept, dropped = prepared(web(path="[ab].*"), keep_going=True)
    assert len(kept) >= least + 10 and [r["reason"].split(":")[0] for r in dropped] == ["unreadable from here on"]
    assert len(adds_up(tmp_path / "out")["web"]["damaged"]) == 1


def test_parquet_text_that_is_not_utf8(tmp_path, prepared):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    raw = pyarrow.array([good(i).encode() if i != 5 else b"not \xff UTF-8" for i in range(20)], pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 20, raw.buffers())
    (tmp_path / "raw").mkdir()
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "raw/a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet"):
        prepared(web(path="a.parquet"))


@pytest.mark.slow
def test_a_line_of_200_megabytes(tmp_path, root, token_model):
    """The limit is 64 MiB; the process stays below twice that and what it needs anyway."""
    write(tmp_path / "raw/a.jsonl", b'{"text": "' + b"x" * 200_000_000 + b'"}\n' + jsonl([{"text": good(1)}]).encode())
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web()], tokenizer=token_model, valid=0.0, workers=1)
    assert command(root, *settings).returncode == 0
    reject, = rows(tmp_path / "out/rejects.jsonl")
    assert reject["reason"] == "line longer than 64 MiB" and len(rows(tmp_path / "out/text/web.jsonl")) == 1
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 400_000  # kB; 66,000 are numpy and the rest of the program


def test_a_shard_with_another_checksum_is_refused(tmp_path, prepared):
    write(tmp_path / "raw/a.jsonl", jsonl({"text": good(i)} for i in range(20)))
    prepared()
    file = tmp_path / "out/web/shard-00000.bin"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="shard-00000.bin: SHA-256 differs"):
        for source in open_sources(tmp_path / "out"):
            source.verify()


# ---------------------------------------------------------------------- files that change, disks that fill

def shrink(path):
    os.truncate(path, 1_500_000)


def grow(path):
    with open(path, "ab") as f:
        f.write(b'{"text": "Written too late for this run."}\n')


@pytest.mark.parametrize("change, message", [(shrink, r"a\.jsonl changed while it was read"), (Path.unlink, r"No such file.*a\.jsonl"),
                                             (grow, r"a\.jsonl changed while it was read")])
def test_a_file_that_changes_while_it_is_read(tmp_path, prepared, monkeypatch, change, message):
    """The error names it, nothing of it counts, and the next run is as if it had always been so."""
    raw = tmp_path / "raw/a.jsonl"
    write(raw, jsonl({"text": good(i), "ballast": "x" * 3000} for i in range(1000)))  # three times what is read at once
    original = prepare.web_steps

    def steps(c, source):
        count = itertools.count()
        return [lambda doc: next(count) != 100 or change(raw) or True, *original(c, source)]
    with monkeypatch.context() as m, pytest.raises((ValueError, OSError), match=message):
        m.setattr(prepare, "web_steps", steps)
        prepared()
    assert not list((tmp_path / "out").glob("*/index.json")) and not list((tmp_path / "out").rglob("00000.json"))
    if not raw.exists():
        write(raw, jsonl({"text": good(i)} for i in range(50)))
    prepared(keep_going=True)
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    prepared(keep_going=True)
    assert tree(tmp_path / "out") == first


LIMITS = {"cleaning": (2_000, "00000"), "merging": (140_000, "text/web.jsonl"), "the tokenizer": (20_000, ""),
          "shards": (90_000, "shard-00000.bin")}


def full_disk(tmp_path, root, token_model, where):
    """A run whose file at `where` goes to a full disk, the run after it, and an undisturbed one: the first must say what failed."""
    write(tmp_path / "raw/a.jsonl", jsonl([*({"text": good(i)} for i in range(200)), {"text": "Short."}]))
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web()], tokenizer=token_model, valid=0.0, workers=1)
    full = tmp_path / "out" / where
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    process = command(root, *settings)
    full.unlink(missing_ok=True)
    return process, settings


PLACES = ["work/web/00000.passed", "work/web/00000.dropped", "work/web/00000.keys", "text/web.jsonl", "dropped/web.jsonl", "rejects.jsonl",
          "samples.jsonl", "account.tmp", "work/web/merged.tmp"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("where", [pytest.param(p, marks=[] if i in (0, 3) else pytest.mark.slow) for i, p in enumerate(PLACES)])
def test_no_space_left(tmp_path, root, token_model, where):
    """Status 1 and one line that names the folder; the rerun leaves what an undisturbed run leaves."""
    process, settings = full_disk(tmp_path, root, token_model, where)
    one_line_error(process, "No space left on device", str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*/index.json"))
    prepare.main(settings)
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    prepare.main(settings)
    assert tree(tmp_path / "out") == first


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 2_000, 10_000, 20_000, 25_000, 30_000, 60_000])
def test_files_may_not_grow(tmp_path, root, limit):
    """RLIMIT_FSIZE, which stops cleaning, merging, the tokenizer or the shards: whatever is hit first."""
    write(tmp_path / "raw/a.jsonl", jsonl({"text": good(i)} for i in range(200)))
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web()], vocab_size=400, valid=0.0, workers=1)
    process = command(root, *settings, limit=limit)
    one_line_error(process, "File too large", str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*/index.json"))
    prepare.main(settings)
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    prepare.main(settings)
    assert tree(tmp_path / "out") == first
