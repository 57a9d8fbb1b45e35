// Python's view of what reads and counts text: words → ids, n-grams. As bindings.cpp: addresses and sizes in.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "ngram_index.hpp"
#include "words.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

// The n-grams of a text; elman/ngram/native.py.
class Ngrams {
    std::unique_ptr<elman::NgramCounts> counts_;

  public:
    Ngrams(Address ids, long size, long vocabulary_size, int order, int threads) {
        nb::gil_scoped_release free;
        counts_ = std::make_unique<elman::NgramCounts>(at<const int32_t>(ids), size, vocabulary_size, order, threads);
    }
    long rows(int n) const { return counts_->rows(n); }
    long kept(int n) const { return counts_->kept(n); }
    void columns(int n, Address keys, Address raw, Address suffix, Address initial) const {
        nb::gil_scoped_release free;
        counts_->columns(n, at<int64_t>(keys), at<int64_t>(raw), at<int64_t>(suffix), at<bool>(initial));
    }
    void adjust(Address cuts, Address of_counts) {
        nb::gil_scoped_release free;
        counts_->adjust(at<const int64_t>(cuts), at<int64_t>(of_counts));
    }
    void unigrams(Address adjusted) const { counts_->unigrams(at<int64_t>(adjusted)); }
    void estimate(int n, Address discount, Address first, Address log10_backoff) {
        nb::gil_scoped_release free;
        counts_->estimate(n, at<const double>(discount), at<const double>(first), at<float>(log10_backoff));
    }
    void log10_prob(int n, Address log10_prob) {
        nb::gil_scoped_release free;
        counts_->log10_prob(n, at<float>(log10_prob));
    }
    void keys(int n, Address keys) {
        nb::gil_scoped_release free;
        counts_->keys(n, at<int64_t>(keys));
    }
};

bool ngram_children(Address keys, long rows, long contexts, long vocabulary_size, Address children) {
    nb::gil_scoped_release free;
    return elman::ngram_children(at<const int64_t>(keys), rows, contexts, vocabulary_size, at<uint32_t>(children));
}

using Tables = std::vector<std::array<Address, 4>>;  // of each order: keys, log10_prob, log10_backoff, children

std::vector<elman::NgramTable> orders(const Tables& tables) {
    std::vector<elman::NgramTable> found;
    for (const auto& [keys, prob, backoff, children] : tables)
        found.push_back({at<const int64_t>(keys), at<const float>(prob), at<const float>(backoff),
                         at<const uint32_t>(children)});
    return found;
}

// rows: begin, end, batch; to: scores, matched or 0.
elman::NgramEvents events_of(Address ids, std::array<int64_t, 3> rows, double scale, std::pair<Address, Address> to) {
    return {at<const int32_t>(ids), rows[0], rows[1], rows[2], scale, at<double>(to.first), at<int64_t>(to.second)};
}

// (the next row, bytes written)
std::pair<long, long> ngram_lines(const Tables& tables, int n, std::pair<Address, Address> tokens,
                                  long vocabulary_size, std::pair<long, long> rows, Address out, long room) {
    nb::gil_scoped_release free;
    int64_t bytes = 0;
    long next = elman::ngram_lines(orders(tables).data(), n, at<const char>(tokens.first),
                                   at<const int64_t>(tokens.second), vocabulary_size, rows.first, rows.second,
                                   at<char>(out), room, &bytes);
    return {next, bytes};
}

// The bytes of all tokens, each ended by LF, which is in none.
nb::bytes tokens_of(const elman::WordTable& table) {
    std::string text;
    for (int64_t number = 0; number < table.size(); number++) {
        text += table.token(number);
        text += '\n';
    }
    return nb::bytes(text.data(), text.size());
}

}  // namespace

void bind_text(nb::module_& m) {
    nb::class_<elman::WordTable>(m, "WordTable")
        .def(nb::init<>())
        .def("__len__", &elman::WordTable::size)
        .def("add", [](elman::WordTable& self, nb::bytes tokens) { self.add({tokens.c_str(), tokens.size()}); })
        .def("tokens", &tokens_of)
        .def("encode", [](elman::WordTable& self, nb::bytes block, bool grow, std::array<Address, 3> to) {
            std::string_view text(block.c_str(), block.size());
            nb::gil_scoped_release free;
            return self.encode(text, grow, at<int32_t>(to[0]), at<int32_t>(to[1]), at<int32_t>(to[2]));
        }, "block"_a, "grow"_a, "to"_a);  // ids, and of each line words and bytes
    nb::class_<Ngrams>(m, "Ngrams")
        .def(nb::init<Address, long, long, int, int>(), "ids"_a, "size"_a, "vocabulary_size"_a, "order"_a, "threads"_a)
        .def("rows", &Ngrams::rows, "n"_a).def("kept", &Ngrams::kept, "n"_a)
        .def("columns", &Ngrams::columns, "n"_a, "keys"_a, "raw"_a, "suffix"_a, "initial"_a)
        .def("adjust", &Ngrams::adjust, "cuts"_a, "of_counts"_a).def("unigrams", &Ngrams::unigrams, "adjusted"_a)
        .def("estimate", &Ngrams::estimate, "n"_a, "discount"_a, "first"_a, "log10_backoff"_a)
        .def("log10_prob", &Ngrams::log10_prob, "n"_a, "log10_prob"_a).def("keys", &Ngrams::keys, "n"_a, "keys"_a);
    m.def("ngram_children", &ngram_children, "keys"_a, "rows"_a, "contexts"_a, "vocabulary_size"_a, "children"_a);
    m.def("ngram_score", [](const Tables& tables, long size, Address ids, std::array<int64_t, 3> rows, double scale,
                            std::pair<Address, Address> to, int threads) {
        elman::ngram_score(orders(tables).data(), static_cast<int>(tables.size()), size,
                           events_of(ids, rows, scale, to), threads);
    }, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<elman::NgramIndex>(m, "NgramIndex")
        .def("__init__", [](elman::NgramIndex* to, const Tables& tables, const std::vector<int64_t>& rows, long size) {
            nb::gil_scoped_release free;
            new (to) elman::NgramIndex(orders(tables).data(), rows.data(), static_cast<int>(rows.size()), size);
        }, "tables"_a, "rows"_a, "vocabulary_size"_a)
        .def("bytes", &elman::NgramIndex::bytes)
        .def("score", [](const elman::NgramIndex& self, Address ids, std::array<int64_t, 3> rows, double scale,
                         std::pair<Address, Address> to, int threads) {
            self.score(events_of(ids, rows, scale, to), threads);
        }, nb::call_guard<nb::gil_scoped_release>());
    m.def("ngram_lines", &ngram_lines, "tables"_a, "n"_a, "tokens"_a, "vocabulary_size"_a, "rows"_a, "out"_a,
          "room"_a);
}
