"""Marco-7B, stage I: 160 B tokens in the mixture of Table 2, highest learning rate 1e-5 (both the paper's).

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 train.py configs/marco/stage1.py

The paper gives the mixture, the tokens and the learning rate, and says 512 A100s. Everything under "chosen" is ours.
"""
from configs.marco import paper

data = "tokens"
init = "models/Qwen2-7B"
out = "runs/marco-7b-stage1"
mixture = paper.STAGE1
tokens = paper.STAGE1_TOKENS
lr = paper.STAGE1_LR

# chosen: 4 M tokens in a step, as usual for 7 B models: 1,024 rows x 4,096 = 4,194,304, so 38,146 steps; 2 rows on each of 512 GPUs
seq_len = 4096       # web documents average about 1,000 tokens, and Qwen2 was pretrained at 4,096 for most of its tokens
batch_size = 1024
micro_batch_size = 2      # 8,192 tokens a GPU: 2.9 s of work on an A100 at 40 %, against 0.17 s of FSDP traffic over NVLink
shard_size = 8           # one full copy per node of 8: parameters travel inside the node, only gradients between nodes
activation_checkpointing = "selective"  # 4.8 GiB of activations a row less than without, for elementwise work only
gpu, gpus = "A100", 512  # the paper's, for estimate=True
dtype = "bfloat16"
warmup_ratio = 0.01       # a continued run needs little; its first steps must not jump
lr_schedule = "cosine"
min_lr_ratio = 0.1        # to 1e-6, below the 6e-6 that stage II starts from
beta1, beta2, weight_decay, grad_clip = 0.9, 0.95, 0.1, 1.0  # the usual ones for models of this size
eval_every, eval_tokens, save_every, keep_checkpoints = 200, 65536, 500, 3
verify_shards = False      # 1.2 TB of shards take too long to hash before every start; prepare.py wrote and checked them

# what `python train.py configs/marco/stage1.py estimate=True gpus=N` says
# (0.4 of the datasheet's FLOP/s is an assumption; no GPU was asked):
#   8 x A100: 49.3 GiB a GPU, 188.6 s a step, 22,242 tokens/s, 83.3 days for 160.0 B tokens
#   64 x A100: 49.3 GiB a GPU, 23.6 s a step, 177,934 tokens/s, 10.4 days for 160.0 B tokens
#   512 x A100: 49.3 GiB a GPU, 2.9 s a step, 1,423,472 tokens/s, 1.3 days for 160.0 B tokens
