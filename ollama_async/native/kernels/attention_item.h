// A piece of an attention op that one thread computes, and the functions that do it.
#pragma once

#include "ggml.h"
#include "visible_keys.h"

#include <cstddef>
#include <cstdint>

namespace own {

constexpr int max_item_pairs = 128;

// Some rows, and some of the query heads of one or more key heads. A pair is a row and a query
// head; it is numbered (key head * row_count + row) * heads + head.
struct AttentionItem {
    const char * keys;  // of cell 0 and the first key head; `key_stride` bytes to the next cell
    const char * values;
    size_t key_stride;
    size_t value_stride;
    size_t key_head_stride;
    size_t value_head_stride;
    ggml_type key_type;
    ggml_type value_type;
    int key_size;  // dimensions; multiples of 16
    int value_size;
    float scale;
    float softcap;  // 0: none

    int key_heads;
    int row_count;
    int heads;                           // of each key head
    const VisibleRow * rows;             // by row
    const ggml_fp16_t * const * biases;  // by row: its mask, if the row has a bias
    const float * const * queries;       // by pair
    float * const * outputs;             // by pair
    const float * slopes;                // by key head and head: of the bias
    const float * sinks;                 // by key head and head; nullptr: none
    float * work;                        // attention_item_floats()
};

// Floats of working memory, for the most pairs.
inline size_t attention_item_floats(int64_t key_size, int64_t value_size) {
    return static_cast<size_t>(
        (tile_keys + max_item_pairs) * (key_size + value_size) +
        (2 * tile_keys + 8) * max_item_pairs);
}

using AttendItem = void (*)(const AttentionItem & item);

void attend_item_avx2(const AttentionItem & item);
void attend_item_avx512(const AttentionItem & item);

}  // namespace own
