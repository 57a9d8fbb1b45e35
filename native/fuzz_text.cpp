// Words, n-grams and ARPA lines from any bytes, against the plainest code that says the same. Buffers have the exact
// sizes that the headers ask for, so that the address sanitizer sees one element too many.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fuzz.hpp"
#include "ngram_index.hpp"
#include "words.hpp"

using namespace elman;

namespace {

// The bytes one after the other; zeros beyond their end.
struct Bytes {
    const uint8_t* at;
    const uint8_t* end;
    uint8_t byte() { return at < end ? *at++ : 0; }
    bool more() const { return at < end; }
};

bool blank(char c) { return c == ' ' || (c >= 9 && c <= 13); }

const char* words(const uint8_t* data, size_t size) {
    Bytes bytes{data, data + size};
    WordTable table;
    std::vector<std::string> known;
    std::map<std::string, int32_t> number;
    auto learn = [&](const std::string& word) {
        if (number.emplace(word, static_cast<int32_t>(known.size())).second) known.push_back(word);
    };
    learn("<unk>"), learn("</s>");
    table.add("<unk>\n</s>\n");
    for (bool grow : {bytes.byte() % 2 == 0, true, false}) {
        std::string text;  // whole lines without NUL, as the reader promises
        for (size_t length = bytes.byte(); length-- && bytes.more();) {
            uint8_t byte = bytes.byte();
            text += byte ? static_cast<char>(byte) : ' ';
        }
        text += '\n';
        std::vector<int32_t> ids, per_line, line_bytes;
        bool mark = false;
        size_t begin = 0;
        for (size_t end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
            int32_t count = 0;
            for (size_t at = begin; at < end;) {
                if (blank(text[at])) { at++; continue; }
                size_t stop = at;
                while (!blank(text[stop])) stop++;
                std::string word = text.substr(at, stop - at);
                mark = mark || word == "<s>" || word == "</s>";
                if (grow && !mark) learn(word);
                auto found = number.find(word);
                ids.push_back(found == number.end() ? 0 : found->second);
                count++;
                at = stop;
            }
            ids.push_back(1), per_line.push_back(count), line_bytes.push_back(static_cast<int32_t>(end + 1 - begin));
        }
        std::unique_ptr<char[]> exact(new char[text.size()]);
        std::memcpy(exact.get(), text.data(), text.size());
        std::vector<int32_t> found(text.size()), found_words(per_line.size()), found_bytes(per_line.size());
        int64_t events = table.encode({exact.get(), text.size()}, grow, found.data(), found_words.data(), found_bytes.data());
        if (mark) return events == -1 ? nullptr : "a text with a mark was encoded";
        if (events != static_cast<int64_t>(ids.size())) return "the number of ids";
        found.resize(ids.size());
        if (found != ids) return "the ids";
        if (found_words != per_line || found_bytes != line_bytes) return "words or bytes of a line";
    }
    if (table.size() != static_cast<int64_t>(known.size())) return "the number of words";
    for (size_t i = 0; i < known.size(); i++)
        if (table.token(static_cast<int64_t>(i)) != known[i]) return "a word by its number";
    return nullptr;
}

// The tables of a model, in memory of its own.
struct Model {
    int64_t vocabulary;
    std::vector<std::vector<int64_t>> keys;
    std::vector<std::vector<float>> prob, backoff;
    std::vector<std::vector<uint32_t>> children;
    std::vector<NgramTable> tables;
    std::vector<int64_t> rows;

    int order() const { return static_cast<int>(keys.size()); }
    // Children and pointers; false when the keys are refused.
    bool finish() {
        for (int n = 0; n < order(); n++) {
            size_t contexts = n ? keys[n - 1].size() : 0;
            children.emplace_back(contexts + 1);
            if (contexts && !ngram_children(keys[n].data(), static_cast<int64_t>(keys[n].size()),
                                            static_cast<int64_t>(contexts), vocabulary, children[n].data()))
                return false;
            rows.push_back(static_cast<int64_t>(keys[n].size()));
        }
        for (int n = 0; n < order(); n++)
            tables.push_back({keys[n].data(), prob[n].data(), n + 1 < order() ? backoff[n].data() : nullptr,
                              children[n].data()});
        return true;
    }
    int64_t find(int n, int64_t key) const {
        auto at = std::lower_bound(keys[n].begin(), keys[n].end(), key);
        return at != keys[n].end() && *at == key ? at - keys[n].begin() : -1;
    }
    // The row of an n-gram, -1 where it is not listed.
    int64_t row(const int64_t* first, int n) const {
        int64_t at = first[0];
        for (int place = 1; place < n && at >= 0; place++) at = find(place, at * (vocabulary + 1) + first[place]);
        return at;
    }
};

// log10 P of `word` after `history`, by the definition; the length of the longest listed n-gram.
double score_one(const Model& model, std::vector<int64_t> history, int64_t word, int64_t* matched) {
    double backoff = 0;
    for (;; history.erase(history.begin())) {
        int n = static_cast<int>(history.size());
        std::vector<int64_t> whole = history;
        whole.push_back(word);
        int64_t row = model.row(whole.data(), n + 1);
        if (row >= 0) return *matched = n + 1, backoff + model.prob[n][row];
        int64_t context = model.row(history.data(), n);
        if (context >= 0) backoff += model.backoff[n - 1][context];
    }
}

const char* score(const Model& model, Bytes& bytes) {
    const int64_t V = model.vocabulary, batch = 1 + bytes.byte() % 3, end = 1 + bytes.byte() % 40, begin = bytes.byte() % end;
    std::vector<int32_t> ids(static_cast<size_t>(end * batch));
    for (int64_t i = 0; i < end * batch; i++)
        ids[i] = static_cast<int32_t>(i < begin * batch ? bytes.byte() % (V + 2) - 1 : bytes.byte() % (V + 1));
    const size_t events = static_cast<size_t>((end - begin) * batch);
    std::vector<double> searched(events), indexed(events);
    std::vector<int64_t> matched(events), matched_too(events);
    NgramEvents what{ids.data(), begin, end, batch, 1.0, searched.data(), matched.data()};
    ngram_score(model.tables.data(), model.order(), V, what, 1);
    for (int64_t row = begin; row < end; row++)
        for (int64_t column = 0; column < batch; column++) {
            std::vector<int64_t> history;
            for (int64_t back = row - 1; static_cast<int>(history.size()) + 1 < model.order() && back >= -1; back--) {
                int64_t id = back < 0 ? 1 : ids[back * batch + column];
                if (id < 0) break;
                history.insert(history.begin(), id == 1 ? V : id);
                if (id == 1) break;
            }
            int64_t length = 0, at = (row - begin) * batch + column;
            double wanted = score_one(model, history, ids[row * batch + column], &length);
            if (matched[at] != length) return "a matched length";
            if (!(std::fabs(searched[at] - wanted) <= 1e-9 * (1 + std::fabs(wanted)))) return "a probability";
        }
    if (model.order() < 2) return nullptr;
    NgramIndex index(model.tables.data(), model.rows.data(), model.order(), V);
    what.scores = indexed.data(), what.matched = matched_too.data();
    index.score(what, 1);
    if (std::memcmp(indexed.data(), searched.data(), events * sizeof(double))) return "the index's probabilities";
    what.matched = nullptr;
    index.score(what, 1);
    if (std::memcmp(indexed.data(), searched.data(), events * sizeof(double))) return "the same without lengths";
    return matched == matched_too ? nullptr : "the index's lengths";
}

const char* lines(const Model& model, Bytes& bytes) {
    std::string text;
    std::vector<int64_t> starts{0};
    for (int64_t id = 0; id <= model.vocabulary; id++) {
        text += std::string(1 + bytes.byte() % 9, static_cast<char>('a' + id % 26));
        starts.push_back(static_cast<int64_t>(text.size()));
    }
    std::unique_ptr<char[]> tokens(new char[text.size()]);
    std::memcpy(tokens.get(), text.data(), text.size());
    for (int n = 1; n <= model.order(); n++) {
        int64_t row = 0, written = 0, room = 64 + 11 * n + bytes.byte();  // a line always fits
        while (row < model.rows[n - 1]) {
            std::unique_ptr<char[]> out(new char[room]);
            int64_t size = 0, before = row;
            row = ngram_lines(model.tables.data(), n, tokens.get(), starts.data(), model.vocabulary, row, model.rows[n - 1],
                              out.get(), room, &size);
            if (row <= before || size > room) return "no line was written";
            std::string part(out.get(), static_cast<size_t>(size));
            for (size_t at = 0; at < part.size(); at = part.find('\n', at) + 1, written++) {
                if (std::strtof(part.c_str() + at, nullptr) != model.prob[n - 1][written]) return "a printed number";
                if (part.find('\n', at) == part.npos) return "half a line";
            }
        }
        if (written != model.rows[n - 1]) return "the number of lines";
    }
    return nullptr;
}

float small(uint8_t byte) { return -static_cast<float>(byte) / 16; }

// Any tables that elman/ngram/backoff.py lets pass: a context need not be listed in its shorter form, numbers are any.
const char* tables(const uint8_t* data, size_t size) {
    Bytes bytes{data, data + size};
    Model model;
    const int order = 1 + bytes.byte() % 5;
    const int64_t V = model.vocabulary = 2 + bytes.byte() % 20;
    for (int n = 0; n < order; n++) {
        std::set<int64_t> keys;
        if (n == 0)
            for (int64_t key = 0; key <= V; key++) keys.insert(key);
        else
            for (int left = bytes.byte() % 64; left-- && model.rows.empty() && !model.keys[n - 1].empty();) {
                int64_t key = (bytes.byte() * 256 + bytes.byte()) % (static_cast<int64_t>(model.keys[n - 1].size()) * (V + 1));
                if (key % (V + 1) != V) keys.insert(key);
            }
        model.keys.emplace_back(keys.begin(), keys.end());
        model.prob.emplace_back(), model.backoff.emplace_back();
        for (size_t row = 0; row < keys.size(); row++) {
            model.prob[n].push_back(small(bytes.byte()) * (row % 7 == 3 ? 1e30f : 1));
            if (n + 1 < order) model.backoff[n].push_back(small(bytes.byte()) + 4);
        }
    }
    if (!model.finish()) return "sound keys were refused";
    if (const char* wrong = score(model, bytes)) return wrong;
    return lines(model, bytes);
}

const char* counts(const uint8_t* data, size_t size) {
    Bytes bytes{data, data + size};
    const int order = 1 + bytes.byte() % 6, threads = 1 + (bytes.byte() % 16 == 0);
    Model model;
    const int64_t V = model.vocabulary = 2 + bytes.byte() % 20;
    std::vector<int64_t> cuts;
    for (int n = 0; n < order; n++) cuts.push_back(n && bytes.byte() % 4 == 0 ? 1 : n ? cuts[n - 1] : 0);
    std::vector<int32_t> ids;
    while (ids.empty() || bytes.more()) ids.push_back(static_cast<int32_t>(bytes.byte() % V));
    NgramCounts counted(ids.data(), static_cast<int64_t>(ids.size()), V, order, threads);
    for (int n = 1; n <= order; n++) {
        int64_t rows = counted.rows(n), total = 0;
        std::vector<int64_t> keys(rows), raw(rows), suffix(n > 1 ? rows : 0);
        std::unique_ptr<bool[]> initial(new bool[rows]);
        counted.columns(n, keys.data(), raw.data(), n > 1 ? suffix.data() : nullptr, initial.get());
        for (int64_t row = 0; row < rows; row++) {
            if (keys[row] < 0 || (row && keys[row] <= keys[row - 1])) return "counted keys do not rise";
            if (raw[row] < 0 || (n > 1 && raw[row] == 0)) return "an n-gram that is not there";
            total += raw[row];
        }
        if (n == 1)
            for (int64_t id = 0; id < V; id++)
                if (raw[id] != std::count(ids.begin(), ids.end(), id)) return "the count of a word";
        if (total > static_cast<int64_t>(ids.size()) + V) return "more n-grams than events";
    }
    std::vector<int64_t> of_counts(5 * order), adjusted(V + 1);
    counted.adjust(cuts.data(), of_counts.data());
    counted.unigrams(adjusted.data());
    std::vector<double> first(V + 1, 1.0 / static_cast<double>(V));
    const double discount[4] = {0, 0.5, 0.75, 1.25};
    model.prob.assign(order, {}), model.backoff.assign(order, {}), model.keys.assign(order, {});
    for (int64_t key = 0; key <= V; key++) model.keys[0].push_back(key), model.prob[0].push_back(-1);
    for (int n = 2; n <= order; n++) {
        model.backoff[n - 2].resize(counted.kept(n - 1)), model.prob[n - 1].resize(counted.kept(n));
        counted.estimate(n, discount, first.data(), model.backoff[n - 2].data());
        counted.log10_prob(n, model.prob[n - 1].data());
    }
    for (int n = 2; n <= order; n++) {
        model.keys[n - 1].resize(counted.kept(n));
        counted.keys(n, model.keys[n - 1].data());
        for (float p : model.prob[n - 1])
            if (!(p <= 1e-6f)) return "a probability above 1";
    }
    if (!model.finish()) return "estimated keys were refused";
    return score(model, bytes);
}

}  // namespace

const FuzzTarget fuzz_targets[] = {{"words", words}, {"tables", tables}, {"counts", counts}};
const int fuzz_target_count = 3;
