#!/bin/sh
# Build the extension with AddressSanitizer and UndefinedBehaviorSanitizer in a temporary directory and run the tests
# of the kernels on it. From anywhere:  PYTHON=.venv/bin/python CXX=g++ tests/kernels/sanitize.sh [pytest arguments]
# With `fuzz` as its first argument it runs fuzz.py instead (fuzz.sh).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
cxx=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/src"
(cd "$root/src" && find trustcompute -name '*.py' -o -name py.typed) | while read -r file; do
    mkdir -p "$work/src/$(dirname "$file")"
    cp "$root/src/$file" "$work/src/$file"
done

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
"$cxx" -std=c++20 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    -Wall -Wextra -fPIC -shared -DPy_LIMITED_API=0x030B0000 -I"$include" \
    "$root"/src/native/*.cpp -o "$work/src/trustcompute/kernels/_native.abi3.so"

# The interpreter itself is not instrumented: the runtimes must be there before it starts, and its own leaks do not
# concern us. pytest must not capture what they write to descriptor 2 before they abort.
preload=$("$cxx" -print-file-name=libasan.so)
undefined=$("$cxx" -print-file-name=libubsan.so)
cd "$root"
if [ "${1:-}" = fuzz ]; then
    shift
    set -- tests/kernels/fuzz.py "$@"
else
    set -- -m pytest -q -p no:cacheprovider --capture=sys tests/kernels "$@"
fi
LD_PRELOAD="$preload $undefined" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
    TRUSTCOMPUTE_KERNELS=native PYTHONPATH="$work/src" PYTHONDONTWRITEBYTECODE=1 \
    "$python" "$@"
