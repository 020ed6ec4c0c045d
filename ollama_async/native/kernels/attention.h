// Attention over the KV cache (GGML_OP_FLASH_ATTN_EXT): what the rest of the library needs to know.
//
// Masked keys are skipped. A row visits its keys in the order of their positions, not of their
// cells (see cell_positions.h), in tiles that begin at its first key. So its result depends neither
// on the other rows, nor on where in the cache the keys are, nor on how the prompt was cut.
#pragma once

#include "ggml-cpu-impl.h"
#include "ggml.h"

#include <cstddef>

namespace own {

// Whether `op` can be computed on the selected instruction set; otherwise stock does it.
bool supports_attention(const ggml_tensor * op);

// Bytes of working memory for `op` with so many threads.
size_t attention_work_bytes(const ggml_tensor * op, int threads);

// Compute `dst`, an op that is supported. Called by all threads of the graph.
void compute_attention(const ggml_compute_params * params, ggml_tensor * dst);

}  // namespace own
