"""generate.py: token for token what transformers generates; batches, seeds, stops, constraints; the command lines."""
import io
import itertools
import json
import math
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import eval as evaluate
import tokenizer
from generate import Decoding, complete, generate, generate_stream
from generate import main as generate_main
from model import ModelConfig, Qwen2

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {"qwen2": "Qwen2", "llama": "Llama", "qwen3": "Qwen3"}
V = 64


def some_prompts(lengths, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(V, (n,), generator=g).tolist() for n in lengths]


PROMPTS = some_prompts((5, 1, 12, 30) * 3)
SAME = some_prompts((6,)) * 12  # rows that differ in their index alone


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """{family: (ours, transformers')} with the same random weights: large enough that no two scores nearly tie and that
    the length penalty decides where texts end.
    """
    out = {}
    for family, name in FAMILIES.items():
        config = getattr(transformers, f"{name}Config")(
            vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=None, pad_token_id=None, **({"head_dim": 16} if family == "qwen3" else {}))
        torch.manual_seed(0)
        theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
        with torch.no_grad():
            theirs.lm_head.weight *= 3
        folder = tmp_path_factory.mktemp(family)
        theirs.save_pretrained(folder)
        out[family] = Qwen2.from_pretrained(folder).eval(), theirs
    return out


@pytest.fixture(scope="module")
def ours(families):
    return families["qwen2"][0]


@pytest.fixture(scope="module")
def theirs(families):
    return families["qwen2"][1]


def cut(ids, stop):
    """The ids before the first stop id."""
    return ids[:next((i for i, x in enumerate(ids) if x in stop), len(ids))]


def wanted(model, prompts, max_new, stop=(), **more):
    """transformers' continuations; prompts of equal length are batched, so that nothing is padded."""
    out = [None] * len(prompts)
    for n in {len(p) for p in prompts}:
        rows = [i for i, p in enumerate(prompts) if len(p) == n]
        tokens = torch.tensor([prompts[i] for i in rows])
        whole = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_new, do_sample=False,
                               eos_token_id=sorted(stop) or None, pad_token_id=0, **more)
        for i, ids in zip(rows, whole[:, n:].tolist()):
            out[i] = cut(ids, stop)
    return out


def common(outputs, n):
    """The n most frequent ids of these outputs, smallest first among equals: as stop ids they end most early."""
    flat = [x for ids in outputs for x in ids]
    return sorted(set(flat), key=lambda x: (-flat.count(x), x))[:n]


@pytest.fixture(scope="module")
def ends(families):
    """{family: ids that beams often produce}, which end rows at different times."""
    return {family: common(wanted(theirs, PROMPTS, 12, num_beams=4), 6) for family, (_, theirs) in families.items()}


# ---------------------------------------------------------------------- greedy

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stops", [0, 1, 4])
def test_greedy_equals_transformers(families, ends, family, stops):
    ours, theirs = families[family]
    stop = ends[family][:stops]
    expected = wanted(theirs, PROMPTS, 12, stop)
    assert generate(ours, PROMPTS, 12, stop_ids=stop) == expected
    assert len({len(ids) for ids in expected}) > 2 or not stops  # rows end at different times


@pytest.mark.parametrize("decoding",
                         [Decoding(), Decoding(repetition_penalty=1.3), Decoding(beams=3), Decoding(temperature=3.0)])
def test_outputs_do_not_depend_on_the_batch(ours, decoding):
    """Padding, finished rows leaving the batch and sorting by length must not change an output."""
    stop = common(generate(ours, PROMPTS, 12, decoding=decoding), 2)
    together = generate(ours, PROMPTS, 12, stop, decoding)
    assert len(set(map(len, together))) > 2
    for batch in (1, 5):
        assert generate(ours, PROMPTS, 12, stop, decoding, batch_size=batch) == together
    if not decoding.temperature:  # a sampled row depends on its index
        assert together == [generate(ours, [p], 12, stop, decoding)[0] for p in PROMPTS]


@pytest.mark.parametrize("stop", [list, tuple, set, frozenset])
def test_stop_ids_in_any_container(ours, stop):
    free = generate(ours, PROMPTS, 12)
    ids = common(free, 3)
    assert generate(ours, PROMPTS, 12, stop(ids)) == [cut(out, ids) for out in free]


def test_a_stop_id_at_once(ours):
    free = generate(ours, PROMPTS, 6)
    assert generate(ours, PROMPTS, 6, {ids[0] for ids in free}) == [[]] * len(PROMPTS)
    assert generate(ours, PROMPTS, 6, {free[0][0]})[0] == []


def test_a_stop_id_in_the_prompt_does_not_count(ours):
    free = generate(ours, PROMPTS, 8)
    stop = set(PROMPTS[4]) - set(free[4])
    assert stop and generate(ours, PROMPTS[4:5], 8, stop) == free[4:5]


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=4), Decoding(temperature=3.0)])
def test_no_prompts_or_no_tokens(ours, decoding):
    assert generate(ours, [], 5, decoding=decoding) == []
    assert generate(ours, [[1, 2], [3]], 0, decoding=decoding) == [[], []]
    assert list(generate_stream(ours, [], 5, decoding=decoding)) == []
    assert list(generate_stream(ours, [[1, 2], [3]], 0, decoding=decoding)) == []


def test_prompts_are_left_alone(ours):
    prompts = [list(p) for p in PROMPTS]
    generate(ours, prompts, 3)
    generate(ours, prompts, 3, decoding=Decoding(beams=2, repetition_penalty=1.5))
    assert prompts == PROMPTS


# ---------------------------------------------------------------------- beams

SEARCHES = list(itertools.product(["qwen2"], [2, 4, 5], [0.5, 1.0, 2.0]))
SEARCHES += [(family, *x) for family in ("llama", "qwen3") for x in ((2, 0.5), (4, 1.0), (5, 2.0))]


@pytest.mark.parametrize("family, beams, length_penalty", SEARCHES)
def test_beams_equal_transformers(families, ends, family, beams, length_penalty):
    ours, theirs = families[family]
    stop = ends[family][:{2: 6, 4: 1, 5: 3}[beams]]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=beams, length_penalty=length_penalty, early_stopping=False)
    decoding = Decoding(beams=beams, length_penalty=length_penalty)
    assert generate(ours, PROMPTS, 12, stop, decoding, batch_size=5) == expected
    assert len({len(ids) for ids in expected}) > (2 if len(stop) > 1 else 1)  # rows end at different times


@pytest.mark.parametrize("length_penalty", [2.0, 3.0])
def test_beams_among_many_stop_ids(ours, theirs, length_penalty):
    """Two thirds of the ids are stop ids: the best 2 * beams candidates may contain too few that keep running."""
    stop = [x for x in range(V) if x % 3]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=4, length_penalty=length_penalty)
    assert generate(ours, PROMPTS, 12, stop, Decoding(beams=4, length_penalty=length_penalty)) == expected
    assert len({len(ids) for ids in expected}) > 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_new", [1, 2, 12])
def test_beams_that_all_reach_max_new(families, family, max_new):
    ours, theirs = families[family]
    expected = wanted(theirs, PROMPTS, max_new, num_beams=4)
    assert generate(ours, PROMPTS, max_new, decoding=Decoding(beams=4)) == expected
    assert max_new < 12 or expected != wanted(theirs, PROMPTS, max_new)  # beams find what greedy does not


def test_length_penalty_and_beams_matter(families, ends):
    """The settings of the comparison above give different texts, so ignoring one of them fails it."""
    found = [[generate(families[f][0], PROMPTS, 12, ends[f], Decoding(beams=b, length_penalty=p)) for f in FAMILIES]
             for b, p in ((2, 1.0), (4, 0.5), (4, 1.0), (4, 2.0), (5, 1.0))]
    assert all(a != b for a, b in itertools.combinations(found, 2))


def test_one_beam_is_greedy(ours):
    assert generate(ours, PROMPTS, 8, decoding=Decoding(beams=1, length_penalty=2.0)) == generate(ours, PROMPTS, 8)


# ---------------------------------------------------------------------- repetition penalty

PENALISED = [(family, beams, 3) for family in FAMILIES for beams in (1, 4)] + [("llama", 2, 0), ("qwen3", 1, 0)]


@pytest.mark.parametrize("family, beams, stops", PENALISED)
def test_repetition_penalty_equals_transformers(families, ends, family, beams, stops):
    """Ids of the prompt count; beams apply it to log-probabilities, greedy to logits, as transformers does."""
    ours, theirs = families[family]
    stop = ends[family][:stops]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=beams, repetition_penalty=1.3)
    assert generate(ours, PROMPTS, 12, stop, Decoding(beams=beams, repetition_penalty=1.3), batch_size=5) == expected
    assert expected != generate(ours, PROMPTS, 12, stop, Decoding(beams=beams))  # it matters


def test_repetition_penalty_does_not_see_the_padding(ours):
    """The id used for padding must not be penalized: nearly every id occurs in some of these outputs."""
    prompts, decoding = [[x] for x in range(V)], Decoding(repetition_penalty=50.0)
    together = generate(ours, [*prompts, PROMPTS[3]], 12, decoding=decoding, batch_size=V + 1)[:V]
    assert together == generate(ours, prompts, 12, decoding=decoding, batch_size=V)  # the same texts, without padding
    produced = {x for ids in together for x in ids}
    assert 0 in produced and len(produced) > 0.9 * V


# ---------------------------------------------------------------------- sampling

DRAWS = 2000
WARPED = [
    dict(temperature=3.0), dict(temperature=8.0), dict(temperature=3.0, top_k=5), dict(temperature=3.0, top_p=0.6),
    dict(temperature=3.0, min_p=0.2), dict(temperature=3.0, top_p=1e-9), dict(temperature=6.0, top_p=0.5),
    dict(temperature=6.0, min_p=0.3), dict(temperature=3.0, top_p=1.0, min_p=0.0, top_k=1000),
    dict(temperature=6.0, top_k=20, top_p=0.8), dict(temperature=6.0, top_p=0.8, min_p=0.4),
    dict(temperature=4.0, repetition_penalty=3.0, top_k=12, top_p=0.85),
]


# in the order in which generate applies them
PROCESSORS = {"repetition_penalty": "RepetitionPenaltyLogitsProcessor", "temperature": "TemperatureLogitsWarper",
              "top_k": "TopKLogitsWarper", "top_p": "TopPLogitsWarper", "min_p": "MinPLogitsWarper"}


def warped(model, ids, order=tuple(PROCESSORS), **decoding):
    """Probabilities of the next id by transformers' logits processors."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        scores = model(tokens).logits[:, -1].float()
        for name in order:
            if name in decoding:
                scores = getattr(transformers, PROCESSORS[name])(decoding[name])(tokens, scores)
        return scores.softmax(-1)[0]


def too_far(counts, p):
    """Whether the chi-square test rejects at p = 1e-4; bins with fewer than 5 expected counts are merged."""
    expected, counts = p.double() * sum(counts), torch.tensor(counts, dtype=torch.float64)
    small = expected < 5
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    counts = torch.cat([counts[~small], counts[small].sum()[None]])
    keep = expected > 0
    assert not counts[~keep].any()
    chi2 = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    degrees = torch.tensor(float(int(keep.sum()) - 1), dtype=torch.float64)
    return bool(degrees) and float(torch.special.gammaincc(degrees / 2, chi2 / 2)) < 1e-4


def tally(ids):
    return torch.bincount(torch.tensor(ids), minlength=V).tolist()


def test_the_chi_square_rejects():
    g = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn(V, generator=torch.Generator().manual_seed(1)), 0)
    draws = torch.multinomial(p, DRAWS, replacement=True, generator=g).tolist()
    assert not too_far(tally(draws), p) and too_far(tally(draws), p.pow(1.15) / p.pow(1.15).sum())


@pytest.mark.parametrize("decoding", WARPED, ids=str)
def test_sampled_ids_follow_transformers_warpers(ours, theirs, decoding):
    prompt = PROMPTS[2]
    p = warped(theirs, prompt, **decoding)
    rows = generate(ours, [prompt] * DRAWS, 1, decoding=Decoding(**decoding, seed=3), batch_size=1000)
    drawn = tally([ids[0] for ids in rows])
    can = p > 0
    assert not any(n for n, possible in zip(drawn, can) if not possible), "an id that transformers never samples"
    assert all(n for n, x in zip(drawn, p.tolist()) if x * DRAWS > 20), "an id that transformers samples often"
    assert not too_far(drawn, p)


def test_the_settings_above_and_their_order_matter(theirs):
    """Without one of the settings, or with two in the wrong order, some of the cases allow another set of ids."""
    def sets(drop=None, order=tuple(PROCESSORS)):
        cases = ({k: v for k, v in decoding.items() if k != drop} for decoding in WARPED)
        return [(warped(theirs, PROMPTS[2], order, **decoding) > 0).tolist() for decoding in cases]

    assert all(sets(drop=name) != sets() for name in PROCESSORS)
    for late, early in (("temperature", "top_p"), ("temperature", "min_p"), ("top_k", "top_p"), ("top_p", "min_p")):
        order = [name for name in PROCESSORS if name != late]
        order.insert(order.index(early) + 1, late)
        assert sets(order=order) != sets(), (early, late)


def test_later_ids_are_drawn_from_their_own_context(ours, theirs):
    """The second id follows its distribution given the first: a generator reseeded for each id would not."""
    decoding = dict(temperature=4.0, top_k=3)
    rows = generate(ours, [PROMPTS[5]] * DRAWS, 2, decoding=Decoding(**decoding, seed=5), batch_size=1000)
    firsts = {ids[0] for ids in rows}
    assert len(firsts) == 3
    for first in firsts:
        p = warped(theirs, [*PROMPTS[5], first], **decoding)
        assert not too_far(tally([ids[1] for ids in rows if ids[0] == first]), p)


def test_every_sampled_id_is_possible_in_its_row(ours, theirs):
    """Rows leave the batch at different times; each id must still come from the distribution of its own row."""
    decoding = dict(temperature=3.0, top_k=4, repetition_penalty=1.2)
    stop = common(generate(ours, PROMPTS, 10, decoding=Decoding(**decoding)), 3)
    rows = generate(ours, PROMPTS, 10, stop, Decoding(**decoding), batch_size=7)
    assert len({len(ids) for ids in rows}) > 3
    for prompt, ids in zip(PROMPTS, rows):
        for i, x in enumerate(ids):
            assert warped(theirs, prompt + ids[:i], **decoding)[x] > 0


def test_small_temperatures_approach_greedy(ours):
    for small in (1e-4, 1e-40):  # the logits themselves divided by the latter are infinite
        assert generate(ours, PROMPTS, 8, decoding=Decoding(temperature=small)) == generate(ours, PROMPTS, 8)
    assert generate(ours, PROMPTS, 8, decoding=Decoding(temperature=3.0, top_k=1)) == generate(ours, PROMPTS, 8)


def test_the_seed_decides(ours):
    decoding = Decoding(temperature=3.0, seed=1)
    once = generate(ours, SAME, 8, decoding=decoding)
    assert generate(ours, SAME, 8, decoding=decoding) == once
    assert len(set(map(tuple, once))) == len(SAME)  # equal prompts, each with its own generator
    for seed in (0, 2, 2 ** 32 + 1, 2 ** 40):
        again = generate(ours, SAME, 8, decoding=replace(decoding, seed=seed))
        assert not set(map(tuple, again)) & set(map(tuple, once)), seed


def test_a_longer_text_begins_with_the_shorter(ours):
    decoding = Decoding(temperature=3.0)
    longer = generate(ours, PROMPTS, 9, decoding=decoding)
    assert [ids[:4] for ids in longer] == generate(ours, PROMPTS, 4, decoding=decoding)


def test_a_row_does_not_depend_on_the_other_prompts(ours):
    """Only its index and the seed matter, not the other prompts or their number."""
    decoding, others = Decoding(temperature=3.0, seed=7), some_prompts((33, 2, 9, 1, 5, 50, 3, 4), seed=9)
    rows = generate(ours, PROMPTS, 10, decoding=decoding)
    for i in range(6):
        assert generate(ours, others[:i] + [PROMPTS[i]] + others[i:], 10, decoding=decoding, batch_size=3)[i] == rows[i]
        assert generate(ours, PROMPTS[:i + 1], 10, decoding=decoding)[i] == rows[i]


def test_the_global_generator_is_left_alone(ours):
    state = torch.get_rng_state()
    a = generate(ours, PROMPTS, 5, decoding=Decoding(temperature=3.0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert generate(ours, PROMPTS, 5, decoding=Decoding(temperature=3.0)) == a
    torch.set_rng_state(state)


# ---------------------------------------------------------------------- allowed_next

def even(ids):
    return range(0, V, 2)


def after(ids):
    """Ids with another remainder modulo 5 than the last: depends on the row, prompt included."""
    return [x for x in range(V) if x % 5 != ids[-1] % 5]


def few(ids):
    """Two or three ids: fewer than beams."""
    return {(7 * ids[-1] + 1) % V, (3 * ids[-1] + 2) % V, (ids[-1] + 5) % V}


@pytest.mark.parametrize("family, allowed, beams, penalty", [
    ("llama", even, 1, 1.3), ("llama", after, 1, 1.0), ("qwen2", after, 3, 1.0), ("qwen3", even, 3, 1.3),
    ("qwen2", few, 1, 1.0), ("qwen2", few, 5, 1.0), ("llama", few, 8, 1.3),
])
def test_allowed_ids_equal_transformers(families, family, allowed, beams, penalty):
    ours, theirs = families[family]
    decoding = Decoding(beams=beams, repetition_penalty=penalty)
    stop = common(generate(ours, PROMPTS, 10, (), decoding, allowed_next=allowed), 2)
    expected = wanted(theirs, PROMPTS, 10, stop, num_beams=beams, repetition_penalty=penalty,
                      prefix_allowed_tokens_fn=lambda _, ids: list(allowed(ids.tolist())))
    assert generate(ours, PROMPTS, 10, stop, decoding, batch_size=5, allowed_next=allowed) == expected
    assert expected != generate(ours, PROMPTS, 10, stop, decoding) and len({len(ids) for ids in expected}) > 2


def test_allowed_next_sees_the_whole_row_as_a_list(ours):
    seen = []

    def record(ids):
        assert type(ids) is list and all(type(x) is int for x in ids)
        seen.append(tuple(ids))

    prompts = PROMPTS[:4]
    free = generate(ours, prompts, 5)
    assert generate(ours, prompts, 5, allowed_next=record) == free  # None allows everything
    assert set(seen) == {(*p, *out[:i]) for p, out in zip(prompts, free) for i in range(5)}


def test_sampling_among_allowed_ids(ours, theirs):
    """The filters see allowed ids only: the top 3 of the even ids, not the even ids of the top 3."""
    prompt = PROMPTS[2]
    rows = generate(ours, [prompt] * 500, 1, decoding=Decoding(temperature=3.0, top_k=3), batch_size=500,
                    allowed_next=even)
    with torch.no_grad():
        best = theirs(torch.tensor([prompt])).logits[0, -1, ::2].topk(3).indices * 2
    assert {ids[0] for ids in rows} == set(best.tolist())


NAMES = [[3, 9, 4], [3, 9, 17, 5], [3, 8], [40, 41, 42, 43, 44], [40, 2], [11], [60, 61, 1]]
END = 63


def in_trie(lengths):
    """allowed_next that spells one of NAMES after a prompt. lengths: {first id of the prompt: its length}."""
    def allowed(ids):
        begun = ids[lengths[ids[0]]:]
        return sorted({n[len(begun)] if len(n) > len(begun) else END for n in NAMES if n[:len(begun)] == begun})
    return allowed


@pytest.mark.parametrize("decoding", [
    Decoding(), Decoding(beams=2), Decoding(beams=5), Decoding(temperature=3.0, top_k=4),
    Decoding(repetition_penalty=1.5)], ids=str)
def test_constrained_to_a_trie(ours, decoding):
    """Every output is a whole name, even when there are more beams than continuations."""
    prompts = [[i, *p] for i, p in enumerate(PROMPTS)]
    allowed = in_trie({p[0]: len(p) for p in prompts})
    out = generate(ours, prompts, 8, {END}, decoding, batch_size=5, allowed_next=allowed)
    assert all(ids in NAMES for ids in out), out
    assert len(set(map(tuple, out))) > 2


def test_beams_in_a_trie_find_the_most_likely_name(ours, theirs):
    """With as many beams as names no hypothesis is dropped: the winner has the best mean log-probability of all."""
    prompts = [[i, *p] for i, p in enumerate(PROMPTS)]
    got = generate(ours, prompts, 8, {END}, Decoding(beams=len(NAMES), length_penalty=1.0),
                   allowed_next=in_trie({p[0]: len(p) for p in prompts}))
    for prompt, ids in zip(prompts, got):
        scores = []
        for name in NAMES:
            whole = [*name, END]
            with torch.no_grad():
                logp = theirs(torch.tensor([prompt + whole])).logits[0].float().log_softmax(-1)
            scores.append(sum(logp[len(prompt) - 1 + i, x].item() for i, x in enumerate(whole)) / len(whole))
        if max(scores) - sorted(scores)[-2] > 0.02:
            assert ids == NAMES[scores.index(max(scores))]


# ---------------------------------------------------------------------- step by step

HOWS = [Decoding(), Decoding(temperature=3.0), Decoding(beams=3), Decoding(repetition_penalty=1.3)]


@pytest.mark.parametrize("decoding", HOWS, ids=str)
@pytest.mark.parametrize("batch", [3, 64])
def test_streams_equal_generate(ours, decoding, batch):
    stop = common(generate(ours, PROMPTS, 8, decoding=decoding), 2)
    rows = [[] for _ in PROMPTS]
    for row, x in generate_stream(ours, PROMPTS, 8, stop, decoding, batch):
        assert type(row) is int and type(x) is int
        rows[row].append(x)
    assert rows == generate(ours, PROMPTS, 8, stop, decoding, batch)


class Counter:
    """Counts a model's forward passes."""

    def __init__(self, model):
        self.n, self.hook = 0, model.model.layers[0].register_forward_pre_hook(self)

    def __call__(self, *_):
        self.n += 1


def test_ids_are_streamed_as_soon_as_they_are_decided(ours):
    calls = Counter(ours)
    try:
        steps = generate_stream(ours, PROMPTS[:3], 4)
        assert calls.n == 0
        for step in range(1, 5):
            assert {next(steps)[0] for _ in range(3)} == {0, 1, 2} and calls.n == step + 1  # 2 for the prompts
        assert next(steps, None) is None and calls.n == 5  # nothing is computed after the last id
    finally:
        calls.hook.remove()


def test_finished_texts_cost_nothing(ours):
    """Once all rows have ended no further forward is run, whatever max_new_tokens is."""
    calls, free = Counter(ours), generate(ours, PROMPTS[:3], 6)
    try:
        calls.n = 0
        generate(ours, PROMPTS[:3], 60, stop_ids={x for ids in free for x in ids[2:]})
        assert 1 <= calls.n <= 4  # 2 for the prompts
    finally:
        calls.hook.remove()


def test_waiting_texts_take_the_places_of_finished_ones(ours):
    """Fewer forwards than when a batch waits for its last text before the next one begins."""
    stop, calls = common(generate(ours, PROMPTS, 12), 2), Counter(ours)
    longest_first = sorted(PROMPTS, key=lambda p: -len(p))
    try:
        apart = [x for i in range(0, 12, 3) for x in generate(ours, longest_first[i:i + 3], 12, stop)]
        n, calls.n = calls.n, 0
        assert generate(ours, longest_first, 12, stop, batch_size=3) == apart
        assert calls.n < n
    finally:
        calls.hook.remove()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=2)])
def test_gradients_of_the_caller_are_left_on(ours, decoding):
    """The caller's code that runs between two ids must not be in inference mode."""
    steps = generate_stream(ours, PROMPTS, 3, decoding=decoding)
    next(steps)
    x = torch.ones(2, requires_grad=True)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and (x * 2).requires_grad
    steps.close()
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert not any(p.grad is not None or p.is_inference() for p in ours.parameters())


# ---------------------------------------------------------------------- text

LINES = ["The quick brown fox jumps over the lazy dog.", "Сәлем, әлем! Бұл қысқа мәтін.", "这是一个很短的句子。",
         "नमस्ते दुनिया", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z "
         "a b c d e f g h i j k l m n o p q r s t u v w x y z . , ? !"] * 4
CHAT = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def byte_level(folder, bos):
    """A byte-level tokenizer.json with Qwen2's pattern. bos: it begins every text with BOS, like Llama 3's."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(tokenizer.QWEN2_PATTERN), "isolated"),
                                                 pre_tokenizers.ByteLevel(False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=340, show_progress=False,
                                                       initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    bpe.add_special_tokens([tokenizers.AddedToken(x, special=True, normalized=False)
                            for x in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>")])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
            special_tokens=[("<|begin_of_text|>", bpe.token_to_id("<|begin_of_text|>"))])
        settings["bos_token"] = "<|begin_of_text|>"
    folder.mkdir()
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind of tokenizer: a model folder with it}"""
    base, out = tmp_path_factory.mktemp("texts"), {}
    for kind in ("sentencepiece", "bytes", "bytes with bos"):
        folder = out[kind] = base / kind.replace(" ", "-")
        if kind == "sentencepiece":
            tokenizer.train(LINES, 400, folder)
        else:
            byte_level(folder, kind == "bytes with bos")
        config = ModelConfig(vocab_size=tokenizer.load(folder).vocab_size, hidden_size=32, intermediate_size=48,
                             num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                             max_position_embeddings=256, initializer_range=0.3, tie_word_embeddings=False)
        Qwen2(config).init_weights(6).save_pretrained(folder)
    return out


@pytest.fixture(scope="module")
def texts(folders):
    """{kind of tokenizer: (model, tokenizer)}"""
    return {kind: (Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)) for kind, folder in folders.items()}


KINDS = ["sentencepiece", "bytes"]


def ends_at(t, ids, stop_strings):
    """Number of ids until the text contains a stop string."""
    return next((k for k in range(1, len(ids) + 1) if any(s in t.decode(ids[:k]) for s in stop_strings)), len(ids))


def generate_script(model, t, script, stop_strings, prompt, **more):
    """What generate returns when allowed_next forces the model to produce the script."""
    return generate(model, [prompt], len(script), tokenizer=t, stop_strings=stop_strings,
                    allowed_next=lambda ids: [script[len(ids) - len(prompt)]], **more)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_forced_script_is_generated(texts, kind):
    model, t = texts[kind]
    for line in LINES[:5]:
        script = t.encode(line)
        assert generate_script(model, t, script, (), [1, 2]) == script and t.decode(script) == line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", [0, 1, 2], ids=["english", "kazakh", "chinese"])
@pytest.mark.parametrize("size", [1, 5, 9])
def test_stop_strings_anywhere_in_a_text(texts, kind, line, size):
    """They begin inside a token and span several; the id that completes one is kept and is the last."""
    model, t = texts[kind]
    script = t.encode(LINES[line])
    for i in range(0, len(LINES[line]) - size + 1, 4):
        stop = LINES[line][i:i + size]
        assert generate_script(model, t, script, (stop,), [1, 2]) == script[:ends_at(t, script, [stop])], stop


@pytest.mark.parametrize("kind", KINDS)
def test_the_stop_strings_of_these_tests_cross_tokens(texts, kind):
    """One of them begins and ends inside a token and spans three: a check of single ids would miss it."""
    _, t = texts[kind]
    script, edges = t.encode(LINES[0]), set()
    for k in range(len(script) + 1):
        edges.add(len(t.decode(script[:k])))
    crossing = [(i, n) for n in (5, 9) for i in range(0, len(LINES[0]) - n + 1, 3)
                if i not in edges and i + n not in edges and sum(i < e < i + n for e in edges) >= 2]
    assert crossing


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_of_half_characters(texts, kind):
    """A character of several ids enters the text with its last byte; before that there is no replacement character."""
    model, t = texts[kind]
    script = t.encode("ab鑫c\U00010348d")
    assert len(script) >= 9
    for stop in ("鑫", "b鑫", "鑫c", "\U00010348", "c\U00010348d"):
        k = ends_at(t, script, [stop])
        assert generate_script(model, t, script, (stop,), [1]) == script[:k]
        assert stop in t.decode(script[:k]) and stop not in t.decode(script[:k - 1])


@pytest.mark.parametrize("kind", KINDS)
def test_ids_without_text_inside_a_stop_string(texts, kind):
    """Control tokens leave no trace in the text; a stop string may continue across them."""
    model, t = texts[kind]
    start = t.encode(tokenizer.IM_START, special=True)
    script = t.encode("The b") + start * 30 + t.encode("ox") + t.encode(" jumps")
    k = ends_at(t, script, ["box"])
    assert t.decode(script) == "The box jumps" and k < len(script)
    assert generate_script(model, t, script, ("box",), [1]) == script[:k]


@pytest.mark.parametrize("stops, last", [(("quick brown", "ick"), "ick"), (("dog", "lazy", "cat"), "lazy"),
                                         (["The"], "The"), (("fox jumps", "fox"), "fox"), (("zzz",), "dog."),
                                         ((), "dog.")])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_stop_string_to_be_complete_ends_the_row(texts, kind, stops, last):
    model, t = texts[kind]
    script = t.encode(LINES[0])
    assert generate_script(model, t, script, stops, [1]) == script[:ends_at(t, script, [last])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_in_the_prompt_does_not_count(texts, kind):
    model, t = texts[kind]
    prompt, script = t.encode("The quick brown fox"), t.encode(" jumps over the lazy dog. The quick brown fox sleeps")
    got = generate_script(model, t, script, ("quick",), prompt)
    assert got == script[:ends_at(t, script, ["quick"])] and t.decode(got).startswith(" jumps over the lazy dog. The")


def some_texts(kind, texts):
    model, t = texts[kind]
    bos = [] if t.bos_id is None else [t.bos_id]
    return [bos + t.encode(x)
            for x in ("The quick brown", "这是", "S", "Сәлем, әлем! Бұл", "fox", "a b c", "lazy", "dog. T")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=1.0), Decoding(repetition_penalty=1.5)], ids=str)
def test_rows_end_at_their_own_stop_strings(texts, kind, decoding):
    model, t = texts[kind]
    prompts = some_texts(kind, texts)
    free = generate(model, prompts, 12, decoding=decoding)
    produced = [t.decode(ids).replace("\ufffd", "") for ids in free]
    stops = [x for x in (produced[0][3:5], produced[1][5:7], produced[3][1:3]) if x]
    expected = [ids[:ends_at(t, ids, stops)] for ids in free]
    assert len(set(map(len, expected))) > 2
    for batch in (1, 3, 64):
        assert generate(model, prompts, 12, decoding=decoding, batch_size=batch, tokenizer=t,
                        stop_strings=stops) == expected
    rows = [[] for _ in prompts]
    for row, x in generate_stream(model, prompts, 12, decoding=decoding, tokenizer=t, stop_strings=stops):
        rows[row].append(x)
    assert rows == expected


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_with_stop_strings_equal_transformers(folders, texts, beams):
    """In transformers a stopping criterion ends a hypothesis whose new text contains a stop string."""
    model, t = texts["bytes"]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folders["bytes"], dtype=torch.float32).eval()
    prompts = some_texts("bytes", texts)
    produced = [t.decode(ids) for ids in generate(model, prompts, 10, decoding=Decoding(beams=beams))]
    stops = sorted(x for x in {text[i:i + 2] for text in produced for i in (2, 5)} if x and "\ufffd" not in x)
    expected = []
    for p in prompts:
        class Holds(transformers.StoppingCriteria):
            n = len(p)

            def __call__(self, ids, scores, **_):
                return torch.tensor([any(s in t.decode(row[self.n:].tolist()) for s in stops) for row in ids])
        criteria = transformers.StoppingCriteriaList([Holds()])
        whole = wanted(theirs, [p], 10, num_beams=beams, stopping_criteria=criteria)[0]
        expected.append(whole[:ends_at(t, whole, stops)])
    assert generate(model, prompts, 10, decoding=Decoding(beams=beams), tokenizer=t, stop_strings=stops) == expected
    assert len(set(map(len, expected))) > 2


# ---------------------------------------------------------------------- complete

TEXTS = ["The quick brown", "这是", "S", "Сәлем, әлем! Бұл", "fox", "a b c"]


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=1.0, seed=2), Decoding(beams=3)], ids=str)
def test_complete(texts, kind, decoding):
    """Text in, text out: BOS is added if the tokenizer has one, special tokens are left out."""
    model, t = texts[kind]
    assert (t.bos_id is not None) == (kind == "bytes with bos")
    prompts = [([] if t.bos_id is None else [t.bos_id]) + t.encode(x) for x in TEXTS]
    expected = [t.decode(ids) for ids in generate(model, prompts, 10, t.stop_ids, decoding)]
    assert complete(model, t, TEXTS, 10, decoding=decoding) == expected
    assert complete(model, t, TEXTS, 10, decoding=decoding, batch_size=2) == expected
    if t.bos_id is not None:
        without_bos = generate(model, [t.encode(x) for x in TEXTS], 10, t.stop_ids, decoding)
        assert expected != [t.decode(ids) for ids in without_bos]


@pytest.mark.parametrize("kind", KINDS)
def test_complete_cuts_before_the_stop_string(texts, kind):
    model, t = texts[kind]
    free = generate(model, [t.encode(x) for x in TEXTS], 14, t.stop_ids)
    produced = [t.decode(ids) for ids in free]
    part = max((part for text in produced for part in text.split("\ufffd")), key=len)
    first = next(text[:2] for text in produced if "\ufffd" not in text[:2])
    stops = (part[1:5], part[2:4], part[4:5], part[:1])
    assert len(part) > 5
    for some in (stops[:1], stops[:2], stops, (part[-2:],), (first,)):
        got = complete(model, t, TEXTS, 14, some)
        assert got != produced
        for out, ids in zip(got, free):
            text = t.decode(ids[:ends_at(t, ids, some)])
            assert out == text[:min((text.find(s) for s in some if s in text), default=len(text))]
    assert "" in got  # the last stop string was at the beginning


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [tokenizer.EOT, tokenizer.IM_END])
def test_complete_ends_where_the_model_ends(folders, texts, kind, name):
    """Where the most likely id becomes end-of-text or end-of-turn, the text ends, without a trace of that id.

    End-of-turn ends a text only where the folder declares it, as an EOS or in its chat template.
    """
    _, t = texts[kind]
    if t.encode(name, special=True)[0] not in t.stop_ids:
        assert name == tokenizer.IM_END and t.chat_template is None
        return
    model = Qwen2.from_pretrained(folders[kind]).eval()
    free, end = generate(model, [t.encode(x) for x in TEXTS], 10), t.encode(name, special=True)
    usual = common([ids[2:] for ids in free], 1)[0]
    with torch.no_grad():
        model.lm_head.weight[end] = model.lm_head.weight[usual] * 1.001
    got = complete(model, t, TEXTS, 10)
    assert len(end) == 1 and got == [t.decode(cut(ids, {usual, *t.stop_ids})) for ids in free]
    assert got != [t.decode(ids) for ids in free]


def test_complete_nothing(texts):
    model, t = texts["bytes"]
    assert complete(model, t, [], 5) == [] and complete(model, t, ["a", "b"], 0) == ["", ""]


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
def test_complete_from_no_text(texts, kind):
    """An empty prompt becomes the id that begins a text: BOS, or end-of-text."""
    model, t = texts[kind]
    first = t.eot_id if t.bos_id is None else t.bos_id
    assert complete(model, t, [""], 6) == [t.decode(generate(model, [[first]], 6, t.stop_ids)[0])]


# ---------------------------------------------------------------------- the command lines

@pytest.fixture(scope="module")
def chatty(folders):
    """The byte-level folder with a chat template."""
    folder = folders["bytes"].parent / "chatty"
    shutil.copytree(folders["bytes"], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHAT}))
    return folder


TURNS = ["Сәлем, әлем!", "The <|im_end|> fox", "fox"]


def conversation(folder, turns, max_new, system=None):
    """The answers to the turns by `generate`, each after all earlier turns."""
    model, t = Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)
    messages, out = [{"role": "system", "content": system}] if system else [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        prompt = t.encode_chat(messages)
        out.append(t.decode(generate(model, [prompt], max_new, t.stop_ids)[0], prefix=prompt))
        messages.append({"role": "assistant", "content": out[-1]})
    return out


@pytest.fixture
def say(monkeypatch, capsys):
    """A function that runs main with these words and typed lines, and returns what it printed."""
    def run(words, typed=(), main=generate_main):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in typed)))
        main([str(word) for word in words])
        return capsys.readouterr().out
    return run


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
def test_a_prompt_on_the_command_line(folders, texts, say, kind):
    (model, t), words = texts[kind], [f"model={folders[kind]}", "max_new_tokens=14"]
    for prompt in TEXTS:
        free = complete(model, t, [prompt], 14)[0]
        assert say([*words, f"prompt={prompt}"]) == free + "\n"
        stop = next(part for part in free.split("\ufffd") if part)[-2:]
        stopped = complete(model, t, [prompt], 14, [stop])[0]
        assert say([*words, f"prompt={prompt}", f"stop={[stop]!r}"]) == stopped + "\n"


@pytest.mark.parametrize("words", [["temperature=1.5", "seed=4"],
                                   ["temperature=2.0", "top_k=5", "top_p=0.8", "min_p=0.1"],
                                   ["beams=3", "length_penalty=0.5"], ["repetition_penalty=3.0"]], ids=" ".join)
def test_decoding_on_the_command_line(folders, texts, say, words):
    decoding = Decoding(**{word.split("=")[0]: json.loads(word.split("=")[1]) for word in words})
    expected = complete(*texts["bytes"], ["dog. T"], 16, decoding=decoding)[0]
    greedy = complete(*texts["bytes"], ["dog. T"], 16)[0]
    printed = say([f"model={folders['bytes']}", "prompt=dog. T", "max_new_tokens=16", *words])
    assert printed == expected + "\n" != greedy + "\n"


def test_typed_lines_without_a_template(folders, texts, say):
    """Each line is a prompt of its own."""
    expected = "".join(text + "\n" for text in complete(*texts["bytes"], TEXTS, 8))
    assert say([f"model={folders['bytes']}", "max_new_tokens=8"], TEXTS) == expected
    assert say([f"model={folders['bytes']}", "max_new_tokens=8"], []) == ""


def test_eval_refers_to_generate(folders):
    with pytest.raises(ValueError, match="python generate.py model=FOLDER"):
        evaluate.main([f"sample={folders['bytes']}", "max_new_tokens=8"])
    with pytest.raises(ValueError, match="python generate.py model=FOLDER"):
        evaluate.main([str(folders["bytes"]), "chat=True"])


@pytest.mark.parametrize("system", [None, "Қысқа."])
def test_typed_turns_of_a_conversation(chatty, say, system):
    """The template is used if there is one, every answer sees all turns before it, typed control tokens are text."""
    words = [f"model={chatty}", "max_new_tokens=8"] + ([f"system={system}"] if system else [])
    answers = conversation(chatty, TURNS, 8, system)
    assert say(words, TURNS) == "".join(x + "\n" for x in answers)
    assert answers[2] != conversation(chatty, TURNS[2:], 8, system)[0]  # earlier turns matter
    assert say([*words, f"prompt={TURNS[0]}"]) == answers[0] + "\n"
    assert say([*words, f"prompt={TURNS[0]}", "chat=True"]) == answers[0] + "\n"


def test_a_template_can_be_left_out(chatty, folders, say):
    words = ["max_new_tokens=8", "prompt=fox"]
    plain = say([f"model={folders['bytes']}", *words])
    assert say([f"model={chatty}", "chat=False", *words]) == plain != say([f"model={chatty}", *words])


def test_text_is_printed_as_it_comes(folders, texts, monkeypatch):
    """In whole characters, and nothing that the end of the text could revoke."""
    model, t = texts["bytes"]
    written = []
    monkeypatch.setattr(sys, "stdout", type("Screen", (io.StringIO,), {"write": lambda self, s: written.append(s)})())
    for prompt in TEXTS:
        text = complete(model, t, [prompt], 24)[0]
        written.clear()
        generate_main([f"model={folders['bytes']}", "max_new_tokens=24", f"prompt={prompt}"])
        assert "".join(written) == text + "\n" and len([x for x in written if x]) > 8
        assert sum(x.count("\ufffd") for x in written) == text.count("\ufffd")
        stop = max(text.split("\ufffd"), key=len)
        written.clear()
        generate_main([f"model={folders['bytes']}", "max_new_tokens=24", f"prompt={prompt}", f"stop={[stop]!r}"])
        assert "".join(written) == text[:text.find(stop)] + "\n"


@pytest.mark.parametrize("words, message", [
    (["chat=True"], "chat template"), (["temprature=1"], "temperature"), (["beams=0"], "beams"),
    (["dtype=int8"], "dtype"), (["max_new_tokens=1000"], "max_position_embeddings"),
])
def test_a_wrong_command(folders, say, words, message):
    with pytest.raises(ValueError, match=message):
        say([f"model={folders['bytes']}", "prompt=a", *words])


def test_a_folder_that_is_not_there(tmp_path, say):
    with pytest.raises(ValueError, match="nowhere"):
        say([f"model={tmp_path / 'nowhere'}", "prompt=a"])


def test_as_a_process(chatty):
    ran = subprocess.run([sys.executable, ROOT / "generate.py", f"model={chatty}", "max_new_tokens=8"],
                         capture_output=True,
                         input="".join(x + "\n" for x in TURNS).encode(), cwd=chatty.parent)
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    assert ran.stdout.decode() == "".join(x + "\n" for x in conversation(chatty, TURNS, 8))


def test_as_a_program(chatty, monkeypatch, capsys):
    """A good command leaves its answer and a wrong one a line that says what is wrong, without a traceback."""
    monkeypatch.setattr(sys, "argv", ["generate.py", f"model={chatty}", "prompt=fox", "max_new_tokens=8"])
    runpy.run_path(str(ROOT / "generate.py"), run_name="__main__")
    assert capsys.readouterr().out == conversation(chatty, ["fox"], 8)[0] + "\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "top_p=2.0"])
    with pytest.raises(SystemExit, match="^ValueError: .*top_p"):
        runpy.run_path(str(ROOT / "generate.py"), run_name="__main__")


# ---------------------------------------------------------------------- what is refused

IMPOSSIBLE = {
    "temperature": [-0.1, math.nan, math.inf], "top_p": [0.0, 1.01, -0.5, math.nan], "top_k": [0, -3],
    "min_p": [-0.1, 1.1, math.nan], "beams": [0, -1, 4], "length_penalty": [math.nan],
    "repetition_penalty": [0.0, -1.0, math.nan, math.inf],
}


@pytest.mark.parametrize("word, value", [(word, value) for word, values in IMPOSSIBLE.items() for value in values])
def test_impossible_settings(ours, word, value):
    """Beam search does not sample, so four beams with a temperature are refused like zero."""
    bad = {"temperature": 1.0, word: value} if word != "length_penalty" else {"beams": 2, word: value}
    with pytest.raises(ValueError, match=word):
        generate(ours, [[1, 2]], 2, decoding=Decoding(**bad))


@pytest.mark.parametrize("prompts", [[[]], [[1, 2], []]])
def test_an_empty_prompt(ours, prompts):
    with pytest.raises(ValueError, match="at least one id"):
        generate(ours, prompts, 2)


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=2), Decoding(temperature=1.0)], ids=str)
def test_a_prompt_beyond_the_positions(ours, decoding):
    with pytest.raises(ValueError, match="max_position_embeddings"):
        generate(ours, [[1], [1] * 129], 2, decoding=decoding)


def test_a_text_that_just_fits(ours, theirs):
    prompt = PROMPTS[3] * 4
    assert len(prompt) == 120 and generate(ours, [prompt, [1]], 8) == wanted(theirs, [prompt, [1]], 8)


@pytest.mark.parametrize("x", [-1, V, 10 ** 6])
def test_an_id_outside_the_vocabulary(ours, x):
    with pytest.raises((ValueError, IndexError)):
        generate(ours, [[1, x]], 2)


@pytest.mark.parametrize("batch", [0, -1])
def test_an_impossible_batch(ours, batch):
    """A range with a negative step would silently return nothing."""
    with pytest.raises(ValueError, match="batch"):
        generate(ours, [[1]], 2, batch_size=batch)


def test_stop_strings_without_a_tokenizer(ours):
    with pytest.raises(ValueError, match="tokenizer"):
        generate(ours, [[1]], 2, stop_strings=("a",))


# ---------------------------------------------------------------------- faults that users met

def with_stop_in_output(texts, stop):
    """What generate returns of a script with <|im_end|> in its middle when `stop` is the only stop string."""
    model, t = texts["bytes"]
    script = [*t.encode("The fox"), *t.encode(tokenizer.IM_END, special=True), *t.encode(" jumps")]
    return t, script, generate_script(model, t, script, [stop], [1, 2])


@pytest.mark.parametrize("stop, kept", [("<|im_end|>", 1), ("fox<|im_end|>", 1), ("<|im_end|> ", 2), ("im_e", 1)])
def test_stop_strings_among_control_tokens(texts, stop, kept):
    """A stop string may be a control token, or contain one; kept: ids from the control token on."""
    t, script, output = with_stop_in_output(texts, stop)
    begin = len(t.encode("The fox"))
    assert kept == 1 or t.decode(script[begin:begin + 2], special=True).startswith(stop)
    assert output == script[:begin + kept]


def test_a_control_token_that_is_no_stop_string(texts):
    _, script, output = with_stop_in_output(texts, "<|im_start|>")
    assert output == script


@pytest.mark.parametrize("file, as_list", [("generation_config.json", True), ("generation_config.json", False),
                                           ("config.json", True)])
def test_the_folders_eos_ids_stop_a_text(folders, texts, tmp_path, say, file, as_list):
    """A list of eos ids, or one, of ids that no list of names would guess."""
    _, t = texts["bytes"]
    shutil.copytree(folders["bytes"], tmp_path / "model")
    free = generate(texts["bytes"][0], [t.encode("dog. T")], 12, t.stop_ids)[0]
    ends = [free[7], free[4]] if as_list else free[4]
    path = tmp_path / "model" / file
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"eos_token_id": ends}))
    if file == "config.json":  # generation_config.json goes first
        (tmp_path / "model" / "generation_config.json").unlink(missing_ok=True)
    printed = say([f"model={tmp_path / 'model'}", "prompt=dog. T", "max_new_tokens=12"])
    stop = ends if as_list else [ends]
    assert len(cut(free, stop)) < len(free) and printed == t.decode(cut(free, stop)) + "\n"


@pytest.mark.parametrize("prompt", ["42", "[1, 2]", "1e-3", "True", "{'a': 1}", "'quoted'", "(1,)", "a=b"])
def test_a_prompt_is_text(folders, texts, say, prompt):
    """Even where it looks like a number, a list or another Python literal."""
    expected = complete(*texts["bytes"], [prompt], 8)[0]
    assert say([f"model={folders['bytes']}", "max_new_tokens=8", f"prompt={prompt}"]) == expected + "\n"
    assert say([f"model={folders['bytes']}", "max_new_tokens=8", f"--prompt={prompt}"]) == expected + "\n"


def test_several_prompts_on_the_command_line(folders, texts, say):
    expected = complete(*texts["bytes"], ["a", "b"], 8)
    printed = say([f"model={folders['bytes']}", "max_new_tokens=8", "prompt=['a', 'b']"])
    assert printed == "".join(f"> {prompt}\n{text}\n" for prompt, text in zip("ab", expected))


@pytest.mark.parametrize("setting, value", [("prompt", [1, 2]), ("prompt", ["a", None]), ("stop", [3])])
def test_lists_that_are_not_of_strings(folders, tmp_path, say, setting, value):
    (tmp_path / "config.py").write_text(f"{setting} = {value!r}\n")
    with pytest.raises(ValueError, match=f"{setting} must be a list of strings"):
        say([f"model={folders['bytes']}", str(tmp_path / "config.py")])
