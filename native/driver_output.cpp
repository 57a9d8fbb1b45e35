// The output layer against sums in double, on every instruction set of this processor (driver.cpp).
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels.hpp"

namespace {

struct Case {
    long N, H, V;
    bool bias, bf16;
    int threads;
};

using Row = std::vector<float>;

double worst(const Row& found, const std::vector<double>& wanted) {
    double error = 0, size = 1;
    for (size_t i = 0; i < found.size(); i++) {
        error = std::fmax(error, std::isnan(found[i]) ? INFINITY : std::fabs(found[i] - wanted[i]));
        size = std::fmax(size, std::fabs(wanted[i]));
    }
    return error / size;
}

bool wrong(const Case& c, std::mt19937& draw) {
    std::normal_distribution<float> normal;
    // one element more than is used: an address that is not aligned to a vector
    auto made = [&](long n, float scale) {
        Row row(static_cast<size_t>(n) + 1);
        for (float& x : row) x = normal(draw) * scale;
        return row;
    };
    const Row h = made(c.N * c.H, 1), w = made(c.V * c.H, 2 / std::sqrt(static_cast<float>(c.H))), b = made(c.V, 1),
              g = made(c.N, 1);
    std::vector<int64_t> target(static_cast<size_t>(c.N));
    for (auto& t : target) t = static_cast<int64_t>(draw() % static_cast<unsigned long>(c.V));
    Row nats(static_cast<size_t>(c.N)), dh(static_cast<size_t>(c.N * c.H)), dw(static_cast<size_t>(c.V * c.H)),
        db(static_cast<size_t>(c.V));
    elman::kernels().output.nats({c.N, c.H, c.V, h.data() + 1, w.data() + 1, c.bias ? b.data() + 1 : nullptr,
                                  target.data(), nats.data(), g.data() + 1, dh.data(), dw.data(), db.data(), c.threads,
                                  c.bf16});

    std::vector<double> nats64(nats.size()), dh64(dh.size()), dw64(dw.size()), db64(db.size());
    std::vector<double> dl(static_cast<size_t>(c.V));
    for (long r = 0; r < c.N; r++) {
        const float* row = h.data() + 1 + r * c.H;
        double z = 0;
        for (long v = 0; v < c.V; v++) {
            double l = c.bias ? b[static_cast<size_t>(v + 1)] : 0;
            for (long k = 0; k < c.H; k++) l += static_cast<double>(row[k]) * w[static_cast<size_t>(v * c.H + k + 1)];
            dl[static_cast<size_t>(v)] = l;
            z += std::exp(l);
        }
        const size_t at = static_cast<size_t>(r), t = static_cast<size_t>(target[at]);
        nats64[at] = std::log(z) - dl[t];
        for (long v = 0; v < c.V; v++) {
            const size_t i = static_cast<size_t>(v);
            const double d = g[at + 1] * (std::exp(dl[i]) / z - (i == t));
            db64[i] += d;
            for (long k = 0; k < c.H; k++) {
                dh64[static_cast<size_t>(r * c.H + k)] += d * w[static_cast<size_t>(v * c.H + k + 1)];
                dw64[static_cast<size_t>(v * c.H + k)] += d * row[k];
            }
        }
    }
    const double unit = c.bf16 ? 1.0 / 128 : 1.0 / (1 << 23);
    const double allowed = 8 * unit * std::sqrt(static_cast<double>(c.N + c.H + c.V));
    const double error = std::fmax(std::fmax(worst(nats, nats64), worst(dh, dh64)),
                                   std::fmax(worst(dw, dw64), worst(db, db64)));
    if (error <= allowed) return false;
    std::printf("output %s N %ld H %ld V %ld bf16 %d threads %d: %g > %g\n", elman::kernels().name, c.N, c.H, c.V,
                c.bf16, c.threads, error, allowed);
    return true;
}

}  // namespace

int drive_output() {
    std::mt19937 draw(7);
    auto between = [&](long a, long b) { return a + static_cast<long>(draw() % static_cast<unsigned long>(b - a + 1)); };
    int count = 0;
    for (const char* const* name = elman::available(); *name; name++) {
        elman::use(*name);
        for (int i = 0; i < 60; i++) {
            const Case c{between(1, i % 10 ? 70 : 530), between(1, 70), between(1, i % 7 ? 120 : 700), i % 3 != 0,
                         i % 2 == 0, static_cast<int>(between(1, 4))};
            count += wrong(c, draw);
        }
    }
    elman::use("best");
    return count;
}
