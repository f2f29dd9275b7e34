"""Shards, mixture, schedule and packing: what is read, how often, in which order, and what is refused."""
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch

from data import (
    IGNORE,
    PERIOD,
    Schedule,
    Source,
    best_fit,
    collate,
    mixture_weights,
    open_sources,
    pack_text,
    permute,
    validation_batches,
)

EOT = 0


def documents(count, seed=0, longest=30):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 64, int(rng.integers(1, longest))).tolist() for _ in range(count)]


def flat(docs):
    return np.array([x for d in docs for x in [*d, EOT]])


def numbered(n):
    """One document of n tokens, end id included, each of which is its own position: 1, 2, ..., n - 1, 0."""
    return [list(range(1, n))]


@pytest.fixture
def source(tmp_path, write_source):
    """A function: sources from [(category, language, tokens)], named s00, s01, ..."""
    def make(*wanted):
        for i, (category, language, tokens) in enumerate(wanted):
            write_source(tmp_path / f"s{i:02}", numbered(tokens), category=category, language=language,
                         vocab_size=65000)
        return open_sources(tmp_path)
    return make


# ---------------------------------------------------------------------- reading

@pytest.mark.parametrize("per_shard", [1, 2, 3, 100])
def test_reading_crosses_shards_and_wraps_around(tmp_path, write_source, per_shard):
    docs = [[5] * n for n in (4, 1, 7)] + [[6, 7, 8], [9]]
    s = Source(write_source(tmp_path / "a", docs, per_shard=per_shard))
    whole = flat(docs)
    assert s.tokens == len(whole) and len(s.shards) == -(-5 // per_shard)
    for begin in range(2 * len(whole) + 1):
        for count in (0, 1, 2, 9, len(whole), 3 * len(whole) + 2):
            got = s.read(begin, count)
            assert got.dtype == np.int64 and np.array_equal(got, whole.take(range(begin, begin + count), mode="wrap"))


def test_wide_ids(tmp_path, write_source):
    s = Source(write_source(tmp_path / "a", [[151645, 70000, 3]], dtype="uint32", vocab_size=151646, eot=151643))
    assert s.read(0, 5).tolist() == [151645, 70000, 3, 151643, 151645]


def test_sources_of_a_split(token_data):
    assert [s.name for s in open_sources(token_data)] == ["en", "kk", "zh"]
    assert [s.name for s in open_sources(token_data, "valid")] == ["en-valid"]


def test_no_held_out_source_is_allowed(source, tmp_path):
    source(("en", "en", 10))
    assert open_sources(tmp_path, "valid") == []


# ---------------------------------------------------------------------- what is refused

def refused(match, call, *args):
    with pytest.raises(ValueError) as e:
        call(*args)
    for word in match if isinstance(match, tuple) else (match,):
        assert str(word) in str(e.value)


def test_missing_folder(tmp_path):
    refused(("nowhere", "prepare.py", "data="), open_sources, tmp_path / "nowhere")


def test_folder_without_shards(tmp_path):
    refused((tmp_path, "prepare.py"), open_sources, tmp_path)


def test_no_index(tmp_path, write_source):
    folder = write_source(tmp_path / "a", documents(3))
    (folder / "index.json").unlink()
    refused((folder, "index.json"), Source, folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "a"}', "null", '{"name": "\udce3"}'])
def test_index_that_is_none(tmp_path, write_source, text):
    folder = write_source(tmp_path / "a", documents(3))
    (folder / "index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused((folder / "index.json", "prepare.py"), Source, folder)


FIELDS = ["name", "category", "language", "split", "dtype", "eot", "vocab_size", "tokenizer", "shards"]


@pytest.mark.parametrize("of_shard, fields", [(False, FIELDS), (True, ["file", "tokens", "bytes", "sha256"])])
def test_index_without_a_field(tmp_path, write_source, of_shard, fields):
    folder = write_source(tmp_path / "a", documents(3))
    whole = (folder / "index.json").read_text()
    for field in fields:
        index = json.loads(whole)
        del (index["shards"][0] if of_shard else index)[field]
        (folder / "index.json").write_text(json.dumps(index))
        refused((folder / "index.json", field), open_sources, tmp_path)


@pytest.mark.parametrize("change, needle", [
    (dict(dtype="float32"), "float32"), (dict(dtype="int16"), "int16"), (dict(dtype=">u2"), ">u2"),
    (dict(dtype=["u"]), "u"), (dict(kind="chats"), "chats"), (dict(eot=64), "eot 64"), (dict(eot="0"), "eot"),
    (dict(eot=-1), "eot"),
    (dict(vocab_size=0), "of 0 ids"), (dict(vocab_size=True), "vocab_size"), (dict(shards={}), "index.json")])
def test_index_with_other_values(tmp_path, write_source, change, needle):
    folder = write_source(tmp_path / "a", documents(3))
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | change))
    refused((folder / "index.json", needle, "prepare.py"), Source, folder)


def test_ids_outside_the_vocabulary(tmp_path, write_source):
    """Named with file and place, when the shards are verified and when such a token is read."""
    docs = documents(9)
    docs[4][0] = 77
    s = Source(write_source(tmp_path / "a", docs, per_shard=3))
    place = len(flat(docs[3:4]))
    needles = (tmp_path / "a/shard-00001.bin", f"token {place} is id 77", "vocab_size=64")
    refused(needles, s.verify)
    begin = len(flat(docs[:4]))
    assert len(s.read(0, begin)) == begin
    refused(needles, s.read, begin - 1, 2)
    refused(needles, Schedule([s], {"en": 1}, 1, 200, 0).batch, 0, [0])


@pytest.mark.parametrize("damage", ["truncated", "longer", "missing"])
def test_shard_of_another_size(tmp_path, write_source, damage):
    folder = write_source(tmp_path / "a", documents(9), per_shard=3)
    file = folder / "shard-00001.bin"
    raw = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(raw[:-1] if damage == "truncated" else raw + b"\0\0")
    refused((file, len(raw), "prepare.py"), Source, folder)


def test_flipped_byte(tmp_path, write_source):
    folder = write_source(tmp_path / "a", documents(9), per_shard=3)
    Source(folder).verify()
    file = folder / "shard-00002.bin"
    raw = bytearray(file.read_bytes())
    raw[3] ^= 1
    file.write_bytes(raw)
    refused((file, "SHA-256"), Source(folder).verify)


def test_empty_source(tmp_path, write_source):
    refused((tmp_path / "a", "no tokens"), Source, write_source(tmp_path / "a", []))


def test_mixed_tokenizers(tmp_path, write_source):
    write_source(tmp_path / "a", documents(3), tokenizer="aaaa")
    write_source(tmp_path / "b", documents(3), tokenizer="bbbb")
    refused(("aaaa", "bbbb", "prepare"), open_sources, tmp_path)


def test_unknown_category(source):
    sources = source(("en", "en", 10), ("low", "kk", 10), ("low", "ne", 10))
    refused(("lwo", "en (en)", "low (kk ne)"), mixture_weights, sources, {"en": 1, "lwo": 2})
    refused("low/xx", mixture_weights, sources, {"en": 1, "low/xx": 2})
    refused("zh/zh", mixture_weights, sources, {"zh/zh": 2})


# ---------------------------------------------------------------------- mixture

def test_shares(source):
    sources = source(("en", "en", 30), ("en", "en", 10), ("low", "kk", 10), ("low", "ne", 90), ("zh", "zh", 50))
    expected = [0.75 * 0.75, 0.25 * 0.75, 0.125, 0.125, 0]
    assert mixture_weights(sources, {"en": 6, "low": 2}).tolist() == pytest.approx(expected)


def test_categories_without_a_share_are_noted(source, capsys):
    mixture_weights(source(("en", "en", 30), ("zh", "zh", 50)), {"en": 1})
    assert "zh" in capsys.readouterr().err


def test_a_language_with_its_own_share(source):
    sources = source(("low", "kk", 10), ("low", "kk", 30), ("low", "ne", 90), ("low", "az", 5), ("en", "en", 10))
    expected = [0.05, 0.15, 0.2, 0.2, 0.4]
    assert mixture_weights(sources, {"low": 4, "low/kk": 2, "en": 4}).tolist() == pytest.approx(expected)
    assert mixture_weights(sources, {"low/kk": 1, "en": 1}).tolist() == pytest.approx([0.125, 0.375, 0, 0, 0.5])
    assert mixture_weights(sources, {"low": 1, "low/kk": 0}).tolist() == pytest.approx([0, 0, 0.5, 0.5, 0])


def test_a_share_that_no_language_can_take(source):
    """Every language of the category has a share of its own, so the category's must be refused, or spread."""
    sources = source(("low", "kk", 10), ("low", "ne", 10), ("en", "en", 10))
    mixture = {"en": 5, "low": 3, "low/kk": 1, "low/ne": 1}
    try:
        got = mixture_weights(sources, mixture)
    except ValueError as e:
        assert "low" in str(e)
    else:
        assert got.sum() == pytest.approx(1), "shares do not sum to 1"
        Schedule(sources, mixture, 2, 4, 0)


# ---------------------------------------------------------------------- the schedule

MIXED = [("en", "en", 400), ("zh", "zh", 130), ("low", "kk", 37), ("low", "ne", 64), ("low", "az", 9),
         ("parallel", "en-zh", 200)]
MIXTURE = {"en": 50, "zh": 29, "low": 12, "low/kk": 0.5, "parallel": 3}


def test_the_schedule_is_a_pure_function(source):
    sources = source(*MIXED)
    schedule = Schedule(sources, MIXTURE, batch_size=6, seq_len=8, seed=7)
    wanted = {(step, r): schedule.locate(step, r) for step in range(60) for r in range(6)}
    other, calls = Schedule(sources, MIXTURE, 6, 8, 7), list(wanted) * 2
    random.Random(0).shuffle(calls)
    assert all(other.locate(*call) == wanted[call] for call in calls)
    late = schedule.batch(10 ** 6, range(6))
    schedule.batch(3, range(6))
    assert all(torch.equal(a, b) for a, b in zip(late[:3], other.batch(10 ** 6, range(6))[:3]))


def test_another_seed_is_another_order(source):
    sources = source(*MIXED)
    a, b = (Schedule(sources, MIXTURE, 4, 8, seed) for seed in (0, 1))
    places = [(step, r) for step in range(50) for r in range(4)]
    assert [a.locate(*p) for p in places] != [b.locate(*p) for p in places]


def test_rows_hold_what_the_schedule_says(source):
    sources = source(*MIXED)
    schedule = Schedule(sources, MIXTURE, 4, 8, 0)
    for step in range(20):
        tokens, targets, starts = schedule.batch(step, range(4))[:3]
        assert tokens.shape == targets.shape == starts.shape == (4, 8)
        assert tokens.dtype == targets.dtype == starts.dtype == torch.int64
        for b in range(4):
            i, at = schedule.locate(step, b)
            assert torch.cat([tokens[b, :1], targets[b]]).tolist() == sources[i].read(at, 9).tolist()


@pytest.mark.parametrize("kinds, mixture", [
    ([("a", "x", 100), ("b", "x", 100)], {"a": 1, "b": 1}),
    ([("a", "x", 100), ("b", "x", 100)], {"a": 999, "b": 1}),
    ([("a", "x", 100), ("b", "x", 100), ("c", "x", 100)], {"a": 1, "b": 1, "c": 1}),
    (MIXED, MIXTURE),
    ([("en", "en", 100)] + [("low", f"l{i}", 20) for i in range(28)], {"en": 60, "low": 40}),
    ([(c, f"l{i}", 20) for c in ("web", "know", "bitext") for i in range(29)], {"web": 70, "know": 10, "bitext": 20}),
])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_prefix_keeps_the_shares(source, kinds, mixture, seed):
    schedule = Schedule(source(*kinds), mixture, 1, 4, seed)
    assert len(schedule.order) == PERIOD and schedule.weights.sum() == pytest.approx(1)
    share = np.bincount(schedule.order, minlength=len(schedule.weights)) / PERIOD
    assert np.abs(share - schedule.weights).max() < 1 / PERIOD
    for i, w in enumerate(share):
        error = np.abs(np.cumsum(schedule.order == i) - w * np.arange(1, PERIOD + 1)).max()
        assert error <= 1.5, f"source {i} of share {w} is {error:.2f} rows off"


def test_one_epoch_reads_every_window_once(source):
    sources = source(*MIXED)
    schedule = Schedule(sources, MIXTURE, batch_size=5, seq_len=8, seed=3)
    read = [[] for _ in sources]
    for step in range(4000):
        for r in range(5):
            i, at = schedule.locate(step, r)
            read[i].append(at)
    for s, positions in zip(sources, read):
        n = max(1, s.tokens // 8)
        epochs = [positions[k:k + n] for k in range(0, len(positions) - n + 1, n)]
        assert len(epochs) >= 3
        for e, epoch in enumerate(epochs):  # each begins where the last one ended
            assert sorted(epoch) == sorted((e * n + k) * 8 % s.tokens for k in range(n))
        if n > 10:
            shifted = [(position - 8 * n) % s.tokens for position in epochs[1]]
            assert epochs[0] != shifted and epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("tokens", [9, 15, 16, 17, 30, 37, 64, 3035])
@pytest.mark.parametrize("seq_len", [8, 512])
def test_every_token_is_a_target_within_two_epochs(source, tokens, seq_len):
    """The tail of a source, too, which is a large part of a small one."""
    s, = source(("a", "x", tokens))
    schedule = Schedule([s], {"a": 1}, batch_size=1, seq_len=seq_len, seed=0)
    n = max(1, tokens // seq_len)
    for first in (0, 1, 2):  # any two epochs that follow one another
        seen = Counter()
        for step in range(first * n, (first + 2) * n):
            _, begin = schedule.locate(step, 0)
            seen.update({position % tokens for position in range(begin + 1, begin + seq_len + 1)})
        assert set(seen) == set(range(tokens)) and max(seen.values()) <= 2


def test_epochs_go_on_behind_the_period(source):
    """The order of sources repeats after PERIOD rows; the order of windows does not."""
    schedule = Schedule(source(("a", "x", 700), ("b", "x", 100)), {"a": 3, "b": 1}, batch_size=1, seq_len=1, seed=0)
    read = [[], []]
    for step in range(PERIOD + 5000):
        i, at = schedule.locate(step, 0)
        read[i].append(at)
    for n, positions in zip((700, 100), read):
        last = len(positions) // n * n
        assert all(len(set(positions[k:k + n])) == n for k in range(last - 12 * n, last, n))


def test_a_source_shorter_than_a_row(source):
    """It is read round and round inside the row."""
    schedule = Schedule(source(("a", "x", 5)), {"a": 1}, batch_size=2, seq_len=12, seed=0)
    tokens, _, starts = schedule.batch(0, range(2))[:3]
    assert tokens.tolist() == [[1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2]] * 2
    assert starts[0].tolist() == [0] * 4 + [4] * 5 + [9] * 3


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_processes_share_out_the_global_batch(source, size):
    schedule = Schedule(source(*MIXED), MIXTURE, batch_size=8, seq_len=8, seed=0)
    for step in (0, 5, 70_000):
        whole = torch.cat(schedule.batch(step, range(8))[:3], 1)
        rows = [range(rank * 8 // size, (rank + 1) * 8 // size) for rank in range(size)]
        parts = [torch.cat(schedule.batch(step, some)[:3], 1) for some in rows]
        assert torch.equal(torch.cat(parts), whole)


def test_epochs_are_counted(source):
    schedule = Schedule(source(("a", "x", 64), ("b", "x", 160)), {"a": 1, "b": 1}, batch_size=4, seq_len=8, seed=0)
    assert schedule.epochs(10) == pytest.approx({"s00": 160 / 64, "s01": 1.0})


def test_fingerprint_sees_every_cause(source, tmp_path, write_source):
    sources = source(*MIXED)
    schedules = [Schedule(sources, MIXTURE, 4, 8, 0), Schedule(sources, MIXTURE | {"zh": 30}, 4, 8, 0),
                 Schedule(sources, MIXTURE, 8, 8, 0), Schedule(sources, MIXTURE, 4, 16, 0),
                 Schedule(sources, MIXTURE, 4, 8, 1)]
    write_source(tmp_path / "other" / "s00", documents(50), category="en")
    schedules.append(Schedule([Source(tmp_path / "other" / "s00"), *sources[1:]], MIXTURE, 4, 8, 0))
    prints = [p.fingerprint() for p in schedules]
    assert len(set(prints)) == len(prints) and Schedule(sources, MIXTURE, 4, 8, 0).fingerprint() == prints[0]


# ---------------------------------------------------------------------- permutation

def test_permute_is_a_bijection():
    for n in [*range(1, 301), 1023, 1024, 1025, 4097]:
        assert sorted(permute(k, n, (0, 1, n)) for k in range(n)) == list(range(n))


@pytest.mark.parametrize("n", [10 ** 7 + 19, 2 ** 31, 10 ** 12 + 39])
def test_permute_of_many(n):
    some = [permute(k, n, (0, 0, 0)) for k in [*range(2000), *range(n - 2000, n)]]
    assert len(set(some)) == 4000 and min(some) >= 0 and max(some) < n
    halves = sum(x < n // 2 for x in some)
    assert 1800 < halves < 2200  # six standard deviations


def test_permute_spreads_evenly():
    """Neighbours do not stay neighbours, and every element can come first."""
    n = 50
    firsts = Counter(permute(0, n, (seed, 0, 0)) for seed in range(2000))
    assert len(firsts) == n and max(firsts.values()) < 90  # 40 expected
    steps = Counter((permute(k + 1, 997, (0, 0, 0)) - permute(k, 997, (0, 0, 0))) % 997 for k in range(996))
    assert max(steps.values()) < 12


def test_permute_depends_on_the_key():
    orders = [[permute(k, 64, key) for k in range(64)] for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


# ---------------------------------------------------------------------- packing and validation

def test_pack_text_as_in_its_docstring():
    w1, w2, w3 = 1, 2, 3
    tokens, targets, starts = pack_text(np.array([w1, w2, EOT, w1, w2, w3, EOT]), EOT)[:3]
    assert tokens.tolist() == [[w1, w2, EOT, w1, w2, w3]]
    assert targets.tolist() == [[w2, EOT, w1, w2, w3, EOT]]
    assert starts.tolist() == [[0, 0, 2, 2, 2, 2]]


def test_pack_with_bos():
    """Llama's texts begin with BOS and end with EOS: EOS is predicted, BOS is read, and no target is lost or added."""
    ids, bos = np.array([1, 2, EOT, 1, 2, 3, EOT, EOT]), 6
    plain, with_bos = pack_text(ids, EOT), pack_text(ids, EOT, bos)
    assert with_bos[0].tolist() == [[1, 2, bos, 1, 2, 3, bos]]
    assert torch.equal(plain[1], with_bos[1]) and torch.equal(plain[2], with_bos[2])


def test_bos_of_the_index_reaches_the_batches(tmp_path, write_source):
    write_source(tmp_path / "a", documents(9, 1), eot=0)
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    (tmp_path / "a" / "index.json").write_text(json.dumps(index | {"bos": 64}))
    source, = open_sources(tmp_path)
    tokens, targets, _ = Schedule([source], {"en": 1}, 4, 16, 0).batch(0, range(4))[:3]
    assert (tokens == 64).any() and not (tokens == 0).any() and (targets == 0).any() and not (targets == 64).any()
    first = next(validation_batches([source], 8, 20, 1))[2][0][0]
    assert first[0, 0] == 64


@pytest.mark.parametrize("eot", [0, 5])
def test_pack_of_random_rows(eot):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 8, 21) for _ in range(50)] + [np.full(21, eot), np.full(21, eot + 1)]
    tokens, targets, starts = collate([pack_text(row, eot) for row in rows])[:3]
    for b, row in enumerate(rows):
        begin = 0
        for t in range(20):
            begin = t if row[t] == eot else begin
            assert (tokens[b, t], targets[b, t], starts[b, t]) == (row[t], row[t + 1], begin)


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 40, 10 ** 6])
@pytest.mark.parametrize("rows", [1, 3])
def test_validation_predicts_each_token_once(tmp_path, write_source, limit, rows):
    texts = {"a": documents(9, 1), "b": documents(2, 2)}
    for name, docs in texts.items():
        write_source(tmp_path / name, docs, per_shard=4, split="valid")
    seen = list(validation_batches(open_sources(tmp_path, "valid"), 8, limit, rows))
    assert [s.name for s, _, _ in seen] == ["a", "b"]
    for s, size, batches in seen:
        whole = flat(texts[s.name])[:limit]
        assert size == pytest.approx(s.bytes * len(whole) / s.tokens)
        tokens, targets, starts = (torch.cat(x) for x in zip(*(b[:3] for b in batches)))
        assert all(len(b[0]) <= rows for b in batches) and tokens.shape[1] == 8
        real = targets != IGNORE
        assert targets[real].tolist() == whole.tolist()  # in row order, each once
        assert tokens[real].tolist() == [EOT, *whole[:-1]]  # behind the id before it
        assert bool((starts <= torch.arange(8)).all())


def test_validation_of_nothing():
    assert list(validation_batches([], 8, 100, 4)) == []


# ---------------------------------------------------------------------- chats and preference pairs

def chats_of(count, seed=0, longest=20):
    """(prompt, answer) of random ids, so that each chat can be recognized in a row."""
    rng = np.random.default_rng(seed)

    def text():
        return rng.integers(1, 60, int(rng.integers(1, longest))).tolist()

    return [(text(), text()) for _ in range(count)]


def best_fit_slowly(sizes, length):
    """The same rule by searching every row: the fill of each row, sorted."""
    rooms = []
    for size in sorted((n for n in sizes.tolist() if n <= length), reverse=True):
        fits = [room for room in rooms if room >= size]
        if fits:
            rooms.remove(min(fits))
        rooms.append((min(fits) if fits else length) - size)
    return sorted(length - room for room in rooms)


@pytest.mark.parametrize("seed", range(6))
def test_best_fit(seed):
    rng = np.random.default_rng(seed)
    sizes, length = rng.integers(1, 70, 300), int(rng.integers(20, 90))
    rows = best_fit(sizes, length, seed)
    assert sorted(k for row in rows for k in row) == np.flatnonzero(sizes <= length).tolist()
    assert sorted(int(sizes[row].sum()) for row in rows) == best_fit_slowly(sizes, length)
    assert rows == best_fit(sizes, length, seed) != best_fit(sizes, length, seed + 1)  # ties broken by the key
    assert best_fit(np.array([9, 9]), 8, 0) == [] and best_fit(np.array([8]), 8, 0) == [[0]]


@pytest.mark.parametrize("per_shard", [3, 1000])
def test_rows_of_chats_hold_whole_ones(tmp_path, write_chats, per_shard):
    """Every chat that fits is in exactly one row, attends to itself only, and only its answer has a loss."""
    made, length = chats_of(80), 24
    s = Source(write_chats(tmp_path / "a", made, per_shard=per_shard, category="chat"))
    schedule = Schedule([s], {"chat": 1}, 1, length, 0)
    fit = [k for k, (prompt, answer) in enumerate(made) if len(prompt) + len(answer) - 1 <= length]
    assert schedule.too_long() == {"a": (80 - len(fit), 80)} and 0 < len(fit) < 80
    epoch, found = len(schedule.packed[0]), Counter()
    for step in range(epoch):
        tokens, targets, starts = (x[0] for x in schedule.batch(step, [0])[:3])
        assert tokens.shape == targets.shape == starts.shape == (length,)
        opened = sorted(set(starts.tolist()))
        for a, b in zip(opened, [*opened[1:], length]):
            assert (starts[a:b] == a).all()
            ids, learned = tokens[a:b].tolist(), targets[a:b].tolist()
            if all(x == EOT for x in ids):
                assert all(x == IGNORE for x in learned) and b == length
                continue
            answer = [x for x in learned if x != IGNORE]
            prompt = ids[:len(ids) - len(answer) + 1]
            assert learned == [IGNORE] * (len(prompt) - 1) + answer and ids == prompt + answer[:-1]
            found[tuple(prompt), tuple(answer)] += 1
    assert found == Counter((tuple(made[k][0]), tuple(made[k][1])) for k in fit)
    again = Counter(tuple(schedule.batch(step, [0])[0][0].tolist()) for step in range(epoch, 2 * epoch))
    assert again == Counter(tuple(schedule.batch(step, [0])[0][0].tolist()) for step in range(epoch))
    assert schedule.epochs(3 * epoch) == {"a": pytest.approx(3)}


def test_rows_of_pairs(chat_data):
    """Both chats of a pair are in one row; `chat` has the owner of each token, `pairs` identifies the pairs."""
    sources = open_sources(chat_data)
    schedule, made = Schedule(sources, {"preference": 1}, 4, 64, 0), {}
    for step in range(3):
        batch = schedule.batch(step, range(4))
        tokens, targets, starts, chat, pairs = batch
        assert len(pairs) > 4 and pairs.shape[1] == 2
        for p, (i, k) in enumerate(pairs.tolist()):
            where = []
            for side in range(2):
                begin, size = sources[i].chats[2 * k + side].tolist()
                ids, mask = sources[i].read(begin, size), sources[i].read_mask(begin, size) & 1
                mine = (chat == 2 * p + side) & (targets != IGNORE)
                assert targets[mine].tolist() == ids[mask == 1].tolist() and int(mine.any(1).sum()) == 1
                where.append(int(mine.any(1).nonzero()))
            assert where[0] == where[1]
            made[i, k] = made.get((i, k), 0) + 1
        alone = [schedule.batch(step, [r]) for r in range(4)]
        assert sum(len(b.pairs) for b in alone) == len(pairs)
        assert torch.equal(torch.cat([b.tokens for b in alone]), tokens)
    assert {sources[i].language for i, _ in made} == {"en", "kk"}


def test_mixtures_of_chats_and_text(chat_data):
    """Replay: rows of text between rows of chats, in the mixture's shares, the same however rows are distributed."""
    sources = open_sources(chat_data)
    schedule = Schedule(sources, {"chat": 3, "en": 1}, 8, 32, 5)
    kinds = Counter(sources[schedule.locate(step, r)[0]].name for step in range(50) for r in range(8))
    assert abs(kinds["en"] - 100) <= 1 and kinds["chat-kk"] > 100
    assert kinds["chat-en"] + kinds["chat-kk"] == 400 - kinds["en"]
    whole = schedule.batch(7, range(8))
    parts = [Schedule(sources, {"chat": 3, "en": 1}, 8, 32, 5).batch(7, [r]) for r in range(8)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole[:3], zip(*(p[:3] for p in parts))))
    assert schedule.fingerprint() != Schedule(sources, {"chat": 3, "en": 1}, 8, 32, 6).fingerprint()
    name = next(iter(sources[0].mask_sha256))
    sources[0].mask_sha256[name] = "0" * 64  # the same ids, other ones with a loss
    assert schedule.fingerprint() != Schedule(open_sources(chat_data), {"chat": 3, "en": 1}, 8, 32, 5).fingerprint()


def test_several_folders(chat_data, token_data, tmp_path, write_source):
    assert len(open_sources([str(chat_data)])) == len(open_sources(chat_data)) == 7
    refused("have one name", open_sources, [chat_data, token_data])
    write_source(tmp_path / "more/other", [[1, 2]])
    assert [s.name for s in open_sources([chat_data, tmp_path / "more"])][-1] == "other"
    refused("no such folder", open_sources, [chat_data, tmp_path / "none"])


def test_chats_that_cannot_be_read(chat_data, tmp_path, write_chats):
    sources = open_sources(chat_data)
    refused(("preference pairs", "cannot be trained on"), Schedule, sources, {"preference": 1, "en": 1}, 4, 32, 0)
    refused("none of its 120 chats fits into a row of seq_len=3 (", Schedule, sources, {"chat/en": 1}, 4, 3, 0)
    folder = write_chats(tmp_path / "a", chats_of(5))
    mask = folder / "shard-00000.mask"
    mask.write_bytes(mask.read_bytes()[:-1])
    refused(("shard-00000.mask:", "bytes, its index says"), Source, folder)
    mask.write_bytes(mask.read_bytes() + b"\x01")
    good = Source(folder)
    mask.write_bytes(bytes([mask.read_bytes()[0] ^ 1]) + mask.read_bytes()[1:])
    refused("shard-00000.mask: SHA-256 differs", good.verify)


def test_validation_of_chats(chat_data):
    """The first whole chats, up to the limit; bytes in proportion to the tokens with a loss."""
    sources = open_sources(chat_data, "valid")
    held = {s.name: (s, size, batches) for s, size, batches in validation_batches(sources, 32, 10 ** 6, 3)}
    s, size, batches = held["chat-en-valid"]
    assert size == s.bytes and all(len(b[0]) <= 3 for b in batches)
    learned = sum(int((b.targets != IGNORE).sum()) for b in batches)
    assert learned == sum(int((np.asarray(mark) & 1).sum()) for mark in s.masks)
    (_, some, few), *_ = validation_batches([s], 32, 40, 3)
    part = sum(int((b.targets != IGNORE).sum()) for b in few)
    assert 0 < part < learned and some == pytest.approx(s.bytes * part / learned)
    assert sum(len(b.pairs) for b in held["preference-kk-valid"][2]) == 12
    nothing, = validation_batches([s], 2, 40, 3)
    assert nothing[1:] == (0, [])  # no chat is that short
