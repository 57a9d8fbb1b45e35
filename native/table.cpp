// The table of one instruction set; compiled once for each, as the kernels are.
#include "embedding.hpp"
#include "kernels.hpp"
#include "norm.hpp"
#include "output_layout.hpp"
#include "recurrence_plan.hpp"
#include "streaming_draw.hpp"
#include "streaming_worker.hpp"

#define ELMAN_STRING_OF(x) #x
#define ELMAN_STRING(x) ELMAN_STRING_OF(x)

namespace elman::ELMAN_ISA {

void output_nats(const OutputTask& task);
size_t recurrence_saved_floats(const RecurrenceShape& shape);
void recurrence_forward(const RecurrenceForward& task);
void recurrence_backward(const RecurrenceBackward& task);
double peak(int threads, long rounds);
extern const StreamKernels stream_kernels;

namespace {

#define ELMAN_BOUNDARY(constant) {#constant, constant}
const Boundary boundaries[] = {
    // vectors.hpp, tile.hpp, matrix.hpp
    ELMAN_BOUNDARY(LANES), ELMAN_BOUNDARY(COLUMNS), ELMAN_BOUNDARY(PANEL), ELMAN_BOUNDARY(ROWS),
    ELMAN_BOUNDARY(ALIASED), ELMAN_BOUNDARY(FEW_LEFT), ELMAN_BOUNDARY(DEALT),
    // recurrence_plan.hpp
    ELMAN_BOUNDARY(STEP_ROWS), ELMAN_BOUNDARY(STEP_WORDS), ELMAN_BOUNDARY(CHUNK_FLOATS), ELMAN_BOUNDARY(CHUNK_ROWS),
    ELMAN_BOUNDARY(RUN), ELMAN_BOUNDARY(TILES), ELMAN_BOUNDARY(ROW_BLOCK), ELMAN_BOUNDARY(SUMMED),
    ELMAN_BOUNDARY(THREAD_WORK), ELMAN_BOUNDARY(PLACES_AHEAD),
    // output_layout.hpp
    ELMAN_BOUNDARY(GRAIN), ELMAN_BOUNDARY(CHUNK<Fp32>), ELMAN_BOUNDARY(CHUNK<Bf16>), ELMAN_BOUNDARY(BLOCK_ROWS),
    ELMAN_BOUNDARY(FEW_CHUNKS),
    // streaming_product.hpp, streaming_worker.hpp, streaming_draw.hpp
    ELMAN_BOUNDARY(STREAM_ROWS), ELMAN_BOUNDARY(MANY), ELMAN_BOUNDARY(DEEP), ELMAN_BOUNDARY(WINDOW_ROWS),
    ELMAN_BOUNDARY(FEW_INPUTS), ELMAN_BOUNDARY(DRAW_BLOCK), ELMAN_BOUNDARY(CANDIDATES),
    // norm.hpp, embedding.hpp
    ELMAN_BOUNDARY(NORM_BLOCK), ELMAN_BOUNDARY(NORM_SUMS), ELMAN_BOUNDARY(IDS_A_BLOCK),
    {nullptr, 0},
};

}  // namespace

extern const Kernels table;
const Kernels table{
    ELMAN_STRING(ELMAN_ISA),
    {output_nats},
    &stream_kernels,
    {recurrence_saved_floats, recurrence_forward, recurrence_backward},
    peak,
    boundaries,
};

}  // namespace elman::ELMAN_ISA
