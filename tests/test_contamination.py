"""recipes/contamination.py: planted items are found in every source and place, others are not; equal to a naive
search."""
import json
import random

import numpy as np
import pytest

import tokenizer
from recipes import contamination

WORDS = ("sun moon river stone bread water light stair cloud green seven north glass paper metal quiet wheel tiger "
         "lemon frost").split()


def sentence(r, n):
    return " ".join(r.choice(WORDS) for _ in range(n)).capitalize() + "."


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_source):
    """A tokenizer, two sources of shards, and evaluation texts: whole in a shard, half in one, behind a space, at the
    very end of a shard, nowhere; a short one."""
    folder, r = tmp_path_factory.mktemp("contamination"), random.Random(0)
    tokenizer.train([sentence(r, 12) for _ in range(200)] + ["Күн мен ай өзен бойында."] * 9, 400, folder / "tokenizer")
    t = tokenizer.load(folder / "tokenizer")
    texts = {name: sentence(r, 30) for name in ("whole", "half", "spaced", "last", "nowhere")} | {"short": "Sun moon."}
    half = " ".join(texts["half"].split()[:14]) + " " + sentence(r, 20)
    documents = [sentence(r, 50) for _ in range(40)]
    documents[7:7] = [sentence(r, 9) + "\n" + texts["whole"] + "\n" + sentence(r, 9), half]
    documents += [texts["spaced"].join((sentence(r, 5) + " ", " " + sentence(r, 5))), texts["last"]]
    for name, some in (("one", documents[:20]), ("two", documents[20:])):
        write_source(folder / "tokens" / name, [t.encode(x) for x in some], name=name, language=name, per_shard=9,
                     eot=t.eot_id,
                     vocab_size=t.vocab_size, tokenizer=t.fingerprint)
    return folder, t, texts, documents


def run(capsys, made, eval, *more):
    """({file name: cells of its line}, the rows that are written) of a run."""
    out = made[0] / "found.jsonl"
    out.unlink(missing_ok=True)
    contamination.main([f"data={made[0]}/tokens", f"eval={eval}", f"tokenizer={made[0]}/tokenizer", f"out={out}",
                        "threads=2",
                        *more])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[0].rsplit("/", 1)[-1]: line[1:] for line in printed if line and line[0].startswith("/")}, \
        {row["row"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("block", [1 << 20, 64, 27])  # all at once, and windows that lie across two blocks
def test_what_is_planted_is_found(made, tmp_path, capsys, block):
    names = ["whole", "half", "spaced", "last", "nowhere", "short"]
    file = write(tmp_path / "e.jsonl", [{"id": made[2]["whole"], "question": made[2][k], "options": ["Yes."]}
                                        for k in names])
    table, rows = run(capsys, made, file, f"block={block}")
    n, short, some, seen, percent, share = table["e.jsonl"]
    assert (n, short, some, seen, percent) == ("6", "1", "4", "3", "60.0") and set(rows) == {1, 2, 3, 4}
    assert rows[1]["share"] == rows[4]["share"] == 1 and rows[3]["share"] > 0.95
    ids = made[1].encode(made[2]["half"])
    first = len(made[1].encode(" ".join(made[2]["half"].split()[:14])))
    assert rows[2]["share"] == pytest.approx((first - 12) / (len(ids) - 12), abs=0.05) and rows[2]["share"] < 0.5
    assert rows[2]["sample"] in made[2]["half"] and len(made[1].encode(rows[2]["sample"])) in (12, 13, 14)
    assert float(share) == pytest.approx(20 * sum(row["share"] for row in rows.values()), abs=0.06)


def test_equal_to_a_naive_search(made, tmp_path, capsys):
    """All runs of random pieces of the corpus and of foreign text, by comparing tuples."""
    _, t, _, documents = made
    r, known = random.Random(4), set()
    for x in documents:
        ids = t.encode(x)
        known |= {tuple(ids[i:i + 13]) for i in range(len(ids) - 12)}
    texts = [sentence(r, 15) for _ in range(20)]
    texts += [" ".join(x.split()[k:k + 16]) + " " + sentence(r, 6) for k, x in enumerate(documents[:30])]
    expected = {}
    for i, x in enumerate(texts, 1):
        both = []
        for ids in (t.encode(x), t.encode(" " + x)):
            runs = [tuple(ids[k:k + 13]) for k in range(len(ids) - 12)]
            both.append(sum(run in known for run in runs) / len(runs))
        expected |= {i: max(both)} if max(both) else {}
    assert 25 <= len(expected) < 50
    (tmp_path / "e.txt").write_text("\n".join(texts) + "\n")
    assert {i: row["share"] for i, row in run(capsys, made, tmp_path / "e.txt")[1].items()} == pytest.approx(expected)


def test_formats_fields_and_patterns(made, tmp_path, capsys):
    text, other = made[2]["whole"], made[2]["nowhere"]
    (tmp_path / "a.csv").write_text(f'question,A\n"{text}",x\n"{other}",x\n')
    (tmp_path / "b.tsv").write_text(f"question\tlink\n{other}\t{text}\n")
    write(tmp_path / "c.jsonl", [{"turns": [other, text], "meta": {"url": text}}, {"passage": other, "question": text}])
    table, _ = run(capsys, made, f"{tmp_path}/*sv,{tmp_path}/c.jsonl")
    assert table["a.csv"][:4] == ["2", "0", "1", "1"] and table["b.tsv"][:4] == ["1", "0", "0", "0"]
    assert table["c.jsonl"][:4] == ["2", "0", "2", "2"]
    assert run(capsys, made, f"{tmp_path}/c.jsonl", "fields=['passage']")[0]["c.jsonl"] == ["2", "1", "0", "0", "0.0",
                                                                                            "0.0"]
    assert run(capsys, made, f"{tmp_path}/b.tsv", "fields=['link']")[0]["b.tsv"][3] == "1"


def test_other_lengths(made, tmp_path, capsys):
    file = write(tmp_path / "e.jsonl", [{"q": made[2]["short"]}, {"q": made[2]["nowhere"]}])
    assert run(capsys, made, file, "n=2")[0]["e.jsonl"][:2] == ["2", "0"]
    assert run(capsys, made, file, "n=20", "seen=0.1")[0]["e.jsonl"][2] == "0"


def test_held_out_documents_are_not_searched(made, write_source, tmp_path, capsys):
    """Only what is trained on counts: a source whose split is valid is left out."""
    text = made[2]["nowhere"]
    held = write_source(made[0] / "tokens" / "one-valid", [made[1].encode(text)], split="valid", eot=made[1].eot_id,
                        vocab_size=made[1].vocab_size, tokenizer=made[1].fingerprint)
    try:
        assert run(capsys, made, write(tmp_path / "e.jsonl", [{"q": text}]))[0]["e.jsonl"][2] == "0"
    finally:
        for path in [*held.iterdir(), held]:
            path.unlink() if path.is_file() else path.rmdir()


def test_what_cannot_be_searched(made, tmp_path, capsys):
    with pytest.raises(ValueError, match="no such file; correct the pattern"):
        run(capsys, made, tmp_path / "nothing.jsonl")
    with pytest.raises(ValueError, match="no text has 13 tokens"):
        run(capsys, made, write(tmp_path / "e.jsonl", [{"q": "Sun."}]))
    with pytest.raises(ValueError, match="e.xml: unknown format"):
        (tmp_path / "e.xml").write_text("<a/>")
        run(capsys, made, tmp_path / "e.xml")
    other = tmp_path / "tokenizer"
    r = random.Random(1)
    tokenizer.train([sentence(r, 12) for _ in range(300)], 350, other)
    with pytest.raises(ValueError, match="was made with tokenizer .* set tokenizer= to that of the shards"):
        contamination.main([f"data={made[0]}/tokens", f"eval={tmp_path}/e.jsonl", f"tokenizer={other}"])
    for word in ("n=1", "seen=0.0", "block=20", "threads=0"):
        with pytest.raises(ValueError, match="n must be at least 2"):
            run(capsys, made, tmp_path / "e.jsonl", word)


def test_hashes_of_equal_runs_only_are_equal():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 150_000, 200_000).astype(np.uint64)
    assert len(np.unique(contamination.measure.ngram_keys(ids, 13))) == len(ids) - 12
