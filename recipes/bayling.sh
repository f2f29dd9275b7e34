#!/usr/bin/env bash
# BayLing 2's question on the tinyworld: does cross-lingual instruction tuning help the languages without instructions?
#   make claims, or: PY=.venv/bin/python SEEDS="0 1 2" bash recipes/bayling.sh
# The shipped base after stage I is tuned with and without the cross-lingual instructions; the first gets DPO too. It writes
# out/bayling/seed*/results.jsonl and prints the three comparisons over the seeds.
set -euo pipefail
PY=${PY:-python}
SEEDS=${SEEDS:-0 1 2}
for seed in $SEEDS; do
  run=out/bayling/seed$seed
  rm -rf "$run" && mkdir -p "$run"
  $PY -m tinyworld configs/tiny/world.py out="$run/raw" seed="$seed"
  $PY prepare.py configs/tiny/data.py raw="$run/raw" out="$run/tokens" | tail -1
  $PY prepare.py configs/tiny/chats.py raw="$run/raw" out="$run/chats" | tail -1
  $PY train.py configs/tiny/stage1.py data="$run/tokens" out="$run/stage1" seed="$((10 * seed + 1))" | tail -1
  sft="init=$run/stage1 data=['$run/chats','$run/tokens'] seed=$((10 * seed + 3))"
  $PY train.py configs/tiny/sft.py $sft out="$run/with" | tail -1
  $PY train.py configs/ablations/native_only.py $sft out="$run/without" | tail -1
  $PY train.py configs/tiny/dpo.py data="$run/chats" init="$run/with" out="$run/dpo" seed="$((10 * seed + 4))" | tail -1
  for name in stage1 without with dpo; do
    model="model=$run/$name checkpoint=toy-$name"
    $PY eval.py configs/ablations/text_eval.py $model data="$run/raw/benchmarks" out="$run/results.jsonl" | tail -1
    [ $name = stage1 ] && continue  # it has no chat template
    $PY eval.py configs/tiny/chat_eval.py $model data="$run/raw" out="$run/$name-answers" | tail -1
    against=$([ $name = dpo ] && echo "b=$run/with-answers/samples.jsonl" || true)
    $PY -m tinyworld judge a="$run/$name-answers/samples.jsonl" $against raw="$run/raw" out="$run/results.jsonl" \
      | tail -4
  done
done
runs="runs=[$(for seed in $SEEDS; do printf "'out/bayling/seed%s'," "$seed"; done)]"
$PY report.py ablation baseline=without variant=with "$runs"
$PY report.py ablation baseline=stage1 variant=with "$runs"
$PY report.py ablation baseline=with variant=dpo "$runs"
