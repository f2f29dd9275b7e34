"""The stand-in for Qwen2: a model of 2 M parameters pretrained mostly on English and Chinese.

Like the real base it has seen a little of every language, and least of Kazakh, Nepali and Azerbaijani, where Qwen2-7B
scores lowest in the paper's Table 6.
"""
data = "out/demo/tokens"
out = "out/demo/base"
mixture = {"en": 50, "zh": 29, "high": 12, "low": 5, "low/kk": 0.05, "low/ne": 0.05, "low/az": 0.05,
           "knowledge/en": 2, "knowledge/zh": 1, "parallel/en-zh": 2}
tokens = 900_000
vocab_size, hidden_size, intermediate_size, num_hidden_layers = 8192, 128, 384, 4
num_attention_heads, num_key_value_heads = 4, 2
rope_theta = 10000.0
# 1 / sqrt(hidden_size); with Qwen2's 0.02, attention of so narrow a model stays uniform for hundreds of steps
initializer_range = 0.08
# at this scale, more steps teach more than larger ones
seq_len, batch_size, micro_batch_size = 256, 4, 4
lr, warmup_ratio = 3e-3, 0.05
log_every, eval_every, eval_tokens, save_every = 50, 220, 1024, 500
