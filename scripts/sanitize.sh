#!/usr/bin/env bash
# The C++ tests, fuzz entries included, under sanitizers. `smoke`: address + undefined with the best instruction set.
# `full`: every instruction set of this CPU, thread too, and the build for a CPU that is no x86.
set -euo pipefail
cd "$(dirname "$0")/.."

mode="${1:-smoke}"
case "$mode" in
  smoke | full) ;;
  *) echo "usage: scripts/sanitize.sh smoke|full" >&2; exit 2 ;;
esac
if ! command -v cmake >/dev/null || ! { command -v c++ || command -v g++ || command -v clang++; } >/dev/null; then
  echo "sanitize: skipped, no cmake or no C++ compiler on PATH"
  exit 0
fi

generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi

# build_and_run NAME SANITIZERS "CMAKE OPTIONS" [RLSFT_ISA ...]: a build directory for each kind, kept for the next run
build_and_run() {
  local dir="build/sanitize-$1" sanitizers="$2" options="$3" isa test
  shift 3
  # a thread for every nanosecond of work: loops small enough for a sanitizer must still use several threads
  # shellcheck disable=SC2086
  cmake -S . -B "$dir" "${generator[@]}" -DRLSFT_BUILD_PYTHON=OFF -DRLSFT_BUILD_TESTS=ON -DRLSFT_MIN_NS_PER_THREAD=1 \
    -DRLSFT_SANITIZE="$sanitizers" -DCMAKE_CXX_FLAGS_RELEASE="-O1" $options >"$dir.log" 2>&1 ||
    { cat "$dir.log"; exit 1; }
  cmake --build "$dir" --parallel >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
  for isa in "$@"; do
    for test in "$dir"/test_*; do
      [[ -x "$test" && -f "$test" ]] || continue
      echo "sanitize: $(basename "$test") [$sanitizers] RLSFT_ISA=${isa:-best}"
      RLSFT_ISA="$isa" ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1 "$test"
    done
  done
}

mkdir -p build
if [[ "$mode" == smoke ]]; then
  build_and_run address address,undefined "" ""
else
  isas=(scalar)
  for isa in avx2 avx512f; do
    if grep -qw "$isa" /proc/cpuinfo 2>/dev/null; then isas+=("${isa%f}"); fi
  done
  export RLSFT_FUZZ_RUNS="${RLSFT_FUZZ_RUNS:-10000}"
  build_and_run address address,undefined "" "${isas[@]}"
  build_and_run thread thread "" "${isas[@]}"
  build_and_run portable address,undefined -DRLSFT_PORTABLE=ON scalar
fi
echo "sanitize: $mode passed"
