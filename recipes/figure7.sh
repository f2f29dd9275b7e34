#!/usr/bin/env bash
# Marco-LLM's Figure 7 on the tinyworld: does filtering sentence pairs help translation?
#   make claims, or: PY=.venv/bin/python SEEDS="0 1 2" bash recipes/figure7.sh
# The same models are trained with the filter on and off, in two sizes, over three seeds. It writes
# out/figure7/seed*/results.jsonl and prints the comparison.
set -euo pipefail
PY=${PY:-python}
SEEDS=${SEEDS:-0 1 2}
export LANGUAGES="en zh de es ru kk"  # read by the configs, too
for seed in $SEEDS; do
  run=out/figure7/seed$seed
  rm -rf "$run" && mkdir -p "$run"
  $PY -m tinyworld out="$run/raw" seed="$seed" languages="['${LANGUAGES// /\', \'}']" pairs=1500 noise=0.4 test=40
  $PY prepare.py configs/ablations/bitext_data.py raw="$run/raw" out="$run/filtered" | tail -1
  $PY prepare.py configs/ablations/bitext_data.py raw="$run/raw" out="$run/unfiltered" \
    tokenizer="$run/filtered/tokenizer" filter_bitext=False | tail -1
  for size in small large; do
    shape="hidden_size=64 intermediate_size=192 num_hidden_layers=2"
    [ $size = large ] && shape="hidden_size=128 intermediate_size=384 num_hidden_layers=4"
    for data in filtered unfiltered; do
      name=$size-$data
      $PY train.py configs/ablations/bitext_train.py $shape data="$run/$data" out="$run/$name" seed="$seed" | tail -1
      $PY eval.py configs/ablations/bitext_eval.py model="$run/$name" checkpoint="$name" data="$run/raw/benchmarks" \
        out="$run/results.jsonl"
    done
  done
done
runs="runs=[$(for seed in $SEEDS; do printf "'out/figure7/seed%s'," "$seed"; done)]"
$PY report.py ablation baseline=unfiltered variant=filtered "$runs"
