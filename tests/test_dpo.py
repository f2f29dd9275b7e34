"""Fine-tuning on chats and DPO: losses and gradients equal an independent implementation on a model made by
transformers, the reference is of the initial weights, resumed runs give the same bits, and misuse is refused."""
import errno
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import configs
import data
import generate
import prepare
import tokenizer
import train
from configs import demo_languages, language_table
from configs.marco import paper
from model import ModelConfig, Qwen2
from training import dpo

RUN = dict(seq_len=40, batch_size=4, micro_batch_size=4, lr=3e-3, warmup_ratio=0.1, dtype="float32", threads=1,
           eval_every=1000, log_every=1000, eval_tokens=2000, grad_clip=1e9)
SFT = dict(mixture={"chat": 3, "en": 1})
DPO = dict(mixture={"preference": 1}, loss="dpo")
KINDS = {"sft": SFT, "dpo": DPO}
pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")
STEP = 4 * 40


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A Qwen2 made and saved by transformers."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.2)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def words(chat_data, base, out, steps=8, **changes):
    settings = RUN | dict(data=str(chat_data), init=str(base), out=str(out), tokens=steps * STEP) | changes
    return [f"{k}={v}" for k, v in settings.items()]


@pytest.fixture
def go(chat_data, base):
    """A function: train in this process and return the weights' bytes."""
    def run(out, steps=8, **changes):
        train.main(words(chat_data, base, out, steps, **changes))
        return (Path(out) / "model.safetensors").read_bytes()
    return run


def log_of(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def moments_of(out, step=1):
    found = {}
    for file in (Path(out) / "checkpoints" / f"step-{step:08}" / "tensors").glob("*.safetensors"):
        found |= load_file(file)
    return {k.removeprefix("exp_avg."): v for k, v in found.items() if k.startswith("exp_avg.")}


# ---------------------------------------------------------------------- the loss

def settings(**changes):
    return SimpleNamespace(**dict(dpo_beta=0.1, label_smoothing=0.0, length_normalized=False) | changes)


def test_the_loss_by_hand():
    """Two pairs. Log-ratios 2 and -1 with beta 0.5: a margin of 1.5; the other way round for the second."""
    logp, reference = torch.tensor([[-8.0, -6.0], [-3.0, -4.0]]), torch.tensor([[-10.0, -5.0], [-2.0, -6.0]])
    tokens = torch.tensor([[4.0, 2.0], [1.0, 2.0]])
    loss, m, ratio = dpo.dpo_loss(logp, reference, tokens, settings(dpo_beta=0.5))
    assert ratio.tolist() == [[2, -1], [-1, 2]] and m.tolist() == [1.5, -1.5]
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1.5)))
    loss, m, _ = dpo.dpo_loss(logp, reference, tokens, settings(dpo_beta=0.5, label_smoothing=0.2))
    # smoothing swaps the pairs, and there is one of each: the same sum
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1.5)))
    loss, m, _ = dpo.dpo_loss(logp[:1], reference[:1], tokens[:1], settings(dpo_beta=0.5, label_smoothing=0.2))
    assert float(loss) == pytest.approx(0.8 * math.log(1 + math.exp(-1.5)) + 0.2 * math.log(1 + math.exp(1.5)))
    _, m, _ = dpo.dpo_loss(logp, reference, tokens, settings(dpo_beta=2.0, length_normalized=True))
    assert m.tolist() == [2 * (2 / 4 + 1 / 2), 2 * (-1 / 1 - 2 / 2)]
    for c in (settings(), settings(label_smoothing=0.3), settings(length_normalized=True, dpo_beta=5.0)):
        assert float(dpo.dpo_loss(logp, logp, tokens, c)[0]) / 2 == pytest.approx(math.log(2), abs=1e-7)


def theirs(base):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.float32)


def answers_of(chat_data, split="train"):
    """{source name: [(ids, index of the first id with a loss)]}, read from the shards."""
    out = {}
    for s in data.open_sources(chat_data, split):
        if s.kind != "text":
            both = [(s.read(b, n), s.read_mask(b, n) & 1) for b, n in s.chats.tolist()]
            out[s.name] = [(torch.from_numpy(ids), int(mask.argmax())) for ids, mask in both]
    return out


def logprob(model, ids, first):
    """Log-probabilities of an answer from transformers' logits, the chat alone in its row."""
    logits = model(ids[None]).logits[0].float()
    return torch.log_softmax(logits, -1)[:-1].gather(1, ids[1:, None])[first - 1:, 0]


@pytest.mark.parametrize("changes", [
    {}, dict(micro_batch_size=1, dpo_beta=0.3, label_smoothing=0.1), dict(length_normalized=True, dpo_beta=2.0)])
def test_the_gradient_of_dpo(go, chat_data, base, tmp_path, changes):
    """AdamW's first moment after one step is a tenth of the gradient. The reference is a cache of other numbers."""
    sources = data.open_sources(chat_data)
    batch = data.Schedule(sources, DPO["mixture"], 4, 40, 0).batch(0, range(4))
    go(tmp_path / "once", steps=1, **DPO)  # for its files, whose numbers are changed
    for file in (tmp_path / "once/reference").glob("*.safetensors"):
        with safe_open(file, "pt") as f:
            facts, logp = f.metadata(), f.get_tensor("logp")
        noise = torch.randn(logp.shape, generator=torch.Generator().manual_seed(1))
        facts["sha256"] = dpo.tensor_sha256(logp + noise)
        save_file({"logp": logp + noise}, file, metadata=facts)
    go(tmp_path / "run", steps=1, save_every=1, reference_dir=tmp_path / "once/reference", **DPO, **changes)
    c = settings(**{k: v for k, v in changes.items() if k != "micro_batch_size"})
    model, chats, losses = theirs(base), answers_of(chat_data), []
    for i, k in batch.pairs.tolist():
        name, r = sources[i].name, []
        reference = load_file(tmp_path / "once/reference" / f"{name}.safetensors")["logp"][k]
        for side in range(2):
            logp = logprob(model, *chats[name][2 * k + side])
            r.append((logp.sum() - reference[side]) / (len(logp) if c.length_normalized else 1))
        h = c.dpo_beta * (r[0] - r[1])
        losses.append(-(1 - c.label_smoothing) * F.logsigmoid(h) - c.label_smoothing * F.logsigmoid(-h))
    torch.stack(losses).mean().backward()
    assert log_of(tmp_path / "run")[-2]["loss"] == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    moments = moments_of(tmp_path / "run")
    assert len(moments) == len(list(model.parameters())) and max(p.grad.abs().max() for p in model.parameters()) > 1e-3
    for name, p in model.named_parameters():
        assert (10 * moments[name] - p.grad).abs().max() <= 2e-6, name


@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_the_gradient_of_sft(go, chat_data, base, tmp_path, micro_batch_size):
    """Of the mean over the supervised tokens of all chats, each alone in its row in transformers."""
    go(tmp_path / "run", steps=1, save_every=1, micro_batch_size=micro_batch_size, mixture={"chat": 1})
    schedule = data.Schedule(data.open_sources(chat_data), {"chat": 1}, 4, 40, 0)
    model, chats, logp = theirs(base), answers_of(chat_data), []
    for r in range(4):
        i, row = schedule.locate(0, r)
        logp += [logprob(model, *chats[schedule.sources[i].name][k]) for k in schedule.packed[i][row]]
    assert len(logp) > 8
    (-torch.cat(logp).mean()).backward()
    moments = moments_of(tmp_path / "run")
    for name, p in model.named_parameters():
        assert (10 * moments[name] - p.grad).abs().max() <= 2e-6, name


# ---------------------------------------------------------------------- the reference

def test_before_the_first_step_the_loss_is_ln_2(go, chat_data, base, tmp_path):
    """And the cache holds transformers' log-probability of every answer alone."""
    go(tmp_path / "run", steps=1, micro_batch_size=3, **DPO)
    noise, start, step, end = log_of(tmp_path / "run")
    assert noise["noise"] <= 1e-6 and abs(step["loss"] - math.log(2)) <= 1e-5  # 5 decimals are logged
    sources = data.open_sources(chat_data)
    schedule = data.Schedule(sources, DPO["mixture"], 4, 40, 0)
    files = {i: tmp_path / "run/reference" / f"{s.name}.safetensors" for i, s in enumerate(sources)}
    reference = {i: load_file(file)["logp"] for i, file in files.items() if file.exists()}
    c = settings()
    objective = dpo.DPO(c, None, sources, reference)
    loss = objective.loss(Qwen2.from_pretrained(base), schedule.batch(0, range(4)))
    assert abs(float(loss) / len(schedule.batch(0, range(4)).pairs) - math.log(2)) <= 1e-6
    model = theirs(base)
    for name, chats in (answers_of(chat_data) | answers_of(chat_data, "valid")).items():
        if name.startswith("preference"):
            with torch.no_grad():
                want = torch.stack([logprob(model, *chat).sum() for chat in chats]).view(-1, 2)
            got = load_file(tmp_path / "run/reference" / f"{name}.safetensors")["logp"]
            fit = data.Source(chat_data / name).lengths <= 40
            assert fit.sum() > 5 and (got - want)[fit].abs().max() <= 1e-4 and bool((got[~fit] == 0).all())


def test_noise_of_bfloat16_is_below_the_margin(go, tmp_path):
    """Margins that come from rounding, against those that come from training."""
    go(tmp_path / "run", steps=12, lr=1e-2, dtype="bfloat16", micro_batch_size=3, **DPO)
    rows = log_of(tmp_path / "run")
    margins = [r["margin"] for r in rows[-1]["held_out"].values()]
    assert 10 * rows[0]["noise"] < min(margins), (rows[0], margins)


def change_cache(out, name="preference-en", **facts):
    file = Path(out) / "reference" / f"{name}.safetensors"
    with safe_open(file, "pt") as f:
        found, logp = f.metadata(), f.get_tensor("logp")
    save_file({"logp": logp}, file, metadata=found | facts)


def test_the_cache_of_one_run_serves_another(go, base, tmp_path, capsys):
    first = go(tmp_path / "a", steps=3, **DPO)
    assert "reference: preference-en, 60 pairs" in capsys.readouterr().out
    other = shutil.copytree(base, tmp_path / "base")
    (other / "checkpoints").mkdir()
    save_file({"a": torch.zeros(1)}, other / "checkpoints/a.safetensors")  # other files do not matter
    assert go(tmp_path / "b", steps=3, init=other, reference_dir=tmp_path / "a/reference", **DPO) == first
    assert "reference: preference" not in capsys.readouterr().out


def test_a_cache_of_other_weights_is_refused(go, chat_data, base, tmp_path):
    go(tmp_path / "a", steps=1, **DPO)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] += 1  # of the same sizes and names
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    message = "preference-en.safetensors: reference log-probabilities of other weights .*delete the file"
    with pytest.raises(ValueError, match=message):
        go(tmp_path / "b", steps=1, init=other, reference_dir=tmp_path / "a/reference", **DPO)
    with pytest.raises(ValueError, match="of other seq_len"):
        go(tmp_path / "c", steps=1, seq_len=48, tokens=4 * 48, reference_dir=tmp_path / "a/reference", **DPO)
    change_cache(tmp_path / "a", shards="0")
    with pytest.raises(ValueError, match="of other shards"):
        go(tmp_path / "d", steps=1, reference_dir=tmp_path / "a/reference", **DPO)
    (tmp_path / "a/reference/preference-en.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="preference-en.safetensors: cannot be read .* delete it"):
        go(tmp_path / "e", steps=1, reference_dir=tmp_path / "a/reference", **DPO)


def test_a_full_disk_leaves_no_half_of_a_reference(go, tmp_path, monkeypatch):
    """It is an OSError, which the program prints as one line, and not the library's own."""
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(dpo.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as e:
        go(tmp_path / "a", steps=1, **DPO)
    assert str(tmp_path / "a") in str(e.value)
    assert not list((tmp_path / "a/reference").glob("*.safetensors"))
    del e  # it holds the frames that hold the lock
    monkeypatch.undo()
    go(tmp_path / "a", steps=1, **DPO)


def damage_cache(out, change, name="preference-en"):
    """Replace the numbers of a cache file; its metadata stays."""
    file = Path(out) / "reference" / f"{name}.safetensors"
    with safe_open(file, "pt") as f:
        facts, logp = f.metadata(), f.get_tensor("logp")
    save_file({"logp": change(logp).contiguous()}, file, metadata=facts)


def flip_a_bit(logp):
    logp.view(torch.int32)[3, 1] ^= 1
    return logp


DAMAGES = {"a flipped bit": (flip_a_bit, "another SHA-256 .* damaged; delete it"),
           "swapped sides": (lambda x: x.flip(1), "SHA-256"),
           "too few pairs": (lambda x: x[:-1], r"shape \(59, 2\), must be float32 of \(60, 2\)"),
           "one side": (lambda x: x[:, :1], r"shape \(60, 1\)"),
           "float64": (lambda x: x.double(), "holds torch.float64")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_refused(go, tmp_path, damage):
    change, message = DAMAGES[damage]
    go(tmp_path / "a", steps=1, **DPO)
    damage_cache(tmp_path / "a", change)
    with pytest.raises(ValueError, match=f"preference-en.safetensors: .*{message}"):
        go(tmp_path / "b", steps=1, reference_dir=tmp_path / "a/reference", **DPO)


@pytest.mark.parametrize("field, value", [("rms_norm_eps", 1e-3), ("rope_theta", 5.0)])
def test_a_cache_of_another_config_is_refused(go, base, tmp_path, field, value):
    """The same weights under another config.json are another model."""
    go(tmp_path / "a", steps=1, **DPO)
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config.pop("rope_parameters", None)  # transformers 5 has rope_theta there
    (other / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match="of other config"):
        go(tmp_path / "b", steps=1, init=other, reference_dir=tmp_path / "a/reference", **DPO)


def test_a_reference_that_is_not_finite_is_refused(go, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="log-probability of pair 0 is not finite; look at the weights of init="):
        go(tmp_path / "a", steps=1, init=other, **DPO)
    assert not list((tmp_path / "a/reference").glob("*.safetensors"))


def test_skipped_steps_leave_no_trace_in_the_statistics(go, tmp_path, monkeypatch):
    """A margin that is nan in step 1 is not in the log of step 2."""
    loss, calls = dpo.DPO.loss, []

    def poisoned(self, model, batch):
        calls.append(torch.is_grad_enabled())
        if sum(calls) == 2 and calls[-1]:
            self.totals[:, 1:4] += float("nan")
            return loss(self, model, batch) * float("nan")
        return loss(self, model, batch)

    monkeypatch.setattr(dpo.DPO, "loss", poisoned)
    go(tmp_path / "run", steps=3, log_every=3, on_nonfinite="skip", **DPO)
    row = [r for r in log_of(tmp_path / "run") if "languages" in r][-1]
    assert all(math.isfinite(v) for values in row["languages"].values() for v in values.values())


# ---------------------------------------------------------------------- runs

@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_equal_the_whole_batch(go, tmp_path, kind):
    small = dict(lr=1e-4)
    go(tmp_path / "whole", **small, **KINDS[kind])
    go(tmp_path / "split", micro_batch_size=1, **small, **KINDS[kind])
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in ("whole", "split"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_runs_give_the_same_bits(go, tmp_path, kind):
    """As if killed after step 4 of 8; of DPO also with the reference cache deleted: it is of the initial weights."""
    whole = go(tmp_path / "run", save_every=4, keep_checkpoints=9, **KINDS[kind])
    for lost in (False, True)[:1 + (kind == "dpo")]:
        shutil.rmtree(tmp_path / "run/checkpoints/step-00000008")
        (tmp_path / "run/model.safetensors").unlink()
        if lost:
            shutil.rmtree(tmp_path / "run/reference")
        assert go(tmp_path / "run", save_every=4, keep_checkpoints=9, resume=True, **KINDS[kind]) == whole


def test_dpo_learns_and_logs_it(go, tmp_path):
    """The chosen answers count up, the rejected ones down; each language is logged, for training and held-out pairs."""
    go(tmp_path / "run", steps=60, log_every=20, eval_every=30, **DPO)
    rows = log_of(tmp_path / "run")
    held = [r["held_out"] for r in rows if "held_out" in r]
    assert [set(h) for h in held] == [{"en", "kk"}] * 3 and all(h["en"]["pairs"] == 12 for h in held)
    assert all(v == 0 for v in (held[0]["en"]["margin"], held[0]["kk"]["kl"])) and held[0]["en"]["accuracy"] == 0.5
    assert all(h["accuracy"] >= 0.9 and h["margin"] > 0.5 for h in held[-1].values())
    trained = [r["languages"] for r in rows if "languages" in r]
    assert len(trained) == 3 and trained[-1]["en"]["pairs"] > 50
    assert trained[-1]["kk"]["margin"] > trained[0]["kk"]["margin"]


def test_sft_learns_answers(go, tmp_path):
    go(tmp_path / "run", steps=80, eval_every=40, **SFT)
    bpb = [r["bpb"] for r in log_of(tmp_path / "run") if "bpb" in r]
    assert all(set(b) == {"en", "chat-en", "chat-kk"} for b in bpb)  # replayed text is validated, too
    assert bpb[-1]["chat-kk"] < bpb[0]["chat-kk"] - 1


def test_chats_longer_than_a_row_are_noted(go, tmp_path, capsys):
    go(tmp_path / "run", steps=1, seq_len=10, batch_size=4, tokens=40, mixture={"chat": 1})
    assert "chats are longer than a row of seq_len=10 and are left out, not cut" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(root, chat_data, base, go, tmp_path, kind, shard_size):
    more = dict(lr=1e-4, micro_batch_size=1, log_every=4, shard_size=shard_size) | KINDS[kind]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(root / "train.py")]
    arguments = [sys.executable, *launch, *words(chat_data, base, tmp_path / "two", **more)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    go(tmp_path / "one", **more)
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in ("one", "two"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) <= 1e-6
    one, two = (log_of(tmp_path / x) for x in ("one", "two"))
    assert len(one) == len(two)
    for x, y in zip(one, two):
        assert x.get("loss", 0) == pytest.approx(y.get("loss", 0), abs=2e-5)
        assert x.get("bpb") == pytest.approx(y.get("bpb"), abs=2e-4)
        for part in ("languages", "held_out"):
            for lang, values in x.get(part, {}).items():
                assert y[part][lang] == pytest.approx(values, abs=1e-4), (part, lang)


# ---------------------------------------------------------------------- stopping

def test_a_model_that_learned_turns_stops_where_one_ends(tmp_path):
    """From a base whose generation_config only has the end of a text, through prepare.py and train.py: answers end."""
    rows = [{"messages": [{"role": "user", "content": f"{a} and {b}"}, {"role": "assistant", "content": f"{b} {a}"}]}
            for a in "abcdefgh" for b in "abcdefgh"]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = dict(name="chat", path="chat.jsonl", category="chat", language="en", kind="chat")
    settings = dict(raw=str(tmp_path), out=str(tmp_path / "data"), sources=[source], language_names={},
                    valid_fraction=0.0, vocab_size=280, template="chatml", workers=1)
    prepare.main([f"{k}={v!r}" for k, v in settings.items()])
    shape = dict(vocab_size=280, hidden_size=32, intermediate_size=64, num_hidden_layers=2, initializer_range=0.2)
    train.main([f"{k}={v!r}" for k, v in RUN.items()] + [f"{k}={v!r}" for k, v in shape.items()] + [
        f"data={tmp_path / 'data'}", "mixture={'chat': 1}", f"out={tmp_path / 'base'}", f"tokens={STEP}"])
    old = {"eos_token_id": 1, "temperature": 0.7, "bos_token_id": 7}
    (tmp_path / "base/generation_config.json").write_text(json.dumps(old))
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps(config | {"eos_token_id": 1}))  # as in a published base
    train.main([f"{k}={v!r}" for k, v in (RUN | dict(lr=1e-2, max_epochs=1e9)).items()] + [
        f"data={tmp_path / 'data'}", "mixture={'chat': 1}", f"init={tmp_path / 'base'}", f"out={tmp_path / 'sft'}",
        f"tokens={150 * STEP}"])
    t, model = tokenizer.load(tmp_path / "sft"), Qwen2.from_pretrained(tmp_path / "sft")
    saved = json.loads((tmp_path / "sft/generation_config.json").read_text())
    stop_ids = [t.added_tokens["<|im_end|>"], t.added_tokens["<|endoftext|>"]]
    assert saved == old | {"eos_token_id": stop_ids} and t.stop_ids == stop_ids
    prompts = [t.encode_chat([{"role": "user", "content": f"{a} and {b}"}]) for a, b in ("ab", "gc", "hh")]
    out = generate.generate(model, prompts, 30, saved["eos_token_id"])
    right = sum(t.decode(ids) == want for ids, want in zip(out, ("b a", "c g", "h h")))
    assert all(len(ids) < 12 for ids in out) and right >= 2


# ---------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("changes, message", [
    (dict(mixture={"preference": 1}), "loss=lm, and the mixture .* reads preference pairs; set loss=dpo"),
    (dict(mixture={"chat": 1}, loss="dpo"),
     "loss=dpo, and the mixture .* reads no preference pairs; name the category"),
    (dict(mixture={"chat": 1}, loss="ppo"), "loss must be lm or dpo, got 'ppo'"),
    (dict(DPO, dpo_beta=0.0), "dpo_beta must be positive"),
    (dict(DPO, label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\)"),
    (dict(DPO, label_smoothing=-0.1), "label_smoothing"),
    (dict(mixture={"preference": 1, "en": 1}, loss="dpo"), "cannot be ")])
def test_misuse(go, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        go(tmp_path / "run", **changes)


def test_dpo_needs_a_model_to_align(chat_data, tmp_path):
    with pytest.raises(ValueError, match="loss=dpo needs init="):
        train.main([w for w in words(chat_data, "", tmp_path / "run", **DPO) if not w.startswith("init")])


# ---------------------------------------------------------------------- the chain

@pytest.mark.parametrize("family, size", [("tiny", ""), ("marco", ""), ("marco", "_72b")])
def test_the_stages_follow_one_another(root, family, size, monkeypatch):
    """Each starts from the folder of the one before; the paper's text is replayed; all numbers fit the program."""
    monkeypatch.setenv("LANGUAGES", "all")
    paths = [str(root / f"configs/{family}/{name}{size}.py") for name in ("stage2", "sft", "dpo")]
    stage2, sft, dpo_ = (configs.load(train.Train, ModelConfig, train.Estimate, argv=[path])[0] for path in paths)
    assert sft.init == stage2.out and dpo_.init == sft.out and len({stage2.out, sft.out, dpo_.out}) == 3
    assert (sft.loss, dpo_.loss) == ("lm", "dpo")
    assert set(paper.STAGE2) < set(sft.mixture) and sft.data[1] == stage2.data
    assert sft.steps > 500 or family == "tiny"
    shards, = configs.load(prepare.Prepare, argv=[str(root / f"configs/{family}/chats.py")])
    assert shards.out == sft.data[0] == dpo_.data
    made = {(s["category"], s["language"]) for s in shards.sources}
    for c in (sft, dpo_):
        for name in set(c.mixture) - {*paper.STAGE2, *demo_languages.REPLAYED_PAIRS}:
            assert tuple(name.split("/")) in made or name in {category for category, _ in made}, name
    assert {lang for category, lang in made if category == "preferences"} == set(language_table.MARCO)
