// What the kernels of one instruction set offer to products.cpp, and the activations they read.
//
// Compiled into translation units with different instruction sets: nothing here may have external
// linkage except plain declarations.
#pragma once

#include "packed_weights.h"

#include <cstddef>
#include <cstdint>

namespace own {

// What the kernels for a type of weights read of the activations.
enum class Activations {
    sums,         // 8-bit values, sums for weights with a fixed offset (QuantizedActivations)
    scaled_sums,  // 8-bit values, sums for weights with minima (QuantizedActivations)
    floats,       // as they are (FloatActivations)
};

// 256 values of one row. Each block of 32 has its own scale, so a row is quantized for itself
// alone.
struct alignas(64) QuantizedActivations {
    union Sum {
        int32_t negative;       // minus the sum of the 8-bit values
        float negative_scaled;  // the same times the block's scale
    };
    int8_t
        values[super_values];  // value = scale * 8-bit value; a short super-block ends with zeros
    float scales[super_blocks];
    Sum sums[super_blocks];
    Sum half_sums[2 * super_blocks];  // of 16 values each
};

struct alignas(64) FloatActivations {
    float values[super_values];
};

// One share of a product: some groups of a packed matrix times some rows of activations.
struct ProductTile {
    const uint8_t * weights;  // the first group
    size_t group_bytes;
    int groups;
    int64_t values;               // in a row, a multiple of 32
    const uint8_t * activations;  // the first super-block of the first row; rows follow one another
    size_t super_stride;          // bytes from there to the row's next super-block
    int rows;
    float * outputs;  // [rows][groups * 16], aligned to 64
};

struct ProductKernels {
    // Store `values` (at most 256) activations as QuantizedActivations or FloatActivations.
    void (*store_activations)(Activations, const float * source, int values, uint8_t * target);
    // Compute a tile; nullptr: no kernel for this type of weights.
    void (*multiply[GGML_TYPE_COUNT])(const ProductTile &);
    Activations activations[GGML_TYPE_COUNT];
};

const ProductKernels & product_kernels_avx2();
const ProductKernels & product_kernels_avx2_vnni();
const ProductKernels & product_kernels_avx512_vnni();
const ProductKernels & product_kernels_amx();

}  // namespace own
