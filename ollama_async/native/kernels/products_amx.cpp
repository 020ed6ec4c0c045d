// Compiled with the flags of AVX512-VNNI, -mamx-tile -mamx-int8, and gcc_amx.h included. A compiler
// that does not know those of AMX makes the kernels of AVX512-VNNI do its work.
#ifdef __AMX_INT8__

#include "products_simd_avx512.h"

#include "products_blocks.h"
#include "products_tiles.h"

namespace own {

namespace {

// What LDTILECFG reads: the size of each tile (Intel's manual, "Tile architecture details").
struct alignas(64) TileConfig {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

// Tile 0 has the activations; 1 and 2 have weights of two groups, 3 and 4 dot products with them.
class AmxTiles {
  public:
    explicit AmxTiles(int bytes) {
        _tile_storeconfig(&before_);
        TileConfig config = {};
        config.palette = 1;
        const auto set = [&](int tile, int rows, int row_bytes) {
            config.rows[tile] = static_cast<uint8_t>(rows);
            config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
        };
        set(0, tile_rows, bytes);
        set(1, bytes / 4, vector);
        set(2, bytes / 4, vector);
        set(3, tile_rows, vector);
        set(4, tile_rows, vector);
        _tile_loadconfig(&config);
    }

    // Stock configures the tiles of a thread once and for all.
    ~AmxTiles() { _tile_loadconfig(&before_); }

    AmxTiles(const AmxTiles &) = delete;
    AmxTiles & operator=(const AmxTiles &) = delete;

    template <int MR> OWN_INLINE static void multiply(
        const int8_t * activations, size_t stride, const uint8_t * const (&weights)[MR],
        int32_t * const (&dots)[MR]) {
        _tile_loadd(0, activations, stride);
        _tile_loadd(1, weights[0], vector);
        _tile_zero(3);
        _tile_dpbssd(3, 0, 1);
        _tile_stored(3, dots[0], vector);
        if constexpr (MR == 2) {
            _tile_loadd(2, weights[1], vector);
            _tile_zero(4);
            _tile_dpbssd(4, 0, 2);
            _tile_stored(4, dots[1], vector);
        }
    }

  private:
    TileConfig before_;
};

template <class Format> struct MultiplyTiled {
    static constexpr auto function = multiply_tiled<AmxTiles, Format>;
};

}  // namespace

const ProductKernels & product_kernels_amx() {
    static const ProductKernels kernels = make_product_kernels<MultiplyTiled>();
    return kernels;
}

}  // namespace own

#else

#include "products_kernels.h"

namespace own {

const ProductKernels & product_kernels_amx() {
    return product_kernels_avx512_vnni();
}

}  // namespace own

#endif
