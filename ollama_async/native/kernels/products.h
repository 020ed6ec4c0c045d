// Products of weight matrices with activations: what the rest of the library needs to know of them.
//
// Weights are packed when they are loaded: the rows of a matrix by groups of 16, whose values are
// interleaved so that one vector register has the next values of all 16 rows. The layout is the
// same for every instruction set.
//
// Each output is computed by one thread, in an order that depends on nothing but the length of the
// rows: not on how many rows of activations there are, nor on which others.
#pragma once

#include "ggml-cpu-impl.h"
#include "ggml.h"

#include <cstddef>
#include <cstdint>

namespace own {

// Whether a weight matrix can be packed, and its products computed, on the selected instruction
// set.
bool can_pack(const ggml_tensor * weights);

// Bytes of the packed matrix, with all that the kernels read beyond its end.
size_t packed_bytes(const ggml_tensor * weights);

// Units of work in packing `weights`; they may be packed in any order, by any threads.
int64_t pack_units(const ggml_tensor * weights);

// Pack unit `unit` of `data`, the matrix as it is in the file, into `weights->data`.
void pack_unit(const ggml_tensor * weights, const void * data, int64_t unit);

// Whether `op`, a MUL_MAT or MUL_MAT_ID whose weights are packed, can be computed.
bool supports_product(const ggml_tensor * op);

// Bytes of working memory for `op` with so many threads.
size_t product_work_bytes(const ggml_tensor * op, int threads);

// Compute `dst`, an op that is supported. Called by all threads of the graph.
void compute_product(const ggml_compute_params * params, ggml_tensor * dst);

}  // namespace own
