// What Python hands over: where a tensor's numbers lie and its shape; and the checks of both, before anything is read.
//
// The address of a tensor that has numbers is never null, and its numbers lie there without gaps and are of the type that
// is asked for (elman/kernels/native.py). std::invalid_argument is Python's ValueError, std::out_of_range its IndexError.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace elman {

using Shape = std::vector<int64_t>;
using Given = std::pair<uintptr_t, Shape>;  // (0, ()): nothing

inline bool is_there(const Given& given) { return given.first || !given.second.empty(); }

inline std::string written(const Shape& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

inline void require(bool right, const std::string& what) {
    if (!right) throw std::invalid_argument(what + ": shapes do not fit");
}

// a · b of sizes; refuses what is negative and what no memory holds
inline int64_t times(int64_t a, int64_t b) {
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) || product > int64_t{1} << 48)
        throw std::invalid_argument("sizes of " + std::to_string(a) + " times " + std::to_string(b) + " numbers");
    return product;
}

inline int64_t numbers_in(const Shape& shape, size_t dimensions) {
    int64_t product = 1;
    for (size_t i = 0; i < dimensions; i++) product = times(product, shape[i]);
    return product;
}

inline int64_t numbers_in(const Shape& shape) { return numbers_in(shape, shape.size()); }

// The numbers of a tensor that must have this shape.
template <class T> T* shaped(const Given& given, const Shape& shape, const char* name) {
    if (given.second != shape) require(false, std::string(name) + " is " + written(given.second) + ", not " + written(shape));
    return reinterpret_cast<T*>(given.first);
}

// The same, or null for what is not there.
template <class T> T* shaped_or_null(const Given& given, const Shape& shape, const char* name) {
    return is_there(given) ? shaped<T>(given, shape, name) : nullptr;
}

// The numbers of a tensor that must have so many, in whatever shape.
template <class T> T* counted(const Given& given, int64_t count, const char* name) {
    if (!is_there(given) || numbers_in(given.second) != count)
        require(false, std::string(name) + " is " + written(given.second) + ", not " + std::to_string(count) + " numbers");
    return reinterpret_cast<T*>(given.first);
}

template <class T> T* counted_or_null(const Given& given, int64_t count, const char* name) {
    return is_there(given) ? counted<T>(given, count, name) : nullptr;
}

// std::out_of_range "<what> <size>" unless each of the `count` ids is in 0 … size-1
inline void check_ids(const int64_t* ids, int64_t count, int64_t size, const char* what) {
    bool inside = true;
    for (int64_t i = 0; i < count; i++) inside &= static_cast<uint64_t>(ids[i]) < static_cast<uint64_t>(size);
    if (!inside) throw std::out_of_range(what + std::to_string(size));
}

}  // namespace elman
