// Matrix products and 3x3 convolutions that multiply in bf16 and add in float32, on one thread with AVX512_BF16.
//
// Activations are float32, channels last: [height][width][channels]. Weights are bf16, laid out by bf16_kernels.py in
// panels of 64, 32 or 16 outputs: [panel][pair of inputs][output][2].

#include <immintrin.h>
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace {

constexpr long LANES = 16;      // floats of a register
constexpr long ROWS = 6;        // of a product's block: 6 x 4 registers of sums
constexpr long CHUNK = 256;     // rows of a matrix that are rounded to bf16 at once
constexpr long TILES = 64;      // of 2x2 results, transformed at once
constexpr long PLACES = 16;     // of a tile's 4x4 inputs
constexpr long DEPTH = 256;     // pairs of inputs multiplied at once: a panel of them fits the first caches
constexpr long APART = 16;      // pairs or floats between places, which would else fall on the same lines of a cache

using Pair = uint32_t;          // two numbers in bf16

// Memory of this thread that is used again: fresh pages would cost more than the arithmetic on them.
template <typename T>
T* scratch(long count, int which) {
    struct Free { void operator()(void* p) const { std::free(p); } };
    static thread_local std::unique_ptr<void, Free> memory[3];
    static thread_local long sizes[3];
    long bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (sizes[which] < bytes) {
        memory[which].reset(std::aligned_alloc(64, bytes));
        if (!memory[which]) throw std::bad_alloc();  // says so as it ends the process
        sizes[which] = bytes;
    }
    return static_cast<T*>(memory[which].get());
}

long whole(long count, long unit) { return (count + unit - 1) / unit * unit; }

void store_rounded(Pair* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }

// result[row][16 VECTORS] (=, or += if add) bias + a[row] weights, for ROWS_HERE rows. The sums start at zero; what is
// added comes last, and arrives from memory meanwhile.
template <int ROWS_HERE, int VECTORS>
void block(const Pair* a, long stride, const Pair* weights, long pairs, const float* bias, bool add, float* result,
           long outputs) {
    __m512 sums[ROWS_HERE][VECTORS] = {};
    for (int r = 0; r < ROWS_HERE; r++)
        for (int v = 0; v < VECTORS; v++) _mm_prefetch(result + r * outputs + v * LANES, _MM_HINT_T0);
    for (long p = 0; p < pairs; p++) {
        __m512i w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = _mm512_loadu_si512(weights + (p * VECTORS + v) * LANES);
        for (int r = 0; r < ROWS_HERE; r++) {
            __m512i x = _mm512_set1_epi32(a[r * stride + p]);
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)x, (__m512bh)w[v]);
        }
    }
    for (int r = 0; r < ROWS_HERE; r++)
        for (int v = 0; v < VECTORS; v++) {
            float* to = result + r * outputs + v * LANES;
            if (bias) sums[r][v] = _mm512_add_ps(sums[r][v], _mm512_loadu_ps(bias + v * LANES));
            if (add) sums[r][v] = _mm512_add_ps(sums[r][v], _mm512_loadu_ps(to));
            _mm512_storeu_ps(to, sums[r][v]);
        }
}

template <int VECTORS>
void panels(const Pair* a, long stride, long rows, const Pair* weights, long pairs, const float* bias, bool add,
            float* result, long outputs) {
    constexpr decltype(&block<1, VECTORS>) blocks[] = {block<1, VECTORS>, block<2, VECTORS>, block<3, VECTORS>,
                                                       block<4, VECTORS>, block<5, VECTORS>, block<6, VECTORS>};
    for (long o = 0; o < outputs; o += VECTORS * LANES)
        for (long p = 0; p < pairs; p += DEPTH) {
            long depth = std::min(DEPTH, pairs - p);
            for (long r = 0; r < rows; r += ROWS)
                blocks[std::min(ROWS, rows - r) - 1](a + r * stride + p, stride, weights, depth,
                                                     bias && p == 0 ? bias + o : nullptr, add || p > 0,
                                                     result + r * outputs + o, outputs);
            weights += depth * VECTORS * LANES;
        }
}

void multiply(const Pair* a, long stride, long rows, const Pair* weights, long pairs, const float* bias, bool add,
              float* result, long outputs) {
    auto with = outputs % 64 == 0 ? panels<4> : outputs % 32 == 0 ? panels<2> : panels<1>;
    with(a, stride, rows, weights, pairs, bias, add, result, outputs);
}

// 4 numbers at a tile's places -> what is multiplied there: rows of B in winograd.py.
inline void transform(__m512& a, __m512& b, __m512& c, __m512& d) {
    __m512 first = a - c, second = b + c, third = c - b, fourth = b - d;
    a = first, b = second, c = third, d = fourth;
}

// Inputs [place][channels] of one tile, at least `least`, -> what is multiplied, [place][channels] with a step between.
void spread_tile(const float* const* from, long channels, __m512 least, Pair* to, long step) {
    for (long c = 0; c < channels; c += LANES) {
        __m512 d[PLACES];
        for (int p = 2; p < PLACES; p += 4)  // what the next tile adds to this one
            for (int j = 0; j < 2; j++) _mm_prefetch(from[p + j] + 2 * channels + c, _MM_HINT_T0);
        for (int p = 0; p < PLACES; p++) d[p] = _mm512_max_ps(least, _mm512_loadu_ps(from[p] + c));
        for (int i = 0; i < 4; i++) transform(d[i], d[4 + i], d[8 + i], d[12 + i]);
        for (int i = 0; i < 4; i++) transform(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
        for (int p = 0; p < PLACES; p++) store_rounded(to + p * step + c / 2, d[p]);
    }
}

// Products [place][channels] of one tile, with a step between, -> its 2x2 results, or those of them that are inside.
void gather_tile(const float* products, long step, long channels, const float* bias, float* to, long row, long rows,
                 long columns) {
    for (long c = 0; c < channels; c += LANES) {
        __m512 tall[2][4], b = _mm512_loadu_ps(bias + c);
        for (int i = 0; i < 4; i++) {
            __m512 m[4];
            for (int j = 0; j < 4; j++) m[j] = _mm512_loadu_ps(products + (j * 4 + i) * step + c);
            tall[0][i] = m[0] + m[1] + m[2];
            tall[1][i] = m[1] - m[2] - m[3];
        }
        for (int i = 0; i < rows; i++) {
            _mm512_storeu_ps(to + i * row + c, b + tall[i][0] + tall[i][1] + tall[i][2]);
            if (columns == 2) _mm512_storeu_ps(to + i * row + channels + c, b + tall[i][1] - tall[i][2] - tall[i][3]);
        }
    }
}

}  // namespace

extern "C" {

// result[rows][outputs] (=, or += if add) bias + x[rows][inputs] weights; relu: of x first.
void product(const float* x, long rows, long inputs, bool relu, const Pair* weights, const float* bias, bool add,
             float* result, long outputs) {
    long stride = whole(inputs, LANES) / 2;
    Pair* rounded = scratch<Pair>(CHUNK * stride, 0);
    __m512 least = _mm512_set1_ps(relu ? 0.0f : -__builtin_inff());
    for (long start = 0; start < rows; start += CHUNK) {
        long count = std::min(CHUNK, rows - start);
        for (long r = 0; r < count; r++)
            for (long c = 0; c < inputs; c += LANES) {
                __mmask16 inside = inputs - c >= LANES ? 0xffff : (1 << (inputs - c)) - 1;
                __m512 value = _mm512_maskz_loadu_ps(inside, x + (start + r) * inputs + c);
                store_rounded(rounded + r * stride + c / 2, _mm512_maskz_max_ps(inside, least, value));
            }
        multiply(rounded, stride, count, weights, (inputs + 1) / 2, bias, add, result + start * outputs, outputs);
    }
}

// 3x3 convolution of stride 1 and padding 1 in tiles of 2x2 results; weights [place][panel]...; relu: of x first.
void winograd(const float* x, long height, long width, long inputs, bool relu, const Pair* weights, const float* bias,
              float* result, long outputs) {
    long columns = (width + 1) / 2, tiles = (height + 1) / 2 * columns;
    long in_step = TILES * inputs / 2 + APART, out_step = TILES * outputs + APART;
    Pair* places = scratch<Pair>(PLACES * in_step, 0);
    float* products = scratch<float>(PLACES * out_step, 1);
    float* zeros = scratch<float>(inputs, 2);
    std::fill(zeros, zeros + inputs, 0.0f);
    __m512 least = _mm512_set1_ps(relu ? 0.0f : -__builtin_inff());
    for (long start = 0; start < tiles; start += TILES) {
        long count = std::min(TILES, tiles - start);
        for (long t = 0; t < count; t++) {
            long top = (start + t) / columns * 2 - 1, left = (start + t) % columns * 2 - 1;
            const float* from[PLACES];
            for (long p = 0; p < PLACES; p++) {
                long row = top + p / 4, column = left + p % 4;
                bool inside = row >= 0 && row < height && column >= 0 && column < width;
                from[p] = inside ? x + (row * width + column) * inputs : zeros;
            }
            spread_tile(from, inputs, least, places + t * inputs / 2, in_step);
        }
        for (long p = 0; p < PLACES; p++)
            multiply(places + p * in_step, inputs / 2, count, weights + p * inputs * outputs / 2, inputs / 2,
                     nullptr, false, products + p * out_step, outputs);
        for (long t = 0; t < count; t++) {
            long top = (start + t) / columns * 2, left = (start + t) % columns * 2;
            gather_tile(products + t * outputs, out_step, outputs, bias, result + (top * width + left) * outputs,
                        width * outputs, std::min(2L, height - top), std::min(2L, width - left));
        }
    }
}

// Of each row of logits those that may be the largest become what float32 gives, bias + x weights; here weights are
// float32 [outputs][inputs]. A logit is off by no more than slack[row][0] sizes[0][o] + slack[row][1] sizes[1][o].
void settle(const float* x, long rows, long inputs, const float* weights, const float* bias, const float* slack,
            const float* sizes, float* logits, long outputs) {
    for (long r = 0; r < rows; r++, x += inputs, slack += 2, logits += outputs) {
        auto off = [&](long o) {
            return _mm512_fmadd_ps(_mm512_set1_ps(slack[0]), _mm512_loadu_ps(sizes + o),
                                   _mm512_mul_ps(_mm512_set1_ps(slack[1]), _mm512_loadu_ps(sizes + outputs + o)));
        };
        __m512 sure = _mm512_set1_ps(-__builtin_inff());  // no largest one is below it
        for (long o = 0; o < outputs; o += LANES) sure = _mm512_max_ps(sure, _mm512_loadu_ps(logits + o) - off(o));
        __m512 least = _mm512_set1_ps(_mm512_reduce_max_ps(sure));
        for (long o = 0; o < outputs; o += LANES) {
            unsigned open = _mm512_cmp_ps_mask(_mm512_loadu_ps(logits + o) + off(o), least, _CMP_GE_OQ);
            for (; open; open &= open - 1) {
                long code = o + __builtin_ctz(open);
                const float* weight = weights + code * inputs;
                __m512 sum = _mm512_setzero_ps();
                for (long c = 0; c < inputs; c += LANES)
                    sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + c), _mm512_loadu_ps(weight + c), sum);
                logits[code] = bias[code] + _mm512_reduce_add_ps(sum);
            }
        }
    }
}

}
