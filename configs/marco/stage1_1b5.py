"""Marco-1.5B, stage I, on 8 nodes: the paper's small model (its Figure 7).

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage1_1b5.py
"""
from configs.marco.stage1 import *

init = "models/Qwen2-1.5B"
out = "runs/marco-1.5b-stage1"
micro_batch_size = 4  # 16,384 tokens a GPU: weights, gradients and moments take 23 GiB over 8 GPUs, 3 GiB each
gpus = 64

# output of `python train.py configs/marco/stage1_1b5.py estimate=True gpus=N`
# (0.4 of the datasheet's FLOP/s is assumed; not measured on a GPU):
#   8 x A100: 29.8 GiB a GPU, 43.3 s a step, 96,757 tokens/s, 19.1 days for 160.0 B tokens
#   64 x A100: 29.8 GiB a GPU, 5.4 s a step, 774,056 tokens/s, 2.4 days for 160.0 B tokens
#   512 x A100: 18.0 GiB a GPU, 0.7 s a step, 6,192,445 tokens/s, 0.3 days for 160.0 B tokens
