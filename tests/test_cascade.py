"""The cascade against bad input, full disks and kills, and its options one by one, all through prepare.py's own
command line.
"""
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
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_prepare import jsonl, rows, sentence, shards, tree, write
from test_prepare import words as all_words

import prepare
import tokenizer
from corpus import files, perplexity, read
from data import open_sources

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
        settings = dict(sources=sources, tokenizer=token_model, valid_fraction=0.0, workers=1) | more
        prepare.main(all_words(tmp_path / "raw", tmp_path / "out", **settings))
        return [rows(tmp_path / f"out/{kind}/{sources[0]['name']}.jsonl") for kind in ("text", "dropped")]
    return run


def adds_up(out):
    """The account against the files beside it, to the last reason; what it says of each source."""
    book, rejects = json.loads((out / "account.json").read_text()), rows(out / "rejects.jsonl")
    for name, b in book.items():
        assert b["read"] == b["kept"] + sum(b["dropped"].values())
        assert b["kept"] == len(rows(out / f"text/{name}.jsonl"))
        assert b["dropped"] == Counter(r["reason"] for r in rejects if r["source"] == name)
    samples = Counter((r["source"], r["reason"]) for r in rows(out / "samples.jsonl"))
    assert samples == {key: min(5, n) for key, n in Counter((r["source"], r["reason"]) for r in rejects).items()}
    return book


def command(root, *settings, limit=None, **more):
    """prepare.py as a process; limit: bytes that any file may grow to."""
    cap = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.run([sys.executable, str(root / "prepare.py"), *settings], capture_output=True, text=True,
                          timeout=RAN,
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
    "no-field": (b'{"body": "A sentence under another name."}', "no text"),
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
    lines = [json.dumps({"text": good(i, 5), "id": 7}).encode() for i in range(1000)]  # and all have the same id
    for name, (bad, _) in BAD_LINES.items():
        write(base / f"raw/{name}.jsonl", b"\n".join([*lines[:499], bad, *lines[500:]]) + b"\n")
    odd = [json.dumps({"text": good(i, 5).replace(" ", "\u2028", i == 3)}, ensure_ascii=False).encode()
           for i in range(1000)]
    write(base / "raw/windows.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(odd))
    sources = [web(name, f"{name}.jsonl") for name in (*BAD_LINES, "windows")]
    monkeypatch.setattr(files, "MAX_LINE", 4 << 20)  # the processes of the pool are forks and see it, too
    prepare.main(all_words(base / "raw", base / "out", sources=sources, tokenizer=token_model, valid_fraction=0.0,
                           workers=2, near_dedup=False))
    monkeypatch.undo()
    return base / "raw", base / "out"


@pytest.mark.parametrize("name", BAD_LINES)
def test_one_bad_line_of_a_thousand(corrupted, name):
    """Named with file, byte and line; the 999 others are kept, in order, although they share an id."""
    raw, out = corrupted
    found, = (r for r in rows(out / "rejects.jsonl") if r["source"] == name)
    assert Path(found["file"]) == raw / f"{name}.jsonl" and found["line"] == 500
    assert found["reason"].startswith(BAD_LINES[name][1])
    assert (raw / f"{name}.jsonl").read_bytes()[found["offset"]:].startswith(BAD_LINES[name][0][:40])
    assert [r["text"] for r in rows(out / f"text/{name}.jsonl")] == [good(i, 5) for i in range(1000) if i != 499]
    assert shards(out / name)[0]["documents"] == 999


def test_odd_but_good_lines(corrupted):
    """A byte order mark, Windows line ends and U+2028 within a text cost nothing; the last becomes a line break."""
    kept = [r["text"] for r in rows(corrupted[1] / "text/windows.jsonl")]
    assert kept == [good(i, 5).replace(" ", "\n", i == 3) for i in range(1000)]


def test_the_account_of_corrupted_files(corrupted):
    book = adds_up(corrupted[1])
    assert {name: b["kept"] for name, b in book.items()} == dict.fromkeys(BAD_LINES, 999) | {"windows": 1000}
    assert not any(b["damaged"] for b in book.values())


def packed(kind, lines):
    """(bytes of a damaged file, number of documents that can be read from it)."""
    if kind == "gz":
        whole = gzip.compress(lines)
        cut = whole[:len(whole) // 2]
        return cut, zlib.decompressobj(31).decompress(cut).count(b"\n")
    zstandard = pytest.importorskip("zstandard")
    packer = zstandard.ZstdCompressor()
    half = lines[:lines.index(b"\n", len(lines) // 2) + 1]
    return packer.compress(half) + b"no frame of zstd", half.count(b"\n")


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_damaged_compression(tmp_path, root, token_model, kind):
    """Status 1 and the line of the file, until keep_going says that what could be read is enough."""
    lines = jsonl({"text": good(i)} for i in range(1000)).encode()
    damaged, there = packed(kind, lines)
    write(tmp_path / f"raw/a.jsonl.{kind}", damaged)
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web(path="a.*")], tokenizer=token_model,
                         valid_fraction=0.0, workers=1)
    one_line_error(command(root, *settings), f"a.jsonl.{kind}, line {there + 1}: unreadable from here on",
                   "keep_going=True")
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
    place = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset  # of two
    raw = bytearray(path.read_bytes())
    raw[place + 30:place + 300] = b"\x5a" * 270
    path.write_bytes(raw)


@pytest.mark.parametrize("spoil, least", [(footer, 0), (page, 1024)])
def test_damaged_parquet(tmp_path, prepared, spoil, least):
    """Named; with keep_going another file of the source, and the row groups before the damage, are kept."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "raw/b.jsonl", jsonl({"text": good(i)} for i in range(2000, 2010)))
    table = pyarrow.table({"text": [good(i, 5) for i in range(1500)]})
    parquet.write_table(table, tmp_path / "raw/a.parquet", row_group_size=1024, compression="gzip",
                        use_dictionary=False)
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


def test_a_long_line_costs_little_memory(tmp_path, monkeypatch):
    """Never held whole: at most four times the limit at once (what is held, it with the next block, and what split
    makes of it).
    """
    monkeypatch.setattr(files, "MAX_LINE", 4 << 20)
    write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * (64 << 20) + b'"}\n' + jsonl([{"text": good(1)}]).encode())
    tracemalloc.start()
    try:
        found = [(doc.line, doc.reason) for doc in read.read_documents(tmp_path / "a.jsonl")]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, "line longer than 4 MiB"), (2, None)] and peak < 4 * (4 << 20), peak


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

def goes_on_as_if_new(out, run):
    """The folder out is as a broken run has left it."""
    run()
    left = tree(out)
    shutil.rmtree(out)
    run()
    assert tree(out) == left


def shrink(path):
    os.truncate(path, 1_500_000)


def grow(path):
    with open(path, "ab") as f:
        f.write(b'{"text": "Written too late for this run."}\n')


@pytest.mark.parametrize("change, message",
                         [(shrink, r"a\.jsonl changed while it was read"), (Path.unlink, r"No such file.*a\.jsonl"),
                                             (grow, r"a\.jsonl changed while it was read")])
def test_a_file_that_changes_while_it_is_read(tmp_path, prepared, monkeypatch, change, message):
    """The error names it, nothing of it counts, and the next run is as if it had always been so."""
    raw = tmp_path / "raw/a.jsonl"
    write(raw, jsonl({"text": good(i), "ballast": "x" * 8000} for i in range(300)))  # three times what is read at once
    original = prepare.web_steps

    def steps(c, source):
        count = itertools.count()
        return [lambda doc: change(raw) if next(count) == 100 else None, *original(c, source)]
    with monkeypatch.context() as m, pytest.raises((ValueError, OSError), match=message):
        m.setattr(prepare, "web_steps", steps)
        prepared()
    assert not list((tmp_path / "out").glob("*/index.json")) and not list((tmp_path / "out").rglob("00000.json"))
    if not raw.exists():
        write(raw, jsonl({"text": good(i)} for i in range(50)))
    goes_on_as_if_new(tmp_path / "out", lambda: prepared(keep_going=True))


def full_disk(tmp_path, root, token_model, where):
    """A run whose file at `where` goes to a full disk, the run after it, and an undisturbed one: the first must say
    what failed.
    """
    write(tmp_path / "raw/a.jsonl", jsonl([*({"text": good(i)} for i in range(200)), {"text": "Short."}]))
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web()], tokenizer=token_model,
                         valid_fraction=0.0, workers=1)
    full = tmp_path / "out" / where
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    process = command(root, *settings)
    full.unlink(missing_ok=True)
    return process, settings


PLACES = ["work/web/00000.passed", "work/web/00000.dropped", "work/web/00000.keys", "text/web.jsonl",
          "dropped/web.jsonl", "rejects.jsonl",
          "samples.jsonl", "account.tmp", "work/web/merged.tmp"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("where",
                         [pytest.param(p, marks=[] if i in (0, 3) else pytest.mark.slow) for i, p in enumerate(PLACES)])
def test_no_space_left(tmp_path, root, token_model, where):
    """Status 1 and one line that names the folder; the rerun leaves what an undisturbed run leaves."""
    process, settings = full_disk(tmp_path, root, token_model, where)
    one_line_error(process, "No space left on device", str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*/index.json"))
    goes_on_as_if_new(tmp_path / "out", lambda: prepare.main(settings))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 2_000, 10_000, 20_000, 25_000, 30_000, 60_000])
def test_files_may_not_grow(tmp_path, root, limit):
    """RLIMIT_FSIZE, which stops cleaning, merging, the tokenizer or the shards: whatever is hit first."""
    write(tmp_path / "raw/a.jsonl", jsonl({"text": good(i)} for i in range(200)))
    settings = all_words(tmp_path / "raw", tmp_path / "out", sources=[web()], vocab_size=400, valid_fraction=0.0,
                         workers=1)
    process = command(root, *settings, limit=limit)
    one_line_error(process, "File too large", str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*/index.json"))
    goes_on_as_if_new(tmp_path / "out", lambda: prepare.main(settings))


# ---------------------------------------------------------------------- the options, one by one

def reasons_of(dropped):
    return {r["line"]: r["reason"] for r in dropped}


def test_scripts(tmp_path, prepared):
    """Another script is dropped, a few words of one are not; a language that no table knows is not checked unless
    told.
    """
    other = " ".join("кітап қала өзен базар".split() * 3) + "."
    write(tmp_path / "raw/a.jsonl", jsonl([{"text": good(1)}, {"text": other}, {"text": f"{good(2)} {other[:20]}."}]))
    sources = [web(), web("unknown", language="xx"), web("told", language="sw")]
    _, dropped = prepared(*sources, scripts={"sw": "Latin"})
    assert reasons_of(dropped) == {2: "script: not Latin"} == reasons_of(rows(tmp_path / "out/dropped/told.jsonl"))
    assert len(rows(tmp_path / "out/text/unknown.jsonl")) == 3


@pytest.mark.parametrize("scripts", ["Klingon", 5, "", ["Latin"]])
def test_unusable_scripts(prepared, scripts):
    with pytest.raises(ValueError, match="scripts: "):
        prepared(scripts={"sw": scripts})


def test_a_fasttext_model_by_path(tmp_path, prepared):
    """Its labels are GlotLID's; what is no model, and what is not there, is named."""
    fasttext = pytest.importorskip("fasttext")
    english = [" ".join(random.Random(i).choices("the river house market teacher bread winter green bridge".split(),
                                                 k=12)) for i in range(200)]
    write(tmp_path / "train.txt",
          "".join(f"__label__eng_Latn {a}\n__label__xxx_Latn {good(i)}\n" for i, a in enumerate(english)))
    for _ in range(8):
        try:
            model = fasttext.train_supervised(str(tmp_path / "train.txt"), epoch=30, bucket=100_000, minn=2, maxn=3,
                                              thread=2, verbose=0)
            break
        except RuntimeError:  # "Encountered NaN": by chance, the same call may work the next time
            continue
    else:
        pytest.skip("this build of fastText cannot train: NaN in eight attempts")
    model.save_model(str(tmp_path / "lid.bin"))
    write(tmp_path / "raw/a.jsonl", jsonl([{"text": f"{english[i]}." if i % 2 else good(900 + i)} for i in range(20)]))
    kept, dropped = prepared(langid=str(tmp_path / "lid.bin"), near_dedup=False)
    assert reasons_of(dropped) == dict.fromkeys(range(1, 21, 2), "language: xxx_Latn") and len(kept) == 10
    (tmp_path / "lid.bin").write_bytes(b"no model" * 9)
    for path in (tmp_path / "lid.bin", tmp_path / "none.bin"):
        with pytest.raises((ValueError, OSError), match=path.name):
            prepared(langid=str(path))


def test_wrongly_decoded_text_is_mended(tmp_path, prepared):
    pytest.importorskip("ftfy")
    right = "Déjà vu à la fenêtre du café, où l’été naît après la forêt."
    write(tmp_path / "raw/a.jsonl",
          jsonl([{"text": right.encode().decode("cp1252", "replace").replace("\ufffd", "\xa0")}, {"text": good(1)}]))
    assert prepared()[0][0]["text"] != right
    mended = prepared(fix_encoding=True)[0]
    assert [r["text"] for r in mended] == [right.replace("’", "'"), good(1)]  # ftfy straightens quotation marks


def warc(pages):
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: {}\r\nContent-Length: {}\r\n\r\n"
    bodies = [(kind, url, f"HTTP/1.1 200 OK\r\nContent-Type: {of}\r\n\r\n{body}") for kind, url, of, body in pages]
    return "".join(head.format(kind, url, len(body.encode())) + body + "\r\n\r\n" for kind, url,
                   body in bodies).encode()


def test_pages(tmp_path, prepared):
    """The main text of fetched pages; menus stay behind, other records are none, a cut record is named with its byte.
    """
    pytest.importorskip("trafilatura")
    page = ("<html><body><nav><a href='/'>Home</a></nav><article>{}</article>"
            "<footer>All rights reserved</footer></body></html>")
    texts = [" ".join(good(9 * i + j) for j in range(9)) for i in range(3)]
    pages = [("response", f"https://a.example/{i}", "text/html", page.format(f"<p>{t}</p>")) for i,
             t in enumerate(texts)]
    pages += [("response", "https://casino.example", "text/html", page.format(f"<p>{good(5, 60)}</p>")),
              ("response", "https://a.example/i.png", "image/png", "PNG"), ("request", "https://a.example",
                                                                            "text/html", "GET"),
              ("response", "https://a.example/empty", "text/html", "<html></html>")]
    whole = warc(pages)
    write(tmp_path / "raw/a.warc.gz", gzip.compress(whole))
    kept, dropped = prepared(web(path="a.warc.gz"))
    assert [r["text"] for r in kept] == texts
    assert reasons_of(dropped) == {4: "url: casino", 7: "no text: no main text was found in the page"}
    assert [whole[r["offset"]:][:5] for r in dropped] == [b"WARC/"] * 2
    write(tmp_path / "raw/a.warc", whole[:-60])
    with pytest.raises(ValueError, match=r"a\.warc, line 7: unreadable from here on: record 7 is cut"):
        prepared(web(path="a.warc"))


def shuffled(text, i):
    letters = list(text[:-1])
    random.Random(i).shuffle(letters)
    return "".join(letters).strip() + "."


def test_perplexity(tmp_path, prepared):
    """A model of reference text keeps 99 % of it and drops what is made of its letters in another order."""
    reference = [good(i, 18) for i in range(1000)]
    write(tmp_path / "raw/a.jsonl", jsonl({"text": t} for t in reference))
    prepare.main(["perplexity", "language=en", f"text={tmp_path / 'raw/a.jsonl'}", f"out={tmp_path / 'raw/en.npz'}"])
    write(tmp_path / "raw/b.jsonl", jsonl({"text": shuffled(good(2000 + i, 18), i)} for i in range(50)))
    kept, dropped = prepared(web(path="[ab].jsonl"), perplexity_models={"en": "en.npz"})
    assert {r["reason"] for r in dropped} == {"perplexity: too high"}
    assert sum(r["file"].endswith("a.jsonl") for r in kept) >= 990
    assert sum(r["file"].endswith("b.jsonl") for r in dropped) == 50


@pytest.mark.slow
@pytest.mark.parametrize("code", ["eng", "kaz", "arb", "zho-CN"])
def test_perplexity_of_real_text(root, code):
    """NTREX news, six lines a document: nine tenths of unseen ones of the same articles stay, all with shuffled
    characters go.
    """
    found = sorted((root.parent / "shared/benchmarks/ntrex128").glob(f"*{code}.txt"))
    if not found:
        pytest.skip("no NTREX here")
    lines = found[0].read_text(encoding="utf-8").splitlines()
    texts = ["\n".join(lines[i:i + 6]) for i in range(0, len(lines), 6)]
    seen, unseen = [t for i, t in enumerate(texts) if i % 4], texts[::4]
    model = perplexity.train(seen)
    stay = [perplexity.filter_perplexity(read.Document(t), model) is None for t in unseen]
    broken = [perplexity.filter_perplexity(read.Document(shuffled(t, i)), model) is None for i, t in enumerate(unseen)]
    assert len(stay) > 50 and sum(stay) >= 0.9 * len(stay) and not any(broken)
    assert sum(perplexity.filter_perplexity(read.Document(t), model) is None for t in seen) >= 0.99 * len(seen)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("perplexity") / "en.npz"
    perplexity.save(path, perplexity.train([good(i, 18) for i in range(300)], 1.0))
    return path


SPOILT = {"empty": lambda raw: b"", "cut": lambda raw: raw[:len(raw) // 2], "cut by a byte": lambda raw: raw[:-1],
          "other text": lambda raw: b"hello" * 99,
           "a flipped byte": lambda raw: raw[:len(raw) // 2] + b"\x00\xff" + raw[len(raw) // 2 + 2:]}


@pytest.mark.parametrize("kind", [*SPOILT, "npy", "list", "word", "half", "shares"])
def test_damaged_perplexity_models_are_named(tmp_path, language_model, kind):
    path, table = tmp_path / "en.npz", np.zeros(perplexity.SLOTS, np.uint32)
    about = {"list": "[]", "word": '{"most": "a", "total": 3}', "half": '{"most": 3.0}',
             "shares": '{"most": 3.0, "total": 9}'}
    if kind in SPOILT:
        path.write_bytes(SPOILT[kind](language_model.read_bytes()))
    else:
        with open(path, "wb") as f:
            if kind == "npy":
                np.save(f, table[:9])
            else:
                np.savez_compressed(f, table=table / 2 if kind == "shares" else table, about=about[kind])
    with pytest.raises(ValueError, match="en.npz is no perplexity model"):
        perplexity.load(path)


# ---------------------------------------------------------------------- sentence pairs

PLANTED = range(0, 200, 9)  # lines (from 0) whose sides do not belong together


def pair_source(**more):
    return dict(name="pairs", path="a.tsv", category="parallel", language="en", target="kk") | more


def write_pairs(folder, seed=1):
    """200 pairs with vectors; those PLANTED have vectors of sentences that are not translations."""
    write(folder / "a.tsv", "".join(f"{sentence('en', 37 * i)}\t{sentence('kk', 37 * i)}\n" for i in range(200)))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 32)).astype(np.float32)
    y = x + 0.2 * rng.normal(size=x.shape).astype(np.float32)
    y[list(PLANTED)] = rng.normal(size=(len(PLANTED), 32))
    np.save(folder / "en.npy", x)
    np.save(folder / "kk.npy", y)
    return x, y


def test_scores_tell_planted_misalignments(tmp_path, prepared):
    """They alone are dropped, and stand at the end of the ranked list."""
    write_pairs(tmp_path / "raw")
    kept, dropped = prepared(pair_source(vectors="en.npy|kk.npy", min_score=1.2))
    assert reasons_of(dropped) == {i + 1: "pair: score too low" for i in PLANTED} and len(kept) == 200 - len(PLANTED)
    ranked = [line.split("\t") for line in (tmp_path / "out/ranked/pairs.tsv").read_text(encoding="utf-8").splitlines()]
    scores = [float(score) for score, _, _ in ranked]
    assert len(ranked) == 200 and scores == sorted(scores, reverse=True)
    assert {x for _, x, _ in ranked[-len(PLANTED):]} == {sentence("en", 37 * i) for i in PLANTED}
    adds_up(tmp_path / "out")


@pytest.mark.parametrize("spoil", ["fewer", "more", "differ", "nan", "text"])
def test_vectors_of_other_sentences(tmp_path, prepared, spoil):
    """A table with fewer or more rows than the file has lines was made from another file."""
    x, y = write_pairs(tmp_path / "raw")
    y[3, 3] = np.nan if spoil == "nan" else y[3, 3]
    part = {"fewer": slice(0, 150), "more": [*range(200), 0]}.get(spoil, slice(None))
    np.save(tmp_path / "raw/en.npy", x[part])
    np.save(tmp_path / "raw/kk.npy", y[part] if spoil != "differ" else y[:150])
    if spoil == "text":
        (tmp_path / "raw/kk.npy").write_text("These are no numbers.")
    with pytest.raises(ValueError, match=r"kk\.npy"):
        prepared(pair_source(vectors="en.npy|kk.npy"))
    assert not list((tmp_path / "out").glob("*/index.json"))


@pytest.mark.parametrize("vectors", [{}, dict(vectors="en.npy|kk.npy", min_score=1.2)], ids=["rules", "scores"])
def test_unfiltered_pairs(tmp_path, prepared, vectors):
    """The switch of Figure 7 lets every pair with two sides pass, and changes nothing else."""
    write_pairs(tmp_path / "raw")
    bad = ["Home\tHome", "One.\t" + "Бір екі үш. " * 30, "It was 1914.\tБұл 1815 жыл еді.", "\tЖоқ.", "None.\t",
           "alone",
           f"{sentence('en', 37)}\t{sentence('kk', 74)}", f"{sentence('en', 37)}\t{sentence('kk', 37)}"]
    if not vectors:
        with open(tmp_path / "raw/a.tsv", "a", encoding="utf-8") as f:
            f.write("\n".join(bad) + "\n")
    write(tmp_path / "raw/a.jsonl",
          jsonl([{"text": good(i)} for i in range(30)] + [{"text": "Short."}, {"text": good(1)}]))
    kept, dropped = prepared(pair_source(**vectors), web(), filter_bitext=False)
    others = {k: v for k, v in tree(tmp_path / "out").items() if "/web" in k}
    assert len(kept) == (200 if vectors else 204)
    assert {line: reason.split(":")[0] for line, reason in reasons_of(dropped).items()} == (
        {} if vectors else {204: "pair", 205: "pair", 206: "no pair", 208: "duplicate"})
    adds_up(tmp_path / "out")
    kept, dropped = prepared(pair_source(**vectors), web())
    assert len(kept) == (200 - len(PLANTED) if vectors else 200) and adds_up(tmp_path / "out")
    again = {k: v for k, v in tree(tmp_path / "out").items() if "/web" in k}
    # marks know the settings
    assert all(k.startswith("work") and k.endswith(".json") for k in others if others[k] != again[k])


def test_one_to_one(tmp_path, prepared):
    x, y = ([sentence(code, 37 * i) for i in range(3)] for code in ("en", "kk"))
    pairs = [(x[0], y[0]), (x[0], y[1]), (x[1], y[0]), (x[0], y[0]), (x[1], y[1]), (x[2], y[2])]
    write(tmp_path / "raw/a.tsv", "".join(f"{a}\t{b}\n" for a, b in pairs))
    kept, dropped = prepared(pair_source())
    assert [r["line"] for r in kept] == [1, 5, 6] and set(reasons_of(dropped)) == {2, 3, 4}
    assert reasons_of(dropped)[4] == "duplicate: exact"


# ---------------------------------------------------------------------- what is repeated, shown and counted

# FineWeb-2's table at its edges: found, written
COPIES = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 99: 5, 100: 8, 999: 8, 1000: 1}


def documents_of(folder, t):
    """Counter of the texts in the shards."""
    _, ids = shards(folder)
    return Counter(t.decode(piece[:-1].tolist()) for piece in np.split(ids, np.flatnonzero(ids == t.eot_id) + 1)[:-1])


def test_rehydration(tmp_path, prepared, token_model):
    """As often as the table says, in the shards only; what is held out stands there once, however many copies were
    found.
    """
    texts = [(n, good(100 * n + j, 5)) for n in COPIES for j in range(40 if n < 9 else 1)]
    lines = [{"text": text} for n, text in texts for _ in range(n)]
    random.Random(5).shuffle(lines)
    write(tmp_path / "raw/a.jsonl", jsonl(lines[:1500]))
    write(tmp_path / "raw/b.jsonl", jsonl(lines[1500:]))
    t = tokenizer.load(token_model)
    for rehydrate in (True, False):
        kept, _ = prepared(web(path="[ab].jsonl"), rehydrate=rehydrate, valid_fraction=0.2, near_dedup=False)
        train, valid = documents_of(tmp_path / "out/web", t), documents_of(tmp_path / "out/web-valid", t)
        assert {r["text"]: r.get("copies", 1) for r in kept} == {text: n for n, text in texts}
        assert 20 < len(valid) == sum(valid.values()) and not set(train) & set(valid)
        assert train == {text: COPIES[n] if rehydrate else 1 for n, text in texts if text not in valid}
        tokens = adds_up(tmp_path / "out")["web"]["tokens"]
        assert tokens == {"train": len(shards(tmp_path / "out/web")[1]),
                          "valid": len(shards(tmp_path / "out/web-valid")[1])}


# ---------------------------------------------------------------------- all of it, killed, shared and shuffled

def everything(folder, language_model, token_model, seed=0):
    """Raw files with every new feature on, created in an order of the seed's, and the settings for them."""
    raw = folder / "raw"
    texts = [good(i, 18) for i in range(160)]  # the model has seen them
    files = {f"web/{i}.jsonl": [{"text": t, "url": f"https://a.example/{i}"} for t in texts[20 * i:20 * i + 20]]
             for i in range(8)}
    for i, file in enumerate(files.values()):
        file += [{"text": texts[i]}, {"text": texts[0]}, {"text": "Short."}, {"text": shuffled(good(500 + i, 18), i)},
                 {"body": "x"},
                 {"text": texts[3 * i],
                  "url": "https://casino.example"}, {"text": "кітап қала өзен базар кітап."}, {"text": good(900, 18)}]
    order = sorted(files)
    random.Random(seed).shuffle(order)
    for name in order:
        write(raw / name, jsonl(files[name]))
    write(raw / "test.jsonl", jsonl([{"question": good(900, 18)}]))
    shutil.copy(language_model, raw / "en.npz")
    write_pairs(raw)
    sources = [web(path="web/*.jsonl", licence="CC0"), pair_source(vectors="en.npy|kk.npy", min_score=1.2)]
    return dict(sources=sources, tokenizer=token_model, perplexity_models={"en": "en.npz"}, rehydrate=True,
                valid_fraction=0.1, blocked_url_words=["casino"],
                evaluation=["test.jsonl"])


def results(out):
    """What a run leaves, but for words that processes said to each other."""
    return {k: v for k, v in tree(out).items() if k.split("/")[-1].split("-")[0] not in ("go", "hello", "alive")}


REASONS = {"duplicate: exact": 16, "chars: too low": 8, "perplexity: too high": 8, "url: casino": 8,
           "script: not Latin": 8,
           "evaluation: test.jsonl": 8,
           "no text: the row is not an object with a string in 'text' or 'content'; its fields are body": 8}


def test_all_at_once_with_any_workers_and_file_order(tmp_path, language_model, token_model):
    """Every reason is counted, samples are five of each, and neither workers nor the order of creation change a byte.
    """
    found, raw = [], tmp_path / "raw"
    for seed, workers in enumerate((1, 2, 7)):
        if raw.exists():
            shutil.rmtree(raw)
        settings = everything(tmp_path, language_model, token_model, seed)
        prepare.main(all_words(raw, tmp_path / "out", workers=workers, **settings))
        book = adds_up(tmp_path / "out")
        found.append({k: v for k, v in tree(tmp_path / "out").items() if not (k[:4] == "work" and k[-5:] == ".json")})
        shutil.rmtree(tmp_path / "out")  # the marks hold the times of the raw files
    assert book["web"]["dropped"] == REASONS and book["pairs"]["dropped"] == {"pair: score too low": len(PLANTED)}
    assert book["web"]["licence"] == "CC0" and book["web"]["kept"] == 160
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_two_ranks(tmp_path, root, language_model, token_model):
    settings = everything(tmp_path, language_model, token_model)
    prepare.main(all_words(tmp_path / "raw", tmp_path / "out", **settings))
    wanted = results(tmp_path / "out")
    for fresh in (False, True):
        if fresh:
            shutil.rmtree(tmp_path / "out")
        words = all_words(tmp_path / "raw", tmp_path / "out", **settings)
        ranks = [subprocess.Popen([sys.executable, str(root / "prepare.py"), *words],
                                  env=os.environ | {"RANK": str(r), "WORLD_SIZE": "2"})
                 for r in (1, 0)]
        assert [p.wait(RAN) for p in ranks] == [0, 0]
        assert results(tmp_path / "out") == wanted


KILLER = """
import builtins, os, signal
original, replace = builtins.open, os.replace
def count(path):
    if os.environ["OUT"] in str(path):
        tally = os.open(os.environ["TALLY"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(tally, b".")
        if os.fstat(tally).st_size >= int(os.environ["AT"]):  # two at once may both pass it
            os.killpg(0, signal.SIGKILL)
        os.close(tally)
def opened(path, mode="r", *args, **more):
    if "w" in mode:
        count(path)
    return original(path, mode, *args, **more)
def replaced(a, b, *args, **more):
    count(b)
    return replace(a, b, *args, **more)
builtins.open, os.replace = opened, replaced
"""


@pytest.mark.slow
def test_killed_at_every_third_write(tmp_path, root, language_model, token_model):
    """SIGKILL of all processes as the n-th file is opened for writing or put in its place, in every stage."""
    settings = everything(tmp_path, language_model, token_model)
    words = all_words(tmp_path / "raw", tmp_path / "out", **settings)
    prepare.main(words)
    wanted = results(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    write(tmp_path / "site/sitecustomize.py", KILLER)
    for at in itertools.count(1, 3):
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OUT": str(tmp_path / "out"), "AT": str(at),
                                    "TALLY": str(tmp_path / f"tally-{at}")}
        process = subprocess.run([sys.executable, str(root / "prepare.py"), *words], env=environment,
                                 start_new_session=True,
                                 capture_output=True, timeout=RAN)
        if process.returncode == 0:
            break  # no more writes than these
        assert process.returncode == -signal.SIGKILL, process.stderr
        if at % 2:  # every other time the run goes on from what the last two kills left
            prepare.main(words)
            assert results(tmp_path / "out") == wanted, at
            shutil.rmtree(tmp_path / "out")
    assert at > 40 and results(tmp_path / "out") == wanted


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path, root, language_model, token_model):
    """The same by the clock, each run going on from what the last left."""
    words = all_words(tmp_path / "raw", tmp_path / "out", **everything(tmp_path, language_model, token_model))
    prepare.main(words)
    wanted, rng = results(tmp_path / "out"), random.Random(4)
    for i in range(20):
        if i % 4 == 0:
            shutil.rmtree(tmp_path / "out")
        process = subprocess.Popen([sys.executable, str(root / "prepare.py"), *words], start_new_session=True,
                                   stdout=subprocess.DEVNULL)
        time.sleep(0.3 + 1.2 * rng.random())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if i % 4 == 3:
            prepare.main(words)
            assert results(tmp_path / "out") == wanted
