// Compiled with -mavx2 -mfma -mf16c -mavxvnni.
#include "products_simd_avx2.h"

#include "products_blocks.h"

namespace own {

const ProductKernels & product_kernels_avx2_vnni() {
    static const ProductKernels kernels = make_product_kernels();
    return kernels;
}

}  // namespace own
