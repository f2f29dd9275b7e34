"""LoRA: PEFT's format in and out with PEFT's logits, a frozen base, exact resume, any number of processes."""
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import model as model_program
import train
from hf import adapters
from hf.export import METADATA
from hf.weights import open_weights
from model import ModelConfig, Qwen2
from tests.test_train import SHAPE, STEP, command, log_of, wait_for, words
from training import estimate
from training.lora import Lora, LoraLinear, adapter_parameters, add_lora, init_adapter

pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")
LORA = Lora(4, 8.0, 2.0, sorted(adapters.LINEARS))
FREE = dict.fromkeys(SHAPE, ...)  # init= brings the shape


@pytest.fixture(scope="module")
def base(tmp_path_factory, token_data):
    """Pretrained for 60 steps on one of the languages."""
    folder = tmp_path_factory.mktemp("base")
    train.main(words(token_data, folder / "run", 60, mixture={"en": 1}))
    Qwen2.from_pretrained(folder / "run").save_pretrained(folder / "model")  # without the data's placeholder tokenizer
    return folder / "model"


@pytest.fixture
def go(token_data, base):
    """A function: train a LoRA on the base in this process and return its tensors."""
    def run(out, steps=6, data=token_data, **changes):
        settings = FREE | {"init": base, "lora_rank": 4, "lr": 5e-2} | changes
        train.main(words(data, out, steps, **settings))
        return load_file(Path(out) / adapters.WEIGHTS)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, token_data, base):
    """A finished run of 6 steps with checkpoints at 2, 4 and 6."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train.main(words(token_data, out, 6, **FREE, init=base, lora_rank=4, lr=5e-2, save_every=2, keep_checkpoints=3))
    return out


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def logits(model, seed=0):
    tokens = torch.randint(1, SHAPE["vocab_size"], (3, 17), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.lm_head(model.hidden_states(tokens)), tokens


def with_adapter(base, folder):
    """The base with the adapter beside its weights, as in training."""
    model = Qwen2.from_pretrained(base)
    config = adapters.read_adapter_config(folder)
    add_lora(model, Lora(config["rank"], config["alpha"], config["scale"], config["targets"]))
    init_adapter(model, 0, folder)
    return model


def refused(argv, *needles):
    with pytest.raises(ValueError) as e:
        train.main(argv)
    assert all(needle in str(e.value) for needle in needles), e.value


# ---------------------------------------------------------------------- the mechanism

def test_a_fresh_adapter_changes_no_bit(base):
    plain, adapted = Qwen2.from_pretrained(base), Qwen2.from_pretrained(base)
    add_lora(adapted, LORA)
    init_adapter(adapted, 0)
    assert torch.equal(logits(plain)[0], logits(adapted)[0])
    assert sum(isinstance(m, LoraLinear) for m in adapted.modules()) == 7 * SHAPE["num_hidden_layers"]


def test_the_product_is_added_with_its_scale():
    linear = model_program.Linear(5, 3)
    lora = LoraLinear(linear, Lora(2, 6.0, 3.0, []))
    x = torch.randn(4, 5)
    expected = linear(x) + 3.0 * x @ lora.lora_A.weight.T @ lora.lora_B.weight.T
    torch.testing.assert_close(lora(x), expected)


def test_only_the_adapter_is_trained_and_the_base_keeps_its_bits(go, base, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(train, "make_optimizer", lambda m, c, make=train.make_optimizer: models.append(m) or make(m, c))
    go(tmp_path / "run")
    model, stored = models[0], open_weights(base)
    trained = adapter_parameters(model)
    assert len(trained) == 2 * 7 * SHAPE["num_hidden_layers"]
    assert all(bool(p.any()) for p in trained.values())
    for name, p in model.base_parameters().items():
        assert not p.requires_grad and p.grad is None and torch.equal(p, stored[name].read()), name


def test_a_frozen_head_gets_no_gradient_and_the_input_the_same():
    from kernels import target_logprobs
    x, weight = torch.randn(6, 8), torch.randn(20, 8)
    targets = torch.tensor([1, 2, -100, 4, 5, 6])
    for g in (torch.ones(6), torch.arange(6.0)):  # the even and the uneven upstream gradient
        grads = []
        for frozen in (False, True):
            a, w = x.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
            (target_logprobs(a, w, targets) * g).sum().backward()
            grads.append(a.grad)
            assert (w.grad is None) == frozen
        assert torch.equal(*grads)


def test_the_loss_falls(go, tmp_path):
    go(tmp_path / "run", steps=60, log_every=10, lora_rank=8, mixture={"zh": 1})
    losses = [row["loss"] for row in log_of(tmp_path / "run") if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("changes, bound", [  # AdamW's first steps raise the rounding of a sum of micro-batches
    ({"activation_checkpointing": True}, 0), ({"activation_checkpointing": "selective"}, 0),
    ({"micro_batch_size": 1}, 2e-5)])
def test_settings_of_memory_change_no_result(go, trained, tmp_path, changes, bound):
    assert difference(go(tmp_path / "run", **changes), load_file(trained / adapters.WEIGHTS)) <= bound


def test_some_targets(go, tmp_path):
    tensors = go(tmp_path / "run", lora_targets=["v_proj", "q_proj"], lora_alpha=4)
    assert {name.split(".")[-3] for name in tensors} == {"q_proj", "v_proj"}
    config = json.loads((tmp_path / "run" / adapters.CONFIG).read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"] and config["lora_alpha"] == 4


def test_a_base_in_bfloat16(go, base, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(train, "make_optimizer", lambda m, c, make=train.make_optimizer: models.append(m) or make(m, c))
    go(tmp_path / "run", frozen_dtype="bfloat16")
    model = models[0]
    assert {p.dtype for p in model.base_parameters().values()} == {torch.bfloat16}
    assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    rounded = {name: s.read().bfloat16() for name, s in open_weights(base).items()}
    assert all(torch.equal(p, rounded[name]) for name, p in model.base_parameters().items())


# ---------------------------------------------------------------------- PEFT's format

def test_the_files_are_pefts(trained):
    """adapter_config.json's fields and the tensors' names and shapes as PEFT's documentation shows them."""
    config = json.loads((trained / adapters.CONFIG).read_text())
    assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM" and config["bias"] == "none"
    assert config["r"] == 4 and config["lora_alpha"] == 8 and set(config["target_modules"]) == set(adapters.LINEARS)
    tensors = load_file(trained / adapters.WEIGHTS)
    assert len(tensors) == 2 * 7 * SHAPE["num_hidden_layers"]
    name = "base_model.model.model.layers.1.mlp.down_proj"
    assert tensors[f"{name}.lora_A.weight"].shape == (4, SHAPE["intermediate_size"])
    assert tensors[f"{name}.lora_B.weight"].shape == (SHAPE["hidden_size"], 4)
    assert not (trained / "model.safetensors").exists()


def test_logits_equal_pefts(base, trained, tmp_path):
    """PEFT reads our folder, we read PEFT's, and both merge to the same model."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
    ours, tokens = logits(with_adapter(base, trained))
    assert float((logits(Qwen2.from_pretrained(base))[0] - ours).abs().max()) > 0.1
    adapted = peft.PeftModel.from_pretrained(theirs, trained)
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, ours, atol=1e-5, rtol=1e-5)
    adapted.save_pretrained(tmp_path / "theirs")
    assert same(load_file(tmp_path / "theirs" / adapters.WEIGHTS), load_file(trained / adapters.WEIGHTS))
    torch.testing.assert_close(logits(with_adapter(base, tmp_path / "theirs"))[0], ours, atol=0, rtol=0)
    model_program.main(["export", str(trained), str(tmp_path / "merged")])
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, logits(Qwen2.from_pretrained(tmp_path / "merged"))[0],
                                   atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_that_peft_made(base, go, tmp_path, rslora):
    """Of some layers' attention, with a scale of its own; merged on export, though the folder has no tokenizer."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "o_proj"], layers_to_transform=[1],
                             use_rslora=rslora, init_lora_weights=False)
    adapted = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(tmp_path / "theirs")
    model_program.main(["export", str(tmp_path / "theirs"), str(tmp_path / "merged")])
    assert not adapters.is_adapter(tmp_path / "merged")
    ours, tokens = logits(Qwen2.from_pretrained(tmp_path / "merged"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, ours, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="in all layers of the model; the folder lacks model.layers.0.self_attn"):
        go(tmp_path / "run", adapter=tmp_path / "theirs", lora_rank=...)


def test_an_adapter_is_read_merged(base, trained, tmp_path):
    """Wherever a model is read: eval.py, generate.py, export, merge_weights. Its checkpoints, too."""
    beside = logits(with_adapter(base, trained))[0]
    for folder in (trained, trained / "checkpoints" / "step-00000006"):
        torch.testing.assert_close(logits(Qwen2.from_pretrained(folder))[0], beside, atol=1e-5, rtol=1e-5)
    model_program.main(["export", str(trained), str(tmp_path / "out"), "dtype=bfloat16"])
    stored = open_weights(tmp_path / "out")
    assert {s.dtype for s in stored.values()} == {torch.bfloat16}
    name = "model.layers.0.self_attn.k_proj"
    tensors = {k.removeprefix(adapters.PREFIX): v for k, v in load_file(trained / adapters.WEIGHTS).items()}
    product = 2.0 * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    expected = (open_weights(base)[f"{name}.weight"].read() + product).bfloat16()
    assert torch.equal(stored[f"{name}.weight"].read(), expected)
    merged = open_weights(trained)[f"{name}.weight"]
    torch.testing.assert_close(merged.read(3, 5), merged.read()[3:5])


def test_a_checkpoint_holds_the_adapter_alone(trained):
    """Its matrices and their two moments, and not a byte of the base."""
    files = list((trained / "checkpoints" / "step-00000004" / "tensors").glob("*.safetensors"))
    names = [name for file in files for name in load_file(file)]
    assert len(names) == 3 * 2 * 7 * SHAPE["num_hidden_layers"] and all(".lora_" in name for name in names)


def test_an_adapter_trained_on(go, trained, tmp_path, base):
    """adapter= starts from its values; a run of no visible learning rate ends there."""
    before = load_file(trained / adapters.WEIGHTS)
    after = go(tmp_path / "run", steps=1, adapter=trained, lora_rank=..., lr=1e-12, weight_decay=0)
    assert difference(before, after) < 1e-9
    config = json.loads((tmp_path / "run" / adapters.CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, str(base))


# ---------------------------------------------------------------------- SFT, DPO, resume, processes

def test_sft_and_dpo(go, chat_data, tmp_path):
    """The reference of DPO is the base with the fresh adapter, or with the one that is trained on."""
    sft = tmp_path / "sft"
    go(sft, data=chat_data, mixture={"chat": 1})
    some = dict(data=chat_data, mixture={"preference": 1}, loss="dpo", seq_len=64)
    for name, changes in (("fresh", {}), ("on", {"adapter": sft, "lora_rank": ...})):
        go(tmp_path / name, steps=4, **some, **changes)
        rows = log_of(tmp_path / name)
        assert next(r["noise"] for r in rows if "noise" in r) < 1e-4  # before the first step it is the model itself
        assert [r for r in rows if "held_out" in r][-1]["held_out"]["en"]["kl"] != 0
    refused(words(chat_data, tmp_path / "other", 4, **FREE, init=(tmp_path / "sft"), **{
        k: v for k, v in some.items() if k != "data"}, lora_rank=4), "is an adapter", "adapter=")


@pytest.mark.parametrize("loss", ["lm", "dpo"])
def test_resume_is_exact(go, trained, chat_data, tmp_path, loss):
    data = {} if loss == "lm" else dict(data=chat_data, mixture={"preference": 1}, loss="dpo", seq_len=32)
    whole = go(tmp_path / "whole", save_every=2, keep_checkpoints=9, **data)
    for later in ("step-00000004", "step-00000006"):
        shutil.rmtree(tmp_path / "whole" / "checkpoints" / later)
    (tmp_path / "whole" / adapters.WEIGHTS).unlink()
    assert same(go(tmp_path / "whole", save_every=2, resume=True, **data), whole)
    assert loss == "dpo" or same(whole, load_file(trained / adapters.WEIGHTS))


def test_a_finished_run_goes_on(go, tmp_path, monkeypatch):
    """Its own adapter is no file of another's, and the disk needs room for the adapter alone."""
    first = go(tmp_path / "run", steps=4, save_every=2)
    size = sum(8 * tensor.numel() + 4 * tensor.numel() for tensor in first.values())
    disk = SimpleNamespace(total=10 ** 12, used=0, free=size + size // 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    again = go(tmp_path / "run", steps=8, save_every=8, resume=True)
    assert not same(first, again)
    disk.free -= 1
    with pytest.raises(ValueError, match="GB are free"):
        go(tmp_path / "run", steps=16, save_every=8, resume=True)


@pytest.mark.parametrize("changes, needles", [
    ({"lora_rank": 5}, ("another lora", "'rank': 4", "'rank': 5")), ({"lora_alpha": 3.0}, ("another lora", "3.0")),
    ({"lora_targets": ["q_proj"]}, ("another lora",)), ({"lora_rank": ...}, ("another lora", "None")),
    ({"init": "other"}, ("another base",))])
def test_resuming_another_adapter_is_refused(token_data, base, trained, tmp_path, changes, needles):
    """Also on a base of which only a bit differs."""
    out = shutil.copytree(trained, tmp_path / "run")
    other = Path(shutil.copytree(base, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, other / "model.safetensors", metadata=METADATA)
    changes = {k: (other if v == "other" else v) for k, v in changes.items()}
    settings = FREE | {"init": base, "lora_rank": 4, "lr": 5e-2, "resume": True} | changes
    refused(words(token_data, out, 6, **settings), *needles)


def launch(root, data, out, processes, **settings):
    done = subprocess.run(command(root, data, out, 6, processes, **settings), capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out / adapters.WEIGHTS)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"shard_size": 2}, {"shard_size": 2, "frozen_dtype": "bfloat16"},
                                     {"shard_size": 2, "activation_checkpointing": True, "micro_batch_size": 1}])
def test_two_processes_equal_one(root, token_data, base, go, tmp_path, changes):
    """As replicas and under FSDP2 with frozen weights; a sharded run resumes bit for bit, and in one process."""
    settings = FREE | {"init": base, "lora_rank": 3, "lr": 5e-2, "micro_batch_size": 2, "save_every": 2,
                       "keep_checkpoints": 9} | changes
    two = launch(root, token_data, tmp_path / "two", 2, **settings)
    alone = {k: v for k, v in settings.items() if k != "shard_size" and k not in SHAPE}
    assert difference(two, go(tmp_path / "one", **alone)) <= 1e-5
    for later in ("step-00000004", "step-00000006"):
        shutil.rmtree(tmp_path / "two" / "checkpoints" / later)
    shutil.copytree(tmp_path / "two", tmp_path / "copy")
    assert same(launch(root, token_data, tmp_path / "two", 2, resume=True, **settings), two)
    assert difference(go(tmp_path / "copy", resume=True, **alone), two) <= 1e-5


@pytest.mark.slow
def test_killed_and_resumed(root, token_data, base, go, tmp_path):
    settings = FREE | {"init": base, "lora_rank": 4, "lr": 5e-2, "save_every": 20}
    process = subprocess.Popen(command(root, token_data, tmp_path / "run", 400, **settings), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: any(p.suffix != ".tmp" for p in (tmp_path / "run/checkpoints").glob("step-*")), 60, process)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    resumed = go(tmp_path / "run", steps=400, resume=True, save_every=20)
    assert same(resumed, go(tmp_path / "whole", steps=400, save_every=20))


# ---------------------------------------------------------------------- memory

def test_the_estimate_counts_a_frozen_base(base):
    def memory(**changes):
        c = train.Train(out="", data="", mixture={"en": 1}, tokens=10 * STEP, batch_size=4, seq_len=32,
                        init=str(base), **changes)
        config = ModelConfig(**SHAPE)
        n = estimate.count_parameters(config, train.lora_settings(c))
        return n, estimate.memory_per_gpu(c, config, n, 1)
    n, whole = memory()
    lora, small = memory(lora_rank=4, frozen_dtype="bfloat16")
    c, i, kv = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["hidden_size"] // 2
    linears = [(c, c), (c, kv), (c, kv), (c, c), (c, i), (c, i), (i, c)]
    assert n["adapter"] == 0 and lora["adapter"] == 2 * 4 * sum(a + b for a, b in linears)
    assert small["bf16 gathered"] == 2 * lora["adapter"] and whole["bf16 gathered"] == 2 * n["all"]
    assert small["frozen"] == 2 * n["all"] and "frozen" not in whole and lora["all"] == n["all"]
    assert small["masters"] == small["gradients"] == 4 * lora["adapter"] and small["AdamW"] == 8 * lora["adapter"]
    per_token = [estimate.flops_per_token(ModelConfig(**SHAPE), k, 1) for k in (n, lora)]
    assert per_token[0] - per_token[1] == 2 * n["matrices"] - 6 * lora["adapter"]


def test_the_estimate_prints_it(capsys):
    train.main(["configs/marco/stage1_1b5.py", "estimate=True", "gpus=1", "gpus_per_node=1", "lora_rank=16",
                "frozen_dtype=bfloat16", "batch_size=8"])
    said = capsys.readouterr().out
    assert "of LoRA" in said and "frozen 2.9" in said


# ---------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("changes, needles", [
    ({"lora_rank": 0}, ("lora_rank must be positive",)), ({"lora_alpha": -1.0}, ("lora_alpha must be positive",)),
    ({"lora_targets": ["q_proj", "wq"]}, ("lora_targets", "q_proj, k_proj", "'wq'")),
    ({"lora_targets": []}, ("lora_targets",)), ({"frozen_dtype": "float16"}, ("frozen_dtype", "bfloat16")),
    ({"init": ...}, ("LoRA needs init=",)), ({"first_new_id": 60}, ("first_new_id",)),
    ({"lora_rank": ..., "lora_alpha": 8.0}, ("lora_alpha is a setting of LoRA; set lora_rank=",)),
    ({"lora_rank": ..., "frozen_dtype": "bfloat16"}, ("frozen_dtype is a setting of LoRA",)),
    ({"adapter": "x"}, ("adapter=x brings its own", "remove lora_rank")),
    ({"lora_rank": ..., "adapter": "nowhere"}, ("adapter=nowhere: no adapter_config.json",))])
def test_misuse_is_named(token_data, base, tmp_path, changes, needles):
    refused(words(token_data, tmp_path / "run", 4, **FREE | {"init": base, "lora_rank": 4} | changes), *needles)


@pytest.fixture
def foreign(trained, tmp_path):
    """A function: a copy of the trained adapter with fields of its adapter_config.json changed."""
    def make(**changes):
        folder = tmp_path / "foreign"
        folder.mkdir()
        for name in (adapters.CONFIG, adapters.WEIGHTS):
            shutil.copyfile(trained / name, folder / name)
        config = json.loads((folder / adapters.CONFIG).read_text()) | changes
        (folder / adapters.CONFIG).write_text(json.dumps(config))
        return folder
    return make


@pytest.mark.parametrize("changes, needles", [
    ({"peft_type": "IA3"}, ("peft_type", "LORA")), ({"r": 0}, ("r is 0",)), ({"r": 8}, ("rank 8", "lora_A (4, 64)")),
    ({"lora_alpha": "big"}, ("lora_alpha",)), ({"use_dora": True}, ("use_dora",)), ({"bias": "all"}, ("bias",)),
    ({"modules_to_save": ["lm_head"]}, ("modules_to_save", "not implemented")),
    ({"rank_pattern": {"q_proj": 2}}, ("rank_pattern",)), ({"init_lora_weights": "pissa"}, ("init_lora_weights",)),
    ({"a_field_of_tomorrow": 1}, ("a_field_of_tomorrow",)), ({"target_modules": None}, ("target_modules",)),
    ({"base_model_name_or_path": None}, ("base_model_name_or_path",)),
    ({"base_model_name_or_path": "Qwen/Qwen2-9B"}, ("Qwen/Qwen2-9B is not a folder", "models/Qwen2-9B"))])
def test_foreign_adapters_that_are_not_implemented(foreign, tmp_path, changes, needles):
    with pytest.raises(ValueError) as e:
        model_program.main(["export", str(foreign(**changes)), str(tmp_path / "out")])
    assert all(needle in str(e.value) for needle in needles) and not (tmp_path / "out").exists(), e.value


@pytest.mark.parametrize("change, needle", [
    (lambda t: t.pop(f"{adapters.PREFIX}model.layers.0.mlp.up_proj.lora_B.weight"), "only one of lora_A and lora_B"),
    (lambda t: t.update({f"{adapters.PREFIX}lm_head.weight": torch.ones(2, 2)}), "lm_head.weight is no matrix of a Lo"),
    (lambda t: t.update({f"{adapters.PREFIX}model.layers.9.mlp.up_proj.lora_{x}.weight": torch.ones(4, 4)
                         for x in "AB"}), "adapts model.layers.9.mlp.up_proj, which its base")])
def test_tensors_that_do_not_fit(foreign, change, needle):
    folder = foreign()
    tensors = load_file(folder / adapters.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / adapters.WEIGHTS)
    with pytest.raises(ValueError, match=needle):
        open_weights(folder)


def test_folders_without_weights_or_on_an_adapter(foreign, trained):
    folder = foreign(base_model_name_or_path=str(trained))
    with pytest.raises(ValueError, match="is an adapter, too; export that one first"):
        open_weights(folder)
    (folder / adapters.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="pickled ones .* never read"):
        open_weights(folder)


def test_a_base_named_by_the_hub(foreign, base, tmp_path, monkeypatch):
    """A name like Qwen/Qwen2-1.5B is looked for in models/, where the README downloads it to."""
    folder = foreign(base_model_name_or_path="Qwen/Qwen2-0B")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "models" / "Qwen2-0B")
    assert set(open_weights(folder)) == set(open_weights(base))


