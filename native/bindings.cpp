// Python's view of the kernels: addresses and sizes in, nothing out. The only file that knows nanobind.
//
// Shapes, dtypes, contiguity and lifetimes are checked by elman/kernels.py, the only importer; here an
// address is an integer (Tensor.data_ptr()), 0 for null. The interpreter is free while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

void output_nats(long rows, long hidden_size, long vocabulary_size, Address hidden, Address weight, Address bias,
                 Address targets, Address nats, Address gradient, Address dhidden, Address dweight, Address dbias,
                 int threads, bool bf16) {
    nb::gil_scoped_release free;
    elman::kernels().output.nats({rows, hidden_size, vocabulary_size, at<const float>(hidden),
                                  at<const float>(weight), at<const float>(bias), at<const int64_t>(targets),
                                  at<float>(nats), at<const float>(gradient), at<float>(dhidden),
                                  at<float>(dweight), at<float>(dbias), threads, bf16});
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("instruction_set", [] { return std::string(elman::kernels().name); });
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* const* name = elman::available(); *name; name++) names.emplace_back(*name);
        return names;
    });
    m.def("use", [](const std::string& name) { return elman::use(name.c_str()); }, "instruction_set"_a);
    m.def("bf16_is_faster", &elman::bf16_is_faster);
    m.def("pool", [] { return std::string(elman::pool()); });
    m.def("use_own_pool", &elman::use_own_pool, "own"_a);
    m.def("release_workspaces", &elman::release_workspaces);
    m.def("output_nats", &output_nats, "rows"_a, "hidden_size"_a, "vocabulary_size"_a, "hidden"_a, "weight"_a,
          "bias"_a, "targets"_a, "nats"_a, "gradient"_a, "dhidden"_a, "dweight"_a, "dbias"_a, "threads"_a,
          "bf16"_a);
}
