"""Preference alignment in small: DPO from the fine-tuned model, which is its reference, on pairs in all languages."""
data = "out/demo/chats"
init = "out/demo/sft"
out = "out/demo/dpo"
loss, beta = "dpo", 0.1
mixture = {"preferences": 1}
tokens = 200_000
length, rows, micro_rows = 256, 8, 8
lr, warmup = 5e-5, 0.1
seed = 4
log_every, eval_every, eval_tokens, save_every = 20, 1000, 4096, 500
