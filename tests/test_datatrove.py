"""recipes/datatrove_steps.py beside prepare.py on the same files: the same verdict for every document, the same text.

datatrove's MinHash may keep another document of a cluster than prepare.py, and it joins more; both are counted.
"""
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_prepare import NAMES, SOURCES, raw, rows, words  # noqa: F401

import prepare
from configs import load
from corpus import clean, dedup
from tinyworld import __main__ as tinyworld

pytest.importorskip("datatrove")
pytest.importorskip("orjson")
from datatrove.data import Document

from recipes import datatrove_steps as recipe

CODES = ["en", "kk", "th"]


def verdicts(out, name):
    """{(file, line): (reason to drop it or None, text)} of a source, by what prepare.py wrote."""
    return {(r["file"], r["line"]): (r.get("reason"), r["text"])
            for folder in ("text", "dropped") for r in rows(out / folder / f"{name}.jsonl")}


def datatrove_verdicts(out, name):
    """The same, by what datatrove wrote."""
    found = {}
    for path in [*(out / "kept" / name).glob("*.jsonl"), *(out / "dropped" / name).glob("*/*.jsonl")]:
        kept = path.parts[-3] == "kept"
        for r in rows(path):
            place = r["file"], r["line"]
            assert place not in found, f"{place} is in two files"
            found[place] = (None if kept else r.get("filter_reason", "duplicate"), r.get("text", ""))
    return found


def is_duplicate(reason):
    return str(reason).startswith("duplicate")


@pytest.fixture(scope="module")
def small(raw, tmp_path_factory):
    """(prepare.py's output, datatrove's) for the sources of test_prepare: text, pairs and knowledge, damaged rows."""
    base = tmp_path_factory.mktemp("beside")
    prepare.main(words(raw, base / "ours"))
    recipe.main([*words(raw, base / "theirs", workers=1), "tasks=3"])
    return base / "ours", base / "theirs"


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s["name"])
def test_every_document_gets_the_verdict_of_prepare(small, source):
    ours, theirs = verdicts(small[0], source["name"]), datatrove_verdicts(small[1], source["name"])
    assert ours.keys() == theirs.keys() and len(ours) >= 30
    for place, (reason, text) in ours.items():
        other, other_text = theirs[place]
        if is_duplicate(reason):
            assert other == "duplicate", place
        else:
            assert other == reason, place
            if reason is None and "target" not in source:
                assert other_text == text


def test_kept_pairs_keep_their_sides(small, raw):
    """prepare.py fills its templates with them later."""
    lines = (raw / "bitext/en-kk.tsv").read_text(encoding="utf-8").split("\n")
    kept = [r for path in (small[1] / "kept/bitext-en-kk").glob("*.jsonl") for r in rows(path)]
    assert len(kept) == 48 and all(f"{r['text']}\t{r['target']}" == lines[r["line"] - 1] for r in kept)


def test_kept_files_are_sources_of_prepare(small, tmp_path):
    """What the docstring says: token shards of what datatrove kept, without a second filter."""
    kept = small[1] / "kept"
    sources = [dict(name="web-en", path="web-en/*.jsonl", category="high", language="en", clean=True),
               dict(name="pairs", path="bitext-en-kk/*.jsonl", category="parallel", language="en", target="kk")]
    prepare.main(words(kept, tmp_path / "out", sources=sources, filter_bitext=False, workers=1))
    account = json.loads((tmp_path / "out/account.json").read_text())
    counts = {name: sum(1 for path in (kept / name).glob("*.jsonl") for _ in path.open())
              for name in ("web-en", "bitext-en-kk")}
    assert account["web-en"]["kept"] == counts["web-en"] and account["pairs"]["kept"] == counts["bitext-en-kk"]


@pytest.mark.slow
def test_a_world_with_junk_and_near_duplicates(tmp_path):
    """All steps with the identifier, in two processes: reasons equal; of a cluster one document stays in both."""
    pytest.importorskip("py3langid")
    tinyworld.main([f"out={tmp_path / 'raw'}", f"languages={['zh', *CODES]}", "junk=0.3", "pairs=40", "knowledge=20",
                    "web={'en': 300, 'zh': 20, 'high': 20, 'low': 300}", "synthetic=20", "items=8", "test=8"])
    sources = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category="web", language=k) for k in CODES]
    argv = words(tmp_path / "raw", "{}", sources=sources, langid=True,
                 language_names=NAMES | {"zh": "Chinese", "id": "Indonesian"})
    ours, theirs = ([word.format(tmp_path / name) if word.startswith("out=") else word for word in argv]
                    for name in ("ours", "theirs"))
    prepare.main(ours)
    subprocess.run([sys.executable, "recipes/datatrove_steps.py", *theirs, "tasks=2"], check=True,
                   cwd=Path(recipe.__file__).parent.parent, capture_output=True)
    reasons, near = set(), 0
    for name in (s["name"] for s in sources):
        a, b = verdicts(tmp_path / "ours", name), datatrove_verdicts(tmp_path / "theirs", name)
        assert a.keys() == b.keys()
        near += sum(is_duplicate(reason) for reason, _ in a.values())
        reasons |= {reason.split(":")[0] for reason, _ in a.values() if reason}
        passed = {place for place, (reason, _) in a.items() if reason is None or is_duplicate(reason)}
        assert {p: r for p, (r, _) in a.items() if p not in passed} == {p: r for p, (r, _) in b.items()
                                                                      if p not in passed}
        assert all(b[p][0] in (None, "duplicate") for p in passed)
        kept = [sum(verdict[p][0] is None for p in passed) for verdict in (a, b)]
        assert 0.98 * kept[0] <= kept[1] <= kept[0], "datatrove joins what prepare.py joins, and little more"
    assert near > 40 and reasons >= {"url", "script", "full_stops", "symbols", "duplicate"}, (near, reasons)


# ---------------------------------------------------------------------- blocks

def test_a_step_alone_in_a_pipeline(tmp_path):
    """Any function of corpus/clean.py is a filter of datatrove; what it changes is in the document it passes on."""
    documents = [Document("one\r\ntwo", "a", metadata={"url": "https://a.example"}),
                 Document("three", "b", metadata={"u": "https://casino.example"})]
    repair = recipe.Step(lambda: clean.repair, "repair")
    url = recipe.Step(lambda: lambda doc: clean.filter_url(doc, ["casino"]), "url")
    kept = list(url(repair(documents)))
    assert [doc.text for doc in kept] == ["one\ntwo"] and url.stats["dropped_url: casino"].total == 1


def test_blocks_travel(raw):
    """Executors pickle the pipeline; the models that the steps hold are loaded where they run."""
    c, = load(prepare.Prepare, argv=words(raw, "out", langid=True))
    sent = recipe.blocks(c, SOURCES[0])[1:]
    assert [block.name for block in sent] == ["url", "repair", "script", "language", "heuristics", "mask"]
    assert all(len(pickle.dumps(block)) < 10_000 for block in sent)
    documents = [Document("Words of a language in letters of a Latin script, one sentence.", "a")]
    for block in pickle.loads(pickle.dumps(sent)):
        documents = block(documents)
    assert len(list(documents)) == 1


def test_signatures_are_those_of_prepare(tmp_path):
    """datatrove's first stage writes our 112 values: 14 buckets of rows of 8, sorted, with the document's number."""
    texts = [f"the {word} goes to the market and buys bread for all of the family" for word in ("man", "woman")]
    block = recipe.Signatures(str(tmp_path))
    block.run([Document(text, str(i)) for i, text in enumerate(texts)])
    for bucket in range(dedup.BANDS):
        found = np.fromfile(tmp_path / f"bucket_{bucket:03}/00000.minhash.sig", np.uint32).reshape(2, 9)
        for row in found:
            assert (row[:8] == dedup.signature(texts[row[8]])[8 * bucket:8 * bucket + 8]).all()


# ---------------------------------------------------------------------- misuse

def test_another_run_in_the_folder_is_refused(small, raw, tmp_path):
    """datatrove skips finished tasks: with other settings they would be skipped as well."""
    with pytest.raises(ValueError, match="other settings"):
        recipe.main([*words(raw, small[1], workers=1, blocked_url_words=[]), "tasks=3"])
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="did not make"):
        recipe.main([*words(raw, tmp_path, workers=1), "tasks=3"])


def test_a_finished_run_is_read_again(small, raw, capsys):
    recipe.main([*words(raw, small[1], workers=1), "tasks=3"])
    assert "web-en: 64 read, 56 kept; dropped: " in capsys.readouterr().out


@pytest.mark.parametrize("more, problem", [
    (dict(sources=[SOURCES[0] | {"kind": "chat"}], template="chatml"), "chats, and pairs with vectors"),
    (dict(sources=[SOURCES[0] | {"path": "web/none*"}]), "nothing at"),
    (dict(thresholds={"*": {"chars": (10_000, 20_000)}}), "nothing left of web-en")])
def test_misuse_is_one_clear_line(raw, tmp_path, more, problem):
    with pytest.raises(ValueError, match=problem):
        recipe.main([*words(raw, tmp_path / "out", workers=1, **({"sources": SOURCES[:1]} | more)), "tasks=1"])


def test_a_damaged_file_is_reported(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web/en.jsonl.gz").write_bytes(os.urandom(100))
    sources = [dict(name="web-en", path="web/en.jsonl.gz", category="high", language="en")]
    with pytest.raises(ValueError, match="damaged files.*web-en"):
        recipe.main([*words(tmp_path, tmp_path / "out", sources=sources, workers=1), "tasks=1"])
