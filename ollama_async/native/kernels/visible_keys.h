// Which keys each row of an attention op sees, and in which order: computed once for all layers.
#pragma once

#include "ggml-cpu-impl.h"
#include "ggml.h"

#include <cstdint>
#include <vector>

namespace own {

// Keys are visited by tiles of so many. Where a row's tiles begin depends on the position of its
// first key alone, so rows of a sequence have the same tiles, also where a window slides over it.
constexpr int tile_keys = 32;

// The keys of a row, in the order of their positions: cells[begin] to cells[end - 1]. Its tiles
// begin at multiples of `tile_keys`; a tile's entries outside the range name no key of this row.
struct VisibleRow {
    const int32_t * cells;
    int32_t begin;
    int32_t end;
    int32_t stream;
    int32_t row;    // in its stream
    int32_t split;  // the first tile whose cells are not those of the row before; INT32_MAX: none
    bool has_bias;  // the mask holds more than 0 for the keys of this row
};

// Ordered so that neighbours share as many tiles as possible.
using VisibleRows = std::vector<VisibleRow>;

// A graph is planned: what is known of the graph before may be wrong from now on.
void forget_visible_keys();

// The rows of `op`. All threads call it; it contains barriers.
const VisibleRows & find_visible_keys(const ggml_compute_params * params, const ggml_tensor * op);

}  // namespace own
