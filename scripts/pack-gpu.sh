#!/usr/bin/env bash
# Builds what a GPU machine without Rust needs, stripped, into target/gpu (or the folder given):
# the test binary `gpu`, those of the CUDA device, the command, examples and a script that runs them.
#   scripts/pack-gpu.sh [FOLDER] && scp -r target/gpu machine: && ssh machine gpu/run.sh all
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/gpu}
rm -rf "$out"
mkdir -p "$out"

cargo build --release --locked -p candle-trt-cli --bin candle-trt
cargo build --release --locked -p candle-trt --example random_llama --example resource_management
# The last artefact that is an executable of this name.
executable() {
    python3 -c 'import json, sys
found = [m["executable"] for m in map(json.loads, sys.stdin)
         if m.get("executable") and m["target"]["name"] == sys.argv[1]]
print(found[-1])' "$1"
}
# Of the profile in which candle, which says what is right, is fast.
test_binary=$(cargo test --profile bench --locked -p candle-trt --test gpu --no-run --message-format=json | executable gpu)
device_tests=$(cargo test --release --locked -p trt-device --lib --test cuda --test cuda_kernels --no-run \
    --message-format=json)
bench_binary=$(cargo bench --locked --bench budget_latency --no-run --message-format=json |
    executable budget_latency)

cp "$test_binary" "$out/gpu-tests"
cp "$(executable cuda <<< "$device_tests")" "$out/device-tests"
cp "$(executable cuda_kernels <<< "$device_tests")" "$out/device-kernel-tests"
cp "$(executable trt_device <<< "$device_tests")" "$out/device-unit-tests"
cp "$bench_binary" "$out/budget-latency"
cp target/release/candle-trt "$out/"
for example in random_llama resource_management; do
    cp "target/release/examples/$example" "$out/"
done
strip "$out"/*
cp scripts/gpu-run.sh "$out/run.sh"
git rev-parse --short HEAD > "$out/COMMIT"
du -sh "$out"
