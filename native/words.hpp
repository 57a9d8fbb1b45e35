// Words → numbers: lines of words between ASCII white space, each word looked up in a hash table.
//
// As `Encoder` in elman/text/encoding.py, which is the reference. Not a check of the text: that it is valid UTF-8
// without NUL and ends with LF is known before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace elman {

class WordTable {
  public:
    WordTable();

    int64_t size() const { return static_cast<int64_t>(ends_.size()); }
    std::string_view token(int64_t number) const;

    // tokens (without white space or NUL, not empty), each ended by LF, get the next numbers.
    void add(std::string_view tokens);

    // text: whole lines. ids [text.size() at most] receives the number of each word, 1 at each LF; a word that is not
    // there is added (grow) or 0. words, bytes [lines]: how many each line has, LF a byte. Returns the number of ids,
    // or -1 where a word is `<s>` or `</s>`, which no text may hold.
    int64_t encode(std::string_view text, bool grow, int32_t* ids, int32_t* words, int32_t* bytes);

  private:
    // A word of at most eight bytes is its head; of a longer one the rest is compared.
    struct Slot {
        uint64_t head;
        uint32_t length;  // 0: free
        uint32_t number;
    };
    uint64_t mix(uint64_t head, const char* word, size_t length) const;
    int64_t find(uint64_t head, const char* word, size_t length, bool grow);
    void rehash(size_t slots);

    uint64_t seed_;  // so that nobody can write words that all fall on one place
    std::vector<Slot> slots_;  // a power of two, at most half of them taken
    std::string text_;         // of all tokens, one after the other
    std::vector<uint64_t> ends_;
};

}  // namespace elman
