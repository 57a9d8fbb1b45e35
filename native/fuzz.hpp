// What the fuzzing loop (fuzz_loop.cpp) runs: targets that take any bytes and say what is wrong.
#pragma once

#include <cstddef>
#include <cstdint>

struct FuzzTarget {
    const char* name;
    // nullptr, or what does not hold. What the sanitizers see ends the process.
    const char* (*run)(const uint8_t* data, size_t size);
};

extern const FuzzTarget fuzz_targets[];
extern const int fuzz_target_count;
