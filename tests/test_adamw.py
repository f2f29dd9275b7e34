"""Moments in bfloat16 and 8 bits: what storing costs, a step against float64, memory to the byte, exact resume, any
number of processes."""
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import train
from configs import load
from hf.weights import open_weights
from model import ModelConfig, Qwen2
from training import adamw, checkpoint, estimate, memory

SMALL = ["bfloat16", "int8"]
SHAPE = dict(vocab_size=67, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")
LARGEST = (1 << 16) - 1  # of the random integers


def words(data, out, steps=8, /, **changes):
    settings = SHAPE | dict(data=data, out=out, mixture={"en": 1}, tokens=steps * 128, seq_len=32, batch_size=4,
                            micro_batch_size=4, lr=1e-2, warmup_ratio=0.1, dtype="float32", threads=1, eval_every=1000,
                            log_every=1000, eval_tokens=100, save_every=4, keep_checkpoints=9) | changes
    return [f"{k}={v}" for k, v in settings.items() if v is not ...]


def settings_of(**changes):
    return load(train.Train, ModelConfig, argv=words("d", "o", **changes))[0]


@pytest.fixture
def go(token_data):
    def run(out, steps=8, **changes):
        train.main(words(token_data, out, steps, **changes))
        return (out / "model.safetensors").read_bytes() if (out / "model.safetensors").exists() else b""
    return run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "base"
    Qwen2(ModelConfig(**SHAPE)).init_weights(0).save_pretrained(folder)
    return folder


FROM_BASE = dict.fromkeys(SHAPE, ...)
PARTS = {"all": {}, "lora": {"lora_rank": 4}, "new rows": {"first_new_id": 60}}  # what is trained


def part_of(base, part):
    return FROM_BASE | {"init": base} | PARTS[part] if PARTS[part] else {}


def tensors_of(path):
    """A checkpoint's tensors; each process has written its rows of them, in order."""
    parts = {}
    for file in sorted((path / "tensors").glob("*.safetensors")):
        for name, x in load_file(file).items():
            parts.setdefault(name, []).append(x)
    return {name: torch.cat(some) for name, some in parts.items()}


def optimizer(p, moments, lr=1e-3, beta2=0.95, weight_decay=0.1):
    return adamw.LowBitAdamW([{"params": [p], "weight_decay": weight_decay}], lr, (0.9, beta2), moments)


def moments_of(o, p):
    """Both moments of a parameter, in float64."""
    kept = adamw.moment_tensors(o, p)
    return [adamw.read(kept[name], kept.get(f"{name}_scale")).double() for name in adamw.MOMENTS]


# ---------------------------------------------------------------------- storing and reading

@pytest.mark.parametrize("columns, blocks", [(1, 1), (128, 1), (256, 1), (576, 3), (896, 4), (4864, 19), (18944, 74),
                                             (29568, 128), (514, 1), (257, 1)])
def test_a_row_divides_into_blocks_of_equal_size(columns, blocks):
    """At most 256 values; 514 is 2 x 257, which would make blocks of two."""
    assert adamw.blocks_of(columns) == blocks and columns % blocks == 0


@pytest.mark.parametrize("noise", [0, LARGEST, None])
@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-4, 1.0, 1e2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.uint8])
def test_what_is_read_is_within_a_step_of_what_was_written(dtype, size, noise):
    """Values over ten orders of magnitude, largest in blocks of about `size`. bfloat16 has steps of 2^-7 of the value;
    8 bits of 1/127 and 1/255 in the fourth root, in units of the block's largest. No second moment becomes 0."""
    generator = torch.Generator().manual_seed(1)
    x = size * 10 ** (-10 * torch.rand(32, 512, generator=generator))
    x *= 1 if dtype == torch.uint8 else torch.randint(2, x.shape, generator=generator) * 2 - 1
    random = torch.randint(1 << 16, x.shape, generator=generator, dtype=torch.int32)
    random = random if noise is None else torch.full_like(random, noise)
    stored, scale = torch.empty(x.shape, dtype=dtype), None if dtype == torch.bfloat16 else torch.empty(32, 2)
    adamw.write(x.clone(), stored, scale, random)
    ours, x = adamw.read(stored, scale).double(), x.double()
    if scale is None:
        assert ((ours - x).abs() <= 2 ** -7 * x.abs()).all()
        return
    largest = x.view(32, 2, 256).abs().amax(-1).repeat_interleave(256, 1)
    assert ((ours / largest).abs() ** 0.25 - (x / largest).abs() ** 0.25).abs().max() <= 1.001 / torch.iinfo(dtype).max
    assert (ours * x >= 0).all() and (scale.double() == x.view(32, 2, 256).abs().amax(-1)).all()
    if dtype == torch.uint8:
        assert (ours >= 0.99 * largest / 255 ** 4).all()


@pytest.mark.parametrize("dtype, step", [(torch.bfloat16, 2 ** -7), (torch.int8, 4 / 127), (torch.uint8, 4 / 255)])
def test_rounding_is_right_on_average(dtype, step):
    """0.7 beside 1: over all random integers the mean is a hundred times closer than a step."""
    random = torch.arange(1 << 16, dtype=torch.int32).view(256, 256).T.contiguous()  # each block has all sizes
    x = torch.full((256, 256), 0.7)
    x[:, 0] = 1
    stored, scale = torch.empty(x.shape, dtype=dtype), None if dtype == torch.bfloat16 else torch.empty(256, 1)
    adamw.write(x, stored, scale, random)
    ours = adamw.read(stored, scale)[:, 1:]
    assert len(ours.unique()) == 2 and abs(float(ours.double().mean()) - 0.7) <= step / 100


def test_blocks_of_zeros_stay_zero():
    stored, scale = torch.ones(2, 64, dtype=torch.int8), torch.ones(2, 1)
    adamw.write(torch.zeros(2, 64), stored, scale, torch.full((2, 64), LARGEST, dtype=torch.int32))
    assert not stored.any() and not scale.any() and not adamw.read(stored, scale).any()


# ---------------------------------------------------------------------- the step

@pytest.mark.parametrize("moments", SMALL)
@pytest.mark.parametrize("shape", [(5, 300), (3000, 33), (7, 514), (40,)])
def test_a_step_is_that_of_float64_on_the_moments_read(moments, shape):
    """Five steps, each from what is stored. The new moments are within a step of what they should be, the weights
    within float32's rounding. Vectors are not rounded. The second shape is updated in two parts."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.randn(shape, generator=generator))
    o = optimizer(p, moments)
    for step in range(1, 6):
        before, w = moments_of(o, p), p.detach().double()
        p.grad = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator) ** 3
        g = p.grad.double()
        o.step()
        m, v = 0.9 * before[0] + 0.1 * g, 0.95 * before[1] + 0.05 * g * g
        update = m / (1 - 0.9 ** step) / ((v / (1 - 0.95 ** step)).sqrt() + 1e-8)
        assert (p.detach().double() - (w * (1 - 1e-3 * 0.1) - 1e-3 * update)).abs().max() <= 1e-6
        for ours, x, levels in zip(moments_of(o, p), (m, v), (127, 255)):
            if len(shape) == 1:
                assert torch.allclose(ours, x, rtol=1e-5, atol=1e-9)
            elif moments == "bfloat16":
                assert ((ours - x).abs() <= 2 ** -7 * 1.01 * x.abs()).all()
            else:
                largest = x.view(shape[0], adamw.blocks_of(shape[1]), -1).abs().amax(-1, keepdim=True)
                roots = [t.view(*largest.shape[:2], -1).div(largest).abs() ** 0.25 for t in (ours, x)]
                assert (roots[0] - roots[1]).abs().max() <= 1.01 / levels


def test_torch_updates_moments_in_float32():
    o = train.make_optimizer(Qwen2(ModelConfig(**SHAPE)).init_weights(0), settings_of())
    assert type(o) is torch.optim.AdamW and o.defaults["fused"]


def second_moment(moments, monkeypatch=None):
    """Mean of v over what it should be, with beta2 = 0.999, 3,000 steps after gradients fell to a hundredth."""
    p = torch.nn.Parameter(torch.zeros(16, 64))
    o, v, generator = optimizer(p, moments, beta2=0.999), torch.zeros(16, 64).double(), torch.Generator().manual_seed(1)
    if monkeypatch:
        monkeypatch.setattr(o, "random", lambda place, x: torch.full_like(x, 1 << 15, dtype=torch.int32))
    for step in range(4000):
        p.grad = torch.randn(p.shape, generator=generator) * (1 if step < 1000 else 0.01)
        v = 0.999 * v + 0.001 * p.grad.double() ** 2
        o.step()
    return float((moments_of(o, p)[1] / v).mean())


@pytest.mark.parametrize("moments", SMALL)
def test_the_second_moment_follows_its_gradient_down(moments):
    """v moves by a thousandth a step, a quarter of bfloat16's distance between two numbers."""
    assert second_moment(moments) == pytest.approx(1, abs=0.05)


def test_rounded_to_nearest_it_would_stand_still(monkeypatch):
    assert second_moment("bfloat16", monkeypatch) > 10


@pytest.mark.parametrize("moments", SMALL)
def test_a_weight_whose_gradient_ends_comes_to_rest(moments):
    """Beside others that go on. Both of its moments shrink together: it moves as far as in float32, not more."""
    moved = {}
    for kind in (moments, "float32"):
        generator, p = torch.Generator().manual_seed(2), torch.nn.Parameter(torch.zeros(8, 64))
        groups = [{"params": [p], "weight_decay": 0.0}]
        o = optimizer(p, kind, weight_decay=0.0) if kind != "float32" else torch.optim.AdamW(groups, lr=1e-3,
                                                                                             betas=(0.9, 0.95))
        for step in range(600):
            p.grad = torch.randn(p.shape, generator=generator)
            if step >= 20:
                p.grad[:, :32] = 0
            o.step()
            if step == 19:
                before = p.detach().clone()
        moved[kind] = (p.detach() - before)[:, :32]
    assert (moved[moments] - moved["float32"]).abs().max() <= 3e-3 and moved["float32"].abs().max() > 3e-3


def test_rounding_depends_on_the_place_in_the_whole_matrix(monkeypatch):
    """Rows 4 to 8 as a process of their own store the codes that one process stores for them."""
    whole = torch.nn.Parameter(torch.zeros(8, 64))
    part = torch.nn.Parameter(torch.zeros(4, 64))
    generator, ours, theirs = torch.Generator().manual_seed(3), optimizer(whole, "int8"), optimizer(part, "int8")
    for _ in range(3):
        whole.grad = torch.randn(8, 64, generator=generator)
        part.grad = whole.grad[4:].clone()
        ours.step()
        with monkeypatch.context() as m:
            m.setattr(adamw, "local_rows", lambda p: (p.detach(), 4))
            theirs.step()
    assert torch.equal(whole[4:], part)
    for a, b in zip(adamw.moment_tensors(ours, whole).values(), adamw.moment_tensors(theirs, part).values()):
        assert torch.equal(a[4:], b)


# ---------------------------------------------------------------------- memory

@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("moments", ["float32", *SMALL])
def test_the_bytes_counted_are_those_of_the_tensors(go, base, tmp_path, moments, part):
    """In memory and, as they are stored as they are, in the checkpoint."""
    settings = dict(moments=moments) | part_of(base, part)
    go(tmp_path / "run", 1, **settings)
    tensors = tensors_of(tmp_path / "run/checkpoints/step-00000001")
    counted = estimate.count_moments(settings_of(**settings), ModelConfig(**SHAPE))
    assert counted == sum(x.nbytes for name, x in tensors.items() if name.startswith("exp_avg"))
    matrix = next(x for name, x in tensors.items() if name.startswith("exp_avg_sq.") and x.ndim == 2)
    assert matrix.dtype == {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.uint8}[moments]


@pytest.mark.parametrize("moments, size", [("float32", 8), ("bfloat16", 4), ("int8", 2 + 8 / 256)])
def test_what_a_large_model_saves(moments, size):
    """Qwen2-1.5B: 85 % of its rows divide into blocks of 256, and its vectors, 0.01 %, stay in float32. What is saved,
    written and read follows."""
    config = ModelConfig(**estimate.SHAPES["Qwen2-1.5B"])
    c = settings_of(moments=moments)
    n = estimate.count_parameters(config)
    used = estimate.memory_per_gpu(c, config, n, 1)
    matrices = n["matrices"]
    assert used["AdamW"] == pytest.approx(size * matrices + 8 * (n["all"] - matrices), rel=1e-6)
    assert estimate.memory_per_gpu(c, config, n, 4)["AdamW"] == used["AdamW"] / 4
    world = type("World", (), dict(device=torch.device("cpu"), dtype=torch.bfloat16, world_size=1, is_sharded=False))
    needed = memory.memory_needed(c, config, n, world)
    for name, copies in (("saving", 2), ("loading", 1)):
        assert needed[name] == memory.PROCESS + 4 * n["all"] + used["AdamW"] + copies * checkpoint.FILE_BYTES


# ---------------------------------------------------------------------- resuming

@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("moments", SMALL)
def test_a_resumed_run_has_the_same_bits(go, base, tmp_path, moments, part):
    """Weights and stored moments; a checkpoint is a model that others read, too."""
    settings, run = dict(moments=moments) | part_of(base, part), tmp_path / "run"
    model = go(run, **settings)
    assert set(open_weights(run / "checkpoints/step-00000004")) == set(open_weights(run))
    whole = tensors_of(shutil.move(run / "checkpoints/step-00000008", tmp_path / "step-00000008"))
    (run / ("adapter_model.safetensors" if part == "lora" else "model.safetensors")).unlink()
    assert go(run, resume=True, **settings) == model and (run / "run-step-00000004.json").exists()
    ours = tensors_of(run / "checkpoints/step-00000008")
    assert ours.keys() == whole.keys() and all(torch.equal(ours[name], whole[name]) for name in whole)


@pytest.mark.parametrize("moments", SMALL)
def test_old_rows_keep_their_bits(go, base, tmp_path, moments):
    go(tmp_path / "run", init=base, first_new_id=60, moments=moments, **FROM_BASE)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == 1 and torch.equal(before[changed[0]][:60], after[changed[0]][:60])


def test_a_skipped_step_leaves_the_moments(go, tmp_path, monkeypatch):
    """It does not count as an update, here and after a resume."""
    norms = iter([1.0, 1.0, float("nan"), *[1.0] * 20])
    monkeypatch.setattr(train, "clip_grad_norm", lambda model, limit: next(norms))
    settings = dict(moments="int8", on_nonfinite="skip", save_every=1)
    model = go(tmp_path / "run", 6, **settings)
    two, three = (tensors_of(tmp_path / f"run/checkpoints/step-0000000{n}") for n in (2, 3))
    assert all(torch.equal(two[name], three[name]) for name in two)
    assert json.loads((tmp_path / "run/checkpoints/step-00000006/state.json").read_text())["updates"] == 5
    for n in (4, 5, 6):
        shutil.rmtree(tmp_path / f"run/checkpoints/step-0000000{n}")
    (tmp_path / "run/model.safetensors").unlink()
    assert go(tmp_path / "run", 6, resume=True, **settings) == model


@pytest.mark.parametrize("saved, resumed", [("int8", "float32"), ("float32", "bfloat16")])
def test_another_setting_is_refused(go, tmp_path, saved, resumed):
    go(tmp_path / "run", moments=saved)
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"made with another moments: {saved}, this run has {resumed}; undo the ch"):
        go(tmp_path / "run", moments=resumed, resume=True, tokens=10 * 128)


def test_checkpoints_from_before_the_setting_have_float32(go, tmp_path):
    go(tmp_path / "run")
    path = tmp_path / "run/checkpoints/step-00000008"
    state = json.loads((path / "state.json").read_text())
    assert state["identity"].pop("moments") == "float32"
    (path / "state.json").write_text(json.dumps(state))
    model = Qwen2(ModelConfig(**SHAPE)).init_weights(1)
    checkpoint.restore(path, model, adamw.make_optimizer(model, settings_of()), {"moments": "float32"})
    with pytest.raises(ValueError, match="another moments: float32, this run has int8"):
        checkpoint.restore(path, model, None, {"moments": "int8"})


def test_a_setting_that_does_not_exist():
    with pytest.raises(ValueError, match="moments must be float32, bfloat16 or int8, got 'int4'"):
        settings_of(moments="int4")


# ---------------------------------------------------------------------- processes

@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2])
@pytest.mark.parametrize("moments", SMALL)
def test_two_processes_equal_one(root, token_data, go, tmp_path, moments, shard_size):
    """Replicas, and FSDP2 with 34 and 33 rows of the embedding. Sums differ in their last bits, so a value in 10,000
    may be rounded the other way; then one process goes on from the two processes' checkpoint."""
    settings = dict(moments=moments, lr=1e-4, shard_size=shard_size)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
              str(root / "train.py"), *words(token_data, tmp_path / "two", **settings)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    go(tmp_path / "one", **settings)
    shutil.copytree(tmp_path / "two", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed/checkpoints/step-00000008")
    (tmp_path / "mixed/model.safetensors").unlink()
    go(tmp_path / "mixed", resume=True, **settings)
    assert (tmp_path / "mixed/run-step-00000004.json").exists()
    one, *others = (tensors_of(tmp_path / name / "checkpoints/step-00000008") for name in ("one", "two", "mixed"))
    for other in others:
        assert one.keys() == other.keys()
        for name, x in one.items():
            a, b = x.double(), other[name].double()
            if x.dtype in (torch.int8, torch.uint8, torch.bfloat16):
                assert float((a != b).double().mean()) <= 2e-3, name
            else:
                assert float((a - b).abs().mean()) <= 1e-7, name
