"""Marco-72B, stage I, on 64 nodes of 8 GPUs.

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage1_72b.py
"""
from configs.marco.stage1 import *

init = "models/Qwen2-72B"
out = "runs/marco-72b-stage1"
micro_batch_size = 2  # 8,192 tokens a GPU
shard_size = 64       # 1,083 GiB of weights, gradients and moments / 64 = 17 GiB each; on 8 GPUs they do not fit
activation_checkpointing = True  # 5 GiB of activations per row instead of 85

# output of `python train.py configs/marco/stage1_72b.py estimate=True gpus=N`
# (0.4 of the datasheet's FLOP/s is assumed; not measured on a GPU):
#   8 x A100: 171.2 GiB a GPU, 2491.8 s a step, 1,683 tokens/s, 1100.2 days for 160.0 B tokens (does not fit)
#   64 x A100: 52.7 GiB a GPU, 311.5 s a step, 13,466 tokens/s, 137.5 days for 160.0 B tokens
#   512 x A100: 52.7 GiB a GPU, 38.9 s a step, 107,726 tokens/s, 17.2 days for 160.0 B tokens
