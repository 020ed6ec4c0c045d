// Attention of one item, for a vector type `V` of 16 floats. Included by the files of the
// instruction sets, each of which compiles it with flags of its own.
//
// A row's tiles of keys come one after the other (online softmax); scores are base-2 logarithms.
// There are two ways through a tile, with the same results bit for bit:
//  - few pairs of row and head: one after the other, vectors along the dimensions;
//  - many: 16 pairs beside each other in a vector, so that each key and value is read once for all.
// Both add up a score in 16 parts, dimension d in part d % 16, which are then added in pairs: parts
// that are 8 apart, then 4, 2 and 1. The weights of a tile are added likewise: 16 apart, then 8,
// ...
#pragma once

#include "attention_item.h"

#include <algorithm>
#include <cfloat>
#include <cstring>

#define OWN_INLINE __attribute__((always_inline)) inline

namespace own {
namespace {

constexpr int lanes = 16;
constexpr float log2_e = 1.44269504088896341f;
constexpr float unseen = -FLT_MAX;  // the greatest score before the first key

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

template <class V> class ItemKernel {
    using Floats = typename V::Floats;

    const AttentionItem & item;
    // Of the current key head.
    const char * keys;
    const char * values;
    int first_pair = 0;
    // Of the current tile. Keys `first` to `last` are seen by one of the rows.
    float * const tile_k;
    float * const tile_v;
    int first = 0;
    int last = 0;
    // By pair: the greatest score so far, and the sum of weights relative to it. The weighted sums
    // of values are in the outputs.
    float * const greatest;
    float * const total;
    // By vector of 16 pairs, for the way with many pairs.
    float * const columns_q;    // [vector][dimension][pair]
    float * const columns_out;  // [vector][dimension][pair]
    float * const column_greatest;
    float * const column_total;
    float * const column_begin;
    float * const column_end;
    float * const weights;  // [key][pair], of two vectors

  public:
    explicit ItemKernel(const AttentionItem & which)
        : item(which),
          keys(item.keys),
          values(item.values),
          tile_k(item.work),
          tile_v(tile_k + tile_keys * item.key_size),
          greatest(tile_v + tile_keys * item.value_size),
          total(greatest + max_item_pairs),
          columns_q(total + max_item_pairs),
          columns_out(columns_q + max_item_pairs * item.key_size),
          column_greatest(columns_out + max_item_pairs * item.value_size),
          column_total(column_greatest + max_item_pairs),
          column_begin(column_total + max_item_pairs),
          column_end(column_begin + max_item_pairs),
          weights(column_end + max_item_pairs) {}

    void run() {
        const int pairs = item.key_heads * item.row_count * item.heads;
        for (int pair = 0; pair < pairs; pair++) {
            greatest[pair] = unseen;
            total[pair] = 0;
            std::memset(
                item.outputs[pair], 0, static_cast<size_t>(item.value_size) * sizeof(float));
        }
        visit(0, item.row_count, 0);
        for (int pair = 0; pair < pairs; pair++) {
            finish(pair);
        }
    }

  private:
    // Rows `from` to `to`, whose tiles before `tile` are done. They go together as long as they
    // have the same cells, then on in groups.
    void visit(int from, int to, int tile) {
        int begin = item.rows[from].begin, end = 0;
        for (int row = from; row < to; row++) {
            begin = std::min(begin, item.rows[row].begin);
            end = std::max(end, item.rows[row].end);
        }
        const int stop = (end + tile_keys - 1) / tile_keys;
        int parting = stop;
        for (int row = from + 1; row < to; row++) {
            parting = std::min(parting, item.rows[row].split);
        }
        tile = std::max(tile, begin / tile_keys);
        if (tile < parting) {
            visit_together(from, to, tile, parting);
            tile = parting;
        }
        if (parting == stop) {
            return;
        }
        int start = from;
        for (int row = from + 1; row <= to; row++) {
            if (row == to || item.rows[row].split <= parting) {
                visit(start, row, tile);
                start = row;
            }
        }
    }

    void visit_together(int from, int to, int tile, int stop) {
        const bool has_bias = std::any_of(
            item.rows + from, item.rows + to, [](const VisibleRow & row) { return row.has_bias; });
        if (!has_bias && (to - from) * item.heads >= V::pairs_for_columns) {
            for (int key_head = 0; key_head < item.key_heads; key_head++) {
                select(key_head);
                visit_in_columns(from, to, tile, stop);
            }
        } else {
            visit_one_by_one(from, to, tile, stop);
        }
    }

    void select(int key_head) {
        keys = item.keys + key_head * item.key_head_stride;
        values = item.values + key_head * item.value_head_stride;
        first_pair = key_head * item.row_count * item.heads;
    }

    // ------------------------------------------------------------------ tiles

    // The cells of a tile: those of the row that sees most. Sets `first` and `last`.
    const int32_t * choose_tile(int from, int to, int tile) {
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

    void convert_tile(const int32_t * cells) {
        for (int key = first; key < last; key++) {
            convert<V>(
                item.key_type, keys + cells[key] * item.key_stride, item.key_size,
                tile_k + key * item.key_size);
            convert<V>(
                item.value_type, values + cells[key] * item.value_stride, item.value_size,
                tile_v + key * item.value_size);
        }
    }

    OWN_INLINE Floats to_logarithm(Floats score) const {
        if (item.softcap != 0) {
            const auto capped = tanh_of<V>(V::mul(score, V::all(item.scale / item.softcap)));
            return V::mul(capped, V::all(item.softcap * log2_e));
        }
        return V::mul(score, V::all(item.scale * log2_e));
    }

    // ------------------------------------------------------------------ few pairs

    void visit_one_by_one(int from, int to, int tile, int stop) {
        const bool is_direct = (to - from) * item.heads == 1 && item.key_type == GGML_TYPE_F16 &&
                               item.value_type == GGML_TYPE_F16;
        const void * k[tile_keys];
        const void * v[tile_keys];
        for (int key = 0; !is_direct && key < tile_keys; key++) {
            k[key] = tile_k + key * item.key_size;
            v[key] = tile_v + key * item.value_size;
        }
        // Tile by tile, as the heads of a cell are beside each other in memory.
        for (; tile < stop; tile++) {
            for (int key_head = 0; key_head < item.key_heads; key_head++) {
                select(key_head);
                const int32_t * cells = choose_tile(from, to, tile);
                if (is_direct && first < last) {
                    for (int key = 0; key < tile_keys; key++) {
                        const int64_t cell = cells[std::clamp(key, first, last - 1)];
                        k[key] = keys + cell * item.key_stride;
                        v[key] = values + cell * item.value_stride;
                    }
                    attend_row<Halfs>(from, tile, cells, key_head, k, v);
                    continue;
                }
                convert_tile(cells);
                for (int row = from; row < to; row++) {
                    attend_row<Singles>(row, tile, cells, key_head, k, v);
                }
            }
        }
    }

    template <class Load> void attend_row(
        int row, int tile, const int32_t * cells, int key_head, const void * const * k,
        const void * const * v) {
        const int begin = std::max(item.rows[row].begin - tile * tile_keys, first);
        const int end = std::min(item.rows[row].end - tile * tile_keys, last);
        if (begin >= end) {
            return;
        }
        alignas(64) float bias[tile_keys] = {};
        if (item.rows[row].has_bias) {
            for (int key = begin; key < end; key++) {
                bias[key] = V::one_f16(item.biases[row][cells[key]]) * log2_e;
            }
        }
        for (int head = 0; head < item.heads; head++) {
            const float * slope_bias = item.rows[row].has_bias ? bias : nullptr;
            attend_pair<Load>(
                first_pair + row * item.heads + head, begin, end, k, v, slope_bias,
                item.slopes[key_head * item.heads + head]);
        }
    }

    template <class Load> OWN_INLINE void attend_pair(
        int pair, int begin, int end, const void * const * k, const void * const * v,
        const float * bias, float slope) {
        Floats score[2];
        for (int half = 0; half < 2; half++) {
            const auto is_seen = V::lanes_between(begin - half * lanes, end - half * lanes);
            score[half] = V::all(unseen);
            if (begin < (half + 1) * lanes && end > half * lanes) {
                auto sum = to_logarithm(score_keys<Load>(item.queries[pair], k + half * lanes));
                if (bias) {
                    sum = V::fma(V::all(slope), V::load(bias + half * lanes), sum);
                }
                score[half] = V::select(is_seen, sum, score[half]);
            }
        }
        const float before = greatest[pair];
        const float most = std::max(before, V::greatest(V::max(score[0], score[1])));
        alignas(64) float weight[tile_keys];
        Floats part[2];
        for (int half = 0; half < 2; half++) {
            const auto is_seen = V::lanes_between(begin - half * lanes, end - half * lanes);
            part[half] = V::where(is_seen, power_of_2<V>(V::sub(score[half], V::all(most))));
            V::store(weight + half * lanes, part[half]);
        }
        const auto fading = power_of_2<V>(V::sub(V::all(before), V::all(most)));
        greatest[pair] = most;
        total[pair] = total[pair] * V::one(fading) + V::sum(V::add(part[0], part[1]));
        float * out = item.outputs[pair];
        int at = 0;
        for (; at + V::most_sums * lanes <= item.value_size; at += V::most_sums * lanes) {
            add_values<Load, V::most_sums>(out, at, begin, end, v, weight, fading);
        }
        if constexpr (V::most_sums > 4) {
            if (at + 4 * lanes <= item.value_size) {
                add_values<Load, 4>(out, at, begin, end, v, weight, fading);
                at += 4 * lanes;
            }
        }
        if (at + 2 * lanes <= item.value_size) {
            add_values<Load, 2>(out, at, begin, end, v, weight, fading);
            at += 2 * lanes;
        }
        if (at < item.value_size) {
            add_values<Load, 1>(out, at, begin, end, v, weight, fading);
        }
    }

    // The products of a query with 16 keys.
    template <class Load>
    OWN_INLINE Floats score_keys(const float * query, const void * const * k) const {
        Floats all[lanes];
#pragma GCC unroll 16
        for (int key = 0; key < lanes; key += V::most_scores) {
            Floats sum[V::most_scores];
#pragma GCC unroll 16
            for (int each = 0; each < V::most_scores; each++) {
                sum[each] = V::all(0);
            }
            for (int at = 0; at < item.key_size; at += lanes) {
                const auto q = V::load(query + at);
#pragma GCC unroll 16
                for (int each = 0; each < V::most_scores; each++) {
                    sum[each] = V::fma(q, Load::template load<V>(k[key + each], at), sum[each]);
                }
            }
#pragma GCC unroll 16
            for (int each = 0; each < V::most_scores; each++) {
                all[key + each] = sum[each];
            }
        }
        return V::sum_each(all);
    }

    template <class Load, int count> OWN_INLINE static void add_values(
        float * out, int at, int begin, int end, const void * const * v, const float * weight,
        Floats fading) {
        Floats sum[count];
#pragma GCC unroll 16
        for (int each = 0; each < count; each++) {
            sum[each] = V::mul(V::load(out + at + each * lanes), fading);
        }
        for (int key = begin; key < end; key++) {
            const auto factor = V::all(weight[key]);
#pragma GCC unroll 16
            for (int each = 0; each < count; each++) {
                sum[each] =
                    V::fma(factor, Load::template load<V>(v[key], at + each * lanes), sum[each]);
            }
        }
#pragma GCC unroll 16
        for (int each = 0; each < count; each++) {
            V::store(out + at + each * lanes, sum[each]);
        }
    }

    // ------------------------------------------------------------------ many pairs

    void visit_in_columns(int from, int to, int tile, int stop) {
        const int begin = first_pair + from * item.heads;
        const int pairs = (to - from) * item.heads;
        const int vectors = (pairs + lanes - 1) / lanes;
        for (int vector = 0; vector < vectors; vector++) {
            load_columns(begin, pairs, vector);
        }
        for (; tile < stop; tile++) {
            convert_tile(choose_tile(from, to, tile));
            int vector = 0;
            for (; vector + V::most_columns <= vectors; vector += V::most_columns) {
                attend_columns<V::most_columns>(vector, tile);
            }
            for (; vector < vectors; vector++) {
                attend_columns<1>(vector, tile);
            }
        }
        for (int vector = 0; vector < vectors; vector++) {
            store_columns(begin, pairs, vector);
        }
    }

    // Lanes beyond the last pair repeat it.
    void load_columns(int begin, int pairs, int vector) {
        const float * q[lanes];
        const float * out[lanes];
        for (int lane = 0; lane < lanes; lane++) {
            const int column = vector * lanes + lane;
            const int pair = begin + std::min(column, pairs - 1);
            const VisibleRow & row = item.rows[(pair - first_pair) / item.heads];
            q[lane] = item.queries[pair];
            out[lane] = item.outputs[pair];
            column_greatest[column] = greatest[pair];
            column_total[column] = total[pair];
            column_begin[column] = static_cast<float>(row.begin);
            column_end[column] = static_cast<float>(row.end);
        }
        transpose_rows(q, item.key_size, columns_q + vector * lanes * item.key_size);
        transpose_rows(out, item.value_size, columns_out + vector * lanes * item.value_size);
    }

    void store_columns(int begin, int pairs, int vector) {
        const float * columns = columns_out + vector * lanes * item.value_size;
        const int count = std::min(lanes, pairs - vector * lanes);
        for (int at = 0; at < item.value_size; at += lanes) {
            Floats block[lanes];
#pragma GCC unroll 16
            for (int each = 0; each < lanes; each++) {
                block[each] = V::load(columns + (at + each) * lanes);
            }
            V::transpose(block);
            for (int lane = 0; lane < count; lane++) {
                V::store(item.outputs[begin + vector * lanes + lane] + at, block[lane]);
            }
        }
        for (int lane = 0; lane < count; lane++) {
            const int column = vector * lanes + lane;
            greatest[begin + column] = column_greatest[column];
            total[begin + column] = column_total[column];
        }
    }

    static void transpose_rows(const float * const * rows, int size, float * columns) {
        for (int at = 0; at < size; at += lanes) {
            Floats block[lanes];
#pragma GCC unroll 16
            for (int each = 0; each < lanes; each++) {
                block[each] = V::load(rows[each] + at);
            }
            V::transpose(block);
#pragma GCC unroll 16
            for (int each = 0; each < lanes; each++) {
                V::store(columns + (at + each) * lanes, block[each]);
            }
        }
    }

    // `count` vectors, 16 pairs each, with the current tile.
    template <int count> void attend_columns(int vector, int tile) {
        constexpr int keys_at_once = V::most_keys;
        const float base = static_cast<float>(tile * tile_keys);
        Floats begin[count], end[count];
        float range_begin = tile_keys, range_end = 0, full_begin = 0, full_end = tile_keys;
        for (int each = 0; each < count; each++) {
            begin[each] = V::sub(V::load(column_begin + (vector + each) * lanes), V::all(base));
            end[each] = V::sub(V::load(column_end + (vector + each) * lanes), V::all(base));
            range_begin = std::min(range_begin, -V::greatest(V::sub(V::all(0), begin[each])));
            range_end = std::max(range_end, V::greatest(end[each]));
            full_begin = std::max(full_begin, V::greatest(begin[each]));
            full_end = std::min(full_end, -V::greatest(V::sub(V::all(0), end[each])));
        }
        const int from = std::max(static_cast<int>(range_begin), first);
        const int to = std::min(static_cast<int>(range_end), last);
        if (from >= to) {
            return;
        }
        const bool is_full = full_begin <= from && full_end >= to;

        const int group_from = from / keys_at_once * keys_at_once;
        const int group_to = (to + keys_at_once - 1) / keys_at_once * keys_at_once;
        Floats most[count];
        for (int each = 0; each < count; each++) {
            most[each] = V::load(column_greatest + (vector + each) * lanes);
        }
        for (int key = group_from; key < group_to; key += keys_at_once) {
            Floats score[keys_at_once * count];
            score_columns<count, 1>(vector, key, 0, score);
#pragma GCC unroll 16
            for (int which = 0; which < keys_at_once; which++) {
                if (key + which < from || key + which >= to) {
                    continue;
                }
                const auto at = V::all(static_cast<float>(key + which));
#pragma GCC unroll 4
                for (int each = 0; each < count; each++) {
                    auto sum = to_logarithm(score[which * count + each]);
                    if (!is_full) {
                        sum = V::select(
                            V::is_between(begin[each], at, end[each]), sum, V::all(unseen));
                    }
                    most[each] = V::max(most[each], sum);
                    V::store(weights + ((key + which) * count + each) * lanes, sum);
                }
            }
        }
        Floats fading[count];
        for (int each = 0; each < count; each++) {
            fading[each] =
                weigh<count>(vector, each, from, to, is_full, begin[each], end[each], most[each]);
        }
        for (int at = 0; at < item.value_size; at += V::most_dimensions) {
            if (is_full) {
                add_columns<count, true>(vector, at, from, to, fading);
            } else {
                add_columns<count, false>(vector, at, from, to, fading);
            }
        }
    }

    // Turn the scores of a vector into weights, and add them up. Returns the factor of what was
    // before.
    template <int count> OWN_INLINE Floats weigh(
        int vector, int each, int from, int to, bool is_full, Floats begin, Floats end,
        Floats most) {
        float * greatest_at = column_greatest + (vector + each) * lanes;
        float * total_at = column_total + (vector + each) * lanes;
        for (int key = 0; key < tile_keys; key++) {
            float * at = weights + (key * count + each) * lanes;
            auto weight = V::all(0);
            if (key >= from && key < to) {
                weight = power_of_2<V>(V::sub(V::load(at), most));
                if (!is_full) {
                    weight = V::where(
                        V::is_between(begin, V::all(static_cast<float>(key)), end), weight);
                }
            }
            V::store(at, weight);
        }
        const auto fading = power_of_2<V>(V::sub(V::load(greatest_at), most));
        V::store(greatest_at, most);
        const auto sum = sum_weights<count, 1>(each, 0);
        V::store(total_at, V::add(V::mul(V::load(total_at), fading), sum));
        return fading;
    }

    template <int count, int stride> OWN_INLINE Floats sum_weights(int each, int key) const {
        if constexpr (stride == tile_keys) {
            return V::load(weights + (key * count + each) * lanes);
        } else {
            return V::add(
                sum_weights<count, 2 * stride>(each, key),
                sum_weights<count, 2 * stride>(each, key + stride));
        }
    }

    // The products of the pairs with some keys: the parts `part`, `part + stride`, ... of them.
    template <int count, int stride>
    OWN_INLINE void score_columns(int vector, int key, int part, Floats * score) const {
        constexpr int scores = V::most_keys * count;
        if constexpr (stride == lanes) {
#pragma GCC unroll 16
            for (int each = 0; each < scores; each++) {
                score[each] = V::all(0);
            }
            const float * q = columns_q + (vector * item.key_size + part) * lanes;
            const float * k = tile_k + key * item.key_size + part;
            for (int at = 0; at < item.key_size; at += lanes) {
                Floats query[count];
#pragma GCC unroll 4
                for (int each = 0; each < count; each++) {
                    query[each] = V::load(q + (each * item.key_size + at) * lanes);
                }
#pragma GCC unroll 16
                for (int which = 0; which < V::most_keys; which++) {
                    const auto value = V::all(k[which * item.key_size + at]);
#pragma GCC unroll 4
                    for (int each = 0; each < count; each++) {
                        score[which * count + each] =
                            V::fma(value, query[each], score[which * count + each]);
                    }
                }
            }
        } else {
            Floats others[scores];
            score_columns<count, 2 * stride>(vector, key, part, score);
            score_columns<count, 2 * stride>(vector, key, part + stride, others);
#pragma GCC unroll 16
            for (int each = 0; each < scores; each++) {
                score[each] = V::add(score[each], others[each]);
            }
        }
    }

    template <int count, bool is_full>
    OWN_INLINE void add_columns(int vector, int at, int from, int to, const Floats * fading) {
        Floats sum[V::most_dimensions * count];
        float * out = columns_out + (vector * item.value_size + at) * lanes;
#pragma GCC unroll 16
        for (int which = 0; which < V::most_dimensions; which++) {
#pragma GCC unroll 4
            for (int each = 0; each < count; each++) {
                sum[which * count + each] =
                    V::mul(V::load(out + (each * item.value_size + which) * lanes), fading[each]);
            }
        }
        for (int key = from; key < to; key++) {
            const float * values = tile_v + key * item.value_size + at;
            Floats weight[count];
#pragma GCC unroll 4
            for (int each = 0; each < count; each++) {
                weight[each] = V::load(weights + (key * count + each) * lanes);
            }
#pragma GCC unroll 16
            for (int which = 0; which < V::most_dimensions; which++) {
                const auto value = V::all(values[which]);
#pragma GCC unroll 4
                for (int each = 0; each < count; each++) {
                    Floats & total_at = sum[which * count + each];
                    // What a row does not see must not touch it, not even as infinity times zero.
                    total_at = is_full ? V::fma(value, weight[each], total_at)
                                       : V::select(
                                             V::is_positive(weight[each]),
                                             V::fma(value, weight[each], total_at), total_at);
                }
            }
        }
#pragma GCC unroll 16
        for (int which = 0; which < V::most_dimensions; which++) {
#pragma GCC unroll 4
            for (int each = 0; each < count; each++) {
                V::store(out + (each * item.value_size + which) * lanes, sum[which * count + each]);
            }
        }
    }

    // ------------------------------------------------------------------ the end

    // Divide by the sum of weights; a sink is a key without a value.
    void finish(int pair) {
        float sum = total[pair];
        auto factor = V::all(1);
        if (item.sinks) {
            const float sink =
                item.sinks[pair / (item.row_count * item.heads) * item.heads + pair % item.heads] *
                log2_e;
            const float most = std::max(greatest[pair], sink);
            factor = power_of_2<V>(V::sub(V::all(greatest[pair]), V::all(most)));
            sum = sum * V::one(factor) + V::one(power_of_2<V>(V::sub(V::all(sink), V::all(most))));
        }
        factor = sum == 0 ? V::all(0) : V::div(factor, V::all(sum));
        for (int at = 0; at < item.value_size; at += lanes) {
            V::store(item.outputs[pair] + at, V::mul(V::load(item.outputs[pair] + at), factor));
        }
    }
};

}  // namespace
}  // namespace own
