// Vectors of 16 lanes of 32 bits for the product kernels: AVX-512 with VNNI.
#pragma once

// GCC 12 warns of its own intrinsics.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define OWN_INLINE inline __attribute__((always_inline))

namespace own {
namespace {

// 32 registers: those of two groups and six rows fit. Of packed weights, eight rows at a time are
// worth spilling a few, because they are unpacked less often.
enum : int { groups_at_a_time = 2, packed_rows = 8, stage_rows = 6, float_rows = 8 };

using Ints = __m512i;  // also: 64 bytes
using Floats = __m512;

inline Ints load_ints(const void * from) {
    return _mm512_load_si512(from);
}
inline void store_ints(void * to, Ints v) {
    _mm512_store_si512(to, v);
}
inline Ints all_words(int32_t value) {
    return _mm512_set1_epi32(value);
}
inline Ints all_bytes(int value) {
    return _mm512_set1_epi8(static_cast<char>(value));
}

// The word at `from` (4 bytes of any alignment and type) in all lanes.
inline Ints broadcast(const void * from) {
    int32_t word;
    __builtin_memcpy(&word, from, 4);
    return _mm512_set1_epi32(word);
}

inline Ints bit_and(Ints a, Ints b) {
    return _mm512_and_si512(a, b);
}
inline Ints bit_or(Ints a, Ints b) {
    return _mm512_or_si512(a, b);
}
inline Ints add_words(Ints a, Ints b) {
    return _mm512_add_epi32(a, b);
}
template <int value> Ints subtract_bytes(Ints v) {
    return _mm512_sub_epi8(v, all_bytes(value));
}
template <int bits> Ints shift_left(Ints v) {
    return _mm512_slli_epi32(v, bits);
}
template <int bits> Ints shift_right(Ints v) {
    return _mm512_srli_epi32(v, bits);
}
inline Ints shift_left(Ints v, Ints bits) {
    return _mm512_sllv_epi32(v, bits);
}
inline Ints shift_right(Ints v, Ints bits) {
    return _mm512_srlv_epi32(v, bits);
}
inline Ints sign_extend(Ints v, Ints left) {
    return _mm512_srai_epi32(_mm512_sllv_epi32(v, left), 24);
}

// (a & mask) | b
inline Ints masked_or(Ints a, Ints mask, Ints b) {
    return _mm512_ternarylogic_epi32(a, mask, b, 0xEA);
}

// 16 table entries in each 128 bits; `indices` are bytes below 16.
inline Ints load_table(const uint8_t * entries) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(entries)));
}
inline Ints look_up(Ints table, Ints indices) {
    return _mm512_shuffle_epi8(table, indices);
}

// Exact sums of products of weights with activations, lane by lane: in each of so many steps, of 4
// bytes below 2^bits, minus 2^offset_bits (0: minus nothing), with 4 signed bytes. So many steps
// are added at a time; `step` is the number of the first.
template <int bits, int offset_bits, int steps> class Dots {
  public:
    enum : int { at_a_time = 1 };

    // `negative_sum`: minus the sum of all the signed bytes that will be added.
    void begin(const int32_t * negative_sum) {
        sums_ = offset_bits ? shift_left<offset_bits>(broadcast(negative_sum)) : all_words(0);
    }
    void add(int /*step*/, const Ints (&bytes)[1], const Ints (&fours)[1]) {
        sums_ = _mm512_dpbusd_epi32(sums_, bytes[0], fours[0]);
    }
    Ints total() const { return sums_; }

  private:
    Ints sums_;
};

inline Floats to_floats(Ints v) {
    return _mm512_cvtepi32_ps(v);
}
inline Floats zero_floats() {
    return _mm512_setzero_ps();
}
inline Floats load_floats(const float * from) {
    return _mm512_load_ps(from);
}
inline void store_floats(float * to, Floats v) {
    _mm512_store_ps(to, v);
}
inline Floats broadcast_float(const float * from) {
    return _mm512_set1_ps(*from);
}
inline Floats multiply(Floats a, Floats b) {
    return _mm512_mul_ps(a, b);
}
inline Floats negate_floats(Floats v) {
    return _mm512_sub_ps(_mm512_set1_ps(-0.0F), v);
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline Floats as_floats(Ints v) {
    return _mm512_castsi512_ps(v);
}

// 16 F16 values from 32 bytes, or from the low halves of the lanes.
inline Floats halves_to_floats(const void * from) {
    return _mm512_cvtph_ps(_mm256_load_si256(static_cast<const __m256i *>(from)));
}
inline Floats low_halves_to_floats(Ints v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

// 16 BF16 values from 32 bytes.
inline Floats bf16_to_floats(const void * from) {
    const __m256i halves = _mm256_load_si256(static_cast<const __m256i *>(from));
    return as_floats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// 16 exponents: 2^(e - 128), what llama.cpp takes an E8M0 scale of doubled values for.
inline Floats exponents_to_floats(const void * from) {
    const __m512i e = _mm512_cvtepu8_epi32(_mm_load_si128(static_cast<const __m128i *>(from)));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, all_words(1)), 23);
    const __m512i denormal = _mm512_sllv_epi32(all_words(0x00200000), e);
    return as_floats(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, all_words(2)), denormal));
}

// In assembly, because GCC drops calls of functions that do nothing but prefetch.
inline void prefetch(const uint8_t * from) {
    __asm__ volatile("prefetcht0 %0" : : "m"(*from));
}

// Quantize 32 values: the scale, 32 signed bytes, and the sums of the first and the last 16 of
// them. NaN or an infinity among the values gives a scale that is one, and so do all products.
inline float quantize_block(const float * source, int8_t * values, int32_t sums[2]) {
    const __m512 low = _mm512_loadu_ps(source);
    const __m512 high = _mm512_loadu_ps(source + 16);
    const __m512i no_sign = all_words(0x7FFFFFFF);  // magnitudes order like integers, NaN above all
    const __m512i magnitudes = _mm512_max_epi32(
        bit_and(_mm512_castps_si512(low), no_sign), bit_and(_mm512_castps_si512(high), no_sign));
    const int32_t bits = _mm512_reduce_max_epi32(magnitudes);
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0F / largest : 0.0F);
    const __m128i first = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)));
    const __m128i last = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(values), first);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(values + 16), last);
    sums[0] = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(first));
    sums[1] = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(last));
    return largest / 127.0F;
}

}  // namespace
}  // namespace own
