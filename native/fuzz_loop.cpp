// A fuzzing loop of its own, guided by coverage, for compilers without libFuzzer (GCC: -fsanitize-coverage=trace-pc):
//     fuzz TARGET SECONDS CORPUS CRASHES      or      fuzz TARGET FILE
// Inputs that reach a new step from one place of the code to another are kept in CORPUS and changed further. What fails
// is saved in CRASHES, and the process ends. Built by CMake with -DELMAN_FUZZ=ON; this file itself is not traced.
#include <sys/stat.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz.hpp"
#include "threads.hpp"

namespace fs = std::filesystem;
using Input = std::vector<uint8_t>;

namespace {

constexpr size_t places = 1 << 14, largest = 512;
uint8_t seen[places], times[places];  // of a step: which numbers of times (1, 2, 3 to 7, more); how often in this run
uint32_t taken[places], steps;        // the steps of this run
thread_local uintptr_t last_place;
const Input* current;
std::string crash_folder;

std::string name_of(const Input& input) {
    uint64_t hash = 14695981039346656037u;
    for (uint8_t byte : input) hash = (hash ^ byte) * 1099511628211u;
    char name[17];
    std::snprintf(name, sizeof name, "%016" PRIx64, hash);
    return std::string(name, 12);
}

void save(const std::string& folder, const Input& input) {
    std::ofstream(folder + "/" + name_of(input), std::ios::binary)
        .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
}

void died() {
    if (!current || crash_folder.empty()) return;
    save(crash_folder, *current);
    std::printf("CRASH %s/%s\n", crash_folder.c_str(), name_of(*current).c_str());
    std::fflush(stdout);
}

Input changed(const std::vector<Input>& corpus, std::mt19937_64& draw) {
    static const uint8_t telling[] = {0, 1, 9, 10, 11, 13, 31, 32, 33, 60, 62, 127, 128, 160, 194, 226, 239, 254, 255};
    static const std::string marks[] = {"<s>", "</s>", "<unk>", " <s> ", "\n", "\xc2\xa0"};
    Input input = corpus[draw() % corpus.size()];
    for (int change = 0, changes = 1 + static_cast<int>(draw() % 5); change < changes; change++) {
        size_t at = input.empty() ? 0 : draw() % input.size();
        switch (draw() % 9) {
            case 0: if (!input.empty()) input[at] ^= static_cast<uint8_t>(1u << draw() % 8); break;
            case 1: if (!input.empty()) input[at] = static_cast<uint8_t>(draw()); break;
            case 2: if (!input.empty()) input[at] = telling[draw() % sizeof telling]; break;
            case 3: input.insert(input.begin() + static_cast<long>(at), telling[draw() % sizeof telling]); break;
            case 4: input.insert(input.begin() + static_cast<long>(at), draw() % 16, static_cast<uint8_t>(draw())); break;
            case 5:
                if (!input.empty())
                    input.erase(input.begin() + static_cast<long>(at),
                                input.begin() + static_cast<long>(std::min(input.size(), at + 1 + draw() % 16)));
                break;
            case 6: {
                const std::string& mark = marks[draw() % std::size(marks)];
                input.insert(input.begin() + static_cast<long>(at), mark.begin(), mark.end());
                break;
            }
            case 7: {  // a piece of itself, elsewhere
                Input piece(input.begin() + static_cast<long>(at),
                            input.begin() + static_cast<long>(std::min(input.size(), at + draw() % 24)));
                size_t to = input.empty() ? 0 : draw() % input.size();
                input.insert(input.begin() + static_cast<long>(to), piece.begin(), piece.end());
                break;
            }
            default: {  // the start of this one, the end of another
                const Input& other = corpus[draw() % corpus.size()];
                input.resize(at);
                if (!other.empty())
                    input.insert(input.end(), other.begin() + static_cast<long>(draw() % other.size()), other.end());
            }
        }
    }
    if (input.size() > largest) input.resize(largest);
    return input;
}

// Whether the run that is over reached something new; forgets the run.
bool new_steps() {
    bool fresh = false;
    for (uint32_t i = 0; i < steps; i++) {
        uint8_t &often = times[taken[i]], bucket = often < 3 ? often : often < 8 ? 4 : 8;
        fresh = fresh || !(seen[taken[i]] & bucket);
        seen[taken[i]] |= bucket, often = 0;
    }
    steps = 0;
    return fresh;
}

bool good(const FuzzTarget& target, const Input& input) {
    // memory of its own and exact size: one byte too many is seen
    std::vector<uint8_t> exact(input);
    exact.shrink_to_fit();
    current = &input;
    const char* wrong = target.run(exact.data(), exact.size());
    if (wrong) {
        std::printf("WRONG %s\n", wrong);
        died();
    }
    current = nullptr;
    return !wrong;
}

Input read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return Input(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
    uintptr_t place = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
    uintptr_t mixed = place * 0x9E3779B97F4A7C15u >> 32;
    uint32_t step = static_cast<uint32_t>((mixed ^ last_place >> 1) % places);
    last_place = mixed;
    if (!times[step] && steps < places) taken[steps++] = step;
    if (times[step] < 255) times[step]++;
}
extern "C" void __sanitizer_set_death_callback(void (*)());
// An input is half a kilobyte: whoever asks for more than this has believed it.
extern "C" const char* __asan_default_options() {
    return "max_allocation_size_mb=64:malloc_context_size=4:quarantine_size_mb=1:thread_local_quarantine_size_kb=64";
}

int main(int count, char** words) {
    const FuzzTarget* target = nullptr;
    for (int i = 0; count > 2 && i < fuzz_target_count; i++)
        if (!std::strcmp(fuzz_targets[i].name, words[1])) target = &fuzz_targets[i];
    if (!target || (count != 3 && count != 5)) return std::puts("fuzz TARGET SECONDS CORPUS CRASHES | fuzz TARGET FILE"), 2;
    elman::use_own_pool(true);
    if (count == 3) {
        bool is_good = good(*target, read(words[2]));
        std::puts(is_good ? "It is as it should be." : "It is wrong.");
        return !is_good;
    }
    crash_folder = words[4];
    __sanitizer_set_death_callback(died);
    std::mt19937_64 draw(std::random_device{}());
    std::vector<Input> corpus{Input(1), Input(40, ' ')};
    for (const auto& entry : fs::directory_iterator(words[3])) corpus.push_back(read(entry.path()));
    auto until = std::chrono::steady_clock::now() + std::chrono::seconds(std::atol(words[2]));
    uint64_t runs = 0;
    for (size_t next = 0; (runs & 63) || std::chrono::steady_clock::now() < until; runs++) {
        const bool first = next < corpus.size() && runs < corpus.size();
        Input input = first ? corpus[next++] : changed(corpus, draw);
        last_place = 0;
        if (!good(*target, input)) return std::printf("#%" PRIu64 "\n", runs + 1), 1;
        if (new_steps() && !first) save(words[3], input), corpus.push_back(input);
        if ((runs & 0xffff) == 0xffff) std::printf("#%" PRIu64 " corpus %zu\n", runs + 1, corpus.size()), std::fflush(stdout);
    }
    std::printf("#%" PRIu64 " corpus %zu\n", runs, corpus.size());
    return 0;
}
