"""The published setting on Qwen2-1.5B: nine languages of DBpedia, yours as .tsv files (recipes/prixlm.py says which).

    python recipes/prixlm.py configs/prixlm/full.py [estimate=True]

The released code decodes with 50 beams and no length normalization. The paper's training settings were never released:
those below are ours.
"""
model = "models/Qwen2-1.5B"
out = "runs/prixlm-qwen2-1.5b"
languages = ["en", "it", "fr", "de", "fi", "et", "hu", "tr", "ja"]
triples, links, test_triples, test_links = (f"data/{name}.tsv" for name in (
    "triples", "links", "test_triples", "test_links"))
beams, length_penalty = 50, 0.0
batch = 32
dtype = "bfloat16"
train = dict(tokens=2_000_000_000, lr=2e-5, warmup_ratio=0.03, seq_len=2048, batch_size=256, micro_batch_size=8,
             save_every=500)
