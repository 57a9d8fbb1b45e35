// The gradient of an embedding (embedding.hpp): a thread owns a run of the vocabulary, clears it and adds to it.
// The distinct tokens: one bit of each word of the vocabulary, so no id is compared with another.
#include "embedding.hpp"

#include <bit>
#include <cstring>
#include <vector>

#include "threads.hpp"

namespace elman {

void gather(const int64_t* tokens, long rows, long size, const float* weight, float* x, int threads) {
    parallel(threads, [&](const Member& me) {
        const auto [begin, end] = me.share(rows);
        for (long n = begin; n < end; n++)
            memcpy(x + n * size, weight + tokens[n] * size, static_cast<size_t>(size) * sizeof *x);
    });
}

void embedding_gradient(const int64_t* tokens, long rows, long size, const float* doutput, long vocabulary_size,
                        float* dweight, int threads) {
    parallel(threads, [&](const Member& me) {
        const auto [begin, end] = me.share(vocabulary_size);
        memset(dweight + begin * size, 0, static_cast<size_t>((end - begin) * size) * sizeof *dweight);
        for (long n = 0; n < rows; n++) {
            if (tokens[n] < begin || tokens[n] >= end) continue;
            float* to = dweight + tokens[n] * size;
            const float* from = doutput + n * size;
            for (long k = 0; k < size; k++) to[k] += from[k];
        }
    });
}

long distinct(const int64_t* ids, long count, long vocabulary_size, int64_t* tokens, int64_t* rows) {
    struct Block {  // of IDS_A_BLOCK ids
        uint64_t present = 0;
        int64_t before = 0;  // how many distinct ids are smaller than the block's
    };
    std::vector<Block> blocks((vocabulary_size + IDS_A_BLOCK - 1) / IDS_A_BLOCK);
    for (long n = 0; n < count; n++) blocks[ids[n] / IDS_A_BLOCK].present |= uint64_t{1} << ids[n] % IDS_A_BLOCK;
    long found = 0;
    for (size_t b = 0; b < blocks.size(); b++) {
        blocks[b].before = found;
        for (uint64_t rest = blocks[b].present; rest; rest &= rest - 1)
            tokens[found++] = static_cast<int64_t>(b) * IDS_A_BLOCK + std::countr_zero(rest);
    }
    for (long n = 0; n < count; n++) {
        const Block& block = blocks[ids[n] / IDS_A_BLOCK];
        const uint64_t smaller = block.present & ((uint64_t{1} << ids[n] % IDS_A_BLOCK) - 1);
        rows[n] = block.before + std::popcount(smaller);
    }
    return found;
}

}  // namespace elman
