#!/usr/bin/env bash
# Coverage-guided fuzzing of the C++ core with libFuzzer under ASan and UBSan, one entry of csrc/fuzz after another.
#
#   scripts/fuzz.sh [RUNS | SECONDSs] [ENTRY ...]     1000000 executions of every entry; 30s: thirty seconds of each
#
# What is found, corpora included, stays in build/fuzz; a finding ends the script and is printed as the line to add to
# csrc/fuzz/corpus/ENTRY.txt. RLSFT_ISA chooses an instruction set as everywhere. `scripts/fuzz.sh pack` rewrites the
# committed corpora with the smallest inputs that reach what build/fuzz reached.
set -euo pipefail
cd "$(dirname "$0")/.."

amount="${1:-1000000}"
shift || true
case "$amount" in
  pack) ;;
  *[!0-9s]* | *s?* | s | "") echo "usage: scripts/fuzz.sh [RUNS | SECONDSs | pack] [ENTRY ...]" >&2; exit 2 ;;
esac

# a clang++ that has libFuzzer's runtime too
find_clang() {
  local candidate probe
  probe="$(mktemp -d)"
  echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$probe/probe.cpp"
  for candidate in ${CXX:-} clang++ $(compgen -c clang++- | sort -u -V -r); do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -fsanitize=fuzzer,address,undefined "$probe/probe.cpp" -o "$probe/probe" 2>/dev/null; then
      rm -rf "$probe"
      echo "$candidate"
      return
    fi
  done
  rm -rf "$probe"
}

clang="$(find_clang)"
if [[ -z "$clang" ]] || ! command -v cmake >/dev/null; then
  echo "fuzz: skipped, no clang++ with libFuzzer (or no cmake) on PATH. Debian, Ubuntu: apt install clang-14"
  echo "libclang-rt-14-dev cmake (any version from 14); Fedora: dnf install clang compiler-rt cmake. The same entries run"
  echo "without coverage guidance in the C++ tests: scripts/sanitize.sh smoke"
  exit 0
fi

dir=build/fuzz
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
mkdir -p "$dir/found"
echo "fuzz: building with $("$clang" --version | head -1)"
cmake -S . -B "$dir" "${generator[@]}" -DCMAKE_CXX_COMPILER="$clang" -DRLSFT_BUILD_PYTHON=OFF -DRLSFT_BUILD_FUZZERS=ON \
  -DRLSFT_SANITIZE=address,undefined -DRLSFT_MIN_NS_PER_THREAD=1 -DCMAKE_CXX_FLAGS_RELEASE=-O2 >"$dir.log" 2>&1 ||
  { cat "$dir.log"; exit 1; }
cmake --build "$dir" --parallel >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }

entries=("$@")
if [[ ${#entries[@]} == 0 ]]; then
  for source in csrc/fuzz/fuzz_*.cpp; do source="$(basename "$source" .cpp)"; entries+=("${source#fuzz_}"); done
fi

hex_to_files() {  # FILE DIRECTORY
  python3 - "$1" "$2" <<'PYTHON'
import hashlib, pathlib, sys
lines = pathlib.Path(sys.argv[1]).read_text().splitlines() if pathlib.Path(sys.argv[1]).exists() else []
for line in lines:
    data = bytes.fromhex(line.partition("#")[0].strip())
    if data:
        (pathlib.Path(sys.argv[2]) / hashlib.sha1(data).hexdigest()).write_bytes(data)
PYTHON
}

pack() {  # ENTRY: regression lines (those with a comment) stay, the rest is replaced
  local merged
  merged="$(mktemp -d)"
  "$dir/fuzz_$1" -merge=1 -max_len=96 "$merged" "$dir/corpus-$1" >/dev/null 2>&1
  python3 - "csrc/fuzz/corpus/$1.txt" "$merged" <<'PYTHON'
import pathlib, sys
target = pathlib.Path(sys.argv[1])
kept = [line for line in (target.read_text().splitlines() if target.exists() else []) if "#" in line]
found = sorted((path.read_bytes() for path in pathlib.Path(sys.argv[2]).iterdir()), key=lambda data: (len(data), data))
step = max(1, len(found) // 40)  # a spread of small and large ones, few enough to read past
target.write_text("\n".join([*kept, *(data.hex() for data in found[::step] if data)]) + "\n")
PYTHON
  rm -rf "$merged"
}

if [[ "$amount" == pack ]]; then
  for entry in "${entries[@]}"; do pack "$entry"; wc -l "csrc/fuzz/corpus/$entry.txt"; done
  exit 0
fi

limit=(-runs="$amount")
if [[ "$amount" == *s ]]; then limit=(-max_total_time="${amount%s}"); fi
table=("$(printf '%-24s %12s %10s %10s %8s' entry executions edges features seconds)")
for entry in "${entries[@]}"; do
  corpus="$dir/corpus-$entry" log="$dir/$entry.log"
  mkdir -p "$corpus"
  hex_to_files "csrc/fuzz/corpus/$entry.txt" "$corpus"
  echo "fuzz: $entry"
  begin=$SECONDS
  if ! "$dir/fuzz_$entry" "${limit[@]}" -max_len=512 -timeout=20 -rss_limit_mb=3072 -print_final_stats=1 \
    -artifact_prefix="$dir/found/$entry-" "$corpus" >"$log" 2>&1; then
    grep -v '^#' "$log" | tail -40
    artifact="$(ls -t "$dir/found/$entry-"* 2>/dev/null | head -1)"
    if [[ -n "$artifact" ]]; then
      echo "fuzz: finding in $entry; for csrc/fuzz/corpus/$entry.txt:"
      od -An -v -tx1 "$artifact" | tr -d ' \n'
      echo "  # what went wrong"
    fi
    exit 1
  fi
  runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  edges="$(sed -n 's/^#.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)"
  features="$(sed -n 's/^#.* ft: \([0-9]*\).*/\1/p' "$log" | tail -1)"
  table+=("$(printf '%-24s %12s %10s %10s %8s' "$entry" "$runs" "$edges" "$features" $((SECONDS - begin)))")
done
printf '%s\n' "${table[@]}" | tee "$dir/table.txt"
echo "fuzz: passed"
