// Attention with AVX2, FMA and F16C: a vector of 16 floats is two registers.
#include "attention_kernel.h"

#include <immintrin.h>

namespace own {
namespace {

struct Avx2 {
    struct Floats {
        __m256 low, high;
    };
    using Mask = Floats;  // all bits of a lane, or none

    // As many as there are registers for.
    static constexpr int most_scores = 4;        // keys of one pair
    static constexpr int most_sums = 4;          // vectors of dimensions of one pair
    static constexpr int most_columns = 1;       // vectors of pairs
    static constexpr int most_keys = 4;          // of these
    static constexpr int most_dimensions = 4;    // of these
    static constexpr int pairs_for_columns = 9;  // from so many on, they are faster in columns

    OWN_INLINE static Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    OWN_INLINE static Floats load(const float * at) {
        return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
    }
    OWN_INLINE static void store(float * at, Floats x) {
        _mm256_storeu_ps(at, x.low);
        _mm256_storeu_ps(at + 8, x.high);
    }
    OWN_INLINE static float one(Floats x) { return _mm256_cvtss_f32(x.low); }

    OWN_INLINE static Floats add(Floats a, Floats b) {
        return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats sub(Floats a, Floats b) {
        return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats mul(Floats a, Floats b) {
        return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats div(Floats a, Floats b) {
        return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats max(Floats a, Floats b) {
        return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats min(Floats a, Floats b) {
        return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
    }
    OWN_INLINE static Floats fma(Floats a, Floats b, Floats c) {
        return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
    }
    OWN_INLINE static __m256 round_half(__m256 x) {
        return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    OWN_INLINE static Floats round(Floats x) { return {round_half(x.low), round_half(x.high)}; }
    // `power`: a whole number from -126 to 127.
    OWN_INLINE static __m256 power_half(__m256 power) {
        const __m256i exponent =
            _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    OWN_INLINE static Floats scale_by_power(Floats x, Floats power) {
        return mul(x, {power_half(power.low), power_half(power.high)});
    }

    OWN_INLINE static Mask lanes_between(int begin, int end) {
        const Floats lane = {
            _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
        return is_between(all(static_cast<float>(begin)), lane, all(static_cast<float>(end)));
    }
    OWN_INLINE static __m256 is_between_half(__m256 begin, __m256 x, __m256 end) {
        return _mm256_and_ps(
            _mm256_cmp_ps(begin, x, _CMP_LE_OQ), _mm256_cmp_ps(x, end, _CMP_LT_OQ));
    }
    OWN_INLINE static Mask is_between(Floats begin, Floats x, Floats end) {
        return {
            is_between_half(begin.low, x.low, end.low),
            is_between_half(begin.high, x.high, end.high)};
    }
    OWN_INLINE static Mask is_positive(Floats x) {
        const __m256 zero = _mm256_setzero_ps();
        return {_mm256_cmp_ps(x.low, zero, _CMP_GT_OQ), _mm256_cmp_ps(x.high, zero, _CMP_GT_OQ)};
    }
    OWN_INLINE static Floats select(Mask mask, Floats yes, Floats no) {
        return {
            _mm256_blendv_ps(no.low, yes.low, mask.low),
            _mm256_blendv_ps(no.high, yes.high, mask.high)};
    }
    OWN_INLINE static Floats where(Mask mask, Floats x) {
        return {_mm256_and_ps(x.low, mask.low), _mm256_and_ps(x.high, mask.high)};
    }

    OWN_INLINE static __m256 load_f16_half(const uint16_t * at) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(at)));
    }
    OWN_INLINE static Floats load_f16(const uint16_t * at) {
        return {load_f16_half(at), load_f16_half(at + 8)};
    }
    OWN_INLINE static __m256 load_bf16_half(const uint16_t * at) {
        const __m128i halfs = _mm_loadu_si128(reinterpret_cast<const __m128i *>(at));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halfs), 16));
    }
    OWN_INLINE static Floats load_bf16(const uint16_t * at) {
        return {load_bf16_half(at), load_bf16_half(at + 8)};
    }
    OWN_INLINE static __m256 load_i8_half(const int8_t * at) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(at));
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
    OWN_INLINE static Floats load_i8(const int8_t * at) {
        return {load_i8_half(at), load_i8_half(at + 8)};
    }
    OWN_INLINE static float one_f16(uint16_t x) { return _cvtsh_ss(x); }
    OWN_INLINE static Floats all_f16(uint16_t x) { return all(one_f16(x)); }

    // Lanes that are 8 apart, then 4, 2 and 1.
    OWN_INLINE static float greatest(Floats x) {
        __m256 y = _mm256_max_ps(x.low, x.high);
        y = _mm256_max_ps(y, _mm256_permute2f128_ps(y, y, 1));
        y = _mm256_max_ps(y, _mm256_permute_ps(y, 0x4E));
        return _mm256_cvtss_f32(_mm256_max_ps(y, _mm256_permute_ps(y, 0xB1)));
    }
    OWN_INLINE static float sum(Floats x) {
        __m256 y = _mm256_add_ps(x.low, x.high);
        y = _mm256_add_ps(y, _mm256_permute2f128_ps(y, y, 1));
        y = _mm256_add_ps(y, _mm256_permute_ps(y, 0x4E));
        return _mm256_cvtss_f32(_mm256_add_ps(y, _mm256_permute_ps(y, 0xB1)));
    }

    // The sums of 8 vectors, each as in sum().
    OWN_INLINE static __m256 sum_each_of_8(const Floats * x) {
        __m256 by_4[4];
#pragma GCC unroll 4
        for (int at = 0; at < 4; at++) {
            const __m256 a = _mm256_add_ps(x[at].low, x[at].high);
            const __m256 b = _mm256_add_ps(x[at + 4].low, x[at + 4].high);
            by_4[at] = _mm256_add_ps(
                _mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
        }
        const __m256 a = _mm256_add_ps(
            _mm256_unpacklo_ps(by_4[0], by_4[1]), _mm256_unpackhi_ps(by_4[0], by_4[1]));
        const __m256 b = _mm256_add_ps(
            _mm256_unpacklo_ps(by_4[2], by_4[3]), _mm256_unpackhi_ps(by_4[2], by_4[3]));
        return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
    }
    OWN_INLINE static Floats sum_each(const Floats * x) {
        return {sum_each_of_8(x), sum_each_of_8(x + 8)};
    }

    // Transpose 8 x 8.
    OWN_INLINE static void transpose_quarter(__m256 * x) {
        __m256 y[8];
#pragma GCC unroll 2
        for (int at = 0; at < 8; at += 4) {
            const __m256 a = _mm256_unpacklo_ps(x[at], x[at + 1]),
                         b = _mm256_unpackhi_ps(x[at], x[at + 1]);
            const __m256 c = _mm256_unpacklo_ps(x[at + 2], x[at + 3]),
                         d = _mm256_unpackhi_ps(x[at + 2], x[at + 3]);
            y[at] = _mm256_shuffle_ps(a, c, 0x44);
            y[at + 1] = _mm256_shuffle_ps(a, c, 0xEE);
            y[at + 2] = _mm256_shuffle_ps(b, d, 0x44);
            y[at + 3] = _mm256_shuffle_ps(b, d, 0xEE);
        }
#pragma GCC unroll 4
        for (int at = 0; at < 4; at++) {
            x[at] = _mm256_permute2f128_ps(y[at], y[at + 4], 0x20);
            x[at + 4] = _mm256_permute2f128_ps(y[at], y[at + 4], 0x31);
        }
    }
    OWN_INLINE static void transpose(Floats * x) {
        __m256 quarters[2][2][8];  // rows, columns
#pragma GCC unroll 16
        for (int at = 0; at < 16; at++) {
            quarters[at / 8][0][at % 8] = x[at].low;
            quarters[at / 8][1][at % 8] = x[at].high;
        }
#pragma GCC unroll 2
        for (int rows = 0; rows < 2; rows++) {
            transpose_quarter(quarters[rows][0]);
            transpose_quarter(quarters[rows][1]);
        }
#pragma GCC unroll 16
        for (int at = 0; at < 16; at++) {
            x[at] = {quarters[0][at / 8][at % 8], quarters[1][at / 8][at % 8]};
        }
    }
};

}  // namespace

void attend_item_avx2(const AttentionItem & item) {
    ItemKernel<Avx2>(item).run();
}

}  // namespace own
