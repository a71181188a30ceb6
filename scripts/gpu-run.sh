#!/usr/bin/env bash
# Runs what scripts/pack-gpu.sh packed, beside this file: ./run.sh tests|sanitize|curves|latency|all [RESULTS]
set -uo pipefail
cd "$(dirname "$0")"
what=${1:-all}
results=${2:-results}
models=${TRT_MODELS:-/tmp/candle-trt-models}
mkdir -p "$results" "$models"
export TRT_REQUIRE_CUDA=1

machine() {
    date -u +%F
    echo "commit $(cat COMMIT)"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    nproc
}

tests() {
    ./gpu-tests --test-threads 1 2>&1 | tee "$results/tests.txt"
}

sanitize() {
    for tool in memcheck racecheck; do
        timeout "${SANITIZE_SECONDS:-240}" compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
            ./gpu-tests --test-threads 1 ${SANITIZE_FILTER:-} 2>&1 |
            tail -n 40 | tee "$results/$tool.txt"
    done
}

curve() { # NAME then options of budget_curve
    local name=$1
    shift
    test -d "$models/$name" || ./random_llama "$models/$name" --preset "$name"
    ./budget_curve "$models/$name" --device cuda:0 --json "$results/$name.json" \
        --svg "$results/$name.svg" "$@" 2>&1 | tee "$results/$name.txt"
}

latency() {
    ./resource_management --device cuda:0 2>&1 | tee "$results/resource_management.txt"
    ./budget-latency --devices cuda:0,host,host-discrete --out "$results/budget_latency" 2>&1 |
        tee "$results/budget_latency.txt"
}

machine | tee "$results/machine.txt"
case $what in
tests) tests ;;
sanitize) sanitize ;;
curves) curve smollm2-135m && curve llama-8b ;;
latency) latency ;;
all) tests && sanitize && curve smollm2-135m && curve llama-8b && latency ;;
*) echo "unknown: $what" && exit 2 ;;
esac
