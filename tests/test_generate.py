"""generate.py: token for token what transformers generates; batches, seeds, stops, constraints; both command lines."""
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
from generate import Decoding, complete, continuations, generate
from generate import main as command
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
    """{family: (ours, transformers')}, the same random weights in both: so large that no two scores nearly tie, and that
    texts end early for one length penalty and late for another."""
    out = {}
    for family, name in FAMILIES.items():
        config = getattr(transformers, f"{name}Config")(
            vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
            pad_token_id=None, **({"head_dim": 16} if family == "qwen3" else {}))
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
    """What stands before the first stop id."""
    return ids[:next((i for i, x in enumerate(ids) if x in stop), len(ids))]


def wanted(model, prompts, max_new, stop=(), **more):
    """transformers' continuations; prompts of equal length go together, so that nothing is padded."""
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
    """The n ids that end most of these outputs early: the n most frequent, least id first among equals."""
    flat = [x for ids in outputs for x in ids]
    return sorted(set(flat), key=lambda x: (-flat.count(x), x))[:n]


@pytest.fixture(scope="module")
def ends(families):
    """{family: ids that beams often meet}, to end rows at different times."""
    return {family: common(wanted(theirs, PROMPTS, 12, num_beams=4), 6) for family, (_, theirs) in families.items()}


# ---------------------------------------------------------------------- greedy

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stops", [0, 1, 4])
def test_greedy_equals_transformers(families, ends, family, stops):
    ours, theirs = families[family]
    stop = ends[family][:stops]
    expected = wanted(theirs, PROMPTS, 12, stop)
    assert generate(ours, PROMPTS, 12, stop=stop) == expected
    assert len({len(ids) for ids in expected}) > 2 or not stops  # rows end at different times


@pytest.mark.parametrize("how", [Decoding(), Decoding(repetition_penalty=1.3), Decoding(beams=3), Decoding(temperature=3.0)])
def test_outputs_do_not_depend_on_the_batch(ours, how):
    """Unequal prompts are padded, finished rows leave, rows are sorted by length: none of it may be seen."""
    stop = common(generate(ours, PROMPTS, 12, how=how), 2)
    together = generate(ours, PROMPTS, 12, stop, how)
    assert len(set(map(len, together))) > 2
    for batch in (1, 5):
        assert generate(ours, PROMPTS, 12, stop, how, batch=batch) == together
    if not how.temperature:  # a sampled row depends on its index
        assert together == [generate(ours, [p], 12, stop, how)[0] for p in PROMPTS]


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


@pytest.mark.parametrize("how", [Decoding(), Decoding(beams=4), Decoding(temperature=3.0)])
def test_nothing_asked(ours, how):
    assert generate(ours, [], 5, how=how) == []
    assert generate(ours, [[1, 2], [3]], 0, how=how) == [[], []]
    assert list(continuations(ours, [], 5, how=how)) == list(continuations(ours, [[1, 2], [3]], 0, how=how)) == []


def test_prompts_are_left_alone(ours):
    prompts = [list(p) for p in PROMPTS]
    generate(ours, prompts, 3)
    generate(ours, prompts, 3, how=Decoding(beams=2, repetition_penalty=1.5))
    assert prompts == PROMPTS


# ---------------------------------------------------------------------- beams

SEARCHES = list(itertools.product(["qwen2"], [2, 4, 5], [0.5, 1.0, 2.0]))
SEARCHES += [(family, beams, penalty) for family in ("llama", "qwen3") for beams, penalty in ((2, 0.5), (4, 1.0), (5, 2.0))]


@pytest.mark.parametrize("family, beams, length_penalty", SEARCHES)
def test_beams_equal_transformers(families, ends, family, beams, length_penalty):
    ours, theirs = families[family]
    stop = ends[family][:{2: 6, 4: 1, 5: 3}[beams]]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=beams, length_penalty=length_penalty, early_stopping=False)
    assert generate(ours, PROMPTS, 12, stop, Decoding(beams=beams, length_penalty=length_penalty), batch=5) == expected
    assert len({len(ids) for ids in expected}) > (2 if len(stop) > 1 else 1)  # rows end at different times


@pytest.mark.parametrize("length_penalty", [2.0, 3.0])
def test_beams_among_many_stop_ids(ours, theirs, length_penalty):
    """Two ids of three are stop ids: among the best 2 * beams there may be too few that run on."""
    stop = [x for x in range(V) if x % 3]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=4, length_penalty=length_penalty)
    assert generate(ours, PROMPTS, 12, stop, Decoding(beams=4, length_penalty=length_penalty)) == expected
    assert len({len(ids) for ids in expected}) > 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_new", [1, 2, 12])
def test_beams_that_all_reach_max_new(families, family, max_new):
    ours, theirs = families[family]
    expected = wanted(theirs, PROMPTS, max_new, num_beams=4)
    assert generate(ours, PROMPTS, max_new, how=Decoding(beams=4)) == expected
    assert max_new < 12 or expected != wanted(theirs, PROMPTS, max_new)  # beams find what greedy does not


def test_length_penalty_and_beams_matter(families, ends):
    """The settings of the comparison above lead to different texts: one that is not applied cannot pass it."""
    found = [[generate(families[f][0], PROMPTS, 12, ends[f], Decoding(beams=b, length_penalty=p)) for f in FAMILIES]
             for b, p in ((2, 1.0), (4, 0.5), (4, 1.0), (4, 2.0), (5, 1.0))]
    assert all(a != b for a, b in itertools.combinations(found, 2))


def test_one_beam_is_greedy(ours):
    assert generate(ours, PROMPTS, 8, how=Decoding(beams=1, length_penalty=2.0)) == generate(ours, PROMPTS, 8)


# ---------------------------------------------------------------------- repetition penalty

PENALISED = [(family, beams, 3) for family in FAMILIES for beams in (1, 4)] + [("llama", 2, 0), ("qwen3", 1, 0)]


@pytest.mark.parametrize("family, beams, stops", PENALISED)
def test_repetition_penalty_equals_transformers(families, ends, family, beams, stops):
    """Ids of the prompt count; beams apply it to log-probabilities, greedy to logits, as transformers does."""
    ours, theirs = families[family]
    stop = ends[family][:stops]
    expected = wanted(theirs, PROMPTS, 12, stop, num_beams=beams, repetition_penalty=1.3)
    assert generate(ours, PROMPTS, 12, stop, Decoding(beams=beams, repetition_penalty=1.3), batch=5) == expected
    assert expected != generate(ours, PROMPTS, 12, stop, Decoding(beams=beams))  # it matters


def test_repetition_penalty_does_not_see_the_padding(ours):
    """Padding is written with some id, which must not count as said: nearly every id is said by some of these texts."""
    prompts, how = [[x] for x in range(V)], Decoding(repetition_penalty=50.0)
    together = generate(ours, [*prompts, PROMPTS[3]], 12, how=how, batch=V + 1)[:V]
    assert together == generate(ours, prompts, 12, how=how, batch=V)  # the same texts, without padding
    said = {x for ids in together for x in ids}
    assert 0 in said and len(said) > 0.9 * V


# ---------------------------------------------------------------------- sampling

DRAWS = 2000
WARPED = [
    dict(temperature=3.0), dict(temperature=8.0), dict(temperature=3.0, top_k=5), dict(temperature=3.0, top_p=0.6),
    dict(temperature=3.0, min_p=0.2), dict(temperature=3.0, top_p=1e-9), dict(temperature=6.0, top_p=0.5),
    dict(temperature=6.0, min_p=0.3), dict(temperature=3.0, top_p=1.0, min_p=0.0, top_k=1000),
    dict(temperature=6.0, top_k=20, top_p=0.8), dict(temperature=6.0, top_p=0.8, min_p=0.4),
    dict(temperature=4.0, repetition_penalty=3.0, top_k=12, top_p=0.85),
]


PROCESSORS = {"repetition_penalty": "RepetitionPenaltyLogitsProcessor", "temperature": "TemperatureLogitsWarper",
              "top_k": "TopKLogitsWarper", "top_p": "TopPLogitsWarper", "min_p": "MinPLogitsWarper"}  # in the order of generate


def warped(model, ids, order=tuple(PROCESSORS), **how):
    """Probabilities of the next id by transformers' own processors."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        scores = model(tokens).logits[:, -1].float()
        for name in order:
            if name in how:
                scores = getattr(transformers, PROCESSORS[name])(how[name])(tokens, scores)
        return scores.softmax(-1)[0]


def too_far(counts, p):
    """Is the chance of such a chi-square less than 1 in 10,000? Bins that expect fewer than 5 are taken together."""
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
    g, p = torch.Generator().manual_seed(0), torch.softmax(torch.randn(V, generator=torch.Generator().manual_seed(1)), 0)
    draws = torch.multinomial(p, DRAWS, replacement=True, generator=g).tolist()
    assert not too_far(tally(draws), p) and too_far(tally(draws), p.pow(1.15) / p.pow(1.15).sum())


@pytest.mark.parametrize("how", WARPED, ids=str)
def test_sampled_ids_follow_transformers_warpers(ours, theirs, how):
    prompt = PROMPTS[2]
    p = warped(theirs, prompt, **how)
    drawn = tally([ids[0] for ids in generate(ours, [prompt] * DRAWS, 1, how=Decoding(**how, seed=3), batch=1000)])
    can = p > 0
    assert not any(n for n, possible in zip(drawn, can) if not possible), "an id that transformers never samples"
    assert all(n for n, x in zip(drawn, p.tolist()) if x * DRAWS > 20), "an id that transformers samples often"
    assert not too_far(drawn, p)


def test_the_settings_above_and_their_order_matter(theirs):
    """A setting left out, or one before another that should follow it, gives another set of ids in some of the cases."""
    def sets(drop=None, order=tuple(PROCESSORS)):
        cases = ({k: v for k, v in how.items() if k != drop} for how in WARPED)
        return [(warped(theirs, PROMPTS[2], order, **how) > 0).tolist() for how in cases]

    assert all(sets(drop=name) != sets() for name in PROCESSORS)
    for late, early in (("temperature", "top_p"), ("temperature", "min_p"), ("top_k", "top_p"), ("top_p", "min_p")):
        order = [name for name in PROCESSORS if name != late]
        order.insert(order.index(early) + 1, late)
        assert sets(order=order) != sets(), (early, late)


def test_later_ids_are_drawn_anew_from_their_own_context(ours, theirs):
    """The second id follows its distribution behind each first id: a generator seeded again for each id would not."""
    how = dict(temperature=4.0, top_k=3)
    rows = generate(ours, [PROMPTS[5]] * DRAWS, 2, how=Decoding(**how, seed=5), batch=1000)
    firsts = {ids[0] for ids in rows}
    assert len(firsts) == 3
    for first in firsts:
        p = warped(theirs, [*PROMPTS[5], first], **how)
        assert not too_far(tally([ids[1] for ids in rows if ids[0] == first]), p)


def test_every_sampled_id_is_possible_in_its_row(ours, theirs):
    """Rows leave the batch at different times; each id must still come from its own row's distribution."""
    how = dict(temperature=3.0, top_k=4, repetition_penalty=1.2)
    stop = common(generate(ours, PROMPTS, 10, how=Decoding(**how)), 3)
    rows = generate(ours, PROMPTS, 10, stop, Decoding(**how), batch=7)
    assert len({len(ids) for ids in rows}) > 3
    for prompt, ids in zip(PROMPTS, rows):
        for i, x in enumerate(ids):
            assert warped(theirs, prompt + ids[:i], **how)[x] > 0


def test_small_temperatures_approach_greedy(ours):
    for small in (1e-4, 1e-40):  # the logits themselves divided by the latter are infinite
        assert generate(ours, PROMPTS, 8, how=Decoding(temperature=small)) == generate(ours, PROMPTS, 8)
    assert generate(ours, PROMPTS, 8, how=Decoding(temperature=3.0, top_k=1)) == generate(ours, PROMPTS, 8)


def test_the_seed_decides(ours):
    how = Decoding(temperature=3.0, seed=1)
    once = generate(ours, SAME, 8, how=how)
    assert generate(ours, SAME, 8, how=how) == once
    assert len(set(map(tuple, once))) == len(SAME)  # equal prompts, each with its own generator
    for seed in (0, 2, 2 ** 32 + 1, 2 ** 40):
        assert not set(map(tuple, generate(ours, SAME, 8, how=replace(how, seed=seed)))) & set(map(tuple, once)), seed


def test_a_longer_text_begins_with_the_shorter(ours):
    how = Decoding(temperature=3.0)
    assert [ids[:4] for ids in generate(ours, PROMPTS, 9, how=how)] == generate(ours, PROMPTS, 4, how=how)


def test_a_row_does_not_depend_on_the_other_prompts(ours):
    """Its index and the seed decide, not the prompts beside it nor their number."""
    how, others = Decoding(temperature=3.0, seed=7), some_prompts((33, 2, 9, 1, 5, 50, 3, 4), seed=9)
    rows = generate(ours, PROMPTS, 10, how=how)
    for i in range(6):
        assert generate(ours, others[:i] + [PROMPTS[i]] + others[i:], 10, how=how, batch=3)[i] == rows[i]
        assert generate(ours, PROMPTS[:i + 1], 10, how=how)[i] == rows[i]


def test_the_global_generator_is_left_alone(ours):
    state = torch.get_rng_state()
    a = generate(ours, PROMPTS, 5, how=Decoding(temperature=3.0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert generate(ours, PROMPTS, 5, how=Decoding(temperature=3.0)) == a
    torch.set_rng_state(state)


# ---------------------------------------------------------------------- allowed_next

def even(ids):
    return range(0, V, 2)


def after(ids):
    """Ids that leave another remainder by 5 than the last: depends on the row, its prompt included."""
    return [x for x in range(V) if x % 5 != ids[-1] % 5]


def few(ids):
    """Two or three ids: fewer than beams."""
    return {(7 * ids[-1] + 1) % V, (3 * ids[-1] + 2) % V, (ids[-1] + 5) % V}


@pytest.mark.parametrize("family, allowed, beams, penalty", [
    ("llama", even, 1, 1.3), ("llama", after, 1, 1.0), ("qwen2", after, 3, 1.0), ("qwen3", even, 3, 1.3), ("qwen2", few, 1, 1.0),
    ("qwen2", few, 5, 1.0), ("llama", few, 8, 1.3),
])
def test_allowed_ids_equal_transformers(families, family, allowed, beams, penalty):
    ours, theirs = families[family]
    how = Decoding(beams=beams, repetition_penalty=penalty)
    stop = common(generate(ours, PROMPTS, 10, (), how, allowed_next=allowed), 2)
    expected = wanted(theirs, PROMPTS, 10, stop, num_beams=beams, repetition_penalty=penalty,
                      prefix_allowed_tokens_fn=lambda _, ids: list(allowed(ids.tolist())))
    assert generate(ours, PROMPTS, 10, stop, how, batch=5, allowed_next=allowed) == expected
    assert expected != generate(ours, PROMPTS, 10, stop, how) and len({len(ids) for ids in expected}) > 2


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
    """The filters count allowed ids only: top_k=3 of the even ids, not the even ones of three ids."""
    prompt = PROMPTS[2]
    rows = generate(ours, [prompt] * 500, 1, how=Decoding(temperature=3.0, top_k=3), batch=500, allowed_next=even)
    with torch.no_grad():
        best = theirs(torch.tensor([prompt])).logits[0, -1, ::2].topk(3).indices * 2
    assert {ids[0] for ids in rows} == set(best.tolist())


NAMES = [[3, 9, 4], [3, 9, 17, 5], [3, 8], [40, 41, 42, 43, 44], [40, 2], [11], [60, 61, 1]]
END = 63


def in_trie(lengths):
    """allowed_next of a table of names behind prompts of these first ids: {first id: prompt length}."""
    def allowed(ids):
        said = ids[lengths[ids[0]]:]
        return sorted({n[len(said)] if len(n) > len(said) else END for n in NAMES if n[:len(said)] == said})
    return allowed


@pytest.mark.parametrize("how", [Decoding(), Decoding(beams=2), Decoding(beams=5), Decoding(temperature=3.0, top_k=4),
                                 Decoding(repetition_penalty=1.5)], ids=str)
def test_constrained_to_a_trie(ours, how):
    """Every output is a whole name, though a beam search has more beams than there are ways to go on."""
    prompts = [[i, *p] for i, p in enumerate(PROMPTS)]
    allowed = in_trie({p[0]: len(p) for p in prompts})
    out = generate(ours, prompts, 8, {END}, how, batch=5, allowed_next=allowed)
    assert all(ids in NAMES for ids in out), out
    assert len(set(map(tuple, out))) > 2


def test_beams_in_a_trie_find_the_likeliest_name(ours, theirs):
    """With as many beams as names nothing is cut: the winner is the best of all names by sum of log-probabilities / length."""
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


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("batch", [3, 64])
def test_continuations_are_those_of_generate(ours, how, batch):
    stop = common(generate(ours, PROMPTS, 8, how=how), 2)
    rows = [[] for _ in PROMPTS]
    for row, x in continuations(ours, PROMPTS, 8, stop, how, batch):
        assert type(row) is int and type(x) is int
        rows[row].append(x)
    assert rows == generate(ours, PROMPTS, 8, stop, how, batch)


class Counter:
    """Counts a model's forward passes."""

    def __init__(self, model):
        self.n, self.hook = 0, model.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.n += 1


def test_continuations_come_as_soon_as_they_are_decided(ours):
    calls = Counter(ours)
    try:
        steps = continuations(ours, PROMPTS[:3], 4)
        assert calls.n == 0
        for step in range(1, 5):
            assert {next(steps)[0] for _ in range(3)} == {0, 1, 2} and calls.n == step
        assert next(steps, None) is None and calls.n == 4  # nothing is computed behind the last id
    finally:
        calls.hook.remove()


def test_finished_texts_cost_nothing(ours):
    """When all rows have ended no further pass is made, whatever max_new is."""
    calls, free = Counter(ours), generate(ours, PROMPTS[:3], 6)
    try:
        calls.n = 0
        generate(ours, PROMPTS[:3], 60, stop={x for ids in free for x in ids[2:]})
        assert 1 <= calls.n <= 3
    finally:
        calls.hook.remove()


@pytest.mark.parametrize("how", [Decoding(), Decoding(beams=2)])
def test_gradients_of_the_caller_are_left_on(ours, how):
    """Between two ids the caller's own code runs: it must not find itself in inference mode."""
    steps = continuations(ours, PROMPTS, 3, how=how)
    next(steps)
    x = torch.ones(2, requires_grad=True)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and (x * 2).requires_grad
    steps.close()
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert not any(p.grad is not None or p.is_inference() for p in ours.parameters())


# ---------------------------------------------------------------------- text

LINES = ["The quick brown fox jumps over the lazy dog.", "Сәлем, әлем! Бұл қысқа мәтін.", "这是一个很短的句子。", "नमस्ते दुनिया",
         "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l m n o p q r s t u v w x y z . , ? !"] * 4
CHAT = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def byte_level(folder, bos):
    """A byte-level tokenizer.json with Qwen2's pattern; bos: an id that it puts in front of every text, as Llama 3's does."""
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
                             num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                             initializer_range=0.3, tie_word_embeddings=False)
        Qwen2(config).init_weights(6).save_pretrained(folder)
    return out


@pytest.fixture(scope="module")
def texts(folders):
    """{kind of tokenizer: (model, tokenizer)}"""
    return {kind: (Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)) for kind, folder in folders.items()}


KINDS = ["sentencepiece", "bytes"]


def ends_at(t, ids, stop_text):
    """How many ids it takes until the text holds a stop string."""
    return next((k for k in range(1, len(ids) + 1) if any(s in t.decode(ids[:k]) for s in stop_text)), len(ids))


def spoken(model, t, script, stop_text, prompt, **more):
    """What generate returns of a model that is made to say the script."""
    return generate(model, [prompt], len(script), t=t, stop_text=stop_text,
                    allowed_next=lambda ids: [script[len(ids) - len(prompt)]], **more)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_forced_script_is_said(texts, kind):
    model, t = texts[kind]
    for line in LINES[:5]:
        script = t.encode(line)
        assert spoken(model, t, script, (), [1, 2]) == script and t.decode(script) == line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", [0, 1, 2], ids=["english", "kazakh", "chinese"])
@pytest.mark.parametrize("size", [1, 5, 9])
def test_stop_strings_anywhere_in_a_text(texts, kind, line, size):
    """They begin inside a token and span several; the id that completes one is kept, none follows."""
    model, t = texts[kind]
    script = t.encode(LINES[line])
    for i in range(0, len(LINES[line]) - size + 1, 4):
        stop = LINES[line][i:i + size]
        assert spoken(model, t, script, (stop,), [1, 2]) == script[:ends_at(t, script, [stop])], stop


@pytest.mark.parametrize("kind", KINDS)
def test_the_stop_strings_of_these_tests_cross_tokens(texts, kind):
    """One of them begins inside a token, ends inside a token and spans three: the case that a check of single ids misses."""
    _, t = texts[kind]
    script, edges = t.encode(LINES[0]), set()
    for k in range(len(script) + 1):
        edges.add(len(t.decode(script[:k])))
    crossing = [(i, n) for n in (5, 9) for i in range(0, len(LINES[0]) - n + 1, 3)
                if i not in edges and i + n not in edges and sum(i < e < i + n for e in edges) >= 2]
    assert crossing


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_of_half_characters(texts, kind):
    """A character of several ids is in the text when its last byte is; before that the text shows no replacement character."""
    model, t = texts[kind]
    script = t.encode("ab鑫c\U00010348d")
    assert len(script) >= 9
    for stop in ("鑫", "b鑫", "鑫c", "\U00010348", "c\U00010348d"):
        k = ends_at(t, script, [stop])
        assert spoken(model, t, script, (stop,), [1]) == script[:k]
        assert stop in t.decode(script[:k]) and stop not in t.decode(script[:k - 1])


@pytest.mark.parametrize("kind", KINDS)
def test_ids_without_text_inside_a_stop_string(texts, kind):
    """Control tokens leave no trace in the text; a stop string may stand on both sides of them."""
    model, t = texts[kind]
    start = t.encode(tokenizer.IM_START, special=True)
    script = t.encode("The b") + start * 30 + t.encode("ox") + t.encode(" jumps")
    k = ends_at(t, script, ["box"])
    assert t.decode(script) == "The box jumps" and k < len(script)
    assert spoken(model, t, script, ("box",), [1]) == script[:k]


@pytest.mark.parametrize("stops, last", [(("quick brown", "ick"), "ick"), (("dog", "lazy", "cat"), "lazy"), (["The"], "The"),
                                         (("fox jumps", "fox"), "fox"), (("zzz",), "dog."), ((), "dog.")])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_stop_string_to_be_complete_ends_the_row(texts, kind, stops, last):
    model, t = texts[kind]
    script = t.encode(LINES[0])
    assert spoken(model, t, script, stops, [1]) == script[:ends_at(t, script, [last])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_in_the_prompt_does_not_count(texts, kind):
    model, t = texts[kind]
    prompt, script = t.encode("The quick brown fox"), t.encode(" jumps over the lazy dog. The quick brown fox sleeps")
    got = spoken(model, t, script, ("quick",), prompt)
    assert got == script[:ends_at(t, script, ["quick"])] and t.decode(got).startswith(" jumps over the lazy dog. The")


def some_texts(kind, texts):
    model, t = texts[kind]
    bos = [] if t.bos_id is None else [t.bos_id]
    return [bos + t.encode(x) for x in ("The quick brown", "这是", "S", "Сәлем, әлем! Бұл", "fox", "a b c", "lazy", "dog. T")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [Decoding(), Decoding(temperature=1.0), Decoding(repetition_penalty=1.5)], ids=str)
def test_rows_end_at_their_own_stop_strings(texts, kind, how):
    model, t = texts[kind]
    prompts = some_texts(kind, texts)
    free = generate(model, prompts, 12, how=how)
    said = [t.decode(ids).replace("\ufffd", "") for ids in free]
    stops = [x for x in (said[0][3:5], said[1][5:7], said[3][1:3]) if x]
    expected = [ids[:ends_at(t, ids, stops)] for ids in free]
    assert len(set(map(len, expected))) > 2
    for batch in (1, 3, 64):
        assert generate(model, prompts, 12, how=how, batch=batch, t=t, stop_text=stops) == expected
    rows = [[] for _ in prompts]
    for row, x in continuations(model, prompts, 12, how=how, t=t, stop_text=stops):
        rows[row].append(x)
    assert rows == expected


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_with_stop_strings_equal_transformers(folders, texts, beams):
    """transformers ends a hypothesis by a criterion; ours is that its new text holds the string."""
    model, t = texts["bytes"]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folders["bytes"], dtype=torch.float32).eval()
    prompts = some_texts("bytes", texts)
    said = [t.decode(ids) for ids in generate(model, prompts, 10, how=Decoding(beams=beams))]
    stops = sorted(x for x in {text[i:i + 2] for text in said for i in (2, 5)} if x and "\ufffd" not in x)
    expected = []
    for p in prompts:
        class Holds(transformers.StoppingCriteria):
            def __call__(self, ids, scores, n=len(p), **_):
                return torch.tensor([any(s in t.decode(row[n:].tolist()) for s in stops) for row in ids])
        whole = wanted(theirs, [p], 10, num_beams=beams, stopping_criteria=transformers.StoppingCriteriaList([Holds()]))[0]
        expected.append(whole[:ends_at(t, whole, stops)])
    assert generate(model, prompts, 10, how=Decoding(beams=beams), t=t, stop_text=stops) == expected
    assert len(set(map(len, expected))) > 2


# ---------------------------------------------------------------------- complete

ASKED = ["The quick brown", "这是", "S", "Сәлем, әлем! Бұл", "fox", "a b c"]


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
@pytest.mark.parametrize("how", [Decoding(), Decoding(temperature=1.0, seed=2), Decoding(beams=3)], ids=str)
def test_complete(texts, kind, how):
    """Text in, text out: BOS in front where the tokenizer wants it, special tokens left out."""
    model, t = texts[kind]
    assert (t.bos_id is not None) == (kind == "bytes with bos")
    prompts = [([] if t.bos_id is None else [t.bos_id]) + t.encode(x) for x in ASKED]
    expected = [t.decode(ids) for ids in generate(model, prompts, 10, t.stop_ids, how)]
    assert complete(model, t, ASKED, 10, how=how) == expected
    assert complete(model, t, ASKED, 10, how=how, batch=2) == expected
    if t.bos_id is not None:
        assert expected != [t.decode(ids) for ids in generate(model, [t.encode(x) for x in ASKED], 10, t.stop_ids, how)]


@pytest.mark.parametrize("kind", KINDS)
def test_complete_cuts_before_the_stop_string(texts, kind):
    model, t = texts[kind]
    free = generate(model, [t.encode(x) for x in ASKED], 14, t.stop_ids)
    said = [t.decode(ids) for ids in free]
    part = max((part for text in said for part in text.split("\ufffd")), key=len)
    first = next(text[:2] for text in said if "\ufffd" not in text[:2])
    stops = (part[1:5], part[2:4], part[4:5], part[:1])
    assert len(part) > 5
    for some in (stops[:1], stops[:2], stops, (part[-2:],), (first,)):
        got = complete(model, t, ASKED, 14, some)
        assert got != said
        for out, ids in zip(got, free):
            text = t.decode(ids[:ends_at(t, ids, some)])
            assert out == text[:min((text.find(s) for s in some if s in text), default=len(text))]
    assert "" in got  # the last stop string stood at the beginning


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [tokenizer.EOT, tokenizer.IM_END])
def test_complete_ends_where_the_model_ends(folders, texts, kind, name):
    """Where the likeliest id of a free text becomes end-of-text or end-of-turn, the text ends and shows no trace of it."""
    _, t = texts[kind]
    model = Qwen2.from_pretrained(folders[kind]).eval()
    free, end = generate(model, [t.encode(x) for x in ASKED], 10), t.encode(name, special=True)
    usual = common([ids[2:] for ids in free], 1)[0]
    with torch.no_grad():
        model.lm_head.weight[end] = model.lm_head.weight[usual] * 1.001
    got = complete(model, t, ASKED, 10)
    assert len(end) == 1 and got == [t.decode(cut(ids, {usual, *t.stop_ids})) for ids in free] != [t.decode(ids) for ids in free]


def test_complete_nothing(texts):
    model, t = texts["bytes"]
    assert complete(model, t, [], 5) == [] and complete(model, t, ["a", "b"], 0) == ["", ""]


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
def test_complete_from_no_text(texts, kind):
    """What stands before every text stands before the empty one: BOS, or the end of the text before."""
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
    """The answers to the turns, each behind all that was said before, by generate itself."""
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
    """Runs main with these words and typed lines; returns what was printed."""
    def run(words, typed=(), main=command):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in typed)))
        main([str(word) for word in words])
        return capsys.readouterr().out
    return run


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "bytes with bos"])
def test_a_prompt_on_the_command_line(folders, texts, say, kind):
    (model, t), words = texts[kind], [f"model={folders[kind]}", "max_new=14"]
    for prompt in ASKED:
        free = complete(model, t, [prompt], 14)[0]
        assert say([*words, f"prompt={prompt}"]) == free + "\n"
        stop = next(part for part in free.split("\ufffd") if part)[-2:]
        assert say([*words, f"prompt={prompt}", f"stop={[stop]!r}"]) == complete(model, t, [prompt], 14, [stop])[0] + "\n"


@pytest.mark.parametrize("words", [["temperature=1.5", "seed=4"], ["temperature=2.0", "top_k=5", "top_p=0.8", "min_p=0.1"],
                                   ["beams=3", "length_penalty=0.5"], ["repetition_penalty=3.0"]], ids=" ".join)
def test_decoding_on_the_command_line(folders, texts, say, words):
    how = Decoding(**{word.split("=")[0]: json.loads(word.split("=")[1]) for word in words})
    expected, greedy = complete(*texts["bytes"], ["dog. T"], 16, how=how)[0], complete(*texts["bytes"], ["dog. T"], 16)[0]
    assert say([f"model={folders['bytes']}", "prompt=dog. T", "max_new=16", *words]) == expected + "\n" != greedy + "\n"


@pytest.mark.parametrize("main", ["generate", "eval"])
def test_typed_lines_without_a_template(folders, texts, say, main):
    """Each line is a text of its own, continued."""
    expected = "".join(text + "\n" for text in complete(*texts["bytes"], ASKED, 8))
    name, run = ("model", command) if main == "generate" else ("sample", evaluate.main)
    assert say([f"{name}={folders['bytes']}", "max_new=8"], ASKED, run) == expected
    assert say([f"{name}={folders['bytes']}", "max_new=8"], [], run) == ""


@pytest.mark.parametrize("system", [None, "Қысқа."])
def test_typed_turns_of_a_conversation(chatty, say, system):
    """The template is used where there is one, all that was said stands before each answer; typed control tokens are text."""
    words = [f"model={chatty}", "max_new=8"] + ([f"system={system}"] if system else [])
    answers = conversation(chatty, TURNS, 8, system)
    assert say(words, TURNS) == "".join(x + "\n" for x in answers)
    assert answers[2] != conversation(chatty, TURNS[2:], 8, system)[0]  # what was said before matters
    assert say([*words, f"prompt={TURNS[0]}"]) == answers[0] + "\n"
    assert say([*words, f"prompt={TURNS[0]}", "chat=True"]) == answers[0] + "\n"


def test_a_template_can_be_left_out(chatty, folders, say):
    words = ["max_new=8", "prompt=fox"]
    plain = say([f"model={folders['bytes']}", *words])
    assert say([f"model={chatty}", "chat=False", *words]) == plain != say([f"model={chatty}", *words])


def test_text_is_printed_as_it_comes(folders, texts, monkeypatch):
    """In whole characters, and nothing that the end of the text could take back."""
    model, t = texts["bytes"]
    written = []
    monkeypatch.setattr(sys, "stdout", type("Screen", (io.StringIO,), {"write": lambda self, s: written.append(s)})())
    for prompt in ASKED:
        text = complete(model, t, [prompt], 24)[0]
        written.clear()
        command([f"model={folders['bytes']}", "max_new=24", f"prompt={prompt}"])
        assert "".join(written) == text + "\n" and len([x for x in written if x]) > 8
        assert sum(x.count("\ufffd") for x in written) == text.count("\ufffd")
        stop = max(text.split("\ufffd"), key=len)
        written.clear()
        command([f"model={folders['bytes']}", "max_new=24", f"prompt={prompt}", f"stop={[stop]!r}"])
        assert "".join(written) == text[:text.find(stop)] + "\n"


@pytest.mark.parametrize("words, said", [
    (["chat=True"], "chat template"), (["temprature=1"], "temperature"), (["beams=0"], "beams"), (["dtype=int8"], "dtype"),
    (["max_new=1000"], "max_position_embeddings"),
])
def test_a_wrong_command(folders, say, words, said):
    with pytest.raises(ValueError, match=said):
        say([f"model={folders['bytes']}", "prompt=a", *words])


def test_a_folder_that_is_not_there(tmp_path, say):
    with pytest.raises(ValueError, match="nowhere"):
        say([f"model={tmp_path / 'nowhere'}", "prompt=a"])


PROGRAMS = [("generate.py", "model"), ("eval.py", "sample")]


@pytest.mark.parametrize("program, name", [PROGRAMS[0], pytest.param(*PROGRAMS[1], marks=pytest.mark.slow)])
def test_as_a_process(chatty, program, name):
    ran = subprocess.run([sys.executable, ROOT / program, f"{name}={chatty}", "max_new=8"], capture_output=True,
                         input="".join(x + "\n" for x in TURNS).encode(), cwd=chatty.parent)
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    assert ran.stdout.decode() == "".join(x + "\n" for x in conversation(chatty, TURNS, 8))


@pytest.mark.parametrize("program, name", PROGRAMS)
def test_as_a_program(chatty, monkeypatch, capsys, program, name):
    """A good command leaves its answer and a wrong one a line that says what is wrong, without a traceback."""
    monkeypatch.setattr(sys, "argv", [program, f"{name}={chatty}", "prompt=fox", "max_new=8"])
    runpy.run_path(str(ROOT / program), run_name="__main__")
    assert capsys.readouterr().out == conversation(chatty, ["fox"], 8)[0] + "\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "top_p=2.0"])
    with pytest.raises(SystemExit, match="^ValueError: .*top_p"):
        runpy.run_path(str(ROOT / program), run_name="__main__")


# ---------------------------------------------------------------------- what is refused

IMPOSSIBLE = {
    "temperature": [-0.1, math.nan, math.inf], "top_p": [0.0, 1.01, -0.5, math.nan], "top_k": [0, -3],
    "min_p": [-0.1, 1.1, math.nan], "beams": [0, -1, 4], "length_penalty": [math.nan],
    "repetition_penalty": [0.0, -1.0, math.nan, math.inf],
}


@pytest.mark.parametrize("word, value", [(word, value) for word, values in IMPOSSIBLE.items() for value in values])
def test_impossible_settings(ours, word, value):
    """Beams do not sample, so that with a temperature four of them are as wrong as none."""
    bad = {"temperature": 1.0, word: value} if word != "length_penalty" else {"beams": 2, word: value}
    with pytest.raises(ValueError, match=word):
        generate(ours, [[1, 2]], 2, how=Decoding(**bad))


@pytest.mark.parametrize("prompts", [[[]], [[1, 2], []]])
def test_an_empty_prompt(ours, prompts):
    with pytest.raises(ValueError, match="at least one id"):
        generate(ours, prompts, 2)


@pytest.mark.parametrize("how", [Decoding(), Decoding(beams=2), Decoding(temperature=1.0)], ids=str)
def test_a_prompt_beyond_the_positions(ours, how):
    with pytest.raises(ValueError, match="max_position_embeddings"):
        generate(ours, [[1], [1] * 129], 2, how=how)


def test_a_text_that_just_fits(ours, theirs):
    prompt = PROMPTS[3] * 4
    assert len(prompt) == 120 and generate(ours, [prompt, [1]], 8) == wanted(theirs, [prompt, [1]], 8)


@pytest.mark.parametrize("x", [-1, V, 10 ** 6])
def test_an_id_outside_the_vocabulary(ours, x):
    with pytest.raises((ValueError, IndexError)):
        generate(ours, [[1, x]], 2)


@pytest.mark.parametrize("batch", [0, -1])
def test_an_impossible_batch(ours, batch):
    """A range with a negative step would answer nothing, without a word."""
    with pytest.raises(ValueError, match="batch"):
        generate(ours, [[1]], 2, batch=batch)


def test_stop_text_without_a_tokenizer(ours):
    with pytest.raises(ValueError, match="tokenizer"):
        generate(ours, [[1]], 2, stop_text=("a",))
