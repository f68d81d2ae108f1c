#!/usr/bin/env bash
# The C++ tests under sanitizers: `smoke` = address + undefined, `full` = that for every instruction set, and thread.
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

# build_and_run NAME SANITIZERS [RLSFT_ISA ...]: a build directory for each kind, kept for the next run
build_and_run() {
  local dir="build/sanitize-$1" sanitizers="$2"
  shift 2
  cmake -S . -B "$dir" "${generator[@]}" -DRLSFT_BUILD_PYTHON=OFF -DRLSFT_BUILD_TESTS=ON \
    -DRLSFT_SANITIZE="$sanitizers" -DCMAKE_CXX_FLAGS_RELEASE="-O1" >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
  cmake --build "$dir" --parallel >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
  local isa test
  for isa in "$@"; do
    for test in "$dir"/test_*; do
      [[ -x "$test" && -f "$test" ]] || continue
      echo "sanitize: $(basename "$test") [$sanitizers] RLSFT_ISA=${isa:-best}"
      RLSFT_ISA="$isa" ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 "$test"
    done
  done
}

best_isas=("")
if [[ "$mode" == full ]]; then
  best_isas=("" scalar)
  if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then best_isas+=(avx2); fi
fi
mkdir -p build
build_and_run address address,undefined "${best_isas[@]}"
if [[ "$mode" == full ]]; then build_and_run thread thread ""; fi
echo "sanitize: $mode passed"
