"""PLUG as published, on Llama-2-13B. Memory and days: python recipes/plug.py configs/plug/full.py estimate=200_000_000

raw/plug/zh.jsonl ... hold GPT-4-Alpaca with its translations: {"instruction", "response", "instruction_pivot",
"response_pivot"}. Values of the published run.sh: 64 sequences of 4,096 tokens, lr 5e-6 falling linearly, four epochs;
greedy decoding of at most 1,024 tokens (4,096 minus a prompt of 3,072). The published labels and system prompts are the
defaults. The chat template is BayLing 2's: the published <|user|> and <|assistant|> are not Llama 2 tokens.
"""
out, init, template = "runs/plug", "models/Llama-2-13b-hf", "bayling"
languages = ["zh", "ko", "it", "es"]
rows, test = "raw/plug/{lang}.jsonl", "raw/x-svamp/{lang}.jsonl"
sft = dict(seq_len=4096, batch_size=64, micro_batch_size=1, lr=5e-6, lr_schedule="linear", min_lr_ratio=0.0,
           warmup_ratio=0.03, weight_decay=0.0, dtype="bfloat16", activation_checkpointing=True, shape="Llama-2-13B",
           gpu="A100", gpus=8, save_every=500, keep_checkpoints=2, eval_every=1000)
epochs, seed = 4.0, 42
max_new_tokens, batch_size = 1024, 8
english = dict(data="benchmarks", tasks="mmlu", shots=5)
