// Attention of few pairs: one after the other, with vectors along the dimensions. See
// attention_kernel.h.
#pragma once

#include "attention_state.h"
#include "attention_tile.h"

namespace own {
namespace {

template <class V> class FewPairs {
    using Floats = typename V::Floats;

    const AttentionItem & item;
    Tile<V> & tile;
    PairState & state;

  public:
    FewPairs(Tile<V> & tile, PairState & state) : item(tile.item), tile(tile), state(state) {}

    // Rows `from` to `to`, tiles from `index` to `stop`.
    void visit(int from, int to, int index, int stop) {
        const bool is_direct = (to - from) * item.heads == 1 && item.key_type == GGML_TYPE_F16 &&
                               item.value_type == GGML_TYPE_F16;
        const void * k[tile_keys];
        const void * v[tile_keys];
        for (int key = 0; !is_direct && key < tile_keys; key++) {
            k[key] = tile.k + key * item.key_size;
            v[key] = tile.v + key * item.value_size;
        }
        // Tile by tile, as the heads of a cell are beside each other in memory.
        for (; index < stop; index++) {
            for (int key_head = 0; key_head < item.key_heads; key_head++) {
                tile.select_key_head(key_head);
                const int32_t * cells = tile.choose(from, to, index);
                if (is_direct && tile.first < tile.last) {
                    for (int key = 0; key < tile_keys; key++) {
                        const int64_t cell = cells[std::clamp(key, tile.first, tile.last - 1)];
                        k[key] = tile.keys + cell * item.key_stride;
                        v[key] = tile.values + cell * item.value_stride;
                    }
                    attend_row<Halfs>(from, index, cells, k, v);
                    continue;
                }
                tile.convert_all(cells);
                for (int row = from; row < to; row++) {
                    attend_row<Singles>(row, index, cells, k, v);
                }
            }
        }
    }

  private:
    template <class Load> void attend_row(
        int row, int index, const int32_t * cells, const void * const * k, const void * const * v) {
        const int begin = std::max(item.rows[row].begin - index * tile_keys, tile.first);
        const int end = std::min(item.rows[row].end - index * tile_keys, tile.last);
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
                tile.first_pair + row * item.heads + head, begin, end, k, v, slope_bias,
                item.slopes[tile.first_head + head]);
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
                auto sum =
                    tile.to_logarithm(score_keys<Load>(item.queries[pair], k + half * lanes));
                if (bias) {
                    sum = V::fma(V::all(slope), V::load(bias + half * lanes), sum);
                }
                score[half] = V::select(is_seen, sum, score[half]);
            }
        }
        const float before = state.greatest[pair];
        const float most = std::max(before, V::greatest(V::max(score[0], score[1])));
        alignas(64) float weight[tile_keys];
        Floats part[2];
        for (int half = 0; half < 2; half++) {
            const auto is_seen = V::lanes_between(begin - half * lanes, end - half * lanes);
            part[half] = V::where(is_seen, power_of_2<V>(V::sub(score[half], V::all(most))));
            V::store(weight + half * lanes, part[half]);
        }
        const auto fading = power_of_2<V>(V::sub(V::all(before), V::all(most)));
        state.greatest[pair] = most;
        state.total[pair] = state.total[pair] * V::one(fading) + V::sum(V::add(part[0], part[1]));
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
};

}  // namespace
}  // namespace own
