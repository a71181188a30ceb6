#!/usr/bin/env bash
# Whether this tree computes the same bits as another commit, and keeps the same bytes at each budget: runs
# tests/suite/recorded.rs on both, on this machine's host device, and prints what differs.
#   scripts/same-bits.sh COMMIT
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(git rev-parse --verify "$1^{commit}")
folder=$(mktemp -d)
trap 'git worktree remove --force "$folder/tree" > /dev/null 2>&1; rm -rf "$folder"' EXIT
git worktree add --quiet --detach "$folder/tree" "$base"
# A commit from before there were records is asked with the test of this tree.
if [ ! -e "$folder/tree/tests/suite/recorded.rs" ]; then
    cp tests/suite/recorded.rs "$folder/tree/tests/suite/"
    echo "mod recorded;" >> "$folder/tree/tests/suite/main.rs"
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
record() { # FOLDER FILE
    (cd "$1" && TRT_RECORD=$2 cargo test --quiet --test suite recorded:: > /dev/null)
}
record "$folder/tree" "$folder/before"
record . "$folder/after"
diff "$folder/before" "$folder/after" && echo "the same: $(wc -l < "$folder/after") records"
