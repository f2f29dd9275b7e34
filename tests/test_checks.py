"""What is refused or warned of before the first step: bounds of settings, models that cannot be saved, learning rates,
and folders that are not a run's."""
import itertools
import json
import shutil
import subprocess
import sys
import types
from dataclasses import asdict, fields, replace

import pytest
import torch
from safetensors.torch import save_file

import eval as evaluate
import generate
import tokenizer
import train
from hf.config import read_config_fields, write_config
from model import ModelConfig, Qwen2
from training import checks

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
RUN = dict(mixture={"en": 1}, seq_len=32, batch_size=4, micro_batch_size=4, lr=1e-2, dtype="float32", threads=1,
           eval_every=1000, tokens=2 * 128)
pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")


def run(data, out, **changes):
    settings = SHAPE | RUN | {"data": str(data), "out": str(out)} | changes
    train.main([f"{k}={v!r}" for k, v in settings.items() if v is not ...])


# ---------------------------------------------------------------------- settings by themselves

@pytest.mark.parametrize("changes, message", [
    (dict(warmup_ratio=100.0),
     r"warmup_ratio must be in \[0, 1\], got 100.0: it is a fraction of the steps, not a number"),
    (dict(warmup_ratio=-0.1), "warmup_ratio must be in"),
    (dict(min_lr_ratio=5.0), r"min_lr_ratio must be in \[0, 1\], got 5.0: it is a fraction of lr, not a learning rate"),
    (dict(min_lr_ratio=6e-5), "min_lr_ratio must be 0 or at least 0.001, got 6e-05: it is a fraction of lr"),
    (dict(weight_decay=-0.1), "weight_decay must be at least 0, got -0.1"),
    (dict(weight_decay=1e3), "weight_decay must be at most 100"),
    (dict(beta1=1.0), r"beta1 must be in \[0, 1\)"), (dict(beta2=-0.5), r"beta2 must be in \[0, 1\)"),
    (dict(lr=2.0), "lr must be at most 1, got 2.0"), (dict(lr=float("nan")), "lr must be finite"),
    (dict(grad_clip=float("inf")), "grad_clip must be finite"), (dict(grad_clip=0.0), "grad_clip must be positive"),
    (dict(seed=-1), "seed must be at least 0"), (dict(threads=10 ** 9), "threads must be at most 1024"),
    (dict(label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\)"),
    (dict(on_nonfinite="ignore"), "on_nonfinite must be stop or skip, got 'ignore'"),
    (dict(mixture={"en": "3"}), "mixture needs numbers"), (dict(mixture={"en": float("inf")}), "mixture needs numbers"),
    (dict(mixture={}), "mixture needs numbers"), (dict(data=[]), "data must be a folder or a list of folders"),
    (dict(data=[3]), "data must be a folder or a list of folders"),
])
def test_bounds(changes, message):
    with pytest.raises(ValueError, match="Train: .*" + message):
        train.Train(**dict(out="o", data="d", mixture={"en": 1}, tokens=10 ** 6) | changes)


def test_every_number_has_a_bound():
    """A new numeric setting is refused below 0 unless check_number is told otherwise."""
    for f in fields(train.Train):
        if f.type in (int, float, int | None, float | None):
            with pytest.raises(ValueError, match=f.name):
                train.Train(**dict(out="o", data="d", mixture={"en": 1}, tokens=10 ** 6) | {f.name: -1})


def test_all_problems_at_once():
    with pytest.raises(ValueError, match="Train: .*lr must be.*warmup_ratio must be.*lr_schedule must be"):
        train.Train(out="o", data="d", mixture={"en": 1}, tokens=10 ** 6, lr=-1.0, warmup_ratio=9.0,
                    lr_schedule="step")


@pytest.mark.parametrize("values", [dict(min_lr_ratio=0.0), dict(warmup_ratio=0.0), dict(warmup_ratio=1.0),
                                    dict(seed=0), dict(weight_decay=0.0), dict(beta1=0.0), dict(min_lr_ratio=1.0)])
def test_the_ends_of_the_bounds(values):
    train.Train(out="o", data="d", mixture={"en": 1}, tokens=10 ** 6, **values)


# ---------------------------------------------------------------------- models

FIELDS = dict(model_type=["qwen2", "qwen3", "llama"], tie_word_embeddings=[True, False], attention_bias=[True, False],
              head_dim=[None, 8, 16], num_key_value_heads=[2, 4], rms_norm_eps=[1e-6, 1e-5],
              rope_scaling=[None, dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                       original_max_position_embeddings=64)])


def alike(a, b):
    """Whether two configs are of the same model; head_dim=None is hidden_size / num_attention_heads."""
    return a.head_size == b.head_size and replace(a, head_dim=None) == replace(b, head_dim=None)


@pytest.mark.parametrize("family", FIELDS["model_type"])
def test_every_fresh_model_can_be_saved_or_is_refused(tmp_path, family):
    """All combinations of fields: what is not refused is saved and read back as the same model."""
    refused = 0
    for n, values in enumerate(itertools.product(*list(FIELDS.values())[1:])):
        config = ModelConfig(**SHAPE | dict(zip(list(FIELDS)[1:], values)) | {"model_type": family})
        try:
            stored = checks.stored_config(config)
        except ValueError as e:
            refused += 1
            assert "could not be saved" in str(e) and family == "qwen2" and config.attention_bias, str(e)
            continue
        assert alike(stored, config)
        out = tmp_path / str(n)
        write_config(out, asdict(stored), torch.float32)  # as a run does at its beginning
        if n % 7 == 0:  # and at its end
            model = Qwen2(stored).init_weights(0)
            model.save_pretrained(out, like=out)
            again = Qwen2.from_pretrained(out)
            assert again.config == stored
            assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))
        shutil.rmtree(out)
    assert refused == (48 if family == "qwen2" else 0)


@pytest.mark.parametrize("name, value", [
    ("vocab_size", 70), ("hidden_size", 48), ("intermediate_size", 40), ("num_hidden_layers", 3),
    ("num_attention_heads", 2), ("max_position_embeddings", 999), ("rope_theta", 123.0), ("initializer_range", 0.5)])
def test_every_other_field_is_stored(name, value):
    config = ModelConfig(**SHAPE | {name: value})
    assert checks.stored_config(config) == config


@pytest.mark.parametrize("name", [
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rope_theta", "rms_norm_eps", "initializer_range"])
@pytest.mark.parametrize("value", [0, -2])
def test_sizes_of_a_model_are_positive(token_data, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
        run(token_data, tmp_path / "run", **{name: value})


@pytest.mark.parametrize("changes", [dict(model_type="qwen3"), dict(model_type="llama", attention_bias=True),
                                     dict(model_type="qwen3", head_dim=16, tie_word_embeddings=False)])
def test_a_fresh_run_of_every_family_is_saved_and_resumed(token_data, tmp_path, changes):
    run(token_data, tmp_path / "run", save_every=1, **changes)
    whole = (tmp_path / "run/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000002")
    run(token_data, tmp_path / "run", resume=True, **changes)
    assert (tmp_path / "run/model.safetensors").read_bytes() == whole
    assert alike(ModelConfig.from_pretrained(tmp_path / "run"), ModelConfig(**SHAPE | changes))
    (tmp_path / "run/tokenizer_config.json").unlink()  # the shards of these tests have no tokenizer beside it
    run(token_data, tmp_path / "next", init=str(tmp_path / "run"), **dict.fromkeys(SHAPE, ...))


def test_a_model_that_cannot_be_saved_is_refused_before_the_first_step(token_data, tmp_path):
    with pytest.raises(ValueError, match="qwen2 model with attention_bias=True could not be saved"):
        run(token_data, tmp_path / "run", attention_bias=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["Qwen/Qwen2-1.5B", "HuggingFaceTB/SmolLM2-135M"])
def test_a_name_on_the_hub(token_data, tmp_path, name):
    folder = f"models/{name.split('/')[1]}"
    with pytest.raises(ValueError) as e:
        run(token_data, tmp_path / "run", init=name, **dict.fromkeys(SHAPE, ...))
    assert f"`hf download {name} --local-dir {folder}`" in str(e.value) and f"name {folder} instead" in str(e.value)


def test_a_name_on_the_hub_in_other_programs():
    """Before anything else is missed of it."""
    for program in (lambda: tokenizer.load("Qwen/Qwen2-1.5B"), lambda: read_config_fields("Qwen/Qwen2-1.5B")):
        with pytest.raises(ValueError, match="`hf download Qwen/Qwen2-1.5B --local-dir models/Qwen2-1.5B`"):
            program()
    assert evaluate.parse_arguments(["Qwen/Qwen2-1.5B", "data=."]).model == "Qwen/Qwen2-1.5B"
    for word in ("configs/none", "configs/none.py", "nothing"):
        with pytest.raises(ValueError, match=f"{word}: neither a config file nor key=value"):
            evaluate.parse_arguments([word, "data=."])


@pytest.mark.parametrize("program", [evaluate.Eval, generate.Sample])
def test_threads_are_positive(program):
    settings = {"data": "."} if program is evaluate.Eval else {}
    assert program(model="m", threads=1, **settings).threads == 1
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"threads must be at least 1, got {n}"):
            program(model="m", threads=n, **settings)


def test_a_model_that_was_not_downloaded(token_data, tmp_path):
    with pytest.raises(ValueError, match="`hf download ORGANIZATION/Qwen9-1B --local-dir models/Qwen9-1B`"):
        run(token_data, tmp_path / "run", init="models/Qwen9-1B", **dict.fromkeys(SHAPE, ...))


@pytest.mark.parametrize("name", ["/nowhere/model", "./a/b", "../nowhere", "one", "a/b/c", "configs/none"])
def test_a_folder_that_is_not_there(token_data, tmp_path, name):
    with pytest.raises(ValueError, match="is not a folder on this machine; set it to") as e:
        run(token_data, tmp_path / "run", init=name, **dict.fromkeys(SHAPE, ...))
    assert "hf download" not in str(e.value)


def test_rows_longer_than_the_models_positions(token_data, tmp_path):
    with pytest.raises(ValueError, match="seq_len=32 is above the model's max_position_embeddings, 16"):
        run(token_data, tmp_path / "run", max_position_embeddings=16)
    run(token_data, tmp_path / "run", max_position_embeddings=32)


# ---------------------------------------------------------------------- learning rate

def test_usual_learning_rates():
    """GPT-3's table from scratch; 1e-5 to 1e-4 for published models."""
    for parameters, rate in ((125e6, 6e-4), (350e6, 3e-4), (1.3e9, 2e-4), (6.7e9, 1.2e-4), (13e9, 1e-4)):
        assert checks.usual_learning_rate(parameters, False) == pytest.approx(rate, rel=0.35)
    assert checks.usual_learning_rate(2e6, False) == pytest.approx(3e-3, rel=0.1)
    assert checks.usual_learning_rate(2e6, True) == checks.usual_learning_rate(2e6, False)
    for parameters in (135e6, 1.5e9, 7e9, 72e9):
        assert 1e-5 <= checks.usual_learning_rate(parameters, True) <= 1e-4
        assert checks.usual_learning_rate(parameters, True, "dpo") <= 5e-6


def check_rate(lr, config, **changes):
    c = train.Train(**dict(out="o", data="d", mixture={"en": 1}, tokens=10 ** 6, lr=lr) | changes)
    return checks.check_learning_rate(c, config)


LARGE = ModelConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                    num_attention_heads=9, num_key_value_heads=3, model_type="llama")  # 135 M


@pytest.mark.parametrize("lr, changes, usual", [
    (1e-3, {}, None), (1.2e-3, dict(allow_large_lr=True), "6e-04"), (5e-4, dict(init="x"), "1e-04"),
    (1e-4, dict(init="x"), None), (5e-4, dict(init="x", first_new_id=9), None),
    (5e-5, dict(init="x", loss="dpo"), "5e-06"), (5e-7, dict(init="x", loss="dpo"), None)])
def test_a_large_learning_rate_is_warned_of(lr, changes, usual):
    warning = check_rate(lr, LARGE, **changes)
    if usual:
        assert f"lr={lr:g} is large for 134.5 M parameters; lr={usual} is usual" in warning
    else:
        assert warning is None


def test_a_learning_rate_that_damages_a_large_model_is_refused():
    message = "lr=0.002 is too large for 135 M parameters; set lr=1e-04.*allow_large_lr=True"
    with pytest.raises(ValueError, match=message):
        check_rate(2e-3, LARGE, init="x")
    assert "is usual" in check_rate(2e-3, LARGE, init="x", allow_large_lr=True)
    assert check_rate(2e-3, ModelConfig()) is None  # a toy


def test_the_warning_is_printed(token_data, tmp_path, capsys):
    run(token_data, tmp_path / "run", lr=0.5)
    assert "warning: lr=0.5 is large for 0.0 M parameters" in capsys.readouterr().out


@pytest.mark.parametrize("config", ["tiny/base", "tiny/stage1", "tiny/stage2", "tiny/sft", "tiny/dpo"])
def test_our_own_rates_are_usual(root, config):
    c, *_ = train.load(train.Train, ModelConfig, train.Estimate, argv=[str(root / f"configs/{config}.py")])
    base = train.load(train.Train, ModelConfig, train.Estimate, argv=[str(root / "configs/tiny/base.py")])[1]
    assert checks.check_learning_rate(c, base) is None


# ---------------------------------------------------------------------- the run folder

FOREIGN = {"a sharded model": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
           "a model": ["model.safetensors", "config.json"], "notes": ["thesis.tex"],
           "checkpoints": ["checkpoints/a.txt"],
           "another program's lock": ["lock", "data.db"], "another run.json": ["run.json"]}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_not_ours_is_left_alone(token_data, tmp_path, kind, resume):
    out = tmp_path / "precious"
    for name in FOREIGN[kind]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text('{"keep": "me"}')
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=f"{out} holds files that train.py did not make .*set out="):
        run(token_data, out, resume=resume)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_out_that_is_a_file(token_data, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file; set it to a folder"):
        run(token_data, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "reference/a.safetensors"]])
def test_a_run_that_ended_before_its_first_step_can_be_started_again(token_data, tmp_path, left):
    for name in left:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("process 1 on here" if name == "lock" else "")
    run(token_data, tmp_path / "run")


def test_a_run_without_its_lock_file_is_still_ours(token_data, tmp_path):
    run(token_data, tmp_path / "run")
    (tmp_path / "run/lock").unlink()
    with pytest.raises(ValueError, match="already holds a run; set resume=True"):
        run(token_data, tmp_path / "run")
    run(token_data, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["seq_len"] == 32


def test_a_run_folder_with_the_weights_of_others(token_data, tmp_path):
    """Refused before the first step: at the end, the run's own model would take their place."""
    run(token_data, tmp_path / "run", tokens=128)
    for names in (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], ["theirs.safetensors"]):
        for name in names:
            save_file({"x": torch.zeros(2)}, tmp_path / "run" / name, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"holds weights that train.py did not write .*{names[0]}.*move them"):
            run(token_data, tmp_path / "run", resume=True)
        for name in names:
            (tmp_path / "run" / name).unlink()
    run(token_data, tmp_path / "run", resume=True)


# ---------------------------------------------------------------------- the disk

def fake_disk(monkeypatch, free, total=10 ** 12):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(total=total, used=0, free=free))


def checkpoint_bytes(config, rows=None):
    """Weights, and two moments of what is trained: everything, or the rows of an untied embedding and head."""
    everything = sum(p.numel() for p in Qwen2(config).parameters())
    return 4 * everything + 8 * (everything if rows is None else rows), 4 * everything


@pytest.mark.parametrize("changes, copies", [
    (dict(save_every=1, keep_checkpoints=2, tokens=6 * 128), 3), (dict(save_every=1, keep_checkpoints=1), 2),
    (dict(save_every=1), 2), (dict(), 1)])  # of two steps
def test_a_disk_that_is_too_small_is_refused_before_the_first_step(token_data, tmp_path, monkeypatch, changes, copies):
    """One checkpoint more than are kept, as a new one is complete before an old one goes; no more than the run saves.
    """
    size, model = checkpoint_bytes(ModelConfig(**SHAPE))
    fake_disk(monkeypatch, copies * size + model - 1)
    with pytest.raises(ValueError, match=f"run: .* GB are free, and this run needs .* for {copies} checkpoints .*out="):
        run(token_data, tmp_path / "run", **changes)
    assert not (tmp_path / "run/checkpoints").exists() and not (tmp_path / "run/log.jsonl").exists()
    fake_disk(monkeypatch, copies * size + model)
    run(token_data, tmp_path / "run", **changes)
    written = sum(f.stat().st_size for f in (tmp_path / "run/checkpoints").glob("*/tensors/*"))
    assert written >= min(copies, changes.get("keep_checkpoints", 2)) * size


def test_room_that_is_taken_already_does_not_count(token_data, tmp_path, monkeypatch):
    """A resumed run with two checkpoints needs one more; a finished one only its model."""
    size, model = checkpoint_bytes(ModelConfig(**SHAPE))
    run(token_data, tmp_path / "run", save_every=1)
    fake_disk(monkeypatch, model)
    run(token_data, tmp_path / "run", save_every=1, resume=True)
    with pytest.raises(ValueError, match="for 1 checkpoints"):
        run(token_data, tmp_path / "run", save_every=1, resume=True, tokens=5 * 128)
    fake_disk(monkeypatch, size + model)
    run(token_data, tmp_path / "run", save_every=1, resume=True, tokens=5 * 128)


def test_a_disk_that_says_nothing_is_trusted(token_data, tmp_path, monkeypatch):
    """Some network file systems report 0 of 0 bytes."""
    fake_disk(monkeypatch, 0, total=0)
    run(token_data, tmp_path / "run")


def test_new_rows_alone_have_moments(token_data, tmp_path, monkeypatch):
    config = ModelConfig(**SHAPE, tie_word_embeddings=False)
    Qwen2(config).init_weights(0).save_pretrained(tmp_path / "base")
    size, model = checkpoint_bytes(config, rows=2 * 64 * 32)
    fake_disk(monkeypatch, size + model - 1)
    new_rows = dict.fromkeys(SHAPE, ...) | dict(init=str(tmp_path / "base"), first_new_id=40, tokens=128)
    with pytest.raises(ValueError, match="this run needs"):
        run(token_data, tmp_path / "run", **new_rows)
    fake_disk(monkeypatch, size + model)
    run(token_data, tmp_path / "run", **new_rows)


# bytes that a file may have: too few for log.jsonl, and for the tensors of a checkpoint
@pytest.mark.parametrize("size", [100, 100_000])
def test_files_that_cannot_grow_are_one_line_with_the_path(token_data, tmp_path, root, size):
    """As on a full disk. The checkpoint before stays, and once there is room, the run goes on."""
    run(token_data, tmp_path / "run", tokens=128, save_every=1)
    before = sorted((tmp_path / "run/checkpoints").iterdir())
    limit = f"import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); sys.argv = sys.argv[1:]; " \
            f"runpy.run_path(sys.argv[0], run_name='__main__')"
    settings = SHAPE | RUN | dict(data=str(token_data), out=str(tmp_path / "run"), save_every=1, resume=True)
    done = subprocess.run([sys.executable, "-c", limit, str(root / "train.py"),
                           *(f"{k}={v!r}" for k, v in settings.items())], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    said, = [line for line in done.stderr.splitlines() if str(tmp_path / "run") in line]
    assert "File too large" in said and "ulimit -f" in said
    assert set(before) <= set((tmp_path / "run/checkpoints").iterdir())
    run(token_data, tmp_path / "run", save_every=1, resume=True)
