# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, and how they speak.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
BUILD=$ROOT/.build
NEWEST=$ROOT/.venv
# Read by the scripts that source this file.
# shellcheck disable=SC2034
OLDEST=$ROOT/.venv-oldest
export PYTHONDONTWRITEBYTECODE=1
# A user's own ansible.cfg, roles or collections must not decide whether this checkout passes.
export ANSIBLE_COLLECTIONS_PATH=$BUILD/collections
unset ANSIBLE_CONFIG ANSIBLE_COLLECTIONS_PATHS PYTHONPATH
# A pager waits for a key that nobody presses.
export PAGER=cat

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The collection is only importable below a path that ends in ansible_collections/<namespace>/<name>.
link_collection() {
    mkdir -p "$BUILD/collections/ansible_collections/elephaas"
    ln -sfn ../../../.. "$BUILD/collections/ansible_collections/elephaas/herd"
}

# The files of the project as they are now, new ones included; ignored and deleted ones left out. NUL separated.
project_files() {
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard --deduplicate |
        while IFS= read -r -d '' file; do
            if [[ -e $ROOT/$file || -L $ROOT/$file ]]; then printf '%s\0' "$file"; fi
        done
}
