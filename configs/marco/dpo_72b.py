"""Marco-72B, stage IV, on 8 nodes of 8 GPUs.

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/dpo_72b.py
"""
from configs.marco.dpo import *

init = "runs/marco-72b-sft"
out = "runs/marco-72b-dpo"
lr = 3e-7
shard_size = 64  # over all GPUs: 1,083 GiB / 64 = 17 GiB each; no reference model beside them
shape, gpu, gpus = "Qwen2-72B", "A100", 64  # for estimate=True
