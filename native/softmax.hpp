// What the two softmaxes that never hold all logits agree on (output.cpp, streaming_output.hpp).
//
// A sum of exp(l - shift) is kept beside its shift. The shift follows the largest logit so far when that rises by more
// than SLACK (online softmax, Milakov & Gimelshein 2018), so E = exp(l - shift) <= exp(SLACK) is far from overflow, and
// so are sums of it. It begins at the lowest finite number, not at -infinity: of a word that can never come,
// l = -infinity, E is then 0, also where all words so far are such.
//
// log Z = top + log z, top the largest shift and z the sum relative to it, is never rounded to one number: beside a top
// of 1e4 that would lose the third digit of log z. What is wanted is a difference to it, (l - top) - log z, whose first
// part is exact where it matters: where l is near top.
#pragma once

#include "vectors.hpp"

namespace elman::ELMAN_ISA {

constexpr float SLACK = 20.f;
constexpr float LOWEST = -3.40282347e38f;

}  // namespace elman::ELMAN_ISA
