#!/usr/bin/env bash
# The papers' claims on the tinyworld: the demo's experiment with 1.4 times its tokens, over three seeds.
#   make claims, or: PY=.venv/bin/python SEEDS="0 1 2" bash recipes/claims.sh
# A seed changes the world, the documents and the weights. It writes out/claims/seed*/results.jsonl and prints a verdict
# for each claim.
set -euo pipefail
PY=${PY:-python}
SEEDS=${SEEDS:-0 1 2}
for seed in $SEEDS; do
  run=out/claims/seed$seed
  rm -rf "$run" && mkdir -p "$run"
  $PY -m tinyworld out="$run/raw" seed="$seed"
  $PY prepare.py configs/tiny/data.py raw="$run/raw" out="$run/tokens" | tail -1
  $PY train.py configs/tiny/base.py data="$run/tokens" out="$run/base" \
    tokens=1200000 seed="$((10 * seed))" | tail -1
  $PY train.py configs/tiny/stage1.py data="$run/tokens" init="$run/base" out="$run/stage1" \
    tokens=960000 seed="$((10 * seed + 1))" | tail -1
  $PY train.py configs/tiny/stage2.py data="$run/tokens" init="$run/stage1" out="$run/stage2" \
    tokens=840000 seed="$((10 * seed + 2))" | tail -1
  for model in base stage1 stage2; do
    $PY eval.py configs/tiny/eval.py model="$run/$model" data="$run/raw/benchmarks" out="$run/results.jsonl"
  done
done
$PY report.py claims "runs=[$(for seed in $SEEDS; do printf "'out/claims/seed%s'," "$seed"; done)]"
