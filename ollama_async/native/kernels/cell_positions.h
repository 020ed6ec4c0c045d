// The positions of the cells of a KV cache. The graph does not have them: an attention op only sees
// which cells its mask allows. So they are read from the library's cache itself.
#pragma once

#include "ggml.h"

#include <cstdint>

struct llama_memory_i;

namespace own {

// Read positions from `memory` from now on; nullptr: none. One context of a process is watched.
// False: it is a kind of memory whose cells are not known; keys are visited in the order of cells.
bool watch_memory(llama_memory_i * memory);

// Order `count` cells by position, in place. `keys`: the K tensor of an attention op that they are
// cells of; `stream`: their index in its last dimension. Cells of a cache that is not watched stay
// as they are. Returns the position of the first one; -1 if it is not known.
int32_t order_cells(const ggml_tensor * keys, int64_t stream, int32_t * cells, int64_t count);

}  // namespace own
