#!/usr/bin/env bash
# Builds what a GPU machine without Rust needs, stripped, into target/gpu (or the folder given):
# the test binary `gpu`, those of the CUDA device, the command, examples and a script that runs them.
#   scripts/pack-gpu.sh [FOLDER] && scp -r target/gpu machine: && ssh machine gpu/run.sh all
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/gpu}
rm -rf "$out"
mkdir -p "$out"

# In the profile in which candle, which says what is right, is fast; all of the workspace, so that all is built once.
programs=$(cargo build --profile bench --locked --workspace --message-format=json \
    --bin candle-trt --bin candle-models --example random_llama --example resource_management --example product_rates)
built=$(cargo test --profile bench --locked --workspace --no-run --message-format=json \
    --test gpu --test cuda --test cuda_kernels --test handles --bench budget_latency)
unit_tests=$(cargo test --profile bench --locked -p trt-device --lib --no-run --message-format=json)
# The last artefact of this kind that is an executable of this name.
executable() { # KIND NAME
    python3 -c 'import json, sys
found = [m["executable"] for m in map(json.loads, sys.stdin)
         if m.get("executable") and m["target"]["name"] == sys.argv[2] and sys.argv[1] in m["target"]["kind"]]
print(found[-1])' "$1" "$2"
}

cp "$(executable test gpu <<< "$built")" "$out/gpu-tests"
cp "$(executable test cuda <<< "$built")" "$out/device-tests"
cp "$(executable test cuda_kernels <<< "$built")" "$out/device-kernel-tests"
cp "$(executable test handles <<< "$built")" "$out/device-handle-tests"
cp "$(executable lib trt_device <<< "$unit_tests")" "$out/device-unit-tests"
cp "$(executable bench budget_latency <<< "$built")" "$out/budget-latency"
cp "$(executable bin candle-trt <<< "$programs")" "$out/candle-trt"
cp "$(executable bin candle-models <<< "$programs")" "$out/candle-models"
for example in random_llama resource_management product_rates; do
    cp "$(executable example "$example" <<< "$programs")" "$out/$example"
done
strip "$out"/*
cp scripts/gpu-run.sh "$out/run.sh"
git rev-parse --short HEAD > "$out/COMMIT"
du -sh "$out"
