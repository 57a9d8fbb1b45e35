// Eight bytes at a time: where the next white space is, and what stands before it, are one load and few operations.
#include "words.hpp"

#include <bit>
#include <cstring>
#include <random>

namespace elman {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t ones = 0x0101010101010101u, high = ones << 7;

constexpr uint64_t begin_mark = '<' | 's' << 8 | '>' << 16;
constexpr uint64_t end_mark = '<' | '/' << 8 | 's' << 16 | uint64_t{'>'} << 24;

// The next eight bytes; blanks beyond the end.
uint64_t load(const char* from, const char* end) {
    uint64_t bytes = ones * ' ';
    std::memcpy(&bytes, from, end - from < 8 ? end - from : 8);
    return bytes;
}

// Byte i has its high bit set where byte i of `bytes` is white space: a blank, or 9 … 13.
uint64_t spaces(uint64_t bytes) {
    uint64_t low = bytes & ~high, other = bytes ^ ones * ' ';
    uint64_t control = (low + ones * (128 - 9)) & ~(low + ones * (128 - 14));
    uint64_t blank = ~(((other & ~high) + ~high) | other);
    return ((control & ~bytes) | blank) & high;
}

uint64_t product(uint64_t a, uint64_t b) {
    a = (a ^ (a >> 32)) * b;
    return a ^ (a >> 29);
}

}  // namespace

WordTable::WordTable() {
    std::random_device device;
    seed_ = (static_cast<uint64_t>(device()) << 32 | device()) | 1;
    slots_.resize(1 << 10);
}

std::string_view WordTable::token(int64_t number) const {
    uint64_t begin = number ? ends_[number - 1] : 0;
    return std::string_view(text_).substr(begin, ends_[number] - begin);
}

uint64_t WordTable::mix(uint64_t head, const char* word, size_t length) const {
    uint64_t mixed = product(head ^ seed_, 0x9E3779B97F4A7C15u);
    for (size_t at = 8; at < length; at += 8)
        mixed = product(mixed ^ load(word + at, word + length) ^ seed_, 0xC2B2AE3D27D4EB4Fu) + length;
    return mixed * 0xD6E8FEB86659FD93u >> 32;
}

int64_t WordTable::find(uint64_t head, const char* word, size_t length, bool grow) {
    uint64_t mask = slots_.size() - 1, at = mix(head, word, length) & mask;
    for (; slots_[at].length; at = (at + 1) & mask) {
        const Slot& slot = slots_[at];
        if (slot.head == head && slot.length == length &&
            (length <= 8 || token(slot.number) == std::string_view(word, length)))
            return slot.number;
    }
    if (!grow) return -1;
    if ((ends_.size() + 1) * 2 > slots_.size()) {
        rehash(slots_.size() * 2);
        return find(head, word, length, true);
    }
    text_.append(word, length);
    ends_.push_back(text_.size());
    slots_[at] = {head, static_cast<uint32_t>(length), static_cast<uint32_t>(ends_.size() - 1)};
    return size() - 1;
}

void WordTable::rehash(size_t count) {
    std::vector<Slot> before(count);
    before.swap(slots_);
    for (const Slot& slot : before) {
        if (!slot.length) continue;
        uint64_t at = mix(slot.head, token(slot.number).data(), slot.length);
        while (slots_[at & (count - 1)].length) at++;
        slots_[at & (count - 1)] = slot;
    }
}

void WordTable::add(std::string_view tokens) {
    for (size_t end; (end = tokens.find('\n')) != tokens.npos; tokens.remove_prefix(end + 1)) {
        uint64_t head = 0;
        std::memcpy(&head, tokens.data(), end < 8 ? end : 8);
        find(head, tokens.data(), end, true);
    }
}

int64_t WordTable::encode(std::string_view text, bool grow, int32_t* ids, int32_t* words, int32_t* bytes) {
    const char *at = text.data(), *end = at + text.size(), *line = at;
    const int32_t* first = ids;
    int32_t count = 0;
    while (at < end) {
        if (*at == '\n') {
            *ids++ = 1;
            *words++ = count;
            *bytes++ = static_cast<int32_t>(++at - line);
            count = 0;
            line = at;
            continue;
        }
        uint64_t head = load(at, end), space = spaces(head);
        const char* word = at;
        if (space) {
            int bits = std::countr_zero(space) & ~7;
            at += bits / 8;
            if (at == word) {  // more white space
                at++;
                continue;
            }
            head &= (uint64_t{1} << bits) - 1;
        } else {
            do at += 8;
            while (!(space = spaces(load(at, end))));
            at += std::countr_zero(space) / 8;
        }
        if (head == begin_mark || head == end_mark) return -1;
        int64_t number = find(head, word, at - word, grow);
        *ids++ = number < 0 ? 0 : static_cast<int32_t>(number);
        count++;
        if (*at == ' ') at++;
    }
    return ids - first;
}

}  // namespace elman
