// Attention of many pairs: 16 beside each other in a vector. See attention_kernel.h.
#pragma once

#include "attention_state.h"
#include "attention_tile.h"

namespace own {
namespace {

template <class V> class ManyPairs {
    using Floats = typename V::Floats;

    const AttentionItem & item;
    Tile<V> & tile;
    PairState & state;
    // By vector of 16 pairs.
    float * const columns_q;    // [vector][dimension][pair]
    float * const columns_out;  // [vector][dimension][pair]
    float * const column_greatest;
    float * const column_total;
    float * const column_begin;
    float * const column_end;
    float * const weights;  // [key][pair], of two vectors

  public:
    ManyPairs(Tile<V> & tile, PairState & state)
        : item(tile.item),
          tile(tile),
          state(state),
          columns_q(state.work_behind()),
          columns_out(columns_q + max_item_pairs * item.key_size),
          column_greatest(columns_out + max_item_pairs * item.value_size),
          column_total(column_greatest + max_item_pairs),
          column_begin(column_total + max_item_pairs),
          column_end(column_begin + max_item_pairs),
          weights(column_end + max_item_pairs) {}

    // Rows `from` to `to` with the current key head, tiles from `index` to `stop`.
    void visit(int from, int to, int index, int stop) {
        const int begin = tile.first_pair + from * item.heads;
        const int pairs = (to - from) * item.heads;
        const int vectors = (pairs + lanes - 1) / lanes;
        for (int vector = 0; vector < vectors; vector++) {
            load_columns(begin, pairs, vector);
        }
        for (; index < stop; index++) {
            tile.convert_all(tile.choose(from, to, index));
            int vector = 0;
            for (; vector + V::most_columns <= vectors; vector += V::most_columns) {
                attend_columns<V::most_columns>(vector, index);
            }
            for (; vector < vectors; vector++) {
                attend_columns<1>(vector, index);
            }
        }
        for (int vector = 0; vector < vectors; vector++) {
            store_columns(begin, pairs, vector);
        }
    }

  private:
    // Lanes beyond the last pair repeat it.
    void load_columns(int begin, int pairs, int vector) {
        const float * q[lanes];
        const float * out[lanes];
        for (int lane = 0; lane < lanes; lane++) {
            const int column = vector * lanes + lane;
            const int pair = begin + std::min(column, pairs - 1);
            const VisibleRow & row = item.rows[(pair - tile.first_pair) / item.heads];
            q[lane] = item.queries[pair];
            out[lane] = item.outputs[pair];
            column_greatest[column] = state.greatest[pair];
            column_total[column] = state.total[pair];
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
            state.greatest[begin + column] = column_greatest[column];
            state.total[begin + column] = column_total[column];
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
    template <int count> void attend_columns(int vector, int index) {
        constexpr int keys_at_once = V::most_keys;
        const float base = static_cast<float>(index * tile_keys);
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
        const int from = std::max(static_cast<int>(range_begin), tile.first);
        const int to = std::min(static_cast<int>(range_end), tile.last);
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
                    auto sum = tile.to_logarithm(score[which * count + each]);
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
            const float * k = tile.k + key * item.key_size + part;
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
            const float * values = tile.v + key * item.value_size + at;
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
};

}  // namespace
}  // namespace own
