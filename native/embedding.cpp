// The gradient of an embedding (embedding.hpp): a thread owns a run of the vocabulary, clears it and adds to it.
#include "embedding.hpp"

#include <cstring>

#include "threads.hpp"

namespace elman {

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

}  // namespace elman
