#!/usr/bin/env bash
# Trains and evaluates the ablation study: without attention, without spatial discounting, without critics.
#
#   tools/ablation.sh TRAIN_LIST VAL_LIST [VAL_LIST ...]
#
# Each row: train.py with configs/ablation64.yaml, the mean of its last 8 checkpoints, test.py on every list. Started
# again it resumes; delete a row's mean.npz or test.csv to have it made anew. docs/ablation.md has the results.
# PYTHON=python3, SEEDS="0 1 2" (of full and without_attention; the others have seed 0), KEYS="niter=3000 lr=0.0002"
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
config=$project/configs/ablation64.yaml
train=$1
lists=("${@:2}")
runs=checkpoints/ablation64
read -ra keys <<<"${KEYS:-}"

evaluate() { # evaluate RUN LIST PROTOCOL [KEY...]: the classical methods do not depend on the training: once is enough
  local name baselines=()
  name=$(basename "${2%.*}")_$3
  [ "$1" = "$runs/hole_full_seed0" ] && baselines=(--baselines)
  [ -e "$1/$name/test.csv" ] || "$python" "$project/test.py" --config "$config" ${baselines[@]+"${baselines[@]}"} \
    --checkpoint "$1/mean.npz" --output "$1/$name" "val_data_path=$2" "protocol=$3" "${@:4}"
}

row() { # row NAME SEED [KEY...]
  local run=$runs/hole_$1_seed$2 resume=() list
  if [ ! -e "$run/mean.npz" ]; then
    if compgen -G "$run/checkpoint_*.npz" >/dev/null; then resume=(--resume); fi
    "$python" "$project/train.py" --config "$config" ${resume[@]+"${resume[@]}"} "train_data_path=$train" \
      "val_data_path=${lists[0]}" "expname=$1_seed$2" "seed=$2" "${@:3}" ${keys[@]+"${keys[@]}"}
    "$python" "$project/tools/release.py" "$run" --last 8 --output "$run/mean.npz"
  fi
  for list in "${lists[@]}"; do
    evaluate "$run" "$list" center
    evaluate "$run" "$list" random_box masks_per_image=5
  done
}

for seed in ${SEEDS:-0 1 2}; do
  row full "$seed"
  row without_attention "$seed" contextual_attention=false
done
row without_discounting 0 discounted_mask=false
row without_critics 0 gan_loss_alpha=0

# The paired differences in the hole, by image and averaged over the seeds that both rows have
"$python" - "$runs" <<'END_OF_PYTHON'
import collections, csv, pathlib, sys

import numpy as np


def by_image(path, metric):
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = collections.defaultdict(list)
    for row in rows:
        if row["method"] == rows[-1]["method"]:  # the model comes last
            values[row["image"]].append(float(row[metric]))
    return np.array([np.mean(values[image]) for image in sorted(values)])


runs = pathlib.Path(sys.argv[1])
for full in sorted(runs.glob("hole_full_seed0/*/test.csv")):
    for row in ("without_attention", "without_discounting", "without_critics"):
        for metric in ("hole_psnr", "hole_ssim"):
            pairs = []
            for other in sorted(runs.glob(f"hole_{row}_seed*/{full.parent.name}/test.csv")):
                same_seed = pathlib.Path(str(other).replace(f"hole_{row}_", "hole_full_"))
                pairs.append(by_image(same_seed, metric) - by_image(other, metric))
            seeds, images = np.mean(pairs, axis=1), np.mean(pairs, axis=0)
            text = f"{np.mean(seeds):+.3f} ± {images.std(ddof=1) / len(images) ** 0.5:.3f} over images"
            if len(seeds) > 1:
                text += f" ± {seeds.std(ddof=1) / len(seeds) ** 0.5:.3f} over seeds"
            print(f"{full.parent.name:24} full - {row:20} {metric:10} {text}")
END_OF_PYTHON
