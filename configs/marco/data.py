"""The paper's corpus as sources: one folder per language and kind under raw/, in whatever files you downloaded.

    python prepare.py configs/marco/data.py raw=/data/raw out=/data/tokens tokenizer=/models/Qwen2-7B

raw/web/kk/*.jsonl.gz (CulturaX, FineWeb-2, MADLAD ...), raw/bitext/en-kk/*.tsv (OPUS, CCAligned), raw/knowledge/en/*,
raw/synthetic/en/*. All three model sizes share Qwen2's tokenizer, so the shards are made once. Delete the lines of sources you
do not have: prepare.py stops at a path with nothing in it rather than train without a language.

A source may also name its licence="ODC-By", for the data card; one file of pairs its vectors="en.npy|kk.npy" (row i is line i, from
LASER or recipes/embed_sentences.py, then with align=True) and least_score=1.04, the margin that the CCMatrix family of corpora was cut
near; a language its perplexity={"kk": "kk.npz"} (`python prepare.py perplexity`), and evaluation=["benchmarks/*"] what must not be in it.
"""
from configs import language_table
from configs.thresholds import thresholds  # noqa: F401  a setting

raw, out = "raw", "tokens"
tokenizer = "models/Qwen2-7B"
names = language_table.NAMES
sources = [dict(name=f"web-{k}", path=f"web/{k}/*", category=language_table.group(k), language=k) for k in names]
sources += [dict(name=f"bitext-en-{k}", path=f"bitext/en-{k}/*", category="parallel", language="en", target=k) for k in names if k != "en"]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}/*", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in ("en", "zh")]
valid = 0.0005
