// Weak stand-ins for what is not written yet, so that the library can be loaded. Goes with the last.
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

}  // namespace own
