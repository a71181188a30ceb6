#!/usr/bin/env bash
# Runs what scripts/pack-gpu.sh packed, beside this file: ./run.sh tests|sanitize|curves|memory|latency|all [RESULTS]
set -uo pipefail
cd "$(dirname "$0")"
what=${1:-all}
results=${2:-results}
models=${TRT_MODELS:-$PWD/models}
mkdir -p "$results" "$models"
export TRT_REQUIRE_CUDA=1

# Tests that look at how much memory is free: nothing else may run meanwhile.
alone=(allocation:: budgets:: models::a_full_budget engines::a_thousand errors::too_much)
# Tests that take all of it and are ignored otherwise: each a process of its own, and under no tool.
taking=(pressure::)

machine() {
    date -u +%F
    echo "commit $(cat COMMIT)"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    nproc
}

tests() {
    local skip=() failed=0
    for name in "${alone[@]}"; do skip+=(--skip "$name"); done
    {
        ./gpu-tests --test-threads "${TEST_THREADS:-4}" "${skip[@]}" || failed=1
        ./gpu-tests --test-threads 1 "${alone[@]}" || failed=1
        for name in "${taking[@]}"; do
            ./gpu-tests --test-threads 1 --ignored "$name" || failed=1
        done
        # The device's own tests, which know of no engine.
        ./device-tests --test-threads 1 || failed=1
        ./device-kernel-tests --test-threads "${TEST_THREADS:-4}" || failed=1
        ./device-unit-tests --test-threads 1 cuda:: || failed=1
        exit "$failed"
    } 2>&1 | tee "$results/tests.txt"
}

# Names of tests; those that are ignored are among them.
listed() {
    ./gpu-tests --list --format terse "$@" | sed -n 's/: test$//p'
}

# One test under one tool, in a process of its own; one line says how it ended.
sanitized() { # TOOL TEST LOGS DEADLINE
    local tool=$1 name=$2 deadline=$4 log="$3/${2//:/_}.txt" left status start=$SECONDS
    left=$((deadline - $(date +%s)))
    if ((left <= 0)); then
        echo "NOT STARTED $name"
        return
    fi
    timeout "$left" compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
        ./gpu-tests --test-threads 1 --exact "$name" > "$log" 2>&1
    status=$?
    # A timeout ends the tool's process; what it has found until then is in the log.
    if ((status == 124)); then
        echo "NOT FINISHED $name ($((SECONDS - start)) s): $(grep -c '^=========.*\(Invalid\|hazard\|Race\)' "$log") findings so far"
    elif ((status == 0)) && grep -q 'SUMMARY: 0 \(errors\|hazards\)' "$log" && grep -q '1 passed' "$log"; then
        echo "clean $name ($((SECONDS - start)) s)"
    else
        echo "FAILED $name (exit $status): $(grep -m 1 'SUMMARY' "$log")"
        tail -n 60 "$log" >&2
    fi
}
export -f sanitized

# memcheck and racecheck over every test of the small run, SANITIZE_SECONDS for each tool.
sanitize() {
    local filter=${SANITIZE_FILTER:-.} failed=0 tool logs deadline skip
    skip=$(IFS='|' && echo "${alone[*]}")
    export TRT_GPU_SMALL=1
    for tool in ${SANITIZE_TOOLS:-memcheck racecheck}; do
        logs=$(mktemp -d)
        deadline=$(($(date +%s) + ${SANITIZE_SECONDS:-270}))
        # What must be alone comes last, one at a time; what is ignored is not for tools.
        listed --ignored > "$logs/ignored"
        listed | grep -vxFf "$logs/ignored" | grep -v '^cases::' | grep -E "$filter" > "$logs/all"
        {
            grep -vE "^($skip)" "$logs/all" |
                xargs -P "${SANITIZE_JOBS:-4}" -I {} bash -c 'sanitized "$@"' _ "$tool" {} "$logs" "$deadline"
            grep -E "^($skip)" "$logs/all" |
                xargs -P 1 -I {} bash -c 'sanitized "$@"' _ "$tool" {} "$logs" "$deadline"
        } > "$results/$tool.txt" 2> "$results/$tool-failures.txt"
        test -s "$results/$tool-failures.txt" || rm -f "$results/$tool-failures.txt"
        echo "$tool: $(grep -c '^clean' "$results/$tool.txt") clean, $(grep -c '^FAILED' "$results/$tool.txt") failed," \
            "$(grep -c '^NOT' "$results/$tool.txt") not finished, of $(wc -l < "$logs/all")" |
            tee -a "$results/$tool.txt"
        grep -E '^(FAILED|NOT)' "$results/$tool.txt" && failed=1
        rm -rf "$logs"
    done
    return "$failed"
}

curve() { # NAME then options of budget_curve
    local name=$1
    shift
    test -d "$models/$name" || ./random_llama "$models/$name" --preset "$name"
    ./budget_curve "$models/$name" --device cuda:0 --json "$results/$name.json" \
        --svg "$results/$name.svg" "$@" 2>&1 | tee "$results/$name.txt"
}

# What each step takes of the device's memory.
memory() { # NAME
    test -d "$models/$1" || ./random_llama "$models/$1" --preset "$1"
    ./budget_curve "$models/$1" --device cuda:0 --memory 2>&1 | tee "$results/$1-memory.txt"
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
memory) memory smollm2-135m && memory llama-8b ;;
latency) latency ;;
all) tests && sanitize && curve smollm2-135m && curve llama-8b && latency ;;
*) echo "unknown: $what" && exit 2 ;;
esac
