// What attention needs of a vector type `V` of 16 floats: functions, and rows of a cache as floats.
// Included by the files of the instruction sets, each of which compiles it with flags of its own.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <cstring>

#define OWN_INLINE __attribute__((always_inline)) inline

namespace own {
namespace {

constexpr int lanes = 16;
constexpr float log2_e = 1.44269504088896341f;

// 2 to the power of x, with a relative error under 2e-7; at least 2 to the power of -126.
template <class V> OWN_INLINE typename V::Floats power_of_2(typename V::Floats x) {
    x = V::max(x, V::all(-126.0f));
    const auto whole = V::round(x);
    const auto rest = V::sub(x, whole);
    // Taylor: log(2)^n / n!
    auto sum = V::all(1.54035304e-4f);
    sum = V::fma(sum, rest, V::all(1.33335581e-3f));
    sum = V::fma(sum, rest, V::all(9.61812911e-3f));
    sum = V::fma(sum, rest, V::all(5.55041087e-2f));
    sum = V::fma(sum, rest, V::all(2.40226507e-1f));
    sum = V::fma(sum, rest, V::all(6.93147181e-1f));
    sum = V::fma(sum, rest, V::all(1.0f));
    return V::scale_by_power(sum, whole);
}

template <class V> OWN_INLINE typename V::Floats tanh_of(typename V::Floats x) {
    x = V::max(V::min(x, V::all(15.0f)), V::all(-15.0f));
    const auto power = power_of_2<V>(V::mul(x, V::all(2 * log2_e)));
    return V::sub(V::all(1.0f), V::div(V::all(2.0f), V::add(power, V::all(1.0f))));
}

// Rows of keys or values as they are in the cache, F16; and as they are in a tile.
struct Halfs {
    template <class V> OWN_INLINE static typename V::Floats load(const void * row, int at) {
        return V::load_f16(static_cast<const uint16_t *>(row) + at);
    }
};

struct Singles {
    template <class V> OWN_INLINE static typename V::Floats load(const void * row, int at) {
        return V::load(static_cast<const float *>(row) + at);
    }
};

struct BlockQ8_0 {
    uint16_t scale;
    int8_t values[32];
};

struct BlockQ4_0 {
    uint16_t scale;
    uint8_t values[16];  // low half: 0 to 15, high half: 16 to 31; 8 more than the value
};

// Convert `size` values to floats.
template <class V> void convert(ggml_type type, const void * from, int size, float * to) {
    switch (type) {
        case GGML_TYPE_F16:
            for (int at = 0; at < size; at += lanes) {
                V::store(to + at, V::load_f16(static_cast<const uint16_t *>(from) + at));
            }
            break;
        case GGML_TYPE_BF16:
            for (int at = 0; at < size; at += lanes) {
                V::store(to + at, V::load_bf16(static_cast<const uint16_t *>(from) + at));
            }
            break;
        case GGML_TYPE_Q8_0: {
            const auto * block = static_cast<const BlockQ8_0 *>(from);
            for (int at = 0; at < size; at += 32, block++) {
                const auto scale = V::all_f16(block->scale);
                V::store(to + at, V::mul(scale, V::load_i8(block->values)));
                V::store(to + at + 16, V::mul(scale, V::load_i8(block->values + 16)));
            }
            break;
        }
        case GGML_TYPE_Q4_0: {
            const auto * block = static_cast<const BlockQ4_0 *>(from);
            for (int at = 0; at < size; at += 32, block++) {
                alignas(16) int8_t values[32];
                for (int each = 0; each < 16; each++) {
                    values[each] = static_cast<int8_t>((block->values[each] & 15) - 8);
                    values[each + 16] = static_cast<int8_t>((block->values[each] >> 4) - 8);
                }
                const auto scale = V::all_f16(block->scale);
                V::store(to + at, V::mul(scale, V::load_i8(values)));
                V::store(to + at + 16, V::mul(scale, V::load_i8(values + 16)));
            }
            break;
        }
        default:
            std::memcpy(to, from, static_cast<size_t>(size) * sizeof(float));
    }
}

}  // namespace
}  // namespace own
