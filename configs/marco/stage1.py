"""Marco-7B, stage I: 160 B tokens in the mixture of Table 2, peak learning rate 1e-5 (both the paper's).

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage1.py

The paper gives the mixture, the tokens and the learning rate, and names 512 A100s. Everything under "chosen" is ours.
"""
from configs.marco import paper

data = "tokens"
init = "models/Qwen2-7B"
out = "runs/marco-7b-stage1"
mixture = paper.STAGE1
tokens = paper.STAGE1_TOKENS
lr = paper.STAGE1_LR

# chosen: 4 M tokens per step, usual for 7 B models: 1,024 rows x 4,096, so 38,146 steps; 2 rows on each of 512 GPUs
seq_len = 4096       # web documents average about 1,000 tokens; Qwen2 was pretrained at 4,096 for most of its tokens
batch_size = 1024
micro_batch_size = 2  # 8,192 tokens a GPU: 2.9 s of compute on an A100 at 40 %, 0.17 s of FSDP traffic over NVLink
shard_size = 8       # one copy per node of 8: parameters travel within a node, only gradients between nodes
activation_checkpointing = "selective"  # recomputes only elementwise operations; saves 4.8 GiB of activations per row
gpu, gpus = "A100", 512  # the paper's, for estimate=True
dtype = "bfloat16"
warmup_ratio = 0.01  # continued training needs little, only a gentle start
lr_schedule = "cosine"
min_lr_ratio = 0.1   # to 1e-6, below the 6e-6 that stage II starts from
beta1, beta2, weight_decay, grad_clip = 0.9, 0.95, 0.1, 1.0  # usual for models of this size
eval_every, eval_tokens, save_every, keep_checkpoints = 200, 65536, 500, 3
verify_shards = False  # hashing 1.2 TB at every start takes too long; prepare.py checked the shards

# output of `python train.py configs/marco/stage1.py estimate=True gpus=N`
# (0.4 of the datasheet's FLOP/s is assumed; not measured on a GPU):
#   8 x A100: 49.3 GiB a GPU, 188.6 s a step, 22,242 tokens/s, 83.3 days for 160.0 B tokens
#   64 x A100: 49.3 GiB a GPU, 23.6 s a step, 177,934 tokens/s, 10.4 days for 160.0 B tokens
#   512 x A100: 49.3 GiB a GPU, 2.9 s a step, 1,423,472 tokens/s, 1.3 days for 160.0 B tokens
