"""A knowledge base of a new tinyworld, learned by the shipped base: python recipes/prixlm.py configs/prixlm/tiny.py

English states all 168 facts about countries, the other languages the same 30 % of them. Italian spells names as in
English, Kazakh in Cyrillic, Chinese in characters.
"""
model = "tinyworld/base"
out = "out/prixlm"
languages = ["en", "it", "kk", "zh"]
related = ["it"]
shares = {"triples": 40, "links": 40}
text = {"en": 12, "zh": 8}
documents = {"en": 800, "zh": 800}
train = dict(tokens=500_000, lr=2e-3, warmup_ratio=0.03, seq_len=256, batch_size=4, micro_batch_size=4, threads=1,
             log_every=100, eval_every=100_000, save_every=100_000)
