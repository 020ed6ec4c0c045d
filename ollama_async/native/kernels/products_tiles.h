// Products of 16 rows and more by tiles: 16 rows of activations times 16 rows of weights in one
// instruction. The dot products of a block are exact integers, and add_dots() takes them from here
// as from the vectors: so results are the same bit for bit.
//
// `Tiles` are those of the CPU (products_amx.cpp), or a test's stand-in:
//   Tiles tiles(bytes)
//       While it lives, its thread can multiply rows of so many bytes, at most 32.
//   Tiles::multiply(activations, stride, weights, dots)
//       Set dots[m][row * 16 + lane], for rows and lanes 0 to 15, to the sum of products of row
//       `row` of `activations`, which are `stride` bytes apart, with lane `lane` of the vectors
//       `weights[m]`, each of which has 4 bytes of 16 lanes. All bytes are signed.
//
// Include after products_blocks.h. Everything here has internal linkage.
#pragma once

namespace own {
namespace {

enum : int { tile_rows = 16 };

// Of one super-block of MR groups with 16 rows.
template <class Format, int MR> struct TileDots {
    alignas(64) int32_t values[super_blocks][parts<Format>][MR][tile_rows * group_rows];
};

// All rows of a product, 16 at a time, over a stage.
template <class Tiles, class Format, int MR> class TiledStage {
  public:
    TiledStage(
        const Stage & stage, const uint8_t * activations, size_t super_stride, int rows,
        float * outputs, int stride, bool begin)
        : stage_(stage),
          activations_(activations),
          super_stride_(super_stride),
          rows_(rows),
          outputs_(outputs),
          stride_(stride),
          begin_(begin),
          supers_(static_cast<int>((stage.blocks + super_blocks - 1) / super_blocks)) {}

    // While tiles compute one pass, vectors scale and add what was computed in the one before.
    void multiply() {
        TileDots<Format, MR> dots[2];
        const int passes = (rows_ + tile_rows - 1) / tile_rows * supers_;
        for (int pass = 0; pass <= passes; pass++) {
            for (int b = 0; b < super_blocks; b++) {
                if (pass < passes && b < blocks_of(pass)) {
                    compute(pass, b, dots[pass % 2]);
                }
                if (pass > 0) {
                    add(pass - 1, 2 * b, dots[(pass - 1) % 2]);
                    add(pass - 1, 2 * b + 1, dots[(pass - 1) % 2]);
                }
            }
        }
    }

  private:
    // Pass after pass goes through the super-blocks, then on to the next rows. The last 16 rows may
    // begin among those before.
    int super_of(int pass) const { return pass % supers_; }
    int panel_of(int pass) const { return pass / supers_ * tile_rows; }
    int first_row(int pass) const {
        const int last = rows_ - tile_rows;
        return panel_of(pass) < last ? panel_of(pass) : last;
    }

    int blocks_of(int pass) const {
        const int64_t rest = stage_.blocks - super_of(pass) * super_blocks;
        return rest < super_blocks ? static_cast<int>(rest) : static_cast<int>(super_blocks);
    }

    const QuantizedActivations * rows_of(int pass) const {
        const uint8_t * super = activations_ + super_of(pass) * super_stride_;
        return reinterpret_cast<const QuantizedActivations *>(super) + first_row(pass);
    }

    void compute(int pass, int b, TileDots<Format, MR> & dots) const {
        constexpr int steps = 8 / parts<Format>;
        for (int part = 0; part < parts<Format>; part++) {
            const int step = b * 8 + part * steps;
            const uint8_t * weights[MR];
            int32_t * results[MR];
            for (int m = 0; m < MR; m++) {
                weights[m] = stage_.supers[super_of(pass)][m].values + step * vector;
                results[m] = dots.values[b][part][m];
            }
            const int8_t * values = rows_of(pass)->values + step * 4;
            Tiles::multiply(values, sizeof(QuantizedActivations), weights, results);
        }
    }

    // Row `row` of a pass, unless an earlier pass had it.
    OWN_INLINE void add(int pass, int row, const TileDots<Format, MR> & dots) const {
        if (first_row(pass) + row < panel_of(pass)) {
            return;
        }
        const Scales * scales[MR];
        for (int m = 0; m < MR; m++) {
            scales[m] = &stage_.supers[super_of(pass)][m].scales;
        }
        float * outputs = outputs_ + (first_row(pass) + row) * stride_;
        Floats sums[MR][1];
        load_sums(sums, outputs, stride_, begin_ && super_of(pass) == 0);
        for (int b = 0; b < blocks_of(pass); b++) {
            const auto read = [&](Ints(&totals)[MR][1], int part) OWN_LAMBDA {
                for (int m = 0; m < MR; m++) {
                    totals[m][0] = load_ints(dots.values[b][part][m] + row * group_rows);
                }
            };
            add_dots<Format>(sums, scales, rows_of(pass) + row, b, read);
        }
        store_sums(sums, outputs, stride_);
    }

    const Stage & stage_;
    const uint8_t * activations_;
    size_t super_stride_;
    int rows_;
    float * outputs_;
    int stride_;
    bool begin_;
    int supers_;
};

template <class Tiles> struct TilePasses {
    static constexpr bool is_signed = true;

    template <class Format, int MR> static void multiply(
        const Stage & stage, const uint8_t * activations, size_t super_stride, int rows,
        float * outputs, int stride, bool begin) {
        TiledStage<Tiles, Format, MR>(
            stage, activations, super_stride, rows, outputs, stride, begin)
            .multiply();
    }
};

template <class Tiles, class Format> void multiply_tiled(const ProductTile & tile) {
    if (tile.rows < tile_rows) {
        return multiply<Format>(tile);
    }
    const Tiles tiles(block_values / parts<Format>);
    int group = 0;
    for (; group + 2 <= tile.groups; group += 2) {
        multiply_unpacked<TilePasses<Tiles>, Format, 2>(tile, group);
    }
    for (; group < tile.groups; group++) {
        multiply_unpacked<TilePasses<Tiles>, Format, 1>(tile, group);
    }
}

}  // namespace
}  // namespace own
