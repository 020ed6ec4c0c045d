// How far the pairs of an item are.
#pragma once

#include "attention_item.h"

#include <cfloat>
#include <cstring>

namespace own {
namespace {

constexpr float unseen = -FLT_MAX;  // the greatest score before the first key

// By pair: the greatest score so far, and the sum of weights relative to it. The weighted sums of
// values are in the outputs.
struct PairState {
    PairState(const AttentionItem & item, float * work)
        : greatest(work), total(work + max_item_pairs) {
        for (int pair = 0; pair < item.key_heads * item.row_count * item.heads; pair++) {
            greatest[pair] = unseen;
            total[pair] = 0;
            std::memset(
                item.outputs[pair], 0, static_cast<size_t>(item.value_size) * sizeof(float));
        }
    }

    float * const greatest;
    float * const total;

    float * work_behind() const { return total + max_item_pairs; }
};

}  // namespace
}  // namespace own
