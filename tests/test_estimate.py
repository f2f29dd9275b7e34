"""estimate=True against figures computed by hand, and the numbers in the marco configs against what it prints."""
import re

import pytest
import torch

import train
from configs import load
from model import ModelConfig, Qwen2
from recipes import cards
from training import estimate


def settings(*words):
    """A small run: 8 rows of 16 tokens."""
    return load(train.Train, ModelConfig, estimate.Estimate,
                argv=["out=o", "data=d", "mixture={'en': 1}", "tokens=128", "seq_len=16", "batch_size=8",
                      "micro_batch_size=2", "estimate=True", *words])


@pytest.mark.parametrize("name, count, matrices", [  # matrices: without embedding, vectors and biases, with the head
    ("Qwen2-0.5B", 494_032_768, 493_961_216), ("Qwen2-1.5B", 1_543_714_304, 1_543_569_408),
    ("Qwen2-7B", 7_615_616_512, 7_070_285_824), ("Qwen2-72B", 72_706_203_648, 71_458_357_248)])
def test_published_parameter_counts(name, count, matrices):
    n = estimate.count_parameters(ModelConfig(**estimate.SHAPES[name]))
    assert n["all"] == count and n["matrices"] == matrices


def test_flops_of_a_token():
    """7B at 8k rows: 6 x 7.070 G, and 12 x 28 layers x 3584 channels x 4096.5 keys: 42.42 + 4.93 GFLOP; 72B: 461."""
    for name, gflop in (("Qwen2-7B", 42.4217 + 4.9330), ("Qwen2-72B", 428.750 + 32.217)):
        m = ModelConfig(**estimate.SHAPES[name])
        assert estimate.flops_per_token(m, estimate.count_parameters(m), 8192) / 1e9 == pytest.approx(gflop, rel=1e-4)


def test_activations_of_a_token():
    """Qwen2-7B, KiB over 28 layers: 4343 with everything kept, 196 with the layers' inputs."""
    m = ModelConfig(**estimate.SHAPES["Qwen2-7B"])
    kept = {r: estimate.activation_bytes(m, r)[0] * 28 / 1024 for r in (False, "selective", True)}
    assert kept[False] == pytest.approx(4343, abs=1) and kept[True] == 196
    assert kept["selective"] == pytest.approx((2 * (3 * 3584 + 2 * 3584 + 2 * 512 + 2 * 18944) + 4 * 28) * 28 / 1024)


def test_memory_of_a_gpu():
    """7B over 8: 7.616 G x 16 bytes / 8; in bfloat16 two blocks of 233,057,792 and the root's 1,089,998,336."""
    c, m, p = settings("shape=Qwen2-7B", "gpus=8", "seq_len=4096", "tokens=1000000")
    m = estimate.resolve_config(c.init, m, p.shape)
    used = estimate.memory_per_gpu(c, m, estimate.count_parameters(m), 8)
    assert used["masters"] + used["gradients"] + used["AdamW"] == 16 * 7_615_616_512 / 8
    assert used["bf16 gathered"] == 2 * (1_089_998_336 + 2 * 233_057_792)
    assert used["gradients at work"] == 6 * 233_057_792 + 2 * 1_089_998_336 + 4 * 152_064 * 3_584
    assert used["activations"] == 1 * 4096 * (28 * 158_832 + 158_832 + 6 * 3584)  # 8 rows on 8 GPUs: one each
    assert used["logits"] == 2 * 4096 * 152_064


def test_traffic():
    """7B on 64 H100 as 8 x 8: 7/8 of (2 x 2 x 7.616 - 2 x (1.090 + 0.233) + 4 x 7.616) GB over NVLink, then between
    nodes 2 x 7/8 x 4 x 7.616/8 GB."""
    c, m, p = settings("shape=Qwen2-7B", "gpus=64", "shard_size=8", "batch_size=64", "tokens=10000")
    n = estimate.count_parameters(ModelConfig(**estimate.SHAPES["Qwen2-7B"]))
    inside, between = estimate.traffic_seconds(c, n, 64, 8, "H100")
    assert inside == pytest.approx(7 / 8 * (30.4625 - 2.6461 + 30.4625) / 450, rel=1e-4)
    assert between == pytest.approx(2 * 7 / 8 * 4 * 7.6156 / 8 / 50, rel=1e-4)
    c, *_ = settings("shape=Qwen2-7B", "gpus=64", "batch_size=64", "tokens=10000")
    whole, none = estimate.traffic_seconds(c, n, 64, 8, "H100")
    assert none == 0 and whole == pytest.approx(63 / 64 * (30.4625 - 2.6461 + 30.4625) / (8 * 50), rel=1e-4)
    whole, _ = estimate.traffic_seconds(c, n, 64, 16, "H100")  # 16 ports bring in more than NVLink passes on
    assert whole == pytest.approx(63 / 64 * (30.4625 - 2.6461 + 30.4625) / 450, rel=1e-4)
    assert estimate.traffic_seconds(c, n, 1, 8, "H100") == (0, 0)


def test_the_report_of_a_run(capsys):
    """Days = tokens / (GPUs x MFU x FLOP/s / FLOP per token) where traffic is hidden; no data or GPU is used."""
    train.main(["configs/marco/stage1.py", "estimate=True", "gpus=64", "gpu=H100", "mfu=0.5"])
    said = capsys.readouterr().out
    speed = int(re.search(r"([\d,]+) tokens/s", said)[1].replace(",", ""))
    m = ModelConfig(**estimate.SHAPES["Qwen2-7B"])
    work = 2 * 4096 * estimate.flops_per_token(m, estimate.count_parameters(m), 4096) / (0.5 * 989.5e12)
    assert "7,615,616,512 parameters; 64 x H100: 8 x 8 (replicas x shards)" in said and "warning" not in said
    assert speed == pytest.approx(64 * 2 * 4096 / work, rel=0.01)
    assert f"{160e9 / speed / 86400:.1f} days" in said
    # a file of 0.25 GiB is held twice while it is written
    assert "memory of the host per GPU, GiB: saving 0.9, loading 0.7" in said


def test_recomputation_costs_a_forward_pass():
    seconds = []
    for more in ([], ["activation_checkpointing=True"]):
        lines, _, _ = estimate.estimate_run(*settings("shape=Qwen2-72B", "seq_len=8192", "tokens=1000000", *more))
        seconds.append(float(re.search(r"([\d.]+) s per micro-step at", lines[2])[1]))
    assert seconds[1] / seconds[0] == pytest.approx(4 / 3, rel=0.01)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="171.2 GiB do not fit 92% of 80: set more gpus"):
        train.main(["configs/marco/stage1_72b.py", "estimate=True", "gpus=8"])


def test_traffic_that_is_not_hidden_is_a_warning(capsys):
    words = ["estimate=True", "gpus=512", "gpu=H100", "shard_size=512", "micro_batch_size=1", "gpus_per_node=1"]
    train.main(["configs/marco/stage1.py", *words])
    assert "warning: traffic takes longer than compute; micro_batch_size=3 would hide it" in capsys.readouterr().out


@pytest.mark.parametrize("words, problem", [
    (["gpu=V100"], "gpu must be A100, H100, H200"), (["gpus=0"], "gpus must be positive"),
    (["mfu=1.5"], "mfu must be in"), (["gpus=3"], "batch_size=8 must be a multiple of gpus=3"),
    (["gpus=8", "shard_size=3"], "shard_size=3"), (["shape=Qwen3"], "shape must be"),
    (["init=nowhere/Qwen9"], "needs shape=")])
def test_misuse_is_one_clear_line(words, problem):
    with pytest.raises(ValueError, match=problem):
        train.main(["out=o", "data=d", "mixture={'en': 1}", "tokens=128", "seq_len=16", "batch_size=8", "estimate=True",
                    *words])


def test_the_table_of_cards_says_what_the_estimate_says(capsys):
    """Qwen2-1.5B with 8-bit moments: 23.5 GiB, recomputed 19.8; 92 % of 24 are 22.1."""
    cards.main(["models=['Qwen2-1.5B']", "cards=[16, 24, 48]"])
    row, = [line for line in capsys.readouterr().out.splitlines() if "int8" in line]
    words = "shape=Qwen2-1.5B", "gpus=1", "seq_len=2048", "tokens=2048", "batch_size=1", "micro_batch_size=1"
    for recompute, column in ((False, 0), (True, 1)):
        c, m, p = settings(*words, "moments=int8", f"activation_checkpointing={recompute}")
        said = re.search(r"([\d.]+) of 80", estimate.estimate_run(c, m, p)[0][1])[1]
        assert row.split("|")[3].split(",")[column].strip() == said
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["", "recomputed", "yes"]
    cards.main(["models=['Qwen2-7B']", "cards=[24]", "seq_len=512"])
    lora = capsys.readouterr().out.splitlines()[-1]
    assert "lora_rank=16" in lora and lora.endswith("| yes |")


@pytest.mark.parametrize("word, problem", [("models=['Qwen9']", "models are some of .* got 'Qwen9'"),
                                           ("models=[[1]]", "models are some of"), ("cards=[0]", "cards must be sizes"),
                                           ("seq_len=0", "seq_len and micro")])
def test_a_table_of_what_does_not_exist(word, problem):
    with pytest.raises(ValueError, match=problem):
        cards.main([word])


def test_a_checkpoint_at_hand_is_measured_itself(tmp_path):
    Qwen2(ModelConfig(num_hidden_layers=3)).init_weights(0).save_pretrained(tmp_path / "Qwen2-7B")
    assert estimate.resolve_config(str(tmp_path / "Qwen2-7B"), ModelConfig(), None).num_hidden_layers == 3
    assert estimate.resolve_config("nowhere/Qwen2-7B", ModelConfig(), None).hidden_size == 3584
    assert estimate.resolve_config(None, ModelConfig(hidden_size=64), None).hidden_size == 64


def test_saved_activations_are_what_the_plan_says():
    """On the CPU: with whole layers recomputed, autograd keeps the layers' inputs and the head's hidden states."""
    m = ModelConfig(num_hidden_layers=6)
    model, kept = Qwen2(m, torch.bfloat16, activation_checkpointing=True).init_weights(0), {}
    tokens = torch.randint(m.vocab_size, (1, 256))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        model(tokens, tokens)
    inputs = [t for t in kept.values() if t.shape == (1, 256, m.hidden_size) and t.dtype == torch.bfloat16]
    per_layer, _ = estimate.activation_bytes(m, True)
    assert sum(t.nbytes for t in inputs) == 256 * (m.num_hidden_layers * per_layer + 2 * m.hidden_size)


@pytest.mark.parametrize("config", ["stage1_1b5", "stage1", "stage1_72b"])
@pytest.mark.parametrize("gpus", [8, 64, 512])
def test_marco_configs_say_what_the_plan_says(root, config, gpus):
    path = root / "configs" / "marco" / f"{config}.py"
    settings = load(train.Train, ModelConfig, estimate.Estimate, argv=[str(path), f"gpus={gpus}"])
    _, summary, bad = estimate.estimate_run(*settings)
    assert f"#   {summary}{' (does not fit)' if bad else ''}\n" in path.read_text()


@pytest.mark.parametrize("config", ["stage2_1b5", "stage2", "stage2_72b"])
def test_the_second_stage_fits_as_the_first(root, config):
    one, two = (load(train.Train, ModelConfig, estimate.Estimate, argv=[str(root / "configs/marco" / f"{c}.py")])
                for c in (config.replace("2", "1", 1), config))
    assert estimate.estimate_run(*one)[0] == estimate.estimate_run(*two)[0] and not estimate.estimate_run(*two)[2]
