// The table of one instruction set; compiled once for each, as the kernels are.
#include "kernels.hpp"
#include "vectors.hpp"

#define ELMAN_STRING_OF(x) #x
#define ELMAN_STRING(x) ELMAN_STRING_OF(x)

namespace elman::ELMAN_ISA {

void output_nats(const OutputTask& task);
size_t recurrence_saved_floats(const RecurrenceShape& shape);
void recurrence_forward(const RecurrenceForward& task);
void recurrence_backward(const RecurrenceBackward& task);
double peak(int threads, long rounds);
extern const StreamKernels stream_kernels;

extern const Kernels table;
const Kernels table{
    ELMAN_STRING(ELMAN_ISA),
    {output_nats},
    &stream_kernels,
    {recurrence_saved_floats, recurrence_forward, recurrence_backward},
    peak,
};

}  // namespace elman::ELMAN_ISA
