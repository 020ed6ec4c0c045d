// Vectors of 16 lanes of 32 bits for the product kernels: AVX2 with FMA and F16C, two registers
// each; with AVX-VNNI if the compiler may use it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define OWN_INLINE inline __attribute__((always_inline))

namespace own {
namespace {

// 16 registers: those of one group and four rows are as many as fit.
enum : int { groups_at_a_time = 1, packed_rows = 4, stage_rows = 4, float_rows = 6 };

struct Ints {  // also: 64 bytes
    __m256i low, high;
};

struct Floats {
    __m256 low, high;
};

OWN_INLINE Ints load_ints(const void * from) {
    const auto * at = static_cast<const __m256i *>(from);
    return {_mm256_load_si256(at), _mm256_load_si256(at + 1)};
}
OWN_INLINE void store_ints(void * to, Ints v) {
    auto * at = static_cast<__m256i *>(to);
    _mm256_store_si256(at, v.low);
    _mm256_store_si256(at + 1, v.high);
}
OWN_INLINE Ints twice(__m256i v) {
    return {v, v};
}
OWN_INLINE Ints all_words(int32_t value) {
    return twice(_mm256_set1_epi32(value));
}
OWN_INLINE Ints all_bytes(int value) {
    return twice(_mm256_set1_epi8(static_cast<char>(value)));
}

// The word at `from` (4 bytes of any alignment and type) in all lanes.
OWN_INLINE Ints broadcast(const void * from) {
    int32_t word;
    __builtin_memcpy(&word, from, 4);
    return all_words(word);
}

OWN_INLINE Ints bit_and(Ints a, Ints b) {
    return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
OWN_INLINE Ints bit_or(Ints a, Ints b) {
    return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
}
OWN_INLINE Ints add_words(Ints a, Ints b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
template <int value> OWN_INLINE Ints subtract_bytes(Ints v) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(value));
    return {_mm256_sub_epi8(v.low, all), _mm256_sub_epi8(v.high, all)};
}
template <int bits> OWN_INLINE Ints shift_left(Ints v) {
    return {_mm256_slli_epi32(v.low, bits), _mm256_slli_epi32(v.high, bits)};
}
template <int bits> OWN_INLINE Ints shift_right(Ints v) {
    return {_mm256_srli_epi32(v.low, bits), _mm256_srli_epi32(v.high, bits)};
}
OWN_INLINE Ints shift_left(Ints v, Ints bits) {
    return {_mm256_sllv_epi32(v.low, bits.low), _mm256_sllv_epi32(v.high, bits.high)};
}
OWN_INLINE Ints shift_right(Ints v, Ints bits) {
    return {_mm256_srlv_epi32(v.low, bits.low), _mm256_srlv_epi32(v.high, bits.high)};
}
OWN_INLINE Ints sign_extend(Ints v, Ints left) {
    return {
        _mm256_srai_epi32(_mm256_sllv_epi32(v.low, left.low), 24),
        _mm256_srai_epi32(_mm256_sllv_epi32(v.high, left.high), 24)};
}

// (a & mask) | b
OWN_INLINE Ints masked_or(Ints a, Ints mask, Ints b) {
    return bit_or(bit_and(a, mask), b);
}

// 16 table entries in each 128 bits; `indices` are bytes below 16.
OWN_INLINE Ints load_table(const uint8_t * entries) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i *>(entries));
    return twice(_mm256_broadcastsi128_si256(table));
}
OWN_INLINE Ints look_up(Ints table, Ints indices) {
    return {
        _mm256_shuffle_epi8(table.low, indices.low), _mm256_shuffle_epi8(table.high, indices.high)};
}

#ifdef __AVXVNNI__

// See products_simd_avx512.h.
template <int bits, int offset_bits, int steps> class Dots {
  public:
    enum : int { at_a_time = 1 };

    OWN_INLINE void begin(const int32_t * negative_sum) {
        sums_ = offset_bits ? shift_left<offset_bits>(broadcast(negative_sum)) : all_words(0);
    }
    OWN_INLINE void add(int, const Ints (&bytes)[1], const Ints (&fours)[1]) {
        sums_.low = _mm256_dpbusd_avx_epi32(sums_.low, bytes[0].low, fours[0].low);
        sums_.high = _mm256_dpbusd_avx_epi32(sums_.high, bytes[0].high, fours[0].high);
    }
    OWN_INLINE Ints total() const { return sums_; }

  private:
    Ints sums_;
};

#else

// Keeps the compiler from adding up in a tree, for which there are not enough registers.
OWN_INLINE void stay(Ints & v) {
    __asm__("" : "+x"(v.low), "+x"(v.high));
}

// See products_simd_avx512.h. Sums of two products are kept in 16 bits for all steps, or for two,
// or for one, as they are sure to fit; then they go to sums in 32 bits. Bytes of 8 bits are taken
// as the signed numbers that they are without the offset.
template <int bits, int offset_bits, int steps> class Dots {
    static constexpr int most_steps = bits == 8 ? 1 : 32767 / (2 * 128 * ((1 << bits) - 1));
    static constexpr bool all_short = most_steps >= steps;
    static_assert(bits < 8 || offset_bits == 7);

  public:
    enum : int { at_a_time = all_short || most_steps < 2 ? 1 : 2 };

    OWN_INLINE void begin(const int32_t * negative_sum) {
        negative_sum_ = negative_sum;
        if constexpr (!all_short) {
            sums_ = offset();
        }
    }

    OWN_INLINE void add(int step, const Ints (&bytes)[at_a_time], const Ints (&fours)[at_a_time]) {
        Ints products = multiply(bytes[0], fours[0]);
        if constexpr (at_a_time == 2) {
            products = add_shorts(products, multiply(bytes[1], fours[1]));
        }
        if constexpr (all_short) {
            sums_ = step ? add_shorts(sums_, products) : products;
        } else {
            sums_ = add_words(sums_, to_words(products));
        }
        stay(sums_);
    }

    OWN_INLINE Ints total() const {
        return all_short ? add_words(to_words(sums_), offset()) : sums_;
    }

  private:
    OWN_INLINE static __m256i multiply(__m256i bytes, __m256i four) {
        if constexpr (bits == 8) {
            const __m256i weights = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
            return _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(four, weights));
        }
        return _mm256_maddubs_epi16(bytes, four);
    }

    OWN_INLINE static Ints multiply(Ints bytes, Ints four) {
        return {multiply(bytes.low, four.low), multiply(bytes.high, four.high)};
    }

    OWN_INLINE static Ints add_shorts(Ints a, Ints b) {
        return {_mm256_add_epi16(a.low, b.low), _mm256_add_epi16(a.high, b.high)};
    }

    OWN_INLINE static Ints to_words(Ints shorts) {
        const __m256i ones = _mm256_set1_epi16(1);
        return {_mm256_madd_epi16(shorts.low, ones), _mm256_madd_epi16(shorts.high, ones)};
    }

    OWN_INLINE Ints offset() const {
        constexpr bool has_offset = offset_bits && bits < 8;
        return has_offset ? shift_left<offset_bits>(broadcast(negative_sum_)) : all_words(0);
    }

    const int32_t * negative_sum_;
    Ints sums_;
};

#endif

OWN_INLINE Floats to_floats(Ints v) {
    return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)};
}
OWN_INLINE Floats zero_floats() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
OWN_INLINE Floats load_floats(const float * from) {
    return {_mm256_load_ps(from), _mm256_load_ps(from + 8)};
}
OWN_INLINE void store_floats(float * to, Floats v) {
    _mm256_store_ps(to, v.low);
    _mm256_store_ps(to + 8, v.high);
}
OWN_INLINE Floats broadcast_float(const float * from) {
    const __m256 v = _mm256_broadcast_ss(from);
    return {v, v};
}
OWN_INLINE Floats multiply(Floats a, Floats b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
OWN_INLINE Floats negate_floats(Floats v) {
    const __m256 zero = _mm256_set1_ps(-0.0F);
    return {_mm256_sub_ps(zero, v.low), _mm256_sub_ps(zero, v.high)};
}
OWN_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

// 16 F16 values from 32 bytes, or from the low halves of the lanes.
OWN_INLINE Floats halves_to_floats(const void * from) {
    const auto * at = static_cast<const __m128i *>(from);
    return {_mm256_cvtph_ps(_mm_load_si128(at)), _mm256_cvtph_ps(_mm_load_si128(at + 1))};
}
OWN_INLINE __m256 low_halves_to_floats(__m256i v) {
    const __m256i halves = _mm256_and_si256(v, _mm256_set1_epi32(0xFFFF));
    return _mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
OWN_INLINE Floats low_halves_to_floats(Ints v) {
    return {low_halves_to_floats(v.low), low_halves_to_floats(v.high)};
}

// 16 BF16 values from 32 bytes.
OWN_INLINE __m256 bf16_to_floats(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
OWN_INLINE Floats bf16_to_floats(const void * from) {
    const auto * at = static_cast<const __m128i *>(from);
    return {bf16_to_floats(_mm_load_si128(at)), bf16_to_floats(_mm_load_si128(at + 1))};
}

// 16 exponents: 2^(e - 128), what llama.cpp takes an E8M0 scale of doubled values for.
OWN_INLINE __m256 exponents_to_floats(__m128i exponents) {
    const __m256i e = _mm256_cvtepu8_epi32(exponents);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i is_denormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, denormal, is_denormal));
}
OWN_INLINE Floats exponents_to_floats(const void * from) {
    const __m128i all = _mm_load_si128(static_cast<const __m128i *>(from));
    return {exponents_to_floats(all), exponents_to_floats(_mm_unpackhi_epi64(all, all))};
}

// In assembly, because GCC drops calls of functions that do nothing but prefetch.
OWN_INLINE void prefetch(const uint8_t * from) {
    __asm__ volatile("prefetcht0 %0" : : "m"(*from));
}

OWN_INLINE int32_t sum_of_words(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1)));
}

// Quantize 32 values: the scale, 32 signed bytes, and the sums of the first and the last 16 of
// them. NaN or an infinity among the values gives a scale that is one, and so do all products.
inline float quantize_block(const float * source, int8_t * values, int32_t sums[2]) {
    const __m256i no_sign =
        _mm256_set1_epi32(0x7FFFFFFF);  // magnitudes order like integers, NaN above all
    __m256 parts[4];
    __m256i most = _mm256_setzero_si256();
    for (int each = 0; each < 4; each++) {
        parts[each] = _mm256_loadu_ps(source + 8 * each);
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(parts[each]), no_sign));
    }
    __m128i largest_of =
        _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    largest_of = _mm_max_epi32(largest_of, _mm_shuffle_epi32(largest_of, 0x4E));
    largest_of = _mm_max_epi32(largest_of, _mm_shuffle_epi32(largest_of, 0xB1));
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(largest_of));
    const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0F / largest : 0.0F);
    __m256i words[4];
    for (int each = 0; each < 4; each++) {
        words[each] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[each], inverse));
    }
    const __m256i first = _mm256_packs_epi32(words[0], words[1]);
    const __m256i last = _mm256_packs_epi32(words[2], words[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, last), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(values), bytes);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    sums[0] = sum_of_words(_mm256_castsi256_si128(fours));
    sums[1] = sum_of_words(_mm256_extracti128_si256(fours, 1));
    return largest / 127.0F;
}

}  // namespace
}  // namespace own
