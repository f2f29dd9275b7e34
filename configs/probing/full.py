"""The paper's setting on Qwen2-1.5B: Cities, 1,496 statements (748 facts, true and false) in each of 16 languages.

    python recipes/probing.py configs/probing/full.py
    python recipes/probing.py configs/probing/full.py estimate=500_000    # the time for this many tokens of statements

Forward passes only. The hidden states take layers x statements x width x 4 bytes of memory: 4 GB here, 10 GB for
Qwen2-7B.
"""
models = ["models/Qwen2-1.5B"]
out = "runs/probing-qwen2-1.5b"
statements = "data/cities.jsonl"  # yours: {"text", "label", "group": the city, "language"}
feature = "mlp_in"                # as in Concept Depth, the source of the paper's Cities
test_fraction, seed = 0.4, 42
batch_tokens = 32768
dtype = "bfloat16"
