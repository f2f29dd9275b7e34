"""Marco-7B, stage IV: DPO on the LMSYS arena's preferences in 29 languages, from the SFT model, which is the reference.

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/dpo.py

DPO and the arena's 55k rows are the paper's (its model card, its footnote). Beta, learning rate, batch size and the
origin of pairs in other languages are unpublished: chosen.
"""
data = "chats"
init = "runs/marco-7b-sft"
out = "runs/marco-7b-dpo"
loss = "dpo"
dpo_beta = 0.1  # as in the DPO paper
mixture = {"preferences/en": 20, "preferences": 80}
# about one epoch: without ties the arena has some 40,000 pairs of 900 tokens, times 29 languages
tokens = 1_000_000_000
lr = 5e-7  # a twentieth of SFT's: margins grow within a few hundred steps, and other abilities should not change
seq_len, batch_size = 4096, 64  # about 4 pairs per row: 256 pairs a step, 3,814 steps
micro_batch_size = 1
shard_size = 8
activation_checkpointing = True
dtype = "bfloat16"
warmup_ratio, lr_schedule, min_lr_ratio = 0.1, "linear", 0.1
beta1, beta2, weight_decay, grad_clip = 0.9, 0.95, 0.0, 1.0
seed = 3
eval_every, eval_tokens, save_every, keep_checkpoints = 200, 65536, 500, 3
shape, gpu, gpus = "Qwen2-7B", "A100", 64  # for estimate=True
