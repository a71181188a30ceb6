#!/usr/bin/env bash
# Runs what scripts/pack-gpu.sh packed, beside this file:
#   ./run.sh tests|sanitize|curves|ring|first|memory|maps|latency|models|all [RESULTS]
# Checkpoints are made once, in $TRT_MODELS or the folder `models` beside this file.
set -uo pipefail
cd "$(dirname "$0")"
what=${1:-all}
results=${2:-results}
models=${TRT_MODELS:-$PWD/models}
mkdir -p "$results" "$models"
export TRT_REQUIRE_CUDA=1

# Tests that look at how much memory is free: nothing else may run meanwhile.
alone=(allocation:: budgets:: limits:: models::a_full_budget engines::a_thousand errors::too_much)
# Tests that take all of it and are ignored otherwise: each a process of its own, and under no tool.
taking=(pressure::)
# Tests that leave little memory or count it to the last piece. Tools take some for themselves; the
# kernels that these run are run by others.
counting=(budgets::two_engines engines::a_thousand '.*_by_the_drivers_count')

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
        ./device-handle-tests --test-threads "${TEST_THREADS:-4}" || failed=1
        ./device-unit-tests --test-threads 1 cuda:: gpu:: || failed=1
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
    local filter=${SANITIZE_FILTER:-.} failed=0 tool logs deadline skip without
    skip=$(IFS='|' && echo "${alone[*]}")
    without=$(IFS='|' && echo "cases::|${counting[*]}")
    export TRT_GPU_SMALL=1
    for tool in ${SANITIZE_TOOLS:-memcheck racecheck}; do
        logs=$(mktemp -d)
        deadline=$(($(date +%s) + ${SANITIZE_SECONDS:-270}))
        # What must be alone comes last, one at a time; what is ignored is not for tools.
        listed --ignored > "$logs/ignored"
        listed | grep -vxFf "$logs/ignored" | grep -vE "^($without)" | grep -E "$filter" > "$logs/all"
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

made() { # NAME
    test -d "$models/$1" || ./random_llama "$models/$1" --preset "$1"
}

curve() { # NAME RESULT then options of candle-trt curve
    local name=$1 result="$results/$2"
    shift 2
    made "$name"
    ./candle-trt curve "$models/$name" --device cuda:0 --json "$result.json" --svg "$result.svg" "$@" 2>&1 |
        tee "$result.txt"
}

# Little host memory may be locked, so most of what streams comes through the ring of pinned pieces.
ring() {
    curve llama-8b llama-8b-ring --host-budget 10% --budgets 50%,min
}

# Prints which part of files is in memory; with `drop`, after asking the kernel to let it go.
in_memory() { # look|drop FILE...
    python3 - "$@" << 'END'
import ctypes, os, sys
libc, page = ctypes.CDLL(None, use_errno=True), os.sysconf("SC_PAGE_SIZE")
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mincore.argtypes = libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = libc.mincore.argtypes + [ctypes.c_void_p]
pages = kept = 0
for path in sys.argv[2:]:
    file = os.open(path, os.O_RDONLY)
    if sys.argv[1] == "drop":
        # Only what is on the disk can go.
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    size = os.fstat(file).st_size
    # Readable and shared; looking at which pages are there reads none.
    at = libc.mmap(None, size, 1, 1, file, 0)
    seen = ctypes.create_string_buffer((size + page - 1) // page)
    if at in (None, ctypes.c_void_p(-1).value) or libc.mincore(at, size, seen):
        sys.exit(f"cannot look at the pages of {path}: {os.strerror(ctypes.get_errno())}")
    kept += sum(byte & 1 for byte in seen.raw)
    pages += len(seen)
    libc.munmap(at, size)
    os.close(file)
print(round(kept / pages, 4))
END
}

# One start of the program to the first token of a prompt at a 10 % budget, as a line of JSON.
started() { # START: how it starts
    local files=("$models"/llama-8b/*.safetensors) there=look
    test "$1" = "file out of memory" && there=drop
    there=$(in_memory "$there" "${files[@]}") || return 1
    case "$1 $there" in
    "file out of memory 0.0") ;;
    "file out of memory "*) echo "the kernel kept $there of the file in memory: no cold start" ;;
    *" 1.0") ;;
    *) echo "only $there of the file is in memory: no warm start" ;;
    esac
    local saved=()
    test "$1" = "saved engine" && saved=(--engine "$models/llama-8b.engine")
    ./candle-trt curve "$models/llama-8b" --device cuda:0 --first-token 10% "${saved[@]}" |
        python3 -c 'import json, sys
line = {"start": sys.argv[1], "file_in_memory": float(sys.argv[2])}
print(json.dumps(line | json.load(sys.stdin)))' "$1" "$there" | tee -a "$results/first.jsonl"
}

# Time from the start of the process to the first token, by what is warm.
first() {
    local cache failed=0
    made llama-8b
    : > "$results/first.jsonl"
    # Brings the file into memory and the kernels into the driver's cache.
    cat "$models"/llama-8b/*.safetensors > /dev/null
    ./candle-trt curve "$models/llama-8b" --device cuda:0 --first-token 10% > /dev/null
    for _ in 1 2 3; do started warm || failed=1; done
    # Saved by the first, which counts for nothing.
    rm -f "$models/llama-8b.engine"
    ./candle-trt curve "$models/llama-8b" --device cuda:0 --first-token 10% --engine "$models/llama-8b.engine" > /dev/null
    for _ in 1 2 3; do started "saved engine" || failed=1; done
    for _ in 1 2 3; do
        cache=$(mktemp -d)
        CUDA_CACHE_PATH=$cache started "empty kernel cache" || failed=1
        rm -rf "$cache"
    done
    for _ in 1 2; do started "file out of memory" || failed=1; done
    return "$failed"
}

# What each step takes of the device's memory.
memory() { # NAME
    made "$1"
    ./candle-trt curve "$models/$1" --device cuda:0 --memory 2>&1 | tee "$results/$1-memory.txt"
}

# Prompts without and with products that are fed by tensor maps, by turns.
maps() { # NAME
    made "$1"
    ./candle-trt curve "$models/$1" --device cuda:0 --tensor-maps --prefill 256,512,1024,2048 2>&1 |
        tee "$results/$1-maps.txt"
}

latency() {
    ./resource_management --device cuda:0 2>&1 | tee "$results/resource_management.txt"
    # Predictions are promised within 15 %; those that are not are named, and the rest goes on.
    ./budget-latency --devices cuda:0,host,host-discrete --within 0.15 --out "$results/budget_latency" 2>&1 |
        tee "$results/budget_latency.txt" || echo "budget-latency: exit ${PIPESTATUS[0]}"
}

# The model files of candle-transformers: each beside the host in f32 and in bf16, and large ones by the clock.
models() {
    for dtype in f32 bf16; do
        ./candle-models run --device cuda:0 --dtype "$dtype" 2>&1 | tee "$results/models-$dtype.txt"
    done
    ./candle-models time --device cuda:0 --dtype bf16 --folder "$models" 2>&1 | tee "$results/models-time.txt"
}

curves() {
    curve smollm2-135m smollm2-135m && curve llama-8b llama-8b
}

machine | tee "$results/machine.txt"
case $what in
tests) tests ;;
sanitize) sanitize ;;
curves) curves ;;
ring) ring ;;
first) first ;;
memory) memory smollm2-135m && memory llama-8b ;;
maps) maps smollm2-135m && maps llama-8b ;;
latency) latency ;;
models) models ;;
all) tests && sanitize && curves && ring && first && latency ;;
*) echo "unknown: $what" && exit 2 ;;
esac
