#!/bin/sh
# Check with valgrind's memcheck that no kernel branches on a secret or uses one as an address, in the code the compiler
# made. Needs valgrind and its headers. From anywhere:  CXX=g++ tests/kernels/constant_time.sh
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kernels=$(ls "$root"/src/native/*.cpp | grep -v module.cpp)
# shellcheck disable=SC2086 - one word a file
"${CXX:-g++}" -std=c++20 -O3 -gdwarf-4 -I"$root/src/native" "$root/tests/kernels/constant_time.cpp" $kernels \
    -o "$work/constant_time"
valgrind --quiet --log-file="$work/log" "$work/constant_time" || { cat "$work/log"; exit 1; }
