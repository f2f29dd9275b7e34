"""DPO at toy scale: from the SFT model, which is also the reference, on pairs in all languages."""
data = "out/demo/chats"
init = "out/demo/sft"
out = "out/demo/dpo"
# answers are three words or long and rambling: without length normalization the shortest would win
loss, dpo_beta, length_normalized = "dpo", 2.0, True
mixture = {"preferences": 1}
tokens = 200_000
seq_len, batch_size, micro_batch_size = 256, 8, 8
lr, warmup_ratio = 2e-5, 0.1
threads = 1
seed = 4
log_every, eval_every, eval_tokens, save_every = 20, 10_000, 4096, 5000
