// Packs the weights of a model while it is loaded, on all cores, without doubling its memory.
#pragma once

#include "ggml.h"

namespace own {

// How models are loaded from now on: on how many threads (0 = all cores), and whether the data of
// weights is a mapped file, whose pages are given back once they are packed.
void configure_packing(int threads, bool is_mapped);

// Pack all of `weights`, whose `data` is as in the file.
void pack(const ggml_tensor * weights, const void * data);

}  // namespace own
