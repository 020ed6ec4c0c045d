// Compiled with -mavx2 -mfma -mf16c.
#include "products_simd_avx2.h"

#include "products_blocks.h"

namespace own {

const ProductKernels & product_kernels_avx2() {
    static const ProductKernels kernels = make_product_kernels();
    return kernels;
}

}  // namespace own
