// Weak stand-ins for what is not written yet, so that the library can be loaded. Goes with the last.
#include "attention.h"
#include "cell_positions.h"
#include "products.h"

#define LATER __attribute__((weak))

namespace own {

LATER bool can_pack(const ggml_tensor *) { return false; }
LATER size_t packed_bytes(const ggml_tensor * weights) { return ggml_nbytes(weights); }
LATER int64_t pack_units(const ggml_tensor *) { return 0; }
LATER void pack_unit(const ggml_tensor *, const void *, int64_t) {}
LATER bool supports_product(const ggml_tensor *) { return false; }
LATER size_t product_work_bytes(const ggml_tensor *, int) { return 0; }
LATER void compute_product(const ggml_compute_params *, ggml_tensor *) {}
LATER bool supports_attention(const ggml_tensor *) { return false; }
LATER size_t attention_work_bytes(const ggml_tensor *, int) { return 0; }
LATER void compute_attention(const ggml_compute_params *, ggml_tensor *) {}
LATER bool watch_memory(llama_memory_i *) { return false; }
LATER void order_cells(const ggml_tensor *, int64_t, int32_t *, int64_t) {}

}  // namespace own
