// Compares products by tiles with products by vectors, bit for bit, on a CPU without tiles: a plain
// loop stands in for the tile instructions. Says what differs, and fails then.
#include "products_simd_avx512.h"

#include "products_blocks.h"
#include "products_tiles.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace own {
namespace {

// Tiles as large as the rows of activations ask for; see products_tiles.h.
class PlainTiles {
  public:
    explicit PlainTiles(int bytes) { row_bytes = bytes; }
    ~PlainTiles() { row_bytes = 0; }

    template <int MR> static void multiply(
        const int8_t * activations, size_t stride, const uint8_t * const (&weights)[MR],
        int32_t * const (&dots)[MR]) {
        if (!row_bytes) {
            std::puts("tiles are used without a configuration");
            std::exit(1);
        }
        for (int m = 0; m < MR; m++) {
            for (int row = 0; row < 16; row++) {
                for (int lane = 0; lane < 16; lane++) {
                    int32_t sum = 0;
                    for (int k = 0; k < row_bytes; k++) {
                        const uint8_t weight = weights[m][k / 4 * 64 + lane * 4 + k % 4];
                        sum += activations[row * stride + k] * static_cast<int8_t>(weight);
                    }
                    dots[m][row * 16 + lane] = sum;
                }
            }
        }
    }

  private:
    static int row_bytes;
};

int PlainTiles::row_bytes = 0;

template <class Format> struct MultiplyTiled {
    static constexpr auto function = multiply_tiled<PlainTiles, Format>;
};

std::mt19937 generator(7);

float normal() {
    static std::normal_distribution<float> distribution;
    return distribution(generator);
}

template <class Type> Type * aligned(std::vector<Type> & values) {
    const auto address = reinterpret_cast<uintptr_t>(values.data());
    return reinterpret_cast<Type *>((address + 63) / 64 * 64);
}

std::vector<float> multiply_with(
    const ProductKernels & kernels, ggml_type type, ProductTile tile) {
    std::vector<float> outputs(static_cast<size_t>(tile.rows * tile.groups * group_rows) + 16);
    tile.outputs = aligned(outputs);
    kernels.multiply[type](tile);
    return {tile.outputs, tile.outputs + tile.rows * tile.groups * group_rows};
}

bool is_equal(ggml_type type, int64_t values, int groups, int rows) {
    static const ProductKernels vectors = make_product_kernels();
    static const ProductKernels tiles = make_product_kernels<MultiplyTiled>();
    ProductTile tile = {};
    tile.group_bytes = packed_group_bytes(type, values);
    tile.groups = groups;
    tile.values = values;
    tile.rows = rows;

    const size_t row_bytes = ggml_row_size(type, values);
    std::vector<float> source(static_cast<size_t>(group_rows * values));
    std::vector<uint8_t> file(group_rows * row_bytes);
    std::vector<uint8_t> packed(groups * tile.group_bytes + 64);
    const std::vector<float> importance(static_cast<size_t>(values), 1);
    for (int group = 0; group < groups; group++) {
        for (float & each : source) {
            each = normal();
        }
        ggml_quantize_chunk(
            type, source.data(), file.data(), 0, group_rows, values, importance.data());
        uint8_t * target = aligned(packed) + group * tile.group_bytes;
        pack_group(type, values, file.data(), group_rows, target);
    }
    tile.weights = aligned(packed);

    const auto supers = static_cast<int>((values + super_values - 1) / super_values);
    std::vector<uint8_t> activations(supers * rows * sizeof(QuantizedActivations) + 64);
    tile.super_stride = rows * sizeof(QuantizedActivations);
    tile.activations = aligned(activations);
    std::vector<float> row(super_values);
    for (int64_t each = 0; each < supers * rows; each++) {
        for (float & value : row) {
            value = normal();
        }
        const int64_t rest = values - each / rows * super_values;
        vectors.store_activations(
            vectors.activations[type], row.data(),
            static_cast<int>(std::min<int64_t>(rest, super_values)),
            aligned(activations) + each * sizeof(QuantizedActivations));
    }
    const std::vector<float> expected = multiply_with(vectors, type, tile);
    const std::vector<float> found = multiply_with(tiles, type, tile);
    return !std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float));
}

}  // namespace
}  // namespace own

int main() {
    if (!__builtin_cpu_supports("avx512vnni")) {
        std::puts("this CPU has no AVX512-VNNI");
        return 77;
    }
    int count = 0;
    for (ggml_type type :
         {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1,
          GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS, GGML_TYPE_MXFP4, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,
          GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K}) {
        const bool is_super = ggml_blck_size(type) == own::super_values;
        const int64_t missing = is_super ? 0 : 160;  // in the last super-block
        for (int64_t values : {is_super ? 256 : 32, 512, 768, 1280}) {
            values = values > 256 ? values - missing : values;
            for (int groups : {1, 2, 3}) {
                for (int rows : {1, 15, 16, 17, 31, 32, 33, 100}) {
                    count++;
                    if (!own::is_equal(type, values, groups, rows)) {
                        std::printf(
                            "%s, %d values, %d groups, %d rows: bits differ\n",
                            ggml_type_name(type), static_cast<int>(values), groups, rows);
                        return 1;
                    }
                }
            }
        }
    }
    std::printf("%d products are equal\n", count);
    return 0;
}
