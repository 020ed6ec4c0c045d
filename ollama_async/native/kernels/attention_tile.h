// Where attention is: the item, one of its key heads, and a tile of keys and values as floats.
#pragma once

#include "attention_item.h"
#include "attention_math.h"

#include <algorithm>

namespace own {
namespace {

template <class V> struct Tile {
    using Floats = typename V::Floats;

    explicit Tile(const AttentionItem & which)
        : item(which), k(which.work), v(k + tile_keys * which.key_size) {}

    const AttentionItem & item;
    // Of the current key head.
    const char * keys = nullptr;
    const char * values = nullptr;
    int first_pair = 0;
    int first_head = 0;
    // Of the current tile. Keys `first` to `last` are seen by one of the rows.
    float * const k;
    float * const v;
    int first = 0;
    int last = 0;

    float * work_behind() const { return v + tile_keys * item.value_size; }

    void select_key_head(int key_head) {
        keys = item.keys + key_head * item.key_head_stride;
        values = item.values + key_head * item.value_head_stride;
        first_head = key_head * item.heads;
        first_pair = first_head * item.row_count;
    }

    // The cells of a tile: those of the row that sees most. Sets `first` and `last`.
    const int32_t * choose(int from, int to, int tile) {
        const int base = tile * tile_keys;
        const VisibleRow * longest = &item.rows[from];
        int begin = longest->begin;
        for (int row = from + 1; row < to; row++) {
            longest = item.rows[row].end > longest->end ? &item.rows[row] : longest;
            begin = std::min(begin, item.rows[row].begin);
        }
        first = std::clamp(begin - base, 0, tile_keys);
        last = std::clamp(longest->end - base, 0, tile_keys);
        const int next = std::min(longest->end, base + 2 * tile_keys);
        for (int at = base + tile_keys; at < next; at++) {
            prefetch(
                keys + longest->cells[at] * item.key_stride,
                ggml_row_size(item.key_type, item.key_size));
            prefetch(
                values + longest->cells[at] * item.value_stride,
                ggml_row_size(item.value_type, item.value_size));
        }
        return longest->cells + base;
    }

    OWN_INLINE static void prefetch(const char * data, size_t bytes) {
        for (size_t at = 0; at < bytes; at += 64) {
            __builtin_prefetch(data + at);
        }
    }

    void convert_all(const int32_t * cells) {
        for (int key = first; key < last; key++) {
            convert<V>(
                item.key_type, keys + cells[key] * item.key_stride, item.key_size,
                k + key * item.key_size);
            convert<V>(
                item.value_type, values + cells[key] * item.value_stride, item.value_size,
                v + key * item.value_size);
        }
    }

    OWN_INLINE Floats to_logarithm(Floats score) const {
        if (item.softcap != 0) {
            const auto capped = tanh_of<V>(V::mul(score, V::all(item.scale / item.softcap)));
            return V::mul(capped, V::all(item.softcap * log2_e));
        }
        return V::mul(score, V::all(item.scale * log2_e));
    }
};

}  // namespace
}  // namespace own
