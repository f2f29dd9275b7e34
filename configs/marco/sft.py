"""Marco-7B, stage III: multilingual SFT on chats, from stage II, on 8 nodes.

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/sft.py

The paper has this stage, in 29 languages, with a ChatML template. Its counts, mixture, epochs, learning rate and
batch size are not published: every number below is chosen.
"""
from configs.marco import paper

data = ["chats", "tokens"]
init = "runs/marco-7b-stage2"
out = "runs/marco-7b-sft"
# a tenth of the rows replays stage II's text against forgetting; English and Chinese have the most chats
mixture = {"chat/en": 25, "chat/zh": 15, "chat": 50} | {_k: _v / 10 for _k, _v in paper.STAGE2.items()}
# two epochs of about 1.5 million chats of 600 tokens, plus text; train.py warns if a language has less
tokens = 2_000_000_000
lr = 1e-5  # stage II's peak is 6e-6, but there every token bears loss, here only the answers
# 524,288 tokens a step, so 3,814 steps; the few longer chats are counted, not cut
seq_len, batch_size = 4096, 128
micro_batch_size = 2
shard_size = 8  # one copy per node of 8
activation_checkpointing = True
dtype = "bfloat16"
warmup_ratio, lr_schedule, min_lr_ratio = 0.03, "cosine", 0.1
beta1, beta2, weight_decay, grad_clip = 0.9, 0.95, 0.1, 1.0
seed = 2
eval_every, eval_tokens, save_every, keep_checkpoints = 200, 65536, 500, 3
verify_shards = False  # the second folder is stage II's: 1.2 TB
shape, gpu, gpus = "Qwen2-7B", "A100", 64  # for estimate=True
