"""The stand-in for Qwen2: 1.8 M parameters pretrained on English and Chinese, with a little of 27 other languages.

Kazakh, Nepali and Azerbaijani, Qwen2-7B's lowest scores in the paper's Table 6, get the least. Steps and documents are
small: copying from the context appears at about 10^5.7 sqrt(batch size x context) tokens whatever the model's size
(arXiv 2511.16893).
"""
data = "out/base/tokens"
out = "out/base/model"
mixture = {"en": 45, "zh": 32, "high": 8, "low": 2.4, "low/kk": 0.07, "low/ne": 0.07, "low/az": 0.07,
           "knowledge/en": 2.5, "knowledge/zh": 1.5, "parallel/en-zh": 7, "parallel": 1}
tokens = 30_000_000
vocab_size, hidden_size, intermediate_size, num_hidden_layers = 8192, 128, 384, 4
num_attention_heads, num_key_value_heads = 4, 2
rope_theta = 10000.0
# about 1 / sqrt(hidden_size); with Qwen2's 0.02, attention in so narrow a model stays uniform for hundreds of steps
initializer_range = 0.08
seq_len, batch_size, micro_batch_size = 256, 2, 2
lr, warmup_ratio, min_lr_ratio = 2e-3, 0.01, 0.05
dtype = "bfloat16"
threads = 1
max_epochs = 30.0
log_every, eval_every, eval_tokens = 200, 100_000, 1024
save_every, keep_checkpoints = 1953, 100  # every million tokens, for the ladder
