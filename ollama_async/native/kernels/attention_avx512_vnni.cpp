// Attention with AVX-512.
// GCC 12 warns of its own intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "attention_kernel.h"

#include <immintrin.h>

namespace own {
namespace {

struct Avx512 {
    using Floats = __m512;
    using Mask = __mmask16;

    // As many as there are registers for.
    static constexpr int most_scores = 16;       // keys of one pair
    static constexpr int most_sums = 8;          // vectors of dimensions of one pair
    static constexpr int most_columns = 2;       // vectors of pairs
    static constexpr int most_keys = 4;          // of these
    static constexpr int most_dimensions = 8;    // of these
    static constexpr int pairs_for_columns = 9;  // from so many on, they are faster in columns

    static Floats all(float x) { return _mm512_set1_ps(x); }
    static Floats load(const float * at) { return _mm512_loadu_ps(at); }
    static void store(float * at, Floats x) { _mm512_storeu_ps(at, x); }
    static float one(Floats x) { return _mm512_cvtss_f32(x); }

    static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static Floats round(Floats x) {
        return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Floats scale_by_power(Floats x, Floats power) { return _mm512_scalef_ps(x, power); }

    static Mask lanes_between(int begin, int end) {
        const auto up_to = [](int lane) {
            return lane <= 0 ? 0u : lane >= 16 ? 0xFFFFu : (1u << lane) - 1;
        };
        return static_cast<Mask>(up_to(end) & ~up_to(begin));
    }
    static Mask is_between(Floats begin, Floats x, Floats end) {
        return _mm512_mask_cmp_ps_mask(
            _mm512_cmp_ps_mask(begin, x, _CMP_LE_OQ), x, end, _CMP_LT_OQ);
    }
    static Mask is_positive(Floats x) {
        return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    }
    static Floats select(Mask mask, Floats yes, Floats no) {
        return _mm512_mask_blend_ps(mask, no, yes);
    }
    static Floats where(Mask mask, Floats x) { return _mm512_maskz_mov_ps(mask, x); }

    static Floats load_f16(const uint16_t * at) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(at)));
    }
    static Floats load_bf16(const uint16_t * at) {
        const __m256i halfs = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halfs), 16));
    }
    static Floats load_i8(const int8_t * at) {
        return _mm512_cvtepi32_ps(
            _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(at))));
    }
    static float one_f16(uint16_t x) { return _cvtsh_ss(x); }
    static Floats all_f16(uint16_t x) { return all(one_f16(x)); }

    // Lanes that are 8 apart, then 4, 2 and 1.
    static float greatest(Floats x) {
        x = max(x, _mm512_shuffle_f32x4(x, x, 0x4E));
        x = max(x, _mm512_shuffle_f32x4(x, x, 0xB1));
        x = max(x, _mm512_permute_ps(x, 0x4E));
        return one(max(x, _mm512_permute_ps(x, 0xB1)));
    }
    static float sum(Floats x) {
        x = add(x, _mm512_shuffle_f32x4(x, x, 0x4E));
        x = add(x, _mm512_shuffle_f32x4(x, x, 0xB1));
        x = add(x, _mm512_permute_ps(x, 0x4E));
        return one(add(x, _mm512_permute_ps(x, 0xB1)));
    }

    // The sums of 16 vectors, each as in sum().
    OWN_INLINE static Floats sum_each(const Floats * x) {
        Floats by_8[8], by_4[4];
#pragma GCC unroll 8
        for (int at = 0; at < 8; at++) {
            const Floats a = x[at / 4 * 8 + at % 4], b = x[at / 4 * 8 + at % 4 + 4];
            by_8[at] = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
        }
#pragma GCC unroll 4
        for (int at = 0; at < 4; at++) {
            const Floats a = by_8[at], b = by_8[at + 4];
            by_4[at] = add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
        }
        const Floats a =
            add(_mm512_unpacklo_ps(by_4[0], by_4[1]), _mm512_unpackhi_ps(by_4[0], by_4[1]));
        const Floats b =
            add(_mm512_unpacklo_ps(by_4[2], by_4[3]), _mm512_unpackhi_ps(by_4[2], by_4[3]));
        return add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
    }

    OWN_INLINE static void transpose(Floats * x) {
        Floats y[16];
#pragma GCC unroll 4
        for (int at = 0; at < 16; at += 4) {  // 4 x 4 within each quarter
            const Floats a = _mm512_unpacklo_ps(x[at], x[at + 1]),
                         b = _mm512_unpackhi_ps(x[at], x[at + 1]);
            const Floats c = _mm512_unpacklo_ps(x[at + 2], x[at + 3]),
                         d = _mm512_unpackhi_ps(x[at + 2], x[at + 3]);
            y[at] = _mm512_shuffle_ps(a, c, 0x44);
            y[at + 1] = _mm512_shuffle_ps(a, c, 0xEE);
            y[at + 2] = _mm512_shuffle_ps(b, d, 0x44);
            y[at + 3] = _mm512_shuffle_ps(b, d, 0xEE);
        }
#pragma GCC unroll 4
        for (int at = 0; at < 4; at++) {  // then the quarters
            const Floats a = _mm512_shuffle_f32x4(y[at], y[at + 4], 0x88),
                         b = _mm512_shuffle_f32x4(y[at], y[at + 4], 0xDD);
            const Floats c = _mm512_shuffle_f32x4(y[at + 8], y[at + 12], 0x88),
                         d = _mm512_shuffle_f32x4(y[at + 8], y[at + 12], 0xDD);
            x[at] = _mm512_shuffle_f32x4(a, c, 0x88);
            x[at + 8] = _mm512_shuffle_f32x4(a, c, 0xDD);
            x[at + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
            x[at + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
        }
    }
};

}  // namespace

void attend_item_avx512(const AttentionItem & item) {
    ItemKernel<Avx512>(item).run();
}

}  // namespace own
