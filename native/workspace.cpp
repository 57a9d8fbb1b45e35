#include "workspace.hpp"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace elman {

namespace {

constexpr size_t HUGE_PAGE = size_t{1} << 21;
constexpr size_t MOST_KEPT = 24;  // the gradients, saved activations and scratch of a few layers,
constexpr size_t MOST_BYTES = size_t{1} << 29;  // and no more than half a gigabyte of what nobody holds

struct Block {
    void* data;
    size_t bytes;
};

std::mutex mutex;
std::vector<Block>& kept() {
    static auto* blocks = new std::vector<Block>;  // never destroyed: threads may outlive static objects
    return *blocks;
}

Block allocate(size_t bytes) {
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : 4096;
    bytes = (bytes + unit - 1) / unit * unit;
    void* data = std::aligned_alloc(unit, bytes);
    if (!data) throw std::bad_alloc();
#if defined(__linux__)
    if (unit == HUGE_PAGE) madvise(data, bytes, MADV_HUGEPAGE);  // advice: refusal changes nothing but speed
#endif
    return {data, bytes};
}

// The smallest kept block that is large enough and not four times too large.
Block take(size_t bytes) {
    std::lock_guard lock(mutex);
    auto& blocks = kept();
    size_t best = blocks.size();
    for (size_t i = 0; i < blocks.size(); i++) {
        bool fits = blocks[i].bytes >= bytes && blocks[i].bytes / 4 <= bytes + 4096;
        if (fits && (best == blocks.size() || blocks[i].bytes < blocks[best].bytes)) best = i;
    }
    if (best == blocks.size()) return {nullptr, 0};
    Block block = blocks[best];
    blocks.erase(blocks.begin() + static_cast<long>(best));  // the others stay in the order of their age
    return block;
}

}  // namespace

Workspace::Workspace(size_t bytes) {
    Block block = take(bytes);
    if (!block.data) block = allocate(bytes ? bytes : 1);
    data_ = block.data;
    bytes_ = block.bytes;
}

Workspace::~Workspace() {
    std::lock_guard lock(mutex);
    auto& blocks = kept();
    if (blocks.capacity() == 0) blocks.reserve(MOST_KEPT + 1);
    blocks.push_back({data_, bytes_});
    size_t bytes = 0;
    for (const auto& block : blocks) bytes += block.bytes;
    while (blocks.size() > MOST_KEPT || bytes > MOST_BYTES) {  // the oldest go
        bytes -= blocks.front().bytes;
        std::free(blocks.front().data);
        blocks.erase(blocks.begin());
    }
}

size_t release_workspaces() {
    std::lock_guard lock(mutex);
    size_t bytes = 0;
    for (auto& block : kept()) {
        bytes += block.bytes;
        std::free(block.data);
    }
    kept().clear();
    return bytes;
}

}  // namespace elman
