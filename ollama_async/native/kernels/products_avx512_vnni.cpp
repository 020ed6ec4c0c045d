// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c.
#include "products_simd_avx512.h"

#include "products_blocks.h"

namespace own {

const ProductKernels & product_kernels_avx512_vnni() {
    static const ProductKernels kernels = make_product_kernels();
    return kernels;
}

}  // namespace own
