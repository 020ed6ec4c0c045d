// The product kernels, on vectors of one instruction set and the formats of products_formats.h.
//
// An output is summed up in this order, however many rows and groups are computed at a time:
//   quantized: sum over blocks of 32 values: (integer dot product * weight scale) * activation
//   scale,
//              then, with minima, minus minimum * sum of the activations
//   floats:    sum over values
// always with fused multiply-add on one accumulator, from the first value to the last.
//
// Few rows read packed weights directly. For many rows, two groups' share of some super-blocks is
// unpacked into bytes and float scales that stay in the first-level cache, and all rows pass over
// it.
//
// Include after a products_simd_*.h. Everything here has internal linkage.
#pragma once

#include "products_formats.h"
#include "products_kernels.h"

#define OWN_LAMBDA __attribute__((always_inline))
#define OWN_UNROLL _Pragma("GCC unroll 16")
// Register blocks are functions of their own: together in one, the compiler runs out of registers.
#define OWN_ALONE __attribute__((noinline))

namespace own {
namespace {

// --- Activations ---------------------------------------------------------------------------------

inline void quantize(const float * source, int values, bool scaled, QuantizedActivations & target) {
    for (int b = 0; b < super_blocks; b++) {
        int32_t sums[2] = {0, 0};
        float scale = 0;
        if (b * block_values < values) {
            scale =
                quantize_block(source + b * block_values, target.values + b * block_values, sums);
        } else {
            __builtin_memset(target.values + b * block_values, 0, block_values);
        }
        target.scales[b] = scale;
        if (scaled) {
            target.sums[b].negative_scaled = -(scale * static_cast<float>(sums[0] + sums[1]));
            target.half_sums[2 * b].negative_scaled = -(scale * static_cast<float>(sums[0]));
            target.half_sums[2 * b + 1].negative_scaled = -(scale * static_cast<float>(sums[1]));
        } else {
            target.sums[b].negative = -(sums[0] + sums[1]);
            target.half_sums[2 * b].negative = -sums[0];
            target.half_sums[2 * b + 1].negative = -sums[1];
        }
    }
}

inline void store_activations(
    Activations kind, const float * source, int values, uint8_t * target) {
    if (kind == Activations::floats) {
        __builtin_memcpy(target, source, values * sizeof(float));
    } else {
        quantize(
            source, values, kind == Activations::scaled_sums,
            *reinterpret_cast<QuantizedActivations *>(target));
    }
}

// --- Quantized weights ---------------------------------------------------------------------------

// Scales and minima of a super-block of one group.
struct Scales {
    alignas(64) float scales[2 * super_blocks * row_floats];
    alignas(64) float minima[2 * super_blocks * row_floats];
};

// How many dot products a block has: one for each scale.
template <class Format> constexpr int parts = Format::halves ? 2 : 1;

template <class Format>
OWN_INLINE const QuantizedActivations::Sum & sum_of_part(
    const QuantizedActivations & row, int b, int part) {
    return Format::halves ? row.half_sums[2 * b + part] : row.sums[b];
}

// The dot products of one part of a block of MR groups with NR rows.
template <class Format, int MR, int NR, class Block> OWN_INLINE void compute_dots(
    Ints (&totals)[MR][NR], const Block (&weights)[MR], const QuantizedActivations * rows, int b,
    int part) {
    constexpr int steps = 8 / parts<Format>;
    using PartDots = Dots<Format::bits, Format::offset_bits, steps>;
    constexpr int at_a_time = PartDots::at_a_time;
    PartDots dots[MR][NR];
    OWN_UNROLL
    for (int n = 0; n < NR; n++) {
        const auto & sum = sum_of_part<Format>(rows[n], b, part);
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            dots[m][n].begin(&sum.negative);
        }
    }
    OWN_UNROLL
    for (int step = 0; step < steps; step += at_a_time) {
        const int first = part * steps + step;
        Ints bytes[MR][at_a_time];
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            OWN_UNROLL
            for (int each = 0; each < at_a_time; each++) {
                bytes[m][each] = weights[m].values(first + each);
            }
        }
        OWN_UNROLL
        for (int n = 0; n < NR; n++) {
            const int8_t * values = rows[n].values + b * block_values + first * 4;
            Ints fours[at_a_time];
            OWN_UNROLL
            for (int each = 0; each < at_a_time; each++) {
                fours[each] = broadcast(values + each * 4);
            }
            OWN_UNROLL
            for (int m = 0; m < MR; m++) {
                dots[m][n].add(step, bytes[m], fours);
            }
        }
    }
    OWN_UNROLL
    for (int n = 0; n < NR; n++) {
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            totals[m][n] = dots[m][n].total();
        }
    }
}

// Add a block to `sums`, whose dot products `compute(totals, part)` gives.
template <class Format, int MR, int NR, class Compute> OWN_INLINE void add_dots(
    Floats (&sums)[MR][NR], const Scales * const (&scales)[MR], const QuantizedActivations * rows,
    int b, const Compute & compute) {
    Floats scaled[MR][NR];
    OWN_UNROLL
    for (int part = 0; part < parts<Format>; part++) {
        const int of_part = (b * parts<Format> + part) * row_floats;
        Ints totals[MR][NR];
        compute(totals, part);
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            const Floats scale = load_floats(scales[m]->scales + of_part);
            OWN_UNROLL
            for (int n = 0; n < NR; n++) {
                const Floats product = to_floats(totals[m][n]);
                scaled[m][n] =
                    part ? multiply_add(product, scale, scaled[m][n]) : multiply(product, scale);
            }
        }
    }
    OWN_UNROLL
    for (int n = 0; n < NR; n++) {
        const Floats scale = broadcast_float(&rows[n].scales[b]);
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            sums[m][n] = multiply_add(scaled[m][n], scale, sums[m][n]);
        }
    }
    if constexpr (Format::minima) {
        OWN_UNROLL
        for (int part = 0; part < parts<Format>; part++) {
            const int of_part = (b * parts<Format> + part) * row_floats;
            OWN_UNROLL
            for (int n = 0; n < NR; n++) {
                const auto & sum = sum_of_part<Format>(rows[n], b, part);
                const Floats negative = broadcast_float(&sum.negative_scaled);
                OWN_UNROLL
                for (int m = 0; m < MR; m++) {
                    const Floats minimum = load_floats(scales[m]->minima + of_part);
                    sums[m][n] = multiply_add(minimum, negative, sums[m][n]);
                }
            }
        }
    }
}

// Add the products of one block of MR groups and NR rows to `sums`.
template <class Format, int MR, int NR, class Block> OWN_INLINE void add_block(
    Floats (&sums)[MR][NR], const Block (&weights)[MR], const Scales * const (&scales)[MR],
    const QuantizedActivations * rows, int b) {
    add_dots<Format>(sums, scales, rows, b, [&](Ints(&totals)[MR][NR], int part) OWN_LAMBDA {
        compute_dots<Format>(totals, weights, rows, b, part);
    });
}

template <int MR, int NR>
OWN_INLINE void store_sums(const Floats (&sums)[MR][NR], float * outputs, int stride) {
    OWN_UNROLL
    for (int n = 0; n < NR; n++) {
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            store_floats(outputs + n * stride + m * row_floats, sums[m][n]);
        }
    }
}

template <int MR, int NR>
OWN_INLINE void load_sums(Floats (&sums)[MR][NR], const float * outputs, int stride, bool begin) {
    OWN_UNROLL
    for (int n = 0; n < NR; n++) {
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            sums[m][n] = begin ? zero_floats() : load_floats(outputs + n * stride + m * row_floats);
        }
    }
}

// Where the weights are that will be read soon: some way on from `at`, in a group that ends at
// `end`, or that far into the group that comes after the MR groups of now.
template <int MR>
OWN_INLINE const uint8_t * soon(const uint8_t * at, const uint8_t * end, size_t group_bytes) {
    constexpr int ahead = 4096;  // memory needs that long
    return at + ahead < end ? at + ahead : at + ahead + (MR - 1) * group_bytes;
}

template <class Format> OWN_INLINE void prefetch_block(const uint8_t * at) {
    OWN_UNROLL
    for (int line = 0; line < (Format::block_bytes + 63) / 64; line++) {
        prefetch(at + line * 64);
    }
}

// MR groups times NR rows from `first` on, reading the packed weights.
template <class Format, int MR, int NR>
OWN_ALONE void multiply_packed(const ProductTile & tile, int group, int first) {
    Floats sums[MR][NR];
    Scales scales[MR];
    const Scales * scales_of[MR];
    const uint8_t * weights[MR];
    const uint8_t * ends[MR];
    for (int m = 0; m < MR; m++) {
        scales_of[m] = &scales[m];
        weights[m] = tile.weights + (group + m) * tile.group_bytes;
        ends[m] = weights[m] + tile.group_bytes;
    }
    load_sums(sums, nullptr, 0, true);
    const uint8_t * activations = tile.activations + first * sizeof(QuantizedActivations);
    const bool from_memory = first == 0;
    for (int64_t rest = tile.values / block_values; rest > 0; rest -= super_blocks) {
        const int blocks =
            rest < super_blocks ? static_cast<int>(rest) : static_cast<int>(super_blocks);
        for (int m = 0; m < MR; m++) {
            Format::decode_scales(weights[m], blocks, scales[m].scales, scales[m].minima);
        }
        const auto * rows = reinterpret_cast<const QuantizedActivations *>(activations);
        for (int b = 0; b < blocks; b++) {
            if (from_memory) {
                for (int m = 0; m < MR; m++) {
                    const uint8_t * at = weights[m] + b * Format::block_bytes;
                    prefetch_block<Format>(soon<MR>(at, ends[m], tile.group_bytes));
                }
            }
            if constexpr (MR == 1) {
                const typename Format::Block block[1] = {{weights[0], blocks, b}};
                add_block<Format>(sums, block, scales_of, rows, b);
            } else {
                const typename Format::Block block[2] = {
                    {weights[0], blocks, b}, {weights[1], blocks, b}};
                add_block<Format>(sums, block, scales_of, rows, b);
            }
        }
        for (int m = 0; m < MR; m++) {
            weights[m] += Format::bytes(blocks);
        }
        activations += tile.super_stride;
    }
    const int stride = tile.groups * row_floats;
    store_sums(sums, tile.outputs + first * stride + group * row_floats, stride);
}

// One super-block of one group as bytes and floats.
struct UnpackedSuper {
    alignas(64) uint8_t values[super_values * group_rows];
    Scales scales;
};

struct UnpackedBlock {
    const uint8_t * at;
    Ints values(int k) const { return load_ints(at + k * vector); }
};

// `is_signed`: less the offset, as signed bytes.
template <class Format, bool is_signed> OWN_ALONE void unpack(
    const uint8_t * weights, int blocks, const uint8_t * next, UnpackedSuper & target) {
    constexpr int offset = is_signed && Format::offset_bits ? 1 << Format::offset_bits : 0;
    Format::decode_scales(weights, blocks, target.scales.scales, target.scales.minima);
    for (int b = 0; b < blocks; b++) {
        const typename Format::Block block(weights, blocks, b);
        prefetch_block<Format>(next + b * Format::block_bytes);
        uint8_t * values = target.values + b * 8 * vector;
        OWN_UNROLL
        for (int k = 0; k < 8; k++) {
            store_ints(values + k * vector, subtract_bytes<offset>(block.values(k)));
        }
    }
}

// Some super-blocks of the groups that are computed at a time.
enum : int { stage_supers = 2 };
struct Stage {
    UnpackedSuper supers[stage_supers][groups_at_a_time];
    int64_t blocks;  // of all its super-blocks
};

// MR groups times NR rows over the super-blocks of a stage, added to `outputs`.
template <class Format, int MR, int NR> OWN_ALONE void multiply_stage(
    const Stage & stage, const uint8_t * activations, size_t super_stride, float * outputs,
    int stride, bool begin) {
    Floats sums[MR][NR];
    load_sums(sums, outputs, stride, begin);
    int64_t rest = stage.blocks;
    for (int super = 0; rest > 0; super++, rest -= super_blocks, activations += super_stride) {
        const int blocks =
            rest < super_blocks ? static_cast<int>(rest) : static_cast<int>(super_blocks);
        const auto * rows = reinterpret_cast<const QuantizedActivations *>(activations);
        const UnpackedSuper * groups = stage.supers[super];
        for (int b = 0; b < blocks; b++) {
            if constexpr (MR == 1) {
                const UnpackedBlock block[1] = {{groups[0].values + b * 8 * vector}};
                const Scales * const scales[1] = {&groups[0].scales};
                add_block<Format>(sums, block, scales, rows, b);
            } else {
                const UnpackedBlock block[2] = {
                    {groups[0].values + b * 8 * vector}, {groups[1].values + b * 8 * vector}};
                const Scales * const scales[2] = {&groups[0].scales, &groups[1].scales};
                add_block<Format>(sums, block, scales, rows, b);
            }
        }
    }
    store_sums(sums, outputs, stride);
}

// Call f(integral constant `count`), which is 1 to `most`.
template <int value> struct Constant {
    static constexpr int count = value;
};

template <int most, class Function> OWN_INLINE void with_constant(int count, const Function & f) {
    if constexpr (most > 1) {
        if (count < most) {
            return with_constant<most - 1>(count, f);
        }
    }
    f(Constant<most>());
}

// Call f(first row, rows) for panels of at most `most` rows whose sizes differ by one at most.
template <class Function> OWN_INLINE void for_panels(int rows, int most, const Function & f) {
    const int panels = (rows + most - 1) / most;
    for (int panel = 0; panel < panels; panel++) {
        const int first = rows * panel / panels;
        f(first, rows * (panel + 1) / panels - first);
    }
}

// How all rows of a tile pass over a stage: panel by panel.
struct Panels {
    static constexpr bool is_signed = false;

    template <class Format, int MR> static void multiply(
        const Stage & stage, const uint8_t * activations, size_t super_stride, int rows,
        float * outputs, int stride, bool begin) {
        for_panels(rows, stage_rows, [&](int first, int count) {
            const uint8_t * of_panel = activations + first * sizeof(QuantizedActivations);
            with_constant<stage_rows>(count, [&](auto nr) {
                multiply_stage<Format, MR, decltype(nr)::count>(
                    stage, of_panel, super_stride, outputs + first * stride, stride, begin);
            });
        });
    }
};

template <class Pass, class Format, int MR>
void multiply_unpacked(const ProductTile & tile, int group) {
    Stage stage;
    const uint8_t * weights = tile.weights + group * tile.group_bytes;
    const uint8_t * const end = weights + tile.group_bytes;
    const uint8_t * activations = tile.activations;
    const int stride = tile.groups * row_floats;
    float * outputs = tile.outputs + group * row_floats;
    bool begin = true;
    for (int64_t rest = tile.values / block_values; rest > 0; rest -= stage.blocks) {
        stage.blocks = 0;
        for (int super = 0; super < stage_supers && stage.blocks < rest; super++) {
            const int64_t left = rest - stage.blocks;
            const int blocks =
                left < super_blocks ? static_cast<int>(left) : static_cast<int>(super_blocks);
            for (int m = 0; m < MR; m++) {
                const uint8_t * at = weights + m * tile.group_bytes;
                const uint8_t * next = soon<MR>(at, end + m * tile.group_bytes, tile.group_bytes);
                unpack<Format, Pass::is_signed>(at, blocks, next, stage.supers[super][m]);
            }
            weights += Format::bytes(blocks);
            stage.blocks += blocks;
        }
        Pass::template multiply<Format, MR>(
            stage, activations, tile.super_stride, tile.rows, outputs, stride, begin);
        activations += stage_supers * tile.super_stride;
        begin = false;
    }
}

template <class Format, int MR> void multiply_groups(const ProductTile & tile, int group) {
    constexpr int most_packed_rows = Format::halves ? 24 : 64;  // where unpacking begins to pay
    if (tile.rows > most_packed_rows) {
        multiply_unpacked<Panels, Format, MR>(tile, group);
    } else {
        for_panels(tile.rows, packed_rows, [&](int first, int rows) {
            with_constant<packed_rows>(rows, [&](auto nr) {
                multiply_packed<Format, MR, decltype(nr)::count>(tile, group, first);
            });
        });
    }
}

template <class Format> void multiply(const ProductTile & tile) {
    int group = 0;
    if constexpr (groups_at_a_time == 2) {
        const bool is_memory_bound = tile.rows <= 2;  // it is read fastest from front to back
        for (; !is_memory_bound && group + 2 <= tile.groups; group += 2) {
            multiply_groups<Format, 2>(tile, group);
        }
    }
    for (; group < tile.groups; group++) {
        multiply_groups<Format, 1>(tile, group);
    }
}

// --- Floats --------------------------------------------------------------------------------------

// MR groups times NR rows over `values` values of a super-block.
template <class Format, int MR, int NR> OWN_INLINE void add_floats(
    Floats (&sums)[MR][NR], const uint8_t * const (&weights)[MR], const uint8_t * const (&next)[MR],
    const FloatActivations * rows, int values) {
    for (int k = 0; k < values; k++) {
        Floats weight[MR];
        OWN_UNROLL
        for (int m = 0; m < MR; m++) {
            if constexpr (NR <= 2) {
                prefetch(next[m] + k * Format::value_bytes);
            }
            weight[m] = Format::value(weights[m], k);
        }
        OWN_UNROLL
        for (int n = 0; n < NR; n++) {
            const Floats value = broadcast_float(&rows[n].values[k]);
            OWN_UNROLL
            for (int m = 0; m < MR; m++) {
                sums[m][n] = multiply_add(weight[m], value, sums[m][n]);
            }
        }
    }
}

template <class Format, int MR, int NR>
OWN_ALONE void multiply_float_rows(const ProductTile & tile, int group, int first) {
    Floats sums[MR][NR];
    load_sums(sums, nullptr, 0, true);
    const uint8_t * activations = tile.activations + first * sizeof(FloatActivations);
    const uint8_t * weights[MR];
    const uint8_t * next[MR];
    for (int m = 0; m < MR; m++) {
        weights[m] = tile.weights + (group + m) * tile.group_bytes;
    }
    const uint8_t * const end = weights[0] + tile.group_bytes;
    for (int64_t rest = tile.values; rest > 0; rest -= super_values) {
        const int values =
            rest < super_values ? static_cast<int>(rest) : static_cast<int>(super_values);
        for (int m = 0; m < MR; m++) {
            next[m] = soon<MR>(weights[m], end + m * tile.group_bytes, tile.group_bytes);
        }
        add_floats<Format>(
            sums, weights, next, reinterpret_cast<const FloatActivations *>(activations), values);
        for (int m = 0; m < MR; m++) {
            weights[m] += values * Format::value_bytes;
        }
        activations += tile.super_stride;
    }
    const int stride = tile.groups * row_floats;
    store_sums(sums, tile.outputs + first * stride + group * row_floats, stride);
}

template <class Format, int MR> void multiply_float_groups(const ProductTile & tile, int group) {
    for_panels(tile.rows, float_rows, [&](int first, int rows) {
        with_constant<float_rows>(rows, [&](auto nr) {
            multiply_float_rows<Format, MR, decltype(nr)::count>(tile, group, first);
        });
    });
}

template <class Format> void multiply_floats(const ProductTile & tile) {
    int group = 0;
    if constexpr (groups_at_a_time == 2) {
        for (; group + 2 <= tile.groups; group += 2) {
            multiply_float_groups<Format, 2>(tile, group);
        }
    }
    for (; group < tile.groups; group++) {
        multiply_float_groups<Format, 1>(tile, group);
    }
}

// --- The table -----------------------------------------------------------------------------------

template <class Format> struct Multiply {
    static constexpr auto function = multiply<Format>;
};

template <template <class> class Function, class Format>
void add_quantized(ProductKernels & kernels, ggml_type type) {
    kernels.multiply[type] = Function<Format>::function;
    kernels.activations[type] = Format::minima ? Activations::scaled_sums : Activations::sums;
}

template <class Format> void add_float(ProductKernels & kernels, ggml_type type) {
    kernels.multiply[type] = multiply_floats<Format>;
    kernels.activations[type] = Activations::floats;
}

// `Function`: for quantized weights.
template <template <class> class Function = Multiply> ProductKernels make_product_kernels() {
    ProductKernels kernels = {};
    kernels.store_activations = store_activations;
    add_quantized<Function, Q8_0>(kernels, GGML_TYPE_Q8_0);
    add_quantized<Function, Q4_0>(kernels, GGML_TYPE_Q4_0);
    add_quantized<Function, Q4_1>(kernels, GGML_TYPE_Q4_1);
    add_quantized<Function, Q5_0>(kernels, GGML_TYPE_Q5_0);
    add_quantized<Function, Q5_1>(kernels, GGML_TYPE_Q5_1);
    add_quantized<Function, IQ4_NL>(kernels, GGML_TYPE_IQ4_NL);
    add_quantized<Function, IQ4_XS>(kernels, GGML_TYPE_IQ4_XS);
    add_quantized<Function, MXFP4>(kernels, GGML_TYPE_MXFP4);
    add_quantized<Function, Q2_K>(kernels, GGML_TYPE_Q2_K);
    add_quantized<Function, Q3_K>(kernels, GGML_TYPE_Q3_K);
    add_quantized<Function, Q4_K>(kernels, GGML_TYPE_Q4_K);
    add_quantized<Function, Q5_K>(kernels, GGML_TYPE_Q5_K);
    add_quantized<Function, Q6_K>(kernels, GGML_TYPE_Q6_K);
    add_float<F32>(kernels, GGML_TYPE_F32);
    add_float<F16>(kernels, GGML_TYPE_F16);
    add_float<BF16>(kernels, GGML_TYPE_BF16);
    return kernels;
}

}  // namespace
}  // namespace own
