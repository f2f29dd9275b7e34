"""What a run says of memory before it starts: the figures by hand, what is free, and the refusal of what cannot fit."""
import shutil
from types import SimpleNamespace

import pytest
import torch

import train
from configs import load
from model import ModelConfig
from training import checkpoint, estimate, memory

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def settings(*words):
    return load(train.Train, argv=["out=o", "data=d", "mixture={'en': 1}", "tokens=16384", "seq_len=512",
                                   "batch_size=4", "micro_batch_size=2", *words])[0]


def world(device, dtype=torch.bfloat16, size=1, sharded=False):
    return SimpleNamespace(device=device, dtype=dtype, world_size=size, is_sharded=sharded, all_gather=lambda x: [x])


@pytest.fixture
def half_billion():
    """Qwen2-0.5B and its 494,032,768 parameters, 136,134,656 of them in the tied embedding."""
    config = ModelConfig(**estimate.SHAPES["Qwen2-0.5B"])
    return config, estimate.count_parameters(config)


def test_a_gpu_trains_and_the_host_saves(half_billion):
    """16 bytes a parameter and what memory_per_gpu adds; of the host, two copies of a file and the process."""
    c = settings()
    needed = memory.memory_needed(c, *half_billion, world(GPU))
    assert needed["training"] == sum(estimate.memory_per_gpu(c, *half_billion, 1).values()) > 16 * 494_032_768
    assert needed["saving"] == memory.PROCESS + 2 * checkpoint.FILE_BYTES
    assert needed["loading"] == memory.PROCESS + checkpoint.FILE_BYTES


def test_a_cpu_holds_everything(half_billion):
    """Weights and moments stay while a checkpoint is written: 12 bytes a parameter. Without a cast, activations have
    four bytes and no weight is copied."""
    c, n = settings(), 494_032_768
    half, full = (memory.memory_needed(c, *half_billion, world(CPU, dtype)) for dtype in (torch.bfloat16,
                                                                                          torch.float32))
    parts = estimate.memory_per_gpu(c, *half_billion, 1)
    assert half["training"] - sum(parts.values()) == pytest.approx(memory.PROCESS + parts["activations"])
    assert full["training"] - half["training"] == pytest.approx(2 * parts["activations"] - 2 * n)
    assert half["saving"] == pytest.approx(12 * n + memory.PROCESS + 2 * checkpoint.FILE_BYTES)


def test_gpus_share_a_model_and_replicas_do_not(half_billion):
    one, eight, replica = (memory.memory_needed(settings("batch_size=16"), *half_billion, w)["training"]
                           for w in (world(GPU), world(GPU, size=8, sharded=True), world(CPU, size=8)))
    assert eight < one / 2 and replica > one


def test_new_rows_alone_need_no_moments_of_the_rest(half_billion):
    every, new = (memory.memory_needed(settings(*words), *half_billion, world(GPU))["training"]
                  for words in ((), ("init=x", "first_new_id=7")))
    assert every - new == pytest.approx(12 * (494_032_768 - 136_134_656))


def test_the_control_group_counts_when_it_is_smaller(monkeypatch):
    """64 GiB free on the machine; the group may take 8, has taken 6, and could drop 1 of files it has cached."""
    files = {"/proc/meminfo": ["MemTotal: 1 kB", f"MemAvailable:   {64 << 20} kB"],
             "/sys/fs/cgroup/memory.max": [str(8 << 30)], "/sys/fs/cgroup/memory.current": [str(6 << 30)],
             "/sys/fs/cgroup/memory.stat": ["anon 5", f"inactive_file {1 << 30}"]}
    monkeypatch.setattr(memory, "read_lines", lambda path: files.get(path, []))
    assert memory.free_memory(CPU) == 3 << 30
    files["/sys/fs/cgroup/memory.max"] = ["max"]
    assert memory.free_memory(CPU) == 64 << 30
    files.clear()
    assert memory.free_memory(CPU) is None


def go(data, out, *words):
    train.main([f"data={data}", f"out={out}", "mixture={'en': 1}", "tokens=512", "seq_len=64", "batch_size=4",
                "vocab_size=64", "hidden_size=32", "intermediate_size=64", "num_hidden_layers=2",
                "num_attention_heads=4", "num_key_value_heads=2", "threads=1", "dtype=float32", *words])


def test_a_run_begins_with_its_memory(token_data, tmp_path, capsys):
    go(token_data, tmp_path / "run")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("memory, GiB: training 0.4") and "of the host (" in first and "loading 0.4" in first


def test_what_does_not_fit_is_refused_before_the_first_step(token_data, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 0.3 * memory.GIB)
    with pytest.raises(ValueError, match=r"training 0\.4\d of the host \(0\.30 free\).*does not fit: set a smaller "
                                         r"micro_batch_size or a smaller seq_len or activation_checkpointing=True or "
                                         r"moments=int8 or dtype=bfloat16"):
        go(token_data, tmp_path / "run", "micro_batch_size=4")
    assert not (tmp_path / "run" / "log.jsonl").exists()
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    go(token_data, tmp_path / "run")


def test_the_replicas_of_a_cpu_share_its_memory(half_billion, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1.5 * needed)
    needed = memory.memory_needed(settings(), *half_billion, world(CPU))["training"]
    assert "free" in memory.check_memory(settings(), *half_billion, world(CPU))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="does not fit"):
        memory.check_memory(settings(), *half_billion, world(CPU, size=2))


def test_a_gpu_is_told_of_more_gpus(half_billion, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: memory.GIB)
    with pytest.raises(ValueError, match="of each GPU .1.00 free.*moments=int8, or use more GPUs"):
        memory.check_memory(settings(), *half_billion, world(GPU))


def test_a_checkpoint_is_written_in_files_of_bounded_size(token_data, tmp_path, monkeypatch):
    """A matrix of 64 x 32 floats takes 8 KiB: two fit a file of 16 KiB. The pieces resume to the same bits."""
    monkeypatch.setattr(checkpoint, "FILE_BYTES", 16 << 10)
    go(token_data, tmp_path / "whole", "save_every=1")
    files = list((tmp_path / "whole" / "checkpoints" / "step-00000002" / "tensors").glob("*.safetensors"))
    assert len(files) > 5 and max(file.stat().st_size for file in files) < (16 << 10) + 4096
    model = (tmp_path / "whole" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-00000002")
    (tmp_path / "whole" / "model.safetensors").unlink()
    go(token_data, tmp_path / "whole", "save_every=1", "resume=True")
    assert (tmp_path / "whole" / "run-step-00000001.json").exists()  # it did not start over
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == model
