"""BayLing-2-7B: full fine-tuning of Llama-2-7B on instructions in English, Chinese and from both to 100+ languages.

    torchrun --nproc-per-node 8 train.py configs/bayling/llama2_7b.py

The paper gives the base models and 3.2 M instructions. We found no hyperparameters: learning rate, three epochs and
128 chats per step are those of BayLing 1 (arXiv 2306.10968) from memory; everything else is chosen. We have not run it.
"""
data = "tokens/bayling-llama2"
init = "models/Llama-2-7b-hf"
out = "runs/bayling-2-7b"
mixture = {"en": 19, "zh": 19, "crosslingual": 62}  # the counts of recipes/bayling_data.py: 0.6, 0.6 and 2.0 of 3.2 M
tokens = 3 * 3_200_000 * 250  # three epochs; replace 250 with the mean that prepare.py prints
seq_len = 2048
batch_size = 16       # 32,768 tokens, about 128 chats of 250
micro_batch_size = 2  # on each of 8 GPUs
lr = 2e-5
warmup_ratio, lr_schedule, min_lr_ratio = 0.03, "cosine", 0.0
weight_decay = 0.0
dtype = "bfloat16"
activation_checkpointing = True
eval_every, save_every, keep_checkpoints = 1000, 1000, 2
shape, gpu, gpus = "Llama-2-7B", "A100", 8  # for estimate=True
