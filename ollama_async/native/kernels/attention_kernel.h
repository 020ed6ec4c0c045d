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

#include "attention_few.h"
#include "attention_many.h"

#include <algorithm>

namespace own {
namespace {

template <class V> class ItemKernel {
    const AttentionItem & item;
    Tile<V> tile;
    PairState state;
    FewPairs<V> few;
    ManyPairs<V> many;

  public:
    explicit ItemKernel(const AttentionItem & which)
        : item(which),
          tile(which),
          state(which, tile.work_behind()),
          few(tile, state),
          many(tile, state) {}

    void run() {
        visit(0, item.row_count, 0);
        for (int pair = 0; pair < item.key_heads * item.row_count * item.heads; pair++) {
            finish(pair);
        }
    }

  private:
    // Rows `from` to `to`, whose tiles before `index` are done. They go together as long as they
    // have the same cells, then on in groups.
    void visit(int from, int to, int index) {
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
        index = std::max(index, begin / tile_keys);
        if (index < parting) {
            visit_together(from, to, index, parting);
            index = parting;
        }
        if (parting == stop) {
            return;
        }
        int start = from;
        for (int row = from + 1; row <= to; row++) {
            if (row == to || item.rows[row].split <= parting) {
                visit(start, row, index);
                start = row;
            }
        }
    }

    void visit_together(int from, int to, int index, int stop) {
        const bool has_bias = std::any_of(
            item.rows + from, item.rows + to, [](const VisibleRow & row) { return row.has_bias; });
        if (has_bias || (to - from) * item.heads < V::pairs_for_columns) {
            few.visit(from, to, index, stop);
            return;
        }
        for (int key_head = 0; key_head < item.key_heads; key_head++) {
            tile.select_key_head(key_head);
            many.visit(from, to, index, stop);
        }
    }

    // Divide by the sum of weights; a sink is a key without a value.
    void finish(int pair) {
        float sum = state.total[pair];
        auto factor = V::all(1);
        if (item.sinks) {
            const float sink =
                item.sinks[pair / (item.row_count * item.heads) * item.heads + pair % item.heads] *
                log2_e;
            const float most = std::max(state.greatest[pair], sink);
            factor = power_of_2<V>(V::sub(V::all(state.greatest[pair]), V::all(most)));
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
