#!/usr/bin/env bash
# BayLing 2's question on the tinyworld: do cross-lingual instructions help the languages that have none of their own?
#   make claims, or: PY=.venv/bin/python SEEDS="0 1 2" bash recipes/bayling.sh
# The shipped base after stage I is tuned on instructions in English and Chinese alone (without), with three kinds of
# cross-lingual ones (only translation; also questions in a pivot; also questions in the other language), and on
# instructions in every language (native, the upper bound). A finished run is skipped. It writes
# out/bayling/seed*/results.jsonl and prints every comparison over the seeds.
set -euo pipefail
PY=${PY:-python}
SEEDS=${SEEDS:-0 1 2}
KINDS="translation into mixed"
for seed in $SEEDS; do
  run=out/bayling/seed$seed
  mkdir -p "$run"
  for kind in $KINDS; do
    [ -e "$run/chats-$kind/account.json" ] && continue
    $PY -m tinyworld configs/tiny/world.py out="$run/raw-$kind" seed="$seed" crosslingual_kind="$kind"
    $PY prepare.py configs/tiny/chats.py raw="$run/raw-$kind" out="$run/chats-$kind" | tail -1
  done
  raw=$run/raw-into
  [ -e "$run/tokens/account.json" ] || $PY prepare.py configs/tiny/data.py raw="$raw" out="$run/tokens" | tail -1
  [ -e "$run/stage1/model.safetensors" ] || $PY train.py configs/tiny/stage1.py data="$run/tokens" out="$run/stage1" \
    seed="$((10 * seed + 1))" resume=True | tail -1
  for name in stage1 without translation into mixed native; do
    case $name in without | native) kind=into config=bayling_$name ;; *) kind=$name config=bayling_with ;; esac
    [ -e "$run/$name.done" ] && continue
    [ -e "$run/$name/model.safetensors" ] || $PY train.py "configs/ablations/$config.py" out="$run/$name" \
      init="$run/stage1" "data=['$run/chats-$kind','$run/tokens']" seed="$((10 * seed + 3))" resume=True | tail -1
    model="model=$run/$name checkpoint=toy-$name"
    $PY eval.py configs/ablations/bayling_eval.py $model data="$raw/benchmarks" out="$run/results.jsonl" | tail -1
    if [ $name != stage1 ]; then  # which has no chat template
      $PY eval.py configs/tiny/chat_eval.py $model data="$raw" out="$run/$name-answers" | tail -1
      $PY -m tinyworld judge a="$run/$name-answers/samples.jsonl" raw="$raw" out="$run/results.jsonl" | tail -4
    fi
    touch "$run/$name.done"
  done
done
[ "$(echo $SEEDS | wc -w)" -gt 1 ] || exit 0  # one seed has no comparison
runs="runs=[$(for seed in $SEEDS; do printf "'out/bayling/seed%s'," "$seed"; done)]"
for variant in $KINDS native; do
  $PY report.py ablation baseline=without variant=$variant "$runs"
done
$PY report.py ablation baseline=stage1 variant=into "$runs"
