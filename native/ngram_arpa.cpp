// The lines of an ARPA file, as elman/ngram/arpa.py writes them: the shortest decimals that give the float again.
#include <charconv>
#include <cmath>
#include <cstring>

#include "ngram.hpp"

namespace elman {

namespace {

constexpr int64_t longest_number = 32;  // with the tab before it

// As NumPy prints float32, and 0 as "0".
char* put(char* to, float value) {
    if (value == 0) return *to = '0', to + 1;
    float size = std::fabs(value);
    if (size < 1e-4f || size >= 1e16f)
        return std::to_chars(to, to + longest_number, value, std::chars_format::scientific).ptr;
    char* end = std::to_chars(to, to + longest_number, value, std::chars_format::fixed).ptr;
    if (memchr(to, '.', end - to)) return end;
    *end++ = '.', *end++ = '0';
    return end;
}

}  // namespace

int64_t ngram_lines(const NgramTable* tables, int n, const char* tokens, const int64_t* starts, int64_t vocabulary,
                    int64_t begin, int64_t end, char* out, int64_t room, int64_t* bytes) {
    const NgramTable& own = tables[n - 1];
    char *to = out, *limit = out + room;
    int64_t row = begin, words[NgramCounts::longest];
    for (; row < end; row++) {
        int64_t at = row, size = 2 * longest_number + n + 1;
        for (int place = n; place-- > 0;) {
            int64_t key = place ? tables[place].keys[at] : at;
            at = key / (vocabulary + 1);
            words[place] = place ? key - at * (vocabulary + 1) : key;
            size += starts[words[place] + 1] - starts[words[place]];
        }
        if (size > limit - to) break;
        to = put(to, own.log10_prob[row]);
        for (int place = 0; place < n; place++) {
            *to++ = place ? ' ' : '\t';
            int64_t length = starts[words[place] + 1] - starts[words[place]];
            memcpy(to, tokens + starts[words[place]], length);
            to += length;
        }
        if (own.log10_backoff) *to++ = '\t', to = put(to, own.log10_backoff[row]);
        *to++ = '\n';
    }
    *bytes = to - out;
    return row;
}

}  // namespace elman
