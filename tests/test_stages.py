"""A curriculum in stages: the plan at every row, the border, resuming across it, any number of processes, refusals."""
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train
from configs import load
from data import PERIOD, Schedule, low_discrepancy_order, open_sources, quotas
from model import ModelConfig, Qwen2
from training import distributed
from training.stages import StagedSchedule, assign_rows, cut_into_pieces

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
RUN = dict(seq_len=32, batch_size=4, micro_batch_size=4, lr=1e-2, warmup_ratio=0.1, dtype="float32", threads=1,
           eval_every=1000, log_every=1, eval_tokens=100)
# 13 and 15 rows: the border is inside the fourth batch of four rows
STAGES = [dict(tokens=13 * 32, mixture={"en": 7, "zh": 3}), dict(tokens=15 * 32, mixture={"en": 4, "zh": 3, "low": 3})]
pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")


def words(data, out, **changes):
    settings = SHAPE | RUN | {"data": data, "out": out, "stages": STAGES} | changes
    return [f"{k}={v}" for k, v in settings.items()]


def settings(**changes):
    return train.Train(out="", data="", **RUN | {"stages": STAGES} | changes)


def of_row(schedule, rows):
    """(rows, sources): 1 where the row is of the source; a source's rows are numbered one by one, from 0."""
    counts, out = np.zeros(len(schedule.weights), int), []
    for row in range(rows):
        i, before = schedule.find_row(row)
        assert before == counts[i]
        counts[i] += 1
        out.append(np.eye(len(counts))[i])
    return np.array(out)


class Rows(StagedSchedule):
    """Only the order of the sources."""

    def __init__(self, pieces):
        self.pieces, self.segments = pieces, assign_rows(pieces)
        self.weights = pieces[0][1]


def worst_error(pieces):
    """Largest distance of any source from the plan, over all rows."""
    plan = np.concatenate([np.full((rows, len(quota)), quota / PERIOD) for rows, quota in pieces]).cumsum(0)
    return np.abs(of_row(Rows(pieces), len(plan)).cumsum(0) - plan).max()


# ---------------------------------------------------------------------- the plan

@pytest.mark.parametrize("seed", range(20))
def test_every_source_is_within_one_row_of_the_plan_at_every_row(seed):
    rng, pieces = np.random.default_rng(seed), []
    n = int(rng.integers(2, 12))
    for _ in range(int(rng.integers(1, 9))):
        weights = rng.dirichlet(np.full(n, 0.4)) * (rng.random(n) > 0.2)
        weights[0] += weights.sum() == 0
        pieces.append((int(rng.integers(1, 300)), quotas(weights / weights.sum())))
    assert worst_error(pieces) < 1


@pytest.mark.slow
@pytest.mark.parametrize("rest", [1, 20_000, PERIOD - 1])
def test_long_stages_too(rest):
    """Behind a border the shares are turned round: turns with late deadlines suddenly are due."""
    quota = quotas(np.array([0.00002, 0.0001, 0.01, 0.1, 0.2, 0.68988]))
    assert worst_error([(3 * PERIOD + rest, quota), (2 * PERIOD + rest, quota[::-1].copy()), (999, quota)]) < 1


def test_a_run_of_any_length_is_planned_in_a_moment():
    """640 B tokens in rows of 2,048 (PolyLM's run): repetitions are not computed again."""
    rng, begin = np.random.default_rng(0), time.process_time()
    segments = assign_rows([(265_000_000, quotas(rng.dirichlet(np.ones(18)))),
                            (47_000_000, quotas(rng.dirichlet(np.ones(18))))])
    assert time.process_time() - begin < 3 and sum(len(s.order) for s in segments) < 12 * PERIOD
    after = [*(s.first for s in segments[1:]), 312_000_000]
    assert all((b - s.first) % len(s.order) == 0 for s, b in zip(segments, after))


def test_one_stage_is_the_plain_schedule(token_data):
    sources = open_sources(token_data)
    mixture = {"en": 3, "zh": 1, "low": 0.5}
    plain = Schedule(sources, mixture, 4, 32, 0)
    staged = StagedSchedule(sources, [dict(tokens=3 * PERIOD * 32, mixture=mixture)], "step", 4, 32, 0)
    assert np.array_equal(staged.segments[0].order, low_discrepancy_order(quotas(plain.weights)))
    for row in [*range(500), PERIOD - 1, PERIOD, PERIOD + 12345, 3 * PERIOD - 1]:
        assert staged.find_row(row) == plain.find_row(row)
    assert staged.weights == pytest.approx(plain.weights, abs=1 / PERIOD)
    for step in (0, 7):
        a, b = (s.batch(step, range(4)) for s in (plain, staged))
        assert torch.equal(a.tokens, b.tokens) and torch.equal(a.starts, b.starts)


def test_a_linear_ramp_follows_the_line(token_data):
    """From the first mixture at the border to the second at the end; in between the mean of both."""
    one, two = np.array([0.75, 0.25, 0]), np.array([0.25, 0.25, 0.5])
    pieces = cut_into_pieces([one, two], [400, 800], "linear")
    assert sum(rows for rows, _ in pieces) == 1200 and worst_error(pieces) < 1
    rows = of_row(Rows(pieces), 1200)
    t = np.arange(1, 801)[:, None]
    line = 400 * one + t * one + t ** 2 / 1600 * (two - one)
    assert np.abs(rows[:400].cumsum(0) - np.arange(1, 401)[:, None] * one).max() < 1
    assert np.abs(rows.cumsum(0)[400:] - line).max() < 1.2  # a staircase of 32 pieces
    assert rows[400:].sum(0) == pytest.approx(800 * (one + two) / 2, abs=1)


def test_sources_continue_over_the_border(token_data):
    """A source's windows in stage 2 are the ones after those of stage 1: nothing is read again before all was read."""
    sources = open_sources(token_data)
    schedule = StagedSchedule(sources, STAGES, "step", 4, 32, 0)
    assert schedule.borders == [13]
    share = of_row(schedule, 28)
    assert share[:13].sum(0) == pytest.approx([9.1, 0, 3.9], abs=1) and share[:13, 1].sum() == 0  # en, kk, zh
    assert share.sum(0) == pytest.approx([9.1 + 6, 4.5, 3.9 + 4.5], abs=1)
    assert schedule.weights.sum() == pytest.approx(1) and min(schedule.weights) > 0
    positions = [schedule.locate(*divmod(row, 4)) for row in range(28)]
    assert len(set(positions)) == 28
    assert "stage 2 from step 3, row 1" in schedule.describe()


def test_fingerprints_tell_the_order_of_stages(token_data):
    sources = open_sources(token_data)
    equal = [dict(tokens=640, mixture=mixture) for mixture in ({"en": 1, "zh": 3}, {"en": 3, "zh": 1})]
    a, b = (StagedSchedule(sources, stages, "step", 4, 32, 0) for stages in (equal, equal[::-1]))
    assert a.weights.tolist() == b.weights.tolist() and a.fingerprint() != b.fingerprint()


def test_a_stage_may_read_some_folders_only(tmp_path, write_source):
    """The better of two sources of one language: they share its weight by tokens where both are read."""
    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    write_source(noisy / "a", [[1] * 299], category="low", language="kk")
    write_source(clean / "b", [[2] * 99], category="low", language="kk")
    sources = open_sources([str(noisy), str(clean)])
    stages = [dict(tokens=40 * 32, mixture={"low": 1}), dict(tokens=40 * 32, mixture={"low": 1}, data=str(clean))]
    rows = of_row(StagedSchedule(sources, stages, "step", 4, 32, 0), 80)
    assert rows[:40].sum(0).tolist() == [30, 10] and rows[40:].sum(0).tolist() == [0, 40]
    with pytest.raises(ValueError, match=r"stages\[1\]: data=elsewhere is not among"):
        StagedSchedule(sources, [stages[0], stages[1] | {"data": "elsewhere"}], "step", 4, 32, 0)


# ---------------------------------------------------------------------- runs

@pytest.fixture(scope="module")
def whole(tmp_path_factory, token_data):
    """A finished run of 7 steps; the border is inside step 3."""
    out = tmp_path_factory.mktemp("staged") / "run"
    train.main(words(token_data, out, save_every=2, keep_checkpoints=5))
    return out


def test_a_run_resumed_on_either_side_of_the_border_has_the_same_bits(whole, token_data, tmp_path):
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "loss" in row] == list(range(1, 8))
    for last in (2, 4):
        out = tmp_path / f"from-{last}"
        (out / "checkpoints").mkdir(parents=True)
        for name in ("lock", "run.json", "config.json"):
            (out / name).write_bytes((whole / name).read_bytes())
        for path in (whole / "checkpoints" / f"step-{last:08}").rglob("*"):
            target = out / path.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                target.write_bytes(path.read_bytes())
        train.main(words(token_data, out, resume=True))
        assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("change", [
    dict(stages=[STAGES[0], STAGES[1] | {"tokens": 16 * 32}]), dict(ramp="linear"),
    dict(stages=[STAGES[0] | {"mixture": {"en": 6, "zh": 4}}, STAGES[1]])])
def test_other_stages_on_resume_are_refused(whole, token_data, change):
    with pytest.raises(ValueError, match="made with another stages: .*'tokens': 416.*undo the change"):
        train.main(words(token_data, whole, resume=True, **change))


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_reads_the_same_rows(token_data, processes):
    schedule = StagedSchedule(open_sources(token_data), STAGES, "linear", 4, 32, 0)
    for step in range(7):
        whole = schedule.batch(step, range(4))
        per_process = 4 // processes
        parts = [schedule.batch(step, range(r * per_process, (r + 1) * per_process)) for r in range(processes)]
        assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2])
def test_two_processes_train_the_same_model(root, whole, token_data, tmp_path, shard_size):
    """Stages, and the float32 stream under FSDP2: the gradient sums differ in the last bits only."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    changes = dict(shard_size=shard_size, micro_batch_size=2, residual_fp32=True)
    done = subprocess.run([*launch, str(root / "train.py"), *words(token_data, tmp_path / "two", **changes)],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    a, b = (load_file(out / "model.safetensors") for out in (whole, tmp_path / "two"))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-3


# ---------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("changes, message", [
    (dict(stages=[]), r"stages must name at least one stage"),
    (dict(stages=[dict(tokens=0, mixture={"en": 1})]), r"stages\[0\]: tokens must be at least one row, .* got 0"),
    (dict(stages=[STAGES[0], dict(tokens=31, mixture={"en": 1})]), r"stages\[1\]: tokens must be .*, got 31"),
    (dict(stages=[dict(tokens=900, mixture={"en": -1, "zh": 2})]), r"stages\[0\]: mixture needs numbers >= 0"),
    (dict(stages=[dict(tokens=900, mixture={"en": 0})]), r"stages\[0\]: mixture needs numbers >= 0 and one above 0"),
    (dict(stages=[dict(tokens=900, mixture={})]), r"stages\[0\]: mixture"),
    (dict(stages=[dict(tokens=900, weights={"en": 1})]), r"stages\[0\] must be a dict of tokens, mixture"),
    (dict(stages=[dict(tokens=900, mixture={"en": 1}, quality=1)]), r"stages\[0\] must be a dict"),
    (dict(stages=["en"]), r"stages\[0\] must be a dict"),
    (dict(stages=[dict(tokens=900, mixture={"en": 1}, data=3)]), r"stages\[0\]: data must be a folder"),
    (dict(mixture={"en": 1}), "mixture= is that of one mixture, and stages= is set"),
    (dict(tokens=900), "tokens= is that of one mixture, and stages= is set"),
    (dict(ramp="cosine"), "ramp must be step or linear, got 'cosine'"),
    (dict(stages=None, mixture={"en": 1}, tokens=900, ramp="linear"), "ramp=linear needs stages="),
    (dict(stages=None), "mixture must be set, or stages; tokens must be set, or stages"),
    (dict(stages=[dict(tokens=32, mixture={"en": 1})]), "is less than one global batch"),
])
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_a_stage_that_names_an_unknown_source(token_data):
    stages = [STAGES[0], dict(tokens=900, mixture={"fr": 1})]
    with pytest.raises(ValueError, match=r"stages\[1\]: mixture: no source of \['fr'\]"):
        StagedSchedule(open_sources(token_data), stages, "step", 4, 32, 0)


def test_stages_from_a_config_file(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(f"out, data, stages, ramp = 'o', 'd', {STAGES}, 'linear'\nseq_len, batch_size = 32, 4\n")
    c, = load(train.Train, argv=[str(path)])
    assert c.steps == 7 and c.ramp == "linear"


# ---------------------------------------------------------------------- the residual stream in float32

def tiny(dtype, residual_fp32):
    return Qwen2(ModelConfig(**SHAPE | {"num_hidden_layers": 8}), dtype, residual_fp32=residual_fp32).init_weights(0)


def loss_and_gradient(model):
    tokens = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(0))
    loss = -model(tokens, tokens.roll(-1, 1)).mean()
    loss.backward()
    return loss, model.model.layers[0].mlp.up_proj.weight.grad


def test_it_changes_nothing_in_float32():
    for a, b in zip(loss_and_gradient(tiny(torch.float32, False)), loss_and_gradient(tiny(torch.float32, True))):
        assert torch.equal(a, b)


def test_in_bfloat16_the_stream_is_float32_and_nearer_to_the_truth():
    tokens = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        truth = tiny(torch.float32, False).residual_streams(tokens)
        plain, wide = (tiny(torch.bfloat16, wide).residual_streams(tokens) for wide in (False, True))
    assert {x.dtype for x in plain} == {torch.bfloat16} and {x.dtype for x in wide} == {torch.float32}
    error = [float((x[-1].float() - truth[-1]).norm()) for x in (plain, wide)]
    assert error[1] < 0.2 * error[0]
    model = tiny(torch.bfloat16, True)
    assert model.hidden_states(tokens).dtype == torch.bfloat16  # what the head computes in
    loss, gradient = loss_and_gradient(model)
    assert torch.isfinite(loss) and gradient.abs().sum() > 0


@pytest.mark.parametrize("residual_fp32", [False, True])
def test_fsdp_does_not_cast_the_stream(monkeypatch, residual_fp32):
    seen = []
    monkeypatch.setattr(distributed, "fully_shard", lambda module, mp_policy, **_: seen.append(mp_policy))
    distributed.shard_model(tiny(torch.float32, False), SimpleNamespace(dtype=torch.bfloat16, mesh=None), residual_fp32)
    assert len(seen) == 9 and {(p.param_dtype, p.reduce_dtype, p.cast_forward_inputs) for p in seen} == {
        (torch.bfloat16, torch.float32, not residual_fp32)}


def test_a_run_with_it(token_data, tmp_path):
    """Of a float32 run the same bits as without; a bfloat16 run learns."""
    for name, changes in (("off", {}), ("on", dict(residual_fp32=True)),
                          ("bf16", dict(residual_fp32=True, dtype="bfloat16", activation_checkpointing=True))):
        train.main(words(token_data, tmp_path / name, **changes))
    on, off = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("on", "off"))
    assert on == off
    losses = [json.loads(x).get("loss") for x in Path(tmp_path / "bf16" / "log.jsonl").read_text().splitlines()]
    losses = [x for x in losses if x]
    assert losses[-1] < losses[0] - 0.1


def test_the_softmax_of_attention_sums_in_float32():
    """PolyLM's second switch: on the CPU torch's softmax of bfloat16 scores is that of float32, rounded once."""
    scores = 8 * torch.randn(20, 7, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(torch.softmax(scores, -1), torch.softmax(scores.float(), -1).bfloat16())
