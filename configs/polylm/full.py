"""PolyLM's published setting (arXiv 2307.06018) on Qwen2-7B: 640 B tokens, the last 97 B with 60 % non-English text.

The paper trains 13 B parameters from scratch with this budget, batch and learning rate (6e-5: 1e-4 diverged); starting
from Qwen2 is our choice, as is the split of its 10 % of other languages. configs/marco/data.py shows how to prepare a
corpus; data= is all of it, better= its better sources (Wikipedia, books, parallel text ...), under other names.
"""
out = "out/polylm-full"
model = "models/Qwen2-7B"
data, better, tests = "out/corpus/tokens", "out/corpus/tokens-better", "out/corpus/benchmarks"
languages = ["en", "zh", "ar", "de", "es", "fr", "he", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "vi"]
tokens = 640_000_000_000
first = {"en": 67.6, "zh": 22.1, "high": 6.5, "low": 3.6, "parallel": 0.2}
second = {"en": 40, "zh": 27, "high": 17.5, "low": 10.7, "parallel": 4.8}
train = dict(seq_len=2048, batch_size=2048, micro_batch_size=4, lr=6e-5, warmup_ratio=0.0131, min_lr_ratio=0.1,
             weight_decay=0.1, grad_clip=1.0, residual_fp32=True, activation_checkpointing=True)
sentences = 1000
