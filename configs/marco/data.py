"""The paper's corpus as sources: one folder per language and kind under raw/, in the formats you downloaded.

    python prepare.py configs/marco/data.py raw=/data/raw out=/data/tokens tokenizer=/models/Qwen2-7B

raw/web/kk/*.jsonl.gz (CulturaX, FineWeb-2, MADLAD ...), raw/bitext/en-kk/*.tsv (OPUS, CCAligned), raw/knowledge/en/*,
raw/synthetic/en/*. All three model sizes share Qwen2's tokenizer, so the shards are made once. Delete the lines of
sources you do not have: prepare.py stops at a path that matches nothing rather than train without a language.

A source may also have a licence="ODC-By", shown on the data card. A file of pairs may have vectors="en.npy|kk.npy"
(row i for line i, from LASER, or from recipes/embed_sentences.py and align=True) and min_score=1.04, near the margin
threshold of the CCMatrix family of corpora. perplexity_models={"kk": "kk.npz"} names models that
`prepare.py perplexity` wrote, evaluation=["benchmarks/*"] files whose text must not be in the corpus.
"""
from configs import language_table

raw, out = "raw", "tokens"
tokenizer = "models/Qwen2-7B"
language_names = language_table.NAMES
sources = [dict(name=f"web-{k}", path=f"web/{k}/*", category=language_table.group(k), language=k)
           for k in language_names]
sources += [dict(name=f"bitext-en-{k}", path=f"bitext/en-{k}/*", category="parallel", language="en", target=k)
            for k in language_names if k != "en"]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}/*", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in ("en", "zh")]
valid_fraction = 0.0005
