// The packed layout of weight matrices, the same for every instruction set.
//
// Sixteen rows are a group. A group is a sequence of super-blocks of 256 values of each row (the
// last one may be shorter), one after the other, so that a product reads memory from front to back.
// In a super-block the blocks of the file are interleaved, and nothing is widened:
//
//   words    vectors of 64 bytes: the 32-bit words of the blocks, lane r = row r. Of 8-bit values
//            a vector has 4 consecutive ones of 16 rows, of 4-bit values 8 (low and high halves)
//   plane    Q5_0, Q5_1: 8 vectors with the fifth bits; vector i, lane r, byte c, bit b is the
//            fifth bit of value 4i + c of block b in row r
//   halves   vectors of 32 bytes: 16-bit fields (scales, F16 and BF16 values), one of each row
//   bytes    vectors of 16 bytes: 8-bit fields (exponents), one of each row
//
// Words, halves and bytes of block 0 come first, then those of block 1, each in the order in which
// they are in the block. The sizes of the formats are in products_formats.h for the kernels, and in
// the table of packed_weights.cpp for packing.
#pragma once

#include "ggml.h"

#include <cstddef>
#include <cstdint>

namespace own {

enum : int {
    group_rows = 16,
    super_values = 256,
    block_values = 32,  // activations have a scale for as many
    super_blocks = super_values / block_values,
};

// Whether weights of this type have a packed layout for rows of `values` values.
bool has_packed_layout(ggml_type type, int64_t values);

// Bytes of a group of 16 rows of `values` values; a multiple of 64.
size_t packed_group_bytes(ggml_type type, int64_t values);

// Pack `rows` (1 to 16) rows of `values` values each from `data` into a group; the rest becomes
// zeros. Any bytes are valid data; `data` needs no alignment.
void pack_group(ggml_type type, int64_t values, const uint8_t * data, int rows, uint8_t * group);

}  // namespace own
