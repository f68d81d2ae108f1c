// Runs one fuzz entry without a fuzzer: its corpus, then pseudo-random inputs, the same ones every time.
//
//   test_fuzz_<entry> [runs]         RLSFT_FUZZ_RUNS, or 5000, when not given
//   test_fuzz_<entry> --file CRASH   one raw input, as libFuzzer writes it
//
// corpus/<entry>.txt holds one input a line in hexadecimal; '#' starts a comment.
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz_input.hpp"

namespace {

std::vector<std::uint8_t> current;

void print_current() {
  std::fprintf(stderr, "input: ");
  for (const std::uint8_t byte : current) std::fprintf(stderr, "%02x", byte);
  std::fprintf(stderr, "\n");
}

void on_abort(int) {
  print_current();
  std::_Exit(1);
}

void run(std::vector<std::uint8_t> input) {
  current = std::move(input);
  try {
    LLVMFuzzerTestOneInput(current.data(), current.size());
  } catch (...) {
    print_current();
    throw;
  }
}

std::vector<std::uint8_t> from_hex(const std::string& line) {
  std::vector<std::uint8_t> input;
  for (std::size_t i = 0; i + 1 < line.size() && line[i] != '#' && line[i] != ' '; i += 2) {
    input.push_back(static_cast<std::uint8_t>(std::stoi(line.substr(i, 2), nullptr, 16)));
  }
  return input;
}

// program: .../test_fuzz_<entry>
long replay_corpus(const std::string& program) {
  const std::string mark = "test_fuzz_";
  std::ifstream corpus(RLSFT_FUZZ_CORPUS + program.substr(program.rfind(mark) + mark.size()) + ".txt");
  long inputs = 0;
  for (std::string line; std::getline(corpus, line);) {
    const std::vector<std::uint8_t> input = from_hex(line);
    inputs += !input.empty();
    run(input);
  }
  return inputs;
}

// Short inputs more often than long ones, and bytes that are often small: most structure is read early and modulo.
void run_random(std::uint64_t seed) {
  const auto next = [&seed] {
    seed += 0x9E3779B97F4A7C15ull;
    std::uint64_t z = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  };
  std::vector<std::uint8_t> input(static_cast<std::size_t>(next() % (8ull << next() % 7)));
  for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(next() % 4 == 0 ? next() % 4 : next() % 256);
  run(std::move(input));
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGABRT, on_abort);
  if (argc == 3 && std::string(argv[1]) == "--file") {
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", argv[2]);
      return 2;
    }
    run({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
    return 0;
  }
  const char* wish = argc > 1 ? argv[1] : std::getenv("RLSFT_FUZZ_RUNS");
  const long runs = wish != nullptr ? std::atol(wish) : 5000;
  const long inputs = replay_corpus(argv[0]);
  for (long i = 0; i < runs; ++i) run_random(static_cast<std::uint64_t>(i));
  std::printf("%ld corpus inputs, %ld random inputs, no finding\n", inputs, runs);
  return 0;
}
