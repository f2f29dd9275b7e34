#!/usr/bin/env bash
# The papers' claims on the tinyworld: the demo's two stages from the shipped base, over three seeds.
#   make claims, or: PY=.venv/bin/python SEEDS="0 1 2" bash recipes/claims.sh
# A seed changes the documents, the tests and the order of the data. It writes out/claims/seed*/results.jsonl and prints
# a verdict for each claim.
set -euo pipefail
PY=${PY:-python}
SEEDS=${SEEDS:-0 1 2}
for seed in $SEEDS; do
  run=out/claims/seed$seed
  rm -rf "$run" && mkdir -p "$run"
  $PY -m tinyworld configs/tiny/world.py out="$run/raw" seed="$seed"
  $PY prepare.py configs/tiny/data.py raw="$run/raw" out="$run/tokens" | tail -1
  $PY train.py configs/tiny/stage1.py data="$run/tokens" out="$run/stage1" seed="$((10 * seed + 1))" | tail -1
  $PY train.py configs/tiny/stage2.py data="$run/tokens" init="$run/stage1" out="$run/stage2" \
    seed="$((10 * seed + 2))" | tail -1
  for model in tinyworld/base "$run/stage1" "$run/stage2"; do
    $PY eval.py configs/tiny/eval.py model="$model" data="$run/raw/benchmarks" out="$run/results.jsonl"
  done
done
$PY report.py claims "runs=[$(for seed in $SEEDS; do printf "'out/claims/seed%s'," "$seed"; done)]"
