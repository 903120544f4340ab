# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, and how they speak.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
BUILD=$ROOT/.build
# Both are read by the scripts that source this file.
# shellcheck disable=SC2034
NEWEST=$ROOT/.venv OLDEST=$ROOT/.venv-oldest
export PYTHONDONTWRITEBYTECODE=1
# A user's own ansible.cfg, roles or collections must not decide whether this checkout passes.
export ANSIBLE_COLLECTIONS_PATH=$BUILD/collections
# What ansible keeps between runs stays in the checkout.
export ANSIBLE_HOME=$BUILD/ansible
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

# A copy of the project below a physical path that ansible-test accepts (it refuses a symlink), brought up to date
# without losing what earlier runs of the tools keep in tests/output.
copy_collection() {
    local copy=$1
    mkdir -p "$copy"
    # A repository of its own: the tools list files through git, and in the one around it this folder is ignored.
    [[ -d $copy/.git ]] || git init --quiet "$copy"
    project_files | rsync -a --checksum --delete --from0 --files-from=- "$ROOT/" "$copy/"
    # --files-from does not delete: take away what the project no longer has.
    comm -z -13 <(project_files | sort -z) <(cd "$copy" && find . \( -path ./tests/output -o -path ./.git \) -prune -o ! -type d -printf '%P\0' | sort -z) |
        (cd "$copy" && xargs -0 -r rm -f --)
}

# The files of the project as they are now, new ones included; ignored and deleted ones left out. NUL separated.
project_files() {
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard --deduplicate |
        while IFS= read -r -d '' file; do
            if [[ -e $ROOT/$file || -L $ROOT/$file ]]; then printf '%s\0' "$file"; fi
        done
}
