"""Knowledge adapters at full scale: the authors' setting (arXiv 2210.13617, its repository), on Qwen2 and your files.

Theirs: adapters of hidden_size / 16, batches of 128 labels or 32 sentences, 64 for the fusion, AdamW with lr and weight
decay 1e-4, 10 passes over Wikidata's labels in 84 languages. Ours: the temperature (theirs is their library's default,
0.1 in its later versions), the steps (10 passes over a million labels, 250,000 descriptions and sentences), one cosine
without their five restarts, and a decoder instead of an encoder.

    python recipes/adapters.py configs/adapters/full.py estimate=10    # the time, for texts of ten tokens on average
"""
from configs.language_table import MARCO as _codes

model = "models/Qwen2-1.5B"
out = "out/adapters-full"
knowledge = "own/knowledge"  # entities.jsonl and so on: corpus/entity_pairs.py
text = "own/knowledge/english.jsonl"
languages = list(_codes)
reduction = 16
steps = {"ep": 78_000, "tp": 78_000, "es": 78_000, "ts": 78_000, "fusion": 20_000}
batch_size = {"ep": 128, "tp": 128, "es": 32, "ts": 32, "fusion": 64}
tau, pool = 0.1, "mean"
lr, fusion_lr, weight_decay, warmup_ratio = 1e-4, 1e-4, 1e-4, 0.1
held_out = 0.01
dtype = "bfloat16"
