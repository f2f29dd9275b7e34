"""SDRRL at the paper's scale, on Llama-2-7B-chat: python recipes/sdrrl.py configs/sdrrl/full.py estimate=100_000_000

raw/sdrrl/ holds English instructions with their answers (Alpaca's 52,000: en.jsonl), offline translations of them and
of the model's own answers, a dictionary and parallel sentences for each target. The targets are six of the paper's. We
could not find its mixing ratios, switching rate and hyperparameters: lr, batch and epochs are those of a later paper
that trained it (2e-5, 128, 3); the rest is chosen.
"""
out, init = "runs/sdrrl", "models/Llama-2-7b-chat-hf"
targets = ["cs", "uk", "id", "ja", "ko", "th"]
prompts, test = "raw/sdrrl/{lang}.jsonl", "raw/sdrrl/test/{lang}.jsonl"
translations, lexicon, parallel = ("raw/sdrrl/translations/{lang}.jsonl", "raw/sdrrl/lexicon/{lang}.tsv",
                                   "raw/sdrrl/parallel/{lang}.tsv")
n_parallel, n_complete, switch_probability = 5000, 5000, 0.3
epochs = 3.0
sft = dict(seq_len=2048, batch_size=128, micro_batch_size=2, lr=2e-5, warmup_ratio=0.03, weight_decay=0.0,
           dtype="bfloat16", activation_checkpointing=True, shape="Llama-2-7B", gpu="A100", gpus=8, save_every=500,
           eval_every=1000)
max_new_tokens, batch_size = 1024, 16
english = dict(data="benchmarks", tasks="mmlu", shots=5)
